//! A host that fails: each of its functions does, at each call, and the delegate says so and goes on with the next.
//!
//! What cannot be made to happen from outside is not here: a device that is lost.

use crate::case::{Case, Failure, Outcome, Trial, case};
use crate::categories::worker;
use crate::driver::{Fail, Place, Script, Tensor};
use crate::workload::Bench;

/// The cases of the category; those of worker processes are in [`worker`].
pub const CASES: &[Case] = &[
    case(
        "fault/weight-map-in-compile",
        "weight_map: where it fails, `compile` fails too, or needs the weight not: its blob is right",
        weight_map_in_compile,
    ),
    case(
        "fault/weight-map-in-load",
        "weight_map: where it fails, `session_load` or the run fails too, or needs the weight not: its result is right",
        weight_map_in_load,
    ),
    case(
        "fault/weight-retain",
        "weight_retain: where it is refused, `session_load` fails, or does without: its result is right",
        weight_retain,
    ),
    case(
        "fault/blob-begin-section",
        "blob_begin_section: where it fails, `compile` does not give DG_OK: the section is not in the blob",
        blob_begin_section,
    ),
    case(
        "fault/blob-write",
        "blob_write: where it fails, `compile` does not give DG_OK: the bytes are not in the blob",
        blob_write,
    ),
    case(
        "fault/part-node-verdict",
        "part_node_verdict: where it fails, `partition` does not give DG_OK: the node has no answer",
        part_node_verdict,
    ),
    case(
        "fault/parallel-for",
        "parallel_for: where it fails nothing was called, and the call fails or does the work by itself",
        parallel_for,
    ),
    case(
        "fault/wrong-sizes",
        "session_execute, DG_E_SHAPE_OUT_OF_RANGE: inputs whose result has no room are an error, nothing is written outside, and the session goes on",
        wrong_sizes,
    ),
    case(
        "fault/damaged-blob",
        "session_load: a blob with sections that are cut off is an error, and the delegate goes on",
        damaged_blob,
    ),
    case(
        "fault/no-weights",
        "session_load: weights that the host does not have are an error of the load or the run, and the delegate goes on",
        no_weights,
    ),
    case(
        "fault/worker-killed",
        "isolation: a worker process that is killed in a run fails that run alone; the next load works",
        worker::killed,
    )
    .limit(90),
    case(
        "fault/worker-memory",
        "isolation: a worker process that gets no memory fails, and never gives a wrong result",
        worker::memory,
    )
    .limit(120),
];

/// A host function fails at the first call, the second, … until the delegate makes no such call. More than this are not tried.
const CALLS: u64 = 64;

fn failing(fail: Fail) -> Script {
    Script::default().failing(fail)
}

/// After something has failed, everything has to work again.
fn works(bench: &Bench, seed: u64, after: &str) -> Outcome {
    let body = || -> Outcome {
        let image = &bench.workload.image;
        let answers = bench
            .instance
            .partition(image, bench.workload.nodes, &Script::default())?;
        answers.complete(bench.workload.nodes)?;
        if !answers.takes_all(bench.workload.nodes) {
            return Err(Failure::fail("`partition` refuses what it took before"));
        }
        bench.instance.compile(image, &bench.weights, "", &Script::default())?;
        let mut session = bench.load()?;
        bench.run_once(&mut session, seed, &Script::default())?;
        Ok(())
    };
    body().map_err(|failure| Failure {
        reason: format!("after {after}: {}", failure.reason),
        ..failure
    })
}

fn in_words(when: String) -> impl FnOnce(Failure) -> Failure {
    move |failure| Failure {
        reason: format!("{when}, {}", failure.reason),
        ..failure
    }
}

fn weight_map_in_compile(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::weighted(trial)?;
    let image = &bench.workload.image;
    let healthy = bench.weights_at(Place::End, 64)?;
    bench.instance.compile(image, &healthy, "", &Script::default())?;
    let calls = healthy.mapped();
    trial.measure("weight_map_calls", calls as f64);
    for nth in 0..calls.min(CALLS) {
        let weights = bench.weights_at(Place::End, 64)?;
        let fail = Fail {
            weight_map: Some(nth),
            ..Fail::default()
        };
        let when = format!("with `weight_map` failing at call {nth}");
        if let Ok(blob) = bench.instance.compile(image, &weights, "", &failing(fail)) {
            let mut session = bench
                .instance
                .load(&blob, &bench.weights, trial.subject.device, &Script::default())
                .map_err(|refused| Failure::fail(format!("{when}, `compile` gave DG_OK, but {refused}")))?;
            bench
                .run_once(&mut session, trial.seed, &Script::default())
                .map_err(in_words(format!("{when}, `compile` gave DG_OK")))?;
        }
        works(&bench, trial.seed, "a `weight_map` that failed")?;
    }
    match calls {
        0 => Err(Failure::skip("`compile` maps no weights")),
        _ => Ok(()),
    }
}

/// Loads and runs with a host that fails: an error, or the right result.
fn load_and_run(bench: &Bench, seed: u64, fail: Fail, when: &str) -> Outcome {
    let weights = bench.weights_at(Place::End, 64)?;
    if let Ok(mut session) = bench.load_with(&weights, &failing(fail)) {
        for step in 0..2 {
            let (bytes, inputs, mut outputs) = bench.tensors(seed + step, Place::End)?;
            if session.run(&inputs, &mut outputs, &Script::default()).is_ok() {
                bench
                    .check(&bytes, &outputs)
                    .map_err(in_words(format!("{when}, load and run gave DG_OK")))?;
            }
        }
    }
    match weights.retained() {
        0 => Ok(()),
        more => Err(Failure::fail(format!(
            "{when}, weights are retained {more} times more than released when the session is gone"
        ))),
    }
}

fn weight_map_in_load(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::weighted(trial)?;
    let healthy = bench.weights_at(Place::End, 64)?;
    let mut session = bench.load_with(&healthy, &Script::default())?;
    for step in 0..2 {
        bench.run_once(&mut session, trial.seed + step, &Script::default())?;
    }
    session.unload();
    let calls = healthy.mapped();
    trial.measure("weight_map_calls", calls as f64);
    for nth in 0..calls.min(CALLS) {
        let fail = Fail {
            weight_map: Some(nth),
            ..Fail::default()
        };
        load_and_run(
            &bench,
            trial.seed,
            fail,
            &format!("with `weight_map` failing at call {nth}"),
        )?;
        works(&bench, trial.seed, "a `weight_map` that failed")?;
    }
    match calls {
        0 => Err(Failure::skip("neither `session_load` nor a run maps weights")),
        _ => Ok(()),
    }
}

fn weight_retain(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::weighted(trial)?;
    let heard = Script::default();
    bench.load_with(&bench.weights, &heard)?.unload();
    let calls = heard.heard.count("weight_retain");
    for nth in 0..calls.min(CALLS) {
        let fail = Fail {
            weight_retain: Some(nth),
            ..Fail::default()
        };
        load_and_run(
            &bench,
            trial.seed,
            fail,
            &format!("with `weight_retain` refused at call {nth}"),
        )?;
        works(&bench, trial.seed, "a `weight_retain` that was refused")?;
    }
    match calls {
        0 => Err(Failure::skip("`session_load` retains no weights")),
        _ => Ok(()),
    }
}

/// Compiles while a function of the blob's sink fails at its first call, its second, …
fn compile_fails(trial: &mut Trial<'_>, name: &str, fail: impl Fn(u64) -> Fail) -> Outcome {
    let bench = Bench::open(trial)?;
    for nth in 0..CALLS {
        let compiled = bench
            .instance
            .compile(&bench.workload.image, &bench.weights, "", &failing(fail(nth)));
        match compiled {
            // It was not called so often.
            Ok(blob) if blob.failed == 0 => {
                trial.measure(&format!("{name}_calls"), nth as f64);
                return match nth {
                    0 => Err(Failure::skip(format!("`compile` does not call `{name}`"))),
                    _ => Ok(()),
                };
            }
            Ok(_) => {
                return Err(Failure::fail(format!(
                    "`compile` gave DG_OK, though `{name}` failed at call {nth}"
                )));
            }
            Err(_) => works(&bench, trial.seed, &format!("a `{name}` that failed"))?,
        }
    }
    Ok(())
}

fn blob_begin_section(trial: &mut Trial<'_>) -> Outcome {
    compile_fails(trial, "blob_begin_section", |nth| Fail {
        blob_begin_section: Some(nth),
        ..Fail::default()
    })
}

fn blob_write(trial: &mut Trial<'_>) -> Outcome {
    compile_fails(trial, "blob_write", |nth| Fail {
        blob_write: Some(nth),
        ..Fail::default()
    })
}

fn part_node_verdict(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::over(trial, 3, 5, 3)?;
    let nodes = bench.workload.nodes;
    for nth in 0..u64::from(nodes) {
        let fail = Fail {
            part_node_verdict: Some(nth),
            ..Fail::default()
        };
        let answers = bench.instance.partition(&bench.workload.image, nodes, &failing(fail));
        if answers.is_ok_and(|answers| answers.failed > 0) {
            return Err(Failure::fail(format!(
                "`partition` gave DG_OK, though `part_node_verdict` failed at call {nth}"
            )));
        }
        works(&bench, trial.seed, "a `part_node_verdict` that failed")?;
    }
    Ok(())
}

fn parallel_for(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::over(trial, 64, 65, 2)?;
    let mut session = bench.load()?;
    let heard = Script::default();
    bench.run_once(&mut session, trial.seed, &heard)?;
    let calls = heard.heard.count("parallel_for");
    trial.measure("parallel_for_calls", calls as f64);
    for nth in 0..calls.min(8) {
        let fail = Fail {
            parallel_for: Some(nth),
            ..Fail::default()
        };
        let (bytes, inputs, mut outputs) = bench.tensors(trial.seed, Place::End)?;
        if session.run(&inputs, &mut outputs, &failing(fail)).is_ok() {
            bench.check(&bytes, &outputs).map_err(in_words(format!(
                "`session_execute` gave DG_OK, though `parallel_for` failed at call {nth}"
            )))?;
        }
        bench
            .run_once(&mut session, trial.seed + 1, &Script::default())
            .map_err(in_words("after a `parallel_for` that failed".to_string()))?;
    }
    match calls {
        0 => Err(Failure::skip("its runs borrow no threads")),
        _ => Ok(()),
    }
}

fn wrong_sizes(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let mut session = bench.load()?;
    for rows in [2, 4, 0, 300] {
        let inputs: Result<Vec<Tensor>, String> = bench
            .workload
            .inputs
            .iter()
            .map(|spec| Tensor::laid(spec.dtype, &[rows, spec.sizes[1]], Place::End, 4096, 4096))
            .collect();
        let (inputs, mut outputs) = (inputs?, bench.outputs(Place::End)?);
        let outcome = session.run(&inputs, &mut outputs, &Script::default());
        if let Some(distance) = outputs.iter().find_map(|output| output.memory.strayed()) {
            return Err(Failure::fail(format!(
                "with an input of {rows} rows, where the graph has 3, it wrote outside of its output, {distance} bytes from it"
            )));
        }
        // Fewer rows may be computed; more of them have no room.
        if outcome.is_ok() && rows > 3 {
            return Err(Failure::fail(format!(
                "`session_execute` gave DG_OK for inputs of {rows} rows, where the graph and its output have 3"
            )));
        }
        bench
            .run_once(&mut session, trial.seed, &Script::default())
            .map_err(in_words(format!("after a run with inputs of {rows} rows")))?;
    }
    Ok(())
}

fn damaged_blob(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let sections = bench.blob.sections.len();
    for section in 0..sections {
        let size = bench.blob.sections[section].2.len();
        for left in [0, size / 2] {
            let mut damaged = bench.blob.clone();
            damaged.sections[section].2.truncate(left);
            let loaded = bench
                .instance
                .load(&damaged, &bench.weights, trial.subject.device, &Script::default());
            let name = &damaged.sections[section].0;
            if let Ok(mut session) = loaded {
                let when = format!("`session_load` took section `{name}` with {left} of its {size} bytes");
                let (bytes, inputs, mut outputs) = bench.tensors(trial.seed, Place::End)?;
                if session.run(&inputs, &mut outputs, &Script::default()).is_ok() {
                    bench.check(&bytes, &outputs).map_err(in_words(when))?;
                }
            }
            works(&bench, trial.seed, &format!("a load with section `{name}` cut off"))?;
        }
    }
    Ok(())
}

fn no_weights(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::weighted(trial)?;
    let none = std::sync::Arc::new(crate::driver::HostWeights::default());
    if let Ok(mut session) = bench.load_with(&none, &Script::default()) {
        let (bytes, inputs, mut outputs) = bench.tensors(trial.seed, Place::End)?;
        if session.run(&inputs, &mut outputs, &Script::default()).is_ok() {
            bench
                .check(&bytes, &outputs)
                .map_err(in_words("without weights, load and run gave DG_OK".to_string()))?;
        }
    }
    works(&bench, trial.seed, "a load without weights")
}
