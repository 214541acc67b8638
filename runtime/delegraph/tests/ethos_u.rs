//! The Ethos-U delegate as apps have it: its compiler, an external program, in the sandbox of a worker; its command streams on the interpreter, here.
//!
//! Most tests have a shell script in Vela's place. Those with Vela itself need `cargo xtask provision ethos-u`, and print that they were skipped
//! where it is not; the worker and the library are built by `cargo xtask test` before the tests.
#![cfg(target_os = "linux")]

mod common;

use common::fixture;
use common::worker::{built, host, lacks};
use delegraph_config::Config;
use delegraph_host::{CallOptions, Delegate, DelegateError, Partition, Pass, Progress, Status, Weights};
use delegraph_lower::{Backend, LowerOptions, lower_with};
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const MODEL: &str = "arch-int8-convnet";
/// One step of the output's quantization: Vela's rounding sends halves upwards, PyTorch's to even.
const STEP: f64 = 0.0024;
const PLACES: &str = "worker (compile), in process (run)";

fn skipped() -> bool {
    lacks(&["delegraph-worker", "libethos_u_delegate.so"])
}

/// Vela, where it was provisioned.
fn vela() -> Option<PathBuf> {
    let found = built().parent().map(|target| target.join("provision/ethos-u/bin/vela"));
    let found = found.filter(|vela| vela.is_file());
    if found.is_none() {
        println!("skipped: Vela is not here; `cargo xtask provision ethos-u` brings it");
    }
    found
}

fn config(vela: &Path, settings: &str) -> Config {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../delegates/ethos-u/ethos-u.delegate.toml");
    common::config(&format!(
        "schema = 1\n[select]\norder = ['ethos-u']\n[delegates]\nworker = '{}'\n[backend.ethos-u]\nlibrary = '{}'\n{settings}\n\
         options = {{ vela = '{}' }}\n",
        built().join("delegraph-worker").display(),
        manifest.display(),
        vela.display(),
    ))
}

/// Runs the model; the outputs are those of eager PyTorch, to one step.
fn check(session: &mut delegraph::Session) {
    let mut fixture = fixture(MODEL);
    fixture.tolerance.atol = STEP;
    common::check(session, &fixture);
}

/// A script in Vela's place, in a folder of its own.
struct Script {
    folder: tempfile::TempDir,
    file: PathBuf,
}

impl Script {
    fn new(compile: &str) -> Script {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("vela");
        let text = format!("#!/bin/sh\nif [ \"$1\" = --version ]; then echo made up; exit 0; fi\n{compile}\n");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        Script { folder, file }
    }

    /// One that does not end by itself.
    fn endless() -> Script {
        Script::new("while :; do :; done")
    }

    /// Processes that compile by it, as folders of `/proc`: not those that only say its version.
    fn processes(&self) -> Vec<PathBuf> {
        let name = self.file.display().to_string();
        let runs = |process: &PathBuf| {
            let words = std::fs::read(process.join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words);
            words.contains(&name) && !words.contains("--version")
        };
        let all = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .map(|process| process.path());
        all.filter(runs).collect()
    }

    fn running(&self) -> usize {
        self.processes().len()
    }

    /// Who started it.
    fn parents(&self) -> Vec<rustix::process::Pid> {
        let parent = |process: PathBuf| {
            let status = std::fs::read_to_string(process.join("status")).ok()?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("PPid:"))?
                .trim()
                .parse()
                .ok()?;
            rustix::process::Pid::from_raw(line)
        };
        self.processes().into_iter().filter_map(parent).collect()
    }

    fn wait_until_running(&self, wanted: bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while (self.running() > 0) != wanted {
            assert!(
                Instant::now() < until,
                "the program is{} running",
                if wanted { " not" } else { " still" }
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What a delegate was asked to compile.
#[derive(Default, Clone)]
struct Asked {
    image: Vec<u8>,
    weights: BTreeMap<u32, Vec<u8>>,
}

impl Weights for Asked {
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.weights.get(&id).map(Vec::as_slice)
    }

    fn ids(&self) -> Vec<u32> {
        self.weights.keys().copied().collect()
    }
}

/// Keeps what is to be compiled, and refuses it.
struct Keeps(Arc<Delegate>, Arc<Mutex<Asked>>);

impl Backend for Keeps {
    fn name(&self) -> &str {
        self.0.backend()
    }

    fn passes(&self) -> &[Pass] {
        Delegate::passes(&self.0)
    }

    fn partition(&self, image: &[u8], target: &str) -> Result<Partition, DelegateError> {
        Delegate::partition(&self.0, image, target)
    }

    fn compile(&self, image: &[u8], weights: &dyn Weights, _: &str) -> Result<Vec<u8>, DelegateError> {
        let bytes = |id: u32| Some((id, weights.bytes(id)?.to_vec()));
        let mut asked = self.1.lock().unwrap();
        if asked.image.len() < image.len() {
            *asked = Asked {
                image: image.to_vec(),
                weights: weights.ids().into_iter().filter_map(bytes).collect(),
            };
        }
        Err(DelegateError {
            backend: "ethos-u".into(),
            code: Status::DEPENDENCY_MISSING,
            vendor_code: 0,
            node: None,
            message: "kept".to_string(),
            hint: String::new(),
        })
    }
}

/// The largest region of the model, as the delegate is given it.
fn region(delegate: &Arc<Delegate>) -> Asked {
    let mut module = delegraph::import(&common::source(MODEL)).unwrap();
    let asked = Arc::new(Mutex::new(Asked::default()));
    let options = LowerOptions {
        backends: vec!["ethos-u".to_string()],
        ..LowerOptions::default()
    };
    let backend: Box<dyn Backend> = Box::new(Keeps(delegate.clone(), asked.clone()));
    lower_with(
        &mut module,
        &options,
        vec![("ethos-u".to_string(), Ok(backend))],
        &mut |_| {},
    )
    .unwrap();
    let kept = asked.lock().unwrap().clone();
    assert!(!kept.image.is_empty(), "nothing was to be compiled");
    kept
}

#[test]
fn vela_is_heard_of_and_ended_when_nobody_wants_its_result() {
    if skipped() {
        return;
    }
    for isolation in [
        "",
        "isolation = 'worker'",
        "isolation = 'in_process'",
        "sandbox = 'off'",
    ] {
        let script = Script::endless();
        let delegate = host(&config(&script.file, isolation)).delegate("ethos-u").unwrap();
        let region = region(&delegate);
        let (heard, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let hear = |progress: Progress<'_>| heard.lock().unwrap().push(progress.text.to_string());
        let cancelled = || stop.load(Ordering::Relaxed);
        let options = CallOptions {
            cancel: Some(&cancelled),
            progress: Some(&hear),
            ..CallOptions::default()
        };
        let error = std::thread::scope(|scope| {
            scope.spawn(|| {
                script.wait_until_running(true);
                std::thread::sleep(Duration::from_millis(1200));
                stop.store(true, Ordering::Relaxed);
            });
            delegate.compile_with(&region.image, &region, "", &options).unwrap_err()
        });
        assert_eq!(error.code, Status::CANCELLED, "{isolation}: {error}");
        assert_eq!(script.running(), 0, "{isolation}");
        let heard = heard.into_inner().unwrap();
        assert!(
            heard.iter().any(|text| text == "Vela compiles the region, 1 s"),
            "{isolation}: {heard:?}"
        );

        let options = CallOptions {
            deadline: Some(Instant::now() + Duration::from_millis(300)),
            ..CallOptions::default()
        };
        let error = delegate.compile_with(&region.image, &region, "", &options).unwrap_err();
        assert_eq!(error.code, Status::TIMEOUT, "{isolation}: {error}");
        assert_eq!(script.running(), 0, "{isolation}");
    }
}

#[test]
fn vela_ends_with_its_worker() {
    if skipped() {
        return;
    }
    let script = Script::endless();
    let delegate = host(&config(&script.file, "")).delegate("ethos-u").unwrap();
    let region = region(&delegate);
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            script.wait_until_running(true);
            let workers = script.parents();
            assert!(!workers.is_empty(), "nobody started it");
            for worker in workers {
                let _ = rustix::process::kill_process(worker, rustix::process::Signal::KILL);
            }
        });
        delegate.compile(&region.image, &region, "").unwrap_err()
    });
    assert_eq!(error.code, Status::NOT_READY, "{error}");
    script.wait_until_running(false);
}

#[test]
fn the_sandbox_lets_vela_start_and_nothing_else() {
    if skipped() {
        return;
    }
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "secret\n").unwrap();
    let script = Script::new(&format!(
        "/bin/cat /etc/hostname >/dev/null 2>&1; cat=$?\n\
         (read x < {secret}) 2>/dev/null; read=$?\n\
         (: >> {secret}) 2>/dev/null; write=$?\n\
         (: > \"$TMPDIR/own\") 2>/dev/null; own=$?\n\
         (kill -0 {parent}) 2>/dev/null; signal=$?\n\
         echo \"Error: cat $cat, read $read, write $write, own $own, signal $signal\"; exit 1",
        secret = secret.path().display(),
        parent = std::process::id(),
    ));
    let said = |settings: &str| {
        let delegate = host(&config(&script.file, settings)).delegate("ethos-u").unwrap();
        let region = region(&delegate);
        delegate.compile(&region.image, &region, "").unwrap_err().message
    };
    let closed = said("");
    assert!(closed.contains("cat 126, read 2, write 2, own 0"), "{closed}");
    // As far as the kernel has it.
    let scoped = signals_are_kept_in();
    assert!(!scoped || closed.contains("signal 1"), "{closed}");
    let open = said("sandbox = 'off'");
    assert!(open.contains("cat 0, read 0, write 0, own 0, signal 0"), "{open}");
    drop(script.folder);
}

/// Landlock keeps signals in from Linux 6.12 on.
fn signals_are_kept_in() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(12))
}

#[test]
fn without_vela_the_model_runs_portably_and_says_how_to_get_it() {
    if skipped() {
        return;
    }
    let config = config(Path::new("/no/such/vela"), "");
    let host = host(&config);
    let module = delegraph::import(&common::source(MODEL)).unwrap();
    let mut tried = 0;
    let compiled = delegraph::compile(module, &config, &host, &mut |step| {
        tried += u32::from(matches!(step, delegraph_lower::Progress::Compiling { .. }));
    })
    .unwrap();
    // Nobody looks for a culprit among the nodes.
    assert_eq!(tried, 1);
    let problems: Vec<&str> = compiled.report.graphs[0]
        .problems
        .iter()
        .map(|p| p.message.as_str())
        .collect();
    assert!(
        problems[0].contains("`/no/such/vela`") && problems[0].contains("install `ethos-u-vela` with pip"),
        "{problems:?}"
    );
    let source = delegraph::Source::from_bytes(compiled.bytes, "convnet.pte".to_string());
    let mut session = common::open(&source, &config, &host).unwrap();
    check(&mut session);
    assert_eq!(session.report().delegated_nodes(), 0);
}

#[test]
fn an_app_that_only_runs_needs_no_worker() {
    if skipped() {
        return;
    }
    let Some(vela) = vela() else { return };
    let build = config(&vela, "");
    let compiled = common::compiled(MODEL, &build, &host(&build));
    let mut device = config(Path::new("/no/such/vela"), "");
    device.delegates.worker = Some("/no/such/worker".into());
    let host = host(&device);
    let mut session = common::open(&compiled, &device, &host).unwrap();
    check(&mut session);
    let report = session.report();
    assert_eq!(report.fallbacks(), 0, "{}", report.why_portable());
    assert!(report.delegated_nodes() > 0);
    // What compiles is never quietly in the app's process.
    let delegate = host.delegate("ethos-u").unwrap();
    let error = delegate.partition(&[], "").unwrap_err();
    assert!(error.message.contains("isolation: unavailable"), "{error}");
}

#[test]
fn a_quantized_model_is_compiled_in_the_sandbox_and_runs_here() {
    if skipped() {
        return;
    }
    let Some(vela) = vela() else { return };
    for (settings, places) in [
        ("", PLACES),
        ("isolation = 'worker'", "worker"),
        ("isolation = 'in_process'", "in process"),
    ] {
        let config = config(&vela, settings);
        let mut session = common::open(&common::source(MODEL), &config, &host(&config)).unwrap();
        check(&mut session);
        let report = session.report();
        assert_eq!(report.fallbacks(), 0, "{}", report.why_portable());
        assert!(report.delegated_nodes() > 0, "{}", report.why_portable());
        assert_eq!(report.regions[0].isolation.as_deref(), Some(places));
    }
}
