// The scale and the zero point of each row of floats, from its least and its largest element.
//   line    an invocation a row
//   group   a workgroup a row
//
// params:
//    0 rows, elements of a row, codes of source | scales << 8 | zero points << 16 (a scale of 64 bits has code 9)
//    3 way: 0 the span over all integers, 1 the same as tokens have it, 2 the larger side over half of the integers, 3 the larger of both
//      sides over its integers, 4 the largest magnitude over 127
//    4 least and greatest integer, least scale (bits of f32), zero point of ways 2 to 4 (bits of f32)
//@ workgroup 64
//@ include index
//@ include numbers
//@ include double
//@ buffer source read array<u32>
//@ buffer scales write array<u32>
//@ buffer zeros write array<atomic<u32>>
//@ variant line WAY=line
//@ variant group WAY=group

const F64: u32 = 9u;

//@ if WAY=group
var<workgroup> parts: array<vec2<f32>, 64>;
var<workgroup> bad: array<u32, 64>;
//@ end

fn write_zero(row: u32, x: f32) {
    let code = params[2] >> 16u;
    if code == F32 {
        atomicStore(&zeros[row], bitcast<u32>(x));
        return;
    }
    let integer = i32(x);
    if code == I64 {
        atomicStore(&zeros[2u * row], bitcast<u32>(integer));
        atomicStore(&zeros[2u * row + 1u], select(0u, 0xffffffffu, integer < 0));
        return;
    }
    let shift = lanes_shift(code);
    let bits = 32u >> shift;
    let at = row >> shift;
    let lane = (row & ((1u << shift) - 1u)) * bits;
    if bits == 32u {
        atomicStore(&zeros[at], bitcast<u32>(integer));
        return;
    }
    atomicAnd(&zeros[at], ~(((1u << bits) - 1u) << lane));
    atomicOr(&zeros[at], bits_of_int(integer, code) << lane);
}

@compute @workgroup_size(WX)
fn main(
    @builtin(global_invocation_id) id: vec3<u32>,
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
//@ if WAY=line
    let row = linear(id, groups);
    let first = 0u;
    let step = 1u;
//@ end
//@ if WAY=group
    let row = group.x + group.y * groups.x;
    let first = lane;
    let step = WX;
//@ end
    if row >= params[0] { return; }
    let code = params[2] & 255u;
    var low = 0.0;
    var high = 0.0;
    var odd = 0u;
    for (var j = first; j < params[1]; j += step) {
        let i = row * params[1] + j;
        let x = float_from(source[word_of(i, code)], i, code);
        if is_nan(x) { odd = 1u; }
        low = min(low, x);
        high = max(high, x);
    }
//@ if WAY=group
    parts[lane] = vec2<f32>(low, high);
    bad[lane] = odd;
    for (var half = WX / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half {
            let other = parts[lane + half];
            parts[lane] = vec2<f32>(min(parts[lane].x, other.x), max(parts[lane].y, other.y));
            bad[lane] |= bad[lane + half];
        }
    }
    if lane != 0u { return; }
    low = parts[0].x;
    high = parts[0].y;
    odd = bad[0];
//@ end
    let least = f32(bitcast<i32>(params[4]));
    let most = f32(bitcast<i32>(params[5]));
    let smallest = bitcast<f32>(params[6]);
    var zero = bitcast<f32>(params[7]);
    var scale = 0.0;
    switch params[3] {
        case 0u: {
            scale = max((high - low) / (most - least), smallest);
            zero = clamp(least - round(low / scale), least, most);
        }
        case 1u: {
            scale = max((high - low) / (most - least), smallest);
            let below = low / scale;
            let above = high / scale;
            zero = select(most - above, least - below, (least + below) + (most + above) > 0.0);
            zero = round(clamp(zero, least, most));
        }
        case 2u: { scale = max(max(-low, high) / ((most - least) / 2.0), smallest); }
        case 3u: { scale = max(max(low / least, high / most), smallest); }
        default: { scale = max(max(-low, high), smallest) / 127.0; }
    }
    if odd != 0u {
        scale = bitcast<f32>(0x7fc00000u | (params[0] & 0u));
        zero = 0.0;
    }
    if ((params[2] >> 8u) & 255u) == F64 {
        let words = double_of(scale);
        scales[2u * row] = words.x;
        scales[2u * row + 1u] = words.y;
    } else {
        scales[row] = bitcast<u32>(scale);
    }
    write_zero(row, zero);
}
