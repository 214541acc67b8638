//! Operators that draw random numbers.
//!
//! The generator is Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), which computes the
//! block of any counter: the key is the seed, the counter the number of the call and that of the element. So results depend
//! on the seed and on how many random operators ran before, not on shapes, layouts or the machine. The numbers are not those that
//! PyTorch draws.

use crate::embedding::Offsets;
use crate::math::Real;
use crate::registry::Kernel;
use crate::stage::{Arena, bytes_of, dim_of, dims_of, expect_dtype, load_bytes, out_bytes, parts, produce};
use crate::views::{View, expanded};
use crate::wide::first;
use crate::{Call, KernelError, Out, Tensor};
use alloc::format;
use delegraph_types::{DType, Dims};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::bernoulli.Tensor_out", |call| {
        let p = call.tensor(1)?;
        let sizes = *call.tensor(0)?.sizes();
        drawn(call, &sizes, [Source::Tensor(p)], bernoulli)
    }),
    ("aten::bernoulli.float_out", |call| {
        let (sizes, p) = (*call.tensor(0)?.sizes(), call.float(1)?);
        drawn(call, &sizes, [Source::Number(p)], bernoulli)
    }),
    ("aten::bernoulli.out", |call| {
        let p = call.tensor(0)?;
        drawn(call, p.sizes(), [Source::Tensor(p)], bernoulli)
    }),
    ("aten::cauchy.out", |call| {
        spread(call, |draw, [median, sigma]| {
            Ok(median + sigma * Real::tan(core::f64::consts::PI * (draw.open() - 0.5)))
        })
    }),
    ("aten::exponential.out", |call| {
        let (sizes, rate) = (*call.tensor(0)?.sizes(), call.float(1)?);
        drawn(call, &sizes, [Source::Number(rate)], |draw, [rate]| match rate > 0.0 {
            true => Ok(-Real::ln(draw.open()) / rate),
            false => Err(KernelError::invalid("lambd", format!("a rate of {rate}"))),
        })
    }),
    ("aten::geometric.out", |call| {
        let (sizes, p) = (*call.tensor(0)?.sizes(), call.float(1)?);
        drawn(call, &sizes, [Source::Number(p)], |draw, [p]| {
            match p > 0.0 && p < 1.0 {
                true => Ok(Real::ceil(Real::ln(draw.open()) / Real::log1p(-p))),
                false => Err(KernelError::invalid("p", format!("a probability of {p}"))),
            }
        })
    }),
    ("aten::log_normal.out", |call| {
        spread(call, |draw, parameters| normal(draw, parameters).map(Real::exp))
    }),
    ("aten::multinomial.out", multinomial),
    ("aten::native_dropout.out", dropout),
    ("aten::normal.Tensor_Tensor_out", |call| {
        let (mean, std) = (call.tensor(0)?, call.tensor(1)?);
        let sizes = mean.sizes().broadcast(std.sizes());
        let sizes = sizes.ok_or_else(|| {
            let (a, b) = (mean.sizes(), std.sizes());
            KernelError::invalid("std", format!("a shape of {b} does not broadcast with {a}"))
        })?;
        drawn(call, &sizes, [Source::Tensor(mean), Source::Tensor(std)], normal)
    }),
    ("aten::normal.Tensor_float_out", |call| {
        let (mean, std) = (call.tensor(0)?, call.float(1)?);
        drawn(call, mean.sizes(), [Source::Tensor(mean), Source::Number(std)], normal)
    }),
    ("aten::normal.float_Tensor_out", |call| {
        let (mean, std) = (call.float(0)?, call.tensor(1)?);
        drawn(call, std.sizes(), [Source::Number(mean), Source::Tensor(std)], normal)
    }),
    ("aten::normal.float_float_out", |call| {
        let (mean, std) = (call.float(0)?, call.float(1)?);
        let sizes = dims_of(call.ints(2)?, "size")?;
        drawn(call, &sizes, [Source::Number(mean), Source::Number(std)], normal)
    }),
    ("aten::normal.out", |call| spread(call, normal)),
    ("aten::rand.out", |call| uniform_of(call, Sizes::Listed(0), 0.0, 1.0)),
    ("aten::rand.generator_out", |call| {
        uniform_of(call, Sizes::Listed(0), 0.0, 1.0)
    }),
    ("aten::rand_like.out", |call| uniform_of(call, Sizes::Like, 0.0, 1.0)),
    ("aten::randint.generator_out", |call| {
        integers(call, Sizes::Listed(2), None, 0)
    }),
    ("aten::randint.low_generator_out", |call| {
        integers(call, Sizes::Listed(2), Some(0), 1)
    }),
    ("aten::randint.low_out", |call| {
        integers(call, Sizes::Listed(2), Some(0), 1)
    }),
    ("aten::randint.out", |call| integers(call, Sizes::Listed(1), None, 0)),
    ("aten::randint_like.Tensor_out", |call| {
        integers(call, Sizes::Like, None, 1)
    }),
    ("aten::randint_like.low_dtype_out", |call| {
        integers(call, Sizes::Like, Some(1), 2)
    }),
    ("aten::randint_like.out", |call| integers(call, Sizes::Like, None, 1)),
    ("aten::randn.generator_out", |call| standard(call, Sizes::Listed(0))),
    ("aten::randn.out", |call| standard(call, Sizes::Listed(0))),
    ("aten::randn_like.out", |call| standard(call, Sizes::Like)),
    ("aten::random.from_out", |call| match call.is_none(2) {
        true => {
            let from = call.int(1)?;
            between(call, Sizes::Like, i128::from(from), 1 << 63)
        }
        false => integers(call, Sizes::Like, Some(1), 2),
    }),
    ("aten::random.out", |call| {
        let limit = counted(call.out(0)?.dtype());
        between(call, Sizes::Like, 0, limit)
    }),
    ("aten::random.to_out", |call| integers(call, Sizes::Like, None, 1)),
    ("aten::randperm.generator_out", permutation),
    ("aten::randperm.out", permutation),
    ("aten::uniform.out", |call| {
        let (from, to) = (call.float(1)?, call.float(2)?);
        uniform_of(call, Sizes::Like, from, to)
    }),
];

/// The state of the random operators of one executor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Random {
    seed: u64,
    calls: u64,
}

impl Random {
    /// The first call of this seed comes next.
    pub fn new(seed: u64) -> Random {
        Random { seed, calls: 0 }
    }

    /// The numbers of one call.
    fn next_call(&mut self) -> Stream {
        let stream = Stream {
            seed: self.seed,
            call: self.calls,
        };
        self.calls = self.calls.wrapping_add(1);
        stream
    }
}

/// The numbers of one call, any of them at once.
#[derive(Debug, Clone, Copy)]
struct Stream {
    seed: u64,
    call: u64,
}

impl Stream {
    fn at(self, element: u64) -> Draw {
        let low_high = |x: u64| [x as u32, (x >> 32) as u32];
        let ([a, b], [c, d]) = (low_high(element), low_high(self.call));
        let [a, b, c, d] = philox([a, b, c, d], low_high(self.seed));
        let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        Draw {
            first: join(a, b),
            second: join(c, d),
        }
    }
}

/// Ten rounds of Philox 4x32.
fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let product = |a: u32, b: u32| {
        let wide = u64::from(a) * u64::from(b);
        ((wide >> 32) as u32, wide as u32)
    };
    let ([mut a, mut b, mut c, mut d], [mut k0, mut k1]) = (counter, key);
    for _ in 0..10 {
        let (high0, low0) = product(0xD251_1F53, a);
        let (high1, low1) = product(0xCD9E_8D57, c);
        [a, b, c, d] = [high1 ^ b ^ k0, low1, high0 ^ d ^ k1, low0];
        k0 = k0.wrapping_add(0x9E37_79B9);
        k1 = k1.wrapping_add(0xBB67_AE85);
    }
    [a, b, c, d]
}

/// The random bits of one element.
#[derive(Debug, Clone, Copy)]
struct Draw {
    first: u64,
    second: u64,
}

impl Draw {
    /// In `[0, 1)`, one of 2^bits numbers.
    fn unit(self, bits: u32) -> f64 {
        (self.first >> (64 - bits)) as f64 / (1u64 << bits) as f64
    }

    /// In `(0, 1)`.
    fn open(self) -> f64 {
        ((self.first >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// In `0..range`, for a range of up to 2^64. The bias is below 2^-64 times the range, as nothing is drawn again.
    fn below(self, range: u128) -> u64 {
        ((u128::from(self.first) * range) >> 64) as u64
    }

    /// Normally distributed with mean 0 and deviation 1, by Box and Muller.
    fn normal(self) -> f64 {
        let angle = (self.second >> 11) as f64 / (1u64 << 53) as f64 * core::f64::consts::TAU;
        Real::sqrt(-2.0 * Real::ln(self.open())) * Real::cos(angle)
    }
}

/// Bits of a dtype's fraction, and so of a uniform number that never rounds up to 1.
fn precision(dtype: DType) -> u32 {
    match dtype {
        DType::F16 => 11,
        DType::BF16 => 8,
        DType::F32 => 24,
        _ => 53,
    }
}

/// One more than the largest integer up to which a dtype counts exactly, of those that `random` draws from.
fn counted(dtype: DType) -> i128 {
    match (dtype, dtype.int_range()) {
        (DType::Bool, _) => 2,
        (_, Some((_, high))) => high + 1,
        (_, None) => 1 + (1 << precision(dtype)),
    }
}

/// Where a result's sizes come from.
#[derive(Clone, Copy)]
enum Sizes {
    /// The list at this place.
    Listed(usize),
    /// Argument 0.
    Like,
}

impl Sizes {
    fn of(self, call: &Call) -> Result<Dims, KernelError> {
        match self {
            Sizes::Listed(index) => dims_of(call.ints(index)?, "size"),
            Sizes::Like => Ok(*call.tensor(0)?.sizes()),
        }
    }
}

/// A parameter of a distribution: one for all, or one for each element.
#[derive(Clone, Copy)]
enum Source<'a> {
    Number(f64),
    Tensor(Tensor<'a>),
}

/// Fills the output with one draw each from parameters that broadcast to `sizes`.
fn drawn<const N: usize>(
    call: &mut Call,
    sizes: &Dims,
    parameters: [Source; N],
    draw: impl Fn(Draw, [f64; N]) -> Result<f64, KernelError>,
) -> Result<(), KernelError> {
    let (out, scratch) = parts(call, 0)?;
    check_real(out)?;
    out.resize(sizes)?;
    let stream = scratch.random.next_call();
    let bytes = parameters.iter().map(|parameter| match parameter {
        Source::Number(_) => 0,
        Source::Tensor(tensor) => load_bytes::<f64>(tensor),
    });
    let bytes = bytes.fold(out_bytes::<f64>(out), usize::saturating_add);
    let mut arena = Arena::new(scratch, bytes)?;
    let mut data: [&[f64]; N] = [&[]; N];
    let mut walks: [Offsets; N] = core::array::from_fn(|_| Offsets::new(&Dims::SCALAR, &Dims::SCALAR));
    for ((parameter, data), walk) in parameters.iter().zip(&mut data).zip(&mut walks) {
        if let Source::Tensor(tensor) = parameter {
            *data = arena.load::<f64>(tensor)?;
            let all = View::all(tensor.sizes(), &tensor.sizes().contiguous_strides());
            *walk = Offsets::new(sizes, &expanded(&all, sizes)?.strides);
        }
    }
    produce::<f64>(out, &mut arena, |slots, _| {
        for (element, slot) in slots.iter_mut().enumerate() {
            let mut values = [0.0; N];
            for ((value, parameter), (data, walk)) in
                values.iter_mut().zip(&parameters).zip(data.iter().zip(&mut walks))
            {
                *value = match parameter {
                    Source::Number(number) => *number,
                    // A walk over `sizes` has as many steps as there are slots.
                    Source::Tensor(_) => walk.next().and_then(|at| data.get(at)).copied().unwrap_or(f64::NAN),
                };
            }
            *slot = draw(stream.at(element as u64), values)?;
        }
        Ok(())
    })
}

/// `(self, a, b)`: as many draws as `self` has elements, which are not read.
fn spread(call: &mut Call, draw: impl Fn(Draw, [f64; 2]) -> Result<f64, KernelError>) -> Result<(), KernelError> {
    let sizes = *call.tensor(0)?.sizes();
    let parameters = [Source::Number(call.float(1)?), Source::Number(call.float(2)?)];
    drawn(call, &sizes, parameters, draw)
}

fn bernoulli(draw: Draw, [p]: [f64; 1]) -> Result<f64, KernelError> {
    match (0.0..=1.0).contains(&p) {
        true => Ok(f64::from(u8::from(draw.unit(53) < p))),
        false => Err(KernelError::invalid("p", format!("a probability of {p}"))),
    }
}

fn normal(draw: Draw, [mean, std]: [f64; 2]) -> Result<f64, KernelError> {
    match std >= 0.0 {
        true => Ok(mean + std * draw.normal()),
        false => Err(KernelError::invalid("std", format!("a deviation of {std}"))),
    }
}

/// What is drawn has no imaginary part, and PyTorch's draws of complex numbers have one, or are refused.
fn check_real(out: &Out) -> Result<(), KernelError> {
    match out.dtype().is_complex() {
        false => Ok(()),
        true => Err(KernelError::unsupported(
            "out",
            format!("random numbers of dtype {}", out.dtype()),
        )),
    }
}

fn check_float(out: &Out) -> Result<(), KernelError> {
    match out.dtype().is_float() {
        true => Ok(()),
        false => Err(KernelError::unsupported(
            "out",
            format!("a distribution over {}", out.dtype()),
        )),
    }
}

fn standard(call: &mut Call, sizes: Sizes) -> Result<(), KernelError> {
    let sizes = sizes.of(call)?;
    check_float(call.out(0)?)?;
    drawn(call, &sizes, [], |draw, []| Ok(draw.normal()))
}

fn uniform_of(call: &mut Call, sizes: Sizes, from: f64, to: f64) -> Result<(), KernelError> {
    let sizes = sizes.of(call)?;
    let out = call.out(0)?;
    check_float(out)?;
    let bits = precision(out.dtype());
    if !(from <= to && (to - from).is_finite()) {
        return Err(KernelError::invalid("from", format!("no numbers from {from} to {to}")));
    }
    drawn(call, &sizes, [], |draw, []| Ok(from + (to - from) * draw.unit(bits)))
}

/// Integers from the number at `low` (0 without one) to below the one at `high`.
fn integers(call: &mut Call, sizes: Sizes, low: Option<usize>, high: usize) -> Result<(), KernelError> {
    let low = low.map_or(Ok(0), |index| call.int(index))?;
    let high = match call.args.get(high) {
        Some(crate::Arg::Tensor(limit)) if limit.numel() == 1 => first::<i64>(limit, "high")?,
        _ => call.int(high)?,
    };
    between(call, sizes, i128::from(low), i128::from(high))
}

fn between(call: &mut Call, sizes: Sizes, low: i128, high: i128) -> Result<(), KernelError> {
    let sizes = sizes.of(call)?;
    if low >= high {
        return Err(KernelError::invalid(
            "high",
            format!("no integers from {low} to {high}"),
        ));
    }
    let (out, scratch) = parts(call, 0)?;
    check_real(out)?;
    let dtype = out.dtype();
    let held = match dtype.int_range() {
        Some((least, most)) => least <= low && high - 1 <= most,
        None => true,
    };
    if !held {
        return Err(KernelError::invalid(
            "high",
            format!("integers from {low} to {high} do not fit {dtype}"),
        ));
    }
    out.resize(&sizes)?;
    let stream = scratch.random.next_call();
    let range = (high - low) as u128;
    let mut arena = Arena::new(scratch, out_bytes::<i64>(out))?;
    produce::<i64>(out, &mut arena, |slots, _| {
        for (element, slot) in slots.iter_mut().enumerate() {
            *slot = (low + i128::from(stream.at(element as u64).below(range))) as i64;
        }
        Ok(())
    })
}

/// `(n)`: the integers below `n` in an order drawn by Fisher and Yates.
fn permutation(call: &mut Call) -> Result<(), KernelError> {
    let count = call.int(0)?;
    let sizes = dims_of(&[count], "n")?;
    let (out, scratch) = parts(call, 0)?;
    check_real(out)?;
    let dtype = out.dtype();
    let held = match dtype.int_range() {
        Some((_, most)) => i128::from(count) <= most + 1,
        None => count <= 1 << precision(dtype).min(62),
    };
    if !held {
        return Err(KernelError::invalid(
            "n",
            format!("{count} integers do not fit {dtype}"),
        ));
    }
    out.resize(&sizes)?;
    let stream = scratch.random.next_call();
    let mut arena = Arena::new(scratch, out_bytes::<i64>(out))?;
    produce::<i64>(out, &mut arena, |slots, _| {
        for (i, slot) in slots.iter_mut().enumerate() {
            *slot = i as i64;
        }
        for last in (1..slots.len()).rev() {
            slots.swap(last, stream.at(last as u64).below(last as u128 + 1) as usize);
        }
        Ok(())
    })
}

/// `(input, p, train)`: while training, each element is kept with probability `1 - p` and scaled by its inverse, and the mask
/// says which were; else the input and a mask of ones.
fn dropout(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let train = call.is_none(2) || call.bool(2)?;
    let p = if train { call.float(1)? } else { 0.0 };
    if !(0.0..=1.0).contains(&p) {
        return Err(KernelError::invalid("p", format!("a probability of {p}")));
    }
    if p != 0.0 && !input.dtype().is_float() {
        return Err(KernelError::unsupported(
            "input",
            format!("dropout of {}", input.dtype()),
        ));
    }
    let inputs = call.args.len();
    let [out, mask] = &mut *call.outs else {
        return Err(KernelError::WrongKind {
            index: inputs,
            expected: "two output tensors",
        });
    };
    expect_dtype(out, 0, input.dtype())?;
    expect_dtype(mask, 1, DType::Bool)?;
    out.resize(input.sizes())?;
    mask.resize(input.sizes())?;
    let stream = call.scratch.random.next_call();
    let count = input.numel();
    let bytes = load_bytes::<f64>(&input)
        .saturating_add(out_bytes::<f64>(out))
        .saturating_add(bytes_of::<u8>(count));
    let mut arena = Arena::new(call.scratch, bytes)?;
    let data = arena.load::<f64>(&input)?;
    let kept = arena.take::<u8>(count)?;
    for (element, kept) in kept.iter_mut().enumerate() {
        *kept = u8::from(p < 1.0 && (p == 0.0 || stream.at(element as u64).unit(53) >= p));
    }
    let scale = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
    produce::<f64>(out, &mut arena, |slots, _| {
        for ((slot, &x), &kept) in slots.iter_mut().zip(data).zip(&*kept) {
            // As PyTorch: a product, so that a NaN that is dropped stays one.
            *slot = x * (f64::from(kept) * scale);
        }
        Ok(())
    })?;
    crate::stage::store(kept, DType::Bool, mask)
}

/// `(self [..., n], num_samples, replacement)`: places of each row, drawn in proportion to its weights.
fn multinomial(call: &mut Call) -> Result<(), KernelError> {
    let (weights, samples, again) = (call.tensor(0)?, call.int(1)?, call.bool(2)?);
    let rank = weights.rank();
    if !(1..=2).contains(&rank) {
        return Err(KernelError::invalid(
            "self",
            format!("a tensor of {} is no row of weights", weights.sizes()),
        ));
    }
    let last = dim_of(weights.sizes(), -1, "self")?;
    let count = weights.sizes()[last] as usize;
    if samples <= 0 || (!again && samples as u64 > count as u64) {
        return Err(KernelError::invalid(
            "num_samples",
            format!("{samples} samples of {count} weights"),
        ));
    }
    let mut sizes = *weights.sizes();
    sizes[last] = samples;
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, DType::I64)?;
    out.resize(&dims_of(&sizes, "num_samples")?)?;
    let stream = scratch.random.next_call();
    let bytes = load_bytes::<f64>(&weights)
        .saturating_add(out_bytes::<i64>(out))
        .saturating_add(bytes_of::<f64>(count));
    let mut arena = Arena::new(scratch, bytes)?;
    let data = arena.load::<f64>(&weights)?;
    let left = arena.take::<f64>(count)?;
    let samples = samples as usize;
    produce::<i64>(out, &mut arena, |slots, _| {
        for (row, slots) in slots.chunks_mut(samples).enumerate() {
            left.copy_from_slice(&data[row * count..(row + 1) * count]);
            if left.iter().any(|&weight| !(weight >= 0.0 && weight.is_finite())) {
                return Err(KernelError::invalid("self", "a weight that is negative or not finite"));
            }
            for (sample, slot) in slots.iter_mut().enumerate() {
                let total: f64 = left.iter().sum();
                if total <= 0.0 {
                    return Err(KernelError::invalid("self", "too few weights that are not zero"));
                }
                let mut rest = stream.at((row * samples + sample) as u64).unit(53) * total;
                let mut chosen = 0;
                for (place, &weight) in left.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
                    chosen = place;
                    rest -= weight;
                    if rest < 0.0 {
                        break;
                    }
                }
                *slot = chosen as i64;
                if !again {
                    left[chosen] = 0.0;
                }
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_published_blocks() {
        // Known answers of the authors' Random123 library, file kat_vectors.
        for (counter, key, want) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            (
                [u32::MAX; 4],
                [u32::MAX; 2],
                [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd],
            ),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), want);
        }
    }

    #[test]
    fn the_largest_draw_is_below_one_in_every_dtype() {
        let most = Draw {
            first: u64::MAX,
            second: 0,
        };
        use delegraph_types::{bf16, f16};
        assert!(f16::from_f64(most.unit(precision(DType::F16))) < f16::ONE);
        assert!(bf16::from_f64(most.unit(precision(DType::BF16))) < bf16::ONE);
        assert!((most.unit(precision(DType::F32)) as f32) < 1.0);
        assert!(most.unit(precision(DType::F64)) < 1.0 && most.open() < 1.0);
        assert_eq!(most.below(1 << 64), u64::MAX);
    }
}
