//! `cargo xtask provision NAME`: fetches an optional real component into `target/provision`, never a system package.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages of the `executorch` component: the referees of what we read and write.
const EXECUTORCH: [&str; 3] = ["torch==2.15.0", "executorch==1.5.1", "safetensors"];

/// Fetches a component.
///
/// # Errors
/// There is no such component, or it cannot be installed.
pub fn run(root: &Path, name: &str) -> Result<()> {
    match name {
        "executorch" => executorch(root),
        _ => bail!("there is no component `{name}`; known: executorch"),
    }
}

/// A Python that has ExecuTorch: `DELEGRAPH_PYTHON`, or the provisioned one.
pub fn python(root: &Path) -> Option<PathBuf> {
    let given = std::env::var_os("DELEGRAPH_PYTHON").map(PathBuf::from);
    given
        .or_else(|| Some(environment(root).join("bin/python")))
        .filter(|python| {
            Command::new(python)
                .args(["-c", "import executorch.runtime, safetensors"])
                .output()
                .is_ok_and(|output| output.status.success())
        })
}

fn environment(root: &Path) -> PathBuf {
    root.join("target/provision/executorch")
}

fn executorch(root: &Path) -> Result<()> {
    if python(root).is_some() {
        println!("executorch is here already");
        return Ok(());
    }
    let folder = environment(root);
    run_program(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    run_program(
        Command::new(folder.join("bin/pip"))
            .args(["install", "--quiet"])
            .args(EXECUTORCH),
    )?;
    println!("executorch is in {}", folder.display());
    Ok(())
}

fn run_program(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{:?} failed", command.get_program());
    }
    Ok(())
}
