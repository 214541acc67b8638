// Sums, products and counts of integers in 64 bits: as `reduce_float`.
//@ workgroup 128
//@ include index
//@ include numbers
//@ include reduce_rows
//@ include reduce_whole
//@ buffer x read array<u32>
//@ buffer out write array<u32>
//@ variant flat FLAT=1
//@ variant group GROUP=1
// params: outputs, code of x, code of out, length of a row, segments of a row, length of a segment, combine (0 sum, 1 product, 2 count),
//         unused (3), place of the kept dimensions, place of the reduced ones

fn combined(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    if params[6] == 1u { return multiply_whole(a, b); }
    return add_whole(a, b);
}

fn identity() -> vec2<u32> {
    return vec2<u32>(select(0u, 1u, params[6] == 1u), 0u);
}

fn mapped(i: u32, code: u32) -> vec2<u32> {
    if params[6] == 2u {
        let is_zero = select(all(whole(i, code) == vec2<u32>(0u)), element(i, code) == 0.0, code <= BF16);
        return vec2<u32>(select(1u, 0u, is_zero), 0u);
    }
    return whole(i, code);
}

fn gathered(row: u32, start: u32, end: u32, step: u32) -> vec2<u32> {
    let base = strided(row, params[10]);
    var total = identity();
    for (var j = start; j < end; j += step) {
        total = combined(total, mapped(base + strided(j, params[11]), params[1]));
    }
    return total;
}

//@ if GROUP
var<workgroup> partial: array<vec2<u32>, 128>;

fn gathered_by_all(mine: vec2<u32>, local: u32) -> vec2<u32> {
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
//@ end
//@ if GROUP
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let word = id.x + id.y * groups.x;
//@ end
    let outputs = params[0];
    let code = params[2];
    let shift = lanes_shift(code);
    if (word << shift) >= outputs { return; }
    let segments = params[4];
    var bits = 0u;
    var high = 0u;
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
            bits |= in_lane(bits_of_int(bitcast<i32>(value.x), code), lane, code);
            high = value.y;
        }
    }
//@ if GROUP
    if local != 0u { return; }
//@ end
    if code == I64 {
        out[2u * word] = bits;
        out[2u * word + 1u] = high;
    } else {
        out[word] = bits;
    }
}
