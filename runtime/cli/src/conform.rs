//! `delegraph conform`

mod bundle;
mod child;
mod choice;
mod coverage;
mod diff;
#[cfg(test)]
mod dtypes;
mod identity;
mod index;
mod lists;
mod merge;
mod ops;
mod report;
mod run;
mod summary;
mod support;

use crate::args::{ConformCommand, FromArg, Global, ModelsArgs};
use crate::output::{Output, Tint};
use crate::subject::DelegraphSubject;
use delegraph_runner::child::Launcher;
use delegraph_runner::models::{ModelCase, Source, list, run as run_case};
use delegraph_runner::{CaseRecord, Category, Report, RunInfo, Verdict, folder};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

impl From<FromArg> for Source {
    fn from(from: FromArg) -> Source {
        match from {
            FromArg::Pt2 => Source::Pt2,
            FromArg::Core => Source::Core,
            FromArg::Pte => Source::Pte,
            FromArg::Compiled => Source::Compiled,
        }
    }
}

/// What a child gets on standard input.
#[derive(Serialize, Deserialize)]
struct ChildCase {
    case: ModelCase,
    source: Source,
    config: delegraph_config::Config,
    no_load: bool,
}

/// Runs the command.
///
/// # Errors
/// Wrong use, or a folder or file that cannot be read.
pub fn run(command: &ConformCommand, global: &Global, output: &Output) -> anyhow::Result<u8> {
    match command {
        ConformCommand::Models(args) => models(args, global, output),
        ConformCommand::Ops(args) => ops::run(args, global, output),
        ConformCommand::Coverage(args) => coverage::run(args, global, output),
        ConformCommand::Run(args) => run::run(args, global, output),
        ConformCommand::Merge(args) => merge::run(args, output),
        ConformCommand::Report(args) => report::run(args, global, output),
        ConformCommand::Index(args) => index::run(args, global, output),
        ConformCommand::Diff(args) => diff::run(args, global, output),
        ConformCommand::Case => child(),
        ConformCommand::Calls => ops::child(),
        ConformCommand::Kit => child::run(),
        ConformCommand::Lists { folder } => lists::run(folder, output),
    }
}

/// `conform models`
///
/// # Errors
/// As [`run`].
pub fn models(args: &ModelsArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let source = Source::from(args.from);
    let mut cases = list(&args.folder).map_err(|error| crate::bad_input(error.to_string()))?;
    if let Some(glob) = &args.case {
        cases.retain(|case| delegraph_config::glob_match(glob, &case.id));
    }
    let plan: Vec<String> = cases.iter().map(|case| case.id.clone()).collect();
    if let Some(shard) = &args.shard {
        let (index, count) = shard_of(shard)?;
        let mut position = 0;
        cases.retain(|_| {
            position += 1;
            (position - 1) % count == index - 1
        });
    }
    if args.list {
        for case in &cases {
            output.data(&case.id);
        }
        return Ok(u8::from(cases.is_empty()));
    }
    let config = crate::config::resolve(global, &args.backends.backend, &args.backends.target)?;
    run_all(&cases, plan, source, &config, args, global, output)
}

/// Every case in a child, then the report.
///
/// # Errors
/// The report cannot be written.
fn run_all(
    cases: &[ModelCase],
    plan: Vec<String>,
    source: Source,
    config: &delegraph_config::Config,
    args: &ModelsArgs,
    global: &Global,
    output: &Output,
) -> anyhow::Result<u8> {
    let launcher = Launcher {
        program: std::env::current_exe()?,
        arguments: vec!["conform".to_string(), "case".to_string()],
        limit: Duration::from_secs(args.limit),
        retries: args.retries,
    };
    let started = delegraph_runner::time::now();
    let mut records = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        output.progress(format!("{}/{} {}", i + 1, cases.len(), case.id));
        let request = ChildCase {
            case: case.clone(),
            source,
            config: config.clone(),
            no_load: global.no_load,
        };
        let mut record = launcher.run(&case.id, &serde_json::to_value(&request)?);
        record.delegate = if config.select.order.is_empty() {
            "portable".to_string()
        } else {
            config.select.order.join(",")
        };
        record.category = Category::Model.name().to_string();
        record.repro = repro(case, source, config, global);
        output.progress_done();
        line(&record, output);
        records.push(record);
    }
    let report = Report::new(records);
    output.data(format!("{} cases: {}", report.summary.total, counts(&report)));
    let suite = Suite {
        name: "models",
        config,
        plan,
        shard: args.shard.as_deref(),
        waivers_sha256: None,
        started,
    };
    write(&report, &suite, args.output.as_deref(), output)
}

/// Every count that is not 0.
fn counts(report: &Report) -> String {
    let counts: Vec<String> = report
        .summary
        .counts
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(verdict, n)| format!("{n} {verdict}"))
        .collect();
    match counts.is_empty() {
        true => "nothing was run".to_string(),
        false => counts.join(", "),
    }
}

/// The report as files and as the one JSON object; its exit code. The folder is that of `conform run`: what was run, the cases, and views.
fn write(report: &Report, suite: &Suite<'_>, folder: Option<&Path>, output: &Output) -> anyhow::Result<u8> {
    let object = serde_json::to_value(report)?;
    if let Some(folder) = folder {
        let plan = &suite.plan;
        let info = RunInfo {
            backends: suite.config.select.order.clone(),
            cases_sha256: folder::plan_sha256(plan),
            cases: plan.len() as u64,
            shard: suite.shard.and_then(delegraph_runner::shard::parse),
            waivers_sha256: suite.waivers_sha256.clone(),
            started: suite.started.clone(),
            finished: Some(delegraph_runner::time::now()),
            ..identity::begin(suite.name, "test")
        };
        folder::write(folder, &info, plan, &report.cases).map_err(crate::usage)?;
        delegraph_report::write_views(folder)?;
    }
    output.json(&object)?;
    Ok(report.exit_code)
}

/// What `ops` and `models` ran.
struct Suite<'a> {
    /// `ops` or `models`.
    name: &'static str,
    config: &'a delegraph_config::Config,
    /// The ids of all shards' cases.
    plan: Vec<String>,
    shard: Option<&'a str>,
    waivers_sha256: Option<String>,
    started: String,
}

/// The child: one case, one line.
fn child() -> anyhow::Result<u8> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let request: ChildCase = serde_json::from_str(&text)?;
    let mut subject = DelegraphSubject::new(request.config, request.no_load);
    let record = run_case(&mut subject, &request.case, request.source);
    println!("{}", serde_json::to_string(&record)?);
    Ok(0)
}

fn line(record: &CaseRecord, output: &Output) {
    let tint = match record.verdict {
        Verdict::Pass => Tint::Green,
        Verdict::Skip => Tint::Dim,
        Verdict::Flaky | Verdict::Waived | Verdict::QualityWarning => Tint::Yellow,
        _ => Tint::Red,
    };
    let word = output.tint(tint, format!("{:<6}", record.verdict.name()));
    let detail = match record.verdict {
        Verdict::Pass => format!(
            "max_abs {:.1e}  {} of {} nodes delegated  {:.0} ms",
            record.max_abs,
            record.delegated_nodes,
            record.delegated_nodes + record.undelegated_nodes,
            record.total_ms
        ),
        _ => record.reason.clone(),
    };
    output.data(format!("{word} {:<36} {detail}", record.id));
    if record.verdict.is_failure() {
        output.data(format!("       again: {}", record.repro));
    }
}

/// The command that runs a case again.
fn repro(case: &ModelCase, source: Source, config: &delegraph_config::Config, global: &Global) -> String {
    let mut words = vec![
        "delegraph conform models".to_string(),
        quote(&case.folder.display().to_string()),
    ];
    words.push(format!("--from {} --case {}", source.name(), quote(&case.id)));
    if !config.select.order.is_empty() {
        words.push(format!("--backend {}", config.select.order.join(",")));
    }
    if let Some(file) = &global.config {
        words.push(format!("--config {}", quote(&file.display().to_string())));
    }
    words.join(" ")
}

pub fn quote(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_alphanumeric() || "/._-,:".contains(c));
    if plain {
        text.to_string()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

fn shard_of(text: &str) -> anyhow::Result<(usize, usize)> {
    let parsed = text
        .split_once('/')
        .and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match parsed {
        Some((index, count)) if (1..=count).contains(&index) => Ok((index, count)),
        _ => Err(crate::usage(format!("`--shard {text}` is not I/N with I from 1 to N"))),
    }
}
