//! The schemes that need no samples: weights of linear layers and tables become integers by themselves, and activations stay
//! float, or are quantized as they come, a token at a time.
//!
//! What is written is what torchao 0.18 exports of the same scheme: `choose_qparams_affine`, `quantize_affine` and
//! `dequantize_affine` on the activation, `dequantize_affine` on the weight, and the layer between float tensors. Whatever
//! recognises the one recognises the other.

use crate::prepare::{product, turned};
use crate::report::{self, Decibel, LayerQuality, Noise, Report, Subject, WhyFloat};
use crate::rows::{Matrix, Rounding, quantize as quantize_rows};
use crate::scheme::{Form, GROUPS, WeightBits};
use crate::write::drop_unread;
use crate::{Hint, Progress, QuantError, Sample, Scheme, TRIED_ON};
use delegraph_ir::{
    Arg, Constant, Constants, Def, Expr, Graph, Module, Node, Op, TensorType, Type, ValueId, fill_defaults,
};
use delegraph_passes::quantize::roles_of;
use delegraph_passes::remove_dead_nodes;
use delegraph_types::DType;
use rustc_hash::{FxHashMap, FxHashSet};

/// Quantizes every method of a module in place.
///
/// # Errors
/// As [`crate::quantize`].
pub(crate) fn quantize(
    module: &mut Module,
    scheme: &Scheme,
    samples: &[Sample],
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Report, QuantError> {
    let mut matrices = Matrices::default();
    let (quantized, plan) = written(module, scheme, &mut matrices, progress)?;
    let mut report = Report {
        scheme: scheme.to_string(),
        samples: samples.len(),
        compared: 0,
        quantized_nodes: plan.layers.len(),
        float_nodes: plan.float.iter().map(|nodes| nodes.count).sum(),
        other_nodes: plan.others,
        float_bytes: report::constant_bytes(module),
        quantized_bytes: report::constant_bytes(&quantized),
        outputs: Vec::new(),
        nodes: Vec::new(),
        layers: plan.layers.iter().map(|layer| layer.quality.clone()).collect(),
        float: plan.float,
        hint: None,
    };
    if !samples.is_empty() {
        let some = report::first(samples);
        let graph = report::method(module)?;
        let subject = subject(module, graph, scheme, &plan.layers);
        let compared = report::compare(&subject, &quantized, some, progress)?;
        report.compared = some.len();
        report.outputs = compared.outputs(graph);
        for (quality, layer) in report.layers.iter_mut().zip(&plan.layers).filter(|(_, l)| l.first) {
            let made = compared.whole[layer.output.index()].decibel();
            let read = layer
                .data
                .map_or(f64::INFINITY, |value| compared.whole[value.index()].decibel().0);
            (quality.snr_db, quality.lost_db) = (Some(made), Some(report::lost(read, made.0)));
        }
        report.hint = hint(module, &quantized, scheme, some, &report, &mut matrices)?;
    }
    let ratio = |layer: &LayerQuality| (layer.snr_db.is_none(), layer.snr_db.unwrap_or(layer.weight_snr_db).0);
    report
        .layers
        .sort_by(|a, b| ratio(a).0.cmp(&ratio(b).0).then(ratio(a).1.total_cmp(&ratio(b).1)));
    *module = quantized;
    Ok(report)
}

/// The values that layers read and make.
fn subject<'a>(module: &'a Module, graph: &Graph, scheme: &'a Scheme, layers: &[Quantized]) -> Subject<'a> {
    let mut compared = vec![false; graph.values.len()];
    for layer in layers.iter().filter(|layer| layer.first) {
        compared[layer.output.index()] = true;
        if let Some(value) = layer.data {
            compared[value.index()] = true;
        }
    }
    Subject {
        float: module,
        compared,
        affine: &[],
        scheme,
    }
}

/// Which of the layers that lose most helps most in float.
fn hint(
    module: &Module,
    quantized: &Module,
    scheme: &Scheme,
    samples: &[Sample],
    report: &Report,
    matrices: &mut Matrices,
) -> Result<Option<Hint>, QuantError> {
    let (graph, some) = (report::method(module)?, &samples[..samples.len().min(TRIED_ON)]);
    let suspects = report.suspects();
    if suspects.is_empty() {
        return Ok(None);
    }
    let worst = |other: &Module| -> Result<f64, QuantError> {
        let compared = report::compare(&subject(module, graph, scheme, &[]), other, some, &mut |_| {})?;
        Ok(compared.worst_output(graph))
    };
    let from = worst(quantized)?;
    let mut best: Option<Hint> = None;
    for keep in suspects {
        let mut scheme = scheme.clone();
        scheme.keep.push(keep.clone());
        let (other, _) = written(module, &scheme, matrices, &mut |_| {})?;
        let to = worst(&other)?;
        if to > best.as_ref().map_or(from, |best| best.to_db.0) {
            best = Some(Hint {
                keep,
                from_db: Decibel(from),
                to_db: Decibel(to),
            });
        }
    }
    Ok(best)
}

/// What was decided about a module.
#[derive(Default)]
struct Plan {
    layers: Vec<Quantized>,
    float: Vec<report::FloatNodes>,
    others: usize,
}

/// A layer or table that was quantized.
struct Quantized {
    quality: LayerQuality,
    /// Whether it is in the first method.
    first: bool,
    data: Option<ValueId>,
    output: ValueId,
}

/// The quantized module, verified.
fn written(
    float: &Module,
    scheme: &Scheme,
    matrices: &mut Matrices,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<(Module, Plan), QuantError> {
    let mut module = float.clone();
    let mut plan = Plan::default();
    let mut stay: Vec<(Node, WhyFloat)> = Vec::new();
    let Module { graphs, constants, .. } = &mut module;
    for (i, graph) in graphs.iter_mut().enumerate() {
        let old = std::mem::take(&mut graph.nodes);
        let mut names: FxHashSet<String> = old.iter().map(|node| node.name.clone()).collect();
        names.extend(graph.values.iter().map(|value| value.name.clone()));
        let mut writer = Writer {
            scheme,
            constants,
            graph,
            names,
            nodes: Vec::with_capacity(old.len() * 2),
            matrices,
        };
        for node in old {
            let found = layer(writer.graph, writer.constants, scheme, &node);
            let found = found.and_then(|layer| {
                progress(Progress::Rounding { node: &node.name });
                let stored = writer.store(&layer)?;
                Ok((layer, stored))
            });
            match found {
                Ok((layer, stored)) => {
                    plan.layers.push(Quantized {
                        quality: LayerQuality {
                            method: writer.graph.name.clone(),
                            node: node.name.clone(),
                            op: node.op.name(),
                            weight: layer.matrix.name.clone(),
                            bits: layer.rounding.bits,
                            group: stored.group,
                            weight_snr_db: stored.noise.decibel(),
                            snr_db: None,
                            lost_db: None,
                        },
                        first: i == 0,
                        data: layer.data,
                        output: node.outputs[0],
                    });
                    writer.layer(node, &layer, &stored)?;
                }
                Err(why) => {
                    match why {
                        WhyFloat::NotFloat => plan.others += 1,
                        _ => stay.push((node.clone(), why)),
                    }
                    writer.nodes.push(node);
                }
            }
        }
        let nodes = writer.nodes;
        graph.nodes = nodes;
    }
    plan.float = report::stayed_float(stay.iter().map(|(node, why)| (node, *why)));
    remove_dead_nodes(&mut module);
    drop_unread(&mut module);
    delegraph_ir::verify(&module).map_err(|error| QuantError::Bug(format!("after quantizing: {error}")))?;
    Ok((module, plan))
}

/// A node with a weight that can be quantized by itself.
struct Layer {
    /// As `[output channels, input channels]`, or `[rows, width]` of a table.
    matrix: Constant,
    /// What it reads; a table's positions are none.
    data: Option<ValueId>,
    bias: Option<ValueId>,
    rounding: Rounding,
}

/// What a node is to a scheme.
///
/// # Errors
/// Why it stays as it is: [`WhyFloat::NotFloat`] if it has no weight.
fn layer(graph: &Graph, constants: &Constants, scheme: &Scheme, node: &Node) -> Result<Layer, WhyFloat> {
    let value = |at: usize| node.args.get(at).and_then(Arg::as_value);
    let (data, weight, bias, turn) = match node.op.name() {
        "aten::linear" => (value(0), value(1), value(2), false),
        "aten::embedding" => (None, value(0), None, false),
        _ => match product(graph, node) {
            Some((data, weight, bias)) => (Some(data), Some(weight), bias, true),
            None => return Err(without_form(graph, node)),
        },
    };
    let weight = weight.ok_or(WhyFloat::Arguments)?;
    let dtype = |value: ValueId| graph.tensor(value).map(|ty| ty.dtype);
    let made = node.outputs.first().and_then(|value| dtype(*value));
    let float = matches!(made, Some(DType::F32 | DType::F16 | DType::BF16));
    if !float || node.region.is_some() {
        return Err(WhyFloat::NotFloat);
    }
    let Def::Constant(id) = graph.value(weight).def else {
        // A product of two activations is no layer.
        return Err(if turn { WhyFloat::NotFloat } else { WhyFloat::Arguments });
    };
    let matrix = constants.find(id).ok_or(WhyFloat::Arguments)?;
    if scheme.keeps(node) || scheme.keeps_weight(&matrix.name) || scheme.keeps_weight(&graph.value(weight).name) {
        return Err(WhyFloat::Kept);
    }
    let matrix = if turn {
        turned(matrix).ok_or(WhyFloat::Arguments)?
    } else {
        matrix.clone()
    };
    let same = dtype(weight) == made && data.is_none_or(|value| dtype(value) == made);
    let [_, width] = matrix.sizes.as_slice() else {
        return Err(WhyFloat::Arguments);
    };
    let fits = |value: ValueId| {
        let shape = graph.tensor(value).map(|ty| ty.shape.as_slice()).unwrap_or_default();
        shape.last().is_some_and(|last| last.as_int() == Some(*width))
    };
    if !same || !data.is_none_or(fits) {
        return Err(WhyFloat::Arguments);
    }
    let (bits, group) = match node.op.name() {
        // A table has rows that are read alone: groups of 32, or the row.
        "aten::embedding" => (
            scheme.embedding,
            (scheme.embedding == WeightBits::Four).then_some(GROUPS[0]),
        ),
        _ => (scheme.weight, scheme.group),
    };
    Ok(Layer {
        matrix,
        data,
        bias,
        rounding: Rounding::new(bits, group, scheme.observer),
    })
}

/// Of a node that is no layer of ours: whether it has a weight all the same.
fn without_form(graph: &Graph, node: &Node) -> WhyFloat {
    let name = node.op.name();
    let of_weights = |value: ValueId| {
        let matrix = graph
            .tensor(value)
            .is_some_and(|ty| ty.dtype.is_float() && ty.rank() >= 2);
        matrix && matches!(graph.value(value).def, Def::Constant(_))
    };
    let weight = roles_of(name)
        .and_then(|roles| roles.weight)
        .and_then(|at| node.args.get(at)?.as_value());
    let recurrent = ["aten::lstm", "aten::gru", "aten::rnn_"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    let whole = recurrent || name.starts_with("higher_order::");
    match weight.is_some_and(of_weights) || whole && node.inputs().any(of_weights) {
        true => WhyFloat::Operator,
        false => WhyFloat::NotFloat,
    }
}

/// Where a matrix lies, what it is, and how it is rounded.
type Key = ((usize, usize), usize, Vec<i64>, Vec<i64>, DType, Rounding);

/// Matrices that were made, each once: a weight may belong to several layers, methods and names.
#[derive(Default)]
struct Matrices {
    made: FxHashMap<Key, Result<Matrix, WhyFloat>>,
}

impl Matrices {
    fn matrix(&mut self, layer: &Layer) -> Result<Matrix, WhyFloat> {
        let Layer { matrix, rounding, .. } = layer;
        let key = (
            matrix.storage.address(),
            matrix.offset,
            matrix.sizes.to_vec(),
            matrix.strides.to_vec(),
            matrix.dtype,
            *rounding,
        );
        let made = self.made.entry(key);
        made.or_insert_with(|| quantize_rows(matrix, *rounding)).clone()
    }
}

/// A matrix as values of a graph.
struct Stored {
    integers: ValueId,
    scales: ValueId,
    zero_points: ValueId,
    group: i64,
    noise: Noise,
}

struct Writer<'a> {
    scheme: &'a Scheme,
    constants: &'a mut Constants,
    graph: &'a mut Graph,
    names: FxHashSet<String>,
    nodes: Vec<Node>,
    matrices: &'a mut Matrices,
}

impl Writer<'_> {
    fn store(&mut self, layer: &Layer) -> Result<Stored, WhyFloat> {
        let matrix = self.matrices.matrix(layer)?;
        let mut constant = |constant: Constant| {
            let ty = TensorType::fixed(constant.dtype, constant.sizes.as_slice());
            let name = self.fresh(&constant.name.replace('.', "_"));
            let id = self.constants.push(constant);
            self.graph.add_constant(name, ty, id)
        };
        Ok(Stored {
            integers: constant(matrix.integers),
            scales: constant(matrix.scales),
            zero_points: constant(matrix.zero_points),
            group: matrix.group,
            noise: matrix.noise,
        })
    }

    /// The layer on a dequantized weight, and on an activation that is quantized and dequantized if the scheme says so.
    fn layer(&mut self, mut node: Node, layer: &Layer, stored: &Stored) -> Result<(), QuantError> {
        let dtype = layer.matrix.dtype;
        let read = match layer.data {
            Some(value) if self.scheme.form == Form::Dynamic => Some(self.detour(&node.name, value)?),
            other => other,
        };
        let (low, high) = layer.rounding.limits();
        let args = vec![
            stored.integers.into(),
            Arg::ints(&[1, stored.group]),
            stored.scales.into(),
            stored.zero_points.into(),
            DType::I8.into(),
            Arg::int(low),
            Arg::int(high),
            dtype.into(),
        ];
        let ty = TensorType::fixed(dtype, layer.matrix.sizes.as_slice());
        let weight = self.push(DEQUANTIZE, &format!("{}_weight", node.name), args, vec![ty])?[0];
        match read {
            None => node.args[0] = weight.into(),
            Some(read) => {
                let linear = find("aten::linear")?;
                let args = vec![read.into(), weight.into(), layer.bias.into()];
                (node.op, node.args) = (linear, fill_defaults(linear, args));
            }
        }
        self.nodes.push(node);
        Ok(())
    }

    /// An activation by way of `i8`, with scale and zero point of each token.
    fn detour(&mut self, node: &str, value: ValueId) -> Result<ValueId, QuantError> {
        let ty = self.graph.tensor(value).cloned();
        let ty = ty.ok_or_else(|| QuantError::Bug(format!("`{node}` reads what is no tensor")))?;
        let (width, tokens) = ty
            .shape
            .split_last()
            .ok_or_else(|| QuantError::Bug(format!("`{node}` reads a number")))?;
        let mut block = vec![Expr::Int(1); tokens.len()];
        block.push(width.clone());
        let block = Arg::Ints(block);
        let (low, high) = (Arg::int(-128), Arg::int(127));
        let of_tokens = |dtype| TensorType::new(dtype, tokens.to_vec());
        let args = vec![
            value.into(),
            Arg::Str("ASYMMETRIC".to_string()),
            block.clone(),
            DType::I8.into(),
            low.clone(),
            high.clone(),
            Arg::None,
            Arg::None,
            DType::I8.into(),
        ];
        let types = vec![of_tokens(ty.dtype), of_tokens(DType::I8)];
        let chosen = self.push(CHOOSE, &format!("{node}_qparams"), args, types)?;
        let numbers = |of: ValueId| -> Vec<Arg> {
            vec![
                of.into(),
                block.clone(),
                chosen[0].into(),
                chosen[1].into(),
                DType::I8.into(),
                low.clone(),
                high.clone(),
            ]
        };
        let whole = TensorType::new(DType::I8, ty.shape.clone());
        let integers = self.push(QUANTIZE, &format!("{node}_quantize"), numbers(value), vec![whole])?[0];
        let mut args = numbers(integers);
        args.push(ty.dtype.into());
        Ok(self.push(DEQUANTIZE, &format!("{node}_dequantize"), args, vec![ty])?[0])
    }

    /// A node of torchao's; its values are named after it.
    fn push(
        &mut self,
        op: &str,
        name: &str,
        args: Vec<Arg>,
        types: Vec<TensorType>,
    ) -> Result<Vec<ValueId>, QuantError> {
        let op = find(op)?;
        let mut outputs = Vec::with_capacity(types.len());
        for (i, ty) in types.into_iter().enumerate() {
            let wanted = if i == 0 {
                name.to_string()
            } else {
                format!("{name}_{i}")
            };
            let wanted = self.fresh(&wanted);
            outputs.push(self.graph.add_value(wanted, Type::Tensor(ty), Def::Node));
        }
        let name = self.fresh(&format!("{name}_node"));
        self.nodes.push(Node {
            name,
            op,
            args: fill_defaults(op, args),
            outputs: outputs.clone(),
            source: None,
            region: None,
        });
        Ok(outputs)
    }

    /// A name that nothing has yet.
    fn fresh(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_string();
        let mut number = 1;
        while !self.names.insert(name.clone()) {
            number += 1;
            name = format!("{wanted}_{number}");
        }
        name
    }
}

fn find(op: &str) -> Result<Op, QuantError> {
    Op::find(op).ok_or_else(|| QuantError::Bug(format!("there is no operator `{op}`")))
}

const CHOOSE: &str = "torchao::choose_qparams_affine";
const QUANTIZE: &str = "torchao::quantize_affine";
const DEQUANTIZE: &str = "torchao::dequantize_affine";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Item;
    use crate::evaluate::{Machine, floats};
    use delegraph_runner::Leaf;
    use delegraph_runner::fixture::Tensors;
    use delegraph_types::Dims;
    use std::path::Path;

    fn tensor(tensors: &Tensors, name: &str) -> Constant {
        let (_, leaf) = tensors.iter().find(|(have, _)| *have == name).unwrap();
        let Leaf::Tensor { dtype, shape, bytes } = leaf else {
            panic!("`{name}` is no tensor")
        };
        Constant::contiguous(name, *dtype, Dims::new(shape).unwrap(), bytes.clone().into())
    }

    /// What PyTorch computes with torchao's tensors of the same integers and scales (`conformance/quantize/make_layers.py`). An
    /// activation at a boundary may go to the other integer, which moves a sum by a step of it.
    #[test]
    fn the_portable_kernels_compute_what_torchao_does() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/quantize/layers");
        let inputs = Tensors::read(&folder.join("inputs.safetensors")).unwrap();
        let sample = Sample {
            name: "ids".to_string(),
            inputs: vec![Item::Tensor(tensor(&inputs, "ids"))],
            fresh: true,
        };
        for (scheme, allowed) in [
            ("8da4w:clip=minmax", 1e-3),
            ("8da4w;embedding=4", 1e-3),
            ("w8a8-dynamic", 1e-3),
            ("w8:clip=minmax", 1e-5),
            ("w4:group=64", 1e-5),
        ] {
            let bytes = std::fs::read(folder.join("model.pt2")).unwrap();
            let mut module = delegraph_import::import_bytes(bytes.into(), &Default::default()).unwrap();
            delegraph_passes::simplify(&mut module).unwrap();
            quantize(&mut module, &scheme.parse().unwrap(), &[], &mut |_| {}).unwrap();
            let mut machine = Machine::new(&module).unwrap();
            let mut run = machine.start(&sample).unwrap();
            while run.step().unwrap().is_some() {}
            let have = floats(run.outputs()[0].as_ref().unwrap()).unwrap();
            let name = scheme.replace([':', ';', '='], "-");
            let recorded = Tensors::read(&folder.join(format!("{name}.safetensors"))).unwrap();
            let want = floats(&tensor(&recorded, "output")).unwrap();
            assert_eq!(have.len(), want.len());
            let differs = have.iter().zip(&want).map(|(a, b)| f64::from((a - b).abs()));
            let (largest, range) = (
                differs.fold(0.0, f64::max),
                want.iter().fold(0.0f64, |most, n| most.max(f64::from(n.abs()))),
            );
            println!("{scheme}: largest difference {largest:.2e} of {range:.2e}");
            assert!(largest <= allowed * range, "{scheme}: {largest} of {range}");
        }
    }
}
