// A product of matrices over four channels at once: every pixel's channels times the weights. A convolution of 1 by 1, and the middle of
// Winograd's (then `batch` is one of its 16 products). An invocation makes four pixels of eight channels.
//@ workgroup 64
//@ include index
//@ include numbers
//@ include ops
//@ if ANY
//@ include finish
//@ end
//@ include channels
//@ include convolve
//@ buffer x read array<$V>
//@ buffer w read array<$V>
//@ buffer bias read array<u32>
//@ buffer extra0 read array<u32>
//@ buffer extra1 read array<u32>
//@ buffer out write array<$V>
//@ variant f32 T=f32 V=vec4<f32> FEW=1
//@ variant any_f32 T=f32 V=vec4<f32> ANY=1
//@ variant f16 T=f16 V=vec2<u32> FEW=1
//@ variant any_f16 T=f16 V=vec2<u32> ANY=1
// params: 0 invocations, 1 tiles of outputs, 2 blocks of outputs, 3 blocks of inputs, 4 tiles of pixels, 5 pixels, 6 outputs,
// 7 code of bias; 8 the finish. Weights: input block, input, output block, and four outputs.

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let tiles = params[1];
    let blocks = params[2];
    let inner = params[3];
    let pixels = params[5];
    let tile = i % tiles;
    let rest = i / tiles;
    let first = 4u * (rest % params[4]);
    let batch = rest / params[4];
    let second = tile + tiles < blocks;
    let other = select(tile, tile + tiles, second);

    // Pixels beyond the end read the last one.
    let start = batch * pixels;
    var p0 = (start + first) * inner;
    var p1 = (start + min(first + 1u, pixels - 1u)) * inner;
    var p2 = (start + min(first + 2u, pixels - 1u)) * inner;
    var p3 = (start + min(first + 3u, pixels - 1u)) * inner;
    var at = batch * inner * 4u * blocks;
    var a0 = vec4<f32>(0.0);
    var a1 = a0;
    var a2 = a0;
    var a3 = a0;
    var b0 = a0;
    var b1 = b0;
    var b2 = b0;
    var b3 = b0;
    for (var k = 0u; k < inner; k++) {
        let x0 = unpack4(x[p0 + k]);
        let x1 = unpack4(x[p1 + k]);
        let x2 = unpack4(x[p2 + k]);
        let x3 = unpack4(x[p3 + k]);
        let u = mat4x4<f32>(unpack4(w[at + tile]), unpack4(w[at + blocks + tile]), unpack4(w[at + 2u * blocks + tile]), unpack4(w[at + 3u * blocks + tile]));
        let v = mat4x4<f32>(unpack4(w[at + other]), unpack4(w[at + blocks + other]), unpack4(w[at + 2u * blocks + other]), unpack4(w[at + 3u * blocks + other]));
        a0 += u * x0;
        a1 += u * x1;
        a2 += u * x2;
        a3 += u * x3;
        b0 += v * x0;
        b1 += v * x1;
        b2 += v * x2;
        b3 += v * x3;
        at += 4u * blocks;
    }
    let outputs = params[6];
    let code = params[7];
    for (var r = 0u; r < 8u; r++) {
        let pixel = first + r % 4u;
        if pixel >= pixels || (r >= 4u && !second) { continue; }
        let block = select(tile, other, r >= 4u);
        let at = (start + pixel) * blocks + block;
        let sum = eighth(r, a0, a1, a2, a3, b0, b1, b2, b3) + bias4(4u * block, outputs, code);
        out[at] = pack4(finish4(sum, 4u * at, 4u * block, outputs, 8u));
    }
}
