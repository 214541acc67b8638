//! Memory by handle: descriptors of what a camera, a device or another process has allocated, and what the system asks of those who touch it.

use delegraph_abi::c;
use rustix::fs::SealFlags;
use rustix::mm::{MapFlags, ProtFlags};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

/// What a [`Handle`] is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandleType {
    /// Memory of a Vulkan device. Only its driver knows what is behind the descriptor.
    OpaqueFd,
    /// A dma-buf of Linux.
    DmaBuf,
    /// A file of `memfd_create` that is sealed against shrinking.
    Memfd,
}

impl HandleType {
    /// All of them.
    pub const ALL: [HandleType; 3] = [HandleType::OpaqueFd, HandleType::DmaBuf, HandleType::Memfd];

    pub(crate) fn code(self) -> c::HandleType {
        match self {
            HandleType::OpaqueFd => c::HandleType::OPAQUE_FD,
            HandleType::DmaBuf => c::HandleType::DMA_BUF,
            HandleType::Memfd => c::HandleType::MEMFD,
        }
    }
}

impl fmt::Display for HandleType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HandleType::OpaqueFd => "opaque-fd",
            HandleType::DmaBuf => "dma-buf",
            HandleType::Memfd => "memfd",
        })
    }
}

/// The handles that a device takes and gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handles {
    /// Those that it imports.
    pub import: Vec<HandleType>,
    /// Those that it exports.
    pub export: Vec<HandleType>,
}

impl Handles {
    /// Of the words of the contract; types that this host does not know are left out.
    pub(crate) fn of([import, export]: [u64; 2]) -> Handles {
        let among = |bits: u64| {
            let all = HandleType::ALL.into_iter();
            all.filter(|handle| bits & (1 << handle.code().0) != 0).collect()
        };
        Handles {
            import: among(import),
            export: among(export),
        }
    }
}

/// Where memory of [`HandleType::OpaqueFd`] was allocated: what `vkAllocateMemory` was given, and on which device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origin {
    /// `driverUUID`.
    pub driver_uuid: [u8; 16],
    /// `deviceUUID`.
    pub device_uuid: [u8; 16],
    /// Index of the memory type.
    pub memory_type: u32,
    /// It was allocated for one buffer of its size, that stores, and copies from and to.
    pub dedicated: bool,
}

/// A descriptor of memory, and what has to be known to use it. It owns the descriptor: hand over a duplicate to keep one.
#[derive(Debug)]
pub struct Handle {
    pub(crate) kind: HandleType,
    pub(crate) fd: OwnedFd,
    pub(crate) size: u64,
    pub(crate) origin: Origin,
}

/// Magic number of the file system that dma-bufs are files of (`DMA_BUF_MAGIC` of `linux/magic.h`).
const DMA_BUF_FILES: u64 = 0x444d_4142;

impl Handle {
    /// A dma-buf. Its size is the kernel's.
    ///
    /// # Errors
    /// The descriptor is none of a dma-buf.
    pub fn dma_buf(fd: OwnedFd) -> io::Result<Handle> {
        let system = rustix::fs::fstatfs(&fd)?;
        if system.f_type as u64 != DMA_BUF_FILES {
            return Err(wrong("the descriptor is no dma-buf"));
        }
        let size = rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0))?;
        Handle::sized(HandleType::DmaBuf, fd, size)
    }

    /// A file of `memfd_create`.
    ///
    /// # Errors
    /// It is none, or can be shortened while it is mapped, which would end the process: seal it by `F_SEAL_SHRINK`.
    pub fn memfd(fd: OwnedFd) -> io::Result<Handle> {
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|_| wrong("the descriptor is no memory file"))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(wrong("the memory file can be shortened: seal it by F_SEAL_SHRINK"));
        }
        let size = u64::try_from(rustix::fs::fstat(&fd)?.st_size).unwrap_or(0);
        Handle::sized(HandleType::Memfd, fd, size)
    }

    /// Memory of a Vulkan device, of as many bytes as were allocated.
    ///
    /// # Errors
    /// It has no bytes.
    pub fn opaque(fd: OwnedFd, size: u64, origin: Origin) -> io::Result<Handle> {
        let handle = Handle::sized(HandleType::OpaqueFd, fd, size)?;
        Ok(Handle { origin, ..handle })
    }

    fn sized(kind: HandleType, fd: OwnedFd, size: u64) -> io::Result<Handle> {
        if size == 0 || isize::try_from(size).is_err() {
            return Err(wrong(&format!("{size} bytes of a {kind} are no memory")));
        }
        Ok(Handle {
            kind,
            fd,
            size,
            origin: Origin::default(),
        })
    }

    /// The same by a duplicate of the descriptor.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Handle> {
        Ok(Handle {
            fd: self.fd.try_clone()?,
            ..*self
        })
    }

    /// What it is of.
    pub fn kind(&self) -> HandleType {
        self.kind
    }

    /// Bytes of all that is behind it.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where it was allocated; zero but for [`HandleType::OpaqueFd`].
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// [`Handle::origin`], good as long as this.
    pub fn origin_ref(&self) -> &Origin {
        &self.origin
    }

    /// The descriptor, for others to see the memory by.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// As the contract hands it over, good as long as this is.
    pub(crate) fn desc(&self) -> c::BufferDesc {
        c::BufferDesc {
            handle_type: self.kind.code(),
            size: self.size,
            fd: self.fd.as_raw_fd(),
            memory_type: self.origin.memory_type,
            dedicated: u32::from(self.origin.dedicated),
            driver_uuid: self.origin.driver_uuid,
            device_uuid: self.origin.device_uuid,
            ..c::BufferDesc::new()
        }
    }

    /// Maps all of it; false: to read only.
    pub(crate) fn map(&self) -> io::Result<(NonNull<u8>, bool)> {
        if self.kind == HandleType::OpaqueFd {
            return Err(wrong("only its driver can map an opaque descriptor"));
        }
        match self.map_as(ProtFlags::READ | ProtFlags::WRITE) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok((self.map_as(ProtFlags::READ)?, false)),
            mapped => Ok((mapped?, true)),
        }
    }

    fn map_as(&self, protection: ProtFlags) -> io::Result<NonNull<u8>> {
        let size = self.size as usize;
        // SAFETY: the kernel chooses a free address. What is behind the descriptor cannot shrink: a dma-buf never does, and a memory file
        // is sealed.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), size, protection, MapFlags::SHARED, &self.fd, 0) }?;
        NonNull::new(base.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))
    }

    /// Begins or ends an access of the processor's, which a dma-buf has to be told of.
    pub(crate) fn access(&self, begin: bool, write: bool) -> io::Result<()> {
        if self.kind != HandleType::DmaBuf {
            return Ok(());
        }
        let (reads, writes, ends) = (1u64, 2u64, 4u64);
        let flags = reads | if write { writes } else { 0 } | if begin { 0 } else { ends };
        type Sync = rustix::ioctl::Setter<{ rustix::ioctl::opcode::write::<u64>(b'b', 0) }, u64>;
        loop {
            // SAFETY: `DMA_BUF_IOCTL_SYNC` of `linux/dma-buf.h` reads one u64 of flags.
            match unsafe { rustix::ioctl::ioctl(&self.fd, Sync::new(flags)) } {
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                done => return Ok(done?),
            }
        }
    }
}

pub(crate) fn wrong(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}
