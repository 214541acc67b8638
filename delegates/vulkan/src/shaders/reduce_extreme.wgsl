// The largest or smallest element of rows, and the place of the first of them; NaN is both largest and smallest. As `reduce_float`.
//@ workgroup 128
//@ include index
//@ include numbers
//@ include reduce_rows
//@ include reduce_key
//@ include reduce_main
//@ buffer x read array<u32>
//@ buffer places read array<u32>
//@ buffer values write array<u32>
//@ buffer indices write array<u32>
//@ variant flat FLAT=1
//@ variant group GROUP=1
// params: outputs, code of x, smallest (0 or 1), length of a row, segments of a row, length of a segment,
//         which outputs (1 values, 2 indices as i64, 4 indices as u32), candidates (0: elements of `x`; 1: places in a row, of `places`),
//         unused (2), place of the kept dimensions, place of the reduced ones

struct Found {
    key: vec2<u32>,
    place: u32,
}

alias Value = Found;

fn identity() -> Found {
    return Found(vec2<u32>(0u), 0xffffffffu);
}

fn combined(a: Found, b: Found) -> Found {
    if above(b.key, a.key) || (all(a.key == b.key) && b.place < a.place) { return b; }
    return a;
}

fn candidate(row: u32, base: u32, j: u32) -> Found {
    var place = j;
    if params[7] == 1u { place = places[row * params[3] + j]; }
    let code = params[1];
    var key = key_of(base + strided(place, params[11]), code);
    if params[2] == 1u && !(code <= BF16 && key.y == 0xffffffffu) { key = ~key; }
    return Found(key, place);
}

fn gathered(row: u32, start: u32, end: u32, step: u32) -> Found {
    let base = strided(row, params[10]);
    var best = identity();
    for (var j = start; j < end; j += step) {
        best = combined(best, candidate(row, base, j));
    }
    return best;
}

fn word_code() -> u32 {
    return params[1];
}

fn made(value: Found, row: u32, i: u32, code: u32) -> vec2<u32> {
    let place = value.place;
    let at = strided(row, params[10]) + strided(place, params[11]);
    var bits = vec2<u32>(bits_at(at, code), 0u);
    if code == I64 { bits.y = x[2u * at + 1u]; }
    if (params[6] & 2u) != 0u {
        indices[2u * i] = place;
        indices[2u * i + 1u] = 0u;
    }
    if (params[6] & 4u) != 0u { indices[i] = place; }
    return bits;
}

fn put(word: u32, bits: vec2<u32>, code: u32) {
    if (params[6] & 1u) == 0u { return; }
    if code == I64 {
        values[2u * word] = bits.x;
        values[2u * word + 1u] = bits.y;
    } else {
        values[word] = bits.x;
    }
}
