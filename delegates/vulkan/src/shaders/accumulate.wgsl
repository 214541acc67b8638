// Elements that meet those at places which an index tensor names: sums, products, maxima and minima. Each step is rounded to the element type.
//@ workgroup 64
//@ variant words WORDS=1 O=u32
//@ variant lanes LANES=1 O=atomic<u32>
//@ include index
//@ include numbers
//@ include chosen
//@ buffer source read array<u32>
//@ buffer index read array<u32>
//@ buffer flag write array<atomic<u32>>
//@ buffer out write array<$O>
//@ include columns

const SUM: u32 = 0u;
const PRODUCT: u32 = 1u;
const MAXIMUM: u32 = 2u;
const MINIMUM: u32 = 3u;

fn meet_floats(old: f32, other: f32, op: u32) -> f32 {
    switch op {
        case SUM: { return old + other * bitcast<f32>(params[12]); }
        case PRODUCT: { return old * other; }
        default: {
            if is_nan(old) { return old; }
            if is_nan(other) { return other; }
            return select(min(old, other), max(old, other), op == MAXIMUM);
        }
    }
}

fn meet_ints(old: i32, other: i32, op: u32) -> i32 {
    switch op {
        case SUM: { return old + other * bitcast<i32>(params[12]); }
        case PRODUCT: { return old * other; }
        case MAXIMUM: { return max(old, other); }
        default: { return min(old, other); }
    }
}

// The element `word` of a code that meets another, as bits.
fn meet(old: u32, other: u32, code: u32, op: u32) -> u32 {
    if code <= BF16 {
        return bits_of_float(meet_floats(float_from(old, 0u, code), float_from(other, 0u, code), op), code);
    }
    return bits_of_int(meet_ints(int_from(old, 0u, code), int_from(other, 0u, code), op), code);
}

//@ if WORDS
// The high word of a product.
fn high_product(a: u32, b: u32) -> u32 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let first = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let second = (a & 0xffffu) * (b >> 16u) + (first & 0xffffu);
    return (a >> 16u) * (b >> 16u) + (first >> 16u) + (second >> 16u);
}

fn product(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return vec2<u32>(a.x * b.x, high_product(a.x, b.x) + a.x * b.y + a.y * b.x);
}

fn meet_long(old: vec2<u32>, other: vec2<u32>, op: u32) -> vec2<u32> {
    if op == SUM {
        let added = product(other, vec2<u32>(params[12], params[13]));
        let low = old.x + added.x;
        return vec2<u32>(low, old.y + added.y + select(0u, 1u, low < old.x));
    }
    if op == PRODUCT { return product(old, other); }
    let less = bitcast<i32>(old.y) < bitcast<i32>(other.y) || (old.y == other.y && old.x < other.x);
    return select(old, other, less == (op == MAXIMUM));
}
//@ end

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let e = linear(id, groups);
    if e >= params[0] { return; }
    let c = column(e);
    let code = params[10];
    let op = params[11];
    for (var k = 0u; k < params[2]; k++) {
        let to = target_of(c, k);
        let at = c.from_ + k * params[9];
//@ if WORDS
        if code == I64 {
            let other = vec2<u32>(source[2u * at], source[2u * at + 1u]);
            let met = meet_long(vec2<u32>(out[2u * to], out[2u * to + 1u]), other, op);
            out[2u * to] = met.x;
            out[2u * to + 1u] = met.y;
        } else {
            out[to] = meet(out[to], source[at], code, op);
        }
//@ end
//@ if LANES
        let down = lanes_shift(code);
        let last = (1u << down) - 1u;
        let width = 32u >> down;
        let mask = (1u << width) - 1u;
        let other = (source[at >> down] >> ((at & last) * width)) & mask;
        let shift = (to & last) * width;
        let old = (atomicLoad(&out[to >> down]) >> shift) & mask;
        let met = meet(old, other, code, op) & mask;
        atomicAnd(&out[to >> down], ~(mask << shift));
        atomicOr(&out[to >> down], met << shift);
//@ end
    }
}
