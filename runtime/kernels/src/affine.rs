//! The arithmetic of quantized tensors: `(q - zero point) * scale` and back, over operands of any layout.
//!
//! A [`Grid`] lays the input, the output, the scales and the zero points over one set of loops, so that one value for the
//! whole tensor, for each channel, token or group are all the same two routines. The innermost loop reads a piece, works on
//! it in a plain loop over slices, and writes it.

use crate::math::{Num, Real};
use crate::strided::{words, words_mut};
use crate::wide::{Stored, Wide, with_stored};
use crate::{KernelError, Out, Tensor, vector};
use delegraph_types::{DType, Dims, MAX_RANK, bf16, f16};

/// Elements of a piece.
pub(crate) const PIECE: usize = 512;

/// Floats as PyTorch computes in them: each result is rounded to the format.
pub(crate) trait Format {
    /// The type of the arithmetic.
    type W: Real;
    /// The format.
    const DTYPE: DType;
    /// Rounds to the format.
    fn keep(value: Self::W) -> Self::W;
    /// Rounds to a whole number, halves to even.
    fn whole(value: Self::W) -> Self::W;
    /// To an integer, saturated; 0 for NaN.
    fn integer(value: Self::W) -> i32;
    /// The lowest 16 bits of a whole number below 2^22, of either sign; 0 for the NaN of arithmetic. Unlike a conversion, this becomes
    /// vector instructions on every target.
    fn low_bits(value: Self::W) -> u16;
}

macro_rules! format {
    ($name:ident, $dtype:ident, $ty:ty, $keep:expr, $big:expr) => {
        pub(crate) struct $name;

        impl Format for $name {
            type W = $ty;
            const DTYPE: DType = DType::$dtype;
            #[inline(always)]
            fn keep(value: $ty) -> $ty {
                ($keep)(value)
            }
            #[inline(always)]
            fn whole(value: $ty) -> $ty {
                // Above this every number is whole, so adding it rounds. Unlike the function of the platform, this
                // becomes vector instructions on every target.
                let size = value.abs();
                if size < $big {
                    ((size + $big) - $big).copysign(value)
                } else {
                    value
                }
            }
            #[inline(always)]
            fn integer(value: $ty) -> i32 {
                value as i32
            }
            #[inline(always)]
            fn low_bits(value: $ty) -> u16 {
                // Numbers of this size have a last bit of one, and so end in the sum's integer.
                (value + 1.5 * $big).to_bits() as u16
            }
        }
    };
}
format!(InF32, F32, f32, |x| x, 8_388_608.0);
format!(InF64, F64, f64, |x| x, 4_503_599_627_370_496.0);
format!(InF16, F16, f32, |x| f16::from_f32(x).to_f32(), 8_388_608.0);
format!(InBf16, BF16, f32, |x| bf16::from_f32(x).to_f32(), 8_388_608.0);

/// Runs `$body` with `$F` as the [`Format`] of a dtype; an error for dtypes that are no floats.
macro_rules! with_format {
    ($dtype:expr, $argument:expr, $F:ident => $body:expr) => {{
        match $dtype {
            delegraph_types::DType::F32 => {
                type $F = $crate::affine::InF32;
                $body
            }
            delegraph_types::DType::F64 => {
                type $F = $crate::affine::InF64;
                $body
            }
            delegraph_types::DType::F16 => {
                type $F = $crate::affine::InF16;
                $body
            }
            delegraph_types::DType::BF16 => {
                type $F = $crate::affine::InBf16;
                $body
            }
            other => Err($crate::KernelError::unsupported(
                $argument,
                alloc::format!("arithmetic in dtype {other}"),
            )),
        }
    }};
}
pub(crate) use with_format;

/// Scales or zero points: a number, or a tensor with its strides along the dimensions of the grid (0 repeats).
// Made a few times a call and copied freely: a box would cost more than the room.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Parameter<'a> {
    One(f64),
    Each(Tensor<'a>, Dims),
}

impl Parameter<'_> {
    /// The dtype of a tensor; `None` for a number.
    fn dtype(&self) -> Option<DType> {
        match self {
            Parameter::One(_) => None,
            Parameter::Each(tensor, _) => Some(tensor.dtype()),
        }
    }

    fn strides(&self) -> Dims {
        match self {
            Parameter::One(_) => Dims::SCALAR,
            Parameter::Each(_, strides) => *strides,
        }
    }
}

/// What a pass reads.
pub(crate) struct Source<'a> {
    /// The elements.
    pub input: Tensor<'a>,
    /// Strides of the input along the dimensions of the grid.
    pub strides: Dims,
    /// Scales.
    pub scale: Parameter<'a>,
    /// Zero points.
    pub zero: Parameter<'a>,
}

impl<'a> Source<'a> {
    /// One scale and zero point for all elements.
    pub fn per_tensor(input: Tensor<'a>, scale: f64, zero: f64) -> Source<'a> {
        Source {
            input,
            strides: *input.strides(),
            scale: Parameter::One(scale),
            zero: Parameter::One(zero),
        }
    }

    /// The walk over a grid of `sizes`, whose output has `strides`.
    fn grid(&self, sizes: &Dims, strides: &Dims) -> Grid {
        Grid::new(
            sizes,
            [&self.strides, strides, &self.scale.strides(), &self.zero.strides()],
        )
    }
}

const INPUT: usize = 0;
const OUT: usize = 1;
const SCALE: usize = 2;
const ZERO: usize = 3;

/// One loop: its steps and how far each goes in the input, the output, the scales and the zero points.
#[derive(Debug, Clone, Copy, Default)]
struct Loop {
    size: usize,
    strides: [usize; 4],
}

/// Nested loops, the output's memory order innermost.
#[derive(Debug)]
struct Grid {
    loops: [Loop; MAX_RANK],
    len: usize,
    empty: bool,
}

impl Grid {
    fn new(sizes: &Dims, strides: [&Dims; 4]) -> Grid {
        let mut grid = Grid {
            loops: [Loop::default(); MAX_RANK],
            len: 0,
            empty: sizes.contains(&0),
        };
        for (d, &size) in sizes.iter().enumerate() {
            if size == 1 {
                continue;
            }
            let new = Loop {
                size: usize::try_from(size).unwrap_or(0),
                strides: strides.map(|own| own.get(d).map_or(0, |&stride| stride.max(0) as usize)),
            };
            let mut at = grid.len;
            while at > 0 && grid.loops[at - 1].strides[OUT] < new.strides[OUT] {
                grid.loops[at] = grid.loops[at - 1];
                at -= 1;
            }
            grid.loops[at] = new;
            grid.len += 1;
        }
        grid.merge();
        grid
    }

    /// Joins neighbouring loops that are one walk in every operand.
    fn merge(&mut self) {
        let mut kept = 0usize;
        for i in 0..self.len {
            let inner = self.loops[i];
            if let Some(outer) = kept.checked_sub(1).map(|last| self.loops[last]) {
                let joined = inner.strides.map(|stride| stride.checked_mul(inner.size));
                if joined == outer.strides.map(Some) {
                    self.loops[kept - 1] = Loop {
                        size: outer.size.saturating_mul(inner.size),
                        ..inner
                    };
                    continue;
                }
            }
            self.loops[kept] = inner;
            kept += 1;
        }
        self.len = kept;
    }

    /// Calls `run(starts, strides, count)` for each piece of an innermost loop.
    fn each(
        &self,
        mut run: impl FnMut([usize; 4], [usize; 4], usize) -> Result<(), KernelError>,
    ) -> Result<(), KernelError> {
        if self.empty {
            return Ok(());
        }
        let single = Loop {
            size: 1,
            strides: [0; 4],
        };
        let (inner, outer) = match self.loops[..self.len].split_last() {
            Some((inner, outer)) => (*inner, outer),
            None => (single, &[][..]),
        };
        let mut at = [0usize; 4];
        let mut counters = [0usize; MAX_RANK];
        loop {
            let mut done = 0usize;
            while done < inner.size {
                let count = PIECE.min(inner.size - done);
                let starts = core::array::from_fn(|i| at[i] + done * inner.strides[i]);
                run(starts, inner.strides, count)?;
                done += count;
            }
            let mut d = outer.len();
            loop {
                if d == 0 {
                    return Ok(());
                }
                d -= 1;
                let step = outer[d];
                counters[d] += 1;
                if counters[d] < step.size {
                    at = core::array::from_fn(|i| at[i] + step.strides[i]);
                    break;
                }
                counters[d] = 0;
                at = core::array::from_fn(|i| at[i] - step.strides[i] * (step.size - 1));
            }
        }
    }
}

/// Values of a parameter along a piece.
#[derive(Clone, Copy)]
enum Along<'b, W> {
    Same(W),
    Each(&'b [W]),
}

impl<W: Copy> Along<'_, W> {
    #[inline(always)]
    fn at(&self, i: usize) -> W {
        match self {
            Along::Same(value) => *value,
            Along::Each(values) => values[i],
        }
    }
}

/// Reads a parameter along a piece; a number is not rounded to the format, as PyTorch does not.
fn along<'b, F: Format>(
    parameter: &Parameter,
    start: usize,
    stride: usize,
    buffer: &'b mut [F::W],
    prepare: impl Fn(F::W) -> F::W,
    number: impl Fn(f64) -> f64,
) -> Result<Along<'b, F::W>, KernelError> {
    match parameter {
        Parameter::One(value) => Ok(Along::Same(F::W::from_f64(number(*value)))),
        Parameter::Each(tensor, _) => {
            let count = if stride == 0 { 1 } else { buffer.len() };
            let buffer = &mut buffer[..count];
            load(tensor, start, stride, buffer)?;
            for value in buffer.iter_mut() {
                *value = prepare(F::keep(*value));
            }
            Ok(match stride {
                0 => Along::Same(buffer[0]),
                _ => Along::Each(buffer),
            })
        }
    }
}

/// Reads a piece of a tensor.
pub(crate) fn load<W: Wide>(tensor: &Tensor, start: usize, stride: usize, buffer: &mut [W]) -> Result<(), KernelError> {
    with_stored!(tensor.dtype(), "input", T => {
        let data = tensor.data::<T>().unwrap_or(&[]);
        if stride == 1 {
            for (slot, &value) in buffer.iter_mut().zip(&data[start..]) {
                *slot = W::load(value);
            }
        } else {
            for (slot, &value) in buffer.iter_mut().zip(data[start..].iter().step_by(stride.max(1))) {
                *slot = W::load(value);
            }
        }
        Ok(())
    })
}

/// Writes a piece of an output's memory.
pub(crate) fn store<W: Copy, T: bytemuck::Pod>(
    values: &[W],
    memory: &mut [u8],
    start: usize,
    stride: usize,
    convert: impl Fn(W) -> T,
) -> Result<(), KernelError> {
    let data = words_mut::<T>(memory)?;
    if stride == 1 {
        for (slot, &value) in data[start..].iter_mut().zip(values) {
            *slot = convert(value);
        }
    } else {
        for (slot, &value) in data[start..].iter_mut().step_by(stride.max(1)).zip(values) {
            *slot = convert(value);
        }
    }
    Ok(())
}

/// Writes a piece of reals.
///
/// # Errors
/// The dtype is no float.
pub(crate) fn store_real<W: Wide>(
    dtype: DType,
    values: &[W],
    memory: &mut [u8],
    start: usize,
    stride: usize,
) -> Result<(), KernelError> {
    match dtype {
        DType::F32 => store(values, memory, start, stride, f32::from_wide),
        DType::F64 => store(values, memory, start, stride, f64::from_wide),
        DType::F16 => store(values, memory, start, stride, f16::from_wide),
        DType::BF16 => store(values, memory, start, stride, bf16::from_wide),
        other => Err(KernelError::unsupported(
            "out",
            alloc::format!("reals in dtype {other}"),
        )),
    }
}

/// How reals become integers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounding {
    /// Smallest and largest integer.
    pub range: (i64, i64),
    /// The zero point is added before rounding, and not after.
    pub shift_first: bool,
    /// The dtype of `input / scale`, which zero points of another dtype may widen.
    pub product: DType,
}

/// `out = clamp(round(input / scale) + zero point)`, computed in `F`. `sizes` are those of the grid, `strides` the output's.
///
/// # Errors
/// A dtype has no conversion.
pub(crate) fn quantize<F: Format>(
    source: &Source,
    rounding: Rounding,
    out: &mut Out,
    sizes: &Dims,
    strides: &Dims,
) -> Result<(), KernelError> {
    let grid = source.grid(sizes, strides);
    let bound = |limit: i64| F::keep(F::W::from_f64(limit as f64));
    let (low, high) = (bound(rounding.range.0), bound(rounding.range.1));
    // Comparisons and not `max` and `min`: a NaN goes through, and the upper limit wins where they cross.
    let clamp = |value: F::W| {
        let value = if value < low { low } else { value };
        if value > high { high } else { value }
    };
    let dtype = out.dtype();
    let memory = out.bytes_mut();
    let (mut piece, mut scales, mut zeros) = ([F::W::ZERO; PIECE], [F::W::ZERO; PIECE], [F::W::ZERO; PIECE]);
    grid.each(|at, step, count| {
        let piece = &mut piece[..count];
        load(&source.input, at[INPUT], step[INPUT], piece)?;
        let reciprocal = |scale: F::W| settle(F::W::ONE.over(scale), source.scale.dtype().unwrap_or(F::DTYPE));
        let inverse = along::<F>(
            &source.scale,
            at[SCALE],
            step[SCALE],
            &mut scales[..count],
            reciprocal,
            |scale| 1.0 / scale,
        )?;
        let zero = along::<F>(&source.zero, at[ZERO], step[ZERO], &mut zeros[..count], |x| x, |x| x)?;
        let inverse = if rounding.product == F::DTYPE {
            inverse
        } else {
            for (i, x) in piece.iter_mut().enumerate() {
                *x = settle(settle(*x, rounding.product).times(inverse.at(i)), rounding.product);
            }
            Along::Same(F::W::ONE)
        };
        let after = |x: F::W, s: F::W, z: F::W| clamp(F::keep(F::whole(F::keep(F::keep(x).times(s))).plus(z)));
        let before = |x: F::W, s: F::W, z: F::W| clamp(F::whole(F::keep(F::keep(F::keep(x).times(s)).plus(z))));
        match (inverse, zero, rounding.shift_first) {
            (Along::Same(s), Along::Same(z), false) => piece.iter_mut().for_each(|x| *x = after(*x, s, z)),
            (Along::Same(s), Along::Same(z), true) => piece.iter_mut().for_each(|x| *x = before(*x, s, z)),
            (_, _, false) => {
                for (i, x) in piece.iter_mut().enumerate() {
                    *x = after(*x, inverse.at(i), zero.at(i));
                }
            }
            (_, _, true) => {
                for (i, x) in piece.iter_mut().enumerate() {
                    *x = before(*x, inverse.at(i), zero.at(i));
                }
            }
        }
        let (to, stride) = (at[OUT], step[OUT]);
        match dtype {
            DType::U8 => store(piece, memory, to, stride, |x| F::low_bits(x) as u8),
            DType::I8 => store(piece, memory, to, stride, |x| F::low_bits(x) as i8),
            DType::U16 => store(piece, memory, to, stride, F::low_bits),
            DType::I16 => store(piece, memory, to, stride, |x| F::low_bits(x) as i16),
            DType::I32 => store(piece, memory, to, stride, F::integer),
            other => Err(KernelError::unsupported(
                "dtype",
                alloc::format!("quantized numbers in dtype {other}"),
            )),
        }
    })
}

/// A value rounded to a floating dtype, of which `W` holds every number.
#[inline(always)]
fn settle<W: Real>(value: W, dtype: DType) -> W {
    match dtype {
        DType::F16 => W::load(f16::from_wide(value)),
        DType::BF16 => W::load(bf16::from_wide(value)),
        DType::F32 => W::load(value.to_f32()),
        _ => value,
    }
}

/// What `input - zero point` is computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Difference {
    /// A floating dtype.
    Real(DType),
    /// An integer dtype, which wraps.
    Integer(DType),
}

/// `out = (input - zero point) * scale`, computed in `F`, stored in the output's dtype.
///
/// # Errors
/// A dtype has no conversion.
pub(crate) fn dequantize<F: Format>(
    source: &Source,
    difference: Difference,
    out: &mut Out,
    sizes: &Dims,
    strides: &Dims,
) -> Result<(), KernelError> {
    let grid = source.grid(sizes, strides);
    let wrapped = match difference {
        Difference::Integer(dtype) if !is_real_enough::<F>(source, dtype)? => Some(dtype),
        _ => None,
    };
    let dtype = out.dtype();
    let memory = out.bytes_mut();
    let (mut piece, mut scales, mut zeros) = ([F::W::ZERO; PIECE], [F::W::ZERO; PIECE], [F::W::ZERO; PIECE]);
    let (mut whole, mut whole_zeros) = ([0i64; PIECE], [0i64; PIECE]);
    // One scale for all, in single precision throughout.
    let plain = match (&source.scale, &source.zero, difference) {
        (_, _, Difference::Real(other)) if other != DType::F32 => None,
        (Parameter::One(scale), Parameter::One(zero), _)
            if F::DTYPE == DType::F32 && dtype == DType::F32 && wrapped.is_none() =>
        {
            Some((*scale as f32, *zero as f32))
        }
        _ => None,
    };
    grid.each(|at, step, count| {
        if let Some((scale, zero)) = plain
            && step[INPUT] == 1
            && step[OUT] == 1
        {
            let to = &mut words_mut::<f32>(memory)?[at[OUT]..][..count];
            let from = source.input.bytes();
            match source.input.dtype() {
                DType::I8 => {
                    vector::dequantized_i8(&words::<i8>(from)?[at[INPUT]..][..count], zero, scale, to);
                    return Ok(());
                }
                DType::U8 => {
                    vector::dequantized_u8(&from[at[INPUT]..][..count], zero, scale, to);
                    return Ok(());
                }
                _ => {}
            }
        }
        let piece = &mut piece[..count];
        let scale = along::<F>(
            &source.scale,
            at[SCALE],
            step[SCALE],
            &mut scales[..count],
            |x| x,
            |x| x,
        )?;
        if let Some(dtype) = wrapped {
            let whole = &mut whole[..count];
            load(&source.input, at[INPUT], step[INPUT], whole)?;
            let zeros = &mut whole_zeros[..count];
            match &source.zero {
                Parameter::One(value) => zeros.fill(*value as i64),
                Parameter::Each(tensor, _) if step[ZERO] == 0 => {
                    load(tensor, at[ZERO], 1, &mut zeros[..1])?;
                    let value = zeros[0];
                    zeros.fill(value);
                }
                Parameter::Each(tensor, _) => load(tensor, at[ZERO], step[ZERO], zeros)?,
            }
            for ((slot, &q), &z) in piece.iter_mut().zip(&*whole).zip(&*zeros) {
                *slot = F::keep(F::W::load(wrap(q.wrapping_sub(z), dtype)));
            }
            for (i, x) in piece.iter_mut().enumerate() {
                *x = F::keep(x.times(scale.at(i)));
            }
        } else {
            load(&source.input, at[INPUT], step[INPUT], piece)?;
            let zero = along::<F>(&source.zero, at[ZERO], step[ZERO], &mut zeros[..count], |x| x, |x| x)?;
            let zero = match difference {
                Difference::Real(dtype) if dtype != F::DTYPE => {
                    for (i, x) in piece.iter_mut().enumerate() {
                        *x = settle(settle(*x, dtype).minus(zero.at(i)), dtype);
                    }
                    Along::Same(F::W::ZERO)
                }
                _ => zero,
            };
            let real = |q: F::W, s: F::W, z: F::W| F::keep(F::keep(F::keep(q).minus(z)).times(s));
            match (scale, zero) {
                (Along::Same(s), Along::Same(z)) => piece.iter_mut().for_each(|x| *x = real(*x, s, z)),
                _ => {
                    for (i, x) in piece.iter_mut().enumerate() {
                        *x = real(*x, scale.at(i), zero.at(i));
                    }
                }
            }
        }
        store_real(dtype, piece, memory, at[OUT], step[OUT])
    })
}

/// An integer wrapped to a dtype.
fn wrap(value: i64, dtype: DType) -> i64 {
    match dtype {
        DType::U8 => i64::from(value as u8),
        DType::I8 => i64::from(value as i8),
        DType::U16 => i64::from(value as u16),
        DType::I16 => i64::from(value as i16),
        DType::U32 => i64::from(value as u32),
        DType::I32 => i64::from(value as i32),
        _ => value,
    }
}

/// True if a difference in integers is the same computed in `F`: neither side rounds, nothing wraps.
fn is_real_enough<F: Format>(source: &Source, difference: DType) -> Result<bool, KernelError> {
    const EXACT: i64 = 1 << 22;
    let largest = match &source.zero {
        Parameter::One(value) => value.abs() as i64,
        // Elements between those of a strided tensor count too, which only makes this careful.
        Parameter::Each(tensor, _) => with_stored!(tensor.dtype(), "zero_points", T => {
            let data: &[T] = words(tensor.bytes())?;
            Ok(data.iter().fold(0i64, |most, &z| most.max(i64::load(z).saturating_abs())))
        })?,
    };
    let narrow = matches!(source.input.dtype(), DType::U8 | DType::I8 | DType::U16 | DType::I16);
    let exact = matches!(F::DTYPE, DType::F32 | DType::F64);
    Ok(largest == 0 || (narrow && exact && difference.size() >= 4 && largest <= EXACT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_to_even_and_large_numbers_stay() {
        for (x, want) in [
            (0.5, 0.0),
            (1.5, 2.0),
            (-2.5, -2.0),
            (-0.5, 0.0),
            (8_388_607.5, 8_388_608.0),
            (1e20, 1e20),
        ] {
            assert_eq!(InF32::whole(x), want, "{x}");
            assert_eq!(InF64::whole(f64::from(x)), f64::from(want), "{x}");
        }
        assert!(InF32::whole(f32::NAN).is_nan());
        assert_eq!(InF32::whole(f32::NEG_INFINITY), f32::NEG_INFINITY);
    }

    #[test]
    fn low_bits_are_those_of_the_integer() {
        for x in [-32768i32, -129, -1, 0, 1, 255, 32767, 65535] {
            assert_eq!(InF32::low_bits(x as f32), x as u16, "{x}");
            assert_eq!(InF64::low_bits(f64::from(x)), x as u16, "{x}");
        }
        assert_eq!(InF32::low_bits(f32::NAN), 0);
    }

    #[test]
    fn differences_wrap_in_their_dtype() {
        assert_eq!(wrap(-128 - 100, DType::I8), 28);
        assert_eq!(wrap(3 - 5, DType::U8), 254);
        assert_eq!(wrap(-228, DType::I64), -228);
    }

    #[test]
    fn loops_join_and_follow_the_output() {
        let sizes = Dims::new(&[2, 3, 4]).unwrap();
        let (whole, channel) = (sizes.contiguous_strides(), Dims::new(&[0, 1, 0]).unwrap());
        let none = Dims::SCALAR;
        assert_eq!(Grid::new(&sizes, [&whole, &whole, &none, &none]).len, 1);
        let grid = Grid::new(&sizes, [&whole, &whole, &channel, &none]);
        let mut starts = Vec::new();
        grid.each(|at, step, count| {
            assert_eq!((step, count), ([1, 1, 0, 0], 4));
            starts.push((at[INPUT], at[SCALE]));
            Ok(())
        })
        .unwrap();
        assert_eq!(starts, [(0, 0), (4, 1), (8, 2), (12, 0), (16, 1), (20, 2)]);
    }
}
