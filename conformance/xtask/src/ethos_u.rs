//! `ethos-u`: the conformance kit on the Ethos-U delegate, one run a target, with Arm's Vela as the compiler; and with `--remake` the cases of the
//! interpreter made anew by Vela, Arm's TOSA reference model and LiteRT, and compared. `DELEGRAPH` names a binary of the command line that has the
//! delegate beside it; else both are built. `--python` names a Python with other versions of the tools than the provisioned ones.

use super::provision::ethos_u_python;
use super::test::cargo;
use anyhow::{Context, Result, bail};
use std::env::consts::EXE_SUFFIX;
use std::path::{Path, PathBuf};
use std::process::Command;

mod remake;

const MANIFEST: &str = "delegates/ethos-u/ethos-u.delegate.toml";
/// Targets unless said otherwise: one a processor.
const TARGETS: &str = "ethos-u55-128,ethos-u65-256,ethos-u85-256";

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    targets: Vec<String>,
    list: String,
    remake: bool,
    python: Option<PathBuf>,
}

/// Runs the kit, or makes the cases anew.
///
/// # Errors
/// Wrong use, no Vela, or a case that fails.
pub fn run(root: &Path, arguments: &[&str]) -> Result<()> {
    let options = parse(arguments)?;
    let Some(python) = options.python.clone().or_else(|| ethos_u_python(root)) else {
        bail!("Vela is not here\n  hint: run `cargo xtask provision ethos-u`");
    };
    if options.remake {
        return remake::run(root, &python, &options.targets);
    }
    let delegraph = match std::env::var_os("DELEGRAPH") {
        Some(given) => PathBuf::from(given),
        None => build(root)?,
    };
    let vela = python.with_file_name("vela");
    let mut failed = Vec::new();
    for target in &options.targets {
        println!("\n{MANIFEST} for {target}, list {}", options.list);
        let mut command = Command::new(&delegraph);
        command.current_dir(root).args(["conform", "run", MANIFEST, "--fresh"]);
        // As apps use it: Vela in the sandbox of the worker.
        command.args(["--isolated", "--list", &options.list, "--output"]);
        command.arg(format!("target/conformance/{target}-{}", options.list));
        command.args(["--option", &format!("target={target}")]);
        command.args(["--option", &format!("vela={}", vela.display())]);
        if !command.status().context("cannot start delegraph")?.success() {
            failed.push(target.clone());
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("the kit does not pass for {}", failed.join(" and ")),
    }
}

/// The command line, with the delegate's library beside it.
fn build(root: &Path) -> Result<PathBuf> {
    let mut words = vec!["build", "--release"];
    for package in ["delegraph-cli", "delegraph-worker", "delegraph-ethos-u-plugin"] {
        words.extend(["--package", package]);
    }
    cargo(root, &words)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join(format!("release/delegraph{EXE_SUFFIX}")))
}

fn parse(arguments: &[&str]) -> Result<Options> {
    let split = |text: &str| text.split(',').map(str::to_string).collect::<Vec<String>>();
    let mut options = Options {
        targets: split(TARGETS),
        list: "quant".to_string(),
        remake: false,
        python: None,
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if *word == "--remake" {
            options.remake = true;
            continue;
        }
        let value = words
            .next()
            .copied()
            .with_context(|| format!("`{word}` needs a value"))?;
        match *word {
            "--target" => options.targets = split(value),
            "--list" => options.list = value.to_string(),
            "--python" => options.python = Some(PathBuf::from(value)),
            _ => bail!("`cargo xtask ethos-u` does not know `{word}`"),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_target_a_processor_unless_said_otherwise() {
        let options = parse(&[]).unwrap();
        assert_eq!(
            (options.targets.len(), options.list.as_str(), options.remake),
            (3, "quant", false)
        );
        let options = parse(&["--remake", "--python", "new/bin/python"]).unwrap();
        assert_eq!(options.python, Some(PathBuf::from("new/bin/python")));
        let options = parse(&["--remake", "--target", "ethos-u65-512"]).unwrap();
        assert_eq!(
            (options.targets, options.remake),
            (vec!["ethos-u65-512".to_string()], true)
        );
        for wrong in [&["--target"][..], &["--soc", "x"], &["quant"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
