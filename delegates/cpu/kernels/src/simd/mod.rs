//! Lanes of an instruction set. A kernel is a type with [`Op::run`] over any [`Simd`]; [`dispatch`] compiles it for each and runs the best.
//!
//! A value of an instruction set's type proves that this machine has it: only `new` makes one. So its methods are safe but for those that take
//! pointers.

mod scalar;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub use neon::Neon;
pub use scalar::Scalar;

use crate::Isa;

/// Vectors of `f32` and `i32`.
///
/// Nearest-even rounding everywhere. `min` and `max` keep a NaN of their first operand.
#[allow(missing_docs, reason = "the names say what they do, lane by lane")]
#[allow(
    clippy::missing_safety_doc,
    reason = "`Safety` of the trait's methods is said once, below"
)]
pub trait Simd: Copy + Send + Sync + 'static {
    /// Lanes of 32 bits.
    const LANES: usize;
    /// Vectors of floats that a kernel may hold in registers.
    const REGISTERS: usize;
    /// Which one it is.
    const ISA: Isa;
    /// A kernel asks ahead for what it will read, as it was found to pay.
    const ASKS: bool = false;
    type F: Copy;
    type I: Copy;
    type M: Copy;

    /// Runs an operation with everything in it compiled for this instruction set.
    fn vectorize<O: Op>(self, op: O) -> O::Output;

    /// The same, always as a function of its own: for what is large and used in many places, or what has to have all registers to itself.
    fn outline<O: Op>(self, op: O) -> O::Output;

    fn splat(self, x: f32) -> Self::F;
    // SAFETY of these: `LANES` elements (in `_part`: the first `n`, at most `LANES`) may be read or written at the pointer, which may be unaligned.
    unsafe fn load(self, from: *const f32) -> Self::F;
    unsafe fn store(self, to: *mut f32, x: Self::F);
    /// Lanes from `n` on are 0.
    unsafe fn load_part(self, from: *const f32, n: usize) -> Self::F;
    unsafe fn store_part(self, to: *mut f32, x: Self::F, n: usize);
    /// Halves, widened.
    unsafe fn load_f16(self, from: *const u16) -> Self::F;
    unsafe fn store_f16(self, to: *mut u16, x: Self::F);
    unsafe fn load_bf16(self, from: *const u16) -> Self::F;
    unsafe fn store_bf16(self, to: *mut u16, x: Self::F);
    /// Bytes, widened to `i32`.
    unsafe fn load_i8(self, from: *const i8) -> Self::I;
    unsafe fn load_u8(self, from: *const u8) -> Self::I;
    /// The lowest byte of each lane.
    unsafe fn store_u8(self, to: *mut u8, x: Self::I);
    unsafe fn load_i(self, from: *const i32) -> Self::I;
    unsafe fn store_i(self, to: *mut i32, x: Self::I);

    /// Asks for what is at a place, which need not be there, and will soon be read or written.
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    /// The same of what will be read later: it comes no nearer than the second cache.
    #[inline(always)]
    fn prefetch_far(self, _: *const u8) {}

    /// Turns a square of `LANES` by `LANES` around: rows of it are `from_stride` elements apart, and of the turned one `to_stride`.
    #[inline(always)]
    unsafe fn transpose(self, from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
        for row in 0..Self::LANES {
            for column in 0..Self::LANES {
                // SAFETY: as the caller says.
                unsafe { *to.add(column * to_stride + row) = *from.add(row * from_stride + column) };
            }
        }
    }

    /// The lanes of `x` that `at` names, which are below `LANES`.
    #[inline(always)]
    fn pick(self, x: Self::F, at: Self::I) -> Self::F {
        let (mut lanes, mut places, mut picked) = ([0.0f32; 16], [0i32; 16], [0.0f32; 16]);
        // SAFETY: there are sixteen of each, and no vector has more lanes.
        unsafe {
            self.store(lanes.as_mut_ptr(), x);
            self.store_i(places.as_mut_ptr(), at);
            for (to, at) in picked.iter_mut().zip(places).take(Self::LANES) {
                *to = lanes[at as usize & (Self::LANES - 1)];
            }
            self.load(picked.as_ptr())
        }
    }

    /// The lanes of both by turns, the first half and the second.
    #[inline(always)]
    fn interleave(self, a: Self::F, b: Self::F) -> [Self::F; 2] {
        let mut lanes = [0.0f32; 32];
        let mut turns = [0.0f32; 32];
        // SAFETY: there is room for two vectors in each.
        unsafe {
            self.store(lanes.as_mut_ptr(), a);
            self.store(lanes.as_mut_ptr().add(Self::LANES), b);
            for at in 0..Self::LANES {
                turns[2 * at] = lanes[at];
                turns[2 * at + 1] = lanes[Self::LANES + at];
            }
            [self.load(turns.as_ptr()), self.load(turns.as_ptr().add(Self::LANES))]
        }
    }

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once where the machine can.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The smaller one; `x` where it is a NaN.
    fn min(self, x: Self::F, bound: Self::F) -> Self::F;
    /// The larger one; `x` where it is a NaN.
    fn max(self, x: Self::F, bound: Self::F) -> Self::F;
    fn abs(self, x: Self::F) -> Self::F;
    fn sqrt(self, x: Self::F) -> Self::F;
    /// To the nearest integer, halves to even.
    fn round(self, x: Self::F) -> Self::F;
    fn floor(self, x: Self::F) -> Self::F;
    fn lt(self, a: Self::F, b: Self::F) -> Self::M;
    fn eq(self, a: Self::F, b: Self::F) -> Self::M;
    /// `a` where the mask is set, else `b`.
    fn select(self, mask: Self::M, a: Self::F, b: Self::F) -> Self::F;
    /// Lane after lane, by halves.
    fn sum(self, x: Self::F) -> f32;
    /// Of numbers that are no NaN.
    fn largest(self, x: Self::F) -> f32;

    /// To the nearest integer, of numbers that fit.
    fn to_i(self, x: Self::F) -> Self::I;
    fn to_f(self, x: Self::I) -> Self::F;
    fn bits(self, x: Self::F) -> Self::I;
    fn of_bits(self, x: Self::I) -> Self::F;
    fn splat_i(self, x: i32) -> Self::I;
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn mul_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn min_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn max_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn and_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn or_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn shl_i<const N: i32>(self, x: Self::I) -> Self::I;
    /// With the sign.
    fn shr_i<const N: i32>(self, x: Self::I) -> Self::I;
}

/// An operation that is compiled for each instruction set.
pub trait Op {
    /// What it gives.
    type Output;

    /// Runs it. Write `#[inline(always)]`, or it is not compiled for the instruction set.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// Runs an operation on an instruction set, or on the scalar one where this machine has no such.
pub fn dispatch<O: Op>(isa: Isa, op: O) -> O::Output {
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx512
        && let Some(s) = Avx512::new()
    {
        return s.vectorize(op);
    }
    #[cfg(target_arch = "x86_64")]
    if isa >= Isa::Avx2
        && let Some(s) = Avx2::new()
    {
        return s.vectorize(op);
    }
    #[cfg(target_arch = "aarch64")]
    if isa == Isa::Neon {
        return Neon::new().vectorize(op);
    }
    let _ = isa;
    Scalar.vectorize(op)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every method that computes floats, over one vector.
    struct All<'a>(&'a [f32], &'a [f32]);

    impl Op for All<'_> {
        type Output = Vec<Vec<f32>>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let mut rows: Vec<Vec<f32>> = vec![Vec::new(); 22];
            for at in (0..self.0.len()).step_by(S::LANES) {
                // SAFETY: the lists are multiples of sixteen, and so of the lanes.
                let (a, b) = unsafe { (s.load(self.0.as_ptr().add(at)), s.load(self.1.as_ptr().add(at))) };
                let ints = s.add_i(s.shl_i::<3>(s.to_i(a)), s.shr_i::<1>(s.to_i(b)));
                let made = [
                    s.add(a, b),
                    s.sub(a, b),
                    s.mul(a, b),
                    s.div(a, b),
                    s.min(a, b),
                    s.max(a, b),
                    s.abs(a),
                    s.sqrt(s.abs(a)),
                    s.round(a),
                    s.floor(a),
                    s.select(s.lt(a, b), a, b),
                    s.select(s.eq(a, b), a, b),
                    s.to_f(ints),
                    s.to_f(s.mul_i(ints, s.splat_i(-7))),
                    s.to_f(s.min_i(ints, s.splat_i(5))),
                    s.to_f(s.max_i(ints, s.splat_i(5))),
                    s.to_f(s.and_i(ints, s.splat_i(0x5555))),
                    s.to_f(s.or_i(ints, s.splat_i(0x5555))),
                    s.of_bits(s.bits(a)),
                    s.to_f(s.sub_i(ints, s.splat_i(1000))),
                ];
                for (row, x) in rows.iter_mut().zip(made) {
                    let mut lanes = [0.0; 16];
                    // SAFETY: there are at least as many lanes.
                    unsafe { s.store(lanes.as_mut_ptr(), x) };
                    row.extend_from_slice(&lanes[..S::LANES]);
                }
                let (mut halves, mut brains) = ([0u16; 16], [0u16; 16]);
                // SAFETY: as above.
                unsafe {
                    s.store_f16(halves.as_mut_ptr(), a);
                    s.store_bf16(brains.as_mut_ptr(), a);
                    let mut lanes = [0.0; 16];
                    s.store(
                        lanes.as_mut_ptr(),
                        s.add(s.load_f16(halves.as_ptr()), s.load_bf16(brains.as_ptr())),
                    );
                    rows[20].extend_from_slice(&lanes[..S::LANES]);
                    let mut bytes = [0u8; 16];
                    s.store_u8(bytes.as_mut_ptr(), ints);
                    s.store(
                        lanes.as_mut_ptr(),
                        s.to_f(s.sub_i(s.load_u8(bytes.as_ptr()), s.load_i8(bytes.as_ptr().cast()))),
                    );
                    rows[21].extend_from_slice(&lanes[..S::LANES]);
                }
            }
            rows
        }
    }

    #[test]
    fn every_instruction_set_computes_the_same() {
        let special = [f32::NAN, f32::INFINITY, -0.0, 0.5, 1.5, 2.5, 1e-40, 65519.0];
        let number = |i: usize, step: usize| match special.get(i * step % 41) {
            Some(x) => *x,
            None => ((i * step % 997) as f32 - 500.0) / 7.0,
        };
        let a: Vec<f32> = (0..512).map(|i| number(i, 13)).collect();
        let b: Vec<f32> = (0..512).map(|i| number(i, 29)).collect();
        let want = dispatch(Isa::Scalar, All(&a, &b));
        for isa in Isa::all() {
            let have = dispatch(isa, All(&a, &b));
            for (row, (have, want)) in have.iter().zip(&want).enumerate() {
                for (i, (have, want)) in have.iter().zip(want).enumerate() {
                    // What is no number has no integer either: rows of integers are compared for finite numbers alone.
                    let skip =
                        (12..=21).contains(&row) && row != 18 && row != 20 && !(a[i].is_finite() && b[i].is_finite());
                    let same = have.to_bits() == want.to_bits() || (have.is_nan() && want.is_nan());
                    assert!(
                        same || skip,
                        "{isa}, row {row}, {} and {}: {have}, not {want}",
                        a[i],
                        b[i]
                    );
                }
            }
        }
    }

    struct Places;

    impl Op for Places {
        type Output = [Vec<f32>; 3];

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let numbers: Vec<f32> = (0..32).map(|i| i as f32).collect();
            let places: Vec<i32> = (0..16).map(|i| i * 5 % S::LANES as i32).collect();
            let mut out = [0, 1, 2].map(|_| vec![0.0; S::LANES]);
            // SAFETY: as many lanes are there.
            unsafe {
                let (a, b) = (s.load(numbers.as_ptr()), s.load(numbers.as_ptr().add(16)));
                s.store(out[0].as_mut_ptr(), s.pick(a, s.load_i(places.as_ptr())));
                let [low, high] = s.interleave(a, b);
                s.store(out[1].as_mut_ptr(), low);
                s.store(out[2].as_mut_ptr(), high);
            }
            out
        }
    }

    #[test]
    fn lanes_change_places() {
        for isa in Isa::all() {
            let [picked, low, high] = dispatch(isa, Places);
            let lanes = picked.len();
            for at in 0..lanes {
                assert_eq!(picked[at], (at * 5 % lanes) as f32, "{isa}");
                let turn = |at: usize| (at / 2 + at % 2 * 16) as f32;
                assert_eq!((low[at], high[at]), (turn(at), turn(lanes + at)), "{isa}");
            }
        }
    }

    struct Parts<'a>(&'a [f32], usize);

    impl Op for Parts<'_> {
        type Output = (Vec<f32>, f32, f32);

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let n = self.1.min(S::LANES);
            let mut out = vec![7.0; S::LANES];
            // SAFETY: `n` elements are there.
            unsafe {
                let x = s.load_part(self.0.as_ptr(), n);
                s.store_part(out.as_mut_ptr(), s.add(x, x), n);
                (out, s.sum(x), s.largest(s.abs(x)))
            }
        }
    }

    #[test]
    fn parts_of_vectors_are_read_and_written() {
        for isa in Isa::all() {
            for n in 0..=16 {
                let numbers: Vec<f32> = (1..=n).map(|i| i as f32).collect();
                let (out, sum, largest) = dispatch(isa, Parts(&numbers, n));
                let n = n.min(out.len());
                assert!((0..n).all(|i| out[i] == 2.0 * numbers[i]) && out[n..].iter().all(|x| *x == 7.0));
                assert_eq!((sum, largest), ((n * (n + 1) / 2) as f32, n as f32));
            }
        }
    }
}
