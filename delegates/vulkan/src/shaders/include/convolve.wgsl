// What the kernels of a convolution share: bias and the end of an invocation.
// Each is called at one place of a kernel, in a loop: drivers insert the text of functions where they are called.
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
        for (var k = 0u; k < 4u; k++) { y[k] = finish(x[k], i + k, at); }
    }
    return only4(y, c, channels);
}

// One of four or eight sums: an array with an index would lie in memory.
fn fourth(r: u32, a0: vec4<f32>, a1: vec4<f32>, a2: vec4<f32>, a3: vec4<f32>) -> vec4<f32> {
    return select(select(a0, a1, r == 1u), select(a2, a3, r == 3u), r >= 2u);
}

fn eighth(
    r: u32, a0: vec4<f32>, a1: vec4<f32>, a2: vec4<f32>, a3: vec4<f32>,
    b0: vec4<f32>, b1: vec4<f32>, b2: vec4<f32>, b3: vec4<f32>,
) -> vec4<f32> {
    return select(fourth(r, a0, a1, a2, a3), fourth(r - 4u, b0, b1, b2, b3), r >= 4u);
}
