//! The cases of the categories abi, lifecycle, partition, blob and bad-input over delegates that are built with them, each in a process of
//! its own: this test's executable, which is told which case to run.

use delegraph_kit::case::{self, Case};
use delegraph_kit::categories;
use delegraph_kit::subject::{Subject, SubjectRequest};
use delegraph_runner::{CaseRecord, Category, Verdict};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a child is told in.
const CASE: &str = "DELEGRAPH_KIT_TEST_CASE";
const REQUEST: &str = "DELEGRAPH_KIT_TEST_REQUEST";
const ANSWER: &str = "DELEGRAPH_KIT_TEST_ANSWER";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

fn cases() -> Vec<&'static Case> {
    let mine = [
        Category::Abi,
        Category::Lifecycle,
        Category::Partition,
        Category::Blob,
        Category::BadInput,
    ];
    let is_mine = |case: &&Case| Category::of(case.id).is_some_and(|category| mine.contains(&category));
    categories::cases().filter(is_mine).collect()
}

/// A library of this build beside a copy of its manifest, in a folder of its own.
fn placed(folder: &Path, name: &str, manifest: &str) -> SubjectRequest {
    let target = std::env::current_exe().unwrap();
    let file = format!("lib{name}_delegate.so");
    let library = target.ancestors().nth(2).unwrap().join(&file);
    assert!(
        library.is_file(),
        "`{}` is built first: cargo build -p delegraph-reference-plugin -p delegraph-null-plugin -p delegraph-fault -p delegraph-double",
        library.display()
    );
    std::fs::copy(&library, folder.join(&file)).unwrap();
    let written = folder.join(format!("{name}.delegate.toml"));
    std::fs::write(&written, manifest).unwrap();
    SubjectRequest {
        file: written,
        device: None,
        options: Default::default(),
        isolated: false,
    }
}

fn manifest(name: &str) -> String {
    std::fs::read_to_string(root().join(format!("delegates/{name}/{name}.delegate.toml"))).unwrap()
}

/// A child: one case, if it was told of one.
#[test]
fn one_case() {
    let (Ok(id), Ok(request), Ok(answer)) = (std::env::var(CASE), std::env::var(REQUEST), std::env::var(ANSWER)) else {
        return;
    };
    // A delegate that takes what an odd image asks for must not take this machine's memory.
    let most = Some(8 << 30);
    let limit = rustix::process::Rlimit {
        current: most,
        maximum: most,
    };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
    let request: SubjectRequest = serde_json::from_str(&request).unwrap();
    let subject = Subject::open(&request).unwrap();
    let case = categories::cases().find(|case| case.id == id).unwrap();
    let (record, _) = case::run(case.id, &subject, 1, case.run);
    std::fs::write(answer, serde_json::to_vec(&record).unwrap()).unwrap();
}

fn run_one(case: &Case, request: &str, folder: &Path) -> CaseRecord {
    let answer = folder.join(case.id.replace('/', "__"));
    let errors = answer.with_extension("stderr");
    let _ = std::fs::remove_file(&answer);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["one_case", "--exact", "--nocapture", "--test-threads=1"])
        .env(CASE, case.id)
        .env(REQUEST, request)
        .env(ANSWER, &answer)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&errors).unwrap())
        .spawn()
        .unwrap();
    let started = Instant::now();
    // Many tests share the machine: four times what the case is given.
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if started.elapsed() > Duration::from_secs(4 * case.limit) => {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let words = String::from_utf8_lossy(&std::fs::read(&errors).unwrap()).into_owned();
    let last = words.lines().rev().take(6).collect::<Vec<_>>().join(" | ");
    let verdict = match status {
        None => Verdict::Hang,
        // A library that calls `exit(0)` ends it well, and without an answer.
        Some(status) => match std::fs::read(&answer) {
            Ok(bytes) if status.success() => return serde_json::from_slice(&bytes).unwrap(),
            _ => Verdict::Crash,
        },
    };
    let verdict = if case.hardening {
        Verdict::QualityWarning
    } else {
        verdict
    };
    CaseRecord::new(case.id, verdict, format!("{status:?}: {last}"))
}

/// Every case; two at a time.
fn run_all(request: &SubjectRequest, folder: &Path, only: impl Fn(&str) -> bool) -> Vec<CaseRecord> {
    let request = serde_json::to_string(request).unwrap();
    let cases: Vec<&Case> = cases().into_iter().filter(|case| only(case.id)).collect();
    let records: Mutex<Vec<(usize, CaseRecord)>> = Mutex::default();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((at, case)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    cases.get(at).map(|case| (at, case))
                } {
                    let record = run_one(case, &request, folder);
                    records.lock().unwrap().push((at, record));
                }
            });
        }
    });
    let mut records = records.into_inner().unwrap();
    records.sort_by_key(|(at, _)| *at);
    for (_, record) in &records {
        println!(
            "{:<16} {:<34} {:>7.0} ms  {} {:?}",
            record.verdict.name(),
            record.id,
            record.total_ms,
            record.reason,
            record.measured
        );
    }
    records.into_iter().map(|(_, record)| record).collect()
}

fn of(records: &[CaseRecord], verdicts: &[Verdict]) -> Vec<String> {
    let hit = records.iter().filter(|record| verdicts.contains(&record.verdict));
    hit.map(|record| format!("{}: {}", record.id, record.reason)).collect()
}

fn ids(records: &[CaseRecord], verdict: Verdict) -> Vec<&str> {
    let hit = records.iter().filter(|record| record.verdict == verdict);
    hit.map(|record| record.id.as_str()).collect()
}

const BAD: [Verdict; 4] = [Verdict::Fail, Verdict::FailClaimed, Verdict::Crash, Verdict::Hang];

#[test]
fn reference_passes_all_that_applies_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let request = placed(folder.path(), "reference", &manifest("reference"));
    let records = run_all(&request, folder.path(), |_| true);
    assert_eq!(of(&records, &BAD), Vec::<String>::new());
    // It has no options, states no range of drivers and no targets, and compiles graphs one by one; claims it may have or not. Cases begin no other
    // process here: `conform run` does, and asks whether it compiles to the same there.
    let skipped = [
        "abi/options-schema",
        "abi/options-type",
        "lifecycle/options-differ",
        "blob/reproducible",
        "blob/check-driver",
        "blob/check-target",
        "blob/compile-set",
    ];
    let skips = ids(&records, Verdict::Skip);
    let claims = |id: &&str| !id.starts_with("partition/claims");
    assert_eq!(skips.into_iter().filter(claims).collect::<Vec<_>>(), skipped);
    assert_eq!(of(&records, &[Verdict::QualityWarning]), Vec::<String>::new());
}

#[test]
fn the_double_passes_with_every_feature() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = std::fs::read_to_string(root().join("conformance/double/double.delegate.toml")).unwrap();
    let request = placed(folder.path(), "double", &manifest);
    let records = run_all(&request, folder.path(), |_| true);
    assert_eq!(of(&records, &BAD), Vec::<String>::new());
    assert_eq!(of(&records, &[Verdict::QualityWarning]), Vec::<String>::new());
}

#[test]
fn null_fails_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let request = placed(folder.path(), "null", &manifest("null"));
    let records = run_all(&request, folder.path(), |_| true);
    assert_eq!(of(&records, &BAD), Vec::<String>::new());
    assert_eq!(of(&records, &[Verdict::QualityWarning]), Vec::<String>::new());
    let passed = ids(&records, Verdict::Pass);
    for needed in [
        "abi/table",
        "abi/oldest-host",
        "lifecycle/thousand-cycles",
        "partition/every-node",
        "partition/ten-thousand-nodes",
    ] {
        assert!(passed.contains(&needed), "{needed} is not among {passed:?}");
    }
}

#[test]
fn fault_passes_until_it_is_told_to_fail() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = std::fs::read_to_string(root().join("conformance/fault/fault.delegate.toml")).unwrap();
    let mut request = placed(folder.path(), "fault", &manifest);
    let records = run_all(&request, folder.path(), |_| true);
    assert_eq!(of(&records, &BAD), Vec::<String>::new());
    let mut fail = |at: &str, how: &str, case: &str| {
        request.options.insert("at".to_string(), at.into());
        request.options.insert("how".to_string(), how.into());
        let record = run_all(&request, folder.path(), |id| id == case).remove(0);
        (record.verdict, record.reason)
    };
    let (verdict, reason) = fail("execute", "wrong", "lifecycle/again");
    assert_eq!(verdict, Verdict::Fail, "{reason}");
    assert!(reason.contains("element 0 is"), "{reason}");
    let (verdict, reason) = fail("partition", "panic", "partition/every-node");
    assert_eq!(verdict, Verdict::Fail, "{reason}");
    assert!(reason.contains("`partition` gave INTERNAL"), "{reason}");
    let (verdict, reason) = fail("load", "segfault", "blob/truncated");
    assert_eq!(verdict, Verdict::Crash, "{reason}");
    let (verdict, reason) = fail("new", "exit", "abi/devices");
    assert_eq!(verdict, Verdict::Crash, "{reason}");
}

/// Builds a template in C with what is beside it; `None` where there is no compiler.
fn template(folder: &Path, operators: Option<&str>) -> Option<SubjectRequest> {
    let from = root().join("delegate-sdk/templates/c");
    for entry in std::fs::read_dir(&from).unwrap().flatten() {
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    if let Some(operators) = operators {
        let path = folder.join("ops.c");
        let source = std::fs::read_to_string(&path).unwrap();
        let end = "    {0, NULL, 0, NULL, NULL}, /* ends the table */";
        assert!(source.contains(end));
        let rows =
            "    {1, DG_OP_ATEN_ADD_TENSOR, 2, alpha_is_not_one, add},\n    {2, DG_OP_ATEN_RELU, 1, NULL, relu},\n";
        let source = source.replace(end, &format!("{rows}{end}"));
        let source = source.replace(
            "static const my_npu_op ops[]",
            &format!("{operators}\nstatic const my_npu_op ops[]"),
        );
        std::fs::write(&path, source).unwrap();
    }
    let mut sources: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
    let built = Command::new("cc")
        .args(["-std=c99", "-O1", "-fPIC", "-fvisibility=hidden", "-shared", "-o"])
        .arg(folder.join("libmy_npu_delegate.so"))
        .arg("-I")
        .arg(root().join("delegate-sdk/include"))
        .args(sources)
        .status();
    if !built.is_ok_and(|status| status.success()) {
        return None;
    }
    Some(SubjectRequest {
        file: folder.join("my-npu.delegate.toml"),
        device: None,
        options: Default::default(),
        isolated: false,
    })
}

const OPERATORS: &str = r#"
static const char *alpha_is_not_one(const dg_image *graph, uint32_t node) {
    int64_t alpha;
    return dg_image_arg_int(dg_image_node_arg(graph, node, 2), &alpha) && alpha == 1 ? NULL : "alpha is not 1";
}
static void add(uint64_t count, const float *a, const float *b, float *out) {
    for (uint64_t i = 0; i < count; i++) out[i] = a[i] + b[i];
}
static void relu(uint64_t count, const float *a, const float *b, float *out) {
    (void)b;
    for (uint64_t i = 0; i < count; i++) out[i] = a[i] < 0 ? 0 : a[i];
}
"#;

#[test]
fn the_template_in_c_fails_nothing() {
    for operators in [None, Some(OPERATORS)] {
        let folder = tempfile::tempdir().unwrap();
        let Some(request) = template(folder.path(), operators) else {
            println!("skipped: the template in C: there is no cc that builds it");
            return;
        };
        let records = run_all(&request, folder.path(), |_| true);
        assert_eq!(of(&records, &BAD), Vec::<String>::new());
        assert_eq!(of(&records, &[Verdict::QualityWarning]), Vec::<String>::new());
    }
}

/// The rows of a page that the sources know.
fn section(category: Category) -> String {
    let mut text = format!(
        "## {}\n\n| case | the rule, and what a failure breaks |\n| --- | --- |\n",
        category.name()
    );
    for case in categories::cases().filter(|case| Category::of(case.id) == Some(category)) {
        let hardening = if case.hardening { " *(hardening)*" } else { "" };
        text.push_str(&format!("| `{}` | {}{hardening} |\n", case.id, case.about));
    }
    text
}

#[test]
fn the_page_of_cases_is_up_to_date() {
    let path = root().join("vendor-docs/conformance-cases.md");
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    let (begin, end) = ("<!-- cases: generated -->\n", "<!-- end of cases -->");
    let sections: Vec<String> = Category::ALL
        .into_iter()
        .filter(|category| categories::cases().any(|case| Category::of(case.id) == Some(*category)))
        .map(section)
        .collect();
    let (before, rest) = page.split_once(begin).unwrap_or((&page, ""));
    let behind = rest.split_once(end).map_or("\n", |(_, behind)| behind);
    let right = format!("{before}{begin}\n{}\n{end}{behind}", sections.join("\n"));
    if page != right {
        if std::env::var_os("DELEGRAPH_UPDATE").is_some() {
            std::fs::write(&path, right).unwrap();
            return;
        }
        panic!(
            "`{}` is not what the sources say: DELEGRAPH_UPDATE=1 cargo test -p delegraph-kit --test categories_a page",
            path.display()
        );
    }
}

#[test]
fn ids_are_unique_and_of_a_category() {
    let mut seen: Vec<&str> = categories::cases().map(|case| case.id).collect();
    assert!(seen.iter().all(|id| Category::of(id).is_some()));
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count);
}
