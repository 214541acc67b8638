// Two index tensors, stretched to one size, as places in the memory of what they index.
//@ workgroup 64
//@ include index
//@ include chosen
//@ buffer a read array<u32>
//@ buffer b read array<u32>
//@ buffer flag write array<atomic<u32>>
//@ buffer out write array<u32>
// params: 0 elements, 1 to 3 for `a`: words of an index, how many indices there are (0: places), elements from one index to the next; 4 to 6 for `b`;
// 7 dimensions, then for each, the outermost first: size, stride in `a`, stride in `b`

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear(id, groups);
    if e >= params[0] { return; }
    var first = 0u;
    var second = 0u;
    var rest = e;
    for (var d = params[7]; d > 0u; d--) {
        let base = 5u + 3u * d;
        let size = params[base];
        let whole = rest / size;
        first += (rest - whole * size) * params[base + 1u];
        second += (rest - whole * size) * params[base + 2u];
        rest = whole;
    }
    let words = vec2<u32>(params[1], params[4]) & vec2<u32>(3u);
    first *= words.x;
    second *= words.y;
    let one = chosen_of(a[first], a[first + words.x - 1u], params[1], params[2]);
    let two = chosen_of(b[second], b[second + words.y - 1u], params[4], params[5]);
    out[e] = one * params[3] + two * params[6];
}
