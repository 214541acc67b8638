//! `cross aarch64`: the tests of the CPU delegate and its kernels as aarch64 machines would run them, under qemu-user: one with matrix products of
//! bytes (`smmla`), one with dot products (`sdot`) alone, and one of the first generation with neither. It needs Debian's `gcc-aarch64-linux-gnu` (or
//! another cross linker), `libc6-dev-arm64-cross` and `qemu-user`, and the target's core library (`rustup target add aarch64-unknown-linux-gnu`);
//! it installs nothing. Where one of them is absent it says so, and that nothing ran.

use super::test::program;
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const TRIPLE: &str = "aarch64-unknown-linux-gnu";

/// A processor that qemu plays.
struct Processor {
    name: &'static str,
    /// The ways to multiply bytes that the kernels should find on it, from the plainest to the best: their test `ways` compares.
    ways: &'static [&'static str],
}

const PROCESSORS: [Processor; 3] = [
    Processor {
        name: "max",
        ways: &["scalar", "neon", "neon dotprod", "neon i8mm"],
    },
    Processor {
        name: "neoverse-n1",
        ways: &["scalar", "neon", "neon dotprod"],
    },
    Processor {
        name: "cortex-a53",
        ways: &["scalar", "neon"],
    },
];

/// Where the tools are.
struct Tools {
    linker: String,
    qemu: String,
    /// The target's libraries.
    libraries: String,
}

/// Runs them.
///
/// # Errors
/// Wrong use, a processor that is not what it should be, or a test that fails. A tool that is absent is none: it is printed as skipped.
pub fn run(root: &Path, arguments: &[&str]) -> Result<()> {
    let ([] | ["aarch64"]) = arguments else {
        bail!("`cross {}`: there is `cross aarch64`", arguments.join(" "));
    };
    let variable = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_string());
    let tools = Tools {
        linker: variable("DELEGRAPH_AARCH64_LINKER", "aarch64-linux-gnu-gcc"),
        qemu: variable("DELEGRAPH_AARCH64_QEMU", "qemu-aarch64"),
        libraries: variable("DELEGRAPH_AARCH64_ROOT", "/usr/aarch64-linux-gnu"),
    };
    if let Some(absent) = tools.absent(root) {
        println!("skipped: the CPU delegate on aarch64: {absent}");
        return Ok(());
    }
    let mut lines = Vec::new();
    for processor in &PROCESSORS {
        let ways = processor.ways.join(", ");
        println!("\naarch64, {}, emulated: {ways}", processor.name);
        let passed = tools.test(root, processor)?;
        lines.push(format!(
            "  {:<12} {passed} tests pass; ways to multiply bytes: {ways}",
            processor.name
        ));
    }
    println!("\naarch64 as {} plays it:\n{}", tools.qemu, lines.join("\n"));
    Ok(())
}

impl Tools {
    /// What is not here, and how to get it.
    fn absent(&self, root: &Path) -> Option<String> {
        let packages = [
            (&self.linker, "gcc-aarch64-linux-gnu"),
            (&self.qemu, "qemu-user"),
            (&self.libraries, "libc6-dev-arm64-cross"),
        ];
        for (path, package) in packages {
            if !Path::new(path).exists() && !program(path) {
                return Some(format!("`{path}` is not here; Debian's package `{package}` has it"));
            }
        }
        let library = Command::new("rustc")
            .args(["--print", "target-libdir", "--target", TRIPLE])
            .current_dir(root)
            .output();
        let there = library
            .ok()
            .and_then(|output| String::from_utf8(output.stdout).ok())
            .is_some_and(|path| Path::new(path.trim()).is_dir());
        (!there).then(|| format!("the target's core library is not here; `rustup target add {TRIPLE}` fetches it"))
    }

    /// Runs the tests on a processor, and says how many passed.
    fn test(&self, root: &Path, processor: &Processor) -> Result<usize> {
        // One call for both packages, so that what they share is built once.
        let arguments =
            "test --package delegraph-cpu-kernels --package delegraph-cpu --lib --test ways --quiet --target";
        println!("$ cargo {arguments} {TRIPLE}");
        let mut child = Command::new(env!("CARGO"))
            .args(arguments.split(' '))
            .arg(TRIPLE)
            .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", &self.linker)
            .env(
                "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER",
                format!("{} -cpu {} -L {}", self.qemu, processor.name, self.libraries),
            )
            .env("DELEGRAPH_EXPECTED_WAYS", processor.ways.join(","))
            .current_dir(root)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start cargo")?;
        let mut passed = 0;
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).lines() {
                let line = line?;
                println!("{line}");
                passed += count(&line);
            }
        }
        if !child.wait()?.success() {
            bail!("tests fail on {}", processor.name);
        }
        if passed == 0 {
            bail!("no test ran on {}", processor.name);
        }
        Ok(passed)
    }
}

/// Tests that passed, by a line of libtest: `test result: ok. 52 passed; 0 failed; ...`.
fn count(line: &str) -> usize {
    line.strip_prefix("test result: ")
        .and_then(|rest| rest.split_once(" passed"))
        .and_then(|(before, _)| before.split(' ').next_back())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn passed_tests_are_counted() {
        let line = "test result: ok. 52 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(super::count(line), 52);
        assert_eq!(super::count("52 passed"), 0);
    }
}
