//! `cargo xtask sanitize`: AddressSanitizer, and valgrind where it is installed, over the crates whose memory is not only the
//! compiler's concern.
//!
//! The sanitizer is an unstable option, which the pinned stable compiler takes when it is told to bootstrap. Only the one target
//! is asked for, so that build scripts and procedural macros stay as they are.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};

/// Where kernels read borrowed bytes, where C's layouts are mirrored, and where work is shared among threads.
const PACKAGES: [&str; 3] = ["delegraph-kernels", "delegraph-abi", "delegraph-threads"];

const TARGET: &str = "x86_64-unknown-linux-gnu";
const RUNNER: &str = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";
/// Tests that take a second or more as they are, and many minutes under valgrind; AddressSanitizer runs them.
const SLOW: [&str; 3] = [
    "kernels_never_panic",
    "functions_are_right_to_the_last_places_on_all_exponents",
    "kernels_take_the_dtypes_of_the_table_and_no_others",
];
const VALGRIND: &str = "valgrind --quiet --error-exitcode=9 --fair-sched=yes";

/// Runs the tests.
///
/// # Errors
/// A test fails, or something is found.
pub fn run(root: &Path) -> Result<()> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")) {
        println!("skipped: AddressSanitizer and valgrind, which are set up here for {TARGET} alone");
        return Ok(());
    }
    // A folder of its own: other flags would rebuild everything in turn.
    let folder = root.join("target/sanitize").into_os_string();
    tests(
        root,
        "AddressSanitizer",
        &[
            ("CARGO_TARGET_DIR", folder.as_os_str()),
            ("RUSTC_BOOTSTRAP", "1".as_ref()),
            ("RUSTFLAGS", "-Zsanitizer=address".as_ref()),
            // Hostile sizes ask for more than there is, and are refused by whoever asked. Tests leak pools on purpose.
            ("ASAN_OPTIONS", "allocator_may_return_null=1:detect_leaks=0".as_ref()),
        ],
        &["--target", TARGET],
        &[],
    )?;
    let installed = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !installed {
        println!("skipped: valgrind, which is not installed");
        return Ok(());
    }
    tests(root, "valgrind", &[(RUNNER, VALGRIND.as_ref())], &[], &SLOW)
}

fn tests(
    root: &Path,
    name: &str,
    variables: &[(&str, &std::ffi::OsStr)],
    options: &[&str],
    skipped: &[&str],
) -> Result<()> {
    let mut arguments = vec!["test", "--lib", "--tests"];
    arguments.extend(options);
    for package in PACKAGES {
        arguments.extend(["--package", package]);
    }
    arguments.push("--");
    arguments.extend(skipped.iter().flat_map(|test| ["--skip", test]));
    println!("{name}: cargo {}", arguments.join(" "));
    let mut command = Command::new(env!("CARGO"));
    command.args(&arguments).current_dir(root);
    for (key, value) in variables {
        command.env(key, value);
    }
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("tests failed under {name}");
    }
    Ok(())
}
