//! `delegraph run`

use crate::args::{Global, RunArgs};
use crate::inputs::{arguments, leaf, to_npy, to_safetensors, value};
use crate::output::{Output, duration, write_atomically};
use delegraph::{LoadOptions, Session, Source};
use delegraph_runner::Leaf;
use delegraph_runner::compare::Lower;
use delegraph_runner::compare::{Tolerance, compare};
use delegraph_runner::fixture::Tensors;
use delegraph_runner::models::{self, Source as From, Subject};
use delegraph_runner::{CaseRecord, Instance, Report, StepResult, Verdict};
use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Runs a model once on given inputs, or every case of a fixture.
///
/// # Errors
/// The model or an input cannot be read, or the run fails.
pub fn run(args: &RunArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let config = crate::config::resolve_for(global, &args.backends, &args.shapes)?;
    if let Some(folder) = &args.fixture {
        return fixture(args, folder, config, global, output);
    }
    let host = Arc::new(crate::devices::discover(&config, global.no_load));
    let started = Instant::now();
    let options = LoadOptions {
        method: args.method.clone(),
        data: args.data.as_deref().map(Source::open).transpose()?,
        ..LoadOptions::default()
    };
    let named = crate::of_model(&args.model);
    let mut session = Session::open(&Source::open(&args.model)?, &config, &host, options).map_err(&named)?;
    let loaded = started.elapsed().as_secs_f64();
    let inputs = arguments(&session, &args.input, args.inputs.as_deref())?;
    let values = inputs.iter().map(value).collect::<Result<Vec<_>, _>>()?;
    if args.trace.is_some() || args.etdump.is_some() {
        session.start_trace();
    }
    let started = Instant::now();
    session.run(&values).map_err(&named)?;
    let ran = started.elapsed().as_secs_f64();
    if let Some(path) = &args.trace {
        write_atomically(path, session.chrome_trace().as_bytes())?;
        output.talk(format!("trace in {}", path.display()));
    }
    if let Some(path) = &args.etdump {
        write_atomically(path, &session.etdump()?)?;
        output.talk(format!("ETDump in {}", path.display()));
    }
    let outputs: Vec<Leaf> = (0..session.output_count())
        .map(|i| session.output(i).map(leaf))
        .collect::<Result<_, _>>()?;
    for (i, item) in outputs.iter().enumerate() {
        output.data(format!("output {i}: {}{}", item.describe(), preview(item)));
    }
    if let Some(folder) = &args.output_dir {
        std::fs::create_dir_all(folder)?;
        for (i, item) in outputs.iter().enumerate() {
            match to_npy(item) {
                Some(bytes) => write_atomically(&folder.join(format!("output_{i}.npy")), &bytes)?,
                None => output.talk(format!(
                    "output {i} ({}) has no .npy form and is not written",
                    item.describe()
                )),
            }
        }
    }
    let mut code = 0;
    let mut verdicts = Vec::new();
    if let Some(path) = &args.expect {
        let tolerance = Tolerance {
            rtol: args.rtol,
            atol: args.atol,
        };
        verdicts = expected(path, &outputs, tolerance)?;
        for (name, verdict) in &verdicts {
            match verdict {
                Ok(max_abs) => output.data(format!("{name}: as expected, max_abs {max_abs:.1e}")),
                Err(reason) => {
                    code = 1;
                    output.data(format!("{name}: {reason}"));
                }
            }
        }
    }
    let report = session.report();
    warn_of_fallback(&config, &report, output);
    for (backend, problem) in &report.problems {
        output.detail(format!("problem   {backend}: {problem}"));
    }
    if let Some(cache) = &report.cache {
        output.detail(format!("cache     {}, in {}", cache.words(), cache.folder.display()));
    }
    report.copies().iter().for_each(|line| output.detail(line));
    report.kept().iter().for_each(|line| output.detail(line));
    report.sizes().iter().for_each(|line| output.detail(line));
    output.json(&serde_json::json!({
        "schema": "delegraph.run/1", "tool": crate::tool(), "exit_code": code,
        "load_ms": loaded * 1e3, "run_ms": ran * 1e3,
        "outputs": outputs.iter().map(Leaf::describe).collect::<Vec<_>>(),
        "expected": verdicts.iter().map(|(name, v)| serde_json::json!({ "name": name, "ok": v.is_ok(), "reason": v.as_ref().err() })).collect::<Vec<_>>(),
        "regions": report.regions,
        "delegated_nodes": report.delegated_nodes(), "portable_nodes": report.portable_nodes, "fallbacks": report.fallbacks(), "problems": report.problems, "cache": report.cache,
    }))?;
    output.closing(
        &report.ran(),
        &report.why_portable(),
        &format!("load {}, run {}", duration(loaded), duration(ran)),
        &format!("delegraph bench {}", args.model.display()),
    );
    Ok(code)
}

/// `fallback = "warn"`
pub fn warn_of_fallback(config: &delegraph_config::Config, report: &delegraph::RunReport, output: &Output) {
    if config.select.fallback == delegraph_config::Fallback::Warn && report.fallbacks() > 0 {
        output.talk(format!("warning: {}", report.why_portable()));
    }
}

/// The largest difference of each expected tensor, or what is wrong with it.
fn expected(path: &Path, outputs: &[Leaf], tolerance: Tolerance) -> anyhow::Result<Vec<(String, Result<f64, String>)>> {
    let tensors = Tensors::read(path).map_err(|error| crate::bad_input(error.to_string()))?;
    let mut wanted: Vec<(&str, &Leaf)> = tensors.iter().collect();
    wanted.sort_by(|(a, _), (b, _)| crate::inputs::natural_order(a, b));
    if wanted.is_empty() {
        return Err(crate::bad_input(format!("`{}` holds no tensors", path.display())));
    }
    Ok(wanted
        .into_iter()
        .enumerate()
        .map(|(i, (name, want))| {
            let position = name
                .strip_prefix("output_")
                .unwrap_or(name)
                .parse::<usize>()
                .unwrap_or(i);
            let verdict = match outputs.get(position) {
                None => Err(format!("the model has no output {position}")),
                Some(got) => compare(got, want, tolerance).map(|difference| difference.max_abs),
            };
            (name.to_string(), verdict)
        })
        .collect())
}

/// Every case of a fixture on the given model file, in this process.
fn fixture(
    args: &RunArgs,
    folder: &Path,
    config: delegraph_config::Config,
    global: &Global,
    output: &Output,
) -> anyhow::Result<u8> {
    let started = Instant::now();
    let cases = models::list(folder).map_err(|error| crate::bad_input(error.to_string()))?;
    let mut subject = GivenFile {
        inner: crate::subject::DelegraphSubject::new(config, global.no_load),
        file: &args.model,
        log: Log::default(),
    };
    let mut records: Vec<CaseRecord> = Vec::new();
    let mut outputs: Vec<(String, Leaf)> = Vec::new();
    let program = args.model.extension().is_some_and(|extension| extension == "pte");
    let form = if program { From::Pte } else { From::Pt2 };
    for case in &cases {
        let record = models::run_file(&mut subject, case, &args.model, form);
        let detail = match record.verdict {
            Verdict::Pass => format!("max_abs {:.1e}", record.max_abs),
            _ => record.reason.clone(),
        };
        output.data(format!("{:<6} {:<36} {detail}", record.verdict.name(), record.id));
        records.push(record);
        for (step, result) in subject.log.take().into_iter().enumerate() {
            let after = result.inputs_after.unwrap_or_default();
            for (kind, leaves) in [("out", result.outputs), ("in", after)] {
                let named = leaves.into_iter().enumerate();
                outputs.extend(named.map(|(k, leaf)| (format!("{}.{step}.{kind}{k}", case.case), leaf)));
            }
        }
    }
    if let Some(folder) = &args.output_dir {
        std::fs::create_dir_all(folder)?;
        write_atomically(&folder.join("outputs.safetensors"), &to_safetensors(&outputs)?)?;
    }
    let delegated: u64 = records.iter().map(|r| r.delegated_nodes).sum();
    let portable: u64 = records.iter().map(|r| r.undelegated_nodes).sum();
    let fallbacks: u64 = records.iter().map(|r| r.fallbacks).sum();
    let report = Report::new(records);
    output.json(&serde_json::to_value(&report)?)?;
    output.closing(
        &format!(
            "{} cases; {delegated} delegated nodes, {portable} portable",
            report.summary.total
        ),
        &format!("{fallbacks} regions fell back"),
        &duration(started.elapsed().as_secs_f64()),
        &format!("delegraph conform models {}", folder.display()),
    );
    Ok(report.exit_code)
}

/// What the steps of a case gave.
type Log = Rc<RefCell<Vec<StepResult>>>;

/// A subject that loads one file whatever the fixture names, and keeps what it gave.
struct GivenFile<'a> {
    inner: crate::subject::DelegraphSubject,
    file: &'a Path,
    log: Log,
}

impl Subject for GivenFile<'_> {
    fn load(&mut self, _: &Path, source: From) -> Result<Box<dyn Instance>, String> {
        let inner = self.inner.load(self.file, source)?;
        let log = Rc::clone(&self.log);
        Ok(Box::new(Logged { inner, log }))
    }
}

struct Logged {
    inner: Box<dyn Instance>,
    log: Log,
}

impl Instance for Logged {
    fn run(&mut self, inputs: &[Leaf]) -> Result<StepResult, String> {
        let result = self.inner.run(inputs)?;
        self.log.borrow_mut().push(result.clone());
        Ok(result)
    }

    fn buffer(&mut self, name: &str) -> Result<Option<Leaf>, String> {
        self.inner.buffer(name)
    }

    fn counters(&self) -> models::Counters {
        self.inner.counters()
    }

    fn lower(&self) -> Option<Lower> {
        self.inner.lower()
    }
}

/// The first elements of a small tensor.
fn preview(leaf: &Leaf) -> String {
    let Leaf::Tensor { dtype, bytes, .. } = leaf else {
        return String::new();
    };
    let values = delegraph_runner::leaf::to_f64(*dtype, &bytes[..bytes.len().min(8 * dtype.size())]);
    let texts: Vec<String> = values
        .iter()
        .map(|v| {
            format!("{v:.5}")
                .trim_end_matches('0')
                .trim_end_matches('.')
                .to_string()
        })
        .collect();
    let more = if bytes.len() > 8 * dtype.size() { ", ..." } else { "" };
    format!("  [{}{more}]", texts.join(", "))
}
