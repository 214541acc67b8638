// Between row-major N C H W and channels last with C padded to 4, elements of 32 bits.
//@ workgroup 64
//@ include index
//@ buffer source read array<u32>
//@ buffer result write array<u32>
//@ variant to_nhwc4 TO_NHWC4=1
//@ variant to_nchw TO_NCHW=1
// params: count of result elements, C, padded C, H * W

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let channels = params[1];
    let padded = params[2];
    let area = params[3];
//@ if TO_NHWC4
    let c = i % padded;
    let place = (i / padded) % area;
    let n = i / (padded * area);
    if c < channels {
        result[i] = source[(n * channels + c) * area + place];
    } else {
        result[i] = 0u;
    }
//@ end
//@ if TO_NCHW
    let place = i % area;
    let c = (i / area) % channels;
    let n = i / (area * channels);
    result[i] = source[(n * area + place) * padded + c];
//@ end
}
