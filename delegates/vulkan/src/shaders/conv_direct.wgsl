// A convolution of any kernel, stride, dilation and padding, and a transposed one, in groups of whole blocks of four channels.
// An invocation makes four pixels of a row for eight channels.
//
// Along a dimension, output o and kernel element k meet input (o * multiple + offset + k * step) / gap, where that is whole:
// a plain convolution has gap 1, a transposed one has multiple 1. `lift` keeps the numerator positive.
//@ workgroup 64
//@ include index
//@ include numbers
//@ include finish
//@ include channels
//@ include convolve
//@ include rows
//@ buffer x read array<$V>
//@ buffer w read array<$V>
//@ buffer bias read array<u32>
//@ buffer extra0 read array<u32>
//@ buffer extra1 read array<u32>
//@ buffer out write array<$O>
//@ variant f32 T=f32 V=vec4<f32> O=vec4<f32> LAST=1
//@ variant f16 T=f16 V=vec2<u32> O=vec2<u32> LAST=1
//@ variant rows_f32 T=f32 V=vec4<f32> O=f32 ROWS=f32
//@ variant rows_f16 T=f16 V=vec2<u32> O=u32 ROWS=f16
// params: 0 invocations, 1 tiles of outputs, 2 of them in a group, 3 output blocks of a group, 4 output blocks, 5 input blocks of a group,
// 6 input blocks, 7 tiles of a row, 8 output height, 9 output width, 10 input height, 11 input width, 12 kernel height, 13 kernel width,
// 14 outputs, 15 code of bias; down: 16 multiple, 17 offset, 18 step, 19 gap, 20 lift; across: 21 to 25; 26 the finish.
// Weights: kernel element, input block of a group, input, output block, and four outputs.

//@ if LAST
fn store(v: vec4<f32>, row: u32, across: u32, block: u32) {
    if across >= params[9] { return; }
    let at = (row * params[9] + across) * params[4] + block;
    out[at] = pack4(finish4(v, 4u * at, 4u * block, params[14], 26u));
}
//@ end
@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let tile = i % params[1];
    var rest = i / params[1];
    let across = rest % params[7];
    let row = rest / params[7];
    let down = row % params[8];
    let n = row / params[8];

    let group = tile / params[2];
    let j = tile % params[2];
    let second = j + params[2] < params[3];
    let block = group * params[3] + j;
    let other = select(block, block + params[2], second);
    let outputs = params[14];
    let blocks = params[4];
    let inner = params[5];
    let stored = params[6];
    let height = params[10];
    let width = params[11];
    let gap = params[24];
    // Pixels of a tile are `gap` apart: they meet the same kernel elements.
    let first = across % gap + (across / gap) * 4u * gap;
    let advance = params[21];

    var a0 = bias4(4u * block, outputs, params[15]);
    var a1 = a0;
    var a2 = a0;
    var a3 = a0;
    var b0 = bias4(4u * other, outputs, params[15]);
    var b1 = b0;
    var b2 = b0;
    var b3 = b0;
    for (var ky = 0u; ky < params[12]; ky++) {
        let over = down * params[16] + params[17] + ky * params[18] + params[19] * params[20];
        let y = over / params[19] - params[20];
        if over % params[19] != 0u || y >= height { continue; }
        let line = (n * height + y) * width;
        for (var kx = 0u; kx < params[13]; kx++) {
            let beside = first * params[21] + params[22] + kx * params[23] + gap * params[25];
            if beside % gap != 0u { continue; }
            let z0 = beside / gap - params[25];
            let z1 = z0 + advance;
            let z2 = z1 + advance;
            let z3 = z2 + advance;
            let base = group * inner;
            let p0 = (line + select(0u, z0, z0 < width)) * stored + base;
            let p1 = (line + select(0u, z1, z1 < width)) * stored + base;
            let p2 = (line + select(0u, z2, z2 < width)) * stored + base;
            let p3 = (line + select(0u, z3, z3 < width)) * stored + base;
            var at = (ky * params[13] + kx) * inner * 4u * blocks;
            for (var k = 0u; k < inner; k++) {
                let x0 = select(vec4<f32>(0.0), unpack4(x[p0 + k]), z0 < width);
                let x1 = select(vec4<f32>(0.0), unpack4(x[p1 + k]), z1 < width);
                let x2 = select(vec4<f32>(0.0), unpack4(x[p2 + k]), z2 < width);
                let x3 = select(vec4<f32>(0.0), unpack4(x[p3 + k]), z3 < width);
                for (var c = 0u; c < 4u; c++) {
                    let u = unpack4(w[at + block]);
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
        }
    }
//@ if LAST
    store(a0, row, first, block);
    store(a1, row, first + gap, block);
    store(a2, row, first + 2u * gap, block);
    store(a3, row, first + 3u * gap, block);
    if second {
        store(b0, row, first, other);
        store(b1, row, first + gap, other);
        store(b2, row, first + 2u * gap, other);
        store(b3, row, first + 3u * gap, other);
    }
//@ end
//@ if ROWS
    store_rows(a0, a1, a2, a3, row, first, gap, block, params[14], params[8], params[9], 26u);
    if second { store_rows(b0, b1, b2, b3, row, first, gap, other, params[14], params[8], params[9], 26u); }
//@ end
}
