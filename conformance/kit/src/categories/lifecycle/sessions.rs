//! Several sessions, and calls between their runs.

use super::{released, same};
use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{Budget, with_weights};
use crate::driver::Script;
use crate::workload::Bench;
use delegraph_runner::Verdict;

pub fn many_sessions(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let budget = Budget::seconds(10);
    let mut sessions = Vec::new();
    while sessions.len() < 64 && !budget.spent() {
        let count = sessions.len();
        let loaded = bench.load().map_err(|failure| match count {
            0 | 1 => failure,
            // A device holds so many and no more.
            n => Failure::warning(format!("session {n} of one blob is refused: {}", failure.reason)),
        })?;
        sessions.push(loaded);
    }
    trial.measure("sessions", sessions.len() as f64);
    let mut results = Vec::new();
    for session in &mut sessions {
        results.push(bench.run_once(session, 1, &Script::default())?);
    }
    for (i, result) in results.iter().enumerate() {
        same(&format!("in session {i}"), &results[0], result)?;
    }
    drop(sessions);
    released(&bench.weights)
}

pub fn out_of_order(trial: &mut Trial<'_>) -> Outcome {
    let bench = match with_weights(trial) {
        Err(skipped) if skipped.verdict == Verdict::Skip => Bench::open(trial)?,
        other => other?,
    };
    let mut sessions = (0..5).map(|_| bench.load()).collect::<Result<Vec<_>, _>>()?;
    let first = bench.run_once(&mut sessions[0], 1, &Script::default())?;
    for gone in [2, 0, 2, 1] {
        sessions.remove(gone).unload();
        for session in &mut sessions {
            same(
                "after another session's end",
                &first,
                &bench.run_once(session, 1, &Script::default())?,
            )?;
        }
    }
    drop(sessions);
    released(&bench.weights)
}

pub fn interleaved(trial: &mut Trial<'_>) -> Outcome {
    let script = Script::default();
    let bench = Bench::open(trial)?;
    let mut session = bench.load()?;
    let first = bench.run_once(&mut session, 1, &script)?;
    for round in 0..4 {
        let workload = &bench.workload;
        bench.instance.partition(&workload.image, workload.nodes, &script)?;
        let blob = bench.instance.compile(&workload.image, &bench.weights, "", &script)?;
        bench.instance.blob_check(&blob.meta, 0, &script)?;
        let mut other = bench
            .instance
            .load(&blob, &bench.weights, trial.subject.device, &script)?;
        bench.run_once(&mut other, round + 2, &script)?;
        same(
            "between calls for another session",
            &first,
            &bench.run_once(&mut session, 1, &script)?,
        )?;
    }
    Ok(())
}

pub fn outlives_blob(trial: &mut Trial<'_>) -> Outcome {
    let bench = with_weights(trial)?;
    let mut session = bench.load()?;
    // The kit's sections are unmapped by now: a session that kept a pointer to one faults.
    trial.step("a run after the blob is gone");
    let first = bench.run_once(&mut session, 1, &Script::default())?;
    let mut other = bench.load()?;
    same(
        "in another session",
        &first,
        &bench.run_once(&mut other, 1, &Script::default())?,
    )
}
