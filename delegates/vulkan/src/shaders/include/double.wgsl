// The nearest f32 of an f64 in two words; what is too small becomes 0.
fn f32_of_double(low: u32, high: u32) -> f32 {
    let sign = high & 0x80000000u;
    let exponent = i32((high >> 20u) & 0x7ffu) - 896;
    if exponent <= 0 { return bitcast<f32>(sign); }
    let fraction = ((high & 0xfffffu) << 3u) | (low >> 29u);
    if exponent >= 255 {
        let is_number = (high & 0x7fffffffu) < 0x7ff00000u || ((high & 0x7fffffffu) == 0x7ff00000u && low == 0u);
        return bitcast<f32>(sign | select(0x7fc00000u, 0x7f800000u, is_number));
    }
    let dropped = low & 0x1fffffffu;
    let up = dropped > 0x10000000u || (dropped == 0x10000000u && (fraction & 1u) != 0u);
    return bitcast<f32>(sign | ((u32(exponent) << 23u) + fraction + select(0u, 1u, up)));
}

// The words of the f64 that an f32 is, low first; numbers below the normal ones become 0.
fn double_of(x: f32) -> vec2<u32> {
    let bits = bitcast<u32>(x);
    let sign = bits & 0x80000000u;
    let exponent = (bits >> 23u) & 255u;
    if exponent == 0u { return vec2<u32>(0u, sign); }
    let fraction = bits & 0x7fffffu;
    let wide = select(exponent + 896u, 0x7ffu, exponent == 255u);
    return vec2<u32>(fraction << 29u, sign | (wide << 20u) | (fraction >> 3u));
}
