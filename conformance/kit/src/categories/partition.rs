//! Verdicts on nodes.

use super::basis::{compiler, warn};
use super::small::{Small, bytes, graphs};
use crate::case::{Case, Failure, Outcome, Trial, case};
use crate::driver::{Answers, HostWeights, Instance, Place, Script, Tensor};
use crate::workload::{Kind, Workload, normal_form};
use delegraph_abi::DType;
use delegraph_abi::c::{self, Reason};
use delegraph_abi::image::{Arg, ExprOp, ImageBuilder, Type};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The cases.
pub const CASES: &[Case] = &[
    case(
        "partition/every-node",
        "Every node of a graph needs exactly one answer, also nodes that the delegate cannot know.",
        every_node,
    ),
    case(
        "partition/reasons",
        "An answer is `supported` 1 with DG_REASON_NONE, or 0 with a reason of the contract and a text.",
        reasons,
    ),
    case(
        "partition/deterministic",
        "The same image gives the same answers: twice, in another instance, on another thread.",
        deterministic,
    ),
    case(
        "partition/atomic-sets",
        "Atomic sets name nodes of the graph, each at most once, and are the same each time.",
        atomic_sets,
    ),
    case(
        "partition/whole-and-parts",
        "A graph in which the delegate takes some nodes and not others is answered node by node, whatever stands beside them.",
        whole_and_parts,
    ),
    case(
        "partition/empty",
        "A graph without nodes is answered with DG_OK and no verdicts.",
        empty,
    ),
    case(
        "partition/taken-compiles",
        "What is taken compiles, loads and runs. A refusal by `compile` that names the node is allowed (a warning): the host tries without it.",
        taken_compiles,
    )
    .limit(60),
    case(
        "partition/ten-thousand-nodes",
        "A graph of 10,000 nodes is answered within 10 s, and four times as many nodes take less than ten times as long.",
        ten_thousand,
    )
    .limit(60),
    case(
        "partition/dynamic-sizes",
        "Graphs with sizes that are known only at run time, and computed from such, are answered.",
        dynamic_sizes,
    ),
    case(
        "partition/huge-sizes",
        "Constant sizes of up to 2^62 are answered: `partition` needs no memory for tensors.",
        huge_sizes,
    ),
    case(
        "partition/weights-unseen",
        "`dg_graph.weights` is NULL in `partition`; the host's functions for weights and blobs are not called there.",
        weights_unseen,
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

fn every_node(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let form = normal_form(trial);
    let all = graphs(form);
    let mut taken = 0;
    for small in &all {
        trial.step(&format!("a graph of {}", small.name));
        let answers = ask(&instance, &format!("a graph of {}", small.name), &small.image, 1)?;
        taken += u32::from(answers.takes(0));
    }
    trial.measure("graphs", all.len() as f64);
    trial.measure("taken", f64::from(taken));
    ask(&instance, "a graph of 32 mixed nodes", &mixed(form, 32)?, 32)?;
    Ok(())
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

fn reasons(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let form = normal_form(trial);
    for small in graphs(form) {
        let what = format!("a graph of {}", small.name);
        let answers = ask(&instance, &what, &small.image, 1)?;
        judge(&what, &answers)?;
        if small.name.contains("no_such_operator") || small.name.contains("custom::") {
            if answers.takes(0) {
                return Err(Failure::fail(format!(
                    "{what}: it takes an operator that does not exist"
                )));
            }
            let reason = answers.nodes[0].1.reason;
            if reason != Reason::UNKNOWN_OP {
                return warn(&[format!(
                    "{what}: the reason is {}, where DG_REASON_UNKNOWN_OP would tell people what to do",
                    reason.0
                )]);
            }
        }
    }
    judge(
        "a graph of 32 mixed nodes",
        &ask(&instance, "a graph of 32 mixed nodes", &mixed(form, 32)?, 32)?,
    )
}

fn deterministic(trial: &mut Trial<'_>) -> Outcome {
    let (library, instance) = compiler(trial)?;
    let form = normal_form(trial);
    let mut images: Vec<(String, Vec<u8>, u32)> = vec![("a graph of 32 mixed nodes".to_string(), mixed(form, 32)?, 32)];
    images.extend(
        graphs(form)
            .into_iter()
            .map(|small| (format!("a graph of {}", small.name), small.image, 1)),
    );
    let other = library.start(&trial.subject.options, &Script::default())?;
    for (what, image, nodes) in &images {
        let first = ask(&instance, what, image, *nodes)?;
        let from = |answers: &Answers| {
            let mut nodes = answers.nodes.clone();
            nodes.sort_by_key(|(node, _)| *node);
            (nodes, answers.sets.clone())
        };
        let thread = std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&instance, what, image, *nodes));
            asked
                .join()
                .unwrap_or_else(|_| Err(Failure::fail("the kit's thread panicked")))
        })?;
        for (who, again) in [
            ("the second time", ask(&instance, what, image, *nodes)?),
            ("in another instance", ask(&other, what, image, *nodes)?),
            ("on another thread", thread),
        ] {
            if from(&again) != from(&first) {
                let node = first
                    .nodes
                    .iter()
                    .map(|(node, _)| *node)
                    .find(|node| first.takes(*node) != again.takes(*node));
                let place = node.map_or("in its texts or sets".to_string(), |node| format!("for node {node}"));
                return Err(Failure::fail(format!(
                    "{what}: `partition` answers otherwise {who}, {place}"
                )));
            }
        }
    }
    Ok(())
}

fn atomic_sets(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let image = mixed(normal_form(trial), 64)?;
    let what = "a graph of 64 mixed nodes";
    let first = ask(&instance, what, &image, 64)?;
    let mut owner = [None; 64];
    for (i, set) in first.sets.iter().enumerate() {
        for node in set {
            match owner.get_mut(*node as usize) {
                None => return Err(Failure::fail(format!("`part_atomic_set` names node {node} of 64"))),
                Some(slot @ None) => *slot = Some(i),
                Some(Some(other)) if *other == i => {
                    return Err(Failure::fail(format!(
                        "`part_atomic_set` names node {node} twice in one set"
                    )));
                }
                // Sets that overlap are one set, in effect.
                Some(Some(_)) => {}
            }
            if !first.takes(*node) {
                return warn(&[format!(
                    "`part_atomic_set` names node {node}, which is not taken: the set never is"
                )]);
            }
        }
    }
    match ask(&instance, what, &image, 64)?.sets == first.sets {
        true => Ok(()),
        false => Err(Failure::fail("`part_atomic_set` names other sets the second time")),
    }
}

fn whole_and_parts(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let form = normal_form(trial);
    let image = mixed(form, 16)?;
    let answers = ask(&instance, "a graph of 16 mixed nodes", &image, 16)?;
    for (node, op) in [
        (2, "custom::x"),
        (4, "aten::no_such_operator"),
        (6, "x.vendor::\u{e4}"),
        (10, "custom::x"),
    ] {
        if answers.takes(node) {
            return Err(Failure::fail(format!(
                "it takes node {node}, `{op}`, which does not exist"
            )));
        }
    }
    trial.measure(
        "taken of 16",
        (0..16).filter(|node| answers.takes(*node)).count() as f64,
    );
    // A delegate may refuse in a graph what it takes alone (cost, memory), and the other way round, but has to say so.
    judge("a graph of 16 mixed nodes", &answers)
}

fn empty(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let form = normal_form(trial);
    let mut nothing = ImageBuilder::new("");
    nothing.normal_form(form);
    ask(&instance, "a graph of nothing", &finish(nothing)?, 0)?;
    let mut through = ImageBuilder::new("forward");
    through.normal_form(form);
    let dims = [through.int(3)];
    let ty = Type::tensor(DType::F32, &dims);
    let x = through.input("x", &ty);
    through.output(x);
    through.output(x);
    ask(&instance, "a graph whose outputs are its input", &finish(through)?, 0)?;
    Ok(())
}

/// Compiles, loads and runs a graph that was taken. What is wrong with it, and how much.
pub fn follow(trial: &Trial<'_>, instance: &Instance, small: &Small) -> Result<(), Failure> {
    let script = Script::default();
    let what = format!("a graph of {}", small.name);
    let weights = Arc::new(HostWeights::default());
    let blob = match instance.compile(&small.image, &weights, "", &script) {
        Ok(blob) => blob,
        Err(refused) if refused.node == Some(0) => {
            return Err(Failure::warning(format!("{what}: `partition` takes it, {refused}")));
        }
        Err(refused) => {
            return Err(Failure::fail(format!(
                "{what}: `partition` takes it, {refused} (and no node is named)"
            )));
        }
    };
    if blob.sections.is_empty() {
        return Err(Failure::fail(format!("{what}: `compile` wrote no section")));
    }
    if !instance.library.has(c::Feature::RUN) {
        return Ok(());
    }
    let placed = |tensor: Result<Tensor, String>| match blob.requirements.is_empty() {
        true => tensor,
        false => tensor.and_then(|tensor| tensor.aligned(4096)),
    };
    let wrong = |text: String| Failure::fail(format!("{what}: {text}"));
    let mut session = instance
        .load(&blob, &weights, trial.subject.device, &script)
        .map_err(|refused| wrong(refused.to_string()))?;
    let inputs = small.inputs.iter();
    let inputs = inputs.map(|(dtype, sizes)| placed(Tensor::input(*dtype, sizes, &bytes(*dtype, sizes), Place::End)));
    let inputs: Vec<Tensor> = inputs.collect::<Result<_, _>>()?;
    let outputs = small.outputs.iter();
    let outputs = outputs.map(|(dtype, sizes)| placed(Tensor::output(*dtype, sizes, Place::End)));
    let mut outputs: Vec<Tensor> = outputs.collect::<Result<_, _>>()?;
    session
        .run(&inputs, &mut outputs, &script)
        .map_err(|refused| wrong(refused.to_string()))?;
    for (i, (output, (_, sizes))) in outputs.iter().zip(&small.outputs).enumerate() {
        if let Some(distance) = output.memory.strayed() {
            return Err(wrong(format!(
                "it wrote outside of output {i}, {distance} bytes from it"
            )));
        }
        if output.sizes != *sizes {
            return Err(wrong(format!(
                "output {i} has sizes {:?}, where {sizes:?} are right",
                output.sizes
            )));
        }
    }
    Ok(())
}

fn taken_compiles(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let (mut taken, mut warnings) = (0u32, Vec::new());
    for small in graphs(normal_form(trial)) {
        let answers = ask(&instance, &format!("a graph of {}", small.name), &small.image, 1)?;
        if !answers.takes(0) {
            continue;
        }
        taken += 1;
        trial.step(&format!("a graph of {}", small.name));
        match follow(trial, &instance, &small) {
            Ok(()) => {}
            Err(warning) if warning.verdict == delegraph_runner::Verdict::QualityWarning => {
                warnings.push(warning.reason)
            }
            Err(failure) => {
                trial.keep("graph.dgg", small.image);
                return Err(failure);
            }
        }
    }
    trial.measure("taken", f64::from(taken));
    if taken == 0 {
        return Err(Failure::skip("not claimed: it takes none of the kit's small graphs"));
    }
    warn(&warnings)
}

fn ten_thousand(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let form = normal_form(trial);
    let time = |nodes: u32| -> Result<Duration, Failure> {
        let image = mixed(form, nodes)?;
        let started = Instant::now();
        let answers = instance.partition(&image, nodes, &Script::default())?;
        let took = started.elapsed();
        // The kit's own look at the answers is not timed.
        answers.complete(nodes)?;
        Ok(took)
    };
    // Whatever is made once is made before.
    time(100)?;
    let quarter = time(2_500)?.min(time(2_500)?);
    let whole = time(10_000)?;
    trial.measure("2500 nodes (ms)", quarter.as_secs_f64() * 1e3);
    trial.measure("10000 nodes (ms)", whole.as_secs_f64() * 1e3);
    if whole > Duration::from_secs(10) {
        return Err(Failure::fail(format!(
            "`partition` took {:.1} s for 10,000 nodes",
            whole.as_secs_f64()
        )));
    }
    // Below a fifth of a second nobody waits, and the clock is in the way.
    if whole > Duration::from_millis(200) && whole > quarter * 10 {
        return Err(Failure::fail(format!(
            "`partition` took {:.0} ms for 2,500 nodes, and {:.0} ms for 10,000",
            quarter.as_secs_f64() * 1e3,
            whole.as_secs_f64() * 1e3
        )));
    }
    Ok(())
}

fn dynamic_sizes(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    for (what, max) in [("bounded", Some(512)), ("unbounded", None)] {
        let mut image = ImageBuilder::new("forward");
        image.normal_form(normal_form(trial));
        let (n, m) = (image.symbol("s0", 1, max), image.symbol("s1", 0, max));
        let two = image.int(2);
        // Deep, as sizes of exported models are: (((s0 * 2 + s1) // 2) * 2 + s1) // 2 ...
        let mut deep = n;
        for _ in 0..200 {
            let product = image.op(ExprOp::MUL, &[deep, two]);
            let sum = image.op(ExprOp::ADD, &[product, m]);
            deep = image.op(ExprOp::FLOOR_DIV, &[sum, two]);
        }
        let ty = Type::tensor(DType::F32, &[n, m]);
        let other = Type::tensor(DType::F32, &[deep]);
        let x = image.input("x", &ty);
        let k = image.input("k", &Type::Int(n));
        let y = image.node("relu", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
        let view = [Arg::Value(y), Arg::Ints(vec![deep])];
        let z = image.node("view", "aten::view", &view, &[("z", &other)], "")[0];
        let add = [Arg::Value(z), Arg::Value(k), Arg::Expr(n)];
        let w = image.node("add", "aten::add.Tensor", &add, &[("w", &other)], "")[0];
        image.output(w);
        let what = format!("a graph with {what} sizes");
        judge(&what, &ask(&instance, &what, &finish(image)?, 3)?)?;
    }
    Ok(())
}

fn huge_sizes(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    for sizes in [
        vec![1i64 << 40],
        vec![1 << 40, 1 << 40],
        vec![1 << 62],
        vec![i64::MAX, i64::MAX, 2],
        vec![0, i64::MAX],
    ] {
        let mut image = ImageBuilder::new("forward");
        image.normal_form(normal_form(trial));
        let dims: Vec<_> = sizes.iter().map(|size| image.int(*size)).collect();
        let ty = Type::tensor(DType::F32, &dims);
        let x = image.input("x", &ty);
        let y = image.node("relu", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
        let add = [Arg::Value(y), Arg::Value(x), Arg::Int(1)];
        let z = image.node("add", "aten::add.Tensor", &add, &[("z", &ty)], "")[0];
        image.output(z);
        let what = format!("a graph of f32{sizes:?}");
        trial.step(&what);
        judge(&what, &ask(&instance, &what, &finish(image)?, 2)?)?;
    }
    Ok(())
}

fn weights_unseen(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let workload = Workload::new(Kind::Linear, DType::F32, 3, 5, 1, normal_form(trial));
    let script = Script::default();
    instance.partition(&workload.image, 1, &script)?.complete(1)?;
    for function in [
        "weight_map",
        "weight_retain",
        "weight_release",
        "weight_unmap",
        "weight_share_key",
    ] {
        if script.heard.count(function) > 0 {
            return Err(Failure::fail(format!("`partition` called `{function}`")));
        }
    }
    Ok(())
}
