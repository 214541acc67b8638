//! What a table has: by role, with or without a schema, and what becomes of panics.

mod common;

use common::probe::{Answer, Probe, SCHEMA};
use common::run::{Opened, Tensors};
use common::{Call, Fence, Heard, Minor, Weights, image, start, table};
use delegraph_abi::{StaticEntry, Status, c};
use delegraph_sdk::{
    Blob, Context, Delegate, Device, Error, Info, Options, Run, Session, roles, static_entry, static_entry_as,
};

/// It has no schema and no extensions, and loads nothing.
struct Idle;

impl Delegate for Idle {
    const INFO: Info = Info {
        name: "idle",
        ..Probe::INFO
    };

    fn new(_: &Options<'_>, _: &Context<'_>) -> Result<Idle, Error> {
        Ok(Idle)
    }

    fn devices(&self) -> Vec<Device> {
        Vec::new()
    }
}

impl Run for Idle {
    fn load(&self, _: &Blob<'_>, _: &delegraph_sdk::Weights<'_>, _: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        Err(Error::unsupported("nothing is loaded"))
    }
}

mod exported {
    delegraph_sdk::export_delegate!(super::Probe: compile, submit, import);
}

/// Functions that a table has, of those that are not in every one.
fn functions(api: &c::DelegateApi) -> Vec<&'static str> {
    [
        ("partition", api.partition.is_some()),
        ("compile", api.compile.is_some()),
        ("blob_check", api.blob_check.is_some()),
        ("session_load", api.session_load.is_some()),
        ("session_unload", api.session_unload.is_some()),
        ("session_execute", api.session_execute.is_some()),
        ("buffer_import", api.buffer_import.is_some()),
        ("buffer_release", api.buffer_release.is_some()),
        ("session_submit", api.session_submit.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, there)| there.then_some(name))
    .collect()
}

#[test]
fn a_table_has_the_functions_and_features_of_its_roles() {
    let compile = ["partition", "compile"].as_slice();
    let run = ["blob_check", "session_load", "session_unload", "session_execute"].as_slice();
    let import = ["buffer_import", "buffer_release"].as_slice();
    let submit = ["session_submit"].as_slice();
    // The numbers are those of the header.
    let cases = [
        (static_entry::<Probe>(), 0b11, vec![compile, run]),
        (static_entry_as::<Probe, roles::Compile>(), 0b1, vec![compile]),
        (static_entry_as::<Probe, roles::Run>(), 0b10, vec![run]),
        (static_entry_as::<Probe, roles::Submit>(), 0b1010, vec![run, submit]),
        (static_entry_as::<Probe, (roles::Import,)>(), 0b10010, vec![run, import]),
        (
            // SAFETY: the macro's entry is that of a delegate in safe Rust.
            unsafe { StaticEntry::new(exported::dg_delegate_entry_v1) },
            0b11011,
            vec![compile, run, import, submit],
        ),
        (
            static_entry_as::<Probe, (roles::Compile, roles::Run, roles::Submit, roles::Import)>(),
            0b11011,
            vec![compile, run, import, submit],
        ),
    ];
    for (i, (entry, features, want)) in cases.into_iter().enumerate() {
        let api = table(entry, Minor::One);
        assert_eq!(api.features, [features, 0], "case {i}");
        assert_eq!(functions(api), want.concat(), "case {i}");
        assert_eq!(api.missing(features).count(), 0, "case {i}");
        assert_eq!(api.struct_size as usize, size_of::<c::DelegateApi>());
    }
}

#[test]
fn a_schema_is_given_where_there_is_one() {
    let api = table(static_entry::<Probe>(), Minor::One);
    let call = Call::new(Minor::One);
    let (mut data, mut size) = (std::ptr::null(), 0);
    // SAFETY: both outputs are valid for writes; the text lives for ever.
    let text = unsafe {
        let get = api.options_schema.unwrap();
        assert_eq!(get(call.as_ptr(), std::ptr::null_mut(), &mut size), Status::BAD_STRUCT);
        assert_eq!(get(call.as_ptr(), &mut data, &mut size), Status::OK);
        std::slice::from_raw_parts(data, size as usize)
    };
    assert_eq!(text, SCHEMA.as_bytes());

    let api = table(static_entry_as::<Idle, roles::Run>(), Minor::One);
    assert!(api.options_schema.is_none());
}

#[test]
fn extensions_are_found_by_name_and_revision() {
    let api = table(static_entry::<Probe>(), Minor::One);
    let find = |name: &str, revision| {
        // SAFETY: the text outlives the call.
        unsafe { api.get_extension.unwrap()(name.as_ptr(), name.len() as u64, revision) }
    };
    for revision in [0, 1] {
        let answer = find("x.tests.answer", revision).cast::<Answer>();
        // SAFETY: that is the type of the table of this name.
        assert_eq!((unsafe { answer.as_ref() }.unwrap().answer)(), 42);
    }
    assert!(find("x.tests.answer", 2).is_null());
    assert!(find("x.tests.other", 0).is_null());
    assert!(find("x.tests.panics", 0).is_null());
    assert!(find("\u{7f}", 0).is_null());
    // SAFETY: the bytes outlive the call; they are no UTF-8.
    assert!(unsafe { api.get_extension.unwrap()([0xffu8].as_ptr(), 1, 0) }.is_null());
    let idle = table(static_entry_as::<Idle, roles::Run>(), Minor::One);
    // SAFETY: the text outlives the call.
    assert!(unsafe { idle.get_extension.unwrap()("x".as_ptr(), 1, 0) }.is_null());
}

/// What the host heard of a failure, without the node and the vendor's number.
fn said(heard: &Heard) -> (Status, &str) {
    let error = heard.error.as_ref().expect("an error");
    (error.0, &error.3)
}

#[test]
fn panics_are_internal_errors() {
    let api = table(static_entry_as::<Probe, (roles::Compile, roles::Import)>(), Minor::One);
    let call = Call::new(Minor::One);
    assert_eq!(start(api, &call, "new-panics"), Err(Status::INTERNAL));
    let text = "the delegate panicked: a mistake at the start";
    assert_eq!(said(&call.heard()), (Status::INTERNAL, text));

    let call = Call::new(Minor::One);
    let delegate = start(api, &call, "partition-panics").unwrap();
    let image = image();
    let graph = c::Graph {
        image: image.as_ptr(),
        image_size: image.len() as u64,
        ..c::Graph::new()
    };
    // SAFETY: all of it outlives the call.
    let status = unsafe { api.partition.unwrap()(delegate, call.as_ptr(), &graph, call.sink()) };
    assert_eq!(status, Status::INTERNAL);
    assert!(said(&call.heard()).1.contains("a mistake in partition"));
    // SAFETY: it is not used again.
    unsafe { api.shutdown.unwrap()(delegate, call.as_ptr()) };

    let call = Call::new(Minor::One);
    let delegate = start(api, &call, "import-panics").unwrap();
    let mut memory = vec![0u8; 3 * 4096];
    let at = memory.as_ptr().align_offset(4096);
    let desc = c::BufferDesc {
        handle_type: c::HandleType::HOST_POINTER,
        pointer: memory[at..].as_mut_ptr().cast(),
        size: 4096,
        ..c::BufferDesc::new()
    };
    let mut buffer = std::ptr::null_mut();
    // SAFETY: all of it outlives the delegate.
    let status = unsafe { api.buffer_import.unwrap()(delegate, call.as_ptr(), &desc, &mut buffer) };
    assert_eq!((status, buffer.is_null()), (Status::INTERNAL, true));
    // SAFETY: it is not used again.
    unsafe { api.shutdown.unwrap()(delegate, call.as_ptr()) };

    let opened = Opened::new(static_entry::<Probe>(), Minor::One, "panics");
    let call = Call::new(Minor::One);
    assert_eq!(
        Tensors::new(Minor::One).execute(opened.api, opened.session, &call),
        Status::INTERNAL
    );
    assert_eq!(said(&call.heard()).1, "the delegate panicked: a mistake in a run");
}

#[test]
fn what_is_null_is_refused() {
    let api = table(static_entry_as::<Probe, (roles::Submit, roles::Import)>(), Minor::One);
    let call = Call::new(Minor::One);
    let (nothing, fence) = (std::ptr::null_mut(), Fence::default());
    let mut tensors = Tensors::new(Minor::One);
    assert_eq!(
        tensors.submit(api, nothing, &call, fence.as_ptr()),
        Status::INVALID_ARGUMENT
    );
    let delegate = start(api, &call, "").unwrap();
    let weights = Weights::new(&[&[1, 2]]);
    let session = common::run::load(api, delegate, &call, &weights, Minor::One).unwrap();
    assert_eq!(
        tensors.submit(api, session, &call, std::ptr::null_mut()),
        Status::BAD_STRUCT
    );
    let mut buffer = std::ptr::null_mut();
    // SAFETY: NULL is what is tested; what is live is not used again.
    unsafe {
        let import = api.buffer_import.unwrap();
        assert_eq!(
            import(delegate, call.as_ptr(), std::ptr::null(), &mut buffer),
            Status::BAD_STRUCT
        );
        api.buffer_release.unwrap()(std::ptr::null_mut(), call.as_ptr());
        api.session_unload.unwrap()(session, call.as_ptr());
        api.shutdown.unwrap()(delegate, call.as_ptr());
        // Without a call nobody can be told.
        assert_eq!(
            api.initialize.unwrap()(std::ptr::null(), std::ptr::null(), std::ptr::null_mut()),
            Status::BAD_STRUCT
        );
    }
    assert_eq!(fence.signals.lock().unwrap().len(), 0, "nothing was submitted");
}
