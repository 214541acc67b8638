//! Orders of calls, ends and beginnings.

use super::basis::{Budget, life, open, start, with_weights};
use crate::case::{Case, Failure, Outcome, Trial, case};
use crate::driver::process::threads;
use crate::driver::{Fail, HostWeights, Library, Place, Script, Tensor};
use crate::workload::Bench;
use delegraph_abi::c::Feature;
use delegraph_runner::Verdict;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The cases.
pub const CASES: &[Case] = &[
    case(
        "lifecycle/again",
        "`initialize` may be called again after `shutdown`: the second life gives the results of the first.",
        again,
    ),
    case(
        "lifecycle/thousand-cycles",
        "A delegate begins and ends 1,000 times, or as often as 10 s allow; how often is stated.",
        thousand,
    )
    .limit(60),
    case(
        "lifecycle/two-instances",
        "Two delegates of one library work side by side, and the end of one leaves the other as it was.",
        two_instances,
    ),
    case(
        "lifecycle/two-hosts",
        "`initialize` may be called for several hosts in one process: each has its own table of the host's.",
        two_hosts,
    ),
    case(
        "lifecycle/options-differ",
        "Two delegates with other options do not take each other's.",
        options_differ,
    ),
    case(
        "lifecycle/many-sessions",
        "Many sessions of one blob are alive at once, and give the same results.",
        many_sessions,
    ),
    case(
        "lifecycle/unload-out-of-order",
        "Sessions are unloaded in any order; those that stay go on working.",
        out_of_order,
    ),
    case(
        "lifecycle/interleaved",
        "`compile`, `blob_check` and `session_load` between the runs of a session change nothing for it.",
        interleaved,
    ),
    case(
        "lifecycle/load-after-failed-load",
        "A `session_load` that failed leaves nothing behind: no retained weights, and the next one works.",
        failed_load,
    ),
    case(
        "lifecycle/run-after-failed-run",
        "After a run that failed the session runs as before.",
        failed_run,
    ),
    case(
        "lifecycle/compile-after-failed-compile",
        "After a `compile` that failed the delegate compiles as before.",
        failed_compile,
    ),
    case(
        "lifecycle/failed-initialize",
        "After an `initialize` that refused its options the next one works.",
        failed_initialize,
    ),
    case(
        "lifecycle/devices-same",
        "`device_enumerate` gives the same devices until `shutdown`, and the same after a new beginning.",
        devices_same,
    ),
    case(
        "lifecycle/threads-end",
        "`shutdown` stops the delegate's threads: within 2 s there are as many as before `initialize`.",
        threads_end,
    ),
    case(
        "lifecycle/session-outlives-blob",
        "A blob is valid until `session_load` returns, the weights as long as they are retained: a session works once both are gone from the host's hands.",
        outlives_blob,
    ),
];

/// Two results of one case that have to be the same.
fn same(what: &str, first: &[u8], second: &[u8]) -> Outcome {
    match first.iter().zip(second).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => Err(Failure::fail(format!(
            "{what}: byte {at} of the result is {:#04x}, it was {:#04x}",
            second[at], first[at]
        ))),
    }
}

fn again(trial: &mut Trial<'_>) -> Outcome {
    let script = Script::default();
    let first = Bench::open(trial)?;
    let mut session = first.load()?;
    let before = first.run_once(&mut session, trial.seed, &script)?;
    session.unload();
    first.instance.shutdown();
    for _ in 0..2 {
        let second = Bench::open(trial)?;
        let mut session = second.load()?;
        same(
            "in a new life",
            &before,
            &second.run_once(&mut session, trial.seed, &script)?,
        )?;
        session.unload();
        second.instance.shutdown();
    }
    Ok(())
}

fn thousand(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    let budget = Budget::seconds(10);
    let mut cycles = 0;
    while cycles < 1000 && !budget.spent() {
        let script = Script::default();
        let instance = library
            .start(&trial.subject.options, &script)
            .map_err(|refused| Failure::fail(format!("in cycle {cycles}: {refused}")))?;
        instance.shutdown();
        cycles += 1;
    }
    trial.measure("cycles", f64::from(cycles));
    trial.measure("cycle (ms)", budget.so_far() * 1e3 / f64::from(cycles));
    // And whole lives, for as long again.
    let budget = Budget::seconds(10);
    let mut lives = 0;
    while lives < 100 && !budget.spent() {
        life(&library, trial, &Script::default())
            .map_err(|failure| Failure::fail(format!("in life {lives}, after {cycles} cycles: {}", failure.reason)))?;
        lives += 1;
    }
    trial.measure("lives", f64::from(lives));
    Ok(())
}

fn two_instances(trial: &mut Trial<'_>) -> Outcome {
    let script = Script::default();
    let (first, second) = (Bench::open(trial)?, Bench::open(trial)?);
    if first.instance.handle == second.instance.handle {
        return Err(Failure::fail("`initialize` gave one `dg_delegate` twice"));
    }
    let (mut one, mut two) = (first.load()?, second.load()?);
    let before = first.run_once(&mut one, 1, &script)?;
    same(
        "in the other instance",
        &before,
        &second.run_once(&mut two, 1, &script)?,
    )?;
    // A blob of one is a blob of the other.
    let mut crossed = second
        .instance
        .load(&first.blob, &first.weights, trial.subject.device, &script)?;
    same(
        "of the other's blob",
        &before,
        &second.run_once(&mut crossed, 1, &script)?,
    )?;
    crossed.unload();
    two.unload();
    second.instance.shutdown();
    trial.step("a run after the other instance's end");
    same(
        "after the other instance's end",
        &before,
        &first.run_once(&mut one, 1, &script)?,
    )?;
    let answers = first
        .instance
        .partition(&first.workload.image, first.workload.nodes, &script)?;
    match answers.takes_all(first.workload.nodes) {
        true => Ok(()),
        false => Err(Failure::fail(
            "`partition` answers otherwise after the other instance's end",
        )),
    }
}

fn two_hosts(trial: &mut Trial<'_>) -> Outcome {
    let script = Script::default();
    let mine = open(trial)?;
    // A table of its own, as another host in the process has.
    let other = Arc::new(Library::open_as(
        &trial.subject.library,
        crate::driver::HostShape::Newer,
    )?);
    let bench = |library: &Arc<Library>| Bench::on(library.clone(), trial, &script, |_, _| true, (3, 5, 1));
    let (first, second) = (bench(&mine)?, bench(&other)?);
    let (mut one, mut two) = (first.load()?, second.load()?);
    for seed in 0..4 {
        let result = first.run_once(&mut one, seed, &script)?;
        same(
            "with the other host",
            &result,
            &second.run_once(&mut two, seed, &script)?,
        )?;
    }
    one.unload();
    first.instance.shutdown();
    second.run_once(&mut two, 9, &script)?;
    Ok(())
}

fn options_differ(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    let Some(text) = library.options_schema()? else {
        return Err(Failure::skip("the table has no `options_schema`"));
    };
    let schema: Value =
        serde_json::from_str(&text).map_err(|error| Failure::fail(format!("`options_schema`: {error}")))?;
    // Values that the schema allows and that are not the default.
    let mut others: Vec<(String, Value)> = Vec::new();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let default = &property["default"];
        let values: Vec<Value> = match (property["enum"].as_array(), property["type"].as_str()) {
            (Some(values), _) => values.clone(),
            (None, Some("boolean")) => vec![Value::Bool(true), Value::Bool(false)],
            (None, Some("integer")) => property
                .get("minimum")
                .into_iter()
                .chain(property.get("maximum"))
                .cloned()
                .collect(),
            _ => Vec::new(),
        };
        others.extend(
            values
                .into_iter()
                .find(|value| value != default)
                .map(|value| (name.clone(), value)),
        );
    }
    if others.is_empty() {
        return Err(Failure::skip("it has no options with values to choose from"));
    }
    let bench = Bench::open(trial)?;
    let mut session = bench.load()?;
    let before = bench.run_once(&mut session, 1, &Script::default())?;
    for (name, value) in others {
        let mut options: Map<String, Value> = trial.subject.options.clone();
        options.insert(name.clone(), value.clone());
        // Some combinations are refused; what counts is the instance without.
        let other = library.start(&options, &Script::default());
        let now = bench.run_once(&mut session, 1, &Script::default())?;
        same(&format!("beside an instance with `{name}` = {value}"), &before, &now)?;
        drop(other);
        same(
            &format!("after one with `{name}` = {value}"),
            &before,
            &bench.run_once(&mut session, 1, &Script::default())?,
        )?;
    }
    Ok(())
}

fn many_sessions(trial: &mut Trial<'_>) -> Outcome {
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

fn released(weights: &HostWeights) -> Outcome {
    match weights.retained() {
        0 => Ok(()),
        n => Err(Failure::fail(format!(
            "once every session was unloaded, weights were retained {n} times more often than released"
        ))),
    }
}

fn out_of_order(trial: &mut Trial<'_>) -> Outcome {
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

fn interleaved(trial: &mut Trial<'_>) -> Outcome {
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

fn failed_load(trial: &mut Trial<'_>) -> Outcome {
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

fn failed_run(trial: &mut Trial<'_>) -> Outcome {
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

fn failed_compile(trial: &mut Trial<'_>) -> Outcome {
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

fn failed_initialize(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    let mut wrong: Map<String, Value> = trial.subject.options.clone();
    wrong.insert("delegraph-kit.no-such-option".to_string(), Value::from(1));
    for _ in 0..3 {
        drop(library.start(&wrong, &Script::default()));
        life(&library, trial, &Script::default())?;
    }
    Ok(())
}

fn devices_same(trial: &mut Trial<'_>) -> Outcome {
    let (library, instance) = start(trial)?;
    let first = instance.devices()?;
    if instance.devices()? != first {
        return Err(Failure::fail("`device_enumerate` gave other devices the second time"));
    }
    let addresses = instance.enumerate(first.len())?;
    if instance.enumerate(first.len())? != addresses {
        return Err(Failure::fail(
            "`device_enumerate` gave other records the second time: they are constant until `shutdown`",
        ));
    }
    instance.shutdown();
    let instance = library.start(&trial.subject.options, &Script::default())?;
    match instance.devices()? == first {
        true => Ok(()),
        false => Err(Failure::fail(
            "`device_enumerate` gave other devices in the second life",
        )),
    }
}

fn threads_end(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    // What the loader or a runtime starts once for the process is not the delegate's to stop.
    let before = match threads() {
        Some(threads) => threads,
        None => return Err(Failure::skip("this system does not list a process's threads")),
    };
    for _ in 0..3 {
        life(&library, trial, &Script::default())?;
    }
    let until = Instant::now() + Duration::from_secs(2);
    loop {
        let now = threads().unwrap_or(0);
        trial.measure("threads more", now as f64 - before as f64);
        if now <= before {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Failure::fail(format!(
                "2 s after `shutdown` there are {now} threads, before `initialize` there were {before}"
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn outlives_blob(trial: &mut Trial<'_>) -> Outcome {
    let bench = with_weights(trial)?;
    if !bench.library.has(Feature::RUN) {
        return Err(Failure::skip("the library does not run"));
    }
    let mut session = bench.load()?;
    // The kit's sections are unmapped by now: a session that kept a pointer to one faults.
    trial.step("a run after the blob is gone");
    let first = bench.run_once(&mut session, 1, &Script::default())?;
    // Weights that are not granted have to be copied.
    let failing = Script::default().failing(Fail {
        weight_retain: Some(0),
        ..Fail::default()
    });
    let mut other = match bench.load_as(&failing) {
        Ok(other) => other,
        // A host that grants none is allowed to be too little.
        Err(failure) => return Err(Failure::warning(format!("without `weight_retain`: {}", failure.reason))),
    };
    trial.step("a run of a session that could not retain its weights");
    same(
        "without `weight_retain`",
        &first,
        &bench.run_once(&mut other, 1, &Script::default())?,
    )
}
