//! Pooling over windows of one, two and three dimensions.
//!
//! A volume is pooled in two steps, over its planes and then over its depth: largest numbers and means of windows of one size come apart so.
//! How much is padded behind follows from the size of the output, which says what was rounded up.

use super::images;
use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::graph::{Param, Quantization, TensorId};
use crate::node::Node;
use delegraph_sdk::image::{NodeIndex, Source, ValueIndex};

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    row("aten::max_pool1d", largest::<1>),
    row("aten::max_pool2d", largest::<2>),
    row("aten::max_pool3d", largest::<3>),
    row("aten::max_pool2d_with_indices", largest::<2>),
    row("aten::avg_pool1d", mean::<1>),
    row("aten::avg_pool2d", mean::<2>),
    row("aten::avg_pool3d", mean::<3>),
    row("aten::adaptive_avg_pool1d", adaptive::<1>),
    row("aten::adaptive_avg_pool2d", adaptive::<2>),
    row("aten::adaptive_avg_pool3d", adaptive::<3>),
    row("aten::_adaptive_avg_pool2d", adaptive::<2>),
    row("aten::_adaptive_avg_pool3d", adaptive::<3>),
];

const fn row(name: &'static str, lower: fn(&Node<'_>, &mut Builder<'_>) -> Result<(), Refusal>) -> Operator {
    Operator { name, lower }
}

/// Windows along one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Axis {
    input: u32,
    output: u32,
    kernel: u32,
    stride: u32,
    before: u32,
    after: u32,
}

impl Axis {
    const POINT: Axis = Axis {
        input: 1,
        output: 1,
        kernel: 1,
        stride: 1,
        before: 0,
        after: 0,
    };

    /// Padded behind just as far as the last window reaches.
    fn of(input: u32, output: u32, kernel: u32, stride: u32, padding: u32) -> Result<Axis, Refusal> {
        if kernel == 0 || stride == 0 || kernel < padding.saturating_mul(2) {
            return Err(Refusal::attribute(format!(
                "windows of {kernel}, {stride} apart, padded by {padding}"
            )));
        }
        let reach = u64::from(output - 1) * u64::from(stride) + u64::from(kernel);
        let after = reach.saturating_sub(u64::from(input) + u64::from(padding));
        let after = u32::try_from(after).ok().filter(|after| *after < kernel);
        Ok(Axis {
            input,
            output,
            kernel,
            stride,
            before: padding,
            after: after.ok_or_else(|| Refusal::shape(format!("{output} windows of {kernel} over {input}")))?,
        })
    }

    /// Of a part of the input each, if the parts are of one size and equally far apart.
    fn adaptive(input: u32, output: u32) -> Option<Axis> {
        let start = |i: u32| (u64::from(i) * u64::from(input) / u64::from(output)) as u32;
        let end = |i: u32| (u64::from(i + 1) * u64::from(input)).div_ceil(u64::from(output)) as u32;
        let (kernel, stride) = (end(0), if output > 1 { start(1) } else { 1 });
        let fits = (0..output).all(|i| start(i) == i * stride && end(i) - start(i) == kernel);
        (fits && stride > 0).then_some(Axis {
            input,
            output,
            kernel,
            stride,
            before: 0,
            after: 0,
        })
    }

    fn is_padded(&self) -> bool {
        self.before > 0 || self.after > 0
    }
}

/// What is made of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Largest,
    /// The mean, of the padding too or not.
    Mean {
        padded: bool,
    },
}

/// Refuses means of quantized integers that often lie halfway between two: the library rounds halves up, the program to even.
///
/// A mean is `sum * ratio / count` steps of the result. Where `2 * ratio / count` is `a / b` in lowest terms, one sum in `2 b` gives a half if
/// `a` is odd, and every other half is rounded otherwise.
fn rounds_alike(b: &Builder<'_>, x: ValueIndex, out: ValueIndex, axes: &[Axis]) -> Result<(), Refusal> {
    let scale = |value| match b.representation(value) {
        Ok((_, Quantization::PerTensor(pair))) => Some(f64::from(pair.scale)),
        _ => None,
    };
    let (Some(from), Some(to)) = (scale(x), scale(out)) else {
        return Ok(());
    };
    let count: f64 = axes.iter().map(|axis| f64::from(axis.kernel)).product();
    let share = 2.0 * from / to / count;
    let is_often = (1..RARE).any(|b| {
        let a = (share * f64::from(b)).round();
        let is_near = (share * f64::from(b) - a).abs() < 1e-4 * a.max(1.0);
        is_near && a % 2.0 == 1.0
    });
    match is_often {
        false => Ok(()),
        true => Err(Refusal::quantization(format!(
            "means of {count} integers often lie halfway between two, and the library rounds halves up"
        ))),
    }
}

/// Refuses a mean of floats between integers: where the folded one is refused, its parts are no better, for f16 holds no halves of steps.
fn is_of_floats(node: &Node<'_>, b: &Builder<'_>, x: ValueIndex, out: ValueIndex) -> Result<(), Refusal> {
    let image = b.image();
    let is = |op: &str, what: &str| {
        op.strip_prefix("quantized_decomposed::")
            .is_some_and(|op| op.starts_with(what))
    };
    let from = match image.value(x).source() {
        Source::Node(maker) => is(image.node(maker).op(), "dequantize"),
        _ => false,
    };
    let mut later = (node.view().index().0 + 1..image.node_count()).map(|i| image.node(NodeIndex(i)));
    match from && later.any(|reader| is(reader.op(), "quantize") && reader.inputs().any(|v| v == out)) {
        false => Ok(()),
        true => Err(Refusal::quantization(
            "a mean of integers that is quantized again, by way of f16",
        )),
    }
}

/// From this denominator on, fewer than one result in forty is rounded otherwise.
const RARE: u32 = 10;

/// Input and output sizes along the last `SPACE` dimensions.
fn sides<const SPACE: usize>(b: &Builder<'_>, x: ValueIndex, out: ValueIndex) -> Result<Vec<(u32, u32)>, Refusal> {
    let (from, to) = (b.logical_dims(x)?, b.logical_dims(out)?);
    match from.len().checked_sub(SPACE) {
        Some(start @ 1..=2) if from.len() == to.len() => {
            Ok(from[start..].iter().copied().zip(to[start..].iter().copied()).collect())
        }
        _ => Err(Refusal::shape(format!("pooling of {from:?} to {to:?}"))),
    }
}

/// Kernel, stride and padding begin at argument 1.
fn windows<const SPACE: usize>(node: &Node<'_>, b: &Builder<'_>) -> Result<(Vec<Axis>, Vec<u32>), Refusal> {
    let sides = sides::<SPACE>(b, node.value(0)?, node.output(0)?)?;
    let kernel = node.ints(1)?;
    let stride = images::each(&node.ints(2)?, &kernel, SPACE)?;
    let padding = images::each(&node.ints(3)?, &[0], SPACE)?;
    let kernel = images::each(&kernel, &[], SPACE)?;
    let axes = sides
        .iter()
        .enumerate()
        .map(|(d, (input, output))| Axis::of(*input, *output, kernel[d], stride[d], padding[d]));
    Ok((axes.collect::<Result<_, _>>()?, padding))
}

fn largest<const SPACE: usize>(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    images::same_numbers(b, x, out)?;
    if images::each(&node.ints(4)?, &[1], SPACE)?.iter().any(|d| *d != 1) {
        return Err(Refusal::attribute("windows with holes"));
    }
    let (axes, _) = windows::<SPACE>(node, b)?;
    pool::<SPACE>(b, x, out, &axes, Way::Largest, 1.0)
}

fn mean<const SPACE: usize>(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let data_type = images::one_type(b, &[x, out])?;
    let (axes, padding) = windows::<SPACE>(node, b)?;
    // `avg_pool1d` has no divisor.
    let divisor = match SPACE {
        1 => None,
        _ => node.optional_scalar(6)?.map(|d| d.float()),
    };
    let mut padded = node.bool(5)?;
    // A window that rounding up lets reach beyond the padding is divided by less than its size.
    let beyond = axes.iter().zip(&padding).any(|(axis, padding)| axis.after > *padding);
    let mut factor = 1.0;
    match divisor {
        Some(divisor) if divisor != 0.0 && !data_type.is_fixed() => {
            let size: f64 = axes.iter().map(|axis| f64::from(axis.kernel)).product();
            (padded, factor) = (true, size / divisor);
        }
        Some(_) => return Err(Refusal::attribute("a divisor that is zero, or of quantized integers")),
        None if padded && beyond && padding.iter().any(|p| *p > 0) => {
            return Err(Refusal::attribute("windows that reach beyond a padding that counts"));
        }
        None if beyond => padded = false,
        None => {}
    }
    if SPACE == 3 && data_type.is_fixed() {
        return Err(Refusal::quantization("a mean over volumes is rounded twice"));
    }
    rounds_alike(b, x, out, &axes)?;
    is_of_floats(node, b, x, out)?;
    pool::<SPACE>(b, x, out, &axes, Way::Mean { padded }, factor)
}

fn adaptive<const SPACE: usize>(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let data_type = images::one_type(b, &[x, out])?;
    let sides = sides::<SPACE>(b, x, out)?;
    let axes = sides.iter().map(|(input, output)| {
        Axis::adaptive(*input, *output)
            .ok_or_else(|| Refusal::shape(format!("{input} elements do not make {output} windows of one size")))
    });
    let axes: Vec<Axis> = axes.collect::<Result<_, _>>()?;
    if SPACE == 3 && data_type.is_fixed() {
        return Err(Refusal::quantization("a mean over volumes is rounded twice"));
    }
    rounds_alike(b, x, out, &axes)?;
    is_of_floats(node, b, x, out)?;
    pool::<SPACE>(b, x, out, &axes, Way::Mean { padded: false }, 1.0)
}

fn pool<const SPACE: usize>(
    b: &mut Builder<'_>,
    x: ValueIndex,
    out: ValueIndex,
    axes: &[Axis],
    way: Way,
    factor: f64,
) -> Result<(), Refusal> {
    let wanted = SPACE.max(2);
    let input = images::input(b, x, SPACE, wanted)?;
    let mut all = vec![Axis::POINT; wanted - SPACE];
    all.extend(axes);
    images::output(b, out, SPACE, wanted, |b, y| {
        let target = if factor == 1.0 { y } else { b.like(y) };
        match all[..] {
            [depth, down, across] => volume(b, input, target, [depth, down, across], way)?,
            [down, across] => plane(b, input, target, [down, across], way),
            _ => return Err(Refusal::shape("windows of more than three dimensions")),
        }
        if factor != 1.0 {
            let factor = b.number(factor, target)?;
            b.op("ElementWiseMultiply", Vec::new(), &[target, factor], &[y]);
        }
        Ok(())
    })
}

fn plane(b: &mut Builder<'_>, x: TensorId, out: TensorId, [down, across]: [Axis; 2], way: Way) {
    let mut params = vec![
        ("filter_size", Param::list(&[down.kernel, across.kernel])),
        ("stride", Param::list(&[down.stride, across.stride])),
        (
            "pad_amount",
            Param::U32s(vec![2, 2], vec![down.before, down.after, across.before, across.after]),
        ),
    ];
    let op = match way {
        Way::Largest => "PoolMax2d",
        Way::Mean { padded } => {
            // Without a padding both are the same.
            let counts = padded && (down.is_padded() || across.is_padded());
            params.push(("count_pad_for_edges", Param::Bool(counts)));
            "PoolAvg2d"
        }
    };
    b.op(op, params, &[x], &[out]);
}

/// Planes first, then depth.
fn volume(
    b: &mut Builder<'_>,
    x: TensorId,
    out: TensorId,
    [depth, down, across]: [Axis; 3],
    way: Way,
) -> Result<(), Refusal> {
    let tensor = b.tensor(x).clone();
    let [n, d, h, w, c] = tensor.dims[..] else {
        return Err(Refusal::shape("a volume has five dimensions"));
    };
    let planes = b.reshaped(x, &[n * d, h, w, c])?;
    let (height, width) = (down.output, across.output);
    let small = b.temporary(
        tensor.data_type,
        &[n * d, height, width, c],
        tensor.quantization.clone(),
    );
    plane(b, planes, small, [down, across], way);
    let columns = b.reshaped(small, &[n, d, height * width, c])?;
    let dims = [n, depth.output, height * width, c];
    let shallow = b.temporary(tensor.data_type, &dims, tensor.quantization);
    plane(b, columns, shallow, [depth, Axis::POINT], way);
    b.op("Reshape", Vec::new(), &[shallow], &[out]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_padding_behind_follows_from_the_output() {
        // 5 elements, windows of 2, 2 apart: two whole ones, or three rounded up.
        assert_eq!(Axis::of(5, 2, 2, 2, 0).unwrap().after, 0);
        assert_eq!(Axis::of(5, 3, 2, 2, 0).unwrap().after, 1);
        // Padded by 1: 112 from 224 with windows of 3 need nothing behind.
        assert_eq!(Axis::of(224, 112, 3, 2, 1).unwrap().after, 0);
        assert_eq!(Axis::of(5, 3, 3, 2, 1).unwrap().after, 1);
        assert!(Axis::of(5, 2, 0, 1, 0).is_err());
        assert!(Axis::of(5, 2, 3, 1, 2).is_err());
    }

    #[test]
    fn parts_of_one_size_are_windows() {
        let axis = Axis::adaptive(8, 4).unwrap();
        assert_eq!((axis.kernel, axis.stride), (2, 2));
        assert_eq!(Axis::adaptive(7, 1).unwrap().kernel, 7);
        // 0..2, 1..3, 2..4, 3..5: overlapping, and of one size.
        let axis = Axis::adaptive(4, 3).unwrap();
        assert_eq!((axis.kernel, axis.stride), (2, 1));
        assert_eq!(Axis::adaptive(5, 3), None);
        assert_eq!(Axis::adaptive(2, 5), None);
    }
}
