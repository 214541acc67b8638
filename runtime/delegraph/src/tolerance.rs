//! How far a delegate's output may be from that of the portable kernels, by dtype and by the precision that its blob declares.

use delegraph_types::{DType, bf16, f16};

/// A limit for the elements of one output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit {
    /// Every element is the same.
    Exact,
    /// `|got - want| <= of_range * max |want| + of_value * |want|`: the largest finite value of the output is its range, and what
    /// is tiny beside it is judged by it.
    Float { of_range: f64, of_value: f64 },
    /// In steps of the output, which are 1 for integers and a 255th of its range for floats: under 1 in the mean, and at most 4
    /// for 99 of 100 elements.
    Steps,
}

/// The limit of an output of this dtype where the blob declares this precision; none: that of the graph.
pub(crate) fn limit(dtype: DType, precision: &str) -> Limit {
    let float = |of_range, of_value| Limit::Float { of_range, of_value };
    let quantized = precision.starts_with("int") || precision.starts_with("i8") || precision.starts_with("i4");
    match (dtype, precision) {
        (DType::I8 | DType::U8 | DType::I16, _) => Limit::Steps,
        (dtype, _) if !dtype.is_float() && !dtype.is_complex() => Limit::Exact,
        _ if quantized => Limit::Steps,
        // Eight bits of a number are kept, and sums of such numbers are made.
        (DType::BF16, _) | (_, "bf16") => float(1.6e-2, 1.6e-2),
        (DType::F16, _) | (_, "f16") => float(2e-3, 2e-3),
        (DType::F32 | DType::C64, _) => float(1e-4, 1e-3),
        (DType::F64 | DType::C128, _) => float(1e-9, 1e-6),
        // Formats of 8 bits.
        _ => float(0.13, 0.13),
    }
}

/// Whether `got` is within a limit of `want`. NaN is as NaN and nothing else, an infinity as itself.
///
/// # Errors
/// `differs from the portable plan: ...`: how much and where.
pub(crate) fn judge(dtype: DType, got: &[u8], want: &[u8], limit: Limit) -> Result<(), String> {
    if got == want {
        return Ok(());
    }
    if limit == Limit::Exact {
        let wrong = |i: &usize| {
            got.get(i * dtype.size()..(i + 1) * dtype.size()) != want.get(i * dtype.size()..(i + 1) * dtype.size())
        };
        let count = want.len() / dtype.size();
        let differing: Vec<usize> = (0..count).filter(wrong).collect();
        let first = differing.first().copied().unwrap_or_default();
        return Err(format!(
            "differs from the portable plan in {} of {count} elements that have to be equal, first at element {first}",
            differing.len()
        ));
    }
    let (got, want) = (numbers(dtype, got), numbers(dtype, want));
    if got.len() != want.len() {
        return Err(format!(
            "has {} elements, by the portable plan {}",
            got.len(),
            want.len()
        ));
    }
    let finite = || want.iter().filter(|value| value.is_finite());
    let range = finite().fold(0.0, |range: f64, value| range.max(value.abs()));
    let span = finite().fold(f64::NEG_INFINITY, |high: f64, value| high.max(*value))
        - finite().fold(f64::INFINITY, |low: f64, value| low.min(*value));
    let step = match dtype.is_float() {
        true if span > 0.0 => span / 255.0,
        true => f64::MIN_POSITIVE.max(range / 255.0),
        false => 1.0,
    };
    let (mut wrong, mut worst, mut sum, mut far) = (0u64, (0.0f64, 0usize), 0.0, 0u64);
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        if got == want || (got.is_nan() && want.is_nan()) {
            continue;
        }
        // A NaN or an infinity on one side alone is no number's neighbour.
        let error = match (got - want).abs() {
            error if error.is_finite() => error,
            _ => f64::INFINITY,
        };
        if error > worst.0 {
            worst = (error, i);
        }
        match limit {
            Limit::Exact => wrong += 1,
            Limit::Float { of_range, of_value } => {
                let allowed = of_range * range + of_value * want.abs();
                wrong += u64::from(error.is_infinite() || error > allowed);
            }
            Limit::Steps => {
                sum += error / step;
                far += u64::from(error > 4.0 * step);
            }
        }
    }
    let count = want.len() as u64;
    let differs = match limit {
        Limit::Steps => sum >= count as f64 || far * 100 > count,
        _ => wrong > 0,
    };
    if !differs {
        return Ok(());
    }
    let (error, at) = worst;
    let how_many = match limit {
        Limit::Steps => format!(
            "{:.2} steps in the mean, {far} of {count} elements more than 4",
            sum / count as f64
        ),
        _ => format!("{wrong} of {count} elements"),
    };
    Err(format!(
        "differs from the portable plan: max abs error {error:.3e} at element {at} ({:?}, portable {:?}), {how_many}",
        got[at], want[at]
    ))
}

/// The elements of a dense tensor; complex ones as two numbers each.
pub(crate) fn numbers(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    macro_rules! each {
        ($ty:ty, $size:literal, $f:expr) => {
            bytes
                .chunks_exact($size)
                .map(|chunk| $f(<$ty>::from_le_bytes(std::array::from_fn(|i| chunk[i]))))
                .collect()
        };
    }
    match dtype {
        DType::F32 | DType::C64 => each!(f32, 4, f64::from),
        DType::F64 | DType::C128 => each!(f64, 8, |x| x),
        DType::F16 => each!(u16, 2, |bits| f16::from_bits(bits).to_f64()),
        DType::BF16 => each!(u16, 2, |bits| bf16::from_bits(bits).to_f64()),
        DType::F8E4M3 => each!(u8, 1, |bits| small_float(bits, 4)),
        DType::F8E5M2 => each!(u8, 1, |bits| small_float(bits, 5)),
        DType::I8 => each!(i8, 1, f64::from),
        DType::U8 => each!(u8, 1, f64::from),
        DType::Bool => each!(u8, 1, |byte| f64::from(u8::from(byte != 0))),
        DType::I16 => each!(i16, 2, f64::from),
        DType::U16 => each!(u16, 2, f64::from),
        DType::I32 => each!(i32, 4, f64::from),
        DType::U32 => each!(u32, 4, f64::from),
        DType::I64 => each!(i64, 8, |x| x as f64),
        DType::U64 => each!(u64, 8, |x| x as f64),
    }
}

/// A float of 8 bits: `e4m3fn` has no infinities, `e5m2` is as f16 without its last byte.
fn small_float(bits: u8, exponent_bits: u32) -> f64 {
    if exponent_bits == 5 {
        return f16::from_bits(u16::from(bits) << 8).to_f64();
    }
    let sign = if bits & 0x80 != 0 { -1.0 } else { 1.0 };
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f64::from(bits & 7));
    sign * match (exponent, bits & 7) {
        (15, 7) => f64::NAN,
        (0, _) => mantissa / 8.0 * 2f64.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn floats_are_judged_by_value_and_by_range() {
        let limit = limit(DType::F32, "");
        let of = |got: &[f32], want: &[f32]| judge(DType::F32, &f32s(got), &f32s(want), limit).is_ok();
        assert!(of(&[100.05, 1e-3], &[100.0, 0.0]), "a tiny value beside a large one");
        assert!(!of(&[1.01], &[1.0]));
        assert!(of(&[1.0005], &[1.0]));
        assert!(!of(&[1.0, 2.0], &[1.0, 2.1]));
        assert!(!of(&[1e-3], &[0.0]), "where the range is 0 nothing else will do");
        assert!(of(&[f32::NAN, f32::INFINITY], &[f32::NAN, f32::INFINITY]));
        for (got, want) in [
            (f32::NAN, 1.0),
            (1.0, f32::NAN),
            (f32::INFINITY, 1.0),
            (1.0, f32::INFINITY),
            (f32::INFINITY, f32::NEG_INFINITY),
            (f32::INFINITY, f32::NAN),
        ] {
            assert!(!of(&[got, 1e6], &[want, 1e6]), "{got} for {want}");
        }
        let error = judge(DType::F32, &f32s(&[1.0, 2.5]), &f32s(&[1.0, 2.0]), limit).unwrap_err();
        assert!(
            error.contains("max abs error 5.000e-1 at element 1 (2.5, portable 2.0), 1 of 2"),
            "{error}"
        );
    }

    #[test]
    fn a_declared_precision_is_granted() {
        let (got, want) = (f32s(&[10.015, 0.01]), f32s(&[10.0, 0.0]));
        assert!(judge(DType::F32, &got, &want, limit(DType::F32, "")).is_err());
        assert!(judge(DType::F32, &got, &want, limit(DType::F32, "f16")).is_ok());
        let want: Vec<f32> = (0..=255u8).map(f32::from).collect();
        let shifted = |by: f32| f32s(&want.iter().map(|v| v + by).collect::<Vec<_>>());
        let int8 = limit(DType::F32, "int8");
        assert_eq!(int8, Limit::Steps);
        assert!(judge(DType::F32, &shifted(0.9), &f32s(&want), int8).is_ok());
        assert!(judge(DType::F32, &shifted(1.1), &f32s(&want), int8).is_err());
        let mut few = want.clone();
        few[0] += 5.0;
        few[1] += 5.0;
        assert!(judge(DType::F32, &f32s(&few), &f32s(&want), int8).is_ok());
        few[2] += 5.0;
        let error = judge(DType::F32, &f32s(&few), &f32s(&want), int8).unwrap_err();
        assert!(error.contains("3 of 256 elements more than 4"), "{error}");
    }

    #[test]
    fn whole_numbers() {
        assert!(judge(DType::I8, &[1, 2, 0], &[0, 1, 0], limit(DType::I8, "")).is_ok());
        assert!(judge(DType::I8, &[1, 2, 1], &[0, 1, 0], limit(DType::I8, "")).is_err());
        let error = judge(DType::Bool, &[1, 0], &[1, 1], limit(DType::Bool, "int8")).unwrap_err();
        assert!(
            error.contains("1 of 2 elements that have to be equal, first at element 1"),
            "{error}"
        );
        // Beyond 2^53, where floats are no help.
        let big = |x: i64| x.to_le_bytes();
        assert!(judge(DType::I64, &big(1 << 60), &big((1 << 60) + 1), limit(DType::I64, "")).is_err());
    }

    #[test]
    fn small_floats() {
        for (bits, e4m3) in [
            (0x38, 1.0),
            (0xb8, -1.0),
            (0x7e, 448.0),
            (0x01, 2f64.powi(-9)),
            (0, 0.0),
        ] {
            assert_eq!(small_float(bits, 4), e4m3);
        }
        assert!(small_float(0x7f, 4).is_nan() && small_float(0xff, 4).is_nan());
        assert_eq!((small_float(0x3c, 5), small_float(0x7c, 5)), (1.0, f64::INFINITY));
    }
}
