//! Folds quantize and dequantize operators into quantized types: the graph as a delegate that asks for it sees it.
//!
//! `dequantize(x), dequantize(w) -> operator -> quantize` becomes the operator on integers whose types say what they stand for
//! ([`Quant`](delegraph_ir::Quant)). The graph itself keeps its operators: it is what runs where no delegate does. So folding
//! makes a second graph, a view, and says which nodes of the first each node of the view stands for. Values keep their ids;
//! those inside a folded node are read by nobody in the view.
//!
//! What is folded:
//!
//! - an operator whose result is quantized by one known scale, with everything that it reads dequantized by known scales. Its
//!   bias may be f32; it becomes integers where that changes nothing.
//! - an activation between operator and quantization that only limits: the limits of the result's integers say it.
//! - an operator that only moves elements, where all scales are the same.
//! - the weight of a layer that computes in f32. Quantizing by scales that are computed at run time stays as it is.
//!
//! A matrix product with a transposed weight becomes a linear layer, as it was before it was decomposed.

mod params;
mod pattern;
mod roles;
mod share;

pub use crate::view::{Folded, Origin};
pub use roles::{Kind, Roles, limits, roles_of};
pub use share::{Copies, rejoin, separate};

use delegraph_ir::{Arg, Constant, ConstantId, Constants, Graph, Node, NodeId, Op, Quant, TensorType, fill_defaults};
use delegraph_types::{DType, Dims};
use pattern::{Finder, FloatBias, Group};
use rustc_hash::FxHashMap;

/// Folds graphs, and remembers the constants that it made, so that folding a graph again makes none twice.
#[derive(Debug, Default)]
pub struct Folder {
    biases: FxHashMap<(ConstantId, Vec<u32>), (ConstantId, Quant)>,
}

impl Folder {
    /// Makes the view of a graph. An operator that `keep` names is not folded. [`separate`] should have been called before:
    /// an operator that shares a dequantization with others is not folded either.
    pub fn fold(&mut self, constants: &mut Constants, graph: &Graph, keep: &dyn Fn(&Node) -> bool) -> Folded {
        let (groups, steps, quants) = {
            let finder = Finder::new(graph, constants);
            (finder.groups(keep, false), finder.steps, finder.quants)
        };
        let mut view = graph.clone();
        for (value, quant) in view.values.iter_mut().zip(&quants) {
            if let delegraph_ir::Type::Tensor(ty) = &mut value.ty {
                ty.quant.clone_from(quant);
            }
        }
        let mut relied = vec![false; graph.values.len()];
        // For each node, the group that it is in, and whether it is the last of it.
        let mut place: FxHashMap<usize, (usize, bool)> = FxHashMap::default();
        for (i, group) in groups.iter().enumerate() {
            let nodes = group.nodes();
            let last = nodes.last().copied();
            place.extend(nodes.into_iter().map(|n| (n, (i, Some(n) == last))));
        }
        let mut folded = Folded {
            graph: Graph::new(&graph.name),
            origins: Vec::with_capacity(graph.nodes.len()),
            view_of: vec![NodeId(0); graph.nodes.len()],
            holds: Vec::new(),
        };
        let old = std::mem::take(&mut view.nodes);
        for (i, node) in old.into_iter().enumerate() {
            let (made, origin) = match place.get(&i) {
                Some((_, false)) => continue,
                Some((group, true)) => {
                    let group = &groups[*group];
                    for (dequantize, _) in &group.dequantize {
                        if let Some(step) = &steps[*dequantize] {
                            relied[step.input.index()] = true;
                        }
                    }
                    let made = self.node(constants, graph, &mut view, group);
                    if group.quantize.is_some() {
                        made.outputs.iter().for_each(|v| relied[v.index()] = true);
                    }
                    let covers = group.nodes().into_iter().map(NodeId::from).collect();
                    let main = NodeId::from(group.main);
                    (made, Origin { main, covers })
                }
                None => {
                    let id = NodeId::from(i);
                    (
                        node,
                        Origin {
                            main: id,
                            covers: vec![id],
                        },
                    )
                }
            };
            let id = NodeId::from(view.nodes.len());
            origin.covers.iter().for_each(|n| folded.view_of[n.index()] = id);
            view.nodes.push(made);
            folded.origins.push(origin);
        }
        folded.holds = steps
            .iter()
            .map(|step| step.as_ref().is_some_and(|s| relied[s.integers().index()]))
            .collect();
        folded.graph = view;
        folded
    }

    /// The node that stands for a group.
    fn node(&mut self, constants: &mut Constants, graph: &Graph, view: &mut Graph, group: &Group) -> Node {
        let mut node = graph.nodes[group.main].clone();
        node.args.clone_from(&group.args);
        if let Some(bias) = &group.bias
            && let Some(arg) = self.bias(constants, view, bias)
        {
            node.args[bias.position] = arg;
        }
        if group.transpose.is_some()
            && let Some(linear) = Op::find("aten::linear")
        {
            let mut args = std::mem::take(&mut node.args);
            args.truncate(if node.op.name() == "aten::addmm" { 3 } else { 2 });
            // Of `addmm`, the bias comes first.
            if args.len() == 3 {
                args.rotate_left(1);
            }
            (node.op, node.args) = (linear, fill_defaults(linear, args));
        }
        if let (Some(quantize), Some(quant)) = (group.quantize, &group.result)
            && let (Some(output), Some(result)) = (node.outputs.first_mut(), graph.nodes[quantize].outputs.first())
        {
            *output = *result;
            if let delegraph_ir::Type::Tensor(ty) = &mut view.values[result.index()].ty {
                ty.quant = Some(quant.clone());
            }
        }
        node
    }

    /// A bias as integers: a constant of the module that only views read.
    fn bias(&mut self, constants: &mut Constants, view: &mut Graph, bias: &FloatBias) -> Option<Arg> {
        let key = (
            bias.constant,
            bias.scales.iter().map(|s| s.to_bits()).collect::<Vec<_>>(),
        );
        let (integers, quant) = match self.biases.get(&key) {
            Some(made) => made.clone(),
            None => {
                let name = constants.find(bias.constant)?.name.clone();
                let line = |count: usize| Dims::new(&[i64::try_from(count).ok()?]).ok();
                let (quant_min, quant_max) = (i64::from(i32::MIN), i64::from(i32::MAX));
                let quant = match bias.scales.as_slice() {
                    [one] => Quant::PerTensor {
                        scale: f64::from(*one),
                        zero_point: 0,
                        quant_min,
                        quant_max,
                    },
                    all => {
                        let bytes: Vec<u8> = all.iter().flat_map(|s| s.to_le_bytes()).collect();
                        let (name, sizes) = (format!("{name}.scales"), line(all.len())?);
                        let scales = Constant::contiguous(name, DType::F32, sizes, bytes.into());
                        Quant::PerAxis {
                            axis: 0,
                            scales: constants.push(scales),
                            zero_points: None,
                            quant_min,
                            quant_max,
                        }
                    }
                };
                let bytes: Vec<u8> = bias.integers.iter().flat_map(|i| i.to_le_bytes()).collect();
                let sizes = line(bias.integers.len())?;
                let integers = Constant::contiguous(format!("{name}.integers"), DType::I32, sizes, bytes.into());
                let made = (constants.push(integers), quant);
                self.biases.insert(key, made.clone());
                made
            }
        };
        let mut ty = TensorType::fixed(DType::I32, &[i64::try_from(bias.integers.len()).ok()?]);
        ty.quant = Some(quant);
        let name = constants.find(integers)?.name.clone();
        Some(Arg::Value(view.add_constant(name, ty, integers)))
    }
}
