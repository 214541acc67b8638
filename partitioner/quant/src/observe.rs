//! What the values of the float model are on the samples.

use crate::annotate::{candidates, watched};
use crate::evaluate::{Machine, floats};
use crate::histogram::Histogram;
use crate::range::Seen;
use crate::scheme::Observer;
use crate::{QuantError, Sample, Scheme};
use delegraph_ir::{Arg, Def, Graph, Module, Node, ValueId};

/// What quantization is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// The weight of a layer becomes integers.
    Rounding {
        /// The layer.
        node: &'a str,
    },
    /// The float model runs on a sample.
    Observing {
        /// The sample.
        sample: &'a str,
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// Both models run on a sample.
    Comparing {
        /// The sample.
        sample: &'a str,
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        count: usize,
    },
}

/// What was seen of each value, by id.
pub(crate) struct Observed {
    /// Finite numbers only.
    pub seen: Vec<Seen>,
    /// Whether a number was not finite.
    pub odd: Vec<bool>,
}

/// Runs the float model on every sample.
///
/// # Errors
/// As [`crate::quantize`].
pub(crate) fn observe(
    module: &Module,
    scheme: &Scheme,
    samples: &[Sample],
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Observed, QuantError> {
    let Some(graph) = module.graphs.first() else {
        return Err(QuantError::Bug("a module without a method".to_string()));
    };
    if samples.is_empty() {
        return Err(QuantError::NoSamples(scheme.to_string()));
    }
    let candidates = candidates(graph, scheme);
    let watched = watched(graph, &candidates);
    let mut observed = Observed {
        seen: vec![Seen::default(); graph.values.len()],
        odd: vec![false; graph.values.len()],
    };
    let wants_histogram = scheme.observer != Observer::MinMax;
    let watch = |value: ValueId| watched.get(value.index()).copied().unwrap_or_default();
    // Constants are seen once, whole.
    for (i, value) in graph.values.iter().enumerate() {
        if let (true, Def::Constant(id)) = (watched[i], value.def)
            && let Some(numbers) = module.constants.find(id).and_then(floats)
        {
            observed.record(ValueId::from(i), &numbers, false);
        }
    }
    let makers = graph.producers();
    let mut machine = Machine::new(module)?;
    for (i, sample) in samples.iter().enumerate() {
        progress(Progress::Observing {
            sample: &sample.name,
            number: i + 1,
            count: samples.len(),
        });
        let mut run = machine.start(sample)?;
        for (input, value) in leaves(graph) {
            if watch(value)
                && let Some(numbers) = run.value(value).as_ref().and_then(|datum| floats(datum.tensor()?))
            {
                let nan = observed.record(value, &numbers, wants_histogram);
                if nan && input {
                    return Err(QuantError::Sample {
                        sample: sample.name.clone(),
                        problem: format!("input `{}` holds NaN", graph.value(value).name),
                    });
                }
            }
        }
        while let Some(node) = run.step()? {
            for value in node.outputs.iter().copied().filter(|value| watch(*value)) {
                let Some(numbers) = run.value(value).as_ref().and_then(|datum| floats(datum.tensor()?)) else {
                    continue;
                };
                let before = observed.odd[value.index()];
                let nan = observed.record(value, &numbers, wants_histogram);
                let odd = observed.odd[value.index()] && !before;
                // The node of the model, of which the one that ran may be a part.
                let maker = makers[value.index()].filter(|id| odd && candidates[id.index()].is_ok());
                let maker = maker.map(|id| graph.node(id));
                if let Some(maker) = maker.filter(|maker| makes_odd(&observed, maker)) {
                    return Err(QuantError::NotFinite {
                        sample: sample.name.clone(),
                        node: maker.name.clone(),
                        op: maker.op.name(),
                        what: if nan { "NaN" } else { "an infinity" },
                    });
                }
            }
        }
        let written = run.written();
        machine.end(written);
    }
    Ok(observed)
}

/// Whether a node makes numbers that are not finite by itself: all that it reads is finite.
fn makes_odd(observed: &Observed, node: &Node) -> bool {
    let infinite = |arg: &Arg| matches!(arg, Arg::Float(f) if !f.is_finite());
    !node.args.iter().any(infinite) && node.inputs().all(|value| !observed.odd[value.index()])
}

/// Values that are there before the first node, and whether each is an input.
fn leaves(graph: &Graph) -> impl Iterator<Item = (bool, ValueId)> + '_ {
    graph
        .values
        .iter()
        .enumerate()
        .filter_map(|(i, value)| match value.def {
            Def::Input => Some((true, ValueId::from(i))),
            Def::State(_) => Some((false, ValueId::from(i))),
            Def::Node | Def::Constant(_) => None,
        })
}

impl Observed {
    /// Takes note of numbers; gives whether one is NaN.
    fn record(&mut self, value: ValueId, numbers: &[f32], wants_histogram: bool) -> bool {
        let (mut low, mut high, mut nan) = (f32::INFINITY, f32::NEG_INFINITY, false);
        for number in numbers {
            low = low.min(*number);
            high = high.max(*number);
            nan |= number.is_nan();
        }
        let odd = nan || numbers.is_empty() || !(low.is_finite() && high.is_finite());
        let at = value.index();
        if odd {
            self.odd[at] |= !numbers.is_empty();
            return nan;
        }
        let seen = &mut self.seen[at];
        seen.merge(&Seen {
            range: Some((low, high)),
            histogram: None,
        });
        if wants_histogram {
            seen.histogram
                .get_or_insert_with(Histogram::default)
                .add(numbers, low, high);
        }
        false
    }
}
