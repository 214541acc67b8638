//! Quantizing and back by explicit operators, where integers meet floats.
//!
//! At the border of a graph both are done on the host, in f32: an f32 input that is only quantized comes in as integers, and a dequantized
//! output leaves as integers (`Convert` in `graph.rs`). So does nothing lose what f16 has not. A dequantization that is quantized again is
//! one node.

use super::common::{Elements, elements};
use crate::builder::{Builder, Layout};
use crate::caps::{Operator, Refusal};
use crate::node::Node;
use delegraph_sdk::image::Quant;

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

/// Numbers of the arguments: what the value's type says has to be the same.
fn agrees(node: &Node<'_>, b: &Builder<'_>, quantized: delegraph_sdk::image::ValueIndex) -> Result<(), Refusal> {
    let view = b.image();
    let view = view.value(quantized);
    let Some(Quant::PerTensor { scale, zero_point, .. }) = view.quant() else {
        return Err(Refusal::quantization(format!("`{}` has no scale that all agree on", view.name())));
    };
    let given = (node.float(1)?, node.int(2)?);
    match given == (scale, zero_point) {
        true => Ok(()),
        false => Err(Refusal::quantization("a scale that is another one than the type's")),
    }
}

fn quantize(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    if elements(b, x)? != Elements::Float || !elements(b, out)?.is_fixed() {
        return Err(Refusal::dtype("not from floats to 8 or 16 bits"));
    }
    agrees(node, b, out)?;
    let layout = b.elementwise_layout(&[x], out)?;
    let read = b.read(x, layout)?;
    let written = b.write(out, layout)?;
    b.op("Quantize", Vec::new(), &[read], &[written]);
    Ok(())
}

fn dequantize(node: &Node<'_>, b: &mut Builder<'_>) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    if elements(b, out)? != Elements::Float || !elements(b, x)?.is_fixed() {
        return Err(Refusal::dtype("not from 8 or 16 bits to floats"));
    }
    agrees(node, b, x)?;
    let layout = b.elementwise_layout(&[x], out)?;
    let read = b.read(x, layout)?;
    let written = b.write(out, layout)?;
    b.op("Dequantize", Vec::new(), &[read], &[written]);
    let _ = Layout::RowMajor;
    Ok(())
}
