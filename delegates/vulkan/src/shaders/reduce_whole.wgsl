// Sums, products and counts of integers in 64 bits: as `reduce_float`.
//@ workgroup 128
//@ include index
//@ include numbers
//@ include reduce_rows
//@ include reduce_whole
//@ include reduce_main
//@ buffer x read array<u32>
//@ buffer out write array<u32>
//@ variant flat FLAT=1
//@ variant group GROUP=1
// params: outputs, code of x, code of out, length of a row, segments of a row, length of a segment, combine (0 sum, 1 product, 2 count),
//         unused (3), place of the kept dimensions, place of the reduced ones

alias Value = vec2<u32>;

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

fn word_code() -> u32 {
    return params[2];
}

fn made(value: vec2<u32>, row: u32, i: u32, code: u32) -> vec2<u32> {
    return vec2<u32>(bits_of_int(bitcast<i32>(value.x), code), value.y);
}

fn put(word: u32, bits: vec2<u32>, code: u32) {
    if code == I64 {
        out[2u * word] = bits.x;
        out[2u * word + 1u] = bits.y;
    } else {
        out[word] = bits.x;
    }
}
