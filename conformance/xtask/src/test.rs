//! `cargo xtask test`: every test that can run with what is there; what cannot is printed as skipped, never as passed.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// Runs the tests.
///
/// # Errors
/// A test fails.
pub fn run(root: &Path) -> Result<()> {
    // The delegates are loaded as real shared libraries by the tests of what is above them, so they are built first; with `--tests`, since
    // tests ask more of shared crates, and would build nearly all of them a second time.
    cargo(root, &["build", "--workspace", "--bins", "--lib", "--tests"])?;
    let mut vulkan = super::provision::vulkan_environment(root);
    if let Some(environment) = &mut vulkan {
        // The layers come with the drivers. What they say fails a test.
        environment.push(("DELEGRAPH_VULKAN_VALIDATION".to_string(), "1".to_string()));
    }
    let qnn = super::hexagon::environment(root);
    let mut found: Vec<(String, String)> = vulkan.iter().flatten().cloned().collect();
    found.extend(qnn.clone());
    cargo_with(root, &["test", "--workspace", "--no-fail-fast"], &found)?;
    println!("\nskipped here:");
    let mut skipped = 0;
    let mut skip = |absent: bool, what: &str| {
        if absent {
            println!("  skipped: {what}");
            skipped += 1;
        }
    };
    skip(!program("cc"), "the C API's programs: `cc` is not here");
    for compiler in ["gcc", "g++"] {
        skip(
            !program(compiler),
            &format!("the headers under {compiler}: it is not here"),
        );
    }
    let zig = super::provision::zig(root).is_some();
    skip(
        !zig && !program("clang"),
        "the headers under clang: run `cargo xtask provision clang`",
    );
    skip(
        !zig,
        "the headers for 32 bits, Windows and macOS: run `cargo xtask provision clang`",
    );
    skip(
        super::provision::libclang(root).is_none() && std::env::var_os("LIBCLANG_PATH").is_none(),
        "delegraph.h as libclang reads it (`cargo xtask layouts`): run `cargo xtask provision clang`",
    );
    skip(
        super::provision::python(root).is_none(),
        "stock ExecuTorch as the referee: run `cargo xtask provision executorch`",
    );
    skip(
        super::provision::chromium().is_none(),
        "the report's pages in a browser (`conformance/report/check_page.py`): Chromium is not here; install it, or set DELEGRAPH_CHROMIUM",
    );
    skip(
        vulkan.is_none() && std::env::var_os("VK_DRIVER_FILES").is_none(),
        "Vulkan on software drivers, with validation: run `cargo xtask provision vulkan`, or set VK_DRIVER_FILES to drivers",
    );
    skip(
        qnn.is_none(),
        "Hexagon in the emulation of Qualcomm's library: `cargo xtask provision qnn` says under which terms it can be had, or set DELEGRAPH_QNN_DIR to its folder",
    );
    if skipped == 0 {
        println!("  nothing");
    }
    Ok(())
}

/// Runs cargo in the workspace.
pub fn cargo(root: &Path, arguments: &[&str]) -> Result<()> {
    cargo_with(root, arguments, &[])
}

/// Runs cargo in the workspace with more in its environment.
pub fn cargo_with(root: &Path, arguments: &[&str], environment: &[(String, String)]) -> Result<()> {
    println!("$ cargo {}", arguments.join(" "));
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(root)
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("`cargo {}` failed", arguments.join(" "));
    }
    Ok(())
}

/// True if the program is on the path.
pub fn program(name: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|paths| std::env::split_paths(&paths).any(|folder| folder.join(name).is_file()))
}
