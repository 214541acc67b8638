// Operations of chains on floats. Needs `numbers` and `ops`; with MATH, `math`.

fn truth(x: bool) -> f32 {
    return select(0.0, 1.0, x);
}

// Integers in the order of the numbers: drivers may take small numbers for zero when they compare them.
fn rank_of(x: f32) -> i32 {
    let bits = bitcast<i32>(x);
    return bits ^ ((bits >> 31u) & 0x7fffffff);
}

fn max_of(x: f32, y: f32) -> f32 {
    return select(select(y, x, rank_of(x) > rank_of(y) || is_nan(x)), y, is_nan(y));
}

fn min_of(x: f32, y: f32) -> f32 {
    return select(select(y, x, rank_of(x) < rank_of(y) || is_nan(x)), y, is_nan(y));
}

fn clamp_of(x: f32, low: f32, high: f32) -> f32 {
    return min_of(max_of(x, low), high);
}

// True also of numbers that the driver takes for zero.
fn nonzero(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) != 0u;
}

// From 0 to 1, both not among them, in magnitude.
fn is_fraction(x: f32) -> bool {
    return nonzero(x) && (bitcast<u32>(x) & 0x7fffffffu) < 0x3f800000u;
}

// A number as one from 1 to 2 with its sign, and the power of two that it is multiplied with; denormal numbers too.
fn scaled(x: f32) -> vec2<f32> {
    let bits = bitcast<u32>(x);
    let small = (bits & 0x7f800000u) == 0u;
    let normal = select(bits & 0x7fffffffu, bitcast<u32>(f32(bits & 0x7fffffu)), small);
    let exponent = f32(normal >> 23u) - select(127.0, 276.0, small);
    return vec2<f32>(bitcast<f32>((bits & 0x80000000u) | (normal & 0x7fffffu) | 0x3f800000u), exponent);
}

// The division of Vulkan need not be right for large and small divisors.
fn quotient(x: f32, y: f32) -> f32 {
    let a = scaled(x);
    let b = scaled(y);
    let power = i32(clamp(a.y - b.y, -250.0, 250.0));
    let half = power >> 1u;
    let ratio = a.x / b.x * bitcast<f32>(u32(half + 127) << 23u) * bitcast<f32>(u32(power - half + 127) << 23u);
    let usual = nonzero(x) && nonzero(y)
        && max(bitcast<u32>(x) & 0x7fffffffu, bitcast<u32>(y) & 0x7fffffffu) < 0x7f800000u;
    return select(x / y, ratio, usual);
}

// Below 2^-125 the bits of a number are how often it holds 2^-149, and sums are those of integers: drivers may take the numbers for zero.
fn small_sum(x: f32, y: f32) -> f32 {
    let a = bitcast<i32>(x);
    let b = bitcast<i32>(y);
    let sum = select(a, -(a & 0x7fffffff), a < 0) + select(b, -(b & 0x7fffffff), b < 0);
    let size = abs(sum);
    // From 2^-125 on, numbers are even: half of them, rounded to even, with the next exponent.
    let bits = select(size, 0x800000 + ((size + ((size >> 1u) & 1)) >> 1u), size >= 0x1000000);
    return bitcast<f32>(bits | (sum & bitcast<i32>(0x80000000u)));
}

fn sum_of(x: f32, y: f32, factor: f32) -> f32 {
    // Without a multiplication where the factor is a sign.
    let sign = bitcast<u32>(factor) & 0x80000000u;
    let product = select(factor * y, bitcast<f32>(bitcast<u32>(y) ^ sign), abs(factor) == 1.0);
    let size = max(bitcast<u32>(x) & 0x7fffffffu, bitcast<u32>(product) & 0x7fffffffu);
    return select(x + product, small_sum(x, product), size < 0x1000000u && size > 0u);
}

fn root(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    // sqrt(2 m 2^-150)
    let small = sqrt(2.0 * f32(bits)) * bitcast<f32>((127u - 75u) << 23u);
    let value = select(sqrt(x), small, bits > 0u && bits < 0x800000u);
    return select(value, bitcast<f32>(0x7fc00000u), bits > 0x80000000u);
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
        case OP_ADD, OP_RSUB: {
            let back = op == OP_RSUB;
            return sum_of(select(x, y, back), select(y, x, back), select(z, -z, back));
        }
        case OP_MUL: { return x * y; }
        // Each called once.
        case OP_DIV, OP_RDIV, OP_RECIPROCAL, OP_RSQRT: {
            let below = select(select(x, y, op == OP_DIV), root(x), op == OP_RSQRT);
            let above = select(select(1.0, y, op == OP_RDIV), x, op == OP_DIV);
            return quotient(above, below);
        }
        case OP_MAX: { return max_of(x, y); }
        case OP_MIN: { return min_of(x, y); }
        case OP_CLAMP: { return clamp_of(x, y, z); }
        case OP_EQ: { return truth(x == y); }
        case OP_NE: { return truth(!(x == y)); }
        case OP_LT: { return truth(x < y); }
        case OP_LE: { return truth(x <= y); }
        case OP_GT: { return truth(x > y); }
        case OP_GE: { return truth(x >= y); }
        case OP_SELECT: { return select(z, y, nonzero(x)); }
        case OP_FILL: { return select(x, y, nonzero(z)); }
        case OP_KEEP: { return select(y, x, nonzero(z)); }
        case OP_AND: { return truth(nonzero(x) && nonzero(y)); }
        case OP_OR: { return truth(nonzero(x) || nonzero(y)); }
        case OP_XOR: { return truth(nonzero(x) != nonzero(y)); }
        case OP_NOT: { return truth(!nonzero(x)); }
        case OP_ABS: { return bitcast<f32>(bitcast<u32>(x) & 0x7fffffffu); }
        case OP_NEG: { return bitcast<f32>(bitcast<u32>(x) ^ 0x80000000u); }
        case OP_SIGN: { return select(0.0, select(1.0, -1.0, bitcast<u32>(x) > 0x7fffffffu), nonzero(x) && !is_nan(x)); }
        case OP_CEIL: { return select(ceil(x), select(1.0, -0.0, bitcast<u32>(x) > 0x7fffffffu), is_fraction(x)); }
        case OP_FLOOR: { return select(floor(x), select(0.0, -1.0, bitcast<u32>(x) > 0x7fffffffu), is_fraction(x)); }
        case OP_ROUND: { return round(x); }
        case OP_TRUNC: { return trunc(x); }
        case OP_FRAC: { return x - trunc(x); }
        case OP_SQRT: { return root(x); }
        case OP_SQUARE: { return x * x; }
        case OP_HARDSWISH: { return x * clamp_of(x + 3.0, 0.0, 6.0) * (1.0 / 6.0); }
        case OP_HARDSIGMOID: { return clamp_of(x + 3.0, 0.0, 6.0) * (1.0 / 6.0); }
        case OP_LEAKY: { return select(x * y, x, x > 0.0); }
        case OP_THRESHOLD: { return select(x, z, x <= y); }
        case OP_HARDSHRINK: { return select(x, 0.0, x >= -y && x <= y); }
        case OP_SOFTSHRINK: { return select(select(select(0.0, x, is_nan(x)), x + y, x < -y), x - y, x > y); }
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
