//! Layer, group and batch normalization. Statistics are computed in double precision.

use crate::activation::spread;
use crate::elementwise::{check_category, map3, with_real};
use crate::lanes::{Operand, Reader, Writer};
use crate::math::Real;
use crate::parallel::{each, portion};
use crate::registry::Kernel;
use crate::rows::{self, DimSet};
use crate::stage::{Arena, bytes_of, count, load_bytes, out_bytes, produce};
use crate::variance::moments;
use crate::vector::{self, Bulk};
use crate::{Call, KernelError, Tensor};
use alloc::format;
use delegraph_types::{Dims, Element};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::_native_batch_norm_legit.no_stats_out", batch_norm_of_batch),
    ("aten::_native_batch_norm_legit.out", batch_norm_with_running),
    (
        "aten::_native_batch_norm_legit_no_training.out",
        batch_norm_of_statistics,
    ),
    ("aten::native_group_norm.out", group_norm),
    ("aten::native_layer_norm.out", layer_norm),
];

fn check_float(input: &Tensor) -> Result<(), KernelError> {
    match input.dtype().is_float() {
        true => Ok(()),
        false => Err(KernelError::invalid(
            "input",
            format!("dtype {} instead of a floating one", input.dtype()),
        )),
    }
}

/// Rows that are normalized, one after the other in row-major order.
struct Rows<'a> {
    input: Tensor<'a>,
    /// Elements of a row.
    len: usize,
    weight: Option<Tensor<'a>>,
    bias: Option<Tensor<'a>>,
    /// Neighbours in a row that share an element of weight and bias.
    shared: usize,
    /// Rows until weight and bias begin again.
    groups: usize,
    eps: f64,
}

/// Writes the first output normalized row by row, mean and reciprocal deviation to the second and third. The outputs have their sizes.
fn normalize(call: &mut Call, rows: &Rows) -> Result<(), KernelError> {
    let inputs = call.args.len();
    let [out, means, deviations] = &mut *call.outs else {
        return Err(KernelError::WrongKind {
            index: inputs,
            expected: "three output tensors",
        });
    };
    let parallel = out.parallel();
    let count = means.sizes().numel().unwrap_or(0);
    with_real!(rows.input.dtype(), "input", W => {
        let vectors = [rows.weight, rows.bias];
        let total = vectors.iter().flatten().map(load_bytes::<W>).fold(0, usize::saturating_add);
        let total = total
            .saturating_add(load_bytes::<W>(&rows.input))
            .saturating_add(out_bytes::<W>(out))
            .saturating_add(bytes_of::<f64>(count.saturating_mul(2)));
        let mut arena = Arena::new(call.scratch, total)?;
        let src = arena.load::<W>(&rows.input)?;
        let weight = rows.weight.as_ref().map(|tensor| arena.load::<W>(tensor)).transpose()?;
        let bias = rows.bias.as_ref().map(|tensor| arena.load::<W>(tensor)).transpose()?;
        // Mean and reciprocal deviation of each row.
        let moments = arena.take::<f64>(count.saturating_mul(2))?;
        produce::<W>(out, &mut arena, |dst, _| {
            let len = rows.len.max(1);
            let block = portion(parallel, count, len.saturating_mul(2), 1);
            let parts = dst.chunks_mut(block * len).zip(src.chunks(block * len)).zip(moments.chunks_mut(2 * block));
            if rows.len > 0 {
                each(parallel, parts.enumerate(), |(i, ((dst, src), moments))| {
                    let lines = dst.chunks_exact_mut(len).zip(src.chunks_exact(len)).zip(moments.chunks_exact_mut(2));
                    for (k, ((dst, src), moments)) in lines.enumerate() {
                        let channels = len / rows.shared.max(1);
                        let first = (i * block + k) % rows.groups.max(1) * channels;
                        let vectors = (some_of(weight, first, channels), some_of(bias, first, channels));
                        let (mean, deviation) = statistics(src, rows.eps);
                        moments.copy_from_slice(&[mean, deviation]);
                        scale(dst, src, (mean, deviation), vectors, rows.shared);
                    }
                    Ok(())
                })?;
            } else {
                // What 0 / 0 gives, as in PyTorch.
                moments.fill(f64::NAN);
            }
            Ok(())
        })?;
        for (index, to) in [means, deviations].into_iter().enumerate() {
            let mut writer = Writer::<f64>::whole(to);
            for pair in moments.chunks_exact(2) {
                writer.push(to, pair[index])?;
            }
        }
        Ok(())
    })
}

fn some_of<T>(vector: Option<&[T]>, first: usize, count: usize) -> Option<&[T]> {
    vector.map(|vector| &vector[first..first + count])
}

/// The mean, and the reciprocal of the deviation.
fn statistics<W: Bulk>(row: &[W], eps: f64) -> (f64, f64) {
    let count = row.len() as f64;
    let mean = W::sum(row) / count;
    (mean, 1.0 / Real::sqrt(W::squares(row, mean) / count + eps))
}

/// `(x - mean) * deviation * weight + bias`, of which `shared` neighbours have the same weight and bias.
fn scale<W: Bulk>(
    dst: &mut [W],
    src: &[W],
    (mean, deviation): (f64, f64),
    (weight, bias): (Option<&[W]>, Option<&[W]>),
    shared: usize,
) {
    let normal = |x: W| (x.to_f64() - mean) * deviation;
    if shared > 1 {
        for (i, (dst, src)) in dst.chunks_mut(shared).zip(src.chunks(shared)).enumerate() {
            let (w, b) = (
                weight.map_or(1.0, |w| w[i].to_f64()),
                bias.map_or(0.0, |b| b[i].to_f64()),
            );
            for (slot, &x) in dst.iter_mut().zip(src) {
                *slot = W::from_f64(normal(x) * w + b);
            }
        }
        return;
    }
    match (weight, bias) {
        (Some(weight), Some(bias)) => W::normalized(src, (mean, deviation), weight, bias, dst),
        (Some(weight), None) => {
            for ((slot, &x), &w) in dst.iter_mut().zip(src).zip(weight) {
                *slot = W::from_f64(normal(x) * w.to_f64());
            }
        }
        (None, Some(bias)) => {
            for ((slot, &x), &b) in dst.iter_mut().zip(src).zip(bias) {
                *slot = W::from_f64(normal(x) + b.to_f64());
            }
        }
        (None, None) => {
            for (slot, &x) in dst.iter_mut().zip(src) {
                *slot = W::from_f64(normal(x));
            }
        }
    }
}

fn layer_norm(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    check_float(&input)?;
    let normalized = call.ints(1)?;
    let (weight, bias, eps) = (call.optional_tensor(2)?, call.optional_tensor(3)?, call.float(4)?);
    let first = input.rank().checked_sub(normalized.len());
    let Some(first) = first.filter(|&first| !normalized.is_empty() && input.sizes()[first..] == *normalized) else {
        return Err(KernelError::invalid(
            "normalized_shape",
            format!("{normalized:?} is not the end of a shape of {}", input.sizes()),
        ));
    };
    for (name, tensor) in [("weight", weight), ("bias", bias)] {
        if let Some(tensor) = tensor
            && tensor.sizes().as_slice() != normalized
        {
            return Err(KernelError::invalid(
                name,
                format!("a shape of {} instead of {normalized:?}", tensor.sizes()),
            ));
        }
    }
    let set = DimSet::from(first);
    let out = call.out(0)?;
    check_category(out, 0, input.dtype())?;
    out.resize(input.sizes())?;
    for index in 1..3 {
        call.out(index)?.resize(&set.reduce(input.sizes(), true))?;
    }
    let rows = Rows {
        input,
        len: count(normalized),
        weight,
        bias,
        shared: 1,
        groups: 1,
        eps,
    };
    normalize(call, &rows)
}

fn group_norm(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    check_float(&input)?;
    let (weight, bias) = (call.optional_tensor(1)?, call.optional_tensor(2)?);
    let (groups, eps) = (call.int(6)?, call.float(7)?);
    let channels = input.sizes().get(1).copied().unwrap_or(0);
    if input.rank() < 2 || groups <= 0 || channels % groups != 0 {
        return Err(KernelError::invalid(
            "group",
            format!("{groups} groups of the channels of a shape of {}", input.sizes()),
        ));
    }
    check_channels(channels, [("weight", weight), ("bias", bias)])?;
    let batch = input.sizes()[0];
    let out = call.out(0)?;
    check_category(out, 0, input.dtype())?;
    out.resize(input.sizes())?;
    for index in 1..3 {
        let statistics = Dims::new(&[batch, groups]).unwrap_or_default();
        call.out(index)?.resize(&statistics)?;
    }
    let (channels, image) = ((channels / groups) as usize, count(&input.sizes()[2..]));
    let rows = Rows {
        input,
        len: channels.saturating_mul(image),
        weight,
        bias,
        shared: image,
        groups: groups as usize,
        eps,
    };
    normalize(call, &rows)
}

/// Each vector has to have one contiguous element a channel.
fn check_channels<const N: usize>(
    channels: i64,
    vectors: [(&'static str, Option<Tensor>); N],
) -> Result<(), KernelError> {
    for (name, vector) in vectors {
        if let Some(vector) = vector
            && (vector.rank() != 1 || vector.sizes()[0] != channels || !vector.is_contiguous())
        {
            return Err(KernelError::invalid(
                name,
                format!("a shape of {} for {channels} channels", vector.sizes()),
            ));
        }
    }
    Ok(())
}

/// `(input, weight, bias, running_mean, running_var, momentum, eps)`; the saved statistics are empty.
fn batch_norm_of_statistics(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    check_float(&input)?;
    let (weight, bias) = (call.optional_tensor(1)?, call.optional_tensor(2)?);
    let (mean, variance, eps) = (call.tensor(3)?, call.tensor(4)?, call.float(6)?);
    let channels = input.sizes().get(1).copied().unwrap_or(0);
    check_channels(
        channels,
        [
            ("weight", weight),
            ("bias", bias),
            ("running_mean", Some(mean)),
            ("running_var", Some(variance)),
        ],
    )?;
    for index in 1..3 {
        call.out(index)?.resize(&Dims::filled(1, 0))?;
    }
    let mut means = Reader::<f64>::new(mean, &[channels], &[1]);
    let mut variances = Reader::<f64>::new(variance, &[channels], &[1]);
    channelwise(call, input, weight, bias, |_| {
        let (mean, variance) = (means.read(1)?[0], variances.read(1)?[0]);
        Ok((mean, 1.0 / Real::sqrt(variance + eps)))
    })
}

/// `(input, weight, bias, training, momentum, eps)` with the statistics of the batch itself, which are saved.
fn batch_norm_of_batch(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    check_float(&input)?;
    let (weight, bias, eps) = (call.optional_tensor(1)?, call.optional_tensor(2)?, call.float(5)?);
    if !call.bool(3)? {
        return Err(KernelError::invalid("training", "false without running statistics"));
    }
    let channels = input.sizes().get(1).copied().unwrap_or(0);
    check_channels(channels, [("weight", weight), ("bias", bias)])?;
    for index in 1..3 {
        call.out(index)?.resize(&Dims::filled(1, channels))?;
    }
    let mut saved = (Writer::<f64>::whole(call.out(1)?), Writer::<f64>::whole(call.out(2)?));
    let mut rows = rows::Rows::<f64>::new(input, DimSet::one(1).others());
    channelwise(call, input, weight, bias, |call| {
        rows.advance();
        let (mean, squares) = moments(&mut rows)?;
        let deviation = 1.0 / Real::sqrt(squares / rows.len() as f64 + eps);
        saved.0.push(call.out(1)?, mean)?;
        saved.1.push(call.out(2)?, deviation)?;
        Ok((mean, deviation))
    })
}

/// `(input, weight, bias, running_mean, running_var, training, momentum, eps)`: the running statistics are the first two outputs,
/// which training moves towards those of the batch.
fn batch_norm_with_running(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    check_float(&input)?;
    let (weight, bias) = (call.optional_tensor(1)?, call.optional_tensor(2)?);
    let (training, momentum, eps) = (call.bool(5)?, call.float(6)?, call.float(7)?);
    let channels = input.sizes().get(1).copied().unwrap_or(0);
    check_channels(channels, [("weight", weight), ("bias", bias)])?;
    let inputs = call.args.len();
    let Some(([mean, variance], outs)) = call.outs.split_first_chunk_mut() else {
        return Err(KernelError::WrongKind {
            index: inputs,
            expected: "five output tensors",
        });
    };
    for (name, running) in [("running_mean", &mut *mean), ("running_var", &mut *variance)] {
        check_channels(channels, [(name, Some(running.as_tensor(&mut Dims::default())?))])?;
    }
    let mut inner = Call {
        args: call.args,
        outs,
        scratch: call.scratch,
        result: None,
    };
    let saved = Dims::filled(1, if training { channels } else { 0 });
    for index in 1..3 {
        inner.out(index)?.resize(&saved)?;
    }
    let mut saved = (Writer::<f64>::whole(inner.out(1)?), Writer::<f64>::whole(inner.out(2)?));
    let mut moved = (Writer::<f64>::whole(mean), Writer::<f64>::whole(variance));
    let mut rows = rows::Rows::<f64>::new(input, DimSet::one(1).others());
    let mut channel = 0usize;
    channelwise(&mut inner, input, weight, bias, |call| {
        let mut old = [0.0; 2];
        for (value, running) in old.iter_mut().zip([&mut *mean, &mut *variance]) {
            let mut strides = Dims::SCALAR;
            let mut reader = Reader::<f64>::new(running.as_tensor(&mut strides)?, &[channels], &[1]);
            reader.seek(channel);
            *value = reader.read(1)?[0];
        }
        channel += 1;
        if !training {
            return Ok((old[0], 1.0 / Real::sqrt(old[1] + eps)));
        }
        rows.advance();
        let (new, squares) = moments(&mut rows)?;
        let count = rows.len() as f64;
        let deviation = 1.0 / Real::sqrt(squares / count + eps);
        saved.0.push(call.out(1)?, new)?;
        saved.1.push(call.out(2)?, deviation)?;
        moved.0.push(mean, (1.0 - momentum) * old[0] + momentum * new)?;
        moved
            .1
            .push(variance, (1.0 - momentum) * old[1] + momentum * squares / (count - 1.0))?;
        Ok((new, deviation))
    })
}

/// Elements of a plane from which on it is worth a loop of its own.
const LEAST_PLANE: usize = 16;

/// Multiplies and shifts each channel; `statistics` gives the mean and reciprocal deviation of one channel after the other.
fn channelwise<'a>(
    call: &mut Call<'a, '_>,
    input: Tensor<'a>,
    weight: Option<Tensor<'a>>,
    bias: Option<Tensor<'a>>,
    mut statistics: impl FnMut(&mut Call<'a, '_>) -> Result<(f64, f64), KernelError>,
) -> Result<(), KernelError> {
    let Some(&channels) = input.sizes().get(1) else {
        return Err(KernelError::invalid("input", "a tensor of less than two dimensions"));
    };
    let count = channels as usize;
    // What each channel is multiplied by, then what is added to it.
    let mut table = core::mem::take(call.scratch);
    let filled = (|| {
        let values = table.elements::<f64>(2 * count)?;
        let vector = |tensor: Option<Tensor<'a>>| tensor.map(|t| Reader::<f64>::new(t, &[channels], &[1]));
        let (mut weight, mut bias) = (vector(weight), vector(bias));
        let next = |reader: &mut Option<Reader<f64>>, default: f64| -> Result<f64, KernelError> {
            reader.as_mut().map_or(Ok(default), |reader| Ok(reader.read(1)?[0]))
        };
        for channel in 0..count {
            let (mean, deviation) = statistics(call)?;
            let factor = next(&mut weight, 1.0)? * deviation;
            values[channel] = factor;
            values[count + channel] = next(&mut bias, 0.0)? - mean * factor;
        }
        let out = call.out(0)?;
        check_category(out, 0, input.dtype())?;
        out.resize(input.sizes())?;
        let values: &[f64] = values;
        let plane: usize = input.sizes()[2..].iter().product::<i64>() as usize;
        if input.dtype() == f32::DTYPE
            && out.dtype() == f32::DTYPE
            && input.is_contiguous()
            && out.is_contiguous()
            && plane >= LEAST_PLANE
            && let Some(from) = input.data::<f32>()
        {
            let parallel = out.parallel();
            let planes = portion(parallel, from.len() / plane, plane, 1);
            let parts = out.data_mut::<f32>().unwrap_or(&mut []).chunks_mut(planes * plane);
            return each(
                parallel,
                parts.zip(from.chunks(planes * plane)).enumerate(),
                |(i, (to, from))| {
                    let planes_of = from.chunks_exact(plane).zip(to.chunks_exact_mut(plane));
                    for (k, (from, to)) in planes_of.enumerate() {
                        let channel = (i * planes + k) % count;
                        vector::affine(from, values[channel] as f32, values[count + channel] as f32, to);
                    }
                    Ok(())
                },
            );
        }
        let [sizes, strides] = spread(count, 1, input.rank(), 1);
        let along = |values| -> Result<Operand, KernelError> {
            let vector = Tensor::new(f64::DTYPE, &sizes, &strides, bytemuck::cast_slice(values))?;
            Ok(Operand::Tensor(vector))
        };
        let operands = [
            Operand::Tensor(input),
            along(&values[..count])?,
            along(&values[count..])?,
        ];
        with_real!(input.dtype(), "input", W => {
            map3::<W, W>(&operands, None, out, Real::times_plus)
        })
    })();
    *call.scratch = table;
    filled
}
