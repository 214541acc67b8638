//! Memory files and dma-bufs, mapped: a device that sees memory of others by its handle, at an address of its own.

use delegraph_sdk::Mapped;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

/// A map of all that is behind a descriptor. The descriptor is not needed any more.
pub struct Mapping {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: an address and a size; the contract says who reads and writes there, and when.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps so many bytes.
    ///
    /// # Errors
    /// There are not so many, or the system refuses.
    pub fn new(fd: impl AsFd, size: u64) -> io::Result<Mapping> {
        let there = rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0))?;
        let fits = usize::try_from(size).ok().filter(|bytes| *bytes > 0 && size <= there);
        let size = fits.ok_or_else(|| io::Error::other(format!("{size} bytes are asked for, {there} are there")))?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses a free address; what is behind the descriptor does not shrink, by the contract.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), size, protection, MapFlags::SHARED, fd, 0) }?;
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Mapping { base, size })
    }

    /// A new memory file of at least so many bytes, mapped.
    ///
    /// # Errors
    /// The system refuses.
    #[allow(dead_code)]
    pub fn create(size: u64) -> io::Result<(Mapping, OwnedFd, u64)> {
        let size = size.checked_next_multiple_of(4096).ok_or(io::ErrorKind::OutOfMemory)?;
        let fd = rustix::fs::memfd_create("double", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, size)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW)?;
        Ok((Mapping::new(&fd, size)?, fd, size))
    }

    /// Some bytes, to read in a run. `None`: not within it.
    pub fn read(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let place = self.place(offset, length)?;
        // SAFETY: within the map, which lives as long as the borrow; nobody writes an input in a run.
        Some(unsafe { std::slice::from_raw_parts(place.cast_const(), length) })
    }

    /// Some bytes, to write in a run: those of one output.
    #[allow(clippy::mut_from_ref)]
    pub fn write(&self, offset: u64, length: usize) -> Option<&mut [u8]> {
        let place = self.place(offset, length)?;
        // SAFETY: within the map; outputs of a run overlap nothing and are its own alone, by the contract.
        Some(unsafe { std::slice::from_raw_parts_mut(place, length) })
    }

    /// For the host.
    pub fn mapped(&self) -> Mapped {
        // SAFETY: mapped as long as this lives, and one memory for everybody.
        unsafe { Mapped::new(self.base.as_ptr(), self.size) }
    }

    fn place(&self, offset: u64, length: usize) -> Option<*mut u8> {
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(length)?;
        // SAFETY: within the map.
        (end <= self.size).then(|| unsafe { self.base.as_ptr().add(offset) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped with this size, and nobody has it any more.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.size) };
    }
}
