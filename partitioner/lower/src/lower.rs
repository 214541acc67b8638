//! The loop: ask, decompose what nobody claims, ask again, tag, compile, tag again without what was refused.

use crate::backend::{Backend, ask};
use crate::culprit::{Attempt, Pieces};
use crate::image::{Image, ImageWeights, LayoutError, Offer, of_nodes, offer};
use crate::region::nodes_of;
use crate::report::{
    BackendState, CompileProblem, Coverage, Lowered, LoweredGraph, NodeReport, node_reports, refusals,
};
use crate::view::{Refused, View, Viewer, ask_view};
use crate::wants::Wants;
use crate::{CompiledCandidate, CompiledRegion};
use delegraph_abi::Status;
use delegraph_host::{DelegateError, Host};
use delegraph_ir::{ConstantId, Graph, Module, Node, NodeId, Op, ValueId};
use delegraph_opset::{Version, Versions};
use delegraph_passes::PassError;
use delegraph_passes::decompose::{decompose_once, has_rule};
use delegraph_passes::quantize::{Copies, rejoin, separate};
use delegraph_tag::{Answer, Exclusion, Policy, Reads, TaggedRegion, Tagging, Verdict, apply, live, plan, work};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;

/// What to lower to.
#[derive(Debug, Clone, Default)]
pub struct LowerOptions {
    /// Backend ids in order of preference. `portable` is always last and need not be named.
    pub backends: Vec<String>,
    /// What to compile for, by backend; absent: what the delegate thinks best.
    pub targets: BTreeMap<String, String>,
    /// Limits and rules.
    pub policy: Policy,
    /// Makes a delegate that cannot be loaded or asked an error instead of a line in the report.
    pub strict: bool,
    /// Versions of the operator table: a delegate is not shown an operator that is newer than itself.
    pub versions: Versions,
}

/// What lowering is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Progress<'a> {
    /// A delegate is asked about a graph.
    Asking {
        backend: &'a str,
        graph: &'a str,
        nodes: usize,
    },
    /// Composite nodes that nobody claims are replaced by their parts.
    Decomposing { nodes: usize },
    /// A delegate compiles a region.
    Compiling {
        backend: &'a str,
        graph: &'a str,
        nodes: usize,
    },
    /// It made a blob.
    Compiled {
        backend: &'a str,
        graph: &'a str,
        bytes: usize,
    },
    /// It did not.
    Refused {
        backend: &'a str,
        graph: &'a str,
        message: &'a str,
    },
}

/// Lowering failed as a whole. What one delegate refuses is no such failure.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LowerError {
    /// Only with [`LowerOptions::strict`].
    #[error("the delegate `{backend}` cannot be used: {reason}")]
    Delegate {
        /// Backend id.
        backend: String,
        /// Why.
        reason: String,
    },
    /// A composite node has no decomposition and no taker.
    #[error(transparent)]
    Decompose(#[from] PassError),
    /// A part of the graph cannot be written as an image.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A constant lies outside its file.
    #[error("the constant `{name}` does not lie inside its storage")]
    Constant {
        /// Its name.
        name: String,
    },
}

/// A backend, or why there is none.
pub type Slot = (String, Result<Box<dyn Backend>, String>);

/// Gives regions of every method to delegates. The module's graphs come back with composite nodes that nobody took replaced
/// by parts as far as that was of use, with `node.region` set, and each region's nodes contiguous.
///
/// From here on, the values at the borders of regions ([`CompiledRegion::inputs`] and `outputs`) must stay in the graph.
///
/// # Errors
/// See [`LowerError`]. A delegate that is absent or fails is not an error but a line in the report, unless `strict`.
pub fn lower(
    module: &mut Module,
    options: &LowerOptions,
    host: &Host,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Lowered, LowerError> {
    let mut slots: Vec<Slot> = Vec::new();
    for name in options.backends.iter().filter(|n| *n != "portable") {
        if slots.iter().any(|(n, _)| n == name) {
            continue;
        }
        let backend = host.delegate(name).map(|d| Box::new(d) as Box<dyn Backend>);
        slots.push((name.clone(), backend.map_err(|error| error.to_string())));
    }
    lower_with(module, options, slots, progress)
}

/// [`lower`] with backends that are already at hand.
///
/// # Errors
/// As [`lower`].
pub fn lower_with(
    module: &mut Module,
    options: &LowerOptions,
    slots: Vec<Slot>,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Lowered, LowerError> {
    let mut lowering = Lowering {
        options,
        slots,
        progress,
        problems: Vec::new(),
        blobs: FxHashMap::default(),
        viewer: Viewer::default(),
        folded: Vec::new(),
        wants: Vec::new(),
    };
    let slots = lowering.slots.len();
    lowering.folded = module.graphs.iter().map(|_| FoldedGraph::new(slots)).collect();
    lowering.problems = lowering
        .slots
        .iter()
        .map(|(_, slot)| slot.as_ref().err().cloned())
        .collect();
    for i in 0..lowering.slots.len() {
        let wants = lowering.slots[i]
            .1
            .as_ref()
            .map(|b| Wants::of(b.as_ref(), &options.versions));
        let wants = wants
            .unwrap_or_else(|_| Ok(Wants::default()))
            .unwrap_or_else(|problem| {
                lowering.problems[i] = Some(problem);
                Wants::default()
            });
        lowering.wants.push(wants);
        lowering.check_strict(i)?;
    }
    let mut decomposed = vec![Vec::new(); module.graphs.len()];
    let answers = lowering.ask_until_settled(module, &mut decomposed)?;
    let mut graphs = Vec::with_capacity(module.graphs.len());
    for ((i, answers), decomposed) in answers.into_iter().enumerate().zip(decomposed) {
        let mut lowered = lowering.compile_graph(module, i, &answers)?;
        lowered.decomposed = decomposed;
        graphs.push(lowered);
    }
    let state = |((backend, _), problem)| BackendState { backend, problem };
    Ok(Lowered {
        graphs,
        backends: lowering.slots.into_iter().zip(lowering.problems).map(state).collect(),
    })
}

/// Answers of all backends, in order.
type Answers = Vec<(String, Answer)>;

struct Lowering<'a> {
    options: &'a LowerOptions,
    slots: Vec<Slot>,
    progress: &'a mut dyn FnMut(Progress<'_>),
    /// Why each backend takes no part.
    problems: Vec<Option<String>>,
    /// Blobs by backend, image and weights: regions that stay as they were when others are tagged again.
    blobs: FxHashMap<(usize, Vec<u8>, Vec<ConstantId>), Vec<u8>>,
    viewer: Viewer,
    /// By graph.
    folded: Vec<FoldedGraph>,
    /// By backend.
    wants: Vec<Wants>,
}

/// What backends that ask for passes see of a graph.
#[derive(Default)]
struct FoldedGraph {
    /// Dequantizations that were copied so that each operator has its own.
    copies: Copies,
    /// By backend; `None`: it sees the graph as it is.
    views: Vec<Option<View>>,
    refused: Vec<Refused>,
}

impl FoldedGraph {
    fn new(slots: usize) -> FoldedGraph {
        FoldedGraph {
            copies: Copies::default(),
            views: vec![None; slots],
            refused: (0..slots).map(|_| Refused::default()).collect(),
        }
    }

    /// Whether a view relies on what a node is.
    fn holds(&self, node: NodeId) -> bool {
        self.views.iter().flatten().any(|view| view.holds(node))
    }
}

impl Lowering<'_> {
    fn check_strict(&self, slot: usize) -> Result<(), LowerError> {
        match &self.problems[slot] {
            Some(reason) if self.options.strict => Err(LowerError::Delegate {
                backend: self.slots[slot].0.clone(),
                reason: reason.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Asks about every graph; decomposes, one step, what nobody takes whole; asks again about graphs that changed.
    fn ask_until_settled(
        &mut self,
        module: &mut Module,
        decomposed: &mut [Vec<NodeReport>],
    ) -> Result<Vec<Answers>, LowerError> {
        let mut answers: Vec<Answers> = Vec::new();
        for i in 0..module.graphs.len() {
            answers.push(self.ask_all(module, i)?);
        }
        let mut tried: Vec<FxHashMap<String, Op>> = vec![FxHashMap::default(); module.graphs.len()];
        for _ in 0..self.options.policy.max_rounds {
            // Decomposing is done for those who are asked again.
            if self.problems.iter().all(Option::is_some) {
                break;
            }
            let mut todo: FxHashMap<String, FxHashMap<String, Op>> = FxHashMap::default();
            let mut reports: Vec<Vec<NodeReport>> = Vec::with_capacity(module.graphs.len());
            for (i, graph) in module.graphs.iter().enumerate() {
                let unclaimed = unclaimed(graph, &answers[i], &tried[i], &self.folded[i]);
                let names = unclaimed
                    .iter()
                    .map(|id| (graph.node(*id).name.clone(), graph.node(*id).op));
                todo.insert(graph.name.clone(), names.clone().collect());
                tried[i].extend(names);
                reports.push(
                    unclaimed
                        .iter()
                        .map(|id| whole_report(module, graph, *id, &answers[i]))
                        .collect(),
                );
            }
            let count: usize = reports.iter().map(Vec::len).sum();
            if count == 0 {
                break;
            }
            (self.progress)(Progress::Decomposing { nodes: count });
            let listed = |graph: &Graph, node: &Node| {
                todo.get(&graph.name).and_then(|names| names.get(&node.name)) == Some(&node.op)
            };
            decompose_once(module, &|graph, node| !listed(graph, node))?;
            for (i, reports) in reports.into_iter().enumerate() {
                // A rule may have found that it has nothing better.
                let graph = &module.graphs[i];
                let kept: FxHashMap<&str, Op> = graph.nodes.iter().map(|n| (n.name.as_str(), n.op)).collect();
                let gone = |r: &NodeReport| kept.get(r.name.as_str()).is_none_or(|op| op.name() != r.op);
                let before = decomposed[i].len();
                decomposed[i].extend(reports.into_iter().filter(gone));
                if decomposed[i].len() > before {
                    answers[i] = self.ask_all(module, i)?;
                }
            }
        }
        Ok(answers)
    }

    /// Every backend's answer about one graph; one that cannot answer refuses every node and is not asked again.
    fn ask_all(&mut self, module: &mut Module, index: usize) -> Result<Answers, LowerError> {
        let folds = |(wants, problem): (&Wants, &Option<String>)| problem.is_none() && wants.fold_qdq;
        if self.wants.iter().zip(&self.problems).any(folds) {
            let Module { graphs, constants, .. } = &mut *module;
            separate(&mut graphs[index], constants, &mut self.folded[index].copies);
        }
        // Most backends are shown the same image.
        let mut plain: Option<((Version, bool), Offer)> = None;
        let mut answers = Vec::with_capacity(self.slots.len());
        for i in 0..self.slots.len() {
            let (name, slot) = &self.slots[i];
            let mut answer = None;
            if let (Ok(backend), None) = (slot, &self.problems[i]) {
                let nodes = module.graphs[index].nodes.len();
                (self.progress)(Progress::Asking {
                    backend: name,
                    graph: &module.graphs[index].name,
                    nodes,
                });
                let (wants, versions) = (&self.wants[i], &self.options.versions);
                let given = if wants.a_view() {
                    let FoldedGraph { views, refused, .. } = &mut self.folded[index];
                    views[i] = None;
                    let rounds = self.options.policy.max_rounds;
                    let asked = ask_view(
                        backend.as_ref(),
                        module,
                        index,
                        (wants, versions),
                        &mut self.viewer,
                        &mut refused[i],
                        rounds,
                    )?;
                    asked.map(|(answer, view)| {
                        views[i] = Some(view);
                        answer
                    })
                } else {
                    let form = wants.form(versions);
                    let key = (form.version, form.channels_last);
                    let offer = match plain.take().filter(|(of, _)| *of == key) {
                        Some((_, offer)) => offer,
                        None => offer(module, &module.graphs[index], form)?,
                    };
                    ask(backend.as_ref(), &plain.insert((key, offer)).1)
                };
                match given {
                    Ok(given) => answer = Some(given),
                    Err(error) => self.problems[i] = Some(error.to_string()),
                }
                self.check_strict(i)?;
            }
            let refuse_all = || Answer {
                verdicts: vec![
                    Verdict::no(self.problems[i].clone().unwrap_or_default());
                    module.graphs[index].nodes.len()
                ],
                atomic_sets: Vec::new(),
            };
            answers.push((self.slots[i].0.clone(), answer.unwrap_or_else(refuse_all)));
        }
        Ok(answers)
    }

    /// A region as a backend sees it. `None`: only where another backend made the region.
    fn image(
        &self,
        module: &Module,
        index: usize,
        backend: &str,
        nodes: &[NodeId],
        reads: &Reads,
    ) -> Result<Option<Image>, LowerError> {
        let Some(slot) = self.slots.iter().position(|(name, _)| name == backend) else {
            unreachable!("regions belong to backends that were asked")
        };
        let (graph, form) = (&module.graphs[index], self.wants[slot].form(&self.options.versions));
        Ok(match self.folded[index].views[slot].as_ref() {
            Some(view) => view.image(module, graph, nodes, reads, form)?,
            None => Some(of_nodes(module, graph, nodes, reads, form)?),
        })
    }

    /// For each node of a region that its owner sees as part of another, the name of that one.
    fn folded_into(&self, graph: &Graph, index: usize, tagging: &Tagging) -> FxHashMap<String, String> {
        let mut into = FxHashMap::default();
        for region in &tagging.regions {
            let slot = self.slots.iter().position(|(name, _)| *name == region.backend);
            let Some(view) = slot.and_then(|i| self.folded[index].views[i].as_ref()) else {
                continue;
            };
            for id in &region.nodes {
                if let Some(main) = view.folded_into(*id) {
                    into.insert(graph.node(*id).name.clone(), graph.node(main).name.clone());
                }
            }
        }
        into
    }

    /// Tags a graph and compiles its regions until none is refused; then applies the tags.
    fn compile_graph(
        &mut self,
        module: &mut Module,
        index: usize,
        answers: &Answers,
    ) -> Result<LoweredGraph, LowerError> {
        let policy = &self.options.policy;
        let mut problems = Vec::new();
        let mut excluded: Vec<Exclusion> = Vec::new();
        let mut attempt = 0;
        let (tagging, compiled) = loop {
            let tagging = plan(module, &module.graphs[index], answers, policy, &excluded);
            let before = excluded.len();
            let compiled =
                self.compile_regions(module, index, &tagging, answers, attempt, &mut excluded, &mut problems)?;
            if excluded.len() == before {
                break (tagging, compiled);
            }
            attempt += 1;
        };
        let reads = Reads::of(&module.graphs[index]);
        let folded_into = self.folded_into(&module.graphs[index], index, &tagging);
        let mut regions = Vec::with_capacity(compiled.len());
        for (region, (image, blob)) in tagging.regions.iter().zip(compiled) {
            let mut compiled = compiled_region(region, &image);
            compiled.candidates.push(self.candidate(&region.backend, &image, blob));
            self.add_alternatives(
                module,
                index,
                region,
                &reads,
                answers,
                &excluded,
                &mut compiled,
                &mut problems,
            )?;
            regions.push(compiled);
        }
        let tagging = apply(&mut module.graphs[index], tagging);
        let mut nodes = node_reports(module, &module.graphs[index], &tagging);
        for node in &mut nodes {
            node.folded_into = folded_into.get(&node.name).cloned();
        }
        let copies = &self.folded[index].copies;
        if !copies.is_empty() {
            let border: FxHashSet<ValueId> = regions
                .iter()
                .flat_map(|r| r.inputs.iter().chain(&r.outputs))
                .copied()
                .collect();
            let remaining = rejoin(&mut module.graphs[index], copies, &border);
            let mut old: Vec<Option<NodeReport>> = nodes.into_iter().map(Some).collect();
            nodes = remaining.iter().filter_map(|i| old[*i].take()).collect();
            for (report, node) in nodes.iter_mut().zip(&module.graphs[index].nodes) {
                report.name.clone_from(&node.name);
            }
        }
        let graph = &module.graphs[index];
        Ok(LoweredGraph {
            name: graph.name.clone(),
            regions,
            nodes,
            decomposed: Vec::new(),
            problems,
            coverage: Coverage::of(graph, &module.symbols),
        })
    }

    /// Compiles every region with its owner. What is refused is excluded: at first the node that the delegate names, or that
    /// compiling parts of the region finds; then its region, and in the end, so that there is one, the whole graph for that
    /// delegate.
    fn compile_regions(
        &mut self,
        module: &Module,
        index: usize,
        tagging: &Tagging,
        answers: &Answers,
        attempt: u32,
        excluded: &mut Vec<Exclusion>,
        problems: &mut Vec<CompileProblem>,
    ) -> Result<Vec<(Image, Vec<u8>)>, LowerError> {
        let graph = &module.graphs[index];
        let patience = self.options.policy.max_rounds;
        let reads = Reads::of(graph);
        let mut compiled = Vec::with_capacity(tagging.regions.len());
        for region in &tagging.regions {
            let image = self.image(module, index, &region.backend, &region.nodes, &reads)?;
            let image = image.ok_or_else(|| LayoutError::Torn {
                node: graph.node(region.nodes[0]).name.clone(),
            })?;
            let error = match self.compile(module, graph, &region.backend, &image)? {
                Ok(blob) => {
                    compiled.push((image, blob));
                    continue;
                }
                Err(error) => error,
            };
            let message = with_hint(&error);
            let named = error.node.and_then(|n| image.nodes.get(n as usize)).copied();
            let culprit = match named {
                Some(node) => Some(vec![node]),
                // Nobody wants a result any more, so there is nothing to be found.
                None if attempt < patience && error.code != Status::CANCELLED => {
                    self.find_culprit(module, index, region, answers, &reads)?
                }
                None => None,
            };
            let blamed = culprit.as_ref().and_then(|nodes| nodes.last().copied());
            problems.push(problem(graph, region, blamed, &error));
            let (nodes, reason) = match culprit {
                Some(nodes) if attempt < patience => {
                    let found = named.is_none() && nodes.len() < region.nodes.len();
                    let how = if found {
                        " (found by compiling parts of its region)"
                    } else {
                        ""
                    };
                    (nodes, format!("it did not compile: {message}{how}"))
                }
                _ if attempt < patience.saturating_mul(2) => {
                    (region.nodes.clone(), format!("its region did not compile: {message}"))
                }
                _ => (
                    graph.node_ids().collect(),
                    format!("too many regions did not compile: {message}"),
                ),
            };
            excluded.extend(nodes.into_iter().map(|node| Exclusion {
                node,
                backend: region.backend.clone(),
                reason: reason.clone(),
            }));
        }
        Ok(compiled)
    }

    /// The node, or the set of nodes that go together, which makes a region fail whose compiler names none. `None`: a region
    /// of one such piece, or one of which no part can be tried.
    fn find_culprit(
        &mut self,
        module: &Module,
        index: usize,
        region: &TaggedRegion,
        answers: &Answers,
        reads: &Reads,
    ) -> Result<Option<Vec<NodeId>>, LowerError> {
        let graph = &module.graphs[index];
        let answer = answers.iter().find(|(name, _)| *name == region.backend);
        let sets = answer.map_or(&[][..], |(_, answer)| answer.atomic_sets.as_slice());
        Pieces::new(&region.nodes, sets).culprit(&region.nodes, |part| {
            let image = match self.image(module, index, &region.backend, part, reads) {
                Ok(Some(image)) => image,
                Ok(None) | Err(LowerError::Layout(_)) => return Ok(Attempt::Unknown),
                Err(error) => return Err(error),
            };
            Ok(match self.compile(module, graph, &region.backend, &image)? {
                Ok(_) => Attempt::Compiles,
                Err(error) => match error.node.and_then(|n| image.nodes.get(n as usize)) {
                    Some(node) => Attempt::Names(*node),
                    None if error.code == Status::CANCELLED => Attempt::Unknown,
                    None => Attempt::Fails,
                },
            })
        })
    }

    /// Compiles one image, or finds the blob that was made of an equal one.
    fn compile(
        &mut self,
        module: &Module,
        graph: &Graph,
        backend: &str,
        image: &Image,
    ) -> Result<Result<Vec<u8>, DelegateError>, LowerError> {
        let Some(slot) = self.slots.iter().position(|(name, _)| name == backend) else {
            unreachable!("regions belong to backends that were asked")
        };
        let key = (slot, image.bytes.clone(), image.weights.clone());
        if let Some(blob) = self.blobs.get(&key) {
            return Ok(Ok(blob.clone()));
        }
        let Ok(delegate) = &self.slots[slot].1 else {
            unreachable!("a backend that is absent takes no nodes")
        };
        let weights = ImageWeights::new(module, &image.weights).map_err(|name| LowerError::Constant { name })?;
        (self.progress)(Progress::Compiling {
            backend,
            graph: &graph.name,
            nodes: image.nodes.len(),
        });
        let target = self.options.targets.get(backend).map_or("", String::as_str);
        let result = delegate.compile(&image.bytes, &weights, target);
        match &result {
            Ok(blob) => {
                (self.progress)(Progress::Compiled {
                    backend,
                    graph: &graph.name,
                    bytes: blob.len(),
                });
                self.blobs.insert(key, blob.clone());
            }
            Err(error) => (self.progress)(Progress::Refused {
                backend,
                graph: &graph.name,
                message: &error.message,
            }),
        }
        Ok(result)
    }

    /// Adds blobs of the other backends that take the whole region.
    fn add_alternatives(
        &mut self,
        module: &Module,
        index: usize,
        region: &TaggedRegion,
        reads: &Reads,
        answers: &Answers,
        excluded: &[Exclusion],
        compiled: &mut CompiledRegion,
        problems: &mut Vec<CompileProblem>,
    ) -> Result<(), LowerError> {
        let graph = &module.graphs[index];
        for (backend, answer) in answers.iter().filter(|(name, _)| *name != region.backend) {
            let allowed = |id: &NodeId| {
                answer.verdicts.get(id.index()).is_some_and(|v| v.supported)
                    && self.options.policy.denial(graph, graph.node(*id), backend).is_none()
            };
            let failed = excluded
                .iter()
                .any(|e| e.backend == *backend && region.nodes.contains(&e.node));
            let slot = self.slots.iter().find(|(name, _)| name == backend);
            let Some((_, Ok(delegate))) = slot.filter(|_| !failed && region.nodes.iter().all(allowed)) else {
                continue;
            };
            let Some(image) = self.image(module, index, backend, &region.nodes, reads)? else {
                continue;
            };
            let asked = delegate.partition(&image.bytes);
            let result = match asked {
                Ok(partition) if partition.verdicts.iter().all(|v| v.supported) => {
                    self.compile(module, graph, backend, &image)?
                }
                Ok(_) => continue,
                Err(error) => Err(error),
            };
            match result {
                Ok(blob) => compiled.candidates.push(self.candidate(backend, &image, blob)),
                Err(error) => {
                    let named = error.node.and_then(|n| image.nodes.get(n as usize)).copied();
                    problems.push(problem(graph, region, named, &error));
                    if let Some(last) = problems.last_mut() {
                        last.backend.clone_from(backend);
                    }
                }
            }
        }
        Ok(())
    }

    fn candidate(&self, backend: &str, image: &Image, blob: Vec<u8>) -> CompiledCandidate {
        CompiledCandidate {
            backend: backend.to_string(),
            target: self.options.targets.get(backend).cloned().unwrap_or_default(),
            precision: delegraph_abi::envelope::parse(&blob)
                .map_or(String::new(), |envelope| envelope.meta.precision.clone()),
            blob,
            weights: (0..).zip(image.weights.iter().copied()).collect(),
            nodes: nodes_of(&image.bytes),
        }
    }
}

/// Nodes that no backend takes whole, for which there is a decomposition, and where that was not tried.
fn unclaimed(graph: &Graph, answers: &Answers, tried: &FxHashMap<String, Op>, folded: &FoldedGraph) -> Vec<NodeId> {
    let claimed = |id: NodeId| {
        answers
            .iter()
            .any(|(_, a)| a.verdicts.get(id.index()).is_some_and(|v| v.supported))
    };
    let is_new = |node: &Node| tried.get(&node.name) != Some(&node.op);
    let live = live(graph);
    let wanted = |id: &NodeId| {
        let node = graph.node(*id);
        live[id.index()] && has_rule(node.op) && !claimed(*id) && is_new(node) && !folded.holds(*id)
    };
    graph.node_ids().filter(wanted).collect()
}

/// The report of a node that is about to be decomposed.
fn whole_report(module: &Module, graph: &Graph, id: NodeId, answers: &Answers) -> NodeReport {
    let node = graph.node(id);
    let reason = |(backend, answer): &(String, Answer)| {
        let reason = answer.verdicts.get(id.index()).map(|v| v.reason.clone());
        (backend.clone(), reason.unwrap_or_default())
    };
    NodeReport {
        name: node.name.clone(),
        op: node.op.name(),
        source: node.source.clone(),
        owner: None,
        region: None,
        folded_into: None,
        macs: work(graph, node, &module.symbols).macs,
        refusals: refusals(&answers.iter().map(reason).collect::<Vec<_>>()),
    }
}

fn compiled_region(region: &TaggedRegion, image: &Image) -> CompiledRegion {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for operator in &image.operators {
        *counts.entry(operator).or_default() += 1;
    }
    let mut operators: Vec<(String, u32)> = counts.into_iter().map(|(op, n)| (op.to_string(), n)).collect();
    operators.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    CompiledRegion {
        id: region.id,
        inputs: image.inputs.clone(),
        outputs: image.outputs.clone(),
        operators,
        image: image.bytes.clone(),
        candidates: Vec::new(),
    }
}

fn problem(graph: &Graph, region: &TaggedRegion, named: Option<NodeId>, error: &DelegateError) -> CompileProblem {
    let name = |id: &NodeId| graph.node(*id).name.clone();
    CompileProblem {
        backend: region.backend.clone(),
        nodes: region.nodes.iter().map(name).collect(),
        node: named.as_ref().map(name),
        message: with_hint(error),
        failed: error.code != Status::UNSUPPORTED,
    }
}

fn with_hint(error: &DelegateError) -> String {
    match error.hint.as_str() {
        "" => error.message.clone(),
        hint => format!("{} (hint: {hint})", error.message),
    }
}
