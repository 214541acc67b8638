//! `cargo xtask provision NAME`: fetches an optional real component into `target/provision`, never a system package.

mod executorch;
mod qnn;
mod vulkan;

pub use executorch::python;
pub use vulkan::{driver as vulkan_driver, environment as vulkan_environment};

use anyhow::{Context, Result, bail};
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX, EXE_SUFFIX};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Packages of the `clang` component: the library that `bindgen` reads headers with, and a C and C++ compiler that is clang, has the headers
/// of its own, and compiles for every target.
const CLANG: [&str; 2] = ["libclang==18.1.1", "ziglang==0.17.1"];

/// Packages of the `ncnn` component: the peer of the Vulkan benchmark, and `pnnx`, which converts a traced model for it.
const NCNN: [&str; 2] = ["ncnn==1.0.20261020", "pnnx==20261020"];
/// What is used of their dependencies. The others are torch, for `pnnx` is a program that can do without, and what downloads models.
const NCNN_NEEDS: [&str; 2] = ["numpy", "safetensors"];

/// Fetches a component. `accepted`: the user accepts the licence of one that is not free software.
///
/// # Errors
/// There is no such component, its licence is not accepted, or it cannot be installed.
pub fn run(root: &Path, name: &str, accepted: bool) -> Result<()> {
    match name {
        "executorch" => executorch::provision(root),
        "clang" => clang(root),
        "ncnn" => ncnn(root),
        "qnn" => qnn::provision(root, accepted),
        "vulkan" => vulkan::provision(root),
        "chromium" => match chromium() {
            Some(path) => {
                println!("chromium is here already: {}", path.display());
                Ok(())
            }
            None => bail!("a browser is a package of the system: install `chromium`, or set DELEGRAPH_CHROMIUM to one"),
        },
        _ => bail!("there is no component `{name}`; known: chromium, clang, executorch, ncnn, qnn, vulkan"),
    }
}

/// A Python that has ncnn, with the program `pnnx` among its packages.
pub fn ncnn_python(root: &Path) -> Option<PathBuf> {
    let python = root.join("target/provision/ncnn/bin/python");
    let mut command = Command::new(&python);
    command.args([
        "-c",
        "import ncnn, numpy, safetensors, importlib.util as u; raise SystemExit(u.find_spec('pnnx') is None)",
    ]);
    command
        .output()
        .is_ok_and(|output| output.status.success())
        .then_some(python)
}

fn ncnn(root: &Path) -> Result<()> {
    if ncnn_python(root).is_some() {
        println!("ncnn is here already");
        return Ok(());
    }
    let folder = root.join("target/provision/ncnn");
    run_program(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let pip = |arguments: &[&str]| {
        let mut command = Command::new(folder.join("bin/pip"));
        command.args(["install", "--quiet", "--no-cache-dir"]).args(arguments);
        run_program(&mut command)
    };
    pip(&NCNN_NEEDS)?;
    pip(&["--no-deps", NCNN[0], NCNN[1]])?;
    println!("ncnn is in {}", folder.display());
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
            .args(["install", "--quiet", "--no-cache-dir", "--upgrade", "--target"])
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
