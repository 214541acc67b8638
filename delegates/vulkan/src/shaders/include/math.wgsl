// Functions of floats in plain arithmetic, a few units in the last place from the truth on any driver. Those of WGSL are as exact as a driver likes.
// Each is built from few cores (power of two, logarithm, sine, arc tangent), because what a kernel calls is compiled each time it is called.
// Needs `numbers`.

fn not_a_number() -> f32 {
    return bitcast<f32>(0x7fc00000u);
}

fn infinity() -> f32 {
    return bitcast<f32>(0x7f800000u);
}

// 2^n for n from -126 to 127.
fn power_of_two(n: i32) -> f32 {
    return bitcast<f32>(u32(n + 127) << 23u);
}

// The leading 12 bits: products of two such numbers are exact.
fn leading(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) & 0xfffff000u);
}

// 2^k (2^n e^r - less), for r within ln 2 / 2 of 0 and `less` 0 or 1. Exact where it cancels.
fn exp_core(n: f32, r: f32, k: i32, less: f32) -> f32 {
    let tail = 0.5 + r * (0.16666667 + r * (0.041666668 + r * (0.008333334 + r * (0.0013888889 + r * 0.0001984127))));
    let p = r + r * r * tail;
    let whole = i32(n) + k;
    let half = whole >> 1u;
    let plain = (1.0 + p) * power_of_two(half) * power_of_two(whole - half);
    let scale = power_of_two(clamp(whole, -100, 100));
    let lessened = scale * p + (scale - power_of_two(k));
    return select(plain, lessened, less != 0.0 && n < 60.0);
}

// 2^k (e^(x + low) - less); `low` is what rounding x lost.
fn exp_parts(x: f32, low: f32, k: i32, less: f32) -> f32 {
    let held = clamp(x, -150.0, 100.0);
    let n = round(held * 1.442695);
    let r = ((held - n * 0.69314575) - n * 1.4286068e-6) + low;
    return select(exp_core(n, r, k, less), x, is_nan(x));
}

// e^x
fn m_exp(x: f32) -> f32 {
    return exp_parts(x, 0.0, 0, 0.0);
}

// x as m 2^e with m from the root of a half to that of 2: e and m - 1.
fn log_split(x: f32) -> vec2<f32> {
    let small = bitcast<u32>(x) < 0x00800000u;
    // Those below the normal ones are integers times 2^-149.
    let bits = bitcast<u32>(select(x, f32(bitcast<u32>(x)), small));
    let over = bitcast<i32>(bits) - 0x3f3504f3;
    let m = bitcast<f32>((over & 0x7fffff) + 0x3f3504f3);
    return vec2<f32>(f32(over >> 23u) - select(0.0, 149.0, small), m - 1.0);
}

// ln(1 + f), for f from -0.3 to 0.42.
fn log_core(f: f32) -> f32 {
    let s = f / (2.0 + f);
    let z = s * s;
    let tail = z * (0.6666667 + z * (0.4 + z * (0.2857143 + z * (0.22222222 + z * 0.18181819))));
    // 2 s + s tail, where 2 s is f - s f.
    return f - s * (f - tail);
}

// What a logarithm is where its argument is no positive number.
fn log_checked(value: f32, x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let magnitude = bits & 0x7fffffffu;
    let above = select(value, x, magnitude == 0x7f800000u);
    let signed = select(above, not_a_number(), bits > 0x7fffffffu);
    return select(select(signed, -infinity(), magnitude == 0u), x, magnitude > 0x7f800000u);
}

fn log_sum(e: f32, l: f32) -> f32 {
    return e * 0.69314575 + (e * 1.4286068e-6 + l);
}

// The natural logarithm.
fn m_log(x: f32) -> f32 {
    let parts = log_split(x);
    return log_checked(log_sum(parts.x, log_core(parts.y)), x);
}

// 2 / pi in words of 32 bits, from 32 bits before the point on. (Drivers that compute in lanes pay for branches, here and below.)
fn two_over_pi(i: u32) -> u32 {
    let first = select(select(select(0u, 0xa2f9836eu, i == 1u), 0x4e441529u, i == 2u), 0xfc2757d1u, i == 3u);
    let second = select(select(select(first, 0xf534ddc0u, i == 4u), 0xdb629599u, i == 5u), 0x3c439041u, i == 6u);
    return select(second, 0xfe5163abu, i == 7u);
}

// The product of two words: low, high.
fn wide_product(x: u32, y: u32) -> vec2<u32> {
    let xl = x & 0xffffu;
    let xh = x >> 16u;
    let yl = y & 0xffffu;
    let yh = y >> 16u;
    let ll = xl * yl;
    let middle = xh * yl + (ll >> 16u);
    let cross = xl * yh + (middle & 0xffffu);
    return vec2<u32>(x * y, xh * yh + (middle >> 16u) + (cross >> 16u));
}

// a >= 0 modulo pi / 2, from -pi/4 to pi/4, and the number of quarter turns, modulo 4.
fn quarter_turns(a: f32) -> vec2<f32> {
    let n = round(min(a, 2000.0) * 0.63661975);
    let near = ((a - n * 1.5703125) - n * 0.0004837513) - n * 7.54979e-8;
    // a is an integer times 2^exponent. Bits of 2/pi that make multiples of four turns are left out; 96 that follow decide.
    let bits = bitcast<u32>(max(a, 1.0));
    let integer = (bits & 0x7fffffu) | 0x800000u;
    let first = max(bits >> 23u, 120u) - 120u;
    let at = first >> 5u;
    let shift = first & 31u;
    let back = (32u - shift) & 31u;
    let keep = select(0xffffffffu, 0u, shift == 0u);
    let t0 = two_over_pi(at);
    let t1 = two_over_pi(at + 1u);
    let t2 = two_over_pi(at + 2u);
    let t3 = two_over_pi(at + 3u);
    let w0 = (t0 << shift) | ((t1 >> back) & keep);
    let w1 = (t1 << shift) | ((t2 >> back) & keep);
    let w2 = (t2 << shift) | ((t3 >> back) & keep);
    let p1 = wide_product(integer, w1);
    let p2 = wide_product(integer, w2);
    let middle = p1.x + p2.y;
    let top = integer * w0 + p1.y + select(0u, 1u, middle < p1.x);
    let flip = 0u - ((top >> 29u) & 1u);
    let high = ((top << 2u) | (middle >> 30u)) ^ flip;
    let low = ((middle << 2u) | (p2.x >> 30u)) ^ flip;
    let turns = (top >> 30u) - flip;
    let lead = min(countLeadingZeros(high), 31u);
    let part = (high << lead) | ((low >> 1u) >> (31u - lead));
    let far = f32(part) * power_of_two(-32 - i32(lead)) * 1.5707964;
    let signed = select(far, -far, flip != 0u);
    return select(vec2<f32>(signed, f32(turns & 3u)), vec2<f32>(near, f32(u32(n) & 3u)), a < 2000.0);
}

// Sine and cosine.
fn m_sin_cos(x: f32) -> vec2<f32> {
    let bits = bitcast<u32>(x);
    let reduced = quarter_turns(abs(x));
    let r = reduced.x;
    let turns = u32(reduced.y);
    let z = r * r;
    let s = r + r * z * (-0.16666667 + z * (0.008333334 + z * (-0.0001984127 + z * 2.7557319e-6)));
    let c = 1.0 - 0.5 * z + z * z * (0.041666668 + z * (-0.0013888889 + z * (2.4801588e-5 - z * 2.7557319e-7)));
    let both = select(vec2<f32>(s, c), vec2<f32>(c, s), (turns & 1u) == 1u);
    // The sine is negative in the second half of the turn and for negative x, the cosine in the second and third quarter.
    let sine = bitcast<u32>(both.x) ^ ((turns << 30u) & 0x80000000u) ^ (bits & 0x80000000u);
    let cosine = bitcast<u32>(both.y) ^ (((turns + 1u) << 30u) & 0x80000000u);
    let endless = (bits & 0x7f800000u) == 0x7f800000u;
    return select(vec2<f32>(bitcast<f32>(sine), bitcast<f32>(cosine)), vec2<f32>(not_a_number()), endless);
}

// The angle from 0 to pi/2 whose tangent is y / x, both of them not negative.
fn atan_core(y: f32, x: f32) -> f32 {
    let high = max(x, y);
    let low = min(x, y);
    var t = select(low / high, 0.0, high == 0.0);
    t = select(t, select(0.0, 1.0, low == high), high == infinity());
    let far = t > 0.41421357;
    t = select(t, (t - 1.0) / (t + 1.0), far);
    let z = t * t;
    let tail = z * (-0.33333332 + z * (0.19999559 + z * (-0.14264498 + z * (0.1074876 - z * 0.06466507))));
    let angle = select(0.0, 0.7853982, far) + (t + t * tail);
    return select(angle, 1.5707964 - angle, y > x);
}

// The angle of the point (x, y), from -pi to pi.
fn m_atan2(y: f32, x: f32) -> f32 {
    let angle = atan_core(abs(y), abs(x));
    let turned = select(angle, 3.1415927 - angle, bitcast<u32>(x) > 0x7fffffffu);
    let signed = bitcast<f32>(bitcast<u32>(turned) | (bitcast<u32>(y) & 0x80000000u));
    return select(select(signed, x, is_nan(x)), y, is_nan(y));
}

// erf(x) for |x| up to 1.
fn erf_near(x: f32) -> f32 {
    let z = x * x;
    return x * (1.1283792 + z * (-0.37612626 + z * (0.11283585
        + z * (-0.026853811 + z * (0.005188327 + z * (-0.0008010187 + z * 7.85384e-5))))));
}

// erfc(a) / e^(-a a), for a from 0.9 to 10.2.
fn erfc_far(a: f32) -> f32 {
    let t = 1.0 / (1.0 + a);
    return t * (0.56417662 + t * (0.56469735 + t * (0.27402135 + t * (-0.21585491
        + t * (-0.98880965 + t * (0.29691612 + t * (2.8353514 + t * (-4.0393885 + t * 1.7653016))))))));
}

// What is left of x by y, exactly, with the sign of x.
fn m_fmod(x: f32, y: f32) -> f32 {
    let xb = bitcast<u32>(x) & 0x7fffffffu;
    let yb = bitcast<u32>(y) & 0x7fffffffu;
    let bad = xb >= 0x7f800000u || yb > 0x7f800000u || yb == 0u;
    let less = xb < yb;
    let xe = max(xb >> 23u, 1u);
    let ye = max(yb >> 23u, 1u);
    let ym = (yb & 0x7fffffu) | select(0u, 0x800000u, yb >= 0x800000u);
    var m = (xb & 0x7fffffu) | select(0u, 0x800000u, xb >= 0x800000u);
    for (var e = select(xe, 0u, bad || less); e > ye; e--) {
        m = select(m, m - ym, m >= ym) << 1u;
    }
    m = select(m, m - ym, m >= ym);
    // m 2^(ye - 150), in two steps so that neither factor is out of range.
    let step = select(64, -64, ye > 100u);
    let rest = f32(m) * power_of_two(clamp(i32(ye) - 150 + step, -126, 127)) * power_of_two(-step);
    let signed = bitcast<f32>(bitcast<u32>(rest) | (bitcast<u32>(x) & 0x80000000u));
    return select(select(signed, x, less), not_a_number(), bad);
}
