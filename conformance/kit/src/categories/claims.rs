//! What the manifest claims against what the library does: manifest ⊆ partition.

use crate::case::{Case, Failure, Outcome, Trial, case};
use crate::driver::{Library, Script};
use crate::support::{Asker, ask_all, questions_for, table};
use crate::workload::Bench;
use delegraph_abi::Status;
use delegraph_host::Manifest;
use delegraph_lower::Operators;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Broken promises that a reason names.
const NAMED: usize = 5;

/// The cases.
pub const CASES: &[Case] = &[
    case(
        "partition/claims-exist",
        "Every operator and parameter that the manifest claims exists.",
        claims_exist,
    ),
    case(
        "partition/claims-taken",
        "Every node that the manifest claims is taken, for each operator, dtype and rank that the kit has a node of.",
        claims_taken,
    )
    .limit(180),
    case(
        "partition/claims-targets",
        "A graph that it takes compiles for each target that the manifest names.",
        claims_targets,
    ),
    case(
        "partition/target",
        "`dg_graph.target` names what is asked about: every node has an answer for each target of the manifest, and what is taken for one compiles for it. One that is not there is refused by name, or answered.",
        target,
    ),
    case(
        "partition/claims-options",
        "The schema of options that the manifest names is the one that the library gives.",
        claims_options,
    ),
];

/// The manifest, of a library that has one.
fn manifest<'s>(trial: &Trial<'s>) -> Result<&'s Manifest, Failure> {
    match &trial.subject.manifest {
        Some((_, manifest)) => Ok(manifest),
        None => Err(Failure::skip("there is no manifest beside the library")),
    }
}

/// The manifest, where it claims something.
fn claiming<'s>(trial: &Trial<'s>) -> Result<&'s Manifest, Failure> {
    let manifest = manifest(trial)?;
    match manifest.claims.is_empty() {
        true => Err(Failure::skip("the manifest claims nothing: no `[[op]]`")),
        false => Ok(manifest),
    }
}

fn claims_exist(trial: &mut Trial<'_>) -> Outcome {
    let problems = claiming(trial)?.claims.problems(&Operators);
    match problems.first() {
        None => Ok(()),
        Some(first) => Err(Failure::fail(match problems.len() {
            1 => first.clone(),
            more => format!("{first} (and {} more)", more - 1),
        })),
    }
}

fn claims_taken(trial: &mut Trial<'_>) -> Outcome {
    let manifest = claiming(trial)?;
    if !manifest.roles.iter().any(|role| role == "compile") {
        return Err(Failure::fail(
            "the manifest claims operators, and its library does not compile: `[[op]]` belongs to the half that does",
        ));
    }
    let (mut questions, claims) = questions_for(trial.subject)?;
    trial.measure("nodes of the kit", questions.len() as f64);
    questions.retain(|question| question.is_claimed(&claims));
    let mut asker = Asker::new(trial.subject)?;
    let asked = ask_all(questions, &claims, &mut |image| asker.ask(image))?;
    let operators: BTreeSet<&str> = asked.iter().map(|one| one.question.op.as_str()).collect();
    let total = table(&asked).total();
    trial.measure("nodes claimed", total.claimed as f64);
    trial.measure("operators claimed", operators.len() as f64);
    trial.record.claim = delegraph_runner::Claim::Claimed;
    let mut named = BTreeSet::new();
    let mut broken = Vec::new();
    for one in asked.iter().filter(|one| one.is_broken_promise()) {
        if let Err(reason) = &one.taken
            && named.insert((&one.question.op, one.question.dtype, one.question.rank))
            && broken.len() < NAMED
        {
            let name = one.question.name();
            broken.push(format!("{name}, is refused: {reason}"));
            let file = format!("{}.dgg", one.question.name().replace(['`', ':', ' ', ','], "_"));
            trial.keep(&file, one.question.image.clone());
        }
    }
    match named.len() {
        0 if total.claimed == 0 => Err(Failure::skip(
            "the kit has no node that the manifest claims: its claims are not tested here",
        )),
        0 => Ok(()),
        count => Err(Failure::claimed(format!(
            "{} nodes of {count} claimed kinds are refused: {}",
            total.broken,
            broken.join("; ")
        ))),
    }
}

fn claims_targets(trial: &mut Trial<'_>) -> Outcome {
    let targets = &manifest(trial)?.targets;
    if targets.is_empty() {
        return Err(Failure::skip("the manifest names no targets"));
    }
    let bench = Bench::open(trial)?;
    for target in targets {
        let script = Script::default();
        let compiled = bench
            .instance
            .compile(&bench.workload.image, &bench.weights, target, &script);
        if let Err(refused) = compiled {
            let reason = Failure::from(refused).reason;
            return Err(Failure::claimed(format!(
                "the manifest names the target `{target}`, and what compiles for the usual one does not for it: {reason}"
            )));
        }
    }
    Ok(())
}

fn target(trial: &mut Trial<'_>) -> Outcome {
    let named = match &trial.subject.manifest {
        Some((_, manifest)) => manifest.targets.clone(),
        None => Vec::new(),
    };
    let bench = Bench::open(trial)?;
    let (graph, script) = (&bench.workload, Script::default());
    let ask = |target: &str| bench.instance.partition_for(&graph.image, graph.nodes, target, &script);
    for target in std::iter::once("").chain(named.iter().map(String::as_str)) {
        let what = format!("asked for the target `{target}`");
        let answers = ask(target).map_err(|refused| Failure::fail(format!("{what}: {refused}")))?;
        let complete = answers.complete(graph.nodes);
        complete.map_err(|problem| Failure::fail(format!("{what}: {problem}")))?;
        if !answers.takes_all(graph.nodes) {
            continue;
        }
        let compiled = bench.instance.compile(&graph.image, &bench.weights, target, &script);
        if let Err(refused) = compiled {
            return Err(Failure::fail(format!(
                "{what}, it takes a graph that does not compile: {refused}"
            )));
        }
    }
    // A library that is older than the field does not see it.
    match ask("x-delegraph-kit") {
        Ok(answers) => answers
            .complete(graph.nodes)
            .map_err(|problem| Failure::fail(format!("asked for a target that is not there: {problem}"))),
        Err(refused) if refused.message.is_empty() => Err(Failure::fail(format!(
            "asked for a target that is not there: {refused}; nobody learns what is wrong"
        ))),
        Err(refused) if refused.status == Status::INVALID_ARGUMENT => Ok(()),
        Err(refused) => Err(Failure::fail(format!(
            "asked for a target that is not there: {refused}; DG_E_INVALID_ARGUMENT is right"
        ))),
    }
}

fn claims_options(trial: &mut Trial<'_>) -> Outcome {
    let manifest = manifest(trial)?;
    let (Some(name), Some((path, _))) = (&manifest.options_schema, &trial.subject.manifest) else {
        return Err(Failure::skip("the manifest names no schema of options"));
    };
    let file = path.with_file_name(name);
    let shown = name.display();
    let text = std::fs::read_to_string(&file)
        .map_err(|error| format!("the manifest names `{shown}` as the schema of its options: {error}"))?;
    let json = |what: &str, text: &str| -> Result<serde_json::Value, Failure> {
        serde_json::from_str(text).map_err(|error| Failure::fail(format!("{what} is no JSON: {error}")))
    };
    let named = json(&format!("`{shown}`"), &text)?;
    let library = Arc::new(Library::open(trial.subject)?);
    let Some(own) = library.options_schema()? else {
        return Err(Failure::fail(format!(
            "the manifest names `{shown}`, and the library gives no schema of options"
        )));
    };
    match json("the library's schema of options", &own)? == named {
        true => Ok(()),
        false => Err(Failure::fail(format!(
            "`{shown}` says something else than the schema that the library gives"
        ))),
    }
}
