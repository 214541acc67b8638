// Merges neighbouring runs of places that are in order: each invocation finds where one element of the two runs goes.
//@ workgroup 64
//@ include index
//@ include numbers
//@ include reduce_rows
//@ include reduce_key
//@ buffer x read array<u32>
//@ buffer runs read array<u32>
//@ buffer merged write array<u32>
// params: elements of all rows, code of x, length of a row, step within a row, 1 if the largest come first, length of a run,
//         how they are written (0 places, one word each, row by row; 1 as i64, as the output lies), length of a row of the output

fn key_at(base: u32, place: u32) -> vec2<u32> {
    let key = key_of(base + place * params[3], params[1]);
    if params[4] == 1u { return ~key; }
    return key;
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let length = params[2];
    let inner = params[3];
    let run = params[5];
    let row = i / length;
    let j = i - row * length;
    let base = (row / inner) * (length * inner) + row % inner;
    let line = row * length;
    let pair = (j / (2u * run)) * (2u * run);
    let is_second = j - pair >= run;
    let place = runs[i];
    let key = key_at(base, place);
    // How many of the other run come before: of equals, those of the first run.
    let other = select(min(pair + run, length), pair, is_second);
    let end = select(min(pair + 2u * run, length), pair + run, is_second);
    var low = other;
    var high = end;
    while low < high {
        let middle = (low + high) / 2u;
        let theirs = key_at(base, runs[line + middle]);
        let before = above(key, theirs) || (is_second && all(key == theirs));
        if before { low = middle + 1u; } else { high = middle; }
    }
    let own = select(j - pair, j - pair - run, is_second);
    let to = pair + own + (low - other);
    if params[6] == 0u {
        merged[line + to] = place;
    } else if to < params[7] {
        let at = ((row / inner) * params[7] + to) * inner + row % inner;
        merged[2u * at] = place;
        merged[2u * at + 1u] = 0u;
    }
}
