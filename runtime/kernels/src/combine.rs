//! Writing one element into another: assign, add, multiply, smallest, largest; the arithmetic of scattering operators.

use crate::KernelError;
use crate::strided::{words, words_mut};
use crate::wide::{Stored, Wide, with_stored};
use core::ops::{Add, Mul};
use delegraph_types::{Complex, DType, Element};

/// What becomes of an element that is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Combine {
    /// The new value.
    Assign,
    /// The sum.
    Add,
    /// The product.
    Multiply,
    /// The larger; a NaN wins.
    Largest,
    /// The smaller; a NaN wins.
    Smallest,
}

impl Combine {
    /// The `reduce` argument of `scatter_reduce` and its kin.
    ///
    /// # Errors
    /// It is none of theirs.
    pub fn parse(name: &str) -> Result<Combine, KernelError> {
        match name {
            "add" | "sum" | "mean" => Ok(Combine::Add),
            "multiply" | "prod" => Ok(Combine::Multiply),
            "amax" => Ok(Combine::Largest),
            "amin" => Ok(Combine::Smallest),
            _ => Err(KernelError::invalid("reduce", alloc::format!("reduction `{name}`"))),
        }
    }

    /// One combination.
    pub fn apply<W: Wide>(self, old: W, new: W) -> W {
        match self {
            Combine::Assign => new,
            Combine::Add => old.plus(new),
            Combine::Multiply => old.times(new),
            Combine::Largest if old.is_nan() || (old >= new && !new.is_nan()) => old,
            Combine::Smallest if old.is_nan() || (old <= new && !new.is_nan()) => old,
            Combine::Largest | Combine::Smallest => new,
        }
    }

    /// Combines `dst[to]` with `src[from]` for all pairs `(from, to)`, in order; both are of `dtype`.
    ///
    /// # Errors
    /// What `pairs` gives; the dtype has no arithmetic; an offset is out of range.
    pub fn run(
        self,
        dtype: DType,
        src: &[u8],
        dst: &mut [u8],
        pairs: impl Iterator<Item = Result<(usize, usize), KernelError>>,
    ) -> Result<(), KernelError> {
        // Bools: a sum is an or, a product an and.
        let how = match (dtype, self) {
            (DType::Bool, Combine::Add) => Combine::Largest,
            (DType::Bool, Combine::Multiply) => Combine::Smallest,
            _ => self,
        };
        let truth = dtype == DType::Bool;
        match dtype {
            DType::C64 => return self.run_complex::<Complex<f32>>(src, dst, pairs),
            DType::C128 => return self.run_complex::<Complex<f64>>(src, dst, pairs),
            _ => {}
        }
        with_stored!(dtype, "src", T => {
            let (src, dst): (&[T], &mut [T]) = (words(src)?, words_mut(dst)?);
            for pair in pairs {
                let (from, to) = pair?;
                let (Some(&value), Some(slot)) = (src.get(from), dst.get_mut(to)) else {
                    return Err(KernelError::invalid("index", "an element outside of its tensor"));
                };
                *slot = if how == Combine::Assign && !truth {
                    value
                } else {
                    type Computing = <T as Stored>::Wide;
                    let read = |x: T| {
                        let x = <Computing as Wide>::load(x);
                        if truth && x != Computing::ZERO { Computing::ONE } else { x }
                    };
                    T::from_wide(how.apply(read(*slot), read(value)))
                };
            }
            Ok(())
        })
    }

    fn run_complex<C: Element + Add<Output = C> + Mul<Output = C>>(
        self,
        src: &[u8],
        dst: &mut [u8],
        pairs: impl Iterator<Item = Result<(usize, usize), KernelError>>,
    ) -> Result<(), KernelError> {
        let apply: fn(C, C) -> C = match self {
            Combine::Assign => |_, new| new,
            Combine::Add => |old, new| old + new,
            Combine::Multiply => |old, new| old * new,
            Combine::Largest | Combine::Smallest => {
                return Err(KernelError::invalid("reduce", "an order of complex numbers"));
            }
        };
        let (src, dst): (&[C], &mut [C]) = (words(src)?, words_mut(dst)?);
        for pair in pairs {
            let (from, to) = pair?;
            let (Some(&value), Some(slot)) = (src.get(from), dst.get_mut(to)) else {
                return Err(KernelError::invalid("index", "an element outside of its tensor"));
            };
            *slot = apply(*slot, value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_of_bytes_wrap_and_of_bools_do_not() {
        let src = [200u8, 100];
        let both = || [Ok((0, 0)), Ok((1, 0))].into_iter();
        for (dtype, how, want) in [
            (DType::U8, Combine::Assign, 100),
            (DType::U8, Combine::Add, 45),
            (DType::U8, Combine::Multiply, 32),
            (DType::U8, Combine::Largest, 200),
            (DType::U8, Combine::Smallest, 1),
            (DType::Bool, Combine::Add, 1),
            (DType::Bool, Combine::Assign, 1),
        ] {
            let mut dst = [1u8];
            how.run(dtype, &src, &mut dst, both()).unwrap();
            assert_eq!(dst, [want], "{dtype} {how:?}");
        }
    }

    #[test]
    fn a_nan_wins_and_an_offset_out_of_range_is_an_error() {
        let src = [f32::NAN, 1.0];
        for how in [Combine::Largest, Combine::Smallest] {
            let mut dst = [0f32];
            let pairs = [Ok((0, 0)), Ok((1, 0))].into_iter();
            how.run(
                DType::F32,
                bytemuck::cast_slice(&src),
                bytemuck::cast_slice_mut(&mut dst),
                pairs,
            )
            .unwrap();
            assert!(dst[0].is_nan());
        }
        assert!(
            Combine::Assign
                .run(DType::U8, &[0], &mut [0], [Ok((1, 0))].into_iter())
                .is_err()
        );
        assert!(Combine::parse("median").is_err());
    }
}
