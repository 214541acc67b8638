//! A region becomes a blob.

use crate::caps;
use crate::encoder::Encoder;
use crate::facts::Facts;
use crate::fuse;
use crate::program::{ALIGN, Place, Plan, State};
use crate::schedule::{Packed, Schedule};
use delegraph_sdk::image::{ImageView, Kind, NodeIndex, Sizes, SymbolIndex};
use delegraph_sdk::{Compiled, Context, Error, Requirement, Section, Status, TensorPlace, Weights};

/// The section that holds the graph image.
pub const IMAGE: &str = "image";
/// The section that holds the plan.
pub const PLAN: &str = "plan";
/// The section that holds packed constants.
pub const PACKED: &str = "packed";

/// Compiles a graph, for any device. States of `keep_from` bytes and more stay on it between runs.
///
/// # Errors
/// A node that is not taken, or an input or output that is no tensor.
pub fn compile(
    graph: &ImageView<'_>,
    weights: &Weights<'_>,
    keep_from: u64,
    context: &Context<'_>,
) -> Result<Compiled, Error> {
    for value in graph.inputs().iter().chain(graph.outputs().iter()) {
        if !matches!(graph.value(value).kind(), Kind::Tensor(_)) {
            let name = graph.value(value).name();
            return Err(Error::unsupported(format!("`{name}` is a number, not a tensor")));
        }
    }
    for index in 0..graph.node_count() {
        let node = graph.node(NodeIndex(index));
        caps::accept(&node).map_err(|refusal| Error::unsupported(refusal.text).at(node.index()))?;
    }
    let mut plan = Plan {
        groups: fuse::plan(graph),
        states: match context.takes_states() {
            true => Plan::states_of(graph, keep_from),
            false => Vec::new(),
        },
        constants: Vec::new(),
    };
    let schedule = lower_largest(graph, &plan)?;
    let mut packed = Vec::new();
    for (at, constant) in schedule.packed.iter().enumerate() {
        context.progress(at as u64, schedule.packed.len() as u64, "packing constants");
        if context.is_cancelled() {
            return Err(Error::new(Status::CANCELLED, "the caller gave up"));
        }
        let bytes = pack(constant, weights.bytes(constant.key.weight)?)?;
        packed.resize(packed.len().next_multiple_of(ALIGN as usize), 0);
        let place = Place {
            offset: packed.len() as u64,
            bytes: bytes.len() as u64,
        };
        plan.constants.push((constant.key.clone(), place));
        packed.extend(bytes);
    }
    let section = |name: &str, align, bytes| Section {
        name: name.to_string(),
        align,
        bytes,
    };
    let mut sections = vec![
        section(IMAGE, 8, graph.bytes().to_vec()),
        section(PLAN, 4, plan.write()),
    ];
    if !packed.is_empty() {
        sections.push(section(PACKED, ALIGN as u32, packed));
    }
    let kept = |index: u32, at: fn(&State) -> u32| plan.states.iter().any(|state| at(state) == index);
    let inputs = (0..graph.inputs().len() as u32).filter(|i| !kept(*i, |state| state.input));
    let outputs = (0..graph.outputs().len() as u32).filter(|i| !kept(*i, |state| state.output));
    Ok(Compiled {
        requirements: inputs
            .map(TensorPlace::Input)
            .chain(outputs.map(TensorPlace::Output))
            .filter(|_| context.takes_requirements())
            .map(in_place)
            .collect(),
        kept_states: plan.states.iter().map(|state| state.index).collect(),
        sections,
        ..Compiled::default()
    })
}

/// What a tensor needs to be used where the host has it.
fn in_place(tensor: TensorPlace) -> Requirement {
    Requirement {
        tensor,
        alignment: ALIGN as u32,
        size_multiple: 16,
    }
}

/// A packed constant's bytes.
///
/// # Errors
/// The weight has another size than the image says.
pub fn pack(constant: &Packed, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let count: u64 = constant.dims.iter().map(|d| u64::from(*d)).product();
    if constant
        .dtype
        .size()
        .is_none_or(|size| size as u64 * count != bytes.len() as u64)
    {
        return Err(Error::corrupt(format!(
            "weight {} has {} bytes, not those of {:?}",
            constant.key.weight,
            bytes.len(),
            constant.dims
        )));
    }
    (constant.packing.pack)(constant.dtype, &constant.dims, bytes, &constant.key.arguments)
}

/// Lowers a graph at its largest sizes (at the smallest where there is no largest), for a device without limits on sizes: what cannot be
/// lowered is refused now, and the constants that are wanted become known.
fn lower_largest(graph: &ImageView<'_>, plan: &Plan) -> Result<Schedule, Error> {
    let mut sizes = Sizes::new(graph);
    for index in 0..graph.symbol_count() {
        let symbol = graph.symbol(SymbolIndex(index));
        sizes.set(graph, SymbolIndex(index), symbol.max.unwrap_or(symbol.min));
    }
    let mut facts = Facts::weakest();
    facts.limits.storage_range = u64::MAX;
    facts.limits.groups = [u32::MAX; 3];
    Encoder::encode(*graph, plan, &sizes, &facts)
}
