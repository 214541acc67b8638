//! From answers to blobs: tags all graphs, has the regions compiled, and tags again without what was refused.

use crate::backend::Hear;
use crate::culprit::{Attempt, Pieces};
use crate::image::{Image, ImageWeights, LayoutError};
use crate::lower::{Answers, LowerError, Lowering, Progress};
use crate::region::nodes_of;
use crate::report::{CompileProblem, Coverage, LoweredGraph, NodeReport, node_reports};
use crate::{CompiledBucket, CompiledCandidate, CompiledRegion};
use delegraph_abi::Status;
use delegraph_host::{DelegateError, SetError, Weights};
use delegraph_ir::{ConstantId, Graph, Module, NodeId, ValueId};
use delegraph_passes::quantize::rejoin;
use delegraph_tag::{Exclusion, Reads, TaggedRegion, Tagging, apply, plan};
use rustc_hash::FxHashSet;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A backend, an image and its weights: what makes a blob.
pub(crate) type Key = (usize, Vec<u8>, Vec<ConstantId>);

/// A graph on its way to blobs.
#[derive(Default)]
struct Work {
    excluded: Vec<Exclusion>,
    problems: Vec<CompileProblem>,
    attempt: u32,
    /// Made again when something is excluded.
    planned: Option<Planned>,
    /// By region, then by variant.
    blobs: Vec<Vec<Vec<u8>>>,
}

/// The regions of a graph.
struct Planned {
    tagging: Tagging,
    /// By region, then by variant.
    images: Vec<Vec<Image>>,
}

/// A region of a graph in one variant.
#[derive(Clone, Copy)]
struct Place {
    graph: usize,
    region: usize,
    variant: usize,
}

impl Lowering<'_> {
    /// Tags every graph and compiles its regions until none is refused; then applies the tags.
    pub(crate) fn compile_all(
        &mut self,
        module: &mut Module,
        answers: &[Answers],
    ) -> Result<Vec<LoweredGraph>, LowerError> {
        let mut works: Vec<Work> = answers.iter().map(|_| Work::default()).collect();
        loop {
            for (index, work) in works.iter_mut().enumerate() {
                if work.planned.is_none() {
                    work.planned = Some(self.plan(module, index, &answers[index], &work.excluded)?);
                }
            }
            let before: Vec<usize> = works.iter().map(|work| work.excluded.len()).collect();
            self.compile_sets(module, answers, &mut works)?;
            let unchanged = |works: &[Work]| {
                works
                    .iter()
                    .zip(&before)
                    .all(|(work, before)| work.excluded.len() == *before)
            };
            if unchanged(&works) {
                for (index, work) in works.iter_mut().enumerate() {
                    self.compile_regions(module, index, &answers[index], work)?;
                }
            }
            if unchanged(&works) {
                break;
            }
            for (work, before) in works.iter_mut().zip(before) {
                if work.excluded.len() > before {
                    work.attempt += 1;
                    work.planned = None;
                }
            }
        }
        let finished = works.into_iter().enumerate();
        finished
            .map(|(index, work)| self.finish(module, index, &answers[index], work))
            .collect()
    }

    /// Makes the regions of a graph, and their images.
    fn plan(
        &mut self,
        module: &mut Module,
        index: usize,
        answers: &Answers,
        excluded: &[Exclusion],
    ) -> Result<Planned, LowerError> {
        let tagging = plan(module, &module.graphs[index], answers, &self.options.policy, excluded);
        let reads = Reads::of(&module.graphs[index]);
        let mut images: Vec<Vec<Image>> = tagging.regions.iter().map(|_| Vec::new()).collect();
        for variant in 0..self.variants(index) {
            self.in_variant(module, index, variant, |lowering, module| {
                for (region, images) in tagging.regions.iter().zip(&mut images) {
                    let image = lowering.image(module, index, variant, &region.backend, &region.nodes, &reads)?;
                    images.push(image.ok_or_else(|| LayoutError::Torn {
                        node: module.graphs[index].node(region.nodes[0]).name.clone(),
                    })?);
                }
                Ok::<_, LowerError>(())
            })?;
        }
        Ok(Planned { tagging, images })
    }

    /// Has those backends that can compile several graphs together do so, with all their regions of all graphs and buckets. What they
    /// make is found when single regions are compiled; what they refuse is excluded.
    fn compile_sets(&mut self, module: &mut Module, answers: &[Answers], works: &mut [Work]) -> Result<(), LowerError> {
        for slot in 0..self.slots.len() {
            let name = self.slots[slot].0.clone();
            let able = self.slots[slot].1.as_ref().is_ok_and(|backend| backend.compiles_sets());
            if !able || self.apart[slot] {
                continue;
            }
            let mut keys: Vec<Key> = Vec::new();
            let mut places: Vec<Place> = Vec::new();
            let mut known: FxHashSet<Key> = FxHashSet::default();
            for (graph, planned) in works
                .iter()
                .enumerate()
                .filter_map(|(i, work)| Some((i, work.planned.as_ref()?)))
            {
                for (region, images) in planned.images.iter().enumerate() {
                    if planned.tagging.regions[region].backend != name {
                        continue;
                    }
                    for (variant, image) in images.iter().enumerate() {
                        let key: Key = (slot, image.bytes.clone(), image.weights.clone());
                        if known.insert(key.clone()) {
                            keys.push(key);
                            places.push(Place { graph, region, variant });
                        }
                    }
                }
            }
            // One graph alone is compiled as ever.
            if keys.len() < 2 || self.sets[slot] == keys {
                continue;
            }
            let (place, refusal) = match self.compile_set(module, slot, &keys)? {
                Ok(blobs) => {
                    self.blobs.extend(keys.iter().cloned().zip(blobs));
                    self.sets[slot] = keys;
                    continue;
                }
                Err(SetError { graph, error }) => (graph.and_then(|graph| places.get(graph)), error),
            };
            let Some(place) = place.copied() else {
                // It is about all of them or none: each alone may still do, and tells more.
                self.apart[slot] = true;
                if let Some(work) = places.first().map(|place| &mut works[place.graph]) {
                    work.problems.push(CompileProblem {
                        backend: name,
                        nodes: Vec::new(),
                        node: None,
                        message: format!(
                            "{} graphs did not compile together, and are compiled one by one: {}",
                            keys.len(),
                            with_hint(&refusal)
                        ),
                        failed: refusal.code != Status::UNSUPPORTED,
                    });
                }
                continue;
            };
            self.refused(module, place, &answers[place.graph], &mut works[place.graph], &refusal)?;
        }
        Ok(())
    }

    fn compile_set(
        &mut self,
        module: &Module,
        slot: usize,
        keys: &[Key],
    ) -> Result<Result<Vec<Vec<u8>>, SetError>, LowerError> {
        let (backend, Ok(delegate)) = &self.slots[slot] else {
            unreachable!("a backend that is absent takes no nodes")
        };
        let weights: Vec<ImageWeights> = keys
            .iter()
            .map(|(.., constants)| self.weights(module, constants))
            .collect::<Result<_, _>>()?;
        let graphs: Vec<(&[u8], &dyn Weights)> = keys
            .iter()
            .zip(&weights)
            .map(|((_, image, _), weights)| (image.as_slice(), weights as &dyn Weights))
            .collect();
        (self.progress)(Progress::CompilingTogether {
            backend,
            graphs: graphs.len(),
        });
        let target = self.options.targets.get(backend).map_or("", String::as_str);
        let result = hearing(&mut *self.progress, backend, |hear| {
            delegate.compile_set_heard(&graphs, target, hear)
        });
        match &result {
            Ok(blobs) if blobs.len() != keys.len() => unreachable!("the host gives one blob a graph"),
            Ok(blobs) => (self.progress)(Progress::Compiled {
                backend,
                graph: "all",
                bytes: blobs.iter().map(Vec::len).sum(),
            }),
            Err(SetError { error, .. }) => (self.progress)(Progress::Refused {
                backend,
                graph: "all",
                message: &error.message,
            }),
        }
        Ok(result)
    }

    /// Compiles every region with its owner, once for each bucket.
    fn compile_regions(
        &mut self,
        module: &mut Module,
        index: usize,
        answers: &Answers,
        work: &mut Work,
    ) -> Result<(), LowerError> {
        let Some(planned) = work.planned.take() else {
            unreachable!("graphs are planned before they are compiled")
        };
        work.blobs.clear();
        for (at, images) in planned.images.iter().enumerate() {
            let backend = &planned.tagging.regions[at].backend;
            let mut blobs = Vec::with_capacity(images.len());
            let mut refusal = None;
            for (variant, image) in images.iter().enumerate() {
                match self.compile(module, index, backend, image)? {
                    Ok(blob) => blobs.push(blob),
                    Err(error) => {
                        refusal = Some((variant, error));
                        break;
                    }
                }
            }
            work.blobs.push(blobs);
            if let Some((variant, error)) = refusal {
                let place = Place {
                    graph: index,
                    region: at,
                    variant,
                };
                self.exclude(module, place, answers, work, &planned, &error)?;
            }
        }
        work.planned = Some(planned);
        Ok(())
    }

    /// [`Lowering::exclude`] for a graph whose plan is at hand.
    fn refused(
        &mut self,
        module: &mut Module,
        place: Place,
        answers: &Answers,
        work: &mut Work,
        error: &DelegateError,
    ) -> Result<(), LowerError> {
        let Some(planned) = work.planned.take() else {
            unreachable!("graphs are planned before they are compiled")
        };
        self.exclude(module, place, answers, work, &planned, error)?;
        work.planned = Some(planned);
        Ok(())
    }

    /// What is refused is excluded: at first the node that the delegate names, or that compiling parts of the region finds; then its
    /// region, and in the end, so that there is one, the whole graph for that delegate.
    fn exclude(
        &mut self,
        module: &mut Module,
        place: Place,
        answers: &Answers,
        work: &mut Work,
        planned: &Planned,
        error: &DelegateError,
    ) -> Result<(), LowerError> {
        let patience = self.options.policy.max_rounds;
        let attempt = work.attempt;
        let (region, image) = (
            &planned.tagging.regions[place.region],
            &planned.images[place.region][place.variant],
        );
        let bucket = self.bucket(place.graph, place.variant);
        let of = bucket.map_or(String::new(), |bucket| format!(" for {bucket}"));
        let message = with_hint(error);
        let named = error.node.and_then(|n| image.nodes.get(n as usize)).copied();
        // No part of the graph is to blame for a tool that is not there.
        let absent = error.code == Status::DEPENDENCY_MISSING;
        let culprit = match named {
            _ if absent => None,
            Some(node) => Some(vec![node]),
            // Nobody wants a result any more, so there is nothing to be found.
            None if attempt < patience && error.code != Status::CANCELLED => {
                self.find_culprit(module, place, region, answers)?
            }
            None => None,
        };
        let graph = &module.graphs[place.graph];
        let blamed = culprit.as_ref().and_then(|nodes| nodes.last().copied());
        work.problems.push(problem(graph, region, blamed, error));
        let (nodes, reason) = match culprit {
            Some(nodes) if attempt < patience => {
                let found = named.is_none() && nodes.len() < region.nodes.len();
                let how = if found {
                    " (found by compiling parts of its region)"
                } else {
                    ""
                };
                (nodes, format!("it did not compile{of}: {message}{how}"))
            }
            _ if absent => (graph.node_ids().collect(), format!("it cannot compile{of}: {message}")),
            _ if attempt < patience.saturating_mul(2) => (
                region.nodes.clone(),
                format!("its region did not compile{of}: {message}"),
            ),
            _ => (
                graph.node_ids().collect(),
                format!("too many regions did not compile: {message}"),
            ),
        };
        work.excluded.extend(nodes.into_iter().map(|node| Exclusion {
            node,
            backend: region.backend.clone(),
            reason: reason.clone(),
        }));
        Ok(())
    }

    /// The node, or the set of nodes that go together, which makes a region fail whose compiler names none. `None`: a region
    /// of one such piece, or one of which no part can be tried.
    fn find_culprit(
        &mut self,
        module: &mut Module,
        place: Place,
        region: &TaggedRegion,
        answers: &Answers,
    ) -> Result<Option<Vec<NodeId>>, LowerError> {
        let Place { graph, variant, .. } = place;
        let reads = Reads::of(&module.graphs[graph]);
        let answer = answers.iter().find(|(name, _)| *name == region.backend);
        let sets = answer.map_or(&[][..], |(_, answer)| answer.atomic_sets.as_slice());
        self.in_variant(module, graph, variant, |lowering, module| {
            Pieces::new(&region.nodes, sets).culprit(&region.nodes, |part| {
                let image = match lowering.image(module, graph, variant, &region.backend, part, &reads) {
                    Ok(Some(image)) => image,
                    Ok(None) | Err(LowerError::Layout(_)) => return Ok(Attempt::Unknown),
                    Err(error) => return Err(error),
                };
                Ok(match lowering.compile(module, graph, &region.backend, &image)? {
                    Ok(_) => Attempt::Compiles,
                    Err(error) => match error.node.and_then(|n| image.nodes.get(n as usize)) {
                        Some(node) => Attempt::Names(*node),
                        None if error.code == Status::CANCELLED => Attempt::Unknown,
                        None => Attempt::Fails,
                    },
                })
            })
        })
    }

    fn weights(&self, module: &Module, constants: &[ConstantId]) -> Result<ImageWeights, LowerError> {
        let weights = ImageWeights::new(module, constants).map_err(|name| LowerError::Constant { name })?;
        Ok(weights.shared_as(self.tag))
    }

    /// Compiles one image, or finds the blob that was made of an equal one.
    fn compile(
        &mut self,
        module: &Module,
        index: usize,
        backend: &str,
        image: &Image,
    ) -> Result<Result<Vec<u8>, DelegateError>, LowerError> {
        let slot = self.slot(backend);
        let key: Key = (slot, image.bytes.clone(), image.weights.clone());
        if let Some(blob) = self.blobs.get(&key) {
            return Ok(Ok(blob.clone()));
        }
        let Ok(delegate) = &self.slots[slot].1 else {
            unreachable!("a backend that is absent takes no nodes")
        };
        let weights = self.weights(module, &image.weights)?;
        let graph = &module.graphs[index].name;
        (self.progress)(Progress::Compiling {
            backend,
            graph,
            nodes: image.nodes.len(),
        });
        let target = self.options.targets.get(backend).map_or("", String::as_str);
        let result = hearing(&mut *self.progress, backend, |hear| {
            delegate.compile_heard(&image.bytes, &weights, target, hear)
        });
        match &result {
            Ok(blob) => {
                (self.progress)(Progress::Compiled {
                    backend,
                    graph,
                    bytes: blob.len(),
                });
                self.blobs.insert(key, blob.clone());
            }
            Err(error) => (self.progress)(Progress::Refused {
                backend,
                graph,
                message: &error.message,
            }),
        }
        Ok(result)
    }

    /// Adds other backends' blobs, and writes the tags into the graph.
    fn finish(
        &mut self,
        module: &mut Module,
        index: usize,
        answers: &Answers,
        work: Work,
    ) -> Result<LoweredGraph, LowerError> {
        let Some(Planned { tagging, images }) = work.planned else {
            unreachable!("graphs are planned before they are compiled")
        };
        let mut problems = work.problems;
        let folded_into = self.folded_into(&module.graphs[index], index, &tagging);
        let mut regions = Vec::with_capacity(tagging.regions.len());
        for ((region, images), blobs) in tagging.regions.iter().zip(&images).zip(work.blobs) {
            let mut compiled = compiled_region(region, images);
            compiled.candidates = self.candidates(index, &region.backend, images.iter().zip(blobs));
            regions.push(compiled);
        }
        self.add_alternatives(
            module,
            index,
            &tagging,
            answers,
            &work.excluded,
            &mut regions,
            &mut problems,
        )?;
        let tagging = apply(&mut module.graphs[index], tagging);
        let mut nodes = node_reports(module, &module.graphs[index], &tagging);
        for node in &mut nodes {
            node.folded_into = folded_into.get(&node.name).cloned();
        }
        let copies = &self.asked[index].copies;
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
}

impl Lowering<'_> {
    /// Adds blobs of the other backends that take a whole region, in every bucket.
    fn add_alternatives(
        &mut self,
        module: &mut Module,
        index: usize,
        tagging: &Tagging,
        answers: &Answers,
        excluded: &[Exclusion],
        regions: &mut [CompiledRegion],
        problems: &mut Vec<CompileProblem>,
    ) -> Result<(), LowerError> {
        let reads = Reads::of(&module.graphs[index]);
        for (backend, answer) in answers {
            if self.slots[self.slot(backend)].1.is_err() {
                continue;
            }
            let graph = &module.graphs[index];
            let allowed = |id: &NodeId| {
                answer.verdicts.get(id.index()).is_some_and(|v| v.supported)
                    && self.options.policy.denial(graph, graph.node(*id), backend).is_none()
            };
            let failed = |region: &TaggedRegion| {
                let mut own = excluded.iter().filter(|e| e.backend == *backend);
                own.any(|e| region.nodes.contains(&e.node))
            };
            let others = tagging.regions.iter().filter(|region| region.backend != *backend);
            let wanted: Vec<&TaggedRegion> = others
                .filter(|region| region.nodes.iter().all(allowed) && !failed(region))
                .collect();
            let mut made: Vec<Option<Vec<(Image, Vec<u8>)>>> = wanted.iter().map(|_| Some(Vec::new())).collect();
            for variant in 0..self.variants(index) {
                self.in_variant(module, index, variant, |lowering, module| {
                    for (region, slot) in wanted.iter().zip(&mut made) {
                        let Some(blobs) = slot else { continue };
                        match lowering.alternative(module, (index, variant), backend, region, &reads)? {
                            Some((image, Ok(blob))) => {
                                blobs.push((image, blob));
                                continue;
                            }
                            Some((image, Err(error))) => {
                                let named = error.node.and_then(|n| image.nodes.get(n as usize)).copied();
                                problems.push(CompileProblem {
                                    backend: backend.clone(),
                                    ..problem(&module.graphs[index], region, named, &error)
                                });
                            }
                            None => {}
                        }
                        *slot = None;
                    }
                    Ok::<_, LowerError>(())
                })?;
            }
            for (region, made) in wanted.iter().zip(made) {
                let Some(made) = made else { continue };
                let (images, blobs): (Vec<Image>, Vec<Vec<u8>>) = made.into_iter().unzip();
                let candidates = self.candidates(index, backend, images.iter().zip(blobs));
                regions[region.id.index()].candidates.extend(candidates);
            }
        }
        Ok(())
    }

    /// What another backend makes of a region in a variant, whose graph stands in the module; `None`: it does not take the whole region.
    fn alternative(
        &mut self,
        module: &Module,
        (index, variant): (usize, usize),
        backend: &str,
        region: &TaggedRegion,
        reads: &Reads,
    ) -> Result<Option<(Image, Result<Vec<u8>, DelegateError>)>, LowerError> {
        let Ok(delegate) = &self.slots[self.slot(backend)].1 else {
            return Ok(None);
        };
        let Some(image) = self.image(module, index, variant, backend, &region.nodes, reads)? else {
            return Ok(None);
        };
        let result = match delegate.partition(&image.bytes, self.target(backend)) {
            Ok(partition) if partition.verdicts.iter().all(|v| v.supported) => {
                self.compile(module, index, backend, &image)?
            }
            Ok(_) => return Ok(None),
            Err(error) => Err(error),
        };
        Ok(Some((image, result)))
    }

    /// A backend's blobs of a region, one a variant.
    fn candidates<'i>(
        &self,
        index: usize,
        backend: &str,
        made: impl Iterator<Item = (&'i Image, Vec<u8>)>,
    ) -> Vec<CompiledCandidate> {
        let candidate = |(variant, (image, blob)): (usize, (&Image, Vec<u8>))| CompiledCandidate {
            backend: backend.to_string(),
            target: self.target(backend).to_string(),
            precision: delegraph_abi::envelope::parse(&blob)
                .map_or(String::new(), |envelope| envelope.meta.precision.clone()),
            blob,
            weights: (0..).zip(image.weights.iter().copied()).collect(),
            nodes: nodes_of(&image.bytes),
            bucket: self.bucket(index, variant).map(|bucket| CompiledBucket {
                bucket: bucket.clone(),
                outputs: self.largest(index, variant, &image.outputs),
            }),
        };
        made.enumerate().map(candidate).collect()
    }
}

fn compiled_region(region: &TaggedRegion, images: &[Image]) -> CompiledRegion {
    // There is one at least, and all have the same border.
    let image = &images[0];
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
        more_images: images[1..].iter().map(|image| image.bytes.clone()).collect(),
        candidates: Vec::new(),
        leaves_weights: false,
    }
}

/// Makes a call that says how far it is. A delegate says so from any of its threads.
fn hearing<T>(progress: &mut (dyn FnMut(Progress<'_>) + Send), backend: &str, call: impl FnOnce(Hear<'_>) -> T) -> T {
    let progress = Mutex::new(progress);
    call(&|step| {
        let delegraph_host::Progress { done, total, text } = step;
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress(Progress::Within {
            backend,
            done,
            total,
            text,
        });
    })
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

pub(crate) fn with_hint(error: &DelegateError) -> String {
    match error.hint.as_str() {
        "" => error.message.clone(),
        hint => format!("{} (hint: {hint})", error.message),
    }
}
