// Winograd's F(2x2, 3x3), first part: each tile of 4 by 4 inputs, two apart, becomes one element of 16 matrices of pixels by channels.
// An invocation makes four channels of a tile.
//@ workgroup 64
//@ include index
//@ include channels
//@ buffer x read array<$V>
//@ buffer out write array<vec4<f32>>
//@ variant f32 T=f32 V=vec4<f32>
//@ variant f16 T=f16 V=vec2<u32>
// params: 0 invocations, 1 blocks of channels, 2 tiles of a row, 3 tiles of a column, 4 height, 5 width, 6 padding down, 7 padding across, 8 tiles

fn load(n: u32, y: u32, z: u32, block: u32) -> vec4<f32> {
    if y >= params[4] || z >= params[5] { return vec4<f32>(0.0); }
    return unpack4(x[((n * params[4] + y) * params[5] + z) * params[1] + block]);
}

fn line(n: u32, y: u32, z: u32, block: u32) -> mat4x4<f32> {
    return mat4x4<f32>(load(n, y, z, block), load(n, y, z + 1u, block), load(n, y, z + 2u, block), load(n, y, z + 3u, block));
}

fn store(d: mat4x4<f32>, at: u32, apart: u32) {
    out[at] = d[0] - d[2];
    out[at + apart] = d[1] + d[2];
    out[at + 2u * apart] = d[2] - d[1];
    out[at + 3u * apart] = d[1] - d[3];
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let blocks = params[1];
    let block = i % blocks;
    let tile = i / blocks;
    let z = 2u * (tile % params[2]) - params[7];
    let rest = tile / params[2];
    let y = 2u * (rest % params[3]) - params[6];
    let n = rest / params[3];
    let d0 = line(n, y, z, block);
    let d1 = line(n, y + 1u, z, block);
    let d2 = line(n, y + 2u, z, block);
    let d3 = line(n, y + 3u, z, block);
    let apart = params[8] * blocks;
    store(d0 - d2, i, apart);
    store(d1 + d2, i + 4u * apart, apart);
    store(d2 - d1, i + 8u * apart, apart);
    store(d1 - d3, i + 12u * apart, apart);
}
