//! Four lanes by hand: what every machine runs, and what the others are compared with.

use super::{Op, Simd};
use crate::Isa;
use half::{bf16, f16};

/// No instruction set.
#[derive(Debug, Clone, Copy)]
pub struct Scalar;

const N: usize = 4;

#[inline(always)]
fn map<A: Copy, R>(a: [A; N], f: impl Fn(A) -> R) -> [R; N] {
    [f(a[0]), f(a[1]), f(a[2]), f(a[3])]
}

#[inline(always)]
fn zip<A: Copy, B: Copy, R>(a: [A; N], b: [B; N], f: impl Fn(A, B) -> R) -> [R; N] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

// SAFETY of all `unsafe` in here: the pointers are good for the lanes that are read or written, as the trait says.
impl Simd for Scalar {
    const LANES: usize = N;
    const REGISTERS: usize = 16;
    const ISA: Isa = Isa::Scalar;
    type F = [f32; N];
    type I = [i32; N];
    type M = [bool; N];

    #[inline(always)]
    fn vectorize<O: Op>(self, op: O) -> O::Output {
        op.run(self)
    }

    #[inline(always)]
    fn outline<O: Op>(self, op: O) -> O::Output {
        #[inline(never)]
        fn inner<O: Op>(s: Scalar, op: O) -> O::Output {
            op.run(s)
        }
        inner(self, op)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; N]
    }
    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F {
        // SAFETY: see above.
        unsafe { from.cast::<Self::F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32, x: Self::F) {
        // SAFETY: see above.
        unsafe { to.cast::<Self::F>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn load_part(self, from: *const f32, n: usize) -> Self::F {
        let mut all = [0.0; N];
        for (i, lane) in all.iter_mut().enumerate().take(n) {
            // SAFETY: see above.
            *lane = unsafe { from.add(i).read_unaligned() };
        }
        all
    }
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, x: Self::F, n: usize) {
        for (i, lane) in x.iter().enumerate().take(n) {
            // SAFETY: see above.
            unsafe { to.add(i).write_unaligned(*lane) };
        }
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Self::F {
        // SAFETY: see above.
        map(unsafe { from.cast::<[u16; N]>().read_unaligned() }, |h| {
            f16::from_bits(h).to_f32()
        })
    }
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16, x: Self::F) {
        let halves = map(x, |x| f16::from_f32(x).to_bits());
        // SAFETY: see above.
        unsafe { to.cast::<[u16; N]>().write_unaligned(halves) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::F {
        // SAFETY: see above.
        map(unsafe { from.cast::<[u16; N]>().read_unaligned() }, |h| {
            f32::from_bits(u32::from(h) << 16)
        })
    }
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut u16, x: Self::F) {
        let halves = map(x, |x| bf16::from_f32(x).to_bits());
        // SAFETY: see above.
        unsafe { to.cast::<[u16; N]>().write_unaligned(halves) }
    }
    #[inline(always)]
    unsafe fn load_i8(self, from: *const i8) -> Self::I {
        // SAFETY: see above.
        map(unsafe { from.cast::<[i8; N]>().read_unaligned() }, i32::from)
    }
    #[inline(always)]
    unsafe fn load_u8(self, from: *const u8) -> Self::I {
        // SAFETY: see above.
        map(unsafe { from.cast::<[u8; N]>().read_unaligned() }, i32::from)
    }
    #[inline(always)]
    unsafe fn store_u8(self, to: *mut u8, x: Self::I) {
        // SAFETY: see above.
        unsafe { to.cast::<[u8; N]>().write_unaligned(map(x, |x| x as u8)) }
    }
    #[inline(always)]
    unsafe fn load_i(self, from: *const i32) -> Self::I {
        // SAFETY: see above.
        unsafe { from.cast::<Self::I>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_i(self, to: *mut i32, x: Self::I) {
        // SAFETY: see above.
        unsafe { to.cast::<Self::I>().write_unaligned(x) }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // Twice rounded: a call of the C library for each would be some fifty times slower.
        zip(zip(a, b, |a, b| a * b), c, |ab, c| ab + c)
    }
    #[inline(always)]
    fn min(self, x: Self::F, bound: Self::F) -> Self::F {
        zip(x, bound, |x, bound| if bound < x { bound } else { x })
    }
    #[inline(always)]
    fn max(self, x: Self::F, bound: Self::F) -> Self::F {
        zip(x, bound, |x, bound| if bound > x { bound } else { x })
    }
    #[inline(always)]
    fn abs(self, x: Self::F) -> Self::F {
        map(x, f32::abs)
    }
    #[inline(always)]
    fn sqrt(self, x: Self::F) -> Self::F {
        map(x, f32::sqrt)
    }
    #[inline(always)]
    fn round(self, x: Self::F) -> Self::F {
        map(x, f32::round_ties_even)
    }
    #[inline(always)]
    fn floor(self, x: Self::F) -> Self::F {
        map(x, f32::floor)
    }
    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        zip(a, b, |a, b| a < b)
    }
    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        zip(a, b, |a, b| a == b)
    }
    #[inline(always)]
    fn select(self, mask: Self::M, a: Self::F, b: Self::F) -> Self::F {
        let chosen = zip(a, b, |a, b| (a, b));
        zip(mask, chosen, |mask, (a, b)| if mask { a } else { b })
    }
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        (x[0] + x[2]) + (x[1] + x[3])
    }
    #[inline(always)]
    fn largest(self, x: Self::F) -> f32 {
        x[0].max(x[2]).max(x[1].max(x[3]))
    }

    #[inline(always)]
    fn to_i(self, x: Self::F) -> Self::I {
        map(x, |x| x.round_ties_even() as i32)
    }
    #[inline(always)]
    fn to_f(self, x: Self::I) -> Self::F {
        map(x, |x| x as f32)
    }
    #[inline(always)]
    fn bits(self, x: Self::F) -> Self::I {
        map(x, |x| x.to_bits() as i32)
    }
    #[inline(always)]
    fn of_bits(self, x: Self::I) -> Self::F {
        map(x, |x| f32::from_bits(x as u32))
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> Self::I {
        [x; N]
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn mul_i(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::wrapping_mul)
    }
    #[inline(always)]
    fn min_i(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::min)
    }
    #[inline(always)]
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, i32::max)
    }
    #[inline(always)]
    fn and_i(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn or_i(self, a: Self::I, b: Self::I) -> Self::I {
        zip(a, b, |a, b| a | b)
    }
    #[inline(always)]
    fn shl_i<const S: i32>(self, x: Self::I) -> Self::I {
        map(x, |x| x << S)
    }
    #[inline(always)]
    fn shr_i<const S: i32>(self, x: Self::I) -> Self::I {
        map(x, |x| x >> S)
    }
}
