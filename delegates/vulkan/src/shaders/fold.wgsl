// Windows of an image as columns, and the sum of such columns. An invocation makes one word of the output.
//@ workgroup 64
//@ include index
//@ include numbers
//@ buffer x read array<u32>
//@ buffer out write array<u32>
//@ variant im2col IM2COL=1
//@ variant col2im COL2IM=1
// params: 0 words, 1 elements, 2 code, 3 image height, 4 image width, 5 windows down, 6 windows across, 7 kernel height, 8 kernel width;
// 9 stride, 10 padding, 11 dilation down; 12 to 14 across

fn load(at: u32) -> f32 {
    return float_from(x[word_of(at, params[2])], at, params[2]);
}

//@ if IM2COL
fn element(i: u32) -> f32 {
    let across = i % params[6];
    var rest = i / params[6];
    let down = rest % params[5];
    rest /= params[5];
    let kx = rest % params[8];
    rest /= params[8];
    let ky = rest % params[7];
    let plane = rest / params[7];
    let y = down * params[9] + ky * params[11] - params[10];
    let z = across * params[12] + kx * params[14] - params[13];
    if y >= params[3] || z >= params[4] { return 0.0; }
    return load((plane * params[3] + y) * params[4] + z);
}
//@ end
//@ if COL2IM
fn element(i: u32) -> f32 {
    let z = i % params[4];
    let y = (i / params[4]) % params[3];
    let plane = i / params[4] / params[3];
    var sum = 0.0;
    for (var ky = 0u; ky < params[7]; ky++) {
        // Below the first window this wraps around to a large number.
        let below = y + params[10] - ky * params[11];
        if below % params[9] != 0u || below / params[9] >= params[5] { continue; }
        for (var kx = 0u; kx < params[8]; kx++) {
            let beside = z + params[13] - kx * params[14];
            if beside % params[12] != 0u || beside / params[12] >= params[6] { continue; }
            let row = (plane * params[7] + ky) * params[8] + kx;
            sum += load((row * params[5] + below / params[9]) * params[6] + beside / params[12]);
        }
    }
    return sum;
}
//@ end

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let shift = lanes_shift(params[2]);
    var word = 0u;
    for (var lane = 0u; lane < (1u << shift); lane++) {
        let j = (i << shift) + lane;
        if j < params[1] { word |= bits_of_float(element(j), params[2]) << (lane * (32u >> shift)); }
    }
    out[i] = word;
}
