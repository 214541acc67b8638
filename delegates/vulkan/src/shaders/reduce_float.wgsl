// Reductions that are computed in f32: an invocation (flat) or a workgroup (group) makes a word of the output.
// Long rows are cut into segments: each gives a number, and a second dispatch reduces those.
//@ workgroup 128
//@ include index
//@ include numbers
//@ include reduce_rows
//@ include reduce_main
//@ buffer x read array<u32>
//@ buffer aux read array<f32>
//@ buffer out write array<u32>
//@ variant flat FLAT=1
//@ variant group GROUP=1
// params: outputs, code of x, code of out, length of a row, segments of a row, length of a segment, map, combine, finish, its number,
//         place of the kept dimensions, place of the reduced ones, another number of the finish
// aux: one number a row, where the map or the finish asks for it

alias Value = f32;

fn mapped(value: f32, row: u32) -> f32 {
    switch params[6] {
        case 1u: { return abs(value); }
        case 2u: { return value * value; }
        case 3u: { return select(1.0, 0.0, value == 0.0); } // NaN is not 0
        case 4u: {
            let difference = value - aux[row];
            return difference * difference;
        }
        case 5u: {
            if is_nan(value) { return value; } // not all drivers' `exp` hands it on
            return exp(value - aux[row]);
        }
        case 6u: { return select(value, 0.0, is_nan(value)); }
        default: { return value; }
    }
}

fn combined(a: f32, b: f32) -> f32 {
    switch params[7] {
        case 1u: { return a * b; }
        case 2u: {
            if is_nan(a) { return a; }
            return select(a, b, b > a || is_nan(b));
        }
        case 3u: {
            if is_nan(a) { return a; }
            return select(a, b, b < a || is_nan(b));
        }
        default: { return a + b; }
    }
}

fn identity() -> f32 {
    switch params[7] {
        case 1u: { return 1.0; }
        case 2u: { return -infinity(); }
        case 3u: { return infinity(); }
        default: { return 0.0; }
    }
}

fn quotient(a: f32, b: f32) -> f32 {
    if b == 0.0 { return select(infinity(), nan(), a == 0.0 || is_nan(a)); }
    return a / b;
}

fn finished(value: f32, row: u32) -> f32 {
    let number = bitcast<f32>(params[9]);
    switch params[8] {
        case 1u: { return quotient(value, number); }
        case 2u: { return sqrt(value); }
        case 3u: { return sqrt(quotient(value, number)); }
        case 4u: {
            if is_nan(value) { return value; }
            return log(value) + aux[row];
        }
        case 5u: { return select(value, 0.0, (bitcast<u32>(value) & 0x7fffffffu) == 0x7f800000u); } // an infinite maximum is not taken away
        case 6u: { return 1.0 / sqrt(quotient(value, number) + bitcast<f32>(params[12])); }
        default: { return value; }
    }
}

fn bits_of(value: f32, code: u32) -> u32 {
    if code == BOOL || code == U8 { return select(0u, 1u, value > 0.0); } // a truth value
    return bits_of_float(value, code);
}

// The elements from `start` on in steps of `step`, in blocks: errors of long sums stay small.
fn gathered(row: u32, start: u32, end: u32, step: u32) -> f32 {
    let code = params[1];
    let base = strided(row, params[10]);
    let reduced = params[11];
    var total = identity();
    var j = start;
    while j < end {
        var block = identity();
        for (var k = 0u; k < 32u && j < end; k++) {
            block = combined(block, mapped(element(base + strided(j, reduced), code), row));
            j += step;
        }
        total = combined(total, block);
    }
    return total;
}

fn word_code() -> u32 {
    return params[2];
}

fn made(value: f32, row: u32, i: u32, code: u32) -> vec2<u32> {
    return vec2<u32>(bits_of(finished(value, row), code), 0u);
}

fn put(word: u32, bits: vec2<u32>, code: u32) {
    out[word] = bits.x;
}
