//! A delegate as lowering sees it.

use crate::image::Offer;
use delegraph_host::{CallOptions, Delegate, DelegateError, Partition, Pass, Progress, SetError, Weights};
use delegraph_ir::NodeId;
use delegraph_tag::{Answer, Verdict};
use std::borrow::Cow;
use std::sync::Arc;

/// Hears how far a compilation is.
pub type Hear<'a> = &'a (dyn Fn(Progress<'_>) + Sync);

/// Somebody who partitions and compiles graph images: a loaded delegate, or one made up by a test.
pub trait Backend {
    /// Backend id.
    fn name(&self) -> &str;

    /// What is to be done to a graph before it is asked about it.
    fn passes(&self) -> &[Pass] {
        &[]
    }

    /// Version of the operator table that it was built for, as it says.
    fn opset(&self) -> &str {
        delegraph_abi::c::OPSET
    }

    /// Verdicts and reasons for every node of an image, if it is to be compiled for `target`.
    ///
    /// # Errors
    /// The delegate failed, does not have the target (`INVALID_ARGUMENT`), or answered out of contract.
    fn partition(&self, image: &[u8], target: &str) -> Result<Partition, DelegateError>;

    /// Compiles an image to a blob in its envelope.
    ///
    /// # Errors
    /// The delegate refused; the error names the node where it can.
    fn compile(&self, image: &[u8], weights: &dyn Weights, target: &str) -> Result<Vec<u8>, DelegateError>;

    /// [`Backend::compile`], for somebody who hears how far it is.
    ///
    /// # Errors
    /// As there.
    fn compile_heard(
        &self,
        image: &[u8],
        weights: &dyn Weights,
        target: &str,
        _hear: Hear<'_>,
    ) -> Result<Vec<u8>, DelegateError> {
        self.compile(image, weights, target)
    }

    /// Whether it has [`Backend::compile_set`].
    fn compiles_sets(&self) -> bool {
        false
    }

    /// Compiles graphs that one program uses together: a blob for each.
    ///
    /// # Errors
    /// As [`Backend::compile`], with the graph where it can be named.
    fn compile_set(&self, graphs: &[(&[u8], &dyn Weights)], target: &str) -> Result<Vec<Vec<u8>>, SetError> {
        let compile = |(number, (image, weights)): (usize, &(&[u8], &dyn Weights))| {
            let compiled = self.compile(image, *weights, target);
            compiled.map_err(|error| SetError {
                graph: Some(number),
                error,
            })
        };
        graphs.iter().enumerate().map(compile).collect()
    }

    /// [`Backend::compile_set`], for somebody who hears how far it is.
    ///
    /// # Errors
    /// As there.
    fn compile_set_heard(
        &self,
        graphs: &[(&[u8], &dyn Weights)],
        target: &str,
        _hear: Hear<'_>,
    ) -> Result<Vec<Vec<u8>>, SetError> {
        self.compile_set(graphs, target)
    }
}

fn heard(hear: Hear<'_>) -> CallOptions<'_> {
    CallOptions {
        progress: Some(hear),
        ..CallOptions::default()
    }
}

impl Backend for Arc<Delegate> {
    fn name(&self) -> &str {
        self.backend()
    }

    fn passes(&self) -> &[Pass] {
        Delegate::passes(self)
    }

    fn opset(&self) -> &str {
        &self.info().opset
    }

    fn partition(&self, image: &[u8], target: &str) -> Result<Partition, DelegateError> {
        Delegate::partition(self, image, target)
    }

    fn compile(&self, image: &[u8], weights: &dyn Weights, target: &str) -> Result<Vec<u8>, DelegateError> {
        Delegate::compile(self, image, weights, target)
    }

    fn compile_heard(
        &self,
        image: &[u8],
        weights: &dyn Weights,
        target: &str,
        hear: Hear<'_>,
    ) -> Result<Vec<u8>, DelegateError> {
        self.compile_with(image, weights, target, &heard(hear))
    }

    fn compiles_sets(&self) -> bool {
        Delegate::compiles_sets(self)
    }

    fn compile_set(&self, graphs: &[(&[u8], &dyn Weights)], target: &str) -> Result<Vec<Vec<u8>>, SetError> {
        Delegate::compile_set(self, graphs, target)
    }

    fn compile_set_heard(
        &self,
        graphs: &[(&[u8], &dyn Weights)],
        target: &str,
        hear: Hear<'_>,
    ) -> Result<Vec<Vec<u8>>, SetError> {
        self.compile_set_with(graphs, target, &heard(hear))
    }
}

/// Asks about an offer that is already written. A node that several nodes of the image stand for is taken if all of them are;
/// one that none stands for costs nothing.
///
/// # Errors
/// The delegate failed.
pub(crate) fn ask(backend: &dyn Backend, target: &str, offer: &Offer) -> Result<Answer, DelegateError> {
    let nodes = &offer.image.nodes;
    let offered = |refusal: &Option<Cow<'static, str>>| match refusal {
        Some(reason) => Verdict::no(reason.clone()),
        None => Verdict::yes(),
    };
    let mut verdicts: Vec<Verdict> = offer.refusals.iter().map(offered).collect();
    if nodes.is_empty() {
        return Ok(Answer {
            verdicts,
            atomic_sets: Vec::new(),
        });
    }
    let partition = backend.partition(&offer.image.bytes, target)?;
    let mut given = partition.verdicts.into_iter();
    for id in nodes {
        // One that is missing is a refusal without a reason.
        let (supported, reason) = given.next().map_or_else(Default::default, |v| (v.supported, v.reason));
        let verdict = &mut verdicts[id.index()];
        if verdict.supported {
            *verdict = Verdict { supported, reason };
        }
    }
    let in_graph = |set: Vec<u32>| -> Vec<NodeId> {
        let mut set: Vec<NodeId> = set.iter().filter_map(|n| nodes.get(*n as usize).copied()).collect();
        set.sort_unstable();
        set.dedup();
        set
    };
    Ok(Answer {
        verdicts,
        atomic_sets: partition.atomic_sets.into_iter().map(in_graph).collect(),
    })
}
