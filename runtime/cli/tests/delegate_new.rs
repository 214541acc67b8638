//! The vendor's page, `vendor-docs/first-delegate.md`, as a new user follows it: its commands are run and its code is typed in, in a
//! clean folder outside the workspace, with the built command. What the page shows must have been printed.

use std::path::{Path, PathBuf};
use std::process::Command;

const PAGE: &str = include_str!("../../../vendor-docs/first-delegate.md");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// What the page asks of somebody who has chosen a language.
#[derive(Debug)]
enum Step<'a> {
    /// `<!-- run: LANG -->`
    Run(&'a str),
    /// `<!-- replace: LANG FILE -->`: in place of what stands between BEGIN and END.
    Replace(&'a str, &'a str),
    /// `<!-- write: LANG FILE -->`
    Write(&'a str, &'a str),
    /// A block of text behind commands of this language.
    Shows(&'a str),
}

/// The steps of a language, in the order of the page.
fn steps(language: &str) -> Vec<Step<'static>> {
    let mut steps = Vec::new();
    let mut mark: Option<Vec<&str>> = None;
    let mut ours = false;
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("```") {
        let (kind, after) = after.split_once('\n').unwrap();
        let (block, after) = after.split_once("```").unwrap();
        let last = before.trim_end().lines().last().unwrap_or_default();
        if let Some(inner) = last.strip_prefix("<!-- ").and_then(|l| l.strip_suffix(" -->")) {
            mark = Some(inner.split_whitespace().collect());
        }
        match mark.take().as_deref() {
            Some([what, whose, file @ ..]) => {
                ours = ["all", language].contains(whose);
                match (ours, *what, file) {
                    (false, ..) => {}
                    (true, "run:", []) => steps.push(Step::Run(block)),
                    (true, "replace:", [file]) => steps.push(Step::Replace(file, block)),
                    (true, "write:", [file]) => steps.push(Step::Write(file, block)),
                    (true, ..) => panic!("the page has a mark that is none: {what} {whose} {file:?}"),
                }
            }
            _ if kind == "text" && ours => steps.push(Step::Shows(block)),
            _ => {}
        }
        rest = after;
    }
    steps
}

/// A line without the blanks that line up columns.
fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Follows the page.
fn follow(language: &str) {
    let folder = tempfile::Builder::new().prefix("vendor-").tempdir().unwrap();
    let command = Path::new(env!("CARGO_BIN_EXE_delegraph")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([command.to_path_buf()].into_iter().chain(std::env::split_paths(&path))).unwrap();
    let steps = steps(language);
    assert!(steps.len() >= 10, "{language}: {steps:?}");
    let mut printed = String::new();
    for step in &steps {
        match step {
            Step::Run(script) => {
                // The shell of the page keeps its variables; the test's starts anew, so that it is told the one that matters.
                let script = format!("LLAMA=$DELEGRAPH/conformance/fixtures/arch-tiny-llama\n{script}");
                let output = Command::new("sh")
                    .args(["-e", "-c", &script])
                    .current_dir(folder.path())
                    .env("PATH", &path)
                    .env("DELEGRAPH", root())
                    .env("CARGO_NET_OFFLINE", "true")
                    .env("CARGO_BUILD_JOBS", "1")
                    .env("NO_COLOR", "1")
                    .env_remove("CARGO_TARGET_DIR")
                    .env_remove("DELEGRAPH_CONFIG")
                    .output()
                    .unwrap();
                printed =
                    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{language}: {script}\n{printed}");
                assert!(!printed.contains("warning:"), "{language}: {script}\n{printed}");
            }
            Step::Replace(file, code) => {
                let file = folder.path().join(file);
                let text = std::fs::read_to_string(&file).unwrap();
                let begin = text.find("BEGIN your operators").unwrap();
                let begin = begin + text[begin..].find('\n').unwrap() + 1;
                let end = text[..text.find("END your operators").unwrap()].rfind('\n').unwrap() + 1;
                std::fs::write(&file, format!("{}{code}{}", &text[..begin], &text[end..])).unwrap();
            }
            Step::Write(file, text) => std::fs::write(folder.path().join(file), text).unwrap(),
            Step::Shows(lines) => {
                let have: Vec<String> = printed.lines().map(squeezed).collect();
                for line in lines.lines().map(squeezed) {
                    // C++ adds what it exports of its own library.
                    let shown = have
                        .iter()
                        .any(|have| *have == line || have.starts_with(&format!("{line} (and ")));
                    let runtime = language == "rust" && line.contains("ends, forks");
                    assert!(
                        shown || runtime,
                        "{language}: the page shows `{line}`, which was not printed:\n{printed}"
                    );
                }
            }
        }
    }
    refuses_and_reports(language, folder.path());
}

/// What the page does not say: a folder that is there stays, and a broken sum is found.
fn refuses_and_reports(language: &str, folder: &Path) {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_delegraph"))
            .args(arguments)
            .current_dir(folder)
            .env_remove("DELEGRAPH_CONFIG")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let (code, text) = run(&["delegate", "new", "my-npu", "--lang", language]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("is there already"), "{text}");
    // An option that it does not have is refused by the delegate itself, in its own words.
    let config = "schema = 1\n[select]\norder = ['my-npu']\nfallback = 'deny'\n[delegates]\nsearch = ['my-npu']\n[backend.my-npu]\noptions = { sped = 3 }\n";
    std::fs::write(folder.join("options.toml"), config).unwrap();
    let (code, text) = run(&[
        "delegate",
        "check",
        "my-npu/my-npu.delegate.toml",
        "--config",
        "options.toml",
    ]);
    assert_eq!(code, Some(5), "{text}");
    assert!(text.contains("`sped`"), "{text}");
    let (code, text) = run(&[
        "delegate",
        "check",
        "my-npu/my-npu.delegate.toml",
        "--no-load",
        "--json",
    ]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &json["exit_code"], &json["probe"]),
        (Some(0), &0.into(), &serde_json::Value::Null),
        "{text}"
    );
    // Against itself nothing breaks.
    let (code, text) = run(&[
        "delegate",
        "abi-diff",
        "my-npu/my-npu.delegate.toml",
        "my-npu/my-npu.delegate.toml",
    ]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("nothing breaks"), "{text}");
}

/// False, with a line, where a program of the page is not there.
fn has(language: &str, program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: the page in {language}: no {program}");
    }
    found
}

#[test]
fn the_page_holds_in_c() {
    if cfg!(unix) && has("c", "cc") && has("c", "make") {
        follow("c");
    }
}

#[test]
fn the_page_holds_in_cpp() {
    if cfg!(unix) && has("cpp", "c++") && has("cpp", "make") {
        follow("cpp");
    }
}

#[test]
fn the_page_holds_in_rust() {
    if cfg!(unix) && has("rust", "cargo") {
        follow("rust");
    }
}

/// What the README of a new delegate tells to do, done in its folder: built, looked at, shown a model, and judged by the conformance kit.
fn follow_readme(language: &str) {
    let folder = tempfile::Builder::new().prefix("vendor-").tempdir().unwrap();
    let command = Path::new(env!("CARGO_BIN_EXE_delegraph"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = [command.parent().unwrap().to_path_buf()];
    let path = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path))).unwrap();
    let sdk = root().join("delegate-sdk/sdk").display().to_string();
    let mut new = Command::new(command);
    new.args(["delegate", "new", "my-npu", "--lang", language])
        .current_dir(folder.path());
    if language == "rust" {
        new.args(["--sdk", &sdk]);
    }
    assert!(new.status().unwrap().success());
    let place = folder.path().join("my-npu");
    let readme = std::fs::read_to_string(place.join("README.md")).unwrap();
    let blocks: Vec<&str> = readme
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(
        blocks
            .last()
            .unwrap()
            .contains("delegraph conform run my-npu.delegate.toml"),
        "{readme}"
    );
    let model = root()
        .join("conformance/fixtures/arch-mlp-dynamic-batch/model.pt2")
        .display()
        .to_string();
    let mut printed = String::new();
    for block in blocks {
        let script = block.replace("MODEL.pt2", &model);
        let output = Command::new("sh")
            .args(["-e", "-c", &script])
            .current_dir(&place)
            .env("PATH", &path)
            .env("CARGO_NET_OFFLINE", "true")
            .env("CARGO_BUILD_JOBS", "1")
            .env("NO_COLOR", "1")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("DELEGRAPH_CONFIG")
            .output()
            .unwrap();
        printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{language}: {script}\n{printed}");
    }
    // What the README says of the first report.
    assert!(printed.contains("claimed 0 of 0 pass"), "{language}: {printed}");
    let report = std::fs::read_to_string(place.join("report/report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let count = |verdict: &str| report["summary"][verdict].as_u64().unwrap();
    assert!(
        count("pass") > 20 && count("skip") > count("pass"),
        "{language}: {}",
        report["summary"]
    );
    let reasons = report["cases"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["category"] == "op")
        .map(|case| &case["reason"]);
    assert!(
        reasons.clone().count() > 100
            && reasons
                .clone()
                .all(|reason| reason.as_str().is_some_and(|r| !r.is_empty()))
    );
    for file in ["report.html", "report.md", "junit.xml", "run.json", "cases.jsonl"] {
        assert!(place.join("report").join(file).is_file(), "{file}");
    }
}

#[test]
fn the_readme_holds_in_c() {
    if cfg!(unix) && has("c", "cc") && has("c", "make") {
        follow_readme("c");
    }
}

#[test]
fn the_readme_holds_in_cpp() {
    if cfg!(unix) && has("cpp", "c++") && has("cpp", "make") {
        follow_readme("cpp");
    }
}

#[test]
fn the_readme_holds_in_rust() {
    if cfg!(unix) && has("rust", "cargo") {
        follow_readme("rust");
    }
}
