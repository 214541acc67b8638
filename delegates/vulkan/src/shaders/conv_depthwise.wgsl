// A convolution in which each channel is a group: an invocation makes four pixels of a row for four channels.
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
// params: 0 invocations, 1 blocks of channels, 2 tiles of a row, 3 output height, 4 output width, 5 input height, 6 input width,
// 7 kernel height, 8 kernel width, 9 channels, 10 code of bias, down: 11 stride, 12 padding, 13 dilation, across: 14 to 16; 17 the finish.
// Weights: kernel element, block of channels, and four channels.

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let blocks = params[1];
    let block = i % blocks;
    let rest = i / blocks;
    let first = 4u * (rest % params[2]);
    let row = rest / params[2];
    let down = row % params[3];
    let n = row / params[3];
    let height = params[5];
    let width = params[6];
    var a0 = vec4<f32>(0.0);
    var a1 = a0;
    var a2 = a0;
    var a3 = a0;
    let kernel_height = params[7];
    let kernel_width = params[8];
    let stride = params[14];
    let start_down = down * params[11] - params[12];
    let step_down = params[13];
    let start_across = first * stride - params[15];
    let step_across = params[16];
    for (var ky = 0u; ky < kernel_height; ky++) {
        let y = start_down + ky * step_down;
        if y >= height { continue; }
        let line = (n * height + y) * width;
        for (var kx = 0u; kx < kernel_width; kx++) {
            let z0 = start_across + kx * step_across;
            let z1 = z0 + stride;
            let z2 = z1 + stride;
            let z3 = z2 + stride;
            let u = unpack4(w[(ky * kernel_width + kx) * blocks + block]);
            if z0 < width { a0 += unpack4(x[(line + z0) * blocks + block]) * u; }
            if z1 < width { a1 += unpack4(x[(line + z1) * blocks + block]) * u; }
            if z2 < width { a2 += unpack4(x[(line + z2) * blocks + block]) * u; }
            if z3 < width { a3 += unpack4(x[(line + z3) * blocks + block]) * u; }
        }
    }
    let b = bias4(4u * block, params[9], params[10]);
//@ if LAST
    for (var r = 0u; r < 4u; r++) {
        let place = first + r;
        if place >= params[4] { continue; }
        let at = (row * params[4] + place) * blocks + block;
        out[at] = pack4(finish4(fourth(r, a0, a1, a2, a3) + b, 4u * at, 4u * block, params[9], 17u));
    }
//@ end
//@ if ROWS
    store_rows(a0 + b, a1 + b, a2 + b, a3 + b, row, first, 1u, block, params[9], params[3], params[4], 17u);
//@ end
}
