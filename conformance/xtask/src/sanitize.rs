//! `cargo xtask sanitize`: AddressSanitizer over the crates whose memory is not only the compiler's concern.
//!
//! The sanitizer is an unstable option, which the pinned stable compiler takes when it is told to bootstrap. Only the one target
//! is asked for, so that build scripts and procedural macros stay as they are.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Where kernels read borrowed bytes, and where C's layouts are mirrored.
const PACKAGES: [&str; 2] = ["delegraph-kernels", "delegraph-abi"];

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs the tests.
///
/// # Errors
/// A test fails, or the sanitizer finds something.
pub fn run(root: &Path) -> Result<()> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")) {
        println!("skipped: AddressSanitizer, which is set up here for {TARGET} alone");
        return Ok(());
    }
    let mut arguments = vec!["test", "--target", TARGET, "--lib", "--tests"];
    for package in PACKAGES {
        arguments.extend(["--package", package]);
    }
    println!(
        "$ RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo {}",
        arguments.join(" ")
    );
    let status = Command::new(env!("CARGO"))
        .args(&arguments)
        .current_dir(root)
        // A folder of its own: other flags would rebuild everything in turn.
        .env("CARGO_TARGET_DIR", root.join("target/sanitize"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=address")
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("tests failed under AddressSanitizer");
    }
    Ok(())
}
