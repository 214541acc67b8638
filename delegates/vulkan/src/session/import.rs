//! Memory of the host's that kernels use in place.

use crate::sys::{Buffer, Gpu, lock};
use delegraph_sdk::{Error, HostMemory, Imported};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// Memory that the host lets us see. Each device takes it when one of its sessions first meets it.
pub struct HostBuffer {
    id: u64,
    memory: HostMemory,
    /// `None`: that device does not take it.
    devices: Mutex<Vec<(Weak<Gpu>, Option<Arc<Buffer>>)>>,
}

/// A place in it: which memory, and the offset. Recorded commands are for one place.
pub type Spot = (u64, u64);

impl HostBuffer {
    /// Of memory that no device has seen yet.
    pub fn new(memory: HostMemory) -> HostBuffer {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        HostBuffer {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            memory,
            devices: Mutex::default(),
        }
    }

    /// Shows it to a device.
    ///
    /// # Errors
    /// The device does not take it.
    pub fn show(&self, gpu: &Arc<Gpu>) -> Result<(), Error> {
        let buffer = Buffer::import(gpu, self.memory)?;
        lock(&self.devices).push((Arc::downgrade(gpu), Some(Arc::new(buffer))));
        Ok(())
    }

    /// The buffer of a device; `None`: it does not take this memory.
    fn on(&self, gpu: &Arc<Gpu>) -> Option<Arc<Buffer>> {
        let mut devices = lock(&self.devices);
        if let Some((_, buffer)) = devices
            .iter()
            .find(|(known, _)| std::ptr::eq(known.as_ptr(), Arc::as_ptr(gpu)))
        {
            return buffer.clone();
        }
        devices.retain(|(known, _)| known.strong_count() > 0);
        let buffer = Buffer::import(gpu, self.memory).ok().map(Arc::new);
        devices.push((Arc::downgrade(gpu), buffer.clone()));
        buffer
    }
}

/// Where a tensor lies that a device can use in place.
#[derive(Clone)]
pub struct Landing {
    /// Which memory, and where in it.
    pub spot: Spot,
    /// The memory, as the device has it.
    pub buffer: Arc<Buffer>,
    /// Bytes from there on that are the tensor's.
    pub room: u64,
}

impl Landing {
    /// Of a tensor with this much room; `None`: it lies elsewhere, or where the device cannot bind it.
    pub fn of(imported: Option<Imported<'_>>, room: usize, gpu: &Arc<Gpu>) -> Option<Landing> {
        let imported = imported?;
        let host = imported.buffer::<HostBuffer>()?;
        let offset = imported.offset();
        if offset % gpu.facts().limits.offset_alignment.max(4) != 0 {
            return None;
        }
        let buffer = host.on(gpu)?;
        let room = (room as u64).min(buffer.size().checked_sub(offset)?);
        Some(Landing {
            spot: (host.id, offset),
            buffer,
            room,
        })
    }
}
