// A tensor with a few slices of a dimension replaced by others: where nothing can be written in place, this moves no more than a copy does.
//@ workgroup 64
//@ variant words WORDS=1 W=u32
//@ variant wide WIDE=1 W=vec4<u32>
//@ include index
//@ include chosen
//@ buffer source read array<$W>
//@ buffer slices read array<$W>
//@ buffer index read array<u32>
//@ buffer flag write array<atomic<u32>>
//@ buffer out write array<$W>
//@ include pull
// params: 0 to 3 of `pull`, 4 size of the dimension, 5 elements of a slice behind it, 6 indices, 7 words of an index, and STRICT,
// 8 first element of the slices, 9 to 11 their strides: in the dimensions before, from one slice to the next, in the dimensions behind

var<private> replaced: bool;

fn fetch(at: u32) -> $W {
    if replaced { return slices[at]; }
    return source[at];
}

fn source_of(e: u32) -> u32 {
    let line = e / params[5];
    let inner = e - line * params[5];
    let before = line / params[4];
    let place = line - before * params[4];
    var at = e;
    replaced = false;
    // The last one that names the place counts.
    for (var k = 0u; k < params[6]; k++) {
        let words = params[7] & 3u;
        let word = k * words;
        if chosen_of(index[word], index[word + words - 1u], params[7], params[4]) == place {
            at = params[8] + before * params[9] + k * params[10] + inner * params[11];
            replaced = true;
        }
    }
    return at;
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    pull(linear(id, groups));
}
