//! Tolerances.

use crate::leaf::{Leaf, to_f64};
use delegraph_types::DType;
use serde::{Deserialize, Serialize};

/// How far a result may be from what was recorded: `|got - want| <= atol + rtol * |want|`. Integers and booleans are exact;
/// NaN equals NaN, infinities equal themselves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tolerance {
    /// Relative to the wanted value.
    pub rtol: f64,
    /// Absolute.
    pub atol: f64,
}

/// How far a result was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Largest absolute difference.
    pub max_abs: f64,
    /// Largest relative difference, where the wanted value is not 0.
    pub max_rel: f64,
    /// Elements compared.
    pub elements: u64,
}

impl Difference {
    /// The worse of the two.
    pub fn join(self, other: Difference) -> Difference {
        Difference {
            max_abs: self.max_abs.max(other.max_abs),
            max_rel: self.max_rel.max(other.max_rel),
            elements: self.elements + other.elements,
        }
    }
}

/// Compares a result with what was recorded.
///
/// # Errors
/// A sentence naming dtype, shape or the first element that is too far.
pub fn compare(got: &Leaf, want: &Leaf, tolerance: Tolerance) -> Result<Difference, String> {
    match (got, want) {
        (
            Leaf::Tensor { dtype, shape, bytes },
            Leaf::Tensor {
                dtype: want_dtype,
                shape: want_shape,
                bytes: want_bytes,
            },
        ) => {
            if dtype != want_dtype || shape != want_shape {
                return Err(format!("got {}, want {}", got.describe(), want.describe()));
            }
            if !dtype.is_float() && !dtype.is_complex() {
                if bytes == want_bytes {
                    return Ok(Difference {
                        elements: (bytes.len() / dtype.size()) as u64,
                        ..Difference::default()
                    });
                }
                let exact = Tolerance { rtol: 0.0, atol: 0.0 };
                let difference = numbers(&to_f64(*dtype, bytes), &to_f64(*dtype, want_bytes), exact)?;
                // Large 64-bit integers that differ may be the same f64; any byte but 0 is true.
                return match dtype {
                    DType::Bool => Ok(difference),
                    _ => Err(format!("{} elements of 64 bits differ beyond 2^53", want.describe())),
                };
            }
            let parts = if dtype.is_complex() { 2 } else { 1 };
            compare_parts(&to_f64(*dtype, bytes), &to_f64(*dtype, want_bytes), parts, tolerance)
        }
        (Leaf::Float(a), Leaf::Float(b)) => numbers(&[*a], &[*b], tolerance),
        (Leaf::Int(a), Leaf::Float(b)) | (Leaf::Float(b), Leaf::Int(a)) => numbers(&[*a as f64], &[*b], tolerance),
        (a, b) if a == b => Ok(Difference::default()),
        (a, b) => Err(format!("got {}, want {}", a.describe(), b.describe())),
    }
}

fn numbers(got: &[f64], want: &[f64], tolerance: Tolerance) -> Result<Difference, String> {
    compare_parts(got, want, 1, tolerance)
}

/// Numbers of one part, or complex ones of two: their distance is that in the plane.
fn compare_parts(got: &[f64], want: &[f64], parts: usize, tolerance: Tolerance) -> Result<Difference, String> {
    if got.len() != want.len() {
        return Err(format!("got {} elements, want {}", got.len(), want.len()));
    }
    let count = got.len() / parts;
    let mut difference = Difference {
        elements: count as u64,
        ..Difference::default()
    };
    let size = |x: &[f64]| x.iter().fold(0.0, |sum: f64, part| sum.hypot(*part));
    let shown = |x: &[f64]| match x {
        [x] => format!("{x:?}"),
        parts => format!("{parts:?}"),
    };
    let mut wrong = 0usize;
    let mut first = None;
    for (i, (g, w)) in got.chunks_exact(parts).zip(want.chunks_exact(parts)).enumerate() {
        let is_nan = |x: &[f64]| x.iter().any(|part| part.is_nan());
        if g == w || (is_nan(g) && is_nan(w)) {
            continue;
        }
        let abs = match (g, w) {
            ([g], [w]) => (g - w).abs(),
            _ => g.iter().zip(w).fold(0.0, |sum: f64, (g, w)| sum.hypot(g - w)),
        };
        let (size, infinite) = (size(w), w.iter().any(|part| part.is_infinite()));
        difference.max_abs = if abs.is_nan() {
            f64::INFINITY
        } else {
            difference.max_abs.max(abs)
        };
        if size != 0.0 && abs.is_finite() {
            difference.max_rel = difference.max_rel.max(abs / size);
        }
        // A NaN on either side makes the comparison false, and so counts as wrong.
        let close = abs <= tolerance.atol + tolerance.rtol * size;
        if !close || infinite {
            wrong += 1;
            first.get_or_insert((i, g, w));
        }
    }
    match first {
        None => Ok(difference),
        Some((i, g, w)) => Err(format!(
            "{wrong} of {count} elements differ, the first at {i}: got {}, want {}; max_abs {:.3e} > atol {:e} + rtol {:e}",
            shown(g),
            shown(w),
            difference.max_abs,
            tolerance.atol,
            tolerance.rtol
        )),
    }
}

/// Largest distance of most elements under [`Lower::Steps`], in steps.
pub const FAR: f64 = 4.0;

/// The tolerance of a result that something computed in a lower precision has a part in, as a delegate's blob declares it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lower {
    /// This share of the largest finite value that is wanted.
    Range(f64),
    /// See [`steps`].
    Steps,
}

impl Lower {
    /// That of a precision by its name (`f16`, `bf16`, `int8`). `None`: it is none that grants anything.
    pub fn of(precision: &str) -> Option<Lower> {
        match precision {
            "f16" => Some(Lower::Range(2e-3)),
            "bf16" => Some(Lower::Range(1.6e-2)),
            _ if precision.starts_with("int") => Some(Lower::Steps),
            _ => None,
        }
    }

    /// The more generous of two.
    pub fn or(self, other: Lower) -> Lower {
        match (self, other) {
            (Lower::Range(a), Lower::Range(b)) => Lower::Range(a.max(b)),
            _ => Lower::Steps,
        }
    }

    /// Compares a result with what was recorded. What is no tensor of floats is granted nothing.
    ///
    /// # Errors
    /// A sentence naming dtype, shape or how far it is.
    pub fn compare(self, got: &Leaf, want: &Leaf) -> Result<Difference, String> {
        let exact = Tolerance { rtol: 0.0, atol: 0.0 };
        let Leaf::Tensor {
            dtype, bytes: wanted, ..
        } = want
        else {
            return compare(got, want, exact);
        };
        let Leaf::Tensor { bytes, .. } = got else {
            return compare(got, want, exact);
        };
        if !dtype.is_float() {
            return compare(got, want, exact);
        }
        let (found, wanted) = (to_f64(*dtype, bytes), to_f64(*dtype, wanted));
        let finite = wanted.iter().filter(|value| value.is_finite());
        let range = finite.fold(0.0, |most: f64, value| most.max(value.abs()));
        let atol = match self {
            Lower::Range(share) => share * range,
            // How far is judged below; a NaN or an infinity on one side alone is found here.
            Lower::Steps => f64::MAX,
        };
        let difference = compare(got, want, Tolerance { rtol: 0.0, atol })?;
        if self == Lower::Steps {
            steps(true, &found, &wanted)?;
        }
        Ok(difference)
    }
}

impl std::fmt::Display for Lower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Lower::Range(share) => write!(f, "{share:e} of the range"),
            Lower::Steps => write!(f, "mean < 1 step, 99th percentile <= {FAR} steps"),
        }
    }
}

/// Compares in steps of what is wanted, which are 1 for integers and a 255th of the range for floats: under 1 in the mean, and at most 4 for 99 of
/// 100 elements.
///
/// # Errors
/// How far it is.
pub fn steps(float: bool, got: &[f64], want: &[f64]) -> Result<(), String> {
    let finite = || want.iter().filter(|v| v.is_finite());
    let high = finite().fold(f64::NEG_INFINITY, |most: f64, v| most.max(*v));
    let low = finite().fold(f64::INFINITY, |least: f64, v| least.min(*v));
    let step = match float {
        true if high > low => (high - low) / 255.0,
        true => f64::MIN_POSITIVE.max(high.abs() / 255.0),
        false => 1.0,
    };
    let error = |(g, w): (&f64, &f64)| match (g - w).abs() {
        _ if g == w || (g.is_nan() && w.is_nan()) => 0.0,
        error if error.is_finite() => error / step,
        _ => f64::INFINITY,
    };
    let errors: Vec<f64> = got.iter().zip(want).map(error).collect();
    let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
    let far = errors.iter().filter(|error| **error > FAR).count();
    match mean < 1.0 && far * 100 <= errors.len() {
        true => Ok(()),
        false => Err(format!(
            "{mean:.2} steps of {step:.3e} in the mean, {far} of {} elements more than {FAR}",
            errors.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32]) -> Leaf {
        Leaf::Tensor {
            dtype: DType::F32,
            shape: vec![values.len() as i64],
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    #[test]
    fn what_passes_and_what_does_not() {
        let tolerance = Tolerance { rtol: 1e-3, atol: 1e-6 };
        let nan = f32::NAN;
        let inf = f32::INFINITY;
        for (got, want, pass) in [
            (1.0, 1.0005, true),
            (1.0, 1.01, false),
            (nan, nan, true),
            (nan, 1.0, false),
            (1.0, nan, false),
            (inf, inf, true),
            (inf, -inf, false),
            (1.0, inf, false),
            (-0.0, 0.0, true),
        ] {
            assert_eq!(
                compare(&tensor(&[got]), &tensor(&[want]), tolerance).is_ok(),
                pass,
                "{got} {want}"
            );
        }
        assert!(compare(&tensor(&[1.0]), &tensor(&[1.0, 2.0]), tolerance).is_err());
        assert!(compare(&Leaf::Int(1), &Leaf::None, tolerance).is_err());
    }

    #[test]
    fn complex_numbers_are_compared_in_the_plane() {
        let complex = |re: f32, im: f32| match tensor(&[re, im]).as_complex() {
            Some(leaf) => leaf,
            None => panic!("two floats are a complex number"),
        };
        let tolerance = Tolerance { rtol: 1e-3, atol: 0.0 };
        for (got, want, pass) in [
            (complex(1000.0, 0.5), complex(1000.0, 0.0), true),
            (complex(1000.0, 2.0), complex(1000.0, 0.0), false),
            (complex(f32::NAN, 0.0), complex(1.0, f32::NAN), true),
            (complex(f32::INFINITY, 0.0), complex(f32::INFINITY, 1.0), false),
        ] {
            assert_eq!(compare(&got, &want, tolerance).is_ok(), pass, "{got:?} {want:?}");
        }
    }

    #[test]
    fn integers_are_exact() {
        let int = |v: i64| Leaf::Tensor {
            dtype: DType::I64,
            shape: vec![],
            bytes: v.to_le_bytes().to_vec(),
        };
        let loose = Tolerance { rtol: 1.0, atol: 10.0 };
        assert!(compare(&int(3), &int(3), loose).is_ok());
        assert!(compare(&int(3), &int(4), loose).is_err());
        assert!(compare(&int((1 << 53) + 1), &int(1 << 53), loose).is_err());
    }

    #[test]
    fn a_declared_precision_grants_what_its_name_says() {
        let floats = |values: &[f32]| Leaf::Tensor {
            dtype: DType::F32,
            shape: vec![values.len() as i64],
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        let want = floats(&[0.0, 1.0, -2.0]);
        let by = |precision: &str, values: &[f32]| {
            Lower::of(precision).map(|lower| lower.compare(&floats(values), &want).is_ok())
        };
        assert_eq!(by("f16", &[0.0039, 1.0, -2.0]), Some(true));
        assert_eq!(by("f16", &[0.0041, 1.0, -2.0]), Some(false));
        // A step is 3 / 255; two elements of three may be one off, and none five.
        assert_eq!(by("int8", &[0.0118, 1.0118, -2.0]), Some(true));
        assert_eq!(by("int8", &[0.06, 1.0, -2.0]), Some(false));
        assert_eq!(by("int8", &[f32::NAN, 1.0, -2.0]), Some(false));
        assert_eq!(by("int8", &[0.0, f32::INFINITY, -2.0]), Some(false));
        assert_eq!(by("int8", &[0.0, 1.0]), Some(false));
        assert_eq!(by("f32", &[0.0, 1.0, -2.0]), None);
        assert_eq!(Lower::Range(2e-3).or(Lower::Steps), Lower::Steps);
    }
}
