// The largest or smallest element of rows, and the place of the first of them; NaN is both largest and smallest. As `reduce_float`.
//@ workgroup 128
//@ include index
//@ include numbers
//@ include reduce_rows
//@ include reduce_key
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

fn better(a: Found, b: Found) -> Found {
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
    var best = Found(vec2<u32>(0u), 0xffffffffu);
    for (var j = start; j < end; j += step) {
        best = better(best, candidate(row, base, j));
    }
    return best;
}

//@ if GROUP
var<workgroup> keys: array<vec2<u32>, 128>;
var<workgroup> found: array<u32, 128>;

fn gathered_by_all(mine: Found, local: u32) -> u32 {
    keys[local] = mine.key;
    found[local] = mine.place;
    workgroupBarrier();
    if local < 8u {
        var best = mine;
        for (var k = local + 8u; k < 128u; k += 8u) { best = better(best, Found(keys[k], found[k])); }
        keys[local] = best.key;
        found[local] = best.place;
    }
    workgroupBarrier();
    var best = Found(vec2<u32>(0u), 0xffffffffu);
    for (var k = 0u; k < 8u; k++) { best = better(best, Found(keys[k], found[k])); }
    workgroupBarrier();
    return best.place;
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
    let code = params[1];
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
            let place = gathered(row, start, end, 1u).place;
//@ end
//@ if GROUP
            let place = gathered_by_all(gathered(row, start + local, end, WX), local);
//@ end
            if writes {
                let at = strided(row, params[10]) + strided(place, params[11]);
                bits |= in_lane(bits_at(at, code), lane, code);
                if code == I64 { high = x[2u * at + 1u]; }
                if (params[6] & 2u) != 0u {
                    indices[2u * i] = place;
                    indices[2u * i + 1u] = 0u;
                }
                if (params[6] & 4u) != 0u { indices[i] = place; }
            }
        }
    }
    if !writes || (params[6] & 1u) == 0u { return; }
    if code == I64 {
        values[2u * word] = bits;
        values[2u * word + 1u] = high;
    } else {
        values[word] = bits;
    }
}
