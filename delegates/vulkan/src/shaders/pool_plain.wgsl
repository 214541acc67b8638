// Pooling of up to three dimensions of row-major tensors of any type. An invocation makes one word of the output, and the places of its elements.
//@ workgroup 64
//@ include index
//@ include numbers
//@ include windows
//@ buffer x read array<u32>
//@ buffer out write array<u32>
//@ buffer places write array<u32>
// params: 0 words, 1 elements, 2 code, 3 0 for the largest or 1 for the mean, 4 divisor, 5 1 to count the padding, 6 the least number (bits),
// 7 1 to write places (i64); 8 to 14, 15 to 21 and 22 to 28: `include/windows.wgsl`.

// The bits of an output element.
fn element(i: u32) -> u32 {
    let code = params[2];
    let is_float = code <= BF16;
    let is_mean = params[3] == 1u;
    var rest = i;
    let across = window(rest % params[23], 22u);
    rest /= params[23];
    let down = window(rest % params[16], 15u);
    rest /= params[16];
    let deep = window(rest % params[9], 8u);
    let plane = rest / params[9];
    var sum = 0.0;
    var best = bitcast<f32>(params[6]);
    var best_int = bitcast<i32>(params[6]);
    var place = 0u;
    var seen = false;
    for (var kz = 0u; kz < deep.count; kz++) {
        let z = deep.start + kz * deep.step;
        if z >= params[8] { continue; }
        for (var ky = 0u; ky < down.count; ky++) {
            let y = down.start + ky * down.step;
            if y >= params[15] { continue; }
            for (var kx = 0u; kx < across.count; kx++) {
                let t = across.start + kx * across.step;
                if t >= params[22] { continue; }
                let here = (z * params[15] + y) * params[22] + t;
                let at = plane * params[8] * params[15] * params[22] + here;
                let word = x[word_of(at, code)];
                var better = !seen;
                if is_float {
                    let v = float_from(word, at, code);
                    sum += v;
                    better = better || v > best || is_nan(v);
                    best = select(best, v, better);
                } else {
                    let v = int_from(word, at, code);
                    better = better || v > best_int;
                    best_int = select(best_int, v, better);
                }
                place = select(place, here, better);
                seen = true;
            }
        }
    }
    if params[7] != 0u {
        places[2u * i] = place;
        places[2u * i + 1u] = 0u;
    }
    if !is_float { return bits_of_int(best_int, code); }
    if is_mean {
        best = sum / divisor(deep.inside * down.inside * across.inside, deep.padded * down.padded * across.padded);
    }
    return bits_of_float(best, code);
}

@compute @workgroup_size(WX)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let i = linear(id, groups);
    if i >= params[0] { return; }
    let shift = lanes_shift(params[2]);
    var word = 0u;
    for (var lane = 0u; lane < (1u << shift); lane++) {
        let j = (i << shift) + lane;
        if j < params[1] { word |= element(j) << (lane * (32u >> shift)); }
    }
    out[i] = word;
}
