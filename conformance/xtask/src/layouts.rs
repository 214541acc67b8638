//! `layouts`: a second opinion on the ABI. `bindgen` reads the committed header with libclang, for a target of each data model, and every size,
//! alignment, offset and constant is compared with the golden layouts. Then a library that tells its layouts (the SDK's feature `layout-check`) is
//! compared with this build. Both live in `conformance/layouts`, a workspace of its own.

use crate::r#gen;
use crate::provision::libclang;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

const HEADER: &str = "delegate-sdk/include/delegraph.h";
const WORKSPACE: &str = "conformance/layouts";

/// A target of clang's for each data model.
const TARGETS: [(&str, &str); 3] = [
    ("LP64", "x86_64-unknown-linux-gnu"),
    ("LLP64", "x86_64-pc-windows-msvc"),
    ("ILP32", "armv7-unknown-linux-gnueabihf"),
];

/// Runs both comparisons.
///
/// # Errors
/// A number differs, or the workspace does not build.
pub fn run(root: &Path) -> Result<()> {
    if std::env::var_os("LIBCLANG_PATH").is_some() || libclang(root).is_some() {
        header(root)?;
    } else {
        println!("skipped: {HEADER} as libclang reads it: run `cargo xtask provision clang`, or set LIBCLANG_PATH");
    }
    let status = workspace(root, "fmt").args(["--all", "--check"]).status();
    if !status.context("cannot start cargo")?.success() {
        bail!("`cargo fmt` in {WORKSPACE}");
    }
    let status = workspace(root, "test").args(["--locked"]).status();
    if !status.context("cannot start cargo")?.success() {
        bail!("layouts across libraries are not compared as they should be: see above");
    }
    Ok(())
}

fn header(root: &Path) -> Result<()> {
    let (constants, stored) = r#gen::names_and_values(root)?;
    let mut problems = Vec::new();
    for (model, target) in TARGETS {
        let seen = read(root, target)?;
        let layouts = r#gen::committed_layouts(root, model)?;
        let found = compare(&layouts, &constants, &stored, &seen);
        let fields: usize = object(&seen["structs"])
            .values()
            .map(|s| object(&s["fields"]).len())
            .sum();
        println!(
            "{HEADER} under {model} ({target}): {} structs, {fields} fields, {} constants read, {} differ",
            object(&seen["structs"]).len(),
            object(&seen["constants"]).len(),
            found.len()
        );
        problems.extend(found.into_iter().map(|problem| format!("{model}: {problem}")));
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!(
        "{HEADER} is not what the golden layouts say:\n  {}",
        problems.join("\n  ")
    )
}

/// What libclang makes of the header for a target.
fn read(root: &Path, target: &str) -> Result<Value> {
    let mut command = workspace(root, "run");
    command
        .args(["--quiet", "--locked", "--"])
        .arg(root.join(HEADER))
        .arg(root.join(WORKSPACE).join("freestanding"))
        .arg(target);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("{HEADER} cannot be read for {target}: see above");
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn workspace(root: &Path, verb: &str) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command
        .arg(verb)
        .current_dir(root.join(WORKSPACE))
        .env("CARGO_TARGET_DIR", root.join("target/layouts"));
    if let (None, Some(found)) = (std::env::var_os("LIBCLANG_PATH"), libclang(root)) {
        command.env("LIBCLANG_PATH", found);
    }
    command
}

/// Where the golden layouts and constants, and what was read, are not the same.
fn compare(
    layouts: &Value,
    constants: &BTreeMap<String, Value>,
    stored: &BTreeMap<String, String>,
    seen: &Value,
) -> Vec<String> {
    let mut problems = Vec::new();
    let mut check = |what: &str, want: &Value, got: &Value| {
        if want != got {
            problems.push(format!("{what}: {want} is meant, {got} was read"));
        }
    };
    for (name, want) in object(layouts) {
        let got = &seen["structs"][name];
        check(&format!("size of `{name}`"), &want["size"], &got["size"]);
        check(&format!("alignment of `{name}`"), &want["align"], &got["align"]);
        let fields = want["fields"].as_array().into_iter().flatten();
        let mut names = Vec::new();
        for field in fields {
            let field_name = field["name"].as_str().unwrap_or_default();
            // Rust has the word for itself, so `bindgen` adds an underscore.
            let as_rust = if field_name == "type" { "type_" } else { field_name };
            let offset = &got["fields"][as_rust];
            check(&format!("offset of `{name}.{field_name}`"), &field["offset"], offset);
            names.push(as_rust);
        }
        for extra in object(&got["fields"]).keys().filter(|f| !names.contains(&f.as_str())) {
            check(&format!("`{name}.{extra}`"), &Value::Null, &"a field".into());
        }
    }
    for (name, want) in constants {
        check(&format!("`{name}`"), want, &seen["constants"][name]);
    }
    for (name, want) in stored {
        check(
            &format!("what `{name}` is stored as"),
            &want.as_str().into(),
            &seen["types"][name],
        );
    }
    for extra in object(&seen["structs"])
        .keys()
        .filter(|name| layouts.get(name.as_str()).is_none())
    {
        check(&format!("`{extra}`"), &Value::Null, &"a struct".into());
    }
    for extra in object(&seen["constants"])
        .keys()
        .filter(|name| !constants.contains_key(name.as_str()))
    {
        check(&format!("`{extra}`"), &Value::Null, &"a constant".into());
    }
    problems
}

fn object(value: &Value) -> &Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    value.as_object().unwrap_or(&EMPTY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_difference_is_told_by_name() {
        let layouts = json!({"dg_a": {"size": 16, "align": 8, "fields": [
            {"name": "x", "offset": 0, "size": 8, "since": 0}, {"name": "type", "offset": 8, "size": 8, "since": 0}]}});
        let constants = BTreeMap::from([("DG_ONE".to_string(), json!(1)), ("DG_OPSET".to_string(), json!("t"))]);
        let stored = BTreeMap::from([("dg_kind".to_string(), "u32".to_string())]);
        let seen = json!({
            "structs": {"dg_a": {"size": 16, "align": 8, "fields": {"x": 0, "type_": 8}}},
            "constants": {"DG_ONE": 1, "DG_OPSET": "t"},
            "types": {"dg_kind": "u32"},
        });
        assert!(compare(&layouts, &constants, &stored, &seen).is_empty());
        let cases = [
            (
                "/structs/dg_a/size",
                json!(24),
                "size of `dg_a`: 16 is meant, 24 was read",
            ),
            (
                "/structs/dg_a/align",
                json!(4),
                "alignment of `dg_a`: 8 is meant, 4 was read",
            ),
            (
                "/structs/dg_a/fields/type_",
                json!(12),
                "offset of `dg_a.type`: 8 is meant, 12 was read",
            ),
            (
                "/structs/dg_a/fields",
                json!({"x": 0, "type_": 8, "y": 16}),
                "`dg_a.y`: null is meant",
            ),
            (
                "/structs/dg_a/fields",
                json!({"type_": 8}),
                "offset of `dg_a.x`: 0 is meant, null was read",
            ),
            ("/structs", json!({}), "size of `dg_a`: 16 is meant, null was read"),
            ("/constants/DG_ONE", json!(2), "`DG_ONE`: 1 is meant, 2 was read"),
            (
                "/constants",
                json!({"DG_ONE": 1, "DG_OPSET": "t", "DG_TWO": 2}),
                "`DG_TWO`: null is meant",
            ),
            (
                "/types/dg_kind",
                json!("i32"),
                "what `dg_kind` is stored as: \"u32\" is meant, \"i32\" was read",
            ),
        ];
        for (pointer, value, want) in cases {
            let mut seen = seen.clone();
            *seen.pointer_mut(pointer).unwrap() = value;
            let problems = compare(&layouts, &constants, &stored, &seen);
            assert!(problems.iter().any(|p| p.contains(want)), "{pointer}: {problems:?}");
        }
    }
}
