// Winograd's F(2x2, 3x3), last part: an element of each of 16 products becomes 2 by 2 pixels. An invocation makes four channels of a tile.
//@ workgroup 64
//@ include index
//@ include numbers
//@ include ops
//@ if ANY
//@ include finish
//@ end
//@ include channels
//@ include convolve
//@ buffer m read array<vec4<f32>>
//@ buffer bias read array<u32>
//@ buffer extra0 read array<u32>
//@ buffer extra1 read array<u32>
//@ buffer out write array<$V>
//@ variant f32 T=f32 V=vec4<f32> FEW=1
//@ variant any_f32 T=f32 V=vec4<f32> ANY=1
//@ variant f16 T=f16 V=vec2<u32> FEW=1
//@ variant any_f16 T=f16 V=vec2<u32> ANY=1
// params: 0 invocations, 1 blocks of channels, 2 tiles of a row, 3 tiles of a column, 4 height, 5 width, 6 channels, 7 code of bias, 8 tiles;
// 9 the finish

fn line(at: u32, apart: u32) -> mat4x4<f32> {
    return mat4x4<f32>(m[at], m[at + apart], m[at + 2u * apart], m[at + 3u * apart]);
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let blocks = params[1];
    let block = i % blocks;
    let tile = i / blocks;
    let z = 2u * (tile % params[2]);
    let rest = tile / params[2];
    let y = 2u * (rest % params[3]);
    let n = rest / params[3];
    let apart = params[8] * blocks;
    let m0 = line(i, apart);
    let m1 = line(i + 4u * apart, apart);
    let m2 = line(i + 8u * apart, apart);
    let m3 = line(i + 12u * apart, apart);
    let upper = m0 + m1 + m2;
    let lower = m1 - m2 - m3;
    let b = bias4(4u * block, params[6], params[7]);
    let y0 = upper[0] + upper[1] + upper[2];
    let y1 = upper[1] - upper[2] - upper[3];
    let y2 = lower[0] + lower[1] + lower[2];
    let y3 = lower[1] - lower[2] - lower[3];
    for (var r = 0u; r < 4u; r++) {
        let down = y + r / 2u;
        let across = z + r % 2u;
        if down >= params[4] || across >= params[5] { continue; }
        let at = ((n * params[4] + down) * params[5] + across) * blocks + block;
        out[at] = pack4(finish4(fourth(r, y0, y1, y2, y3) + b, 4u * at, 4u * block, params[6], 9u));
    }
}
