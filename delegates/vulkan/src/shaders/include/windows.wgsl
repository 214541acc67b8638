// Windows of pooling. Along a dimension, seven parameters from `at` on: input size, output size, kernel (0: the input is divided into as many
// parts as there are outputs), stride, padding, dilation, and the end of the padding.
// Parameter 4 is the divisor of a mean (bits of f32; 0: the elements), 5 is 1 to count the padding.

struct Window {
    // Its elements, which may be outside: then they wrap around to large numbers.
    start: u32,
    count: u32,
    step: u32,
    // How many are inside, and how many with padding.
    inside: u32,
    padded: u32,
}

fn window(o: u32, at: u32) -> Window {
    let size = params[at];
    if params[at + 2u] == 0u {
        let parts = params[at + 1u];
        let start = o * size / parts;
        let count = ((o + 1u) * size + parts - 1u) / parts - start;
        return Window(start, count, 1u, count, count);
    }
    let start = bitcast<i32>(o * params[at + 3u] - params[at + 4u]);
    let end = start + bitcast<i32>(params[at + 2u]);
    let padded = min(end, bitcast<i32>(params[at + 6u])) - start;
    // Only means count what is inside, and they have no dilation.
    let inside = max(0, min(end, bitcast<i32>(size)) - max(start, 0));
    return Window(bitcast<u32>(start), params[at + 2u], params[at + 5u], bitcast<u32>(inside), bitcast<u32>(padded));
}

// What a mean of so many elements is divided by; nothing has the mean 0.
fn divisor(inside: u32, padded: u32) -> f32 {
    if inside == 0u { return 1.0; }
    if params[4] != 0u { return bitcast<f32>(params[4]); }
    return f32(select(inside, padded, params[5] != 0u));
}
