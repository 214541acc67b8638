//! States that stay with the delegate from run to run: KV caches of recorded models, in this process.

mod common;

use common::keeper::{CANCEL, DONE, Done, done, host};
use common::{check, config, leaf, open, order, value};
use delegraph::{LoadOptions, Session, Source, Value};
use delegraph_config::Config;
use delegraph_executor::{Executor, KeptState, Options as ExecutorOptions, ProgramData};
use delegraph_pte::Verified;
use delegraph_pte::overlay::{OVERLAY_KEY, Overlay};
use delegraph_runner::Leaf;
use delegraph_runner::compare::compare;
use delegraph_runner::fixture::Fixture;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn keeper() -> Config {
    order(&["keeper"])
}

/// A session over the keeper, and what is recorded of the model.
fn session(name: &str, fail: &str) -> (Session, Fixture) {
    let session = open(&source(name), &keeper(), &host(fail, "")).unwrap();
    (session, fixture(name))
}

/// Models with caches, and how many: recorded ones that are not here are of the folder that `DELEGRAPH_SHARED` names.
fn models() -> Vec<(&'static str, u32)> {
    let mut models = vec![("arch-kv-cache", 2)];
    if std::env::var_os("DELEGRAPH_SHARED").is_some() {
        models.extend([("hf-llama3", 4), ("hf-qwen3", 4)]);
    } else {
        println!("skipped: DELEGRAPH_SHARED is not set, so `hf-llama3` and `hf-qwen3` are not run");
    }
    models
}

fn place(name: &str) -> PathBuf {
    let shared = std::env::var_os("DELEGRAPH_SHARED").map(PathBuf::from);
    let models = shared.map(|shared| shared.join("models").join(name));
    models
        .filter(|_| !common::folder(name).is_dir())
        .unwrap_or_else(|| common::folder(name))
}

fn source(name: &str) -> Source {
    Source::open(place(name).join("model.pt2")).unwrap()
}

fn fixture(name: &str) -> Fixture {
    Fixture::read(&place(name)).unwrap()
}

/// Its longest case.
fn steps(fixture: &Fixture) -> &delegraph_runner::fixture::Case {
    fixture.cases.iter().max_by_key(|case| case.steps.len()).unwrap()
}

/// Runs a recorded step.
fn step(session: &mut Session, fixture: &Fixture, index: usize) -> Result<(), delegraph::Error> {
    let values: Vec<Value<'_>> = steps(fixture).steps[index].inputs.iter().map(value).collect();
    session.run(&values)
}

/// Runs a recorded step, and compares what it gives with what is recorded.
fn right(session: &mut Session, fixture: &Fixture, index: usize) {
    step(session, fixture, index).unwrap();
    for (k, want) in steps(fixture).steps[index].outputs.iter().enumerate() {
        let got = leaf(session.output(k).unwrap());
        compare(&got, want, fixture.tolerance).unwrap_or_else(|reason| panic!("step {index}, output {k}: {reason}"));
    }
}

fn kept_bytes(session: &Session) -> u64 {
    session
        .report()
        .regions
        .iter()
        .map(|region| region.kept_state_bytes)
        .sum()
}

fn states(session: &mut Session) -> Vec<Leaf> {
    let names: Vec<String> = session.state_names().map(str::to_string).collect();
    let state = |name: &String| leaf(session.state(name).unwrap().unwrap());
    names.iter().map(state).collect()
}

#[test]
fn caches_stay_with_the_delegate_and_no_run_moves_a_byte_of_them() {
    for (name, caches) in models() {
        DONE.take();
        let (mut session, fixture) = session(name, "");
        let report = session.report();
        let kept: usize = report.regions.iter().map(|region| region.kept_states.len()).sum();
        assert_eq!(kept, caches as usize, "{name}: {:?}", report.why_portable());
        let count = steps(&fixture).steps.len();
        assert!(count >= 3);
        (0..count).for_each(|i| right(&mut session, &fixture, i));
        let report = session.report();
        assert_eq!(report.fallbacks(), 0, "{}", report.why_portable());
        assert_eq!(kept_bytes(&session), 0, "{name}");
        let copied: u64 = report.regions.iter().map(|region| region.copied_tensors).sum();
        assert_eq!(copied, 0, "{name}: {:?}", report.copies());
        let want = Done {
            runs: count as u32,
            accepted: count as u32,
            // The host gives zeros by a word, once.
            resets: caches,
            ..Done::default()
        };
        assert_eq!(done(), want, "{name}");
        // Only who looks at them pays for it, and the delegate goes on keeping them.
        let mut portable = open(&source(name), &Config::default(), &common::nobody()).unwrap();
        (0..count).for_each(|i| right(&mut portable, &fixture, i));
        let (ours, theirs) = (states(&mut session), states(&mut portable));
        assert_eq!(ours.len(), caches as usize);
        let mut bytes = 0;
        for (ours, theirs) in ours.iter().zip(&theirs) {
            compare(ours, theirs, fixture.tolerance).unwrap();
            let Leaf::Tensor { bytes: held, .. } = ours else {
                panic!("no tensor")
            };
            assert!(held.iter().any(|byte| *byte != 0));
            bytes += held.len() as u64;
        }
        assert_eq!(kept_bytes(&session), bytes);
        assert_eq!((done().snapshots, done().restores), (caches, 0));
        states(&mut session);
        assert_eq!(kept_bytes(&session), bytes, "looked at again without a run");
    }
}

#[test]
fn every_recorded_model_is_right_over_a_delegate_that_keeps_what_it_may() {
    let mut kept = Vec::new();
    let folders = std::fs::read_dir(common::folder("")).unwrap();
    let mut names: Vec<String> = folders
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| common::folder(name).join("model.pt2").is_file())
        .collect();
    names.sort();
    for name in &names {
        let (mut session, fixture) = session(name, "");
        check(&mut session, &fixture);
        let report = session.report();
        let states = report.regions.iter().flat_map(|region| &region.kept_states);
        kept.extend(states.map(|state| format!("{name}/{state}")));
    }
    println!("{} models, kept: {kept:?}", names.len());
    assert!(names.len() >= 20 && kept.len() >= 2, "{kept:?}");
}

#[test]
fn the_copies_at_the_end_of_the_plan_are_passed_over() {
    let fixture = fixture("arch-kv-cache");
    let traced = |mut session: Session| {
        right(&mut session, &fixture, 0);
        session.start_trace();
        right(&mut session, &fixture, 1);
        session.chrome_trace().matches("aten::copy_").count()
    };
    assert_eq!(traced(session("arch-kv-cache", "").0), 0);
    let portable = open(&source("arch-kv-cache"), &Config::default(), &common::nobody()).unwrap();
    assert!(traced(portable) >= 2, "the trace shows them where they run");
}

#[test]
fn a_reset_begins_anew() {
    let (mut session, fixture) = session("arch-kv-cache", "");
    for _ in 0..2 {
        (0..3).for_each(|i| right(&mut session, &fixture, i));
        session.reset();
        assert!(states(&mut session).iter().all(zero));
    }
    check(&mut session, &fixture);
    assert_eq!(session.report().fallbacks(), 0);
}

fn zero(leaf: &Leaf) -> bool {
    matches!(leaf, Leaf::Tensor { bytes, .. } if bytes.iter().all(|byte| *byte == 0))
}

#[test]
fn a_run_that_fails_half_way_goes_on_with_the_state_as_it_was() {
    for (name, caches) in models() {
        DONE.take();
        let (mut session, fixture) = session(name, "run:3");
        let count = steps(&fixture).steps.len();
        (0..count).for_each(|i| right(&mut session, &fixture, i));
        let region = &session.report().regions[0];
        assert_eq!((region.delegated_runs, region.portable_runs), (2, count as u64 - 2));
        // Each was fetched once; then the region is the host's.
        assert_eq!(
            (done().snapshots, done().restores, done().runs),
            (caches, 0, 3),
            "{name}"
        );
        check_buffers(&mut session, &fixture);
    }
}

fn check_buffers(session: &mut Session, fixture: &Fixture) {
    for (name, want) in &steps(fixture).buffers_after {
        let got = leaf(session.state(name).unwrap().unwrap());
        compare(&got, want, fixture.tolerance).unwrap();
    }
}

#[test]
fn a_delegate_that_is_asked_again_gets_the_state_back() {
    DONE.take();
    let fixture = fixture("arch-kv-cache");
    let options = LoadOptions {
        executor: ExecutorOptions {
            fallback: delegraph_executor::Fallback::Retry,
            ..ExecutorOptions::default()
        },
        ..LoadOptions::default()
    };
    let mut session = Session::open(&source("arch-kv-cache"), &keeper(), &host("run:2", ""), options).unwrap();
    let count = steps(&fixture).steps.len();
    (0..count).for_each(|i| right(&mut session, &fixture, i));
    let region = &session.report().regions[0];
    assert_eq!((region.delegated_runs, region.portable_runs), (count as u64 - 1, 1));
    assert_eq!((done().snapshots, done().restores), (2, 2));
    check_buffers(&mut session, &fixture);
}

#[test]
fn a_state_that_is_lost_is_an_error_and_never_zero() {
    let (mut session, fixture) = session("arch-kv-cache", "lost:3");
    (0..2).for_each(|i| right(&mut session, &fixture, i));
    for _ in 0..2 {
        let error = step(&mut session, &fixture, 2).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("which `keeper` keeps, cannot be had"), "{text}");
        assert!(text.contains("the device does not answer"), "{text}");
        let name = session.state_names().next().unwrap().to_string();
        assert!(session.state(&name).is_err());
    }
    // The device stays lost; the model begins anew without it.
    session.reset();
    check(&mut session, &fixture);
    let region = &session.report().regions[0];
    assert_eq!((region.delegated_runs, region.portable_runs > 0), (2, true));
}

#[test]
fn a_copy_after_each_run_outlives_the_device() {
    let fixture = fixture("arch-kv-cache");
    let options = LoadOptions {
        executor: ExecutorOptions {
            copy_states: true,
            ..ExecutorOptions::default()
        },
        ..LoadOptions::default()
    };
    let mut session = Session::open(&source("arch-kv-cache"), &keeper(), &host("lost:3", ""), options).unwrap();
    (0..steps(&fixture).steps.len()).for_each(|i| right(&mut session, &fixture, i));
    assert_eq!(session.report().regions[0].delegated_runs, 2);
    check_buffers(&mut session, &fixture);
}

#[test]
fn what_cannot_be_ended_is_lost() {
    let (mut session, fixture) = session("arch-kv-cache", "commit:2");
    right(&mut session, &fixture, 0);
    for _ in 0..2 {
        let text = step(&mut session, &fixture, 1).unwrap_err().to_string();
        assert!(text.contains("the queue is stuck"), "{text}");
    }
    session.reset();
    check(&mut session, &fixture);
}

#[test]
fn a_state_that_cannot_be_read_is_an_error_when_it_is_needed() {
    let (mut session, fixture) = session("arch-kv-cache", "snapshot");
    (0..3).for_each(|i| right(&mut session, &fixture, i));
    let name = session.state_names().next().unwrap().to_string();
    let text = session.state(&name).err().unwrap().to_string();
    assert!(text.contains("no way to read it"), "{text}");
    // Nothing else depends on it.
    (3..steps(&fixture).steps.len()).for_each(|i| right(&mut session, &fixture, i));
}

#[test]
fn what_fails_behind_the_region_undoes_the_run() {
    // The layers are not the delegate's, so that instructions come after its region.
    let fixture = fixture("arch-kv-cache");
    let cancel = Arc::new(AtomicBool::new(false));
    let options = LoadOptions {
        executor: ExecutorOptions {
            cancel: Some(cancel.clone()),
            ..ExecutorOptions::default()
        },
        ..LoadOptions::default()
    };
    let host = host("", "aten::linear aten::addmm aten::mm");
    let mut session = Session::open(&source("arch-kv-cache"), &keeper(), &host, options).unwrap();
    let kept: usize = session.report().regions.iter().map(|r| r.kept_states.len()).sum();
    assert_eq!(kept, 2, "{:?}", session.report());
    for i in 0..steps(&fixture).steps.len() {
        DONE.take();
        CANCEL.set(Some(cancel.clone()));
        step(&mut session, &fixture, i).unwrap_err();
        assert_eq!((done().accepted, done().dropped), (0, 1));
        cancel.store(false, Ordering::Relaxed);
        right(&mut session, &fixture, i);
    }
    check_buffers(&mut session, &fixture);
    assert_eq!(session.report().fallbacks(), 0);
}

#[test]
fn sessions_share_nothing_and_adopt_what_they_are_told_to() {
    let (mut one, fixture) = session("arch-kv-cache", "");
    let (mut two, _) = session("arch-kv-cache", "");
    right(&mut one, &fixture, 0);
    right(&mut one, &fixture, 1);
    right(&mut two, &fixture, 0);
    right(&mut one, &fixture, 2);
    right(&mut two, &fixture, 1);
    // The portable kernels go on from what the delegate kept, and the other way round.
    let mut portable = open(&source("arch-kv-cache"), &Config::default(), &common::nobody()).unwrap();
    assert_eq!(portable.adopt_state(&mut one).unwrap(), 2);
    right(&mut portable, &fixture, 3);
    assert_eq!(two.adopt_state(&mut portable).unwrap(), 2);
    right(&mut one, &fixture, 3);
    for i in 4..steps(&fixture).steps.len() {
        right(&mut one, &fixture, i);
        right(&mut two, &fixture, i);
    }
    check_buffers(&mut two, &fixture);
    assert_eq!(two.report().fallbacks(), 0);
}

#[test]
fn states_go_from_one_delegate_to_another() {
    let (mut one, fixture) = session("arch-kv-cache", "");
    let (mut two, _) = session("arch-kv-cache", "");
    (0..3).for_each(|i| right(&mut one, &fixture, i));
    DONE.take();
    assert_eq!(two.adopt_state(&mut one).unwrap(), 2);
    // At once, and without the buffers of either session.
    assert_eq!((done().snapshots, done().restores), (2, 2));
    assert_eq!(kept_bytes(&one), kept_bytes(&two));
    for i in 3..steps(&fixture).steps.len() {
        right(&mut two, &fixture, i);
        right(&mut one, &fixture, i);
    }
    assert_eq!((done().snapshots, done().restores, done().resets), (2, 2, 0));
    check_buffers(&mut two, &fixture);
    check_buffers(&mut one, &fixture);
    assert_eq!((one.report().fallbacks(), two.report().fallbacks()), (0, 0));
}

#[test]
fn states_that_were_taken_in_part_are_of_no_use() {
    for (fail, lost) in [("snapshot", false), ("snapshot:2", true)] {
        let (mut one, fixture) = session("arch-kv-cache", fail);
        let (mut two, _) = session("arch-kv-cache", "");
        (0..2).for_each(|i| right(&mut one, &fixture, i));
        right(&mut two, &fixture, 0);
        let text = two.adopt_state(&mut one).unwrap_err().to_string();
        assert!(text.contains("no way to read it"), "{text}");
        // The other session has all that it had.
        right(&mut one, &fixture, 2);
        if lost {
            let text = step(&mut two, &fixture, 1).unwrap_err().to_string();
            assert!(text.contains("in part"), "{text}");
            two.reset();
            right(&mut two, &fixture, 0);
        }
        right(&mut two, &fixture, 1);
        assert_eq!(two.report().fallbacks(), 0);
    }
}

#[test]
fn the_self_check_looks_at_states_too() {
    let checking = config("[select]\norder = [\"keeper\"]\nself_check = \"first-run\"\n");
    for (fail, delegated) in [("", true), ("state", false), ("snapshot", false)] {
        let fixture = fixture("arch-kv-cache");
        let mut session = open(&source("arch-kv-cache"), &checking, &host(fail, "")).unwrap();
        let count = steps(&fixture).steps.len() as u64;
        (0..count as usize).for_each(|i| right(&mut session, &fixture, i));
        let region = &session.report().regions[0];
        let runs = if delegated { (count, 0) } else { (0, count) };
        assert_eq!(
            (region.delegated_runs, region.portable_runs),
            runs,
            "{fail}: {region:?}"
        );
        if fail == "state" {
            let verdict = region.self_check.as_deref().unwrap_or_default();
            assert!(verdict.contains("the state `"), "{verdict}");
        }
        check_buffers(&mut session, &fixture);
    }
}

struct File(Vec<u8>);

impl ProgramData for File {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[test]
fn a_state_that_others_see_is_not_kept() {
    let module = delegraph::import(&source("arch-kv-cache")).unwrap();
    let compiled = delegraph::compile(module, &keeper(), &host("", ""), &mut |_| {}).unwrap();
    let program = Arc::new(Verified::parse(&compiled.bytes).unwrap());
    let overlay: Overlay = serde_json::from_slice(program.named(&compiled.bytes, OVERLAY_KEY).unwrap()).unwrap();
    let region = &overlay.methods[0].regions[0];
    let blob = program.named(&compiled.bytes, &region.candidates[0].blob).unwrap();
    let kept = delegraph_abi::envelope::parse(blob).unwrap().meta.states;
    let file = Arc::new(File(compiled.bytes.clone()));
    let executor = Executor::new(program.clone(), "forward", file, ExecutorOptions::default()).unwrap();
    let ask = |start, end, state: &KeptState| executor.can_keep(start..end, &region.inputs, &region.outputs, state);
    for state in &kept {
        let state = KeptState {
            name: state.name.clone(),
            input: state.input as usize,
            output: state.output as usize,
        };
        ask(region.start, region.end, &state).unwrap();
        // As if instructions of the region were not of it.
        let problem = ask(region.end - 1, region.end, &state).unwrap_err();
        assert!(problem.contains("which is not in the region, uses it too"), "{problem}");
        let other = KeptState {
            output: usize::from(state.output == 0),
            ..state.clone()
        };
        let problem = ask(region.start, region.end, &other).unwrap_err();
        assert!(
            problem.contains("another type") || problem.contains("uses it too") || problem.contains("output"),
            "{problem}"
        );
        let other = KeptState { input: 99, ..state };
        assert!(ask(region.start, region.end, &other).is_err());
    }
    assert_eq!(kept.len(), 2);
    // The file is bound as the model was at load.
    let mut session = open(&Source::from_bytes(compiled.bytes, "m.pte"), &keeper(), &host("", "")).unwrap();
    check(&mut session, &fixture("arch-kv-cache"));
    assert_eq!(session.report().regions[0].kept_states.len(), 2);
}
