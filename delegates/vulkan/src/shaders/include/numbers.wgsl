// Elements of any type in words of 32 bits. The codes are `Code` of `codes.rs`.
const F32: u32 = 0u;
const F16: u32 = 1u;
const BF16: u32 = 2u;
const I32: u32 = 3u;
const I16: u32 = 4u;
const I8: u32 = 5u;
const U8: u32 = 6u;
const BOOL: u32 = 7u;
const I64: u32 = 8u; // two words, the low one first

// Two's logarithm of the elements of a word. For I64 use word `2 * i`.
fn lanes_shift(code: u32) -> u32 {
    if code == F16 || code == BF16 || code == I16 { return 1u; }
    if code >= I8 && code <= BOOL { return 2u; }
    return 0u;
}

// The word that element `i` is in.
fn word_of(i: u32, code: u32) -> u32 {
    if code == I64 { return 2u * i; }
    return i >> lanes_shift(code);
}

// Element `i` as a float, from its word.
fn float_from(word: u32, i: u32, code: u32) -> f32 {
    switch code {
        case F32: { return bitcast<f32>(word); }
        case F16: { return unpack2x16float(word >> ((i & 1u) * 16u)).x; }
        case BF16: { return bitcast<f32>((word >> ((i & 1u) * 16u)) << 16u); }
        default: { return f32(int_from(word, i, code)); }
    }
}

// Element `i` as an integer, from its word: the low 32 bits of 64.
fn int_from(word: u32, i: u32, code: u32) -> i32 {
    switch code {
        case I16: { return extractBits(bitcast<i32>(word), (i & 1u) * 16u, 16u); }
        case I8: { return extractBits(bitcast<i32>(word), (i & 3u) * 8u, 8u); }
        case U8: { return bitcast<i32>(extractBits(word, (i & 3u) * 8u, 8u)); }
        case BOOL: { return select(0, 1, extractBits(word, (i & 3u) * 8u, 8u) != 0u); }
        default: { return bitcast<i32>(word); }
    }
}

fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// Bits of the nearest f16, ties to even: drivers may round `pack2x16float` as they like.
fn f16_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let sign = (bits >> 16u) & 0x8000u;
    let magnitude = bits & 0x7fffffffu;
    // Below the smallest normal number: in steps of 2^-24. Adding 0.5 in f32 rounds there.
    let small = bitcast<u32>(bitcast<f32>(magnitude) + 0.5) - 0x3f000000u;
    let normal = (magnitude + 0xc8000fffu + ((magnitude >> 13u) & 1u)) >> 13u;
    let finite = select(normal, small, magnitude < 0x38800000u);
    let endless = select(0x7c00u, 0x7e00u, magnitude > 0x7f800000u);
    return sign | select(finite, endless, magnitude >= 0x477ff000u);
}

// Bits of the nearest bf16, ties to even.
fn bf16_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    let rounded = (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
    return select(rounded, 0x7fc0u, (bits & 0x7fffffffu) > 0x7f800000u);
}

// A float of a 64-bit integer, rounded to the nearest.
fn float_of_long(low: u32, high: u32) -> f32 {
    let negative = (high >> 31u) != 0u;
    // The magnitude; that of -2^63 is right as an unsigned number.
    let lower = select(low, 0u - low, negative);
    let upper = select(high, ~high + select(0u, 1u, low == 0u), negative);
    // The top 32 bits, with a last bit that is set where anything is cut off: the conversion rounds them as it would the whole.
    let lead = min(countLeadingZeros(upper), 31u);
    let top = (upper << lead) | ((lower >> 1u) >> (31u - lead));
    let sticky = top | select(0u, 1u, (lower << lead) != 0u);
    let wide = f32(sticky) * bitcast<f32>((159u - lead) << 23u);
    let value = select(wide, f32(lower), upper == 0u);
    return select(value, -value, negative);
}

// The 64-bit integer that a float is without its fraction; beyond their range, the least one.
fn long_of_float(x: f32) -> vec2<u32> {
    let bits = bitcast<u32>(x);
    let exponent = (bits >> 23u) & 255u;
    let mantissa = (bits & 0x7fffffu) | 0x800000u;
    // The mantissa is an integer times 2^(exponent - 150).
    let right = mantissa >> min(150u - min(exponent, 150u), 31u);
    let shift = max(exponent, 150u) - 150u;
    let by = shift & 31u;
    let shifted = mantissa << by;
    let over = (mantissa >> 1u) >> (31u - by);
    let low = select(select(shifted, 0u, shift >= 32u), right, exponent < 150u);
    let high = select(select(over, shifted, shift >= 32u), 0u, exponent < 150u);
    let negative = (bits >> 31u) != 0u;
    let signed = vec2<u32>(select(low, 0u - low, negative), select(high, ~high + select(0u, 1u, low == 0u), negative));
    return select(signed, vec2<u32>(0u, 0x80000000u), exponent >= 190u);
}

// The bits of an element of a code, in the low end of a word; the low word of I64. Integers have the float's without its fraction.
fn bits_of_float(x: f32, code: u32) -> u32 {
    switch code {
        case F32: { return bitcast<u32>(x); }
        case F16: { return f16_bits(x); }
        case BF16: { return bf16_bits(x); }
        case BOOL: { return select(0u, 1u, (bitcast<u32>(x) & 0x7fffffffu) != 0u); }
        default: { return bits_of_int(int_of_float(x, code), code); }
    }
}

fn int_of_float(x: f32, code: u32) -> i32 {
    let long = long_of_float(x);
    let beyond = code == I32 && long.y != (0u - (long.x >> 31u));
    return bitcast<i32>(select(long.x, 0x80000000u, beyond));
}

fn bits_of_int(x: i32, code: u32) -> u32 {
    switch code {
        case I16: { return bitcast<u32>(x) & 0xffffu; }
        case I8, U8: { return bitcast<u32>(x) & 0xffu; }
        case BOOL: { return select(0u, 1u, x != 0); }
        default: { return bitcast<u32>(x); }
    }
}
