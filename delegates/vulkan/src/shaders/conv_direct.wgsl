// A convolution of any kernel, stride, dilation and padding, and a transposed one, in groups of whole blocks of four channels.
// An invocation makes four pixels of a row for eight channels.
//
// Along a dimension, output o and kernel element k meet input (o * multiple + offset + k * step) / gap, where that is whole:
// a plain convolution has gap 1, a transposed one has multiple 1. `lift` keeps the numerator positive.
//@ workgroup 64
//@ include index
//@ include numbers
//@ include ops
//@ if ANY
//@ include finish
//@ end
//@ include channels
//@ include convolve
//@ include rows
//@ buffer x read array<$V>
//@ buffer w read array<$V>
//@ buffer bias read array<u32>
//@ buffer extra0 read array<u32>
//@ buffer extra1 read array<u32>
//@ buffer out write array<$O>
//@ variant f32 T=f32 V=vec4<f32> O=vec4<f32> LAST=1 FEW=1
//@ variant any_f32 T=f32 V=vec4<f32> O=vec4<f32> LAST=1 ANY=1
//@ variant f16 T=f16 V=vec2<u32> O=vec2<u32> LAST=1 FEW=1
//@ variant any_f16 T=f16 V=vec2<u32> O=vec2<u32> LAST=1 ANY=1
//@ variant rows_f32 T=f32 V=vec4<f32> O=f32 ROWS=f32 FEW=1
//@ variant any_rows_f32 T=f32 V=vec4<f32> O=f32 ROWS=f32 ANY=1
//@ variant rows_f16 T=f16 V=vec2<u32> O=u32 ROWS=f16 FEW=1
//@ variant any_rows_f16 T=f16 V=vec2<u32> O=u32 ROWS=f16 ANY=1
// params: 0 invocations, 1 tiles of outputs, 2 of them in a group, 3 output blocks of a group, 4 output blocks, 5 input blocks of a group,
// 6 input blocks, 7 tiles of a row, 8 output height, 9 output width, 10 input height, 11 input width, 12 kernel height, 13 kernel width,
// 14 outputs, 15 code of bias; down: 16 multiple, 17 offset, 18 whole part and 19 rest of step / gap, 20 gap, 21 lift; across: 22 to 27;
// 28 the finish.
// Weights: kernel element, input block of a group, input, output block, and four outputs.

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
    let code = params[15];
    let kernel_height = params[12];
    let kernel_width = params[13];
    let gap = params[26];
    // Pixels of a tile are `gap` apart: they meet the same kernel elements.
    let first = across % gap + (across / gap) * 4u * gap;
    let advance = params[22];

    var a0 = vec4<f32>(0.0);
    var a1 = a0;
    var a2 = a0;
    var a3 = a0;
    var b0 = a0;
    var b1 = b0;
    var b2 = b0;
    var b3 = b0;
    let gap_down = params[20];
    let whole_down = params[18];
    let rest_down = params[19];
    let whole_across = params[24];
    let rest_across = params[25];
    // Quotient and rest of the numerator: divisions are slow, so they are carried along.
    let start_down = down * params[16] + params[17] + gap_down * params[21];
    let start_across = first * advance + params[23] + gap * params[27];
    var next_down = start_down / gap_down - params[21];
    var over_down = start_down % gap_down;
    let base = group * inner;
    for (var ky = 0u; ky < kernel_height; ky++) {
        let y = next_down;
        let meets_down = over_down == 0u && y < height;
        next_down += whole_down;
        over_down += rest_down;
        if over_down >= gap_down {
            over_down -= gap_down;
            next_down += 1u;
        }
        if !meets_down { continue; }
        let line = (n * height + y) * width;
        var next_across = start_across / gap - params[27];
        var over_across = start_across % gap;
        for (var kx = 0u; kx < kernel_width; kx++) {
            let z0 = next_across;
            let meets = over_across == 0u;
            next_across += whole_across;
            over_across += rest_across;
            if over_across >= gap {
                over_across -= gap;
                next_across += 1u;
            }
            if !meets { continue; }
            let z1 = z0 + advance;
            let z2 = z1 + advance;
            let z3 = z2 + advance;
            let p0 = (line + select(0u, z0, z0 < width)) * stored + base;
            let p1 = (line + select(0u, z1, z1 < width)) * stored + base;
            let p2 = (line + select(0u, z2, z2 < width)) * stored + base;
            let p3 = (line + select(0u, z3, z3 < width)) * stored + base;
            var at = (ky * kernel_width + kx) * inner * 4u * blocks;
            for (var k = 0u; k < inner; k++) {
                let x0 = select(vec4<f32>(0.0), unpack4(x[p0 + k]), z0 < width);
                let x1 = select(vec4<f32>(0.0), unpack4(x[p1 + k]), z1 < width);
                let x2 = select(vec4<f32>(0.0), unpack4(x[p2 + k]), z2 < width);
                let x3 = select(vec4<f32>(0.0), unpack4(x[p3 + k]), z3 < width);
                let u = mat4x4<f32>(unpack4(w[at + block]), unpack4(w[at + blocks + block]), unpack4(w[at + 2u * blocks + block]), unpack4(w[at + 3u * blocks + block]));
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
        }
    }
//@ if LAST
    for (var r = 0u; r < 8u; r++) {
        let place = first + (r % 4u) * gap;
        if place >= params[9] || (r >= 4u && !second) { continue; }
        let to = select(block, other, r >= 4u);
        let at = (row * params[9] + place) * blocks + to;
        let sum = eighth(r, a0, a1, a2, a3, b0, b1, b2, b3) + bias4(4u * to, outputs, code);
        out[at] = pack4(finish4(sum, 4u * at, 4u * to, outputs, 28u));
    }
//@ end
//@ if ROWS
    for (var r = 0u; r < 8u; r += 4u) {
        if r == 4u && !second { continue; }
        let to = select(block, other, r == 4u);
        let b = bias4(4u * to, outputs, code);
        let sums = mat4x4<f32>(select(a0, b0, r == 4u), select(a1, b1, r == 4u), select(a2, b2, r == 4u), select(a3, b3, r == 4u));
        store_rows(sums[0] + b, sums[1] + b, sums[2] + b, sums[3] + b, row, first, gap, to, outputs, params[8], params[9], 28u);
    }
//@ end
}
