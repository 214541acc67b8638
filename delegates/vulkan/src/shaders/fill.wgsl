// One number in every element.
//@ workgroup 64
//@ include index
//@ buffer out write array<vec4<u32>>
// params: 0 vectors, 1 and 2 the filling: 8 bytes of whole elements

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i < params[0] { out[i] = vec4<u32>(params[1], params[2], params[1], params[2]); }
}
