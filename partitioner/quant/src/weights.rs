//! Weights and biases as integers.

use crate::evaluate::{floats, line};
use crate::range::Affine;
use crate::scheme::{Observer, WeightBits};
use delegraph_ir::{Constant, ConstantId, Constants};
use delegraph_types::{DType, Dims};
use rustc_hash::FxHashMap;

/// How a weight is to be quantized.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    pub constant: ConstantId,
    /// The dimension of the channels that have a scale each.
    pub axis: usize,
    pub bits: u8,
    /// Elements along the other of the first two dimensions that share a scale.
    pub group: Option<u32>,
}

/// A quantized weight.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// `i8`, of the weight's sizes.
    pub integers: ConstantId,
    /// `f32`: one a channel, or one a block.
    pub scales: ConstantId,
    /// The scales of the channels; empty where blocks have scales.
    pub channels: Vec<f32>,
    /// Sizes of a block, where blocks have scales.
    pub block: Option<Vec<i64>>,
    /// The largest integer; the smallest is its negative.
    pub most: i64,
}

/// Makes integers of weights, each once.
#[derive(Default)]
pub(crate) struct Weights {
    made: FxHashMap<Wanted, Option<Stored>>,
}

/// A bias counts up to here, so that sums stay far from what `i32` ends at.
const LARGEST_BIAS: f32 = (1 << 30) as f32;
/// Block scales are a channel's scale times 1 to this.
const BLOCK_STEPS: f32 = 16.0;

impl Weights {
    /// A weight as integers. `bias` and the scale of the input say how small a channel's scale may get: the bias counts in the
    /// product of both. `None`: it is no f32 constant, or holds numbers that are not finite.
    pub fn weight(
        &mut self,
        constants: &mut Constants,
        wanted: &Wanted,
        observer: Observer,
        bias: Option<(&[f32], f32)>,
    ) -> Option<Stored> {
        let stored = match self.made.get(wanted) {
            Some(made) => made.clone(),
            None => {
                let made = make(constants, wanted, observer, &[]);
                self.made.insert(wanted.clone(), made.clone());
                made
            }
        }?;
        let Some((bias, input)) = bias.filter(|_| stored.block.is_none()) else {
            return Some(stored);
        };
        // A transposed convolution has its channels once a group.
        let mut least = vec![0f32; stored.channels.len()];
        for (i, number) in bias.iter().enumerate() {
            let at = i % least.len().max(1);
            least[at] = least[at].max(number.abs() / (input * LARGEST_BIAS));
        }
        let fits = stored.channels.iter().zip(&least).all(|(scale, least)| scale >= least);
        match fits {
            true => Some(stored),
            false => make(constants, wanted, observer, &least),
        }
    }
}

/// The elements of a weight by channel: `outer` times `channels` times `inner`.
struct Layout {
    outer: usize,
    channels: usize,
    inner: usize,
}

impl Layout {
    fn of(sizes: &Dims, axis: usize) -> Option<Layout> {
        let size = |range: &[i64]| {
            range
                .iter()
                .try_fold(1usize, |n, s| n.checked_mul(usize::try_from(*s).ok()?))
        };
        Some(Layout {
            outer: size(&sizes.as_slice()[..axis])?,
            channels: usize::try_from(*sizes.as_slice().get(axis)?).ok()?,
            inner: size(&sizes.as_slice()[axis + 1..])?,
        })
    }

    /// Calls `f` with channel and position of every element.
    fn each(&self, mut f: impl FnMut(usize, usize)) {
        let mut at = 0;
        for _ in 0..self.outer {
            for channel in 0..self.channels {
                for _ in 0..self.inner {
                    f(channel, at);
                    at += 1;
                }
            }
        }
    }
}

/// `least`: the smallest scale that a channel may have; empty if any will do.
fn make(constants: &mut Constants, wanted: &Wanted, observer: Observer, least: &[f32]) -> Option<Stored> {
    let constant = constants.find(wanted.constant)?;
    let (name, sizes) = (constant.name.clone(), constant.sizes);
    let numbers = floats(constant).filter(|numbers| numbers.iter().all(|n| n.is_finite()))?;
    let layout = Layout::of(&sizes, wanted.axis)?;
    let most = if wanted.bits == 4 {
        WeightBits::Four
    } else {
        WeightBits::Eight
    }
    .most();
    if let Some(group) = wanted.group
        && let Some(stored) = blocks(constants, &name, &sizes, wanted.axis, i64::from(group), &numbers, most)
    {
        return Some(stored);
    }
    let mut scales = vec![0f32; layout.channels];
    layout.each(|channel, at| scales[channel] = scales[channel].max(numbers[at].abs()));
    scales.iter_mut().for_each(|largest| *largest /= most as f32);
    if observer == Observer::Mse {
        scales = with_least_error(&layout, &numbers, &scales, most);
    }
    for (i, scale) in scales.iter_mut().enumerate() {
        *scale = scale.max(f32::EPSILON).max(least.get(i).copied().unwrap_or(0.0));
    }
    let mut integers = vec![0u8; numbers.len()];
    let inverse: Vec<f32> = scales.iter().map(|scale| 1.0 / scale).collect();
    layout.each(|channel, at| integers[at] = integer(numbers[at], inverse[channel], most) as u8);
    let integers = Constant::contiguous(format!("{name}.integers"), DType::I8, sizes, integers.into());
    Some(Stored {
        integers: constants.push(integers),
        scales: constants.push(float_constant(format!("{name}.scales"), line(scales.len()), &scales)),
        channels: scales,
        block: None,
        most,
    })
}

/// As `quantize_per_channel` computes it.
fn integer(number: f32, inverse: f32, most: i64) -> i8 {
    (number * inverse).round_ties_even().clamp(-most as f32, most as f32) as i8
}

fn float_constant(name: String, sizes: Dims, numbers: &[f32]) -> Constant {
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    Constant::contiguous(name, DType::F32, sizes, bytes.into())
}

/// For each channel, the scale with the least squared error, of the one that holds everything and smaller ones.
fn with_least_error(layout: &Layout, numbers: &[f32], scales: &[f32], most: i64) -> Vec<f32> {
    let (mut best, mut chosen) = (vec![f64::INFINITY; scales.len()], scales.to_vec());
    for i in 0..40 {
        let tried: Vec<f32> = scales
            .iter()
            .map(|s| (s * (1.0 - i as f32 * 0.02)).max(f32::EPSILON))
            .collect();
        let inverse: Vec<f32> = tried.iter().map(|scale| 1.0 / scale).collect();
        let mut errors = vec![0f64; scales.len()];
        layout.each(|channel, at| {
            let back = f32::from(integer(numbers[at], inverse[channel], most)) * tried[channel];
            errors[channel] += f64::from(numbers[at] - back).powi(2);
        });
        for (channel, error) in errors.into_iter().enumerate() {
            if error < best[channel] {
                (best[channel], chosen[channel]) = (error, tried[channel]);
            }
        }
    }
    chosen
}

/// A weight with a scale a block: that of its channel times a whole number from 1 to 16, so that hardware that stores the one
/// in f32 and the other in 4 bits holds both exactly. `None`: a block does not divide the dimension.
fn blocks(
    constants: &mut Constants,
    name: &str,
    sizes: &Dims,
    axis: usize,
    group: i64,
    numbers: &[f32],
    most: i64,
) -> Option<Stored> {
    // Blocks lie along the input channels, and span the kernel.
    let other = 1usize.checked_sub(axis)?;
    let along = sizes.as_slice().get(other).copied()?;
    (along % group == 0 && along > 0).then_some(())?;
    let mut block = sizes.to_vec();
    (block[axis], block[other]) = (1, group);
    let (first, second) = (sizes[0] as usize, sizes[1] as usize);
    let kernel = numbers.len().checked_div(first * second).filter(|n| *n > 0)?;
    let (channels, count) = (sizes[axis] as usize, (along / group) as usize);
    let group = group as usize;
    // Channel and block of an element by the row `[first, second]` that it is in.
    let place = |row: usize| {
        let at = [row / second, row % second];
        (at[axis], at[other] / group)
    };
    let mut largest = vec![0f32; channels * count];
    for (row, numbers) in numbers.chunks_exact(kernel).enumerate() {
        let (channel, at) = place(row);
        let largest = &mut largest[channel * count + at];
        *largest = numbers.iter().fold(*largest, |most, n| most.max(n.abs()));
    }
    // Both whole numbers around a block's own scale, by the error that they make.
    let mut steps = [vec![0f32; largest.len()], vec![0f32; largest.len()]];
    let mut of_channel = vec![0f32; channels];
    for (channel, blocks) in largest.chunks_exact(count).enumerate() {
        let top = blocks.iter().copied().fold(0.0, f32::max);
        let scale = short((top / most as f32 / BLOCK_STEPS).max(f32::EPSILON));
        of_channel[channel] = scale;
        for (i, block) in blocks.iter().enumerate() {
            let ratio = block / most as f32 / scale;
            steps[0][channel * count + i] = ratio.floor().clamp(1.0, BLOCK_STEPS);
            steps[1][channel * count + i] = ratio.ceil().clamp(1.0, BLOCK_STEPS);
        }
    }
    let mut errors = [vec![0f64; largest.len()], vec![0f64; largest.len()]];
    for (row, numbers) in numbers.chunks_exact(kernel).enumerate() {
        let (channel, at) = place(row);
        let at = channel * count + at;
        for (steps, errors) in steps.iter().zip(&mut errors) {
            let scale = steps[at] * of_channel[channel];
            let inverse = 1.0 / scale;
            let error = |n: &f32| f64::from(n - f32::from(integer(*n, inverse, most)) * scale).powi(2);
            errors[at] += numbers.iter().map(error).sum::<f64>();
        }
    }
    let scale_of = |at: usize| steps[usize::from(errors[1][at] < errors[0][at])][at] * of_channel[at / count];
    let mut integers = Vec::with_capacity(numbers.len());
    for (row, numbers) in numbers.chunks_exact(kernel).enumerate() {
        let (channel, at) = place(row);
        let inverse = 1.0 / scale_of(channel * count + at);
        integers.extend(numbers.iter().map(|n| integer(*n, inverse, most) as u8));
    }
    // Scales lie as the weight does: each size divided by the block's.
    let mut counts = sizes.to_vec();
    counts.iter_mut().zip(&block).for_each(|(size, block)| *size /= block);
    let mut scales = vec![0f32; largest.len()];
    for (i, scale) in scales.iter_mut().enumerate() {
        let at = match axis {
            0 => i,
            _ => i % channels * count + i / channels,
        };
        *scale = scale_of(at);
    }
    let integers = Constant::contiguous(format!("{name}.integers"), DType::I8, *sizes, integers.into());
    let counts = Dims::new(&counts).ok()?;
    Some(Stored {
        integers: constants.push(integers),
        scales: constants.push(float_constant(format!("{name}.scales"), counts, &scales)),
        channels: Vec::new(),
        block: Some(block),
        most,
    })
}

/// The next number with 19 bits or fewer: times 1 to 16 it is still exact in f32.
fn short(number: f32) -> f32 {
    f32::from_bits((number.to_bits() + 0x1f) & !0x1f)
}

/// A bias as integers.
pub(crate) struct Bias {
    /// `i32`, one a channel.
    pub integers: ConstantId,
    /// `f32`, one a channel.
    pub scales: ConstantId,
}

/// A bias in the product of the scales of input and weight, computed in f32. `None`: it is no line of f32, or its channels are
/// not those of the weight.
pub(crate) fn bias(constants: &mut Constants, id: ConstantId, input: Affine, channels: &[f32]) -> Option<Bias> {
    let constant = constants.find(id)?;
    let numbers = floats(constant).filter(|_| constant.sizes.rank() == 1)?;
    let name = constant.name.clone();
    (!channels.is_empty() && !numbers.is_empty() && numbers.len() % channels.len() == 0).then_some(())?;
    let scales: Vec<f32> = channels.iter().map(|scale| input.scale * scale).collect();
    let scales: Vec<f32> = scales.iter().copied().cycle().take(numbers.len()).collect();
    let mut bytes = Vec::with_capacity(numbers.len() * 4);
    for (number, scale) in numbers.iter().zip(&scales) {
        let count = (f64::from(*number) / f64::from(*scale)).round_ties_even();
        (count.abs() < 2f64.powi(31)).then_some(())?;
        bytes.extend((count as i32).to_le_bytes());
    }
    let sizes = line(numbers.len());
    let integers = Constant::contiguous(format!("{name}.integers"), DType::I32, sizes, bytes.into());
    Some(Bias {
        integers: constants.push(integers),
        scales: constants.push(float_constant(format!("{name}.scales"), sizes, &scales)),
    })
}

/// A constant that an operator reads beside activations, as integers of their dtype. `None`: it is no f32 constant.
pub(crate) fn activation(
    constants: &mut Constants,
    id: ConstantId,
    affine: Affine,
    (least, most): (i64, i64),
    dtype: DType,
) -> Option<ConstantId> {
    let constant = constants.find(id)?;
    let numbers = floats(constant)?;
    let (name, sizes) = (format!("{}.integers", constant.name), constant.sizes);
    let inverse = (1.0 / f64::from(affine.scale)) as f32;
    let mut bytes = Vec::with_capacity(numbers.len() * dtype.size());
    for number in numbers {
        let steps = (number * inverse).round_ties_even() + affine.zero_point as f32;
        let integer = steps.clamp(least as f32, most as f32) as i64;
        bytes.extend_from_slice(&integer.to_le_bytes()[..dtype.size()]);
    }
    Some(constants.push(Constant::contiguous(name, dtype, sizes, bytes.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constants(sizes: &[i64], numbers: &[f32]) -> (Constants, ConstantId) {
        let mut constants = Constants::default();
        let id = constants.push(float_constant("w".to_string(), Dims::new(sizes).unwrap(), numbers));
        (constants, id)
    }

    fn wanted(constant: ConstantId, axis: usize, bits: u8, group: Option<u32>) -> Wanted {
        Wanted {
            constant,
            axis,
            bits,
            group,
        }
    }

    fn bytes(constants: &Constants, id: ConstantId) -> Vec<i8> {
        let bytes = constants[id].to_contiguous().unwrap();
        bytes.as_slice().iter().map(|b| *b as i8).collect()
    }

    #[test]
    fn a_channel_has_the_scale_of_its_largest_weight() {
        let (mut constants, id) = constants(&[2, 3], &[1.27, -0.5, 0.01, 0.0, 0.0, -254.0]);
        let mut weights = Weights::default();
        let made = weights
            .weight(&mut constants, &wanted(id, 0, 8, None), Observer::MinMax, None)
            .unwrap();
        assert_eq!(bytes(&constants, made.integers), [127, -50, 1, 0, 0, -127]);
        assert_eq!(made.channels, [1.27 / 127.0, 2.0]);
        // Along the other dimension.
        let made = weights
            .weight(&mut constants, &wanted(id, 1, 8, None), Observer::MinMax, None)
            .unwrap();
        assert_eq!(bytes(&constants, made.integers), [127, -127, 0, 0, 0, -127]);
        // 4 bits.
        let made = weights
            .weight(&mut constants, &wanted(id, 0, 4, None), Observer::MinMax, None)
            .unwrap();
        assert_eq!(bytes(&constants, made.integers), [7, -3, 0, 0, 0, -7]);
    }

    #[test]
    fn a_channel_of_zeros_leaves_room_for_its_bias() {
        let (mut constants, id) = constants(&[2, 1], &[0.0, 1.0]);
        let mut weights = Weights::default();
        let bias_numbers = [1000.0, 1.0];
        let input = Affine {
            scale: 1e-6,
            zero_point: 0,
        };
        let some = Some((&bias_numbers[..], input.scale));
        let made = weights
            .weight(&mut constants, &wanted(id, 0, 8, None), Observer::MinMax, some)
            .unwrap();
        assert!(made.channels[0] > f32::EPSILON);
        let bias_id = constants.push(float_constant("b".to_string(), line(2), &bias_numbers));
        let bias = bias(&mut constants, bias_id, input, &made.channels).unwrap();
        let integers = floats_of_ints(&constants, bias.integers);
        let scales = floats(&constants[bias.scales]).unwrap();
        for ((integer, scale), want) in integers.iter().zip(scales).zip(bias_numbers) {
            assert!((integer * f64::from(scale) - f64::from(want)).abs() < 1e-5 * f64::from(want));
        }
    }

    fn floats_of_ints(constants: &Constants, id: ConstantId) -> Vec<f64> {
        let bytes = constants[id].to_contiguous().unwrap();
        let items = bytes.as_slice().chunks_exact(4);
        items
            .map(|b| f64::from(i32::from_le_bytes(b.try_into().unwrap())))
            .collect()
    }

    #[test]
    fn block_scales_are_whole_multiples_of_their_channels() {
        let numbers: Vec<f32> = (0..2 * 8 * 3)
            .map(|i| ((i * 37 % 41) as f32 - 20.0) * (1.0 + (i / 12) as f32))
            .collect();
        for axis in [0, 1] {
            let sizes = if axis == 0 { [2, 8, 3] } else { [8, 2, 3] };
            let (mut constants, id) = constants(&sizes, &numbers);
            let mut weights = Weights::default();
            let made = weights
                .weight(&mut constants, &wanted(id, axis, 4, Some(4)), Observer::MinMax, None)
                .unwrap();
            let block = made.block.clone().unwrap();
            assert_eq!(block, if axis == 0 { [1, 4, 3] } else { [4, 1, 3] });
            let scales = floats(&constants[made.scales]).unwrap();
            assert_eq!(constants[made.scales].sizes.as_slice(), [2, 2, 1]);
            let integers = bytes(&constants, made.integers);
            for (i, number) in numbers.iter().enumerate() {
                let (first, second) = (i / 3 / sizes[1] as usize, i / 3 % sizes[1] as usize);
                let at = first / block[0] as usize * 2 + second / block[1] as usize;
                let back = f32::from(integers[i]) * scales[at];
                assert!((back - number).abs() <= scales[at] * 1.01, "{i}: {back} for {number}");
            }
            // Two blocks of one channel: their ratio is one of small whole numbers.
            for channel in 0..2 {
                let pair = if axis == 0 {
                    [scales[channel * 2], scales[channel * 2 + 1]]
                } else {
                    [scales[channel], scales[2 + channel]]
                };
                let unit = pair[0].max(pair[1]) / 16.0;
                assert!(pair.iter().all(|s| (s / unit).fract() == 0.0), "{pair:?}");
            }
        }
        // Blocks that do not divide the channels: a scale a channel.
        let (mut constants, id) = constants(&[2, 8, 3], &numbers);
        let made = Weights::default()
            .weight(&mut constants, &wanted(id, 0, 4, Some(5)), Observer::MinMax, None)
            .unwrap();
        assert!(made.block.is_none());
    }

    #[test]
    fn least_error_cuts_off_what_is_alone() {
        let mut numbers = vec![0.0f32; 256];
        numbers
            .iter_mut()
            .enumerate()
            .for_each(|(i, n)| *n = (i as f32 * 0.7).sin());
        numbers[0] = 3.0;
        let (mut constants, id) = constants(&[1, 256], &numbers);
        let with = |constants: &mut Constants, observer| {
            Weights::default()
                .weight(constants, &wanted(id, 0, 4, None), observer, None)
                .unwrap()
                .channels[0]
        };
        let plain = with(&mut constants, Observer::MinMax);
        assert!(with(&mut constants, Observer::Mse) < plain);
    }
}
