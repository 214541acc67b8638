//! Quantizing and back by explicit operators, where integers meet floats.
//!
//! At the border of a graph both are done on the host, in f32: an f32 input that is only quantized comes in as integers, and a dequantized
//! output leaves as integers (`Convert::Quantize`). So nothing loses what f16 has not. A dequantization that is quantized again is one node.

use super::common::{Elements, elements, quantized_as};
use crate::builder::{Builder, Layout};
use crate::caps::{Operator, Refusal};
use crate::graph::{Quantization, TensorId};
use crate::node::Node;
use delegraph_sdk::DType;
use delegraph_sdk::image::{Quant, Source, ValueIndex};

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "quantized_decomposed::quantize_per_tensor",
        lower: quantize,
    },
    Operator {
        name: "quantized_decomposed::dequantize_per_tensor",
        lower: dequantize,
    },
];

/// The arguments have to say what the type of the quantized value says.
fn agrees(node: &Node<'_>, b: &Builder<'_>, quantized: ValueIndex) -> Result<(), Refusal> {
    let image = b.image();
    let view = image.value(quantized);
    let Some(Quant::PerTensor { scale, zero_point, .. }) = view.quant() else {
        return Err(Refusal::quantization(format!(
            "`{}` has no scale that all who read it agree on",
            view.name()
        )));
    };
    match (node.float(1)?, node.int(2)?) == (scale, zero_point) {
        true => Ok(()),
        false => Err(Refusal::quantization("another scale than the type's")),
    }
}

/// Integers as others of a scale: the same ones where that is theirs.
fn converted(b: &mut Builder<'_>, integers: TensorId, out: ValueIndex, layout: Layout) -> Result<(), Refusal> {
    let (data_type, quantization): (_, Quantization) = b.representation(out)?;
    let have = b.tensor(integers);
    let same = have.data_type == data_type && have.quantization == quantization;
    if same && !b.is_narrowed(out) {
        b.bind(out, layout, integers);
        return Ok(());
    }
    if same {
        return b.write_limited(out, layout, integers);
    }
    let written = b.write(out, layout)?;
    b.op("Convert", Vec::new(), &[integers], &[written]);
    Ok(())
}

fn quantize(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    if elements(b, x)? != Elements::Float || !elements(b, out)?.is_fixed() {
        return Err(Refusal::dtype("not from floats to 8 or 16 bits"));
    }
    agrees(node, b, out)?;
    if let Some((integers, layout)) = b.integers_of(x) {
        return converted(b, integers, out, layout);
    }
    if let Some(integers) = b.quantized_input(x, out)? {
        return converted(b, integers, out, Layout::RowMajor);
    }
    if elements(b, out)? == Elements::Fixed16 && !is_dequantized(b, x) {
        return Err(Refusal::quantization(
            "16 bits are more than f16, which this is computed in, has",
        ));
    }
    let layout = b.elementwise_layout(&[x], out)?;
    let read = b.read(x, layout)?;
    let written = b.write(out, layout)?;
    quantized_as(b, read, written);
    Ok(())
}

/// True if a value is what integers stand for: asked about alone it is read as f16, compiled with its maker it never is.
fn is_dequantized(b: &Builder<'_>, value: ValueIndex) -> bool {
    let image = b.image();
    match image.value(value).source() {
        Source::Node(node) => image.node(node).op() == "quantized_decomposed::dequantize_per_tensor",
        _ => false,
    }
}

fn dequantize(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    if elements(b, out)? != Elements::Float || !elements(b, x)?.is_fixed() {
        return Err(Refusal::dtype("not from 8 or 16 bits to floats"));
    }
    agrees(node, b, x)?;
    let layout = b.elementwise_layout(&[x], out)?;
    let read = b.read(x, layout)?;
    if b.image().value(out).dtype() == Some(DType::F32) {
        b.dequantize_later(out, read, layout);
        return Ok(());
    }
    let written = b.write(out, layout)?;
    b.op("Dequantize", Vec::new(), &[read], &[written]);
    Ok(())
}
