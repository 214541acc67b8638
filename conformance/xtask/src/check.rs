//! `cargo xtask check`: formatting, lints, the bare build of what runs on small devices, and generated files.

use super::test::cargo;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates that must build without `std`.
const BARE: [&str; 5] = [
    "delegraph-types",
    "delegraph-opset",
    "delegraph-pte",
    "delegraph-kernels",
    "delegraph-executor",
];

/// Crates for microcontrollers, and one that they are checked for: a Cortex-M.
const MICROCONTROLLER: [&str; 1] = ["delegraph-ethos-u-bare"];
const CORTEX_M: &str = "thumbv8m.main-none-eabihf";

/// Runs the checks.
///
/// # Errors
/// One of them fails.
pub fn run(root: &Path) -> Result<()> {
    cargo(root, &["fmt", "--all", "--check"])?;
    cargo(
        root,
        &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
    )?;
    for name in BARE {
        cargo(root, &["check", "--package", name, "--no-default-features"])?;
    }
    let here = has_target(root, CORTEX_M)?;
    for name in MICROCONTROLLER {
        match here {
            true => cargo(root, &["check", "--package", name, "--target", CORTEX_M])?,
            false => println!(
                "`{name}` was NOT checked for {CORTEX_M}: skipped, its core library is not here\n  hint: rustup target add {CORTEX_M}"
            ),
        }
    }
    Ok(())
}

/// True if the compiler has the libraries of a target.
fn has_target(root: &Path, target: &str) -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .current_dir(root)
        .args(["--print", "sysroot"])
        .output();
    let output = output.context("cannot start rustc")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    Ok(sysroot.join("lib/rustlib").join(target).join("lib").is_dir())
}
