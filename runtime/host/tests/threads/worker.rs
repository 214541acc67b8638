//! Many threads at one worker process.

use super::{PART, RUNS, THREADS, at_once, image, weights};
use delegraph_host::{Arena, CallOptions, Delegate, Host, HostOptions, Isolation};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The reference delegate in a worker. The worker binary and the delegate's library lie in `DELEGRAPH_TEST_BINARIES`, or where this
/// build puts such things.
fn worker() -> Option<Arc<Delegate>> {
    let test = std::env::current_exe().ok()?;
    let own = test.ancestors().nth(2)?.to_path_buf();
    let folder = std::env::var_os("DELEGRAPH_TEST_BINARIES").map_or(own, PathBuf::from);
    let wanted = ["delegraph-worker", "libreference_delegate.so"];
    if let Some(missing) = wanted.iter().find(|name| !folder.join(name).is_file()) {
        println!("skipped: `{missing}` is not built; `cargo xtask test` builds it");
        return None;
    }
    let host = Host::discover(HostOptions {
        manifests: vec![folder.join("libreference_delegate.so")],
        isolation: [("reference".to_string(), Isolation::Worker)].into(),
        worker_binary: Some(folder.join("delegraph-worker")),
        ..HostOptions::default()
    });
    let delegate = host.delegate("reference").unwrap();
    assert_eq!(delegate.isolation(), "worker");
    Some(delegate)
}

#[test]
fn sessions_of_one_worker_run_on_many_threads() {
    let Some(delegate) = worker() else { return };
    let weights = weights();
    let mut arena = Arena::new(THREADS * PART * 16).unwrap();
    let memory = arena.memory();
    let blob = delegate.compile(&image(), &*weights, "").unwrap();
    at_once(&mut arena, |thread, part| {
        // The first is kept; others come and go beside it.
        let mut kept = super::load(&delegate, &blob, &weights);
        assert!(kept.share(&memory));
        for turn in 0..RUNS {
            assert_eq!(delegate.partition(&image(), "").unwrap().verdicts.len(), 1);
            let mut passing = super::load(&delegate, &blob, &weights);
            for session in [&mut kept, &mut passing] {
                let first = thread as f32 - 1.0;
                let numbers = super::run(session, part, first, &CallOptions::default(), turn % 2 == 0).unwrap();
                assert_eq!(numbers, [first.max(0.0), first + 1.0, first + 2.0]);
            }
        }
    });
}

/// Linux counts as a process's parent the thread that started it.
#[test]
fn a_worker_outlives_the_thread_that_asked_for_it() {
    let Some(delegate) = std::thread::spawn(worker).join().unwrap() else {
        return;
    };
    // The worker would be told of the thread's end at once; what is waited for is its end.
    std::thread::sleep(Duration::from_millis(50));
    let weights = weights();
    let mut arena = Arena::new(PART * 16).unwrap();
    let blob = delegate.compile(&image(), &*weights, "").unwrap();
    let mut session = super::load(&delegate, &blob, &weights);
    let numbers = super::run(&mut session, arena.words_mut(), 1.0, &CallOptions::default(), false).unwrap();
    assert_eq!(numbers, [1.0, 2.0, 3.0]);
}
