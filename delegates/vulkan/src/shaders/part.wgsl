// A strided view of a tensor, written to a strided part of another. Elements of 1 and 2 bytes that do not fill whole words are written by atomics.
//@ workgroup 64
//@ variant words WORDS=1 W=u32 O=u32
//@ variant wide WIDE=1 W=vec4<u32> O=vec4<u32>
//@ variant lanes LANES=1 W=u32 O=atomic<u32>
//@ include index
//@ buffer source read array<$W>
//@ buffer out write array<$O>
// params: 0 elements, 1 two's logarithm of their bytes, 2 first element of the source, 3 of the output, 4 dimensions,
// then for each, the outermost first: size, stride in the source, stride in the output, in elements (signed)

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear(id, groups);
    if e >= params[0] { return; }
    let kind = params[1];
    var at = params[2];
    var to = params[3];
    var rest = e;
    for (var d = params[4]; d > 0u; d--) {
        let base = 2u + 3u * d;
        let size = params[base];
        let whole = rest / size;
        at += (rest - whole * size) * params[base + 1u];
        to += (rest - whole * size) * params[base + 2u];
        rest = whole;
    }
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
