//! Delegates in worker processes: whatever one does, the app goes on and its outputs are right.
//!
//! The worker binary and the fault delegate's library are built by `cargo xtask test` before the tests; without them these print that
//! they were skipped.
#![cfg(target_os = "linux")]

mod common;

use common::fixture;
use common::worker::{built, config, host, skipped, text};
use delegraph::{RunReport, Value};
use delegraph_config::Config;
use std::path::Path;
use std::time::{Duration, Instant};

const MODEL: &str = "arch-mlp-dynamic-batch";

/// Runs the model so many times over; the outputs must be those of eager PyTorch. Gives the report.
fn runs(config: &Config, times: usize) -> RunReport {
    let mut session = common::open(&common::source(MODEL), config, &host(config)).unwrap();
    for _ in 0..times {
        common::check(&mut session, &fixture(MODEL));
    }
    session.report()
}

#[test]
fn a_delegate_runs_in_a_process_of_its_own() {
    if skipped() {
        return;
    }
    let report = runs(&config("", ""), 3);
    assert_eq!(report.fallbacks(), 0, "{}", report.why_portable());
    assert!(report.delegated_nodes() > 0);
    assert_eq!(report.regions[0].isolation.as_deref(), Some("worker"));
    // Weights and activations are shared; what the app gives lies elsewhere only where it is not an activation.
    println!("{report:?}");
}

#[test]
fn neighbours_are_met_in_shared_memory_without_a_copy() {
    if skipped() {
        return;
    }
    let rule = "[[rule]]\nmatch = { op = 'aten.gelu*' }\ndeny = ['fault']\n";
    let mut layers = delegraph_config::Layers::default();
    let add = |layers: &mut delegraph_config::Layers, text: &str| {
        layers.add_text(delegraph_config::Origin::Flag, text, None).unwrap();
    };
    add(&mut layers, &text("", "alignment = 512"));
    add(&mut layers, rule);
    let report = runs(&layers.resolve(None).unwrap(), 2);
    assert_eq!(report.fallbacks(), 0, "{}", report.why_portable());
    assert_eq!(report.regions.len(), 2);
    // What the app gives lies where the app has it; what the first region leaves and the second reads lies in the arena, as required.
    assert!(report.regions[0].copied_tensors > 0);
    assert_eq!(report.regions[1].copied_tensors, 0, "{:?}", report.copies());
}

#[test]
fn a_delegate_that_dies_or_hangs_in_a_run_costs_that_run_its_speed_and_no_more() {
    if skipped() {
        return;
    }
    for (how, words) in [
        ("kill", "signal 9"),
        ("segfault", "signal 11"),
        ("abort", "signal 6"),
        ("exit", "status 0"),
        ("loop", "did not end by its deadline"),
        ("panic", "it was told to panic"),
        ("error", "it was told to fail"),
    ] {
        let config = config("run_limit_ms = 300", &format!("at = 'execute', how = '{how}'"));
        let report = runs(&config, 2);
        let why = report.why_portable();
        assert_eq!(report.delegated_nodes(), 0, "{how}: {why}");
        assert!(why.contains(words), "{how}: {why}");
    }
}

#[test]
fn a_delegate_that_dies_elsewhere_leaves_the_model_to_the_portable_kernels() {
    if skipped() {
        return;
    }
    for place in ["new", "partition", "compile", "check", "load"] {
        for how in ["segfault", "exit", "loop"] {
            let config = config(
                "compile_limit_ms = 500\nrun_limit_ms = 500",
                &format!("at = '{place}', how = '{how}'"),
            );
            let started = Instant::now();
            let report = runs(&config, 1);
            assert_eq!(report.delegated_nodes(), 0, "{place} {how}: {report:?}");
            let took = started.elapsed();
            assert!(took < Duration::from_secs(60), "{place} {how} took {took:?}");
        }
    }
}

#[test]
fn memory_that_a_delegate_eats_is_not_the_apps() {
    if skipped() {
        return;
    }
    // It is given the memory, and goes on; or it is not, and dies.
    let report = runs(&config("", "at = 'load', how = 'memory'"), 1);
    assert_eq!(report.fallbacks(), 0, "{}", report.why_portable());
    let report = runs(&config("memory_mb = 1024", "at = 'load', how = 'memory'"), 1);
    assert_eq!(report.delegated_nodes(), 0);
    assert!(
        report.why_portable().contains("its process died in `session_load`"),
        "{}",
        report.why_portable()
    );
}

#[test]
fn a_worker_that_died_is_started_again_and_a_blob_that_kills_it_again_and_again_is_left_alone() {
    if skipped() {
        return;
    }
    // The cases' inputs do not begin with this number; the ones below do.
    let config = config("", "at = 'execute', how = 'segfault', only = 666.0");
    let fixture = fixture(MODEL);
    let right = |session: &mut delegraph::Session| common::check(session, &fixture);
    let mut session = common::open(&common::source(MODEL), &config, &host(&config)).unwrap();
    right(&mut session);
    let before = session.report().regions[0].delegated_runs;
    assert!(before > 0);
    let infos = session.inputs();
    let delegraph::InputKind::Tensor { dtype, sizes, .. } = &infos[0].kind else {
        panic!("the model takes a tensor")
    };
    let mut shape = *sizes;
    shape[0] = 1;
    let mut numbers = vec![0f32; shape.iter().product::<i64>() as usize];
    numbers[0] = 666.0;
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    let unlucky = Value::Tensor(delegraph::TensorView {
        dtype: *dtype,
        shape,
        strides: shape.contiguous_strides(),
        bytes: &bytes,
    });
    session.run(std::slice::from_ref(&unlucky)).unwrap();
    assert_eq!(
        session.report().regions[0].portable_runs,
        1,
        "{}",
        session.report().why_portable()
    );
    // The pause passes, and the delegate runs again.
    std::thread::sleep(Duration::from_millis(200));
    right(&mut session);
    let report = session.report();
    assert!(report.regions[0].delegated_runs > before, "{report:?}");
    // Two deaths more, and the blob is not tried any more.
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(400));
        session.run(std::slice::from_ref(&unlucky)).unwrap();
    }
    let quiet = session.report();
    assert!(
        quiet.why_portable().contains("not tried any more after 3 times"),
        "{}",
        quiet.why_portable()
    );
    std::thread::sleep(Duration::from_millis(400));
    right(&mut session);
    assert_eq!(
        session.report().regions[0].delegated_runs,
        quiet.regions[0].delegated_runs
    );
}

#[test]
fn the_sandbox_holds() {
    if skipped() {
        return;
    }
    // The delegate dies if it gets away with it.
    for how in ["files", "programs", "network", "signals"] {
        for place in ["new", "execute"] {
            let report = runs(&config("", &format!("at = '{place}', how = '{how}'")), 1);
            assert_eq!(report.fallbacks(), 0, "{place} {how}: {}", report.why_portable());
            assert!(report.delegated_nodes() > 0, "{place} {how}: {report:?}");
        }
    }
    // That it can fail: without a sandbox it does get away with it.
    let report = runs(&config("sandbox = 'off'", "at = 'execute', how = 'programs'"), 1);
    assert_eq!(report.delegated_nodes(), 0);
    assert!(report.why_portable().contains("signal 6"), "{}", report.why_portable());
}

#[test]
fn a_delegate_that_looks_at_its_deadline_keeps_its_process() {
    if skipped() {
        return;
    }
    let report = runs(&config("run_limit_ms = 100", "at = 'execute', how = 'wait'"), 1);
    let why = report.why_portable();
    assert!(why.contains("it waited for its end"), "{why}");
}

#[test]
fn where_there_is_no_worker_the_report_says_so() {
    let mut config = config("", "");
    config.delegates.worker = Some("/nowhere/delegraph-worker".into());
    let report = runs(&config, 1);
    assert_eq!(report.delegated_nodes(), 0);
    let host = host(&config);
    let error = host.delegate("fault").err().unwrap().to_string();
    assert!(error.contains("isolation: unavailable"), "{error}");
}

#[test]
fn a_trusted_worker_is_started_from_what_was_checked_each_time() {
    use delegraph_host::trust::{CheckedLibrary, Digest, Lock, Pin};
    if skipped() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libfault_delegate.so");
    std::fs::copy(built().join("libfault_delegate.so"), &library).unwrap();
    let manifest = folder.path().join("fault.delegate.toml");
    let original = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/fault/fault.delegate.toml");
    std::fs::copy(original, &manifest).unwrap();
    let sha256 = Digest::of(&std::fs::read(&manifest).unwrap());
    let checked = CheckedLibrary::open(&library).unwrap();
    let lock = Lock {
        version: 1,
        expires: None,
        delegate: vec![Pin::of("fault", Some((&manifest, sha256)), &checked, folder.path())],
    };
    let lock_file = folder.path().join("delegraph.lock");
    std::fs::write(&lock_file, lock.to_text()).unwrap();

    let mut config = config("", "at = 'execute', how = 'kill'");
    config.backend.get_mut("fault").unwrap().library = Some(manifest.clone());
    config.delegates.trust = delegraph_config::Trust::Require;
    config.delegates.lock = Some(lock_file);
    let trusting = host(&config);
    let delegate = trusting.delegate("fault").unwrap();
    assert!(delegate.devices().is_ok());
    let mut session = common::open(&common::source(MODEL), &config, &trusting).unwrap();
    // Nothing that lies there now could be loaded.
    std::fs::write(&library, "not a library").unwrap();
    std::fs::write(&manifest, "not a manifest").unwrap();
    common::check(&mut session, &fixture(MODEL));
    let why = session.report().why_portable();
    assert!(why.contains("signal 9"), "{why}");
    // Its process has died, and is started again.
    let started = Instant::now();
    let again = loop {
        std::thread::sleep(Duration::from_millis(50));
        match delegate.devices() {
            Err(error) if started.elapsed() < Duration::from_secs(10) => println!("{error}"),
            outcome => break outcome,
        }
    };
    assert!(again.is_ok(), "{:?}", again.err());
    let fresh = host(&config).delegate("fault").err().unwrap().to_string();
    assert!(fresh.contains("manifest"), "{fresh}");
}
