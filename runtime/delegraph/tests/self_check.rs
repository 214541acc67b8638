//! `self_check = "first-run"`: a delegate that computes something else is found out on its first run, and what is right stays.

mod common;

use common::{check, compiled, config, fixture, host, leaf, open, order, value};
use delegraph::{Session, Source, Value};
use delegraph_config::Config;
use delegraph_runner::Leaf;
use delegraph_runner::compare::compare;
use delegraph_runner::fixture::Fixture;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that are allocated now.
static HELD: AtomicUsize = AtomicUsize::new(0);
/// One test at a time, since all of them are counted.
static ALONE: Mutex<()> = Mutex::new(());

struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `alloc` above made it with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn checking(more: &str) -> Config {
    config(&format!(
        "[select]\norder = [\"faulty\"]\nself_check = \"first-run\"\n{more}"
    ))
}

fn file(name: &str) -> Source {
    compiled(name, &order(&["faulty"]), &host(""))
}

/// Whether the first step of every case gives what PyTorch gave.
fn is_right(session: &mut Session, fixture: &Fixture) -> bool {
    fixture.cases.iter().all(|case| {
        let step = &case.steps[0];
        let values: Vec<Value<'_>> = step.inputs.iter().map(value).collect();
        session.run(&values).unwrap();
        let outputs: Vec<Leaf> = (0..step.outputs.len())
            .map(|k| leaf(session.output(k).unwrap()))
            .collect();
        let pairs = outputs.iter().zip(&step.outputs);
        pairs
            .map(|(got, want)| compare(got, want, fixture.tolerance))
            .all(|verdict| verdict.is_ok())
    })
}

#[test]
fn a_delegate_that_is_right_keeps_its_regions() {
    let _alone = ALONE.lock();
    for name in ["mtcnn-pnet", "arch-kv-cache", "arch-mlp-dynamic-batch"] {
        let fixture = fixture(name);
        let mut session = open(&file(name), &checking(""), &host("")).unwrap();
        assert!(
            session
                .report()
                .regions
                .iter()
                .all(|region| region.self_check.is_none())
        );
        check(&mut session, &fixture);
        let report = session.report();
        assert!(!report.regions.is_empty());
        for region in &report.regions {
            assert_eq!(
                region.self_check.as_deref(),
                Some("agrees with the portable plan"),
                "{name}"
            );
            assert!(
                region.delegated_runs > 0 && region.portable_runs == 0,
                "{name}: {region:?}"
            );
        }
    }
}

#[test]
fn a_delegate_that_is_wrong_is_quarantined_and_the_portable_result_stands() {
    let _alone = ALONE.lock();
    for name in ["mtcnn-pnet", "arch-kv-cache", "arch-mlp-dynamic-batch"] {
        for fault in ["wrong", "nan"] {
            let (fixture, file) = (fixture(name), file(name));
            let mut unchecked = open(&file, &order(&["faulty"]), &host(fault)).unwrap();
            assert!(!is_right(&mut unchecked, &fixture), "{name}, {fault}: nothing is wrong");
            let mut session = open(&file, &checking(""), &host(fault)).unwrap();
            // Every step with its state, not only the first.
            check(&mut session, &fixture);
            let report = session.report();
            for region in &report.regions {
                assert_eq!(region.delegated_runs, 0, "{name}, {fault}");
                assert!(region.portable_runs > 0);
                let words = region.self_check.as_deref().unwrap();
                assert!(
                    words.starts_with("self-check: output 0 differs from the portable plan: max abs error"),
                    "{words}"
                );
            }
            assert!(
                report.why_portable().contains("faulty: self-check: output 0 differs"),
                "{}",
                report.why_portable()
            );
        }
    }
}

#[test]
fn the_first_run_gives_what_later_ones_give() {
    let _alone = ALONE.lock();
    let name = "mtcnn-pnet";
    let (fixture, file) = (fixture(name), file(name));
    let values: Vec<Value<'_>> = fixture.cases[0].steps[0].inputs.iter().map(value).collect();
    let run = |session: &mut Session| -> Vec<Leaf> {
        session.run(&values).unwrap();
        (0..session.output_count())
            .map(|k| leaf(session.output(k).unwrap()))
            .collect()
    };
    let mut session = open(&file, &checking(""), &host("tiny")).unwrap();
    let (first, second) = (run(&mut session), run(&mut session));
    assert_eq!(first, second, "the delegate's own outputs, both times");
    assert_eq!(session.report().fallbacks(), 0);
    let mut portable = open(&file, &order(&["portable"]), &host("")).unwrap();
    assert_ne!(run(&mut portable), first);
}

#[test]
fn where_fallback_is_denied_the_run_ends() {
    let _alone = ALONE.lock();
    let (fixture, file) = (fixture("mtcnn-pnet"), file("mtcnn-pnet"));
    let mut session = open(&file, &checking("fallback = \"deny\"\n"), &host("wrong")).unwrap();
    let values: Vec<Value<'_>> = fixture.cases[0].steps[0].inputs.iter().map(value).collect();
    let error = session.run(&values).unwrap_err();
    assert_eq!(error.exit_code(), 5);
    assert!(error.to_string().contains("self-check: output"), "{error}");
}

#[test]
fn the_memory_of_the_check_is_given_back() {
    let _alone = ALONE.lock();
    let (fixture, file) = (fixture("mtcnn-pnet"), file("mtcnn-pnet"));
    let held = |config: &Config, fault: &str| -> usize {
        let before = HELD.load(Ordering::Relaxed);
        let host = host(fault);
        let mut session = open(&file, config, &host).unwrap();
        is_right(&mut session, &fixture);
        let after = HELD.load(Ordering::Relaxed);
        after.saturating_sub(before)
    };
    // What is made once a process.
    held(&checking(""), "");
    let (off, on, quarantined) = (
        held(&order(&["faulty"]), ""),
        held(&checking(""), ""),
        held(&checking(""), "wrong"),
    );
    assert!(on <= off + 16384, "{off} bytes without the check, {on} with it");
    assert!(
        quarantined > off + 65536,
        "the instructions need {quarantined} bytes, the delegate {off}"
    );
}
