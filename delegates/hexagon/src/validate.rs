//! Verdicts: each node is lowered alone, and what comes of it is shown to the library's validator for the chip, whose words are the reason of a
//! refusal. Without the library the table alone answers.

use crate::caps::{self, Refusal};
use crate::flow::Flow;
use crate::graph::Graph;
use crate::sys::Qnn;
use delegraph_sdk::image::{ImageView, NodeView, Sizes};
use delegraph_sdk::{Context, Partition, Reason, Verdict};

/// Asks about every node. `integer`: none on floats is taken.
pub fn partition(image: &ImageView<'_>, qnn: Option<&Qnn>, integer: bool, context: &Context<'_>) -> Partition {
    let sizes = Sizes::new(image);
    let total = u64::from(image.node_count());
    let mut done = 0;
    let mut flow = Flow::default();
    Partition::each(image, |node| {
        done += 1;
        if context.is_cancelled() {
            return Verdict::Refuse(Reason::OTHER, "the caller gave up".into());
        }
        context.progress(done, total, "asking the QNN library");
        match accept(image, &node, &sizes, qnn, integer).and_then(|()| flow.check(&node)) {
            Ok(()) => {
                flow.take(&node);
                Verdict::Take
            }
            Err(refusal) => refusal.into(),
        }
    })
}

/// Whether a node is taken that stands before all others, by the table alone: what the manifest claims.
///
/// # Errors
/// Why not.
pub fn first(image: &ImageView<'_>, node: &NodeView<'_>, sizes: &Sizes) -> Result<(), Refusal> {
    Flow::default().check(node)?;
    accept(image, node, sizes, None, false)
}

/// Whether a node is taken.
///
/// # Errors
/// Why not.
pub fn accept(
    image: &ImageView<'_>,
    node: &NodeView<'_>,
    sizes: &Sizes,
    qnn: Option<&Qnn>,
    integer: bool,
) -> Result<(), Refusal> {
    let graph = caps::alone(image, node, sizes)?;
    if integer && let Some(tensor) = graph.tensors.iter().find(|tensor| tensor.data_type.is_float()) {
        return Err(Refusal::dtype(format!(
            "`{}` is of floats, and the option `precision` is `integer`",
            tensor.name
        )));
    }
    // The library makes no context of a graph that is given nothing.
    if graph.inputs.iter().all(|port| port.tensor.is_none()) {
        return Err(Refusal::new(
            Reason::OTHER,
            "it reads nothing that is computed or given: its result is a constant",
        ));
    }
    match qnn {
        Some(qnn) => validated(&graph, qnn),
        None => Ok(()),
    }
}

/// Shows a graph's nodes to the library, one by one.
fn validated(graph: &Graph, qnn: &Qnn) -> Result<(), Refusal> {
    graph.nodes.iter().try_for_each(|node| {
        qnn.validate(graph, node)
            .map_err(|words| Refusal::new(Reason::OTHER, format!("the QNN library refuses {}: {words}", node.op)))
    })
}

/// The first node of a graph that the library refuses as it stands there, among others and with its real constants.
pub fn first_refused(graph: &Graph, qnn: &Qnn) -> Option<usize> {
    graph.nodes.iter().position(|node| qnn.validate(graph, node).is_err())
}
