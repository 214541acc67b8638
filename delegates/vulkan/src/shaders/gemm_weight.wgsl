// A product of floats and weights of few bits, by tiles in registers: an invocation makes ROWS x 4 elements, without barriers.
// Rows of a and columns of b lie contiguous along k; K, every step and first element, and the groups are multiples of 4 (8 for BITS=4).
//
// params (behind those of `include product`): 33 to 36 as `include scales` says; 37 what is added to an integer as it lies in b, and a mask
// for its words: 0x80808080 for unsigned bytes.
//@ workgroup 64
//@ include index
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
//@ variant w8_f32 V=vec4<f32> VEC=f32 BITS=8 ROWS=4
//@ variant w8_row_f32 V=vec4<f32> VEC=f32 BITS=8 ROWS=1
//@ variant w4_f32 V=vec4<f32> VEC=f32 BITS=4 ROWS=4
//@ variant w4_row_f32 V=vec4<f32> VEC=f32 BITS=4 ROWS=1
//@ variant w8_f16 V=vec2<u32> VEC=f16 BITS=8 ROWS=4
//@ variant w8_row_f16 V=vec2<u32> VEC=f16 BITS=8 ROWS=1
//@ variant w4_f16 V=vec2<u32> VEC=f16 BITS=4 ROWS=4
//@ variant w4_row_f16 V=vec2<u32> VEC=f16 BITS=4 ROWS=1

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

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    let rows = params[0];
    let columns = params[1];
    let wide = (columns + 3u) / 4u;
    let high = (rows + $ROWSu - 1u) / $ROWSu;
    let n = (i % wide) * 4u;
    let m = (i / wide) * $ROWSu;
    if m >= rows { return; }
    let k_end = params[2];
    // Rows and columns beyond the end read the last one; what they make is not written.
    let n1 = min(n + 1u, columns - 1u);
    let n2 = min(n + 2u, columns - 1u);
    let n3 = min(n + 3u, columns - 1u);
    let b0 = n * k_end;
    let b1 = n1 * k_end;
    let b2 = n2 * k_end;
    let b3 = n3 * k_end;
    let a0 = m * k_end;
    var sum0 = vec4<f32>();
//@ if ROWS=4
    let a1 = min(m + 1u, rows - 1u) * k_end;
    let a2 = min(m + 2u, rows - 1u) * k_end;
    let a3 = min(m + 3u, rows - 1u) * k_end;
    var sum1 = vec4<f32>();
    var sum2 = vec4<f32>();
    var sum3 = vec4<f32>();
//@ end
    let offset = f32(bitcast<i32>(params[37]));
    var group = 0u;
    for (var start = 0u; start < k_end; start += params[33]) {
        let end = min(start + params[33], k_end);
        let scale = vec4<f32>(scale_of(n, group), scale_of(n1, group), scale_of(n2, group), scale_of(n3, group));
        let zero = vec4<f32>(zero_of(n, group), zero_of(n1, group), zero_of(n2, group), zero_of(n3, group)) - offset;
        var part0 = vec4<f32>();
//@ if ROWS=4
        var part1 = vec4<f32>();
        var part2 = vec4<f32>();
        var part3 = vec4<f32>();
//@ end
        for (var k = start; k < end; k += 4u) {
            let y0 = read_b(b0 + k) - zero.x;
            let y1 = read_b(b1 + k) - zero.y;
            let y2 = read_b(b2 + k) - zero.z;
            let y3 = read_b(b3 + k) - zero.w;
            let x0 = read_a(a0 + k);
            part0 += vec4<f32>(dot(x0, y0), dot(x0, y1), dot(x0, y2), dot(x0, y3));
//@ if ROWS=4
            let x1 = read_a(a1 + k);
            part1 += vec4<f32>(dot(x1, y0), dot(x1, y1), dot(x1, y2), dot(x1, y3));
            let x2 = read_a(a2 + k);
            part2 += vec4<f32>(dot(x2, y0), dot(x2, y1), dot(x2, y2), dot(x2, y3));
            let x3 = read_a(a3 + k);
            part3 += vec4<f32>(dot(x3, y0), dot(x3, y1), dot(x3, y2), dot(x3, y3));
//@ end
        }
        sum0 += part0 * scale;
//@ if ROWS=4
        sum1 += part1 * scale;
        sum2 += part2 * scale;
        sum3 += part3 * scale;
//@ end
        group++;
    }
//@ if ROWS=1
    put(sum0, 4u, m, n, 0u);
//@ end
//@ if ROWS=4
    var tile = array<vec4<f32>, 4>(sum0, sum1, sum2, sum3);
    for (var r = 0u; r < 4u; r++) {
        put(tile[r], 4u, m + r, n, 0u);
    }
//@ end
}
