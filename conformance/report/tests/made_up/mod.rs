//! A made-up run: every verdict, every claim, odd characters, as many cases as wanted. The same each time.
#![allow(dead_code, reason = "each test uses a part of it")]

use delegraph_report::Truth;
use delegraph_report::truth::sha256;
use delegraph_runner::folder::plan_sha256;
use delegraph_runner::record::WaivedBy;
use delegraph_runner::run_info::{DeviceId, KitId, LibraryId, ListId};
use delegraph_runner::{CaseRecord, Category, Claim, RunInfo, Verdict};
use std::path::Path;

/// Operators that a delegate of today meets.
const OPS: [&str; 40] = [
    "add.Tensor",
    "mul.Tensor",
    "sub.Tensor",
    "div.Tensor",
    "convolution",
    "linear",
    "addmm",
    "bmm",
    "mm",
    "_softmax",
    "_log_softmax",
    "native_layer_norm",
    "native_group_norm",
    "gelu",
    "relu",
    "sigmoid",
    "tanh",
    "silu",
    "hardswish",
    "exp",
    "log",
    "sqrt",
    "rsqrt",
    "pow.Tensor_Scalar",
    "mean.dim",
    "sum.dim_IntList",
    "amax",
    "argmax",
    "max_pool2d_with_indices",
    "avg_pool2d",
    "cat",
    "slice.Tensor",
    "permute",
    "view_copy",
    "expand_copy",
    "embedding",
    "scaled_dot_product_attention",
    "upsample_bilinear2d.vec",
    "where.self",
    "index.Tensor",
];
const DTYPES: [&str; 6] = ["f32", "f16", "bf16", "i32", "i8", "u8"];
const EDGES: [&str; 12] = [
    "plain",
    "one-element",
    "empty",
    "rank-0",
    "rank-5",
    "broadcast",
    "nan-and-infinite",
    "subnormal",
    "negative-zero",
    "channels-last",
    "odd-sizes",
    "largest",
];

/// What a bad delegate could have its reasons say.
pub const ODD: &str = "</script><script>alert(1)</script> <!-- ]]> & \"quoted\" 'single' | pipe ` tick \u{1b}[31m \u{0} \u{202e} ünïcödé 漢字 \r\nsecond line\ttab";

/// What was run.
pub fn run(cases: u64) -> RunInfo {
    RunInfo {
        schema: RunInfo::SCHEMA.to_string(),
        suite: "run".to_string(),
        kit: KitId {
            version: "0.1.0".to_string(),
            commit: "4be2ab7c51d0".to_string(),
            references_sha256: "5b".repeat(32),
        },
        host: "aarch64 android".to_string(),
        library: Some(LibraryId {
            name: "acme-npu".to_string(),
            vendor: "Acme Silicon".to_string(),
            version: "2.3.1".to_string(),
            build: "r4411".to_string(),
            file: "libacme_npu_delegate.so".to_string(),
            sha256: "c0ffee12".repeat(8),
            manifest_sha256: "ab34".repeat(16),
            dependents: vec![("libacme_rt.so".to_string(), "9d".repeat(32))],
            abi_major: 0,
            abi_minor: 2,
        }),
        devices: vec![DeviceId {
            id: 0,
            kind: "npu".to_string(),
            name: "Acme N3".to_string(),
            arch: "n3-a".to_string(),
            driver: "44.1.0".to_string(),
        }],
        device: Some(0),
        lists: vec![ListId {
            name: "core-0.9".to_string(),
            sha256: "77aa".repeat(16),
            cases,
        }],
        cases_sha256: String::new(),
        cases,
        mode: "test".to_string(),
        seed: 42,
        waivers_sha256: Some("d1".repeat(32)),
        started: "2026-11-22T10:00:00Z".to_string(),
        finished: Some("2026-11-22T10:31:12Z".to_string()),
        ..RunInfo::default()
    }
}

/// So many cases; with `failing`, all nine verdicts are among them, else only passes and skips of what is not claimed.
pub fn cases(count: usize, failing: bool) -> Vec<CaseRecord> {
    (0..count).map(|i| case(i, failing)).collect()
}

fn case(i: usize, failing: bool) -> CaseRecord {
    // A step through all combinations in an order that looks mixed.
    let mixed = i * 37 + i / 211;
    let numeric = i % 10 < 8;
    let category = match numeric {
        true => [
            Category::Op,
            Category::Op,
            Category::Op,
            Category::Quantized,
            Category::Dynamic,
        ][i % 5],
        false => Category::ALL[(i / 10) % 16],
    };
    let (op, dtype) = (OPS[(i / 6) % OPS.len()], DTYPES[i % DTYPES.len()]);
    let edge = EDGES[(i / 240) % EDGES.len()];
    let name = match numeric {
        true => format!("{}/aten::{op}/{dtype}/{edge}-{i}", category.name()),
        false => format!("{}/{edge}-{i}", category.name()),
    };
    let unclaimed = numeric && (dtype == "bf16" || (dtype == "i32" && (i / 6).is_multiple_of(3)));
    let verdict = match (failing, unclaimed) {
        (_, true) => Verdict::Skip,
        (false, false) => Verdict::Pass,
        (true, false) => match mixed % 211 {
            0 | 1 => Verdict::Fail,
            2 => Verdict::FailClaimed,
            3 => Verdict::Crash,
            4 => Verdict::Hang,
            5 => Verdict::Waived,
            6 => Verdict::Flaky,
            7 => Verdict::QualityWarning,
            8 => Verdict::Skip,
            _ => Verdict::Pass,
        },
    };
    let mut case = CaseRecord::new(name, verdict, reason(verdict, unclaimed, i));
    case.category = category.name().to_string();
    case.claim = match (numeric, unclaimed) {
        (false, _) => Claim::Unknown,
        (true, true) => Claim::None,
        (true, false) if mixed.is_multiple_of(5) => Claim::Taken,
        (true, false) => Claim::Claimed,
    };
    if verdict == Verdict::Waived {
        case.waiver = Some(WaivedBy {
            reason: "the exponential of this driver has 8 bits".to_string(),
            issue: "https://issues.example/1234".to_string(),
            expires: "2027-01-31".to_string(),
            approver: "Jo Doe".to_string(),
        });
    }
    if verdict == Verdict::FailClaimed {
        case.claim = Claim::Claimed;
    }
    if numeric {
        case.op = format!("aten::{op}");
        case.dtype = dtype.to_string();
        case.shapes = format!("[1,{},8,8] [{},3,3,3]", 1 + i % 7, 1 + i % 5);
        case.tolerance = "atol 1e-5 + rtol 1.3e-6".to_string();
        case.max_abs = (mixed % 1000) as f64 * if verdict == Verdict::Fail { 1.37e-3 } else { 7.1e-9 };
        case.max_rel = case.max_abs * 3.7;
        case.snr_db = Some(90.0 - (mixed % 300) as f64 / 10.0);
        case.delegated_nodes = 1;
    }
    case.delegate = "acme-npu".to_string();
    case.delegate_version = "2.3.1".to_string();
    case.device = "Acme N3".to_string();
    case.driver = "44.1.0".to_string();
    case.total_ms = 3.0 + (mixed % 977) as f64 * 0.173;
    if category == Category::Performance {
        case.p50_us = Some(120.0 + (mixed % 100) as f64);
        case.p95_us = Some(180.0 + (mixed % 100) as f64);
        case.measured.insert("boundary_bytes".to_string(), 4096.0);
    }
    case.repro = format!(
        "delegraph conform run ./libacme_npu_delegate.so --device 0 --seed 42 --case '{}'",
        case.id
    );
    if verdict.is_failure() {
        case.bundle = format!("bundles/{}", case.id.replace('/', "__"));
    }
    case
}

fn reason(verdict: Verdict, unclaimed: bool, i: usize) -> String {
    match verdict {
        Verdict::Pass => String::new(),
        Verdict::Skip if unclaimed => "the delegate refuses: no arithmetic in this dtype".to_string(),
        Verdict::Skip => "no device of this kind".to_string(),
        Verdict::Fail if i % 4 == 1 => ODD.to_string(),
        Verdict::Fail => format!("{} of 192 elements differ, the first at {}: got 0.7312, want 0.7004; max_abs 3.1e-2 > atol 1e-5 + rtol 1.3e-6", 1 + i % 192, i % 64),
        Verdict::FailClaimed => "the manifest claims it, the delegate refuses it: rank above 4".to_string(),
        Verdict::Waived => {
            "fail: 3 of 192 elements differ; waived until 2027-01-31: the exponential of this driver has 8 bits (https://issues.example/1234; approved by Jo Doe)"
                .to_string()
        }
        Verdict::Crash => "signal: 11 (SIGSEGV): last words: acme_rt: assertion `tile != NULL` failed".to_string(),
        Verdict::Hang => "still running after 30 s".to_string(),
        Verdict::Flaky => "failed first (1 of 192 elements differ), passed when run again".to_string(),
        Verdict::QualityWarning => "within the tolerance of f16, but 4 times the error of a careful implementation".to_string(),
    }
}

/// The waiver that the waived cases are waived by.
pub const WAIVERS: &str = r#"[[waiver]]
vendor = "Acme*"
cases = ["*"]
reason = "the exponential of this driver has 8 bits"
issue = "https://issues.example/1234"
expires = "2027-01-31"
approver = "Jo Doe"
"#;

/// Writes the truth of a run into a folder.
pub fn write(folder: &Path, run: &RunInfo, cases: &[CaseRecord]) {
    let plan: Vec<String> = cases.iter().map(|case| case.id.clone()).collect();
    let mut run = run.clone();
    run.cases_sha256 = plan_sha256(&plan);
    run.cases = plan.len() as u64;
    delegraph_runner::folder::write(folder, &run, &plan, cases).expect("the folder is written");
}

/// Writes all that a submission needs, but for the views: the run's hashes are those of the files.
pub fn write_submission(folder: &Path, run: &RunInfo, cases: &[CaseRecord]) {
    let mut run = run.clone();
    std::fs::create_dir_all(folder).expect("the folder is made");
    let file = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).expect("a file is written");
        sha256(text.as_bytes())
    };
    if let Some(library) = &mut run.library {
        library.sha256 = file(&library.file, "not really a library");
        library.dependents[0].1 = file("libacme_rt.so", "nor this");
        library.manifest_sha256 = file("acme.delegate.toml", "name = \"acme-npu\"");
    }
    run.waivers_sha256 = Some(file("waivers.toml", WAIVERS));
    for case in cases.iter().filter(|case| !case.bundle.is_empty()) {
        std::fs::create_dir_all(folder.join(&case.bundle)).expect("a bundle is made");
        file(&format!("{}/repro.sh", case.bundle), &case.repro);
    }
    write(folder, &run, cases);
    let statement = delegraph_report::statement::template(&Truth::read(folder).expect("the run is read"));
    let statement = ["Submitter", "Contact", "Product", "Signed"]
        .iter()
        .fold(statement, |text, field| {
            text.replace(&format!("{field}: "), &format!("{field}: somebody"))
        });
    file("statement.md", &statement.replace("Date: ", "Date: 2026-11-23"));
}
