//! Values as images: channels last, with a batch, and with as many dimensions of space as a QNN operator wants.
//!
//! An operator on lines (`conv1d`) becomes one on planes of a height of 1; an input without a batch is a batch of one.

use crate::builder::{Builder, Layout, arranged, order};
use crate::caps::Refusal;
use crate::graph::{DataType, TensorId};
use delegraph_sdk::image::ValueIndex;

/// The type of a value in floats or integers that stand for numbers, which is what layers compute in.
///
/// # Errors
/// It is of another type.
pub fn numbers(b: &Builder<'_>, value: ValueIndex) -> Result<DataType, Refusal> {
    match b.representation(value)? {
        (data_type @ (DataType::Float16 | DataType::UFixed8 | DataType::UFixed16), _) => Ok(data_type),
        (data_type, _) => Err(Refusal::dtype(format!(
            "`{}` is {data_type}: layers are computed in floats and in quantized integers of 8 and 16 bits",
            b.image().value(value).name()
        ))),
    }
}

/// The type that values of a layer have, all the same; integers that stand for themselves are not computed in.
///
/// # Errors
/// They have different ones, or not one of [`numbers`].
pub fn one_type(b: &Builder<'_>, values: &[ValueIndex]) -> Result<DataType, Refusal> {
    let mut found = None;
    for value in values {
        let data_type = numbers(b, *value)?;
        let view = b.image().value(*value);
        if data_type.is_fixed() && view.quant().is_none() {
            return Err(Refusal::dtype(format!(
                "`{}` is of integers that stand for themselves",
                view.name()
            )));
        }
        if *found.get_or_insert(data_type) != data_type {
            let name = b.image().value(*value).name();
            return Err(Refusal::dtype(format!(
                "`{name}` is {data_type}, and what it meets is not"
            )));
        }
    }
    found.ok_or_else(|| Refusal::dtype("there are no values"))
}

/// Floats on both sides.
///
/// # Errors
/// One of the values has another type.
pub fn floats(b: &Builder<'_>, values: &[ValueIndex]) -> Result<(), Refusal> {
    match one_type(b, values)? {
        DataType::Float16 => Ok(()),
        data_type => Err(Refusal::dtype(format!(
            "it is computed in floats here, not in {data_type}"
        ))),
    }
}

/// Same type, scale and zero point: what moves integers needs it.
///
/// # Errors
/// They differ.
pub fn same_numbers(b: &Builder<'_>, x: ValueIndex, y: ValueIndex) -> Result<(), Refusal> {
    numbers(b, x)?;
    match b.representation(x)? == b.representation(y)? {
        true => Ok(()),
        false => Err(Refusal::quantization(
            "the result has another scale or zero point than what is moved",
        )),
    }
}

/// A value with `space` dimensions behind its channels as `[N, .., C]` with `wanted` of them between.
///
/// # Errors
/// It has another number of dimensions.
pub fn input(b: &mut Builder<'_>, value: ValueIndex, space: usize, wanted: usize) -> Result<TensorId, Refusal> {
    let dims = b.logical_dims(value)?;
    let id = match dims.len() {
        rank if rank == space + 2 => b.read(value, Layout::ChannelsLast)?,
        rank if rank == space + 1 => {
            let plain = b.read(value, Layout::RowMajor)?;
            let batch = b.reshaped(plain, &[&[1], &dims[..]].concat())?;
            b.transposed(batch, &order(space + 2, Layout::ChannelsLast))
        }
        rank => {
            let name = b.image().value(value).name();
            return Err(Refusal::shape(format!(
                "`{name}` has {rank} dimensions, not {} or {}",
                space + 1,
                space + 2
            )));
        }
    };
    let have = b.tensor(id).dims.clone();
    b.reshaped(id, &widened(&have, wanted))
}

/// Dimensions of 1 put in behind the batch.
fn widened(dims: &[u32], wanted: usize) -> Vec<u32> {
    let mut wide = vec![dims[0]];
    wide.resize(1 + (wanted + 2).saturating_sub(dims.len()), 1);
    wide.extend(&dims[1..]);
    wide
}

/// A result that `make` writes as such an image.
///
/// # Errors
/// As [`input`]; or what `make` says.
pub fn output(
    b: &mut Builder<'_>,
    value: ValueIndex,
    space: usize,
    wanted: usize,
    make: impl FnOnce(&mut Builder<'_>, TensorId) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let dims = b.logical_dims(value)?;
    let batched = match dims.len() {
        rank if rank == space + 2 => dims,
        rank if rank == space + 1 => [&[1], &dims[..]].concat(),
        rank => return Err(Refusal::shape(format!("a result of {rank} dimensions"))),
    };
    let has_batch = b.image().value(value).rank() == space + 2;
    if has_batch && space == wanted {
        let out = b.write(value, Layout::ChannelsLast)?;
        return make(b, out);
    }
    let last = arranged(&batched, Layout::ChannelsLast);
    let (data_type, quantization) = b.representation(value)?;
    let wide = b.temporary(data_type, &widened(&last, wanted), quantization);
    make(b, wide)?;
    if has_batch {
        let out = b.write(value, Layout::ChannelsLast)?;
        b.op("Reshape", Vec::new(), &[wide], &[out]);
        return Ok(());
    }
    let narrow = b.reshaped(wide, &last)?;
    let turned = b.transposed(narrow, &order(last.len(), Layout::RowMajor));
    let out = b.write(value, Layout::RowMajor)?;
    b.op("Reshape", Vec::new(), &[turned], &[out]);
    Ok(())
}

/// Writes a result of any sizes by `make`, which gets a tensor of the sizes `dims` that has as many elements.
///
/// # Errors
/// As [`Builder::write`]; or what `make` says.
pub fn output_as(
    b: &mut Builder<'_>,
    value: ValueIndex,
    dims: &[u32],
    make: impl FnOnce(&mut Builder<'_>, TensorId) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    if b.dims(value)? == dims {
        let out = b.write(value, Layout::RowMajor)?;
        return make(b, out);
    }
    let (data_type, quantization) = b.representation(value)?;
    let other = b.temporary(data_type, dims, quantization);
    make(b, other)?;
    let out = b.write(value, Layout::RowMajor)?;
    b.op("Reshape", Vec::new(), &[other], &[out]);
    Ok(())
}

/// A list of one number a dimension, of which one may stand for all; none: `default`.
///
/// # Errors
/// Another number of them, or one that is negative or huge.
pub fn each(list: &[i64], default: &[i64], space: usize) -> Result<Vec<u32>, Refusal> {
    let list = if list.is_empty() { default } else { list };
    let wide: Vec<i64> = match *list {
        [one] => vec![one; space],
        _ => list.to_vec(),
    };
    let numbers: Vec<u32> = wide.iter().filter_map(|n| u32::try_from(*n).ok()).collect();
    match numbers.len() == space && wide.len() == space && numbers.iter().all(|n| *n < 1 << 24) {
        true => Ok(numbers),
        false => Err(Refusal::attribute(format!("{list:?} for {space} dimensions"))),
    }
}

/// Numbers with `fill` put in front, so that there are `wanted`.
pub fn filled(list: &[u32], fill: u32, wanted: usize) -> Vec<u32> {
    let mut all = vec![fill; wanted.saturating_sub(list.len())];
    all.extend(list);
    all
}
