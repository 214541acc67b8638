// An image read at the places that a grid names, row-major f32. An invocation makes up to four channels of a place.
//@ workgroup 64
//@ include index
//@ include numbers
//@ buffer x read array<f32>
//@ buffer grid read array<f32>
//@ buffer out write array<f32>
// params: 0 invocations, 1 channels, 2 input height, 3 input width, 4 places of an image, 5 way (0 linear, 1 nearest, 2 cubic),
// 6 what outside is (0 zeros, 1 the border, 2 mirrored), 7 1 if -1 and 1 are the middles of the outermost elements

// From -1..1 to elements.
fn place(at: f32, size: f32) -> f32 {
    if params[7] != 0u { return (at + 1.0) / 2.0 * (size - 1.0); }
    return ((at + 1.0) * size - 1.0) / 2.0;
}

// A place that an integer can hold; outside of every image where it could not.
fn finite(at: f32) -> f32 {
    return select(-100.0, at, at < 2147483648.0 && at > -2147483648.0 && !is_nan(at));
}

// Folds a place between `low` and `low + span`.
fn mirrored(at: f32, low: f32, span: f32) -> f32 {
    if span <= 0.0 { return 0.0; }
    let beyond = abs(at - low);
    let times = floor(beyond / span);
    let extra = beyond - times * span;
    if times - 2.0 * floor(times / 2.0) == 0.0 { return extra + low; }
    return span - extra + low;
}

// Moves a place into the image as outside says.
fn moved(at: f32, size: f32) -> f32 {
    var inside = at;
    if params[6] == 0u { return finite(at); }
    if params[6] == 2u {
        if params[7] != 0u {
            inside = mirrored(at, 0.0, size - 1.0);
        } else {
            inside = mirrored(at, -0.5, size);
        }
    }
    inside = select(0.0, inside, inside > 0.0 && !is_nan(inside));
    return finite(select(size - 1.0, inside, inside < size - 1.0));
}

// Keys's cubic convolution with -0.75: the weight of the neighbour `k` of 0 to 3, for a place `t` past the second.
fn cubic(t: f32, k: u32) -> f32 {
    let a = -0.75;
    let d = abs(t + 1.0 - f32(k));
    if k == 1u || k == 2u { return ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0; }
    return ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
}

// The element `k` of those that make a place, or a number beyond the image, and its weight.
struct Tap {
    at: u32,
    weight: f32,
}

fn tap(at: f32, size: f32, k: u32) -> Tap {
    var element = 0.0;
    var weight = 1.0;
    switch params[5] {
        case 0u: {
            let inside = moved(at, size);
            element = floor(inside);
            let t = inside - element;
            weight = select(t, 1.0 - t, k == 0u);
            element += f32(k);
        }
        case 1u: { element = round(moved(at, size)); }
        default: {
            let first = floor(at);
            weight = cubic(at - first, k);
            element = trunc(moved(first + f32(k) - 1.0, size));
        }
    }
    if !(element >= 0.0 && element < size) { return Tap(0xffffffffu, 0.0); }
    return Tap(u32(element), weight);
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let channels = params[1];
    let height = params[2];
    let width = params[3];
    let places = params[4];
    let spot = i % places;
    let rest = i / places;
    let blocks = (channels + 3u) / 4u;
    let first = 4u * (rest % blocks);
    let n = rest / blocks;
    let across = place(grid[2u * (n * places + spot)], f32(width));
    let down = place(grid[2u * (n * places + spot) + 1u], f32(height));
    var taps = 2u;
    if params[5] == 1u { taps = 1u; }
    if params[5] == 2u { taps = 4u; }
    var sums = vec4<f32>(0.0);
    for (var ky = 0u; ky < taps; ky++) {
        let y = tap(down, f32(height), ky);
        if y.at >= height { continue; }
        for (var kx = 0u; kx < taps; kx++) {
            let z = tap(across, f32(width), kx);
            if z.at >= width { continue; }
            for (var c = 0u; c < 4u; c++) {
                if first + c < channels {
                    sums[c] += x[((n * channels + first + c) * height + y.at) * width + z.at] * (z.weight * y.weight);
                }
            }
        }
    }
    for (var c = 0u; c < 4u; c++) {
        if first + c < channels { out[(n * channels + first + c) * places + spot] = sums[c]; }
    }
}
