// A convolution of bytes in integers, in groups of whole blocks of four channels, channels last: four terms at once. An invocation makes
// four pixels of a row for four channels.
//@ workgroup 64
//@ include index
//@ include numbers
//@ include double
//@ buffer x read array<u32>
//@ buffer w read array<vec4<u32>>
//@ buffer scales read array<u32>
//@ buffer zeros read array<u32>
//@ buffer bias read array<u32>
//@ buffer out write array<u32>
//@ include scales
//@ include requantize
//@ include bytes
//@ variant plain WAY=plain
//@ variant dot WAY=dot needs=dot
// params: 0 invocations, 1 output blocks, 2 of them in a group, 3 input blocks of a group, 4 input blocks, 5 tiles of a row, 6 output height,
// 7 output width, 8 input height, 9 input width, 10 kernel height, 11 kernel width, 12 outputs; down: 13 stride, 14 padding, 15 dilation;
// across: 16 to 18; 19 0x80808080 for unsigned input, 20 four elements of the padding, 21 the same in the last block, 22 terms of a sum,
// 23 what the channels that fill up the last block add to a sum of inputs, 24 where the sums of weights begin; from 26 on `include bytes`;
// 32 the zero point of the input. Weights: kernel element, input block, output block, four outputs, and in each word four inputs; behind them
// the sum of each output's weights.

const ONES: u32 = 0x01010101u;

fn dots(a: u32, b: vec4<u32>) -> vec4<i32> {
    return vec4<i32>(dot4I8Packed(a, b.x), dot4I8Packed(a, b.y), dot4I8Packed(a, b.z), dot4I8Packed(a, b.w));
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let blocks = params[1];
    let block = i % blocks;
    let rest = i / blocks;
    let first = 4u * (rest % params[5]);
    let row = rest / params[5];
    let down = row % params[6];
    let n = row / params[6];
    let inner = params[3];
    let stored = params[4];
    let base = block / params[2] * inner;
    let height = params[8];
    let width = params[9];
    let kernel_height = params[10];
    let kernel_width = params[11];
    let stride = params[16];
    let start_down = down * params[13] - params[14];
    let step_down = params[15];
    let start_across = first * stride - params[17];
    let step_across = params[18];
    let flip = params[19];
    var sum0 = vec4<i32>();
    var sum1 = vec4<i32>();
    var sum2 = vec4<i32>();
    var sum3 = vec4<i32>();
    var of_x = vec4<i32>();
    var at = block;
    for (var ky = 0u; ky < kernel_height; ky++) {
        let y = start_down + ky * step_down;
        let line = select(0u, (n * height + y) * width, y < height);
        for (var kx = 0u; kx < kernel_width; kx++) {
            let z = vec4<u32>(start_across + kx * step_across) + vec4<u32>(0u, stride, 2u * stride, 3u * stride);
            let there = (z < vec4<u32>(width)) & vec4<bool>(y < height);
            let p = (vec4<u32>(line) + select(vec4<u32>(0u), z, there)) * stored + vec4<u32>(base);
            for (var k = 0u; k < inner; k++) {
                let fill = vec4<u32>(select(params[20], params[21], k + 1u == inner));
                let v = select(fill, vec4<u32>(x[p.x + k], x[p.y + k], x[p.z + k], x[p.w + k]), there) ^ vec4<u32>(flip);
                let u = w[at];
                sum0 += dots(v.x, u);
                sum1 += dots(v.y, u);
                sum2 += dots(v.z, u);
                sum3 += dots(v.w, u);
                of_x += dots(ONES, v);
                at += blocks;
            }
        }
    }
    // (x - zx)(w - zw) = xw - zx·w - zw·x + zx·zw, summed.
    let c = 4u * block;
    let zero = zeros4(c, params[12]);
    let input = bitcast<i32>(params[32]);
    let of_w = bitcast<vec4<i32>>(w[params[24] + block]);
    let added = zero * (bitcast<i32>(params[22]) * input) - input * of_w;
    of_x += vec4<i32>(bitcast<i32>(params[23]));
    for (var r = 0u; r < 4u; r++) {
        if first + r >= params[7] { break; }
        let sum = select(select(sum0, sum1, r == 1u), select(sum2, sum3, r == 3u), r >= 2u);
        let inputs = select(select(of_x.x, of_x.y, r == 1u), select(of_x.z, of_x.w, r == 3u), r >= 2u);
        out[(row * params[7] + first + r) * blocks + block] = result4(sum + added - zero * inputs, c, params[12]);
    }
}
