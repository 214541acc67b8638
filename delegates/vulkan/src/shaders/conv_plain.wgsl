// A convolution or transposed convolution of up to three dimensions on row-major tensors of any types of floats, in any groups: what the faster
// kernels do not do. An invocation makes one word of the output.
//
// Along a dimension, output o and kernel element k meet input (o * multiple + offset + k * step) / gap, where that is whole, as in `conv_direct`.
//@ workgroup 64
//@ include index
//@ include numbers
//@ include finish
//@ buffer x read array<u32>
//@ buffer w read array<u32>
//@ buffer bias read array<u32>
//@ buffer extra0 read array<u32>
//@ buffer extra1 read array<u32>
//@ buffer out write array<u32>
// params: 0 words, 1 elements, 2 code of x and the output, 3 code of weights, 4 code of bias (255: none), 5 channels, 6 outputs,
// 7 channels of a group, 8 outputs of a group, 9 1 for weights of a transposed convolution; from 10, 18 and 26 on, for each dimension:
// input size, output size, kernel size, multiple, offset, step, gap, lift; 34 the finish.

// The input's place along a dimension; beyond its size if there is none.
fn meet(o: u32, k: u32, at: u32) -> u32 {
    let gap = params[at + 6u];
    let over = o * params[at + 3u] + params[at + 4u] + k * params[at + 5u] + gap * params[at + 7u];
    if over % gap != 0u { return 0xffffffffu; }
    return over / gap - params[at + 7u];
}

fn element(i: u32) -> f32 {
    var rest = i;
    let ox = rest % params[27];
    rest /= params[27];
    let oy = rest % params[19];
    rest /= params[19];
    let oz = rest % params[11];
    rest /= params[11];
    let o = rest % params[6];
    let n = rest / params[6];
    let group = o / params[8];
    let inner = params[7];
    let volume = params[12] * params[20] * params[28];
    var sum = 0.0;
    if params[4] != 255u { sum = float_from(bias[word_of(o, params[4])], o, params[4]); }
    for (var kz = 0u; kz < params[12]; kz++) {
        let z = meet(oz, kz, 10u);
        if z >= params[10] { continue; }
        for (var ky = 0u; ky < params[20]; ky++) {
            let y = meet(oy, ky, 18u);
            if y >= params[18] { continue; }
            for (var kx = 0u; kx < params[28]; kx++) {
                let t = meet(ox, kx, 26u);
                if t >= params[26] { continue; }
                let k = (kz * params[20] + ky) * params[28] + kx;
                // Sums of sums lose less than one long sum.
                var part = 0.0;
                for (var c = 0u; c < inner; c++) {
                    let channel = group * inner + c;
                    let at = (((n * params[5] + channel) * params[10] + z) * params[18] + y) * params[26] + t;
                    var weight = (o * inner + c) * volume + k;
                    if params[9] != 0u { weight = (channel * params[8] + o % params[8]) * volume + k; }
                    let a = float_from(x[word_of(at, params[2])], at, params[2]);
                    let b = float_from(w[word_of(weight, params[3])], weight, params[3]);
                    part += a * b;
                }
                sum += part;
            }
        }
    }
    return sum;
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let code = params[2];
    let shift = lanes_shift(code);
    var word = 0u;
    for (var lane = 0u; lane < (1u << shift); lane++) {
        let j = (i << shift) + lane;
        if j < params[1] {
            word |= bits_of_float(finish(element(j), j, 34u), code) << (lane * (32u >> shift));
        }
    }
    out[i] = word;
}
