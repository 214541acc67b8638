//! `delegraph conform run`: judges a library.

use super::choice::{Choice, choose};
use super::identity::{self, Identity};
use super::{bundle, child, summary, support};
use crate::args::{Global, KitArgs, ModeArg};
use crate::output::{Output, write_atomically};
use delegraph_config::glob_match;
use delegraph_kit::lists;
use delegraph_kit::registry::CaseInfo;
use delegraph_kit::subject::{Subject, SubjectRequest};
use delegraph_report::check::WAIVERS;
use delegraph_runner::batch::{Item, Pool};
use delegraph_runner::folder::{BUNDLES, Folder, bundle_name, plan_sha256};
use delegraph_runner::waiver::{Of, Waivers};
use delegraph_runner::{CaseRecord, Category, Report, RunInfo, shard};
use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Cases of numbers in one process.
const BATCH: usize = 50;

/// Runs the command.
///
/// # Errors
/// Wrong use (2), a file that is none (3), a device that is absent (4).
pub fn run(args: &KitArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let started = Instant::now();
    let choice = choose(args)?;
    let plan: Vec<String> = choice.cases.iter().map(|case| case.id.clone()).collect();
    let mine = mine(args, &plan)?;
    if choice.print {
        for id in &mine {
            output.data(id);
        }
        return Ok(u8::from(mine.is_empty()));
    }
    if global.no_load {
        return Err(crate::usage(
            "`conform run` loads the library: it cannot be with `--no-load`",
        ));
    }
    let waivers = Kept::read(args)?;
    let request = SubjectRequest {
        file: std::path::absolute(&args.library)?,
        device: args.device,
        options: options(&args.option)?,
        isolated: args.isolated,
    };
    let subject = Subject::open(&request).map_err(crate::bad_input)?;
    let identity = identity::identify(&subject, global)?;
    if let Some(problem) = &identity.problem {
        output.talk(format!("the library does not say who it is: {problem}"));
    }
    check_device(args, &identity)?;
    let info = info(args, &choice, &plan, &request, &identity, waivers.sha256.clone());
    let place = Place::open(args)?;
    let (folder, had) = Folder::begin(place.path(), info, plan, args.fresh).map_err(crate::usage)?;
    if let Some(text) = &waivers.text {
        // A submission has them beside the log.
        write_atomically(&place.path().join(WAIVERS), text.as_bytes())?;
    }
    let done: BTreeSet<&str> = had.iter().map(|record| record.id.as_str()).collect();
    let todo: Vec<&CaseInfo> = choice
        .cases
        .iter()
        .copied()
        .filter(|case| mine.contains(&case.id) && !done.contains(case.id.as_str()))
        .collect();
    if !done.is_empty() {
        output.talk(format!(
            "{} cases are there already, {} are run",
            done.len(),
            todo.len()
        ));
    }
    let bench = Bench {
        args,
        request: &request,
        identity: &identity,
        waivers: &waivers.waivers,
        // Without a folder nothing is left of a failure.
        bundles: args.output.is_some().then(|| folder.path().join(BUNDLES)),
        total: mine.len(),
        state: Mutex::new(State {
            folder,
            count: done.len(),
            problem: None,
        }),
        output,
    };
    let folder = bench.run(&todo)?;
    let kept = folder.finish(delegraph_runner::time::now()).map_err(crate::usage)?;
    let mut report = delegraph_report::write_views_with(place.path(), &lists::members)?;
    if args.exact.is_some() {
        // Of the whole run this is a part, and the answer is about the part.
        report.exit_code = Report::new(report.cases.clone()).exit_code;
    }
    match args.mode {
        ModeArg::Support => support::write(&report.cases, &request, args.output.as_deref(), output)?,
        ModeArg::Perf => times(&report.cases, output),
        ModeArg::Test => {}
    }
    summary::table(&report, output);
    for sentence in waivers.waivers.needless(&kept.records, bench_of(&identity)) {
        output.talk(sentence);
    }
    output.json(&serde_json::to_value(&report)?)?;
    let what = format!("{} {}", identity.library.name, identity.library.version);
    let on = device_of(args, &identity).map(|device| format!(" on {}", device.name));
    summary::closing(
        &report,
        started.elapsed(),
        &format!("{} cases over {what}{}", report.cases.len(), on.unwrap_or_default()),
        args.output.as_deref(),
        output,
    );
    Ok(report.exit_code)
}

/// The cases of this command, of those of the whole run.
fn mine(args: &KitArgs, plan: &[String]) -> anyhow::Result<BTreeSet<String>> {
    if let Some(id) = &args.exact {
        if !plan.contains(id) {
            return Err(crate::usage(format!("`--exact {id}` is no case of this run")));
        }
        return Ok([id.clone()].into());
    }
    match &args.shard {
        None => Ok(plan.iter().cloned().collect()),
        Some(text) => {
            let parsed = shard::parse(text)
                .ok_or_else(|| crate::usage(format!("`--shard {text}` is not I/N with I from 1 to N")))?;
            Ok(shard::share(plan, parsed).into_iter().collect())
        }
    }
}

/// Options of the delegate.
fn options(given: &[String]) -> anyhow::Result<serde_json::Map<String, serde_json::Value>> {
    let mut options = serde_json::Map::new();
    for text in given {
        let (key, value) = text
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| crate::usage(format!("`--option {text}` is not KEY=VALUE")))?;
        // `3`, `true`, `[1, 2]` as in a configuration; anything else is a text.
        let parsed = toml::from_str::<toml::Table>(&format!("value = {value}"));
        let parsed = parsed.ok().and_then(|mut table| table.remove("value"));
        let value = match parsed {
            Some(value) => serde_json::to_value(value)?,
            None => value.into(),
        };
        if options.insert(key.to_string(), value).is_some() {
            return Err(crate::usage(format!("`--option {key}` is given twice")));
        }
    }
    Ok(options)
}

fn check_device(args: &KitArgs, identity: &Identity) -> anyhow::Result<()> {
    match args.device {
        // A library that fails before it lists its devices is for the cases to judge.
        Some(device) if identity.problem.is_none() && device_of(args, identity).is_none() => {
            let ids: Vec<String> = identity.devices.iter().map(|device| device.id.to_string()).collect();
            let have = match ids.is_empty() {
                true => "it lists none".to_string(),
                false => format!("it has {}", ids.join(", ")),
            };
            let name = &identity.library.name;
            Err(crate::absent(format!(
                "`{name}` has no device {device}\n  hint: {have}"
            )))
        }
        _ => Ok(()),
    }
}

/// The device that the cases run on: the one that was chosen, or the first.
fn device_of<'a>(args: &KitArgs, identity: &'a Identity) -> Option<&'a delegraph_runner::run_info::DeviceId> {
    match args.device {
        Some(id) => identity.devices.iter().find(|device| device.id == id),
        None => identity.devices.first(),
    }
}

fn info(
    args: &KitArgs,
    choice: &Choice,
    plan: &[String],
    request: &SubjectRequest,
    identity: &Identity,
    waivers: Option<String>,
) -> RunInfo {
    RunInfo {
        library: Some(identity.library.clone()),
        devices: identity.devices.clone(),
        device: args.device,
        options: request.options.clone(),
        lists: match args.mode {
            ModeArg::Test => choice.lists.clone(),
            _ => Vec::new(),
        },
        cases_sha256: plan_sha256(plan),
        cases: plan.len() as u64,
        seed: args.seed,
        shard: args.shard.as_deref().and_then(shard::parse),
        waivers_sha256: waivers,
        ..identity::begin("run", args.mode.name())
    }
}

/// The waivers of a run, and the hash of their file.
struct Kept {
    waivers: Waivers,
    text: Option<String>,
    sha256: Option<String>,
}

impl Kept {
    fn read(args: &KitArgs) -> anyhow::Result<Kept> {
        let Some(file) = &args.waivers else {
            return Ok(Kept {
                waivers: Waivers::default(),
                text: None,
                sha256: None,
            });
        };
        let shown = file.display();
        let text = std::fs::read_to_string(file)
            .map_err(|error| crate::bad_input(format!("cannot read `{shown}`: {error}")))?;
        Ok(Kept {
            waivers: Waivers::parse(&text).map_err(|problem| crate::bad_input(format!("`{shown}`: {problem}")))?,
            sha256: Some(lists::sha256(text.as_bytes())),
            text: Some(text),
        })
    }
}

fn bench_of(identity: &Identity) -> Of<'_> {
    Of {
        vendor: &identity.library.vendor,
        today: delegraph_runner::time::today(),
        matches: glob_match,
    }
}

/// The folder that was asked for, or one that is gone afterwards.
enum Place {
    Given(PathBuf),
    Passing(tempfile::TempDir),
}

impl Place {
    fn open(args: &KitArgs) -> anyhow::Result<Place> {
        Ok(match &args.output {
            Some(folder) => Place::Given(folder.clone()),
            None => Place::Passing(tempfile::tempdir()?),
        })
    }

    fn path(&self) -> &Path {
        match self {
            Place::Given(path) => path,
            Place::Passing(folder) => folder.path(),
        }
    }
}

/// Runs cases and keeps their records.
struct Bench<'a> {
    args: &'a KitArgs,
    request: &'a SubjectRequest,
    identity: &'a Identity,
    waivers: &'a Waivers,
    bundles: Option<PathBuf>,
    /// Cases of this command.
    total: usize,
    state: Mutex<State>,
    output: &'a Output,
}

struct State {
    folder: Folder,
    /// Cases that have a record.
    count: usize,
    /// What kept a record from being written.
    problem: Option<String>,
}

impl Bench<'_> {
    /// Runs all; those of times by themselves, after the others.
    fn run(self, todo: &[&CaseInfo]) -> anyhow::Result<Folder> {
        let jobs = self
            .args
            .jobs
            .unwrap_or(std::thread::available_parallelism().map_or(1, usize::from));
        let (timed, others): (Vec<&CaseInfo>, Vec<&CaseInfo>) =
            todo.iter().partition(|case| case.category == Category::Performance);
        self.run_some(&others, jobs.max(1))?;
        self.run_some(&timed, 1)?;
        self.output.progress_done();
        let state = self.state.into_inner().map_err(|_| anyhow::anyhow!("a thread died"))?;
        match state.problem {
            Some(problem) => Err(crate::usage(problem)),
            None => Ok(state.folder),
        }
    }

    fn run_some(&self, cases: &[&CaseInfo], jobs: usize) -> anyhow::Result<()> {
        let mark = mark();
        let pool = Pool {
            program: std::env::current_exe()?,
            arguments: vec!["conform".to_string(), "kit".to_string()],
            jobs,
            retries: self.args.retries,
            mark: mark.clone(),
        };
        let item = |case: &&CaseInfo| Item {
            id: case.id.clone(),
            limit: Duration::from_secs(self.args.limit.unwrap_or(case.limit)),
        };
        let items: Vec<Item> = cases.iter().map(item).collect();
        let request = |positions: &[usize]| {
            let request = child::Request {
                subject: self.request.clone(),
                seed: self.args.seed,
                support: self.args.mode == ModeArg::Support,
                propose: None,
                digests: None,
                cases: positions.iter().map(|&position| items[position].id.clone()).collect(),
                bundles: self.bundles.as_ref().and_then(|path| std::path::absolute(path).ok()),
                mark: mark.clone(),
                parent: std::process::id(),
            };
            serde_json::to_value(&request).unwrap_or_default()
        };
        pool.run(&items, &groups(cases, jobs), &request, &|position, record, stderr| {
            self.take(cases[position], record, stderr);
        });
        Ok(())
    }

    /// A record that is there: what its case says of it, waivers, the bundle, the log.
    fn take(&self, case: &CaseInfo, mut record: CaseRecord, stderr: &[u8]) {
        let library = &self.identity.library;
        record.category = case.category.name().to_string();
        case.soften(&mut record);
        for (own, known) in [(&mut record.op, &case.op), (&mut record.dtype, &case.dtype)] {
            if own.is_empty() {
                own.clone_from(known);
            }
        }
        record.delegate.clone_from(&library.name);
        record.delegate_version.clone_from(&library.version);
        if let Some(device) = device_of(self.args, self.identity) {
            record.device.clone_from(&device.name);
            record.driver.clone_from(&device.driver);
        }
        record.mode = self.args.mode.name().to_string();
        self.waivers.judge(&mut record, bench_of(self.identity));
        let mut problem = None;
        if child::explains(record.verdict) {
            record.repro = bundle::repro(self.args, &record.id);
            if let Some(bundles) = &self.bundles {
                let name = bundle_name(&record.id);
                record.bundle = format!("{BUNDLES}/{name}");
                problem = bundle::write(&bundles.join(name), self.args, &record, stderr).err();
            }
        }
        let Ok(mut state) = self.state.lock() else { return };
        if let Some(error) = problem {
            state
                .problem
                .get_or_insert(format!("cannot write `{}`: {error}", record.bundle));
        }
        if let Err(problem) = state.folder.append(&record) {
            state.problem.get_or_insert(problem);
        }
        state.count += 1;
        self.output
            .progress(format!("{}/{} {}", state.count, self.total, record.id));
    }
}

/// The cases of each process: one, or some of those that may share one, so that every job has work.
fn groups(cases: &[&CaseInfo], jobs: usize) -> Vec<Vec<usize>> {
    let (shared, alone): (Vec<usize>, Vec<usize>) = (0..cases.len()).partition(|&i| cases[i].batch);
    let size = shared.len().div_ceil(jobs.max(1)).clamp(1, BATCH);
    let alone = alone.into_iter().map(|position| vec![position]);
    alone.chain(shared.chunks(size).map(<[usize]>::to_vec)).collect()
}

/// A word that the library under test does not know: what it prints is never taken for a record.
fn mark() -> String {
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("record-{random:016x} ")
}

/// A line a timed case.
fn times(cases: &[CaseRecord], output: &Output) {
    for case in cases.iter().filter(|case| case.p50_us.is_some()) {
        let us = |time: Option<f64>| time.map_or("-".to_string(), |us| format!("{us:.1} us"));
        output.data(format!(
            "{:<48} median {:>12}  95% {:>12}  load {:>9.2} ms  peak {:>9}",
            case.id,
            us(case.p50_us),
            us(case.p95_us),
            case.load_ms,
            case.peak_bytes.map_or("-".to_string(), crate::output::bytes)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_as_in_a_configuration() {
        let given = ["a=3", "b=true", "c=text of words", "d=\"3\"", "e=[1, 2]", "f=x=y"].map(str::to_string);
        let options = options(&given).unwrap();
        let want = serde_json::json!({
            "a": 3, "b": true, "c": "text of words", "d": "3", "e": [1, 2], "f": "x=y",
        });
        assert_eq!(serde_json::Value::Object(options), want);
        for wrong in [&["a"][..], &["=a"], &["a=1", "a=2"]] {
            let given: Vec<String> = wrong.iter().map(ToString::to_string).collect();
            assert!(super::options(&given).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_case_is_in_one_process_and_those_that_share_are_spread() {
        let case = |i: usize| CaseInfo {
            batch: !i.is_multiple_of(3),
            ..CaseInfo::new(format!("op/{i}"), "").unwrap()
        };
        let cases: Vec<CaseInfo> = (0..300).map(case).collect();
        let cases: Vec<&CaseInfo> = cases.iter().collect();
        for jobs in [1, 2, 8] {
            let groups = groups(&cases, jobs);
            let mut all: Vec<usize> = groups.concat();
            all.sort_unstable();
            assert_eq!(all, (0..300).collect::<Vec<_>>());
            assert!(
                groups
                    .iter()
                    .all(|group| group.len() == 1 || group.iter().all(|&i| cases[i].batch))
            );
            assert!(groups.iter().all(|group| group.len() <= BATCH));
            assert!(groups.iter().filter(|group| group.len() > 1).count() >= jobs);
        }
    }
}
