//! Judges the folder of a release with the code of today. Every function gives what is wrong, one line each.

use crate::{COMPILED_FOR, Record, folders, listing, make, verdicts};
use anyhow::{Context, Result};
use delegraph::{Config, Dims, LoadOptions, Session, Source, Value};
use delegraph_host::{Host, HostOptions};
use delegraph_runner::Leaf;
use delegraph_runner::compare::compare;
use delegraph_runner::fixture::{Case, Fixture};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The models of a release.
///
/// # Errors
/// The folder cannot be read.
pub fn models(release: &Path) -> std::io::Result<Vec<PathBuf>> {
    folders(&release.join("models"), |_| true)
}

/// The record of a model.
///
/// # Errors
/// It cannot be read.
pub fn record(model: &Path) -> Result<Record> {
    let path = model.join("record.json");
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("in {}", path.display()))
}

fn order(name: &str) -> Result<Config> {
    Ok(delegraph::config_from_text(&format!(
        "[select]\norder = [\"{name}\"]\n"
    ))?)
}

/// The program runs on its delegate, without it, and compiled again from what it holds, with PyTorch's results.
///
/// # Errors
/// A file of the folder cannot be read.
pub fn program(model: &Path, host: &Arc<Host>) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let recorded = record(model)?;
    let fixture = Fixture::read(model).map_err(|error| anyhow::anyhow!("{error}"))?;
    let source = Source::open(model.join("model.pte"))?;
    match delegraph::methods(&source) {
        Ok(methods) if methods == recorded.methods => {}
        other => problems.push(format!("methods are {other:?}, were {:?}", recorded.methods)),
    }
    let nobody = Arc::new(Host::discover(HostOptions::default()));
    let delegated = order(COMPILED_FOR)?;
    let again = delegraph::import(&source).and_then(|module| delegraph::compile(module, &delegated, host, &mut |_| {}));
    let again = match again {
        Ok(compiled) => {
            let now = compiled.report.coverage().delegated_nodes;
            if now < recorded.delegated_nodes {
                problems.push(format!(
                    "compiled again, {COMPILED_FOR} takes {now} nodes of it; it took {}",
                    recorded.delegated_nodes
                ));
            }
            Some(Source::from_bytes(compiled.bytes, "compiled again"))
        }
        Err(error) => {
            problems.push(format!("it does not compile again: {error}"));
            None
        }
    };
    let mut legs = vec![
        ("on its delegate", &source, host, true),
        ("portably", &source, &nobody, false),
    ];
    legs.extend(again.as_ref().map(|again| ("compiled again", again, host, true)));
    for (leg, source, host, on_delegate) in legs {
        for case in &fixture.cases {
            if let Err(problem) = run(source, &delegated, host, on_delegate, case, &fixture) {
                problems.push(format!("{leg}, case {}: {problem:#}", case.name));
            }
        }
    }
    Ok(problems)
}

fn run(
    source: &Source,
    config: &Config,
    host: &Arc<Host>,
    on_delegate: bool,
    case: &Case,
    fixture: &Fixture,
) -> Result<()> {
    let mut session = Session::open(source, config, host, LoadOptions::default())?;
    for (i, step) in case.steps.iter().enumerate() {
        let values = step.inputs.iter().map(value).collect::<Result<Vec<Value<'_>>>>()?;
        session.run(&values)?;
        for (k, want) in step.outputs.iter().enumerate() {
            let got = leaf(&session.output(k)?);
            compare(&got, want, fixture.tolerance)
                .map_err(|reason| anyhow::anyhow!("step {i}, output {k}: {reason}"))?;
        }
    }
    for (name, want) in &case.buffers_after {
        let got = session.state(name)?.with_context(|| format!("no buffer `{name}`"))?;
        compare(&leaf(&got), want, fixture.tolerance).map_err(|reason| anyhow::anyhow!("buffer `{name}`: {reason}"))?;
    }
    let report = session.report();
    let ran = report.regions.iter().filter(|region| region.delegated_runs > 0).count();
    anyhow::ensure!(!report.regions.is_empty(), "the program has no regions any more");
    if on_delegate {
        // In a program with branches a region may lie on the other one; what ran, ran on the delegate.
        anyhow::ensure!(report.fallbacks() == 0, "{}", report.why_portable());
        anyhow::ensure!(ran > 0, "no region ran on the delegate");
    } else {
        anyhow::ensure!(ran == 0, "a delegate ran where there is none");
    }
    Ok(())
}

fn value(leaf: &Leaf) -> Result<Value<'_>> {
    Ok(match leaf {
        Leaf::None => Value::None,
        Leaf::Bool(b) => Value::Bool(*b),
        Leaf::Int(i) => Value::Int(*i),
        Leaf::Float(f) => Value::Float(*f),
        Leaf::Str(s) => Value::Str(s),
        Leaf::Tensor { dtype, shape, bytes } => Value::tensor(*dtype, Dims::new(shape)?, bytes),
    })
}

fn leaf(value: &Value<'_>) -> Leaf {
    match value {
        Value::Tensor(tensor) => Leaf::Tensor {
            dtype: tensor.dtype,
            shape: tensor.shape.to_vec(),
            bytes: tensor.to_contiguous().into_owned(),
        },
        Value::Int(i) => Leaf::Int(*i),
        Value::Float(f) => Leaf::Float(*f),
        Value::Bool(b) => Leaf::Bool(*b),
        Value::Str(s) => Leaf::Str((*s).to_string()),
        Value::None | Value::InPlace(_) | Value::Memory(_) => Leaf::None,
    }
}

/// Every image verifies and lists as it did, and delegates take what they took: a node that was taken still is; one that was
/// not may be now, but for the delegate that takes nothing.
///
/// # Errors
/// A file of the folder cannot be read.
pub fn images(model: &Path, host: &Arc<Host>) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let recorded = record(model)?;
    for (name, by_delegate) in &recorded.verdicts {
        let path = model.join("images").join(format!("{name}.dgg"));
        let image = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        same_listing(&path, listing::image(&image), &mut problems)?;
        let Ok(operators) = listing::operators(&image) else {
            continue;
        };
        for (backend, then) in by_delegate {
            let now = match verdicts(host, backend, &image) {
                Ok(now) => now,
                Err(error) => {
                    problems.push(format!("{name}: {backend} does not answer: {error}"));
                    continue;
                }
            };
            if now.len() != then.len() {
                problems.push(format!(
                    "{name}: {backend} judges {} nodes, was {}",
                    now.len(),
                    then.len()
                ));
            }
            for ((then, now), operator) in then.chars().zip(now.chars()).zip(&operators) {
                if then == '+' && now != '+' {
                    problems.push(format!("{name}: {backend} took `{operator}` and does not any more"));
                }
                if backend == "null" && now == '+' {
                    problems.push(format!("{name}: null takes `{operator}`"));
                }
            }
        }
    }
    Ok(problems)
}

/// Every blob is whole and lists as it did, and is the one in the program.
///
/// # Errors
/// A file of the folder cannot be read.
pub fn blobs(model: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let inside = make::blobs(&std::fs::read(model.join("model.pte"))?)?;
    if inside.is_empty() {
        problems.push("the program has no blob".to_string());
    }
    for (name, bytes) in inside {
        let path = model.join("blobs").join(format!("{name}.dgb"));
        let kept = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        if kept != bytes {
            problems.push(format!("{name}: the program's blob is another than the file"));
        }
        same_listing(&path, listing::blob(&kept), &mut problems)?;
    }
    Ok(problems)
}

fn same_listing(path: &Path, now: Result<String>, problems: &mut Vec<String>) -> Result<()> {
    let text = path.with_extension("txt");
    let then = std::fs::read_to_string(&text).with_context(|| format!("reading {}", text.display()))?;
    match now {
        Err(error) => problems.push(format!("{} does not verify: {error:#}", path.display())),
        Ok(now) => {
            let mut lines = then.lines().zip(now.lines());
            if let Some((then, now)) = lines.find(|(then, now)| then != now) {
                problems.push(format!("{} lists `{now}`, was `{then}`", path.display()));
            } else if then.lines().count() != now.lines().count() {
                problems.push(format!("{} lists more or fewer lines", path.display()));
            }
        }
    }
    Ok(())
}

/// The configuration resolves to what it did; keys that are newer may stand beside.
///
/// # Errors
/// A file of the folder cannot be read.
pub fn config(release: &Path) -> Result<Vec<String>> {
    let folder = release.join("config");
    let text = std::fs::read_to_string(folder.join("backends.toml"))?;
    let mut problems = Vec::new();
    for (profile, file) in make::RESOLVED {
        let then: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join(file))?)?;
        match make::resolved(&text, profile) {
            Err(error) => problems.push(format!("{file}: it is refused: {error:#}")),
            Ok(now) => differ(&then, &serde_json::from_str(&now)?, file, &mut problems),
        }
    }
    Ok(problems)
}

fn differ(then: &serde_json::Value, now: &serde_json::Value, place: &str, problems: &mut Vec<String>) {
    use serde_json::Value::{Array, Object};
    match (then, now) {
        (Object(then), Object(now)) => {
            for (key, then) in then {
                let now = now.get(key).unwrap_or(&serde_json::Value::Null);
                differ(then, now, &format!("{place}: {key}"), problems);
            }
        }
        (Array(then), Array(now)) if then.len() == now.len() => {
            for (i, (then, now)) in then.iter().zip(now).enumerate() {
                differ(then, now, &format!("{place}[{i}]"), problems);
            }
        }
        (then, now) if then == now => {}
        (then, now) => problems.push(format!("{place} is {now}, was {then}")),
    }
}
