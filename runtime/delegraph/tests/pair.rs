//! A delegate that comes as two libraries: one compiles, by an external program in a worker's sandbox; the other runs.
#![cfg(target_os = "linux")]

mod common;

use common::fixture;
use common::worker::{built, host, lacks};
use delegraph::Session;
use delegraph_config::Config;
use delegraph_host::{CallOptions, Progress, Status, Weights};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn skipped() -> bool {
    lacks(&[
        "delegraph-worker",
        "libpair_compiler.so",
        "libpair_runtime.so",
        "pair-tool",
    ])
}

/// The delegate as a vendor would install it: manifests, libraries and the tool in one folder a half.
struct Installed(tempfile::TempDir);

impl Installed {
    fn new() -> Installed {
        let installed = Installed(tempfile::tempdir().unwrap());
        let pair = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/pair");
        for half in ["compiler", "runtime"] {
            let folder = installed.folder(half);
            std::fs::create_dir(&folder).unwrap();
            let manifest = format!("pair-{half}.delegate.toml");
            std::fs::copy(pair.join(half).join(&manifest), folder.join(&manifest)).unwrap();
            let library = format!("libpair_{half}.so");
            std::fs::copy(built().join(&library), folder.join(&library)).unwrap();
        }
        std::fs::copy(
            built().join("pair-tool"),
            installed.folder("compiler").join("pair-tool"),
        )
        .unwrap();
        installed
    }

    fn folder(&self, half: &str) -> PathBuf {
        self.0.path().join(half)
    }

    /// A configuration that searches these folders.
    fn config(&self, halves: &[&str], options: &str) -> Config {
        let search: Vec<String> = halves
            .iter()
            .map(|half| self.folder(half).display().to_string())
            .collect();
        common::config(&format!(
            "schema = 1\n[select]\norder = ['pair']\n[delegates]\nsearch = {search:?}\nworker = '{}'\n[backend.pair]\n\
             options = {{ tool = '{}' {options} }}\n",
            built().join("delegraph-worker").display(),
            self.folder("compiler").join("pair-tool").display(),
        ))
    }
}

const MODEL: &str = "arch-mlp-dynamic-batch";

fn right(session: &mut Session) {
    common::check(session, &fixture(MODEL));
}

#[test]
fn two_libraries_are_one_delegate() {
    if skipped() {
        return;
    }
    let installed = Installed::new();
    for order in [["compiler", "runtime"], ["runtime", "compiler"]] {
        let config = installed.config(&order, "");
        let host = host(&config);
        let delegate = host.delegate("pair").unwrap();
        assert!(delegate.info().compiles && delegate.info().runs);
        assert_eq!(delegate.isolation(), "worker (compile), in process (run)");
        let mut session = common::open(&common::source(MODEL), &config, &host).unwrap();
        right(&mut session);
        let report = session.report();
        assert!(
            report.delegated_nodes() > 0 && report.fallbacks() == 0,
            "{}",
            report.why_portable()
        );
    }
}

#[test]
fn what_one_machine_compiles_another_runs_without_the_compiler() {
    if skipped() {
        return;
    }
    let installed = Installed::new();
    let build = installed.config(&["compiler"], "");
    let compiled = common::compiled(MODEL, &build, &host(&build));
    let device = installed.config(&["runtime"], "");
    let mut session = common::open(&compiled, &device, &host(&device)).unwrap();
    right(&mut session);
    assert_eq!(session.report().fallbacks(), 0, "{}", session.report().why_portable());
    assert!(session.report().delegated_nodes() > 0);
    // With neither, it runs portably.
    let nobody = installed.config(&[], "");
    let mut session = common::open(&compiled, &nobody, &host(&nobody)).unwrap();
    right(&mut session);
    assert_eq!(session.report().delegated_nodes(), 0);
}

struct NoWeights;

impl Weights for NoWeights {
    fn bytes(&self, _: u32) -> Option<&[u8]> {
        None
    }
}

fn image() -> Vec<u8> {
    use delegraph_abi::image::{Arg, ImageBuilder, Type};
    let mut image = ImageBuilder::new("forward");
    let four = image.int(4);
    let ty = Type::tensor(delegraph_abi::DType::F32, &[four]);
    let x = image.input("x", &ty);
    let y = image.node("relu", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
    image.output(y);
    image.finish().unwrap()
}

#[test]
fn the_tool_is_heard_and_can_be_stopped() {
    if skipped() {
        return;
    }
    let installed = Installed::new();
    let config = installed.config(&["compiler"], ", delay_ms = 200");
    let delegate = host(&config).delegate("pair").unwrap();
    let steps = Mutex::new(Vec::new());
    let hear = |progress: Progress<'_>| {
        steps
            .lock()
            .unwrap()
            .push(format!("{}/{} {}", progress.done, progress.total, progress.text))
    };
    let options = CallOptions {
        progress: Some(&hear),
        ..CallOptions::default()
    };
    delegate.compile_with(&image(), &NoWeights, "", &options).unwrap();
    let heard = steps.lock().unwrap().join(", ");
    assert_eq!(heard, "1/5 reading, 2/5 fusing, 3/5 layout, 4/5 packing, 5/5 writing");

    let stop = AtomicBool::new(false);
    let cancelled = || stop.load(Ordering::Relaxed);
    let options = CallOptions {
        cancel: Some(&cancelled),
        ..CallOptions::default()
    };
    let started = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(150));
            stop.store(true, Ordering::Relaxed);
        });
        let error = delegate.compile_with(&image(), &NoWeights, "", &options).unwrap_err();
        assert_eq!(error.code, Status::CANCELLED, "{error}");
        assert!(error.message.contains("nobody wants its result"), "{error}");
    });
    assert!(
        started.elapsed() < Duration::from_millis(900),
        "it did not wait for the tool's end"
    );
    let options = CallOptions {
        deadline: Some(Instant::now() + Duration::from_millis(150)),
        ..CallOptions::default()
    };
    let error = delegate.compile_with(&image(), &NoWeights, "", &options).unwrap_err();
    assert_eq!(error.code, Status::TIMEOUT, "{error}");
}

#[test]
fn without_the_allowances_the_tool_cannot_be_started() {
    if skipped() {
        return;
    }
    // The same library under a manifest that asks for nothing.
    let installed = Installed::new();
    let manifest = installed.folder("compiler").join("pair-compiler.delegate.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.split_once("[sandbox]").unwrap().0).unwrap();
    let config = installed.config(&["compiler"], "");
    let delegate = host(&config).delegate("pair").unwrap();
    let error = delegate.compile(&image(), &NoWeights, "").unwrap_err();
    let words = ["cannot be started", "cannot be written"];
    assert!(words.iter().any(|words| error.message.contains(words)), "{error}");
}
