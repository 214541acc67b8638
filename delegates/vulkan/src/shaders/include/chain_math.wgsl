// Operations of chains on floats that are more than arithmetic. Needs `math`, `power`, `ops`.
//
// All go through the same cores, each called in one place: arguments are chosen by the operation before, and the results combined after.

fn apply_math(op: u32, x: f32, y: f32, z: f32, y2: u32) -> f32 {
    let a = abs(x);
    // The exponential 2^k (e^(u + low) - less).
    var u = x;
    var low = 0.0;
    var k = 0;
    var less = 0.0;
    // In powers, its exponent in base 2.
    var exponent = vec2<f32>(0.0, 0.0);
    var base = 0.0;
    var power = 0.0;
    switch op {
        case OP_POW, OP_RPOW: {
            base = select(y, x, op == OP_POW);
            power = select(x, y, op == OP_POW);
            exponent = power_exponent(base, power);
        }
        case OP_EXP2: {
            let held = clamp(x, -160.0, 140.0);
            let n = round(held);
            exponent = vec2<f32>(n, held - n);
        }
        case OP_EXPM1: { less = 1.0; }
        case OP_ELU: { u = z * x; less = 1.0; }
        case OP_SIGMOID, OP_SILU, OP_MISH: { u = -a; k = 24; }
        case OP_GELU_TANH: { u = -abs(x * (1.5957692 + 0.07135482 * x * x)); k = 24; }
        case OP_LOG_SIGMOID: { u = -a; }
        case OP_SOFTPLUS: { u = -abs(x * y); }
        case OP_LOGADDEXP: { u = -abs(x - y); }
        case OP_TANH: { u = min(2.0 * a, 40.0); less = 1.0; }
        case OP_SINH: { u = a; less = select(0.0, 1.0, a < 1.0); k = select(-1, 0, a < 1.0); }
        case OP_COSH: { u = a; k = -1; }
        case OP_ERF, OP_ERFC, OP_GELU: {
            let held = min(a * select(1.0, 0.70710677, op == OP_GELU), 20.0);
            let head = leading(held);
            u = -head * head;
            low = -(held - head) * (held + head);
        }
        default: {}
    }
    // e^(u + low) or 2^exponent.
    let held = clamp(u, -150.0, 100.0);
    var n = round(held * 1.442695);
    var r = ((held - n * 0.69314575) - n * 1.4286068e-6) + low;
    if op == OP_POW || op == OP_RPOW || op == OP_EXP2 {
        n = exponent.x;
        r = exponent.y * 0.6931472;
    }
    let e = exp_core(n, r, k, less);
    let e24 = e * 5.9604645e-8;

    // The logarithm of `v`, times 2^doubled; or of 1 + v.
    var v = x;
    var next = false;
    var doubled = 0.0;
    switch op {
        case OP_LOG1P: { next = true; }
        case OP_LOG_SIGMOID, OP_SOFTPLUS, OP_LOGADDEXP: { v = e; next = true; }
        case OP_ASINH: {
            next = a < 4096.0;
            v = select(a, a + a * a / (1.0 + sqrt(1.0 + a * a)), next);
            doubled = select(1.0, 0.0, next);
        }
        case OP_ACOSH: {
            let over = x - 1.0;
            next = x < 4096.0;
            v = select(x, over + sqrt(over * (over + 2.0)), next);
            v = select(v, not_a_number(), x < 1.0);
            doubled = select(1.0, 0.0, next);
        }
        case OP_ATANH: { v = 2.0 * a / (1.0 - a); next = true; }
        case OP_LOGIT: {
            next = x > 0.3 && x < 0.7;
            v = select(select(x, 2.0 * x - 1.0, next) / (1.0 - x), x, x < 1e-9);
        }
        case OP_XLOGY: { v = y; }
        default: {}
    }
    var parts = vec2<f32>(0.0, v);
    if !(next && v > -0.29 && v < 0.41) {
        v = select(v, 1.0 + v, next);
        parts = log_split(v);
    } else {
        v = 1.0;
    }
    parts.x += doubled;
    let core = log_core(parts.y);
    let log = log_checked(log_sum(parts.x, core), v);

    let sign = bitcast<u32>(x) & 0x80000000u;
    switch op {
        case OP_POW, OP_RPOW: { return power_checked(e, base, power); }
        case OP_EXP, OP_EXP2, OP_EXPM1: { return select(e, x, is_nan(x)); }
        case OP_ELU: { return select(y * e, x * bitcast<f32>(y2), x > 0.0 || is_nan(x)); }
        case OP_SIGMOID: { return select(select(1.0, e24, x < 0.0) / (1.0 + e24), x, is_nan(x)); }
        case OP_SILU, OP_GELU_TANH: { return select(x, x * 5.9604645e-8 * e, x < 0.0) / (1.0 + e24); }
        case OP_MISH: {
            let below = x * 5.9604645e-8 * e * (e24 + 2.0) / (e24 * e24 + 2.0 * e24 + 2.0);
            let above = x * (1.0 + 2.0 * e24) / (1.0 + 2.0 * e24 + 2.0 * e24 * e24);
            return select(above, below, x < 0.0);
        }
        case OP_LOG_SIGMOID: { return select(min(x, 0.0) - log, x, is_nan(x)); }
        case OP_SOFTPLUS: {
            let scaled = x * y;
            return select((max(scaled, 0.0) + log) / y, x, scaled > z || is_nan(x));
        }
        case OP_LOGADDEXP: {
            let top = max_of(x, y);
            return select(top + select(log, 0.6931472, x == y), top, is_nan(top));
        }
        case OP_TANH: { return select(bitcast<f32>(bitcast<u32>(e / (e + 2.0)) | sign), x, is_nan(x)); }
        case OP_SINH: {
            let near = 0.5 * (e + e / (e + 1.0));
            return select(bitcast<f32>(bitcast<u32>(select(e - 0.25 / e, near, a < 1.0)) | sign), x, is_nan(x));
        }
        case OP_COSH: { return select(e + 0.25 / e, x, is_nan(x)); }
        case OP_ERF, OP_ERFC, OP_GELU: {
            let argument = x * select(1.0, -0.70710677, op == OP_GELU);
            let held = min(abs(argument), 20.0);
            let far = e * erfc_far(held);
            let near = erf_near(clamp(argument, -1.0, 1.0));
            let is_near = held < 1.0;
            let error = select(bitcast<f32>(bitcast<u32>(1.0 - far) | sign), near, is_near);
            let complement = select(select(far, 2.0 - far, argument < 0.0), 1.0 - near, is_near);
            let value = select(complement, error, op == OP_ERF);
            return select(value * select(1.0, 0.5 * x, op == OP_GELU), x, is_nan(x));
        }
        case OP_LOG, OP_LOG1P, OP_LOGIT: { return select(log, x, is_nan(x)); }
        case OP_LOG2: { return log_checked(parts.x + core * 1.442695, x); }
        case OP_LOG10: { return log_checked(parts.x * 0.30102539 + (parts.x * 4.605039e-6 + core * 0.4342945), x); }
        case OP_ASINH: { return select(bitcast<f32>(bitcast<u32>(log) | sign), x, is_nan(x)); }
        case OP_ACOSH: { return log; }
        case OP_ATANH: { return bitcast<f32>(bitcast<u32>(0.5 * log) ^ sign); }
        case OP_XLOGY: { return select(select(x * log, 0.0, x == 0.0), y, is_nan(y)); }
        case OP_SIN, OP_COS, OP_TAN: {
            let both = m_sin_cos(x);
            return select(select(both.x, both.y, op == OP_COS), both.x / both.y, op == OP_TAN);
        }
        case OP_ASIN, OP_ACOS, OP_ATAN, OP_ATAN2: {
            let leg = sqrt((1.0 - x) * (1.0 + x));
            let beside = select(select(select(leg, x, op == OP_ACOS), 1.0, op == OP_ATAN), y, op == OP_ATAN2);
            return m_atan2(select(x, leg, op == OP_ACOS), beside);
        }
        case OP_HYPOT: {
            let high = max(a, abs(y));
            let low = min(a, abs(y));
            let ratio = select(low / high, 0.0, high == 0.0);
            let value = high * sqrt(1.0 + ratio * ratio);
            let endless = a == infinity() || abs(y) == infinity();
            return select(select(value, not_a_number(), is_nan(x) || is_nan(y)), infinity(), endless);
        }
        case OP_FMOD, OP_REMAINDER, OP_FLOOR_DIV, OP_TRUNC_DIV: {
            let rest = m_fmod(x, y);
            let other = rest != 0.0 && (rest < 0.0) != (y < 0.0);
            // Without the rest the quotient is whole.
            let plain = (x - select(rest, 0.0, y == 0.0)) / y;
            let whole = round(plain) - select(0.0, 1.0, other && op == OP_FLOOR_DIV);
            let signed = bitcast<f32>((bitcast<u32>(x) ^ bitcast<u32>(y)) & 0x80000000u);
            let divided = select(select(whole, signed, whole == 0.0), plain, y == 0.0);
            let left = select(rest, rest + y, other && op == OP_REMAINDER);
            return select(divided, left, op == OP_FMOD || op == OP_REMAINDER);
        }
        default: { return x; }
    }
}
