// Which row an invocation works on: `do_row(row, first, step)` does its part of one.
// With FLAT an invocation does a row, with GROUP a workgroup, with TEAM a subgroup; params[0]: rows, params[ROWS]: rows of a workgroup of teams.
// Needs `include index`.

@compute @workgroup_size(WX)
//@ if FLAT
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let row = linear(id, groups);
    if row < params[0] { do_row(row, 0u, 1u); }
}
//@ end
//@ if GROUP
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = id.x + id.y * groups.x;
    if row < params[0] { do_row(row, local, WX); }
}
//@ end
//@ if TEAM
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_id) team: u32,
    @builtin(num_subgroups) teams: u32,
) {
    // Whatever the size of a subgroup is, and even if it is not full.
    let members = subgroupAdd(1u);
    let member = subgroupExclusiveAdd(1u);
    let start = (id.x + id.y * groups.x) * params[ROWS];
    for (var k = team; k < params[ROWS]; k += teams) {
        if start + k < params[0] { do_row(start + k, member, members); }
    }
}
//@ end
