// Words of 32 bits: copied, or all of one value.
//@ workgroup 64
//@ include index
//@ buffer source read array<u32>
//@ buffer result write array<u32>
// params: count of words, 1 to fill, the value

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    if params[1] == 1u {
        result[i] = params[2];
    } else {
        result[i] = source[i];
    }
}
