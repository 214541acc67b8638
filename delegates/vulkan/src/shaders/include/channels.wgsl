// Four channels at once, for kernels on tensors that lie channels last. The shader has `variant` lines with T (f32 or f16) and V, the type of
// four elements: vec4<f32> or vec2<u32>.
//@ include numbers
//@ if T=f32
fn unpack4(v: vec4<f32>) -> vec4<f32> { return v; }
fn pack4(v: vec4<f32>) -> vec4<f32> { return v; }
//@ end
//@ if T=f16
fn unpack4(v: vec2<u32>) -> vec4<f32> { return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y)); }
fn pack4(v: vec4<f32>) -> vec2<u32> {
    return vec2<u32>(f16_bits(v.x) | (f16_bits(v.y) << 16u), f16_bits(v.z) | (f16_bits(v.w) << 16u));
}
//@ end

// Zero in the places of channels from `channels` on; `c` is the first of the four.
fn only4(v: vec4<f32>, c: u32, channels: u32) -> vec4<f32> {
    let places = vec4<u32>(c) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(0.0), v, places < vec4<u32>(channels));
}
