//! Integers as integers of another scale or width, and what stands between the two as floats: a dequantization that is only quantized again, and a
//! batch norm between both, as it stays behind an activation.
//!
//! The floats are integers of 32 bits within a region. Where a float is anything else, all of it is left to others.

use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::tosa::{DType, Op};
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::image::{ImageView, NodeIndex, NodeView, Source, ValueIndex};

const QUANTIZE: &str = "quantized_decomposed::quantize_per_tensor";
const DEQUANTIZE: &str = "quantized_decomposed::dequantize_per_tensor";
const BATCH_NORM: &str = "aten::batch_norm";
const NATIVE_BATCH_NORM: &str = "aten::_native_batch_norm_legit_no_training";

fn is_batch_norm(op: &str) -> bool {
    op == BATCH_NORM || op == NATIVE_BATCH_NORM
}

/// Those who read the first result of a node; `None` if it leaves the graph, or nobody does.
fn readers<'a>(node: &NodeView<'a>) -> Option<Vec<NodeView<'a>>> {
    let (image, value) = (node.image(), node.outputs().get(0)?);
    let leaves = image.outputs().iter().any(|output| output == value);
    let readers = image.nodes().filter(|node| node.inputs().any(|input| input == value));
    let all: Vec<NodeView<'a>> = readers.collect();
    (!leaves && !all.is_empty()).then_some(all)
}

/// The nodes from a dequantization, or one behind it, to those who quantize again; `None` if a float goes elsewhere.
fn island<'a>(node: &NodeView<'a>) -> Option<Vec<NodeView<'a>>> {
    let mut all = vec![*node];
    for reader in readers(node)? {
        match reader.op() {
            QUANTIZE => all.push(reader),
            op if is_batch_norm(op) && node.op() == DEQUANTIZE => all.extend(island(&reader)?),
            _ => return None,
        }
    }
    Some(all)
}

/// Each dequantization with all up to those who quantize again: all or none of them.
pub fn sets(image: &ImageView<'_>) -> Vec<Vec<NodeIndex>> {
    let islands = image.nodes().filter(|node| node.op() == DEQUANTIZE);
    let islands = islands.filter_map(|node| island(&node));
    islands.map(|all| all.iter().map(NodeView::index).collect()).collect()
}

/// The arguments have to say what the type of the quantized value says.
fn agrees(node: &Arguments<'_>, b: &Builder<'_>, quantized: ValueIndex) -> Result<(), Refusal> {
    b.dtype(quantized)?;
    let scale = b.scale(quantized)?;
    match (node.float(1)?, node.int(2)?) == (scale.scale, scale.zero_point + b.offset(quantized)) {
        true => Ok(()),
        false => Err(Refusal::quantization("another scale than the type's")),
    }
}

/// The node that makes a float, if it stands between integers.
fn maker<'a>(image: &ImageView<'a>, value: ValueIndex) -> Result<NodeView<'a>, Refusal> {
    match image.value(value).source() {
        Source::Node(maker) if island(&image.node(maker)).is_some() => Ok(image.node(maker)),
        _ => Err(Refusal::dtype("floats that do not stand between integers")),
    }
}

/// The integers that a float was dequantized from.
fn integers(node: &Arguments<'_>, b: &Builder<'_>, value: ValueIndex) -> Result<ValueIndex, Refusal> {
    let maker = maker(&b.image(), value)?;
    match maker.op() {
        DEQUANTIZE => Ok(Arguments::new(maker, node.sizes()).value(0)?),
        _ => Err(Refusal::dtype("floats that are no integers dequantized")),
    }
}

fn dequantize(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    agrees(node, b, node.value(0)?)?;
    match island(&node.view()) {
        Some(_) => Ok(()),
        None => Err(Refusal::dtype("floats that do not stand between integers")),
    }
}

fn quantize(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    agrees(node, b, out)?;
    let maker = maker(&b.image(), x)?;
    if is_batch_norm(maker.op()) {
        // Asked about alone, what is before is not there yet.
        if b.fixed(x).is_none() {
            batch_norm(&Arguments::new(maker, node.sizes()), b)?;
        }
        let (tensor, step) = b.fixed(x).ok_or_else(|| Refusal::dtype("floats"))?;
        return b.finish_sums(out, tensor, &[step / b.scale(out)?.scale]);
    }
    let integers = integers(node, b, x)?;
    let (from, to, target) = (b.scale(integers)?, b.scale(out)?, b.dtype(out)?);
    let tensor = b.read(integers)?;
    let made = b.rescale(tensor, &[from.scale / to.scale], from.zero_point, target, to.zero_point)?;
    b.finish_plain(out, made)
}

/// A factor and a number for each channel, in integers of 32 bits: as fine as the largest result leaves room for.
fn batch_norm(node: &Arguments<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let epsilon = match node.op() {
        BATCH_NORM if node.bool(5)? => return Err(Refusal::attribute("a batch norm in training")),
        BATCH_NORM => node.float(7)?,
        _ => node.float(6)?,
    };
    if island(&node.view()).is_none() {
        return Err(Refusal::dtype("floats that do not stand between integers"));
    }
    let source = integers(node, b, x)?;
    let scale = b.scale(source)?;
    if b.dtype(source)? != DType::Int8 {
        return Err(Refusal::dtype("a batch norm of 16 bits"));
    }
    let dims = b.dims(source)?;
    let axis = match (dims.len(), b.image().normal_form()) {
        (4, 1) => 3,
        (0 | 1, _) => return Err(Refusal::shape("a batch norm without channels")),
        _ => 1,
    };
    let channels = dims[axis] as usize;
    let list = |at: usize, none: f64| -> Result<Vec<f64>, Refusal> {
        let values = match node.optional_value(at)? {
            Some(value) => b.floats(value)?,
            None => vec![none; channels],
        };
        match values.len() == channels {
            true => Ok(values),
            false => Err(Refusal::shape("a batch norm without a number for each channel")),
        }
    };
    let (weight, bias, mean, variance) = (list(1, 1.0)?, list(2, 0.0)?, list(3, 0.0)?, list(4, 1.0)?);
    let factors: Vec<f64> = weight
        .iter()
        .zip(&variance)
        .map(|(w, v)| w / (v + epsilon).sqrt())
        .collect();
    let numbers: Vec<f64> = bias
        .iter()
        .zip(&mean)
        .zip(&factors)
        .map(|((b, m), f)| b - m * f)
        .collect();
    let largest = factors
        .iter()
        .zip(&numbers)
        .map(|(f, n)| (256.0 * scale.scale * f).abs() + n.abs());
    let step = largest.fold(1e-30, f64::max) / 2f64.powi(30);
    if !step.is_finite() {
        return Err(Refusal::attribute("a batch norm with numbers that are not finite"));
    }
    let mut shape = vec![1; dims.len()];
    shape[axis] = channels as i32;
    let mut constant = |values: &[f64], unit: f64| {
        let data = values.iter().flat_map(|v| ((v / unit).round() as i32).to_le_bytes());
        b.constant(DType::Int32, &shape, data.collect())
    };
    let factors = constant(&factors, step / scale.scale);
    let numbers = constant(&numbers, step);
    let tensor = b.widened(source, 1.0)?;
    let tensor = b.product(tensor, factors, 0);
    let tensor = b.pair(Op::Add, tensor, numbers);
    b.keep_fixed(out, tensor, step);
    Ok(())
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: QUANTIZE,
        lower: quantize,
    },
    Operator {
        name: DEQUANTIZE,
        lower: dequantize,
    },
    Operator {
        name: BATCH_NORM,
        lower: batch_norm,
    },
    Operator {
        name: NATIVE_BATCH_NORM,
        lower: batch_norm,
    },
];
