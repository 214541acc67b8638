// Elementwise chains: an accumulator x is loaded, and one operation after another is applied to it.
// Each invocation makes four elements, so that words of narrow elements are written whole.
//@ workgroup 64
//@ exact
//@ include index
//@ include numbers
//@ include ops
//@ buffer a read array<u32>
//@ buffer b read array<u32>
//@ buffer c read array<u32>
//@ buffer d read array<u32>
//@ buffer out write array<u32>
//@ variant float CLASS=float PLAIN=1
//@ variant math CLASS=float MATH=1
//@ variant int CLASS=int
//@ variant long CLASS=long
// params: count of stored elements, code of the output, rank, size of the last dimension without padding, number of links;
//   for each dimension, the first first: its size, and the strides of the operands a, b, c, d in elements;
//   for each link five words: op | slot of y << 8 | slot of z << 12 | code of y << 16 | code of z << 20, then y, y2, z, z2.
// A slot is 1 to 4 for a to d, and 0 for the number in the link. 64-bit numbers have two words, the low one first.
const DIMS: u32 = 5u;

fn word(slot: u32, at: u32) -> u32 {
    switch slot {
        case 1u: { return a[at]; }
        case 2u: { return b[at]; }
        case 3u: { return c[at]; }
        default: { return d[at]; }
    }
}

//@ if CLASS=float
//@ if MATH
//@ include math
//@ include power
//@ end
//@ include chain_float
//@ if MATH
//@ include chain_math
//@ end
fn operand(slot: u32, code: u32, number: u32, at: vec4<u32>) -> f32 {
    if slot == 0u { return bitcast<f32>(params[number]); }
    let i = at[slot - 1u];
    if code == I64 { return float_of_long(word(slot, 2u * i), word(slot, 2u * i + 1u)); }
    return float_from(word(slot, word_of(i, code)), i, code);
}

fn element(at: vec4<u32>, code: u32) -> vec2<u32> {
    var x = 0.0;
    var link = DIMS + 5u * params[2];
    let end = link + 5u * params[4];
    for (; link < end; link += 5u) {
        let head = params[link];
        let y = operand((head >> 8u) & 15u, (head >> 16u) & 15u, link + 1u, at);
        let z = operand((head >> 12u) & 15u, (head >> 20u) & 15u, link + 3u, at);
        x = apply(head & 255u, x, y, z, params[link + 2u]);
    }
    if code == I64 { return long_of_float(x); }
    return vec2<u32>(bits_of_float(x, code), 0u);
}
//@ end

//@ if CLASS=int
//@ include chain_int
fn operand(slot: u32, code: u32, number: u32, at: vec4<u32>) -> i32 {
    if slot == 0u { return bitcast<i32>(params[number]); }
    let i = at[slot - 1u];
    return int_from(word(slot, word_of(i, code)), i, code);
}

fn element(at: vec4<u32>, code: u32) -> vec2<u32> {
    var x = 0;
    var link = DIMS + 5u * params[2];
    let end = link + 5u * params[4];
    for (; link < end; link += 5u) {
        let head = params[link];
        let y = operand((head >> 8u) & 15u, (head >> 16u) & 15u, link + 1u, at);
        let z = operand((head >> 12u) & 15u, (head >> 20u) & 15u, link + 3u, at);
        x = apply(head & 255u, x, y, z, params[link + 2u]);
    }
    if code <= BF16 { return vec2<u32>(bits_of_float(f32(x), code), 0u); }
    return vec2<u32>(bits_of_int(x, code), 0u - (bitcast<u32>(x) >> 31u));
}
//@ end

//@ if CLASS=long
//@ include chain_long
fn operand(slot: u32, code: u32, number: u32, at: vec4<u32>) -> vec2<u32> {
    if slot == 0u { return vec2<u32>(params[number], params[number + 1u]); }
    let i = at[slot - 1u];
    if code == I64 { return vec2<u32>(word(slot, 2u * i), word(slot, 2u * i + 1u)); }
    let narrow = bitcast<u32>(int_from(word(slot, word_of(i, code)), i, code));
    return vec2<u32>(narrow, 0u - (narrow >> 31u));
}

fn element(at: vec4<u32>, code: u32) -> vec2<u32> {
    var x = vec2<u32>(0u, 0u);
    var link = DIMS + 5u * params[2];
    let end = link + 5u * params[4];
    for (; link < end; link += 5u) {
        let head = params[link];
        let y = operand((head >> 8u) & 15u, (head >> 16u) & 15u, link + 1u, at);
        let z = operand((head >> 12u) & 15u, (head >> 20u) & 15u, link + 3u, at);
        x = apply(head & 255u, x, y, z, params[link + 2u]);
    }
    if code <= BF16 { return vec2<u32>(bits_of_float(float_of_long(x.x, x.y), code), 0u); }
    if code == BOOL { return vec2<u32>(select(0u, 1u, (x.x | x.y) != 0u), 0u); }
    return vec2<u32>(bits_of_int(bitcast<i32>(x.x), code), x.y);
}
//@ end

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let count = params[0];
    let code = params[1];
    let rank = params[2];
    let shift = lanes_shift(code);
    let mask = (1u << shift) - 1u;
    // Four neighbours where elements share words, else four that lie a workgroup apart: neighbours in memory are neighbours in the workgroup.
    let place = linear(id, groups);
    let local = place % WX;
    var i = select(4u * place, 4u * (place - local) + local, shift == 0u);
    let step = select(1u, WX, shift == 0u);
    var packed = 0u;
    for (var k = 0u; k < 4u; k++) {
        if i >= count { break; }
        var at = vec4<u32>(0u);
        var rest = i;
        var inside = true;
        for (var dim = rank; dim > 0u; dim--) {
            let base = DIMS + 5u * (dim - 1u);
            let size = params[base];
            let index = select(rest, rest % size, dim > 1u);
            rest = rest / size;
            inside = inside && (dim < rank || index < params[3]);
            at += index * vec4<u32>(params[base + 1u], params[base + 2u], params[base + 3u], params[base + 4u]);
        }
        var bits = vec2<u32>(0u, 0u);
        if inside { bits = element(at, code); }
        if code == I64 {
            out[2u * i] = bits.x;
            out[2u * i + 1u] = bits.y;
        } else if shift == 0u {
            out[i] = bits.x;
        } else {
            packed |= bits.x << ((i & mask) << (5u - shift));
            if (i & mask) == mask || i + 1u == count {
                out[i >> shift] = packed;
                packed = 0u;
            }
        }
        i += step;
    }
}
