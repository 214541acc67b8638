//! Matrices as integers, row by row: one scale a row, or one for each group of a row.
//!
//! Rows are read from where the weight lies, a few at a time, so that a table of a gigabyte costs a quarter of it and no copy.
//! Scales are numbers that f16 has, rounded up before weights are rounded by them: who stores them in 16 bits loses nothing.

use crate::report::{Noise, WhyFloat};
use crate::scheme::{Observer, WeightBits};
use delegraph_ir::Constant;
use delegraph_types::{DType, Dims, bf16, f16};

/// A matrix as integers, as torchao stores it.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    /// `i8`, of the matrix's sizes: 4-bit numbers take a byte each.
    pub integers: Constant,
    /// Of the matrix's dtype, one a group: `[rows, groups]`.
    pub scales: Constant,
    /// `i8`, zeros, as the scales lie.
    pub zero_points: Constant,
    /// Elements that share a scale.
    pub group: i64,
    /// What rounding cost.
    pub noise: Noise,
}

/// How a matrix is to be quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Rounding {
    pub bits: u8,
    /// Elements of a row that share a scale; `None`: all.
    pub group: Option<u32>,
    /// Whether the scale is the one with the least squared error, or the one that cuts nothing off.
    pub searched: bool,
}

impl Rounding {
    pub fn new(bits: WeightBits, group: Option<u32>, observer: Observer) -> Rounding {
        Rounding {
            bits: if bits == WeightBits::Four { 4 } else { 8 },
            group,
            searched: observer == Observer::Mse,
        }
    }

    /// The smallest and the largest integer: all of the bits, as torchao has them.
    pub fn limits(self) -> (i64, i64) {
        (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1)
    }
}

/// Elements that are read at once, about: what stays in a cache.
const AT_ONCE: usize = 1 << 16;
/// No scale is smaller: the `eps` of PyTorch's observers, which f16 has.
const LEAST: f32 = f32::EPSILON;

/// A matrix `[rows, columns]` as integers.
///
/// # Errors
/// The group does not divide the columns, numbers are not finite, or it is no matrix of floats.
pub(crate) fn quantize(matrix: &Constant, rounding: Rounding) -> Result<Matrix, WhyFloat> {
    let window = Window::of(matrix).ok_or(WhyFloat::Arguments)?;
    let group = rounding.group.map_or(window.columns, |group| group as usize);
    if !window.columns.is_multiple_of(group) {
        return Err(WhyFloat::Groups);
    }
    let count = window.rows * (window.columns / group);
    let mut integers: Vec<u8> = Vec::with_capacity(window.rows * window.columns);
    let mut scales: Vec<u8> = Vec::with_capacity(count * matrix.dtype.size());
    let mut noise = Noise::default();
    let (low, high) = rounding.limits();
    let limits = (low as f32, high as f32);
    let step = (AT_ONCE / window.columns).clamp(1, 64);
    let mut numbers = Vec::new();
    for row in (0..window.rows).step_by(step) {
        window.read(row, step.min(window.rows - row), &mut numbers);
        for group in numbers.chunks_exact(group) {
            if !group.iter().all(|n| n.is_finite()) {
                return Err(WhyFloat::Values);
            }
            let scale = scale(group, limits, matrix.dtype, rounding.searched);
            push(&mut scales, scale, matrix.dtype);
            let inverse = 1.0 / scale;
            integers.extend(group.iter().map(|n| whole(*n, inverse, limits) as i8 as u8));
            noise.merge(rounded(group, scale, limits));
        }
    }
    let sizes = Dims::new(&[window.rows as i64, (window.columns / group) as i64]).map_err(|_| WhyFloat::Arguments)?;
    let name = |what: &str| format!("{}.{what}", matrix.name);
    Ok(Matrix {
        integers: Constant::contiguous(name("integers"), DType::I8, matrix.sizes, integers.into()),
        scales: Constant::contiguous(name("scales"), matrix.dtype, sizes, scales.into()),
        zero_points: Constant::contiguous(name("zero_points"), DType::I8, sizes, vec![0; count].into()),
        group: group as i64,
        noise,
    })
}

/// Adding and taking away 1.5 times 2^23 rounds to a whole number, half to the even one, in every vector unit.
const ROUNDER: f32 = 12_582_912.0;

/// As `quantize_affine` computes it, with limits before rounding, which gives the same.
#[inline(always)]
fn whole(number: f32, inverse: f32, (low, high): (f32, f32)) -> f32 {
    ((number * inverse).max(low).min(high) + ROUNDER) - ROUNDER
}

/// The scale of the numbers of a group.
fn scale(numbers: &[f32], limits: (f32, f32), dtype: DType, searched: bool) -> f32 {
    let (mut low, mut high) = (0f32, 0f32);
    for number in numbers {
        low = low.min(*number);
        high = high.max(*number);
    }
    // The smallest scale that cuts nothing off: of 4 bits there are 8 steps below and 7 above.
    let full = (high / limits.1).max(low / limits.0);
    let widest = upward(full, dtype);
    if !searched || full <= LEAST {
        return widest;
    }
    let (mut chosen, mut least) = (widest, squares(numbers, widest, limits));
    for i in 1..=TRIED {
        let tried = upward(full * (1.0 - i as f32 * FINER), dtype);
        let error = squares(numbers, tried, limits);
        if error < least {
            (chosen, least) = (tried, error);
        }
    }
    chosen
}

/// Smaller scales that are tried, down to 0.6 of the one that cuts nothing off.
const TRIED: usize = 16;
const FINER: f32 = 0.025;

/// The next scale that the dtype of scales, and f16, can say.
fn upward(scale: f32, dtype: DType) -> f32 {
    let scale = scale.max(LEAST);
    if dtype == DType::BF16 {
        return f32::from_bits((scale.to_bits() + 0xffff) & !0xffff);
    }
    let near = f16::from_f32(scale);
    let up = match near.to_f32() < scale {
        true => f16::from_bits(near.to_bits() + 1),
        false => near,
    };
    // Beyond f16, weights are f32 and so are their scales.
    if up.is_finite() { up.to_f32() } else { scale }
}

fn push(scales: &mut Vec<u8>, scale: f32, dtype: DType) {
    match dtype {
        DType::F16 => scales.extend(f16::from_f32(scale).to_le_bytes()),
        DType::BF16 => scales.extend(bf16::from_f32(scale).to_le_bytes()),
        _ => scales.extend(scale.to_le_bytes()),
    }
}

/// Sum of squared errors, in lanes that a compiler makes vectors of.
fn squares(numbers: &[f32], scale: f32, limits: (f32, f32)) -> f64 {
    let inverse = 1.0 / scale;
    let error = |n: f32| {
        let error = n - whole(n, inverse, limits) * scale;
        error * error
    };
    let mut total = 0f64;
    for part in numbers.chunks(256) {
        let mut lanes = [0f32; 8];
        let (eights, rest) = part.as_chunks::<8>();
        for eight in eights {
            for (lane, n) in lanes.iter_mut().zip(eight) {
                *lane += error(*n);
            }
        }
        let sum: f32 = lanes.iter().sum();
        total += f64::from(sum + rest.iter().map(|n| error(*n)).sum::<f32>());
    }
    total
}

/// Signal and noise of a group.
fn rounded(numbers: &[f32], scale: f32, limits: (f32, f32)) -> Noise {
    let inverse = 1.0 / scale;
    let mut noise = Noise::default();
    for n in numbers {
        let difference = f64::from(n - whole(*n, inverse, limits) * scale);
        noise.signal += f64::from(*n) * f64::from(*n);
        noise.noise += difference * difference;
        noise.largest = noise.largest.max(difference.abs());
    }
    noise
}

/// A matrix in a constant's bytes.
struct Window<'a> {
    bytes: &'a [u8],
    dtype: DType,
    rows: usize,
    columns: usize,
    /// Elements: of the first, from row to row, from column to column.
    first: i64,
    row: i64,
    column: i64,
}

impl Window<'_> {
    /// `None`: it is no matrix of floats, is empty, or does not lie in its bytes.
    fn of(constant: &Constant) -> Option<Window<'_>> {
        let floats = matches!(constant.dtype, DType::F32 | DType::F16 | DType::BF16);
        let ([rows, columns], [row, column]) = (constant.sizes.as_slice(), constant.strides.as_slice()) else {
            return None;
        };
        (floats && *rows > 0 && *columns > 0).then_some(())?;
        let bytes = constant.storage.as_slice();
        let reach = |size: i64, stride: i64| i128::from(size - 1) * i128::from(stride);
        let (down, right) = (reach(*rows, *row), reach(*columns, *column));
        let first = i128::try_from(constant.offset).ok()?;
        let (low, high) = (first + down.min(0) + right.min(0), first + down.max(0) + right.max(0));
        let (size, length) = (constant.dtype.size() as i128, bytes.len() as i128);
        (low >= 0 && (high + 1) * size <= length).then_some(())?;
        // A window that repeats its bytes may claim any number of rows.
        (i128::from(*rows) * i128::from(*columns) * size <= length).then_some(())?;
        Some(Window {
            bytes,
            dtype: constant.dtype,
            rows: usize::try_from(*rows).ok()?,
            columns: usize::try_from(*columns).ok()?,
            first: i64::try_from(constant.offset).ok()?,
            row: *row,
            column: *column,
        })
    }

    /// Rows as numbers, one after the other.
    fn read(&self, from: usize, count: usize, numbers: &mut Vec<f32>) {
        numbers.clear();
        let start = self.first + from as i64 * self.row;
        let size = self.dtype.size();
        if self.column == 1 {
            for row in 0..count as i64 {
                let at = (start + row * self.row) as usize * size;
                self.decode(&self.bytes[at..at + self.columns * size], numbers);
            }
            return;
        }
        // A transposed matrix: what lies side by side is read side by side.
        numbers.resize(count * self.columns, 0.0);
        for column in 0..self.columns {
            for row in 0..count {
                let at = (start + row as i64 * self.row + column as i64 * self.column) as usize * size;
                numbers[row * self.columns + column] = match (self.dtype, &self.bytes[at..at + size]) {
                    (DType::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
                    (DType::BF16, &[a, b]) => bf16::from_le_bytes([a, b]).to_f32(),
                    (_, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
                    _ => f32::NAN,
                };
            }
        }
    }

    fn decode(&self, bytes: &[u8], numbers: &mut Vec<f32>) {
        let halves = bytes.as_chunks::<2>().0;
        match self.dtype {
            DType::F16 => numbers.extend(halves.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
            DType::BF16 => numbers.extend(halves.iter().map(|b| bf16::from_le_bytes(*b).to_f32())),
            _ => numbers.extend(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: i64, columns: i64, numbers: &[f32]) -> Constant {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        Constant::contiguous("w", DType::F32, Dims::new(&[rows, columns]).unwrap(), bytes.into())
    }

    fn rounding(bits: u8, group: Option<u32>, searched: bool) -> Rounding {
        Rounding { bits, group, searched }
    }

    fn integers(made: &Matrix) -> Vec<i8> {
        made.integers.storage.as_slice().iter().map(|b| *b as i8).collect()
    }

    fn scales(made: &Matrix) -> Vec<f32> {
        crate::evaluate::floats(&made.scales).unwrap()
    }

    /// Numbers between -1 and 1 that repeat late.
    fn noise(count: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 7919 % 10007) as f32 / 5003.5 - 1.0).powi(3))
            .collect()
    }

    #[test]
    fn four_bits_have_eight_steps_below_and_seven_above() {
        let made = quantize(
            &matrix(2, 4, &[7.0, -8.0, 0.5, 1.5, 14.0, -1.0, 0.0, 3.0]),
            rounding(4, None, false),
        )
        .unwrap();
        assert_eq!(scales(&made), [1.0, 2.0]);
        // Half goes to the even one.
        assert_eq!(integers(&made), [7, -8, 0, 2, 7, 0, 0, 2]);
        let sizes = [&made.integers, &made.scales, &made.zero_points].map(|c| c.sizes.to_vec());
        assert_eq!(sizes, [vec![2, 4], vec![2, 1], vec![2, 1]]);
    }

    #[test]
    fn groups_have_scales_of_their_own_and_must_divide() {
        let made = quantize(&matrix(1, 4, &[127.0, 1.0, -1.28, 0.5]), rounding(8, Some(2), false)).unwrap();
        assert_eq!(scales(&made)[0], 1.0);
        assert_eq!(integers(&made)[..3], [127, 1, -128]);
        assert_eq!(
            quantize(&matrix(1, 4, &[0.0; 4]), rounding(4, Some(3), false)).unwrap_err(),
            WhyFloat::Groups
        );
        let odd = matrix(1, 2, &[f32::NAN, 1.0]);
        assert_eq!(quantize(&odd, rounding(8, None, true)).unwrap_err(), WhyFloat::Values);
        let zeros = quantize(&matrix(1, 2, &[0.0; 2]), rounding(8, None, true)).unwrap();
        assert_eq!((scales(&zeros), integers(&zeros)), (vec![f32::EPSILON], vec![0, 0]));
    }

    #[test]
    fn scales_are_numbers_of_f16_and_cut_nothing_off() {
        for factor in [1.0, 1e-3, 1e-5, 300.0] {
            let numbers: Vec<f32> = noise(32 * 64).iter().map(|n| n * factor).collect();
            for bits in [4, 8] {
                let made = quantize(&matrix(32, 64, &numbers), rounding(bits, Some(32), false)).unwrap();
                for (scale, group) in scales(&made).iter().zip(numbers.chunks(32)) {
                    assert_eq!(f16::from_f32(*scale).to_f32(), *scale);
                    let (low, high) = rounding(bits, None, false).limits();
                    assert!(
                        group
                            .iter()
                            .all(|n| *n <= scale * high as f32 && *n >= scale * low as f32)
                    );
                }
            }
        }
        // Weights that only f32 can hold have scales that only f32 can.
        let made = quantize(&matrix(1, 1, &[1e30]), rounding(8, None, false)).unwrap();
        assert_eq!((scales(&made)[0], integers(&made)[0]), (1e30 / 127.0, 127));
    }

    #[test]
    fn a_searched_scale_is_never_worse_and_mostly_better() {
        let numbers = noise(64 * 128);
        for (bits, group) in [(4, Some(32)), (4, Some(128)), (8, None)] {
            let noise = |searched| {
                quantize(&matrix(64, 128, &numbers), rounding(bits, group, searched))
                    .unwrap()
                    .noise
            };
            let (plain, searched) = (noise(false), noise(true));
            // Of 8 bits a row, what is cut off seldom pays.
            let better = searched.noise < plain.noise || bits == 8 && searched.noise == plain.noise;
            assert!(better, "{bits}, {group:?}: {searched:?}, {plain:?}");
        }
    }

    #[test]
    fn noise_is_what_dequantizing_differs_by() {
        let numbers = noise(8 * 32);
        let made = quantize(&matrix(8, 32, &numbers), rounding(4, Some(32), true)).unwrap();
        let back = integers(&made).into_iter().zip(&numbers).enumerate();
        let noise: f64 = back
            .map(|(i, (q, n))| f64::from(n - f32::from(q) * scales(&made)[i / 32]).powi(2))
            .sum();
        assert!((made.noise.noise - noise).abs() < 1e-12 * noise.max(1.0));
    }

    #[test]
    fn a_transposed_window_and_half_floats_give_the_same() {
        let numbers = noise(70 * 32);
        let want = quantize(&matrix(70, 32, &numbers), rounding(4, Some(32), true)).unwrap();
        let turned: Vec<f32> = (0..70 * 32).map(|i| numbers[i % 70 * 32 + i / 70]).collect();
        let turned = Constant {
            sizes: Dims::new(&[70, 32]).unwrap(),
            strides: Dims::new(&[1, 70]).unwrap(),
            ..matrix(32, 70, &turned)
        };
        let made = quantize(&turned, rounding(4, Some(32), true)).unwrap();
        assert_eq!((integers(&made), scales(&made)), (integers(&want), scales(&want)));
        let bad = Constant { offset: 1, ..turned };
        assert_eq!(
            quantize(&bad, rounding(4, None, true)).unwrap_err(),
            WhyFloat::Arguments
        );
        let repeated = Constant {
            sizes: Dims::new(&[1 << 40, 32]).unwrap(),
            strides: Dims::new(&[0, 1]).unwrap(),
            ..matrix(1, 32, &numbers[..32])
        };
        assert_eq!(
            quantize(&repeated, rounding(4, None, true)).unwrap_err(),
            WhyFloat::Arguments
        );
        // Numbers that half floats have: their integers are those of f32.
        let half: Vec<f32> = numbers.iter().map(|n| f16::from_f32(*n).to_f32()).collect();
        let bytes: Vec<u8> = half.iter().flat_map(|n| f16::from_f32(*n).to_le_bytes()).collect();
        let halves = Constant::contiguous("w", DType::F16, Dims::new(&[70, 32]).unwrap(), bytes.into());
        let (want, made) = (
            quantize(&matrix(70, 32, &half), rounding(8, None, true)).unwrap(),
            quantize(&halves, rounding(8, None, true)).unwrap(),
        );
        assert_eq!(integers(&made), integers(&want));
        assert_eq!(
            (made.scales.dtype, made.scales.storage.as_slice().len()),
            (DType::F16, 140)
        );
    }
}
