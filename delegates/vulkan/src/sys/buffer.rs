//! Buffers: a part of a block of device memory, or memory of the host's in place.

use super::gpu::{Block, USAGE};
use super::{Gpu, error};
use crate::memory::{Piece, Use};
use ash::vk;
use delegraph_sdk::{Error, HostMemory};
use std::sync::Arc;

/// Bytes that a device uses.
pub struct Buffer {
    gpu: Arc<Gpu>,
    pub(super) raw: vk::Buffer,
    /// Where it begins in `raw`.
    pub(super) base: u64,
    size: u64,
    pub(super) memory: Memory,
}

pub(super) enum Memory {
    /// With whether the processor writes and reads it.
    Piece(Piece<Block>, bool),
    Imported(vk::DeviceMemory),
    /// Of a descriptor that came or went. With the queue family that owns it between runs, and where the processor sees it, or null.
    #[cfg(unix)]
    External(vk::DeviceMemory, u32, *mut u8),
}

// SAFETY: an address beside handles; who may write there is settled by the contract.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Buffer {
    /// A buffer of at least this size; its content is unspecified.
    ///
    /// # Errors
    /// `DEVICE_MEMORY_EXHAUSTED`, or what the driver says.
    pub fn new(gpu: &Arc<Gpu>, size: u64, r#use: Use) -> Result<Buffer, Error> {
        gpu.alive()?;
        let piece = gpu.take(r#use, size)?;
        Ok(Buffer {
            gpu: Arc::clone(gpu),
            raw: piece.block.buffer,
            base: piece.offset,
            size: piece.bytes,
            // What kernels use on a device with memory of its own is left to copies, even where the processor could.
            memory: Memory::Piece(piece, r#use != Use::Device || gpu.facts().memory.unified),
        })
    }

    /// Memory of the host's, in place. It stays where it is until the buffer is dropped.
    ///
    /// # Errors
    /// `UNSUPPORTED`: the device cannot, or not with this memory; otherwise what the driver says.
    pub fn import(gpu: &Arc<Gpu>, memory: HostMemory) -> Result<Buffer, Error> {
        gpu.alive()?;
        let name = &gpu.facts().name;
        let Some(importer) = &gpu.importer else {
            return Err(Error::unsupported(format!(
                "`{name}` does not use the host's memory in place"
            )));
        };
        let alignment = gpu.facts().import_alignment.max(1);
        let (address, size) = (memory.as_ptr().addr() as u64, memory.size() as u64);
        if address % alignment != 0 || size % alignment != 0 {
            return Err(Error::unsupported(format!(
                "`{name}` uses memory in place only at multiples of {alignment}"
            )));
        }
        if size > gpu.facts().memory.largest {
            return Err(Error::unsupported(format!(
                "{size} bytes are more than `{name}` takes at once"
            )));
        }
        let handle = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(handle);
        let info = vk::BufferCreateInfo::default()
            .size(size)
            .usage(USAGE)
            .sharing_mode(vk::SharingMode::EXCLUSIVE)
            .push_next(&mut external);
        let pointer = memory.as_ptr().cast();
        let device = &gpu.device;
        let mut buffer = Buffer {
            gpu: Arc::clone(gpu),
            raw: vk::Buffer::null(),
            base: 0,
            size,
            memory: Memory::Imported(vk::DeviceMemory::null()),
        };
        // SAFETY: the extension is enabled; the host vouches for the memory until the buffer is dropped, which frees what was made.
        unsafe {
            buffer.raw = device
                .create_buffer(&info, None)
                .map_err(|r| error("make a buffer", r))?;
            let mut found = vk::MemoryHostPointerPropertiesEXT::default();
            let look = importer.fp().get_memory_host_pointer_properties_ext;
            let looked = look(importer.device(), handle, pointer, &mut found);
            looked.result().map_err(|r| error("look at the host's memory", r))?;
            let needs = device.get_buffer_memory_requirements(buffer.raw);
            // Only what needs no flush: others write to it between runs.
            let types = &gpu.facts().memory.types;
            let bits = found.memory_type_bits & needs.memory_type_bits;
            let fits = |i: &usize| bits & (1 << i) != 0 && types.get(*i).is_some_and(|t| t.coherent);
            let Some(kind) = (0..32).find(fits).filter(|_| needs.size <= size) else {
                return Err(Error::unsupported(format!(
                    "`{name}` does not use this memory in place"
                )));
            };
            let mut import = vk::ImportMemoryHostPointerInfoEXT::default()
                .handle_type(handle)
                .host_pointer(pointer);
            let info = vk::MemoryAllocateInfo::default()
                .allocation_size(size)
                .memory_type_index(kind as u32)
                .push_next(&mut import);
            let taken = device
                .allocate_memory(&info, None)
                .map_err(|r| error("import memory", r))?;
            buffer.memory = Memory::Imported(taken);
            device
                .bind_buffer_memory(buffer.raw, taken, 0)
                .map_err(|r| error("bind memory", r))?;
        }
        Ok(buffer)
    }

    #[cfg(unix)]
    pub(super) fn of(gpu: &Arc<Gpu>, raw: vk::Buffer, size: u64, memory: Memory) -> Buffer {
        Buffer {
            gpu: Arc::clone(gpu),
            raw,
            base: 0,
            size,
            memory,
        }
    }

    #[cfg(unix)]
    pub(super) fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// True if it is memory of the host's, or that others have a descriptor of.
    pub fn is_imported(&self) -> bool {
        !matches!(self.memory, Memory::Piece(..))
    }

    /// The queue family that owns it between runs; `None`: it is always this device's.
    pub(super) fn owner(&self) -> Option<u32> {
        match &self.memory {
            #[cfg(unix)]
            Memory::External(_, owner, _) => Some(*owner),
            _ => None,
        }
    }

    /// True if the processor can write it.
    pub fn is_mapped(&self) -> bool {
        self.mapped().is_some()
    }

    /// True if the processor reads it as fast as any other memory of the device.
    pub fn reads_fast(&self) -> bool {
        match &self.memory {
            Memory::Piece(piece, _) => self.is_mapped() && self.gpu.facts().memory.reads_fast(piece.kind),
            _ => false,
        }
    }

    fn mapped(&self) -> Option<(*mut u8, &Piece<Block>)> {
        match &self.memory {
            Memory::Piece(piece, true) if !piece.block.mapped.is_null() => Some((piece.block.mapped, piece)),
            _ => None,
        }
    }

    /// Writes bytes; the device must not be using it.
    ///
    /// # Errors
    /// Beyond its end, or the processor does not see it.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let (mapped, piece) = self.check(offset, bytes.len())?;
        let start = self.base + offset;
        // SAFETY: the range is within the piece, which this buffer alone has, and the block is mapped.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), mapped.add(start as usize), bytes.len()) };
        self.synchronize(piece, start, bytes.len(), true)
    }

    /// Reads bytes; the device must not be writing it.
    ///
    /// # Errors
    /// Beyond its end, or the processor does not see it.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let (mapped, piece) = self.check(offset, bytes.len())?;
        let start = self.base + offset;
        self.synchronize(piece, start, bytes.len(), false)?;
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(mapped.add(start as usize), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn check(&self, offset: u64, len: usize) -> Result<(*mut u8, &Piece<Block>), Error> {
        let end = offset.checked_add(len as u64);
        self.mapped()
            .filter(|_| end.is_some_and(|end| end <= self.size))
            .ok_or_else(|| Error::internal(format!("{len} bytes from {offset} of a buffer of {}", self.size)))
    }

    /// Brings what the processor wrote to the device, or the other way, where memory does not do it by itself.
    fn synchronize(&self, piece: &Piece<Block>, start: u64, len: usize, written: bool) -> Result<(), Error> {
        let table = &self.gpu.facts().memory;
        if len == 0 || table.types.get(piece.kind).is_none_or(|t| t.coherent) {
            return Ok(());
        }
        let atoms = table.atoms(start..start + len as u64, piece.block.bytes);
        let range = [vk::MappedMemoryRange::default()
            .memory(piece.block.memory)
            .offset(atoms.start)
            .size(match atoms.end == piece.block.bytes {
                true => vk::WHOLE_SIZE,
                false => atoms.end - atoms.start,
            })];
        // SAFETY: the memory is mapped; pieces begin and end at atoms, so that the range is of this piece alone.
        let done = unsafe {
            match written {
                true => self.gpu.device.flush_mapped_memory_ranges(&range),
                false => self.gpu.device.invalidate_mapped_memory_ranges(&range),
            }
        };
        done.map_err(|r| error("synchronize memory", r))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        match &self.memory {
            // Recordings that use it keep it alive, and waited for their work.
            Memory::Piece(piece, _) => self.gpu.give_back(piece),
            // SAFETY: no run uses it any more, by the contract; the driver lets go of the host's memory.
            Memory::Imported(memory) => unsafe {
                self.gpu.device.destroy_buffer(self.raw, None);
                self.gpu.device.free_memory(*memory, None);
            },
            #[cfg(unix)]
            // SAFETY: as above; freeing memory unmaps it, and lets go of the driver's descriptor.
            Memory::External(memory, ..) => unsafe {
                self.gpu.device.destroy_buffer(self.raw, None);
                self.gpu.device.free_memory(*memory, None);
            },
        }
    }
}
