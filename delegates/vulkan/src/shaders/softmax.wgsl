// Softmax and its logarithm along rows, each by an invocation (flat), a workgroup (group) or a subgroup (team): the largest element and the sum in one pass, the results in another.
//@ workgroup 128
//@ include index
//@ include numbers
//@ include reduce_rows
//@ include norm_store
const ROWS: u32 = 7u; // the parameter that says how many rows a workgroup has
//@ buffer x read array<u32>
//@ buffer out write array<$OUT>
//@ variant flat FLAT=1 WIDE=1 OUT=u32
//@ variant flat_narrow FLAT=1 NARROW=1 OUT=atomic<u32>
//@ variant group GROUP=1 SHARED=1 WIDE=1 OUT=u32
//@ variant group_narrow GROUP=1 SHARED=1 NARROW=1 OUT=atomic<u32>
//@ variant team TEAM=1 SHARED=1 WIDE=1 OUT=u32 needs=subgroup
//@ variant team_narrow TEAM=1 SHARED=1 NARROW=1 OUT=atomic<u32> needs=subgroup
// params: rows, code of x, code of out, length of a row, what (0 softmax, 1 its logarithm, 2 softmax where a row of -infinity gives 0),
//         step within a row, 1 if two neighbours of a row are a word, rows of a workgroup (team)

// The largest element, and the sum of e to the power of the distances from it. NaN is in the sum.
struct Sum {
    top: f32,
    sum: f32,
}

fn nothing() -> Sum {
    return Sum(-infinity(), 0.0);
}

fn including(state: Sum, value: f32) -> Sum {
    if is_nan(value) { return Sum(state.top, value); }
    // Equal infinities have no difference.
    if value == state.top { return Sum(state.top, state.sum + 1.0); }
    if value < state.top { return Sum(state.top, state.sum + exp(value - state.top)); }
    return Sum(value, state.sum * exp(state.top - value) + 1.0);
}

fn joined(a: Sum, b: Sum) -> Sum {
    if a.top == b.top { return Sum(a.top, a.sum + b.sum); }
    if a.top > b.top { return Sum(a.top, a.sum + b.sum * exp(b.top - a.top)); }
    return Sum(b.top, a.sum * exp(a.top - b.top) + b.sum);
}

// Elements from `first` on in steps of `step`, in blocks. All invocations of a row go round as often.
fn gathered(base: u32, first: u32, step: u32) -> Sum {
    let length = params[3];
    var total = nothing();
    for (var start = 0u; start < length; start += 32u * step) {
        var block = nothing();
        let end = min(start + 32u * step, length);
        for (var at = start; at < end; at += step) {
            let j = at + first;
            if j < length { block = including(block, element(base + j * params[5], params[1])); }
        }
        total = joined(total, block);
    }
    return total;
}

//@ if GROUP
var<workgroup> tops: array<f32, 128>;
var<workgroup> sums: array<f32, 128>;

fn gathered_by_all(mine: Sum, local: u32) -> Sum {
    tops[local] = mine.top;
    sums[local] = mine.sum;
    workgroupBarrier();
    if local < 8u {
        var total = mine;
        for (var k = local + 8u; k < WX; k += 8u) { total = joined(total, Sum(tops[k], sums[k])); }
        tops[local] = total.top;
        sums[local] = total.sum;
    }
    workgroupBarrier();
    var total = Sum(tops[0], sums[0]);
    for (var k = 1u; k < 8u; k++) { total = joined(total, Sum(tops[k], sums[k])); }
    return total;
}
//@ end
//@ if TEAM
fn gathered_by_all(mine: Sum, local: u32) -> Sum {
    let top = subgroupMax(mine.top);
    // Equal infinities have no difference.
    var part = mine.sum;
    if mine.top != top { part = mine.sum * exp(mine.top - top); }
    return Sum(top, subgroupAdd(part));
}
//@ end

fn result(value: f32, total: Sum, logarithm: f32) -> f32 {
    if params[4] == 1u { return value - total.top - logarithm; }
    if params[4] == 2u && total.top == -infinity() && !is_nan(total.sum) { return 0.0; }
    return exp(value - total.top) / total.sum;
}

// One row: by the invocations `first` of `step`.
fn do_row(row: u32, first: u32, step: u32) {
    let length = params[3];
    let inner = params[5];
    let base = (row / inner) * (length * inner) + row % inner;
    var total = gathered(base, first, step);
//@ if SHARED
    total = gathered_by_all(total, first);
//@ end
    // The distance of infinity from itself is NaN, and so is every sum that has it. Not all drivers' `exp` hands NaN on.
    if total.top == infinity() || (total.top == -infinity() && params[4] != 2u) { total.sum = nan(); }
    var logarithm = 0.0;
    if params[4] == 1u { logarithm = log(total.sum); }
    if params[6] == 1u {
        for (var j = 2u * first; j < length; j += 2u * step) {
            let at = base + j;
            let a = result(element(at, params[1]), total, logarithm);
            let b = result(element(at + 1u, params[1]), total, logarithm);
            store_two(at, a, b, params[2]);
        }
    } else {
        for (var j = first; j < length; j += step) {
            let at = base + j * inner;
            store(at, result(element(at, params[1]), total, logarithm), params[2]);
        }
    }
}

//@ include norm_main
