//! What is left behind: memory, files, threads, mappings, weights.
//!
//! Memory is judged by its growth over many repetitions of one thing. After a warm-up (the driver itself keeps the last 512 calls, so that a
//! delegate that uses one is found out), a batch of repetitions is measured; it has leaked where the process grew by more than 1 MiB and
//! by more than 64 bytes a repetition, and does so again, by at least half as much, in a second batch of as many. A cache that fills once does not do
//! that, nor does an allocator that settles. In its few seconds a batch has some thousands of repetitions, so that 4 KiB a repetition are
//! found with a wide margin, and 512 bytes mostly; what is slower is found in a soak.
//!
//! A soak: with `DELEGRAPH_CONFORM_SOAK` in the environment, `leak/soak` runs for as many seconds, and reports growth an hour.

use crate::case::{Case, Failure, Outcome, Trial, case};
use crate::categories::import;
use crate::driver::{Loaded, Place, Script};
use crate::stateful::{Form, Kept};
use crate::usage;
use crate::workload::Bench;
use delegraph_abi::{Status, c};
use std::time::{Duration, Instant};

/// The cases of the category.
pub const CASES: &[Case] = &[
    case("leak/runs", "session_execute: a run leaves no memory behind", runs).limit(90),
    case(
        "leak/submitted-runs",
        "session_submit: a run leaves no memory behind",
        submitted_runs,
    )
    .limit(90),
    case(
        "leak/loads",
        "session_unload: ends a session, and frees what it had",
        loads,
    )
    .limit(90),
    case(
        "leak/failed-loads",
        "session_load: a load that fails leaves no memory behind, and no weights retained",
        failed_loads,
    )
    .limit(90),
    case("leak/compiles", "compile: leaves no memory behind", compiles).limit(90),
    case("leak/partitions", "partition: leaves no memory behind", partitions).limit(90),
    case(
        "leak/starts",
        "shutdown: stops the delegate's threads, and frees its memory",
        starts,
    )
    .limit(90),
    case(
        "leak/imports",
        "buffer_release: ends an imported buffer, and frees what it had",
        imports,
    )
    .limit(90),
    case(
        "leak/states",
        "session_state_*: snapshots, restores and commits leave no memory behind",
        states,
    )
    .limit(90),
    case(
        "leak/descriptors",
        "session_unload, shutdown: no file stays open",
        descriptors,
    )
    .limit(60),
    case("leak/threads", "shutdown: stops the delegate's threads", threads).limit(60),
    case(
        "leak/mappings",
        "session_unload, shutdown: no range of addresses stays mapped",
        mappings,
    )
    .limit(60),
    case(
        "leak/weights",
        "weight_release: what was retained is given back, whatever order sessions end in",
        weights,
    ),
    case(
        "leak/soak",
        "session_execute, session_load: memory does not grow over the time that was asked for",
        soak,
    )
    .limit(3600),
];

/// Repetitions before anything is measured: more than calls that the driver keeps.
const WARM: u64 = 700;
/// How long a warm-up may take, and each of the two batches after it.
const WARM_TIME: Duration = Duration::from_secs(4);
const BATCH_TIME: Duration = Duration::from_secs(4);
/// Most repetitions of a batch.
const MOST: u64 = 4000;
/// Growth below this is the allocator's.
const NOISE: f64 = (1 << 20) as f64;
/// Growth of one repetition that is not noise, in bytes.
const EACH: f64 = 64.0;
/// Growth beyond this needs no more repetitions.
const PLENTY: f64 = (96 << 20) as f64;

/// Repeats something until time, repetitions or growth are enough: how often, and how many bytes the process has grown by.
fn batch(most: u64, time: Duration, step: &mut impl FnMut(u64) -> Outcome) -> Result<(u64, f64), Failure> {
    let memory =
        || usage::memory().ok_or_else(|| Failure::skip("the system does not say how much memory a process has"));
    let (before, begun) = (memory()? as f64, Instant::now());
    let (mut done, mut growth) = (0, 0.0);
    while done < most && begun.elapsed() < time && growth < PLENTY {
        step(done)?;
        done += 1;
        if done % 32 == 0 {
            growth = memory()? as f64 - before;
        }
    }
    Ok((done, memory()? as f64 - before))
}

/// Whether something, done over and over, leaves memory behind.
fn steady(trial: &mut Trial<'_>, what: &str, mut step: impl FnMut(u64) -> Outcome) -> Outcome {
    let (warm, _) = batch(WARM, WARM_TIME, &mut step)?;
    let (count, growth) = batch(MOST, BATCH_TIME, &mut step)?;
    let each = growth / count.max(1) as f64;
    trial.measure("repetitions", (warm + count) as f64);
    trial.measure("growth_bytes_each", each.max(0.0));
    if growth <= NOISE || each <= EACH {
        return Ok(());
    }
    // As many again, however long those took.
    let (again, more) = batch(count, 3 * BATCH_TIME, &mut step)?;
    trial.measure("growth_bytes_each_again", (more / again.max(1) as f64).max(0.0));
    match more / again.max(1) as f64 >= each / 2.0 {
        true => Err(Failure::fail(format!(
            "{what}: the process grew by {:.1} MiB in {count} repetitions, and by {:.1} MiB in {again} more: {each:.0} bytes each",
            growth / NOISE,
            more / NOISE
        ))),
        false => Ok(()),
    }
}

fn runs(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let mut session = bench.load()?;
    let (bytes, inputs, mut outputs) = bench.tensors(trial.seed, Place::End)?;
    steady(trial, "`session_execute`", |_| {
        session.run(&inputs, &mut outputs, &Script::default())?;
        Ok(())
    })?;
    bench.check(&bytes, &outputs)
}

fn submitted_runs(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    if !bench.library.has(c::Feature::ASYNC) {
        return Err(Failure::skip("no feature ASYNC"));
    }
    let mut session = bench.load()?;
    let (_, inputs, outputs) = bench.tensors(trial.seed, Place::End)?;
    let mut tensors = Some((inputs, outputs));
    steady(trial, "`session_submit`", |_| {
        let (inputs, outputs) = tensors.take().ok_or("the kit lost the tensors")?;
        let flight = session.submit(inputs, outputs, &Script::default())?;
        let end = flight
            .wait(Duration::from_secs(10))
            .ok_or("`session_submit`: no fence was signalled within 10 s")?;
        if end.status != Status::OK {
            return Err(Failure::fail(format!(
                "a run ended with {}: {}",
                end.status, end.message
            )));
        }
        let _ = flight.submitted.at_signal();
        tensors = Some(flight.finish());
        Ok(())
    })
}

/// The bench with weights, where one is taken.
fn with_weights(trial: &Trial<'_>) -> Result<Bench, Failure> {
    match Bench::weighted(trial) {
        Err(failure) if failure.verdict == delegraph_runner::Verdict::Skip => Bench::open(trial),
        other => other,
    }
}

fn loads(trial: &mut Trial<'_>) -> Outcome {
    let bench = with_weights(trial)?;
    let (bytes, inputs, mut outputs) = bench.tensors(trial.seed, Place::End)?;
    steady(trial, "`session_load`, a run and `session_unload`", |_| {
        let mut session = bench.load()?;
        session.run(&inputs, &mut outputs, &Script::default())?;
        session.unload();
        Ok(())
    })?;
    bench.check(&bytes, &outputs)?;
    released(&bench)
}

fn released(bench: &Bench) -> Outcome {
    match bench.weights.retained() {
        0 => Ok(()),
        more => Err(Failure::fail(format!(
            "weights are retained {more} times more than released when every session is gone"
        ))),
    }
}

fn failed_loads(trial: &mut Trial<'_>) -> Outcome {
    let bench = with_weights(trial)?;
    let mut damaged = bench.blob.clone();
    // Half of each section: no reader can take that for the whole.
    for (.., bytes) in &mut damaged.sections {
        bytes.truncate(bytes.len() / 2);
    }
    let mut failed = 0;
    let device = trial.subject.device;
    steady(trial, "`session_load` of a damaged blob", |_| {
        match bench
            .instance
            .load(&damaged, &bench.weights, device, &Script::default())
        {
            Ok(session) => session.unload(),
            Err(_) => failed += 1,
        }
        Ok(())
    })?;
    trial.measure("failed_loads", f64::from(failed));
    released(&bench)?;
    let mut session = bench.load()?;
    bench.run_once(&mut session, trial.seed, &Script::default())?;
    Ok(())
}

fn compiles(trial: &mut Trial<'_>) -> Outcome {
    let bench = with_weights(trial)?;
    let image = &bench.workload.image;
    steady(trial, "`compile`", |_| {
        bench.instance.compile(image, &bench.weights, "", &Script::default())?;
        Ok(())
    })
}

fn partitions(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::over(trial, 3, 5, 8)?;
    let (image, nodes) = (&bench.workload.image, bench.workload.nodes);
    steady(trial, "`partition`", |_| {
        bench.instance.partition(image, nodes, &Script::default())?;
        Ok(())
    })
}

fn starts(trial: &mut Trial<'_>) -> Outcome {
    // Also for a delegate that takes nothing.
    let library = std::sync::Arc::new(crate::driver::Library::open(trial.subject)?);
    let options = trial.subject.options.clone();
    steady(trial, "`initialize` and `shutdown`", |_| {
        let instance = library.start(&options, &Script::default())?;
        instance.devices()?;
        instance.shutdown();
        Ok(())
    })
}

fn imports(trial: &mut Trial<'_>) -> Outcome {
    let bench = import::bench(trial)?;
    // One memory for all: what is measured is what the delegate makes of it.
    let mut memory = Some(import::memory()?);
    drop(import::import(&bench)?);
    steady(trial, "`buffer_import` and `buffer_release`", |_| {
        let mine = memory.take().ok_or("the kit lost the memory")?;
        memory = bench.instance.import(mine)?.release();
        Ok(())
    })
}

fn states(trial: &mut Trial<'_>) -> Outcome {
    let has = Kept::open(trial, &[Form::Sum, Form::SumThenRelu])?;
    if !has.library.has(c::Feature::STATE) || has.blob.states.is_empty() {
        return Err(Failure::skip("its sessions keep no states"));
    }
    let mut session = has.load()?;
    let x = has.graph.numbers(trial.seed);
    let size = has.graph.bytes_of(0);
    steady(
        trial,
        "a run with its commit, a snapshot, a restore and a reset",
        |step| {
            has.step(&mut session, &x, &x, step % 2 == 0)?;
            let taken = session.snapshot(0, size, &Script::default())?;
            session.restore(0, &taken, &Script::default())?;
            session.reset(0, &Script::default())?;
            Ok(())
        },
    )
}

/// Cycles in which something is counted.
const CYCLES: u64 = 40;

/// Whether a number grows with cycles of a delegate: starts with a session that runs, and loads.
fn counted(trial: &mut Trial<'_>, what: &str, count: impl Fn() -> Option<u64>) -> Outcome {
    let none = || Failure::skip(format!("the system does not say how many {what} a process has"));
    count().ok_or_else(none)?;
    let step = |bench: &Bench| -> Outcome {
        let mut session = bench.load()?;
        bench.run_once(&mut session, 1, &Script::default())?;
        session.unload();
        Ok(())
    };
    let settled = || {
        // Threads that were told to end take a moment.
        std::thread::sleep(Duration::from_millis(200));
        count().unwrap_or(0)
    };
    let bench = with_weights(trial)?;
    for (name, cycle) in [
        ("`session_load` and `session_unload`", true),
        ("`initialize` and `shutdown`", false),
    ] {
        let once = || match cycle {
            true => step(&bench),
            false => {
                let bench = with_weights(trial)?;
                step(&bench)?;
                bench.instance.shutdown();
                Ok(())
            }
        };
        for _ in 0..8 {
            once()?;
        }
        let before = settled();
        for _ in 0..CYCLES {
            once()?;
        }
        let after = settled();
        if after >= before + CYCLES / 2 {
            return Err(Failure::fail(format!(
                "{name}: the process has {after} {what} after {CYCLES} cycles, and had {before} before them"
            )));
        }
    }
    Ok(())
}

fn descriptors(trial: &mut Trial<'_>) -> Outcome {
    counted(trial, "open files", usage::descriptors)
}

fn threads(trial: &mut Trial<'_>) -> Outcome {
    counted(trial, "threads", usage::threads)
}

fn mappings(trial: &mut Trial<'_>) -> Outcome {
    counted(trial, "mappings", usage::mappings)
}

fn weights(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::weighted(trial)?;
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let weights = bench.weights_at(Place::End, 64)?;
        let mut sessions: Vec<Option<Loaded>> = (0..3)
            .map(|_| Ok(Some(bench.load_with(&weights, &Script::default())?)))
            .collect::<Result<_, Failure>>()?;
        for i in order {
            if let Some(mut session) = sessions[i].take() {
                bench.run_once(&mut session, trial.seed, &Script::default())?;
                session.unload();
            }
        }
        if weights.retained() != 0 {
            return Err(Failure::fail(format!(
                "weights are retained {} times more than released when three sessions were unloaded in the order {order:?}",
                weights.retained()
            )));
        }
    }
    Ok(())
}

/// The variable of the environment that asks for a soak, in seconds.
pub const SOAK: &str = "DELEGRAPH_CONFORM_SOAK";

fn soak(trial: &mut Trial<'_>) -> Outcome {
    let seconds = std::env::var(SOAK).ok().and_then(|text| text.parse::<u64>().ok());
    let Some(time) = seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs) else {
        return Err(Failure::skip("no soak was asked for"));
    };
    let memory =
        || usage::memory().ok_or_else(|| Failure::skip("the system does not say how much memory a process has"));
    let bench = with_weights(trial)?;
    let (bytes, inputs, mut outputs) = bench.tensors(trial.seed, Place::End)?;
    let mut session = bench.load()?;
    let begun = Instant::now();
    // Ten parts; what the first two leave behind is warming up.
    let mut parts: Vec<(f64, f64)> = Vec::new();
    let mut count = 0u64;
    for part in 1..=10 {
        while begun.elapsed() < time * part / 10 {
            session.run(&inputs, &mut outputs, &Script::default())?;
            count += 1;
            if count.is_multiple_of(16) {
                session.unload();
                session = bench.load()?;
            }
        }
        parts.push((begun.elapsed().as_secs_f64(), memory()? as f64));
    }
    bench.check(&bytes, &outputs)?;
    let slope = slope(&parts[2..]);
    let growth = parts[9].1 - parts[2].1;
    trial.measure("soak_s", begun.elapsed().as_secs_f64());
    trial.measure("runs", count as f64);
    trial.measure("growth_bytes_per_hour", slope * 3600.0);
    let rising = parts[2..].windows(2).filter(|pair| pair[1].1 > pair[0].1).count();
    match growth > NOISE && rising >= 5 && growth / count as f64 > 1.0 {
        true => Err(Failure::fail(format!(
            "the process grew by {:.1} MiB in the last seven tenths of {count} runs, {:.1} MiB an hour",
            growth / NOISE,
            slope * 3600.0 / NOISE
        ))),
        false => Ok(()),
    }
}

/// Least squares: how much the second number grows with the first.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len().max(1) as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let over: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let under: f64 = points.iter().map(|p| (p.0 - x) * (p.0 - x)).sum();
    if under == 0.0 { 0.0 } else { over / under }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_a_line_is_its_slope() {
        let line: Vec<(f64, f64)> = (0..8).map(|i| (f64::from(i), 3.0 * f64::from(i) + 5.0)).collect();
        assert!((slope(&line) - 3.0).abs() < 1e-12);
    }

    #[test]
    fn what_leaks_is_told_from_what_does_not() {
        let subject = crate::subject::Subject {
            library: Default::default(),
            manifest: None,
            device: None,
            options: Default::default(),
            elsewhere: None,
            isolated: false,
        };
        let judge = |mut step: &mut dyn FnMut(u64) -> Outcome| {
            let body = |trial: &mut Trial<'_>| steady(trial, "it", &mut step);
            crate::case::run("leak/x", &subject, 1, body).0.verdict
        };
        // 4 KiB a repetition, of which some take as long as a slow run.
        let mut leak = |i: u64| {
            std::mem::forget(std::hint::black_box(vec![1u8; 4096]));
            if i.is_multiple_of(64) {
                std::thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        };
        assert_eq!(judge(&mut leak), delegraph_runner::Verdict::Fail);
        // A cache of 16 MiB that fills during the first batch.
        let mut cache = Vec::new();
        let mut fills = |_: u64| {
            if cache.len() < 2000 {
                cache.push(std::hint::black_box(vec![1u8; 8192]));
            }
            Ok(())
        };
        assert_eq!(judge(&mut fills), delegraph_runner::Verdict::Pass);
        let mut clean = |_: u64| {
            std::hint::black_box(vec![1u8; 100_000]);
            Ok(())
        };
        assert_eq!(judge(&mut clean), delegraph_runner::Verdict::Pass);
    }
}
