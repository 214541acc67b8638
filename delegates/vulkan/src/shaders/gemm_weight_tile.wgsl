// A product of floats and weights of few bits, by tiles in shared memory. Operands and parameters as of `gemm_weight`.
//@ workgroup 64
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
//@ include scales
//@ include tile
//@ variant w8_f32 ONE=f32 BITS=8
//@ variant w4_f32 ONE=f32 BITS=4
//@ variant w8_f16 ONE=f16 BITS=8
//@ variant w4_f16 ONE=f16 BITS=4

fn along_k() -> u32 { return 3u; }

fn element_a(m: u32, k: u32, z: u32) -> f32 {
    let i = m * params[2] + k;
//@ if ONE=f32
    return bitcast<f32>(a[i]);
//@ end
//@ if ONE=f16
    return unpack2x16float(a[i >> 1u] >> ((i & 1u) * 16u)).x;
//@ end
}

fn element_b(k: u32, n: u32, z: u32) -> f32 {
    let i = n * params[2] + k;
//@ if BITS=8
    let integer = extractBits(bitcast<i32>(b[i >> 2u] ^ params[38]), (i & 3u) * 8u, 8u);
//@ end
//@ if BITS=4
    let integer = i32(extractBits(b[i >> 3u], (i & 7u) * 4u, 4u));
//@ end
    let group = k / params[33];
    return (f32(integer + bitcast<i32>(params[37])) - zero_of(n, group)) * scale_of(n, group);
}
