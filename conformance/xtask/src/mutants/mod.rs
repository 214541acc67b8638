//! `cargo xtask mutants`: the kit is tested by delegates with one defect each, which it has to find by the case meant for it.

// The table is data that both sides read; the library itself is loaded by the kit alone.
#[path = "../../../mutants/src/defects.rs"]
mod defects;
mod elf;

use anyhow::{Context, Result, bail};
use defects::{DEFECTS, Defect, Place};
use elf::Elf;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX, EXE_SUFFIX};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Mutants that run at once.
const JOBS: usize = 2;
/// The mutant that has no defect.
const HEALTHY: &str = "none";

/// How to run.
#[derive(Debug, Default)]
pub struct Options {
    /// Print one object of JSON last.
    pub json: bool,
    /// Run the whole category of the meant case too, and count what else fails.
    pub full: bool,
    /// These mutants alone; empty: all.
    pub names: Vec<String>,
}

/// A case as the log of a run has it.
#[derive(Debug, Clone)]
struct Record {
    id: String,
    verdict: String,
    reason: String,
}

/// What became of a mutant.
struct Outcome {
    defect: &'static Defect,
    /// The case that found it, with the verdict and reason; or why nothing did.
    found: std::result::Result<Record, String>,
    /// Other cases that failed.
    others: usize,
    seconds: f64,
}

/// Builds the mutants, runs the kit on each, and prints the table.
///
/// # Errors
/// A mutant is not found by the case meant for it, or the healthy double fails such a case.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let chosen: Vec<&'static Defect> = DEFECTS
        .iter()
        .filter(|defect| options.names.is_empty() || options.names.iter().any(|name| name == defect.name))
        .collect();
    if chosen.is_empty() {
        bail!("there is no mutant `{}`", options.names.join("`, `"));
    }
    super::test::cargo(root, &["build", "-p", "delegraph-cli", "-p", "delegraph-mutants"])?;
    let place = Places::new(root);
    let started = Instant::now();
    let healthy = healthy(&place, &chosen)?;
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(|| {
                while let Some(defect) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = judge(&place, defect, &healthy, options);
                    println!("{}", line(&outcome));
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.insert(defect.name, outcome);
                    }
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap_or_default();
    let in_order: Vec<&Outcome> = chosen.iter().filter_map(|defect| outcomes.get(defect.name)).collect();
    print_table(&in_order);
    let total = chosen.len();
    let missed: Vec<&str> = in_order
        .iter()
        .filter(|o| o.found.is_err())
        .map(|o| o.defect.name)
        .collect();
    let caught = in_order.len() - missed.len();
    println!(
        "{caught} of {total} mutants are caught by the case meant for them, in {:.0} s",
        started.elapsed().as_secs_f64()
    );
    if options.json {
        println!("{}", json!({ "total": total, "caught": caught, "missed": missed }));
    }
    if caught < total {
        bail!("not caught: {}", missed.join(", "));
    }
    Ok(())
}

/// Where things lie.
struct Places {
    root: PathBuf,
    program: PathBuf,
    library: PathBuf,
    folder: PathBuf,
}

impl Places {
    fn new(root: &Path) -> Places {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let built = target.join("debug");
        Places {
            root: root.to_path_buf(),
            program: built.join(format!("delegraph{EXE_SUFFIX}")),
            library: built.join(library_name()),
            folder: target.join("mutants"),
        }
    }
}

fn library_name() -> String {
    format!("{DLL_PREFIX}mutant_delegate{DLL_SUFFIX}")
}

/// The folder of a mutant, with its library and manifest; the manifest's path.
fn prepare(place: &Places, name: &str, defect: Option<&Defect>) -> Result<PathBuf> {
    let folder = place.folder.join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let library = folder.join(library_name());
    if library.exists() {
        std::fs::remove_file(&library)?;
    }
    match defect.filter(|defect| defect.place == Place::File) {
        None => std::fs::hard_link(&place.library, &library)
            .or_else(|_| std::fs::copy(&place.library, &library).map(|_| ()))
            .with_context(|| format!("cannot copy `{}`", place.library.display()))?,
        Some(defect) => {
            let mut elf = Elf::new(std::fs::read(&place.library)?)?;
            match defect.name {
                "executable-stack" => elf.executable_stack()?,
                "exports-more" => elf.one_more_export()?,
                "relative-runpath" => elf.relative_runpath()?,
                other => bail!("nothing is known to do to the file of `{other}`"),
            }
            std::fs::write(&library, elf.into_bytes())?;
        }
    }
    let manifest = folder.join("mutant.delegate.toml");
    std::fs::write(&manifest, manifest_text(&place.root, defect)?)?;
    Ok(manifest)
}

/// The reference delegate's manifest under another name: the mutants claim what it claims.
fn manifest_text(root: &Path, defect: Option<&Defect>) -> Result<String> {
    let path = root.join("delegates/reference/reference.delegate.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let text = text
        .replace("name = \"reference\"", "name = \"mutant\"")
        .replace("reference_delegate", "mutant_delegate");
    Ok(
        match defect
            .filter(|defect| defect.place == Place::Manifest)
            .map(|defect| defect.name)
        {
            None => text,
            Some("claims-absent-operator") => text + "\n[[op]]\nop = \"aten::transmogrify\"\ndtypes = [\"f32\"]\n",
            Some("claims-more-dtypes") => text + "\n[[op]]\nop = \"aten::add.Tensor\"\ndtypes = [\"u16\"]\n",
            Some("ignores-normal-form") => text.replace("passes = [", "passes = [\"nhwc\", "),
            Some(other) => bail!("nothing is known to do to the manifest of `{other}`"),
        },
    )
}

/// Runs cases on a mutant, by pattern: what the log says of each.
fn conform(place: &Places, name: &str, manifest: &Path, patterns: &[&str]) -> Result<Vec<Record>> {
    let out = place.folder.join(name).join("run");
    if out.exists() {
        std::fs::remove_dir_all(&out)?;
    }
    let mut command = Command::new(&place.program);
    command.args(["conform", "run"]).arg(manifest).arg("-o").arg(&out);
    for pattern in patterns {
        command.args(["--case", pattern]);
    }
    let output = command
        .env("DELEGRAPH_MUTANT", name)
        .current_dir(&place.root)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", place.program.display()))?;
    let log = out.join("cases.jsonl");
    let text = std::fs::read_to_string(&log).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
        anyhow::anyhow!("no case was run: {said}")
    })?;
    let mut records = BTreeMap::new();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).with_context(|| format!("`{}` is malformed", log.display()))?;
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_string();
        let (id, verdict, reason) = (text("id"), text("verdict"), text("reason"));
        records.insert(id.clone(), Record { id, verdict, reason });
    }
    Ok(records.into_values().collect())
}

/// The cases that the healthy double passes, among those that are meant for the mutants.
fn healthy(place: &Places, chosen: &[&Defect]) -> Result<BTreeSet<String>> {
    let manifest = prepare(place, HEALTHY, None)?;
    let patterns: BTreeSet<&str> = chosen.iter().map(|defect| defect.case).collect();
    let patterns: Vec<&str> = patterns.into_iter().collect();
    let records = conform(place, HEALTHY, &manifest, &patterns)?;
    let failed: Vec<&Record> = records.iter().filter(|record| is_failure(&record.verdict)).collect();
    for record in &failed {
        println!(
            "the healthy double: {} {}: {}",
            record.verdict, record.id, record.reason
        );
    }
    let passed = records.iter().filter(|record| record.verdict == "pass").count();
    println!(
        "the healthy double passes {passed} of {} cases that are meant for mutants",
        records.len()
    );
    Ok(records
        .into_iter()
        .filter(|record| record.verdict == "pass")
        .map(|record| record.id)
        .collect())
}

fn is_failure(verdict: &str) -> bool {
    matches!(verdict, "fail" | "fail-claimed" | "crash" | "hang")
}

fn judge(place: &Places, defect: &'static Defect, healthy: &BTreeSet<String>, options: &Options) -> Outcome {
    let started = Instant::now();
    let category = format!("{}/*", defect.case.split('/').next().unwrap_or_default());
    let patterns: &[&str] = if options.full { &[&category] } else { &[defect.case] };
    let records =
        prepare(place, defect.name, Some(defect)).and_then(|manifest| conform(place, defect.name, &manifest, patterns));
    let (found, others) = match records {
        Err(error) => (Err(format!("{error:#}")), 0),
        Ok(records) => {
            let meant: Vec<&Record> = records
                .iter()
                .filter(|record| matches(defect.case, &record.id))
                .collect();
            // A case that fails the healthy double too tells nothing. One that is about the manifest's lie may be new.
            let known = |record: &&&Record| defect.place == Place::Manifest || healthy.contains(&record.id);
            let failures = records.iter().filter(|record| is_failure(&record.verdict)).count();
            let found = meant
                .iter()
                .filter(known)
                .find(|record| defect.verdicts.contains(&record.verdict.as_str()))
                .map(|record| (**record).clone());
            let why = || match meant.as_slice() {
                [] => format!("there is no case `{}`", defect.case),
                _ => {
                    let counts = meant
                        .iter()
                        .fold(BTreeMap::new(), |mut counts: BTreeMap<&str, usize>, record| {
                            *counts.entry(record.verdict.as_str()).or_default() += 1;
                            counts
                        });
                    let counts: Vec<String> = counts
                        .iter()
                        .map(|(verdict, count)| format!("{count} {verdict}"))
                        .collect();
                    let first = meant
                        .iter()
                        .find(|record| record.verdict != "pass")
                        .map(|r| r.reason.as_str());
                    format!("{}; {}", counts.join(", "), first.unwrap_or_default())
                }
            };
            let others = failures - usize::from(found.is_some());
            (found.ok_or_else(why), others)
        }
    };
    Outcome {
        defect,
        found,
        others,
        seconds: started.elapsed().as_secs_f64(),
    }
}

/// Whether a pattern with `*` fits an id.
fn matches(pattern: &str, id: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == id,
        Some((start, rest)) => id
            .strip_prefix(start)
            .is_some_and(|tail| (0..=tail.len()).any(|i| tail.is_char_boundary(i) && matches(rest, &tail[i..]))),
    }
}

fn line(outcome: &Outcome) -> String {
    let name = outcome.defect.name;
    match &outcome.found {
        Ok(record) => format!(
            "caught  {name} ({:.1} s): {} {}",
            outcome.seconds, record.verdict, record.id
        ),
        Err(why) => format!("MISSED  {name} ({:.1} s): {why}", outcome.seconds),
    }
}

/// The table: mutant, defect, case, verdict, how many others failed, reason.
fn print_table(outcomes: &[&Outcome]) {
    println!("\n| mutant | defect | meant case | verdict | others | reason |\n| --- | --- | --- | --- | --- | --- |");
    for outcome in outcomes {
        let (case, verdict, reason) = match &outcome.found {
            Ok(record) => (record.id.as_str(), record.verdict.as_str(), record.reason.as_str()),
            Err(why) => (outcome.defect.case, "not caught", why.as_str()),
        };
        let reason: String = reason.replace(['\n', '|'], " ").chars().take(160).collect();
        let (name, wrong, others) = (outcome.defect.name, outcome.defect.wrong, outcome.others);
        println!("| {name} | {wrong} | {case} | {verdict} | {others} | {reason} |");
    }
    println!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(matches("abi/*", "abi/exports") && matches("op/*relu/f32/*", "op/aten::relu/f32/nan"));
        assert!(!matches("abi/*", "memory/x") && !matches("abi/export", "abi/exports") && matches("*", ""));
    }

    #[test]
    fn names_are_unique_and_no_less_than_promised() {
        let names: BTreeSet<&str> = DEFECTS.iter().map(|defect| defect.name).collect();
        assert_eq!(names.len(), DEFECTS.len());
        assert!(names.len() >= 45 && !names.contains(HEALTHY));
        for defect in DEFECTS {
            assert!(
                defect.verdicts.iter().all(|verdict| is_failure(verdict)),
                "{}",
                defect.name
            );
        }
    }
}
