//! Sessions over the real host, on every device that there is.

mod common;

use common::*;
use delegraph_abi::Status;
use delegraph_host::{Arena, CallOptions, ProfileEvent, now_ns};
use serde_json::json;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Runs of one region on each device.
fn all_ways() {
    let Some(delegate) = available(json!({})) else { return };
    for image in [image(), fixed_image()] {
        let blob = delegate.compile(&image, &*Numbers::new(), "").unwrap();
        for device in devices(&delegate) {
            let load = || delegate.load_with(&blob, Numbers::new(), Some(device), &CallOptions::default());
            let mut session = load().unwrap();
            let fixed = image == fixed_image();
            // More sizes than are kept, and back.
            for rows in [ROWS, 3, 1, 7, 20, 33, 3, ROWS] {
                let rows = if fixed { ROWS } else { rows };
                for submitted in [false, true] {
                    let how = How {
                        submitted,
                        ..How::default()
                    };
                    let x = input(rows, rows + usize::from(submitted));
                    assert_eq!(
                        run(&mut session, &x, &how).unwrap(),
                        expected(&x),
                        "{rows} rows on {device}"
                    );
                }
            }
            let mut arena = Arena::new(4 * ROWS * COLUMNS * 4).unwrap();
            log();
            let shared = session.share(&arena.memory());
            for at in [0, 256, 4096, 256] {
                for submitted in [false, true] {
                    let how = How {
                        submitted,
                        ..How::default()
                    };
                    let x = input(if fixed { ROWS } else { 5 }, at);
                    assert_eq!(run_arena(&mut session, &mut arena, at, &x, &how).unwrap(), expected(&x));
                }
            }
            if shared {
                let lines = log();
                let seen = |name| count(&lines, name);
                assert_eq!(
                    (seen("in_place"), seen("copied_in"), seen("copied_out")),
                    (2, 0, 0),
                    "{lines:?}"
                );
            }
            drop(arena);
            let x = input(ROWS, 1);
            assert_eq!(run(&mut session, &x, &How::default()).unwrap(), expected(&x));
        }
    }
}

#[test]
fn results_are_right_wherever_tensors_lie() {
    let _alone = alone();
    all_ways();
}

#[test]
fn devices_with_memory_of_their_own_are_given_copies() {
    let _alone = alone();
    in_child("staged", "DELEGRAPH_VULKAN_STAGING", "1");
}

#[test]
#[ignore = "run by the test before it"]
fn staged() {
    all_ways();
    profiled();
    let Some(delegate) = available(json!({})) else { return };
    let blob = delegate.compile(&image(), &*Numbers::new(), "").unwrap();
    let mut session = delegate.load(&blob, Numbers::new()).unwrap();
    log();
    let x = input(2, 0);
    run(&mut session, &x, &How::default()).unwrap();
    let lines = log();
    assert_eq!(
        (count(&lines, "copied_in"), count(&lines, "in_place")),
        (2 * COLUMNS as u64 * 4, 0)
    );
}

#[test]
fn weights_are_copied_on_another_timeline_and_handed_over() {
    let _alone = alone();
    in_child("copied_beside", "DELEGRAPH_VULKAN_COPIES", "1");
}

#[test]
#[ignore = "run by the test before it"]
fn copied_beside() {
    all_ways();
    let Some(delegate) = available(json!({"validation": true})) else {
        return;
    };
    let blob = delegate.compile(&fixed_image(), &*Numbers::new(), "").unwrap();
    for device in devices(&delegate) {
        let options = CallOptions::default();
        let mut session = delegate
            .load_with(&blob, Numbers::new(), Some(device), &options)
            .unwrap();
        let x = input(ROWS, 3);
        assert_eq!(run(&mut session, &x, &How::default()).unwrap(), expected(&x));
    }
}

/// Events of a profiled run.
fn profiled() {
    let Some(delegate) = available(json!({})) else { return };
    let blob = delegate.compile(&fixed_image(), &*Numbers::new(), "").unwrap();
    for device in devices(&delegate) {
        let mut session = delegate
            .load_with(&blob, Numbers::new(), Some(device), &CallOptions::default())
            .unwrap();
        let x = input(ROWS, 0);
        let plain = run(&mut session, &x, &How::default()).unwrap();
        for submitted in [false, true] {
            let events: Mutex<Vec<ProfileEvent>> = Mutex::default();
            let how = How {
                options: CallOptions {
                    profile: Some(&events),
                    ..CallOptions::default()
                },
                submitted,
            };
            let before = now_ns();
            assert_eq!(run(&mut session, &x, &how).unwrap(), plain);
            let after = now_ns();
            let events = events.into_inner().unwrap();
            assert!(!events.is_empty(), "no events on {device}");
            let mut last = before;
            for event in &events {
                assert!(
                    event.start_ns >= last && event.end_ns >= event.start_ns,
                    "{event:?} before {last}"
                );
                // Clocks are compared to within a moment.
                assert!(event.end_ns <= after + 1_000_000, "{event:?} after {after}");
                assert!(
                    event.node.is_some() && event.bytes > 0 && !event.name.is_empty(),
                    "{event:?}"
                );
                last = event.end_ns;
            }
        }
    }
}

#[test]
fn dispatches_are_in_the_profile_in_order_and_within_the_run() {
    let _alone = alone();
    profiled();
}

#[test]
fn sessions_of_one_weight_share_it_and_a_static_region_keeps_nothing_of_the_hosts() {
    let _alone = alone();
    let Some(delegate) = available(json!({})) else { return };
    let weights = Numbers::new();
    let blob = delegate.compile(&fixed_image(), &*weights, "").unwrap();
    let before = delegraph_vulkan::sys::allocated();
    let mut first = delegate.load(&blob, weights.clone()).unwrap();
    let one = delegraph_vulkan::sys::used();
    let mut second = delegate.load(&blob, weights.clone()).unwrap();
    let two = delegraph_vulkan::sys::used();
    let other = delegate.load(&blob, Numbers::new()).unwrap();
    assert_eq!(
        delegraph_vulkan::sys::used() - two,
        two - one,
        "the key tells, not the source"
    );
    let x = input(ROWS, 5);
    assert_eq!(run(&mut first, &x, &How::default()).unwrap(), expected(&x));
    drop(first);
    assert_eq!(run(&mut second, &x, &How::default()).unwrap(), expected(&x));
    drop((second, other));
    assert_eq!(delegraph_vulkan::sys::allocated(), before, "memory is given back");
}

#[test]
fn a_run_that_nobody_waits_for_ends_and_the_session_goes_on() {
    let _alone = alone();
    let Some(delegate) = available(json!({})) else { return };
    let blob = delegate.compile(&image(), &*Numbers::new(), "").unwrap();
    let mut session = delegate.load(&blob, Numbers::new()).unwrap();
    let x = input(ROWS, 2);
    for submitted in [false, true] {
        for polls in 0..6 {
            // Cancelled at some moment of the run, or after it.
            let left = AtomicUsize::new(polls);
            let cancel = || {
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                    .is_err()
            };
            let how = How {
                options: CallOptions {
                    cancel: Some(&cancel),
                    ..CallOptions::default()
                },
                submitted,
            };
            match run(&mut session, &x, &how) {
                Ok(out) => assert_eq!(out, expected(&x)),
                Err(error) => assert_eq!(error.code, Status::CANCELLED, "{error}"),
            }
            let past = How {
                options: CallOptions {
                    deadline: Some(Instant::now()),
                    ..CallOptions::default()
                },
                submitted,
            };
            assert_eq!(code(run(&mut session, &x, &past)), Status::TIMEOUT);
            assert_eq!(run(&mut session, &x, &How::default()).unwrap(), expected(&x));
        }
    }
}

#[test]
fn a_lost_device_is_an_error_and_is_opened_anew() {
    let _alone = alone();
    in_child("lost", "DELEGRAPH_VULKAN_LOSE", "3");
}

#[test]
#[ignore = "run by the test before it"]
fn lost() {
    let Some(delegate) = available(json!({})) else { return };
    let blob = delegate.compile(&image(), &*Numbers::new(), "").unwrap();
    let mut session = delegate.load(&blob, Numbers::new()).unwrap();
    let x = input(ROWS, 3);
    for _ in 0..2 {
        assert_eq!(run(&mut session, &x, &How::default()).unwrap(), expected(&x));
    }
    for submitted in [false, true, false] {
        let how = How {
            submitted,
            ..How::default()
        };
        assert_eq!(code(run(&mut session, &x, &how)), Status::DEVICE_LOST);
    }
    let mut fresh = delegate.load(&blob, Numbers::new()).unwrap();
    assert_eq!(run(&mut fresh, &x, &How::default()).unwrap(), expected(&x));
    assert_eq!(code(run(&mut session, &x, &How::default())), Status::DEVICE_LOST);
    drop(session);
    assert_eq!(run(&mut fresh, &x, &How::default()).unwrap(), expected(&x));
}

#[test]
fn a_pipeline_cache_is_kept_and_a_damaged_one_does_no_harm() {
    let _alone = alone();
    let folder = std::env::temp_dir().join(format!("delegraph-vulkan-pipelines-{}", std::process::id()));
    let options = json!({ "cache": folder.to_str().unwrap() });
    let run_once = || {
        let delegate = available(options.clone())?;
        let blob = delegate.compile(&image(), &*Numbers::new(), "").unwrap();
        for device in devices(&delegate) {
            let call = CallOptions::default();
            let mut session = delegate.load_with(&blob, Numbers::new(), Some(device), &call).unwrap();
            let x = input(9, 1);
            assert_eq!(run(&mut session, &x, &How::default()).unwrap(), expected(&x));
        }
        Some(devices(&delegate).len())
    };
    let Some(devices) = run_once() else { return };
    let files = || -> Vec<std::path::PathBuf> {
        std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect()
    };
    assert_eq!(files().len(), devices, "one a device, and nothing half written");
    let whole: Vec<Vec<u8>> = files().iter().map(|file| std::fs::read(file).unwrap()).collect();
    let times = || -> Vec<_> {
        files()
            .iter()
            .map(|file| file.metadata().unwrap().modified().unwrap())
            .collect()
    };
    let before = times();
    run_once();
    assert_eq!(times(), before, "nothing new, nothing written");
    for (file, bytes) in files().iter().zip(&whole) {
        let mut damaged = bytes.clone();
        damaged.truncate(bytes.len() - 1);
        if let Some(byte) = damaged.last_mut() {
            *byte ^= 1;
        }
        std::fs::write(file, damaged).unwrap();
    }
    run_once();
    for file in files() {
        let bytes = std::fs::read(file).unwrap();
        assert!(whole.iter().any(|w| w.len() == bytes.len()), "it is written anew");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn runs_are_repeated_and_compared_where_that_is_asked_for() {
    let _alone = alone();
    let Some(delegate) = available(json!({ "replay_check": 5 })) else {
        return;
    };
    let blob = delegate.compile(&image(), &*Numbers::new(), "").unwrap();
    let mut session = delegate.load(&blob, Numbers::new()).unwrap();
    for submitted in [false, true] {
        let how = How {
            submitted,
            ..How::default()
        };
        let x = input(11, 1);
        assert_eq!(run(&mut session, &x, &how).unwrap(), expected(&x));
    }
}

#[test]
fn devices_are_chosen_by_name_and_a_wrong_one_is_not_found() {
    let _alone = alone();
    let Some(delegate) = available(json!({})) else { return };
    let blob = delegate.compile(&image(), &*Numbers::new(), "").unwrap();
    let names: Vec<String> = delegate.devices().unwrap().into_iter().map(|d| d.name).collect();
    for name in &names {
        let delegate = common::delegate(json!({ "device": name }));
        let mut session = delegate.load(&blob, Numbers::new()).unwrap();
        let x = input(2, 1);
        assert_eq!(run(&mut session, &x, &How::default()).unwrap(), expected(&x));
    }
    let delegate = common::delegate(json!({ "device": "no such device" }));
    let error = delegate.load(&blob, Numbers::new()).err().unwrap();
    assert_eq!(error.code, Status::NOT_FOUND);
    assert!(names.iter().all(|name| error.message.contains(name)), "{error}");
    let beyond = delegate.load_with(&blob, Numbers::new(), Some(99), &CallOptions::default());
    assert_eq!(code(beyond), Status::NOT_FOUND);
}

#[test]
fn without_a_loader_it_compiles_and_says_why_it_does_not_run() {
    let _alone = alone();
    let delegate = delegate(json!({ "loader": "/nowhere/libvulkan.so.1" }));
    assert!(delegate.devices().unwrap().is_empty());
    let blob = delegate.compile(&image(), &*Numbers::new(), "").unwrap();
    let error = delegate.load(&blob, Numbers::new()).err().unwrap();
    assert_eq!(error.code, Status::DEPENDENCY_MISSING);
    assert!(
        error.message.starts_with("unavailable: there is no Vulkan loader"),
        "{error}"
    );
    assert!(!error.hint.is_empty());
}

#[test]
fn sessions_on_many_threads_compute_what_they_compute_alone() {
    let _alone = alone();
    let Some(delegate) = available(json!({})) else { return };
    let blob = delegate.compile(&image(), &*Numbers::new(), "").unwrap();
    let until = Instant::now() + Duration::from_secs(2);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let mut session = delegate.load(&blob, Numbers::new()).unwrap();
            scope.spawn(move || {
                for round in 0.. {
                    let how = How {
                        submitted: (thread + round) % 2 == 0,
                        ..How::default()
                    };
                    let x = input(1 + (thread * 7 + round) % 40, round);
                    assert_eq!(run(&mut session, &x, &how).unwrap(), expected(&x));
                    if round > 3 && Instant::now() > until {
                        break;
                    }
                }
            });
        }
    });
}
