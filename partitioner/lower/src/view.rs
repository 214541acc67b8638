//! A delegate's view: the graph after the passes that its manifest asks for, and what follows for the graph.
//!
//! The delegate is asked about the view. Regions are made of the graph's own nodes, because they are what runs without the
//! delegate: a folded node stands for several, which are taken all together or not at all.

use crate::backend::{Backend, ask};
use crate::image::{Form, Image, LayoutError, offer, write};
use crate::states::states_of;
use crate::wants::Wants;
use delegraph_host::DelegateError;
use delegraph_ir::{Graph, Module, Node, NodeId};
use delegraph_opset::Versions;
use delegraph_passes::Folded;
use delegraph_passes::batch_norm::NormFolder;
use delegraph_passes::quantize::Folder;
use delegraph_passes::raise::raise;
use delegraph_tag::{Answer, Boundary, Reads, Verdict};
use rustc_hash::FxHashMap;

/// Folded nodes that a backend did not take, and that it is asked about in parts since.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    /// For each operator, by its node's name, why.
    reasons: FxHashMap<String, String>,
    /// For each node that would have been folded, the name of the operator's.
    into: FxHashMap<String, String>,
}

impl Refused {
    /// Adds to a refusal of a node what was said about the folded node that it was in before.
    fn explain(&self, node: &str, verdict: &mut Verdict) {
        let into = self.into.get(node);
        if let Some((main, reason)) = into.and_then(|main| Some((main, self.reasons.get(main)?)))
            && !verdict.supported
            && verdict.reason != *reason
        {
            verdict.reason = format!("{}; folded into `{main}`: {reason}", verdict.reason);
        }
    }
}

/// What a backend sees of a graph.
#[derive(Debug, Clone)]
pub(crate) struct View {
    folded: Folded,
    reads: Reads,
}

/// Makes views, and remembers the constants that it made for them.
#[derive(Debug, Default)]
pub(crate) struct Viewer {
    quantize: Folder,
    norms: NormFolder,
}

impl Viewer {
    /// The graph after the passes that somebody wants; an operator that `keep` names stays as it is.
    ///
    /// First come operators that the exporter took apart, since later passes know them; last comes what changes types, which
    /// the others need not understand.
    fn view(&mut self, module: &mut Module, index: usize, wants: &Wants, keep: &dyn Fn(&Node) -> bool) -> Folded {
        let Module { graphs, constants, .. } = module;
        let graph = &graphs[index];
        let mut view: Option<Folded> = raise(graph, &|op| wants.keeps(op), keep);
        if wants.fold_batch_norm {
            let next = self.norms.fold(constants, seen(&view, graph), keep);
            view = then(view, next);
        }
        if wants.fold_qdq {
            let next = self.quantize.fold(constants, seen(&view, graph), keep);
            view = then(view, Some(next));
        }
        view.unwrap_or_else(|| Folded::same(graph))
    }
}

fn seen<'a>(view: &'a Option<Folded>, graph: &'a Graph) -> &'a Graph {
    view.as_ref().map_or(graph, |view| &view.graph)
}

fn then(view: Option<Folded>, next: Option<Folded>) -> Option<Folded> {
    match (view, next) {
        (Some(view), Some(next)) => Some(view.then(next)),
        (view, next) => view.or(next),
    }
}

/// What a backend said about a view, in terms of the graph's nodes.
pub(crate) type Asked = Result<(Answer, View), DelegateError>;

/// Asks about the view of a graph. A folded node that the backend does not take is taken apart, and it is asked again.
pub(crate) fn ask_view(
    (backend, target): (&dyn Backend, &str),
    module: &mut Module,
    index: usize,
    (wants, versions): (&Wants, &Versions),
    viewer: &mut Viewer,
    refused: &mut Refused,
    rounds: u32,
) -> Result<Asked, LayoutError> {
    let mut round = 0;
    loop {
        let folded = viewer.view(module, index, wants, &|node| refused.reasons.contains_key(&node.name));
        let offer = offer(module, &folded.graph, wants.form(versions))?;
        let answer = match ask(backend, target, &offer) {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error)),
        };
        let graph = &module.graphs[index];
        let mut again = false;
        for (origin, verdict) in folded.origins.iter().zip(&answer.verdicts) {
            if origin.covers.len() < 2 || verdict.supported || round >= rounds {
                continue;
            }
            again = true;
            let main = &graph.node(origin.main).name;
            refused.reasons.insert(main.clone(), verdict.reason.clone());
            let names = origin.covers.iter().map(|id| graph.node(*id).name.clone());
            refused.into.extend(names.map(|name| (name, main.clone())));
        }
        if !again {
            let answer = in_graph(graph, &folded, answer, refused);
            let reads = Reads::of(&folded.graph);
            return Ok(Ok((answer, View { folded, reads })));
        }
        round += 1;
    }
}

/// An answer about a view as one about the graph.
fn in_graph(graph: &Graph, folded: &Folded, answer: Answer, refused: &Refused) -> Answer {
    let verdict = |(node, view): (&Node, &NodeId)| {
        let mut verdict = answer.verdicts[view.index()].clone();
        refused.explain(&node.name, &mut verdict);
        verdict
    };
    let verdicts = graph.nodes.iter().zip(&folded.view_of).map(verdict).collect();
    let covered = |set: &Vec<NodeId>| -> Vec<NodeId> {
        let nodes = set.iter().flat_map(|id| &folded.origins[id.index()].covers);
        nodes.copied().collect()
    };
    let mut atomic_sets: Vec<Vec<NodeId>> = answer.atomic_sets.iter().map(covered).collect();
    let taken = folded.origins.iter().zip(&answer.verdicts);
    atomic_sets.extend(
        taken
            .filter(|(origin, verdict)| origin.covers.len() > 1 && verdict.supported)
            .map(|(origin, _)| origin.covers.clone()),
    );
    Answer { verdicts, atomic_sets }
}

impl View {
    /// Whether a node must stay what it is while the view is in use: types rely on it.
    pub fn holds(&self, node: NodeId) -> bool {
        self.folded.holds[node.index()]
    }

    /// The node that a node is folded into, if it is not itself what is seen of it.
    pub fn folded_into(&self, node: NodeId) -> Option<NodeId> {
        let origin = &self.folded.origins[self.folded.view_of[node.index()].index()];
        (origin.main != node).then_some(origin.main)
    }

    /// Writes a region, given by the graph's nodes in execution order, as the backend sees it. Inputs and outputs are in the
    /// order of the graph's own border, so that blobs of several backends take the same. `None`: a folded node is only partly
    /// in the region, which another backend made.
    pub fn image(
        &self,
        module: &Module,
        graph: &Graph,
        nodes: &[NodeId],
        reads: &Reads,
        form: Form<'_>,
    ) -> Result<Option<Image>, LayoutError> {
        let Folded {
            graph: view,
            origins,
            view_of,
            ..
        } = &self.folded;
        let mut missing: FxHashMap<NodeId, usize> = FxHashMap::default();
        let mut seen: Vec<NodeId> = Vec::new();
        for node in nodes {
            let id = view_of[node.index()];
            let count = missing.entry(id).or_insert(origins[id.index()].covers.len());
            *count = count.saturating_sub(1);
            // It stands where the last of its nodes does: by then everything is there that any of them reads.
            if *count == 0 {
                seen.push(id);
            }
        }
        if missing.values().any(|count| *count > 0) {
            return Ok(None);
        }
        let border = Boundary::of(graph, nodes, reads);
        let folded = Boundary::of(view, &seen, &self.reads);
        let sorted = |values: &[delegraph_ir::ValueId]| {
            let mut values = values.to_vec();
            values.sort_unstable();
            values
        };
        let same =
            sorted(&border.inputs) == sorted(&folded.inputs) && sorted(&border.outputs) == sorted(&folded.outputs);
        if !same {
            let node = nodes.first().map(|id| graph.node(*id).name.clone());
            return Err(LayoutError::Torn {
                node: node.unwrap_or_default(),
            });
        }
        // Who reads a state is told by the graph, which is what runs without the delegate.
        let states = states_of(module, graph, nodes, &border, reads);
        let boundary = Boundary {
            constants: folded.constants,
            ..border
        };
        let mut image = write(module, view, &seen, boundary, &states, form)?;
        image.nodes.iter_mut().for_each(|id| *id = origins[id.index()].main);
        Ok(Some(image))
    }
}
