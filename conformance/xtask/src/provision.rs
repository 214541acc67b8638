//! `cargo xtask provision NAME`: fetches an optional real component into `target/provision`, never a system package.

use anyhow::{Context, Result, bail};
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX, EXE_SUFFIX};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages of the `executorch` component: the referees of what we read and write.
const EXECUTORCH: [&str; 3] = ["torch==2.15.0", "executorch==1.5.1", "safetensors"];

/// Packages of the `clang` component: the library that `bindgen` reads headers with, and a C and C++ compiler that is clang, has the headers
/// of its own, and compiles for every target.
const CLANG: [&str; 2] = ["libclang==18.1.1", "ziglang==0.17.1"];

/// Fetches a component.
///
/// # Errors
/// There is no such component, or it cannot be installed.
pub fn run(root: &Path, name: &str) -> Result<()> {
    match name {
        "executorch" => executorch(root),
        "clang" => clang(root),
        "chromium" => match chromium() {
            Some(path) => {
                println!("chromium is here already: {}", path.display());
                Ok(())
            }
            None => bail!("a browser is a package of the system: install `chromium`, or set DELEGRAPH_CHROMIUM to one"),
        },
        _ => bail!("there is no component `{name}`; known: chromium, clang, executorch"),
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

/// A Chromium: `DELEGRAPH_CHROMIUM`, or one that the system has. It is never fetched: browsers come from the system's packages.
pub fn chromium() -> Option<PathBuf> {
    let given = std::env::var_os("DELEGRAPH_CHROMIUM").map(PathBuf::from);
    let names = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
        "chrome",
    ];
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = || std::env::split_paths(&paths).flat_map(|folder| names.map(|name| folder.join(name)));
    given.or_else(|| found().find(|path| path.is_file()))
}

/// The folder of the provisioned libclang.
pub fn libclang(root: &Path) -> Option<PathBuf> {
    let folder = clang_packages(root).join("clang/native");
    let library = folder.join(format!("{DLL_PREFIX}clang{DLL_SUFFIX}"));
    library.is_file().then_some(folder)
}

/// The provisioned `zig`: `zig cc` and `zig c++` are clang.
pub fn zig(root: &Path) -> Option<PathBuf> {
    Some(clang_packages(root).join("ziglang").join(format!("zig{EXE_SUFFIX}"))).filter(|zig| zig.is_file())
}

fn clang_packages(root: &Path) -> PathBuf {
    root.join("target/provision/clang/packages")
}

fn clang(root: &Path) -> Result<()> {
    if libclang(root).is_some() && zig(root).is_some() {
        println!("clang is here already");
        return Ok(());
    }
    let folder = root.join("target/provision/clang");
    run_program(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    run_program(
        Command::new(folder.join("bin/pip"))
            .args(["install", "--quiet", "--upgrade", "--target"])
            .arg(clang_packages(root))
            .args(CLANG),
    )?;
    println!("clang is in {}", folder.display());
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
