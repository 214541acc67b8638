//! Instruction sets, as they are found at run time.

use std::fmt;
use std::sync::OnceLock;

/// An instruction set that kernels are compiled for. A later one of the same processor family includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// No vectors but those that the compiler makes; everywhere.
    Scalar,
    /// aarch64's vectors of 128 bits.
    Neon,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
}

/// What there is besides the vectors: products of bytes, four at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extras {
    /// AVX-512 VNNI: `vpdpbusd`, unsigned by signed.
    pub vnni: bool,
    /// aarch64's `sdot`, signed by signed.
    pub dotprod: bool,
    /// aarch64's `smmla`, 2 by 8 times 8 by 2.
    pub i8mm: bool,
}

impl Isa {
    /// The best of this machine.
    pub fn best() -> Isa {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| *Isa::all().last().unwrap_or(&Isa::Scalar))
    }

    /// All that this machine runs, from the plainest to the best.
    pub fn all() -> Vec<Isa> {
        #[cfg_attr(
            not(any(target_arch = "x86_64", target_arch = "aarch64")),
            expect(unused_mut, reason = "other processors have nothing to add")
        )]
        let mut all = vec![Isa::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as have;
            if have!("avx2") && have!("fma") && have!("f16c") {
                all.push(Isa::Avx2);
                if have!("avx512f") && have!("avx512bw") && have!("avx512dq") && have!("avx512vl") {
                    all.push(Isa::Avx512);
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        all.push(Isa::Neon);
        all
    }

    /// The name in options and reports.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Neon => "neon",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }
}

impl Extras {
    /// Those of this machine.
    pub fn here() -> Extras {
        static HERE: OnceLock<Extras> = OnceLock::new();
        *HERE.get_or_init(Extras::detect)
    }

    #[cfg(target_arch = "x86_64")]
    fn detect() -> Extras {
        Extras {
            vnni: Isa::all().contains(&Isa::Avx512) && std::arch::is_x86_feature_detected!("avx512vnni"),
            ..Extras::default()
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn detect() -> Extras {
        Extras {
            dotprod: std::arch::is_aarch64_feature_detected!("dotprod"),
            i8mm: std::arch::is_aarch64_feature_detected!("i8mm"),
            ..Extras::default()
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn detect() -> Extras {
        Extras::default()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
