//! States that stay with delegates of libraries, in this process and in workers: the healthy double, and the fault delegate when its
//! process dies. What these tests need is built as for `worker.rs`.
#![cfg(target_os = "linux")]

mod common;

use common::worker::{built, host, lacks};
use common::{check, fixture, leaf, open, source, value};
use delegraph::{Session, Value};
use delegraph_config::Config;
use delegraph_runner::Leaf;
use delegraph_runner::compare::compare;
use std::path::Path;
use std::time::Duration;

const MODEL: &str = "arch-kv-cache";

/// A configuration that gives everything to a delegate of `conformance`, with its options.
fn config(name: &str, isolation: &str, options: &str) -> Config {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../conformance/{name}/{name}.delegate.toml"));
    common::config(&format!(
        "schema = 1\n[select]\norder = ['{name}']\n[delegates]\nworker = '{}'\n[backend.{name}]\nlibrary = '{}'\n\
         isolation = '{isolation}'\noptions = {{ {options} }}\n",
        built().join("delegraph-worker").display(),
        manifest.display(),
    ))
}

fn session(config: &Config) -> Session {
    open(&source(MODEL), config, &host(config)).unwrap()
}

/// A recorded step, or one whose first input begins with the number that the fault delegate fails at.
fn inputs(index: usize, failing: bool) -> Vec<Leaf> {
    let fixture = fixture(MODEL);
    let case = fixture.cases.iter().max_by_key(|case| case.steps.len()).unwrap();
    let mut inputs = case.steps[index].inputs.clone();
    if let (Leaf::Tensor { bytes, .. }, true) = (&mut inputs[0], failing) {
        bytes[..4].copy_from_slice(&666f32.to_le_bytes());
    }
    inputs
}

fn run(session: &mut Session, inputs: &[Leaf]) -> Result<Leaf, delegraph::Error> {
    let values: Vec<Value<'_>> = inputs.iter().map(value).collect();
    session.run(&values)?;
    Ok(leaf(session.output(0)?))
}

#[test]
fn the_double_keeps_caches_here_and_in_a_worker() {
    if lacks(&["delegraph-worker", "libdouble_delegate.so"]) {
        return;
    }
    for (isolation, place) in [("in_process", "in process"), ("worker", "worker")] {
        let mut session = session(&config("double", isolation, ""));
        for _ in 0..2 {
            check(&mut session, &fixture(MODEL));
            session.reset();
        }
        let report = session.report();
        let region = &report.regions[0];
        assert_eq!(report.fallbacks(), 0, "{}", report.why_portable());
        assert_eq!(region.isolation.as_deref(), Some(place));
        assert_eq!(region.kept_states.len(), 2);
        // What was compared at the end of each round was read; runs moved nothing.
        let caches = 2 * 2 * 4 * 16 * 8 * 4;
        assert_eq!(region.kept_state_bytes, caches);
        assert!(region.copied_bytes < caches, "{:?}", report.copies());
    }
}

#[test]
fn a_failure_that_leaves_the_process_alive_costs_no_state() {
    if lacks(&["delegraph-worker", "libfault_delegate.so"]) {
        return;
    }
    for isolation in ["in_process", "worker"] {
        let options = "at = 'execute', how = 'error', only = 666.0";
        let mut session = session(&config("fault", isolation, options));
        let mut portable = open(&source(MODEL), &Config::default(), &common::nobody()).unwrap();
        for i in 0..4 {
            let inputs = inputs(i, i == 2);
            let got = run(&mut session, &inputs).unwrap();
            let want = run(&mut portable, &inputs).unwrap();
            compare(&got, &want, fixture(MODEL).tolerance).unwrap_or_else(|reason| panic!("step {i}: {reason}"));
        }
        let region = &session.report().regions[0];
        assert_eq!((region.delegated_runs, region.portable_runs), (2, 2), "{region:?}");
    }
}

#[test]
fn what_a_dead_process_kept_is_an_error_until_the_states_are_reset() {
    if lacks(&["delegraph-worker", "libfault_delegate.so"]) {
        return;
    }
    for how in ["kill", "segfault"] {
        let options = format!("at = 'execute', how = '{how}', only = 666.0");
        let mut session = session(&config("fault", "worker", &options));
        (0..2).for_each(|i| drop(run(&mut session, &inputs(i, false)).unwrap()));
        let text = run(&mut session, &inputs(2, true)).unwrap_err().to_string();
        assert!(text.contains("which `fault` keeps, cannot be had"), "{text}");
        // The process is started again in a while; until then nobody knows, and then it is certain.
        let error = (0..500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(20));
            let text = run(&mut session, &inputs(2, false)).unwrap_err().to_string();
            text.contains("was lost after run 2").then_some(text)
        });
        let text = error.expect("it says so");
        assert!(text.contains("the process that kept it died"), "{text}");
        session.reset();
        check(&mut session, &fixture(MODEL));
        let region = &session.report().regions[0];
        assert_eq!(region.portable_runs, 0, "{region:?}");
        assert!(region.delegated_runs > 2);
    }
}

#[test]
fn two_sessions_of_one_process_keep_their_own() {
    if lacks(&["delegraph-worker", "libdouble_delegate.so"]) {
        return;
    }
    let config = config("double", "worker", "");
    let host = host(&config);
    let mut sessions: Vec<Session> = (0..2).map(|_| open(&source(MODEL), &config, &host).unwrap()).collect();
    let mut portable: Vec<Session> = (0..2)
        .map(|_| open(&source(MODEL), &Config::default(), &common::nobody()).unwrap())
        .collect();
    // The second is a step behind the first, and sees other inputs.
    for (at, which) in [(0, 0), (1, 0), (3, 1), (2, 0), (0, 1), (3, 0), (1, 1)] {
        let inputs = inputs(at, false);
        let got = run(&mut sessions[which], &inputs).unwrap();
        let want = run(&mut portable[which], &inputs).unwrap();
        compare(&got, &want, fixture(MODEL).tolerance).unwrap();
    }
}
