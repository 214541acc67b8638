// Resizing of two dimensions, channels last: each pixel is a weighted sum of a few. An invocation makes four channels of a pixel.
//@ workgroup 64
//@ include index
//@ include channels
//@ buffer x read array<$V>
//@ buffer taps read array<vec2<u32>>
//@ buffer out write array<$V>
//@ variant f32 T=f32 V=vec4<f32>
//@ variant f16 T=f16 V=vec2<u32>
// params: 0 invocations, 1 blocks of channels, 2 output height, 3 output width, 4 input height, 5 input width, 6 taps down, 7 taps across.
// Taps: for each output along a dimension its inputs, each with a weight (bits of f32); those across lie behind those down.

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let blocks = params[1];
    let block = i % blocks;
    let rest = i / blocks;
    let across = rest % params[3];
    let down = (rest / params[3]) % params[2];
    let n = rest / (params[3] * params[2]);
    let down_taps = params[6];
    let across_taps = params[7];
    let first_down = down * down_taps;
    let first_across = params[2] * down_taps + across * across_taps;
    let width = params[5];
    let plane = n * params[4];
    if down_taps == 1u && across_taps == 1u {
        out[i] = x[((plane + taps[first_down].x) * width + taps[first_across].x) * blocks + block];
        return;
    }
    var sum = vec4<f32>(0.0);
    for (var ky = 0u; ky < down_taps; ky++) {
        let tap = taps[first_down + ky];
        let line = (plane + tap.x) * width;
        var part = vec4<f32>(0.0);
        for (var kx = 0u; kx < across_taps; kx++) {
            let beside = taps[first_across + kx];
            part += bitcast<f32>(beside.y) * unpack4(x[(line + beside.x) * blocks + block]);
        }
        sum += bitcast<f32>(tap.y) * part;
    }
    out[i] = pack4(sum);
}
