// Row-major stores of a tile: four pixels of a row, `gap` apart, for a block of four channels.
// Needs `include convolve`, and ROWS (f32 or f16) with a buffer `out`, array<f32> or array<u32>. `row` counts the output's rows, image by image.

//@ if ROWS
fn row_place(row: u32, c: u32, channels: u32, height: u32, width: u32) -> u32 {
    return ((row / height * channels + c) * height + row % height) * width;
}
//@ if FEW
// Four elements anywhere.
//@ if T=f32
fn extra_at(slot: u32, at: vec4<u32>) -> vec4<f32> {
    if slot == 1u { return bitcast<vec4<f32>>(vec4<u32>(extra0[at.x], extra0[at.y], extra0[at.z], extra0[at.w])); }
    return bitcast<vec4<f32>>(vec4<u32>(extra1[at.x], extra1[at.y], extra1[at.z], extra1[at.w]));
}
//@ end
//@ if T=f16
fn extra_at(slot: u32, at: vec4<u32>) -> vec4<f32> {
    var words = vec4<u32>();
    if slot == 1u {
        words = vec4<u32>(extra0[at.x >> 1u], extra0[at.y >> 1u], extra0[at.z >> 1u], extra0[at.w >> 1u]);
    } else {
        words = vec4<u32>(extra1[at.x >> 1u], extra1[at.y >> 1u], extra1[at.z >> 1u], extra1[at.w >> 1u]);
    }
    words = words >> ((at & vec4<u32>(1u)) * 16u);
    return vec4<f32>(unpack2x16float(words.x).x, unpack2x16float(words.y).x, unpack2x16float(words.z).x, unpack2x16float(words.w).x);
}
//@ end

fn finish_row(line: vec4<f32>, places: vec4<u32>, at: u32) -> vec4<f32> {
    var made = line;
    for (var k = 0u; k < params[at]; k++) {
        let base = at + 1u + 5u * k;
        let head = params[base];
        let slot = (head >> 8u) & 15u;
        var y = vec4<f32>(bitcast<f32>(params[base + 1u]));
        if slot != 0u { y = extra_at(slot, places); }
        made = link4(head & 255u, made, y, bitcast<f32>(params[base + 3u]));
    }
    return made;
}
//@ end
//@ if ANY
fn finish_row(line: vec4<f32>, places: vec4<u32>, at: u32) -> vec4<f32> {
    var made = line;
    for (var p = 0u; p < 4u; p++) { made[p] = finish(line[p], places[p], at); }
    return made;
}
//@ end

fn store_rows(
    v0: vec4<f32>, v1: vec4<f32>, v2: vec4<f32>, v3: vec4<f32>,
    row: u32, across: u32, gap: u32, block: u32, channels: u32, height: u32, width: u32, at: u32,
) {
    let steps = vec4<u32>(across) + vec4<u32>(0u, 1u, 2u, 3u) * gap;
    for (var c = 0u; c < 4u; c++) {
        if 4u * block + c >= channels { return; }
        let i = row_place(row, 4u * block + c, channels, height, width);
        // Pixels beyond the end are not written: they read what the last one does.
        let places = vec4<u32>(i) + min(steps, vec4<u32>(width - 1u));
        let line = finish_row(vec4<f32>(v0[c], v1[c], v2[c], v3[c]), places, at);
//@ if ROWS=f32
        for (var p = 0u; p < 4u; p++) {
            if steps[p] < width { out[places[p]] = line[p]; }
        }
//@ end
//@ if ROWS=f16
        // Two pixels share a word: only for rows of an even width, and without gaps.
        if steps.x < width { out[places.x >> 1u] = f16_bits(line.x) | (f16_bits(line.y) << 16u); }
        if steps.z < width { out[places.z >> 1u] = f16_bits(line.z) | (f16_bits(line.w) << 16u); }
//@ end
    }
}
//@ end
