// A window on a strided view of a tensor, which may reach beyond its edges.
//@ workgroup 64
//@ variant words WORDS=1 W=u32
//@ variant wide WIDE=1 W=vec4<u32>
//@ include index
//@ buffer source read array<$W>
//@ buffer out write array<$W>
//@ include pull
// params: 0 to 3 of `pull`, 4 first element, 5 dimensions, then for each, the outermost first:
// size, stride in elements (signed), elements before the first, size of the view, what stands beyond (0 filling, 1 mirror image, 2 last element, 3 other end)

fn fetch(at: u32) -> $W {
    return source[at];
}

fn source_of(e: u32) -> u32 {
    var at = params[4];
    var rest = e;
    for (var d = params[5]; d > 0u; d--) {
        let base = 1u + 5u * d;
        let size = params[base];
        let whole = rest / size;
        var j = bitcast<i32>(rest - whole * size - params[base + 2u]);
        rest = whole;
        let extent = bitcast<i32>(params[base + 3u]);
        if j < 0 || j >= extent {
            switch params[base + 4u] {
                case 1u: { j = select(2 * (extent - 1) - j, -j, j < 0); }
                case 2u: { j = clamp(j, 0, extent - 1); }
                case 3u: {
                    j = j % extent;
                    j = select(j, j + extent, j < 0);
                }
                default: { return FILL; }
            }
        }
        at += bitcast<u32>(j) * params[base + 1u];
    }
    return at;
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    pull(linear(id, groups));
}
