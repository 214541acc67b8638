//! Device memory.

use super::{Gpu, error};
use ash::vk;
use delegraph_sdk::{Error, Status};
use std::sync::Arc;

/// What a buffer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Kernels use it; the processor does not see it.
    Device,
    /// The processor writes it, then it is copied to the device or read there.
    Upload,
    /// The device writes it, then the processor reads it.
    Readback,
}

/// A buffer with memory of its own.
pub struct Buffer {
    gpu: Arc<Gpu>,
    pub(super) raw: vk::Buffer,
    memory: vk::DeviceMemory,
    size: u64,
    mapped: *mut u8,
}

// SAFETY: the pointer is to memory that this buffer owns; whoever writes waited for the device.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Allocates a buffer of at least this size; its content is unspecified.
    ///
    /// # Errors
    /// `DEVICE_MEMORY_EXHAUSTED`, or what the driver says.
    pub fn new(gpu: &Arc<Gpu>, size: u64, place: Place) -> Result<Buffer, Error> {
        let size = size.max(256).next_multiple_of(256);
        let usage = vk::BufferUsageFlags::STORAGE_BUFFER
            | vk::BufferUsageFlags::TRANSFER_SRC
            | vk::BufferUsageFlags::TRANSFER_DST;
        let info = vk::BufferCreateInfo::default()
            .size(size)
            .usage(usage)
            .sharing_mode(vk::SharingMode::EXCLUSIVE);
        // SAFETY: the device is open; so below. What was made is destroyed by `drop`, whatever comes of the rest.
        let raw = unsafe { gpu.device.create_buffer(&info, None) }.map_err(|r| error("make a buffer", r))?;
        let mut buffer = Buffer {
            gpu: Arc::clone(gpu),
            raw,
            memory: vk::DeviceMemory::null(),
            size,
            mapped: std::ptr::null_mut(),
        };
        // SAFETY: as above.
        let needs = unsafe { gpu.device.get_buffer_memory_requirements(raw) };
        let (wanted, needed) = match place {
            Place::Device => (vk::MemoryPropertyFlags::DEVICE_LOCAL, vk::MemoryPropertyFlags::empty()),
            Place::Upload => (
                vk::MemoryPropertyFlags::DEVICE_LOCAL,
                vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT,
            ),
            Place::Readback => (
                vk::MemoryPropertyFlags::HOST_CACHED,
                vk::MemoryPropertyFlags::HOST_VISIBLE | vk::MemoryPropertyFlags::HOST_COHERENT,
            ),
        };
        let types = gpu.memory.memory_types_as_slice();
        let fits = |flags: vk::MemoryPropertyFlags| {
            let allowed = |i: &usize| needs.memory_type_bits & (1 << i) != 0;
            (0..types.len())
                .filter(allowed)
                .find(|i| types[*i].property_flags.contains(flags))
        };
        let index = fits(wanted | needed).or_else(|| fits(needed));
        let index = index.ok_or_else(|| {
            Error::new(
                Status::DEVICE_MEMORY_EXHAUSTED,
                "the device has no memory of the kind that is needed",
            )
        })?;
        let info = vk::MemoryAllocateInfo::default()
            .allocation_size(needs.size)
            .memory_type_index(index as u32);
        // SAFETY: as above; memory is bound once, and mapped once where the type is host-visible.
        unsafe {
            buffer.memory = gpu
                .device
                .allocate_memory(&info, None)
                .map_err(|r| error(&format!("allocate {} bytes", needs.size), r))?;
            gpu.device
                .bind_buffer_memory(raw, buffer.memory, 0)
                .map_err(|r| error("bind memory", r))?;
            if place != Place::Device {
                let mapped = gpu
                    .device
                    .map_memory(buffer.memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty());
                buffer.mapped = mapped.map_err(|r| error("map memory", r))?.cast();
            }
        }
        Ok(buffer)
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes bytes; for [`Place::Upload`].
    ///
    /// # Errors
    /// Beyond its end, or it is not mapped.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.check(offset, bytes.len())?;
        // SAFETY: the range was checked, and the device does not use the buffer: whoever writes waited for it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.mapped.add(offset as usize), bytes.len()) };
        Ok(())
    }

    /// Reads bytes; for [`Place::Readback`].
    ///
    /// # Errors
    /// Beyond its end, or it is not mapped.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        self.check(offset, bytes.len())?;
        // SAFETY: as above; the memory is coherent.
        unsafe { std::ptr::copy_nonoverlapping(self.mapped.add(offset as usize), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn check(&self, offset: u64, len: usize) -> Result<(), Error> {
        let end = offset.checked_add(len as u64);
        match !self.mapped.is_null() && end.is_some_and(|end| end <= self.size) {
            true => Ok(()),
            false => Err(Error::internal(format!(
                "{len} bytes from {offset} of a buffer of {}",
                self.size
            ))),
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: recordings that use it keep it alive, and waited for their work. Freeing memory unmaps it.
        unsafe {
            self.gpu.device.destroy_buffer(self.raw, None);
            self.gpu.device.free_memory(self.memory, None);
        }
    }
}
