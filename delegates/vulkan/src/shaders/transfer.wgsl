// Between row-major N C H W and channels last with C padded to 4.
//@ workgroup 64
//@ variant to_nhwc4 WORDS=1 W=u32 TO_NHWC4=1
//@ variant to_nchw WORDS=1 W=u32 TO_NCHW=1
//@ include index
//@ buffer source read array<$W>
//@ buffer out write array<$W>
//@ include pull
// params: 0 to 3 of `pull` (the filling is 0), 4 C, 5 padded C, 6 H * W

fn fetch(at: u32) -> $W {
    return source[at];
}

fn source_of(e: u32) -> u32 {
    let channels = params[4];
    let padded = params[5];
    let area = params[6];
//@ if TO_NHWC4
    let c = e % padded;
    let place = e / padded;
    let n = place / area;
    if c >= channels { return FILL; }
    return (n * channels + c) * area + place - n * area;
//@ end
//@ if TO_NCHW
    let place = e % area;
    let plane = e / area;
    let n = plane / channels;
    return (n * area + place) * padded + plane - n * channels;
//@ end
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    pull(linear(id, groups));
}
