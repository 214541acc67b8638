//! Memory that comes and goes by descriptors, over the host: the memory of one delegate's device in runs of another's, in place.
//!
//! A second instance of the delegate opens a `VkDevice` of its own, so that what it exports is another device's memory to the first. The
//! validation layers are on where they are installed; a message fails the run.
#![cfg(target_os = "linux")]

mod common;

use common::{COLUMNS, How, Numbers, ROWS, alone, count, delegate, expected, fixed_image, input, log};
use delegraph_host::{CallOptions, Delegate, Handle, HandleType, Input, Memory, Origin, Output, Session, Status};
use delegraph_types::{DType, Dims};
use serde_json::json;
use std::sync::Arc;

/// Bytes of a tensor.
const BYTES: usize = ROWS * COLUMNS * 4;

/// Two instances, with validation where the layers are, and the numbers of their devices. Empty: no driver.
fn two() -> Option<(Arc<Delegate>, Arc<Delegate>, Vec<u32>)> {
    let validated = || delegate(json!({ "validation": true }));
    let mut pair = (validated(), validated());
    if pair.0.devices().unwrap().is_empty() {
        println!("without validation: no layers, or no driver");
        pair = (delegate(json!({})), delegate(json!({})));
    }
    let devices = common::devices(&pair.0);
    if devices.is_empty() {
        println!("skipped: no Vulkan driver");
        return None;
    }
    Some((pair.0, pair.1, devices))
}

fn session(delegate: &Delegate, device: u32) -> Session {
    let blob = delegate.compile(&fixed_image(), &*Numbers::new(), "").unwrap();
    let options = CallOptions::default();
    delegate
        .load_with(&blob, Numbers::new(), Some(device), &options)
        .unwrap()
}

/// Runs once with both tensors in a memory, at these offsets.
fn run_there(session: &mut Session, memory: &Arc<Memory>, [from, to]: [usize; 2], seed: usize, how: &How<'_>) {
    let x = input(ROWS, seed);
    memory.write_at(from, &common::bytes(&x)).unwrap();
    memory.write_at(to, &[0xff; BYTES]).unwrap();
    let sizes = [ROWS as i64, COLUMNS as i64];
    // SAFETY: within the memory, apart, and nobody else's during the run.
    let (given, taken) = unsafe {
        (
            std::slice::from_raw_parts(memory.as_ptr().add(from).cast_const(), BYTES),
            std::slice::from_raw_parts_mut(memory.as_ptr().add(to), BYTES),
        )
    };
    let inputs = [Input {
        dtype: DType::F32,
        sizes: &sizes,
        bytes: given,
    }];
    let mut outputs = [Output {
        dtype: DType::F32,
        sizes: Dims::new(&sizes).unwrap(),
        bytes: taken,
    }];
    match how.submitted {
        true => session.submit(&inputs, &mut outputs, &how.options, |_| ()).1.unwrap(),
        false => session.execute_with(&inputs, &mut outputs, &how.options).unwrap(),
    }
    let mut out = vec![0; BYTES];
    memory.read_at(to, &mut out).unwrap();
    assert!(out == common::bytes(&expected(&x)), "wrong numbers at {from} and {to}");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn memory_of_one_device_is_used_in_place_by_another() {
    let _alone = alone();
    let Some((first, second, devices)) = two() else { return };
    let mut tried = Vec::new();
    for device in devices {
        let name = first.devices().unwrap()[device as usize].name.clone();
        let handles = first.handles(Some(device)).unwrap();
        println!("{name}: imports {:?}, exports {:?}", handles.import, handles.export);
        for kind in [HandleType::OpaqueFd, HandleType::DmaBuf] {
            if !handles.import.contains(&kind) || !handles.export.contains(&kind) {
                println!("skipped: `{name}` does not import and export {kind}");
                continue;
            }
            let exported = match second.export_memory(kind, 4 * BYTES as u64, Some(device)) {
                Ok(memory) => Arc::new(memory),
                Err(error) => {
                    // A driver may say that it can, and need something of the system that is not here.
                    println!("skipped: `{name}` exports no {kind} here: {error}");
                    continue;
                }
            };
            assert!(exported.size() >= 4 * BYTES);
            let mut own = session(&second, device);
            assert!(own.share(&exported), "{name}: its own {kind}");
            let mut other = session(&first, device);
            assert!(other.share(&exported), "{name}: another's {kind}");
            for submitted in [false, true] {
                let how = How {
                    submitted,
                    ..How::default()
                };
                for (seed, places) in [[0, BYTES], [2 * BYTES, 3 * BYTES], [3 * BYTES, 256]]
                    .into_iter()
                    .enumerate()
                {
                    for session in [&mut own, &mut other] {
                        log();
                        run_there(session, &exported, places, seed, &how);
                        let lines = log();
                        if lines.iter().any(|line| line.contains(" in_place=")) {
                            let seen = |name| count(&lines, name);
                            let found = (seen("in_place"), seen("copied_in"), seen("copied_out"));
                            assert_eq!(found, (2, 0, 0), "{name}, {kind}: {lines:?}");
                        }
                    }
                }
            }
            // The maker is gone, the memory is not.
            own.unshare(&exported);
            drop(own);
            run_there(&mut other, &exported, [0, BYTES], 9, &How::default());
            other.unshare(&exported);
            tried.push((name.clone(), kind));
        }
    }
    println!("in place: {tried:?}");
}

#[test]
fn what_is_not_this_devices_is_refused() {
    let _alone = alone();
    let Some((first, second, devices)) = two() else { return };
    for device in devices {
        let handles = first.handles(Some(device)).unwrap();
        if !handles.export.contains(&HandleType::OpaqueFd) {
            continue;
        }
        let memory = second.export_memory(HandleType::OpaqueFd, 4096, Some(device)).unwrap();
        let handle = memory.handle().unwrap();
        let clone = || handle.fd().try_clone_to_owned().unwrap();
        let mut origin = handle.origin();
        origin.device_uuid[3] ^= 1;
        let wrong = |origin: Origin, size: u64| {
            let handle = Handle::opaque(clone(), size, origin).unwrap();
            first.import_memory(handle, Some(device)).err().map(|error| error.code)
        };
        assert_eq!(
            wrong(origin, handle.size()),
            Some(Status::UNSUPPORTED),
            "another device's"
        );
        let origin = Origin {
            memory_type: 31,
            ..handle.origin()
        };
        assert_eq!(
            wrong(origin, handle.size()),
            Some(Status::UNSUPPORTED),
            "another type of memory"
        );
    }
}

/// The thousand rounds are without validation: the layers keep something of every object.
#[test]
fn a_thousand_imports_leave_no_descriptor_and_no_memory() {
    let _alone = alone();
    let (first, second) = (delegate(json!({})), delegate(json!({})));
    for device in common::devices(&first) {
        let handles = first.handles(Some(device)).unwrap();
        if !handles.import.contains(&HandleType::OpaqueFd) || !handles.export.contains(&HandleType::OpaqueFd) {
            continue;
        }
        let memory = Arc::new(second.export_memory(HandleType::OpaqueFd, 65536, Some(device)).unwrap());
        let mut session = session(&first, device);
        assert!(session.share(&memory));
        session.unshare(&memory);
        let before = descriptors();
        for _ in 0..1000 {
            assert!(session.share(&memory));
            session.unshare(&memory);
        }
        assert_eq!(descriptors(), before, "imports");
        for _ in 0..100 {
            drop(second.export_memory(HandleType::OpaqueFd, 65536, Some(device)).unwrap());
        }
        assert_eq!(descriptors(), before, "exports");
    }
}

/// No exporter of dma-bufs is needed for this: lavapipe maps what it is given as one. It stands for the calls alone; that a driver of a GPU takes
/// a real one is for a machine that has both.
#[test]
fn what_a_driver_takes_for_a_dma_buf_is_bound_and_used() {
    use delegraph_sdk::ExternalMemory;
    use delegraph_vulkan::memory::Use;
    use delegraph_vulkan::sys::{Buffer, Command, Gpu, Instance, Recording, Timeline};
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    let _alone = alone();
    let instance = match Instance::open(None, true) {
        Ok(instance) => instance,
        Err(error) => return println!("skipped: no Vulkan driver or no validation layers: {error}"),
    };
    for (at, facts) in Gpu::list(&instance).unwrap().into_iter().enumerate() {
        if !facts.external.dma_buf.import || !facts.name.contains("llvmpipe") {
            println!("skipped: `{}` is not lavapipe with dma-bufs", facts.name);
            continue;
        }
        let gpu = Gpu::open(&instance, at, None).unwrap();
        let path = format!("/dev/shm/delegraph-external-{}", std::process::id());
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len(8192).unwrap();
        let bytes: Vec<u8> = (0..=255).cycle().take(512).collect();
        file.write_all_at(&bytes, 4096).unwrap();
        let kind = delegraph_sdk::HandleType::DmaBuf;
        let origin = delegraph_sdk::Origin::default();
        let memory = ExternalMemory::new(kind, file.as_fd(), 8192, origin);
        let imported = match Buffer::import_external(&gpu, &memory) {
            Ok(buffer) => Arc::new(buffer),
            Err(error) => {
                println!("skipped: `{}` wants a real one: {error}", facts.name);
                continue;
            }
        };
        let back = Arc::new(Buffer::new(&gpu, 512, Use::Readback).unwrap());
        let commands = [
            Command::Copy {
                from: (&imported, 4096, 512),
                to: (&back, 0, 512),
            },
            Command::Copy {
                from: (&imported, 4096, 256),
                to: (&imported, 1024, 256),
            },
            Command::Barrier,
        ];
        let timeline = Arc::new(Timeline::new(&gpu).unwrap());
        let recording = Recording::new(&timeline, &commands, false).unwrap();
        recording.submit().unwrap();
        assert!(timeline.wait(None).unwrap());
        let mut out = vec![0; 512];
        back.read(0, &mut out).unwrap();
        assert!(out == bytes, "what lies there was not read");
        file.read_exact_at(&mut out[..256], 1024).unwrap();
        assert!(out[..256] == bytes[..256], "what was written is not there");
        instance.messages().check().unwrap();
        println!("{}: a file was taken for a dma-buf, read and written", facts.name);
    }
}
