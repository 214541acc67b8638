//! Runs that end later, and memory that is used in place.

mod common;

use common::probe::{Probe, RELEASED};
use common::run::{Opened, Tensors};
use common::{Call, Fence, Minor};
use delegraph_abi::{Status, c};
use delegraph_sdk::{roles, static_entry_as};
use std::sync::atomic::Ordering;
use std::time::Duration;

fn opened(mode: &str) -> Opened {
    Opened::new(static_entry_as::<Probe, roles::Submit>(), Minor::One, mode)
}

#[test]
fn a_run_ends_after_it_was_submitted() {
    let opened = opened("waits");
    let (call, fence) = (Call::new(Minor::One), Fence::default());
    let mut tensors = Tensors::new(Minor::One);
    assert_eq!(
        tensors.submit(opened.api, opened.session, &call, fence.as_ptr()),
        Status::OK
    );
    std::thread::sleep(Duration::from_millis(30));
    assert!(fence.signals.lock().unwrap().is_empty(), "the device is not done");
    call.cancelled.store(true, Ordering::SeqCst);
    assert_eq!(fence.signal(), (Status::OK, String::new()));
    assert_eq!(tensors.result(), (2, &[3.0, -4.0][..]));
    assert_eq!(call.heard().progress, [(1, 1, "from the device's thread".to_string())]);

    // The session takes the next one.
    let (tensors, signal, _) = opened.submit();
    assert_eq!((signal.0, tensors.result().1), (Status::OK, &[3.0, -4.0][..]));
}

#[test]
fn a_session_without_a_queue_runs_at_once() {
    let opened = opened("");
    let (call, fence) = (Call::new(Minor::One), Fence::default());
    let mut tensors = Tensors::new(Minor::One);
    assert_eq!(
        tensors.submit(opened.api, opened.session, &call, fence.as_ptr()),
        Status::OK
    );
    assert_eq!(*fence.signals.lock().unwrap(), [(Status::OK, String::new())]);
    assert_eq!(tensors.result(), (2, &[3.0, -4.0][..]));
    assert_eq!(call.heard().events.len(), 2);
}

#[test]
fn a_run_that_goes_wrong_ends_once() {
    for (mode, status, text) in [
        ("submit-drops", Status::INTERNAL, "dropped a submitted run"),
        ("submit-panics", Status::INTERNAL, "panicked in a submitted run"),
        (
            "body-panics",
            Status::INTERNAL,
            "the delegate panicked: a mistake in the body",
        ),
        ("panics", Status::INTERNAL, "the delegate panicked: a mistake in a run"),
        ("late-drop", Status::INTERNAL, "dropped a submitted run"),
        // It panics in `submit`, with the run on another thread already, and then there.
        ("late-panic", Status::INTERNAL, "panicked in a submitted run"),
        ("refuses", Status::DEVICE_BUSY, "busy"),
    ] {
        let opened = opened(mode);
        let (_, signal, heard) = opened.submit();
        assert_eq!(signal.0, status, "{mode}");
        assert!(signal.1.contains(text), "{mode}: {}", signal.1);
        // Node and hint come beside the fence.
        let (code, _, node, message, hint) = heard.error.unwrap();
        assert_eq!((code, message), signal, "{mode}");
        if mode == "refuses" {
            assert_eq!((node, hint.as_str()), (3, "wait"));
        }
    }
}

#[test]
fn a_host_without_fences_is_refused_before_anything_begins() {
    let opened = Opened::new(static_entry_as::<Probe, roles::Submit>(), Minor::Zero, "");
    let (call, fence) = (Call::new(Minor::Zero), Fence::default());
    let status = Tensors::new(Minor::Zero).submit(opened.api, opened.session, &call, fence.as_ptr());
    assert_eq!(status, Status::BAD_STRUCT);
    assert!(fence.signals.lock().unwrap().is_empty());
    assert!(call.heard().logs.is_empty(), "the session was not asked");
}

#[test]
fn imported_memory_comes_with_its_buffer() {
    let opened = Opened::new(
        static_entry_as::<Probe, (roles::Submit, roles::Import)>(),
        Minor::One,
        "",
    );
    let call = Call::new(Minor::One);
    let mut memory = vec![0u8; 4 * 4096];
    let at = memory.as_ptr().align_offset(4096);
    let pointer = memory[at..].as_mut_ptr();
    let import = |pointer: *mut u8, size, handle_type| {
        let desc = c::BufferDesc {
            handle_type,
            pointer: pointer.cast(),
            size,
            ..c::BufferDesc::new()
        };
        let mut buffer = std::ptr::null_mut();
        // SAFETY: the memory outlives the buffers.
        let status = unsafe { opened.api.buffer_import.unwrap()(opened.delegate, call.as_ptr(), &desc, &mut buffer) };
        (status, buffer)
    };
    let host_pointer = c::HandleType::HOST_POINTER;
    let none = std::ptr::null_mut();
    assert_eq!(import(pointer, 4096, c::HandleType(99)), (Status::UNSUPPORTED, none));
    assert_eq!(
        import(pointer.wrapping_add(1), 4096, host_pointer),
        (Status::INVALID_ARGUMENT, none)
    );
    assert_eq!(import(pointer, 4095, host_pointer), (Status::INVALID_ARGUMENT, none));
    assert_eq!(
        import(none.cast(), 4096, host_pointer),
        (Status::INVALID_ARGUMENT, none)
    );
    assert_eq!(import(pointer, 0, host_pointer), (Status::INVALID_ARGUMENT, none));
    let (status, buffer) = import(pointer, 8192, host_pointer);
    assert_eq!(status, Status::OK);

    let mut tensors = Tensors::new(Minor::One);
    tensors.in_buffer(buffer);
    // Its own type and no other.
    let want = "3: buffers (Some((Some(8192), false, 16)), Some((Some(8192), false, 32)))";
    let (runs, fence) = (Call::new(Minor::One), Fence::default());
    assert_eq!(tensors.execute(opened.api, opened.session, &runs), Status::OK);
    assert_eq!(
        tensors.submit(opened.api, opened.session, &runs, fence.as_ptr()),
        Status::OK
    );
    assert_eq!(fence.signal().0, Status::OK);
    let lines: Vec<String> = runs
        .heard()
        .logs
        .into_iter()
        .filter(|line| line.contains("buffers"))
        .collect();
    assert_eq!(lines, [want, want]);

    assert_eq!(RELEASED.load(Ordering::SeqCst), 0);
    // SAFETY: no run uses it any more.
    unsafe { opened.api.buffer_release.unwrap()(buffer, call.as_ptr()) };
    assert_eq!(RELEASED.load(Ordering::SeqCst), 1);
    // The buffer is not in the next run's tensors, though the session kept its lists.
    let next = Call::new(Minor::One);
    assert_eq!(
        Tensors::new(Minor::One).execute(opened.api, opened.session, &next),
        Status::OK
    );
    assert_eq!(next.heard().logs[1], "3: buffers (None, None)");
}
