//! The layer over the driver, without a host: what the validation layers say, and memory.

use delegraph_sdk::Status;
use delegraph_vulkan::memory::Use;
use delegraph_vulkan::sys::{Buffer, Command, Gpu, Instance, Recording, Timeline};
use std::sync::Arc;

/// Every device, with validation layers.
fn devices() -> Option<(Arc<Instance>, Vec<Arc<Gpu>>)> {
    let instance = match Instance::open(None, true) {
        Ok(instance) => instance,
        Err(error) => {
            println!("skipped: no Vulkan driver or no validation layers: {error}");
            return None;
        }
    };
    let count = Gpu::list(&instance).unwrap().len();
    let gpus = (0..count).map(|at| Gpu::open(&instance, at, None).unwrap()).collect();
    Some((instance, gpus))
}

/// Copies from one buffer to the next and on, with a barrier between or not; whether anything was said, and what arrived.
fn copied_twice(gpu: &Arc<Gpu>, barrier: bool) -> Vec<u8> {
    let bytes: Vec<u8> = (0..=255).collect();
    let buffer = |r#use| Arc::new(Buffer::new(gpu, 256, r#use).unwrap());
    let (from, between, to) = (buffer(Use::Upload), buffer(Use::Device), buffer(Use::Readback));
    from.write(0, &bytes).unwrap();
    let mut commands = vec![Command::Copy {
        from: (&from, 0, 256),
        to: (&between, 0, 256),
    }];
    if barrier {
        commands.push(Command::Barrier);
    }
    commands.push(Command::Copy {
        from: (&between, 0, 256),
        to: (&to, 0, 256),
    });
    commands.push(Command::Barrier);
    let timeline = Arc::new(Timeline::new(gpu).unwrap());
    let recording = Recording::new(&timeline, &commands, false).unwrap();
    recording.submit().unwrap();
    assert!(timeline.wait(None).unwrap());
    let mut out = vec![0; 256];
    to.read(0, &mut out).unwrap();
    assert_eq!(out, bytes);
    out
}

#[test]
fn a_missing_barrier_is_said_and_right_commands_are_not() {
    let Some((instance, gpus)) = devices() else { return };
    for gpu in &gpus {
        copied_twice(gpu, true);
        instance.messages().check().unwrap();
    }
    let gpu = gpus.first().unwrap();
    copied_twice(gpu, false);
    let error = instance.messages().check().unwrap_err();
    assert_eq!(error.code, Status::INTERNAL);
    assert!(error.message.contains("SYNC-HAZARD"), "{error}");
}

#[test]
fn more_than_a_device_has_is_refused_before_the_driver_is_asked() {
    let Some((instance, gpus)) = devices() else { return };
    for gpu in &gpus {
        let most = gpu.facts().memory.heaps.iter().map(|heap| heap.bytes).max().unwrap();
        let error = Buffer::new(gpu, most + 1, Use::Device).err().unwrap();
        assert_eq!(error.code, Status::DEVICE_MEMORY_EXHAUSTED);
        assert_eq!(error.vendor_code, 0, "the driver was asked");
        assert_eq!(gpu.usage().allocations, 0);
        // Twenty thousand small ones are a few allocations.
        let small: Vec<_> = (0..20_000)
            .map(|_| Buffer::new(gpu, 300, Use::Device).unwrap())
            .collect();
        assert!(gpu.usage().allocations < 10, "{:?}", gpu.usage());
        drop(small);
        assert_eq!(gpu.usage().allocations, 0);
    }
    instance.messages().check().unwrap();
}

#[test]
fn commands_that_still_run_are_not_submitted_again() {
    let Some((instance, gpus)) = devices() else { return };
    for gpu in &gpus {
        let large = 8 << 20;
        let [a, b] = [(); 2].map(|()| Arc::new(Buffer::new(gpu, large, Use::Device).unwrap()));
        let mut commands = Vec::new();
        for _ in 0..50 {
            commands.extend([
                Command::Copy {
                    from: (&a, 0, large),
                    to: (&b, 0, large),
                },
                Command::Barrier,
            ]);
        }
        let timeline = Arc::new(Timeline::new(gpu).unwrap());
        let recording = Recording::new(&timeline, &commands, false).unwrap();
        recording.submit().unwrap();
        // Either it was refused, or the device was done by then.
        if let Err(error) = recording.submit() {
            assert_eq!(error.code, Status::INTERNAL, "{error}");
        }
        drop(recording);
        assert!(timeline.is_done().unwrap(), "a recording that goes has waited");
    }
    instance.messages().check().unwrap();
}
