//! Memory that delegates can be shown as a whole: page-aligned, of a fixed size, and on Linux shared with worker processes.

use std::io;
use std::ptr::NonNull;

/// Alignment and size unit of a [`Memory`].
pub const PAGE: usize = 4096;

/// A piece of memory that a delegate's device or a worker process may use in place. It neither moves nor changes its size, and is
/// zeroed when it is made.
pub struct Memory {
    base: NonNull<u8>,
    size: usize,
    #[cfg(target_os = "linux")]
    file: std::os::fd::OwnedFd,
}

// SAFETY: it is an address and a size; who reads and writes there is settled by `Arena` and by the runs of sessions.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Memory of at least `size` bytes.
    ///
    /// # Errors
    /// There is not so much.
    pub fn new(size: usize) -> io::Result<Memory> {
        let too_large = || io::Error::new(io::ErrorKind::OutOfMemory, format!("{size} bytes do not fit in memory"));
        let size = size.max(1).checked_next_multiple_of(PAGE).ok_or_else(too_large)?;
        Memory::of_pages(size)
    }

    #[cfg(target_os = "linux")]
    fn of_pages(size: usize) -> io::Result<Memory> {
        let file = crate::worker::sys::memory_file("delegraph-memory", size as u64)?;
        let base = crate::worker::sys::map_shared(&file, size, true)?;
        Ok(Memory { base, size, file })
    }

    #[cfg(not(target_os = "linux"))]
    fn of_pages(size: usize) -> io::Result<Memory> {
        let layout = std::alloc::Layout::from_size_align(size, PAGE).map_err(io::Error::other)?;
        // SAFETY: the size is not 0.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        let base = NonNull::new(base).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Memory { base, size })
    }

    /// The memory of another process.
    #[cfg(target_os = "linux")]
    pub(crate) fn of(file: std::os::fd::OwnedFd, size: u64) -> io::Result<Memory> {
        let seals = rustix::fs::fcntl_get_seals(&file)?;
        let there = rustix::fs::fstat(&file)?.st_size;
        let whole = size > 0 && size.is_multiple_of(PAGE as u64) && there >= 0 && size <= there as u64;
        let size = usize::try_from(size).ok().filter(|_| whole);
        match size.filter(|_| seals.contains(rustix::fs::SealFlags::SHRINK)) {
            None => Err(io::Error::other("a memory is not sealed, or not of its size")),
            Some(size) => {
                let base = crate::worker::sys::map_shared(&file, size, true)?;
                Ok(Memory { base, size, file })
            }
        }
    }

    /// Where it begins: a multiple of [`PAGE`].
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Where in it `bytes` lie; `None`: elsewhere.
    pub(crate) fn offset_of(&self, bytes: *const u8, length: usize) -> Option<usize> {
        let offset = (bytes as usize).checked_sub(self.base.as_ptr() as usize)?;
        (offset.checked_add(length)? <= self.size).then_some(offset)
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn file(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.file.as_fd()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        // SAFETY: it was mapped with this size, and nobody has it any more.
        unsafe {
            crate::worker::sys::unmap(self.base, self.size);
        }
        #[cfg(not(target_os = "linux"))]
        if let Ok(layout) = std::alloc::Layout::from_size_align(self.size, PAGE) {
            // SAFETY: it was allocated with this layout.
            unsafe { std::alloc::dealloc(self.base.as_ptr(), layout) }
        }
    }
}

/// The one owner of a memory's bytes in this process. Sessions know the memory by its address only, to find what of theirs lies
/// in it.
pub struct Arena(std::sync::Arc<Memory>);

impl Arena {
    /// A new memory and its owner.
    ///
    /// # Errors
    /// As [`Memory::new`].
    pub fn new(size: usize) -> io::Result<Arena> {
        Ok(Arena(std::sync::Arc::new(Memory::new(size)?)))
    }

    /// The memory, for [`crate::Session::share`].
    pub fn memory(&self) -> std::sync::Arc<Memory> {
        self.0.clone()
    }

    /// Its bytes, sixteen a word.
    pub fn words(&self) -> &[u128] {
        // SAFETY: pages are aligned for words; nothing else in this process reads or writes there, but in a run that borrows
        // parts of it from this owner.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.size() / 16) }
    }

    /// Its bytes, to write to.
    pub fn words_mut(&mut self) -> &mut [u128] {
        // SAFETY: as in `words`.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr().cast(), self.0.size() / 16) }
    }
}
