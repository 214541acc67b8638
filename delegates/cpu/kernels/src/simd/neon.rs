//! aarch64: four lanes.

use super::{Op, Simd};
use crate::Isa;
use core::arch::aarch64::*;
use core::arch::asm;

/// Proof that this machine has it, as all of its kind have.
#[derive(Debug, Clone, Copy)]
pub struct Neon(());

impl Neon {
    /// The proof.
    #[allow(clippy::new_without_default, reason = "nothing is made: it is a proof")]
    pub fn new() -> Neon {
        Neon(())
    }
}

/// Halves as floats. The intrinsics of halves are not stable; every aarch64 has the instruction.
///
/// # Safety
/// The machine is an aarch64 with vectors.
#[inline(always)]
unsafe fn widened(x: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: it reads one register and writes another.
    unsafe {
        asm!("fcvtl {wide:v}.4s, {x:v}.4h", wide = out(vreg) wide, x = in(vreg) x, options(pure, nomem, nostack, preserves_flags));
    }
    wide
}

/// Floats as halves, rounded to the nearest.
///
/// # Safety
/// As [`widened`].
#[inline(always)]
unsafe fn narrowed(x: float32x4_t) -> uint16x4_t {
    let narrow: uint16x4_t;
    // SAFETY: as above.
    unsafe {
        asm!("fcvtn {narrow:v}.4h, {x:v}.4s", narrow = out(vreg) narrow, x = in(vreg) x, options(pure, nomem, nostack, preserves_flags));
    }
    narrow
}

// SAFETY of all `unsafe` in here: every aarch64 that this is compiled for has these instructions, and pointers are good for the lanes that are read
// or written, as the trait says.
impl Simd for Neon {
    const LANES: usize = 4;
    const REGISTERS: usize = 32;
    const ISA: Isa = Isa::Neon;
    type F = float32x4_t;
    type I = int32x4_t;
    type M = uint32x4_t;

    #[inline(always)]
    fn vectorize<O: Op>(self, op: O) -> O::Output {
        // Vectors belong to the target: there is nothing to enable.
        op.run(self)
    }

    #[inline(always)]
    fn outline<O: Op>(self, op: O) -> O::Output {
        // Vectors belong to the target: there is nothing to enable.
        #[inline(never)]
        fn inner<O: Op>(s: Neon, op: O) -> O::Output {
            op.run(s)
        }
        inner(self, op)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: see above.
        unsafe { vdupq_n_f32(x) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        // SAFETY: see above.
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: Self::F) {
        // SAFETY: see above.
        unsafe { vst1q_f32(to, x) }
    }

    #[inline(always)]
    unsafe fn load_part(self, from: *const f32, n: usize) -> Self::F {
        // SAFETY: see above.
        unsafe {
            let mut lanes = [0.0; 4];
            core::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), n.min(4));
            vld1q_f32(lanes.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, x: Self::F, n: usize) {
        // SAFETY: see above.
        unsafe {
            let mut lanes = [0.0; 4];
            vst1q_f32(lanes.as_mut_ptr(), x);
            core::ptr::copy_nonoverlapping(lanes.as_ptr(), to, n.min(4))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Self::F {
        // SAFETY: see above.
        unsafe { widened(vld1_u16(from)) }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16, x: Self::F) {
        // SAFETY: see above.
        unsafe { vst1_u16(to, narrowed(x)) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::F {
        // SAFETY: see above.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from))) }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16, x: Self::F) {
        // SAFETY: see above.
        unsafe {
            let bits = vreinterpretq_u32_f32(x);
            let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
            let rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
            // A NaN keeps its upper half and stays one.
            let quiet = vorrq_u32(bits, vdupq_n_u32(0x0040_0000));
            let all = vbslq_u32(vceqq_f32(x, x), rounded, quiet);
            vst1_u16(to, vshrn_n_u32::<16>(all))
        }
    }

    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> Self::I {
        // SAFETY: see above.
        unsafe {
            let word = from.cast::<u32>().read_unaligned();
            vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(word)))))
        }
    }

    #[inline(always)]
    unsafe fn load_u8(self, from: *const u8) -> Self::I {
        // SAFETY: see above.
        unsafe {
            let word = from.cast::<u32>().read_unaligned();
            vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word))))))
        }
    }

    #[inline(always)]
    unsafe fn store_u8(self, to: *mut u8, x: Self::I) {
        // SAFETY: see above.
        unsafe {
            let words = vmovn_u32(vreinterpretq_u32_s32(x));
            let bytes = vmovn_u16(vcombine_u16(words, words));
            to.cast::<u32>()
                .write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)))
        }
    }

    #[inline(always)]
    unsafe fn load_i(self, from: *const i32) -> Self::I {
        // SAFETY: see above.
        unsafe { vld1q_s32(from) }
    }

    #[inline(always)]
    unsafe fn store_i(self, to: *mut i32, x: Self::I) {
        // SAFETY: see above.
        unsafe { vst1q_s32(to, x) }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        // SAFETY: see above.
        unsafe {
            let row = |row: usize| vld1q_f32(from.add(row * from_stride));
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let wide = |x: float32x4_t| vreinterpretq_f64_f32(x);
            let (ab_even, ab_odd) = (wide(vtrn1q_f32(a, b)), wide(vtrn2q_f32(a, b)));
            let (cd_even, cd_odd) = (wide(vtrn1q_f32(c, d)), wide(vtrn2q_f32(c, d)));
            let put = |at: usize, x: float64x2_t| vst1q_f32(to.add(at * to_stride), vreinterpretq_f32_f64(x));
            put(0, vtrn1q_f64(ab_even, cd_even));
            put(1, vtrn1q_f64(ab_odd, cd_odd));
            put(2, vtrn2q_f64(ab_even, cd_even));
            put(3, vtrn2q_f64(ab_odd, cd_odd));
        }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: see above.
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: see above.
        unsafe { vsubq_f32(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: see above.
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: see above.
        unsafe { vdivq_f32(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: see above.
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn min(self, x: Self::F, bound: Self::F) -> Self::F {
        // SAFETY: see above.
        unsafe { vbslq_f32(vcltq_f32(bound, x), bound, x) }
    }

    #[inline(always)]
    fn max(self, x: Self::F, bound: Self::F) -> Self::F {
        // SAFETY: see above.
        unsafe { vbslq_f32(vcgtq_f32(bound, x), bound, x) }
    }

    #[inline(always)]
    fn abs(self, x: Self::F) -> Self::F {
        // SAFETY: see above.
        unsafe { vabsq_f32(x) }
    }

    #[inline(always)]
    fn sqrt(self, x: Self::F) -> Self::F {
        // SAFETY: see above.
        unsafe { vsqrtq_f32(x) }
    }

    #[inline(always)]
    fn round(self, x: Self::F) -> Self::F {
        // SAFETY: see above.
        unsafe { vrndnq_f32(x) }
    }

    #[inline(always)]
    fn floor(self, x: Self::F) -> Self::F {
        // SAFETY: see above.
        unsafe { vrndmq_f32(x) }
    }

    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: see above.
        unsafe { vcltq_f32(a, b) }
    }

    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: see above.
        unsafe { vceqq_f32(a, b) }
    }

    #[inline(always)]
    fn select(self, mask: Self::M, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: see above.
        unsafe { vbslq_f32(mask, a, b) }
    }

    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        // SAFETY: see above.
        unsafe { vaddvq_f32(x) }
    }

    #[inline(always)]
    fn largest(self, x: Self::F) -> f32 {
        // SAFETY: see above.
        unsafe { vmaxnmvq_f32(x) }
    }

    #[inline(always)]
    fn to_i(self, x: Self::F) -> Self::I {
        // SAFETY: see above.
        unsafe { vcvtnq_s32_f32(x) }
    }

    #[inline(always)]
    fn to_f(self, x: Self::I) -> Self::F {
        // SAFETY: see above.
        unsafe { vcvtq_f32_s32(x) }
    }

    #[inline(always)]
    fn bits(self, x: Self::F) -> Self::I {
        // SAFETY: see above.
        unsafe { vreinterpretq_s32_f32(x) }
    }

    #[inline(always)]
    fn of_bits(self, x: Self::I) -> Self::F {
        // SAFETY: see above.
        unsafe { vreinterpretq_f32_s32(x) }
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        // SAFETY: see above.
        unsafe { vdupq_n_s32(x) }
    }

    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: see above.
        unsafe { vaddq_s32(a, b) }
    }

    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: see above.
        unsafe { vsubq_s32(a, b) }
    }

    #[inline(always)]
    fn mul_i(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: see above.
        unsafe { vmulq_s32(a, b) }
    }

    #[inline(always)]
    fn min_i(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: see above.
        unsafe { vminq_s32(a, b) }
    }

    #[inline(always)]
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: see above.
        unsafe { vmaxq_s32(a, b) }
    }

    #[inline(always)]
    fn and_i(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: see above.
        unsafe { vandq_s32(a, b) }
    }

    #[inline(always)]
    fn or_i(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: see above.
        unsafe { vorrq_s32(a, b) }
    }

    #[inline(always)]
    fn shl_i<const N: i32>(self, x: Self::I) -> Self::I {
        // SAFETY: see above.
        unsafe { vshlq_s32(x, vdupq_n_s32(N)) }
    }

    #[inline(always)]
    fn shr_i<const N: i32>(self, x: Self::I) -> Self::I {
        // SAFETY: see above.
        unsafe { vshlq_s32(x, vdupq_n_s32(-N)) }
    }
}
