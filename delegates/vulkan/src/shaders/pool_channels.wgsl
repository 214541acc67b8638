// Pooling of two dimensions, channels last. An invocation makes four channels of a pixel.
//@ workgroup 64
//@ include index
//@ include channels
//@ include windows
//@ buffer x read array<$V>
//@ buffer out write array<$V>
//@ variant f32 T=f32 V=vec4<f32>
//@ variant f16 T=f16 V=vec2<u32>
// params: 0 invocations, 1 blocks of channels, 2 channels, 3 0 for the largest or 1 for the mean, 4 divisor (bits of f32; 0: the elements),
// 5 1 to count the padding, 6 the least number (bits of f32); 8 to 14 down and 15 to 21 across: `include/windows.wgsl`.

fn nans(v: vec4<f32>) -> vec4<bool> {
    return (bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let blocks = params[1];
    let block = i % blocks;
    var rest = i / blocks;
    let across = window(rest % params[16], 15u);
    rest /= params[16];
    let down = window(rest % params[9], 8u);
    let n = rest / params[9];
    let height = params[8];
    let width = params[15];
    let is_mean = params[3] == 1u;
    var made = vec4<f32>(bitcast<f32>(select(params[6], 0u, is_mean)));
    for (var ky = 0u; ky < down.count; ky++) {
        let y = down.start + ky * down.step;
        if y >= height { continue; }
        for (var kx = 0u; kx < across.count; kx++) {
            let z = across.start + kx * across.step;
            if z >= width { continue; }
            let v = unpack4(x[((n * height + y) * width + z) * blocks + block]);
            if is_mean {
                made += v;
            } else {
                made = select(made, v, (v > made) | nans(v));
            }
        }
    }
    if is_mean {
        made /= divisor(down.inside * across.inside, down.padded * across.padded);
    }
    out[i] = pack4(only4(made, 4u * block, params[2]));
}
