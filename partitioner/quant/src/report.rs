//! What quantizing costs: both models run on the samples side by side, and each quantized value is compared.

use crate::annotate::{Part, Plan, activations};
use crate::evaluate::{Machine, floats};
use crate::range::Affine;
use crate::{Progress, QuantError, Sample, Scheme};
use delegraph_ir::{ConstantId, Def, Graph, Module, Node, Output, ValueId};
use delegraph_types::DType;
use rustc_hash::FxHashSet;
use serde::{Serialize, Serializer};

/// Samples that both models are compared on, at most: the first ones.
const COMPARED: usize = 32;

/// What quantization did.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The scheme, as text.
    pub scheme: String,
    /// Samples that ranges were chosen by, or that layers were measured on.
    pub samples: usize,
    /// Samples that both models were compared on.
    pub compared: usize,
    /// Nodes of the float model that became integer operators, or layers and tables whose weights became integers.
    pub quantized_nodes: usize,
    /// Nodes that stayed float, though they compute with f32; of the schemes that are not static, though they have weights.
    pub float_nodes: usize,
    /// Nodes on integers, booleans and other types, which nobody quantizes; of the schemes that are not static, all without
    /// weights.
    pub other_nodes: usize,
    /// Bytes of constants that the float model reads.
    pub float_bytes: u64,
    /// Bytes of constants that the quantized model reads. Weights of 4 bits take a byte each in the file.
    pub quantized_bytes: u64,
    /// By position, tensors of f32 only.
    pub outputs: Vec<OutputQuality>,
    /// Quantized nodes, the worst first, of a static scheme.
    pub nodes: Vec<NodeQuality>,
    /// Layers and tables, the worst first, of the schemes that are not static.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerQuality>,
    /// Nodes that stayed float, by operator and reason, the most frequent first.
    pub float: Vec<FloatNodes>,
    /// The node whose keeping in float helps most, of the few that lose most of what they are given; tried on the first samples.
    pub hint: Option<Hint>,
}

/// What keeping a node in float would give.
#[derive(Debug, Clone, Serialize)]
pub struct Hint {
    /// The node's name.
    pub keep: String,
    /// Signal to noise of the worst output as it is.
    pub from_db: Decibel,
    /// The same with the node in float.
    pub to_db: Decibel,
}

/// An output of the method.
#[derive(Debug, Clone, Serialize)]
pub struct OutputQuality {
    /// Its position.
    pub position: usize,
    /// Its name.
    pub name: String,
    /// Signal to noise.
    pub snr_db: Decibel,
    /// Largest difference.
    pub max_abs: f64,
}

/// A quantized node.
#[derive(Debug, Clone, Serialize)]
pub struct NodeQuality {
    /// Its name: what `keep=` takes.
    pub node: String,
    /// Its operator.
    pub op: &'static str,
    /// Name of its result.
    pub value: String,
    /// Its result in the quantized model against the float model.
    pub snr_db: Decibel,
    /// What rounding its result alone costs.
    pub own_snr_db: Decibel,
    /// How much worse its result is than the worst that it reads.
    pub lost_db: f64,
    /// Step of its result.
    pub scale: f32,
    /// Integer that stands for 0.
    pub zero_point: i64,
}

/// A layer, or a table, whose weight was quantized by itself.
#[derive(Debug, Clone, Serialize)]
pub struct LayerQuality {
    /// The method that it is in.
    pub method: String,
    /// Its name: what `keep=` takes.
    pub node: String,
    /// Its operator in the float model.
    pub op: &'static str,
    /// Name of its weight: `keep=` takes it too.
    pub weight: String,
    /// Bits of its weight.
    pub bits: u8,
    /// Elements of a row of its weight that share a scale.
    pub group: i64,
    /// Its weight against the float one.
    pub weight_snr_db: Decibel,
    /// Its result in the quantized model against the float model, where samples were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snr_db: Option<Decibel>,
    /// How much worse its result is than what it reads, where samples were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_db: Option<f64>,
}

/// Nodes that stayed float.
#[derive(Debug, Clone, Serialize)]
pub struct FloatNodes {
    /// Their operator.
    pub op: &'static str,
    /// Why.
    pub why: WhyFloat,
    /// How many.
    pub count: usize,
    /// One of them.
    pub example: String,
}

/// Why a node stayed float.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhyFloat {
    /// The operator has no quantized form.
    Operator,
    /// It computes with no f32.
    NotFloat,
    /// `keep=` names it.
    Kept,
    /// It reads another dtype, only constants, or pads with something else than 0.
    Arguments,
    /// Somebody reads another result than its first.
    Results,
    /// Its values were never seen, are not finite, or spread too far for a scale, as under a mask.
    Values,
    /// It computes with what comes of integers alone: positions, angles, masks.
    Counted,
    /// It moves what nobody quantized computes with.
    OnlyMoves,
    /// The group does not divide the weight's input channels.
    Groups,
}

/// A ratio of powers, 10 log10; infinite where nothing differs, which JSON has as null.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Decibel(pub f64);

impl Serialize for Decibel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.is_finite() {
            true => serializer.serialize_f64((self.0 * 100.0).round() / 100.0),
            false => serializer.serialize_none(),
        }
    }
}

/// Signal and noise, summed up.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Noise {
    pub signal: f64,
    pub noise: f64,
    pub largest: f64,
}

impl Noise {
    pub fn merge(&mut self, other: Noise) {
        self.signal += other.signal;
        self.noise += other.noise;
        self.largest = self.largest.max(other.largest);
    }

    fn add(&mut self, want: f32, got: f32) {
        let difference = f64::from(want) - f64::from(got);
        // A mask's -inf is the same in both.
        if want == got || !want.is_finite() {
            self.signal += if want.is_finite() { f64::from(want).powi(2) } else { 0.0 };
            return;
        }
        self.signal += f64::from(want).powi(2);
        self.noise += difference.powi(2);
        self.largest = self.largest.max(difference.abs());
    }

    pub fn decibel(&self) -> Decibel {
        Decibel(match (self.signal, self.noise) {
            (_, 0.0) => f64::INFINITY,
            (signal, noise) => 10.0 * (signal.max(f64::MIN_POSITIVE) / noise).log10(),
        })
    }
}

/// What is compared: a float model, some of its values, and how they are rounded where they are.
pub(crate) struct Subject<'a> {
    pub float: &'a Module,
    /// By value of the first method: whether a node makes it and it is compared.
    pub compared: Vec<bool>,
    /// By value, where it becomes integers.
    pub affine: &'a [Option<Affine>],
    pub scheme: &'a Scheme,
}

/// Both models on the samples: of each value that is compared, and of each output.
pub(crate) struct Comparison {
    /// Against the float model.
    pub whole: Vec<Noise>,
    /// What rounding alone costs.
    own: Vec<Noise>,
    outputs: Vec<Noise>,
}

impl Comparison {
    /// Of the outputs of f32.
    pub fn outputs(&self, graph: &Graph) -> Vec<OutputQuality> {
        output_quality(graph, &self.outputs)
    }

    /// Signal to noise of the worst output.
    pub fn worst_output(&self, graph: &Graph) -> f64 {
        let outputs = self.outputs(graph);
        let ratios = outputs.iter().map(|output| output.snr_db.0);
        ratios.fold(f64::INFINITY, f64::min)
    }
}

/// A float model, and what was decided about it.
#[derive(Clone, Copy)]
pub(crate) struct Decided<'a> {
    pub float: &'a Module,
    pub scheme: &'a Scheme,
    pub plan: &'a Plan,
}

/// What quantizing did and cost, without a hint.
///
/// # Errors
/// A model cannot be run.
pub(crate) fn report(
    decided: Decided<'_>,
    quantized: &Module,
    samples: &[Sample],
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Report, QuantError> {
    let Decided { float, scheme, plan } = decided;
    let graph = method(float)?;
    let some = first(samples);
    let compared = compare(&decided.subject(graph), quantized, some, progress)?;
    let other = plan
        .nodes
        .iter()
        .filter(|part| **part == Part::Float(WhyFloat::NotFloat))
        .count();
    let stayed = plan.nodes.iter().filter(|part| matches!(part, Part::Float(_))).count();
    Ok(Report {
        scheme: scheme.to_string(),
        samples: samples.len(),
        compared: some.len(),
        quantized_nodes: plan.nodes.len() - stayed,
        float_nodes: stayed - other,
        other_nodes: other,
        float_bytes: constant_bytes(float),
        quantized_bytes: constant_bytes(quantized),
        outputs: compared.outputs(graph),
        nodes: nodes(graph, plan, &compared),
        layers: Vec::new(),
        float: stayed_float(
            plan.nodes
                .iter()
                .zip(&graph.nodes)
                .filter_map(|(part, node)| match part {
                    Part::Float(why) => Some((node, *why)),
                    _ => None,
                }),
        ),
        hint: None,
    })
}

/// Signal to noise of the worst output of both models on a few samples.
///
/// # Errors
/// A model cannot be run.
pub(crate) fn worst_output(decided: Decided<'_>, quantized: &Module, samples: &[Sample]) -> Result<f64, QuantError> {
    let graph = method(decided.float)?;
    let compared = compare(&decided.subject(graph), quantized, samples, &mut |_| {})?;
    Ok(compared.worst_output(graph))
}

/// The samples that are compared: states follow each other, and so it is the first ones.
pub(crate) fn first(samples: &[Sample]) -> &[Sample] {
    &samples[..samples.len().min(COMPARED)]
}

impl<'a> Decided<'a> {
    fn subject(self, graph: &Graph) -> Subject<'a> {
        let mut compared = vec![false; graph.values.len()];
        for (node, part) in graph.nodes.iter().zip(&self.plan.nodes) {
            if part.gives_integers() {
                compared[node.outputs[0].index()] = true;
            }
        }
        Subject {
            float: self.float,
            compared,
            affine: &self.plan.affine,
            scheme: self.scheme,
        }
    }
}

pub(crate) fn method(module: &Module) -> Result<&Graph, QuantError> {
    let graph = module.graphs.first();
    graph.ok_or_else(|| QuantError::Bug("a module without a method".to_string()))
}

/// Runs both models side by side.
///
/// # Errors
/// A model cannot be run.
pub(crate) fn compare(
    subject: &Subject<'_>,
    quantized: &Module,
    samples: &[Sample],
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Comparison, QuantError> {
    let Subject {
        float,
        compared,
        affine,
        scheme,
    } = subject;
    let graph = method(float)?;
    let none = || vec![Noise::default(); graph.values.len()];
    let (mut whole, mut own) = (none(), none());
    let mut outputs = vec![Noise::default(); graph.outputs.len()];
    let (mut left, mut right) = (Machine::new(float)?, Machine::new(quantized)?);
    for (i, sample) in samples.iter().enumerate() {
        progress(Progress::Comparing {
            sample: &sample.name,
            number: i + 1,
            count: samples.len(),
        });
        let (mut exact, mut rounded) = (left.start(sample)?, right.start(sample)?);
        for (value, affine) in affine.iter().enumerate() {
            let id = ValueId::from(value);
            if let (Some(affine), Def::Input | Def::State(_)) = (affine, graph.value(id).def)
                && let Some(numbers) = exact.value(id).as_ref().and_then(|datum| floats(datum.tensor()?))
            {
                numbers
                    .iter()
                    .for_each(|n| own[value].add(*n, through(*affine, scheme, *n)));
            }
        }
        while let Some(node) = exact.step()? {
            for value in node.outputs.iter().copied() {
                let at = value.index();
                if !compared.get(at).copied().unwrap_or_default() {
                    continue;
                }
                // Both make values in one order.
                while rounded.value(value).is_none() && rounded.step()?.is_some() {}
                let numbers = |datum: Option<crate::evaluate::Datum>| datum.as_ref().and_then(|d| floats(d.tensor()?));
                let (want, got) = (numbers(exact.value(value)), numbers(rounded.value(value)));
                if let (Some(want), Some(got)) = (want, got)
                    && want.len() == got.len()
                {
                    want.iter().zip(&got).for_each(|(want, got)| whole[at].add(*want, *got));
                    if let Some(affine) = affine.get(at).copied().flatten() {
                        want.iter().for_each(|n| own[at].add(*n, through(affine, scheme, *n)));
                    }
                }
            }
        }
        while rounded.step()?.is_some() {}
        for (noise, (want, got)) in outputs.iter_mut().zip(exact.outputs().iter().zip(rounded.outputs())) {
            if let (Some(want), Some(got)) = (want.as_ref().and_then(floats), got.as_ref().and_then(floats))
                && want.len() == got.len()
            {
                want.iter().zip(&got).for_each(|(want, got)| noise.add(*want, *got));
            }
        }
        let written = (exact.written(), rounded.written());
        left.end(written.0);
        right.end(written.1);
    }
    Ok(Comparison { whole, own, outputs })
}

/// A number quantized and dequantized.
fn through(affine: Affine, scheme: &Scheme, number: f32) -> f32 {
    let (least, most) = scheme.limits();
    let steps = (number * (1.0 / f64::from(affine.scale)) as f32).round_ties_even() + affine.zero_point as f32;
    (steps.clamp(least as f32, most as f32) - affine.zero_point as f32) * affine.scale
}

fn nodes(graph: &Graph, plan: &Plan, compared: &Comparison) -> Vec<NodeQuality> {
    let Comparison { whole, own, .. } = compared;
    let producers = graph.producers();
    // What a quantized node reads is as good as its maker left it, or as good as rounding it is.
    let read = |value: ValueId| -> f64 {
        let made = producers[value.index()].is_some_and(|id| plan.nodes[id.index()].gives_integers());
        match (made, graph.value(value).def) {
            (true, _) => whole[value.index()].decibel().0,
            (false, Def::Input | Def::State(_)) => own[value.index()].decibel().0,
            (false, _) => f64::INFINITY,
        }
    };
    let mut nodes = Vec::new();
    for (node, part) in graph.nodes.iter().zip(&plan.nodes) {
        let (main, roles) = match part {
            Part::Whole(roles) => (node, *roles),
            Part::Limit(main) => match plan.nodes[*main].roles() {
                Some(roles) => (&graph.nodes[*main], roles),
                None => continue,
            },
            Part::Limited(_) | Part::Table(_) | Part::Float(_) => continue,
        };
        let at = node.outputs[0].index();
        let Some(affine) = plan.affine[at] else { continue };
        let worst = activations(graph, main, roles)
            .into_iter()
            .map(read)
            .fold(f64::INFINITY, f64::min);
        let snr = whole[at].decibel();
        nodes.push(NodeQuality {
            node: main.name.clone(),
            op: main.op.name(),
            value: graph.value(node.outputs[0]).name.clone(),
            snr_db: snr,
            own_snr_db: own[at].decibel(),
            lost_db: lost(worst, snr.0),
            scale: affine.scale,
            zero_point: affine.zero_point,
        });
    }
    nodes.sort_by(|a, b| a.snr_db.0.total_cmp(&b.snr_db.0));
    nodes
}

/// How much worse what is made is than what was read. Of what is exact, anything is lost: against what 16 bits could say.
pub(crate) fn lost(read: f64, made: f64) -> f64 {
    ((read.min(96.0) - made.min(96.0)) * 100.0).round() / 100.0
}

/// Decibels that a node has to lose to be tried: a bit's worth.
const MUCH: f64 = 6.0;
/// Nodes that are tried.
const TRIED: usize = 3;

impl Report {
    /// The nodes that lose most of what they are given, the worst first.
    pub(crate) fn suspects(&self) -> Vec<String> {
        let nodes = self.nodes.iter().map(|node| (&node.node, node.lost_db));
        let layers = self
            .layers
            .iter()
            .filter_map(|layer| Some((&layer.node, layer.lost_db?)));
        let mut suspects: Vec<(&String, f64)> = nodes.chain(layers).filter(|(_, lost)| *lost >= MUCH).collect();
        suspects.sort_by(|a, b| b.1.total_cmp(&a.1));
        suspects.iter().take(TRIED).map(|(node, _)| (*node).clone()).collect()
    }
}

fn output_quality(graph: &Graph, outputs: &[Noise]) -> Vec<OutputQuality> {
    let outputs = graph.outputs.iter().zip(outputs).enumerate();
    outputs
        .filter_map(|(position, (output, noise))| {
            let Output::Value(value) = output else { return None };
            (graph.tensor(*value)?.dtype == DType::F32).then(|| OutputQuality {
                position,
                name: graph.value(*value).name.clone(),
                snr_db: noise.decibel(),
                max_abs: noise.largest,
            })
        })
        .collect()
}

/// Nodes that stayed float by operator and reason. What computes with no f32 is not among them.
pub(crate) fn stayed_float<'g>(nodes: impl Iterator<Item = (&'g Node, WhyFloat)>) -> Vec<FloatNodes> {
    let mut found: Vec<FloatNodes> = Vec::new();
    let mut at: rustc_hash::FxHashMap<(&str, WhyFloat), usize> = rustc_hash::FxHashMap::default();
    for (node, why) in nodes.filter(|(_, why)| *why != WhyFloat::NotFloat) {
        let place = *at.entry((node.op.name(), why)).or_insert(found.len());
        match found.get_mut(place) {
            Some(known) => known.count += 1,
            None => found.push(FloatNodes {
                op: node.op.name(),
                why,
                count: 1,
                example: node.name.clone(),
            }),
        }
    }
    found.sort_by_key(|nodes| std::cmp::Reverse(nodes.count));
    found
}

/// Bytes of the constants that methods read, each once.
pub(crate) fn constant_bytes(module: &Module) -> u64 {
    let read = |graph: &Graph| -> Vec<ConstantId> {
        let values = graph.nodes.iter().flat_map(Node::inputs).chain(graph.results());
        let constants = values.filter_map(|value| match graph.value(value).def {
            Def::Constant(id) => Some(id),
            _ => None,
        });
        constants.collect()
    };
    let read: FxHashSet<ConstantId> = module.graphs.iter().flat_map(read).collect();
    let bytes = read.into_iter().filter_map(|id| {
        let constant = module.constants.find(id)?;
        Some(constant.sizes.numel()? as u64 * constant.dtype.size() as u64)
    });
    bytes.sum()
}
