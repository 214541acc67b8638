// Floats to integers and back, by scales and zero points: an invocation makes one word. Element `e` has parameter `e / after % count`.
//
// params:
//    0 elements, codes of source | result << 8 | zero points << 16, after, count of parameters
//    4 flags: 1 scales are a tensor, 2 zero points are, 4 the zero point is added before rounding, 8 scales of 64 bits
//    5 the scale, or 1 / scale for `to`, where it is a number (bits); the zero point likewise (bits of f32); least and greatest integer
//@ workgroup 64
//@ include index
//@ include numbers
//@ include double
//@ buffer source read array<u32>
//@ buffer scales read array<u32>
//@ buffer zeros read array<u32>
//@ buffer out write array<u32>
//@ variant to WAY=to
//@ variant from WAY=from

fn scale_at(i: u32) -> f32 {
    if (params[4] & 8u) != 0u { return f32_of_double(scales[2u * i], scales[2u * i + 1u]); }
    return bitcast<f32>(scales[i]);
}

fn zero_at(i: u32) -> f32 {
    if (params[4] & 2u) == 0u { return bitcast<f32>(params[6]); }
    let code = params[1] >> 16u;
    return float_from(zeros[word_of(i, code)], i, code);
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let from_code = params[1] & 255u;
    let to_code = (params[1] >> 8u) & 255u;
    let lanes = 1u << lanes_shift(to_code);
    let first = linear(id, groups) * lanes;
    if first >= params[0] { return; }
    var word = 0u;
    for (var lane = 0u; lane < lanes && first + lane < params[0]; lane++) {
        let e = first + lane;
        let i = e / params[2] % params[3];
        let x = float_from(source[word_of(e, from_code)], e, from_code);
        let zero = zero_at(i);
        var element = 0u;
//@ if WAY=to
        var factor = bitcast<f32>(params[5]);
        if (params[4] & 1u) != 0u { factor = 1.0 / scale_at(i); }
        var steps = 0.0;
        if (params[4] & 4u) != 0u {
            steps = round(x * factor + zero);
        } else {
            steps = round(x * factor) + zero;
        }
        let integer = i32(clamp(steps, f32(bitcast<i32>(params[7])), f32(bitcast<i32>(params[8]))));
        element = bits_of_int(integer, to_code);
//@ end
//@ if WAY=from
        var factor = bitcast<f32>(params[5]);
        if (params[4] & 1u) != 0u { factor = scale_at(i); }
        element = bits_of_float((x - zero) * factor, to_code);
//@ end
        word |= element << (lane * (32u / lanes));
    }
    out[first / lanes] = word;
}
