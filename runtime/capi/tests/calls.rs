//! What the C programs do not show: bytes that are copied and borrowed, descriptors, state, structs of other versions.

mod common;

use common::fixture;
use delegraph_capi::generated::{
    BORROW_BYTES, Counts, ErrorInfo, ModelOptions, SessionOptions, Slot, Value, dtype, kind, list, status,
};
use delegraph_capi::sys::*;
use delegraph_capi::{Model, Session};
use delegraph_runner::Leaf;
use delegraph_runner::compare::compare;
use delegraph_runner::fixture::{Fixture, Step};
use delegraph_types::DType;
use std::ffi::{CStr, CString};
use std::mem::{MaybeUninit, size_of};
use std::ptr::{null, null_mut};

/// A struct of the header, zero but for its size.
fn blank<T: Copy>() -> T {
    let mut blank = MaybeUninit::<T>::zeroed();
    // SAFETY: every struct of the header begins with `struct_size`, and all zeros is a value of it.
    unsafe {
        blank.as_mut_ptr().cast::<u32>().write(size_of::<T>() as u32);
        blank.assume_init()
    }
}

fn words() -> String {
    let mut error: ErrorInfo = blank();
    // SAFETY: `error` is a whole struct; its texts live until the next failure of this thread.
    unsafe {
        delegraph_last_error(&mut error);
        format!("{:?} {:?}", CStr::from_ptr(error.message), CStr::from_ptr(error.hint))
    }
}

fn from_bytes(bytes: &[u8], flags: u32) -> *mut Model {
    let mut options: ModelOptions = blank();
    options.flags = flags;
    let mut model = null_mut();
    // SAFETY: every caller keeps the bytes as long as the model.
    let got = unsafe { delegraph_model_from_bytes(bytes.as_ptr().cast(), bytes.len() as u64, &options, &mut model) };
    assert_eq!(got, status::OK, "{}", words());
    model
}

fn open(model: *const Model) -> *mut Session {
    let mut session = null_mut();
    let mut options: SessionOptions = blank();
    options.threads = 1;
    // SAFETY: a model of this library.
    let got = unsafe { delegraph_session_open(model, &options, &mut session) };
    assert_eq!(got, status::OK, "{}", words());
    session
}

fn leaf(value: &Value) -> Leaf {
    match value.kind {
        kind::TENSOR => {
            // SAFETY: `rank` sizes and `data_size` bytes, good until the next run.
            let (sizes, bytes) = unsafe {
                (
                    std::slice::from_raw_parts(value.sizes, value.rank as usize),
                    std::slice::from_raw_parts(value.data.cast::<u8>(), value.data_size as usize),
                )
            };
            Leaf::Tensor {
                dtype: DType::from_pte(value.dtype as i8).unwrap(),
                shape: sizes.iter().map(|size| *size as i64).collect(),
                bytes: bytes.to_vec(),
            }
        }
        kind::INT => Leaf::Int(value.int_value),
        kind::FLOAT => Leaf::Float(value.float_value),
        kind::BOOL => Leaf::Bool(value.int_value != 0),
        _ => Leaf::None,
    }
}

/// Runs a step and compares what comes out.
fn step(session: *mut Session, step: &Step, fixture: &Fixture) {
    let sizes: Vec<Vec<u64>> = step
        .inputs
        .iter()
        .map(|leaf| match leaf {
            Leaf::Tensor { shape, .. } => shape.iter().map(|size| *size as u64).collect(),
            _ => Vec::new(),
        })
        .collect();
    let values: Vec<Value> = step
        .inputs
        .iter()
        .zip(&sizes)
        .map(|(leaf, sizes)| {
            let mut value: Value = blank();
            match leaf {
                Leaf::Tensor { dtype, bytes, .. } => {
                    value.kind = kind::TENSOR;
                    value.dtype = dtype.pte_code() as u32;
                    value.rank = sizes.len() as u32;
                    value.sizes = sizes.as_ptr();
                    value.data = bytes.as_ptr().cast();
                    value.data_size = bytes.len() as u64;
                }
                Leaf::Int(number) => (value.kind, value.int_value) = (kind::INT, *number),
                Leaf::Bool(number) => (value.kind, value.int_value) = (kind::BOOL, i64::from(*number)),
                Leaf::Float(number) => (value.kind, value.float_value) = (kind::FLOAT, *number),
                other => panic!("{other:?}"),
            }
            value
        })
        .collect();
    // SAFETY: what the values point to lives until the end of this function.
    let got = unsafe { delegraph_session_run(session, values.as_ptr(), values.len() as u64) };
    assert_eq!(got, status::OK, "{}", words());
    for (i, want) in step.outputs.iter().enumerate() {
        let mut value: Value = blank();
        // SAFETY: a whole struct.
        let got = unsafe { delegraph_session_output(session, i as u64, &mut value) };
        assert_eq!(got, status::OK);
        compare(&leaf(&value), want, fixture.tolerance).unwrap_or_else(|reason| panic!("output {i}: {reason}"));
    }
}

fn state(session: *mut Session, name: &str) -> Leaf {
    let name = CString::new(name).unwrap();
    let mut value: Value = blank();
    // SAFETY: a whole struct and a text.
    let got = unsafe { delegraph_session_state(session, name.as_ptr(), &mut value) };
    assert_eq!(got, status::OK, "{}", words());
    leaf(&value)
}

fn free(model: *mut Model, sessions: &[*mut Session]) {
    // SAFETY: each is freed once.
    unsafe {
        delegraph_model_free(model);
        sessions.iter().for_each(|session| delegraph_session_free(*session));
    }
}

#[test]
fn state_is_kept_read_adopted_and_reset() {
    let recorded = Fixture::read(&fixture("arch-kv-cache")).unwrap();
    let file = std::fs::read(fixture("arch-kv-cache").join("model.pt2")).unwrap();
    let model = from_bytes(&file, 0);
    // Copied: the bytes may go.
    drop(file);
    let case = recorded.cases.iter().max_by_key(|case| case.steps.len()).unwrap();
    assert!(case.steps.len() > 1 && !case.buffers_after.is_empty());
    let (first, second) = (open(model), open(model));
    for s in &case.steps {
        step(first, s, &recorded);
    }
    let mut counts: Counts = blank();
    // SAFETY: whole structs, and sessions of this library, here and below.
    let got = unsafe { delegraph_session_counts(first, &mut counts) };
    assert_eq!(got, status::OK);
    let mut names = Vec::new();
    for i in 0..counts.states {
        let mut slot: Slot = blank();
        // SAFETY: as above.
        let got = unsafe { delegraph_session_slot(first, list::STATES, i, &mut slot) };
        assert_eq!(got, status::OK);
        // SAFETY: a text for the life of the session.
        names.push(unsafe { CStr::from_ptr(slot.name) }.to_str().unwrap().to_string());
        assert_eq!(slot.kind, kind::TENSOR);
    }
    let mut fresh = Vec::new();
    for (name, want) in &case.buffers_after {
        assert!(names.contains(name), "{names:?} has no {name}");
        compare(&state(first, name), want, recorded.tolerance).unwrap();
        fresh.push(state(second, name));
        assert!(
            compare(&state(second, name), want, recorded.tolerance).is_err(),
            "{name} did not change"
        );
    }
    let mut taken = 0;
    // SAFETY: as above.
    let got = unsafe { delegraph_session_adopt_state(second, first, &mut taken) };
    assert_eq!(got, status::OK);
    assert_eq!(taken, counts.states);
    for (name, want) in &case.buffers_after {
        compare(&state(second, name), want, recorded.tolerance).unwrap();
    }
    // SAFETY: as above.
    let got = unsafe { delegraph_session_reset(second) };
    assert_eq!(got, status::OK);
    for ((name, _), want) in case.buffers_after.iter().zip(&fresh) {
        assert_eq!(&state(second, name), want, "{name}");
    }
    for s in &case.steps {
        step(second, s, &recorded);
    }
    free(model, &[first, second]);
}

#[test]
fn borrowed_bytes_are_read_where_they_lie() {
    let recorded = Fixture::read(&fixture("arch-multi-output")).unwrap();
    let file = std::fs::read(fixture("arch-multi-output").join("model.pte")).unwrap();
    for shift in [0, 1, 3] {
        let mut bytes = vec![0u8; shift];
        bytes.extend_from_slice(&file);
        let model = from_bytes(&bytes[shift..], BORROW_BYTES);
        let session = open(model);
        // The session keeps what it needs of the model, but not the bytes.
        // SAFETY: freed once.
        unsafe { delegraph_model_free(model) };
        step(session, &recorded.cases[0].steps[0], &recorded);
        free(null_mut(), &[session]);
    }
}

#[cfg(unix)]
#[test]
fn a_model_is_read_from_a_part_of_an_open_file() {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    let recorded = Fixture::read(&fixture("arch-multi-output")).unwrap();
    let file = std::fs::read(fixture("arch-multi-output").join("model.pte")).unwrap();
    let mut archive = tempfile::tempfile().unwrap();
    archive.write_all(b"lead").unwrap();
    archive.write_all(&file).unwrap();
    archive.write_all(b"trail").unwrap();
    let from = |offset: u64, size: u64| {
        let mut model = null_mut();
        // SAFETY: an open descriptor, and a place for the model.
        let got = unsafe { delegraph_model_from_fd(archive.as_raw_fd(), offset, size, null(), &mut model) };
        (got, model)
    };
    let (got, model) = from(4, file.len() as u64);
    assert_eq!(got, status::OK, "{}", words());
    // SAFETY: a model of this library.
    unsafe {
        assert_eq!(CStr::from_ptr(delegraph_model_method(model, 0)), c"forward");
        assert!(delegraph_model_method(model, 1).is_null());
        assert!(delegraph_model_method(model, u64::MAX).is_null());
    }
    let session = open(model);
    step(session, &recorded.cases[0].steps[0], &recorded);
    free(model, &[session]);
    for (offset, size, words_of_it) in [
        (0, 0, "neither"),
        (4, u64::MAX, "do not lie in it"),
        (u64::MAX, 0, "do not lie in it"),
    ] {
        let (got, model) = from(offset, size);
        assert!(got != status::OK && model.is_null());
        assert!(words().contains(words_of_it), "{}", words());
    }
    let (read, _write) = std::io::pipe().unwrap();
    let mut model = null_mut();
    // SAFETY: as above.
    let got = unsafe { delegraph_model_from_fd(read.as_raw_fd(), 0, 0, null(), &mut model) };
    assert!(
        got == status::USAGE && words().contains("no regular file"),
        "{}",
        words()
    );
}

#[test]
fn a_struct_of_a_newer_header_is_filled_as_far_as_it_is_known() {
    #[repr(C)]
    struct Newer {
        known: Counts,
        more: [u64; 4],
    }
    let file = std::fs::read(fixture("arch-multi-output").join("model.pte")).unwrap();
    let model = from_bytes(&file, 0);
    let session = open(model);
    let mut newer = Newer {
        known: blank(),
        more: [0x5a5a; 4],
    };
    newer.known.struct_size = size_of::<Newer>() as u32;
    // SAFETY: as many bytes as the struct states.
    let got = unsafe { delegraph_session_counts(session, (&raw mut newer).cast()) };
    assert_eq!(got, status::OK);
    assert!(newer.known.outputs > 1);
    assert_eq!(newer.known.struct_size as usize, size_of::<Newer>());
    assert_eq!(newer.more, [0x5a5a; 4]);

    // Arguments of a newer header lie further apart.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct NewerValue {
        known: Value,
        more: [u64; 3],
    }
    let mut value: Value = blank();
    value.struct_size = size_of::<NewerValue>() as u32;
    (value.kind, value.dtype) = (kind::TENSOR, dtype::F32);
    let given = [NewerValue {
        known: value,
        more: [!0; 3],
    }; 1];
    // SAFETY: one value of as many bytes as it states.
    let got = unsafe { delegraph_session_run(session, given.as_ptr().cast(), 1) };
    // A scalar is not what it takes: the known fields were read, and nothing beyond.
    assert!(got != status::OK && words().contains("f32[scalar]"), "{}", words());
    free(model, &[session]);
}

#[test]
fn a_session_takes_one_call_at_a_time_and_models_many() {
    let file = std::fs::read(fixture("arch-multi-output").join("model.pte")).unwrap();
    let recorded = Fixture::read(&fixture("arch-multi-output")).unwrap();
    let model = from_bytes(&file, 0) as usize;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let session = open(model as *const Model);
                step(session, &recorded.cases[0].steps[0], &recorded);
                free(null_mut(), &[session]);
            });
        }
    });
    free(model as *mut Model, &[]);
}
