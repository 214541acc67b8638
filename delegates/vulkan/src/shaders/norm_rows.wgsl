// Normalizes rows, each by an invocation (flat), a workgroup (group) or a subgroup (team): takes away the mean and divides by the deviation, or divides by the root of the mean square; then weight and bias.
//@ workgroup 128
//@ include index
//@ include numbers
//@ include reduce_rows
//@ include norm_store
const ROWS: u32 = 15u; // the parameter that says how many rows a workgroup has
//@ buffer x read array<u32>
//@ buffer weight read array<u32>
//@ buffer bias read array<u32>
//@ buffer out write array<$OUT>
//@ variant flat FLAT=1 WIDE=1 OUT=u32
//@ variant flat_narrow FLAT=1 NARROW=1 OUT=atomic<u32>
//@ variant group GROUP=1 SHARED=1 WIDE=1 OUT=u32
//@ variant group_narrow GROUP=1 SHARED=1 NARROW=1 OUT=atomic<u32>
//@ variant team TEAM=1 SHARED=1 WIDE=1 OUT=u32 needs=subgroup
//@ variant team_narrow TEAM=1 SHARED=1 NARROW=1 OUT=atomic<u32> needs=subgroup
// params: rows, code of x, code of out, length of a row, elements of its inner dimension, strides of outer and inner dimension,
//         rows of an image, strides of images and of rows in an image, weights of a row of an image,
//         flags (1 weight, 2 bias, 4 mean square, 8 two neighbours are a word, 16 weights go by the outer dimension, 32 by the row alone), epsilon,
//         codes of weight and bias, rows of a workgroup (team)

fn place_of(j: u32) -> vec2<u32> {
    let inner = params[4];
    if inner == params[3] { return vec2<u32>(0u, j); }
    let outer = j / inner;
    return vec2<u32>(outer, j - outer * inner);
}

fn value_at(base: u32, place: vec2<u32>) -> f32 {
    return element(base + place.x * params[5] + place.y * params[6], params[1]);
}

// The sum of elements, or of the squares of their distances from `center`.
// All invocations of a row go round as often.
fn gathered(base: u32, first: u32, step: u32, squares: bool, center: f32) -> f32 {
    let length = params[3];
    var total = 0.0;
    for (var start = 0u; start < length; start += 32u * step) {
        var block = 0.0;
        let end = min(start + 32u * step, length);
        for (var at = start; at < end; at += step) {
            let j = at + first;
            if j < length {
                let value = value_at(base, place_of(j)) - center;
                block += select(value, value * value, squares);
            }
        }
        total += block;
    }
    return total;
}

//@ if GROUP
var<workgroup> partial: array<f32, 128>;

fn gathered_by_all(mine: f32, local: u32) -> f32 {
    workgroupBarrier();
    partial[local] = mine;
    workgroupBarrier();
    if local < 8u {
        var sum = partial[local];
        for (var k = local + 8u; k < WX; k += 8u) { sum += partial[k]; }
        partial[local] = sum;
    }
    workgroupBarrier();
    var sum = partial[0];
    for (var k = 1u; k < 8u; k++) { sum += partial[k]; }
    return sum;
}
//@ end
//@ if TEAM
fn gathered_by_all(mine: f32, local: u32) -> f32 {
    return subgroupAdd(mine);
}
//@ end

fn scaled(value: f32, place: vec2<u32>, start: u32) -> f32 {
    let flags = params[11];
    var i = start;
    if (flags & 32u) == 0u { i += select(place.y, place.x, (flags & 16u) != 0u); }
    var y = value;
    if (flags & 1u) != 0u { y = y * float_from(weight[word_of(i, params[13])], i, params[13]); }
    if (flags & 2u) != 0u { y = y + float_from(bias[word_of(i, params[14])], i, params[14]); }
    return y;
}

// One row: by the invocations `first` of `step`.
fn do_row(row: u32, first: u32, step: u32) {
    let length = params[3];
    let flags = params[11];
    let image = row / params[7];
    let within = row - image * params[7];
    let base = image * params[8] + within * params[9];
    let count = f32(length);
    var mean = 0.0;
    if (flags & 4u) == 0u {
        mean = gathered(base, first, step, false, 0.0);
//@ if SHARED
        mean = gathered_by_all(mean, first);
//@ end
        mean = mean / count;
    }
    var squares = gathered(base, first, step, true, mean);
//@ if SHARED
    squares = gathered_by_all(squares, first);
//@ end
    let scale = 1.0 / sqrt(squares / count + bitcast<f32>(params[12]));
    let start = within * params[10];
    let code = params[2];
    if (flags & 8u) != 0u {
        for (var j = 2u * first; j < length; j += 2u * step) {
            let place = place_of(j);
            let next = vec2<u32>(place.x, place.y + 1u);
            let a = scaled((value_at(base, place) - mean) * scale, place, start);
            let b = scaled((value_at(base, next) - mean) * scale, next, start);
            store_two(base + place.x * params[5] + place.y, a, b, code);
        }
    } else {
        for (var j = first; j < length; j += step) {
            let place = place_of(j);
            let y = scaled((value_at(base, place) - mean) * scale, place, start);
            store(base + place.x * params[5] + place.y * params[6], y, code);
        }
    }
}

//@ include norm_main
