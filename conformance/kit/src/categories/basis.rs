//! What the cases of several categories begin with.

use crate::case::{Failure, Outcome, Trial};
use crate::driver::{Instance, Library, Refused, Script};
use crate::workload::{Bench, Kind};
use delegraph_abi::{DType, Status, c};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The library, loaded by a host of this version.
pub fn open(trial: &Trial<'_>) -> Result<Arc<Library>, Failure> {
    Ok(Arc::new(Library::open(trial.subject)?))
}

/// The library, and the delegate started with the subject's options.
pub fn start(trial: &Trial<'_>) -> Result<(Arc<Library>, Instance), Failure> {
    let library = open(trial)?;
    let instance = library.start(&trial.subject.options, &Script::default())?;
    Ok((library, instance))
}

/// As [`start`], for cases of a role.
pub fn start_in(trial: &Trial<'_>, feature: c::Feature, role: &str) -> Result<(Arc<Library>, Instance), Failure> {
    let library = open(trial)?;
    if !library.has(feature) {
        return Err(Failure::skip(format!("the library does not {role}")));
    }
    let instance = library.start(&trial.subject.options, &Script::default())?;
    Ok((library, instance))
}

/// As [`start_in`], for a delegate that partitions and compiles.
pub fn compiler(trial: &Trial<'_>) -> Result<(Arc<Library>, Instance), Failure> {
    start_in(trial, c::Feature::COMPILE, "compile")
}

/// A compiled graph that has weights.
pub fn with_weights(trial: &Trial<'_>) -> Result<Bench, Failure> {
    let library = open(trial)?;
    let linear = |kind, _: DType| kind == Kind::Linear;
    Bench::on(library, trial, &Script::default(), linear, (3, 5, 1))
}

/// A whole life of a delegate: begin, devices, a small graph from `partition` to two runs, end. Roles that it lacks are left out, and so
/// is everything behind `partition` where it takes no graph.
pub fn life(library: &Arc<Library>, trial: &Trial<'_>, script: &Script) -> Outcome {
    let compiles = library.has(c::Feature::COMPILE) && library.has(c::Feature::RUN);
    if compiles {
        match Bench::on(library.clone(), trial, script, |_, _| true, (3, 5, 1)) {
            Ok(bench) => {
                bench.instance.devices()?;
                let verdicts = bench.instance.blob_check(&bench.blob.meta, payload(&bench), script)?;
                if verdicts.len() != 1 {
                    return Err(Failure::fail(format!("`blob_check` gave {} verdicts", verdicts.len())));
                }
                let mut session = bench.load_as(script)?;
                bench.run_once(&mut session, 1, script)?;
                bench.run_once(&mut session, 2, script)?;
                session.unload();
                bench.instance.shutdown();
                return Ok(());
            }
            Err(skipped) if skipped.verdict == delegraph_runner::Verdict::Skip => {}
            Err(other) => return Err(other),
        }
    }
    let instance = library.start(&trial.subject.options, script)?;
    instance.devices()?;
    instance.shutdown();
    Ok(())
}

/// Bytes of all sections.
pub fn payload(bench: &Bench) -> u64 {
    bench.blob.sections.iter().map(|(.., bytes)| bytes.len() as u64).sum()
}

/// A call that has to be refused with one of these statuses.
pub fn refused<T>(what: &str, outcome: Result<T, Refused>, statuses: &[Status]) -> Result<Refused, Failure> {
    match outcome {
        Ok(_) => Err(Failure::fail(format!("{what}: it gave {}", Status::OK))),
        Err(refused) if statuses.contains(&refused.status) => Ok(refused),
        Err(refused) => Err(Failure::fail(format!(
            "{what}: {refused}; {} is right",
            statuses.iter().map(Status::to_string).collect::<Vec<_>>().join(" or ")
        ))),
    }
}

/// Time that a case may spend on repetitions.
pub struct Budget {
    started: Instant,
    time: Duration,
}

impl Budget {
    /// From now on.
    pub fn seconds(seconds: u64) -> Budget {
        Budget {
            started: Instant::now(),
            time: Duration::from_secs(seconds),
        }
    }

    /// Whether it is spent.
    pub fn spent(&self) -> bool {
        self.started.elapsed() >= self.time
    }

    /// Seconds so far.
    pub fn so_far(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

/// SplitMix64, the same on every machine.
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`; 0 for 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.draw() % end.max(1) as u64) as usize
    }
}

/// Names in a sentence: the first ten, and how many more.
pub fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let first: Vec<String> = names
        .iter()
        .take(10)
        .map(|name| format!("`{}`", name.as_ref()))
        .collect();
    match names.len().saturating_sub(10) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// The first failure if there is one; else a warning that names the first few of these.
pub fn warn(problems: &[String]) -> Outcome {
    match problems {
        [] => Ok(()),
        [one] => Err(Failure::warning(one.clone())),
        [first, rest @ ..] => Err(Failure::warning(format!("{first} ({} more of the kind)", rest.len()))),
    }
}
