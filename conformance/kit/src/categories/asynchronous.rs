//! Runs that end later, and runs that nobody waits for any more.
//!
//! Cases whose names begin with `execute` and `compile` are about calls that return with their result, and are for every delegate; the others
//! need DG_FEATURE_ASYNC.

use crate::case::{Case, Failure, Outcome, Trial, case};
use crate::driver::{FenceEnd, Flight, Loaded, Place, Refused, Script, Tensor};
use crate::workload::Bench;
use delegraph_abi::{Status, c};
use std::time::{Duration, Instant};

/// The cases of the category.
pub const CASES: &[Case] = &[
    case(
        "async/result",
        "session_submit: on DG_OK the fence is signalled with the run's outcome, and the outputs are right then",
        result,
    ),
    case(
        "async/fence-once",
        "fence_signal: a fence is signalled exactly once",
        fence_once,
    ),
    case(
        "async/call-rests",
        "fence_signal: the delegate touches neither the fence nor the run's call after the signal",
        call_rests,
    ),
    case(
        "async/outputs-rest",
        "fence_signal: outputs are not written after the signal",
        outputs_rest,
    ),
    case(
        "async/tensors-are-gone",
        "fence_signal: inputs and outputs are not touched after the signal: their memory is given back",
        tensors_are_gone,
    ),
    case(
        "async/error",
        "session_submit: a run that fails is told of by its status or by its fence, and never by both",
        error,
    ),
    case(
        "async/in-a-row",
        "session_submit: runs of one session, one after the other, each with its own fence and result",
        in_a_row,
    ),
    case(
        "async/two-sessions",
        "session_submit: runs of two sessions that are submitted before either has ended both end, each with its own result",
        two_sessions,
    ),
    case(
        "async/with-execute",
        "session_submit, session_execute: a session takes both in turn, with the same result",
        with_execute,
    ),
    case(
        "async/from-threads",
        "session_submit: a session may be submitted to from any thread, one at a time",
        from_threads,
    ),
    case(
        "async/unload-at-once",
        "session_unload: a session may be unloaded as soon as the fence of its run was signalled",
        unload_at_once,
    ),
    case(
        "async/shutdown-at-once",
        "shutdown: a delegate may be ended as soon as its sessions are unloaded, and touches nothing afterwards",
        shutdown_at_once,
    ),
    case(
        "async/cancelled-before",
        "session_submit, call_is_cancelled: a run whose call is cancelled before it begins ends, with DG_E_CANCELLED or its result",
        cancelled_before,
    ),
    case(
        "async/cancelled-during",
        "session_submit, call_is_cancelled: a run ends early when its call is cancelled, within `cancel_bound_ms` where the manifest states it",
        cancelled_during,
    )
    .limit(60),
    case(
        "async/deadline-passed",
        "session_submit, call_time_left_ns: a run whose deadline has passed ends, with DG_E_TIMEOUT or its result",
        deadline_passed,
    ),
    case(
        "async/deadline",
        "session_submit, call_time_left_ns: a run that looks at the time left does not go on long after its deadline, to end with DG_OK",
        deadline,
    ),
    case(
        "async/execute-cancelled-before",
        "session_execute, call_is_cancelled: a run whose call is cancelled returns DG_E_CANCELLED or its result",
        execute_cancelled_before,
    ),
    case(
        "async/execute-cancelled-during",
        "session_execute, call_is_cancelled: a run that is cancelled returns soon, within `cancel_bound_ms` where the manifest states it",
        execute_cancelled_during,
    )
    .limit(60),
    case(
        "async/execute-deadline-passed",
        "session_execute, call_time_left_ns: a run whose deadline has passed returns DG_E_TIMEOUT or its result",
        execute_deadline_passed,
    ),
    case(
        "async/execute-deadline",
        "session_execute, call_time_left_ns: a run that looks at the time left does not go on long after its deadline, to return DG_OK",
        execute_deadline,
    ),
    case(
        "async/compile-cancelled",
        "compile, call_is_cancelled: a call that is cancelled returns DG_E_CANCELLED or its result, and one that is late DG_E_TIMEOUT",
        compile_cancelled,
    ),
];

/// How long anything small may take before it is taken for lost.
const LONG: Duration = Duration::from_secs(10);
/// How long is waited for what must not happen.
const WATCH: Duration = Duration::from_millis(80);
/// How much later than its deadline a run may end on a machine that is busy, beside its own length.
const SLACK: Duration = Duration::from_millis(100);

/// A bench of a delegate with ASYNC.
fn bench(trial: &Trial<'_>) -> Result<Bench, Failure> {
    let bench = Bench::open(trial)?;
    match bench.library.has(c::Feature::ASYNC) {
        true => Ok(bench),
        false => Err(Failure::skip("no feature ASYNC")),
    }
}

/// Submits a run with the inputs of a seed.
fn submit(bench: &Bench, session: &mut Loaded, seed: u64, script: &Script) -> Result<(Vec<Vec<u8>>, Flight), Refused> {
    let kit = |failure: Failure| Refused {
        function: "the kit",
        status: Status::INTERNAL,
        vendor_code: 0,
        node: None,
        message: failure.reason,
        hint: String::new(),
    };
    let (bytes, inputs, outputs) = bench.tensors(seed, Place::End).map_err(kit)?;
    Ok((bytes, session.submit(inputs, outputs, script)?))
}

fn ended(flight: &Flight, within: Duration) -> Result<FenceEnd, Failure> {
    flight.wait(within).ok_or_else(|| {
        Failure::fail(format!(
            "`session_submit` gave DG_OK, and its fence was not signalled within {within:?}"
        ))
    })
}

/// Waits for a run that has to succeed, and looks at its result; gives its tensors.
fn landed(bench: &Bench, bytes: &[Vec<u8>], flight: Flight) -> Result<(Vec<Tensor>, Vec<Tensor>), Failure> {
    let end = ended(&flight, LONG)?;
    if end.status != Status::OK {
        return Err(Failure::fail(format!(
            "the fence was signalled with {}: {}",
            end.status, end.message
        )));
    }
    let (inputs, outputs) = flight.finish();
    bench.check(bytes, &outputs)?;
    Ok((inputs, outputs))
}

fn result(trial: &mut Trial<'_>) -> Outcome {
    let has = bench(trial)?;
    let seed = trial.seed;
    // Every graph that is taken, not the first alone.
    Bench::each(trial, [3, 5], 6, |bench| {
        let mut session = bench.load()?;
        let (bytes, flight) = submit(bench, &mut session, seed, &Script::default())?;
        landed(bench, &bytes, flight)?;
        Ok(())
    })?;
    drop(has);
    Ok(())
}

fn fence_once(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    let mut session = bench.load()?;
    for seed in 1..=4 {
        let (_, flight) = submit(&bench, &mut session, seed, &Script::default())?;
        ended(&flight, LONG)?;
        let submitted = flight.submitted.clone();
        flight.finish();
        std::thread::sleep(WATCH / 2);
        if submitted.signals() != 1 {
            return Err(Failure::fail(format!(
                "`fence_signal` was called {} times for one run",
                submitted.signals()
            )));
        }
    }
    session.unload();
    std::thread::sleep(WATCH);
    Ok(())
}

fn call_rests(trial: &mut Trial<'_>) -> Outcome {
    // The driver notes every use of a call whose fence was signalled.
    let bench = bench(trial)?;
    let mut session = bench.load()?;
    let script = Script {
        profile: true,
        ..Script::default()
    };
    for seed in 1..=4 {
        let (bytes, flight) = submit(&bench, &mut session, seed, &script)?;
        landed(&bench, &bytes, flight)?;
        std::thread::sleep(WATCH / 4);
    }
    session.unload();
    bench.instance.shutdown();
    std::thread::sleep(WATCH);
    Ok(())
}

fn outputs_rest(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    let mut session = bench.load()?;
    for seed in 1..=3 {
        let (_, flight) = submit(&bench, &mut session, seed, &Script::default())?;
        ended(&flight, LONG)?;
        // As they were while the delegate was in `fence_signal`.
        let then = flight.submitted.at_signal();
        std::thread::sleep(WATCH);
        let (_, outputs) = flight.finish();
        for (i, (output, then)) in outputs.iter().zip(&then).enumerate() {
            if let Some(at) = output
                .memory
                .bytes()
                .iter()
                .zip(then)
                .position(|(now, then)| now != then)
            {
                return Err(Failure::fail(format!(
                    "byte {at} of output {i} was written after its fence was signalled"
                )));
            }
        }
    }
    Ok(())
}

fn tensors_are_gone(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    let mut session = bench.load()?;
    for seed in 1..=3 {
        let (bytes, flight) = submit(&bench, &mut session, seed, &Script::default())?;
        let (mut inputs, mut outputs) = landed(&bench, &bytes, flight)?;
        for tensor in inputs.iter_mut().chain(&mut outputs) {
            tensor.memory.close()?;
        }
        // Who touches them now faults.
        std::thread::sleep(WATCH);
    }
    Ok(())
}

fn error(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    let mut session = bench.load()?;
    // Sizes that the graph does not have.
    let mut failed = 0;
    for rows in [4, 300, 2] {
        let tensors = |specs: &[crate::workload::Spec]| -> Result<Vec<Tensor>, String> {
            specs
                .iter()
                .map(|spec| Tensor::laid(spec.dtype, &[rows, spec.sizes[1]], Place::End, 4096, 4096))
                .collect()
        };
        let (inputs, outputs) = (tensors(&bench.workload.inputs)?, bench.outputs(Place::End)?);
        match session.submit(inputs, outputs, &Script::default()) {
            // The driver notes a fence that was signalled all the same.
            Err(_) => failed += 1,
            Ok(flight) => {
                let end = ended(&flight, LONG)?;
                failed += u32::from(end.status != Status::OK);
                flight.finish();
            }
        }
        std::thread::sleep(WATCH / 4);
        let (bytes, flight) = submit(&bench, &mut session, trial.seed, &Script::default())?;
        landed(&bench, &bytes, flight).map_err(|failure| Failure {
            reason: format!("after a run that failed: {}", failure.reason),
            ..failure
        })?;
    }
    match failed {
        0 => Err(Failure::fail(
            "`session_submit` ran with inputs of more rows than its output has room for, and its fence said DG_OK",
        )),
        _ => Ok(()),
    }
}

fn in_a_row(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    let mut session = bench.load()?;
    for step in 0..50 {
        let (bytes, flight) = submit(&bench, &mut session, trial.seed + step, &Script::default())?;
        landed(&bench, &bytes, flight).map_err(|failure| Failure {
            reason: format!("run {step}: {}", failure.reason),
            ..failure
        })?;
    }
    Ok(())
}

fn two_sessions(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    let (mut first, mut second) = (bench.load()?, bench.load()?);
    for step in 0..20 {
        let (bytes_a, a) = submit(&bench, &mut first, trial.seed + 2 * step, &Script::default())?;
        let (bytes_b, b) = submit(&bench, &mut second, trial.seed + 2 * step + 1, &Script::default())?;
        // The later one first: neither may wait for somebody to look at the other's fence.
        for (name, bytes, flight) in [("second", bytes_b, b), ("first", bytes_a, a)] {
            landed(&bench, &bytes, flight).map_err(|failure| Failure {
                reason: format!("the {name} of two sessions that run at once: {}", failure.reason),
                ..failure
            })?;
        }
    }
    Ok(())
}

fn with_execute(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    let mut session = bench.load()?;
    for step in 0..6 {
        let seed = trial.seed + step;
        let executed = bench.run_once(&mut session, seed, &Script::default())?;
        let (bytes, flight) = submit(&bench, &mut session, seed, &Script::default())?;
        let (_, outputs) = landed(&bench, &bytes, flight)?;
        if outputs[0].actual() != executed {
            return Err(Failure::fail(
                "`session_submit` and `session_execute` give other bits for the same inputs",
            ));
        }
    }
    Ok(())
}

fn from_threads(trial: &mut Trial<'_>) -> Outcome {
    let bench = &bench(trial)?;
    let seed = trial.seed;
    let mut session = Some(bench.load()?);
    for step in 0..6 {
        let mut mine = session.take().ok_or("the kit lost the session")?;
        // Submitted there, waited for here, and the next time on another thread.
        let submitted = std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let submitted = submit(bench, &mut mine, seed + step, &Script::default());
                (mine, submitted)
            });
            thread.join()
        });
        let (mine, submitted) = submitted.map_err(|_| Failure::fail("the kit's thread panicked"))?;
        let (bytes, flight) = submitted?;
        landed(bench, &bytes, flight)?;
        session = Some(mine);
    }
    Ok(())
}

fn unload_at_once(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    for step in 0..20 {
        let mut session = bench.load()?;
        let (bytes, flight) = submit(&bench, &mut session, trial.seed + step, &Script::default())?;
        let end = ended(&flight, LONG)?;
        session.unload();
        if end.status != Status::OK {
            return Err(Failure::fail(format!("the fence was signalled with {}", end.status)));
        }
        let (_, outputs) = flight.finish();
        bench.check(&bytes, &outputs)?;
    }
    std::thread::sleep(WATCH);
    Ok(())
}

fn shutdown_at_once(trial: &mut Trial<'_>) -> Outcome {
    for step in 0..3 {
        let bench = bench(trial)?;
        let mut session = bench.load()?;
        let (_, flight) = submit(&bench, &mut session, trial.seed + step, &Script::default())?;
        ended(&flight, LONG)?;
        session.unload();
        bench.instance.shutdown();
        let (mut inputs, mut outputs) = flight.finish();
        for tensor in inputs.iter_mut().chain(&mut outputs) {
            tensor.memory.close()?;
        }
        std::thread::sleep(WATCH / 2);
    }
    Ok(())
}

/// What a run that was cancelled, or was late, may end with.
fn judged(what: &str, status: Status, early: Status, right: impl FnOnce() -> Outcome) -> Outcome {
    match status {
        Status::OK => right().map_err(|failure| Failure {
            reason: format!("{what} ended with DG_OK, and {}", failure.reason),
            ..failure
        }),
        status if status == early => Ok(()),
        status => Err(Failure::fail(format!(
            "{what} ended with {status}, where {early} or DG_OK is right"
        ))),
    }
}

fn cancelled_before(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    let mut session = bench.load()?;
    for seed in 1..=3 {
        let script = Script::default();
        script.cancel();
        ends(
            &bench,
            &mut session,
            seed,
            &script,
            "a run that was cancelled before it began",
            Status::CANCELLED,
        )?;
        let (bytes, flight) = submit(&bench, &mut session, seed, &Script::default())?;
        landed(&bench, &bytes, flight)?;
    }
    Ok(())
}

fn deadline_passed(trial: &mut Trial<'_>) -> Outcome {
    let bench = bench(trial)?;
    let mut session = bench.load()?;
    for seed in 1..=3 {
        let script = Script::default().until(Instant::now());
        ends(
            &bench,
            &mut session,
            seed,
            &script,
            "a run whose deadline had passed",
            Status::TIMEOUT,
        )?;
        let (bytes, flight) = submit(&bench, &mut session, seed, &Script::default())?;
        landed(&bench, &bytes, flight)?;
    }
    Ok(())
}

/// Submits a run that may end early, and judges its end.
fn ends(bench: &Bench, session: &mut Loaded, seed: u64, script: &Script, what: &str, early: Status) -> Outcome {
    match submit(bench, session, seed, script) {
        Err(refused) if refused.status == early => Ok(()),
        Err(refused) => Err(Failure::fail(format!(
            "{what}: {refused}, where {early} or DG_OK is right"
        ))),
        Ok((bytes, flight)) => {
            let end = ended(&flight, LONG)?;
            let (_, outputs) = flight.finish();
            judged(what, end.status, early, || bench.check(&bytes, &outputs))
        }
    }
}

/// A bench whose runs take at least as long as this, if that can be had in a few seconds, and how long they take.
fn long_runs(trial: &Trial<'_>, least: Duration) -> Result<(Bench, Duration), Failure> {
    let since = Instant::now();
    let mut best = None;
    for (rows, columns, nodes) in [
        (3, 5, 1),
        (64, 64, 4),
        (256, 128, 8),
        (512, 512, 8),
        (1024, 1024, 16),
        (2048, 2048, 32),
    ] {
        let bench = match Bench::over(trial, rows, columns, nodes) {
            // The smallest says why it is skipped.
            Err(failure) if best.is_none() => return Err(failure),
            Err(_) => break,
            Ok(bench) => bench,
        };
        let mut session = bench.load()?;
        let (_, inputs, mut outputs) = bench.tensors(1, Place::End)?;
        session.run(&inputs, &mut outputs, &Script::default())?;
        let begun = Instant::now();
        session.run(&inputs, &mut outputs, &Script::default())?;
        let took = begun.elapsed();
        session.unload();
        best = Some((bench, took));
        // The next one takes several times as long.
        if took >= least || since.elapsed() > Duration::from_secs(4) {
            break;
        }
    }
    best.ok_or_else(|| Failure::skip("it takes none of the kit's small graphs"))
}

/// Milliseconds that the manifest promises a cancelled run to end within.
fn cancel_bound(trial: &Trial<'_>) -> Option<Duration> {
    let (_, manifest) = trial.subject.manifest.as_ref()?;
    manifest.cancel_bound_ms.map(Duration::from_millis)
}

/// How long a run goes on after it was cancelled: the shortest of three, by `run`, which gives when it ended.
fn cancelled_in(
    trial: &mut Trial<'_>,
    length: Duration,
    mut run: impl FnMut(u64, &Script) -> Result<(Instant, Instant), Failure>,
) -> Outcome {
    let mut shortest = Duration::MAX;
    for seed in 1..=3 {
        let script = Script::default();
        let (cancelled, ended) = run(seed, &script)?;
        shortest = shortest.min(ended.saturating_duration_since(cancelled));
    }
    trial.measure("run_ms", length.as_secs_f64() * 1e3);
    trial.measure("cancel_ms", shortest.as_secs_f64() * 1e3);
    let Some(bound) = cancel_bound(trial) else {
        return Ok(());
    };
    trial.measure("cancel_bound_ms", bound.as_secs_f64() * 1e3);
    match shortest > bound {
        true => Err(Failure::claimed(format!(
            "a run ended {:.1} ms after it was cancelled, where the manifest's `cancel_bound_ms` is {}",
            shortest.as_secs_f64() * 1e3,
            bound.as_millis()
        ))),
        false => Ok(()),
    }
}

/// As long as a run has to be, so that it can be cancelled on the way.
const ON_THE_WAY: Duration = Duration::from_millis(20);

fn cancelled_during(trial: &mut Trial<'_>) -> Outcome {
    bench(trial)?;
    let (bench, length) = long_runs(trial, ON_THE_WAY)?;
    let mut session = bench.load()?;
    let within = 4 * length + LONG;
    cancelled_in(trial, length, |seed, script| {
        let (bytes, flight) = submit(&bench, &mut session, seed, script)?;
        std::thread::sleep(length / 4);
        let at = Instant::now();
        script.cancel();
        let end = ended(&flight, within)?;
        let (_, outputs) = flight.finish();
        let what = "a run that was cancelled on the way";
        judged(what, end.status, Status::CANCELLED, || bench.check(&bytes, &outputs))?;
        Ok((at, end.at))
    })?;
    let (bytes, flight) = submit(&bench, &mut session, trial.seed, &Script::default())?;
    let end = ended(&flight, within)?;
    let (_, outputs) = flight.finish();
    judged("the run after a cancelled one", end.status, Status::OK, || {
        bench.check(&bytes, &outputs)
    })
}

/// Whether runs go on long after a deadline, only to succeed: `run` gives the status and when it ended.
fn late(
    trial: &mut Trial<'_>,
    length: Duration,
    mut run: impl FnMut(u64, &Script) -> Result<(Status, Instant), Failure>,
) -> Outcome {
    let mut least = Duration::MAX;
    for seed in 1..=5 {
        let deadline = Instant::now() + Duration::from_millis(20);
        let script = Script::default().until(deadline);
        let (status, end) = run(seed, &script)?;
        let after = end.saturating_duration_since(deadline);
        // What never looks at the time cannot know, and what ended with an error has said so.
        if status != Status::OK || script.heard.count("call_time_left_ns") == 0 {
            return Ok(());
        }
        least = least.min(after);
    }
    trial.measure("late_ms", least.as_secs_f64() * 1e3);
    match least > SLACK + 10 * length {
        true => Err(Failure::fail(format!(
            "five runs of {:.1} ms each, that asked how much time was left, ended at least {:.0} ms after their deadline, with DG_OK",
            length.as_secs_f64() * 1e3,
            least.as_secs_f64() * 1e3
        ))),
        false => Ok(()),
    }
}

fn deadline(trial: &mut Trial<'_>) -> Outcome {
    bench(trial)?;
    let (bench, length) = long_runs(trial, Duration::ZERO)?;
    let mut session = bench.load()?;
    late(trial, length, |seed, script| {
        match submit(&bench, &mut session, seed, script) {
            Err(refused) if refused.status == Status::TIMEOUT => Ok((refused.status, Instant::now())),
            Err(refused) => Err(refused.into()),
            Ok((bytes, flight)) => {
                let end = ended(&flight, LONG)?;
                let (_, outputs) = flight.finish();
                let what = "a run with a deadline";
                judged(what, end.status, Status::TIMEOUT, || bench.check(&bytes, &outputs))?;
                Ok((end.status, end.at))
            }
        }
    })
}

/// A run by `session_execute` that may return early, judged.
fn returns(
    bench: &Bench,
    session: &mut Loaded,
    seed: u64,
    script: &Script,
    what: &str,
    early: Status,
) -> Result<Status, Failure> {
    let (bytes, inputs, mut outputs) = bench.tensors(seed, Place::End)?;
    let status = match session.run(&inputs, &mut outputs, script) {
        Ok(()) => Status::OK,
        Err(refused) => refused.status,
    };
    judged(what, status, early, || bench.check(&bytes, &outputs))?;
    Ok(status)
}

fn execute_cancelled_before(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let mut session = bench.load()?;
    for seed in 1..=3 {
        let script = Script::default();
        script.cancel();
        let what = "a run that was cancelled before it began";
        returns(&bench, &mut session, seed, &script, what, Status::CANCELLED)?;
        bench.run_once(&mut session, seed, &Script::default())?;
    }
    Ok(())
}

fn execute_deadline_passed(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let mut session = bench.load()?;
    for seed in 1..=3 {
        let script = Script::default().until(Instant::now());
        let what = "a run whose deadline had passed";
        returns(&bench, &mut session, seed, &script, what, Status::TIMEOUT)?;
        bench.run_once(&mut session, seed, &Script::default())?;
    }
    Ok(())
}

fn execute_cancelled_during(trial: &mut Trial<'_>) -> Outcome {
    let (bench, length) = long_runs(trial, ON_THE_WAY)?;
    let mut session = bench.load()?;
    let mut asked = 0;
    cancelled_in(trial, length, |seed, script| {
        std::thread::scope(|scope| {
            let canceller = scope.spawn(|| {
                std::thread::sleep(length / 4);
                let at = Instant::now();
                script.cancel();
                at
            });
            let what = "a run that was cancelled on the way";
            let outcome = returns(&bench, &mut session, seed, script, what, Status::CANCELLED);
            let ended = Instant::now();
            asked += script.heard.asked.load(std::sync::atomic::Ordering::Relaxed);
            let at = canceller
                .join()
                .map_err(|_| Failure::fail("the kit's thread panicked"))?;
            outcome.map(|_| (at, ended))
        })
    })?;
    // How often somebody looks is what a bound comes from; it is not judged.
    trial.measure("asked_per_run", asked as f64 / 3.0);
    bench.run_once(&mut session, trial.seed, &Script::default())?;
    Ok(())
}

fn execute_deadline(trial: &mut Trial<'_>) -> Outcome {
    let (bench, length) = long_runs(trial, Duration::ZERO)?;
    let mut session = bench.load()?;
    late(trial, length, |seed, script| {
        let what = "a run with a deadline";
        let status = returns(&bench, &mut session, seed, script, what, Status::TIMEOUT)?;
        Ok((status, Instant::now()))
    })
}

fn compile_cancelled(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let cancelled = Script::default();
    cancelled.cancel();
    let late = Script::default().until(Instant::now());
    for (what, script, early) in [
        ("`compile` of a cancelled call", cancelled, Status::CANCELLED),
        ("`compile` of a call whose deadline had passed", late, Status::TIMEOUT),
    ] {
        let compiled = bench
            .instance
            .compile(&bench.workload.image, &bench.weights, "", &script);
        let status = compiled.as_ref().map_or_else(|refused| refused.status, |_| Status::OK);
        judged(what, status, early, || match compiled {
            Ok(blob) if blob.sections.is_empty() => Err(Failure::fail("wrote no section")),
            _ => Ok(()),
        })?;
        let again = bench
            .instance
            .compile(&bench.workload.image, &bench.weights, "", &Script::default());
        again.map_err(|refused| Failure::fail(format!("after {what}: {refused}")))?;
    }
    let mut session = bench.load()?;
    bench.run_once(&mut session, trial.seed, &Script::default())?;
    Ok(())
}
