//! Normalizations.

use crate::caps::{self, Operator, Refusal};
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::operators::reduce::{Combine, Last, Map, fold, is_float};
use crate::operators::reduce_rows::{Lying, Rows, Share, code, merged, optional, words};
use crate::tensor::{Layout, Tensor};
use delegraph_sdk::image::{NodeView, ValueIndex};
use delegraph_sdk::{DType, Error};

type Encoded = Result<(), Error>;

/// Rows that are normalized, each of one or two dimensions: where `norm_rows.wgsl` finds their elements.
struct Lines {
    count: u32,
    /// Outer and inner dimension: size and stride.
    outer: [u32; 2],
    inner: [u32; 2],
    /// Rows of an image, and the strides of images and of rows in an image.
    per_image: u32,
    image: u32,
    row: u32,
    /// Weights that a row of an image has; rows of one image follow each other in them.
    weights: u32,
    /// Which of a row's weights an element has.
    weighed: Weighed,
}

/// What weights go by, beside the row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weighed {
    Inner,
    Outer,
    /// A row has one.
    Row,
}

impl Lines {
    fn length(&self) -> u32 {
        self.outer[0] * self.inner[0]
    }

    /// The last elements of a row-major tensor.
    fn contiguous(count: u32, length: u32) -> Lines {
        Lines {
            count,
            outer: [1, length],
            inner: [length, 1],
            per_image: 1,
            image: length,
            row: 0,
            weights: 0,
            weighed: Weighed::Inner,
        }
    }

    /// Groups of channels.
    fn groups(x: &Tensor, groups: u32) -> Result<Lines, Error> {
        let (Some(images), Some(channels)) = (x.dims.first(), x.dims.get(1)) else {
            return Err(Error::invalid("there are no channels"));
        };
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(Error::invalid(format!(
                "{channels} channels do not make {groups} groups"
            )));
        }
        let area: u32 = x.dims.iter().skip(2).product();
        let each = channels / groups;
        let common = Lines {
            count: images * groups,
            outer: [each, area],
            inner: [area, 1],
            per_image: groups,
            image: channels * area,
            row: each * area,
            weights: each,
            weighed: Weighed::Outer,
        };
        Ok(match x.layout {
            Layout::RowMajor => common,
            Layout::Nhwc4 => Lines {
                outer: [area, *channels],
                inner: [each, 1],
                row: each,
                weighed: Weighed::Inner,
                ..common
            },
        })
    }

    /// Channels, each over all images; row-major.
    fn channels(x: &Tensor) -> Result<Lines, Error> {
        let (Some(images), Some(channels)) = (x.dims.first(), x.dims.get(1)) else {
            return Err(Error::invalid("there are no channels"));
        };
        let area: u32 = x.dims.iter().skip(2).product();
        Ok(Lines {
            count: *channels,
            outer: [*images, channels * area],
            inner: [area, 1],
            per_image: *channels,
            image: 0,
            row: area,
            weights: 1,
            weighed: Weighed::Row,
        })
    }

    fn rows(&self) -> Rows {
        let images = self.count / self.per_image.max(1);
        Rows {
            kept: merged(&[[images, self.image], [self.per_image, self.row]]),
            reduced: merged(&[self.outer, self.inner]),
            count: self.count,
            length: self.length(),
        }
    }

    /// True if two neighbours of a row are always a word of 16-bit elements.
    fn paired(&self) -> bool {
        let outer_even = self.outer[0] == 1 || self.outer[1].is_multiple_of(2);
        self.inner[1] == 1
            && self.inner[0].is_multiple_of(2)
            && outer_even
            && self.image.is_multiple_of(2)
            && self.row.is_multiple_of(2)
    }
}

/// What a row is divided by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Deviation,
    MeanSquare,
}

fn normalize(
    e: &mut Encoder<'_>,
    lines: &Lines,
    by: By,
    (x, out): (&Tensor, &Tensor),
    (weight, bias): (Option<&Tensor>, Option<&Tensor>),
    eps: f64,
) -> Encoded {
    let length = lines.length();
    if lines.count == 0 || length == 0 {
        return Ok(());
    }
    let narrow = out.element() == 2;
    let flags = u32::from(weight.is_some())
        | u32::from(bias.is_some()) << 1
        | u32::from(by == By::MeanSquare) << 2
        | u32::from(narrow && lines.paired()) << 3
        | u32::from(lines.weighed == Weighed::Outer) << 4
        | u32::from(lines.weighed == Weighed::Row) << 5;
    let share = Share::of(lines.count, length, false, e.facts());
    let kernel = match (share, narrow) {
        (Share::Flat, false) => &kernels::NORM_ROWS_FLAT,
        (Share::Flat, true) => &kernels::NORM_ROWS_FLAT_NARROW,
        (Share::Group, false) => &kernels::NORM_ROWS_GROUP,
        (Share::Group, true) => &kernels::NORM_ROWS_GROUP_NARROW,
        (Share::Team(_), false) => &kernels::NORM_ROWS_TEAM,
        (Share::Team(_), true) => &kernels::NORM_ROWS_TEAM_NARROW,
    };
    let (weight, bias) = (weight.unwrap_or(x), bias.unwrap_or(x));
    let mut params = vec![lines.count, code(x)?, code(out)?, length, lines.inner[0]];
    params.extend([lines.outer[1], lines.inner[1], lines.per_image, lines.image, lines.row]);
    params.extend([lines.weights, flags, (eps as f32).to_bits(), code(weight)?, code(bias)?]);
    params.push(share.rows());
    let groups = share.grid(lines.count);
    e.dispatch(
        kernel,
        &[read(x), read(weight), read(bias), write(out)],
        &params,
        groups,
    )
}

/// True if something reads the value.
fn is_used(node: &Node<'_>, value: ValueIndex) -> bool {
    let image = node.view().image();
    image.outputs().iter().any(|v| v == value) || image.nodes().any(|n| n.inputs().any(|v| v == value))
}

/// Means and the reciprocals of deviations, as the second and third output where something reads them.
fn statistics(node: &Node<'_>, e: &mut Encoder<'_>, x: &Tensor, lines: &Lines, eps: f64) -> Encoded {
    if node.view().outputs().len() < 3 {
        return Ok(());
    }
    let (wants_mean, wants_inverse) = (is_used(node, node.output(1)?), is_used(node, node.output(2)?));
    if !wants_mean && !wants_inverse {
        return Ok(());
    }
    let (x, rows) = (Lying::new(x.clone()), lines.rows());
    let count = lines.length() as f32;
    let average = (Map::Itself, Combine::Sum, Last::Over(count));
    if wants_mean {
        let out = e.output(node, 1, Layout::RowMajor)?;
        fold(e, (&x, &rows), average, None, &out)?;
    }
    if wants_inverse {
        let mean = e.make(DType::F32, &[rows.count], Layout::RowMajor)?;
        fold(e, (&x, &rows), average, None, &mean)?;
        let out = e.output(node, 2, Layout::RowMajor)?;
        let last = Last::InverseRoot(count, eps as f32);
        fold(e, (&x, &rows), (Map::SquareFrom, Combine::Sum, last), Some(&mean), &out)?;
    }
    Ok(())
}

/// The rows of the last dimensions, which are as many as the argument names.
fn last_dims(node: &Node<'_>, x: &Tensor) -> Result<Lines, Error> {
    let shape = node.ints(1)?;
    let start = x.dims.len().checked_sub(shape.len());
    let (before, tail) = start
        .and_then(|start| x.dims.split_at_checked(start))
        .ok_or_else(|| Error::invalid(format!("{:?} does not end in {shape:?}", x.dims)))?;
    if tail.iter().zip(&shape).any(|(have, want)| i64::from(*have) != *want) {
        return Err(Error::invalid(format!("{:?} does not end in {shape:?}", x.dims)));
    }
    Ok(Lines::contiguous(before.iter().product(), tail.iter().product()))
}

/// Weights must be as many as are read.
fn check(weights: Option<&Tensor>, count: u32) -> Encoded {
    match weights {
        Some(weights) if weights.count() != count => {
            let have = weights.count();
            Err(Error::invalid(format!("{have} weights for {count} elements")))
        }
        _ => Ok(()),
    }
}

fn encode_layer(node: &Node<'_>, e: &mut Encoder<'_>) -> Encoded {
    let x = e.input(node, 0)?;
    let lines = last_dims(node, &x)?;
    let (weight, bias) = (optional(node, 2, e)?, optional(node, 3, e)?);
    check(weight.as_ref(), lines.length())?;
    check(bias.as_ref(), lines.length())?;
    let eps = node.scalar(4)?.float();
    let out = e.output(node, 0, Layout::RowMajor)?;
    normalize(
        e,
        &lines,
        By::Deviation,
        (&x, &out),
        (weight.as_ref(), bias.as_ref()),
        eps,
    )?;
    statistics(node, e, &x, &lines, eps)
}

fn encode_rms(node: &Node<'_>, e: &mut Encoder<'_>) -> Encoded {
    let x = e.input(node, 0)?;
    let lines = last_dims(node, &x)?;
    let weight = optional(node, 2, e)?;
    check(weight.as_ref(), lines.length())?;
    // PyTorch computes 16-bit floats in f32, and takes the epsilon of that.
    let eps = node
        .optional_scalar(3)?
        .map_or(f64::from(f32::EPSILON), |eps| eps.float());
    let out = e.output(node, 0, Layout::RowMajor)?;
    normalize(e, &lines, By::MeanSquare, (&x, &out), (weight.as_ref(), None), eps)
}

/// Arguments of an operator on groups of channels.
struct Grouped {
    weight: usize,
    /// The number of groups; without it each channel is one.
    groups: Option<usize>,
    eps: usize,
}

fn encode_groups(node: &Node<'_>, e: &mut Encoder<'_>, at: &Grouped) -> Encoded {
    let value = node.value(0)?;
    let channels = e.dims(value)?.get(1).copied().unwrap_or(0);
    // Padded channels are not elements: groups that end in them are not rows.
    let layout = if channels.is_multiple_of(4) {
        e.home(node.output(0)?).unwrap_or(e.layout(value))
    } else {
        Layout::RowMajor
    };
    let x = e.tensor(value, layout)?;
    let groups = match at.groups {
        Some(i) => u32::try_from(node.int(i)?).map_err(|_| Error::invalid("a negative number of groups"))?,
        None => channels,
    };
    let out = e.output(node, 0, layout)?;
    if x.count() == 0 {
        return Ok(());
    }
    let lines = Lines::groups(&x, groups)?;
    let (weight, bias) = (optional(node, at.weight, e)?, optional(node, at.weight + 1, e)?);
    check(weight.as_ref(), channels)?;
    check(bias.as_ref(), channels)?;
    let eps = node.scalar(at.eps)?.float();
    normalize(
        e,
        &lines,
        By::Deviation,
        (&x, &out),
        (weight.as_ref(), bias.as_ref()),
        eps,
    )?;
    statistics(node, e, &x, &lines, eps)
}

/// By statistics that are given, by channel, in the layout that the input has.
fn encode_batch(node: &Node<'_>, e: &mut Encoder<'_>, eps: usize) -> Encoded {
    let value = node.value(0)?;
    let layout = e.home(node.output(0)?).unwrap_or(e.layout(value));
    let x = e.tensor(value, layout)?;
    let channels = *x.dims.get(1).ok_or_else(|| Error::invalid("there are no channels"))?;
    let (weight, bias) = (optional(node, 1, e)?, optional(node, 2, e)?);
    let (mean, variance) = (e.input(node, 3)?, e.input(node, 4)?);
    for weights in [weight.as_ref(), bias.as_ref(), Some(&mean), Some(&variance)] {
        check(weights, channels)?;
    }
    let out = e.output(node, 0, layout)?;
    let flags = u32::from(weight.is_some()) | u32::from(bias.is_some()) << 1;
    let (weight, bias) = (weight.unwrap_or_else(|| x.clone()), bias.unwrap_or_else(|| x.clone()));
    let (together, lying) = match layout {
        Layout::RowMajor => (x.dims.iter().skip(2).product(), channels),
        Layout::Nhwc4 => (1, channels.next_multiple_of(4)),
    };
    let eps = node.scalar(eps)?.float() as f32;
    let mut params = vec![out.stored(), code(&x)?, code(&out)?, together, lying, channels, flags];
    params.push(eps.to_bits());
    for tensor in [&mean, &variance, &weight, &bias] {
        params.push(code(tensor)?);
    }
    let groups = grid(words(out.stored(), out.dtype), 64);
    if out.count() > 0 {
        let operands = [
            read(&x),
            read(&mean),
            read(&variance),
            read(&weight),
            read(&bias),
            write(&out),
        ];
        e.dispatch(&kernels::NORM_CHANNELS, &operands, &params, groups)?;
    }
    // What training would have saved is empty.
    for i in 1..node.view().outputs().len() {
        e.output(node, i, Layout::RowMajor)?;
    }
    Ok(())
}

/// By the statistics of the batch itself.
fn encode_own_statistics(node: &Node<'_>, e: &mut Encoder<'_>) -> Encoded {
    let x = e.input(node, 0)?;
    let out = e.output(node, 0, Layout::RowMajor)?;
    if x.count() == 0 {
        return Err(Error::invalid("a batch without elements has no statistics"));
    }
    let lines = Lines::channels(&x)?;
    let (weight, bias) = (optional(node, 1, e)?, optional(node, 2, e)?);
    check(weight.as_ref(), lines.count)?;
    check(bias.as_ref(), lines.count)?;
    let eps = node.scalar(5)?.float();
    normalize(
        e,
        &lines,
        By::Deviation,
        (&x, &out),
        (weight.as_ref(), bias.as_ref()),
        eps,
    )?;
    statistics(node, e, &x, &lines, eps)
}

fn accept_floats(node: &NodeView<'_>) -> Result<(), Refusal> {
    for value in node.inputs().chain(node.outputs().iter()) {
        let dtype = caps::dtype_of(node, value);
        if !dtype.is_some_and(is_float) {
            let name = dtype.map_or("no tensor".to_string(), |d| d.to_string());
            return Err(Refusal::dtype(format!("`{}` is not computed in {name}", node.op())));
        }
    }
    Ok(())
}

fn accept_channels(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept_floats(node)?;
    match caps::rank(node, 0) {
        Some(2..) => Ok(()),
        _ => Err(Refusal::shape("channels are the second of two dimensions at least")),
    }
}

fn accept_own_statistics(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept_channels(node)?;
    match node.arg(3).bool() {
        Some(true) => Ok(()),
        _ => Err(Refusal::attribute("neither statistics nor training")),
    }
}

fn accept_instance(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept_channels(node)?;
    match (node.arg(5).bool(), node.arg(3).is_none() && node.arg(4).is_none()) {
        (Some(true), true) => Ok(()),
        _ => Err(Refusal::attribute("running statistics are not used or updated")),
    }
}

fn accept_batch(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept_channels(node)?;
    if node.arg(3).value().is_none() || node.arg(4).value().is_none() {
        return Err(Refusal::attribute("there are no running statistics"));
    }
    match node.op().ends_with("no_training") || node.arg(5).bool() == Some(false) {
        true => Ok(()),
        false => Err(Refusal::attribute("batch normalization while training")),
    }
}

const fn row(
    name: &'static str,
    accept: fn(&NodeView<'_>) -> Result<(), Refusal>,
    encode: fn(&Node<'_>, &mut Encoder<'_>) -> Encoded,
) -> Operator {
    Operator { name, accept, encode }
}

const fn grouped(weight: usize, groups: Option<usize>, eps: usize) -> Grouped {
    Grouped { weight, groups, eps }
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    row("aten::layer_norm", accept_floats, encode_layer),
    row("aten::native_layer_norm", accept_floats, encode_layer),
    row("aten::rms_norm", accept_floats, encode_rms),
    row("aten::group_norm", accept_channels, |n, e| {
        encode_groups(n, e, &grouped(2, Some(1), 4))
    }),
    row("aten::native_group_norm", accept_channels, |n, e| {
        encode_groups(n, e, &grouped(1, Some(6), 7))
    }),
    row("aten::instance_norm", accept_instance, |n, e| {
        encode_groups(n, e, &grouped(1, None, 7))
    }),
    row("aten::batch_norm", accept_batch, |n, e| encode_batch(n, e, 7)),
    row("aten::native_batch_norm", accept_batch, |n, e| encode_batch(n, e, 7)),
    row("aten::_native_batch_norm_legit", accept_batch, |n, e| {
        encode_batch(n, e, 7)
    }),
    row(
        "aten::_native_batch_norm_legit.no_stats",
        accept_own_statistics,
        encode_own_statistics,
    ),
    row("aten::_native_batch_norm_legit_no_training", accept_batch, |n, e| {
        encode_batch(n, e, 6)
    }),
];
