//! Memory that comes and goes by descriptors: opaque ones of this driver, and dma-bufs.

use super::buffer::{Buffer, Memory};
use super::gpu::USAGE;
use super::{Gpu, error};
use crate::facts::Support;
use ash::vk;
use delegraph_sdk::{Error, Exported, ExternalMemory, HandleType, Mapped, Origin};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

/// What Vulkan calls a kind of descriptor, and what the device does with it.
fn kind(gpu: &Gpu, handle: HandleType) -> Result<(vk::ExternalMemoryHandleTypeFlags, Support), Error> {
    let external = &gpu.facts().external;
    match handle {
        HandleType::OpaqueFd => Ok((vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD, external.opaque)),
        HandleType::DmaBuf => Ok((vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT, external.dma_buf)),
        other => Err(Error::unsupported(format!("Vulkan knows no memory by {other:?}"))),
    }
}

impl Buffer {
    /// Memory of a descriptor, which stays the caller's.
    ///
    /// # Errors
    /// `UNSUPPORTED`: the device does not take it; otherwise what the driver says.
    pub fn import_external(gpu: &Arc<Gpu>, memory: &ExternalMemory<'_>) -> Result<Buffer, Error> {
        gpu.alive()?;
        let name = &gpu.facts().name;
        let (kind, support) = kind(gpu, memory.handle)?;
        let Some(functions) = gpu.descriptors.as_ref().filter(|_| support.import) else {
            return Err(Error::unsupported(format!(
                "`{name}` takes no memory by {:?}",
                memory.handle
            )));
        };
        let external = &gpu.facts().external;
        let opaque = memory.handle == HandleType::OpaqueFd;
        let from = (memory.origin.driver_uuid, memory.origin.device_uuid);
        if opaque && from != (external.driver_uuid, external.device_uuid) {
            return Err(Error::unsupported(format!(
                "the opaque descriptor is of another device or driver than `{name}`"
            )));
        }
        if memory.size > gpu.facts().memory.largest {
            return Err(Error::unsupported(format!(
                "{} bytes are more than `{name}` takes at once",
                memory.size
            )));
        }
        let mut buffer = Buffer::unbound(gpu, memory.size, kind)?;
        // SAFETY: the buffer is of this device; the descriptor is open, and of a dma-buf where its properties are asked for.
        let (needs, bits) = unsafe {
            let needs = gpu.device.get_buffer_memory_requirements(buffer.raw);
            let mut found = vk::MemoryFdPropertiesKHR::default();
            if !opaque {
                functions
                    .get_memory_fd_properties(kind, memory.fd.as_raw_fd(), &mut found)
                    .map_err(|r| error("look at a dma-buf", r))?;
            }
            (needs, found.memory_type_bits)
        };
        let wanted = match opaque {
            true => 1u32.checked_shl(memory.origin.memory_type).unwrap_or(0),
            false => bits,
        };
        let fits = |kind: &u32| needs.memory_type_bits & wanted & (1 << kind) != 0;
        let Some(memory_type) = (0..32).find(fits).filter(|_| needs.size <= memory.size) else {
            return Err(Error::unsupported(format!(
                "`{name}` has no kind of memory for this descriptor, or needs {} bytes of its {}",
                needs.size, memory.size
            )));
        };
        // The driver takes the duplicate over, if it succeeds.
        let duplicate = memory.fd.try_clone_to_owned();
        let duplicate = duplicate.map_err(|e| Error::internal(format!("a descriptor cannot be duplicated: {e}")))?;
        let descriptor = duplicate.as_raw_fd();
        let mut import = vk::ImportMemoryFdInfoKHR::default().handle_type(kind).fd(descriptor);
        let mut dedicated = vk::MemoryDedicatedAllocateInfo::default().buffer(buffer.raw);
        let mut info = vk::MemoryAllocateInfo::default()
            .allocation_size(memory.size)
            .memory_type_index(memory_type)
            .push_next(&mut import);
        let alone = if opaque {
            memory.origin.dedicated
        } else {
            support.dedicated
        };
        if alone {
            info = info.push_next(&mut dedicated);
        }
        // SAFETY: the extension is enabled; size, type of memory and dedication are those of the allocation, by its maker's word.
        let taken = unsafe { gpu.device.allocate_memory(&info, None) }.map_err(|r| error("import memory", r))?;
        let _ = duplicate.into_raw_fd();
        buffer.take(taken, memory_type, memory.handle)?;
        Ok(buffer)
    }

    /// Memory of the device's, of at least so many bytes, with a descriptor of it.
    ///
    /// # Errors
    /// `UNSUPPORTED`: the device gives none such; otherwise what the driver says.
    pub fn export(gpu: &Arc<Gpu>, handle: HandleType, size: u64) -> Result<Exported<Buffer>, Error> {
        gpu.alive()?;
        let name = &gpu.facts().name;
        let (kind, support) = kind(gpu, handle)?;
        let Some(functions) = gpu.descriptors.as_ref().filter(|_| support.export) else {
            return Err(Error::unsupported(format!("`{name}` gives no memory by {handle:?}")));
        };
        let largest = gpu.facts().memory.largest;
        // Whole pages, so that others can map it.
        let size = size.checked_next_multiple_of(4096).filter(|size| *size <= largest);
        let size = size.ok_or_else(|| Error::unsupported(format!("`{name}` gives at most {largest} bytes at once")))?;
        let mut buffer = Buffer::unbound(gpu, size, kind)?;
        // SAFETY: the buffer is of this device.
        let needs = unsafe { gpu.device.get_buffer_memory_requirements(buffer.raw) };
        let types = &gpu.facts().memory.types;
        // Others see it without a flush of ours; the device's own is best, where there is such.
        let fits = |kind: &u32| {
            let found = types.get(*kind as usize);
            needs.memory_type_bits & (1 << kind) != 0 && found.is_some_and(|t| t.visible && t.coherent && !t.special)
        };
        let device = |kind: &u32| types.get(*kind as usize).is_some_and(|t| t.device);
        let memory_type = (0..32).filter(fits).find(device).or_else(|| (0..32).find(fits));
        let Some(memory_type) = memory_type else {
            return Err(Error::unsupported(format!(
                "`{name}` has no memory to give that the processor sees"
            )));
        };
        let bytes = needs.size.max(size);
        let mut export = vk::ExportMemoryAllocateInfo::default().handle_types(kind);
        let mut dedicated = vk::MemoryDedicatedAllocateInfo::default().buffer(buffer.raw);
        let mut info = vk::MemoryAllocateInfo::default()
            .allocation_size(bytes)
            .memory_type_index(memory_type)
            .push_next(&mut export);
        if support.dedicated {
            info = info.push_next(&mut dedicated);
        }
        // SAFETY: the extension is enabled, and the device gives memory of this kind.
        let given = unsafe { gpu.device.allocate_memory(&info, None) }.map_err(|r| error("allocate memory", r))?;
        buffer.take(given, memory_type, handle)?;
        let info = vk::MemoryGetFdInfoKHR::default().memory(given).handle_type(kind);
        // SAFETY: the memory was allocated for export by this kind; the driver gives a new descriptor.
        let fd = unsafe {
            let fd = functions.get_memory_fd(&info).map_err(|r| error("export memory", r))?;
            OwnedFd::from_raw_fd(fd)
        };
        let external = &gpu.facts().external;
        let origin = match handle {
            HandleType::OpaqueFd => Origin {
                driver_uuid: external.driver_uuid,
                device_uuid: external.device_uuid,
                memory_type,
                dedicated: support.dedicated,
            },
            _ => Origin::default(),
        };
        Ok(Exported {
            buffer,
            fd,
            size: bytes,
            origin,
        })
    }

    /// A buffer that has no memory yet.
    fn unbound(gpu: &Arc<Gpu>, size: u64, kind: vk::ExternalMemoryHandleTypeFlags) -> Result<Buffer, Error> {
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(kind);
        let info = vk::BufferCreateInfo::default()
            .size(size)
            .usage(USAGE)
            .sharing_mode(vk::SharingMode::EXCLUSIVE)
            .push_next(&mut external);
        // SAFETY: the device is open, and knows the kind.
        let raw = unsafe { gpu.device.create_buffer(&info, None) }.map_err(|r| error("make a buffer", r))?;
        let memory = Memory::External(
            vk::DeviceMemory::null(),
            vk::QUEUE_FAMILY_EXTERNAL,
            std::ptr::null_mut(),
        );
        Ok(Buffer::of(gpu, raw, size, memory))
    }

    /// Binds its memory, which it owns from here on, and maps it where the processor sees it without flushing.
    fn take(&mut self, memory: vk::DeviceMemory, memory_type: u32, handle: HandleType) -> Result<(), Error> {
        let gpu = Arc::clone(self.gpu());
        let owner = match handle {
            HandleType::DmaBuf => gpu.foreign,
            _ => vk::QUEUE_FAMILY_EXTERNAL,
        };
        self.memory = Memory::External(memory, owner, std::ptr::null_mut());
        // SAFETY: the memory is new, as large as the buffer needs and of a kind that it may have.
        unsafe { gpu.device.bind_buffer_memory(self.raw, memory, 0) }.map_err(|r| error("bind memory", r))?;
        let seen = gpu.facts().memory.types.get(memory_type as usize);
        if seen.is_some_and(|t| t.visible && t.coherent) {
            // SAFETY: the processor sees this kind of memory; it is mapped once. A driver that does not map what it imported is no harm.
            let mapped = unsafe {
                gpu.device
                    .map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())
            };
            self.memory = Memory::External(memory, owner, mapped.map_or(std::ptr::null_mut(), |at| at.cast()));
        }
        Ok(())
    }

    /// Where the processor sees memory of a descriptor.
    pub fn seen(&self) -> Option<Mapped> {
        match &self.memory {
            Memory::External(_, _, mapped) if !mapped.is_null() => {
                // SAFETY: it is mapped for as long as the buffer lives, coherently, and the buffer is no larger than its memory.
                Some(unsafe { Mapped::new(*mapped, self.size() as usize) })
            }
            _ => None,
        }
    }
}
