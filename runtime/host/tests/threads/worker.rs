//! Many threads at one worker process.

use super::{PART, RUNS, THREADS, at_once, image, weights};
use delegraph_host::{Arena, CallOptions, Host, HostOptions, Isolation};
use std::path::PathBuf;

/// The folder with the worker binary and the reference delegate's library: `DELEGRAPH_TEST_BINARIES`, or that of this build.
fn built() -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    let own = test.ancestors().nth(2)?.to_path_buf();
    let folder = std::env::var_os("DELEGRAPH_TEST_BINARIES").map_or(own, PathBuf::from);
    let wanted = ["delegraph-worker", "libreference_delegate.so"];
    match wanted.iter().find(|name| !folder.join(name).is_file()) {
        None => Some(folder),
        Some(missing) => {
            println!("skipped: `{missing}` is not built; `cargo xtask test` builds it");
            None
        }
    }
}

#[test]
fn sessions_of_one_worker_run_on_many_threads() {
    let Some(folder) = built() else { return };
    let host = Host::discover(HostOptions {
        manifests: vec![folder.join("libreference_delegate.so")],
        isolation: [("reference".to_string(), Isolation::Worker)].into(),
        worker_binary: Some(folder.join("delegraph-worker")),
        ..HostOptions::default()
    });
    let backend = host.candidates()[0].backend.clone();
    let delegate = host.delegate(&backend).unwrap();
    assert_eq!(delegate.isolation(), "worker");
    let weights = weights();
    let mut arena = Arena::new(THREADS * PART * 16).unwrap();
    let memory = arena.memory();
    let blob = delegate.compile(&image(), &*weights, "").unwrap();
    at_once(&mut arena, |thread, part| {
        // The first is kept; others come and go beside it.
        let mut kept = super::load(&delegate, &blob, &weights);
        assert!(kept.share(&memory));
        for turn in 0..RUNS {
            assert_eq!(delegate.partition(&image()).unwrap().verdicts.len(), 1);
            let mut passing = super::load(&delegate, &blob, &weights);
            for session in [&mut kept, &mut passing] {
                let first = thread as f32 - 1.0;
                let numbers = super::run(session, part, first, &CallOptions::default(), turn % 2 == 0).unwrap();
                assert_eq!(numbers, [first.max(0.0), first + 1.0, first + 2.0]);
            }
        }
    });
}
