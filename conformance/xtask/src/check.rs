//! `cargo xtask check`: formatting, lints, the bare build of what runs on small devices, and generated files.

use super::test::cargo;
use anyhow::Result;
use std::path::Path;

/// Crates that must build without `std`.
const BARE: [&str; 5] = [
    "delegraph-types",
    "delegraph-opset",
    "delegraph-pte",
    "delegraph-kernels",
    "delegraph-executor",
];

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
    Ok(())
}
