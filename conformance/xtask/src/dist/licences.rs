//! The crates that the programs of a kit are made of, with the texts of their licences.

use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates by name and version with their licence, then each text of a licence once, with the crates that have it.
///
/// # Errors
/// Cargo does not answer.
pub fn third_party(root: &Path, target: &str, packages: &[&str]) -> Result<String> {
    let crates = crates(root, target, packages)?;
    let folders = folders(root)?;
    let mut text = String::from("The programs are made of these crates, beside Delegraph's own:\n\n");
    let mut texts: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, licence) in &crates {
        text.push_str(&format!("{name}  {licence}\n"));
        for licence in folders.get(name).into_iter().flat_map(|folder| licence_texts(folder)) {
            texts.entry(licence).or_default().push(name);
        }
    }
    for (licence, names) in texts {
        text.push_str(&format!(
            "\n{}\n{}\n\n{}\n",
            "=".repeat(80),
            names.join(", "),
            licence.trim()
        ));
    }
    Ok(text)
}

/// `NAME VERSION` to the SPDX expression, of what is linked into the packages and is not of this workspace.
fn crates(root: &Path, target: &str, packages: &[&str]) -> Result<BTreeMap<String, String>> {
    let mut command = Command::new("cargo");
    command.current_dir(root).args([
        "tree", "--locked", "--edges", "normal", "--prefix", "none", "--target", target,
    ]);
    command.args(["--format", "{p}\t{l}"]);
    for package in packages {
        command.args(["-p", package]);
    }
    let text = answer(&mut command)?;
    let line = |line: &str| {
        let (package, licence) = line.split_once('\t')?;
        // Of this workspace: the folder stands behind the version. Macros run while the program is built.
        if package.contains('(') {
            return None;
        }
        let (name, version) = package.split_once(" v")?;
        Some((
            format!("{name} {version}"),
            licence.trim_end_matches(" (*)").to_string(),
        ))
    };
    Ok(text.lines().filter_map(line).collect())
}

/// Where cargo keeps each crate: `NAME VERSION` to a folder.
fn folders(root: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = Command::new("cargo");
    command
        .current_dir(root)
        .args(["metadata", "--locked", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&answer(&mut command)?)?;
    let packages = metadata["packages"]
        .as_array()
        .context("`cargo metadata` has no packages")?;
    let folder = |package: &serde_json::Value| {
        let name = format!("{} {}", package["name"].as_str()?, package["version"].as_str()?);
        Some((
            name,
            Path::new(package["manifest_path"].as_str()?).parent()?.to_path_buf(),
        ))
    };
    Ok(packages.iter().filter_map(folder).collect())
}

/// Texts of licences at the top of a crate's folder.
fn licence_texts(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_licence = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        let starts = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
        path.is_file() && starts.iter().any(|start| name.starts_with(start))
    };
    let paths = entries.map(|entry| entry.path()).filter(is_licence);
    paths
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| text.replace('\r', ""))
        .collect()
}

fn answer(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
