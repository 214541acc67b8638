//! The recipes of `conformance/runners` and the page that tells of them: they are the YAML that they shall be, their shards are whole, and
//! every flag in them is one of the command's. Neither was run on GitHub or on a cluster.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use yaml_rust2::{Yaml, YamlLoader};

fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

fn yaml(name: &str) -> Vec<Yaml> {
    YamlLoader::load_from_str(&text(&format!("conformance/runners/{name}"))).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// What `delegraph conform WHAT` takes.
fn flags_of(what: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_delegraph"))
        .args(["conform", what, "--help"])
        .output()
        .unwrap();
    assert!(output.status.success(), "there is no `conform {what}`");
    let help = String::from_utf8(output.stdout).unwrap();
    let words = help.split(|c: char| c.is_whitespace() || c == ',');
    words.filter(|word| word.starts_with('-')).map(str::to_string).collect()
}

/// The calls of `delegraph conform` in a text, each with what follows it on its line.
fn calls(text: &str) -> Vec<(&str, Vec<&str>)> {
    let calls = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| line.split("delegraph conform ").skip(1));
    let call = |call: &'_ str| -> Option<(usize, usize)> {
        let end = call.find([';', '`', '&']).unwrap_or(call.len());
        let word = call.find(' ').unwrap_or(end).min(end);
        Some((word, end))
    };
    calls
        .filter_map(|rest| {
            let (word, end) = call(rest)?;
            Some((&rest[..word], rest[word..end].split_whitespace().collect()))
        })
        .collect()
}

#[test]
fn every_flag_of_the_recipes_is_taken() {
    let mut seen = 0;
    let files = [
        "conformance/runners/github-actions.yml",
        "conformance/runners/kubernetes.yaml",
        "conformance/runners/KIT.md",
        "conformance/runners/device.sh",
        "vendor-docs/conformance-runners.md",
    ];
    for file in files {
        let text = text(file);
        for (what, words) in calls(&text) {
            let flags = flags_of(what);
            for flag in words.iter().filter(|word| word.starts_with('-') && word.len() > 1) {
                let flag = flag.trim_matches('"');
                assert!(
                    flags.contains(flag),
                    "{file}: `conform {what}` has no {flag}: {flags:?}"
                );
                seen += 1;
            }
        }
    }
    assert!(seen >= 10, "{seen} flags found");
}

#[test]
fn the_matrix_has_every_shard_once() {
    let recipe = &yaml("github-actions.yml")[0];
    let jobs = &recipe["jobs"];
    let shards: Vec<i64> = jobs["shard"]["strategy"]["matrix"]["shard"]
        .as_vec()
        .unwrap()
        .iter()
        .map(|i| i.as_i64().unwrap())
        .collect();
    assert_eq!(shards, (1..=4).collect::<Vec<_>>());
    let runs = |job: &str| -> String {
        let steps = jobs[job]["steps"]
            .as_vec()
            .unwrap_or_else(|| panic!("{job} has no steps"));
        steps
            .iter()
            .filter_map(|step| step["run"].as_str())
            .map(|run| format!("{run}\n"))
            .collect()
    };
    assert!(
        runs("shard").contains(&format!("--shard \"$SHARD/{}\"", shards.len())),
        "{}",
        runs("shard")
    );
    let parts: Vec<String> = shards.iter().map(|shard| format!("report-{shard}")).collect();
    assert!(
        runs("merge").contains(&format!("conform merge {} -o", parts.join(" "))),
        "{}",
        runs("merge")
    );
    assert_eq!(jobs["merge"]["needs"].as_str(), Some("shard"));
    assert_eq!(jobs["shard"]["needs"].as_str(), Some("delegate"));
}

#[test]
fn the_job_has_a_pod_a_shard() {
    let jobs = yaml("kubernetes.yaml");
    let [shards, merge] = &jobs[..] else {
        panic!("{} documents", jobs.len())
    };
    for job in [shards, merge] {
        assert_eq!(
            (job["apiVersion"].as_str(), job["kind"].as_str()),
            (Some("batch/v1"), Some("Job"))
        );
    }
    let command = |job: &Yaml| {
        job["spec"]["template"]["spec"]["containers"][0]["command"][2]
            .as_str()
            .unwrap()
            .to_string()
    };
    let spec = &shards["spec"];
    assert_eq!(spec["completionMode"].as_str(), Some("Indexed"));
    let count = spec["completions"].as_i64().unwrap();
    assert!(command(shards).contains("$((JOB_COMPLETION_INDEX + 1))"));
    assert!(command(shards).contains(&format!("--shard \"$shard/{count}\"")));
    let parts: Vec<String> = (1..=count).map(|shard| format!("report-{shard}")).collect();
    assert!(command(merge).contains(&format!("conform merge {} -o", parts.join(" "))));
    // An answer of the run is no reason to start its pod again; a code that is none of the command's is.
    let rule = &spec["podFailurePolicy"]["rules"][0];
    let codes: Vec<i64> = rule["onExitCodes"]["values"]
        .as_vec()
        .unwrap()
        .iter()
        .map(|code| code.as_i64().unwrap())
        .collect();
    assert_eq!(codes, [1, 2, 3, 4, 5, 70]);
    assert_eq!(
        rule["onExitCodes"]["containerName"],
        spec["template"]["spec"]["containers"][0]["name"]
    );
}
