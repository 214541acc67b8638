// What the kernels of a convolution share: bias and the end of an invocation.
// Each is called at one place of a kernel, in a loop: drivers insert the text of functions where they are called, and those that compute on
// the processor run all branches. For that reason there are variants: FEW applies the links that most networks have, to four elements at once;
// ANY has all of `finish()`.
// Needs `include channels`, `include ops`, for ANY `include finish`, and the buffers `bias`, `extra0` and `extra1` (array<u32>). Bias and extra
// tensors are of the type T.

//@ if T=f32
fn bias_at(at: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(vec4<u32>(bias[at.x], bias[at.y], bias[at.z], bias[at.w]));
}
//@ end
//@ if T=f16
fn bias_at(at: vec4<u32>) -> vec4<f32> {
    let words = vec4<u32>(bias[at.x >> 1u], bias[at.y >> 1u], bias[at.z >> 1u], bias[at.w >> 1u]) >> ((at & vec4<u32>(1u)) * 16u);
    return vec4<f32>(unpack2x16float(words.x).x, unpack2x16float(words.y).x, unpack2x16float(words.z).x, unpack2x16float(words.w).x);
}
//@ end

// The biases of four channels, of which those beyond the end mean nothing. `code` is 255 for none.
fn bias4(c: u32, channels: u32, code: u32) -> vec4<f32> {
    if code == 255u { return vec4<f32>(0.0); }
    return bias_at(min(vec4<u32>(c) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(channels - 1u)));
}

//@ if FEW
//@ if T=f32
fn extra4(slot: u32, i: u32) -> vec4<f32> {
    if slot == 1u { return bitcast<vec4<f32>>(vec4<u32>(extra0[i], extra0[i + 1u], extra0[i + 2u], extra0[i + 3u])); }
    return bitcast<vec4<f32>>(vec4<u32>(extra1[i], extra1[i + 1u], extra1[i + 2u], extra1[i + 3u]));
}
//@ end
//@ if T=f16
fn extra4(slot: u32, i: u32) -> vec4<f32> {
    let j = i >> 1u;
    if slot == 1u { return unpack4(vec2<u32>(extra0[j], extra0[j + 1u])); }
    return unpack4(vec2<u32>(extra1[j], extra1[j + 1u]));
}
//@ end

fn nans4(x: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(x) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
}

fn clamp4(x: vec4<f32>, low: vec4<f32>, high: vec4<f32>) -> vec4<f32> {
    return select(min(max(x, low), high), x, nans4(x));
}

fn hard4(x: vec4<f32>) -> vec4<f32> {
    return clamp4(x + vec4<f32>(3.0), vec4<f32>(0.0), vec4<f32>(6.0)) * (1.0 / 6.0);
}

// The operations of `FEW` in `operators/conv/fast.rs`; x, y and z are as in `include/ops.wgsl`.
fn link4(op: u32, x: vec4<f32>, y: vec4<f32>, z: f32) -> vec4<f32> {
    switch op {
        case OP_ADD: { return x + z * y; }
        case OP_MUL: { return x * y; }
        case OP_MAX: { return select(select(max(x, y), x, nans4(x)), y, nans4(y)); }
        case OP_CLAMP: { return clamp4(x, y, vec4<f32>(z)); }
        case OP_HARDSWISH: { return x * hard4(x); }
        case OP_HARDSIGMOID: { return hard4(x); }
        case OP_LEAKY: { return select(x * y, x, x > vec4<f32>(0.0)); }
//@ if T=f16
        case OP_AS: { return unpack4(pack4(x)); }
//@ end
        default: { return x; }
    }
}

// `i`: the place of the first of four elements that lie side by side.
fn finish4(x: vec4<f32>, i: u32, c: u32, channels: u32, at: u32) -> vec4<f32> {
    var made = x;
    for (var k = 0u; k < params[at]; k++) {
        let base = at + 1u + 5u * k;
        let head = params[base];
        let slot = (head >> 8u) & 15u;
        var y = vec4<f32>(bitcast<f32>(params[base + 1u]));
        if slot != 0u { y = extra4(slot, i); }
        made = link4(head & 255u, made, y, bitcast<f32>(params[base + 3u]));
    }
    return only4(made, c, channels);
}
//@ end
//@ if ANY
// `i`: the place of the first of four elements that lie side by side.
fn finish4(x: vec4<f32>, i: u32, c: u32, channels: u32, at: u32) -> vec4<f32> {
    var y = x;
    if params[at] != 0u {
        for (var k = 0u; k < 4u; k++) { y[k] = finish(x[k], i + k, at); }
    }
    return only4(y, c, channels);
}
//@ end

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
