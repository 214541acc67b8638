//! Floats become bytes with a scale and a zero point for each row, or one for all rows, in PyTorch's arithmetic, bit for bit.
//!
//! PyTorch has two families of formulas, which differ in their last bits:
//!
//! | | scale | zero point | number |
//! | --- | --- | --- | --- |
//! | torchao, `choose_qparams_affine` and `quantize_affine`; `quantized_decomposed`, `*_per_tensor` | `max(range / 255, eps)` | `clamp(low - round(least / scale))` | `clamp(round(x * (1 / scale)) + zero)` |
//! | `quantized_decomposed`, `*_per_token*` | `max(range / 255, eps)` | rounded from the side that errs less | `clamp(round(x * (1 / scale) + zero))` |
//!
//! A row with a NaN gets a scale of NaN, and so makes its results NaN. All rounding is to the nearest, halves to even.

use crate::Isa;
use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};

/// What has a scale and a zero point of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Each row.
    Row,
    /// All rows together.
    Tensor,
}

/// How floats become bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scheme {
    /// How a scale and a zero point are chosen, and numbers rounded.
    pub formula: Formula,
    /// What they are chosen for.
    pub extent: Extent,
}

impl Scheme {
    /// A scale for each row.
    pub fn rows(formula: Formula) -> Scheme {
        Scheme {
            formula,
            extent: Extent::Row,
        }
    }

    /// One scale for all rows.
    pub fn tensor(formula: Formula) -> Scheme {
        Scheme {
            formula,
            extent: Extent::Tensor,
        }
    }
}

/// How a scale and a zero point are chosen of some numbers, and these rounded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Formula {
    /// torchao's `ASYMMETRIC` for -128..=127, with the least scale; `quantized_decomposed::choose_qparams` and `quantize_per_tensor` too.
    AffineAsymmetric {
        /// The least scale; `None` of torchao is the smallest normal number.
        eps: f32,
    },
    /// torchao's `SYMMETRIC` for `low`..=127; `quantized_decomposed::choose_qparams_symmetric` too.
    AffineSymmetric {
        /// The least scale.
        eps: f32,
        /// -128 or -127: the largest absolute value becomes `(127 - low) / 2`.
        low: i8,
    },
    /// `quantized_decomposed::choose_qparams_per_token_asymmetric` and `quantize_per_token`.
    TokenAsymmetric {
        /// The scales are `f64`, as PyTorch's operator gives them, so numbers are divided in `f64`.
        wide: bool,
    },
    /// `quantized_decomposed::choose_qparams_per_token` and `quantize_per_token`.
    TokenSymmetric,
}

/// A row's scale and zero point: a byte `q` stands for `(q - zero) * scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameters {
    /// The scale.
    pub scale: f32,
    /// The zero point.
    pub zero: i32,
}

impl Formula {
    /// Of a row's least and largest number, both NaN if it has one. A row without numbers has (0, 0).
    pub fn parameters(self, least: f32, largest: f32) -> Parameters {
        let below = if least < 0.0 || least.is_nan() { least } else { 0.0 };
        let above = if largest > 0.0 || largest.is_nan() {
            largest
        } else {
            0.0
        };
        let at_least = |scale: f32, eps: f32| if scale < eps { eps } else { scale };
        let range = (above - below) / 255.0;
        match self {
            Formula::AffineAsymmetric { eps } => {
                let scale = at_least(range, eps);
                let zero = -128.0 - (below / scale).round_ties_even();
                Parameters {
                    scale,
                    zero: bounded(zero) as i32,
                }
            }
            Formula::AffineSymmetric { eps, low } => {
                let reach = larger(-below, above);
                let scale = at_least(reach / ((127.0 - f32::from(low)) / 2.0), eps);
                Parameters { scale, zero: 0 }
            }
            Formula::TokenAsymmetric { .. } => {
                let scale = at_least(range, f32::EPSILON);
                let (below, above) = (below / scale, above / scale);
                let zero = if (-128.0 + below) + (127.0 + above) > 0.0 {
                    -128.0 - below
                } else {
                    127.0 - above
                };
                Parameters {
                    scale,
                    zero: bounded(zero).round_ties_even() as i32,
                }
            }
            Formula::TokenSymmetric => Parameters {
                scale: at_least(larger(-below, above), 1e-5) / 127.0,
                zero: 0,
            },
        }
    }

    fn low(self) -> f32 {
        match self {
            Formula::AffineSymmetric { low, .. } => f32::from(low),
            _ => -128.0,
        }
    }
}

fn larger(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

fn bounded(x: f32) -> f32 {
    x.clamp(-128.0, 127.0)
}

/// Sizes of quantized rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowShape {
    /// Rows.
    pub rows: usize,
    /// Numbers of a row.
    pub inputs: usize,
    /// Numbers that one sum is of; at least 1.
    pub group: usize,
}

impl RowShape {
    /// Bytes from row to row: numbers, and zeros up to an odd multiple of 64, so that rows do not meet in the same places of a cache.
    pub fn stride(&self) -> usize {
        (self.inputs.div_ceil(64) | 1) * 64
    }

    /// Sums of a row.
    pub fn groups(&self) -> usize {
        self.inputs.div_ceil(self.group.max(1))
    }

    /// Floats that hold everything of these rows.
    pub fn scratch_len(&self) -> usize {
        self.rows * (self.stride() / 4 + 2 + self.groups())
    }
}

/// Rows of bytes.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Their sizes.
    pub shape: RowShape,
    /// `rows` times [`RowShape::stride`] bytes; those behind a row are 0.
    pub values: &'a [i8],
    /// One a row.
    pub scales: &'a [f32],
    /// One a row.
    pub zeros: &'a [i32],
    /// [`RowShape::groups`] a row: the sum of a group's bytes, times the factor that was asked for.
    pub sums: &'a [i32],
}

/// Quantizes rows of floats.
///
/// `x` has `shape.rows` rows of `shape.inputs` numbers, without gaps. `scratch` has at least [`RowShape::scratch_len`] elements, and the result lies in it.
/// Sums of groups are multiplied by `factor`.
///
/// # Panics
/// A slice is too short.
pub fn quantize_rows<'a>(
    isa: Isa,
    pool: &dyn Pool,
    scheme: Scheme,
    x: &[f32],
    shape: RowShape,
    factor: i32,
    scratch: &'a mut [f32],
) -> Rows<'a> {
    let (stride, groups) = (shape.stride(), shape.groups());
    assert!(x.len() >= shape.rows * shape.inputs, "rows are missing");
    let (bytes, rest) = scratch.split_at_mut(shape.rows * stride / 4);
    let (scales, rest) = rest.split_at_mut(shape.rows);
    let (zeros, rest) = rest.split_at_mut(shape.rows);
    let sums = &mut rest[..shape.rows * groups];
    // SAFETY: bytes and integers of 32 bits lie anywhere where floats do, and every pattern of bits is one.
    let (values, zeros, sums) = unsafe {
        (
            std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast::<i8>(), bytes.len() * 4),
            std::slice::from_raw_parts_mut(zeros.as_mut_ptr().cast::<i32>(), zeros.len()),
            std::slice::from_raw_parts_mut(sums.as_mut_ptr().cast::<i32>(), sums.len()),
        )
    };
    let parts = pool::parts(pool, shape.rows, shape.inputs / 4 + 20);
    let shared = (
        Shared::new(values),
        Shared::new(scales),
        Shared::new(zeros),
        Shared::new(sums),
    );
    let common = (scheme.extent == Extent::Tensor).then(|| {
        let (least, largest) = extremes(isa, pool, &x[..shape.rows * shape.inputs]);
        scheme.formula.parameters(least, largest)
    });
    pool.run(parts, &|part| {
        for row in pool::range(shape.rows, parts, part, 1) {
            // SAFETY: each row is quantized once, and its places are its own.
            let (values, sums) = unsafe {
                (
                    shared.0.slice(row * stride..(row + 1) * stride),
                    shared.3.slice(row * groups..(row + 1) * groups),
                )
            };
            let x = &x[row * shape.inputs..][..shape.inputs];
            let made = match common {
                Some(made) => {
                    round_row(isa, scheme.formula, made, x, values);
                    made
                }
                None => quantize_row(isa, scheme.formula, x, values),
            };
            group_sums(isa, values, shape.group, factor, sums);
            // SAFETY: as above.
            unsafe {
                shared.1.at(row).write(made.scale);
                shared.2.at(row).write(made.zero);
            }
        }
    });
    Rows {
        shape,
        values,
        scales,
        zeros,
        sums,
    }
}

/// Quantizes all of `x` by one scale; `to` has as many bytes.
///
/// # Panics
/// `to` is shorter than that.
pub fn quantize_tensor(isa: Isa, pool: &dyn Pool, formula: Formula, x: &[f32], to: &mut [i8]) -> Parameters {
    let (least, largest) = extremes(isa, pool, x);
    let made = formula.parameters(least, largest);
    let parts = pool::parts(pool, x.len().div_ceil(PIECE), PIECE / 4);
    let shared = Shared::new(&mut to[..x.len()]);
    pool.run(parts, &|part| {
        let range = pool::range(x.len(), parts, part, PIECE);
        // SAFETY: ranges are parts of the bytes that nobody else has.
        let to = unsafe { shared.slice(range.clone()) };
        round_row(isa, formula, made, &x[range], to);
    });
    made
}

/// Numbers that are worth a part of their own.
const PIECE: usize = 1 << 12;

/// The least and the largest of all, as [`Extremes`].
fn extremes(isa: Isa, pool: &dyn Pool, x: &[f32]) -> (f32, f32) {
    let mut found = [(0.0f32, 0.0f32); 64];
    let parts = pool::parts(pool, x.len().div_ceil(PIECE), PIECE / 16).min(found.len());
    let shared = Shared::new(&mut found);
    pool.run(parts, &|part| {
        let own = dispatch(isa, Extremes(&x[pool::range(x.len(), parts, part, PIECE)]));
        // SAFETY: each part has a place.
        unsafe { shared.at(part).write(own) };
    });
    let join = |(low, high): (f32, f32), (least, largest): (f32, f32)| (-larger(-low, -least), larger(high, largest));
    found[..parts].iter().copied().fold((0.0, 0.0), join)
}

/// Quantizes one row; bytes of `to` behind those of the row become 0.
///
/// # Panics
/// `to` is shorter than the row.
pub fn quantize_row(isa: Isa, formula: Formula, x: &[f32], to: &mut [i8]) -> Parameters {
    let (least, largest) = dispatch(isa, Extremes(x));
    let made = formula.parameters(least, largest);
    round_row(isa, formula, made, x, to);
    made
}

/// Rounds a row by a scale and a zero point that are chosen; bytes of `to` behind those of the row become 0.
fn round_row(isa: Isa, formula: Formula, made: Parameters, x: &[f32], to: &mut [i8]) {
    let (numbers, rest) = to.split_at_mut(x.len());
    rest.fill(0);
    if let Formula::TokenAsymmetric { wide: true } = formula {
        dispatch(isa, RoundWide(x, numbers, made));
    } else {
        dispatch(isa, Round(x, numbers, made, formula));
    }
}

/// Least and largest, or NaN twice.
struct Extremes<'a>(&'a [f32]);

impl Op for Extremes<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (f32, f32) {
        let x = self.0;
        let zero = (s.splat(0.0), s.splat(0.0), s.splat(0.0));
        let (mut a, mut b) = (zero, zero);
        let mut at = 0;
        while at + 2 * S::LANES <= x.len() {
            // SAFETY: two vectors are left.
            unsafe {
                a = wider(s, a, s.load(x.as_ptr().add(at)));
                b = wider(s, b, s.load(x.as_ptr().add(at + S::LANES)));
            }
            at += 2 * S::LANES;
        }
        while at < x.len() {
            let n = S::LANES.min(x.len() - at);
            // SAFETY: as many are left. Zeros beside them change nothing: the bounds contain 0.
            a = wider(s, a, unsafe { s.load_part(x.as_ptr().add(at), n) });
            at += n;
        }
        if s.sum(s.add(s.abs(a.2), s.abs(b.2))).is_nan() {
            return (f32::NAN, f32::NAN);
        }
        let (low, high) = (s.min(a.0, b.0), s.max(a.1, b.1));
        (-s.largest(s.sub(s.splat(0.0), low)), s.largest(high))
    }
}

/// Bounds with another vector in them, and any NaN there was. No closure: it would not be compiled for the instruction set.
#[inline(always)]
fn wider<S: Simd>(s: S, (low, high, odd): (S::F, S::F, S::F), x: S::F) -> (S::F, S::F, S::F) {
    (s.min(low, x), s.max(high, x), s.select(s.eq(x, x), odd, x))
}

struct Round<'a>(&'a [f32], &'a mut [i8], Parameters, Formula);

impl Op for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Round(x, to, made, formula) = self;
        let shift_first = matches!(formula, Formula::TokenAsymmetric { .. } | Formula::TokenSymmetric);
        let (inverse, zero) = (s.splat(1.0 / made.scale), s.splat(made.zero as f32));
        let (low, high) = (s.splat(formula.low()), s.splat(127.0));
        let all = (inverse, zero, low, high);
        let mut at = 0;
        while at < x.len() {
            let n = S::LANES.min(x.len() - at);
            // SAFETY: whole vectors are left, or a part goes through a list of the most lanes.
            unsafe {
                if n == S::LANES {
                    s.store_u8(
                        to.as_mut_ptr().add(at).cast(),
                        rounded(s, s.load(x.as_ptr().add(at)), all, shift_first),
                    );
                } else {
                    let mut bytes = [0u8; 16];
                    s.store_u8(
                        bytes.as_mut_ptr(),
                        rounded(s, s.load_part(x.as_ptr().add(at), n), all, shift_first),
                    );
                    to[at..at + n]
                        .iter_mut()
                        .zip(bytes)
                        .for_each(|(to, byte)| *to = byte as i8);
                }
            }
            at += n;
        }
    }
}

#[inline(always)]
fn rounded<S: Simd>(s: S, x: S::F, (inverse, zero, low, high): (S::F, S::F, S::F, S::F), shift_first: bool) -> S::I {
    let scaled = s.mul(x, inverse);
    let shifted = match shift_first {
        true => s.round(s.add(scaled, zero)),
        false => s.add(s.round(scaled), zero),
    };
    s.to_i(s.min(s.max(shifted, low), high))
}

struct RoundWide<'a>(&'a [f32], &'a mut [i8], Parameters);

impl Op for RoundWide<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        // Numbers of this size have a last bit of one, so that adding it rounds, halves to even.
        const WHOLE: f64 = 1.5 * (1u64 << 52) as f64;
        let RoundWide(x, to, made) = self;
        let (inverse, zero) = (1.0 / f64::from(made.scale), f64::from(made.zero));
        for (to, x) in to.iter_mut().zip(x) {
            let shifted = f64::from(*x) * inverse + zero;
            // The limits are whole, so that it is the same before rounding. Comparisons, so that a NaN stays one, whose lowest byte is 0.
            let bounded = if shifted < -128.0 { -128.0 } else { shifted };
            let bounded = if bounded > 127.0 { 127.0 } else { bounded };
            *to = (bounded + WHOLE).to_bits() as i8;
        }
    }
}

/// The sum of each `group` bytes of a row, times a factor. The last group may be shorter; what lies behind the groups is not read.
pub fn group_sums(isa: Isa, row: &[i8], group: usize, factor: i32, sums: &mut [i32]) {
    dispatch(isa, Sums(row, group, factor, sums));
}

struct Sums<'a>(&'a [i8], usize, i32, &'a mut [i32]);

impl Op for Sums<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Sums(row, group, factor, sums) = self;
        for (sum, bytes) in sums.iter_mut().zip(row.chunks(group.max(1))) {
            let mut total = 0i32;
            // Sums of so many bytes are exact in floats too.
            for bytes in bytes.chunks(1 << 16) {
                let whole = bytes.len() / S::LANES * S::LANES;
                let mut lanes = s.splat_i(0);
                for at in (0..whole).step_by(S::LANES) {
                    // SAFETY: as many bytes are left.
                    lanes = s.add_i(lanes, unsafe { s.load_i8(bytes.as_ptr().add(at)) });
                }
                let rest: i32 = bytes[whole..].iter().map(|byte| i32::from(*byte)).sum();
                total = total.wrapping_add(s.sum(s.to_f(lanes)) as i32).wrapping_add(rest);
            }
            *sum = total.wrapping_mul(factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Serial;

    /// The formulas by their definitions, number by number.
    fn plain(formula: Formula, x: &[f32]) -> (Vec<i8>, f32, i32) {
        let any_nan = x.iter().any(|x| x.is_nan());
        let fold = |f: fn(f32, f32) -> f32| x.iter().copied().fold(0.0, f);
        let (least, largest) = if any_nan {
            (f32::NAN, f32::NAN)
        } else {
            (fold(f32::min), fold(f32::max))
        };
        let made = formula.parameters(least, largest);
        let quantized = x.iter().map(|x| match formula {
            Formula::TokenAsymmetric { wide: true } => {
                let q = (f64::from(*x) * (1.0 / f64::from(made.scale)) + f64::from(made.zero)).round_ties_even();
                q.clamp(-128.0, 127.0) as i8
            }
            Formula::TokenAsymmetric { .. } | Formula::TokenSymmetric => (x * (1.0 / made.scale) + made.zero as f32)
                .round_ties_even()
                .clamp(-128.0, 127.0) as i8,
            Formula::AffineAsymmetric { .. } => {
                ((x * (1.0 / made.scale)).round_ties_even() + made.zero as f32).clamp(-128.0, 127.0) as i8
            }
            Formula::AffineSymmetric { low, .. } => {
                (x * (1.0 / made.scale)).round_ties_even().clamp(f32::from(low), 127.0) as i8
            }
        });
        (quantized.collect(), made.scale, made.zero)
    }

    pub(crate) const FORMULAS: [Formula; 6] = [
        Formula::AffineAsymmetric { eps: f32::MIN_POSITIVE },
        Formula::AffineSymmetric { eps: 1e-5, low: -127 },
        Formula::AffineSymmetric { eps: 1e-5, low: -128 },
        Formula::TokenAsymmetric { wide: true },
        Formula::TokenAsymmetric { wide: false },
        Formula::TokenSymmetric,
    ];

    fn numbers(n: usize, seed: u32, shift: f32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next() * 3.0 + shift).collect()
    }

    #[test]
    fn rows_are_pytorchs_bit_for_bit_on_every_instruction_set() {
        for isa in Isa::all() {
            for n in [0, 1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 64, 100, 257] {
                for (seed, shift) in [(1, 0.0), (2, 3.0), (3, -5.0), (4, 0.7)] {
                    let mut x = numbers(n, seed, shift);
                    if seed == 4 && n > 3 {
                        (x[0], x[1], x[2]) = (-0.0, 1e-42, f32::INFINITY);
                    }
                    for formula in FORMULAS {
                        let mut have = vec![99i8; n + 5];
                        let made = quantize_row(isa, formula, &x, &mut have);
                        let (want, scale, zero) = plain(formula, &x);
                        assert_eq!(have[..n], want, "{isa} {formula:?} {n}");
                        assert_eq!(have[n..], [0; 5]);
                        assert!(made.scale.to_bits() == scale.to_bits() && made.zero == zero);
                    }
                }
            }
        }
    }

    #[test]
    fn a_nan_makes_the_scale_one_wherever_it_stands() {
        for isa in Isa::all() {
            for n in [1usize, 9, 40] {
                for place in 0..n {
                    let mut x = numbers(n, 5, 0.0);
                    x[place] = f32::NAN;
                    for formula in FORMULAS {
                        let made = quantize_row(isa, formula, &x, &mut vec![0; n]);
                        assert!(made.scale.is_nan(), "{isa} {formula:?} {n} {place}");
                    }
                }
            }
        }
    }

    /// Written down by hand from the formulas.
    #[test]
    fn parameters_of_known_ranges() {
        let token = Formula::TokenAsymmetric { wide: true };
        assert_eq!(
            token.parameters(-1.0, 1.0),
            Parameters {
                scale: 2.0 / 255.0,
                zero: 0
            }
        );
        assert_eq!(
            token.parameters(0.0, 0.0),
            Parameters {
                scale: f32::EPSILON,
                zero: 127
            }
        );
        let affine = Formula::AffineAsymmetric { eps: f32::MIN_POSITIVE };
        assert_eq!(
            affine.parameters(2.0, 5.1),
            Parameters {
                scale: 5.1 / 255.0,
                zero: -128
            }
        );
        assert_eq!(affine.parameters(-255.0, 0.0), Parameters { scale: 1.0, zero: 127 });
        let symmetric = Formula::AffineSymmetric { eps: 1e-5, low: -127 };
        assert_eq!(symmetric.parameters(-254.0, 3.0), Parameters { scale: 2.0, zero: 0 });
    }

    #[test]
    fn rows_and_their_sums_lie_in_scratch() {
        for isa in Isa::all() {
            for (rows, inputs, group) in [
                (0, 5, 32),
                (3, 0, 32),
                (1, 31, 32),
                (2, 32, 32),
                (3, 100, 32),
                (2, 300, 128),
                (2, 45, 7),
            ] {
                let shape = RowShape { rows, inputs, group };
                let x = numbers(rows * inputs, 9, 0.5);
                let mut scratch = vec![f32::NAN; shape.scratch_len()];
                let scheme = Scheme::rows(FORMULAS[0]);
                let made = quantize_rows(isa, &Serial, scheme, &x, shape, -8, &mut scratch);
                for row in 0..rows {
                    let (want, scale, zero) = plain(FORMULAS[0], &x[row * inputs..][..inputs]);
                    let have = &made.values[row * shape.stride()..][..shape.stride()];
                    assert!(have[..inputs] == want && have[inputs..].iter().all(|byte| *byte == 0));
                    assert!(made.scales[row] == scale && made.zeros[row] == zero);
                    let sums = want
                        .chunks(group)
                        .map(|bytes| -8 * bytes.iter().map(|b| i32::from(*b)).sum::<i32>());
                    assert!(sums.eq(made.sums[row * shape.groups()..][..shape.groups()].iter().copied()));
                }
            }
        }
    }

    #[test]
    fn rows_of_one_scale_are_one_long_row() {
        for isa in Isa::all() {
            for (rows, inputs) in [(0, 5), (3, 0), (1, 31), (2, 32), (7, 100), (40, 45)] {
                let shape = RowShape {
                    rows,
                    inputs,
                    group: 32,
                };
                for formula in FORMULAS {
                    let mut x = numbers(rows * inputs, 9, 0.5);
                    for nan in [false, true] {
                        if let (true, Some(last)) = (nan, x.last_mut()) {
                            *last = f32::NAN;
                        }
                        let mut scratch = vec![f32::NAN; shape.scratch_len()];
                        let made = quantize_rows(isa, &Serial, Scheme::tensor(formula), &x, shape, 1, &mut scratch);
                        let (want, scale, zero) = plain(formula, &x);
                        for row in 0..rows {
                            let have = &made.values[row * shape.stride()..][..inputs];
                            assert_eq!(
                                have,
                                &want[row * inputs..][..inputs],
                                "{isa} {formula:?} {rows} {inputs}"
                            );
                            assert!(made.scales[row].to_bits() == scale.to_bits() && made.zeros[row] == zero);
                        }
                        let mut bytes = vec![99i8; x.len()];
                        let made = quantize_tensor(isa, &Serial, formula, &x, &mut bytes);
                        assert!(bytes == want && made.scale.to_bits() == scale.to_bits() && made.zero == zero);
                    }
                }
            }
        }
    }
}
