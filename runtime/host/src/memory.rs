//! Memory that delegates can be shown as a whole: of a fixed size, and on Linux shared with worker processes. The host allocates it, or others did
//! and gave a handle ([`crate::Handle`]).

#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::external::{Handle, HandleType};
#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::local::ImportedBuffer;
use std::io;
use std::ptr::NonNull;

/// Alignment and size unit of what the host allocates.
pub const PAGE: usize = 4096;

/// A piece of memory that a delegate's device or a worker process may use in place. It neither moves nor changes its size. The host's own is
/// zeroed when it is made; that of a [`Handle`] is what others have there.
pub struct Memory {
    base: NonNull<u8>,
    size: usize,
    backing: Backing,
}

enum Backing {
    /// A sealed file, so that a worker can map it too.
    #[cfg(target_os = "linux")]
    Own(std::os::fd::OwnedFd),
    #[cfg(not(target_os = "linux"))]
    Own,
    #[cfg(any(target_os = "linux", target_os = "android"))]
    Given(Given),
}

/// Memory that others have allocated.
#[cfg(any(target_os = "linux", target_os = "android"))]
struct Given {
    handle: Handle,
    /// The buffer of the delegate that maps it; `None`: it is mapped here.
    keeper: Option<ImportedBuffer>,
    writable: bool,
    /// The access of the processor's that has begun, with whether it writes.
    access: std::sync::Mutex<Option<bool>>,
}

// SAFETY: it is an address and a size; who reads and writes there is settled by `Arena`, by who holds a handle, and by the runs of sessions.
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
        let backing = Backing::Own(file);
        Ok(Memory { base, size, backing })
    }

    #[cfg(not(target_os = "linux"))]
    fn of_pages(size: usize) -> io::Result<Memory> {
        let layout = std::alloc::Layout::from_size_align(size, PAGE).map_err(io::Error::other)?;
        // SAFETY: the size is not 0.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        let base = NonNull::new(base).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let backing = Backing::Own;
        Ok(Memory { base, size, backing })
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
                let backing = Backing::Own(file);
                Ok(Memory { base, size, backing })
            }
        }
    }

    /// The memory of a dma-buf or a memory file, mapped here. Whoever has another descriptor of it sees to it that nobody writes while a run
    /// reads it, and that nobody touches what a run writes.
    ///
    /// # Errors
    /// It cannot be mapped; an opaque descriptor never can: [`crate::Delegate::import_memory`].
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn of_handle(handle: Handle) -> io::Result<Memory> {
        let (base, writable) = handle.map()?;
        Ok(Memory {
            base,
            size: handle.size as usize,
            backing: Backing::Given(Given {
                handle,
                keeper: None,
                writable,
                access: std::sync::Mutex::default(),
            }),
        })
    }

    /// The memory of a handle, where a delegate's buffer sees it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn kept(handle: Handle, keeper: ImportedBuffer, base: NonNull<u8>, size: usize) -> Memory {
        Memory {
            base,
            size,
            backing: Backing::Given(Given {
                handle,
                keeper: Some(keeper),
                writable: true,
                access: std::sync::Mutex::default(),
            }),
        }
    }

    /// Where it begins: a multiple of [`PAGE`] where the host allocated or mapped it.
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The handle that it is of; `None`: the host's own.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn handle(&self) -> Option<&Handle> {
        match &self.backing {
            Backing::Own { .. } => None,
            Backing::Given(given) => Some(&given.handle),
        }
    }

    /// The delegate's buffer that maps it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn keeper(&self) -> Option<&ImportedBuffer> {
        match &self.backing {
            Backing::Own { .. } => None,
            Backing::Given(given) => given.keeper.as_ref(),
        }
    }

    /// Whether a run may write there.
    pub fn is_writable(&self) -> bool {
        match &self.backing {
            Backing::Own { .. } => true,
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Backing::Given(given) => given.writable,
        }
    }

    /// Whether address and size are multiples of [`PAGE`], the last page taken whole.
    pub(crate) fn is_of_pages(&self) -> bool {
        // A map has whole pages; of what a delegate has mapped, nobody knows what is behind.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if self.keeper().is_some() && !self.size.is_multiple_of(PAGE) {
            return false;
        }
        self.base.as_ptr().addr().is_multiple_of(PAGE)
    }

    /// Where in it `bytes` lie; `None`: elsewhere.
    pub(crate) fn offset_of(&self, bytes: *const u8, length: usize) -> Option<usize> {
        let offset = (bytes as usize).checked_sub(self.base.as_ptr() as usize)?;
        (offset.checked_add(length)? <= self.size).then_some(offset)
    }

    /// Some bytes of it, `None`: not within it. Nobody writes there as long as they are borrowed.
    pub fn bytes(&self, offset: usize, length: usize) -> Option<&[u8]> {
        let end = offset.checked_add(length)?;
        // SAFETY: within the memory, which lives as long as the borrow; that nobody writes is asked of who shares it.
        (end <= self.size)
            .then(|| unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset).cast_const(), length) })
    }

    /// Copies bytes out of it, with the access that the system asks for.
    ///
    /// # Errors
    /// They are not within it, or the system refuses.
    pub fn read_at(&self, offset: usize, into: &mut [u8]) -> io::Result<()> {
        let from = self.place(offset, into.len())?;
        self.accessed(false, || {
            // SAFETY: `place` checked the range; the caller's bytes lie elsewhere, being its own alone.
            unsafe { std::ptr::copy_nonoverlapping(from.cast_const(), into.as_mut_ptr(), into.len()) };
        })
    }

    /// Copies bytes into it, with the access that the system asks for.
    ///
    /// # Errors
    /// They are not within it, it can only be read, or the system refuses.
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let to = self.place(offset, bytes.len())?;
        if !self.is_writable() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the memory can only be read",
            ));
        }
        self.accessed(true, || {
            // SAFETY: as in `read_at`.
            unsafe { std::ptr::copy(bytes.as_ptr(), to, bytes.len()) };
        })
    }

    fn place(&self, offset: usize, length: usize) -> io::Result<*mut u8> {
        match offset.checked_add(length).filter(|end| *end <= self.size) {
            // SAFETY: within the memory.
            Some(_) => Ok(unsafe { self.base.as_ptr().add(offset) }),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "{length} bytes from byte {offset} on are not within a memory of {}",
                    self.size
                ),
            )),
        }
    }

    /// Does something in an access of the processor's.
    fn accessed(&self, write: bool, body: impl FnOnce()) -> io::Result<()> {
        let begun = self.begin_access(write)?;
        body();
        if begun {
            self.end_access()?;
        }
        Ok(())
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Memory {
    /// Begins an access of the processor's; false: one has begun already.
    ///
    /// # Errors
    /// The system refuses.
    pub fn begin_access(&self, write: bool) -> io::Result<bool> {
        let Backing::Given(given) = &self.backing else {
            return Ok(true);
        };
        let mut access = crate::call::lock(&given.access);
        if access.is_some() {
            return Ok(false);
        }
        given.handle.access(true, write)?;
        *access = Some(write);
        Ok(true)
    }

    /// Ends the access that has begun, if any.
    ///
    /// # Errors
    /// The system refuses.
    pub fn end_access(&self) -> io::Result<()> {
        let Backing::Given(given) = &self.backing else {
            return Ok(());
        };
        match crate::call::lock(&given.access).take() {
            Some(write) => given.handle.access(false, write),
            None => Ok(()),
        }
    }

    /// Lets a device have it in the middle of an access, and takes it back.
    pub(crate) fn pause(&self, pause: bool) -> io::Result<()> {
        match &self.backing {
            Backing::Given(given) if given.handle.kind == HandleType::DmaBuf => {
                match *crate::call::lock(&given.access) {
                    Some(write) => given.handle.access(!pause, write),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// The descriptor that a worker can map it by, and what it is of; `None`: it cannot. The host's own have no handle type.
    #[cfg(target_os = "linux")]
    pub(crate) fn shareable(&self) -> Option<(std::os::fd::BorrowedFd<'_>, Option<HandleType>)> {
        use std::os::fd::AsFd;
        match &self.backing {
            Backing::Own(file) => Some((file.as_fd(), None)),
            Backing::Given(given) => match given.handle.kind {
                HandleType::OpaqueFd => None,
                kind => Some((given.handle.fd(), Some(kind))),
            },
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
impl Memory {
    /// Nothing has to be done here.
    ///
    /// # Errors
    /// None.
    pub fn begin_access(&self, _write: bool) -> io::Result<bool> {
        Ok(true)
    }

    /// As [`Memory::begin_access`].
    ///
    /// # Errors
    /// None.
    pub fn end_access(&self) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn pause(&self, _pause: bool) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match &self.backing {
            #[cfg(target_os = "linux")]
            // SAFETY: it was mapped with this size, and nobody has it any more.
            Backing::Own(_) => unsafe { crate::worker::sys::unmap(self.base, self.size) },
            #[cfg(not(target_os = "linux"))]
            Backing::Own => {
                if let Ok(layout) = std::alloc::Layout::from_size_align(self.size, PAGE) {
                    // SAFETY: it was allocated with this layout.
                    unsafe { std::alloc::dealloc(self.base.as_ptr(), layout) }
                }
            }
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Backing::Given(Given { keeper: Some(_), .. }) => {}
            #[cfg(any(target_os = "linux", target_os = "android"))]
            // SAFETY: `Handle::map` mapped it with this size, and nobody has it any more.
            Backing::Given(_) => unsafe {
                let _ = rustix::mm::munmap(self.base.as_ptr().cast(), self.size);
            },
        }
    }
}

/// A part of a memory that a program writes an output to, in words of sixteen bytes.
pub struct Window {
    memory: std::sync::Arc<Memory>,
    offset: usize,
    words: usize,
}

impl Window {
    /// `size` bytes from `offset` on. `None`: they are not within the memory, which can be written, or do not begin at a multiple of 16 in it and
    /// in the address space.
    pub fn new(memory: &std::sync::Arc<Memory>, offset: usize, size: usize) -> Option<Window> {
        let words = size.div_ceil(16);
        let end = words.checked_mul(16).and_then(|bytes| bytes.checked_add(offset))?;
        let aligned = (memory.as_ptr().addr() + offset).is_multiple_of(16);
        (aligned && end <= memory.size() && memory.is_writable()).then(|| Window {
            memory: memory.clone(),
            offset,
            words,
        })
    }

    /// Its bytes, sixteen a word.
    pub fn words(&self) -> &[u128] {
        // SAFETY: within the memory and aligned, see `new`; who shares the memory keeps away from what a run writes.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(self.offset).cast(), self.words) }
    }

    /// Its bytes, to write to.
    pub fn words_mut(&mut self) -> &mut [u128] {
        // SAFETY: as in `words`.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr().add(self.offset).cast(), self.words) }
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
