//! `gen abi`: the C header, the Rust mirror, the reference page and the golden layouts of each version, from `delegate-sdk/abi/abi.toml`. `gen ops`:
//! the names of operators in C and Rust, from the operator table. `gen capi`: the C API for apps, from `runtime/capi/capi.toml`. `gen coverage`:
//! what of the operators runs, from a run of the committed corpus. `gen golden`: what a release leaves. `gen lists`: the lists of conformance
//! cases.

mod app;
mod c;
mod commands;
mod docs;
mod golden;
#[cfg(test)]
mod history;
mod layout;
mod model;
mod ops;
mod rust;
mod version;

use anyhow::{Context, Result, bail};
use model::Description;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

const DESCRIPTION: &str = "delegate-sdk/abi/abi.toml";
/// Folder of the layouts of each version.
const GOLDEN: &str = "delegate-sdk/abi/golden/";

/// Writes every file that the ABI's description gives.
///
/// # Errors
/// The description is wrong, or it would change the layouts of an earlier version.
pub fn run(root: &Path) -> Result<()> {
    let newest = golden_path(&describe(root)?);
    for (path, text) in files(root)? {
        let earlier = path.starts_with(GOLDEN) && path != newest;
        if earlier && std::fs::read_to_string(root.join(&path)).is_ok_and(|kept| kept != text) {
            bail!(
                "{DESCRIPTION} changes what an earlier version has: `{path}` stays as it is; append instead, with `since`"
            );
        }
        write(root, &path, &text)?;
    }
    Ok(())
}

/// Writes every file that the description of the C API for apps gives.
///
/// # Errors
/// The description is wrong.
pub fn capi(root: &Path) -> Result<()> {
    for (path, text) in app_files(root)? {
        write(root, path, &text)?;
    }
    Ok(())
}

const APP: &str = "runtime/capi/capi.toml";

/// Every file that the description of the C API for apps gives: path from the root, and text.
fn app_files(root: &Path) -> Result<[(&'static str, String); 3]> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).with_context(|| format!("reading {path}"));
    let abi = Description::parse(&read(DESCRIPTION)?).with_context(|| format!("in {DESCRIPTION}"))?;
    let description = app::Description::parse(&read(APP)?, &abi).with_context(|| format!("in {APP}"))?;
    Ok([
        ("runtime/capi/include/delegraph_app.h", app::header(&description)?),
        ("runtime/capi/src/generated.rs", app::mirror(&description)?),
        ("runtime/capi/symbols.txt", app::symbols(&description)),
    ])
}

/// Writes the names of operators.
///
/// # Errors
/// The table gives two operators one constant.
pub fn ops(root: &Path) -> Result<()> {
    for (path, text) in names()? {
        write(root, path, &text)?;
    }
    Ok(())
}

/// Every file that the operator table gives: path from the root, and text.
fn names() -> Result<[(&'static str, String); 2]> {
    Ok([
        ("delegate-sdk/include/delegraph_ops.h", ops::header()?),
        ("delegate-sdk/sdk/src/ops.rs", ops::module()?),
    ])
}

const COVERAGE: &str = "vendor-docs/coverage.md";

/// Writes the table of operators: what the command prints. `runtime/cli/tests/ops.rs` compares it.
///
/// # Errors
/// The command cannot be built, or a case fails.
pub fn coverage(root: &Path) -> Result<()> {
    // The default members: the command line and the delegates that the table asks.
    crate::test::cargo(root, &["build"])?;
    let output = Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--package",
            "delegraph-cli",
            "--",
            "conform",
            "coverage",
        ])
        .args(["--corpus", "conformance/corpus"])
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("a case fails: `delegraph conform ops --corpus conformance/corpus` says which");
    }
    write(root, COVERAGE, &String::from_utf8(output.stdout)?)
}

/// Writes the lists of cases that are not frozen, and their numbers.
///
/// # Errors
/// The kit cannot be built, or a rule cannot be read.
pub fn lists(root: &Path) -> Result<()> {
    let make = [
        "run",
        "--quiet",
        "--package",
        "delegraph-cli",
        "--",
        "conform",
        "lists",
        "conformance/lists",
    ];
    crate::test::cargo(root, &make)
}

/// Writes a release's folder under `conformance/golden`, with the code of now.
///
/// # Errors
/// The folder is there already, or a model does not compile.
pub fn golden(root: &Path, version: &str) -> Result<()> {
    let make = [
        "run",
        "--quiet",
        "--package",
        "delegraph-golden",
        "--example",
        "make",
        "--",
        version,
    ];
    crate::test::cargo(root, &make)?;
    // The default members: the command line and the delegates that its calls ask.
    crate::test::cargo(root, &["build"])?;
    commands::record(root, &root.join("conformance/golden").join(version))
}

/// Writes a file unless it is so already.
fn write(root: &Path, path: &str, text: &str) -> Result<()> {
    let path = root.join(path);
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

/// Every file that the ABI's description gives: path from the root, and text.
fn files(root: &Path) -> Result<Vec<(String, String)>> {
    let description = describe(root)?;
    let mut files = vec![
        ("delegate-sdk/include/delegraph.h".to_string(), c::header(&description)?),
        (
            "delegate-sdk/abi/src/generated.rs".to_string(),
            rust::mirror(&description)?,
        ),
        ("vendor-docs/abi.md".to_string(), docs::page(&description)?),
    ];
    for number in 0..=description.newest() {
        let at = description.at(number);
        files.push((golden_path(&at), golden::layouts(&at)?));
    }
    Ok(files)
}

/// The layouts of a data model, as the committed golden file of the newest version has them.
pub fn committed_layouts(root: &Path, model: &str) -> Result<serde_json::Value> {
    let path = golden_path(&describe(root)?);
    let text = std::fs::read_to_string(root.join(&path)).with_context(|| format!("reading {path}"))?;
    let golden: serde_json::Value = serde_json::from_str(&text).with_context(|| format!("in {path}"))?;
    match golden["models"].get(model) {
        Some(layouts) => Ok(layouts.clone()),
        None => bail!("`{path}` has no layouts of {model}"),
    }
}

/// The constants that the header defines, enum items included, and what its enums are stored as.
pub fn names_and_values(root: &Path) -> Result<(BTreeMap<String, serde_json::Value>, BTreeMap<String, String>)> {
    let d = describe(root)?;
    let mut constants = BTreeMap::from([
        ("DG_ABI_MAJOR".to_string(), d.major.into()),
        ("DG_ABI_MINOR".to_string(), d.minor.into()),
        ("DG_LAYOUT_HASH".to_string(), d.layout_hash()?.into()),
        ("DG_OPSET".to_string(), d.opset.clone().into()),
    ]);
    constants.extend(d.constants.iter().map(|c| (c.name.clone(), c.value.into())));
    let mut stored = BTreeMap::new();
    for e in &d.enums {
        constants.extend(e.items.iter().map(|item| (c::item_name(e, item), item.value.into())));
        stored.insert(e.name.clone(), e.ty.clone());
    }
    Ok((constants, stored))
}

fn describe(root: &Path) -> Result<Description> {
    let path = root.join(DESCRIPTION);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Description::parse(&text).with_context(|| format!("in {DESCRIPTION}"))
}

fn golden_path(description: &Description) -> String {
    format!("{GOLDEN}v{}.json", description.version())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_files_are_what_the_description_and_the_table_give() {
        let root = crate::root();
        for (path, text) in files(&root).unwrap() {
            let committed = std::fs::read_to_string(root.join(&path)).unwrap_or_default();
            assert!(committed == text, "`{path}` is stale: run `cargo xtask gen abi`");
        }
        for (path, text) in names().unwrap() {
            let committed = std::fs::read_to_string(root.join(path)).unwrap_or_default();
            assert!(committed == text, "`{path}` is stale: run `cargo xtask gen ops`");
        }
        for (path, text) in app_files(&root).unwrap() {
            let committed = std::fs::read_to_string(root.join(path)).unwrap_or_default();
            assert!(committed == text, "`{path}` is stale: run `cargo xtask gen capi`");
        }
    }
}
