//! Memory that a delegate takes notice of: imported where the host sees it, imported and exported by a handle.

use super::Local;
use crate::DelegateError;
use crate::call::{CallOptions, HostCall, lock};
#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::external::{Handle, HandleType, Origin};
use crate::memory::{Memory, PAGE};
use delegraph_abi::{Status, c};
use delegraph_types::Parallel;
use std::sync::Arc;

impl Local {
    /// What handles a device takes and gives, as the words of the contract; nothing where the library does not know handles.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn handles(&self, device: u32) -> Result<[u64; 2], DelegateError> {
        let (mut import, mut export) = (0, 0);
        if self.api.features[0] & c::Feature::EXTERNAL.0 == 0 {
            return Ok([0, 0]);
        }
        // SAFETY: both words live until the call returns.
        self.call(&CallOptions::default(), |api, call| unsafe {
            api.buffer_handle_types
                .map(|f| f(self.handle, call, device, &mut import, &mut export))
        })?;
        Ok([import, export])
    }

    /// Has the delegate take notice of what a description says, which stays so until the buffer is dropped.
    fn import_buffer(self: &Arc<Self>, desc: &c::BufferDesc) -> Result<ImportedBuffer, DelegateError> {
        let mut buffer = std::ptr::null_mut();
        // SAFETY: the description lives until the call returns; memory that it points to outlives the buffer, which whoever keeps it sees to.
        self.call(&CallOptions::default(), |api, call| unsafe {
            api.buffer_import.map(|f| f(self.handle, call, desc, &mut buffer))
        })?;
        self.imported(buffer, "buffer_import")
    }

    fn imported(self: &Arc<Self>, buffer: *mut c::Buffer, function: &str) -> Result<ImportedBuffer, DelegateError> {
        match buffer.is_null() {
            true => Err(self.error(Status::INTERNAL, format!("`{function}` succeeded but gave no buffer"))),
            false => Ok(ImportedBuffer {
                local: self.clone(),
                buffer,
            }),
        }
    }

    /// Memory of a handle, where the delegate sees it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn import_memory(self: &Arc<Self>, handle: Handle, device: u32) -> Result<Memory, DelegateError> {
        let [takes, _] = self.handles(device)?;
        if takes & (1 << handle.kind().code().0) == 0 {
            let mut error = self.error(
                Status::UNSUPPORTED,
                format!("its device takes no memory by {}", handle.kind()),
            );
            error.hint = "map the memory where a handle can be mapped, or hand over the bytes".to_string();
            return Err(error);
        }
        let buffer = self.import_buffer(&handle.desc())?;
        self.mapped_memory(handle, buffer)
    }

    /// New memory of a device's, with a handle to it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub fn export_memory(self: &Arc<Self>, kind: HandleType, size: u64, device: u32) -> Result<Memory, DelegateError> {
        use std::os::fd::{FromRawFd, OwnedFd};
        let [_, gives] = self.handles(device)?;
        if gives & (1 << kind.code().0) == 0 {
            return Err(self.error(Status::UNSUPPORTED, format!("its device gives no memory by {kind}")));
        }
        let mut desc = c::BufferDesc {
            fd: -1,
            ..c::BufferDesc::new()
        };
        let mut buffer = std::ptr::null_mut();
        // SAFETY: description and output live until the call returns.
        self.call(&CallOptions::default(), |api, call| unsafe {
            api.buffer_export
                .map(|f| f(self.handle, call, device, kind.code(), size, &mut desc, &mut buffer))
        })?;
        let buffer = self.imported(buffer, "buffer_export")?;
        if desc.fd < 0 || desc.size < size || desc.handle_type != kind.code() {
            let problem = format!(
                "`buffer_export` gave descriptor {} of type {} with {} bytes, where {size} by {kind} were asked for",
                desc.fd, desc.handle_type.0, desc.size
            );
            return Err(self.error(Status::INTERNAL, problem));
        }
        // SAFETY: the contract makes the descriptor the host's.
        let fd = unsafe { OwnedFd::from_raw_fd(desc.fd) };
        let handle = Handle {
            kind,
            fd,
            size: desc.size,
            origin: Origin {
                driver_uuid: desc.driver_uuid,
                device_uuid: desc.device_uuid,
                memory_type: desc.memory_type,
                dedicated: desc.dedicated != 0,
            },
        };
        self.mapped_memory(handle, buffer)
    }

    /// The memory of a buffer as the processor sees it.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn mapped_memory(&self, handle: Handle, buffer: ImportedBuffer) -> Result<Memory, DelegateError> {
        let (mut pointer, mut size) = (std::ptr::null_mut(), 0);
        // SAFETY: the buffer lives; both outputs until the call returns.
        self.call(&CallOptions::default(), |api, call| unsafe {
            api.buffer_map.map(|f| f(buffer.buffer, call, &mut pointer, &mut size))
        })?;
        let base = std::ptr::NonNull::new(pointer.cast::<u8>());
        let size = usize::try_from(size.min(handle.size())).unwrap_or(0);
        match base.filter(|base| size > 0 && base.as_ptr().addr().is_multiple_of(16)) {
            Some(base) => Ok(Memory::kept(handle, buffer, base, size)),
            None => Err(self.error(
                Status::INTERNAL,
                format!("`buffer_map` gave {size} bytes at {pointer:p}, which is no place for tensors"),
            )),
        }
    }

    /// Has the delegate take notice of a memory, by its handle where it takes that, else where the host sees it; `None`: it cannot, or does not
    /// want to.
    pub(super) fn import(self: &Arc<Self>, memory: &Arc<Memory>, device: u32) -> Option<Arc<Import>> {
        if self.api.features[0] & c::Feature::IMPORT.0 == 0 {
            return None;
        }
        let mut imports = lock(&self.imports);
        imports.retain(|(_, import)| import.strong_count() > 0);
        let known = imports
            .iter()
            .find(|(known, _)| std::ptr::eq(known.as_ptr(), Arc::as_ptr(memory)));
        if let Some(import) = known.and_then(|(_, import)| import.upgrade()) {
            return Some(import);
        }
        let (buffer, by_handle) = self.import_somehow(memory, device)?;
        let import = Arc::new(Import {
            memory: memory.clone(),
            buffer,
            by_handle,
        });
        imports.push((Arc::downgrade(memory), Arc::downgrade(&import)));
        Some(import)
    }

    fn import_somehow(self: &Arc<Self>, memory: &Arc<Memory>, _device: u32) -> Option<(Kept, bool)> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(handle) = memory.handle() {
            if let Some(keeper) = memory.keeper().filter(|keeper| Arc::ptr_eq(&keeper.local, self)) {
                return Some((Kept::ByMemory(keeper.buffer), true));
            }
            let [takes, _] = self.handles(_device).unwrap_or_default();
            if takes & (1 << handle.kind().code().0) != 0
                && let Ok(buffer) = self.import_buffer(&handle.desc())
            {
                return Some((Kept::Own(buffer), true));
            }
        }
        if !memory.is_of_pages() {
            return None;
        }
        let desc = c::BufferDesc {
            handle_type: c::HandleType::HOST_POINTER,
            pointer: memory.as_ptr().cast(),
            size: memory.size().next_multiple_of(PAGE) as u64,
            ..c::BufferDesc::new()
        };
        Some((Kept::Own(self.import_buffer(&desc).ok()?), false))
    }
}

/// A buffer that a delegate imported or exported; it is released with this.
pub(crate) struct ImportedBuffer {
    local: Arc<Local>,
    buffer: *mut c::Buffer,
}

// SAFETY: the pointer is only passed to the delegate, whose functions may be called from any thread.
unsafe impl Send for ImportedBuffer {}
// SAFETY: as above.
unsafe impl Sync for ImportedBuffer {}

impl Drop for ImportedBuffer {
    fn drop(&mut self) {
        let call = HostCall::new(
            self.local.host,
            &self.local.backend,
            &CallOptions::default(),
            Parallel::SERIAL,
        );
        if let Some(release) = self.local.api.buffer_release {
            let _serial = self.local.serial();
            // SAFETY: the delegate made it, sessions that used it are gone, and it is not used again.
            unsafe { release(self.buffer, call.as_ptr()) }
        }
    }
}

/// A memory that a delegate took notice of.
pub(super) struct Import {
    // Before the memory, which has to be there until it is released.
    pub(super) buffer: Kept,
    pub(super) memory: Arc<Memory>,
    /// It was imported by its handle: the delegate does not look where the host sees it.
    pub(super) by_handle: bool,
}

/// Whose a buffer is.
pub(super) enum Kept {
    /// The import's own.
    Own(ImportedBuffer),
    /// The memory's, which the delegate maps.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    ByMemory(*mut c::Buffer),
}

// SAFETY: as for `ImportedBuffer`.
unsafe impl Send for Kept {}
// SAFETY: as above.
unsafe impl Sync for Kept {}

impl Kept {
    /// The delegate's name for it.
    pub(super) fn as_ptr(&self) -> *mut c::Buffer {
        match self {
            Kept::Own(buffer) => buffer.buffer,
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Kept::ByMemory(buffer) => *buffer,
        }
    }
}
