//! Weights that the file is written without: those that only regions read whose delegates have what they need of them.

use delegraph_ir::{Arg, Bytes, Constant, ConstantId, Def, Graph, Module, Output, RegionId, ValueId};
use delegraph_lower::CompiledRegion;
use rustc_hash::{FxHashMap, FxHashSet, FxHasher};
use std::hash::{Hash, Hasher};

/// The constants that are not written, and the name that each has in the plans: a data file with these names makes the plans whole.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    names: FxHashMap<ConstantId, String>,
}

impl LeftOut {
    /// What only regions that leave their weights out read, and no blob asks the host for.
    pub(crate) fn of(module: &Module, regions: &[Vec<CompiledRegion>]) -> LeftOut {
        let compiled = || regions.iter().flatten();
        if !compiled().any(|region| region.leaves_weights) {
            return LeftOut::default();
        }
        let candidates = compiled().flat_map(|region| &region.candidates);
        let mut needed: FxHashSet<ConstantId> = candidates
            .flat_map(|candidate| &candidate.weights)
            .map(|w| w.1)
            .collect();
        let mut read: FxHashSet<ConstantId> = FxHashSet::default();
        for (at, graph) in module.graphs.iter().enumerate() {
            let compiled = regions.get(at).map_or(&[][..], Vec::as_slice);
            let leaving = compiled.iter().filter(|region| region.leaves_weights);
            let leaving: FxHashSet<RegionId> = leaving.map(|region| region.id).collect();
            sort(graph, &leaving, &mut read, &mut needed);
        }
        let mut names = FxHashMap::default();
        let mut taken: FxHashSet<&str> = FxHashSet::default();
        for (id, constant) in module.constants.iter() {
            if read.contains(&id) && !needed.contains(&id) {
                let own = !constant.name.is_empty() && taken.insert(&constant.name);
                let made = || format!("delegraph.constant.{}", id.0);
                names.insert(id, if own { constant.name.clone() } else { made() });
            }
        }
        LeftOut { names }
    }

    /// The name of a constant that is not written.
    pub(crate) fn name(&self, id: ConstantId) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// Nothing is left out.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// All names, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.values().cloned().collect();
        names.sort_unstable();
        names
    }

    /// Bytes of what is not written. Each distinct content counts once, as it would be in the file once.
    pub(crate) fn bytes(&self, module: &Module) -> u64 {
        let constants = self.names.keys().filter_map(|id| module.constants.find(*id));
        let mut by_hash: FxHashMap<u64, Vec<Bytes>> = FxHashMap::default();
        let mut total = 0;
        for bytes in constants.filter_map(Constant::to_contiguous) {
            let mut hasher = FxHasher::default();
            bytes.as_slice().hash(&mut hasher);
            let same = by_hash.entry(hasher.finish()).or_default();
            if !same
                .iter()
                .any(|other| other.address() == bytes.address() || other.as_slice() == bytes.as_slice())
            {
                total += bytes.as_slice().len() as u64;
                same.push(bytes);
            }
        }
        total
    }
}

/// Sorts the constants that a graph reads: into `read` those of regions that leave them, into `needed` all others.
fn sort(
    graph: &Graph,
    leaving: &FxHashSet<RegionId>,
    read: &mut FxHashSet<ConstantId>,
    needed: &mut FxHashSet<ConstantId>,
) {
    let constant = |value: ValueId| match graph.value(value).def {
        Def::Constant(id) => Some(id),
        _ => None,
    };
    for node in &graph.nodes {
        let own = node.inputs().filter_map(constant);
        match node.region.is_some_and(|region| leaving.contains(&region)) {
            true => read.extend(own),
            false => needed.extend(own),
        }
        for argument in &node.args {
            if let Arg::Graph(inner) = argument {
                sort(inner, &FxHashSet::default(), read, needed);
            }
        }
    }
    let results = graph.outputs.iter().filter_map(|output| match output {
        Output::Value(value) => Some(*value),
        Output::Literal(_) => None,
    });
    let written = graph.mutations.iter().map(|mutation| mutation.value);
    needed.extend(results.chain(written).filter_map(constant));
}
