// Elements of a tensor that an index tensor names along a dimension. See `include/chosen.wgsl` for indices that are
// negative or out of range.
//@ workgroup 64
//@ variant words WORDS=1 W=u32
//@ variant wide WIDE=1 W=vec4<u32>
//@ include index
//@ include chosen
//@ buffer source read array<$W>
//@ buffer index read array<u32>
//@ buffer flag write array<atomic<u32>>
//@ buffer out write array<$W>
//@ include pull
// params: 0 to 3 of `pull`, 4 first element of the source (signed), 5 elements from one index to the next, 6 how many indices there are (0: places),
// 7 words of an index, and STRICT, 8 and 9 which indices this dispatch is for: from the first to before the second, 10 dimensions,
// then for each, the outermost first: size, stride in the source, stride in the index tensor

fn fetch(at: u32) -> $W {
    return source[at];
}

fn source_of(e: u32) -> u32 {
    var at = params[4];
    var which = 0u;
    var rest = e;
    for (var d = params[10]; d > 0u; d--) {
        let base = 8u + 3u * d;
        let size = params[base];
        let whole = rest / size;
        at += (rest - whole * size) * params[base + 1u];
        which += (rest - whole * size) * params[base + 2u];
        rest = whole;
    }
    let words = params[7] & 3u;
    let row = chosen_of(index[which * words], index[which * words + words - 1u], params[7], params[6]);
    if row < params[8] || row >= params[9] { return KEEP; }
    return at + row * params[5];
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    pull(linear(id, groups));
}
