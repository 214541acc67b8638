//! Products of quantized numbers: 4-bit weights in groups, 8-bit weights, and tables of both.
//!
//! | file | activations | weights |
//! | --- | --- | --- |
//! | [`dynamic`] | floats become bytes with a scale for each row | |
//! | [`embedding`] | | rows of 8, 4 or 2 bits that become floats |
//! | [`q4`] | bytes, quantized here | 4 bits, a scale for each group |
//! | [`static8`] | bytes | 8 bits, a scale for each channel |
//! | [`weight_only`] | floats | 8, 4 or 2 bits, a scale for each group |
//!
//! Sums of products are exact integers on every machine; only their order in floats is left, and it is the same everywhere.

#![allow(
    clippy::needless_range_loop,
    reason = "rows, lanes and steps index several lists at once"
)]

pub mod dynamic;
pub mod embedding;
pub mod q4;
pub mod static8;
pub mod weight_only;

mod finish;

use crate::Isa;
use crate::isa::Extras;

/// How bytes are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dot {
    /// One by one.
    Scalar,
    /// aarch64, widening products.
    Neon,
    /// aarch64 with `sdot`.
    NeonDot,
    /// aarch64 with `smmla` for two rows and more, and `sdot` for one.
    NeonMatrix,
    /// AVX2 with `vpmaddubsw` and `vpmaddwd`.
    Avx2,
    /// The same in AVX-512 BW.
    Avx512,
    /// AVX-512 VNNI, `vpdpbusd`.
    Vnni,
}

impl Dot {
    /// The best way of this machine.
    pub fn best() -> Dot {
        Dot::of(Isa::best())
    }

    /// The best way of this machine within an instruction set.
    pub fn of(isa: Isa) -> Dot {
        let wanted = match isa {
            Isa::Avx512 if Extras::here().vnni => Dot::Vnni,
            Isa::Avx512 => Dot::Avx512,
            Isa::Avx2 => Dot::Avx2,
            Isa::Neon if Dot::NeonMatrix.is_here() => Dot::NeonMatrix,
            Isa::Neon if Extras::here().dotprod => Dot::NeonDot,
            Isa::Neon => Dot::Neon,
            _ => Dot::Scalar,
        };
        wanted.checked()
    }

    /// All that this machine has, from the plainest to the best.
    pub fn all() -> Vec<Dot> {
        [
            Dot::Scalar,
            Dot::Neon,
            Dot::NeonDot,
            Dot::NeonMatrix,
            Dot::Avx2,
            Dot::Avx512,
            Dot::Vnni,
        ]
        .into_iter()
        .filter(|dot| dot.is_here())
        .collect()
    }

    /// The instruction set that goes with it.
    pub fn isa(self) -> Isa {
        match self {
            Dot::Scalar => Isa::Scalar,
            Dot::Neon | Dot::NeonDot | Dot::NeonMatrix => Isa::Neon,
            Dot::Avx2 => Isa::Avx2,
            Dot::Avx512 | Dot::Vnni => Isa::Avx512,
        }
    }

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Dot::Scalar => "scalar",
            Dot::Neon => "neon",
            Dot::NeonDot => "neon dotprod",
            Dot::NeonMatrix => "neon i8mm",
            Dot::Avx2 => "avx2",
            Dot::Avx512 => "avx512",
            Dot::Vnni => "vnni",
        }
    }

    fn is_here(self) -> bool {
        let best = Isa::best();
        match self {
            Dot::Scalar => true,
            Dot::Neon => best == Isa::Neon,
            Dot::NeonDot => best == Isa::Neon && Extras::here().dotprod,
            Dot::NeonMatrix => best == Isa::Neon && Extras::here().dotprod && Extras::here().i8mm,
            Dot::Avx2 => best >= Isa::Avx2,
            Dot::Avx512 => best >= Isa::Avx512,
            Dot::Vnni => best >= Isa::Avx512 && Extras::here().vnni,
        }
    }

    /// This one, or the plain one where the machine has it not.
    pub(crate) fn checked(self) -> Dot {
        if self.is_here() { self } else { Dot::Scalar }
    }
}
