//! Rows looked up by index and joined bag by bag.

use crate::embedding::row_index;
use crate::lanes::{LANES, Reader};
use crate::registry::Kernel;
use crate::stage::{Arena, bytes_of, dims_of, expect_dtype, load_bytes, out_bytes, produce, store};
use crate::{Call, KernelError, Tensor};
use alloc::format;
use core::ops::Range;
use delegraph_types::{DType, Dims};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::_embedding_bag.out", bags),
    ("aten::_embedding_bag_forward_only.out", bags),
];

/// How the rows of a bag are joined.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Sum,
    Mean,
    Max,
}

/// Where each bag begins and ends among the indices.
struct Bags<'a> {
    offsets: &'a [i64],
    /// The offsets end with the end of the last bag.
    closed: bool,
    indices: usize,
}

impl Bags<'_> {
    fn count(&self) -> usize {
        self.offsets.len() - usize::from(self.closed)
    }

    fn check(&self) -> Result<(), KernelError> {
        let ordered = self.offsets.windows(2).all(|pair| pair[0] <= pair[1]);
        let inside = self.offsets.last().is_none_or(|&last| last <= self.indices as i64);
        match self.offsets.first() {
            Some(&first) if first != 0 || !ordered || !inside => Err(KernelError::invalid(
                "offsets",
                format!("offsets that do not rise from 0 to at most {}", self.indices),
            )),
            None if self.closed => Err(KernelError::invalid("offsets", "no last offset")),
            _ => Ok(()),
        }
    }

    /// After [`Bags::check`].
    fn range(&self, bag: usize) -> Range<usize> {
        let end = self.offsets.get(bag + 1).map_or(self.indices, |&end| end as usize);
        self.offsets[bag] as usize..end
    }
}

fn vector(tensor: &Tensor, argument: &'static str) -> Result<(), KernelError> {
    match tensor.rank() {
        1 => Ok(()),
        _ => Err(KernelError::invalid(
            argument,
            format!("a tensor of {} is no vector", tensor.sizes()),
        )),
    }
}

/// `(weight, indices, offsets, scale_grad_by_freq, mode, sparse, per_sample_weights, include_last_offset, padding_idx)`: the bags,
/// and what a gradient would need: the bag of each index, the number of rows of each bag, and for a maximum which row it is from.
/// What PyTorch leaves unspecified of these is zero.
fn bags(call: &mut Call) -> Result<(), KernelError> {
    let (weight, indices, offsets) = (call.tensor(0)?, call.tensor(1)?, call.tensor(2)?);
    let mode = match call.int(4)? {
        0 => Mode::Sum,
        1 => Mode::Mean,
        2 => Mode::Max,
        other => return Err(KernelError::invalid("mode", format!("mode {other}"))),
    };
    let scales = call.optional_tensor(6)?;
    let (closed, padding) = (call.bool(7)?, call.optional_int(8)?.unwrap_or(-1));
    let &[rows, columns] = weight.sizes().as_slice() else {
        return Err(KernelError::invalid(
            "weight",
            format!("a tensor of {} is no table of rows", weight.sizes()),
        ));
    };
    if !weight.dtype().is_float() {
        return Err(KernelError::unsupported("weight", format!("dtype {}", weight.dtype())));
    }
    vector(&indices, "indices")?;
    vector(&offsets, "offsets")?;
    if let Some(scales) = scales
        && (scales.sizes() != indices.sizes() || mode != Mode::Sum)
    {
        return Err(KernelError::invalid(
            "per_sample_weights",
            format!("weights of {} for indices of {}", scales.sizes(), indices.sizes()),
        ));
    }
    let count = indices.numel();
    let inputs = call.args.len();
    let [out, bag_of, sizes, most] = &mut *call.outs else {
        return Err(KernelError::WrongKind {
            index: inputs,
            expected: "four output tensors",
        });
    };
    expect_dtype(out, 0, weight.dtype())?;
    // As PyTorch's meta function, which is what a program's types come from: a plain sum of these dtypes skips the list.
    let skipped = mode == Mode::Sum && padding < 0 && matches!(weight.dtype(), DType::F32 | DType::F16);
    let bags = offsets.sizes()[0] - i64::from(closed);
    let by_bag = dims_of(&[bags], "offsets")?;
    let table = dims_of(&[bags, columns], "offsets")?;
    out.resize(&table)?;
    bag_of.resize(&Dims::filled(1, if skipped { 0 } else { count as i64 }))?;
    sizes.resize(&by_bag)?;
    most.resize(if mode == Mode::Max { &table } else { &by_bag })?;
    let columns = columns as usize;
    let most_count = most.sizes().numel().unwrap_or(0);
    let bytes = [
        load_bytes::<i64>(&indices),
        load_bytes::<i64>(&offsets),
        scales.as_ref().map_or(0, load_bytes::<f64>),
        out_bytes::<f64>(out),
        bytes_of::<i64>(count),
        bytes_of::<i64>(bags as usize),
        bytes_of::<i64>(most_count),
    ];
    let mut arena = Arena::new(call.scratch, bytes.into_iter().fold(0, usize::saturating_add))?;
    let indices = arena.load::<i64>(&indices)?;
    let all = Bags {
        offsets: arena.load::<i64>(&offsets)?,
        closed,
        indices: count,
    };
    all.check()?;
    let scales = match &scales {
        Some(scales) => Some(arena.load::<f64>(scales)?),
        None => None,
    };
    let bag_numbers = arena.take::<i64>(count)?;
    let lengths = arena.take::<i64>(all.count())?;
    let from = arena.take::<i64>(most_count)?;
    // Indices behind the last offset belong to no bag.
    bag_numbers.fill((bags - 1).max(0));
    from.fill(0);
    let stride = weight.strides()[0];
    let mut reader = Reader::<f64>::new(weight, &[columns as i64], &weight.strides()[1..]);
    produce::<f64>(out, &mut arena, |slots, _| {
        slots.fill(0.0);
        for bag in 0..all.count() {
            let slots = &mut slots[bag * columns..(bag + 1) * columns];
            let mut read = 0i64;
            for at in all.range(bag) {
                bag_numbers[at] = bag as i64;
                let row = row_index(indices[at], rows)?;
                if row == padding {
                    continue;
                }
                reader.seek((row * stride) as usize);
                let scale = scales.map_or(1.0, |scales| scales[at]);
                for (piece, slots) in slots.chunks_mut(LANES).enumerate() {
                    let values = reader.read(slots.len())?;
                    if mode != Mode::Max {
                        for (slot, value) in slots.iter_mut().zip(values) {
                            *slot += value * scale;
                        }
                        continue;
                    }
                    let from = &mut from[bag * columns + piece * LANES..][..slots.len()];
                    for ((slot, value), from) in slots.iter_mut().zip(values).zip(from) {
                        if read == 0 || *value > *slot {
                            *slot = *value;
                            *from = row;
                        }
                    }
                }
                read += 1;
            }
            lengths[bag] = if mode == Mode::Sum { 0 } else { read };
            if mode == Mode::Mean && read > 1 {
                slots.iter_mut().for_each(|slot| *slot /= read as f64);
            }
        }
        Ok(())
    })?;
    if mode == Mode::Mean {
        from.copy_from_slice(lengths);
    }
    let kept = if skipped { 0 } else { count };
    store(bytemuck::cast_slice(&bag_numbers[..kept]), DType::I64, bag_of)?;
    store(bytemuck::cast_slice(lengths), DType::I64, sizes)?;
    store(bytemuck::cast_slice(from), DType::I64, most)
}
