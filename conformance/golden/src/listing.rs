//! An image or a blob as text. The form is golden too: what is added goes behind what is there.

use anyhow::{Result, anyhow};
use delegraph_abi::envelope;
use delegraph_abi::image::{ArgView, Expr, ImageView, Kind, NodeView, Quant, Source, ValueIndex, verify};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// A graph image in text: symbols, sizes, weights, values, nodes.
///
/// # Errors
/// It does not verify.
pub fn image(bytes: &[u8]) -> Result<String> {
    let view = verify(bytes).map_err(|error| anyhow!("{error:?}"))?;
    let mut out = String::new();
    let form = match view.normal_form() {
        0 => String::new(),
        form => format!(" in form {form}"),
    };
    writeln!(out, "graph {} of {}{form}", view.name(), view.opset())?;
    for i in 0..view.symbol_count() {
        let symbol = view.symbol(delegraph_abi::image::SymbolIndex(i));
        let max = symbol.max.map_or("inf".to_string(), |max| max.to_string());
        writeln!(out, "symbol {} {}..{max}", symbol.name, symbol.min)?;
    }
    for i in 0..view.expr_count() {
        let text = match view.expr(delegraph_abi::image::ExprIndex(i)) {
            Expr::Int(value) => value.to_string(),
            Expr::Float(value) => format!("{value:?}"),
            Expr::Symbol(symbol) => view.symbol(symbol).name.to_string(),
            Expr::Op(op, operands) => format!("op {}({})", op.0, joined(operands.iter().map(|e| format!("e{}", e.0)))),
        };
        writeln!(out, "size e{i} = {text}")?;
    }
    for weight in view.weights() {
        let sizes = joined(weight.sizes().map(|size| size.to_string()));
        writeln!(
            out,
            "weight {} {}[{sizes}] {} bytes",
            weight.id(),
            weight.dtype(),
            weight.byte_size()
        )?;
    }
    for value in view.values() {
        let source = match value.source() {
            Source::Input(at) => format!("input {at}"),
            Source::Weight(at) => format!("weight {}", view.weight(at).id()),
            Source::Node(at) => format!("node {}", at.0),
        };
        let ty = match value.kind() {
            Kind::Tensor(dtype) => format!("{dtype}[{}]", joined(value.dims().iter().map(|e| format!("e{}", e.0)))),
            Kind::Int(e) => format!("int e{}", e.0),
            Kind::Float => "float".to_string(),
            Kind::Bool => "bool".to_string(),
        };
        let quant = value
            .quant()
            .map_or(String::new(), |quant| format!(" {}", quantized(&quant)));
        writeln!(
            out,
            "value %{} {} {ty}{quant} from {source}",
            value.index().0,
            value.name()
        )?;
    }
    for node in view.nodes() {
        let outputs = values(node.outputs().iter());
        writeln!(
            out,
            "node {} {} = {}({})",
            node.name(),
            outputs,
            node.op(),
            arguments(node)
        )?;
    }
    writeln!(out, "inputs {}", values(view.inputs().iter()))?;
    writeln!(out, "outputs {}", values(view.outputs().iter()))?;
    Ok(out)
}

/// The operator of each node of an image, for messages.
///
/// # Errors
/// It does not verify.
pub fn operators(bytes: &[u8]) -> Result<Vec<String>> {
    let view: ImageView<'_> = verify(bytes).map_err(|error| anyhow!("{error:?}"))?;
    Ok(view
        .nodes()
        .map(|node| format!("{} = {}", node.name(), node.op()))
        .collect())
}

fn arguments(node: NodeView<'_>) -> String {
    let argument = |arg: ArgView<'_>| match arg {
        ArgView::None => "none".to_string(),
        ArgView::Int(value) => value.to_string(),
        ArgView::Expr(e) => format!("e{}", e.0),
        ArgView::Float(value) => format!("{value:?}"),
        ArgView::Bool(value) => value.to_string(),
        ArgView::Str(text) => format!("{text:?}"),
        ArgView::DType(dtype) => dtype.to_string(),
        ArgView::MemoryFormat(format) => format!("format {}", format.0),
        ArgView::Value(value) => format!("%{}", value.0),
        ArgView::Ints(ints) => format!("[{}]", joined(ints.exprs().iter().map(|e| format!("e{}", e.0)))),
        ArgView::Numbers(numbers) => format!("[{} numbers]", numbers.len()),
        ArgView::Values(list) => format!("[{}]", values(list.iter())),
        ArgView::OptionalValues(list) => {
            let each = list
                .iter()
                .map(|v| v.map_or("none".to_string(), |v| format!("%{}", v.0)));
            format!("[{}]", joined(each))
        }
        ArgView::Unknown(kind) => format!("kind {}", kind.0),
    };
    joined(node.args().map(argument))
}

fn quantized(quant: &Quant) -> String {
    match quant {
        Quant::PerTensor {
            scale,
            zero_point,
            quant_min,
            quant_max,
        } => format!("scale {scale:?} zero {zero_point} {quant_min}..{quant_max}"),
        Quant::PerAxis {
            axis,
            quant_min,
            quant_max,
            ..
        } => format!("by axis {axis} {quant_min}..{quant_max}"),
        Quant::PerBlock {
            block,
            quant_min,
            quant_max,
            ..
        } => format!("by block {block:?} {quant_min}..{quant_max}"),
    }
}

fn values(list: impl Iterator<Item = ValueIndex>) -> String {
    joined(list.map(|value| format!("%{}", value.0)))
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(", ")
}

/// A blob's envelope in text.
///
/// # Errors
/// It is none, or its payload has another hash than it says.
pub fn blob(bytes: &[u8]) -> Result<String> {
    let blob = envelope::parse(bytes).map_err(|error| anyhow!("{error}"))?;
    let hash: [u8; 32] = Sha256::digest(blob.payload).into();
    anyhow::ensure!(hash == blob.payload_hash, "the payload's hash is another");
    let meta = &blob.meta;
    let mut out = String::new();
    writeln!(out, "delegate {} {}", meta.delegate, meta.delegate_version)?;
    writeln!(out, "format {} {}", meta.format, meta.format_version)?;
    writeln!(out, "target {:?} precision {:?}", meta.target, meta.precision)?;
    writeln!(out, "graph {}", hex(&meta.graph_hash))?;
    writeln!(
        out,
        "payload {} of {} bytes",
        hex(&blob.payload_hash),
        blob.payload.len()
    )?;
    for (what, tensors) in [("input", &meta.inputs), ("output", &meta.outputs)] {
        for tensor in tensors {
            writeln!(out, "{what} {} of rank {}", tensor.dtype, tensor.rank)?;
        }
    }
    for section in &blob.sections {
        writeln!(
            out,
            "section {} align {} {} bytes",
            section.name,
            section.align,
            section.bytes.len()
        )?;
    }
    Ok(out)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
