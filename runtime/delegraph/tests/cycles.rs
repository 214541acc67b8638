//! A thousand times loaded, run and given up, a delegate leaves nothing behind: no descriptor, no process, no map, no memory that
//! grows with the number of times.
#![cfg(target_os = "linux")]

mod common;

use common::fixture;
use common::worker::skipped;
use delegraph::{LoadOptions, Session, Source};
use delegraph_config::Config;
use std::sync::Arc;

/// What this process holds: descriptors, maps, resident bytes, children.
#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: usize,
    maps: usize,
    resident: usize,
    children: usize,
}

fn held() -> Held {
    let lines = |path: &str| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: usize = resident.trim().trim_end_matches(" kB").parse().unwrap();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let children = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    Held {
        descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
        maps: lines("/proc/self/maps"),
        resident: resident * 1024,
        children: children.map(|text| text.split_whitespace().count()).sum(),
    }
}

/// Compiled once, then loaded, run and given up so many times, with the host and its delegate each time.
fn cycles(config: &Config, times: usize) -> [Held; 2] {
    let host = || Arc::new(delegraph::discover(config, false));
    let model = common::compiled("arch-mlp-dynamic-batch", config, &host());
    let fixture = fixture("arch-mlp-dynamic-batch");
    let cycle = |source: &Source| {
        let mut session = Session::open(source, config, &host(), LoadOptions::default()).unwrap();
        common::check(&mut session, &fixture);
        assert_eq!(session.report().fallbacks(), 0, "{}", session.report().why_portable());
        assert!(session.report().delegated_nodes() > 0);
    };
    // The library stays loaded, pools are started, buffers find their size.
    for _ in 0..times.div_ceil(10) {
        cycle(&model);
    }
    let before = held();
    for _ in 0..times {
        cycle(&model);
    }
    [before, held()]
}

fn clean([before, after]: [Held; 2], times: usize) {
    assert_eq!(before.descriptors, after.descriptors, "{before:?} {after:?}");
    assert_eq!(before.children, after.children, "{before:?} {after:?}");
    // An allocator maps now and then what it keeps.
    assert!(after.maps <= before.maps + 8, "{before:?} {after:?}");
    let slope = after.resident.saturating_sub(before.resident) / times;
    assert!(slope < 4096, "{slope} bytes a cycle: {before:?} {after:?}");
}

fn config(isolation: &str) -> Option<Config> {
    if skipped() {
        return None;
    }
    Some(common::worker::config(&format!("isolation = '{isolation}'"), ""))
}

/// What the process holds is counted, so that one test runs at a time.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn a_thousand_cycles_in_process_leave_nothing() {
    let _alone = ALONE.lock();
    if let Some(config) = config("in_process") {
        clean(cycles(&config, 1000), 1000);
    }
}

#[test]
fn a_thousand_cycles_over_worker_processes_leave_nothing() {
    let _alone = ALONE.lock();
    if let Some(config) = config("worker") {
        clean(cycles(&config, 1000), 1000);
    }
}
