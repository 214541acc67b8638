// Elements that an invocation writes one at a time to the buffer `out`: whole words, or 16 bits of a word that another may write the rest of.
// Needs `include numbers`; `out` is array<u32>, with NARROW array<atomic<u32>>.

//@ if WIDE
fn store(i: u32, value: f32, code: u32) {
    out[i] = bitcast<u32>(value);
}

fn store_two(i: u32, first: f32, second: f32, code: u32) {
    out[i] = bitcast<u32>(first);
    out[i + 1u] = bitcast<u32>(second);
}
//@ end
//@ if NARROW
fn store(i: u32, value: f32, code: u32) {
    let shift = (i & 1u) * 16u;
    atomicAnd(&out[i >> 1u], ~(0xffffu << shift));
    atomicOr(&out[i >> 1u], bits_of_float(value, code) << shift);
}

// Both halves of a word: `i` is even.
fn store_two(i: u32, first: f32, second: f32, code: u32) {
    atomicStore(&out[i >> 1u], bits_of_float(first, code) | (bits_of_float(second, code) << 16u));
}
//@ end
