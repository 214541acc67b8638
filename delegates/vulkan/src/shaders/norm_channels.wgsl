// Normalizes channels by statistics that are given: an invocation makes a word of the output.
//@ workgroup 64
//@ include index
//@ include numbers
//@ buffer x read array<u32>
//@ buffer mean read array<u32>
//@ buffer variance read array<u32>
//@ buffer weight read array<u32>
//@ buffer bias read array<u32>
//@ buffer out write array<u32>
// params: elements, code of x, code of out, elements of a channel that lie together, channels that lie, channels, flags (1 weight, 2 bias), epsilon,
//         codes of mean, variance, weight and bias

fn normalized(i: u32) -> f32 {
    let channel = (i / params[3]) % params[4];
    if channel >= params[5] { return 0.0; }
    let code = params[1];
    let value = float_from(x[word_of(i, code)], i, code);
    let center = float_from(mean[word_of(channel, params[8])], channel, params[8]);
    let spread = float_from(variance[word_of(channel, params[9])], channel, params[9]);
    var y = (value - center) * (1.0 / sqrt(spread + bitcast<f32>(params[7])));
    if (params[6] & 1u) != 0u { y = y * float_from(weight[word_of(channel, params[10])], channel, params[10]); }
    if (params[6] & 2u) != 0u { y = y + float_from(bias[word_of(channel, params[11])], channel, params[11]); }
    return y;
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let word = linear(id, groups);
    let code = params[2];
    let shift = lanes_shift(code);
    if (word << shift) >= params[0] { return; }
    var bits = 0u;
    for (var lane = 0u; lane < (1u << shift); lane++) {
        let i = (word << shift) + lane;
        if i < params[0] { bits |= bits_of_float(normalized(i), code) << (16u * lane); }
    }
    out[word] = bits;
}
