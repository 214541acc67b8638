//! Shrinks a model that is wrong or crashes on a backend to the smallest part of it that is.
//!
//! The model runs once on portable kernels, and the values in it are kept. Any set of its nodes is a model of its own then: its
//! inputs are what the portable kernels made, its outputs what they make of it. A *probe* says whether such a model fails on the
//! backend; in a process of its own if a crash is to be a finding. Delta debugging over the nodes does the rest. Sizes are those
//! of the inputs: a part has no dynamic dimensions.

mod minimise;
mod part;

use crate::tolerance::numbers;
use crate::{Config, Error, LoadOptions, Session, Source, TensorView, Value};
use delegraph_host::Host;
use delegraph_ir::{Module, NodeId};
use delegraph_lower::image::{Form, of_nodes};
use delegraph_opset::Versions;
use delegraph_tag::Reads;
use delegraph_types::{DType, Dims};
use minimise::minimise;
use part::{Part, Recorded, portable, run_portably};
use std::fmt;
use std::sync::Arc;

/// A row-major tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub shape: Dims,
    /// The elements.
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// A copy of a view.
    pub fn of(view: &TensorView<'_>) -> Tensor {
        Tensor {
            dtype: view.dtype,
            shape: view.shape,
            bytes: view.to_contiguous().into_owned(),
        }
    }

    /// As an argument or result.
    pub fn value(&self) -> Value<'_> {
        Value::tensor(self.dtype, self.shape, &self.bytes)
    }
}

/// A model with inputs and what it is to give.
#[derive(Debug, Clone)]
pub struct Case {
    /// A `.pte` for portable kernels with its IR inside: it is partitioned when it is loaded.
    pub program: Vec<u8>,
    /// Its arguments, in order.
    pub inputs: Vec<Tensor>,
    /// What the portable kernels gave.
    pub expected: Vec<Tensor>,
}

/// How a model fails on a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// An output is wrong; the sentence says which and how much.
    Wrong(String),
    /// The delegate took it and then refused, in its words.
    Failed(String),
    /// The process ended.
    Crashed(String),
    /// The process did not end in time.
    Hung(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Wrong(how) => write!(f, "wrong: {how}"),
            Finding::Failed(how) => write!(f, "failed: {how}"),
            Finding::Crashed(how) => write!(f, "crashed: {how}"),
            Finding::Hung(how) => write!(f, "hung: {how}"),
        }
    }
}

/// A node of a reduced model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReducedNode {
    /// Its name in the model.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// The exporting program's source line, where known.
    pub source: Option<String>,
}

/// The smallest part that fails.
#[derive(Debug, Clone)]
pub struct Reduced {
    /// How.
    pub finding: Finding,
    /// The part as a model.
    pub case: Case,
    /// Its graph image (`.dgg`).
    pub image: Vec<u8>,
    /// In execution order.
    pub nodes: Vec<ReducedNode>,
    /// No single node of it can be left out; false: there were no probes left.
    pub is_smallest: bool,
    /// Probes that were made.
    pub probes: u32,
}

/// What reducing does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReduceProgress {
    /// Nodes of the part that is tried.
    pub tried: usize,
    /// Nodes of the smallest part so far that fails.
    pub smallest: usize,
    /// Probes so far.
    pub probes: u32,
}

/// Says how a case fails on the backend; `None`: it does not.
pub type Probe<'p> = dyn FnMut(&Case) -> Result<Option<Finding>, Error> + 'p;

/// Shrinks a method of a module that [`crate::import`] made, with these arguments, by at most `max_probes` probes. `None`: nothing
/// fails.
///
/// # Errors
/// The model does not run on portable kernels, there is no such method, or a probe itself failed.
pub fn reduce(
    module: &Module,
    method: &str,
    inputs: &[Value<'_>],
    max_probes: u32,
    probe: &mut Probe<'_>,
    progress: &mut dyn FnMut(ReduceProgress),
) -> Result<Option<Reduced>, Error> {
    let mut recorded = Recorded::new(module, method, inputs)?;
    let nodes = recorded.nodes();
    let mut probes = 0;
    let mut best: Option<(Vec<NodeId>, Part, Case, Finding)> = None;
    let mut fails = |nodes: &[NodeId]| -> Result<bool, Error> {
        if probes >= max_probes {
            return Ok(false);
        }
        progress(ReduceProgress {
            tried: nodes.len(),
            smallest: best.as_ref().map_or(0, |(nodes, ..)| nodes.len()),
            probes,
        });
        let Some(part) = recorded.part(nodes)? else {
            return Ok(false);
        };
        // What does not run portably by itself says nothing of the backend.
        let Ok(case) = case(&part, method) else {
            return Ok(false);
        };
        probes += 1;
        let Some(finding) = probe(&case)? else {
            return Ok(false);
        };
        best = Some((nodes.to_vec(), part, case, finding));
        Ok(true)
    };
    if nodes.is_empty() || !fails(&nodes)? {
        return Ok(None);
    }
    minimise(&nodes, &mut fails)?;
    let Some((nodes, part, case, finding)) = best else {
        return Ok(None);
    };
    let graph = &part.module.graphs[0];
    let all: Vec<NodeId> = graph.node_ids().collect();
    let image = of_nodes(
        &part.module,
        graph,
        &all,
        &Reads::of(graph),
        Form::newest(&Versions::builtin()),
    )
    .map_err(delegraph_lower::LowerError::from)?;
    let node = |id: &NodeId| {
        let (name, op, source) = recorded.describe(*id);
        ReducedNode { name, op, source }
    };
    Ok(Some(Reduced {
        finding,
        case,
        image: image.bytes,
        nodes: nodes.iter().map(node).collect(),
        is_smallest: probes < max_probes,
        probes,
    }))
}

fn case(part: &Part, method: &str) -> Result<Case, Error> {
    let values: Vec<Value<'_>> = part.inputs.iter().map(Tensor::value).collect();
    let outputs = run_portably(part.module.clone(), method, &values)?;
    let expected: Option<Vec<Tensor>> = outputs.into_iter().collect();
    Ok(Case {
        program: portable(part.module.clone())?,
        inputs: part.inputs.clone(),
        expected: expected.ok_or_else(|| Error::Usage("an output is no tensor".to_string()))?,
    })
}

/// A probe in this process, which a delegate that crashes takes along: partitions the case for the backends of the configuration,
/// runs it, and compares by `|got - want| <= atol + rtol * |want|`. Integers are to be equal, NaN is as NaN.
///
/// # Errors
/// The case cannot be loaded at all.
pub fn probe_in_process(
    case: &Case,
    config: &Config,
    host: &Arc<Host>,
    rtol: f64,
    atol: f64,
) -> Result<Option<Finding>, Error> {
    let source = Source::from_bytes(case.program.clone(), "the reduced model");
    let mut session = Session::open(&source, config, host, LoadOptions::default())?;
    let values: Vec<Value<'_>> = case.inputs.iter().map(Tensor::value).collect();
    session.run(&values)?;
    let report = session.report();
    if report.fallbacks() > 0 {
        return Ok(Some(Finding::Failed(report.why_portable())));
    }
    for (i, want) in case.expected.iter().enumerate() {
        let Value::Tensor(got) = session.output(i)? else {
            return Ok(Some(Finding::Wrong(format!("output {i} is no tensor"))));
        };
        if let Err(how) = compare(&Tensor::of(&got), want, rtol, atol) {
            return Ok(Some(Finding::Wrong(format!("output {i}: {how}"))));
        }
    }
    Ok(None)
}

fn compare(got: &Tensor, want: &Tensor, rtol: f64, atol: f64) -> Result<(), String> {
    if (got.dtype, got.shape) != (want.dtype, want.shape) {
        return Err(format!(
            "{}[{}] in place of {}[{}]",
            got.dtype, got.shape, want.dtype, want.shape
        ));
    }
    if got.bytes == want.bytes {
        return Ok(());
    }
    let inexact = want.dtype.is_float() || want.dtype.is_complex();
    let (got, want) = (numbers(got.dtype, &got.bytes), numbers(want.dtype, &want.bytes));
    let is_near = |got: f64, want: f64| {
        let allowed = if inexact { atol + rtol * want.abs() } else { 0.0 };
        got == want || got.is_nan() && want.is_nan() || (got - want).abs() <= allowed && want.is_finite()
    };
    let far = |i: &usize| !is_near(got[*i], want[*i]);
    match (0..want.len()).find(far) {
        None if inexact => Ok(()),
        None => Err("whole numbers differ".to_string()),
        Some(i) => Err(format!("element {i} is {:?} in place of {:?}", got[i], want[i])),
    }
}
