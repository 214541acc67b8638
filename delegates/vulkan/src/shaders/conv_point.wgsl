// A product of matrices over four channels at once: every pixel's channels times the weights. A convolution of 1 by 1, and the middle of
// Winograd's (then `batch` is one of its 16 products). An invocation makes four pixels of eight channels.
//@ workgroup 64
//@ include index
//@ include numbers
//@ include finish
//@ include channels
//@ include convolve
//@ buffer x read array<$V>
//@ buffer w read array<$V>
//@ buffer bias read array<u32>
//@ buffer extra0 read array<u32>
//@ buffer extra1 read array<u32>
//@ buffer out write array<$V>
//@ variant f32 T=f32 V=vec4<f32>
//@ variant f16 T=f16 V=vec2<u32>
// params: 0 invocations, 1 tiles of outputs, 2 blocks of outputs, 3 blocks of inputs, 4 tiles of pixels, 5 pixels, 6 outputs,
// 7 code of bias; 8 the finish. Weights: input block, input, output block, and four outputs.

fn store(v: vec4<f32>, pixel: u32, block: u32, base: u32) {
    let at = base + pixel * params[2] + block;
    out[at] = pack4(finish4(v, 4u * at, 4u * block, params[6], 8u));
}

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
    var a0 = bias4(4u * tile, params[6], params[7]);
    var a1 = a0;
    var a2 = a0;
    var a3 = a0;
    var b0 = bias4(4u * other, params[6], params[7]);
    var b1 = b0;
    var b2 = b0;
    var b3 = b0;
    for (var k = 0u; k < inner; k++) {
        let x0 = unpack4(x[p0 + k]);
        let x1 = unpack4(x[p1 + k]);
        let x2 = unpack4(x[p2 + k]);
        let x3 = unpack4(x[p3 + k]);
        for (var c = 0u; c < 4u; c++) {
            let u = unpack4(w[at + tile]);
            let v = unpack4(w[at + other]);
            a0 += x0[c] * u;
            a1 += x1[c] * u;
            a2 += x2[c] * u;
            a3 += x3[c] * u;
            b0 += x0[c] * v;
            b1 += x1[c] * v;
            b2 += x2[c] * v;
            b3 += x3[c] * v;
            at += blocks;
        }
    }
    let base = start * blocks;
    store(a0, first, tile, base);
    if second { store(b0, first, other, base); }
    if first + 1u < pixels {
        store(a1, first + 1u, tile, base);
        if second { store(b1, first + 1u, other, base); }
    }
    if first + 2u < pixels {
        store(a2, first + 2u, tile, base);
        if second { store(b2, first + 2u, other, base); }
    }
    if first + 3u < pixels {
        store(a3, first + 3u, tile, base);
        if second { store(b3, first + 3u, other, base); }
    }
}
