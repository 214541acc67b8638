//! The role `external`: its table, who has a descriptor, and what is refused.
#![cfg(unix)]

mod common;

use common::probe::{Probe, Registered};
use common::{Call, Minor, start, table};
use delegraph_abi::{Status, c};
use delegraph_sdk::{
    Context, Error, Exported, External, ExternalMemory, HandleType, Handles, Mapped, Origin, roles, static_entry_as,
};
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Bytes that the processor sees of what is exported.
static SEEN: [u8; 64] = [7; 64];

impl External for Probe {
    fn handles(&self, device: Option<u32>) -> Handles {
        Handles {
            import: [HandleType::DmaBuf, HandleType::OpaqueFd].into_iter().collect(),
            export: device.map(|_| HandleType::DmaBuf).into_iter().collect(),
        }
    }

    fn import_external(&self, memory: ExternalMemory<'_>, _: &Context<'_>) -> Result<Registered, Error> {
        let expected = Origin {
            driver_uuid: [1; 16],
            device_uuid: [2; 16],
            memory_type: 3,
            dedicated: true,
        };
        match memory.handle {
            HandleType::OpaqueFd if memory.origin == expected => {}
            HandleType::DmaBuf => {}
            other => return Err(Error::unsupported(format!("not {other:?} of {:?}", memory.origin))),
        }
        let size = memory.size as usize;
        Ok(Registered { size })
    }

    fn export(
        &self,
        _: Option<u32>,
        _: HandleType,
        size: u64,
        _: &Context<'_>,
    ) -> Result<Exported<Registered>, Error> {
        Ok(Exported {
            buffer: Registered { size: 64 },
            fd: File::open("/dev/null").unwrap().into(),
            size: size + 1,
            origin: Origin::default(),
        })
    }

    fn mapped(&self, buffer: &Registered) -> Option<Mapped> {
        // SAFETY: constant bytes, which this test only reads.
        (buffer.size == 64).then(|| unsafe { Mapped::new(SEEN.as_ptr().cast_mut(), SEEN.len()) })
    }
}

#[test]
fn the_table_has_the_functions_and_the_bit() {
    let api = table(static_entry_as::<Probe, roles::External>(), Minor::One);
    // The numbers are those of the header: RUN, IMPORT, EXTERNAL.
    assert_eq!(api.features, [2 | 16 | 128, 0]);
    assert_eq!(api.missing(api.features[0]).count(), 0);
    let plain = table(static_entry_as::<Probe, roles::Import>(), Minor::One);
    assert!(plain.buffer_handle_types.is_none() && plain.buffer_export.is_none() && plain.buffer_map.is_none());
}

#[test]
fn descriptors_are_borrowed_and_given() {
    let api = table(static_entry_as::<Probe, roles::External>(), Minor::One);
    let call = Call::new(Minor::One);
    let delegate = start(api, &call, "").unwrap();
    let file = File::open("/dev/null").unwrap();
    let mut buffer = std::ptr::null_mut();
    let mut import = |desc: &c::BufferDesc| {
        // SAFETY: all of it is there during the call; what comes is released below or given up.
        let status = unsafe { api.buffer_import.unwrap()(delegate, call.as_ptr(), desc, &mut buffer) };
        if status == Status::OK {
            // SAFETY: it was just made, and is not used again.
            unsafe { api.buffer_release.unwrap()(buffer, call.as_ptr()) };
        }
        status
    };
    let desc = |handle_type| c::BufferDesc {
        handle_type,
        size: 100,
        fd: file.as_raw_fd(),
        ..c::BufferDesc::new()
    };
    assert_eq!(import(&desc(c::HandleType::DMA_BUF)), Status::OK);
    let opaque = c::BufferDesc {
        memory_type: 3,
        dedicated: 1,
        driver_uuid: [1; 16],
        device_uuid: [2; 16],
        ..desc(c::HandleType::OPAQUE_FD)
    };
    assert_eq!(import(&opaque), Status::OK);
    assert_eq!(import(&desc(c::HandleType::OPAQUE_FD)), Status::UNSUPPORTED);
    for unknown in [0, 5, 6, 64, u32::MAX] {
        assert_eq!(import(&desc(c::HandleType(unknown))), Status::UNSUPPORTED, "{unknown}");
    }
    let mut wrong = desc(c::HandleType::DMA_BUF);
    wrong.fd = -1;
    assert_eq!(import(&wrong), Status::INVALID_ARGUMENT);
    wrong = desc(c::HandleType::DMA_BUF);
    wrong.size = 0;
    assert_eq!(import(&wrong), Status::INVALID_ARGUMENT);
    // The description of an older host, which ends before the descriptor.
    let mut older = c::BufferDesc::new();
    older.struct_size = c::BufferDesc::FIRST_SIZE as u32;
    older.handle_type = c::HandleType::HOST_POINTER;
    (older.pointer, older.size) = (4096 as *mut _, 4096);
    assert_eq!(import(&older), Status::OK);
    // The descriptor is as it was.
    assert!(file.metadata().is_ok());

    let (mut takes, mut gives) = (0, 0);
    let mut desc = c::BufferDesc::new();
    let mut size = 0;
    let mut seen = std::ptr::null_mut();
    // SAFETY: outputs are valid for the calls; what was made is released once.
    unsafe {
        let types = api.buffer_handle_types.unwrap();
        assert_eq!(types(delegate, call.as_ptr(), c::NONE, &mut takes, &mut gives), Status::OK);
        assert_eq!((takes, gives), (0b1100, 0));
        assert_eq!(types(delegate, call.as_ptr(), 0, &mut takes, &mut gives), Status::OK);
        assert_eq!((takes, gives), (0b1100, 0b1000));
        assert_eq!(
            types(delegate, call.as_ptr(), 0, std::ptr::null_mut(), &mut gives),
            Status::BAD_STRUCT
        );
        let export = api.buffer_export.unwrap();
        let mut ask = |handle_type, bytes, desc: &mut c::BufferDesc| {
            export(delegate, call.as_ptr(), 0, handle_type, bytes, desc, &mut buffer)
        };
        desc.struct_size -= 8;
        assert_eq!(ask(c::HandleType::DMA_BUF, 100, &mut desc), Status::BAD_STRUCT);
        desc.struct_size += 8;
        assert_eq!(ask(c::HandleType::DMA_BUF, 0, &mut desc), Status::INVALID_ARGUMENT);
        assert_eq!(ask(c::HandleType(5), 100, &mut desc), Status::UNSUPPORTED);
        assert_eq!(ask(c::HandleType::DMA_BUF, 100, &mut desc), Status::OK);
        assert_eq!((desc.handle_type, desc.size), (c::HandleType::DMA_BUF, 101));
        let given = File::from(OwnedFd::from_raw_fd(desc.fd));
        assert!(given.metadata().is_ok());
        let map = api.buffer_map.unwrap();
        assert_eq!(map(buffer, call.as_ptr(), &mut seen, &mut size), Status::OK);
        assert_eq!((seen.cast_const().cast(), size), (SEEN.as_ptr(), 64));
        assert_eq!(map(std::ptr::null_mut(), call.as_ptr(), &mut seen, &mut size), Status::INVALID_ARGUMENT);
        api.buffer_release.unwrap()(buffer, call.as_ptr());
        // Closing it is the host's, before or after.
        drop(given);
        api.shutdown.unwrap()(delegate, call.as_ptr());
    }
}
