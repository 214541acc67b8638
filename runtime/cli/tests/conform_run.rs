//! `delegraph conform run` and `merge`, by the real binary over real libraries: `reference`, `null` and the fault delegate.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The folder that the binary is in: libraries are built beside it.
fn built() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_delegraph")).parent().unwrap()
}

/// A library, by its manifest; `None` and a line where it was not built.
fn subject(name: &str) -> Option<PathBuf> {
    let library = format!("lib{name}_delegate.so");
    if cfg!(not(target_os = "linux")) || !built().join(&library).is_file() {
        println!("skipped: conformance over `{name}`: no {library} beside the binary, or not Linux");
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let manifest = match name {
        "fault" => root.join("conformance/fault/fault.delegate.toml"),
        _ => root.join(format!("delegates/{name}/{name}.delegate.toml")),
    };
    Some(manifest)
}

fn command(subject: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_delegraph"));
    command
        .args(["conform", "run"])
        .arg(subject)
        .args(arguments)
        .env_clear();
    command
}

fn run(subject: &Path, arguments: &[&str]) -> Output {
    command(subject, arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Ids and verdicts of a folder.
fn verdicts(folder: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(folder.join("cases.jsonl")).unwrap();
    let case = |line: &str| {
        let case: Value = serde_json::from_str(line).unwrap();
        (
            case["id"].as_str().unwrap().to_string(),
            case["verdict"].as_str().unwrap().to_string(),
        )
    };
    text.lines().map(case).collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Cases that are quick and measure no time: these tests are about running them, not about what they find. Those of `dynamic` share
/// processes, the others do not.
const QUICK: [&str; 6] = ["--case", "abi/*", "--case", "blob/*", "--case", "dynamic/*"];

fn quick<'a>(more: &[&'a str]) -> Vec<&'a str> {
    QUICK.iter().chain(more).copied().collect()
}

/// How many cases those are; `None` and a line where the kit has too few to cut in parts.
fn enough(subject: &Path) -> Option<usize> {
    let output = run(subject, &quick(&["--list"]));
    let count = String::from_utf8_lossy(&output.stdout).lines().count();
    if count < 12 {
        println!("skipped: the kit has {count} quick cases, too few to cut a run in parts");
        return None;
    }
    assert_eq!(output.status.code(), Some(0));
    Some(count)
}

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_string()
}

#[test]
fn a_run_that_is_killed_goes_on_and_gives_what_a_whole_one_gives() {
    let Some(subject) = subject("reference") else { return };
    let Some(count) = enough(&subject) else { return };
    let place = tempfile::tempdir().unwrap();
    let (whole, cut) = (path(&place, "whole"), path(&place, "cut"));
    run(&subject, &quick(&["-o", &whole]));
    let want = verdicts(Path::new(&whole));
    assert_eq!(want.len(), count);
    let lines = |folder: &str| {
        let text = std::fs::read(Path::new(folder).join("cases.jsonl")).unwrap_or_default();
        text.iter().filter(|byte| **byte == b'\n').count()
    };
    // Killed again and again, each time with some more cases done: SIGKILL, which nothing can catch.
    let (mut killed, mut had) = (0, 0);
    for goal in [1, count / 3, count * 2 / 3] {
        let mut child = command(&subject, &quick(&["-o", &cut, "--jobs", "1"]))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while lines(&cut) < goal && child.try_wait().unwrap().is_none() && started.elapsed() < Duration::from_secs(120)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            killed += 1;
        }
        child.wait().unwrap();
        assert!(lines(&cut) >= had, "records were lost");
        had = lines(&cut);
    }
    assert!(
        killed > 0 && had < count,
        "the run was over before it was killed: {had} of {count}"
    );
    assert!(json(&Path::new(&cut).join("run.json")).get("finished").is_none());
    // The last line cut in the middle, as when the disk is full.
    let log = Path::new(&cut).join("cases.jsonl");
    let mut text = std::fs::read(&log).unwrap();
    text.extend_from_slice(b"{\"id\":\"blob/");
    std::fs::write(&log, text).unwrap();
    let output = run(&subject, &quick(&["-o", &cut]));
    let said = format!("{had} cases are there already, {} are run", count - had);
    assert!(stderr(&output).contains(&said), "{}", stderr(&output));
    assert_eq!(verdicts(Path::new(&cut)), want);
    assert!(json(&Path::new(&cut).join("run.json"))["finished"].is_string());
    // Nothing is left to do, and something else is refused.
    let again = run(&subject, &quick(&["-o", &cut]));
    assert_eq!(again.status.code(), output.status.code());
    assert!(stderr(&again).contains(&format!("{count} cases are there already, 0 are run")));
    let other = run(&subject, &quick(&["-o", &cut, "--seed", "9"]));
    assert_eq!(other.status.code(), Some(2));
    assert!(
        stderr(&other).contains("`seed`") && stderr(&other).contains("--fresh"),
        "{}",
        stderr(&other)
    );
}

#[test]
fn four_shards_merged_are_one_whole_run() {
    let Some(subject) = subject("reference") else { return };
    let Some(count) = enough(&subject) else { return };
    let place = tempfile::tempdir().unwrap();
    let whole = path(&place, "whole");
    let code = run(&subject, &quick(&["-o", &whole])).status.code();
    let parts: Vec<String> = (1..=4).map(|i| path(&place, &format!("part-{i}"))).collect();
    for (i, part) in parts.iter().enumerate() {
        run(&subject, &quick(&["-o", part, "--shard", &format!("{}/4", i + 1)]));
    }
    let merge = |parts: &[String], to: &str| {
        Command::new(env!("CARGO_BIN_EXE_delegraph"))
            .args(["conform", "merge", "--json", "-", "-o", to])
            .args(parts)
            .env_clear()
            .output()
            .unwrap()
    };
    let joined = path(&place, "joined");
    let output = merge(&parts, &joined);
    assert_eq!(output.status.code(), code, "{}", stderr(&output));
    assert_eq!(verdicts(Path::new(&joined)), verdicts(Path::new(&whole)));
    let info = json(&Path::new(&joined).join("run.json"));
    assert!(info["finished"].is_string() && info.get("shard").is_none());
    assert_eq!(info["cases"], count);
    // Without the third, the run is not finished, and it is said whose cases lack.
    let three = [parts[0].clone(), parts[1].clone(), parts[3].clone()];
    let lacking = merge(&three, &path(&place, "lacking"));
    assert_eq!(lacking.status.code(), Some(1));
    let object: Value = serde_json::from_slice(&lacking.stdout).unwrap();
    assert!(object["lacks"][0].as_str().unwrap().contains("shard 3 of 4 is missing"));
    assert_eq!(
        object["missing"].as_array().unwrap().len() + object["cases"].as_array().unwrap().len(),
        count
    );
    // Another library's shard is refused.
    if let Some(null) = self::subject("null") {
        let other = path(&place, "other");
        run(&null, &quick(&["-o", &other, "--shard", "4/4"]));
        let mixed = [parts[0].clone(), parts[1].clone(), parts[2].clone(), other];
        let refused = merge(&mixed, &path(&place, "mixed"));
        assert_eq!(refused.status.code(), Some(3));
        assert!(stderr(&refused).contains("`library`"), "{}", stderr(&refused));
        assert!(!place.path().join("mixed").exists());
    }
}

#[test]
fn a_library_that_crashes_or_hangs_gives_a_report_with_bundles() {
    let Some(subject) = subject("fault") else { return };
    let place = tempfile::tempdir().unwrap();
    for (how, want) in [("segfault", "crash"), ("loop", "hang")] {
        let folder = path(&place, how);
        let option = format!("how={how}");
        let arguments = ["--case", "lifecycle/*", "--option", "at=new", "--option", &option];
        if run(&subject, &[&arguments[..], &["--list"]].concat()).status.code() != Some(0) {
            println!("skipped: a library that {how}s: the kit has no such case");
            return;
        }
        let more = ["-o", &folder, "--limit", "3", "--retries", "0"];
        let output = run(&subject, &[&arguments[..], &more].concat());
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let verdicts = verdicts(Path::new(&folder));
        assert!(verdicts.values().any(|verdict| verdict == want), "{how}: {verdicts:?}");
        let report = json(&Path::new(&folder).join("report.json"));
        for case in report["cases"].as_array().unwrap() {
            if !matches!(case["verdict"].as_str(), Some("crash" | "hang" | "fail")) {
                continue;
            }
            let repro = case["repro"].as_str().unwrap();
            assert!(
                repro.contains("--option") && repro.contains(case["id"].as_str().unwrap()),
                "{repro}"
            );
            let bundle = Path::new(&folder).join(case["bundle"].as_str().unwrap());
            assert_eq!(json(&bundle.join("record.json"))["id"], case["id"]);
            assert!(bundle.join("repro.sh").is_file());
        }
        assert_eq!(report["run"]["library"]["name"], "fault", "its manifest says so");
    }
}

#[test]
fn the_repro_script_of_a_failure_gives_the_same_verdict() {
    let Some(subject) = subject("fault") else { return };
    let place = tempfile::tempdir().unwrap();
    let folder = path(&place, "run");
    let flags = [
        "--case",
        "lifecycle/*",
        "--option",
        "at=new",
        "--option",
        "how=abort",
        "--retries",
        "0",
        "-o",
        &folder,
    ];
    run(&subject, &flags);
    let Ok(text) = std::fs::read_to_string(Path::new(&folder).join("cases.jsonl")) else {
        println!("skipped: repro scripts: the kit has no such case");
        return;
    };
    let cases = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let Some(case) = cases.into_iter().find(|case| case["verdict"] == "crash") else {
        println!("skipped: repro scripts: no case crashes");
        return;
    };
    let script = Path::new(&folder)
        .join(case["bundle"].as_str().unwrap())
        .join("repro.sh");
    let again = Command::new("/bin/sh")
        .arg(script)
        .env("DELEGRAPH", env!("CARGO_BIN_EXE_delegraph"))
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&again.stdout);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stdout.contains("crash") && stdout.contains(case["id"].as_str().unwrap()),
        "{stdout}"
    );
}

#[test]
fn waivers_waive_until_their_last_day() {
    let Some(subject) = subject("fault") else { return };
    let place = tempfile::tempdir().unwrap();
    let waivers = |expires: &str| {
        let file = place.path().join(format!("{expires}.toml"));
        let text = format!(
            "[[waiver]]\ndelegate = 'fault'\ncases = ['*']\nverdicts = ['fail', 'crash', 'hang']\nreason = 'it is made to'\n\
             issue = 'https://issues.example/1'\nexpires = '{expires}'\napprover = 'nobody'\n"
        );
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_string()
    };
    let judge = |file: &str| {
        let flags = [
            "--case",
            "lifecycle/*",
            "--option",
            "at=new",
            "--option",
            "how=abort",
            "--retries",
            "0",
            "--json",
            "-",
        ];
        let output = run(&subject, &[&flags[..], &["--waivers", file]].concat());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        (report["summary"].clone(), report["cases"].clone(), output.status.code())
    };
    let (summary, cases, code) = judge(&waivers("9999-12-31"));
    if summary["total"] == 0 {
        println!("skipped: waivers: the kit has no such case");
        return;
    }
    let waived = summary["waived"].as_u64().unwrap();
    assert!(waived > 0 && code == Some(0), "{summary} {code:?}");
    let reason = |cases: &Value, verdict: &str| {
        let find = cases.as_array().unwrap().iter().find(|case| case["verdict"] == verdict);
        find.unwrap()["reason"].as_str().unwrap().to_string()
    };
    let text = reason(&cases, "waived");
    assert!(text.contains("it is made to") && text.contains("9999-12-31") && text.contains("issues.example/1"));
    let (summary, cases, code) = judge(&waivers("2020-01-01"));
    assert_eq!((summary["waived"].as_u64(), code), (Some(0), Some(1)));
    assert!(reason(&cases, "crash").contains("its waiver expired on 2020-01-01"));
    let bad = place.path().join("bad.toml");
    std::fs::write(&bad, "[[waiver]]\ncases = ['*']\n").unwrap();
    let output = run(&subject, &["--waivers", bad.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
}

#[test]
fn wrong_use_bad_files_and_nothing_to_run_are_told_apart() {
    let Some(subject) = subject("null") else { return };
    let place = tempfile::tempdir().unwrap();
    for (arguments, code, said) in [
        (&["--list", "core-2.0"][..], 2, "--list core-1.0"),
        (&["--list", "cure"], 2, "async-1.0"),
        (&["--shard", "5/4"], 2, "I/N"),
        (&["--option", "x"], 2, "KEY=VALUE"),
        (&["--exact", "abi/none"], 2, "abi/none"),
        (&["--device", "77", "--case", "abi/*"], 4, "no device 77"),
        (&["--waivers", "/nonexistent"], 3, "/nonexistent"),
        (&["--case", "none/*"], 1, ""),
        (&["--case", "none/*", "--list"], 1, ""),
    ] {
        let output = run(&subject, arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
    }
    let missing = place.path().join("libnone.so");
    assert_eq!(run(&missing, &[]).status.code(), Some(3));
    // A file that is no library: nothing can be found out about it, and each case says so.
    let text = place.path().join("libtext.so");
    std::fs::write(&text, "this is no library").unwrap();
    let output = run(&text, &["--case", "abi/*", "--json", "-", "--retries", "0"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["run"]["library"]["file"], "libtext.so");
    assert_eq!(report["run"]["library"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(report["summary"]["pass"], 0, "{}", report["cases"]);
}

#[test]
fn single_cases_are_joined_to_a_whole() {
    let Some(subject) = subject("null") else { return };
    let list = run(&subject, &["--case", "abi/*", "--list"]);
    let ids = String::from_utf8_lossy(&list.stdout).into_owned();
    if ids.lines().count() < 2 {
        println!("skipped: single cases: the kit has no cases of the category abi");
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let mut parts = Vec::new();
    for id in ids.lines() {
        let part = path(&place, &id.replace('/', "__"));
        run(&subject, &["--case", "abi/*", "--exact", id, "-o", &part]);
        assert_eq!(verdicts(Path::new(&part)).into_keys().collect::<Vec<_>>(), [id]);
        parts.push(part);
    }
    let joined = path(&place, "joined");
    Command::new(env!("CARGO_BIN_EXE_delegraph"))
        .args(["conform", "merge", "-o", &joined])
        .args(&parts)
        .output()
        .unwrap();
    assert!(json(&Path::new(&joined).join("run.json"))["finished"].is_string());
    assert_eq!(verdicts(Path::new(&joined)).len(), parts.len());
}
