// A convolution of bytes in integers in which each channel is a group, channels last. An invocation makes a pixel of four channels.
//@ workgroup 64
//@ include index
//@ include numbers
//@ include double
//@ buffer x read array<u32>
//@ buffer w read array<u32>
//@ buffer scales read array<u32>
//@ buffer zeros read array<u32>
//@ buffer bias read array<u32>
//@ buffer out write array<u32>
//@ include scales
//@ include requantize
//@ include bytes
// params: 0 invocations, 1 blocks of channels, 6 to 19 as in `conv_bytes` (12 are the channels); from 26 on `include bytes`; 32 the zero point of
// the input. Weights: kernel element, block of channels, and in each word four channels.

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let blocks = params[1];
    let block = i % blocks;
    let rest = i / blocks;
    let across = rest % params[7];
    let down = (rest / params[7]) % params[6];
    let n = rest / params[7] / params[6];
    let height = params[8];
    let width = params[9];
    let kernel_height = params[10];
    let kernel_width = params[11];
    let start_down = down * params[13] - params[14];
    let start_across = across * params[16] - params[17];
    let flip = params[19];
    let input = vec4<i32>(bitcast<i32>(params[32]));
    let zero = zeros4(4u * block, params[12]);
    var sum = vec4<i32>();
    for (var ky = 0u; ky < kernel_height; ky++) {
        let y = start_down + ky * params[15];
        if y >= height { continue; }
        for (var kx = 0u; kx < kernel_width; kx++) {
            let z = start_across + kx * params[18];
            if z >= width { continue; }
            let v = unpack4xI8(x[((n * height + y) * width + z) * blocks + block] ^ flip);
            let u = unpack4xI8(w[(ky * kernel_width + kx) * blocks + block]);
            sum += (v - input) * (u - zero);
        }
    }
    out[i] = result4(sum, 4u * block, params[12]);
}
