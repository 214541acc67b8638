//! What depends on constants alone is computed once, when the region is compiled.

use super::{Target, bytes, is_constant};
use crate::graph::{From, Graph, Node, ValueId, arg};
use crate::plan::Shapes;
use crate::steps;
use crate::sys::{Io, Memory, Slot};
use crate::view;
use delegraph_cpu_kernels::Serial;
use delegraph_sdk::Error;
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::image::{Arg, Sizes, verify};
use std::collections::HashSet;

/// Results above this many bytes are kept only if they are no larger than what they are made of, or filters.
const LARGE: usize = 1 << 16;

/// Computes what can be.
///
/// # Errors
/// None that the graph did not have before.
pub fn run(graph: &mut Graph, target: &Target<'_>) -> Result<(), Error> {
    let filters = filters(graph);
    for at in 0..graph.nodes.len() {
        let node = &graph.nodes[at];
        if node.reads().next().is_none() && !makes_little(graph, node) {
            continue;
        }
        if !node.reads().all(|value| is_constant(graph, value)) || node.op.starts_with("cpu::") {
            continue;
        }
        let Some(made) = evaluate(graph, target, at) else {
            continue;
        };
        let read = graph.nodes[at]
            .reads()
            .fold(0usize, |sum, v| sum.saturating_add(size(graph, v)));
        let total: usize = made.iter().map(Vec::len).sum();
        if total > LARGE && total > read && !graph.nodes[at].outputs.iter().all(|output| filters.contains(output)) {
            continue;
        }
        let outputs = graph.nodes[at].outputs.clone();
        for (output, bytes) in outputs.into_iter().zip(made) {
            graph.packed.push(bytes);
            graph.values[output].from = From::Packed(graph.packed.len() - 1);
        }
        graph.nodes[at].outputs.clear();
    }
    graph.nodes.retain(|node| !node.outputs.is_empty());
    Ok(())
}

/// Values that are filters of convolutions and nothing else: those are packed, and would else be made in every run.
fn filters(graph: &Graph) -> HashSet<ValueId> {
    let is_conv = |node: &Node| matches!(node.op.as_str(), "aten::conv1d" | "aten::conv2d" | "aten::convolution");
    let convs = graph.nodes.iter().filter(|node| is_conv(node));
    let mut filters: HashSet<ValueId> = convs.filter_map(|node| node.value(1)).collect();
    for node in &graph.nodes {
        for (at, value) in node.reads().enumerate() {
            if !(is_conv(node) && at == 1) {
                filters.remove(&value);
            }
        }
    }
    graph.outputs.iter().for_each(|output| {
        filters.remove(output);
    });
    filters
}

fn size(graph: &Graph, value: ValueId) -> usize {
    let sizes = graph.sizes(value).unwrap_or_default();
    let width = graph.values[value].dtype.size().unwrap_or(1);
    sizes.iter().fold(width, |bytes, size| {
        bytes.saturating_mul(usize::try_from(*size).unwrap_or(0))
    })
}

fn makes_little(graph: &Graph, node: &Node) -> bool {
    node.outputs
        .iter()
        .all(|v| graph.sizes(*v).is_some() && size(graph, *v) <= LARGE)
}

/// The bytes that a node makes of constants; `None`: it cannot be run now.
fn evaluate(graph: &Graph, target: &Target<'_>, at: usize) -> Option<Vec<Vec<u8>>> {
    let node = &graph.nodes[at];
    if !node.outputs.iter().all(|output| graph.sizes(*output).is_some()) {
        return None;
    }
    // A graph of this node alone, to which the constants are given.
    let mut one = Graph::empty();
    let mut ids: Vec<(ValueId, ValueId)> = Vec::new();
    let mut given: Vec<Vec<u8>> = Vec::new();
    for value in node.reads() {
        if ids.iter().all(|(old, _)| *old != value) {
            let new = one.adopt(graph, value)?;
            one.values[new].from = From::Input(one.inputs.len() as u32);
            one.inputs.push(new);
            ids.push((value, new));
            given.push(bytes(graph, target, value)?.into_owned());
        }
    }
    let mut copy = node.clone();
    for arg in &mut copy.args {
        *arg = one.adopt_arg(graph, arg, &ids)?;
    }
    copy.outputs = node
        .outputs
        .iter()
        .map(|value| one.adopt(graph, *value))
        .collect::<Option<_>>()?;
    one.outputs = copy.outputs.clone();
    one.nodes.push(copy);
    let (image, _) = one.write(&[]).ok()?;
    let view = verify(&image).ok()?;
    let sizes = Sizes::new(&view);
    let shapes = Shapes::new(&view, &sizes).ok()?;
    let node = view.nodes().next()?;
    let arguments = Arguments::new(node, &sizes);
    let memories: Vec<Memory> = given
        .iter()
        .map(|bytes| Memory::of(bytes))
        .collect::<Result<_, _>>()
        .ok()?;
    if let Some(parts) = view::parts(&arguments, &shapes) {
        let index = |of: delegraph_sdk::image::ValueIndex| view.inputs().iter().position(|input| input == of);
        let one = |part: &view::Part| {
            Some(
                memories[index(part.of)?]
                    .bytes()
                    .get(part.offset..)?
                    .get(..shapes.bytes(part.value))?
                    .to_vec(),
            )
        };
        return parts.iter().map(one).collect();
    }
    let step = steps::make(&arguments, &shapes, &[]).ok()?;
    let mut slots = vec![Slot::NONE; view.value_count() as usize];
    for (input, memory) in view.inputs().iter().zip(&memories) {
        slots[input.0 as usize] = Slot::read(memory.bytes());
    }
    let mut results: Vec<Memory> = Vec::new();
    for output in node.outputs().iter() {
        let mut memory = Memory::new(shapes.bytes(output)).ok()?;
        slots[output.0 as usize] = memory.slot(0, shapes.bytes(output));
        results.push(memory);
    }
    let mut scratch = Memory::new(step.scratch(1)).ok()?;
    let scratch = scratch.slot(0, step.scratch(1));
    let reads: Vec<u32> = node.inputs().map(|v| v.0).collect();
    let writes: Vec<u32> = node.outputs().iter().map(|v| v.0).collect();
    // SAFETY: every tensor has memory of its own, which lives to the end of this function.
    let io = unsafe { Io::new(&reads, &writes, &slots, scratch) };
    step.run(io, &Serial, &mut delegraph_kernels::Scratch::default()).ok()?;
    Some(results.iter().map(|memory| memory.bytes().to_vec()).collect())
}

impl Graph {
    /// A value of another graph with constant sizes, as one of this graph's.
    fn adopt(&mut self, other: &Graph, value: ValueId) -> Option<ValueId> {
        let sizes = other.sizes(value)?;
        let dims = sizes.iter().map(|size| self.int(*size)).collect();
        let (name, dtype) = (other.values[value].name.clone(), other.values[value].dtype);
        Some(self.value(&name, dtype, dims))
    }

    /// An argument of another graph, whose values are known by both names; `None`: it depends on sizes that are not known.
    fn adopt_arg(&mut self, other: &Graph, from: &Arg, ids: &[(ValueId, ValueId)]) -> Option<Arg> {
        let find = |value: ValueId| ids.iter().find(|(old, _)| *old == value).map(|(_, new)| *new);
        Some(match from {
            Arg::Value(value) => arg(find(value.0 as usize)?),
            Arg::Values(list) => {
                let each = |v: &delegraph_sdk::image::ValueIndex| {
                    find(v.0 as usize).map(|v| delegraph_sdk::image::ValueIndex(v as u32))
                };
                Arg::Values(list.iter().map(each).collect::<Option<_>>()?)
            }
            Arg::OptionalValues(list) => {
                let mut made = Vec::new();
                for item in list {
                    made.push(match item {
                        Some(v) => Some(delegraph_sdk::image::ValueIndex(find(v.0 as usize)? as u32)),
                        None => None,
                    });
                }
                Arg::OptionalValues(made)
            }
            Arg::Ints(items) => {
                let known: Vec<i64> = items.iter().map(|e| other.known(*e)).collect::<Option<_>>()?;
                self.ints(&known)
            }
            Arg::Expr(expr) => Arg::Int(other.known(*expr)?),
            plain => plain.clone(),
        })
    }
}
