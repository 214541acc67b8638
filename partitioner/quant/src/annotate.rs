//! Who is quantized, and by what.
//!
//! A node is quantized if the pass that folds quantize and dequantize operators knows its operator, all tensors that it reads
//! as activations are f32 and were seen with finite numbers only, and nobody wants it in float. What it reads and gives gets a
//! scale. Between a node and the limit on its result (`relu`, `clamp`) there is no scale: the integers of the result say the
//! limit. Operators that only move elements share one scale between what they read and give, so values are put into classes;
//! a class in which nobody computes stays float.

use crate::Scheme;
use crate::observe::Observed;
use crate::range::{Affine, Seen, affine, choose};
use crate::report::WhyFloat;
use delegraph_ir::{Arg, Def, Graph, Module, Node, ValueId};
use delegraph_passes::quantize::{Kind, Roles, limits, roles_of};
use delegraph_types::DType;

/// What becomes of a graph.
#[derive(Debug)]
pub(crate) struct Plan {
    /// For each node, what becomes of it.
    pub nodes: Vec<Part>,
    /// For each value, its scale and zero point, if it gets one.
    pub affine: Vec<Option<Affine>>,
}

/// What becomes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// It is quantized: what it reads is dequantized, what it gives is quantized.
    Whole(Roles),
    /// As `Whole`, but a limit follows, and the limit's result is quantized.
    Limited(Roles),
    /// It is the limit on the result of the node at this position.
    Limit(usize),
    /// Only its table is quantized.
    Table(Roles),
    /// It stays float.
    Float(WhyFloat),
}

impl Part {
    /// What the node's tensors are to it, if it is an operator on quantized tensors.
    pub fn roles(self) -> Option<Roles> {
        match self {
            Part::Whole(roles) | Part::Limited(roles) => Some(roles),
            Part::Limit(_) | Part::Table(_) | Part::Float(_) => None,
        }
    }

    /// Whether the first result of the node is quantized.
    pub fn gives_integers(self) -> bool {
        matches!(self, Part::Whole(_) | Part::Limit(_))
    }
}

/// The values that a node reads as activations: data, and a weight that is no constant.
pub(crate) fn activations(graph: &Graph, node: &Node, roles: Roles) -> Vec<ValueId> {
    let mut read = Vec::new();
    for position in roles.data {
        read.extend(node.args.get(*position).into_iter().flat_map(Arg::values));
    }
    if let Some(position) = roles.weight
        && weight(graph, node, roles).is_none()
    {
        read.extend(node.args.get(position).into_iter().flat_map(Arg::values));
    }
    read
}

/// The weight of a layer, if it is a constant with a scale a channel: of a product it is one of the activations.
pub(crate) fn weight(graph: &Graph, node: &Node, roles: Roles) -> Option<ValueId> {
    if matches!(node.op.name(), "aten::matmul" | "aten::bmm" | "aten::prelu") {
        return None;
    }
    let value = node.args.get(roles.weight?)?.as_value()?;
    let constant = matches!(graph.value(value).def, Def::Constant(_));
    constant.then_some(value)
}

/// For each node, what its tensors are to it if it can be quantized, by its operator and its types; or why it cannot.
pub(crate) fn candidates(graph: &Graph, scheme: &Scheme) -> Vec<Result<Roles, WhyFloat>> {
    let counted = counted(graph);
    let nodes = graph.nodes.iter();
    nodes
        .map(|node| {
            let roles = candidate(graph, scheme, node)?;
            let layer = roles.data.is_empty() || weight(graph, node, roles).is_some();
            let mut read = activations(graph, node, roles).into_iter();
            match !layer && read.all(|value| counted[value.index()]) {
                true => Err(WhyFloat::Counted),
                false => Ok(roles),
            }
        })
        .collect()
}

/// Values that come of integers, booleans and sizes alone, without a layer between: positions, angles, masks. What is constant
/// counts as one.
fn counted(graph: &Graph) -> Vec<bool> {
    let is_float = |value: ValueId| graph.tensor(value).is_some_and(|ty| ty.dtype.is_float());
    let mut counted: Vec<bool> = (0..graph.values.len())
        .map(|i| match graph.values[i].def {
            Def::Input | Def::State(_) => !is_float(ValueId::from(i)),
            Def::Constant(_) => true,
            Def::Node => false,
        })
        .collect();
    for node in &graph.nodes {
        let layer =
            roles_of(node.op.name()).is_some_and(|roles| roles.data.is_empty() || weight(graph, node, roles).is_some());
        let all = !layer && node.inputs().all(|value| counted[value.index()]);
        node.outputs.iter().for_each(|value| counted[value.index()] = all);
    }
    counted
}

fn candidate(graph: &Graph, scheme: &Scheme, node: &Node) -> Result<Roles, WhyFloat> {
    let is_float = |value: ValueId| graph.tensor(value).is_some_and(|ty| ty.dtype == DType::F32);
    let Some(roles) = roles_of(node.op.name()) else {
        let floats = node.inputs().chain(node.outputs.iter().copied()).any(is_float);
        return Err(if floats { WhyFloat::Operator } else { WhyFloat::NotFloat });
    };
    if !node.outputs.first().copied().is_some_and(is_float) {
        return Err(WhyFloat::NotFloat);
    }
    if scheme.keeps(node) {
        return Err(WhyFloat::Kept);
    }
    // Anything but nothing and 0 may lie outside of the range of what is padded.
    let pads = node.op.name() == "aten::constant_pad_nd";
    let zero = |arg: &Arg| *arg == Arg::None || arg.as_scalar().is_some_and(|s| s.as_f64() == 0.0);
    if pads && !node.arg("value").is_none_or(zero) {
        return Err(WhyFloat::Arguments);
    }
    if let Some(position) = roles.weight
        && let Some(value) = node.args.get(position).and_then(Arg::as_value)
        && !is_float(value)
    {
        return Err(WhyFloat::Arguments);
    }
    if roles.data.is_empty() {
        return weight(graph, node, roles).map(|_| roles).ok_or(WhyFloat::Arguments);
    }
    let read = activations(graph, node, roles);
    let constant = |value: &ValueId| matches!(graph.value(*value).def, Def::Constant(_));
    let data = |position: &usize| match node.args.get(*position) {
        Some(Arg::Value(value)) => is_float(*value),
        Some(Arg::Values(values)) => !values.is_empty() && values.iter().all(|v| is_float(*v)),
        Some(Arg::Int(_) | Arg::Float(_) | Arg::Bool(_)) => true,
        _ => false,
    };
    match roles.data.iter().all(data) && read.iter().any(|value| !constant(value)) {
        true => Ok(roles),
        false => Err(WhyFloat::Arguments),
    }
}

/// What becomes of each node, where `odd` values may not be quantized.
fn shape(graph: &Graph, scheme: &Scheme, odd: &dyn Fn(ValueId) -> bool) -> Vec<Part> {
    let results: Vec<bool> = {
        let mut results = vec![false; graph.values.len()];
        graph.results().for_each(|value| results[value.index()] = true);
        results
    };
    let users = graph.users();
    let read = |value: &ValueId| results[value.index()] || !users[value.index()].is_empty();
    let mut parts: Vec<Part> = Vec::with_capacity(graph.nodes.len());
    for (node, candidate) in graph.nodes.iter().zip(candidates(graph, scheme)) {
        let part = candidate.and_then(|roles| match node.outputs[1..].iter().any(read) {
            true => Err(WhyFloat::Results),
            false => Ok(roles),
        });
        parts.push(match part {
            Ok(roles) if roles.data.is_empty() => Part::Table(roles),
            Ok(roles) if activations(graph, node, roles).into_iter().any(odd) => Part::Float(WhyFloat::Values),
            Ok(roles) => Part::Whole(roles),
            Err(why) => Part::Float(why),
        });
    }
    for i in 0..graph.nodes.len() {
        let Part::Whole(roles) = parts[i] else { continue };
        let output = graph.nodes[i].outputs[0];
        let limit = match users[output.index()].as_slice() {
            [reader] if roles.kind == Kind::Computes && !results[output.index()] => Some(reader.index()),
            _ => None,
        };
        // A limit that is a part of a pair already has none of its own.
        let limit = limit.filter(|reader| {
            let node = &graph.nodes[*reader];
            let first = node.args.first().and_then(Arg::as_value) == Some(output);
            matches!(parts[*reader], Part::Whole(_)) && first && limits(node).is_some() && !odd(node.outputs[0])
        });
        match limit {
            Some(reader) => (parts[i], parts[reader]) = (Part::Limited(roles), Part::Limit(i)),
            None if odd(output) => parts[i] = Part::Float(WhyFloat::Values),
            None => {}
        }
    }
    parts
}

/// The values that have to be observed: those that may get a scale.
pub(crate) fn watched(graph: &Graph, candidates: &[Result<Roles, WhyFloat>]) -> Vec<bool> {
    let mut watched = vec![false; graph.values.len()];
    for (node, candidate) in graph.nodes.iter().zip(candidates) {
        if let Ok(roles) = *candidate
            && !roles.data.is_empty()
        {
            watched[node.outputs[0].index()] = true;
            let read = activations(graph, node, roles);
            read.into_iter().for_each(|value| watched[value.index()] = true);
        }
    }
    watched
}

/// Classes of values that share a scale.
struct Classes(Vec<u32>);

impl Classes {
    fn find(&mut self, value: ValueId) -> usize {
        let mut at = value.index();
        while self.0[at] as usize != at {
            let next = self.0[at] as usize;
            self.0[at] = self.0[next];
            at = next;
        }
        at
    }

    fn join(&mut self, a: ValueId, b: ValueId) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b)] = a.min(b) as u32;
    }
}

/// Beyond these, numbers are a mask's or are lost already.
const HUGE: f32 = 1e30;
/// A softmax over numbers that spread this far is over a mask.
const MASKED: f32 = 1e4;

/// Decides what becomes of a graph.
pub(crate) fn annotate(module: &Module, scheme: &Scheme, observed: &Observed) -> Plan {
    let Some(graph) = module.graphs.first() else {
        return Plan {
            nodes: Vec::new(),
            affine: Vec::new(),
        };
    };
    let masked = masked(graph, observed);
    let odd = |value: ValueId| {
        let at = value.index();
        let range = observed.seen[at].range;
        observed.odd[at] || masked[at] || range.is_none_or(|(low, high)| low < -HUGE || high > HUGE)
    };
    let mut parts = shape(graph, scheme, &odd);
    let mut classes = Classes((0..graph.values.len() as u32).collect());
    let mut computed = vec![false; graph.values.len()];
    for (node, part) in graph.nodes.iter().zip(&parts) {
        let read = part
            .roles()
            .map(|roles| activations(graph, node, roles))
            .unwrap_or_default();
        match part {
            Part::Whole(roles) if roles.kind == Kind::Moves => {
                read.into_iter().for_each(|value| classes.join(value, node.outputs[0]));
            }
            Part::Whole(_) | Part::Limited(_) | Part::Limit(_) => {
                read.into_iter().for_each(|value| computed[value.index()] = true);
                computed[node.outputs[0].index()] |= part.gives_integers();
            }
            Part::Table(_) | Part::Float(_) => {}
        }
    }
    let mut busy = vec![false; graph.values.len()];
    for (value, computed) in computed.iter().enumerate() {
        let class = classes.find(ValueId::from(value));
        busy[class] |= computed;
    }
    for (node, part) in graph.nodes.iter().zip(&mut parts) {
        if let Part::Whole(roles) = part
            && roles.kind == Kind::Moves
            && !busy[classes.find(node.outputs[0])]
        {
            *part = Part::Float(WhyFloat::OnlyMoves);
        }
    }
    let affine = scales(graph, scheme, observed, &parts, &mut classes);
    Plan { nodes: parts, affine }
}

/// Values that a mask spreads so far that no scale fits: what softmax reads, and what is added to make it.
fn masked(graph: &Graph, observed: &Observed) -> Vec<bool> {
    let mut masked = vec![false; graph.values.len()];
    let producers = graph.producers();
    for node in &graph.nodes {
        if !matches!(node.op.name(), "aten::softmax.int" | "aten::_softmax") {
            continue;
        }
        let mut at = node.args.first().and_then(Arg::as_value);
        // A handful of operators lie between the mask and the softmax.
        for _ in 0..8 {
            let Some(value) = at else { break };
            let spread = observed.seen[value.index()]
                .range
                .is_some_and(|(low, high)| high - low > MASKED);
            masked[value.index()] |= spread;
            let maker = producers[value.index()].map(|id| graph.node(id)).filter(|_| spread);
            let maker = maker.filter(|maker| roles_of(maker.op.name()).is_some());
            at = maker.and_then(|maker| maker.args.first().and_then(Arg::as_value));
        }
    }
    masked
}

/// Scale and zero point of every value that a quantized node reads or gives.
fn scales(
    graph: &Graph,
    scheme: &Scheme,
    observed: &Observed,
    parts: &[Part],
    classes: &mut Classes,
) -> Vec<Option<Affine>> {
    let producers = graph.producers();
    let mut wanted = vec![false; graph.values.len()];
    for (node, part) in graph.nodes.iter().zip(parts) {
        if let Some(roles) = part.roles() {
            activations(graph, node, roles)
                .into_iter()
                .for_each(|value| wanted[value.index()] = true);
        }
        if part.gives_integers() {
            wanted[node.outputs[0].index()] = true;
        }
    }
    // Of each class: what was seen where its values come from, and the scale of the operators that always have the same.
    let mut seen: Vec<Option<Seen>> = vec![None; graph.values.len()];
    let mut fixed: Vec<Option<Option<Affine>>> = vec![None; graph.values.len()];
    for value in (0..graph.values.len())
        .map(ValueId::from)
        .filter(|value| wanted[value.index()])
    {
        let maker = producers[value.index()].map(|id| (graph.node(id), parts[id.index()]));
        let moved = matches!(maker, Some((_, Part::Whole(roles))) if roles.kind == Kind::Moves);
        if moved {
            continue;
        }
        let class = classes.find(value);
        seen[class]
            .get_or_insert_with(Seen::default)
            .merge(&observed.seen[value.index()]);
        let known = maker
            .filter(|(_, part)| part.gives_integers())
            .and_then(|(node, part)| match part {
                Part::Limit(main) => of_operator(scheme, graph.nodes[main].op.name()),
                _ => of_operator(scheme, node.op.name()),
            });
        match &mut fixed[class] {
            None => fixed[class] = Some(known),
            Some(one) if *one != known => *one = None,
            Some(_) => {}
        }
    }
    let (least, most) = scheme.limits();
    let chosen: Vec<Option<Affine>> = seen
        .iter()
        .zip(fixed)
        .map(|(seen, fixed)| match fixed.flatten() {
            Some(known) => Some(known),
            None => affine(choose(seen.as_ref()?, scheme.observer, most - least)?, (least, most)),
        })
        .collect();
    let mut of_value = |value: ValueId| chosen[classes.find(value)];
    let values = (0..graph.values.len()).map(ValueId::from);
    values
        .map(&mut of_value)
        .zip(wanted)
        .map(|(scale, wanted)| scale.filter(|_| wanted))
        .collect()
}

/// The scale of an operator whose results lie in a range that is known: from 0 to 1, or from -1 to 1.
fn of_operator(scheme: &Scheme, op: &str) -> Option<Affine> {
    let (least, most) = scheme.limits();
    let count = (most - least + 1) as f32;
    match op {
        "aten::sigmoid" | "aten::hardsigmoid" | "aten::softmax.int" | "aten::_softmax" => Some(Affine {
            scale: 1.0 / count,
            zero_point: least,
        }),
        "aten::tanh" => Some(Affine {
            scale: 2.0 / count,
            zero_point: least + (most - least + 1) / 2,
        }),
        _ => None,
    }
}
