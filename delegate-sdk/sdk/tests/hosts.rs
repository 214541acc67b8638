//! One delegate under hosts of three ages.

mod common;

use common::probe::Probe;
use common::run::{Opened, Tensors, meta};
use common::{Call, Heard, Minor, Weights, image, start, table};
use delegraph_abi::{Status, c};
use delegraph_sdk::static_entry;

/// The entry's answer to a host table of this size and major.
fn entry_status(size: u32, major: u16) -> Status {
    let host = c::HostApi {
        struct_size: size,
        major,
        ..c::HostApi::new()
    };
    let mut table = std::ptr::null();
    // SAFETY: the entry keeps nothing of the table.
    unsafe { static_entry::<Probe>().entry()(&host, &mut table) }
}

#[test]
fn a_host_is_taken_from_the_first_minor_on() {
    let first = c::HostApi::FIRST_SIZE as u32;
    assert_eq!(entry_status(first, 1), Status::OK);
    assert_eq!(entry_status(first + 4, 1), Status::OK);
    assert_eq!(entry_status(first - 8, 1), Status::BAD_STRUCT);
    assert_eq!(entry_status(0, 1), Status::BAD_STRUCT);
    assert_eq!(entry_status(first, 0), Status::BAD_STRUCT);
    assert_eq!(entry_status(first, 2), Status::BAD_STRUCT);
}

#[test]
fn what_a_host_lacks_has_a_plain_answer() {
    for minor in [Minor::Zero, Minor::First, Minor::One, Minor::Later] {
        let opened = Opened::new(static_entry::<Probe>(), minor, "");
        let call = Call::new(minor);
        let mut tensors = Tensors::new(minor);
        assert_eq!(tensors.execute(opened.api, opened.session, &call), Status::OK);
        assert_eq!(tensors.result(), (2, &[3.0, -4.0][..]));
        let heard = call.heard();
        let device = opened.loading.logs[0].as_str();
        if minor == Minor::Zero {
            let line =
                "3: left None, run 0, now 0, profiling false, info true, debug true, extension false false, key None";
            assert_eq!(heard.logs[0], line);
            assert_eq!((heard.progress.len(), heard.events.len()), (0, 0));
            assert_eq!(opened.weights.unmapped.lock().unwrap().len(), 0);
            assert_eq!(device, "3: device None");
        } else {
            let line = "3: left Some(1.5s), run 77, now 1234, profiling true, info true, debug false, extension true false, \
                        key Some([7, 8])";
            assert_eq!(heard.logs[0], line, "{minor:?}");
            assert_eq!(heard.progress, [(3, 4, "nearly".to_string())]);
            let events = [
                (
                    "copy".to_string(),
                    u32::MAX,
                    1,
                    5,
                    6,
                    8,
                    if minor == Minor::First { 0 } else { 9 },
                ),
                ("double".to_string(), 0, 0, 0, 0, 0, 0),
            ];
            assert_eq!(heard.events, events);
            assert_eq!(*opened.weights.unmapped.lock().unwrap(), [0]);
            assert_eq!(device, "3: device Some(3)");
        }
        assert_eq!(heard.logs[1], "3: buffers (None, None)");
        assert_eq!(heard.error, None);
    }
}

#[test]
fn no_deadline_and_nobody_who_profiles() {
    let opened = Opened::new(static_entry::<Probe>(), Minor::One, "");
    let mut call = Call::new(Minor::One);
    call.time_left = u64::MAX;
    call.profiling = false.into();
    assert_eq!(
        Tensors::new(Minor::One).execute(opened.api, opened.session, &call),
        Status::OK
    );
    let line = call.heard().logs[0].clone();
    assert!(
        line.contains("left None,") && line.contains("profiling false,"),
        "{line}"
    );
    call.time_left = 0;
    assert_eq!(
        Tensors::new(Minor::One).execute(opened.api, opened.session, &call),
        Status::OK
    );
    assert!(call.heard().logs[2].contains("left Some(0ns),"));
}

/// Compiles in this mode.
fn compile(minor: Minor, mode: &str) -> (Status, Heard) {
    let api = table(static_entry::<Probe>(), minor);
    let (call, weights, image) = (Call::new(minor), Weights::new(&[&[7, 8, 9], &[1]]), image());
    let delegate = start(api, &call, mode).unwrap();
    let graph = c::Graph {
        image: image.as_ptr(),
        image_size: image.len() as u64,
        weights: weights.as_ptr(),
        ..c::Graph::new()
    };
    let target = c::Target {
        name: "t1".as_ptr(),
        name_size: 2,
        ..c::Target::new()
    };
    // SAFETY: all of it outlives the calls; the delegate is not used again.
    let status = unsafe {
        assert_eq!(
            api.partition.unwrap()(delegate, call.as_ptr(), &graph, call.sink()),
            Status::OK
        );
        let status = api.compile.unwrap()(delegate, call.as_ptr(), &graph, &target, call.sink());
        api.shutdown.unwrap()(delegate, call.as_ptr());
        status
    };
    let unmapped = if minor == Minor::Zero { vec![] } else { vec![1] };
    assert_eq!(*weights.unmapped.lock().unwrap(), unmapped);
    (status, call.heard())
}

#[test]
fn a_blob_says_what_it_needs() {
    for minor in [Minor::Zero, Minor::One, Minor::Later] {
        let new = minor != Minor::Zero;
        let (status, heard) = compile(minor, "plain");
        assert_eq!(status, Status::OK);
        assert_eq!(heard.verdicts, [(0, 1)]);
        assert_eq!(heard.sections, [("code".to_string(), 16, b"t1".to_vec())]);
        assert_eq!((heard.drivers, heard.requirements.len()), (None, 0));
        let keys = if new {
            "[Some([7, 8]), None, None] [1]"
        } else {
            "[None, None, None] [1]"
        };
        assert_eq!(heard.logs, [format!("3: {keys}")]);
        assert_eq!(heard.progress.len(), usize::from(new));

        let (status, heard) = compile(minor, "drivers");
        assert_eq!(status, Status::OK);
        assert_eq!(heard.drivers, new.then(|| ("1.2".to_string(), String::new())));
        // Warned of, once.
        assert_eq!(
            heard.logs.iter().filter(|line| line.starts_with("2: ")).count(),
            usize::from(!new)
        );

        let (status, heard) = compile(minor, "needs");
        if new {
            assert_eq!(status, Status::OK);
            assert_eq!(heard.requirements, [(0, 0, 64, 0), (1, 1, 0, 128)]);
        } else {
            assert_eq!(status, Status::UNSUPPORTED);
            assert!(heard.error.unwrap().4.contains("ABI 0.1"));
        }
    }
    let (status, heard) = compile(Minor::One, "needs-much");
    assert_eq!(status, Status::INVALID_ARGUMENT);
    assert!(heard.error.unwrap().3.contains("Input(0)"));
}

#[test]
fn metadata_of_any_age_is_read() {
    for (minor, want) in [
        (Minor::Zero, " .. , options None, weights None"),
        (Minor::One, "2.5 .. , options Some(2), weights None"),
    ] {
        let api = table(static_entry::<Probe>(), minor);
        let call = Call::new(minor);
        let delegate = start(api, &call, "").unwrap();
        // SAFETY: all of it outlives the calls; the delegate is not used again.
        unsafe {
            let check = api.blob_check.unwrap();
            assert_eq!(check(delegate, call.as_ptr(), &meta(minor), call.sink()), Status::OK);
            api.shutdown.unwrap()(delegate, call.as_ptr());
        }
        assert_eq!(
            call.heard().verdict,
            Some((c::BlobVerdict::RECOMPILE_BETTER, want.to_string()))
        );
    }
}

#[test]
fn weights_that_are_kept_are_given_back() {
    let opened = Opened::new(static_entry::<Probe>(), Minor::One, "");
    let retained = || opened.weights.retained.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(retained(), 1);
    let call = Call::new(Minor::One);
    let second = common::run::load(opened.api, opened.delegate, &call, &opened.weights, Minor::One).unwrap();
    assert_eq!(retained(), 2);
    // SAFETY: it is not used again.
    unsafe { opened.api.session_unload.unwrap()(second, call.as_ptr()) };
    assert_eq!(retained(), 1);
}
