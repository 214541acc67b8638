//! `cross aarch64`: the tests of the CPU delegate's kernels as an aarch64 machine would run them, under qemu-user: once with dot products of bytes, and
//! once as an older core without them. It needs Debian's `gcc-aarch64-linux-gnu` (or another cross linker) and `qemu-user`, and the target's core library
//! (`rustup target add aarch64-unknown-linux-gnu`); it installs nothing.

use super::test::cargo_with;
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

const TRIPLE: &str = "aarch64-unknown-linux-gnu";
/// Processors that qemu plays: one with everything, one of the first generation.
const PROCESSORS: [&str; 2] = ["max", "cortex-a53"];

/// Runs them.
///
/// # Errors
/// Wrong use, something that is not here, or a test that fails.
pub fn run(root: &Path, arguments: &[&str]) -> Result<()> {
    let ([] | ["aarch64"]) = arguments else {
        bail!("`cross {}`: there is `cross aarch64`", arguments.join(" "));
    };
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_string());
    let linker = variable("DELEGRAPH_AARCH64_LINKER", "aarch64-linux-gnu-gcc");
    let qemu = variable("DELEGRAPH_AARCH64_QEMU", "qemu-aarch64");
    let libraries = variable("DELEGRAPH_AARCH64_ROOT", "/usr/aarch64-linux-gnu");
    for (tool, package) in [(&linker, "gcc-aarch64-linux-gnu"), (&qemu, "qemu-user")] {
        let here = Command::new(tool)
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success());
        if !here {
            bail!("`{tool}` is not here\n  hint: Debian's package `{package}` has it");
        }
    }
    for processor in PROCESSORS {
        println!("the CPU delegate's kernels on aarch64, {processor}, emulated");
        let runner = format!("{qemu} -cpu {processor} -L {libraries}");
        let environment = [
            (
                "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER".to_string(),
                linker.clone(),
            ),
            ("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER".to_string(), runner),
        ];
        let words = [
            "test",
            "--package",
            "delegraph-cpu-kernels",
            "--target",
            TRIPLE,
            "--lib",
            "--quiet",
        ];
        cargo_with(root, &words, &environment)?;
    }
    Ok(())
}
