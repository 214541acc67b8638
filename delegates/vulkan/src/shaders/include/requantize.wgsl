// The integer that stands for a number: params 37: 1 / scale (bits), zero point, least and greatest integer. Halves go to even.
fn requantized(x: f32) -> i32 {
    let steps = round(x * bitcast<f32>(params[37])) + f32(bitcast<i32>(params[38]));
    return i32(clamp(steps, f32(bitcast<i32>(params[39])), f32(bitcast<i32>(params[40]))));
}
