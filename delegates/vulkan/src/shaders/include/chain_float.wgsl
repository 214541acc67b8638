// Operations of chains on floats. Needs `numbers` and `ops`; with MATH, `math`.

fn truth(x: bool) -> f32 {
    return select(0.0, 1.0, x);
}

fn max_of(x: f32, y: f32) -> f32 {
    return select(select(y, x, x > y || is_nan(x)), y, is_nan(y));
}

fn min_of(x: f32, y: f32) -> f32 {
    return select(select(y, x, x < y || is_nan(x)), y, is_nan(y));
}

fn clamp_of(x: f32, low: f32, high: f32) -> f32 {
    return min_of(max_of(x, low), high);
}

fn quotient(x: f32, y: f32) -> f32 {
    return x / y;
}

fn root(x: f32) -> f32 {
    return sqrt(x);
}

// What an element of a dtype makes of it.
fn as_code(x: f32, code: u32) -> f32 {
    switch code {
        case F32: { return x; }
        case F16: { return unpack2x16float(f16_bits(x)).x; }
        case BF16: { return bitcast<f32>(bf16_bits(x) << 16u); }
        case I64: { let long = long_of_float(x); return float_of_long(long.x, long.y); }
        default: { return float_from(bits_of_float(x, code), 0u, code); }
    }
}

fn apply(op: u32, x: f32, y: f32, z: f32, y2: u32) -> f32 {
    switch op {
        case OP_LOAD: { return y; }
        case OP_ADD: { return x + z * y; }
        case OP_RSUB: { return y - z * x; }
        case OP_MUL: { return x * y; }
        case OP_DIV: { return quotient(x, y); }
        case OP_RDIV: { return quotient(y, x); }
        case OP_MAX: { return max_of(x, y); }
        case OP_MIN: { return min_of(x, y); }
        case OP_CLAMP: { return clamp_of(x, y, z); }
        case OP_EQ: { return truth(x == y); }
        case OP_NE: { return truth(!(x == y)); }
        case OP_LT: { return truth(x < y); }
        case OP_LE: { return truth(x <= y); }
        case OP_GT: { return truth(x > y); }
        case OP_GE: { return truth(x >= y); }
        case OP_SELECT: { return select(z, y, !(x == 0.0)); }
        case OP_FILL: { return select(x, y, !(z == 0.0)); }
        case OP_KEEP: { return select(y, x, !(z == 0.0)); }
        case OP_AND: { return truth(!(x == 0.0) && !(y == 0.0)); }
        case OP_OR: { return truth(!(x == 0.0) || !(y == 0.0)); }
        case OP_XOR: { return truth((x == 0.0) != (y == 0.0)); }
        case OP_NOT: { return truth(x == 0.0); }
        case OP_ABS: { return bitcast<f32>(bitcast<u32>(x) & 0x7fffffffu); }
        case OP_NEG: { return bitcast<f32>(bitcast<u32>(x) ^ 0x80000000u); }
        case OP_SIGN: { return select(0.0, select(-1.0, 1.0, x > 0.0), x < 0.0 || x > 0.0); }
        case OP_CEIL: { return ceil(x); }
        case OP_FLOOR: { return floor(x); }
        case OP_ROUND: { return round(x); }
        case OP_TRUNC: { return trunc(x); }
        case OP_FRAC: { return x - trunc(x); }
        case OP_SQRT: { return root(x); }
        case OP_RSQRT: { return quotient(1.0, root(x)); }
        case OP_RECIPROCAL: { return quotient(1.0, x); }
        case OP_SQUARE: { return x * x; }
        case OP_HARDSWISH: { return x * clamp_of(x + 3.0, 0.0, 6.0) * (1.0 / 6.0); }
        case OP_HARDSIGMOID: { return clamp_of(x + 3.0, 0.0, 6.0) * (1.0 / 6.0); }
        case OP_LEAKY: { return select(x * y, x, x > 0.0); }
        case OP_THRESHOLD: { return select(x, z, x <= y); }
        case OP_HARDSHRINK: { return select(x, 0.0, x >= -y && x <= y); }
        case OP_SOFTSHRINK: { return select(select(x * 0.0, x + y, x < -y), x - y, x > y); }
        case OP_IS_NAN: { return truth(is_nan(x)); }
        case OP_IS_INF: { return truth((bitcast<u32>(x) & 0x7fffffffu) == 0x7f800000u); }
        case OP_IS_FINITE: { return truth((bitcast<u32>(x) & 0x7fffffffu) < 0x7f800000u); }
        case OP_COPYSIGN: { return bitcast<f32>((bitcast<u32>(x) & 0x7fffffffu) | (bitcast<u32>(y) & 0x80000000u)); }
        case OP_NAN_TO_NUM: {
            let bits = bitcast<u32>(x);
            return select(select(select(x, z, bits == 0xff800000u), bitcast<f32>(y2), bits == 0x7f800000u), y, is_nan(x));
        }
        case OP_AS: { return as_code(x, y2); }
        case OP_FMAX: { return select(select(max_of(x, y), y, is_nan(x)), x, is_nan(y)); }
        case OP_FMIN: { return select(select(min_of(x, y), y, is_nan(x)), x, is_nan(y)); }
//@ if MATH
        default: { return apply_math(op, x, y, z, y2); }
//@ end
//@ if PLAIN
        default: { return x; }
//@ end
    }
}
