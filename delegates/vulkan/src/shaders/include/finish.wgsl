// What a kernel applies to a result before it writes it: a list of links in the parameters, made by `Encoder::finish`.
// From `at` on: the number of links, then five words a link, as in `chain.wgsl`:
//   op | slot of y << 8 | code of y << 16, then y, y2, z, z2.
// slot 0: the operand y is the number; 1 and 2: the element `i` of `extra0`, `extra1`, of the type of `code`. z is a number.
// The operations are those of `Op::finishes` in `chain.rs`.
// Needs the buffers `extra0` and `extra1` (array<u32>).
//@ include numbers
//@ include ops
//@ include math

fn finish_operand(head: u32, number: u32, i: u32) -> f32 {
    let slot = (head >> 8u) & 15u;
    let code = (head >> 16u) & 15u;
    if slot == 1u { return float_from(extra0[word_of(i, code)], i, code); }
    if slot == 2u { return float_from(extra1[word_of(i, code)], i, code); }
    return bitcast<f32>(number);
}

fn finish_clamp(x: f32, low: f32, high: f32) -> f32 {
    return select(min(max(x, low), high), x, is_nan(x));
}

//@ if CURVES
// Activations with an exponential, which is called in one place.
fn finish_curve(op: u32, x: f32) -> f32 {
    let is_tanh = op == OP_TANH;
    var u = x;
    var low = 0.0;
    switch op {
        case OP_TANH: { u = min(2.0 * abs(x), 40.0); }
        case OP_GELU_TANH: { u = -abs(x * (1.5957692 + 0.07135482 * x * x)); }
        case OP_GELU: {
            let held = min(abs(x) * 0.70710677, 20.0);
            let head = leading(held);
            u = -head * head;
            low = -(held - head) * (held + head);
        }
        default: { u = -abs(x); }
    }
    let scaled = op != OP_TANH && op != OP_GELU;
    let e = exp_parts(u, low, select(0, 24, scaled), select(0.0, 1.0, is_tanh));
    var y = x;
    if is_tanh {
        y = bitcast<f32>(bitcast<u32>(e / (e + 2.0)) | (bitcast<u32>(x) & 0x80000000u));
    } else if op == OP_GELU {
        let argument = x * -0.70710677;
        let far = e * erfc_far(min(abs(argument), 20.0));
        let near = 1.0 - erf_near(clamp(argument, -1.0, 1.0));
        y = select(select(far, 2.0 - far, argument < 0.0), near, abs(argument) < 1.0) * 0.5 * x;
    } else {
        let factor = select(x, 1.0, op == OP_SIGMOID);
        let e24 = e * 5.9604645e-8;
        y = select(factor, factor * 5.9604645e-8 * e, x < 0.0) / (1.0 + e24);
    }
    return select(y, x, is_nan(x));
}
//@ end

fn finish_link(op: u32, x: f32, y: f32, z: f32, y2: u32) -> f32 {
    switch op {
        case OP_ADD: { return x + z * y; }
        case OP_RSUB: { return y - z * x; }
        case OP_MUL: { return x * y; }
        case OP_DIV: { return x / y; }
        case OP_RDIV: { return y / x; }
        case OP_MAX: { return select(finish_clamp(x, y, infinity()), y, is_nan(y)); }
        case OP_MIN: { return select(finish_clamp(x, -infinity(), y), y, is_nan(y)); }
        case OP_CLAMP: { return finish_clamp(x, y, z); }
        case OP_ABS: { return abs(x); }
        case OP_NEG: { return -x; }
        case OP_SQUARE: { return x * x; }
        case OP_HARDSWISH: { return x * finish_clamp(x + 3.0, 0.0, 6.0) * (1.0 / 6.0); }
        case OP_HARDSIGMOID: { return finish_clamp(x + 3.0, 0.0, 6.0) * (1.0 / 6.0); }
        case OP_LEAKY: { return select(x * y, x, x > 0.0); }
        case OP_AS: { return float_from(bits_of_float(x, y2), 0u, y2); }
//@ if CURVES
        case OP_SIGMOID, OP_SILU, OP_TANH, OP_GELU, OP_GELU_TANH: { return finish_curve(op, x); }
//@ end
        default: { return x; }
    }
}

// `i`: the element's place in the output, as it lies in memory.
fn finish(x: f32, i: u32, at: u32) -> f32 {
    var y = x;
    for (var k = 0u; k < params[at]; k++) {
        let base = at + 1u + 5u * k;
        let head = params[base];
        let operand = finish_operand(head, params[base + 1u], i);
        y = finish_link(head & 255u, y, operand, bitcast<f32>(params[base + 3u]), params[base + 2u]);
    }
    return y;
}
