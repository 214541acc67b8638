//! Project tasks: test, check, cross, sanitize, layouts, mutants, shaders, vulkan, hexagon, ethos-u, gen, dist, provision.

mod check;
mod cross;
mod dist;
mod ethos_u;
mod r#gen;
mod hexagon;
mod layouts;
mod mutants;
mod provision;
mod sanitize;
mod shaders;
mod test;
mod vulkan;

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

const USAGE: &str = "usage:
  cargo xtask test             runs every test that can run here, and prints what it skipped
  cargo xtask check            formatting, lints, builds without std
  cargo xtask sanitize         runs the tests of kernels, ABI and threads under AddressSanitizer, and valgrind where it is, and those
                               of host, SDK and threads under ThreadSanitizer, where the sources of std are (rust-src);
                               `sanitize threads` does the latter alone
  cargo xtask layouts          reads delegraph.h with libclang and compares every number; compares layouts across libraries with abi_stable
  cargo xtask mutants          runs the conformance kit on delegates with one defect each, and says whether the case meant for each finds it;
                               `--json` ends with one object, `--full` runs the whole category, `--no-build` takes what was built
                               last, NAMES are these alone
  cargo xtask cross aarch64    runs the tests of the CPU delegate and its kernels as three aarch64 machines would, under qemu-user
  cargo xtask shaders          runs spirv-val on every shader of the Vulkan delegate
  cargo xtask vulkan           runs the conformance kit on the Vulkan delegate, on both provisioned drivers and with validation;
                               `--driver system` on the machine's GPU, or `lavapipe` or `swiftshader` alone, `--list NAME` in place
                               of `core`, `--validation` and `--no-validation`
  cargo xtask ethos-u          runs the conformance kit on the Ethos-U delegate; with --remake compares the interpreter with Arm's and Google's tools anew
  cargo xtask hexagon          runs the conformance kit on the Hexagon delegate, in the emulation of Qualcomm's library for this machine;
                               `--soc sm8650,sm8750` names chips, `--list core,quant` lists, `--case GLOB` cases
  cargo xtask gen abi          writes what delegate-sdk/abi/abi.toml describes
  cargo xtask gen capi         writes what runtime/capi/capi.toml describes
  cargo xtask gen ops          writes the names of operators in C and Rust from the operator table
  cargo xtask gen mutants      writes conformance/mutants/README.md from the table of mutants
  cargo xtask gen coverage     writes vendor-docs/coverage.md from a run of the committed operator corpus
  cargo xtask gen lists        writes the lists of conformance cases that are not frozen, from conformance/lists/rules.toml
  cargo xtask gen golden vX.Y  writes what this release leaves to be replayed for ever; never over one that is there
  cargo xtask dist             makes target/dist/delegraph-conformance-VERSION-TRIPLE.tar.gz, the conformance kit for a device;
                               `--target TRIPLE` for another machine, `--profile NAME` of cargo's in place of `release`,
                               `--binaries FOLDER` of programs that are built already
  cargo xtask provision NAME   fetches an optional real component: clang, executorch, ncnn, qnn, vulkan; chromium has to be here;
                               qnn is Qualcomm's, says its licence, and is fetched with `--accept-license` alone";

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["test"] => test::run(&root()),
        ["check"] => check::run(&root()),
        ["sanitize"] => sanitize::run(&root()),
        ["sanitize", "threads"] => sanitize::threads(&root()),
        ["dist", rest @ ..] => dist::run(&root(), rest),
        ["cross", rest @ ..] => cross::run(&root(), rest),
        ["layouts"] => layouts::run(&root()),
        ["mutants", rest @ ..] => mutants::run(
            &root(),
            &mutants::Options {
                json: rest.contains(&"--json"),
                full: rest.contains(&"--full"),
                no_build: rest.contains(&"--no-build"),
                names: rest
                    .iter()
                    .filter(|word| !word.starts_with("--"))
                    .map(ToString::to_string)
                    .collect(),
            },
        ),
        ["shaders"] => shaders::run(&root()),
        ["vulkan", rest @ ..] => vulkan::run(&root(), rest),
        ["ethos-u", rest @ ..] => ethos_u::run(&root(), rest),
        ["hexagon", rest @ ..] => hexagon::run(&root(), rest),
        ["gen", "abi"] => r#gen::run(&root()),
        ["gen", "capi"] => r#gen::capi(&root()),
        ["gen", "mutants"] => {
            let path = root().join("conformance/mutants/README.md");
            std::fs::write(&path, mutants::readme())?;
            Ok(())
        }
        ["gen", "ops"] => r#gen::ops(&root()),
        ["gen", "coverage"] => r#gen::coverage(&root()),
        ["gen", "lists"] => r#gen::lists(&root()),
        ["gen", "golden", version] => r#gen::golden(&root(), version),
        ["provision", name] => provision::run(&root(), name, false),
        ["provision", "qnn", "--accept-license"] => provision::run(&root(), "qnn", true),
        ["--help" | "-h"] | [] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("there is no task `{}`\n{USAGE}", words.join(" ")),
    }
}

/// The workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .unwrap_or_default()
}
