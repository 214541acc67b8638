// A matrix product by tiles in registers: an invocation makes ROWS x 4 elements, without barriers.
//   nt   rows of a and columns of b lie contiguous along k: vectors of four along k (linear, a · bᵀ)
//   nn   rows of a along k, rows of b along n: vectors of four
//   any  any steps: elements one by one
// `nt` and `nn` want K, every step and every first element to be multiples of 4; `nn` N too.
//@ workgroup 64
//@ include index
//@ include numbers
//@ buffer a read array<$V>
//@ buffer b read array<$V>
//@ buffer c read array<u32>
//@ buffer extra0 read array<u32>
//@ buffer extra1 read array<u32>
//@ buffer out write array<u32>
//@ include finish
//@ include product
//@ variant nt_f32 V=vec4<f32> VEC=f32 WAY=nt ROWS=4
//@ variant nt_f16 V=vec2<u32> VEC=f16 WAY=nt ROWS=4
//@ variant row_f32 V=vec4<f32> VEC=f32 WAY=nt ROWS=1
//@ variant row_f16 V=vec2<u32> VEC=f16 WAY=nt ROWS=1
//@ variant nn_f32 V=vec4<f32> VEC=f32 WAY=nn ROWS=4
//@ variant nn_f16 V=vec2<u32> VEC=f16 WAY=nn ROWS=4
//@ variant any_f32 V=f32 ONE=f32 WAY=any ROWS=4
//@ variant any_code V=u32 ONE=code WAY=any ROWS=4

//@ if VEC=f32
fn read_a(i: u32) -> vec4<f32> { return a[i >> 2u]; }
fn read_b(i: u32) -> vec4<f32> { return b[i >> 2u]; }
//@ end
//@ if VEC=f16
fn halves(w: vec2<u32>) -> vec4<f32> { return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)); }
fn read_a(i: u32) -> vec4<f32> { return halves(a[i >> 2u]); }
fn read_b(i: u32) -> vec4<f32> { return halves(b[i >> 2u]); }
//@ end
//@ if ONE=f32
fn read_a(i: u32) -> f32 { return a[i]; }
fn read_b(i: u32) -> f32 { return b[i]; }
//@ end
//@ if ONE=code
fn read_a(i: u32) -> f32 {
    let code = params[9] & 255u;
    return float_from(a[word_of(i, code)], i, code);
}
fn read_b(i: u32) -> f32 {
    let code = (params[9] >> 8u) & 255u;
    return float_from(b[word_of(i, code)], i, code);
}
//@ end

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    let rows = params[0];
    let columns = params[1];
    let wide = (columns + 3u) / 4u;
    let high = (rows + $ROWSu - 1u) / $ROWSu;
    let n = (i % wide) * 4u;
    let m = ((i / wide) % high) * $ROWSu;
    let z = i / (wide * high);
    if z >= params[5] { return; }
    let k_end = params[2];
    // Rows and columns beyond the end read the last one; what they make is not written.
    let last_row = rows - 1u;
    let last_column = columns - 1u;
    let a_first = batch_start(z, 10u);
    let b_first = batch_start(z, 16u);
    var a0 = a_first + m * params[11];
//@ if ROWS=4
    var a1 = a_first + min(m + 1u, last_row) * params[11];
    var a2 = a_first + min(m + 2u, last_row) * params[11];
    var a3 = a_first + min(m + 3u, last_row) * params[11];
//@ end
    var sum0 = vec4<f32>();
//@ if ROWS=4
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
//@ end
//@ if WAY=nt
    let b0 = b_first + n * params[18];
    let b1 = b_first + min(n + 1u, last_column) * params[18];
    let b2 = b_first + min(n + 2u, last_column) * params[18];
    let b3 = b_first + min(n + 3u, last_column) * params[18];
    for (var k = 0u; k < k_end; k += 4u) {
        let y0 = read_b(b0 + k);
        let y1 = read_b(b1 + k);
        let y2 = read_b(b2 + k);
        let y3 = read_b(b3 + k);
        let x0 = read_a(a0 + k);
        sum0 += vec4<f32>(dot(x0, y0), dot(x0, y1), dot(x0, y2), dot(x0, y3));
//@ if ROWS=4
        let x1 = read_a(a1 + k);
        sum1 += vec4<f32>(dot(x1, y0), dot(x1, y1), dot(x1, y2), dot(x1, y3));
        let x2 = read_a(a2 + k);
        sum2 += vec4<f32>(dot(x2, y0), dot(x2, y1), dot(x2, y2), dot(x2, y3));
        let x3 = read_a(a3 + k);
        sum3 += vec4<f32>(dot(x3, y0), dot(x3, y1), dot(x3, y2), dot(x3, y3));
//@ end
    }
//@ end
//@ if WAY=nn
    let b_step = params[17];
    var b0 = b_first + n;
    for (var k = 0u; k < k_end; k += 4u) {
        let y0 = read_b(b0);
        let y1 = read_b(b0 + b_step);
        let y2 = read_b(b0 + 2u * b_step);
        let y3 = read_b(b0 + 3u * b_step);
        b0 += 4u * b_step;
        let x0 = read_a(a0 + k);
        sum0 += x0.x * y0 + x0.y * y1 + x0.z * y2 + x0.w * y3;
        let x1 = read_a(a1 + k);
        sum1 += x1.x * y0 + x1.y * y1 + x1.z * y2 + x1.w * y3;
        let x2 = read_a(a2 + k);
        sum2 += x2.x * y0 + x2.y * y1 + x2.z * y2 + x2.w * y3;
        let x3 = read_a(a3 + k);
        sum3 += x3.x * y0 + x3.y * y1 + x3.z * y2 + x3.w * y3;
    }
//@ end
//@ if WAY=any
    let a_step = params[12];
    let b_step = params[17];
    var b0 = b_first + n * params[18];
    var b1 = b_first + min(n + 1u, last_column) * params[18];
    var b2 = b_first + min(n + 2u, last_column) * params[18];
    var b3 = b_first + min(n + 3u, last_column) * params[18];
    for (var k = 0u; k < k_end; k++) {
        let y = vec4<f32>(read_b(b0), read_b(b1), read_b(b2), read_b(b3));
        sum0 += read_a(a0) * y;
        sum1 += read_a(a1) * y;
        sum2 += read_a(a2) * y;
        sum3 += read_a(a3) * y;
        a0 += a_step;
        a1 += a_step;
        a2 += a_step;
        a3 += a_step;
        b0 += b_step;
        b1 += b_step;
        b2 += b_step;
        b3 += b_step;
    }
//@ end
//@ if ROWS=1
    put(sum0, 4u, m, n, z);
//@ end
//@ if ROWS=4
    var tile = array<vec4<f32>, 4>(sum0, sum1, sum2, sum3);
    for (var r = 0u; r < 4u; r++) {
        put(tile[r], 4u, m + r, n, z);
    }
//@ end
}
