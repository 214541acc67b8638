//! Many threads: the functions of a delegate run on several at once, those of a session on any.
//!
//! A delegate with DG_FEATURE_SERIALIZED is called by the driver as the host calls it, one function at a time; the cases are the same.

use crate::case::{Case, Failure, Outcome, Trial, case};
use crate::driver::{Hook, HostWeights, Loaded, Script};
use crate::workload::Bench;
use delegraph_abi::c;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The cases of the category. A dead lock is a hang.
pub const CASES: &[Case] = &[
    case(
        "threading/sessions",
        "Threads: sessions run on several threads at once, each with the result that it has alone, bit for bit",
        sessions,
    ),
    case(
        "threading/sessions-move",
        "Threads: the functions of a session may run on any thread, one at a time",
        sessions_move,
    ),
    case(
        "threading/partition-and-compile",
        "Threads: `partition` and `compile` of one delegate may run on several threads at once",
        partition_and_compile,
    ),
    case(
        "threading/load-while-running",
        "Threads: sessions are loaded and unloaded while others of the delegate run",
        load_while_running,
    ),
    case(
        "threading/load-one-blob",
        "Threads: one blob is loaded by several threads at once, with the same weights",
        load_one_blob,
    ),
    case(
        "threading/two-delegates",
        "initialize: two delegates of one process run at once, and ending one leaves the other",
        two_delegates,
    ),
    case(
        "threading/later-threads",
        "Threads: a delegate is used by threads that were started after it, when the one that started it has gone",
        later_threads,
    ),
    case(
        "threading/host-threads",
        "parallel_for: with 1, 2 and 8 threads of the host the result is the same",
        host_threads,
    ),
    case(
        "threading/host-functions-without-locks",
        "Threads: host functions are called with no lock held: while one is running, another session runs",
        without_locks,
    ),
    case(
        "threading/host-functions-without-locks-elsewhere",
        "Threads: host functions are called with no lock held in `partition`, `compile` and `session_load` too",
        without_locks_elsewhere,
    ),
    case(
        "threading/submitted",
        "session_submit: runs of many sessions go on at once, each with the result that it has alone",
        submitted,
    ),
];

/// Threads, and sessions of each.
const THREADS: usize = 4;
const SESSIONS: usize = 4;
/// Runs of each session.
const RUNS: u64 = 8;

/// What a session gives for these seeds when nothing else runs.
fn alone(bench: &Bench, seeds: impl Iterator<Item = u64>) -> Result<Vec<Vec<u8>>, Failure> {
    let mut session = bench.load()?;
    seeds
        .map(|seed| bench.run_once(&mut session, seed, &Script::default()))
        .collect()
}

/// Runs bodies at once, from the same moment on; the first failure.
fn at_once(count: usize, body: impl Fn(usize) -> Outcome + Sync) -> Outcome {
    let gate = Barrier::new(count);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|i| {
                let (gate, body) = (&gate, &body);
                scope.spawn(move || {
                    gate.wait();
                    body(i)
                })
            })
            .collect();
        let outcomes = threads.into_iter().map(|thread| {
            let outcome = thread.join();
            outcome.unwrap_or_else(|_| Err(Failure::fail("a thread of the kit panicked")))
        });
        // Every thread is waited for.
        let outcomes: Vec<Outcome> = outcomes.collect();
        outcomes.into_iter().collect()
    })
}

fn differs(what: &str, alone: &[u8], now: &[u8]) -> Outcome {
    match alone.iter().zip(now).position(|(a, b)| a != b) {
        Some(at) => Err(Failure::fail(format!(
            "{what}: byte {at} of output 0 is {:#04x}, where the session alone gives {:#04x}",
            now[at], alone[at]
        ))),
        None => Ok(()),
    }
}

fn sessions(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::over(trial, 16, 33, 3)?;
    let count = (THREADS * SESSIONS) as u64;
    let first = trial.seed;
    let right = alone(&bench, (0..count).map(|seed| first + seed))?;
    at_once(THREADS, |thread| {
        let mut sessions: Vec<Loaded> = (0..SESSIONS).map(|_| bench.load()).collect::<Result<_, _>>()?;
        for _ in 0..RUNS {
            for (i, session) in sessions.iter_mut().enumerate() {
                let number = thread * SESSIONS + i;
                let what = format!("session {i} of thread {thread} beside {THREADS} threads");
                let made = bench
                    .run_once(session, first + number as u64, &Script::default())
                    .map_err(|failure| Failure {
                        reason: format!("{what}: {}", failure.reason),
                        ..failure
                    })?;
                differs(&what, &right[number], &made)?;
            }
        }
        Ok(())
    })
}

fn sessions_move(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let first = trial.seed;
    let right = alone(&bench, (0..8).map(|step| first + step))?;
    // Loaded on one thread, run on eight others, unloaded on a last one.
    let mut session = std::thread::scope(|scope| scope.spawn(|| bench.load()).join())
        .map_err(|_| Failure::fail("a thread of the kit panicked"))??;
    for (step, right) in right.iter().enumerate() {
        let seed = first + step as u64;
        let bench = &bench;
        let session = &mut session;
        let made = std::thread::scope(|scope| {
            scope
                .spawn(move || bench.run_once(session, seed, &Script::default()))
                .join()
        });
        let made = made.map_err(|_| Failure::fail("a thread of the kit panicked"))??;
        differs(&format!("on thread {step}"), right, &made)?;
    }
    let unloaded = std::thread::spawn(move || session.unload()).join();
    unloaded.map_err(|_| Failure::fail("a thread of the kit panicked"))
}

fn partition_and_compile(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::over(trial, 16, 33, 3)?;
    let (image, nodes) = (&bench.workload.image, bench.workload.nodes);
    let right = bench.instance.partition(image, nodes, &Script::default())?;
    let seed = trial.seed;
    at_once(THREADS, |thread| {
        for _ in 0..4 {
            let answers = bench.instance.partition(image, nodes, &Script::default())?;
            if answers != right {
                return Err(Failure::fail(format!(
                    "`partition` on thread {thread} of {THREADS} gave other answers than alone"
                )));
            }
            let blob = bench
                .instance
                .compile(image, &bench.weights, "", &Script::default())
                .map_err(|refused| Failure::fail(format!("on thread {thread} of {THREADS}: {refused}")))?;
            // Whether the bytes are those of `compile` alone is asked elsewhere; that they work is asked here.
            let mut session = bench
                .instance
                .load(&blob, &bench.weights, trial.subject.device, &Script::default())?;
            bench.run_once(&mut session, seed, &Script::default())?;
        }
        Ok(())
    })
}

fn load_while_running(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::over(trial, 16, 33, 3)?;
    let first = trial.seed;
    let right = alone(&bench, (0..2).map(|seed| first + seed))?;
    let done = AtomicBool::new(false);
    at_once(THREADS, |thread| {
        if thread < 2 {
            let mut session = bench.load()?;
            let outcome = loop {
                let made = bench.run_once(&mut session, first + thread as u64, &Script::default());
                let what = "a run while other sessions are loaded and unloaded";
                if let Err(failure) = made.and_then(|made| differs(what, &right[thread], &made)) {
                    break Err(failure);
                }
                if done.load(Ordering::SeqCst) {
                    break Ok(());
                }
            };
            return outcome;
        }
        let outcome = (0..20).try_for_each(|_| {
            let mut session = bench.load()?;
            bench.run_once(&mut session, first, &Script::default())?;
            session.unload();
            Ok(())
        });
        done.store(true, Ordering::SeqCst);
        outcome
    })
}

fn load_one_blob(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::weighted(trial)?;
    let first = trial.seed;
    let right = alone(&bench, std::iter::once(first))?;
    let weights: Arc<HostWeights> = bench.weights_at(crate::driver::Place::End, 64)?;
    at_once(2 * THREADS, |thread| {
        for _ in 0..4 {
            let mut session = bench.load_with(&weights, &Script::default())?;
            let made = bench.run_once(&mut session, first, &Script::default())?;
            differs(&format!("a session loaded on thread {thread}"), &right[0], &made)?;
        }
        Ok(())
    })?;
    match weights.retained() {
        0 => Ok(()),
        more => Err(Failure::fail(format!(
            "weights are retained {more} times more than released when every session is gone"
        ))),
    }
}

fn two_delegates(trial: &mut Trial<'_>) -> Outcome {
    let benches = [Bench::open(trial)?, Bench::open(trial)?];
    let first = trial.seed;
    let right = alone(&benches[0], std::iter::once(first))?;
    at_once(THREADS, |thread| {
        let bench = &benches[thread % 2];
        for _ in 0..RUNS {
            let mut session = bench.load()?;
            let made = bench.run_once(&mut session, first, &Script::default())?;
            differs(&format!("delegate {} of two", thread % 2), &right[0], &made)?;
        }
        Ok(())
    })?;
    // One ends while the other runs.
    let [ends, stays] = benches;
    let mut session = stays.load()?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (done, stays) = (&done, &stays);
        let runs = scope.spawn(move || {
            let mut ran = 0;
            while !done.load(Ordering::SeqCst) || ran < 3 {
                stays.run_once(&mut session, first, &Script::default())?;
                ran += 1;
            }
            Ok(())
        });
        ends.instance.shutdown();
        done.store(true, Ordering::SeqCst);
        let outcome: Result<Outcome, _> = runs.join();
        outcome.unwrap_or_else(|_| Err(Failure::fail("a thread of the kit panicked")))
    })
}

fn later_threads(trial: &mut Trial<'_>) -> Outcome {
    let first = trial.seed;
    let trial = &*trial;
    let started = std::thread::scope(|scope| scope.spawn(|| Bench::open(trial)).join());
    let bench = started.map_err(|_| Failure::fail("a thread of the kit panicked"))??;
    // The thread that started the delegate is gone.
    at_once(THREADS, |_| {
        let mut session = bench.load()?;
        bench.run_once(&mut session, first, &Script::default())?;
        Ok(())
    })?;
    let ended = std::thread::spawn(move || bench.instance.shutdown()).join();
    ended.map_err(|_| Failure::fail("a thread of the kit panicked"))
}

fn host_threads(trial: &mut Trial<'_>) -> Outcome {
    let mut borrowed = 0;
    let seed = trial.seed;
    for (rows, columns) in [(3, 5), (64, 65)] {
        let bench = Bench::over(trial, rows, columns, 2)?;
        let mut session = bench.load()?;
        let mut right: Option<Vec<u8>> = None;
        for threads in [1, 2, 8, 1] {
            let script = Script::default().on(threads);
            let made = bench.run_once(&mut session, seed, &script)?;
            borrowed += script.heard.count("parallel_for");
            match &right {
                None => right = Some(made),
                Some(right) => differs(&format!("with {threads} threads of the host"), right, &made)?,
            }
        }
    }
    trial.measure("parallel_for_calls", borrowed as f64);
    Ok(())
}

/// Asks a thread to run a session, and to answer there; `None`: to end.
type Ask = Sender<Option<Sender<Outcome>>>;

/// How long another session may take to run while a host function is held up.
const HELD_UP: Duration = Duration::from_secs(5);
/// How many calls of host functions are held up: each costs a run.
const MOST: u64 = 12;

/// A hook that has another session run while the host function is held up; fills in what went wrong.
fn hook(ask: Ask, wrong: &Arc<Mutex<Option<String>>>, held: &Arc<AtomicU64>) -> Hook {
    let (wrong, held, ask) = (wrong.clone(), held.clone(), Mutex::new(ask));
    Arc::new(move |function| {
        if held.fetch_add(1, Ordering::SeqCst) >= MOST {
            return;
        }
        let (answer, answered) = channel();
        let asked = ask.lock().unwrap_or_else(PoisonError::into_inner).send(Some(answer));
        if asked.is_err() {
            return;
        }
        let problem = match answered.recv_timeout(HELD_UP) {
            Ok(Ok(())) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(Err(failure)) => format!("while `{function}` was running, another session: {}", failure.reason),
            Err(RecvTimeoutError::Timeout) => {
                format!("`{function}` was called with a lock held: another session could not run for {HELD_UP:?}")
            }
        };
        let mut wrong = wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.get_or_insert(problem);
    })
}

/// Calls `body` with a hook that runs another session of the bench; what the hook found.
fn held_up(bench: &Bench, seed: u64, body: impl FnOnce(&Script) -> Outcome) -> Result<u64, Failure> {
    if bench.library.has(c::Feature::SERIALIZED) {
        return Err(Failure::skip("feature SERIALIZED: nothing else runs meanwhile"));
    }
    let mut session = bench.load()?;
    let wrong = Arc::new(Mutex::new(None));
    let held = Arc::new(AtomicU64::new(0));
    let (ask, asked) = channel::<Option<Sender<Outcome>>>();
    let outcome = std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Ok(Some(answer)) = asked.recv() {
                let outcome = bench.run_once(&mut session, seed, &Script::default());
                let _ = answer.send(outcome.map(drop));
            }
        });
        let outcome = body(&Script::default().hooked(hook(ask.clone(), &wrong, &held)));
        // The driver keeps scripts of calls that are over for a while, and the hook with them: the thread is told to end.
        let _ = ask.send(None);
        outcome
    });
    outcome?;
    let wrong = wrong.lock().unwrap_or_else(PoisonError::into_inner).take();
    match wrong {
        Some(problem) => Err(Failure::fail(problem)),
        None => Ok(held.load(Ordering::SeqCst)),
    }
}

fn without_locks(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let seed = trial.seed;
    let held = held_up(&bench, seed, |script| {
        let mut session = bench.load()?;
        let script = Script {
            profile: true,
            deadline: Some(Instant::now() + Duration::from_secs(600)),
            ..script.clone()
        };
        for step in 0..3 {
            bench.run_once(&mut session, seed + step, &script)?;
        }
        Ok(())
    })?;
    trial.measure("host_calls", held as f64);
    Ok(())
}

fn without_locks_elsewhere(trial: &mut Trial<'_>) -> Outcome {
    // Weights make `compile` and `session_load` call the host, where the delegate takes a graph that has some.
    let bench = match Bench::weighted(trial) {
        Err(_) => Bench::open(trial)?,
        Ok(bench) => bench,
    };
    let seed = trial.seed;
    let held = held_up(&bench, seed, |script| {
        let (image, nodes) = (&bench.workload.image, bench.workload.nodes);
        bench.instance.partition(image, nodes, script)?;
        bench.instance.compile(image, &bench.weights, "", script)?;
        let mut session = bench.load_with(&bench.weights, script)?;
        bench.run_once(&mut session, seed, &Script::default())?;
        Ok(())
    })?;
    trial.measure("host_calls", held as f64);
    Ok(())
}

fn submitted(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::over(trial, 16, 33, 3)?;
    if !bench.library.has(c::Feature::ASYNC) {
        return Err(Failure::skip("no feature ASYNC"));
    }
    let first = trial.seed;
    let right = alone(&bench, (0..THREADS as u64).map(|seed| first + seed))?;
    at_once(THREADS, |thread| {
        let seed = first + thread as u64;
        let mut session = bench.load()?;
        for _ in 0..RUNS {
            let (bytes, inputs, outputs) = bench.tensors(seed, crate::driver::Place::End)?;
            let flight = session.submit(inputs, outputs, &Script::default())?;
            let end = flight
                .wait(Duration::from_secs(10))
                .ok_or("`session_submit`: no fence was signalled within 10 s beside other sessions")?;
            if end.status != delegraph_abi::Status::OK {
                return Err(Failure::fail(format!(
                    "a run ended with {}: {}",
                    end.status, end.message
                )));
            }
            let (_, outputs) = flight.finish();
            bench.check(&bytes, &outputs)?;
            differs(
                &format!("a submitted run on thread {thread}"),
                &right[thread],
                outputs[0].actual(),
            )?;
        }
        Ok(())
    })
}
