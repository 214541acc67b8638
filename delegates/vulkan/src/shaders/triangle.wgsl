// The part of matrices on one side of a diagonal; the other side is the filling.
//@ workgroup 64
//@ variant words WORDS=1 W=u32
//@ include index
//@ buffer source read array<$W>
//@ buffer out write array<$W>
//@ include pull
// params: 0 to 3 of `pull`, 4 rows, 5 columns, 6 diagonal (signed), 7 1 for the lower side

fn fetch(at: u32) -> $W {
    return source[at];
}

fn source_of(e: u32) -> u32 {
    let row = e / params[5];
    let beyond = bitcast<i32>(e - row * params[5]) - bitcast<i32>(row % params[4]) - bitcast<i32>(params[6]);
    if (params[7] == 1u && beyond > 0) || (params[7] == 0u && beyond < 0) { return FILL; }
    return e;
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    pull(linear(id, groups));
}
