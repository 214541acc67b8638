// The mean of each whole plane, channels last. A workgroup makes four channels of an image.
//@ workgroup 64
//@ include channels
//@ buffer x read array<$V>
//@ buffer out write array<$V>
//@ variant f32 T=f32 V=vec4<f32>
//@ variant f16 T=f16 V=vec2<u32>
// params: 0 workgroups, 1 blocks of channels, 2 pixels

var<workgroup> sums: array<vec4<f32>, 64>;

@compute @workgroup_size(WX)
fn main(
    @builtin(local_invocation_index) lane: u32,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
) {
    let i = group.x + group.y * groups.x;
    let blocks = params[1];
    let pixels = params[2];
    let start = i / blocks * pixels;
    var sum = vec4<f32>(0.0);
    if i < params[0] {
        for (var p = lane; p < pixels; p += WX) {
            sum += unpack4(x[(start + p) * blocks + i % blocks]);
        }
    }
    sums[lane] = sum;
    workgroupBarrier();
    if lane < 8u {
        for (var k = 1u; k < 8u; k++) { sum += sums[lane + 8u * k]; }
        sums[lane] = sum;
    }
    workgroupBarrier();
    if lane == 0u && i < params[0] {
        for (var k = 1u; k < 8u; k++) { sum += sums[k]; }
        out[i] = pack4(sum / f32(pixels));
    }
}
