//! The quantized graph: integers as constants, quantize and dequantize operators between them.
//!
//! A value that a quantized node gives keeps its id for what comes out of dequantizing: whoever reads it, an output of the
//! method too, reads that. Other values stay what they are, and quantized nodes read them by a detour over integers.

use crate::annotate::{Part, Plan, activations, weight};
use crate::evaluate::line;
use crate::range::Affine;
use crate::scheme::WeightBits;
use crate::weights::{Stored, Wanted, Weights, activation, bias};
use crate::{QuantError, Scheme};
use delegraph_ir::{
    Arg, Constant, ConstantId, Constants, Def, Expr, Graph, Module, Node, Op, TensorType, Type, ValueId, fill_defaults,
};
use delegraph_passes::quantize::Roles;
use delegraph_passes::remove_dead_nodes;
use delegraph_types::DType;
use rustc_hash::{FxHashMap, FxHashSet};

/// Quantizes the first method as planned.
///
/// # Errors
/// A defect of ours.
pub(crate) fn write(module: &mut Module, scheme: &Scheme, plan: &Plan) -> Result<(), QuantError> {
    let Module { graphs, constants, .. } = module;
    if let Some(graph) = graphs.first_mut() {
        let old = std::mem::take(&mut graph.nodes);
        let mut names: FxHashSet<String> = old.iter().map(|node| node.name.clone()).collect();
        names.extend(graph.values.iter().map(|value| value.name.clone()));
        let mut writer = Writer {
            scheme,
            plan,
            constants,
            given: vec![false; graph.values.len()],
            graph,
            names,
            nodes: Vec::with_capacity(old.len() * 3),
            detours: FxHashMap::default(),
            weights: Weights::default(),
        };
        for (i, node) in old.into_iter().enumerate() {
            writer.node(node, plan.nodes[i])?;
        }
        let nodes = writer.nodes;
        graph.nodes = nodes;
    }
    remove_dead_nodes(module);
    drop_unread(module);
    Ok(())
}

/// Float weights that nobody reads any more are no part of the file. Ids stay: what was dropped is a constant without elements.
pub(crate) fn drop_unread(module: &mut Module) {
    fn mark(graph: &Graph, read: &mut [bool]) {
        for value in graph.nodes.iter().flat_map(Node::inputs).chain(graph.results()) {
            if let Def::Constant(id) = graph.value(value).def
                && let Some(read) = read.get_mut(id.index())
            {
                *read = true;
            }
        }
        for arg in graph.nodes.iter().flat_map(|node| &node.args) {
            if let Arg::Graph(subgraph) = arg {
                mark(subgraph, read);
            }
        }
    }
    let mut read = vec![false; module.constants.len()];
    module.graphs.iter().for_each(|graph| mark(graph, &mut read));
    for id in module.states.iter().filter_map(|state| state.initial) {
        if let Some(read) = read.get_mut(id.index()) {
            *read = true;
        }
    }
    for (id, _) in read.into_iter().enumerate().filter(|(_, read)| !read) {
        let constant = &mut module.constants[ConstantId::from(id)];
        let name = std::mem::take(&mut constant.name);
        *constant = Constant::contiguous(name, constant.dtype, line(0), Vec::new().into());
    }
}

struct Writer<'a> {
    scheme: &'a Scheme,
    plan: &'a Plan,
    constants: &'a mut Constants,
    graph: &'a mut Graph,
    names: FxHashSet<String>,
    nodes: Vec<Node>,
    /// Values that a quantized node gives.
    given: Vec<bool>,
    /// For each other value that quantized nodes read, what they read in its place.
    detours: FxHashMap<ValueId, ValueId>,
    weights: Weights,
}

impl Writer<'_> {
    fn node(&mut self, mut node: Node, part: Part) -> Result<(), QuantError> {
        if let Part::Table(roles) = part {
            if let (Some(value), Some(position)) = (weight(self.graph, &node, roles), roles.weight) {
                let bits = self.scheme.embedding;
                if let Some((integers, _)) = self.weight(value, 0, bits, None, None)? {
                    node.args[position] = Arg::Value(integers);
                }
            }
        } else if let Some(roles) = part.roles() {
            self.read(&mut node, roles)?;
        }
        let output = node.outputs.first().copied();
        match (output, part.gives_integers()) {
            (Some(output), true) => self.give(node, output),
            _ => {
                self.nodes.push(node);
                Ok(())
            }
        }
    }

    /// Has a node read integers by dequantizing them.
    fn read(&mut self, node: &mut Node, roles: Roles) -> Result<(), QuantError> {
        let weight_value = weight(self.graph, node, roles);
        let data = activations(self.graph, node, roles);
        if let (Some(value), Some(position)) = (weight_value, roles.weight) {
            let input = data.first().and_then(|v| self.plan.affine[v.index()]);
            self.layer(node, roles, value, position, input)?;
        }
        let mut instead: FxHashMap<ValueId, ValueId> = FxHashMap::default();
        for value in data {
            if self.given[value.index()] || instead.contains_key(&value) {
                continue;
            }
            let affine = self.plan.affine[value.index()];
            let affine = affine.ok_or_else(|| self.bug(&node.name, "a value has no scale"))?;
            let read = match self.graph.value(value).def {
                Def::Constant(id) => self.constant(value, id, affine)?,
                _ => match self.detours.get(&value) {
                    Some(detour) => *detour,
                    None => {
                        let integers = self.quantize(value, affine)?;
                        let name = self.fresh(&format!("{}_dequantized", self.graph.value(value).name));
                        let ty = self.graph.value(value).ty.clone();
                        let detour = self.graph.add_value(name, ty, Def::Node);
                        self.dequantize(integers, affine, detour)?;
                        self.detours.insert(value, detour);
                        detour
                    }
                },
            };
            instead.insert(value, read);
        }
        let positions = roles
            .data
            .iter()
            .copied()
            .chain(roles.weight.filter(|_| weight_value.is_none()));
        for position in positions {
            if let Some(arg) = node.args.get_mut(position) {
                arg.map_values(|value| instead.get(&value).copied().unwrap_or(value));
            }
        }
        Ok(())
    }

    /// Weight and bias of a layer.
    fn layer(
        &mut self,
        node: &mut Node,
        roles: Roles,
        value: ValueId,
        position: usize,
        input: Option<Affine>,
    ) -> Result<(), QuantError> {
        let name = node.op.name();
        let transposed = name.contains("transpose") || node.arg("transposed") == Some(&Arg::Bool(true));
        let axis = usize::from(transposed || matches!(name, "aten::mm" | "aten::addmm"));
        let bias_value = roles.bias.and_then(|at| node.args.get(at)).and_then(Arg::as_value);
        let bias_id = bias_value.and_then(|value| match self.graph.value(value).def {
            Def::Constant(id) => Some(id),
            _ => None,
        });
        let numbers = bias_id.and_then(|id| crate::evaluate::floats(self.constants.find(id)?));
        let with = numbers.as_deref().zip(input.map(|affine| affine.scale));
        let Some((integers, stored)) = self.weight(value, axis, self.scheme.weight, self.scheme.group, with)? else {
            return Err(self.bug(&node.name, "its weight cannot be quantized"));
        };
        node.args[position] = Arg::Value(integers);
        // Of a product that is no linear layer the bias is not a line of channels.
        if let (Some(id), Some(input), Some(at)) = (bias_id, input, roles.bias.filter(|_| name != "aten::addmm"))
            && let Some(made) = bias(self.constants, id, input, &stored.channels)
        {
            let limits = (i64::from(i32::MIN), i64::from(i32::MAX));
            node.args[at] = Arg::Value(self.per_axis(made.integers, made.scales, 0, limits, DType::I32)?);
        }
        Ok(())
    }

    /// A weight as what comes out of dequantizing its integers.
    fn weight(
        &mut self,
        value: ValueId,
        axis: usize,
        bits: WeightBits,
        group: Option<u32>,
        bias: Option<(&[f32], f32)>,
    ) -> Result<Option<(ValueId, Stored)>, QuantError> {
        let Def::Constant(constant) = self.graph.value(value).def else {
            return Ok(None);
        };
        let wanted = Wanted {
            constant,
            axis,
            bits: if bits == WeightBits::Four { 4 } else { 8 },
            group,
        };
        let Some(stored) = self.weights.weight(self.constants, &wanted, self.scheme.observer, bias) else {
            return Ok(None);
        };
        let limits = (-stored.most, stored.most);
        let made = match &stored.block {
            None => self.per_axis(stored.integers, stored.scales, axis, limits, DType::I8)?,
            Some(block) => {
                let (integers, scales) = (
                    self.constant_value(stored.integers)?,
                    self.constant_value(stored.scales)?,
                );
                let args = vec![
                    integers.into(),
                    Arg::ints(block),
                    scales.into(),
                    Arg::None,
                    DType::I8.into(),
                    Arg::int(limits.0),
                    Arg::int(limits.1),
                    DType::F32.into(),
                ];
                self.dequantizing("torchao::dequantize_affine", integers, args)?
            }
        };
        Ok(Some((made, stored)))
    }

    fn per_axis(
        &mut self,
        integers: ConstantId,
        scales: ConstantId,
        axis: usize,
        limits: (i64, i64),
        dtype: DType,
    ) -> Result<ValueId, QuantError> {
        let (integers, scales) = (self.constant_value(integers)?, self.constant_value(scales)?);
        let args = vec![
            integers.into(),
            scales.into(),
            Arg::None,
            Arg::int(axis as i64),
            Arg::int(limits.0),
            Arg::int(limits.1),
            dtype.into(),
        ];
        self.dequantizing("quantized_decomposed::dequantize_per_channel", integers, args)
    }

    /// A constant that is read beside activations.
    fn constant(&mut self, value: ValueId, id: ConstantId, affine: Affine) -> Result<ValueId, QuantError> {
        let scheme = self.scheme;
        let made = activation(self.constants, id, affine, scheme.limits(), scheme.activation);
        let made = made.ok_or_else(|| self.bug(&self.graph.value(value).name, "it is no constant of f32"))?;
        let integers = self.constant_value(made)?;
        let args = self.numbers(integers, affine);
        self.dequantizing(DEQUANTIZE, integers, args)
    }

    /// A value of a constant of the module.
    fn constant_value(&mut self, id: ConstantId) -> Result<ValueId, QuantError> {
        let Some(constant) = self.constants.find(id) else {
            return Err(QuantError::Bug(format!("constant {id} does not exist")));
        };
        let ty = TensorType::fixed(constant.dtype, constant.sizes.as_slice());
        let name = constant.name.clone();
        let name = self.fresh(&name);
        Ok(self.graph.add_constant(name, ty, id))
    }

    /// Adds a node that makes f32 of integers.
    fn dequantizing(&mut self, op: &str, integers: ValueId, args: Vec<Arg>) -> Result<ValueId, QuantError> {
        let shape = self.shape(integers)?;
        let name = self.fresh(&format!("{}_dequantized", self.graph.value(integers).name));
        let made = self
            .graph
            .add_value(name, TensorType::new(DType::F32, shape).into(), Def::Node);
        self.push(op, args, made)?;
        Ok(made)
    }

    /// The result of a quantized node, whose id becomes that of the dequantized value.
    fn give(&mut self, mut node: Node, output: ValueId) -> Result<(), QuantError> {
        let affine = self.plan.affine[output.index()];
        let affine = affine.ok_or_else(|| self.bug(&node.name, "its result has no scale"))?;
        let (name, ty) = (
            self.graph.value(output).name.clone(),
            self.graph.value(output).ty.clone(),
        );
        let name = self.fresh(&format!("{name}_float"));
        let raw = self.graph.add_value(name, ty, Def::Node);
        node.outputs[0] = raw;
        self.nodes.push(node);
        let integers = self.quantize_as(raw, output, affine)?;
        self.dequantize(integers, affine, output)?;
        self.given[output.index()] = true;
        Ok(())
    }

    fn quantize(&mut self, value: ValueId, affine: Affine) -> Result<ValueId, QuantError> {
        self.quantize_as(value, value, affine)
    }

    /// Quantizes a value; `named` gives the name.
    fn quantize_as(&mut self, value: ValueId, named: ValueId, affine: Affine) -> Result<ValueId, QuantError> {
        let shape = self.shape(value)?;
        let name = self.fresh(&format!("{}_quantized", self.graph.value(named).name));
        let ty: Type = TensorType::new(self.scheme.activation, shape).into();
        let integers = self.graph.add_value(name, ty, Def::Node);
        let args = self.numbers(value, affine);
        self.push(QUANTIZE, args, integers)?;
        Ok(integers)
    }

    fn dequantize(&mut self, integers: ValueId, affine: Affine, made: ValueId) -> Result<(), QuantError> {
        let args = self.numbers(integers, affine);
        self.push(DEQUANTIZE, args, made)
    }

    /// The arguments of both operators with one scale.
    fn numbers(&self, value: ValueId, affine: Affine) -> Vec<Arg> {
        let (least, most) = self.scheme.limits();
        vec![
            value.into(),
            Arg::Float(f64::from(affine.scale)),
            Arg::int(affine.zero_point),
            Arg::int(least),
            Arg::int(most),
            self.scheme.activation.into(),
        ]
    }

    fn push(&mut self, op: &str, args: Vec<Arg>, output: ValueId) -> Result<(), QuantError> {
        let op = Op::find(op).ok_or_else(|| QuantError::Bug(format!("there is no operator `{op}`")))?;
        let name = self.fresh(&format!("{}_node", self.graph.value(output).name));
        self.nodes.push(Node {
            name,
            op,
            args: fill_defaults(op, args),
            outputs: vec![output],
            source: None,
            region: None,
        });
        Ok(())
    }

    fn shape(&self, value: ValueId) -> Result<Vec<Expr>, QuantError> {
        let ty = self.graph.tensor(value);
        let ty = ty.ok_or_else(|| self.bug(&self.graph.value(value).name, "it is no tensor"))?;
        Ok(ty.shape.clone())
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

    fn bug(&self, place: &str, problem: &str) -> QuantError {
        QuantError::Bug(format!("`{place}`: {problem}"))
    }
}

const QUANTIZE: &str = "quantized_decomposed::quantize_per_tensor";
const DEQUANTIZE: &str = "quantized_decomposed::dequantize_per_tensor";
