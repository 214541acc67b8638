//! `delegraph reduce`

use crate::args::{Global, ReduceArgs, RunArgs};
use crate::inputs::{arguments, to_safetensors, value};
use crate::output::{Output, write_atomically};
use delegraph::reduce::{Case, Finding, Reduced, Tensor, reduce};
use delegraph::{LoadOptions, Session, Source};
use delegraph_config::{Config, Fallback, SelfCheck};
use delegraph_host::{Host, HostOptions};
use delegraph_runner::Leaf;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a folder of a reduced model holds.
const PROGRAM: &str = "model.pte";
const INPUTS: &str = "inputs.safetensors";
const EXPECTED: &str = "expected.safetensors";
const CONFIG: &str = "backends.toml";
const IMAGE: &str = "region.dgg";
const README: &str = "README.md";

/// Shrinks a model to the smallest part that fails on a backend, each part in a process of its own.
///
/// # Errors
/// The model or an input cannot be read, the backend is absent, or the model does not run on portable kernels.
pub fn run(args: &ReduceArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let backend = std::slice::from_ref(&args.backend);
    let mut config = crate::config::resolve(global, backend, &args.target)?;
    delegraph::check_config(&config)?;
    // A candidate is not loaded here: it may crash, which is for a child to do.
    let host = crate::devices::discover(&config, global.no_load);
    if global.no_load
        || !host
            .candidates()
            .iter()
            .any(|candidate| candidate.backend == args.backend)
    {
        host.delegate(&args.backend).map_err(delegraph::Error::from)?;
    }
    isolate(&mut config)?;
    let named = crate::of_model(&args.model);
    let source = Source::open(&args.model)?;
    let module = delegraph::import(&source).map_err(&named)?;
    let inputs = inputs(args, &source)?;
    let values = inputs.iter().map(value).collect::<Result<Vec<_>, _>>()?;
    let folder = tempfile::tempdir()?;
    write_atomically(&folder.path().join(CONFIG), toml::to_string(&config)?.as_bytes())?;
    let mut prober = Prober {
        folder: folder.path(),
        args,
        first: true,
        takes_nothing: false,
    };
    prober.loads()?;
    let mut failure = None;
    let mut probe = |case: &Case| {
        let probed = prober.probe(case);
        probed.map_err(|error| {
            let text = crate::message(&error);
            failure = Some(error);
            delegraph::Error::Usage(text)
        })
    };
    let mut progress = |state: delegraph::reduce::ReduceProgress| {
        output.progress(format!(
            "probe {}: {} nodes, {} fail so far",
            state.probes + 1,
            state.tried,
            state.smallest
        ));
    };
    let reduced = reduce(&module, &args.method, &values, args.probes, &mut probe, &mut progress);
    output.progress_done();
    // The child's own error has the exit code.
    let reduced = match (reduced, failure) {
        (_, Some(error)) => return Err(error),
        (reduced, None) => reduced.map_err(&named)?,
    };
    let Some(reduced) = reduced else {
        let why = match prober.takes_nothing {
            true => format!("`{}` takes no node of it", args.backend),
            false => format!("on `{}` it gives what the portable kernels give", args.backend),
        };
        output.data(format!("nothing fails: {why}"));
        output.json(&serde_json::json!({
            "schema": "delegraph.reduce/1", "tool": crate::tool(), "exit_code": 0, "finding": null, "reason": why,
        }))?;
        return Ok(0);
    };
    std::fs::create_dir_all(&args.output)?;
    write_case(&args.output, &reduced.case)?;
    write_atomically(&args.output.join(IMAGE), &reduced.image)?;
    write_atomically(&args.output.join(CONFIG), toml::to_string(&config)?.as_bytes())?;
    write_atomically(&args.output.join(README), readme(&reduced, args).as_bytes())?;
    say(&reduced, args, output)?;
    Ok(1)
}

/// The configuration of every child, complete in itself: any part is given to the backend, and what fails is seen.
fn isolate(config: &mut Config) -> anyhow::Result<()> {
    config.select.min_nodes = 1;
    config.select.max_border_bytes = 0.0;
    config.select.require_coverage = 0.0;
    config.select.fallback = Fallback::Allow;
    config.select.self_check = SelfCheck::Off;
    config.cache.quota_mb = 0;
    config.profile.clear();
    let delegates = &mut config.delegates;
    let libraries = config
        .backend
        .values_mut()
        .filter_map(|backend| backend.library.as_mut());
    // A bare name is one for the system's loader.
    let libraries = libraries.filter(|path| path.components().count() > 1);
    let paths = delegates
        .search
        .iter_mut()
        .chain(&mut delegates.keys)
        .chain(&mut delegates.worker)
        .chain(&mut delegates.lock);
    for path in paths.chain(libraries) {
        *path = std::path::absolute(&*path)?;
    }
    Ok(())
}

/// The given arguments, or made-up ones.
fn inputs(args: &ReduceArgs, source: &Source) -> anyhow::Result<Vec<Leaf>> {
    let nobody = Arc::new(Host::discover(HostOptions::default()));
    let options = LoadOptions {
        method: args.method.clone(),
        ..LoadOptions::default()
    };
    let session = Session::open(source, &Config::default(), &nobody, options)?;
    if args.inputs.is_none() && args.input.is_empty() {
        return session
            .inputs()
            .iter()
            .map(|info| crate::bench::made_up(info, &[]))
            .collect();
    }
    arguments(&session, &args.input, args.inputs.as_deref())
}

/// Runs cases in children.
struct Prober<'a> {
    /// Where the case lies that is probed.
    folder: &'a Path,
    args: &'a ReduceArgs,
    first: bool,
    /// The whole model had no region.
    takes_nothing: bool,
}

/// How a child ended, and the JSON object that it wrote.
struct Ended {
    /// `None`: it took too long.
    status: Option<ExitStatus>,
    told: Option<serde_json::Value>,
}

impl Prober<'_> {
    /// Whether the backend can be loaded at all.
    fn loads(&self) -> anyhow::Result<()> {
        let ended = self.child(["devices", "--probe", "--config", CONFIG].map(str::to_string).to_vec())?;
        let told = ended.told.unwrap_or_default();
        let own = told["delegates"].as_array().into_iter().flatten();
        let mut states = own
            .filter(|delegate| delegate["backend"] == self.args.backend.as_str())
            .filter_map(|delegate| delegate["state"].as_str());
        if states.clone().any(|state| state.starts_with("loaded")) {
            return Ok(());
        }
        let (code, why) = match (states.next(), ended.status) {
            (Some(state), _) => (4, state.to_string()),
            (None, Some(status)) => (5, format!("its process ended, {}", self.last_words(status))),
            (None, None) => (5, format!("it does not answer within {} s", self.args.limit)),
        };
        Err(crate::CommandError {
            code,
            message: format!("`{}` cannot be used: {why}", self.args.backend),
        }
        .into())
    }

    /// Runs this program in the folder of the case.
    fn child(&self, words: Vec<String>) -> anyhow::Result<Ended> {
        let answer = self.folder.join("answer.json");
        let _ = std::fs::remove_file(&answer);
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(words)
            .arg("--json")
            .arg(&answer)
            .arg("--quiet")
            .current_dir(self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.folder.join("stderr"))?);
        // The configuration is whole as it is.
        for variable in [
            "DELEGRAPH_PROFILE",
            "DELEGRAPH_STRICT",
            "DELEGRAPH_CACHE_DIR",
            "DELEGRAPH_CONFIG",
        ] {
            command.env_remove(variable);
        }
        let status = wait(command, Duration::from_secs(self.args.limit))?;
        let told = std::fs::read(&answer).ok();
        Ok(Ended {
            status,
            told: told.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
        })
    }

    fn probe(&mut self, case: &Case) -> anyhow::Result<Option<Finding>> {
        write_case(self.folder, case)?;
        let Ended { status, told } = self.child(run_arguments(self.args))?;
        let first = std::mem::take(&mut self.first);
        let Some(status) = status else {
            return Ok(Some(Finding::Hung(format!(
                "still running after {} s",
                self.args.limit
            ))));
        };
        let (Some(told), Some(code)) = (told, status.code()) else {
            return Ok(Some(Finding::Crashed(self.last_words(status))));
        };
        let message = told["message"].as_str().unwrap_or_default().to_string();
        match code {
            0 | 1 => {
                if first {
                    self.takes_nothing = told["regions"].as_array().is_none_or(Vec::is_empty);
                }
                Ok(finding(&told))
            }
            5 => Ok(Some(Finding::Failed(message))),
            // What is wrong with the whole model is the user's to know; a part may be no model.
            2 | 3 | 4 | 70 if !first => Ok(None),
            code => Err(crate::CommandError {
                code: u8::try_from(code).unwrap_or(70),
                message,
            }
            .into()),
        }
    }

    fn last_words(&self, status: ExitStatus) -> String {
        let stderr = std::fs::read(self.folder.join("stderr")).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr);
        match stderr.lines().rev().find(|line| !line.trim().is_empty()) {
            Some(line) => format!("{status}: {line}"),
            None => status.to_string(),
        }
    }
}

/// What the report of a run says: an output is wrong, or a region was left by its delegate.
fn finding(told: &serde_json::Value) -> Option<Finding> {
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let wrong: Vec<String> = list(&told["expected"])
        .iter()
        .filter_map(|output| {
            Some(format!(
                "output {}: {}",
                output["name"].as_str()?,
                output["reason"].as_str()?
            ))
        })
        .collect();
    if !wrong.is_empty() {
        return Some(Finding::Wrong(wrong.join("; ")));
    }
    let left = list(&told["regions"])
        .into_iter()
        .find(|region| region["portable_runs"].as_u64().unwrap_or(0) > 0 || region["backend"].is_null());
    let pairs = |value: &serde_json::Value| -> Vec<String> {
        let pair = |pair: &serde_json::Value| Some(format!("{}: {}", pair[0].as_str()?, pair[1].as_str()?));
        list(value).iter().filter_map(pair).collect()
    };
    let refusals = match left {
        Some(region) => pairs(&region["refusals"]),
        None => pairs(&told["problems"]),
    };
    (!refusals.is_empty()).then(|| Finding::Failed(refusals.join("; ")))
}

/// Waits for a child; `None`: it was killed because it took too long.
fn wait(mut command: Command, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let started = Instant::now();
    let mut child = command.spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if started.elapsed() > limit {
            let _ = child.kill();
            let _ = child.wait();
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `run model.pte ...`, as a child is called in the folder of a case.
fn run_arguments(args: &ReduceArgs) -> Vec<String> {
    let plain = RunArgs::default_tolerance();
    let mut words: Vec<String> = [
        "run", PROGRAM, "--config", CONFIG, "--inputs", INPUTS, "--expect", EXPECTED,
    ]
    .map(str::to_string)
    .to_vec();
    if args.method != "forward" {
        words.extend(["--method".to_string(), args.method.clone()]);
    }
    if (args.rtol, args.atol) != plain {
        words.extend(["--rtol".to_string(), args.rtol.to_string()]);
        words.extend(["--atol".to_string(), args.atol.to_string()]);
    }
    words
}

fn write_case(folder: &Path, case: &Case) -> anyhow::Result<()> {
    let named = |tensors: &[Tensor]| -> Vec<(String, Leaf)> {
        let leaf = |tensor: &Tensor| Leaf::Tensor {
            dtype: tensor.dtype,
            shape: tensor.shape.to_vec(),
            bytes: tensor.bytes.clone(),
        };
        tensors
            .iter()
            .enumerate()
            .map(|(i, tensor)| (i.to_string(), leaf(tensor)))
            .collect()
    };
    write_atomically(&folder.join(PROGRAM), &case.program)?;
    write_atomically(&folder.join(INPUTS), &to_safetensors(&named(&case.inputs))?)?;
    write_atomically(&folder.join(EXPECTED), &to_safetensors(&named(&case.expected))?)
}

/// The command that shows the finding again.
fn command(args: &ReduceArgs) -> String {
    let words: Vec<String> = run_arguments(args)
        .into_iter()
        .map(|word| match word.as_str() {
            PROGRAM | CONFIG | INPUTS | EXPECTED => args.output.join(&word).display().to_string(),
            _ => word,
        })
        .collect();
    format!("delegraph {}", words.join(" "))
}

fn node_lines(reduced: &Reduced) -> Vec<String> {
    reduced
        .nodes
        .iter()
        .map(|node| {
            let source = node
                .source
                .as_deref()
                .map_or(String::new(), |source| format!("  {source}"));
            format!("{:<32} {}{source}", node.op, node.name)
        })
        .collect()
}

fn readme(reduced: &Reduced, args: &ReduceArgs) -> String {
    let smallest = match reduced.is_smallest {
        true => "No node of it can be left out.",
        false => "There were no probes left to make it smaller.",
    };
    let backend = &args.backend;
    format!(
        "# A part of `{}` that fails on `{backend}`\n\n{}\n\n```text\n{}\n```\n\n{smallest} Run from this folder to see it again:\n\n```sh\ndelegraph {}\n```\n\n\
         - `{PROGRAM}`: the part as a program for portable kernels with its graph inside, which is partitioned for `{backend}` when it is loaded\n\
         - `{INPUTS}`: its inputs, as the portable kernels made them; `{EXPECTED}`: what the portable kernels make of them\n\
         - `{IMAGE}`: its graph image, as a delegate is handed it\n- `{CONFIG}`: the configuration, complete\n",
        args.model.display(),
        reduced.finding,
        node_lines(reduced).join("\n"),
        run_arguments(args).join(" "),
    )
}

fn say(reduced: &Reduced, args: &ReduceArgs, output: &Output) -> anyhow::Result<()> {
    output.data(reduced.finding.to_string());
    for line in node_lines(reduced) {
        output.data(format!("  {line}"));
    }
    if !reduced.is_smallest {
        output.talk("there were no probes left: raise `--probes` to make it smaller");
    }
    let kind = match &reduced.finding {
        Finding::Wrong(_) => "wrong",
        Finding::Failed(_) => "failed",
        Finding::Crashed(_) => "crashed",
        Finding::Hung(_) => "hung",
    };
    let folder: &PathBuf = &args.output;
    output.json(&serde_json::json!({
        "schema": "delegraph.reduce/1", "tool": crate::tool(), "exit_code": 1,
        "finding": kind, "reason": reduced.finding.to_string(), "backend": args.backend, "folder": folder,
        "nodes": reduced.nodes.iter().map(|node| serde_json::json!({
            "name": node.name, "op": node.op, "source": node.source,
        })).collect::<Vec<_>>(),
        "is_smallest": reduced.is_smallest, "probes": reduced.probes, "repro": command(args),
    }))?;
    output.talk(format!("{} probes, written to {}", reduced.probes, folder.display()));
    output.talk(format!("next      {}", command(args)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reports_are_read() {
        let region = |backend: serde_json::Value, runs: u64, refusals: serde_json::Value| json!({ "regions": [{ "backend": backend, "portable_runs": runs, "refusals": refusals }], "expected": [] });
        let cases = [
            (region(json!("x"), 0, json!([["y", "absent"]])), None),
            (
                region(json!("x"), 1, json!([["x", "it broke"]])),
                Some(Finding::Failed("x: it broke".to_string())),
            ),
            (
                region(json!(null), 0, json!([["x", "no load"]])),
                Some(Finding::Failed("x: no load".to_string())),
            ),
            (
                json!({ "regions": [], "problems": [["x", "its process died"]] }),
                Some(Finding::Failed("x: its process died".to_string())),
            ),
            (
                json!({ "regions": [], "expected": [{ "name": "0", "ok": false, "reason": "far off" }, { "name": "1", "ok": true, "reason": null }] }),
                Some(Finding::Wrong("output 0: far off".to_string())),
            ),
        ];
        for (told, wanted) in cases {
            assert_eq!(finding(&told), wanted, "{told}");
        }
    }
}
