// Up to four tensors one after another along a dimension. Rows are what lies from one index of the dimensions before it to the next.
//@ workgroup 64
//@ variant words WORDS=1 W=u32
//@ variant wide WIDE=1 W=vec4<u32>
//@ include index
//@ buffer a read array<$W>
//@ buffer b read array<$W>
//@ buffer c read array<$W>
//@ buffer d read array<$W>
//@ buffer out write array<$W>
//@ include pull
// params: 0 to 3 of `pull`, 4 elements of an output row, 5 elements of it that tensors fill (the others are the filling),
// 6 to 8 what of each output row is written, in words (WIDE: vectors): words of a row, the first, how many, 9 how many in all,
// then for each of the four tensors: its place in the row, the place after it, elements of a row of its own

var<private> chosen: u32;

fn fetch(at: u32) -> $W {
    switch chosen {
        case 0u: { return a[at]; }
        case 1u: { return b[at]; }
        case 2u: { return c[at]; }
        default: { return d[at]; }
    }
}

fn source_of(e: u32) -> u32 {
    let row = e / params[4];
    let j = e - row * params[4];
    if j >= params[5] { return FILL; }
    for (var s = 0u; s < 4u; s++) {
        let base = 10u + 3u * s;
        if j >= params[base] && j < params[base + 1u] {
            chosen = s;
            return row * params[base + 2u] + j - params[base];
        }
    }
    return KEEP;
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[9] { return; }
    let row = i / params[8];
    pull(row * params[6] + params[7] + (i - row * params[8]));
}
