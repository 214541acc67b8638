// A matrix product of operands of any types and steps, quantized or not: an invocation makes one word of the result, as many elements as it
// has. Slow and general: for rows of an odd number of narrow elements, and for types that have no kernel of their own.
//
// params (behind those of `include product`):
//   31 scale of a (bits), zero point of a
//   33 elements along k that share a scale of b, steps of scales from a column to the next and from a group to the next
//   36 flags: 1 scales, 2 zero points, 4 the result is quantized, 8 scales of 64 bits, 16 `c` is integers of the scale of a · b;
//      code of the zero points << 8
//   37 1 / scale of the result (bits), its zero point, its least and greatest integer
//@ workgroup 64
//@ include index
//@ include numbers
//@ include double
//@ buffer a read array<u32>
//@ buffer b read array<u32>
//@ buffer scales read array<u32>
//@ buffer zeros read array<u32>
//@ buffer c read array<u32>
//@ buffer extra0 read array<u32>
//@ buffer extra1 read array<u32>
//@ buffer out write array<u32>
//@ include finish
//@ include product
//@ include requantize
//@ include scales

fn sum_of(m: u32, n: u32, z: u32) -> f32 {
    let a_code = params[9] & 255u;
    let b_code = (params[9] >> 8u) & 255u;
    let a_zero = f32(bitcast<i32>(params[32]));
    var x = batch_start(z, 10u) + m * params[11];
    var y = batch_start(z, 16u) + n * params[18];
    var total = 0.0;
    var group = 0u;
    for (var k = 0u; k < params[2]; k += params[33]) {
        let b_zero = zero_of(n, group);
        let end = min(params[33], params[2] - k);
        var sum = 0.0;
        for (var j = 0u; j < end; j++) {
            sum += (float_from(a[word_of(x, a_code)], x, a_code) - a_zero) * (float_from(b[word_of(y, b_code)], y, b_code) - b_zero);
            x += params[12];
            y += params[17];
        }
        if (params[36] & 16u) != 0u { sum += f32(bitcast<i32>(c[n * params[24]])); }
        total += sum * scale_of(n, group);
        group++;
    }
    return total * bitcast<f32>(params[31]);
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let code = params[9] >> 24u;
    let lanes = 1u << lanes_shift(code);
    let first = linear(id, groups) * lanes;
    let count = params[0] * params[1] * params[5];
    if first >= count { return; }
    let bits = 32u / lanes;
    var word = 0u;
    for (var lane = 0u; lane < lanes && first + lane < count; lane++) {
        let e = first + lane;
        let n = e % params[1];
        let rest = e / params[1];
        let m = rest % params[0];
        let z = rest / params[0];
        let x = result_of(sum_of(m, n, z), m, n, z);
        var element = 0u;
        if (params[36] & 4u) != 0u {
            element = bits_of_int(requantized(x), code);
        } else {
            element = bits_of_float(x, code);
        }
        word |= element << (lane * bits);
    }
    out[(params[28] + first) >> lanes_shift(code)] = word;
}
