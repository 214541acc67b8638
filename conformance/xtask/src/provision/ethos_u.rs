//! The component `ethos-u`: Arm's compiler Vela, Arm's TOSA reference model and Google's LiteRT, as Python packages with free licences.

use super::run_program;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGES: [&str; 4] = [
    "ethos-u-vela==5.2.0",
    "tosa-tools==2026.8.0",
    "ai-edge-litert==2.3.0",
    "numpy",
];

/// A Python that has the three, with the program `vela` beside it.
pub fn python(root: &Path) -> Option<PathBuf> {
    let folder = root.join("target/provision/ethos-u/bin");
    let python = folder.join("python");
    let mut command = Command::new(&python);
    command.args([
        "-c",
        "import ethosu.vela, tosa_serializer, tosa_reference_model, ai_edge_litert, numpy",
    ]);
    let has_all = command.output().is_ok_and(|output| output.status.success());
    (has_all && folder.join("vela").is_file()).then_some(python)
}

/// Makes it.
///
/// # Errors
/// A package cannot be had.
pub fn provision(root: &Path) -> Result<()> {
    if python(root).is_some() {
        println!("ethos-u is here already");
        return Ok(());
    }
    let folder = root.join("target/provision/ethos-u");
    run_program(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--no-cache-dir"]).args(PACKAGES);
    run_program(&mut pip)?;
    println!("ethos-u is in {}", folder.display());
    Ok(())
}
