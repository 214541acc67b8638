// Operations of chains on integers of up to 32 bits and on bool. Needs `numbers` and `ops`.

// x / y cut off towards zero, and what is left. Where y is zero, both are zero: the host raises an error there, a kernel cannot.
fn divided(x: i32, y: i32) -> vec2<i32> {
    if y == 0 { return vec2<i32>(0, 0); }
    // The least integer has no negative.
    if y == -1 { return vec2<i32>(bitcast<i32>(0u - bitcast<u32>(x)), 0); }
    return vec2<i32>(x / y, x % y);
}

fn product(x: i32, y: i32) -> i32 {
    return bitcast<i32>(bitcast<u32>(x) * bitcast<u32>(y));
}

fn raised(x: i32, y: i32) -> i32 {
    if y < 0 {
        if x == 1 { return 1; }
        return select(0, select(-1, 1, (y & 1) == 0), x == -1);
    }
    var result = 1;
    var square = x;
    for (var left = y; left > 0; left >>= 1u) {
        result = select(result, product(result, square), (left & 1) == 1);
        square = product(square, square);
    }
    return result;
}

fn apply(op: u32, x: i32, y: i32, z: i32, y2: u32) -> i32 {
    switch op {
        case OP_LOAD: { return y; }
        case OP_ADD: { return bitcast<i32>(bitcast<u32>(x) + bitcast<u32>(product(y, z))); }
        case OP_RSUB: { return bitcast<i32>(bitcast<u32>(y) - bitcast<u32>(product(x, z))); }
        case OP_MUL: { return product(x, y); }
        case OP_MAX, OP_FMAX: { return max(x, y); }
        case OP_MIN, OP_FMIN: { return min(x, y); }
        case OP_CLAMP: { return min(max(x, y), z); }
        case OP_EQ: { return select(0, 1, x == y); }
        case OP_NE: { return select(0, 1, x != y); }
        case OP_LT: { return select(0, 1, x < y); }
        case OP_LE: { return select(0, 1, x <= y); }
        case OP_GT: { return select(0, 1, x > y); }
        case OP_GE: { return select(0, 1, x >= y); }
        case OP_SELECT: { return select(z, y, x != 0); }
        case OP_FILL: { return select(x, y, z != 0); }
        case OP_KEEP: { return select(y, x, z != 0); }
        case OP_AND: { return select(0, 1, x != 0 && y != 0); }
        case OP_OR: { return select(0, 1, x != 0 || y != 0); }
        case OP_XOR: { return select(0, 1, (x != 0) != (y != 0)); }
        case OP_NOT: { return select(0, 1, x == 0); }
        case OP_ABS: { return select(x, product(x, -1), x < 0); }
        case OP_NEG: { return product(x, -1); }
        case OP_SIGN: { return select(select(0, 1, x > 0), -1, x < 0); }
        case OP_SQUARE: { return product(x, x); }
        case OP_AS: { return int_from(bits_of_int(x, y2), 0u, y2); }
        case OP_BIT_AND: { return x & y; }
        case OP_BIT_OR: { return x | y; }
        case OP_BIT_XOR: { return x ^ y; }
        case OP_BIT_NOT: { return ~x; }
        // By y2 bits or more, nothing is left: y2 is the width of the dtype.
        case OP_SHIFT_LEFT: { return select(0, bitcast<i32>(bitcast<u32>(x) << (bitcast<u32>(y) & 31u)), bitcast<u32>(y) < y2); }
        case OP_SHIFT_RIGHT: { return x >> min(bitcast<u32>(y), 31u); }
        case OP_TRUNC_DIV: { return divided(x, y).x; }
        case OP_FMOD: { return divided(x, y).y; }
        case OP_FLOOR_DIV: {
            let parts = divided(x, y);
            return parts.x - select(0, 1, parts.y != 0 && (parts.y < 0) != (y < 0));
        }
        case OP_REMAINDER: {
            let rest = divided(x, y).y;
            return rest + select(0, y, rest != 0 && (rest < 0) != (y < 0));
        }
        case OP_POW: { return raised(x, y); }
        case OP_RPOW: { return raised(y, x); }
        // The rest does nothing to integers: rounding, and tests for NaN are made of comparisons.
        default: { return x; }
    }
}
