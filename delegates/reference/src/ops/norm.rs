//! Normalizations.

use crate::call::Call;
use crate::caps::{Operator, Refusal, floats, op, rank};
use crate::number::epsilon;
use crate::tensor::{Data, Tensor, count, room};
use crate::walk::split_at;
use delegraph_sdk::image::NodeView;
use delegraph_sdk::{DType, Error};

type Made = Result<Vec<Tensor>, Error>;

/// The elements of an optional tensor, which must be as many.
fn each(x: Option<&Tensor>, items: usize) -> Result<Option<&[f64]>, Error> {
    match x.map(Tensor::floats).transpose()? {
        Some(values) if values.len() != items => {
            Err(Error::invalid(format!("{} weights for {items} elements", values.len())))
        }
        values => Ok(values),
    }
}

/// Rows with their mean taken away and divided by their deviation: (elements, means, reciprocals of deviations).
fn normalized(values: &[f64], row: usize, eps: f64) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let (mut made, mut means, mut inverses) = (Vec::with_capacity(values.len()), Vec::new(), Vec::new());
    for line in values.chunks_exact(row.max(1)) {
        let mean = line.iter().sum::<f64>() / row as f64;
        let variance = line.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / row as f64;
        let inverse = 1.0 / (variance + eps).sqrt();
        made.extend(line.iter().map(|x| (x - mean) * inverse));
        means.push(mean);
        inverses.push(inverse);
    }
    (made, means, inverses)
}

/// Of each element, times its weight, plus its bias; `of` tells which weight an element has.
fn scale(values: &mut [f64], weight: Option<&[f64]>, bias: Option<&[f64]>, of: impl Fn(usize) -> usize) {
    for (i, value) in values.iter_mut().enumerate() {
        *value *= weight.map_or(1.0, |w| w[of(i)]);
        *value += bias.map_or(0.0, |b| b[of(i)]);
    }
}

/// The number of elements of the last dimensions, which must be these.
fn last(x: &Tensor, shape: &[i64]) -> Result<usize, Error> {
    let start = x.rank().checked_sub(shape.len());
    let tail = start.map(|start| &x.sizes()[start..]);
    match tail {
        Some(tail) if tail.iter().zip(shape).all(|(have, want)| *have as i64 == *want) => count(tail),
        _ => Err(Error::invalid(format!("{:?} does not end in {shape:?}", x.sizes()))),
    }
}

fn layer_norm(call: &Call<'_>) -> Made {
    let (x, shape, eps) = (call.tensor(0)?, call.ints(1)?, call.float(4)?);
    let row = last(x, &shape)?;
    let (weight, bias) = (each(call.optional(2)?, row)?, each(call.optional(3)?, row)?);
    let (mut made, means, inverses) = normalized(x.floats()?, row, eps);
    scale(&mut made, weight, bias, |i| i % row);
    let mut outputs = call.one(x.sizes().to_vec(), Data::Float(made))?;
    if call.outputs() == 3 {
        let mut sizes = x.sizes().to_vec();
        sizes.iter_mut().skip(x.rank() - shape.len()).for_each(|size| *size = 1);
        // Without elements there are no statistics either, unless rows are empty.
        if count(&sizes)? != means.len() {
            return Err(Error::unsupported("statistics of empty rows"));
        }
        outputs.push(call.make(1, sizes.clone(), Data::Float(means))?);
        outputs.push(call.make(2, sizes, Data::Float(inverses))?);
    }
    Ok(outputs)
}

fn rms_norm(call: &Call<'_>) -> Made {
    let (x, shape) = (call.tensor(0)?, call.ints(1)?);
    let row = last(x, &shape)?;
    // PyTorch computes 16-bit floats in f32, and takes the epsilon of that.
    let wide = if x.dtype() == DType::F64 {
        DType::F64
    } else {
        DType::F32
    };
    let eps = call.optional_scalar(3)?.map_or(epsilon(wide), |eps| eps.float());
    let weight = each(call.optional(2)?, row)?;
    let mut made = room(x.len())?;
    for line in x.floats()?.chunks_exact(row.max(1)) {
        let square = line.iter().map(|x| x * x).sum::<f64>() / row as f64;
        let inverse = 1.0 / (square + eps).sqrt();
        made.extend(line.iter().map(|x| x * inverse));
    }
    scale(&mut made, weight, None, |i| i % row);
    call.one(x.sizes().to_vec(), Data::Float(made))
}

/// Groups of channels, normalized together: (elements, means, reciprocals of deviations).
fn grouped(
    x: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<(Vec<f64>, Vec<f64>, Vec<f64>), Error> {
    let (_, channels, after) = split_at(x.sizes(), 1);
    if x.rank() < 2 || groups == 0 || channels % groups != 0 {
        return Err(Error::invalid(format!(
            "{:?} does not have {groups} groups of channels",
            x.sizes()
        )));
    }
    let (weight, bias) = (each(weight, channels)?, each(bias, channels)?);
    let (mut made, means, inverses) = normalized(x.floats()?, channels / groups * after, eps);
    scale(&mut made, weight, bias, |i| i / after % channels);
    Ok((made, means, inverses))
}

fn group_norm(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let (made, _, _) = grouped(
        x,
        call.natural(1)?,
        call.optional(2)?,
        call.optional(3)?,
        call.float(4)?,
    )?;
    call.one(x.sizes().to_vec(), Data::Float(made))
}

fn native_group_norm(call: &Call<'_>) -> Made {
    let (x, groups) = (call.tensor(0)?, call.natural(6)?);
    let (made, means, inverses) = grouped(x, groups, call.optional(1)?, call.optional(2)?, call.float(7)?)?;
    let sizes = vec![x.sizes()[0], groups];
    if count(&sizes)? != means.len() {
        return Err(Error::unsupported("statistics of empty groups"));
    }
    Ok(vec![
        call.make(0, x.sizes().to_vec(), Data::Float(made))?,
        call.make(1, sizes.clone(), Data::Float(means))?,
        call.make(2, sizes, Data::Float(inverses))?,
    ])
}

/// Each channel on its own is a group of one.
fn instance_norm(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let channels = x.sizes().get(1).copied().unwrap_or(0);
    let (made, _, _) = grouped(x, channels, call.optional(1)?, call.optional(2)?, call.float(7)?)?;
    call.one(x.sizes().to_vec(), Data::Float(made))
}

fn check_instance_norm(node: &NodeView<'_>) -> Result<(), Refusal> {
    floats(node)?;
    match (node.arg(5).bool(), node.arg(3).is_none() && node.arg(4).is_none()) {
        (Some(true), true) => Ok(()),
        _ => Err(Refusal::attribute("running statistics are not used or updated")),
    }
}

/// By statistics that are given: `(x - mean) / sqrt(variance + eps) * weight + bias`, by channel.
fn batch_norm(call: &Call<'_>, eps: f64) -> Result<Tensor, Error> {
    let x = call.tensor(0)?;
    let (_, channels, after) = split_at(x.sizes(), 1);
    if x.rank() < 2 {
        return Err(Error::invalid("there are no channels"));
    }
    let (weight, bias) = (each(call.optional(1)?, channels)?, each(call.optional(2)?, channels)?);
    let (means, variances) = (each(call.optional(3)?, channels)?, each(call.optional(4)?, channels)?);
    let (Some(means), Some(variances)) = (means, variances) else {
        return Err(Error::invalid("there are no statistics"));
    };
    let inverses: Vec<f64> = variances.iter().map(|v| 1.0 / (v + eps).sqrt()).collect();
    let mut made = room(x.len())?;
    for (i, x) in x.floats()?.iter().enumerate() {
        let channel = i / after % channels;
        made.push((x - means[channel]) * inverses[channel]);
    }
    scale(&mut made, weight, bias, |i| i / after % channels);
    call.make(0, x.sizes().to_vec(), Data::Float(made))
}

fn check_channels(node: &NodeView<'_>) -> Result<(), Refusal> {
    floats(node)?;
    match rank(node, 0) {
        Some(2..) => Ok(()),
        _ => Err(Refusal::rank("channels are the second of two dimensions at least")),
    }
}

fn check_batch_norm(node: &NodeView<'_>) -> Result<(), Refusal> {
    check_channels(node)?;
    match node.arg(5).bool() {
        Some(false) => Ok(()),
        _ => Err(Refusal::attribute("batch normalization while training")),
    }
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op(
        "aten::layer_norm",
        "Tensor int[] Tensor? Tensor? float any",
        floats,
        layer_norm,
    ),
    op(
        "aten::native_layer_norm",
        "Tensor int[] Tensor? Tensor? float",
        floats,
        layer_norm,
    ),
    op("aten::rms_norm", "Tensor int[] Tensor? float?", floats, rms_norm),
    op(
        "aten::group_norm",
        "Tensor int Tensor? Tensor? float any",
        check_channels,
        group_norm,
    ),
    op(
        "aten::native_group_norm",
        "Tensor Tensor? Tensor? int int int int float",
        check_channels,
        native_group_norm,
    ),
    op(
        "aten::instance_norm",
        "Tensor Tensor? Tensor? Tensor? Tensor? bool any float any",
        check_instance_norm,
        instance_norm,
    ),
    op(
        "aten::batch_norm",
        "Tensor Tensor? Tensor? Tensor Tensor bool any float any",
        check_batch_norm,
        |c| Ok(vec![batch_norm(c, c.float(7)?)?]),
    ),
    op(
        "aten::_native_batch_norm_legit_no_training",
        "Tensor Tensor? Tensor? Tensor Tensor any float",
        check_channels,
        |c| {
            // What training would have saved is empty.
            let empty = |i| c.make(i, vec![0], Data::Float(Vec::new()));
            Ok(vec![batch_norm(c, c.float(6)?)?, empty(1)?, empty(2)?])
        },
    ),
];

#[cfg(test)]
mod tests {
    use crate::testing::{f32s, gives, refusal};
    use delegraph_sdk::Reason;
    use delegraph_sdk::image::Arg;

    #[test]
    fn rows_and_channels() {
        let x = f32s(&[2, 2], &[1.0, 3.0, 5.0, 5.0]);
        let none = || Arg::None.into();
        let layer = [
            (&x).into(),
            [2][..].into(),
            none(),
            none(),
            Arg::Float(0.0).into(),
            none(),
        ];
        let want = f32s(&[2, 2], &[-1.0, 1.0, f32::NAN, f32::NAN]);
        gives("aten::layer_norm", &layer, &[want]);
        let x = f32s(&[1, 2], &[3.0, 4.0]);
        let root = 12.5f32.sqrt();
        let rms = [(&x).into(), [2][..].into(), none(), Arg::Float(0.0).into()];
        gives("aten::rms_norm", &rms, &[f32s(&[1, 2], &[3.0 / root, 4.0 / root])]);
        let (mean, variance) = (f32s(&[2], &[1.0, 2.0]), f32s(&[2], &[4.0, 1.0]));
        let batch = |training| {
            let tail = [Arg::Bool(training), Arg::Float(0.1), Arg::Float(0.0), Arg::None];
            let items = [(&x).into(), (&mean).into(), none(), (&mean).into(), (&variance).into()];
            items.into_iter().chain(tail.map(Into::into)).collect::<Vec<_>>()
        };
        gives("aten::batch_norm", &batch(false), &[f32s(&[1, 2], &[1.0, 4.0])]);
        assert_eq!(
            refusal("aten::batch_norm", &batch(true), &[x]).reason,
            Reason::ATTRIBUTE
        );
    }
}
