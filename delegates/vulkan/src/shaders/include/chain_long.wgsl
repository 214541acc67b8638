// Operations of chains on 64-bit integers in two words, the low one first. Needs `numbers`, `ops`.

fn truth(x: bool) -> vec2<u32> {
    return vec2<u32>(select(0u, 1u, x), 0u);
}

fn is_zero(x: vec2<u32>) -> bool {
    return (x.x | x.y) == 0u;
}

fn is_negative(x: vec2<u32>) -> bool {
    return (x.y >> 31u) == 1u;
}

fn is_less(x: vec2<u32>, y: vec2<u32>) -> bool {
    return select(bitcast<i32>(x.y) < bitcast<i32>(y.y), x.x < y.x, x.y == y.y);
}

fn sum(x: vec2<u32>, y: vec2<u32>) -> vec2<u32> {
    let low = x.x + y.x;
    return vec2<u32>(low, x.y + y.y + select(0u, 1u, low < x.x));
}

fn negated(x: vec2<u32>) -> vec2<u32> {
    return vec2<u32>(0u - x.x, ~x.y + select(0u, 1u, x.x == 0u));
}

fn magnitude(x: vec2<u32>) -> vec2<u32> {
    return select(x, negated(x), is_negative(x));
}

fn product(x: vec2<u32>, y: vec2<u32>) -> vec2<u32> {
    let xl = x.x & 0xffffu;
    let xh = x.x >> 16u;
    let yl = y.x & 0xffffu;
    let yh = y.x >> 16u;
    let ll = xl * yl;
    let middle = xh * yl + (ll >> 16u);
    let cross = xl * yh + (middle & 0xffffu);
    let high = xh * yh + (middle >> 16u) + (cross >> 16u);
    return vec2<u32>(x.x * y.x, high + x.x * y.y + x.y * y.x);
}

fn larger(x: vec2<u32>, y: vec2<u32>) -> vec2<u32> {
    return select(x, y, is_less(x, y));
}

fn smaller(x: vec2<u32>, y: vec2<u32>) -> vec2<u32> {
    return select(x, y, is_less(y, x));
}

// x / y cut off towards zero, then what is left. Where y is zero, both are zero: the host raises an error there, a kernel cannot.
fn divided(x: vec2<u32>, y: vec2<u32>) -> vec4<u32> {
    if is_zero(y) { return vec4<u32>(0u); }
    let divisor = magnitude(y);
    var left = magnitude(x);
    var rest = vec2<u32>(0u, 0u);
    for (var k = 0u; k < 64u; k++) {
        // The quotient grows where the dividend leaves.
        rest = vec2<u32>((rest.x << 1u) | (left.y >> 31u), (rest.y << 1u) | (rest.x >> 31u));
        left = vec2<u32>(left.x << 1u, (left.y << 1u) | (left.x >> 31u));
        // Unsigned: magnitudes are up to 2^63.
        let fits = select(rest.y > divisor.y, rest.x >= divisor.x, rest.y == divisor.y);
        rest = select(rest, sum(rest, negated(divisor)), fits);
        left.x |= select(0u, 1u, fits);
    }
    let quotient = select(left, negated(left), is_negative(x) != is_negative(y));
    return vec4<u32>(quotient, select(rest, negated(rest), is_negative(x)));
}

fn raised(x: vec2<u32>, y: vec2<u32>) -> vec2<u32> {
    let one = vec2<u32>(1u, 0u);
    if is_negative(y) {
        let odd = (y.x & 1u) == 1u;
        if all(x == one) { return one; }
        return select(vec2<u32>(0u, 0u), select(one, x, odd), all(x == vec2<u32>(0xffffffffu)));
    }
    var result = one;
    var square = x;
    var left = y;
    while !is_zero(left) {
        result = select(result, product(result, square), (left.x & 1u) == 1u);
        square = product(square, square);
        left = vec2<u32>((left.x >> 1u) | (left.y << 31u), left.y >> 1u);
    }
    return result;
}

// To the left, without what leaves; to the right with copies of the sign.
fn shifted(x: vec2<u32>, y: vec2<u32>, right: bool) -> vec2<u32> {
    let beyond = y.y != 0u || y.x > 63u;
    let by = y.x & 31u;
    let back = (32u - by) & 31u;
    let far = y.x > 31u;
    if right {
        let sign = 0u - (x.y >> 31u);
        if beyond { return vec2<u32>(sign); }
        let high = bitcast<u32>(bitcast<i32>(x.y) >> by);
        let low = select((x.x >> by) | (x.y << back), x.x, by == 0u);
        return select(vec2<u32>(low, high), vec2<u32>(high, sign), far);
    }
    if beyond { return vec2<u32>(0u); }
    let low = x.x << by;
    let high = select((x.y << by) | (x.x >> back), x.y, by == 0u);
    return select(vec2<u32>(low, high), vec2<u32>(0u, low), far);
}

fn apply(op: u32, x: vec2<u32>, y: vec2<u32>, z: vec2<u32>, y2: u32) -> vec2<u32> {
    switch op {
        case OP_LOAD: { return y; }
        case OP_ADD: { return sum(x, product(y, z)); }
        case OP_RSUB: { return sum(y, negated(product(x, z))); }
        case OP_MUL: { return product(x, y); }
        case OP_SQUARE: { return product(x, x); }
        case OP_MAX, OP_FMAX: { return larger(x, y); }
        case OP_MIN, OP_FMIN: { return smaller(x, y); }
        case OP_CLAMP: { return smaller(larger(x, y), z); }
        case OP_EQ: { return truth(all(x == y)); }
        case OP_NE: { return truth(any(x != y)); }
        case OP_LT: { return truth(is_less(x, y)); }
        case OP_LE: { return truth(!is_less(y, x)); }
        case OP_GT: { return truth(is_less(y, x)); }
        case OP_GE: { return truth(!is_less(x, y)); }
        case OP_SELECT: { return select(y, z, is_zero(x)); }
        case OP_FILL: { return select(y, x, is_zero(z)); }
        case OP_KEEP: { return select(x, y, is_zero(z)); }
        case OP_AND: { return truth(!is_zero(x) && !is_zero(y)); }
        case OP_OR: { return truth(!is_zero(x) || !is_zero(y)); }
        case OP_XOR: { return truth(is_zero(x) != is_zero(y)); }
        case OP_NOT: { return truth(is_zero(x)); }
        case OP_ABS: { return magnitude(x); }
        case OP_NEG: { return negated(x); }
        case OP_SIGN: { return select(truth(!is_zero(x)), vec2<u32>(0xffffffffu), is_negative(x)); }
        case OP_AS: {
            if y2 == I64 { return x; }
            if y2 == BOOL { return truth(!is_zero(x)); }
            let narrow = bitcast<u32>(int_from(bits_of_int(bitcast<i32>(x.x), y2), 0u, y2));
            return vec2<u32>(narrow, 0u - (narrow >> 31u));
        }
        case OP_BIT_AND: { return x & y; }
        case OP_BIT_OR: { return x | y; }
        case OP_BIT_XOR: { return x ^ y; }
        case OP_BIT_NOT: { return ~x; }
        case OP_SHIFT_LEFT: { return shifted(x, y, false); }
        case OP_SHIFT_RIGHT: { return shifted(x, y, true); }
        case OP_FLOOR_DIV, OP_TRUNC_DIV, OP_FMOD, OP_REMAINDER: {
            let parts = divided(x, y);
            let other = !is_zero(parts.zw) && is_negative(parts.zw) != is_negative(y);
            let floored = select(parts.xy, sum(parts.xy, vec2<u32>(0xffffffffu)), other && op == OP_FLOOR_DIV);
            let rest = select(parts.zw, sum(parts.zw, y), other && op == OP_REMAINDER);
            return select(floored, rest, op == OP_FMOD || op == OP_REMAINDER);
        }
        case OP_POW: { return raised(x, y); }
        case OP_RPOW: { return raised(y, x); }
        // The rest does nothing to integers.
        default: { return x; }
    }
}
