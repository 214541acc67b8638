// Where numbers belong in rows that are in order: an invocation finds one place by halving.
//@ workgroup 64
//@ include index
//@ include numbers
//@ include reduce_rows
//@ include reduce_key
//@ buffer x read array<u32>
//@ buffer values read array<u32>
//@ buffer out write array<u32>
// params: values, their code and that of x, code of out (i32 or i64), length of a row of x, values of a row (0: all share one row),
//         1 if equals come before

fn value_key(i: u32, code: u32) -> vec2<u32> {
    if code == I64 { return vec2<u32>(values[2u * i], values[2u * i + 1u] ^ 0x80000000u); }
    let word = values[word_of(i, code)];
    if code <= BF16 { return vec2<u32>(0u, float_key(float_from(word, i, code))); }
    return vec2<u32>(0u, bitcast<u32>(int_from(word, i, code)) ^ 0x80000000u);
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let code = params[1];
    let value = value_key(i, code);
    let length = params[3];
    var base = 0u;
    if params[4] > 0u { base = (i / params[4]) * length; }
    var low = 0u;
    var high = length;
    while low < high {
        let middle = (low + high) / 2u;
        let key = key_of(base + middle, code);
        // NaN in a row is before everything, as every comparison with it fails.
        var before = above(value, key);
        if params[5] == 1u { before = !above(key, value); }
        if code <= BF16 && key.y == 0xffffffffu { before = true; }
        if before { low = middle + 1u; } else { high = middle; }
    }
    if params[2] == I64 {
        out[2u * i] = low;
        out[2u * i + 1u] = 0u;
    } else {
        out[i] = low;
    }
}
