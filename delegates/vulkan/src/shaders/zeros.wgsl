// Sets a flag where one of some integers is 0: they are about to divide others.
//@ workgroup 64
//@ include index
//@ include numbers
//@ buffer source read array<u32>
//@ buffer flag write array<atomic<u32>>
// params: count, code

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let code = params[1];
    let at = word_of(i, code);
    var is_zero = false;
    if code == I64 {
        is_zero = (source[at] | source[at + 1u]) == 0u;
    } else {
        is_zero = int_from(source[at], i, code) == 0;
    }
    if is_zero { atomicOr(&flag[0], 1u); }
}
