//! Layers on bytes: linear, convolution and depthwise convolution with weights of 8 bits, a scale for each channel.
//!
//! Products are summed in exact integers. What becomes of a sum is [`Stage`]'s:
//!
//! ```text
//! real = float(acc) * multiplier[c] + bias[c]          a float bias, or none
//! real = float(acc + bias[c]) * multiplier[c]          an integer bias, at the scale of the products
//! q    = clamp(round(activation(real) * inverse) + zero)
//! ```
//!
//! with `multiplier[c] = input scale * weight scale[c]`, rounded to a float, and `inverse` from [`inverse`]. Each step is rounded by itself: `float(acc)` (exact
//! below 2^24), the product, the sum with the bias, the product with the inverse; then to the nearest, halves to even. It is quantize(layer(dequantize)) with the sum of the layer taken exactly.
//! Results are the same bits on every machine.

mod conv;
mod depthwise;
mod direct;
mod elements;
mod gemm;
mod linear;
mod pack;
mod scalar;
mod stage;
mod windows;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod columns;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod taps;
#[cfg(target_arch = "x86_64")]
mod vnni;
#[cfg(target_arch = "x86_64")]
mod wide;
#[cfg(target_arch = "x86_64")]
mod winograd;

#[cfg(test)]
mod tests;

pub use conv::{Conv, conv2d, conv2d_by_winograd, conv2d_scratch_len, pack_conv2d};
pub use depthwise::{depthwise_packed_len, depthwise2d, pack_depthwise};
pub use elements::{FEW, Pair, Rows, Scaled, map, mean, pair, quantize, quantize_last, table};
pub use linear::{linear, linear_dynamic, linear_dynamic_scratch_len, linear_scratch_len};
pub use pack::{Shape, Weights, pack};
pub use stage::{Bias, Grid, Stage, Target, inverse};
pub use windows::{average, largest};

/// Bytes that stand for `(q - zero) * scale`.
#[derive(Debug, Clone, Copy)]
pub enum Bytes<'a> {
    /// Signed, with a zero point in -128..=127.
    I8(&'a [i8], i32),
    /// Unsigned, with a zero point in 0..=255.
    U8(&'a [u8], i32),
}

impl Bytes<'_> {
    fn len(&self) -> usize {
        match self {
            Bytes::I8(bytes, _) => bytes.len(),
            Bytes::U8(bytes, _) => bytes.len(),
        }
    }

    fn pointer(&self) -> *const u8 {
        match self {
            Bytes::I8(bytes, _) => bytes.as_ptr().cast(),
            Bytes::U8(bytes, _) => bytes.as_ptr(),
        }
    }

    fn zero(&self) -> i32 {
        match self {
            Bytes::I8(_, zero) | Bytes::U8(_, zero) => *zero,
        }
    }

    fn signed(&self) -> bool {
        matches!(self, Bytes::I8(..))
    }
}
