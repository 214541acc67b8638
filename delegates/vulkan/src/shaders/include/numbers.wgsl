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

// The bits of an element of a code, in the low end of a word.
fn bits_of_float(x: f32, code: u32) -> u32 {
    switch code {
        case F32: { return bitcast<u32>(x); }
        case F16: { return f16_bits(x); }
        case BF16: { return bf16_bits(x); }
        default: { return bits_of_int(i32(x), code); }
    }
}

fn bits_of_int(x: i32, code: u32) -> u32 {
    switch code {
        case I16: { return bitcast<u32>(x) & 0xffffu; }
        case I8, U8: { return bitcast<u32>(x) & 0xffu; }
        case BOOL: { return select(0u, 1u, x != 0); }
        default: { return bitcast<u32>(x); }
    }
}
