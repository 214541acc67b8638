// A matrix product of few rows: a workgroup makes ROWS x 4 elements and divides k among its invocations.
// Rows of a and columns of b lie contiguous along k; K, every step and every first element are multiples of 4.
//@ workgroup 64
//@ include numbers
//@ buffer a read array<$V>
//@ buffer b read array<$V>
//@ buffer c read array<u32>
//@ buffer extra0 read array<u32>
//@ buffer extra1 read array<u32>
//@ buffer out write array<u32>
//@ include finish
//@ include product
//@ variant f32 V=vec4<f32> VEC=f32 SUM=shared
//@ variant f16 V=vec2<u32> VEC=f16 SUM=shared
//@ variant f32_subgroup V=vec4<f32> VEC=f32 SUM=subgroup needs=subgroup
//@ variant f16_subgroup V=vec2<u32> VEC=f16 SUM=subgroup needs=subgroup

var<workgroup> parts: array<vec4<f32>, 64>;

//@ if VEC=f32
fn read_a(i: u32) -> vec4<f32> { return a[i >> 2u]; }
fn read_b(i: u32) -> vec4<f32> { return b[i >> 2u]; }
//@ end
//@ if VEC=f16
fn halves(w: vec2<u32>) -> vec4<f32> { return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)); }
fn read_a(i: u32) -> vec4<f32> { return halves(a[i >> 2u]); }
fn read_b(i: u32) -> vec4<f32> { return halves(b[i >> 2u]); }
//@ end

@compute @workgroup_size(WX)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
//@ if SUM=subgroup
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) place: u32,
//@ end
) {
    let i = group.x + group.y * groups.x;
    let rows = params[0];
    let columns = params[1];
    let wide = (columns + 3u) / 4u;
    let n = (i % wide) * 4u;
    let m = (i / wide) % rows;
    let z = i / (wide * rows);
    // The same for the whole workgroup.
    if z >= params[5] { return; }
    let k_end = params[2];
    let last_column = columns - 1u;
    let a0 = batch_start(z, 10u) + m * params[11];
    let b_first = batch_start(z, 16u);
    let b0 = b_first + n * params[18];
    let b1 = b_first + min(n + 1u, last_column) * params[18];
    let b2 = b_first + min(n + 2u, last_column) * params[18];
    let b3 = b_first + min(n + 3u, last_column) * params[18];
    var sum = vec4<f32>();
    for (var k = 4u * lane; k < k_end; k += 4u * WX) {
        let x = read_a(a0 + k);
        sum += vec4<f32>(dot(x, read_b(b0 + k)), dot(x, read_b(b1 + k)), dot(x, read_b(b2 + k)), dot(x, read_b(b3 + k)));
    }
//@ if SUM=shared
    parts[lane] = sum;
    for (var half = WX / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half { parts[lane] += parts[lane + half]; }
    }
    if lane == 0u { put(parts[0], 4u, m, n, z); }
//@ end
//@ if SUM=subgroup
    let together = subgroupAdd(sum);
    if place == 0u { parts[subgroup] = together; }
    workgroupBarrier();
    if lane == 0u {
        var total = parts[0];
        for (var s = 1u; s < subgroups; s++) { total += parts[s]; }
        put(total, 4u, m, n, z);
    }
//@ end
}
