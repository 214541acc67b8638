// Elements, or slices, to places that an index tensor names. Elements of 1 and 2 bytes that do not fill whole words are written by atomics.
//@ workgroup 64
//@ variant words WORDS=1 W=u32 O=u32
//@ variant wide WIDE=1 W=vec4<u32> O=vec4<u32>
//@ variant lanes LANES=1 W=u32 O=atomic<u32>
//@ include index
//@ include chosen
//@ buffer source read array<$W>
//@ buffer index read array<u32>
//@ buffer flag write array<atomic<u32>>
//@ buffer out write array<$O>
//@ include columns

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear(id, groups);
    if e >= params[0] { return; }
    let c = column(e);
    let kind = params[1];
    for (var k = 0u; k < params[2]; k++) {
        let to = target_of(c, k);
        let at = c.from_ + k * params[9];
//@ if WIDE
        out[to] = source[at];
//@ end
//@ if WORDS
        if kind == 3u {
            out[2u * to] = source[2u * at];
            out[2u * to + 1u] = source[2u * at + 1u];
        } else {
            out[to] = source[at];
        }
//@ end
//@ if LANES
        let down = 2u - kind;
        let last = (1u << down) - 1u;
        let width = 8u << kind;
        let mask = (1u << width) - 1u;
        let bits = (source[at >> down] >> ((at & last) * width)) & mask;
        let shift = (to & last) * width;
        atomicAnd(&out[to >> down], ~(mask << shift));
        atomicOr(&out[to >> down], bits << shift);
//@ end
    }
}
