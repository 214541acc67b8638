//! What comes after a call that failed.

use super::{released, same};
use crate::case::{Outcome, Trial};
use crate::categories::basis::with_weights;
use crate::driver::{Fail, Place, Script, Tensor};
use crate::workload::Bench;
use delegraph_runner::Verdict;

pub fn failed_load(trial: &mut Trial<'_>) -> Outcome {
    let script = Script::default();
    let bench = match with_weights(trial) {
        Err(skipped) if skipped.verdict == Verdict::Skip => Bench::open(trial)?,
        other => other?,
    };
    let mut session = bench.load()?;
    let first = bench.run_once(&mut session, 1, &script)?;
    session.unload();
    for round in 0..8 {
        let mut broken = bench.blob.clone();
        match round % 3 {
            0 => broken.sections.clear(),
            1 => broken
                .sections
                .iter_mut()
                .for_each(|(_, _, bytes)| bytes.truncate(bytes.len() / 2)),
            _ => broken.sections.iter_mut().for_each(|(_, _, bytes)| bytes.fill(0xff)),
        }
        let failing = script.clone().failing(Fail {
            weight_map: (round % 2 == 0).then_some(0),
            ..Fail::default()
        });
        // Whether it refuses is what the cases of blobs are about.
        drop(
            bench
                .instance
                .load(&broken, &bench.weights, trial.subject.device, &failing),
        );
        released(&bench.weights)?;
        let mut session = bench.load()?;
        same(
            "after a load that failed",
            &first,
            &bench.run_once(&mut session, 1, &script)?,
        )?;
    }
    Ok(())
}

pub fn failed_run(trial: &mut Trial<'_>) -> Outcome {
    let script = Script::default();
    let bench = Bench::open(trial)?;
    let mut session = bench.load()?;
    let first = bench.run_once(&mut session, 1, &script)?;
    let mut failures = 0;
    for scale in [2, 3, 7] {
        let larger = |sizes: &[i64]| -> Vec<i64> { sizes.iter().map(|size| size * scale).collect() };
        let inputs = bench.workload.inputs.iter();
        let inputs = inputs.map(|spec| Tensor::output(spec.dtype, &larger(&spec.sizes), Place::End));
        let inputs: Vec<Tensor> = inputs.collect::<Result<_, _>>()?;
        let (_, _, mut outputs) = bench.tensors(1, Place::End)?;
        failures += u32::from(session.run(&inputs, &mut outputs, &script).is_err());
        same(
            "after a run with other sizes",
            &first,
            &bench.run_once(&mut session, 1, &script)?,
        )?;
        // Cancelled from the start; a short run may end all the same.
        let cancelled = Script::default();
        cancelled.cancel();
        let (_, inputs, mut outputs) = bench.tensors(1, Place::End)?;
        failures += u32::from(session.run(&inputs, &mut outputs, &cancelled).is_err());
        same(
            "after a run that was cancelled",
            &first,
            &bench.run_once(&mut session, 1, &script)?,
        )?;
    }
    trial.measure("failed runs", f64::from(failures));
    Ok(())
}

pub fn failed_compile(trial: &mut Trial<'_>) -> Outcome {
    let script = Script::default();
    let bench = Bench::open(trial)?;
    let workload = &bench.workload;
    for after in 0..4 {
        let failing = script.clone().failing(Fail {
            blob_begin_section: (after % 2 == 0).then_some(after / 2),
            blob_write: (after % 2 == 1).then_some(after / 2),
            ..Fail::default()
        });
        drop(bench.instance.compile(&workload.image, &bench.weights, "", &failing));
        let blob = bench.instance.compile(&workload.image, &bench.weights, "", &script)?;
        let mut session = bench
            .instance
            .load(&blob, &bench.weights, trial.subject.device, &script)?;
        bench.run_once(&mut session, 1, &script)?;
    }
    Ok(())
}
