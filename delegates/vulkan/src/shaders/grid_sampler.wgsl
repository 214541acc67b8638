// Samples an image at places that a grid gives: an invocation makes a word of the output.
//@ workgroup 64
//@ include index
//@ include numbers
//@ include reduce_rows
//@ buffer x read array<u32>
//@ buffer grid read array<u32>
//@ buffer out write array<u32>
// params: elements of the output, code, channels, height and width of the image, places of an image,
//         interpolation (0 bilinear, 1 nearest, 2 bicubic), padding (0 zeros, 1 border, 2 reflection), 1 if corners are aligned

// From -1..1 to elements.
fn place(at: f32, size: u32) -> f32 {
    if params[8] == 1u { return (at + 1.0) / 2.0 * (f32(size) - 1.0); }
    return ((at + 1.0) * f32(size) - 1.0) / 2.0;
}

// A place that an integer can hold; outside of every image where it could not.
fn finite(at: f32) -> f32 {
    if at < 2147483520.0 && at > -2147483520.0 { return at; }
    return -100.0;
}

// Folds a place between `low` and `low + span`.
fn reflected(at: f32, low: f32, span: f32) -> f32 {
    if span <= 0.0 { return 0.0; }
    let distance = abs(at - low);
    let turns = floor(distance / span);
    let rest = distance - turns * span;
    if turns - 2.0 * floor(turns / 2.0) == 0.0 { return rest + low; }
    return span - rest + low;
}

// Moves a place into the image as the padding says.
fn padded(at: f32, size: u32) -> f32 {
    if params[7] == 0u { return finite(at); }
    var inside = at;
    if params[7] == 2u {
        if params[8] == 1u { inside = reflected(at, 0.0, f32(size) - 1.0); } else { inside = reflected(at, -0.5, f32(size)); }
    }
    // NaN becomes 0.
    if !(inside > 0.0) { inside = 0.0; }
    return finite(select(f32(size) - 1.0, inside, inside < f32(size) - 1.0));
}

// An element times its weight, if it is in the image.
fn tap(base: u32, x: f32, y: f32, weight: f32) -> f32 {
    let height = params[3];
    let width = params[4];
    if !(x >= 0.0 && y >= 0.0 && x < f32(width) && y < f32(height)) { return 0.0; }
    return weight * element(base + u32(y) * width + u32(x), params[1]);
}

// Weight of a neighbour at a distance of less than 1, and of less than 2: cubic convolution with -0.75.
fn near(t: f32) -> f32 { return (1.25 * t - 2.25) * t * t + 1.0; }

fn far(t: f32) -> f32 { return ((-0.75 * t + 3.75) * t - 6.0) * t + 3.0; }

fn cubic(t: f32) -> vec4<f32> { return vec4<f32>(far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)); }

fn sample(i: u32) -> f32 {
    let places = params[5];
    let plane = i / places;
    let at = (plane / params[2]) * places + i % places;
    let code = params[1];
    let height = params[3];
    let width = params[4];
    let base = plane * (height * width);
    let x = place(float_from(grid[word_of(2u * at, code)], 2u * at, code), width);
    let y = place(float_from(grid[word_of(2u * at + 1u, code)], 2u * at + 1u, code), height);
    if params[6] == 1u {
        return tap(base, round(padded(x, width)), round(padded(y, height)), 1.0);
    }
    if params[6] == 0u {
        let u = padded(x, width);
        let v = padded(y, height);
        let left = floor(u);
        let top = floor(v);
        let dx = u - left;
        let dy = v - top;
        return tap(base, left, top, (1.0 - dx) * (1.0 - dy)) + tap(base, left + 1.0, top, dx * (1.0 - dy))
            + tap(base, left, top + 1.0, (1.0 - dx) * dy) + tap(base, left + 1.0, top + 1.0, dx * dy);
    }
    let left = floor(x);
    let top = floor(y);
    let across = cubic(x - left);
    let down = cubic(y - top);
    var sum = 0.0;
    for (var k = 0u; k < 4u; k++) {
        let row = padded(top + f32(k) - 1.0, height);
        for (var j = 0u; j < 4u; j++) {
            sum += tap(base, padded(left + f32(j) - 1.0, width), row, across[j] * down[k]);
        }
    }
    return sum;
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let word = linear(id, groups);
    let code = params[1];
    let shift = lanes_shift(code);
    if (word << shift) >= params[0] { return; }
    var bits = 0u;
    for (var lane = 0u; lane < (1u << shift); lane++) {
        let i = (word << shift) + lane;
        if i < params[0] { bits |= in_lane(bits_of_float(sample(i), code), lane, code); }
    }
    out[word] = bits;
}
