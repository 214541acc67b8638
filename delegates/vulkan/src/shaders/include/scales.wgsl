// Scales and zero points of weights. params 33: elements along k that share a scale, steps of scales from a column to the next and from a
// group to the next; flags: 1 scales, 2 zero points, 8 scales of 64 bits; code of the zero points << 8.
// Needs `include numbers`, `include double` and the buffers `scales` and `zeros` (array<u32>).
fn scale_of(n: u32, group: u32) -> f32 {
    if (params[36] & 1u) == 0u { return 1.0; }
    let i = n * params[34] + group * params[35];
    if (params[36] & 8u) != 0u { return f32_of_double(scales[2u * i], scales[2u * i + 1u]); }
    return bitcast<f32>(scales[i]);
}

fn zero_of(n: u32, group: u32) -> f32 {
    if (params[36] & 2u) == 0u { return 0.0; }
    let i = n * params[34] + group * params[35];
    let code = params[36] >> 8u;
    return f32(int_from(zeros[word_of(i, code)], i, code));
}
