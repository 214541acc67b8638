// What the kernels of a convolution share: bias and the end of an invocation.
// Needs `include channels` and `include finish`, and a buffer `bias` (array<u32>).

// The biases of four channels. `code` is the type's code, or 255 for none.
fn bias4(c: u32, channels: u32, code: u32) -> vec4<f32> {
    if code == 255u { return vec4<f32>(0.0); }
    var b = vec4<f32>(0.0);
    for (var k = 0u; k < 4u; k++) {
        if c + k < channels { b[k] = float_from(bias[word_of(c + k, code)], c + k, code); }
    }
    return b;
}

// `i`: the place of the first of four elements that lie side by side.
fn finish4(x: vec4<f32>, i: u32, c: u32, channels: u32, at: u32) -> vec4<f32> {
    var y = x;
    if params[at] != 0u {
        y = vec4<f32>(finish(x.x, i, at), finish(x.y, i + 1u, at), finish(x.z, i + 2u, at), finish(x.w, i + 3u, at));
    }
    return only4(y, c, channels);
}
