// Powers. Needs `math`.

// log2 of m 2^e in two floats, whose sum has 30 bits: the parts are what `log_split` gives.
fn log2_pair(parts: vec2<f32>) -> vec2<f32> {
    let f = parts.y;
    let s = f / (2.0 + f);
    let z = s * s;
    let sh = leading(s);
    let gh = leading(2.0 + f);
    let gl = f - (gh - 2.0);
    let sl = ((f - sh * gh) - sh * gl) / (2.0 + f);
    let tail = 2.0 * sl + s * z * (0.6666667 + z * (0.4 + z * (0.2857143 + z * (0.22222222 + z * 0.18181819))));
    // log2(e) is 1.4423828125 and the rest.
    let product = 2.0 * sh * 1.4423828;
    let sum = parts.x + product;
    let lost = product - (sum - parts.x);
    let low = lost + (2.0 * sh * 0.00031222839 + tail * 1.442695);
    let high = sum + low;
    return vec2<f32>(high, low - (high - sum));
}

// y times the logarithm: the integer nearest to it, and the rest.
fn power_exponent(x: f32, y: f32) -> vec2<f32> {
    let pair = log2_pair(log_split(abs(x)));
    let rough = pair.x * y;
    let h = leading(pair.x);
    let l = (pair.x - h) + pair.y;
    let yh = leading(y);
    let product = yh * h;
    let low = y * l + (y - yh) * h;
    let n = round(product + low);
    let beyond = vec2<f32>(select(-240.0, 240.0, rough > 0.0), 0.0);
    return select(beyond, vec2<f32>(n, (product - n) + low), abs(rough) < 240.0);
}

// x to the power y, where `magnitude` is 2 to the power `power_exponent(x, y)`.
fn power_checked(magnitude: f32, x: f32, y: f32) -> f32 {
    let a = abs(x);
    let whole = abs(y) >= 8388608.0 || floor(y) == y;
    let odd = whole && abs(y) < 16777216.0 && floor(y * 0.5) != y * 0.5;
    let negative = bitcast<u32>(x) > 0x7fffffffu;
    let is_zero = bitcast<u32>(a) == 0u;
    let at_end = is_zero || a == infinity();
    let positive = select(select(magnitude, 1.0, a == 1.0), select(0.0, infinity(), is_zero == (y < 0.0)), at_end);
    let signed = select(positive, -positive, negative && odd);
    let bad = is_nan(x) || is_nan(y) || (negative && !whole && !at_end);
    return select(select(signed, not_a_number(), bad), 1.0, y == 0.0 || x == 1.0);
}
