//! How far a result may be from what was recorded, by the class of what computes it.
//!
//! A tolerance follows from the class, the dtype and the length of the sum alone; `vendor-docs/conformance-tolerances.md` says why each
//! number is what it is. None was chosen by what a delegate gives.

use delegraph_runner::Leaf;
use delegraph_runner::compare::FAR;
use delegraph_runner::leaf::to_f64;
use delegraph_types::{DType, bf16, f16};

/// What computes a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Moves, compares or rounds to integers: every element is the same.
    Exact,
    /// A few correctly rounded operations for each element.
    Elementwise,
    /// A sum of `k` terms for each element.
    Reduction,
    /// Functions that no hardware rounds correctly.
    Transcendental,
    /// A whole network of floats.
    Network,
    /// Quantized numbers that are moved, not computed: not a step apart.
    QuantizedExact,
    /// Numbers that become quantized.
    QuantizedRounding,
    /// An operator between quantized numbers.
    Quantized,
    /// Several quantized operators in a row.
    QuantizedDeep,
    /// Floats out of activations that are quantized as they are at run time.
    QuantizedDynamic,
    /// A whole network of quantized numbers, with floats at its end.
    QuantizedNetwork,
}

/// What is judged otherwise than usual, because hardware differs in it and a network seldom needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    Usual,
    /// NaN and infinities are among the values. NaN is as NaN, an infinity as itself.
    NonFinite,
    /// Denormal numbers are among the values: they, and results in their range, may be flushed to zero. What happened is reported.
    Denormal,
    /// Values near the ends of the range: results below the smallest normal number may be flushed, and infinity will do for those within a
    /// factor of 8 of the largest number.
    Range,
    /// Zeros with a sign are among the values. Whether it is kept is reported.
    NegativeZero,
    /// Numbers are moved: a zero keeps its sign.
    Bits,
}

/// How a result is judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// What computes it.
    pub class: Class,
    /// Terms of the sum.
    pub k: u64,
    /// What is judged otherwise.
    pub policy: Policy,
}

/// In units in the last place: what OpenCL grants single precision for division and roots is 3 at most, and half a unit is in what was
/// recorded.
const ELEMENTWISE: f64 = 4.0;
/// The same for 16 bits, which hardware computes in more of them.
const ELEMENTWISE_16: f64 = 2.0;
/// What OpenCL and Vulkan grant the worst of the usual functions in single precision: `pow` and `erf`.
const TRANSCENDENTAL: f64 = 16.0;
/// And for 16 bits.
const TRANSCENDENTAL_16: f64 = 4.0;
/// A sum of k terms is off by less than 4 √k u Σ|terms| in any order of adding, but for one in thousands of sums; u is half of ε.
const SUM: f64 = 2.0;
/// A network of floats, relative to the range of its output: fifty layers, each off by what a layer may be.
const NETWORK: f64 = 1e-4;
/// Elements that may be a step away, of a hundred.
const STEP_APART: f64 = 5.0;
/// The same where nothing but the rounding itself can differ.
const STEP_APART_ROUNDING: f64 = 1.0;
/// How much larger than a result what leads to it may be: `x * relu6(x + 3) / 6` is six times `hardswish`, and overflows in PyTorch, too.
const OVERFLOW: f64 = 8.0;
/// Below this cosine between result and want a declared lower precision is worth a warning.
const LOW_COSINE: f64 = 0.999;

impl Rule {
    /// By the names that the index has.
    ///
    /// # Errors
    /// There is no such class or policy.
    pub fn new(class: &str, k: u64, policy: &str) -> Result<Rule, String> {
        let class = match class {
            "exact" => Class::Exact,
            "elementwise" => Class::Elementwise,
            "reduction" => Class::Reduction,
            "transcendental" => Class::Transcendental,
            "network" => Class::Network,
            "quantized-exact" => Class::QuantizedExact,
            "quantized-rounding" => Class::QuantizedRounding,
            "quantized" => Class::Quantized,
            "quantized-deep" => Class::QuantizedDeep,
            "quantized-dynamic" => Class::QuantizedDynamic,
            "quantized-network" => Class::QuantizedNetwork,
            _ => return Err(format!("there is no class `{class}`")),
        };
        let policy = match policy {
            "" => Policy::Usual,
            "non-finite" => Policy::NonFinite,
            "denormal" => Policy::Denormal,
            "range" => Policy::Range,
            "negative-zero" => Policy::NegativeZero,
            "bits" => Policy::Bits,
            _ => return Err(format!("there is no policy `{policy}`")),
        };
        Ok(Rule { class, k, policy })
    }

    /// The limit of a result of this dtype, where the blob declares this precision; none: that of the graph.
    pub fn limit(&self, dtype: DType, precision: &str) -> Limit {
        let small = matches!(dtype, DType::F16 | DType::BF16);
        let lower = precision != dtype.name() && !precision.is_empty();
        if !dtype.is_float() {
            let apart = |percent| Limit::Apart { percent };
            return match self.class {
                // Devices cut sums of 16-bit numbers at some bit below them, and a step is a 65536th of the range.
                Class::Quantized if matches!(dtype, DType::I16 | DType::U16) => Limit::Steps,
                Class::Quantized => apart(STEP_APART),
                Class::QuantizedRounding => apart(STEP_APART_ROUNDING),
                Class::QuantizedDeep => Limit::Steps,
                _ => Limit::Exact,
            };
        }
        if lower && !matches!(self.class, Class::Exact | Class::QuantizedExact) {
            return match precision {
                "f16" => Limit::Range(2e-3),
                "bf16" => Limit::Range(1.6e-2),
                _ if precision.starts_with("int") || precision.starts_with('i') => Limit::Steps,
                // A name that nobody knows grants nothing.
                _ => self.limit(dtype, ""),
            };
        }
        let (elementwise, transcendental) = match small {
            true => (ELEMENTWISE_16, TRANSCENDENTAL_16),
            false => (ELEMENTWISE, TRANSCENDENTAL),
        };
        let sum = SUM * (self.k.max(1) as f64).sqrt();
        let ulp = |units, sum| Limit::Ulp { units, sum };
        match self.class {
            Class::Exact | Class::QuantizedExact => Limit::Exact,
            Class::Elementwise | Class::QuantizedRounding => ulp(elementwise, SUM),
            Class::Reduction => ulp(elementwise, sum),
            Class::Transcendental => ulp(transcendental, SUM),
            Class::Network => Limit::Range(NETWORK),
            // An activation that is rounded to the other neighbour moves the sum by a step of it.
            Class::QuantizedDynamic => ulp(
                elementwise,
                1.0 / (64.0 * (self.k.max(1) as f64).sqrt() * epsilon(dtype)),
            ),
            Class::Quantized | Class::QuantizedDeep | Class::QuantizedNetwork => Limit::Steps,
        }
    }
}

/// A limit for the elements of a result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// All the same.
    Exact,
    /// `units` in the last place of the wanted value, and `sum` times ε times the magnitude that was recorded.
    Ulp {
        /// Units in the last place.
        units: f64,
        /// Of ε times the magnitude.
        sum: f64,
    },
    /// This share of the largest finite value that is wanted.
    Range(f64),
    /// Integers: never more than one step apart, and that in less than so many elements of a hundred.
    Apart {
        /// Of a hundred.
        percent: f64,
    },
    /// In steps of the result, which are 1 for integers and a 255th of its range for floats: under 1 in the mean, and at most 4 for 99 of
    /// 100 elements.
    Steps,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Limit::Exact => write!(f, "exact"),
            Limit::Ulp { units, sum } => write!(f, "{units} ULP + {sum:.3} ε Σ|terms|"),
            Limit::Range(share) => write!(f, "{share:e} of the range"),
            Limit::Apart { percent } => write!(f, "1 step, in less than {percent} % of elements"),
            Limit::Steps => write!(f, "mean < 1 step, 99th percentile <= {FAR} steps"),
        }
    }
}

/// What a comparison found.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Measure {
    /// Largest absolute difference of finite values.
    pub max_abs: f64,
    /// Largest relative one, where the wanted value is not 0.
    pub max_rel: f64,
    /// Largest one in units in the last place of the wanted value; in steps for integers.
    pub max_ulp: f64,
    /// Signal to noise; `None`: no noise.
    pub snr_db: Option<f64>,
    /// Of the angle between result and want; `None`: one of them is 0.
    pub cosine: Option<f64>,
    /// Whether a denormal number came back as 0; `None`: none was wanted.
    pub flushed: Option<bool>,
    /// Whether each zero kept its sign; `None`: no negative zero was wanted.
    pub signed_zero: Option<bool>,
}

impl Measure {
    /// The worse of two.
    pub fn join(self, other: Measure) -> Measure {
        let least = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Measure {
            max_abs: self.max_abs.max(other.max_abs),
            max_rel: self.max_rel.max(other.max_rel),
            max_ulp: self.max_ulp.max(other.max_ulp),
            snr_db: least(self.snr_db, other.snr_db),
            cosine: least(self.cosine, other.cosine),
            flushed: self.flushed.max(other.flushed),
            signed_zero: match (self.signed_zero, other.signed_zero) {
                (Some(a), Some(b)) => Some(a && b),
                (a, b) => a.or(b),
            },
        }
    }

    /// Whether it is worth a warning, given that it is within a limit of a lower precision.
    pub fn is_poor(&self) -> bool {
        self.cosine.is_some_and(|cosine| cosine < LOW_COSINE)
    }
}

/// What is wanted of a result.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    /// Rounded to the dtype.
    pub rounded: &'a Leaf,
    /// Before it was, where that is known.
    pub precise: Option<&'a Leaf>,
    /// By element, the magnitude that its rounding is measured by; absent: 0.
    pub scale: Option<&'a Leaf>,
}

/// Compares a result with what is wanted.
///
/// # Errors
/// One sentence: dtype or sizes differ, or the first element that is too far, with how many are. What was measured comes with both.
pub fn judge(rule: &Rule, precision: &str, got: &Leaf, want: Want<'_>) -> (Measure, Result<(), String>) {
    let nothing = Measure::default();
    let (
        Leaf::Tensor { dtype, shape, bytes },
        Leaf::Tensor {
            dtype: wanted,
            shape: sizes,
            bytes: want_bytes,
        },
    ) = (got, want.rounded)
    else {
        return (
            nothing,
            Err(format!("got {}, want {}", got.describe(), want.rounded.describe())),
        );
    };
    if dtype != wanted || shape != sizes || bytes.len() != want_bytes.len() {
        return (
            nothing,
            Err(format!("got {}, want {}", got.describe(), want.rounded.describe())),
        );
    }
    let values = |leaf: &Leaf| match leaf {
        Leaf::Tensor { dtype, bytes, .. } => to_f64(*dtype, bytes),
        _ => Vec::new(),
    };
    let (got, rounded) = (values(got), values(want.rounded));
    let precise = want.precise.map(values).filter(|v| v.len() == got.len());
    let precise = precise.unwrap_or_else(|| rounded.clone());
    let scale = want.scale.map(values).filter(|v| v.len() == got.len());
    let limit = rule.limit(*dtype, precision);
    let mut measure = measure(*dtype, &got, &precise);
    observe(rule.policy, *dtype, &got, &rounded, &mut measure);
    if bytes == want_bytes {
        return (measure, Ok(()));
    }
    if *dtype == DType::I64 && got == rounded && limit == Limit::Exact {
        return (measure, Err("integers differ beyond 2^53".to_string()));
    }
    let range = precise
        .iter()
        .filter(|v| v.is_finite())
        .fold(0.0, |most: f64, v| most.max(v.abs()));
    let result = match limit {
        Limit::Apart { percent } => apart(&got, &rounded, percent),
        Limit::Steps => delegraph_runner::compare::steps(dtype.is_float(), &got, &precise),
        _ => {
            let allowed = |i: usize| {
                let flush = match rule.policy {
                    Policy::Denormal => smallest(*dtype),
                    Policy::Range if limit != Limit::Exact => smallest(*dtype),
                    _ => 0.0,
                };
                let by = |limit: Limit| match limit {
                    Limit::Ulp { units, sum } => {
                        let scale = scale.as_ref().map_or(0.0, |scale| scale[i]);
                        units * ulp(*dtype, precise[i]) + sum * epsilon(*dtype) * scale
                    }
                    Limit::Range(share) => share * range,
                    _ => 0.0,
                };
                // A declaration takes nothing away: bf16 is rounded to fewer bits than f16 has.
                flush + by(limit).max(by(rule.limit(*dtype, "")))
            };
            each(*dtype, rule.policy, shape, &got, &rounded, &precise, &allowed)
        }
    };
    (measure, result)
}

/// Every element by itself.
fn each(
    dtype: DType,
    policy: Policy,
    shape: &[i64],
    got: &[f64],
    rounded: &[f64],
    precise: &[f64],
    allowed: &dyn Fn(usize) -> f64,
) -> Result<(), String> {
    let fits = |i: usize| {
        let (got, want) = (got[i], precise[i]);
        if got.is_nan() || want.is_nan() {
            return got.is_nan() && want.is_nan();
        }
        if policy == Policy::Bits && got == 0.0 && want == 0.0 {
            return got.is_sign_negative() == want.is_sign_negative();
        }
        // What is too large for the dtype is an infinity of it, and so may be what is nearly.
        let edge = match policy {
            Policy::Range => largest(dtype) / OVERFLOW,
            _ => largest(dtype) - allowed(i),
        };
        if got.is_infinite() || rounded[i].is_infinite() {
            return got == rounded[i]
                || (rounded[i].is_finite() && got.signum() == want.signum() && want.abs() >= edge)
                || (got.is_finite()
                    && got.signum() == rounded[i].signum()
                    && got.abs() >= edge
                    && precise[i].is_finite());
        }
        got == want || (got - want).abs() <= allowed(i)
    };
    let wrong: Vec<usize> = (0..got.len()).filter(|&i| !fits(i)).collect();
    match wrong.first() {
        None => Ok(()),
        Some(&i) => Err(format!(
            "{} of {} elements differ, the first at {:?}: got {:?}, want {:?}, which may be {:.3e} apart",
            wrong.len(),
            got.len(),
            place(i, shape),
            got[i],
            precise[i],
            allowed(i)
        )),
    }
}

/// Never more than a step, and that seldom.
fn apart(got: &[f64], want: &[f64], percent: f64) -> Result<(), String> {
    let far = got.iter().zip(want).filter(|(g, w)| (*g - *w).abs() > 1.0).count();
    let near = got.iter().zip(want).filter(|(g, w)| (*g - *w).abs() == 1.0).count();
    let count = got.len();
    // One element of a small tensor says nothing of a share.
    let most = (count as f64 * percent / 100.0).max(1.0);
    match far == 0 && near as f64 <= most {
        true => Ok(()),
        false => {
            let first = got
                .iter()
                .zip(want)
                .position(|(g, w)| (g - w).abs() > if far > 0 { 1.0 } else { 0.0 });
            let i = first.unwrap_or_default();
            Err(format!(
                "{far} of {count} elements are more than a step apart, {near} one step; the first at {i}: got {}, want {}",
                got[i], want[i]
            ))
        }
    }
}

/// Numbers for the record, of finite elements.
fn measure(dtype: DType, got: &[f64], want: &[f64]) -> Measure {
    let mut found = Measure::default();
    let (mut signal, mut noise, mut dot, mut size) = (0.0, 0.0, 0.0, 0.0);
    for (&g, &w) in got.iter().zip(want) {
        if !g.is_finite() || !w.is_finite() {
            continue;
        }
        let error = (g - w).abs();
        found.max_abs = found.max_abs.max(error);
        if w != 0.0 {
            found.max_rel = found.max_rel.max(error / w.abs());
        }
        let unit = if dtype.is_float() { ulp(dtype, w) } else { 1.0 };
        found.max_ulp = found.max_ulp.max(error / unit);
        signal += w * w;
        noise += error * error;
        dot += g * w;
        size += g * g;
    }
    found.snr_db = (noise > 0.0 && signal > 0.0).then(|| 10.0 * (signal / noise).log10());
    let lengths = (signal * size).sqrt();
    found.cosine = (lengths > 0.0 && lengths.is_finite()).then(|| (dot / lengths).clamp(-1.0, 1.0));
    found
}

/// What is reported and not judged.
fn observe(policy: Policy, dtype: DType, got: &[f64], want: &[f64], measure: &mut Measure) {
    if !dtype.is_float() {
        return;
    }
    let pairs = || got.iter().zip(want);
    if policy == Policy::Denormal {
        let tiny = |w: f64| w != 0.0 && w.abs() < smallest(dtype);
        if pairs().any(|(_, w)| tiny(*w)) {
            measure.flushed = Some(pairs().any(|(g, w)| tiny(*w) && *g == 0.0));
        }
    }
    if policy == Policy::NegativeZero && pairs().any(|(_, w)| *w == 0.0 && w.is_sign_negative()) {
        let kept = |(g, w): (&f64, &f64)| *w != 0.0 || g.is_sign_negative() == w.is_sign_negative();
        measure.signed_zero = Some(pairs().all(kept));
    }
}

/// Position of an element.
fn place(mut i: usize, shape: &[i64]) -> Vec<usize> {
    let mut index: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&size| {
            let size = usize::try_from(size).unwrap_or(1).max(1);
            let at = i % size;
            i /= size;
            at
        })
        .collect();
    index.reverse();
    index
}

/// The dtype whose range a declared precision leaves of this one.
pub fn narrower(dtype: DType, precision: &str) -> DType {
    match (dtype, precision) {
        (DType::F32 | DType::F64, "f16") => DType::F16,
        _ => dtype,
    }
}

/// Bits of the significand behind the point, and the exponent of the smallest normal number.
fn format(dtype: DType) -> (i32, i32) {
    match dtype {
        DType::F16 => (10, -14),
        DType::BF16 => (7, -126),
        DType::F64 => (52, -1022),
        _ => (23, -126),
    }
}

/// Distance from 1 to the next number.
pub fn epsilon(dtype: DType) -> f64 {
    2f64.powi(-format(dtype).0)
}

/// Smallest normal number.
fn smallest(dtype: DType) -> f64 {
    2f64.powi(format(dtype).1)
}

/// Largest finite number.
pub fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => f16::MAX.to_f64(),
        DType::BF16 => bf16::MAX.to_f64(),
        DType::F64 => f64::MAX,
        _ => f64::from(f32::MAX),
    }
}

/// Unit in the last place of a value.
pub fn ulp(dtype: DType, value: f64) -> f64 {
    let (bits, least) = format(dtype);
    let size = value.abs();
    if !size.is_finite() {
        return 0.0;
    }
    let exponent = match size >= smallest(dtype) {
        // The exponent field of a normal f64.
        true => ((size.to_bits() >> 52) & 0x7ff) as i32 - 1023,
        false => least,
    };
    2f64.powi(exponent - bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(values: &[f32]) -> Leaf {
        Leaf::Tensor {
            dtype: DType::F32,
            shape: vec![values.len() as i64],
            bytes: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }

    fn i8s(values: &[i8]) -> Leaf {
        Leaf::Tensor {
            dtype: DType::I8,
            shape: vec![values.len() as i64],
            bytes: values.iter().map(|v| *v as u8).collect(),
        }
    }

    fn passes(
        class: &str,
        k: u64,
        policy: &str,
        precision: &str,
        got: &Leaf,
        want: &Leaf,
        scale: Option<&Leaf>,
    ) -> bool {
        let rule = Rule::new(class, k, policy).unwrap();
        let want = Want {
            rounded: want,
            precise: None,
            scale,
        };
        judge(&rule, precision, got, want).1.is_ok()
    }

    #[test]
    fn units_in_the_last_place() {
        assert_eq!(ulp(DType::F32, 1.0), f64::from(f32::EPSILON));
        assert_eq!(ulp(DType::F32, -1.5), f64::from(f32::EPSILON));
        assert_eq!(ulp(DType::F32, 2.0), 2.0 * f64::from(f32::EPSILON));
        assert_eq!(ulp(DType::F32, 0.0), f64::from(f32::from_bits(1)));
        assert_eq!(ulp(DType::F16, 1024.0), 1.0);
        assert_eq!(ulp(DType::BF16, 128.0), 1.0);
        let next = |x: f32, n: u32| f32::from_bits(x.to_bits() + n);
        let one = f32s(&[1.1]);
        assert!(passes("elementwise", 1, "", "", &f32s(&[next(1.1, 4)]), &one, None));
        assert!(!passes("elementwise", 1, "", "", &f32s(&[next(1.1, 5)]), &one, None));
        assert!(passes("transcendental", 1, "", "", &f32s(&[next(1.1, 16)]), &one, None));
        assert!(!passes(
            "transcendental",
            1,
            "",
            "",
            &f32s(&[next(1.1, 17)]),
            &one,
            None
        ));
        assert!(!passes("exact", 1, "", "", &f32s(&[next(1.1, 1)]), &one, None));
    }

    #[test]
    fn sums_are_measured_by_their_terms() {
        let (want, scale) = (f32s(&[0.0]), f32s(&[100.0]));
        // 2 * sqrt(16) * 2^-23 * 100 = 9.5e-5
        assert!(passes("reduction", 16, "", "", &f32s(&[9e-5]), &want, Some(&scale)));
        assert!(!passes("reduction", 16, "", "", &f32s(&[1e-4]), &want, Some(&scale)));
        assert!(!passes("reduction", 16, "", "", &f32s(&[9e-5]), &want, None));
    }

    #[test]
    fn special_values() {
        let (nan, inf, tiny) = (f32::NAN, f32::INFINITY, 1e-40f32);
        for (got, want, policy, pass) in [
            (nan, nan, "", true),
            (nan, 1.0, "", false),
            (1.0, nan, "non-finite", false),
            (inf, inf, "", true),
            (-inf, inf, "", false),
            (1.0, inf, "", false),
            (inf, 1.0, "range", false),
            (0.0, tiny, "", false),
            (0.0, tiny, "denormal", true),
            (1e-30, tiny, "denormal", false),
            (0.0, -0.0, "", true),
            (0.0, -0.0, "negative-zero", true),
            (0.0, -0.0, "bits", false),
            (f32::MAX, inf, "", false),
            (inf, 3e38, "range", true),
            (inf, 3e38, "", false),
            (-inf, 3e38, "range", false),
            (inf, 3e37, "range", false),
        ] {
            let found = passes("elementwise", 1, policy, "", &f32s(&[got]), &f32s(&[want]), None);
            assert_eq!(found, pass, "{got} for {want}, {policy}");
        }
        let rule = Rule::new("exact", 1, "negative-zero").unwrap();
        let (got, want) = (f32s(&[0.0]), f32s(&[-0.0]));
        let want = Want {
            rounded: &want,
            precise: None,
            scale: None,
        };
        assert_eq!(judge(&rule, "", &got, want).0.signed_zero, Some(false));
    }

    #[test]
    fn steps_of_quantized_numbers() {
        let want: Vec<i8> = (0..100).collect();
        let off = |count: usize, by: i8| {
            i8s(&want
                .iter()
                .enumerate()
                .map(|(i, v)| if i < count { v + by } else { *v })
                .collect::<Vec<_>>())
        };
        let want = i8s(&want);
        for (class, count, by, pass) in [
            ("quantized", 5, 1, true),
            ("quantized", 6, 1, false),
            ("quantized", 1, 2, false),
            ("quantized-rounding", 1, -1, true),
            ("quantized-rounding", 2, 1, false),
            ("quantized-exact", 1, 1, false),
            ("quantized-deep", 100, 1, false),
            ("quantized-deep", 99, 1, true),
            ("quantized-deep", 1, 9, true),
            ("quantized-deep", 2, 9, false),
        ] {
            assert_eq!(
                passes(class, 1, "", "", &off(count, by), &want, None),
                pass,
                "{class} {count} {by}"
            );
        }
    }

    #[test]
    fn sixteen_bits_are_judged_by_their_mean() {
        let want = |by: i16| Leaf::Tensor {
            dtype: DType::I16,
            shape: vec![100],
            bytes: (0..100i16)
                .flat_map(|i| (i + if i < 30 { by } else { 0 }).to_le_bytes())
                .collect(),
        };
        // 30 of 100 a step apart are 0.3 of a step in the mean; 5 steps are too far for them.
        assert!(passes("quantized", 1, "", "", &want(1), &want(0), None));
        assert!(!passes("quantized", 1, "", "", &want(5), &want(0), None));
        assert!(!passes("quantized-exact", 1, "", "", &want(1), &want(0), None));
    }

    #[test]
    fn a_declared_precision_is_granted_and_no_other() {
        let (got, want) = (f32s(&[10.015, 0.01]), f32s(&[10.0, 0.0]));
        for (precision, pass) in [
            ("", false),
            ("f32", false),
            ("f16", true),
            ("bf16", true),
            ("int8", true),
            ("magic", false),
        ] {
            assert_eq!(
                passes("reduction", 4, "", precision, &got, &want, None),
                pass,
                "{precision}"
            );
            assert!(!passes("exact", 1, "", precision, &got, &want, None), "{precision}");
        }
    }

    #[test]
    fn a_declared_precision_takes_nothing_away() {
        let bf16s = |value: f32| Leaf::Tensor {
            dtype: DType::BF16,
            shape: vec![1],
            bytes: bf16::from_f32(value).to_le_bytes().to_vec(),
        };
        // Half a unit of bf16 at 1 is 2^-8, twice what f16 leaves of the range.
        let (got, rounded) = (bf16s(1.0), bf16s(1.0));
        let precise = f32s(&[1.0 + 1.0 / 256.0]);
        let want = Want {
            rounded: &rounded,
            precise: Some(&precise),
            scale: None,
        };
        let other = bf16s(1.0 + 1.0 / 128.0);
        let rule = Rule::new("reduction", 4, "").unwrap();
        assert!(judge(&rule, "f16", &other, want).1.is_ok());
        assert!(judge(&rule, "f16", &got, want).1.is_ok());
        assert!(judge(&rule, "f16", &bf16s(1.0625), want).1.is_err());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let rule = Rule::new("exact", 1, "").unwrap();
        let tensor = |values: &[f32]| match f32s(values) {
            Leaf::Tensor { dtype, bytes, .. } => Leaf::Tensor {
                dtype,
                shape: vec![2, 2],
                bytes,
            },
            other => other,
        };
        let want = tensor(&[1.0, 2.0, 3.0, 4.0]);
        let want = Want {
            rounded: &want,
            precise: None,
            scale: None,
        };
        let (measure, result) = judge(&rule, "", &tensor(&[1.0, 2.0, 3.5, 4.0]), want);
        let error = result.unwrap_err();
        assert!(
            error.starts_with("1 of 4 elements differ, the first at [1, 0]: got 3.5, want 3.0"),
            "{error}"
        );
        assert_eq!((measure.max_abs, measure.max_ulp), (0.5, 0.5 / ulp(DType::F32, 3.0)));
        assert!((measure.snr_db.unwrap() - 20.79).abs() < 0.01);
        let error = judge(&rule, "", &f32s(&[1.0]), want).1.unwrap_err();
        assert_eq!(error, "got f32[1], want f32[2,2]");
    }
}
