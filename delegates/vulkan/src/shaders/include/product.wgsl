// What all kernels of matrix products share: out[z] = finish(alpha * a[z] · b[z] + beta * c[z]).
// Needs the buffers c, extra0, extra1, out (array<u32>), and `include finish`.
//
// params:
//    0 M, N, K, sizes B1 and B2 of the inner two of three batch dimensions, number of batches
//    6 alpha, beta (bits of f32), flags (1: there is a `c`), codes of a | b << 8 | c << 16 | out << 24
//   10 a: first element, steps of a row (m), of a column (k), of the three batch dimensions
//   16 b: first element, steps of a row (k), of a column (n), of the three batch dimensions
//   22 c: first element, steps of a row (m), of a column (n), of the three batch dimensions
//   28 out: first element, step of a row, step of a batch
//   31 what the kernel adds
//   44 links of `finish()`
const LINKS: u32 = 44u;

//@ include batch

// The place of an element of the result.
fn place_of(m: u32, n: u32, z: u32) -> u32 {
    return params[28] + m * params[29] + z * params[30] + n;
}

// The result of one element, from its sum of products.
fn result_of(sum: f32, m: u32, n: u32, z: u32) -> f32 {
    var x = bitcast<f32>(params[6]) * sum;
    if (params[8] & 1u) != 0u {
        let code = (params[9] >> 16u) & 255u;
        let i = batch_start(z, 22u) + m * params[23] + n * params[24];
        x += bitcast<f32>(params[7]) * float_from(c[word_of(i, code)], i, code);
    }
    return finish(x, place_of(m, n, z), LINKS);
}

// Writes neighbours of a row, `count` of four, those that are inside. Elements of 16 bits: rows have an even number, and `n` is even.
// One place in the text: drivers put functions where they are called, and the links make it long.
fn put(sums: vec4<f32>, count: u32, m: u32, n: u32, z: u32) {
    if m >= params[0] || n >= params[1] { return; }
    let code = params[9] >> 24u;
    let end = min(count, params[1] - n);
    let i = place_of(m, n, z);
    var values = sums;
    var word = 0u;
    for (var j = 0u; j < end; j++) {
        let x = result_of(values[j], m, n + j, z);
        if code == F32 {
            out[i + j] = bitcast<u32>(x);
        } else if (j & 1u) == 0u {
            word = bits_of_float(x, code);
        } else {
            out[(i + j) >> 1u] = word | (bits_of_float(x, code) << 16u);
        }
    }
}
