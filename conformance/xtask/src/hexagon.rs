//! `hexagon`: the conformance kit on the Hexagon delegate, one run a chip and list, in the emulation that Qualcomm's library has for x86-64.
//! `DELEGRAPH` names a binary of the command line that has the delegate beside it; else both are built.

use super::test::cargo;
use anyhow::{Context, Result, bail};
use std::env::consts::EXE_SUFFIX;
use std::path::{Path, PathBuf};
use std::process::Command;

const MANIFEST: &str = "delegates/hexagon/hexagon.delegate.toml";
/// The variable that names the folder of Qualcomm's libraries.
const VARIABLE: &str = "DELEGRAPH_QNN_DIR";
/// Chips unless said otherwise.
const SOCS: &str = "sm8650";
/// Lists unless said otherwise.
const LISTS: &str = "core,quant";

/// What the command line says.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    socs: Vec<String>,
    lists: Vec<String>,
    cases: Vec<String>,
}

/// Qualcomm's libraries: where the variable says, or as `cargo xtask provision qnn` unpacked them.
pub fn libraries(root: &Path) -> Option<PathBuf> {
    let given = std::env::var_os(VARIABLE)
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from);
    given.or_else(|| Some(root.join("target/provision/qnn/onnxruntime_qnn")).filter(|folder| folder.is_dir()))
}

/// The variable for programs that load the delegate.
pub fn environment(root: &Path) -> Option<(String, String)> {
    Some((VARIABLE.to_string(), libraries(root)?.to_str()?.to_string()))
}

/// Builds the delegate and runs the kit.
///
/// # Errors
/// Wrong use, no libraries, or a case that fails.
pub fn run(root: &Path, arguments: &[&str]) -> Result<()> {
    let options = parse(arguments)?;
    let Some((name, folder)) = environment(root) else {
        bail!(
            "Qualcomm's libraries are not here\n  hint: `cargo xtask provision qnn` says under which terms they can be had; {VARIABLE} names a folder that has them"
        );
    };
    let delegraph = match std::env::var_os("DELEGRAPH") {
        Some(given) => PathBuf::from(given),
        None => build(root)?,
    };
    let mut failed = Vec::new();
    for soc in &options.socs {
        for list in &options.lists {
            println!("\n{MANIFEST} as {soc}, list {list}");
            let mut command = Command::new(&delegraph);
            command.current_dir(root).args(["conform", "run", MANIFEST, "--fresh"]);
            command.args(["--list", list, "--output"]);
            command.arg(format!("target/conformance/hexagon-{soc}-{list}"));
            command.args(["--option", &format!("soc={soc}")]).env(&name, &folder);
            options.cases.iter().for_each(|case| {
                command.args(["--case", case]);
            });
            if !command.status().context("cannot start delegraph")?.success() {
                failed.push(format!("{soc} ({list})"));
            }
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("the kit does not pass as {}", failed.join(" and ")),
    }
}

/// The command line, with the delegate's library beside it.
fn build(root: &Path) -> Result<PathBuf> {
    let mut words = vec!["build", "--release"];
    for package in ["delegraph-cli", "delegraph-worker", "delegraph-hexagon-plugin"] {
        words.extend(["--package", package]);
    }
    cargo(root, &words)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join(format!("release/delegraph{EXE_SUFFIX}")))
}

fn parse(arguments: &[&str]) -> Result<Options> {
    let split = |text: &str| text.split(',').map(str::to_string).collect::<Vec<String>>();
    let mut options = Options {
        socs: split(SOCS),
        lists: split(LISTS),
        cases: Vec::new(),
    };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let value = words
            .next()
            .copied()
            .with_context(|| format!("`{word}` needs a value"))?;
        match *word {
            "--soc" => options.socs = split(value),
            "--list" => options.lists = split(value),
            "--case" => options.cases.push(value.to_string()),
            _ => bail!("`cargo xtask hexagon` does not know `{word}`"),
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_chip_and_two_lists_unless_said_otherwise() {
        let options = parse(&[]).unwrap();
        assert_eq!(
            (options.socs, options.lists),
            (
                vec!["sm8650".to_string()],
                vec!["core".to_string(), "quant".to_string()]
            )
        );
        let options = parse(&["--soc", "sm8650,sm8750", "--list", "core", "--case", "op/*"]).unwrap();
        assert_eq!((options.socs.len(), options.lists.len()), (2, 1));
        assert_eq!(options.cases, ["op/*"]);
        for wrong in [&["--soc"][..], &["--chip", "x"], &["core"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
