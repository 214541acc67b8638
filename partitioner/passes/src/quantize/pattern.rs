//! Which nodes become one: an operator, the dequantizations that feed it, and what stands between it and its quantization.

use super::params::{Step, Way, constant_of, numbers, quantized, step};
use super::roles::{Kind, Roles, limits, roles_of};
use delegraph_ir::{Arg, Constant, ConstantId, Constants, Def, Graph, Node, Quant, ValueId};
use delegraph_types::DType;

/// Nodes that a delegate sees as one. Positions are those of the graph's nodes.
#[derive(Debug, Clone, Default)]
pub(super) struct Group {
    /// The operator.
    pub main: usize,
    /// Its arguments with dequantized values replaced by the integers that they stand for.
    pub args: Vec<Arg>,
    /// The dequantizations, each with the node of this group that reads it.
    pub dequantize: Vec<(usize, usize)>,
    /// The transposition of a linear layer's weight, which the layer has in itself.
    pub transpose: Option<usize>,
    /// A limit on the result, which becomes limits of the integers.
    pub activation: Option<usize>,
    /// Without one, the result is f32 and only the weight is quantized.
    pub quantize: Option<usize>,
    /// The quantization of the result, with the limits of the activation.
    pub result: Option<Quant>,
    /// A bias in f32 that is an exact multiple of what an i32 bias would count in.
    pub bias: Option<FloatBias>,
}

/// A bias that can be integers without loss.
#[derive(Debug, Clone)]
pub(super) struct FloatBias {
    pub position: usize,
    pub constant: ConstantId,
    pub integers: Vec<i32>,
    /// One, or one a channel.
    pub scales: Vec<f32>,
}

impl Group {
    /// All nodes, in order.
    pub fn nodes(&self) -> Vec<usize> {
        // One that is read twice by one node is listed twice.
        let mut nodes: Vec<usize> = self.dequantize.iter().map(|(node, _)| *node).collect();
        nodes.extend(
            [Some(self.main), self.transpose, self.activation, self.quantize]
                .into_iter()
                .flatten(),
        );
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }
}

/// A graph with what the pass wants to know of it.
pub(super) struct Finder<'a> {
    graph: &'a Graph,
    constants: &'a Constants,
    /// For each node, what it is if it quantizes or dequantizes by known numbers.
    pub steps: Vec<Option<Step>>,
    /// For each value, its quantization, if all who quantize, dequantize or read it agree.
    pub quants: Vec<Option<Quant>>,
    maker: Vec<Option<usize>>,
    /// For each value, how many nodes read it, and the last that does; a result of the graph counts as a reader.
    readers: Vec<(u32, usize)>,
}

impl<'a> Finder<'a> {
    pub fn new(graph: &'a Graph, constants: &'a Constants) -> Finder<'a> {
        let steps: Vec<Option<Step>> = graph.nodes.iter().map(|n| step(graph, constants, n)).collect();
        let mut maker = vec![None; graph.values.len()];
        let mut readers = vec![(0, usize::MAX); graph.values.len()];
        for (i, node) in graph.nodes.iter().enumerate() {
            for value in &node.outputs {
                maker[value.index()] = Some(i);
            }
            for value in node.inputs() {
                let (count, last) = &mut readers[value.index()];
                if *last != i {
                    (*count, *last) = (*count + 1, i);
                }
            }
        }
        for value in graph.results() {
            let (count, last) = &mut readers[value.index()];
            (*count, *last) = (*count + 1, usize::MAX);
        }
        let mut finder = Finder {
            graph,
            constants,
            quants: vec![None; graph.values.len()],
            steps,
            maker,
            readers,
        };
        finder.agree();
        finder
    }

    /// A value has a quantized type only if nobody reads it as anything else: its maker quantizes (or it comes from outside),
    /// and every node that reads it dequantizes by the same numbers.
    fn agree(&mut self) {
        let mut odd = vec![false; self.graph.values.len()];
        for (i, node) in self.graph.nodes.iter().enumerate() {
            let step = self.steps[i].as_ref();
            let plain = |value: &ValueId| step.is_none_or(|s| s.integers() != *value);
            for value in node.inputs().chain(node.outputs.iter().copied()).filter(plain) {
                odd[value.index()] = true;
            }
            if let Some(step) = step {
                let at = step.integers().index();
                match &self.quants[at] {
                    None => self.quants[at] = Some(step.quant.clone()),
                    Some(other) => odd[at] |= *other != step.quant,
                }
            }
        }
        for ((value, quant), odd) in self.graph.values.iter().zip(&mut self.quants).zip(odd) {
            // The type of a state is the module's.
            if odd || matches!(value.def, Def::State(_)) {
                *quant = None;
            }
        }
    }

    /// The number of readers of a value, and one of them.
    pub fn readers(&self, value: ValueId) -> (u32, usize) {
        self.readers[value.index()]
    }

    /// Every group, in order of their operators. A node that `keep` names is none's operator.
    ///
    /// `shared`: a dequantization may also be read by others. It must not where a group is to be taken out of the graph.
    pub fn groups(&self, keep: &dyn Fn(&Node) -> bool, shared: bool) -> Vec<Group> {
        let mut groups = Vec::new();
        for (i, node) in self.graph.nodes.iter().enumerate() {
            if let Some(row) = roles_of(node.op.name()).filter(|_| !keep(node))
                && let Some(group) = self.whole(i, node, row).or_else(|| self.weight_only(i, node, row))
                && (shared || group.dequantize.iter().all(|(dq, _)| self.is_private(*dq)))
            {
                groups.push(group);
            }
        }
        groups
    }

    fn is_private(&self, dequantize: usize) -> bool {
        let step = self.steps[dequantize].as_ref();
        step.is_some_and(|s| self.readers(s.output).0 == 1)
    }

    /// The only node that reads a value.
    fn only_reader(&self, value: ValueId) -> Option<usize> {
        match self.readers(value) {
            (1, node) if node < self.graph.nodes.len() => Some(node),
            _ => None,
        }
    }

    /// The dequantization that makes a value, if what it reads has a quantized type.
    fn dequantized(&self, value: ValueId) -> Option<(usize, &Step, &Quant)> {
        let node = self.maker[value.index()]?;
        let step = self.steps[node].as_ref().filter(|s| s.way == Way::Dequantize)?;
        let quant = self.quants[step.input.index()].as_ref()?;
        Some((node, step, quant))
    }

    /// An operator whose result is quantized, and all of whose tensors are dequantized.
    fn whole(&self, main: usize, node: &Node, row: Roles) -> Option<Group> {
        if row.data.is_empty() {
            return None;
        }
        let mut group = Group {
            main,
            args: node.args.clone(),
            ..Group::default()
        };
        let result = *node.outputs.first()?;
        if node.outputs[1..].iter().any(|v| self.readers(*v).0 > 0) {
            return None;
        }
        // Another dtype than f32 on the way would round.
        if self.graph.tensor(result)?.dtype != DType::F32 {
            return None;
        }
        let (activation, quantize, quant) = self.end(result, row.kind)?;
        (group.activation, group.quantize) = (activation, Some(quantize));
        let mut scales = Vec::new();
        for &position in row.data {
            self.take(&mut group, position, main, &mut scales)?;
        }
        if scales.is_empty() || !scales.iter().all(|q| matches!(q, Quant::PerTensor { .. })) {
            return None;
        }
        if row.kind == Kind::Moves && !scales.iter().all(|q| *q == quant) {
            return None;
        }
        let weight = match row.weight {
            Some(position) => Some(self.weight(&mut group, node, position)?),
            None => None,
        };
        if let (Some(position), Some(weight)) = (row.bias, &weight) {
            self.bias(&mut group, node, position, &scales[0], weight)?;
        }
        group.result = Some(self.narrowed(activation, quant)?);
        Some(group)
    }

    /// A layer that computes in f32: its weight alone is quantized.
    fn weight_only(&self, main: usize, node: &Node, row: Roles) -> Option<Group> {
        let mut group = Group {
            main,
            args: node.args.clone(),
            ..Group::default()
        };
        // A product of two activations has no weight.
        let position = row.weight?;
        self.weight(&mut group, node, position)?;
        let (dequantize, _) = *group.dequantize.first()?;
        let source = self.steps[dequantize].as_ref()?.input;
        let known = constant_of(self.graph, source).is_some();
        let result = self.graph.tensor(*node.outputs.first()?)?;
        (known && result.dtype == DType::F32).then_some(group)
    }

    /// What follows a result: perhaps an activation, then a quantization with one scale.
    fn end(&self, result: ValueId, kind: Kind) -> Option<(Option<usize>, usize, Quant)> {
        let quantize = |value: ValueId| {
            let node = self.only_reader(value)?;
            let step = self.steps[node].as_ref().filter(|s| s.way == Way::Quantize)?;
            let quant = self.quants[step.output.index()].clone()?;
            matches!(quant, Quant::PerTensor { .. }).then_some((node, quant))
        };
        if let Some((node, quant)) = quantize(result) {
            return Some((None, node, quant));
        }
        let activation = self.only_reader(result).filter(|_| kind == Kind::Computes)?;
        limits(&self.graph.nodes[activation])?;
        let (node, quant) = quantize(*self.graph.nodes[activation].outputs.first()?)?;
        Some((Some(activation), node, quant))
    }

    /// Quantizing is monotone, so that a limit on numbers is the same limit on the integers that stand for them.
    fn narrowed(&self, activation: Option<usize>, quant: Quant) -> Option<Quant> {
        let Some(activation) = activation else {
            return Some(quant);
        };
        let Quant::PerTensor {
            scale,
            zero_point,
            quant_min,
            quant_max,
        } = quant
        else {
            return None;
        };
        // f32, which the arithmetic is in, holds integers up to here.
        if quant_max - quant_min > 1 << 24 {
            return None;
        }
        let (low, high) = limits(&self.graph.nodes[activation])?;
        let integer = |number: f64| quantized(number, scale, zero_point, quant_min, quant_max);
        Some(Quant::PerTensor {
            scale,
            zero_point,
            quant_min: low.map_or(quant_min, integer),
            quant_max: high.map_or(quant_max, integer),
        })
    }

    /// Replaces the dequantized values of an argument by their integers; a number stays what it is. `None`: it reads
    /// something else.
    fn take(&self, group: &mut Group, position: usize, reader: usize, scales: &mut Vec<Quant>) -> Option<()> {
        let arg = group.args.get_mut(position)?;
        if !matches!(
            arg,
            Arg::Value(_) | Arg::Values(_) | Arg::Int(_) | Arg::Float(_) | Arg::Bool(_)
        ) {
            return None;
        }
        let mut all = true;
        arg.map_values(|value| match self.dequantized(value) {
            Some((node, step, quant)) => {
                group.dequantize.push((node, reader));
                scales.push(quant.clone());
                step.input
            }
            None => {
                all = false;
                value
            }
        });
        all.then_some(())
    }

    /// Takes the weight. That of a matrix product may come transposed: then the group is a linear layer.
    fn weight(&self, group: &mut Group, node: &Node, position: usize) -> Option<Quant> {
        let value = node.args.get(position)?.as_value()?;
        let product = matches!(node.op.name(), "aten::addmm" | "aten::mm");
        if product && let Some(maker) = self.maker[value.index()].filter(|m| self.transposes(*m)) {
            if node.op.name() == "aten::addmm" && !is_plain_sum(self.graph, node) {
                return None;
            }
            let stored = self.graph.nodes[maker].args.first()?.as_value()?;
            self.only_reader(value)?;
            let (dequantize, step, quant) = self.dequantized(stored)?;
            group.transpose = Some(maker);
            group.dequantize.push((dequantize, maker));
            group.args[position] = Arg::Value(step.input);
            return Some(quant.clone());
        }
        let (dequantize, step, quant) = self.dequantized(value)?;
        group.dequantize.push((dequantize, group.main));
        group.args[position] = Arg::Value(step.input);
        // Without a constant behind it, it is an activation like the others.
        let known = constant_of(self.graph, step.input).is_some();
        (known || matches!(quant, Quant::PerTensor { .. })).then(|| quant.clone())
    }

    fn transposes(&self, node: usize) -> bool {
        let node = &self.graph.nodes[node];
        let source = node.args.first().and_then(Arg::as_value);
        if source.and_then(|v| self.graph.tensor(v)).is_none_or(|t| t.rank() != 2) {
            return false;
        }
        let swaps = |list: &[i64]| list.iter().map(|d| d.rem_euclid(2)).eq([1, 0]);
        match node.op.name() {
            "aten::t" => true,
            "aten::permute" => node.args.get(1).and_then(Arg::as_ints).is_some_and(|dims| swaps(&dims)),
            "aten::transpose.int" => match (
                node.args.get(1).and_then(Arg::as_int),
                node.args.get(2).and_then(Arg::as_int),
            ) {
                (Some(a), Some(b)) => a.rem_euclid(2) != b.rem_euclid(2),
                _ => false,
            },
            _ => false,
        }
    }

    /// A bias of integers counts in the product of the scales of input and weight. One that does not, or is f32 and no exact
    /// multiple of it, stays f32: the operator then reads a float beside its integers. `None`: the group is none.
    fn bias(&self, group: &mut Group, node: &Node, position: usize, input: &Quant, weight: &Quant) -> Option<()> {
        let arg = node.args.get(position)?;
        let Some(value) = arg.as_value() else {
            return matches!(arg, Arg::None).then_some(());
        };
        // Of a matrix product that is no linear layer, the channels are the other dimension of the weight.
        let other = position == 0 && group.transpose.is_none();
        let Some(scales) = self.bias_scales(node, input, weight, other) else {
            return Some(());
        };
        if let Some((dequantize, step, quant)) = self.dequantized(value) {
            if self.counts_in(quant, &scales) && self.graph.tensor(step.input)?.dtype == DType::I32 {
                let integers = step.input;
                group.args[position] = Arg::Value(integers);
                group.dequantize.push((dequantize, group.main));
            }
            return Some(());
        }
        if let Some(constant) = constant_of(self.graph, value)
            && let Some(integers) = exact(self.constants.find(constant)?, &scales)
        {
            group.bias = Some(FloatBias {
                position,
                constant,
                integers,
                scales,
            });
        }
        Some(())
    }

    /// `scale of input * scale of weight`, in f32, one or one a channel.
    fn bias_scales(&self, node: &Node, input: &Quant, weight: &Quant, other: bool) -> Option<Vec<f32>> {
        let Quant::PerTensor { scale: input, .. } = input else {
            return None;
        };
        // In a transposed convolution the channels of the result are another dimension of the weight.
        let transposed =
            other || node.op.name().contains("transpose") || node.arg("transposed") == Some(&Arg::Bool(true));
        let weights = match weight {
            Quant::PerTensor { scale, .. } => vec![*scale],
            Quant::PerAxis { axis: 0, scales, .. } if !transposed => numbers(self.constants.find(*scales)?)?,
            // Each group of a transposed convolution has the same scales.
            Quant::PerAxis { axis: 1, scales, .. } if transposed && !other => {
                let groups = usize::try_from(node.arg("groups")?.as_int()?).ok()?;
                let scales = numbers(self.constants.find(*scales)?)?;
                scales.len().checked_mul(groups).filter(|n| *n <= 1 << 24)?;
                scales.repeat(groups)
            }
            _ => return None,
        };
        let product: Vec<f32> = weights.iter().map(|w| *input as f32 * *w as f32).collect();
        product.iter().all(|s| s.is_normal()).then_some(product)
    }

    fn counts_in(&self, quant: &Quant, scales: &[f32]) -> bool {
        let near = |a: f64, b: f32| (a - f64::from(b)).abs() <= 1e-6 * f64::from(b).abs();
        match quant {
            Quant::PerTensor {
                scale, zero_point: 0, ..
            } => scales.iter().all(|s| near(*scale, *s)),
            Quant::PerAxis {
                axis: 0,
                scales: id,
                zero_points,
                ..
            } => {
                let all = |id: &ConstantId| self.constants.find(*id).and_then(numbers);
                let no_zeros = zero_points
                    .as_ref()
                    .is_none_or(|id| all(id).is_some_and(|z| z.iter().all(|z| *z == 0.0)));
                let same = |have: Vec<f64>| {
                    (have.len() == scales.len() || scales.len() == 1)
                        && have.iter().zip(scales.iter().cycle()).all(|(a, b)| near(*a, *b))
                };
                no_zeros && all(id).is_some_and(same)
            }
            _ => false,
        }
    }
}

/// Whether `addmm` is a bias plus a product, as a linear layer is.
fn is_plain_sum(graph: &Graph, node: &Node) -> bool {
    let one = |name: &str| {
        node.arg(name)
            .and_then(Arg::as_scalar)
            .is_some_and(|s| s.as_f64() == 1.0)
    };
    let bias = node.args.first().and_then(Arg::as_value).and_then(|v| graph.tensor(v));
    let columns = node
        .outputs
        .first()
        .and_then(|v| graph.tensor(*v))
        .and_then(|t| t.shape.last());
    one("beta") && one("alpha") && bias.is_some_and(|b| b.rank() == 1 && b.shape.first() == columns)
}

/// The integers that a bias is, if each gives its number exactly: `f32(integer * scale)`, as dequantizing computes it.
fn exact(bias: &Constant, scales: &[f32]) -> Option<Vec<i32>> {
    let rank_one = bias.sizes.rank() == 1 && bias.dtype == DType::F32;
    let values = numbers(bias).filter(|v| rank_one && (scales.len() == 1 || scales.len() == v.len()))?;
    let integer = |(value, scale): (&f64, &f32)| {
        let count = (value / f64::from(*scale)).round();
        let fits = count.abs() < 2f64.powi(31);
        (fits && (count * f64::from(*scale)) as f32 == *value as f32).then_some(count as i32)
    };
    values.iter().zip(scales.iter().cycle()).map(integer).collect()
}
