//! Verdicts on nodes.

mod answers;
mod shapes;
mod taken;

use crate::case::{Case, Failure, Outcome, case};
use crate::driver::{Answers, Instance, Script};
use delegraph_abi::DType;
use delegraph_abi::c::Reason;
use delegraph_abi::image::{Arg, ImageBuilder, Type};

/// The cases.
pub const CASES: &[Case] = &[
    case(
        "partition/every-node",
        "Every node of a graph needs exactly one answer, also nodes that the delegate cannot know.",
        answers::every_node,
    ),
    case(
        "partition/reasons",
        "An answer is `supported` 1 with DG_REASON_NONE, or 0 with a reason of the contract and a text.",
        answers::reasons,
    ),
    case(
        "partition/deterministic",
        "The same image gives the same answers: twice, in another instance, on another thread.",
        answers::deterministic,
    ),
    case(
        "partition/atomic-sets",
        "Atomic sets name nodes of the graph, each at most once, and are the same each time.",
        answers::atomic_sets,
    ),
    case(
        "partition/whole-and-parts",
        "A graph in which the delegate takes some nodes and not others is answered node by node, whatever stands beside them.",
        answers::whole_and_parts,
    ),
    case(
        "partition/empty",
        "A graph without nodes is answered with DG_OK and no verdicts.",
        shapes::empty,
    ),
    case(
        "partition/taken-compiles",
        "What is taken compiles, loads and runs. A refusal by `compile` that names the node is allowed (a warning): the host tries without it.",
        taken::compiles,
    )
    .limit(60),
    case(
        "partition/ten-thousand-nodes",
        "A graph of 10,000 nodes is answered within 10 s, and four times as many nodes take less than ten times as long.",
        shapes::ten_thousand,
    )
    .limit(60),
    case(
        "partition/dynamic-sizes",
        "Graphs with sizes that are known only at run time, and computed from such, are answered.",
        shapes::dynamic_sizes,
    ),
    case(
        "partition/huge-sizes",
        "Constant sizes of up to 2^62 are answered: `partition` needs no memory for tensors.",
        shapes::huge_sizes,
    ),
    case(
        "partition/weights-unseen",
        "`dg_graph.weights` is NULL in `partition`; the host's functions for weights and blobs are not called there.",
        answers::weights_unseen,
    ),
    case(
        "partition/no-verdict-after-refusal",
        "Every node needs an answer: when the host refuses one, `partition` has not succeeded, and says so by its status.",
        answers::refused_verdict,
    ),
];

fn ask(instance: &Instance, what: &str, image: &[u8], nodes: u32) -> Result<Answers, Failure> {
    let answers = instance.partition(image, nodes, &Script::default());
    let answers = answers.map_err(|refused| Failure::fail(format!("{what}: {refused}")))?;
    answers
        .complete(nodes)
        .map_err(|problem| Failure::fail(format!("{what}: {problem}")))?;
    Ok(answers)
}

fn finish(image: ImageBuilder) -> Result<Vec<u8>, Failure> {
    image
        .finish()
        .map_err(|error| Failure::fail(format!("the kit's image: {error}")))
}

/// A chain that has every kind of node by turns: taken by most, by few, by nobody.
pub fn mixed(normal_form: u32, nodes: u32) -> Result<Vec<u8>, Failure> {
    let mut image = ImageBuilder::new("forward");
    image.normal_form(normal_form);
    let dims = [image.int(3), image.int(5)];
    let ty = Type::tensor(DType::F32, &dims);
    let x = image.input("x", &ty);
    let mut last = x;
    for i in 0..nodes {
        let (op, args) = match i % 8 {
            0 => ("aten::add.Tensor", vec![Arg::Value(last), Arg::Value(x), Arg::Int(1)]),
            1 => ("aten::relu", vec![Arg::Value(last)]),
            2 => ("custom::x", vec![Arg::Value(last)]),
            3 => ("aten::mul.Tensor", vec![Arg::Value(last), Arg::Value(last)]),
            4 => (
                "aten::no_such_operator",
                vec![Arg::Value(last), Arg::None, Arg::Str("x".to_string())],
            ),
            5 => ("aten::sigmoid", vec![Arg::Value(last)]),
            6 => ("x.vendor::\u{e4}", vec![]),
            _ => ("aten::softmax.int", vec![Arg::Value(last), Arg::Int(-1), Arg::None]),
        };
        last = image.node(&format!("n{i}"), op, &args, &[(&format!("y{i}"), &ty)], "model.py:1")[0];
    }
    image.output(last);
    finish(image)
}

/// The first answer of a graph that is none of the contract's.
fn judge(what: &str, answers: &Answers) -> Outcome {
    for (node, answer) in &answers.nodes {
        let said = match (answer.supported, answer.reason) {
            (1, Reason::NONE) => continue,
            (0, Reason::NONE) => "`supported` 0 with DG_REASON_NONE".to_string(),
            (0, reason) if reason.0 > Reason::OTHER.0 => format!("the reason {}, which does not exist", reason.0),
            (0, _) if answer.text.trim().is_empty() => "a refusal without a text".to_string(),
            (0, _) => continue,
            (1, reason) => format!("`supported` 1 with the reason {}", reason.0),
            (other, _) => format!("`supported` {other}"),
        };
        return Err(Failure::fail(format!("{what}: node {node} was answered with {said}")));
    }
    Ok(())
}
