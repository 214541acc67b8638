// Row-major stores of a tile: four pixels of a row, `gap` apart, for a block of four channels.
// Needs `include finish`, and ROWS (f32 or f16) with a buffer `out`, array<f32> or array<u32>. `row` counts the output's rows, image by image.

//@ if ROWS
fn row_place(row: u32, across: u32, c: u32, channels: u32, height: u32, width: u32) -> u32 {
    return ((row / height * channels + c) * height + row % height) * width + across;
}
//@ end
//@ if ROWS=f32
fn store_rows(
    v0: vec4<f32>, v1: vec4<f32>, v2: vec4<f32>, v3: vec4<f32>,
    row: u32, across: u32, gap: u32, block: u32, channels: u32, height: u32, width: u32, at: u32,
) {
    for (var c = 0u; c < 4u; c++) {
        if 4u * block + c >= channels { return; }
        let i = row_place(row, 0u, 4u * block + c, channels, height, width);
        let line = vec4<f32>(v0[c], v1[c], v2[c], v3[c]);
        for (var p = 0u; p < 4u; p++) {
            let j = across + p * gap;
            if j < width { out[i + j] = finish(line[p], i + j, at); }
        }
    }
}
//@ end
//@ if ROWS=f16
// Two pixels share a word: only for rows of an even width, and without gaps.
fn store_rows(
    v0: vec4<f32>, v1: vec4<f32>, v2: vec4<f32>, v3: vec4<f32>,
    row: u32, across: u32, gap: u32, block: u32, channels: u32, height: u32, width: u32, at: u32,
) {
    for (var c = 0u; c < 4u; c++) {
        if 4u * block + c >= channels { return; }
        let i = row_place(row, across, 4u * block + c, channels, height, width);
        let line = vec4<f32>(v0[c], v1[c], v2[c], v3[c]);
        for (var p = 0u; p < 4u; p += 2u) {
            if across + p < width {
                let low = f16_bits(finish(line[p], i + p, at));
                let high = f16_bits(finish(line[p + 1u], i + p + 1u, at));
                out[(i + p) / 2u] = low | (high << 16u);
            }
        }
    }
}
//@ end
