// Elements at given places of their rows: an invocation makes a word of the output.
//@ workgroup 64
//@ include index
//@ include numbers
//@ include reduce_rows
//@ buffer x read array<u32>
//@ buffer places read array<u32>
//@ buffer out write array<u32>
// params: elements, code, length of a row of x, step within a row, length of a row of out, one place for all or 2^32 - 1
// places: i64, as the output lies

fn source(i: u32) -> u32 {
    let inner = params[3];
    let row = i / (inner * params[4]);
    var place = params[5];
    if place == 0xffffffffu { place = places[2u * i]; }
    place = min(place, params[2] - 1u);
    return (row * params[2] + place) * inner + i % inner;
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let word = linear(id, groups);
    let code = params[1];
    let shift = lanes_shift(code);
    if (word << shift) >= params[0] { return; }
    if code == I64 {
        let at = source(word);
        out[2u * word] = x[2u * at];
        out[2u * word + 1u] = x[2u * at + 1u];
        return;
    }
    var bits = 0u;
    for (var lane = 0u; lane < (1u << shift); lane++) {
        let i = (word << shift) + lane;
        if i < params[0] { bits |= in_lane(bits_at(source(i), code), lane, code); }
    }
    out[word] = bits;
}
