// Keys: two words whose order as unsigned numbers, the high one first, is the order of the elements.
// NaN is above everything; -0 and 0 are the same. Needs `include reduce_rows`.

fn float_key(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    if (bits & 0x7fffffffu) > 0x7f800000u { return 0xffffffffu; }
    if (bits & 0x7fffffffu) == 0u { return 0x80000000u; }
    return bits ^ select(0x80000000u, 0xffffffffu, (bits >> 31u) == 1u);
}

// Low word, high word.
fn key_of(i: u32, code: u32) -> vec2<u32> {
    if code <= BF16 { return vec2<u32>(0u, float_key(element(i, code))); }
    let value = whole(i, code);
    if code == I64 { return vec2<u32>(value.x, value.y ^ 0x80000000u); }
    return vec2<u32>(0u, value.x ^ 0x80000000u);
}

fn above(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.y > b.y || (a.y == b.y && a.x > b.x);
}
