// The end of a convolution of bytes: four sums of products become four integers of the result, in one word.
// params 26: bias (0 none, 1 integers of the scale of the products, 2 floats), its code, code of the result, 1 for a bias a channel;
// 31: scale of the input (bits); 33 to 36 as `include scales` says, 37 to 40 as `include requantize` says, 43 what to add to the weights' zero points.
// Needs `include numbers`, `include double`, `include scales`, `include requantize` and the buffer `bias` (array<u32>).

// The zero points of four outputs.
fn zeros4(c: u32, channels: u32) -> vec4<i32> {
    var zero = vec4<i32>(bitcast<i32>(params[43]));
    for (var k = 0u; k < 4u; k++) {
        if c + k < channels { zero[k] += i32(zero_of(c + k, 0u)); }
    }
    return zero;
}

fn result4(sum: vec4<i32>, c: u32, channels: u32) -> u32 {
    var sums = sum;
    var word = 0u;
    for (var k = 0u; k < 4u; k++) {
        let o = c + k;
        if o >= channels { break; }
        var whole = sums[k];
        let b = o * params[29];
        if params[26] == 1u { whole += bitcast<i32>(bias[b]); }
        var y = f32(whole) * (bitcast<f32>(params[31]) * scale_of(o, 0u));
        if params[26] == 2u { y += float_from(bias[word_of(b, params[27])], b, params[27]); }
        word |= bits_of_int(requantized(y), params[28]) << (8u * k);
    }
    return word;
}
