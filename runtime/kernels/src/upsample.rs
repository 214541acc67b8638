//! Interpolating operators: linear, bilinear, trilinear and bicubic; and the arithmetic of scales that nearest shares.
//!
//! Separable: one pass for each spatial dimension with a few taps and weights an output index.

use crate::registry::Kernel;
use crate::stage::{Arena, bytes_of, count, dims_of, expect_dtype, load_bytes, out_bytes, parts, produce};
use crate::wide::{Wide, with_wide};
use crate::{Call, KernelError, Out, Scratch, Tensor};
use alloc::format;
use delegraph_types::{DType, Dims, Scalar};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::upsample_linear1d.out", linear::<1>),
    ("aten::upsample_bilinear2d.out", linear::<2>),
    ("aten::upsample_trilinear3d.out", linear::<3>),
    ("aten::upsample_bilinear2d.vec_out", linear_vec::<2>),
    ("aten::upsample_bicubic2d.out", cubic),
    ("aten::_upsample_bilinear2d_aa.out", antialiased),
];

/// Output sizes and scale factors of the last `N` of `N + 2` dimensions.
pub(crate) struct Spatial<const N: usize> {
    size: [i64; N],
    factor: [Option<f64>; N],
}

impl<const N: usize> Spatial<N> {
    /// Reads `SymInt[N] output_size` and the `N` optional scales from argument `scales` on.
    ///
    /// # Errors
    /// Not so many sizes, or the input has another rank.
    pub fn from_size(source: &Tensor, call: &Call, size: usize, scales: usize) -> Result<Spatial<N>, KernelError> {
        let size = call.ints(size)?;
        let mut factor = [None; N];
        for (k, slot) in factor.iter_mut().enumerate() {
            *slot = call.optional_float(scales + k)?;
        }
        Spatial::new(source, size, factor)
    }

    /// Reads `SymInt[]? output_size` and `float[]? scale_factors`, one of which is given.
    ///
    /// # Errors
    /// As [`Spatial::from_size`], or both or none of them are given.
    pub fn from_size_or_factors(
        source: &Tensor,
        call: &Call,
        size: usize,
        factors: usize,
    ) -> Result<Spatial<N>, KernelError> {
        match (call.is_none(size), call.is_none(factors)) {
            (false, true) => Spatial::new(source, call.ints(size)?, [None; N]),
            (true, false) => {
                let factors: [f64; N] = call
                    .floats(factors)?
                    .try_into()
                    .map_err(|_| KernelError::invalid("scale_factors", format!("{N} scale factors are expected")))?;
                if source.rank() != N + 2 {
                    return Err(wrong_rank::<N>(source));
                }
                let mut size = [0i64; N];
                for (k, slot) in size.iter_mut().enumerate() {
                    *slot = (source.sizes()[k + 2] as f64 * factors[k]) as i64;
                }
                Spatial::new(source, &size, factors.map(Some))
            }
            _ => Err(KernelError::invalid(
                "output_size",
                "one of output size and scale factors is expected",
            )),
        }
    }

    fn new(source: &Tensor, size: &[i64], factor: [Option<f64>; N]) -> Result<Spatial<N>, KernelError> {
        if source.rank() != N + 2 {
            return Err(wrong_rank::<N>(source));
        }
        let size: [i64; N] = size
            .try_into()
            .map_err(|_| KernelError::invalid("output_size", format!("{} sizes where {N} are expected", size.len())))?;
        if size.iter().any(|&s| s <= 0) || source.sizes()[2..].contains(&0) {
            return Err(KernelError::invalid(
                "output_size",
                format!("size {size:?} of an input of {}", source.sizes()),
            ));
        }
        Ok(Spatial { size, factor })
    }

    /// Sizes of the output.
    ///
    /// # Errors
    /// They are too large.
    pub fn sizes(&self, source: &Tensor) -> Result<Dims, KernelError> {
        let mut sizes = *source.sizes();
        sizes[2..].copy_from_slice(&self.size);
        dims_of(&sizes, "output_size")
    }

    /// Input steps for one output step, corners not aligned (`area_pixel_compute_scale`).
    pub fn ratio(&self, source: &Tensor, k: usize) -> f64 {
        match self.factor[k] {
            Some(factor) if factor > 0.0 => 1.0 / factor,
            _ => source.sizes()[k + 2] as f64 / self.size[k] as f64,
        }
    }
}

fn wrong_rank<const N: usize>(source: &Tensor) -> KernelError {
    KernelError::invalid(
        "self",
        format!("a tensor of {} where {} dimensions are expected", source.sizes(), N + 2),
    )
}

/// The input index of output index `i`; PyTorch computes it in `f32` for every dtype.
pub(crate) fn nearest_index(i: i64, size: i64, ratio: f64, exact: bool) -> i64 {
    let ratio = ratio as f32;
    let at = if exact {
        (i as f32 + 0.5) * ratio
    } else {
        i as f32 * ratio
    };
    (at as i64).clamp(0, size - 1)
}

/// How an output index is made of input indices.
#[derive(Clone, Copy)]
enum Filter {
    Linear,
    Cubic,
    /// A triangle as wide as the ratio where the output is smaller.
    Antialiased,
}

fn linear<const N: usize>(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let spatial = Spatial::<N>::from_size(&source, call, 1, 3)?;
    interpolate(call, source, spatial, Filter::Linear)
}

fn linear_vec<const N: usize>(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let spatial = Spatial::<N>::from_size_or_factors(&source, call, 1, 3)?;
    interpolate(call, source, spatial, Filter::Linear)
}

fn cubic(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let spatial = Spatial::<2>::from_size(&source, call, 1, 3)?;
    interpolate(call, source, spatial, Filter::Cubic)
}

fn antialiased(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let spatial = Spatial::<2>::from_size(&source, call, 1, 3)?;
    interpolate(call, source, spatial, Filter::Antialiased)
}

fn interpolate<const N: usize>(
    call: &mut Call,
    source: Tensor,
    spatial: Spatial<N>,
    filter: Filter,
) -> Result<(), KernelError> {
    let align_corners = call.bool(2)?;
    let sizes = spatial.sizes(&source)?;
    let mut ratios = [0.0; N];
    for (k, slot) in ratios.iter_mut().enumerate() {
        let (from, to) = (source.sizes()[k + 2], spatial.size[k]);
        *slot = match align_corners {
            true if to > 1 => (from - 1) as f64 / (to - 1) as f64,
            true => 0.0,
            false => spatial.ratio(&source, k),
        };
    }
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, source.dtype())?;
    out.resize(&sizes)?;
    match source.dtype() {
        // Bytes are interpolated in f32 and rounded.
        DType::U8 => passes::<f32, N>(&source, &sizes, ratios, align_corners, filter, out, scratch),
        dtype if dtype.is_float() => with_wide!(dtype, "self", W => {
            passes::<W, N>(&source, &sizes, ratios, align_corners, filter, out, scratch)
        }),
        other => Err(KernelError::invalid(
            "self",
            format!("dtype {other} cannot be interpolated"),
        )),
    }
}

/// Weights of one dimension: `taps` input indices and weights for each output index.
struct Taps<'s, W> {
    count: usize,
    /// Some taps are only there to make their number equal.
    padded: bool,
    index: &'s [usize],
    weight: &'s [W],
}

fn taps_of(filter: Filter, ratio: f64) -> usize {
    match filter {
        Filter::Linear => 2,
        Filter::Cubic => 4,
        Filter::Antialiased => {
            let support = ratio.max(1.0);
            ((support + 1.0) as usize).saturating_mul(2).saturating_add(1)
        }
    }
}

fn taps<'s, W: Wide>(
    arena: &mut Arena<'s>,
    (from, to): (usize, usize),
    ratio: f64,
    align_corners: bool,
    filter: Filter,
) -> Result<Taps<'s, W>, KernelError> {
    let per = taps_of(filter, ratio);
    let index = arena.take::<usize>(to * per)?;
    let weight = arena.take::<W>(to * per)?;
    // PyTorch computes positions in the dtype that it computes in.
    let narrow = |x: f64| if W::DTYPE == DType::F32 { f64::from(x as f32) } else { x };
    let ratio = narrow(ratio);
    let number = |x: f64| W::of(Scalar::Float(x)).unwrap_or(W::ZERO);
    let last = from - 1;
    for i in 0..to {
        let (index, weight) = (&mut index[i * per..(i + 1) * per], &mut weight[i * per..(i + 1) * per]);
        let middle = narrow(narrow(ratio * (i as f64 + 0.5)) - 0.5);
        match filter {
            Filter::Linear => {
                let at = if align_corners {
                    narrow(ratio * i as f64)
                } else {
                    middle.max(0.0)
                };
                let low = (at as usize).min(last);
                let part = (at - low as f64).clamp(0.0, 1.0);
                index.copy_from_slice(&[low, (low + 1).min(last)]);
                weight.copy_from_slice(&[number(1.0 - part), number(part)]);
            }
            Filter::Cubic => {
                let at = if align_corners {
                    narrow(ratio * i as f64)
                } else {
                    middle
                };
                let low = libm::floor(at);
                let part = (at - low).clamp(0.0, 1.0);
                for (k, (index, weight)) in index.iter_mut().zip(weight.iter_mut()).enumerate() {
                    *index = (low as i64 + k as i64 - 1).clamp(0, last as i64) as usize;
                    *weight = number(cubic_weight(part - (k as f64 - 1.0)));
                }
            }
            Filter::Antialiased => {
                let scale = ratio.max(1.0);
                let centre = ratio * (i as f64 + 0.5);
                let first = ((centre - scale + 0.5) as i64).max(0) as usize;
                let end = ((centre + scale + 0.5) as i64).clamp(0, from as i64) as usize;
                let value = |at: usize| (1.0 - ((at as f64 + 0.5 - centre) / scale).abs()).max(0.0);
                let total: f64 = (first..end).map(value).sum();
                for (k, (index, weight)) in index.iter_mut().zip(weight.iter_mut()).enumerate() {
                    let at = first + k;
                    let inside = at < end && total != 0.0;
                    *index = at.min(last);
                    *weight = number(if inside { value(at) / total } else { 0.0 });
                }
            }
        }
    }
    Ok(Taps {
        count: per,
        padded: matches!(filter, Filter::Antialiased),
        index,
        weight,
    })
}

/// Keys' kernel with a = -0.75.
fn cubic_weight(distance: f64) -> f64 {
    const A: f64 = -0.75;
    let x = distance.abs();
    if x <= 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
    } else {
        0.0
    }
}

/// One pass a dimension, the last dimension first; between passes values keep the type that is computed in.
fn passes<W: Wide, const N: usize>(
    source: &Tensor,
    sizes: &Dims,
    ratios: [f64; N],
    align_corners: bool,
    filter: Filter,
    out: &mut Out,
    scratch: &mut Scratch,
) -> Result<(), KernelError> {
    let planes = count(&sizes[..2]);
    let input = &source.sizes()[2..];
    let size = &sizes[2..];
    // Elements of one plane after the passes over dimensions `k..`.
    let after = |k: usize| count(&input[..k]).saturating_mul(count(&size[k..]));
    let widest = (0..N).map(after).max().unwrap_or(0);
    let buffers = bytes_of::<W>(widest).saturating_mul(2);
    let weights: usize = (0..N)
        .map(|k| {
            let n = count(&[size[k]]).saturating_mul(taps_of(filter, ratios[k]));
            bytes_of::<usize>(n).saturating_add(bytes_of::<W>(n))
        })
        .fold(0, usize::saturating_add);
    let total = load_bytes::<W>(source)
        .saturating_add(out_bytes::<W>(out))
        .saturating_add(buffers)
        .saturating_add(weights);
    let mut arena = Arena::new(scratch, total)?;
    let data = arena.load::<W>(source)?;
    let bytes = out.dtype() == DType::U8;
    produce::<W>(out, &mut arena, |dst, arena| {
        let mut tables = [const { None }; N];
        for (k, slot) in tables.iter_mut().enumerate() {
            let lengths = (input[k] as usize, size[k] as usize);
            *slot = Some(taps::<W>(arena, lengths, ratios[k], align_corners, filter)?);
        }
        let (mut even, mut odd) = (arena.take::<W>(widest)?, arena.take::<W>(widest)?);
        let (in_plane, out_plane) = (after(N), after(0));
        for plane in 0..planes {
            let mut current = &data[plane * in_plane..(plane + 1) * in_plane];
            let dst = &mut dst[plane * out_plane..(plane + 1) * out_plane];
            for k in (0..N).rev() {
                let Some(table) = &tables[k] else { continue };
                let (outer, inner) = (count(&input[..k]), count(&size[k + 1..]));
                let target = if k == 0 { &mut *dst } else { &mut even[..after(k)] };
                pass(current, target, table, (outer, input[k] as usize, inner));
                if bytes {
                    round_to_bytes(target);
                }
                core::mem::swap(&mut even, &mut odd);
                current = &odd[..after(k)];
            }
        }
        Ok(())
    })
}

/// PyTorch interpolates bytes a dimension at a time and keeps bytes between them, halves rounded up.
fn round_to_bytes<W: Wide>(values: &mut [W]) {
    for value in values {
        let rounded = libm::floor(value.to_f64() + 0.5).clamp(0.0, 255.0);
        *value = W::of(Scalar::Float(rounded)).unwrap_or(W::ZERO);
    }
}

/// `dst[o, i, n] = sum over taps of weight * src[o, index, n]`.
fn pass<W: Wide>(src: &[W], dst: &mut [W], taps: &Taps<W>, (outer, from, inner): (usize, usize, usize)) {
    let per = taps.count;
    let to = taps.index.len() / per.max(1);
    if per == 2 && inner == 1 {
        return pass_of_pairs(src, dst, taps, from);
    }
    for o in 0..outer {
        for i in 0..to {
            if per == 2 {
                let [first, second] = [2 * i, 2 * i + 1].map(|tap| {
                    let line = &src[(o * from + taps.index[tap]) * inner..][..inner];
                    (taps.weight[tap], line)
                });
                let row = &mut dst[(o * to + i) * inner..][..inner];
                for ((slot, &a), &b) in row.iter_mut().zip(first.1).zip(second.1) {
                    *slot = first.0.times(a).plus(second.0.times(b));
                }
                continue;
            }
            let row = &mut dst[(o * to + i) * inner..][..inner];
            row.fill(W::ZERO);
            for k in 0..per {
                let (index, weight) = (taps.index[i * per + k], taps.weight[i * per + k]);
                if taps.padded && weight == W::ZERO {
                    continue;
                }
                let line = &src[(o * from + index) * inner..][..inner];
                for (slot, &value) in row.iter_mut().zip(line) {
                    *slot = slot.plus(weight.times(value));
                }
            }
        }
    }
}

/// [`pass`] along rows with two taps.
fn pass_of_pairs<W: Wide>(src: &[W], dst: &mut [W], taps: &Taps<W>, from: usize) {
    let (index, weight) = (taps.index.as_chunks::<2>().0, taps.weight.as_chunks::<2>().0);
    for (line, row) in src
        .chunks_exact(from.max(1))
        .zip(dst.chunks_exact_mut(index.len().max(1)))
    {
        for ((slot, &[a, b]), &[first, second]) in row.iter_mut().zip(index).zip(weight) {
            *slot = first.times(line[a]).plus(second.times(line[b]));
        }
    }
}
