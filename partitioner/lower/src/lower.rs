//! The loop: ask, decompose what nobody claims, ask again, tag, compile, tag again without what was refused.

use crate::backend::{Backend, ask};
use crate::bucket::{Bucket, narrowed, of_graph};
use crate::compile::{Key, with_hint};
use crate::image::{Image, LayoutError, Offer, of_nodes, offer};
use crate::report::{BackendState, Lowered, NodeReport, refusals};
use crate::view::{Refused, View, Viewer, ask_view};
use crate::wants::Wants;
use delegraph_abi::Status;
use delegraph_host::Host;
use delegraph_ir::{Graph, Module, Node, NodeId, Op, Symbols, ValueId};
use delegraph_opset::{Version, Versions};
use delegraph_passes::PassError;
use delegraph_passes::decompose::{decompose_once, has_rule};
use delegraph_passes::quantize::{Copies, separate};
use delegraph_tag::{Answer, Policy, Reads, Tagging, Verdict, live, work};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// What to lower to.
#[derive(Debug, Clone, Default)]
pub struct LowerOptions {
    /// Backend ids in order of preference. `portable` is always last and need not be named.
    pub backends: Vec<String>,
    /// What to compile for, by backend; absent: what the delegate thinks best.
    pub targets: BTreeMap<String, String>,
    /// Makes a target that a delegate does not have an error instead of a line in the report: whoever compiles for another machine
    /// named it.
    pub targets_exist: bool,
    /// Sizes to compile for, in place of the full range of the symbols that they name. A node is given to a delegate that takes it in
    /// all of them, and each region is compiled for each.
    pub buckets: Vec<Bucket>,
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
    /// A delegate compiles all its regions of all graphs together.
    CompilingTogether { backend: &'a str, graphs: usize },
    /// How far it is, in its own words; `total` is 0 where it does not know.
    Within {
        backend: &'a str,
        done: u64,
        total: u64,
        text: &'a str,
    },
    /// It made a blob, or all of them.
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
    /// Only with [`LowerOptions::targets_exist`].
    #[error("the delegate `{backend}` cannot compile for `{target}`: {reason}")]
    Target {
        /// Backend id.
        backend: String,
        /// What it was asked to compile for.
        target: String,
        /// Why, in its words.
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
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
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
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<Lowered, LowerError> {
    static TAGS: AtomicU64 = AtomicU64::new(0);
    let count = slots.len();
    let mut lowering = Lowering {
        options,
        slots,
        progress,
        problems: Vec::new(),
        blobs: FxHashMap::default(),
        sets: vec![Vec::new(); count],
        apart: vec![false; count],
        tag: TAGS.fetch_add(1, Ordering::Relaxed),
        viewer: Viewer::default(),
        asked: Vec::new(),
        wants: Vec::new(),
    };
    let asked = |graph| AskedGraph::new(count, of_graph(graph, &options.buckets));
    lowering.asked = module.graphs.iter().map(asked).collect();
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
    let mut graphs = lowering.compile_all(module, &answers)?;
    for (graph, decomposed) in graphs.iter_mut().zip(decomposed) {
        graph.decomposed = decomposed;
    }
    let state = |((backend, _), problem)| BackendState { backend, problem };
    Ok(Lowered {
        graphs,
        backends: lowering.slots.into_iter().zip(lowering.problems).map(state).collect(),
    })
}

/// Answers of all backends, in order.
pub(crate) type Answers = Vec<(String, Answer)>;

pub(crate) struct Lowering<'a> {
    pub(crate) options: &'a LowerOptions,
    pub(crate) slots: Vec<Slot>,
    pub(crate) progress: &'a mut (dyn FnMut(Progress<'_>) + Send),
    /// Why each backend takes no part.
    problems: Vec<Option<String>>,
    /// Blobs by backend, image and weights: regions that stay as they were when others are tagged again.
    pub(crate) blobs: FxHashMap<Key, Vec<u8>>,
    /// By backend: what it compiled together last.
    pub(crate) sets: Vec<Vec<Key>>,
    /// By backend: it failed to compile graphs together, and compiles them one by one.
    pub(crate) apart: Vec<bool>,
    /// Tells this lowering's weights from others' in the process.
    pub(crate) tag: u64,
    viewer: Viewer,
    /// By graph.
    pub(crate) asked: Vec<AskedGraph>,
    /// By backend.
    wants: Vec<Wants>,
}

/// What backends are asked about of a graph.
pub(crate) struct AskedGraph {
    /// Dequantizations that were copied so that each operator has its own.
    pub(crate) copies: Copies,
    /// One for each bucket; without buckets, the graph as it is.
    variants: Vec<Variant>,
    /// By backend.
    refused: Vec<Refused>,
}

/// A graph with the sizes of a bucket, or as it is.
struct Variant {
    bucket: Option<Bucket>,
    /// With a bucket: the graph and the symbols as they are there.
    narrowed: Option<(Graph, Symbols)>,
    /// By backend; `None`: it asked for no passes and sees the graph as it is.
    views: Vec<Option<View>>,
}

impl AskedGraph {
    fn new(slots: usize, buckets: Vec<Bucket>) -> AskedGraph {
        let plain = buckets.is_empty().then_some(None);
        let buckets = buckets.into_iter().map(Some).chain(plain);
        let variant = |bucket| Variant {
            bucket,
            narrowed: None,
            views: vec![None; slots],
        };
        AskedGraph {
            copies: Copies::default(),
            variants: buckets.map(variant).collect(),
            refused: (0..slots).map(|_| Refused::default()).collect(),
        }
    }

    /// Whether a view relies on what a node is.
    fn holds(&self, node: NodeId) -> bool {
        let mut views = self.variants.iter().flat_map(|variant| variant.views.iter().flatten());
        views.any(|view| view.holds(node))
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

    /// What a backend compiles for; empty: what it thinks best.
    pub(crate) fn target(&self, backend: &str) -> &str {
        self.options.targets.get(backend).map_or("", String::as_str)
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
                let unclaimed = unclaimed(graph, &answers[i], &tried[i], &self.asked[i]);
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

    /// Every backend's answer about one graph; one that cannot answer refuses every node and is not asked again. With buckets it is asked
    /// about each, and takes what it takes in all.
    fn ask_all(&mut self, module: &mut Module, index: usize) -> Result<Answers, LowerError> {
        let folds = |(wants, problem): (&Wants, &Option<String>)| problem.is_none() && wants.fold_qdq;
        if self.wants.iter().zip(&self.problems).any(folds) {
            let Module { graphs, constants, .. } = &mut *module;
            separate(&mut graphs[index], constants, &mut self.asked[index].copies);
        }
        let nodes = module.graphs[index].nodes.len();
        let mut given: Vec<Vec<(Option<Bucket>, Answer)>> = self.slots.iter().map(|_| Vec::new()).collect();
        for variant in 0..self.variants(index) {
            let asked = &mut self.asked[index].variants[variant];
            asked.narrowed = asked.bucket.as_ref().map(|bucket| narrowed(module, index, bucket));
            let bucket = asked.bucket.clone();
            let answers = self.in_variant(module, index, variant, |lowering, module| {
                lowering.ask_variant(module, index, variant)
            })?;
            for (given, answer) in given.iter_mut().zip(answers) {
                given.extend(answer.map(|answer| (bucket.clone(), answer)));
            }
        }
        let answer = |((name, _), (problem, given)): (&Slot, (&Option<String>, Vec<(Option<Bucket>, Answer)>))| {
            let answer = match problem {
                Some(problem) => Answer {
                    verdicts: vec![Verdict::no(problem.clone()); nodes],
                    atomic_sets: Vec::new(),
                },
                None => in_all(given),
            };
            (name.clone(), answer)
        };
        let slots = self.slots.iter().zip(self.problems.iter().zip(given));
        Ok(slots.map(answer).collect())
    }

    /// Every backend's answer about one variant of a graph, which stands in the module. `None`: it takes no part.
    fn ask_variant(
        &mut self,
        module: &mut Module,
        index: usize,
        variant: usize,
    ) -> Result<Vec<Option<Answer>>, LowerError> {
        // Most backends are shown the same image.
        let mut plain: Option<((Version, bool), Offer)> = None;
        let mut answers = Vec::with_capacity(self.slots.len());
        for i in 0..self.slots.len() {
            let (name, slot) = &self.slots[i];
            let (Ok(backend), None) = (slot, &self.problems[i]) else {
                answers.push(None);
                continue;
            };
            (self.progress)(Progress::Asking {
                backend: name,
                graph: &module.graphs[index].name,
                nodes: module.graphs[index].nodes.len(),
            });
            let (wants, versions) = (&self.wants[i], &self.options.versions);
            let target = self.options.targets.get(name).map_or("", String::as_str);
            let given = if wants.a_view() {
                let AskedGraph { variants, refused, .. } = &mut self.asked[index];
                let view = &mut variants[variant].views[i];
                *view = None;
                let rounds = self.options.policy.max_rounds;
                let asked = ask_view(
                    (backend.as_ref(), target),
                    module,
                    index,
                    (wants, versions),
                    &mut self.viewer,
                    &mut refused[i],
                    rounds,
                )?;
                asked.map(|(answer, seen)| {
                    *view = Some(seen);
                    answer
                })
            } else {
                let form = wants.form(versions);
                let key = (form.version, form.channels_last);
                let offer = match plain.take().filter(|(of, _)| *of == key) {
                    Some((_, offer)) => offer,
                    None => offer(module, &module.graphs[index], form)?,
                };
                ask(backend.as_ref(), target, &plain.insert((key, offer)).1)
            };
            match given {
                Ok(given) => answers.push(Some(given)),
                Err(error) => {
                    if self.options.targets_exist && !target.is_empty() && error.code == Status::INVALID_ARGUMENT {
                        return Err(LowerError::Target {
                            backend: name.clone(),
                            target: target.to_string(),
                            reason: with_hint(&error),
                        });
                    }
                    self.problems[i] = Some(error.to_string());
                    answers.push(None);
                }
            }
            self.check_strict(i)?;
        }
        Ok(answers)
    }

    /// A region as a backend sees it in a variant, whose graph stands in the module. `None`: only where another backend made the region.
    pub(crate) fn image(
        &self,
        module: &Module,
        index: usize,
        variant: usize,
        backend: &str,
        nodes: &[NodeId],
        reads: &Reads,
    ) -> Result<Option<Image>, LowerError> {
        let slot = self.slot(backend);
        let (graph, form) = (&module.graphs[index], self.wants[slot].form(&self.options.versions));
        Ok(match self.asked[index].variants[variant].views[slot].as_ref() {
            Some(view) => view.image(module, graph, nodes, reads, form)?,
            None => Some(of_nodes(module, graph, nodes, reads, form)?),
        })
    }

    /// For each node of a region that its owner sees as part of another, the name of that one.
    pub(crate) fn folded_into(&self, graph: &Graph, index: usize, tagging: &Tagging) -> FxHashMap<String, String> {
        let mut into = FxHashMap::default();
        let variants = &self.asked[index].variants;
        for region in &tagging.regions {
            let slot = self.slot(&region.backend);
            for view in variants.iter().filter_map(|variant| variant.views[slot].as_ref()) {
                for id in &region.nodes {
                    if let Some(main) = view.folded_into(*id) {
                        into.insert(graph.node(*id).name.clone(), graph.node(main).name.clone());
                    }
                }
            }
        }
        into
    }

    /// The position of a backend that was asked.
    pub(crate) fn slot(&self, backend: &str) -> usize {
        let Some(slot) = self.slots.iter().position(|(name, _)| name == backend) else {
            unreachable!("regions belong to backends that were asked")
        };
        slot
    }

    /// In how many variants delegates see a graph: one for each bucket, or the graph as it is.
    pub(crate) fn variants(&self, index: usize) -> usize {
        self.asked[index].variants.len()
    }

    /// The bucket of a variant; `None`: the graph as it is.
    pub(crate) fn bucket(&self, index: usize, variant: usize) -> Option<&Bucket> {
        self.asked[index].variants[variant].bucket.as_ref()
    }

    /// Calls `body` while a variant of a graph stands in the module.
    pub(crate) fn in_variant<T>(
        &mut self,
        module: &mut Module,
        index: usize,
        variant: usize,
        body: impl FnOnce(&mut Self, &mut Module) -> T,
    ) -> T {
        let Some((mut graph, mut symbols)) = self.asked[index].variants[variant].narrowed.take() else {
            return body(self, module);
        };
        std::mem::swap(&mut module.graphs[index], &mut graph);
        std::mem::swap(&mut module.symbols, &mut symbols);
        let result = body(self, module);
        std::mem::swap(&mut module.graphs[index], &mut graph);
        std::mem::swap(&mut module.symbols, &mut symbols);
        self.asked[index].variants[variant].narrowed = Some((graph, symbols));
        result
    }

    /// The largest sizes of values in a variant that has a bucket.
    pub(crate) fn largest(&self, index: usize, variant: usize, values: &[ValueId]) -> Vec<Vec<i64>> {
        let Some((graph, symbols)) = &self.asked[index].variants[variant].narrowed else {
            return Vec::new();
        };
        let sizes = |value: &ValueId| {
            let shape = graph.tensor(*value).map_or(&[][..], |tensor| &tensor.shape);
            // What has no bound is offered to nobody.
            shape
                .iter()
                .map(|size| size.upper_bound(symbols).unwrap_or(0))
                .collect()
        };
        values.iter().map(sizes).collect()
    }
}

/// What is taken in all buckets, and in which of them it is not.
fn in_all(mut given: Vec<(Option<Bucket>, Answer)>) -> Answer {
    if given.len() < 2 {
        return given.pop().map_or_else(Answer::default, |(_, answer)| answer);
    }
    let nodes = given.iter().map(|(_, answer)| answer.verdicts.len()).max().unwrap_or(0);
    let verdict = |node: usize| {
        let refusals = given
            .iter()
            .filter_map(|(bucket, answer)| match answer.verdicts.get(node) {
                Some(verdict) if verdict.supported => None,
                Some(verdict) => Some((bucket, verdict.reason.as_str())),
                None => Some((bucket, "")),
            });
        let refusals: Vec<(&Option<Bucket>, &str)> = refusals.collect();
        match refusals.as_slice() {
            [] => Verdict::yes(),
            [(_, reason), rest @ ..]
                if refusals.len() == given.len() && rest.iter().all(|(_, other)| other == reason) =>
            {
                Verdict::no(reason.to_string())
            }
            [(Some(bucket), reason), ..] => Verdict::no(format!("for {bucket}: {reason}")),
            [(None, reason), ..] => Verdict::no(reason.to_string()),
        }
    };
    let verdicts = (0..nodes).map(verdict).collect();
    let mut atomic_sets: Vec<Vec<NodeId>> = given.into_iter().flat_map(|(_, answer)| answer.atomic_sets).collect();
    atomic_sets.sort_unstable();
    atomic_sets.dedup();
    Answer { verdicts, atomic_sets }
}

/// Nodes that no backend takes whole, for which there is a decomposition, and where that was not tried.
fn unclaimed(graph: &Graph, answers: &Answers, tried: &FxHashMap<String, Op>, asked: &AskedGraph) -> Vec<NodeId> {
    let claimed = |id: NodeId| {
        answers
            .iter()
            .any(|(_, a)| a.verdicts.get(id.index()).is_some_and(|v| v.supported))
    };
    let is_new = |node: &Node| tried.get(&node.name) != Some(&node.op);
    let live = live(graph);
    let wanted = |id: &NodeId| {
        let node = graph.node(*id);
        live[id.index()] && has_rule(node.op) && !claimed(*id) && is_new(node) && !asked.holds(*id)
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
