//! Memory by handle: what the kit allocates, what a delegate exports, and what it is asked.

use crate::driver::call::{Refused, Script};
use crate::driver::sys::instance::{Imported, Instance};
use crate::driver::sys::library::broken;
use delegraph_abi::c;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;

/// A handle, and what the contract says beside it.
#[derive(Debug, Clone, Copy)]
pub struct HandleText {
    /// The whole description but the descriptor.
    pub(super) desc: c::BufferDesc,
}

// SAFETY: its pointer is unset.
unsafe impl Send for HandleText {}
// SAFETY: as above.
unsafe impl Sync for HandleText {}

impl HandleText {
    /// A type and so many bytes.
    pub fn new(handle_type: c::HandleType, size: u64) -> HandleText {
        HandleText {
            desc: c::BufferDesc {
                handle_type,
                size,
                ..c::BufferDesc::new()
            },
        }
    }

    /// Of which type.
    pub fn handle_type(&self) -> c::HandleType {
        self.desc.handle_type
    }

    /// Bytes behind it.
    pub fn size(&self) -> u64 {
        self.desc.size
    }
}

/// Where the kit sees memory of a handle.
pub struct Seen {
    base: NonNull<u8>,
    size: usize,
    /// Mapped by the kit, and so unmapped.
    own: bool,
    /// Keeps what a delegate maps.
    _keeper: Option<Imported>,
}

// SAFETY: an address and a size; one thread of a case uses it.
unsafe impl Send for Seen {}
// SAFETY: as above.
unsafe impl Sync for Seen {}

impl Drop for Seen {
    fn drop(&mut self) {
        if self.own {
            // SAFETY: mapped with this size, and nobody has it any more.
            let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.size) };
        }
    }
}

impl Seen {
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        if offset + bytes.len() <= self.size {
            // SAFETY: within the memory, which no run uses at the moment.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(offset), bytes.len()) };
        }
    }

    pub(super) fn read(&self, offset: usize, size: usize) -> Vec<u8> {
        match offset + size <= self.size {
            // SAFETY: as in `write`.
            true => unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset), size) }.to_vec(),
            false => Vec::new(),
        }
    }
}

/// Memory by handle, before it is imported.
pub struct Shareable {
    /// What it is.
    pub text: HandleText,
    /// The descriptor.
    pub fd: OwnedFd,
    /// Where the kit sees it.
    pub seen: Arc<Seen>,
}

fn map(fd: impl AsFd, size: usize) -> Result<Arc<Seen>, String> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the kernel chooses a free address; the file is sealed against shrinking, or a dma-buf.
    let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), size, protection, MapFlags::SHARED, fd, 0) };
    let base = base.map_err(|error| format!("{size} bytes of a descriptor cannot be mapped: {error}"))?;
    Ok(Arc::new(Seen {
        base: NonNull::new(base.cast()).ok_or("a map at address 0")?,
        size,
        own: true,
        _keeper: None,
    }))
}

fn memory_file(size: usize) -> Result<OwnedFd, String> {
    let made = || {
        let fd = rustix::fs::memfd_create("conformance", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, size as u64)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK)?;
        Ok::<_, rustix::io::Errno>(fd)
    };
    made().map_err(|error| format!("no memory file of {size} bytes: {error}"))
}

impl Shareable {
    /// A memory file.
    ///
    /// # Errors
    /// The system refuses.
    pub fn memfd(size: usize) -> Result<Shareable, String> {
        let fd = memory_file(size)?;
        Ok(Shareable {
            text: HandleText::new(c::HandleType::MEMFD, size as u64),
            seen: map(&fd, size)?,
            fd,
        })
    }

    /// A dma-buf of `/dev/udmabuf`. `None`: the system has no such device, or lets nobody use it.
    ///
    /// # Errors
    /// The device is there, and refuses.
    pub fn dma_buf(size: usize) -> Result<Option<Shareable>, String> {
        /// `struct udmabuf_create` of `linux/udmabuf.h`.
        #[repr(C)]
        struct Create {
            memfd: u32,
            flags: u32,
            offset: u64,
            size: u64,
        }
        let Ok(device) = std::fs::File::options().read(true).write(true).open("/dev/udmabuf") else {
            return Ok(None);
        };
        let file = memory_file(size)?;
        let create = Create {
            memfd: file.as_raw_fd() as u32,
            // `UDMABUF_FLAGS_CLOEXEC`
            flags: 1,
            offset: 0,
            size: size as u64,
        };
        // SAFETY: `UDMABUF_CREATE` reads this struct, and gives a descriptor or an error.
        let made = unsafe { libc::ioctl(device.as_raw_fd(), 0x4018_7542, &raw const create) };
        if made < 0 {
            return Err(format!("/dev/udmabuf: {}", std::io::Error::last_os_error()));
        }
        // SAFETY: a new descriptor, which is nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(made as RawFd) };
        Ok(Some(Shareable {
            text: HandleText::new(c::HandleType::DMA_BUF, size as u64),
            seen: map(&fd, size)?,
            fd,
        }))
    }
}

/// Whether a number is an open descriptor.
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: asks about a number, and changes nothing.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// Closes a descriptor by its number, which the caller gives up. One that is closed already is no matter.
pub fn close_descriptor(fd: RawFd) {
    // SAFETY: the caller owns it.
    let _ = unsafe { libc::close(fd) };
}

/// Open descriptors of the process; `None`: the system does not tell.
pub fn descriptors() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

impl Instance {
    /// `buffer_handle_types`: the words for import and for export.
    ///
    /// # Errors
    /// It refuses.
    pub fn handle_types(&self, device: u32) -> Result<[u64; 2], Refused> {
        let (mut import, mut export) = (0, 0);
        self.library
            .call("buffer_handle_types", &Script::default(), |api, call| {
                // SAFETY: the table has the function, and both outputs are valid for the call.
                unsafe {
                    api.buffer_handle_types
                        .map(|f| f(self.handle, call, device, &mut import, &mut export))
                }
            })?;
        Ok([import, export])
    }

    /// `buffer_import` of a handle. `seen`: where the kit sees the memory.
    ///
    /// # Errors
    /// It refuses.
    pub fn import_handle(&self, text: &HandleText, fd: RawFd, seen: &Arc<Seen>) -> Result<Imported, Refused> {
        let desc = c::BufferDesc { fd, ..text.desc };
        let buffer = self.import_desc(&desc)?;
        Ok(Imported::shared(self.library.clone(), buffer, Some(seen.clone())))
    }

    /// `buffer_export`, and `buffer_map` of what came. The memory stays as long as anybody has it.
    ///
    /// # Errors
    /// It refuses one of both, or gives what is none.
    pub fn export(&self, device: u32, handle_type: c::HandleType, size: u64) -> Result<Shareable, Refused> {
        let mut desc = c::BufferDesc {
            fd: -1,
            ..c::BufferDesc::new()
        };
        let mut buffer = std::ptr::null_mut();
        let script = Script::default();
        // SAFETY: description and output are valid for the call.
        self.library.call("buffer_export", &script, |api, call| unsafe {
            api.buffer_export
                .map(|f| f(self.handle, call, device, handle_type, size, &mut desc, &mut buffer))
        })?;
        if buffer.is_null() {
            return Err(broken("buffer_export", "it succeeded and gave no buffer"));
        }
        let keeper = Imported::shared(self.library.clone(), buffer, None);
        if desc.fd < 0 || !is_open(desc.fd) {
            return Err(broken("buffer_export", &format!("{} is no open descriptor", desc.fd)));
        }
        // SAFETY: the contract makes it the host's.
        let fd = unsafe { OwnedFd::from_raw_fd(desc.fd) };
        if desc.handle_type != handle_type {
            let text = format!("type {} was asked for, {} came", handle_type.0, desc.handle_type.0);
            return Err(broken("buffer_export", &text));
        }
        let (mut pointer, mut bytes) = (std::ptr::null_mut(), 0);
        // SAFETY: both outputs are valid for the call; the buffer is not released.
        self.library.call("buffer_map", &script, |api, call| unsafe {
            api.buffer_map.map(|f| f(buffer, call, &mut pointer, &mut bytes))
        })?;
        let Some(base) = NonNull::new(pointer.cast::<u8>()).filter(|_| bytes > 0) else {
            return Err(broken("buffer_map", "it succeeded and gave no memory"));
        };
        Ok(Shareable {
            text: HandleText {
                desc: c::BufferDesc { fd: 0, ..desc },
            },
            fd,
            seen: Arc::new(Seen {
                base,
                size: bytes as usize,
                own: false,
                _keeper: Some(keeper),
            }),
        })
    }
}

impl Shareable {
    /// The buffer that a delegate exported it by, to run with.
    pub fn exported(&self) -> Option<ExportedBuffer<'_>> {
        let keeper = self.seen._keeper.as_ref()?;
        Some(ExportedBuffer {
            keeper,
            seen: &self.seen,
        })
    }
}

/// What a delegate exported, as its own sessions use it.
pub struct ExportedBuffer<'s> {
    keeper: &'s Imported,
    seen: &'s Arc<Seen>,
}

impl ExportedBuffer<'_> {
    /// As an imported one, which does not release it.
    pub fn borrowed(&self) -> Imported {
        Imported::borrowed(self.keeper, self.seen.clone())
    }
}
