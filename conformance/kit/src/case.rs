//! A case: a name, what it is about, and a function that finds what is wrong.

use crate::driver;
use crate::subject::Subject;
use delegraph_runner::{CaseRecord, Category, Claim, Verdict};
use std::collections::BTreeMap;
use std::time::Instant;

/// Why a case did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// [`Verdict::Fail`] for most; [`Verdict::Skip`] where the delegate neither claims nor takes what the case needs.
    pub verdict: Verdict,
    /// One sentence that names the place.
    pub reason: String,
}

impl Failure {
    /// The delegate breaks the contract.
    pub fn fail(reason: impl Into<String>) -> Failure {
        let (verdict, reason) = (Verdict::Fail, reason.into());
        Failure { verdict, reason }
    }

    /// The case does not apply: neither claimed nor taken, or something is absent here.
    pub fn skip(reason: impl Into<String>) -> Failure {
        let (verdict, reason) = (Verdict::Skip, reason.into());
        Failure { verdict, reason }
    }

    /// The manifest claims it, the delegate refuses it.
    pub fn claimed(reason: impl Into<String>) -> Failure {
        let (verdict, reason) = (Verdict::FailClaimed, reason.into());
        Failure { verdict, reason }
    }

    /// It works, and worse than it should.
    pub fn warning(reason: impl Into<String>) -> Failure {
        let (verdict, reason) = (Verdict::QualityWarning, reason.into());
        Failure { verdict, reason }
    }
}

/// A text is a failure, so that `?` works on most results of the driver.
impl From<String> for Failure {
    fn from(reason: String) -> Failure {
        Failure::fail(reason)
    }
}

impl From<&str> for Failure {
    fn from(reason: &str) -> Failure {
        Failure::fail(reason)
    }
}

/// What a case finds.
pub type Outcome = Result<(), Failure>;

/// What a running case is given, and what it fills in beside its outcome.
pub struct Trial<'s> {
    /// The library under test.
    pub subject: &'s Subject,
    /// What random inputs are made from. The same seed gives the same case.
    pub seed: u64,
    /// The record in the making: numbers, dtype, claim. Its id, category, verdict, reason and time are filled in by [`run`].
    pub record: CaseRecord,
    /// Files that explain a failure, by name: graph image, inputs, outputs. They go into the repro bundle.
    pub evidence: BTreeMap<String, Vec<u8>>,
}

impl Trial<'_> {
    /// Notes a number that the case measured, by name with unit.
    pub fn measure(&mut self, name: &str, value: f64) {
        self.record.measured.insert(name.to_string(), value);
    }

    /// Says what is about to be done, on standard error: the last words of a process that dies there.
    pub fn step(&self, what: &str) {
        eprintln!("at: {what}");
    }

    /// Keeps bytes for the repro bundle of a failure.
    pub fn keep(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.evidence.insert(name.to_string(), bytes.into());
    }
}

/// A case.
#[derive(Clone, Copy)]
pub struct Case {
    /// Category and name: `memory/guard-pages`. Unique and stable.
    pub id: &'static str,
    /// What it makes sure of, in one line.
    pub about: &'static str,
    /// Finds what is wrong.
    pub run: fn(&mut Trial<'_>) -> Outcome,
    /// Seconds after which it is a hang.
    pub limit: u64,
    /// It hands over what no host in order does: a crash or hang there breaks no contract, and counts as a quality warning.
    pub hardening: bool,
}

/// Seconds that a case has unless it says otherwise.
pub const LIMIT: u64 = 30;

/// A case with the usual limit.
pub const fn case(id: &'static str, about: &'static str, run: fn(&mut Trial<'_>) -> Outcome) -> Case {
    let (limit, hardening) = (LIMIT, false);
    Case {
        id,
        about,
        run,
        limit,
        hardening,
    }
}

impl Case {
    /// The same with another limit, in seconds.
    pub const fn limit(mut self, seconds: u64) -> Case {
        self.limit = seconds;
        self
    }

    /// The same as one of what no host in order does.
    pub const fn hardening(mut self) -> Case {
        self.hardening = true;
        self
    }
}

/// Runs a case in this process, and fails it where the driver saw the contract broken: its record, and the evidence where it failed.
pub fn run(
    id: &str,
    subject: &Subject,
    seed: u64,
    body: impl FnOnce(&mut Trial<'_>) -> Outcome,
) -> (CaseRecord, BTreeMap<String, Vec<u8>>) {
    let started = Instant::now();
    let mut trial = Trial {
        subject,
        seed,
        record: CaseRecord::new(id, Verdict::Pass, ""),
        evidence: BTreeMap::new(),
    };
    if let Some(category) = Category::of(id) {
        trial.record.category = category.name().to_string();
    }
    let _ = driver::take_violations();
    let mut outcome = body(&mut trial);
    if let (Ok(()), Some(first)) = (&outcome, driver::take_violations().into_iter().next()) {
        outcome = Err(Failure::fail(first));
    }
    let Trial {
        mut record, evidence, ..
    } = trial;
    if let Err(failure) = outcome {
        record.verdict = failure.verdict;
        record.reason = failure.reason;
        if record.verdict == Verdict::Skip && record.claim == Claim::Unknown {
            record.claim = Claim::None;
        }
    }
    record.delegate = subject.name().to_string();
    record.delegate_version = subject.version().to_string();
    record.total_ms = started.elapsed().as_secs_f64() * 1e3;
    (record, evidence)
}
