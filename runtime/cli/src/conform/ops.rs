//! `delegraph conform ops`: recorded calls of operators, each as a program of one node.

use super::{quote, shard_of};
use crate::args::{Global, OpsArgs};
use crate::output::{Output, Tint, duration};
use delegraph_config::{Config, glob_match};
use delegraph_host::Host;
use delegraph_kit::call::Caller;
use delegraph_kit::numerics::evidence;
use delegraph_runner::batch::Batches;
use delegraph_runner::corpus::Corpus;
use delegraph_runner::known::Known;
use delegraph_runner::{CaseRecord, Category, Leaf, Report, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The known failures that this version ships with: they hold for the committed corpus and for larger ones of the same calls.
const KNOWN: &str = include_str!("../../../../conformance/corpus/known.toml");

/// What a child gets on standard input.
#[derive(Serialize, Deserialize)]
struct Request {
    corpus: PathBuf,
    /// Positions in the index.
    cases: Vec<usize>,
    config: Config,
    no_load: bool,
}

/// Runs the command.
///
/// # Errors
/// Wrong use, or a corpus that cannot be read.
pub fn run(args: &OpsArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let started = Instant::now();
    if args.list {
        let (corpus, chosen) = chosen(args)?;
        for &case in &chosen {
            output.data(corpus.cases[case].id());
        }
        return Ok(u8::from(chosen.is_empty()));
    }
    if let Some(folder) = &args.programs {
        return programs(args, folder, global, output);
    }
    let began = delegraph_runner::time::now();
    let report = Report::new(records(args, global, output)?);
    show(&report, started.elapsed(), output);
    let config = crate::config::resolve(global, &args.backends.backend, &args.backends.target)?;
    let suite = super::Suite {
        name: "ops",
        config: &config,
        plan: match args.output {
            Some(_) => plan(args)?,
            None => Vec::new(),
        },
        shard: args.shard.as_deref(),
        waivers_sha256: Some(delegraph_kit::lists::sha256(known_text(args)?.as_bytes())),
        started: began,
    };
    super::write(&report, &suite, args.output.as_deref(), output)
}

/// Runs the cases that the flags ask for.
///
/// # Errors
/// As [`run`].
pub fn records(args: &OpsArgs, global: &Global, output: &Output) -> anyhow::Result<Vec<CaseRecord>> {
    let (corpus, chosen) = chosen(args)?;
    let known = known(args)?;
    let config = crate::config::resolve(global, &args.backends.backend, &args.backends.target)?;
    let mut records = run_all(&corpus, &chosen, &config, args, global, output)?;
    let delegate = match config.select.order.is_empty() {
        true => delegraph::PORTABLE.to_string(),
        false => config.select.order.join(","),
    };
    for (record, &case) in records.iter_mut().zip(&chosen) {
        record.op = corpus.cases[case].op.clone();
        record.category = Category::Op.name().to_string();
        record.delegate = delegate.clone();
        record.repro = repro(args, &record.id, &config, global);
        known.judge(record, glob_match);
    }
    Ok(records)
}

/// Writes the program of each case, `KEY.pte`, for another runtime to run: `conformance/referee/check_ops.py` does. `cases.jsonl`
/// has a line a case, with `file` or `error`, and the keys of the tensors that go in and have to come out.
fn programs(args: &OpsArgs, folder: &Path, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let (mut corpus, chosen) = chosen(args)?;
    let config = crate::config::resolve(global, &args.backends.backend, &args.backends.target)?;
    let caller = Caller::new(config.clone(), crate::devices::discover(&config, global.no_load));
    std::fs::create_dir_all(folder)?;
    let (mut lines, mut written) = (String::new(), 0);
    for &i in &chosen {
        let case = corpus.cases[i].clone();
        let tensors = corpus.tensors(i).map_err(|error| crate::bad_input(error.to_string()))?;
        let mut line = serde_json::json!({
            "id": case.key, "op": case.op, "shard": case.shard, "inputs": case.inputs(),
            "rtol": case.tolerance.rtol, "atol": case.tolerance.atol,
        });
        match case
            .outputs()
            .ok_or("results that are no tensors".to_string())
            .and_then(|outputs| {
                line["outputs"] = outputs.into();
                Ok(caller.compile(&case, tensors)?.0)
            }) {
            Ok(bytes) => {
                let file = format!("{}.pte", case.key);
                std::fs::write(folder.join(&file), bytes)?;
                line["file"] = file.into();
                written += 1;
            }
            Err(problem) => line["error"] = problem.into(),
        }
        lines += &format!("{line}\n");
    }
    crate::output::write_atomically(&folder.join("cases.jsonl"), lines.as_bytes())?;
    output.data(format!("{written} programs of {} cases", chosen.len()));
    output.json(&serde_json::json!({
        "schema": "delegraph.programs/1", "tool": crate::tool(), "cases": chosen.len(), "programs": written,
        "exit_code": u8::from(written == 0),
    }))?;
    Ok(u8::from(written == 0))
}

/// The ids of all shards' cases.
fn plan(args: &OpsArgs) -> anyhow::Result<Vec<String>> {
    let mut corpus = Corpus::open(&args.corpus).map_err(|error| crate::bad_input(error.to_string()))?;
    let chosen = choose(&mut corpus, args)?;
    Ok(chosen.into_iter().map(|case| corpus.cases[case].id()).collect())
}

/// The corpus, and the cases of this shard that the flags ask for.
fn chosen(args: &OpsArgs) -> anyhow::Result<(Corpus, Vec<usize>)> {
    let mut corpus = Corpus::open(&args.corpus).map_err(|error| crate::bad_input(error.to_string()))?;
    let mut chosen = choose(&mut corpus, args)?;
    if let Some(shard) = &args.shard {
        let (index, count) = shard_of(shard)?;
        chosen = chosen.into_iter().skip(index - 1).step_by(count).collect();
    }
    Ok((corpus, chosen))
}

/// The child: a batch of cases, a line each.
///
/// # Errors
/// The request is none.
pub fn child() -> anyhow::Result<u8> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let request: Request = serde_json::from_str(&text)?;
    let mut corpus = Corpus::open(&request.corpus)?;
    let caller = Caller::new(
        request.config.clone(),
        crate::devices::discover(&request.config, request.no_load),
    );
    let mut stdout = std::io::stdout();
    for case in request.cases {
        let Some(call) = corpus.cases.get(case).cloned() else {
            anyhow::bail!("the corpus has no case {case}");
        };
        let record = match corpus.tensors(case) {
            Ok(tensors) => {
                let inputs: Vec<&Leaf> = call.inputs().into_iter().filter_map(|key| tensors.get(key)).collect();
                let mut record = caller.run(&call, tensors);
                record.shapes = evidence::shapes(&inputs);
                record
            }
            Err(error) => CaseRecord::new(call.id(), Verdict::Fail, error.to_string()),
        };
        writeln!(stdout, "{}", serde_json::to_string(&record)?)?;
        stdout.flush()?;
    }
    Ok(0)
}

fn known(args: &OpsArgs) -> anyhow::Result<Known> {
    let file = known_file(args);
    let text = known_text(args)?;
    match file {
        None => Known::parse(&text).map_err(anyhow::Error::msg),
        Some(file) => Known::parse(&text).map_err(|problem| crate::usage(format!("`{}`: {problem}", file.display()))),
    }
}

/// The file of known failures; `None`: the built-in ones.
fn known_file(args: &OpsArgs) -> Option<PathBuf> {
    let beside = args.corpus.join("known.toml");
    args.waivers.clone().or_else(|| beside.is_file().then_some(beside))
}

fn known_text(args: &OpsArgs) -> anyhow::Result<String> {
    match known_file(args) {
        None => Ok(KNOWN.to_string()),
        Some(file) => std::fs::read_to_string(&file)
            .map_err(|error| crate::usage(format!("cannot read `{}`: {error}", file.display()))),
    }
}

/// The cases that the flags ask for.
fn choose(corpus: &mut Corpus, args: &OpsArgs) -> anyhow::Result<Vec<usize>> {
    let mut chosen = Vec::new();
    for i in 0..corpus.cases.len() {
        let case = &corpus.cases[i];
        let op = args.op.is_empty() || args.op.iter().any(|glob| glob_match(glob, &case.op));
        let named = |glob: &String| glob_match(glob, &case.id()) || glob_match(glob, &case.key);
        if !op || !args.case.as_ref().is_none_or(named) {
            continue;
        }
        if !args.dtype.is_empty() {
            let case = case.clone();
            let tensors = corpus.tensors(i).map_err(|error| crate::bad_input(error.to_string()))?;
            let have = case.dtype(tensors);
            let short =
                |name: &str| delegraph_types::DType::from_name(name).map_or(name.to_string(), |d| d.name().to_string());
            if !args.dtype.iter().any(|name| short(name) == have) {
                continue;
            }
        }
        chosen.push(i);
    }
    Ok(chosen)
}

/// Every case; those that lack a file or a library are skipped.
fn run_all(
    corpus: &Corpus,
    chosen: &[usize],
    config: &Config,
    args: &OpsArgs,
    global: &Global,
    output: &Output,
) -> anyhow::Result<Vec<CaseRecord>> {
    let ids: Vec<String> = chosen.iter().map(|&case| corpus.cases[case].id()).collect();
    let host = crate::devices::discover(config, global.no_load);
    if let Some(reason) = absent(config, &host) {
        return Ok(ids
            .iter()
            .map(|id| CaseRecord::new(id, Verdict::Skip, reason.clone()))
            .collect());
    }
    let batches = Batches {
        program: std::env::current_exe()?,
        arguments: vec!["conform".to_string(), "calls".to_string()],
        limit: Duration::from_secs(args.limit),
        size: args.batch,
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let folder = args.corpus.canonicalize()?;
    let request = |positions: &[usize]| {
        let request = Request {
            corpus: folder.clone(),
            cases: positions.iter().map(|&position| chosen[position]).collect(),
            config: config.clone(),
            no_load: global.no_load,
        };
        serde_json::to_value(&request).unwrap_or_default()
    };
    let done = AtomicUsize::new(0);
    let tell = |record: &CaseRecord| {
        let n = done.fetch_add(1, Ordering::Relaxed) + 1;
        output.progress(format!("{n}/{} {}", ids.len(), record.op));
    };
    // A shard that is not there skips its cases; one that is there and cannot be read fails them.
    let (there, gone): (Vec<usize>, Vec<usize>) =
        (0..ids.len()).partition(|&i| corpus.shard_path(corpus.cases[chosen[i]].shard).is_file());
    let wanted: Vec<String> = there.iter().map(|&i| ids[i].clone()).collect();
    let positions = |batch: &[usize]| request(&batch.iter().map(|&i| there[i]).collect::<Vec<_>>());
    let mut records: Vec<(usize, CaseRecord)> = there
        .iter()
        .copied()
        .zip(batches.run(&wanted, &positions, &tell))
        .collect();
    output.progress_done();
    for i in gone {
        let path = corpus.shard_path(corpus.cases[chosen[i]].shard);
        let reason = format!("no file `{}`", path.display());
        records.push((i, CaseRecord::new(&ids[i], Verdict::Skip, reason)));
    }
    records.sort_by_key(|(i, _)| *i);
    Ok(records.into_iter().map(|(_, record)| record).collect())
}

/// A backend that was asked for and is not installed here.
fn absent(config: &Config, host: &Host) -> Option<String> {
    let missing = |name: &String| {
        !host
            .candidates()
            .iter()
            .any(|c| c.backend == *name && c.library.is_some())
    };
    let name = delegraph::wanted(config).into_iter().find(missing)?;
    Some(format!("no library of the delegate `{name}` is here"))
}

/// A line for each operator with failures, each failure's command, and the counts.
fn show(report: &Report, time: Duration, output: &Output) {
    let mut by_op: BTreeMap<&str, Vec<&CaseRecord>> = BTreeMap::new();
    for case in &report.cases {
        by_op.entry(&case.op).or_default().push(case);
    }
    for (op, cases) in &by_op {
        let failed: Vec<_> = cases.iter().filter(|case| case.verdict.is_failure()).collect();
        if failed.is_empty() {
            output.detail(format!("{op}: {} cases", cases.len()));
            continue;
        }
        output.data(format!("{op}: {} of {} cases", failed.len(), cases.len()));
        for case in failed {
            let word = output.tint(Tint::Red, format!("{:<6}", case.verdict.name()));
            output.data(format!("  {word} {}", case.reason));
            output.data(format!("         again: {}", case.repro));
        }
    }
    let skipped: Option<&CaseRecord> = report.cases.iter().find(|case| case.verdict == Verdict::Skip);
    if let Some(case) = skipped {
        output.data(format!("skipped: {}", case.reason));
    }
    let delegated = report.cases.iter().filter(|case| case.delegated_nodes > 0).count();
    let operators = by_op.len();
    output.data(format!(
        "{operators} operators, {} cases: {}; {delegated} ran on a delegate; {}",
        report.summary.total,
        super::counts(report),
        duration(time.as_secs_f64())
    ));
}

/// The command that runs a case again.
fn repro(args: &OpsArgs, id: &str, config: &Config, global: &Global) -> String {
    let path = |path: &Path| quote(&path.display().to_string());
    let mut words = vec![
        "delegraph conform ops --corpus".to_string(),
        path(&args.corpus),
        format!("--case {}", quote(id)),
    ];
    if !config.select.order.is_empty() {
        words.push(format!("--backend {}", config.select.order.join(",")));
    }
    if let Some(file) = &args.waivers {
        words.push(format!("--waivers {}", path(file)));
    }
    if let Some(file) = &global.config {
        words.push(format!("--config {}", path(file)));
    }
    words.join(" ")
}
