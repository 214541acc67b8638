// exp(x) for x of at most 0; NaN stays, what is below the normal numbers is 0. Plain arithmetic: drivers differ in theirs.
fn exp_below(x: f32) -> f32 {
    if !(x > -87.3) { return select(0.0, x, (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u); }
    let n = round(x * 1.44269504);
    // ln 2 in two parts: the first has few digits, so that its product with n is exact.
    let r = (x - n * 0.693145752) - n * 1.42860677e-6;
    var p = 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    return p * bitcast<f32>(u32(i32(n) + 127) << 23u);
}
