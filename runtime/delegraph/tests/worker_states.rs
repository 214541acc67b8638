//! States that sessions keep in worker processes, and what is left of them when such a process dies.
//!
//! The delegate is the fault delegate. What these tests need is built as for `worker.rs`.
#![cfg(target_os = "linux")]

mod common;

use common::worker::{config, host, skipped};
use delegraph_host::{DelegateError, Input, Output, Session, Status, Weights};
use delegraph_sdk::DType as Code;
use delegraph_sdk::image::{Arg, ImageBuilder, Type};
use delegraph_types::{DType, Dims};
use std::sync::Arc;
use std::time::Duration;

struct NoWeights;

impl Weights for NoWeights {
    fn bytes(&self, _: u32) -> Option<&[u8]> {
        None
    }
}

/// `total += x`, for tensors of `[2, rows]`; `total` is a state that grows along the second dimension.
fn image(rows: i64) -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let dims = [image.int(2), image.int(rows)];
    let ty = Type::tensor(Code::F32, &dims);
    let (x, total) = (image.input("x", &ty), image.input("total", &ty));
    let sum = [Arg::Value(total), Arg::Value(x), Arg::Int(1)];
    let y = image.node("add", "aten::add.Tensor", &sum, &[("y", &ty)], "")[0];
    image.output(y);
    image.output(y);
    image.state("total", 1, 1, Some(1));
    image.finish().unwrap()
}

/// A session in a worker, for so many rows.
fn session(rows: i64, options: &str) -> Session {
    let host = host(&config("run_limit_ms = 2000", options));
    let delegate = host.delegate("fault").unwrap();
    assert_eq!(delegate.isolation(), "worker");
    let blob = delegate.compile(&image(rows), &NoWeights, "").unwrap();
    delegate.load(&blob, Arc::new(NoWeights)).unwrap()
}

/// Runs with every element of `x` the same; gives the outputs' first and last.
fn run(session: &mut Session, rows: i64, x: f32) -> Result<(f32, f32), DelegateError> {
    let count = 2 * rows as usize;
    let input = vec![x; count];
    let mut output = vec![0f32; count];
    // SAFETY: numbers are bytes, and any bytes are numbers.
    let (input, room) = unsafe { (input.align_to::<u8>().1, output.align_to_mut::<u8>().1) };
    let sizes = [2, rows];
    let tensor = |bytes| Input {
        dtype: DType::F32,
        sizes: &sizes,
        bytes,
    };
    let place = |bytes| Output {
        dtype: DType::F32,
        sizes: Dims::new(&[2, rows]).unwrap(),
        bytes,
    };
    session.execute(&[tensor(input), tensor(&[])], &mut [place(room), place(&mut [])])?;
    Ok((output[0], output[count - 1]))
}

fn kept(session: &mut Session) -> Vec<f32> {
    let bytes = session.snapshot_state(0).unwrap();
    bytes
        .chunks(4)
        .map(|b| f32::from_ne_bytes(b.try_into().unwrap()))
        .collect()
}

/// The same, where the worker may have to be started anew.
fn soon<T>(mut attempt: impl FnMut() -> Result<T, DelegateError>) -> Result<T, DelegateError> {
    for _ in 0..200 {
        match attempt() {
            Err(error) if error.code == Status::NOT_READY => std::thread::sleep(Duration::from_millis(20)),
            outcome => return outcome,
        }
    }
    attempt()
}

#[test]
fn states_are_kept_reset_cut_off_and_carried_over_as_in_this_process() {
    if skipped() {
        return;
    }
    // The larger state does not fit what the runs' own tensors take.
    for rows in [3, 50_000] {
        let mut session = session(rows, "");
        assert_eq!(session.states()[0].bytes, 8 * rows as u64);
        assert_eq!(session.states()[0].entries, Some(rows as u64));
        assert_eq!(kept(&mut session), vec![0.0; 2 * rows as usize], "before any run");
        assert_eq!(run(&mut session, rows, 1.5).unwrap(), (1.5, 1.5));
        assert_eq!(run(&mut session, rows, 2.0).unwrap(), (3.5, 3.5));
        let snapshot = session.snapshot_state(0).unwrap();
        session.truncate_state(0, 1).unwrap();
        let mut cut = vec![0.0; 2 * rows as usize];
        (cut[0], cut[rows as usize]) = (3.5, 3.5);
        assert_eq!(kept(&mut session), cut);
        session.reset_state(0).unwrap();
        assert_eq!(run(&mut session, rows, 1.0).unwrap(), (1.0, 1.0));
        session.restore_state(0, &snapshot).unwrap();
        assert_eq!(session.snapshot_state(0).unwrap(), snapshot);
        session.commit_states_later(true);
        assert_eq!(run(&mut session, rows, 1.0).unwrap(), (4.5, 4.5));
        session.commit_states(false).unwrap();
        assert_eq!(run(&mut session, rows, 1.0).unwrap(), (4.5, 4.5));
    }
}

#[test]
fn what_a_dead_process_kept_is_an_error_until_it_is_restored() {
    if skipped() {
        return;
    }
    for how in ["segfault", "kill", "exit", "loop"] {
        let mut session = session(3, &format!("at = 'execute', how = '{how}', only = 666.0"));
        run(&mut session, 3, 1.0).unwrap();
        run(&mut session, 3, 2.0).unwrap();
        let snapshot = session.snapshot_state(0).unwrap();
        run(&mut session, 3, 4.0).unwrap();
        run(&mut session, 3, 666.0).unwrap_err();
        let error = soon(|| run(&mut session, 3, 1.0)).unwrap_err();
        assert_eq!(error.code, Status::DEVICE_LOST, "{how}: {error}");
        let words = "the state `total` was lost after run 3: the process that kept it died";
        assert_eq!(error.message, words, "{how}");
        let error = session.snapshot_state(0).unwrap_err();
        assert_eq!(error.message, words, "{how}");
        session.restore_state(0, &snapshot).unwrap();
        assert_eq!(run(&mut session, 3, 1.0).unwrap(), (4.0, 4.0), "{how}");
    }
}

#[test]
fn a_run_whose_delegate_reports_a_failure_counts_for_nothing() {
    if skipped() {
        return;
    }
    for how in ["error", "panic"] {
        let mut session = session(3, &format!("at = 'execute', how = '{how}', only = 666.0"));
        run(&mut session, 3, 1.0).unwrap();
        run(&mut session, 3, 666.0).unwrap_err();
        assert_eq!(run(&mut session, 3, 2.0).unwrap(), (3.0, 3.0), "{how}");
    }
}

#[test]
fn a_process_that_dies_between_a_run_and_its_end_leaves_no_doubt_unsaid() {
    if skipped() {
        return;
    }
    let mut session = session(3, "at = 'commit', how = 'kill'");
    let error = run(&mut session, 3, 1.0).unwrap_err();
    assert!(
        error
            .message
            .contains("its process died in a function `session_state_`"),
        "{error}"
    );
    let error = soon(|| run(&mut session, 3, 1.0)).unwrap_err();
    assert!(error.message.contains("was lost after run 0"), "{error}");
    assert_eq!(error.code, Status::DEVICE_LOST);
}

#[test]
fn a_process_that_died_unseen_is_found_before_a_snapshot_or_a_run_begins_from_nothing() {
    if skipped() {
        return;
    }
    // Two sessions of one process; the other one kills it.
    let host = host(&config("", "at = 'execute', how = 'kill', only = 666.0"));
    let delegate = host.delegate("fault").unwrap();
    let blob = delegate.compile(&image(3), &NoWeights, "").unwrap();
    let load = || delegate.load(&blob, Arc::new(NoWeights)).unwrap();
    let (mut one, mut two, mut three) = (load(), load(), load());
    run(&mut one, 3, 1.0).unwrap();
    run(&mut three, 3, 1.0).unwrap();
    run(&mut two, 3, 666.0).unwrap_err();
    let error = soon(|| one.snapshot_state(0).map(drop)).unwrap_err();
    assert!(error.message.contains("was lost after run 1"), "{error}");
    let error = soon(|| run(&mut three, 3, 1.0)).unwrap_err();
    assert!(error.message.contains("was lost after run 1"), "{error}");
    three.reset_state(0).unwrap();
    assert_eq!(run(&mut three, 3, 1.0).unwrap(), (1.0, 1.0));
}
