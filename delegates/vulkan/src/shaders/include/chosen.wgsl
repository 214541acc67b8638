// The index that an element of an index tensor stands for, of one word or two: counted from the end where it is negative, unless STRICT is set
// among its `words`. One that is out of range sets the buffer `flag`, and is moved to the nearest that there is, so that nothing outside is
// touched. `extent` 0: it is a place already.
const STRICT: u32 = 4u;

fn chosen_of(low: u32, last: u32, words: u32, extent: u32) -> u32 {
    if extent == 0u { return low; }
    let sign = select(0u, 0xffffffffu, low >= 0x80000000u);
    let lift = select(sign & extent, 0u, (words & STRICT) != 0u);
    let counted = bitcast<i32>(low + lift);
    if counted < 0 || counted >= bitcast<i32>(extent) || ((words & 2u) != 0u && last != sign) {
        atomicOr(&flag[0], 1u);
    }
    return bitcast<u32>(clamp(counted, 0, bitcast<i32>(extent) - 1));
}
