// A matrix product by tiles of 64 x 64 in shared memory, for processors of many lanes: an invocation makes 8 x 8 elements.
// The kernel says what an element is: `element_a(m, k, z)`, `element_b(k, n, z)`, asked for inside only. Where a or b is contiguous along k,
// neighbours read along k, else along the row or column (`along_k()`: 1 a, 2 b).

// 16 steps of k: rows of 64 elements.
var<workgroup> tile_a: array<f32, 1024>;
var<workgroup> tile_b: array<f32, 1024>;

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
    let along = along_k();
    let tx = lane & 7u;
    let ty = lane >> 3u;
    var sums: array<array<vec2<f32>, 4>, 8>;
    for (var k0 = 0u; k0 < k_end; k0 += 16u) {
        for (var step = 0u; step < 16u; step++) {
            let e = step * 64u + lane;
            let a_k = select(e >> 6u, e & 15u, (along & 1u) != 0u);
            let a_at = select(e & 63u, e >> 4u, (along & 1u) != 0u);
            var x = 0.0;
            if m0 + a_at < rows && k0 + a_k < k_end { x = element_a(m0 + a_at, k0 + a_k, z); }
            tile_a[a_k * 64u + a_at] = x;
            let b_k = select(e >> 6u, e & 15u, (along & 2u) != 0u);
            let b_at = select(e & 63u, e >> 4u, (along & 2u) != 0u);
            var y = 0.0;
            if n0 + b_at < columns && k0 + b_k < k_end { y = element_b(k0 + b_k, n0 + b_at, z); }
            tile_b[b_k * 64u + b_at] = y;
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
