// Running results along rows: an invocation (flat) or a workgroup (group) does a row. In a workgroup each invocation combines a chunk of
// neighbours, then goes on from what the chunks before it make.
//@ workgroup 128
//@ include index
//@ include numbers
//@ include reduce_rows
//@ include reduce_whole
//@ include reduce_key
//@ include norm_store
//@ buffer x read array<u32>
//@ buffer out write array<$OUT>
//@ variant float_flat KIND=float FLAT=1 WIDE=1 OUT=u32
//@ variant float_flat_narrow KIND=float FLAT=1 NARROW=1 OUT=atomic<u32>
//@ variant float_group KIND=float GROUP=1 WIDE=1 OUT=u32
//@ variant float_group_narrow KIND=float GROUP=1 NARROW=1 OUT=atomic<u32>
//@ variant log_flat KIND=log FLAT=1 WIDE=1 OUT=u32
//@ variant log_flat_narrow KIND=log FLAT=1 NARROW=1 OUT=atomic<u32>
//@ variant log_group KIND=log GROUP=1 WIDE=1 OUT=u32
//@ variant log_group_narrow KIND=log GROUP=1 NARROW=1 OUT=atomic<u32>
//@ variant whole_flat KIND=whole FLAT=1 OUT=u32
//@ variant whole_group KIND=whole GROUP=1 OUT=u32
//@ variant place_flat KIND=place FLAT=1 OUT=u32
//@ variant place_group KIND=place GROUP=1 OUT=u32
// params: rows, code of x, code of out, length of a row, step within a row, what (0 sum or largest, 1 product or smallest), length of a chunk

//@ if KIND=float
struct State { value: f32 }

fn identity() -> State { return State(select(0.0, 1.0, params[5] == 1u)); }

fn joined(a: State, b: State) -> State {
    return State(select(a.value + b.value, a.value * b.value, params[5] == 1u));
}

fn element_state(i: u32, j: u32) -> State { return State(element(i, params[1])); }

fn put(i: u32, state: State) { store(i, state.value, params[2]); }
//@ end
//@ if KIND=log
// A sum as the largest of the logarithms, and the sum of e to the power of the distances from it. NaN is in the sum.
struct State { top: f32, sum: f32 }

fn identity() -> State { return State(-infinity(), 0.0); }

fn joined(a: State, b: State) -> State {
    if a.top == b.top { return State(a.top, a.sum + b.sum); }
    if a.top > b.top { return State(a.top, a.sum + b.sum * exp(b.top - a.top)); }
    return State(b.top, a.sum * exp(a.top - b.top) + b.sum);
}

fn element_state(i: u32, j: u32) -> State {
    let value = element(i, params[1]);
    if is_nan(value) { return State(-infinity(), value); }
    return State(value, 1.0);
}

fn put(i: u32, state: State) {
    var value = state.top + log(state.sum);
    if is_nan(state.sum) { value = state.sum; }
    else if state.top == -infinity() || state.top == infinity() { value = state.top; }
    store(i, value, params[2]);
}
//@ end
//@ if KIND=whole
struct State { value: vec2<u32> }

fn identity() -> State { return State(vec2<u32>(select(0u, 1u, params[5] == 1u), 0u)); }

fn joined(a: State, b: State) -> State {
    if params[5] == 1u { return State(multiply_whole(a.value, b.value)); }
    return State(add_whole(a.value, b.value));
}

fn element_state(i: u32, j: u32) -> State { return State(whole(i, params[1])); }

fn put(i: u32, state: State) {
    if params[2] == I64 {
        out[2u * i] = state.value.x;
        out[2u * i + 1u] = state.value.y;
    } else {
        out[i] = state.value.x;
    }
}
//@ end
//@ if KIND=place
// The extreme so far and where it is; of equals the last.
struct State { key: vec2<u32>, place: u32 }

fn identity() -> State { return State(vec2<u32>(0u), 0u); }

fn joined(a: State, b: State) -> State {
    if above(a.key, b.key) { return a; }
    return b;
}

fn element_state(i: u32, j: u32) -> State {
    var key = key_of(i, params[1]);
    if params[5] == 1u && !(params[1] <= BF16 && key.y == 0xffffffffu) { key = ~key; }
    return State(key, j);
}

fn put(i: u32, state: State) {
    out[2u * i] = state.place;
    out[2u * i + 1u] = 0u;
}
//@ end

//@ if GROUP
var<workgroup> chunks: array<State, 128>;
//@ end

@compute @workgroup_size(WX)
//@ if FLAT
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let row = linear(id, groups);
//@ end
//@ if GROUP
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = id.x + id.y * groups.x;
//@ end
    if row >= params[0] { return; }
    let inner = params[4];
    let base = (row / inner) * (params[3] * inner) + row % inner;
    var state = identity();
//@ if FLAT
    let start = 0u;
    let end = params[3];
//@ end
//@ if GROUP
    let start = local * params[6];
    let end = min(start + params[6], params[3]);
    for (var j = start; j < end; j++) { state = joined(state, element_state(base + j * inner, j)); }
    chunks[local] = state;
    workgroupBarrier();
    if local == 0u {
        var before = identity();
        for (var k = 0u; k < WX; k++) {
            let chunk = chunks[k];
            chunks[k] = before;
            before = joined(before, chunk);
        }
    }
    workgroupBarrier();
    state = chunks[local];
//@ end
    for (var j = start; j < end; j++) {
        let at = base + j * inner;
        state = joined(state, element_state(at, j));
        put(at, state);
    }
}
