//! Chains of functions of elements become one step, so that memory is gone over once.

use super::Target;
use super::activation;
use crate::graph::{Graph, Node, ValueId, float};
use crate::steps::elementwise::{Code, Kind, NAME, NUMBER, STEP};
use delegraph_cpu_kernels::elementwise::{Binary, Unary};
use delegraph_sdk::image::{Arg, ValueIndex};
use delegraph_sdk::{DType, Error};
use std::collections::HashMap;

/// Steps that one chain may have; the kernel has room for some more.
const MOST: usize = 24;
/// Inputs that one chain may have.
const MOST_INPUTS: usize = 8;

/// An operand of a function before it has a place.
#[derive(Debug, Clone, Copy)]
enum From {
    Value(ValueId),
    Number(f64),
    /// A step of the chain.
    Step(usize),
}

/// A chain so far.
#[derive(Debug, Clone, Default)]
struct Chain {
    steps: Vec<(Code, [Option<From>; 2], [f64; 2])>,
    inputs: Vec<(ValueId, Kind)>,
    /// How many dimensions of the output are a row, where an input says so.
    trailing: Option<usize>,
}

/// Joins nodes.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, _: &Target<'_>) -> Result<(), Error> {
    let uses = graph.uses();
    let mut chains: HashMap<ValueId, Chain> = HashMap::new();
    let mut taken: Vec<bool> = vec![false; graph.nodes.len()];
    let makers = graph.makers();
    for at in 0..graph.nodes.len() {
        let Some(steps) = steps_of(graph, &graph.nodes[at]) else {
            continue;
        };
        let output = graph.nodes[at].outputs[0];
        // Chains of which this is the only reader are continued, as long as there is room.
        let mut chain = Chain::default();
        let mut joined: Vec<ValueId> = Vec::new();
        let mut places: HashMap<ValueId, usize> = HashMap::new();
        for value in steps.iter().flat_map(|(_, operands, _)| operands).flatten() {
            let From::Value(value) = value else { continue };
            if uses[*value] != 1 || places.contains_key(value) || graph.values[*value].dims != graph.values[output].dims
            {
                continue;
            }
            let Some(before) = chains.get(value) else { continue };
            if let Some(more) = chain.with(before) {
                chain = more;
                places.insert(*value, chain.steps.len() - 1);
                joined.push(*value);
            }
        }
        let mut whole = chain.clone();
        if whole.end(graph, output, &steps, &places).is_none() {
            whole = Chain::default();
            joined.clear();
            if whole.end(graph, output, &steps, &HashMap::new()).is_none() {
                continue;
            }
        }
        for value in joined {
            chains.remove(&value);
            if let Some(maker) = makers[value] {
                taken[maker] = true;
            }
        }
        chains.insert(output, whole);
    }
    for at in 0..graph.nodes.len() {
        let Some(chain) = graph.nodes[at].outputs.first().and_then(|output| chains.remove(output)) else {
            continue;
        };
        let args = chain.args(graph);
        let node = &mut graph.nodes[at];
        (node.op, node.args) = (NAME.to_string(), args);
    }
    let mut taken = taken.into_iter();
    graph.nodes.retain(|_| !taken.next().unwrap_or(false));
    Ok(())
}

impl Chain {
    /// This one and then another; `None`: too long, or their rows differ.
    fn with(&self, other: &Chain) -> Option<Chain> {
        let mut all = self.clone();
        let shift = all.steps.len();
        for (code, operands, numbers) in &other.steps {
            let moved = operands.map(|operand| match operand {
                Some(From::Step(at)) => Some(From::Step(at + shift)),
                other => other,
            });
            all.steps.push((*code, moved, *numbers));
        }
        for (value, kind) in &other.inputs {
            if !all.inputs.iter().any(|(v, _)| v == value) {
                all.inputs.push((*value, *kind));
            }
        }
        match (all.trailing, other.trailing) {
            (Some(a), Some(b)) if a != b => return None,
            (None, b) => all.trailing = b,
            _ => {}
        }
        (all.steps.len() <= MOST && all.inputs.len() <= MOST_INPUTS).then_some(all)
    }

    /// Adds the steps of a node; values that are chains in this one are at the steps of `places`. `None`: there is no room, or an operand covers
    /// the output in a way that steps do not have.
    fn end(
        &mut self,
        graph: &Graph,
        output: ValueId,
        steps: &[(Code, [Option<From>; 2], [f64; 2])],
        places: &HashMap<ValueId, usize>,
    ) -> Option<()> {
        let shift = self.steps.len();
        for (code, operands, numbers) in steps {
            let mut moved = [None; 2];
            for (moved, operand) in moved.iter_mut().zip(operands) {
                *moved = match operand {
                    Some(From::Step(at)) => Some(From::Step(at + shift)),
                    Some(From::Value(value)) => match places.get(value) {
                        Some(step) => Some(From::Step(*step)),
                        None => {
                            self.input(graph, *value, output)?;
                            Some(From::Value(*value))
                        }
                    },
                    other => *other,
                };
            }
            self.steps.push((*code, moved, *numbers));
        }
        (self.steps.len() <= MOST && self.inputs.len() <= MOST_INPUTS).then_some(())
    }

    fn input(&mut self, graph: &Graph, value: ValueId, output: ValueId) -> Option<()> {
        if self.inputs.iter().any(|(v, _)| *v == value) {
            return Some(());
        }
        let (kind, trailing) = covers(graph, value, output)?;
        match (self.trailing, trailing) {
            (Some(have), Some(wants)) if have != wants => return None,
            (None, wants) => self.trailing = wants,
            _ => {}
        }
        self.inputs.push((value, kind));
        Some(())
    }

    fn args(&self, graph: &mut Graph) -> Vec<Arg> {
        let mut numbers: Vec<f64> = Vec::new();
        let mut code: Vec<i64> = Vec::new();
        for (step, operands, own) in &self.steps {
            let step = match step {
                Code::Activation(word, _) => {
                    numbers.extend(own);
                    Code::Activation(word, numbers.len() as i64 - 2)
                }
                other => *other,
            };
            let operands = operands.map(|operand| match operand {
                None => 0,
                Some(From::Step(at)) => STEP + at as i64,
                Some(From::Number(number)) => {
                    numbers.push(number);
                    NUMBER + numbers.len() as i64 - 1
                }
                Some(From::Value(value)) => self.inputs.iter().position(|(v, _)| *v == value).unwrap_or(0) as i64,
            });
            code.extend(step.write(operands));
        }
        let values = self.inputs.iter().map(|(value, _)| ValueIndex(*value as u32)).collect();
        let kinds: Vec<i64> = self.inputs.iter().map(|(_, kind)| *kind as i64).collect();
        // An empty list would be one of integers.
        if numbers.is_empty() {
            numbers.push(0.0);
        }
        vec![
            Arg::Values(values),
            graph.ints(&kinds),
            graph.ints(&code),
            Arg::Floats(numbers),
            Arg::Int(self.trailing.unwrap_or(1) as i64),
        ]
    }
}

/// How a value covers an output, and how many dimensions are a row then.
fn covers(graph: &Graph, value: ValueId, output: ValueId) -> Option<(Kind, Option<usize>)> {
    let (have, want) = (&graph.values[value].dims, &graph.values[output].dims);
    if have == want {
        return Some((Kind::Full, None));
    }
    let is_one = |dim: &delegraph_sdk::image::ExprIndex| graph.known(*dim) == Some(1);
    if have.iter().all(is_one) {
        return Some((Kind::Scalar, None));
    }
    if have.len() > want.len() {
        return None;
    }
    // Dimensions of one element at the front say nothing.
    let skipped = have.iter().take_while(|d| is_one(d)).count();
    let rest = &have[skipped..];
    if rest == &want[want.len() - rest.len()..] {
        return Some((Kind::Row, Some(rest.len())));
    }
    let ones = have.iter().rev().take_while(|d| is_one(d)).count();
    if have.len() == want.len() && ones > 0 && have[..have.len() - ones] == want[..want.len() - ones] {
        return Some((Kind::Column, Some(ones)));
    }
    None
}

/// The steps of a node, which read values, numbers and each other; `None`: it is no function of elements of `f32`.
fn steps_of(graph: &Graph, node: &Node) -> Option<Vec<(Code, [Option<From>; 2], [f64; 2])>> {
    let [output] = node.outputs[..] else { return None };
    let is_float = |value: ValueId| graph.values[value].dtype == DType::F32;
    if !is_float(output) || !node.reads().all(is_float) || node.op.starts_with("cpu::") {
        return None;
    }
    let operand = |at: usize| match node.value(at) {
        Some(value) => Some(From::Value(value)),
        None => float(node.args.get(at)).map(From::Number),
    };
    let one = |code: Code, a: From| Some(vec![(code, [Some(a), None], [0.0; 2])]);
    let unary = |unary: Unary| one(Code::Unary(unary), operand(0)?);
    let binary = |binary: Binary, a: From, b: From| Some(vec![(Code::Binary(binary), [Some(a), Some(b)], [0.0; 2])]);
    if let Some(function) = activation::of(node) {
        return Some(vec![(
            Code::Activation(function.word, 0),
            [operand(0), None],
            function.numbers,
        )]);
    }
    // `alpha * b`, where there is one.
    let scaled = |sign: Binary| {
        let (a, b) = (operand(0)?, operand(1)?);
        let alpha = match node.args.get(2) {
            None | Some(Arg::None) => 1.0,
            given => float(given)?,
        };
        match alpha == 1.0 {
            true => binary(sign, a, b),
            false => Some(vec![
                (
                    Code::Binary(Binary::Mul),
                    [Some(b), Some(From::Number(alpha))],
                    [0.0; 2],
                ),
                (Code::Binary(sign), [Some(a), Some(From::Step(0))], [0.0; 2]),
            ]),
        }
    };
    match node.op.as_str() {
        "aten::add.Tensor" | "aten::add.Scalar" => scaled(Binary::Add),
        "aten::sub.Tensor" | "aten::sub.Scalar" => scaled(Binary::Sub),
        "aten::mul.Tensor" | "aten::mul.Scalar" => binary(Binary::Mul, operand(0)?, operand(1)?),
        "aten::div.Tensor" | "aten::div.Scalar" => binary(Binary::Div, operand(0)?, operand(1)?),
        "aten::rsub.Scalar"
            if matches!(node.args.get(2), None | Some(Arg::None)) || float(node.args.get(2)) == Some(1.0) =>
        {
            binary(Binary::Sub, operand(1)?, operand(0)?)
        }
        "aten::maximum" => binary(Binary::Max, operand(0)?, operand(1)?),
        "aten::minimum" => binary(Binary::Min, operand(0)?, operand(1)?),
        "aten::pow.Tensor_Scalar" => match float(node.args.get(1)) {
            Some(2.0) => unary(Unary::Square),
            _ => None,
        },
        "aten::sqrt" => unary(Unary::Sqrt),
        "aten::rsqrt" => unary(Unary::Rsqrt),
        "aten::abs" => unary(Unary::Abs),
        "aten::neg" => unary(Unary::Negate),
        "aten::reciprocal" => unary(Unary::Reciprocal),
        "aten::exp" => unary(Unary::Exp),
        "aten::log" => unary(Unary::Log),
        "aten::erf" => unary(Unary::Erf),
        "aten::floor" => unary(Unary::Floor),
        "aten::ceil" => unary(Unary::Ceil),
        "aten::round" => unary(Unary::Round),
        _ => None,
    }
}
