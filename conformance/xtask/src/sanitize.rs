//! `cargo xtask sanitize`: AddressSanitizer, ThreadSanitizer where std can be built for it, and valgrind where it is installed, over
//! the crates whose memory and whose threads are not only the compiler's concern.
//!
//! A sanitizer is an unstable option, which the pinned stable compiler takes when it is told to bootstrap. Only the one target
//! is asked for, so that build scripts and procedural macros stay as they are.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
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

/// Where many threads meet: the host, work that is shared out, the SDK's side of submitted runs.
const THREADED: [&str; 3] = ["delegraph-host", "delegraph-threads", "delegraph-sdk"];
/// A race on purpose, in the host's `threads`.
const RACE: &str = "without_that_wish_the_same_delegate_is_a_race";
/// What the sanitizer says of one.
const NOTICED: &str = "WARNING: ThreadSanitizer: data race";

/// Runs the tests.
///
/// # Errors
/// A test fails, or something is found.
pub fn run(root: &Path) -> Result<()> {
    if !set_up("AddressSanitizer and valgrind") {
        return threads(root);
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
        &PACKAGES,
        &[],
    )?;
    threads(root)?;
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
    tests(root, "valgrind", &[(RUNNER, VALGRIND.as_ref())], &[], &PACKAGES, &SLOW)
}

/// True for the one target that these tools are set up for; else says that they are skipped.
fn set_up(tools: &str) -> bool {
    let here = cfg!(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"));
    if !here {
        println!("skipped: {tools}, set up here for {TARGET} alone");
    }
    here
}

/// ThreadSanitizer. It has to see every atomic operation, those of std's locks and counts too, or it reports races where there are
/// none: std is built again with it, from its sources. No report is suppressed.
///
/// # Errors
/// A test fails, a race is found, or one made on purpose is not.
pub fn threads(root: &Path) -> Result<()> {
    if !set_up("ThreadSanitizer") {
        return Ok(());
    }
    let output = Command::new("rustc")
        .args(["--print", "sysroot"])
        .current_dir(root)
        .output()
        .context("cannot start rustc")?;
    let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_string();
    if !Path::new(&sysroot).join("lib/rustlib/src/rust/library/std").is_dir() {
        println!("skipped: ThreadSanitizer, which needs the sources of std: `rustup component add rust-src`");
        return Ok(());
    }
    // What runs in a process of its own is as it always is: only the host's side is looked at.
    let plain = root.join("target");
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--package",
            "delegraph-worker",
            "--package",
            "delegraph-reference-plugin",
        ])
        .env("CARGO_TARGET_DIR", &plain)
        .current_dir(root)
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the worker and a delegate for it do not build");
    }
    let (folder, binaries) = (root.join("target/thread"), plain.join("debug"));
    let variables: [(&str, &OsStr); 5] = [
        ("CARGO_TARGET_DIR", folder.as_os_str()),
        ("RUSTC_BOOTSTRAP", "1".as_ref()),
        ("RUSTFLAGS", "-Zsanitizer=thread".as_ref()),
        ("TSAN_OPTIONS", "halt_on_error=1".as_ref()),
        ("DELEGRAPH_TEST_BINARIES", binaries.as_os_str()),
    ];
    // Memory is mapped by way of libc, where the sanitizer sees that an address begins a new life.
    let options = ["-Zbuild-std", "--target", TARGET, "--features", "rustix/use-libc"];
    println!("ThreadSanitizer: a race on purpose, which it has to notice");
    let mut command = Command::new(env!("CARGO"));
    command
        .arg("test")
        .args(options)
        .args(["--package", "delegraph-host", "--test", "threads", "--"]);
    command
        .args(["--ignored", "--exact", RACE])
        .envs(variables)
        .current_dir(root);
    let output = command.output().context("cannot start cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() || !said.contains(NOTICED) {
        bail!("ThreadSanitizer does not notice a race, or the test does not run:\n{said}");
    }
    tests(root, "ThreadSanitizer", &variables, &options, &THREADED, &[])
}

fn tests(
    root: &Path,
    name: &str,
    variables: &[(&str, &OsStr)],
    options: &[&str],
    packages: &[&str],
    skipped: &[&str],
) -> Result<()> {
    let mut arguments = vec!["test", "--lib", "--tests"];
    arguments.extend(options);
    for package in packages {
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
