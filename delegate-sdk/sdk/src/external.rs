//! Memory by handle: file descriptors of what a device, another process or a camera has allocated.

use crate::{Context, Error, Import};
use delegraph_abi::c;
use std::os::fd::{BorrowedFd, OwnedFd};

/// What a descriptor is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandleType {
    /// Memory of a Vulkan device, as `VK_KHR_external_memory_fd` gives it. Whose it is says [`Origin`].
    OpaqueFd,
    /// A dma-buf of Linux.
    DmaBuf,
    /// A file of `memfd_create` that nobody can shorten.
    Memfd,
}

impl HandleType {
    pub(crate) const ALL: [HandleType; 3] = [HandleType::OpaqueFd, HandleType::DmaBuf, HandleType::Memfd];

    pub(crate) fn code(self) -> c::HandleType {
        match self {
            HandleType::OpaqueFd => c::HandleType::OPAQUE_FD,
            HandleType::DmaBuf => c::HandleType::DMA_BUF,
            HandleType::Memfd => c::HandleType::MEMFD,
        }
    }

    pub(crate) fn of(code: c::HandleType) -> Option<HandleType> {
        HandleType::ALL.into_iter().find(|handle| handle.code() == code)
    }
}

/// A set of [`HandleType`]s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HandleTypes(u64);

impl HandleTypes {
    /// None of them.
    pub const NONE: HandleTypes = HandleTypes(0);

    /// The same and this one.
    #[must_use]
    pub fn with(self, handle: HandleType) -> HandleTypes {
        HandleTypes(self.0 | 1 << handle.code().0)
    }

    /// Whether this one is among them.
    pub fn has(self, handle: HandleType) -> bool {
        self.0 & (1 << handle.code().0) != 0
    }

    pub(crate) fn bits(self) -> u64 {
        self.0
    }
}

impl FromIterator<HandleType> for HandleTypes {
    fn from_iter<I: IntoIterator<Item = HandleType>>(handles: I) -> HandleTypes {
        handles.into_iter().fold(HandleTypes::NONE, HandleTypes::with)
    }
}

/// What the driver of a Vulkan device has to be told of memory that another instance of it allocated. All zero but for
/// [`HandleType::OpaqueFd`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Origin {
    /// `driverUUID` of the device.
    pub driver_uuid: [u8; 16],
    /// `deviceUUID` of the device.
    pub device_uuid: [u8; 16],
    /// Index of the memory type.
    pub memory_type: u32,
    /// It was allocated for one buffer of its size.
    pub dedicated: bool,
}

/// Memory to import. The descriptor is the host's, and may be closed when the call has returned: duplicate it
/// ([`BorrowedFd::try_clone_to_owned`]) where it is needed longer, and where a driver takes it over.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ExternalMemory<'a> {
    /// What the descriptor is of.
    pub handle: HandleType,
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
    /// Bytes of all that is behind it.
    pub size: u64,
    /// Where it was allocated.
    pub origin: Origin,
}

impl<'a> ExternalMemory<'a> {
    /// Memory that a test hands to a delegate.
    pub fn new(handle: HandleType, fd: BorrowedFd<'a>, size: u64, origin: Origin) -> ExternalMemory<'a> {
        ExternalMemory {
            handle,
            fd,
            size,
            origin,
        }
    }
}

/// Memory that was allocated for others to see.
#[derive(Debug)]
pub struct Exported<B> {
    /// What tensors in it come with.
    pub buffer: B,
    /// A descriptor of it, which the host gets.
    pub fd: OwnedFd,
    /// Bytes that there are, at least those asked for.
    pub size: u64,
    /// Where it was allocated.
    pub origin: Origin,
}

/// The handles that a device takes and gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Handles {
    /// Those that [`External::import_external`] takes.
    pub import: HandleTypes,
    /// Those that [`External::export`] gives.
    pub export: HandleTypes,
}

/// The role of an executor that uses memory in place which others have allocated, or lets others use its own. Export it with `external`.
///
/// A buffer of it is used as any of [`Import`]: tensors in it come with the buffer and their offset, and with their bytes as the host sees
/// them. It is touched in runs alone whose tensors lie in it; what a run has written others see when it has ended.
pub trait External: Import {
    /// What a device takes and gives: the same at every call. `None`: the device that sessions are on for which nobody chose one.
    fn handles(&self, device: Option<u32>) -> Handles;

    /// Takes notice of memory.
    ///
    /// # Errors
    /// The device cannot, or not with this one; the host goes on without.
    fn import_external(&self, memory: ExternalMemory<'_>, context: &Context<'_>) -> Result<Self::Buffer, Error>;

    /// Allocates at least so many bytes, not 0, of a device's memory for others to see.
    ///
    /// # Errors
    /// The device cannot, or has not so many.
    fn export(
        &self,
        _device: Option<u32>,
        _handle: HandleType,
        _size: u64,
        _context: &Context<'_>,
    ) -> Result<Exported<Self::Buffer>, Error> {
        Err(Error::unsupported("this delegate exports no memory"))
    }

    /// Where the processor sees a buffer, as long as the buffer lives and without flushing. `None`: it does not, through this delegate.
    fn mapped(&self, _buffer: &Self::Buffer) -> Option<crate::Mapped> {
        None
    }
}
