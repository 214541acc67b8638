// The index that the low word of an index element stands for: counted from the end where it is negative, and kept in range. `extent` 0: it is a place already.
fn chosen_of(low: u32, extent: u32) -> u32 {
    if extent == 0u { return low; }
    let counted = bitcast<i32>(low) + select(0, bitcast<i32>(extent), bitcast<i32>(low) < 0);
    return bitcast<u32>(clamp(counted, 0, bitcast<i32>(extent) - 1));
}
