// What a kernel applies to a result before it writes it: a list of links in the parameters, made by `Encoder::finish`.
// From `at` on: the number of links, then four words a link:
//   op | slot << 8 | code << 16, a number, and two more, a and b (bits of f32).
// slot 0: the operand is the number; 1 and 2: the element `i` of `extra0`, `extra1`, of the type of `code`.
// Needs `include numbers`, and the buffers `extra0` and `extra1` (array<u32>).

fn finish_operand(head: u32, number: u32, i: u32) -> f32 {
    let slot = (head >> 8u) & 255u;
    let code = head >> 16u;
    if slot == 1u { return float_from(extra0[word_of(i, code)], i, code); }
    if slot == 2u { return float_from(extra1[word_of(i, code)], i, code); }
    return bitcast<f32>(number);
}

fn finish_link(x: f32, op: u32, y: f32, a: f32, b: f32) -> f32 {
    switch op {
        case 0u: { return x + a * y; }
        case 1u: { return x * y; }
        case 2u: { return select(clamp(x, a, b), x, is_nan(x)); } // relu, relu6, hardtanh, clamp
        case 3u: { return select(x * clamp(x + 3.0, 0.0, 6.0) / 6.0, x, is_nan(x)); } // hardswish
        case 4u: { return select(clamp(x + 3.0, 0.0, 6.0) / 6.0, x, is_nan(x)); } // hardsigmoid
        default: { return x; }
    }
}

// `i`: the element's place in the output, as it lies in memory.
fn finish(x: f32, i: u32, at: u32) -> f32 {
    var y = x;
    for (var k = 0u; k < params[at]; k++) {
        let base = at + 1u + 4u * k;
        let head = params[base];
        let operand = finish_operand(head, params[base + 1u], i);
        y = finish_link(y, head & 255u, operand, bitcast<f32>(params[base + 2u]), bitcast<f32>(params[base + 3u]));
    }
    return y;
}
