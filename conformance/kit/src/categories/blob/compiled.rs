//! What `compile` gives, and where it can be loaded.

use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{compiler, with_weights};
use crate::driver::{Compiled, HostWeights, Instance, Script};
use crate::lists::sha256;
use crate::subject::Subject;
use crate::workload::{Bench, Kind, Workload, normal_form};
use delegraph_abi::DType;
use std::sync::Arc;

fn fail(text: impl Into<String>) -> Failure {
    Failure::fail(text)
}

fn differs(what: &str, first: &Compiled, second: &Compiled) -> Outcome {
    let warn = |text: String| Failure::warning(text);
    let names = |blob: &Compiled| -> Vec<String> { blob.sections.iter().map(|(name, ..)| name.clone()).collect() };
    if names(first) != names(second) {
        return Err(warn(format!(
            "{what}: the sections are {:?}, they were {:?}",
            names(second),
            names(first)
        )));
    }
    for ((name, align, bytes), (_, other_align, other)) in first.sections.iter().zip(&second.sections) {
        if align != other_align || bytes.len() != other.len() {
            return Err(warn(format!(
                "{what}: section `{name}` has {} bytes at {other_align}, it had {} at {align}",
                other.len(),
                bytes.len()
            )));
        }
        if let Some(at) = bytes.iter().zip(other).position(|(a, b)| a != b) {
            return Err(warn(format!(
                "{what}: byte {at} of section `{name}` is {:#04x}, it was {:#04x}",
                other[at], bytes[at]
            )));
        }
    }
    let stated = |blob: &Compiled| {
        (
            blob.requirements.clone(),
            blob.states.clone(),
            blob.meta.precision.clone(),
        )
    };
    match stated(first) == stated(second) {
        true => Ok(()),
        false => Err(warn(format!(
            "{what}: it states {:?}, it stated {:?}",
            stated(second),
            stated(first)
        ))),
    }
}

/// The graphs whose compilation is compared.
const GRAPHS: [(Kind, DType, u32); 7] = [
    (Kind::Add, DType::F32, 1),
    (Kind::Add, DType::F32, 9),
    (Kind::Relu, DType::F32, 3),
    (Kind::Linear, DType::F32, 1),
    (Kind::Matmul, DType::F32, 1),
    (Kind::Softmax, DType::F16, 2),
    (Kind::QuantizedAdd, DType::I8, 2),
];

/// Hands each graph of [`GRAPHS`] that an instance takes to `body`, with its name and its weights; how many there are.
fn each_taken(
    trial: &Trial<'_>,
    instance: &Instance,
    mut body: impl FnMut(&str, &Workload, &Arc<HostWeights>) -> Outcome,
) -> Result<u32, Failure> {
    let mut taken = 0;
    for (kind, dtype, nodes) in GRAPHS {
        let workload = Workload::new(kind, dtype, 3, 5, nodes, normal_form(trial));
        let verdicts = instance.partition(&workload.image, workload.nodes, &Script::default())?;
        if !verdicts.takes_all(workload.nodes) {
            continue;
        }
        let weights = workload.weights.iter().map(|(id, bytes)| (*id, bytes.as_slice()));
        let weights = Arc::new(HostWeights::new(weights)?);
        body(&format!("{nodes} x {kind:?} of {dtype}"), &workload, &weights)?;
        taken += 1;
    }
    Ok(taken)
}

fn counted(trial: &mut Trial<'_>, graphs: u32) -> Outcome {
    trial.measure("graphs", f64::from(graphs));
    match graphs {
        0 => Err(Failure::skip("not claimed: it takes none of the kit's graphs")),
        _ => Ok(()),
    }
}

/// What the graphs become when this process compiles them: a line a section, with its SHA-256, and a line with what else a blob states.
fn digests(trial: &Trial<'_>) -> Result<Vec<String>, Failure> {
    let (_library, instance) = compiler(trial)?;
    let mut lines = Vec::new();
    each_taken(trial, &instance, |what, workload, weights| {
        let blob = instance.compile(&workload.image, weights, "", &Script::default())?;
        for (name, align, bytes) in &blob.sections {
            let (size, hash) = (bytes.len(), sha256(bytes));
            lines.push(format!(
                "{what}: section `{name}`, {size} bytes at {align}, SHA-256 {hash}"
            ));
        }
        let stated = (&blob.requirements, &blob.states, &blob.meta.precision);
        lines.push(format!("{what}: it states {stated:?}"));
        Ok(())
    })?;
    Ok(lines)
}

/// What [`reproducible`] compares, for another process of the kit to write down.
///
/// # Errors
/// The library cannot be opened, or does not compile what it takes.
pub fn digests_of(subject: &Subject) -> Result<String, String> {
    let mut lines = Err(String::new());
    crate::case::run("blob/reproducible", subject, 0, |trial| {
        lines = digests(trial).map_err(|failure| failure.reason);
        Ok(())
    });
    lines.map(|lines| lines.join("\n"))
}

pub fn reproducible(trial: &mut Trial<'_>) -> Outcome {
    let here = digests(trial)?;
    // A graph has a line of what it states.
    let graphs = here.iter().filter(|line| line.contains(": it states ")).count();
    counted(trial, graphs as u32)?;
    let Some(elsewhere) = trial.subject.elsewhere else {
        return Err(Failure::skip(
            "the kit is used as a library, and cannot begin another process",
        ));
    };
    let there = elsewhere(trial.subject).map_err(|problem| fail(format!("another process of the kit: {problem}")))?;
    let there: Vec<&str> = there.lines().collect();
    let pairs = here.iter().map(String::as_str).zip(there.iter().copied());
    for (ours, theirs) in pairs {
        if ours != theirs {
            return Err(fail(format!("{ours}; compiled in another process: {theirs}")));
        }
    }
    match here.len() == there.len() {
        true => Ok(()),
        false => Err(fail(format!(
            "it makes {} sections and statements of the same graphs, and {} in another process",
            here.len(),
            there.len()
        ))),
    }
}

pub fn reproducible_again(trial: &mut Trial<'_>) -> Outcome {
    let (library, instance) = compiler(trial)?;
    let other = library.start(&trial.subject.options, &Script::default())?;
    let graphs = each_taken(trial, &instance, |what, workload, weights| {
        let compile = |instance: &Instance| instance.compile(&workload.image, weights, "", &Script::default());
        let first = compile(&instance)?;
        differs(&format!("{what}, compiled again"), &first, &compile(&instance)?)?;
        let second = compile(&other)?;
        differs(&format!("{what}, compiled in another instance"), &first, &second)
    })?;
    counted(trial, graphs)
}

pub fn shape_of_it(trial: &mut Trial<'_>) -> Outcome {
    let (_, instance) = compiler(trial)?;
    let workload = Workload::new(Kind::Add, DType::F32, 3, 5, 2, normal_form(trial));
    let script = Script::default();
    if !instance.partition(&workload.image, 2, &script)?.takes_all(2) {
        return Err(Failure::skip("not claimed: it does not take `aten::add.Tensor` of f32"));
    }
    let blob = instance.compile(&workload.image, &Arc::new(HostWeights::default()), "", &script)?;
    if blob.sections.is_empty() {
        return Err(fail("`compile` wrote no section"));
    }
    for (is_output, index, ..) in &blob.requirements {
        let (side, count) = if *is_output { ("output", 1) } else { ("input", 2) };
        if *index >= count {
            return Err(fail(format!(
                "`blob_require` names {side} {index} of a graph with {count}"
            )));
        }
    }
    match blob.states.as_slice() {
        [] => Ok(()),
        some => Err(fail(format!(
            "`blob_keep_state` names {some:?} for a graph without states"
        ))),
    }
}

pub fn load_elsewhere(trial: &mut Trial<'_>) -> Outcome {
    let script = Script::default();
    let mut bench = match with_weights(trial) {
        Err(skipped) if skipped.verdict == delegraph_runner::Verdict::Skip => Bench::open(trial)?,
        other => other?,
    };
    let mut session = bench.load()?;
    let first = bench.run_once(&mut session, 1, &script)?;
    session.unload();
    let other = bench.library.start(&trial.subject.options, &script)?;
    // The compiler of the blob ends here.
    std::mem::replace(&mut bench.instance, other).shutdown();
    let mut session = bench.load()?;
    match bench.run_once(&mut session, 1, &script)? == first {
        true => Ok(()),
        false => Err(fail("the blob gives another result in another instance")),
    }
}
