// Puts blocks of 1024 elements of rows in order, and keeps the first of each; equals stay in the order that they had.
// A block's elements come from a tensor, or are what an earlier dispatch kept.
//@ workgroup 128
//@ include index
//@ include numbers
//@ include reduce_rows
//@ include reduce_key
//@ buffer x read array<u32>
//@ buffer candidates read array<u32>
//@ buffer kept write array<u32>
// params: rows, code of x, length of a row of x, step within a row, 1 if the largest come first, candidates of a row, 1 if they are in
//         `candidates` (else they are all of a row), blocks of a row, kept of a block, kept of a row,
//         how they are written (0 places, one word each, row by row; 1 as i64, as the output lies)
// NaN is larger than everything. A place that is beyond the end has the largest key and place.

var<workgroup> keys: array<vec2<u32>, 1024>;
var<workgroup> places: array<u32, 1024>;

fn after(a: u32, b: u32) -> bool {
    let p = keys[a];
    let q = keys[b];
    return above(p, q) || (all(p == q) && places[a] > places[b]);
}

fn exchange(a: u32, b: u32) {
    let key = keys[a];
    let place = places[a];
    keys[a] = keys[b];
    places[a] = places[b];
    keys[b] = key;
    places[b] = place;
}

@compute @workgroup_size(WX)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let index = id.x + id.y * groups.x;
    if index >= params[0] * params[7] { return; }
    let row = index / params[7];
    let block = index - row * params[7];
    let inner = params[3];
    let base = (row / inner) * (params[2] * inner) + row % inner;
    let first = block * 1024u;
    let count = min(params[5] - first, 1024u);
    // The power of two that holds the block.
    var size = 1u;
    while size < count { size = size << 1u; }
    for (var k = local; k < size; k += WX) {
        var place = 0xffffffffu;
        var key = vec2<u32>(0xffffffffu);
        if k < count {
            place = first + k;
            if params[6] == 1u { place = candidates[row * params[5] + first + k]; }
            key = key_of(base + place * inner, params[1]);
            if params[4] == 1u { key = ~key; }
        }
        keys[k] = key;
        places[k] = place;
    }
    for (var span = 2u; span <= size; span = span << 1u) {
        for (var step = span >> 1u; step > 0u; step = step >> 1u) {
            workgroupBarrier();
            for (var k = local; k < size / 2u; k += WX) {
                let a = (k / step) * (2u * step) + k % step;
                let b = a + step;
                // Spans are in order by turns.
                if after(a, b) == ((a & span) == 0u) { exchange(a, b); }
            }
        }
    }
    workgroupBarrier();
    let keep = min(params[8], count);
    for (var k = local; k < keep; k += WX) {
        let at = block * params[8] + k;
        if params[10] == 0u {
            kept[row * params[9] + at] = places[k];
        } else {
            let i = ((row / inner) * params[9] + at) * inner + row % inner;
            kept[2u * i] = places[k];
            kept[2u * i + 1u] = 0u;
        }
    }
}
