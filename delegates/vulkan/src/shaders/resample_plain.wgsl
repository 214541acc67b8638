// Resizing of up to three dimensions of row-major tensors: each element is a weighted sum of a few. An invocation makes one word of the output.
//@ workgroup 64
//@ include index
//@ include numbers
//@ buffer x read array<u32>
//@ buffer taps read array<vec2<u32>>
//@ buffer out write array<u32>
// params: 0 words, 1 elements, 2 code; for each dimension: 3 input sizes, 6 output sizes, 9 taps of an output, 12 where they begin.
// Taps: for each output along a dimension its inputs, each with a weight (bits of f32).

// The bits of an output element.
fn element(i: u32) -> u32 {
    let code = params[2];
    let across = i % params[8];
    var rest = i / params[8];
    let down = rest % params[7];
    rest /= params[7];
    let deep = rest % params[6];
    let plane = rest / params[6];
    let first_deep = params[12] + deep * params[9];
    let first_down = params[13] + down * params[10];
    let first_across = params[14] + across * params[11];
    let is_copy = params[9] * params[10] * params[11] == 1u;
    var sum = 0.0;
    for (var kz = 0u; kz < params[9]; kz++) {
        let z = taps[first_deep + kz];
        for (var ky = 0u; ky < params[10]; ky++) {
            let y = taps[first_down + ky];
            let line = ((plane * params[3] + z.x) * params[4] + y.x) * params[5];
            let share = bitcast<f32>(z.y) * bitcast<f32>(y.y);
            for (var kx = 0u; kx < params[11]; kx++) {
                let t = taps[first_across + kx];
                let at = line + t.x;
                let v = float_from(x[word_of(at, code)], at, code);
                sum = select(sum + share * bitcast<f32>(t.y) * v, v, is_copy);
            }
        }
    }
    return bits_of_float(sum, code);
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let shift = lanes_shift(params[2]);
    var word = 0u;
    for (var lane = 0u; lane < (1u << shift); lane++) {
        let j = (i << shift) + lane;
        if j < params[1] { word |= element(j) << (lane * (32u >> shift)); }
    }
    out[i] = word;
}
