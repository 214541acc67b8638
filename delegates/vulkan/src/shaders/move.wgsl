// A strided view of a tensor, made contiguous.
//@ workgroup 64
//@ variant words WORDS=1 W=u32
//@ variant wide WIDE=1 W=vec4<u32>
//@ include index
//@ buffer source read array<$W>
//@ buffer out write array<$W>
//@ include pull
// params: 0 to 3 of `pull`, 4 first element, 5 dimensions, then for each, the outermost first: size, stride in elements (signed)

fn fetch(at: u32) -> $W {
    return source[at];
}

fn source_of(e: u32) -> u32 {
    var at = params[4];
    var rest = e;
    for (var d = params[5]; d > 1u; d--) {
        let size = params[4u + 2u * d];
        let whole = rest / size;
        at += (rest - whole * size) * params[5u + 2u * d];
        rest = whole;
    }
    return at + rest * params[7];
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    pull(linear(id, groups));
}
