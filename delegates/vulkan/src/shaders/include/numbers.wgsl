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
    if magnitude > 0x7f800000u { return sign | 0x7e00u; }
    if magnitude >= 0x477ff000u { return sign | 0x7c00u; }
    if magnitude < 0x38800000u {
        // Below the smallest normal number: in steps of 2^-24. Adding 0.5 in f32 rounds there.
        let rounded = bitcast<u32>(bitcast<f32>(magnitude) + 0.5) - 0x3f000000u;
        return sign | rounded;
    }
    let odd = (magnitude >> 13u) & 1u;
    return sign | ((magnitude + 0xc8000fffu + odd) >> 13u);
}

// Bits of the nearest bf16, ties to even.
fn bf16_bits(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    if (bits & 0x7fffffffu) > 0x7f800000u { return 0x7fc0u; }
    return (bits + 0x7fffu + ((bits >> 16u) & 1u)) >> 16u;
}

// A float of a 64-bit integer, rounded to the nearest.
fn float_of_long(low: u32, high: u32) -> f32 {
    if high == (0u - (low >> 31u)) { return f32(bitcast<i32>(low)); }
    let negative = (high >> 31u) != 0u;
    // The magnitude; that of -2^63 is right as an unsigned number.
    let lower = select(low, 0u - low, negative);
    let upper = select(high, ~high + select(0u, 1u, low == 0u), negative);
    // The top 31 bits, with a last bit that is set where anything is cut off: the conversion rounds them as it would the whole.
    let lead = countLeadingZeros(upper);
    let top = (upper << lead) | select(lower >> (32u - lead), 0u, lead == 0u);
    let rest = lower << lead;
    let sticky = (top & ~1u) | select(0u, 1u, ((top & 1u) | rest) != 0u);
    let scaled = f32(sticky) * bitcast<f32>((127u + 32u - lead) << 23u);
    return select(scaled, -scaled, negative);
}

// The 64-bit integer that a float is without its fraction; beyond their range, the least one.
fn long_of_float(x: f32) -> vec2<u32> {
    let bits = bitcast<u32>(x);
    let exponent = i32((bits >> 23u) & 255u) - 127;
    if exponent < 0 { return vec2<u32>(0u, 0u); }
    if exponent >= 63 { return vec2<u32>(0u, 0x80000000u); }
    let mantissa = (bits & 0x7fffffu) | 0x800000u;
    var low = 0u;
    var high = 0u;
    if exponent <= 23 {
        low = mantissa >> u32(23 - exponent);
    } else {
        let shift = u32(exponent - 23);
        low = select(mantissa << (shift & 31u), 0u, shift >= 32u);
        high = select(mantissa >> ((32u - shift) & 31u), mantissa << (shift & 31u), shift >= 32u);
    }
    if (bits >> 31u) != 0u {
        high = ~high + select(0u, 1u, low == 0u);
        low = 0u - low;
    }
    return vec2<u32>(low, high);
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
