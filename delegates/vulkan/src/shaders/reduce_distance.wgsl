// Distances between the rows of two batches: an invocation makes a word of the output.
//@ workgroup 64
//@ include index
//@ include numbers
//@ include reduce_rows
//@ buffer x read array<u32>
//@ buffer y read array<u32>
//@ buffer out write array<u32>
// params: elements of the output, code of all, rows of x (0: pairs of rows of y, which is x too) and of y in a batch, length of a row,
//         order (0, 1, 2; 3 infinity),
//         places of the batches' dimensions for x and for y: strides in matrices

fn distance_of(i: u32) -> f32 {
    let columns = params[3];
    let length = params[4];
    let code = params[1];
    var a: u32;
    var b: u32;
    if params[2] == 0u {
        // Pairs in order: the first row with each that follows it, and so on.
        var row = 0u;
        var rest = i;
        while rest >= columns - 1u - row {
            rest -= columns - 1u - row;
            row += 1u;
        }
        a = row * length;
        b = (row + 1u + rest) * length;
    } else {
        let batch = i / (params[2] * columns);
        let place = i % (params[2] * columns);
        a = (strided(batch, params[6]) * params[2] + place / columns) * length;
        b = (strided(batch, params[7]) * columns + place % columns) * length;
    }
    var total = 0.0;
    for (var start = 0u; start < length; start += 32u) {
        var block = 0.0;
        for (var j = start; j < min(start + 32u, length); j++) {
            let d = abs(element(a + j, code) - float_from(y[word_of(b + j, code)], b + j, code));
            switch params[5] {
                case 0u: { block += select(1.0, 0.0, d == 0.0); }
                case 1u: { block += d; }
                case 2u: { block += d * d; }
                default: {
                    if !is_nan(block) && (d > block || is_nan(d)) { block = d; }
                }
            }
        }
        if params[5] < 3u {
            total += block;
        } else if !is_nan(total) && (block > total || is_nan(block)) {
            total = block;
        }
    }
    return select(total, sqrt(total), params[5] == 2u);
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let word = linear(id, groups);
    let code = params[1];
    let shift = lanes_shift(code);
    if (word << shift) >= params[0] { return; }
    var bits = 0u;
    for (var lane = 0u; lane < (1u << shift); lane++) {
        let i = (word << shift) + lane;
        if i < params[0] { bits |= in_lane(bits_of_float(distance_of(i), code), lane, code); }
    }
    out[word] = bits;
}
