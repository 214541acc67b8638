// A matrix product by tiles of 64 x 64 in shared memory, for processors of many lanes: an invocation makes 8 x 8 elements.
// Any steps. Where a or b is contiguous along k, neighbours read along k, else along the row or column (params 31: 1 a, 2 b).
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
//@ variant f32 V=f32 ONE=f32
//@ variant f16 V=u32 ONE=f16

// 16 steps of k: rows of 64 elements of a, of 32 pairs of neighbours in b.
var<workgroup> tile_a: array<f32, 1024>;
var<workgroup> tile_b: array<f32, 1024>;

//@ if ONE=f32
fn read_a(i: u32) -> f32 { return a[i]; }
fn read_b(i: u32) -> f32 { return b[i]; }
//@ end
//@ if ONE=f16
fn read_a(i: u32) -> f32 { return unpack2x16float(a[i >> 1u] >> ((i & 1u) * 16u)).x; }
fn read_b(i: u32) -> f32 { return unpack2x16float(b[i >> 1u] >> ((i & 1u) * 16u)).x; }
//@ end

@compute @workgroup_size(WX)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let i = group.x + group.y * groups.x;
    let rows = params[0];
    let columns = params[1];
    let wide = (columns + 63u) / 64u;
    let high = (rows + 63u) / 64u;
    let n0 = (i % wide) * 64u;
    let m0 = ((i / wide) % high) * 64u;
    let z = i / (wide * high);
    // The same for the whole workgroup.
    if z >= params[5] { return; }
    let k_end = params[2];
    let a_first = batch_start(z, 10u);
    let b_first = batch_start(z, 16u);
    let tx = lane & 7u;
    let ty = lane >> 3u;
    var sums: array<array<vec2<f32>, 4>, 8>;
    for (var k0 = 0u; k0 < k_end; k0 += 16u) {
        for (var step = 0u; step < 16u; step++) {
            let e = step * 64u + lane;
            var k = e & 15u;
            var at = e >> 4u;
            if (params[31] & 1u) == 0u {
                k = e >> 6u;
                at = e & 63u;
            }
            var x = 0.0;
            if m0 + at < rows && k0 + k < k_end {
                x = read_a(a_first + (m0 + at) * params[11] + (k0 + k) * params[12]);
            }
            tile_a[k * 64u + at] = x;
            k = e & 15u;
            at = e >> 4u;
            if (params[31] & 2u) == 0u {
                k = e >> 6u;
                at = e & 63u;
            }
            x = 0.0;
            if n0 + at < columns && k0 + k < k_end {
                x = read_b(b_first + (k0 + k) * params[17] + (n0 + at) * params[18]);
            }
            tile_b[k * 64u + at] = x;
        }
        workgroupBarrier();
        for (var k = 0u; k < 16u; k++) {
            var y: array<vec2<f32>, 4>;
            for (var j = 0u; j < 4u; j++) {
                let at = k * 64u + 16u * j + 2u * tx;
                y[j] = vec2<f32>(tile_b[at], tile_b[at + 1u]);
            }
            for (var r = 0u; r < 8u; r++) {
                let x = tile_a[k * 64u + 8u * r + ty];
                for (var j = 0u; j < 4u; j++) {
                    sums[r][j] += x * y[j];
                }
            }
        }
        workgroupBarrier();
    }
    for (var r = 0u; r < 8u; r++) {
        for (var j = 0u; j < 4u; j++) {
            put(vec4<f32>(sums[r][j], 0.0, 0.0), 2u, m0 + 8u * r + ty, n0 + 16u * j + 2u * tx, z);
        }
    }
}
