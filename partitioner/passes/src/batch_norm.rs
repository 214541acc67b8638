//! Folds batch norms into the convolution or linear layer before them: the graph as a delegate that asks for it sees it.
//!
//! Outside of training a batch norm multiplies each channel by a number and adds another. Where a layer of constant weights
//! makes what it reads, and nobody else reads that, both are one layer with other weights:
//!
//! ```text
//! factor = gamma / sqrt(variance + eps)
//! weight' = weight * factor          along the channels of the result
//! bias'   = (bias - mean) * factor + beta
//! ```
//!
//! They are computed in f64 and rounded once, to the dtype of the layer's weight. Results differ from those of the two operators
//! in the last places, as results of delegates may. The graph keeps both operators, and the new weights are constants of the
//! module that only views read.

use crate::view::{Folded, Fusion, Uses, fuse};
use delegraph_ir::{Arg, Constant, ConstantId, Constants, Def, Graph, Node, TensorType, ValueId};
use delegraph_types::{DType, Dims, bf16, f16};
use rustc_hash::FxHashMap;

/// Folds graphs, and remembers the constants that it made, so that folding a graph again makes none twice.
#[derive(Debug, Default)]
pub struct NormFolder {
    made: FxHashMap<Layer, Option<(ConstantId, ConstantId)>>,
}

/// The constants of a layer and of the batch norm behind it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Layer {
    weight: ConstantId,
    bias: Option<ConstantId>,
    gamma: Option<ConstantId>,
    beta: Option<ConstantId>,
    mean: ConstantId,
    variance: ConstantId,
    eps: u64,
    /// Of a transposed convolution, whose weight is `[in, out / groups, …]`: the number of groups.
    transposed: Option<i64>,
}

/// A layer, by its node, and the batch norm behind it.
struct Pair {
    layer: usize,
    norm: usize,
    constants: Layer,
}

impl NormFolder {
    /// Makes the view of a graph. A layer that `keep` names is left as it is. `None`: there is nothing to fold.
    pub fn fold(&mut self, constants: &mut Constants, graph: &Graph, keep: &dyn Fn(&Node) -> bool) -> Option<Folded> {
        let uses = Uses::of(graph);
        let mut fusions = Vec::new();
        let mut view = None;
        for (i, node) in graph.nodes.iter().enumerate() {
            let Some(pair) = pair(graph, &uses, i, node).filter(|pair| !keep(&graph.nodes[pair.layer])) else {
                continue;
            };
            let folded = match self.made.get(&pair.constants) {
                Some(known) => *known,
                None => {
                    let made = pair.constants.folded(constants);
                    let ids = made.map(|(weight, bias)| (constants.push(weight), constants.push(bias)));
                    self.made.insert(pair.constants.clone(), ids);
                    ids
                }
            };
            if let Some((weight, bias)) = folded {
                let view = view.get_or_insert_with(|| graph.clone());
                let mut node = graph.nodes[pair.layer].clone();
                node.args[1] = Arg::Value(constant_value(view, constants, weight));
                node.args[2] = Arg::Value(constant_value(view, constants, bias));
                node.outputs = graph.nodes[pair.norm].outputs[..1].to_vec();
                fusions.push(Fusion {
                    nodes: vec![pair.layer, pair.norm],
                    main: pair.layer,
                    node,
                });
            }
        }
        view.map(|view| fuse(view, fusions))
    }
}

fn constant_value(view: &mut Graph, constants: &Constants, id: ConstantId) -> ValueId {
    let constant = &constants[id];
    let ty = TensorType::fixed(constant.dtype, constant.sizes.as_slice());
    view.add_constant(constant.name.clone(), ty, id)
}

/// The layer before a batch norm, if both can be one.
fn pair(graph: &Graph, uses: &Uses, at: usize, norm: &Node) -> Option<Pair> {
    if !matches!(
        norm.op.name(),
        "aten::batch_norm"
            | "aten::native_batch_norm"
            | "aten::_native_batch_norm_legit_no_training"
            | "aten::_batch_norm_no_update"
    ) || norm.arg("training").is_some_and(|arg| *arg != Arg::Bool(false))
    {
        return None;
    }
    // What else it gives is about a batch in training.
    if norm.outputs[1..].iter().any(|v| !uses.readers[v.index()].is_empty()) {
        return None;
    }
    let input = norm.args.first()?.as_value()?;
    let (layer_at, layer) = uses.made_by(graph, input)?;
    let (only, _) = uses.only_reader(graph, input)?;
    let rank = graph.tensor(input)?.rank();
    let constant = |arg: &Arg| match graph.value(arg.as_value()?).def {
        Def::Constant(id) => Some(id),
        _ => None,
    };
    let optional = |arg: &Arg| match arg {
        Arg::None => Some(None),
        arg => constant(arg).map(Some),
    };
    let transposed = match layer.op.name() {
        "aten::conv1d"
        | "aten::conv1d.padding"
        | "aten::conv2d"
        | "aten::conv2d.padding"
        | "aten::conv3d"
        | "aten::conv3d.padding" => None,
        "aten::convolution" if layer.arg("transposed") == Some(&Arg::Bool(false)) => None,
        "aten::convolution"
        | "aten::conv_transpose1d"
        | "aten::conv_transpose2d.input"
        | "aten::conv_transpose3d.input" => Some(layer.arg("groups")?.as_int()?),
        // The channels are the second dimension for the one and the last for the other.
        "aten::linear" if rank == 2 => None,
        _ => return None,
    };
    // Without a batch dimension, the second dimension is no channel.
    let weight = layer.args.get(1)?;
    if only != at || graph.tensor(weight.as_value()?)?.rank() != rank {
        return None;
    }
    let eps = norm.arg("eps")?.as_scalar()?.as_f64();
    let constants = Layer {
        weight: constant(weight)?,
        bias: optional(layer.args.get(2)?)?,
        gamma: optional(norm.args.get(1)?)?,
        beta: optional(norm.args.get(2)?)?,
        mean: constant(norm.args.get(3)?)?,
        variance: constant(norm.args.get(4)?)?,
        eps: eps.to_bits(),
        transposed,
    };
    // The result is of the dtype of what is read: nothing is rounded on the way but what both round.
    let result = graph.tensor(*norm.outputs.first()?)?;
    let same = graph.tensor(input)?.dtype == result.dtype && graph.tensor(weight.as_value()?)?.dtype == result.dtype;
    same.then_some(Pair {
        layer: layer_at,
        norm: at,
        constants,
    })
}

impl Layer {
    /// Weight and bias of both. `None`: sizes that do not fit, or a number that the dtype cannot hold.
    fn folded(&self, constants: &Constants) -> Option<(Constant, Constant)> {
        let weight = constants.find(self.weight)?;
        let sizes = weight.sizes.as_slice();
        let (dtype, (first, rest)) = (weight.dtype, sizes.split_first()?);
        let channels = match self.transposed {
            None => usize::try_from(*first).ok()?,
            Some(groups) => usize::try_from(rest.first()?.checked_mul(groups)?).ok()?,
        };
        // One number a channel.
        let row = |id: Option<ConstantId>, default: f64| match id {
            None => Some(vec![default; channels]),
            Some(id) => numbers(constants.find(id)?).filter(|row| row.len() == channels),
        };
        let (gamma, beta) = (row(self.gamma, 1.0)?, row(self.beta, 0.0)?);
        let (mean, variance) = (row(Some(self.mean), 0.0)?, row(Some(self.variance), 1.0)?);
        let bias = row(self.bias, 0.0)?;
        let eps = f64::from_bits(self.eps);
        let factor: Vec<f64> = gamma.iter().zip(&variance).map(|(g, v)| g / (v + eps).sqrt()).collect();
        let shifted = (0..channels).map(|c| (bias[c] - mean[c]) * factor[c] + beta[c]);
        let shifted: Vec<f64> = shifted.collect();

        let mut elements = numbers(weight)?;
        match self.transposed {
            None => {
                let slice = elements.len().checked_div(channels).filter(|n| *n > 0)?;
                for (slice, factor) in elements.chunks_mut(slice).zip(&factor) {
                    slice.iter_mut().for_each(|w| *w *= factor);
                }
            }
            Some(groups) => {
                // `[groups, in / groups, out / groups, …]`
                let groups = usize::try_from(groups).ok()?;
                let (inputs, outputs) = (usize::try_from(*first).ok()?, channels.checked_div(groups)?);
                let of_group = inputs.checked_div(groups).filter(|n| *n > 0 && n * groups == inputs)?;
                let slice = elements.len().checked_div(inputs * outputs).filter(|n| *n > 0)?;
                for (i, slice) in elements.chunks_mut(slice).enumerate() {
                    let channel = i / outputs / of_group * outputs + i % outputs;
                    slice.iter_mut().for_each(|w| *w *= factor[channel]);
                }
            }
        }
        let name = |what: &str| format!("{}.{what}", weight.name);
        let made = |what: &str, sizes: Dims, numbers: &[f64]| {
            let bytes = rounded(dtype, numbers)?;
            Some(Constant::contiguous(name(what), dtype, sizes, bytes.into()))
        };
        let line = Dims::new(&[i64::try_from(channels).ok()?]).ok()?;
        Some((
            made("normed", weight.sizes, &elements)?,
            made("normed.bias", line, &shifted)?,
        ))
    }
}

/// The elements of a float constant.
fn numbers(constant: &Constant) -> Option<Vec<f64>> {
    let bytes = constant.to_contiguous()?;
    let items = bytes.as_slice().chunks_exact(constant.dtype.size());
    let read: fn(&[u8]) -> Option<f64> = match constant.dtype {
        DType::F16 => |b| Some(f16::from_le_bytes(b.try_into().ok()?).to_f64()),
        DType::BF16 => |b| Some(bf16::from_le_bytes(b.try_into().ok()?).to_f64()),
        DType::F32 => |b| Some(f64::from(f32::from_le_bytes(b.try_into().ok()?))),
        DType::F64 => |b| Some(f64::from_le_bytes(b.try_into().ok()?)),
        _ => return None,
    };
    items.map(read).collect()
}

/// Numbers as the little-endian bytes of a float dtype. `None`: one is not finite there.
fn rounded(dtype: DType, numbers: &[f64]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(numbers.len() * dtype.size());
    for number in numbers {
        let finite = match dtype {
            DType::F16 => {
                let rounded = f16::from_f64(*number);
                bytes.extend(rounded.to_le_bytes());
                rounded.is_finite()
            }
            DType::BF16 => {
                let rounded = bf16::from_f64(*number);
                bytes.extend(rounded.to_le_bytes());
                rounded.is_finite()
            }
            DType::F32 => {
                let rounded = *number as f32;
                bytes.extend(rounded.to_le_bytes());
                rounded.is_finite()
            }
            DType::F64 => {
                bytes.extend(number.to_le_bytes());
                number.is_finite()
            }
            _ => return None,
        };
        finite.then_some(())?;
    }
    Some(bytes)
}
