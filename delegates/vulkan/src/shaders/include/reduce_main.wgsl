// The end of reductions: an invocation (FLAT) or a workgroup (GROUP) makes a word of the output, of one row or segment an element.
// params: 0 outputs, 3 length of a row, 4 segments of a row, 5 length of a segment
//
// The kernel defines
//   Value                               what is combined, with `combined(a, b)` and `identity()`
//   gathered(row, start, end, step)     the elements of a row from `start` on
//   made(value, row, i, code)           the bits of output `i`, the low word first; it may write elsewhere, too
//   word_code()                         the element type of the words, and put(word, bits, code) writes one
// Needs `include index`, `include numbers` and `include reduce_rows`.

//@ if GROUP
var<workgroup> partial: array<Value, 128>;

// The result of all invocations, to be used by the first.
fn gathered_by_all(mine: Value, local: u32) -> Value {
    partial[local] = mine;
    workgroupBarrier();
    if local < 8u {
        var sum = partial[local];
        for (var k = local + 8u; k < 128u; k += 8u) { sum = combined(sum, partial[k]); }
        partial[local] = sum;
    }
    workgroupBarrier();
    var sum = identity();
    if local == 0u {
        sum = partial[0];
        for (var k = 1u; k < 8u; k++) { sum = combined(sum, partial[k]); }
    }
    workgroupBarrier();
    return sum;
}
//@ end

@compute @workgroup_size(WX)
//@ if FLAT
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let word = linear(id, groups);
    let writes = true;
//@ end
//@ if GROUP
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let word = id.x + id.y * groups.x;
    let writes = local == 0u;
//@ end
    let outputs = params[0];
    let code = word_code();
    let shift = lanes_shift(code);
    if (word << shift) >= outputs { return; }
    let segments = params[4];
    var bits = vec2<u32>(0u);
    for (var lane = 0u; lane < (1u << shift); lane++) {
        let i = (word << shift) + lane;
        if i < outputs {
            let row = i / segments;
            let start = (i - row * segments) * params[5];
            let end = min(start + params[5], params[3]);
//@ if FLAT
            let value = gathered(row, start, end, 1u);
//@ end
//@ if GROUP
            let value = gathered_by_all(gathered(row, start + local, end, WX), local);
//@ end
            if writes {
                let one = made(value, row, i, code);
                bits.x |= in_lane(one.x, lane, code);
                bits.y = one.y;
            }
        }
    }
    if writes { put(word, bits, code); }
}
