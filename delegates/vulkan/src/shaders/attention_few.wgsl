// Attention of a few queries over many keys, in one go: a workgroup makes the result of one query. It goes over the keys in runs of 64 and
// keeps the largest score so far; what was summed before is scaled down when a larger one comes.
//
// params:
//    0 rows of all batches, keys, rows of a batch, sizes B1 and B2 of the inner two of three batch dimensions
//    5 flags: 1 mask, 2 causal; code of the mask; code of queries and result; width of queries and keys (a multiple of 4, at most 256), of
//      values (even, at most 256)
//   10 mask: first element, steps of a row, of a column, of the three batch dimensions
//   16 queries: first element, step of a row, 0, steps of the batch dimensions; 22 keys; 28 values. Those of keys are multiples of 4, those of
//      values even
//   34 scale (bits)
//@ workgroup 64
//@ include numbers
//@ include batch
//@ include exp_below
//@ buffer query read array<u32>
//@ buffer key read array<$K>
//@ buffer value read array<$W>
//@ buffer mask read array<u32>
//@ buffer out write array<u32>
//@ variant f32 K=vec4<f32> W=vec2<f32> ONE=f32
//@ variant f16 K=vec2<u32> W=u32 ONE=f16

const LOWEST: f32 = -3.4028234e38;

var<workgroup> asked: array<vec4<f32>, 64>;
var<workgroup> shares: array<f32, 64>;
var<workgroup> parts: array<f32, 64>;

//@ if ONE=f32
fn read_key(i: u32) -> vec4<f32> { return key[i >> 2u]; }
fn read_value(i: u32) -> vec2<f32> { return value[i >> 1u]; }
//@ end
//@ if ONE=f16
fn read_key(i: u32) -> vec4<f32> {
    let w = key[i >> 2u];
    return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));
}
fn read_value(i: u32) -> vec2<f32> { return unpack2x16float(value[i >> 1u]); }
//@ end

fn read_query(i: u32) -> f32 { return float_from(query[word_of(i, params[7])], i, params[7]); }

@compute @workgroup_size(WX)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = group.x + group.y * groups.x;
    // The same for the whole workgroup.
    if row >= params[0] { return; }
    let z = row / params[2];
    let m = row % params[2];
    let width = params[8];
    let depth = params[9];
    let hidden = bitcast<f32>(0xff800000u | (params[0] & 0u));
    let query_start = batch_start(z, 16u) + m * params[17];
    if 4u * lane < width {
        let i = query_start + 4u * lane;
        asked[lane] = bitcast<f32>(params[34]) * vec4<f32>(read_query(i), read_query(i + 1u), read_query(i + 2u), read_query(i + 3u));
    }
    workgroupBarrier();
    let key_start = batch_start(z, 22u);
    let value_start = batch_start(z, 28u);
    let mask_start = batch_start(z, 10u) + m * params[11];
    let keys = select(params[1], min(params[1], m + 1u), (params[5] & 2u) != 0u);
    var top = LOWEST;
    var sum = 0.0;
    var low = vec2<f32>();
    var high = vec2<f32>();
    for (var first = 0u; first < keys; first += WX) {
        let j = first + lane;
        var score = hidden;
        if j < keys {
            let start = key_start + j * params[23];
            var total = vec4<f32>();
            for (var d = 0u; d < width; d += 4u) { total += asked[d >> 2u] * read_key(start + d); }
            score = (total.x + total.y) + (total.z + total.w);
            if (params[5] & 1u) != 0u {
                let i = mask_start + j * params[12];
                let word = mask[word_of(i, params[6])];
                if params[6] == BOOL {
                    score = select(hidden, score, int_from(word, i, BOOL) != 0);
                } else {
                    score += float_from(word, i, params[6]);
                }
            }
        }
        parts[lane] = score;
        for (var half = WX / 2u; half > 0u; half /= 2u) {
            workgroupBarrier();
            if lane < half { parts[lane] = max(parts[lane], parts[lane + half]); }
        }
        workgroupBarrier();
        let now = max(top, parts[0]);
        let before = exp_below(top - now);
        let share = exp_below(score - now);
        top = now;
        sum = sum * before + share;
        shares[lane] = share;
        workgroupBarrier();
        low *= before;
        high *= before;
        let end = min(WX, keys - first);
        if 2u * lane < depth {
            for (var k = 0u; k < end; k++) { low += shares[k] * read_value(value_start + (first + k) * params[29] + 2u * lane); }
        }
        if 2u * lane + 128u < depth {
            for (var k = 0u; k < end; k++) { high += shares[k] * read_value(value_start + (first + k) * params[29] + 2u * lane + 128u); }
        }
        workgroupBarrier();
    }
    parts[lane] = sum;
    for (var half = WX / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half { parts[lane] += parts[lane + half]; }
    }
    workgroupBarrier();
    // Nothing was seen: the sum is 0.
    let factor = select(1.0 / parts[0], 0.0, parts[0] == 0.0);
    for (var t = 0u; t < 2u; t++) {
        let d = 2u * lane + 128u * t;
        if d < depth {
            let pair = select(low, high, t == 1u) * factor;
            let i = row * depth + d;
            if params[7] == F32 {
                out[i] = bitcast<u32>(pair.x);
                out[i + 1u] = bitcast<u32>(pair.y);
            } else {
                out[i >> 1u] = bits_of_float(pair.x, params[7]) | (bits_of_float(pair.y, params[7]) << 16u);
            }
        }
    }
}
