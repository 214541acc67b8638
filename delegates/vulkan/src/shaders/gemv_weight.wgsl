// A product of a few rows of floats and weights of few bits: a workgroup makes 4 elements of a row and divides k among its invocations.
// Operands and parameters as of `gemm_weight`.
//@ workgroup 64
//@ include numbers
//@ include double
//@ buffer a read array<$V>
//@ buffer b read array<u32>
//@ buffer scales read array<u32>
//@ buffer zeros read array<u32>
//@ buffer c read array<u32>
//@ buffer extra0 read array<u32>
//@ buffer extra1 read array<u32>
//@ buffer out write array<u32>
//@ include finish
//@ include product
//@ include scales
//@ variant w8_f32 V=vec4<f32> VEC=f32 BITS=8 SUM=shared
//@ variant w4_f32 V=vec4<f32> VEC=f32 BITS=4 SUM=shared
//@ variant w8_f16 V=vec2<u32> VEC=f16 BITS=8 SUM=shared
//@ variant w4_f16 V=vec2<u32> VEC=f16 BITS=4 SUM=shared
//@ variant w8_f32_subgroup V=vec4<f32> VEC=f32 BITS=8 SUM=subgroup needs=subgroup
//@ variant w4_f32_subgroup V=vec4<f32> VEC=f32 BITS=4 SUM=subgroup needs=subgroup
//@ variant w8_f16_subgroup V=vec2<u32> VEC=f16 BITS=8 SUM=subgroup needs=subgroup
//@ variant w4_f16_subgroup V=vec2<u32> VEC=f16 BITS=4 SUM=subgroup needs=subgroup

var<workgroup> parts: array<vec4<f32>, 64>;

//@ if VEC=f32
fn read_a(i: u32) -> vec4<f32> { return a[i >> 2u]; }
//@ end
//@ if VEC=f16
fn read_a(i: u32) -> vec4<f32> {
    let w = a[i >> 2u];
    return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y));
}
//@ end
//@ if BITS=8
fn read_b(i: u32) -> vec4<f32> { return vec4<f32>(unpack4xI8(b[i >> 2u] ^ params[38])); }
//@ end
//@ if BITS=4
fn read_b(i: u32) -> vec4<f32> {
    let w = b[i >> 3u] >> ((i & 4u) * 4u);
    return vec4<f32>((vec4<u32>(w) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u));
}
//@ end

// Four terms of the sum of a column.
fn terms(x: vec4<f32>, n: u32, k: u32) -> f32 {
    let group = k / params[33];
    let zero = zero_of(n, group) - f32(bitcast<i32>(params[37]));
    return dot(x, read_b(n * params[2] + k) - zero) * scale_of(n, group);
}

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
    let columns = params[1];
    let wide = (columns + 3u) / 4u;
    let n = (i % wide) * 4u;
    let m = i / wide;
    // The same for the whole workgroup.
    if m >= params[0] { return; }
    let k_end = params[2];
    let last = columns - 1u;
    var sum = vec4<f32>();
    for (var k = 4u * lane; k < k_end; k += 4u * WX) {
        let x = read_a(m * k_end + k);
        sum += vec4<f32>(terms(x, n, k), terms(x, min(n + 1u, last), k), terms(x, min(n + 2u, last), k), terms(x, min(n + 3u, last), k));
    }
//@ if SUM=shared
    parts[lane] = sum;
    for (var half = WX / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if lane < half { parts[lane] += parts[lane + half]; }
    }
    if lane == 0u { put(parts[0], 4u, m, n, 0u); }
//@ end
//@ if SUM=subgroup
    let together = subgroupAdd(sum);
    if place == 0u { parts[subgroup] = together; }
    workgroupBarrier();
    if lane == 0u {
        var total = parts[0];
        for (var s = 1u; s < subgroups; s++) { total += parts[s]; }
        put(total, 4u, m, n, 0u);
    }
//@ end
}
