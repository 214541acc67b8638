// Rows of a tensor: elements that are kept, and for each of them those that are reduced. Both are lists of dimensions among the parameters,
// made by `Rows` of `operators/reduce_rows.rs`: the number of dimensions, then size and stride of each, the innermost first.
// Needs `include numbers` and the buffer `x` (array<u32>).

// Where element `i` of a list of dimensions at `at` is, from the start of the list.
fn strided(i: u32, at: u32) -> u32 {
    let rank = params[at];
    var rest = i;
    var offset = 0u;
    for (var d = 0u; d + 1u < rank; d++) {
        let size = params[at + 1u + 2u * d];
        let next = rest / size;
        offset += (rest - next * size) * params[at + 2u + 2u * d];
        rest = next;
    }
    if rank > 0u { offset += rest * params[at + 2u * rank]; }
    return offset;
}

// Element `i` of `x` as a float; 64-bit integers with both their words.
fn element(i: u32, code: u32) -> f32 {
    if code == F32 { return bitcast<f32>(x[i]); }
    if code == I64 {
        let low = x[2u * i];
        let high = x[2u * i + 1u];
        // A small number is exact; of a large negative one the size is converted, so that nothing cancels.
        if high == select(0u, 0xffffffffu, bitcast<i32>(low) < 0) { return f32(bitcast<i32>(low)); }
        if bitcast<i32>(high) < 0 {
            return -(f32(~high + select(0u, 1u, low == 0u)) * 4294967296.0 + f32(~low + 1u));
        }
        return f32(high) * 4294967296.0 + f32(low);
    }
    return float_from(x[word_of(i, code)], i, code);
}

// Element `i` of `x` as an integer of 64 bits: low word, high word.
fn whole(i: u32, code: u32) -> vec2<u32> {
    if code == I64 { return vec2<u32>(x[2u * i], x[2u * i + 1u]); }
    let low = int_from(x[word_of(i, code)], i, code);
    return vec2<u32>(bitcast<u32>(low), select(0u, 0xffffffffu, low < 0));
}

// The bits of element `i` of `x` in the low end of a word; of 64 bits the low ones.
fn bits_at(i: u32, code: u32) -> u32 {
    let shift = lanes_shift(code);
    let word = x[word_of(i, code)];
    if shift == 0u { return word; }
    let width = 32u >> shift;
    return extractBits(word, (i & ((1u << shift) - 1u)) * width, width);
}

// Bits of an element where lane `lane` of a word is: to be joined by `|`.
fn in_lane(bits: u32, lane: u32, code: u32) -> u32 {
    return bits << (lane * (32u >> lanes_shift(code)));
}

fn nan() -> f32 {
    return bitcast<f32>(params[0] | 0x7fc00000u);
}

fn infinity() -> f32 {
    return bitcast<f32>((params[0] & 0u) | 0x7f800000u);
}
