// Scores of attention to shares: each row of f32 becomes its softmax, in place, behind a mask. A row that sees nothing becomes zeros.
//   line    an invocation a row, without barriers
//   group   a workgroup a row
//
// params:
//    0 rows of all batches, columns, rows of a batch, sizes B1 and B2 of the inner two of three batch dimensions
//    5 flags: 1 mask, 2 causal, 4 logarithms of sums are wanted; code of the mask; first row's place, for causal
//   10 mask: first element, steps of a row, of a column, of the three batch dimensions
//@ workgroup 64
//@ include index
//@ include numbers
//@ include batch
//@ include exp_below
//@ buffer mask read array<u32>
//@ buffer scores write array<f32>
//@ buffer logs write array<f32>
//@ variant line WAY=line
//@ variant group WAY=group

const LOWEST: f32 = -3.4028234e38;

// The score that counts: -inf where it is hidden.
fn seen(row: u32, column: u32, mask_start: u32) -> f32 {
    let hidden = bitcast<f32>(0xff800000u | (params[0] & 0u));
    if (params[5] & 2u) != 0u && column > (row % params[2]) + params[7] { return hidden; }
    let x = scores[row * params[1] + column];
    if (params[5] & 1u) == 0u { return x; }
    let i = mask_start + column * params[12];
    let word = mask[word_of(i, params[6])];
    if params[6] == BOOL { return select(hidden, x, int_from(word, i, BOOL) != 0); }
    return x + float_from(word, i, params[6]);
}

//@ if WAY=group
var<workgroup> parts: array<f32, 64>;
//@ end

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
    let columns = params[1];
    let start = row * columns;
    let mask_start = batch_start(row / params[2], 10u) + (row % params[2]) * params[11];
    var top = LOWEST;
    for (var j = first; j < columns; j += step) {
        let x = seen(row, j, mask_start);
        scores[start + j] = x;
        top = max(top, x);
    }
//@ if WAY=group
    parts[lane] = top;
    for (var half = WX / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half { parts[lane] = max(parts[lane], parts[lane + half]); }
    }
    workgroupBarrier();
    top = parts[0];
    workgroupBarrier();
//@ end
    var sum = 0.0;
    for (var j = first; j < columns; j += step) {
        let share = exp_below(scores[start + j] - top);
        scores[start + j] = share;
        sum += share;
    }
//@ if WAY=group
    parts[lane] = sum;
    for (var half = WX / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half { parts[lane] += parts[lane + half]; }
    }
    workgroupBarrier();
    sum = parts[0];
//@ end
    // Nothing was seen: the sum is 0.
    let factor = select(1.0 / sum, 0.0, sum == 0.0);
    for (var j = first; j < columns; j += step) {
        scores[start + j] *= factor;
    }
    if (params[5] & 4u) != 0u && first == 0u { logs[row] = top + log(sum); }
}
