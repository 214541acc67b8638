//! Memory of the host's and of others that kernels use in place.

use crate::sys::{Buffer, Gpu, lock};
use delegraph_sdk::{Error, HostMemory, Imported};
#[cfg(unix)]
use delegraph_sdk::{Exported, ExternalMemory, HandleType, Mapped, Origin};
#[cfg(unix)]
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// Memory that the host lets us see, or that was allocated for others. Each device takes it when one of its sessions first meets it.
pub struct HostBuffer {
    id: u64,
    source: Source,
    /// `None`: that device does not take it.
    devices: Mutex<Vec<(Weak<Gpu>, Option<Arc<Buffer>>)>>,
}

/// What memory is known by.
enum Source {
    Pointer(HostMemory),
    /// A descriptor of our own.
    #[cfg(unix)]
    Descriptor {
        handle: HandleType,
        fd: OwnedFd,
        size: u64,
        origin: Origin,
    },
}

impl Source {
    fn on(&self, gpu: &Arc<Gpu>) -> Result<Buffer, Error> {
        match self {
            Source::Pointer(memory) => Buffer::import(gpu, *memory),
            #[cfg(unix)]
            Source::Descriptor {
                handle,
                fd,
                size,
                origin,
            } => Buffer::import_external(gpu, &ExternalMemory::new(*handle, fd.as_fd(), *size, *origin)),
        }
    }
}

/// A place in it: which memory, and the offset. Recorded commands are for one place.
pub type Spot = (u64, u64);

impl HostBuffer {
    /// Of memory that no device has seen yet.
    pub fn new(memory: HostMemory) -> HostBuffer {
        HostBuffer::of(Source::Pointer(memory))
    }

    fn of(source: Source) -> HostBuffer {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        HostBuffer {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            source,
            devices: Mutex::default(),
        }
    }

    /// Of a descriptor, which is duplicated.
    ///
    /// # Errors
    /// The system has no descriptor left.
    #[cfg(unix)]
    pub fn external(memory: &ExternalMemory<'_>) -> Result<HostBuffer, Error> {
        let fd = memory.fd.try_clone_to_owned();
        Ok(HostBuffer::of(Source::Descriptor {
            handle: memory.handle,
            fd: fd.map_err(|e| Error::internal(format!("a descriptor cannot be duplicated: {e}")))?,
            size: memory.size,
            origin: memory.origin,
        }))
    }

    /// Of new memory of a device's, with the descriptor for others.
    ///
    /// # Errors
    /// The device gives none such.
    #[cfg(unix)]
    pub fn export(gpu: &Arc<Gpu>, handle: HandleType, size: u64) -> Result<Exported<HostBuffer>, Error> {
        let Exported {
            buffer,
            fd,
            size,
            origin,
        } = Buffer::export(gpu, handle, size)?;
        // Another device of ours may be shown it later.
        let shown = HostBuffer::external(&ExternalMemory::new(handle, fd.as_fd(), size, origin))?;
        lock(&shown.devices).push((Arc::downgrade(gpu), Some(Arc::new(buffer))));
        Ok(Exported {
            buffer: shown,
            fd,
            size,
            origin,
        })
    }

    /// Where the processor sees it, of a descriptor.
    #[cfg(unix)]
    pub fn seen(&self) -> Option<Mapped> {
        let devices = lock(&self.devices);
        devices.iter().find_map(|(_, buffer)| buffer.as_ref()?.seen())
    }

    /// Shows it to a device.
    ///
    /// # Errors
    /// The device does not take it.
    pub fn show(&self, gpu: &Arc<Gpu>) -> Result<(), Error> {
        let buffer = self.source.on(gpu)?;
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
        let buffer = self.source.on(gpu).ok().map(Arc::new);
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
