// A matrix product by tiles in shared memory: operands of any steps. params 31: which operands are contiguous along k (1 a, 2 b).
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
//@ include tile
//@ variant f32 V=f32 ONE=f32
//@ variant f16 V=u32 ONE=f16
//@ variant code V=u32 ONE=code

//@ if ONE=f32
fn read_a(i: u32) -> f32 { return a[i]; }
fn read_b(i: u32) -> f32 { return b[i]; }
//@ end
//@ if ONE=f16
fn read_a(i: u32) -> f32 { return unpack2x16float(a[i >> 1u] >> ((i & 1u) * 16u)).x; }
fn read_b(i: u32) -> f32 { return unpack2x16float(b[i >> 1u] >> ((i & 1u) * 16u)).x; }
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

fn along_k() -> u32 { return params[31]; }

fn element_a(m: u32, k: u32, z: u32) -> f32 {
    return read_a(batch_start(z, 10u) + m * params[11] + k * params[12]);
}

fn element_b(k: u32, n: u32, z: u32) -> f32 {
    return read_b(batch_start(z, 16u) + k * params[17] + n * params[18]);
}
