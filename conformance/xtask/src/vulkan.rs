//! `vulkan`: the conformance kit on the Vulkan delegate, one run a driver. CI runs it on both provisioned drivers, with validation; whoever has a GPU
//! runs it there with one command. `DELEGRAPH` names a binary of the command line that has the delegate beside it; else both are built.

use super::provision::{vulkan_driver, vulkan_environment};
use super::test::cargo;
use anyhow::{Context, Result, bail};
use std::env::consts::EXE_SUFFIX;
use std::path::{Path, PathBuf};
use std::process::Command;

const MANIFEST: &str = "delegates/vulkan/vulkan.delegate.toml";
/// The drivers of the component `vulkan`.
const PROVISIONED: [&str; 2] = ["lavapipe", "swiftshader"];
/// Whatever the machine has.
const SYSTEM: &str = "system";

const LEAKS: &[&str] = &["leak/*"];
/// The other categories.
const BUT_LEAKS: &[&str] = &[
    "abi/*",
    "async/*",
    "bad-input/*",
    "blob/*",
    "dynamic/*",
    "fault/*",
    "lifecycle/*",
    "memory/*",
    "model/*",
    "op/*",
    "partition/*",
    "quantized/*",
    "state/*",
    "threading/*",
];

/// What the command line says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    drivers: Vec<String>,
    list: String,
    validation: Option<bool>,
}

/// Builds the delegate and runs the kit.
///
/// # Errors
/// Wrong use, a driver that is not here, or a case that fails.
pub fn run(root: &Path, arguments: &[&str]) -> Result<()> {
    let options = parse(arguments)?;
    let provisioned = vulkan_environment(root);
    if provisioned.is_none() && options.drivers.iter().any(|driver| driver != SYSTEM) {
        bail!(
            "the software drivers are not here\n  hint: run `cargo xtask provision vulkan`, or take the machine's GPU by `--driver {SYSTEM}`"
        );
    }
    let delegraph = match std::env::var_os("DELEGRAPH") {
        Some(given) => PathBuf::from(given),
        None => build(root)?,
    };
    let mut failed = Vec::new();
    for driver in &options.drivers {
        let validated = options.validation.unwrap_or(driver != SYSTEM);
        let folder = format!("target/conformance/vulkan-{driver}");
        // The layers keep something of every object that was made: what leaks is asked without them.
        let runs = match (validated, options.list.as_str()) {
            (true, "core") => vec![
                (folder.clone(), true, BUT_LEAKS),
                (format!("{folder}-leak"), false, LEAKS),
            ],
            _ => vec![(folder, validated, &[][..])],
        };
        for (folder, validated, cases) in runs {
            let how = if validated { ", with validation" } else { "" };
            println!("\n{MANIFEST} on {driver}{how}");
            let mut command = Command::new(&delegraph);
            command.current_dir(root).args(["conform", "run", MANIFEST, "--fresh"]);
            command.args(["--list", &options.list, "--output", &folder]);
            cases.iter().for_each(|case| {
                command.args(["--case", case]);
            });
            if validated {
                command.args(["--option", "validation=true"]);
            }
            if driver != SYSTEM {
                command.envs(provisioned.clone().unwrap_or_default());
                let only = vulkan_driver(root, driver);
                command.env("VK_DRIVER_FILES", &only).env("VK_ICD_FILENAMES", &only);
            }
            command.env("DELEGRAPH_VULKAN_VALIDATION", if validated { "1" } else { "0" });
            let status = command.status().context("cannot start delegraph")?;
            if !status.success() {
                failed.push(format!("{driver}{how}"));
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("the kit does not pass on {}", failed.join(" and "))
}

/// The command line, with the delegate's library beside it.
fn build(root: &Path) -> Result<PathBuf> {
    let mut words = vec!["build", "--release"];
    for package in ["delegraph-cli", "delegraph-worker", "delegraph-vulkan-plugin"] {
        words.extend(["--package", package]);
    }
    cargo(root, &words)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join(format!("release/delegraph{EXE_SUFFIX}")))
}

fn parse(arguments: &[&str]) -> Result<Options> {
    let mut options = Options {
        list: "core".to_string(),
        ..Options::default()
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match *word {
            "--driver" => {
                let name = words.next().copied().unwrap_or_default();
                if name != SYSTEM && !PROVISIONED.contains(&name) {
                    bail!("`--driver {name}`: there are {}, {SYSTEM}", PROVISIONED.join(", "));
                }
                options.drivers.push(name.to_string());
            }
            "--list" => options.list = words.next().context("`--list` needs a name")?.to_string(),
            "--validation" => options.validation = Some(true),
            "--no-validation" => options.validation = Some(false),
            _ => bail!("`cargo xtask vulkan` does not know `{word}`"),
        }
    }
    if options.drivers.is_empty() {
        options.drivers = PROVISIONED.map(str::to_string).to_vec();
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_software_drivers_unless_said_otherwise() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.drivers, PROVISIONED);
        assert_eq!((options.list.as_str(), options.validation), ("core", None));
        let options = parse(&["--driver", "system", "--list", "quant", "--validation"]).unwrap();
        assert_eq!(options.drivers, [SYSTEM]);
        assert_eq!((options.list.as_str(), options.validation), ("quant", Some(true)));
        for wrong in [&["--driver"][..], &["--driver", "mesa"], &["--list"], &["core"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
