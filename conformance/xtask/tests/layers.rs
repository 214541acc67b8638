//! Dependencies point one way: `ARCHITECTURE.md` says which, this test reads cargo's metadata and refuses the rest.

use std::collections::BTreeMap;
use std::process::Command;

/// For each crate, the crates of the workspace that it may depend on. Development dependencies of tests are free.
fn allowed() -> BTreeMap<&'static str, Vec<&'static str>> {
    let shared = [
        "delegraph-abi",
        "delegraph-types",
        "delegraph-opset",
        "delegraph-pte",
        "delegraph-kernels",
        "delegraph-config",
        "delegraph-host",
    ];
    let with = |row: &[&'static str]| -> Vec<&'static str> { shared.iter().chain(row).copied().collect() };
    // In order: each may depend on those before it.
    let row = [
        "delegraph-ir",
        "delegraph-import",
        "delegraph-passes",
        "delegraph-quant",
        "delegraph-tag",
        "delegraph-lower",
        "delegraph-plan",
        "delegraph-emit",
    ];
    let mut table = BTreeMap::from([
        ("delegraph-abi", vec![]),
        ("delegraph-sdk", vec!["delegraph-abi"]),
        ("delegraph-types", vec![]),
        ("delegraph-opset", vec!["delegraph-types"]),
        ("delegraph-threads", vec!["delegraph-types"]),
        ("delegraph-pte", vec!["delegraph-types"]),
        ("delegraph-kernels", vec!["delegraph-types", "delegraph-opset"]),
        ("delegraph-config", vec!["delegraph-types"]),
        (
            "delegraph-host",
            vec!["delegraph-abi", "delegraph-config", "delegraph-types"],
        ),
        (
            "delegraph-worker",
            vec!["delegraph-host", "delegraph-threads", "delegraph-types"],
        ),
        ("delegraph-fault", vec!["delegraph-reference", "delegraph-sdk"]),
        ("delegraph-double", vec!["delegraph-reference", "delegraph-sdk"]),
        ("delegraph-mutants", vec!["delegraph-reference", "delegraph-sdk"]),
        ("delegraph-pair-compiler", vec!["delegraph-sdk"]),
        ("delegraph-pair-runtime", vec!["delegraph-reference", "delegraph-sdk"]),
        (
            "delegraph-executor",
            vec![
                "delegraph-types",
                "delegraph-opset",
                "delegraph-pte",
                "delegraph-kernels",
            ],
        ),
        ("delegraph-reference", vec!["delegraph-sdk"]),
        ("delegraph-null", vec!["delegraph-sdk"]),
        // What it has no faster step for it runs by the portable kernels: ADR 0017.
        (
            "delegraph-cpu",
            vec![
                "delegraph-cpu-kernels",
                "delegraph-kernels",
                "delegraph-opset",
                "delegraph-sdk",
                "delegraph-types",
            ],
        ),
        ("delegraph-cpu-kernels", vec![]),
        ("delegraph-cpu-plugin", vec!["delegraph-cpu", "delegraph-sdk"]),
        ("delegraph-vulkan", vec!["delegraph-sdk"]),
        ("delegraph-ethos-u-sim", vec![]),
        ("delegraph-ethos-u-bare", vec!["delegraph-abi"]),
        ("delegraph-ethos-u", vec!["delegraph-ethos-u-sim", "delegraph-sdk"]),
        ("delegraph-ethos-u-plugin", vec!["delegraph-ethos-u", "delegraph-sdk"]),
        ("delegraph-hexagon", vec!["delegraph-sdk"]),
        ("delegraph-hexagon-plugin", vec!["delegraph-hexagon", "delegraph-sdk"]),
        ("delegraph-vulkan-plugin", vec!["delegraph-vulkan", "delegraph-sdk"]),
        (
            "delegraph-reference-plugin",
            vec!["delegraph-reference", "delegraph-sdk"],
        ),
        ("delegraph-null-plugin", vec!["delegraph-null", "delegraph-sdk"]),
        ("delegraph-runner", vec!["delegraph-types"]),
        ("delegraph-report", vec!["delegraph-runner"]),
        // It calls the command, and links to nothing.
        ("delegraph-nextest", vec![]),
        ("xtask", vec!["delegraph-opset"]),
    ]);
    for (i, name) in row.into_iter().enumerate() {
        table.insert(name, with(&row[..i]));
    }
    table.insert(
        "delegraph",
        with(
            &[
                &row[..],
                // The CPU delegate is linked in by default.
                &[
                    "delegraph-cpu",
                    "delegraph-executor",
                    "delegraph-sdk",
                    "delegraph-threads",
                ],
            ]
            .concat(),
        ),
    );
    // The kit's numbers go through all of Delegraph, as an app's would.
    table.insert(
        "delegraph-kit",
        with(&[&row[..], &["delegraph", "delegraph-runner", "delegraph-threads"]].concat()),
    );
    let command = [
        // Its disassembler.
        "delegraph-ethos-u-sim",
        // What its blobs hold for which processors.
        "delegraph-cpu",
        // What the machine can do at most, for `bench --roofline`.
        "delegraph-cpu-kernels",
        "delegraph-executor",
        "delegraph",
        "delegraph-runner",
        "delegraph-report",
        "delegraph-kit",
    ];
    table.insert("delegraph-cli", with(&[&row[..], &command].concat()));
    table.insert("delegraph-capi", with(&[&row[..], &["delegraph"]].concat()));
    // It reads whatever a release wrote, by every reader that there is.
    table.insert(
        "delegraph-golden",
        with(
            &[
                &row[..],
                &[
                    "delegraph-executor",
                    "delegraph",
                    "delegraph-runner",
                    "delegraph-vulkan",
                ],
            ]
            .concat(),
        ),
    );
    // It feeds every parser that there is.
    table.insert(
        "delegraph-hostile",
        with(
            &[
                &row[..],
                &[
                    "delegraph-executor",
                    "delegraph",
                    "delegraph-runner",
                    "delegraph-cpu",
                    "delegraph-ethos-u-sim",
                    "delegraph-hexagon",
                    "delegraph-vulkan",
                ],
            ]
            .concat(),
        ),
    );
    table
}

#[test]
fn no_dependency_points_upward() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let allowed = allowed();
    let mut problems = Vec::new();
    let packages = metadata["packages"].as_array().expect("packages");
    for package in packages {
        let name = package["name"].as_str().expect("name");
        let Some(may) = allowed.get(name) else {
            problems.push(format!(
                "`{name}` has no place in the layers: add it to this test and to ARCHITECTURE.md"
            ));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let on = dependency["name"].as_str().expect("name");
            let ours = packages.iter().any(|p| p["name"].as_str() == Some(on));
            if ours && dependency["kind"].as_str() != Some("dev") && !may.contains(&on) {
                problems.push(format!("`{name}` may not depend on `{on}`"));
            }
        }
    }
    assert_eq!(
        packages.len(),
        allowed.len(),
        "a crate of the table is not in the workspace"
    );
    assert!(problems.is_empty(), "{problems:#?}");
}
