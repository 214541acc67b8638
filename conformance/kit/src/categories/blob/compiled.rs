//! What `compile` gives, and where it can be loaded.

use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{compiler, with_weights};
use crate::driver::{Compiled, HostWeights, Script};
use crate::workload::{Bench, Kind, Workload, normal_form};
use delegraph_abi::DType;
use std::sync::Arc;

fn fail(text: impl Into<String>) -> Failure {
    Failure::fail(text)
}

fn differs(what: &str, first: &Compiled, second: &Compiled) -> Outcome {
    let names = |blob: &Compiled| -> Vec<String> { blob.sections.iter().map(|(name, ..)| name.clone()).collect() };
    if names(first) != names(second) {
        return Err(fail(format!(
            "{what}: the sections are {:?}, they were {:?}",
            names(second),
            names(first)
        )));
    }
    for ((name, align, bytes), (_, other_align, other)) in first.sections.iter().zip(&second.sections) {
        if align != other_align || bytes.len() != other.len() {
            return Err(fail(format!(
                "{what}: section `{name}` has {} bytes at {other_align}, it had {} at {align}",
                other.len(),
                bytes.len()
            )));
        }
        if let Some(at) = bytes.iter().zip(other).position(|(a, b)| a != b) {
            return Err(fail(format!(
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
        false => Err(fail(format!(
            "{what}: it states {:?}, it stated {:?}",
            stated(second),
            stated(first)
        ))),
    }
}

pub fn reproducible(trial: &mut Trial<'_>) -> Outcome {
    let (library, instance) = compiler(trial)?;
    let other = library.start(&trial.subject.options, &Script::default())?;
    let script = Script::default();
    let mut compiled = 0;
    for (kind, dtype, nodes) in [
        (Kind::Add, DType::F32, 1),
        (Kind::Add, DType::F32, 9),
        (Kind::Relu, DType::F32, 3),
        (Kind::Linear, DType::F32, 1),
        (Kind::Matmul, DType::F32, 1),
        (Kind::Softmax, DType::F16, 2),
        (Kind::QuantizedAdd, DType::I8, 2),
    ] {
        let workload = Workload::new(kind, dtype, 3, 5, nodes, normal_form(trial));
        let what = format!("{nodes} x {kind:?} of {dtype}");
        if !instance
            .partition(&workload.image, workload.nodes, &script)?
            .takes_all(workload.nodes)
        {
            continue;
        }
        let weights = workload.weights.iter().map(|(id, bytes)| (*id, bytes.as_slice()));
        let weights = Arc::new(HostWeights::new(weights)?);
        let compile = |instance: &crate::driver::Instance| instance.compile(&workload.image, &weights, "", &script);
        let first = compile(&instance)?;
        differs(&format!("{what}, compiled again"), &first, &compile(&instance)?)?;
        differs(
            &format!("{what}, compiled in another instance"),
            &first,
            &compile(&other)?,
        )?;
        compiled += 1;
    }
    trial.measure("graphs", f64::from(compiled));
    match compiled {
        0 => Err(Failure::skip("not claimed: it takes none of the kit's graphs")),
        _ => Ok(()),
    }
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
