//! What is taken is compiled, loaded and run.

use super::ask;
use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{compiler, warn};
use crate::categories::small::{Small, bytes, graphs};
use crate::driver::{HostWeights, Instance, Place, Script, Tensor};
use crate::workload::normal_form;
use delegraph_abi::c;
use delegraph_runner::Verdict;
use std::sync::Arc;

/// Compiles, loads and runs a graph that was taken. What is wrong with it, and how much.
fn follow(trial: &Trial<'_>, instance: &Instance, small: &Small) -> Result<(), Failure> {
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

pub fn compiles(trial: &mut Trial<'_>) -> Outcome {
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
            // A graph that is refused with the node's name is tried again without it; an operator that there is not was never worth a try.
            Err(warning) if warning.verdict == Verdict::QualityWarning && !small.is_absent() => {
                warnings.push(warning.reason)
            }
            Err(failure) => {
                trial.keep("graph.dgg", small.image);
                return Err(Failure::fail(failure.reason));
            }
        }
    }
    trial.measure("taken", f64::from(taken));
    if taken == 0 {
        return Err(Failure::skip("not claimed: it takes none of the kit's small graphs"));
    }
    warn(&warnings)
}
