// A product of bytes, in integers: an invocation makes 4 x 4 elements, of four terms at once. Rows of a and columns of b lie contiguous along
// k, which is a multiple of 4; a scale and a zero point for a, one or one a column for b.
//
// params (behind those of `include product`):
//   31 scale of a (bits), its zero point, as signed bytes have it
//   33 to 36 as `include scales` says; flags 4: the result is quantized (rows are multiples of 4), 16: `c` is integers of the scale of a · b
//   37 1 / scale of the result (bits), its zero point, its least and greatest integer
//   41 masks for words of a and b: 0x80808080 for unsigned bytes; what to add to the zero point of b
//@ workgroup 64
//@ include index
//@ include numbers
//@ include double
//@ buffer a read array<u32>
//@ buffer b read array<u32>
//@ buffer scales read array<u32>
//@ buffer zeros read array<u32>
//@ buffer c read array<u32>
//@ buffer extra0 read array<u32>
//@ buffer extra1 read array<u32>
//@ buffer out write array<u32>
//@ include finish
//@ include product
//@ include requantize
//@ include scales
//@ variant plain WAY=plain
//@ variant dot WAY=dot needs=dot

const ONES: u32 = 0x01010101u;

fn dots(x: u32, y: vec4<u32>) -> vec4<i32> {
    return vec4<i32>(dot4I8Packed(x, y.x), dot4I8Packed(x, y.y), dot4I8Packed(x, y.z), dot4I8Packed(x, y.w));
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    let rows = params[0];
    let columns = params[1];
    let wide = (columns + 3u) / 4u;
    let n = (i % wide) * 4u;
    let m = (i / wide) * 4u;
    if m >= rows { return; }
    let words = params[2] / 4u;
    // Rows and columns beyond the end read the last one; what they make is not written.
    let at_a = min(vec4<u32>(m, m + 1u, m + 2u, m + 3u), vec4<u32>(rows - 1u)) * words;
    let at_n = min(vec4<u32>(n, n + 1u, n + 2u, n + 3u), vec4<u32>(columns - 1u));
    let at_b = at_n * words;
    let flip_a = params[41];
    let flip_b = params[42];
    var sum0 = vec4<i32>();
    var sum1 = vec4<i32>();
    var sum2 = vec4<i32>();
    var sum3 = vec4<i32>();
    var of_a = vec4<i32>();
    var of_b = vec4<i32>();
    for (var k = 0u; k < words; k++) {
        let x = vec4<u32>(a[at_a.x + k], a[at_a.y + k], a[at_a.z + k], a[at_a.w + k]) ^ vec4<u32>(flip_a);
        let y = vec4<u32>(b[at_b.x + k], b[at_b.y + k], b[at_b.z + k], b[at_b.w + k]) ^ vec4<u32>(flip_b);
        sum0 += dots(x.x, y);
        sum1 += dots(x.y, y);
        sum2 += dots(x.z, y);
        sum3 += dots(x.w, y);
        of_a += dots(ONES, x);
        of_b += dots(ONES, y);
    }
    let a_zero = bitcast<i32>(params[32]);
    let zero = vec4<i32>(vec4<f32>(zero_of(at_n.x, 0u), zero_of(at_n.y, 0u), zero_of(at_n.z, 0u), zero_of(at_n.w, 0u)))
        + vec4<i32>(bitcast<i32>(params[43]));
    let scale = bitcast<f32>(params[31])
        * vec4<f32>(scale_of(at_n.x, 0u), scale_of(at_n.y, 0u), scale_of(at_n.z, 0u), scale_of(at_n.w, 0u));
    // (a - za)(b - zb) = ab - za·b - zb·a + za·zb, summed.
    var added = vec4<i32>(i32(params[2]) * a_zero) * zero - a_zero * of_b;
    if (params[36] & 16u) != 0u {
        let c_at = at_n * params[24];
        added += bitcast<vec4<i32>>(vec4<u32>(c[c_at.x], c[c_at.y], c[c_at.z], c[c_at.w]));
    }
    var tile = array<vec4<f32>, 4>(
        vec4<f32>(sum0 + added - zero * of_a.x) * scale,
        vec4<f32>(sum1 + added - zero * of_a.y) * scale,
        vec4<f32>(sum2 + added - zero * of_a.z) * scale,
        vec4<f32>(sum3 + added - zero * of_a.w) * scale,
    );
    if (params[36] & 4u) == 0u {
        for (var r = 0u; r < 4u; r++) {
            put(tile[r], 4u, m + r, n, 0u);
        }
        return;
    }
    let code = params[9] >> 24u;
    for (var r = 0u; r < 4u && m + r < rows; r++) {
        var word = 0u;
        var values = tile[r];
        for (var j = 0u; j < 4u; j++) {
            word |= bits_of_int(requantized(result_of(values[j], m + r, n + j, 0u)), code) << (8u * j);
        }
        out[place_of(m + r, n, 0u) >> 2u] = word;
    }
}
