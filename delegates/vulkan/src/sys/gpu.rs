//! A device with its queue, and the pipelines that were made on it.

use super::devices::{Found, budgets, find};
use super::{Instance, error, lock};
use crate::cache;
use crate::choice::{Families, Queues};
use crate::facts::Facts;
use crate::kernels::{Kernel, Needs};
use crate::memory::{Backing, Budget, Piece, Pools, Usage, Use};
use ash::vk;
use delegraph_sdk::{Error, Status};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What buffers are for, all of them.
pub(super) const USAGE: vk::BufferUsageFlags = vk::BufferUsageFlags::from_raw(
    vk::BufferUsageFlags::STORAGE_BUFFER.as_raw()
        | vk::BufferUsageFlags::TRANSFER_SRC.as_raw()
        | vk::BufferUsageFlags::TRANSFER_DST.as_raw(),
);

/// A device.
pub struct Gpu {
    pub(super) instance: Arc<Instance>,
    pub(super) device: ash::Device,
    pub(super) queue: Mutex<vk::Queue>,
    /// Copies beside it, if the device has a queue for that; the inner one is `None` where a test has the same queue do both.
    pub(super) transfer: Option<Option<Mutex<vk::Queue>>>,
    queues: Queues,
    pub(super) timestamp_bits: u32,
    pub(super) importer: Option<ash::ext::external_memory_host::Device>,
    /// Memory by descriptors.
    pub(super) descriptors: Option<ash::khr::external_memory_fd::Device>,
    /// Who owns memory of dma-bufs between runs, as queue families count.
    pub(super) foreign: u32,
    clock: Option<ash::ext::calibrated_timestamps::Device>,
    /// The physical device, where its driver tells budgets.
    budget: Option<vk::PhysicalDevice>,
    facts: Facts,
    lost: AtomicBool,
    pools: Mutex<Pools<Block>>,
    /// The kinds of memory that buffers may have; a bit each.
    pub(super) allowed: u32,
    cache: vk::PipelineCache,
    /// Where the cache is kept.
    file: Option<PathBuf>,
    /// How many pipelines the file knows.
    saved: AtomicUsize,
    /// Bytes of the cache that need not be written: as it was when it was made of a file, or written last.
    known: AtomicUsize,
    /// By number of buffers.
    layouts: Mutex<HashMap<usize, (vk::DescriptorSetLayout, vk::PipelineLayout)>>,
    /// By index of the kernel.
    pipelines: Mutex<HashMap<usize, vk::Pipeline>>,
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static USED: AtomicU64 = AtomicU64::new(0);

/// Allocations of device memory in this process that are alive.
pub fn allocated() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// Bytes of them that somebody uses.
pub fn used() -> u64 {
    USED.load(Ordering::Relaxed)
}

/// A block of memory: one buffer over all of it.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub memory: vk::DeviceMemory,
    pub buffer: vk::Buffer,
    /// Where the processor sees it; null: it does not.
    pub mapped: *mut u8,
    pub bytes: u64,
}

// SAFETY: handles and an address; who may use which part of it is decided by who has the piece.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Gpu {
    /// What each device of the system is, in the driver's order, as far as they can compute.
    ///
    /// # Errors
    /// The driver cannot tell.
    pub fn list(instance: &Instance) -> Result<Vec<Facts>, Error> {
        Ok(find(instance)?.into_iter().map(|found| found.facts).collect())
    }

    /// Opens the device of this index in [`Gpu::list`]. Pipelines are kept in a file of the folder `caches`.
    ///
    /// # Errors
    /// `NOT_FOUND`: there is no such device; otherwise what the driver says.
    pub fn open(instance: &Arc<Instance>, index: usize, caches: Option<&std::path::Path>) -> Result<Arc<Gpu>, Error> {
        let found = find(instance)?.into_iter().nth(index);
        let Found {
            physical,
            queues,
            timestamp_bits,
            extensions,
            facts,
        } = found.ok_or_else(|| Error::new(Status::NOT_FOUND, format!("there is no Vulkan device {index}")))?;
        let priorities = [1.0];
        let families: Vec<_> = [Some(queues.compute), queues.transfer]
            .into_iter()
            .flatten()
            .map(|family| {
                vk::DeviceQueueCreateInfo::default()
                    .queue_family_index(family as u32)
                    .queue_priorities(&priorities)
            })
            .collect();
        let mut sixteen = vk::PhysicalDevice16BitStorageFeatures::default()
            .storage_buffer16_bit_access(true)
            .uniform_and_storage_buffer16_bit_access(true);
        let mut halves = vk::PhysicalDeviceShaderFloat16Int8Features::default().shader_float16(true);
        let mut dots = vk::PhysicalDeviceShaderIntegerDotProductFeatures::default().shader_integer_dot_product(true);
        let mut timeline = vk::PhysicalDeviceTimelineSemaphoreFeatures::default().timeline_semaphore(true);
        let plain = vk::PhysicalDeviceFeatures::default().shader_int64(facts.has.has(Needs::I64));
        let mut names = Vec::new();
        if extensions.import {
            names.push(ash::ext::external_memory_host::NAME.as_ptr());
        }
        if extensions.budget {
            names.push(ash::ext::memory_budget::NAME.as_ptr());
        }
        if extensions.fd {
            names.push(ash::khr::external_memory_fd::NAME.as_ptr());
        }
        if extensions.dma_buf {
            names.push(ash::ext::external_memory_dma_buf::NAME.as_ptr());
        }
        if extensions.foreign {
            names.push(ash::ext::queue_family_foreign::NAME.as_ptr());
        }
        if extensions.clock {
            names.push(ash::ext::calibrated_timestamps::NAME.as_ptr());
        }
        let mut info = vk::DeviceCreateInfo::default()
            .queue_create_infos(&families)
            .enabled_features(&plain)
            .enabled_extension_names(&names)
            .push_next(&mut timeline);
        if facts.has.has(Needs::F16) {
            info = info.push_next(&mut sixteen).push_next(&mut halves);
        }
        if facts.has.has(Needs::DOT) {
            info = info.push_next(&mut dots);
        }
        // SAFETY: the physical device is of this instance, and only features and extensions that it has are asked for.
        let device =
            unsafe { instance.raw.create_device(physical, &info, None) }.map_err(|r| error("open the device", r))?;
        // SAFETY: the device was made with one queue of each of these families, which are not the same.
        let get = |family: usize| unsafe { device.get_device_queue(family as u32, 0) };
        let queue = get(queues.compute);
        let copies = queues.transfer.map(get);
        let transfer = match copies.is_some() || instance.copies_beside {
            true => Some(copies.map(Mutex::new)),
            false => None,
        };
        let importer = extensions
            .import
            .then(|| ash::ext::external_memory_host::Device::new(&instance.raw, &device));
        let descriptors = extensions
            .fd
            .then(|| ash::khr::external_memory_fd::Device::new(&instance.raw, &device));
        let clock = extensions
            .clock
            .then(|| ash::ext::calibrated_timestamps::Device::new(&instance.raw, &device));
        let mut gpu = Gpu {
            instance: Arc::clone(instance),
            device,
            queue: Mutex::new(queue),
            transfer,
            queues,
            timestamp_bits,
            importer,
            descriptors,
            foreign: match extensions.foreign {
                true => vk::QUEUE_FAMILY_FOREIGN_EXT,
                false => vk::QUEUE_FAMILY_EXTERNAL,
            },
            clock,
            budget: extensions.budget.then_some(physical),
            lost: AtomicBool::new(false),
            pools: Mutex::new(Pools::new(facts.memory.clone())),
            allowed: 0,
            cache: vk::PipelineCache::null(),
            file: caches.map(|folder| cache::file(folder, &facts)),
            saved: AtomicUsize::new(0),
            known: AtomicUsize::new(0),
            layouts: Mutex::default(),
            pipelines: Mutex::default(),
            facts,
        };
        let kept = gpu
            .file
            .as_ref()
            .and_then(|file| cache::read(file, &gpu.facts.identity));
        let info = vk::PipelineCacheCreateInfo::default().initial_data(kept.as_deref().unwrap_or_default());
        // SAFETY: the device is open; the data has the header of this device and driver, and is as long as it was written.
        gpu.cache = unsafe { gpu.device.create_pipeline_cache(&info, None) }.map_err(|r| error("make a cache", r))?;
        if kept.is_some() {
            // A driver may put something before what it was given.
            // SAFETY: as above.
            let data = unsafe { gpu.device.get_pipeline_cache_data(gpu.cache) }.unwrap_or_default();
            gpu.known = AtomicUsize::new(data.len());
        }
        let info = vk::BufferCreateInfo::default().size(256).usage(USAGE);
        // SAFETY: as above. What one buffer may lie in, all of the same use may.
        gpu.allowed = unsafe {
            let probe = gpu
                .device
                .create_buffer(&info, None)
                .map_err(|r| error("make a buffer", r))?;
            let needs = gpu.device.get_buffer_memory_requirements(probe);
            gpu.device.destroy_buffer(probe, None);
            needs.memory_type_bits
        };
        Ok(Arc::new(gpu))
    }

    /// `DEVICE_LOST` if it was lost.
    ///
    /// # Errors
    /// It was.
    pub fn alive(&self) -> Result<(), Error> {
        match self.is_lost() {
            true => Err(error("go on", vk::Result::ERROR_DEVICE_LOST)),
            false => Ok(()),
        }
    }

    /// The families of its queues.
    pub(super) fn families(&self) -> Families {
        Families {
            computes: self.queues.compute as u32,
            copies: self.queues.transfer.unwrap_or(self.queues.compute) as u32,
        }
    }

    /// True if the device was lost: it is of no more use, and is opened anew.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// An error of the driver's, which may be that the device is lost.
    pub(super) fn failed(&self, doing: &str, result: vk::Result) -> Error {
        if result == vk::Result::ERROR_DEVICE_LOST {
            self.lost.store(true, Ordering::Release);
        }
        error(doing, result)
    }

    /// Its memory.
    pub fn usage(&self) -> Usage {
        lock(&self.pools).usage()
    }

    /// The device's clock in ticks, where it can be read.
    pub fn ticks(&self) -> Option<u64> {
        let clock = self.clock.as_ref()?;
        let info = [vk::CalibratedTimestampInfoEXT::default().time_domain(vk::TimeDomainEXT::DEVICE)];
        // SAFETY: the extension is enabled, and the device has this domain.
        let (ticks, _) = unsafe { clock.get_calibrated_timestamps(&info) }.ok()?;
        ticks.first().copied()
    }

    /// The bits of a timestamp that count.
    pub fn tick_mask(&self) -> u64 {
        match self.timestamp_bits {
            64.. => u64::MAX,
            bits => (1 << bits) - 1,
        }
    }

    /// True if the processor reads what kernels use as fast as any other memory.
    pub fn reads_fast(&self) -> bool {
        let table = &self.facts.memory;
        let first = table.candidates(Use::Device, self.allowed).first().copied();
        table.unified && first.is_some_and(|kind| table.reads_fast(kind))
    }

    pub(super) fn take(&self, r#use: Use, bytes: u64) -> Result<Piece<Block>, Error> {
        let piece = lock(&self.pools).take(&Driver(self), r#use, self.allowed, bytes)?;
        USED.fetch_add(piece.bytes, Ordering::Relaxed);
        Ok(piece)
    }

    fn free(&self, block: Block) {
        // SAFETY: nobody has a piece of it any more; whoever had waited for the device. Freeing memory unmaps it.
        unsafe {
            self.device.destroy_buffer(block.buffer, None);
            self.device.free_memory(block.memory, None);
        }
    }

    pub(super) fn give_back(&self, piece: &Piece<Block>) {
        lock(&self.pools).give_back(&Driver(self), piece);
        USED.fetch_sub(piece.bytes, Ordering::Relaxed);
    }

    /// Makes the pipelines of these kernels, and keeps what the driver made of them for other processes.
    ///
    /// # Errors
    /// One cannot be made.
    pub fn prepare(&self, kernels: impl Iterator<Item = &'static Kernel>) -> Result<(), Error> {
        for kernel in kernels {
            self.pipeline(kernel)?;
        }
        self.save_cache();
        Ok(())
    }

    /// Writes the pipeline cache to its file, if pipelines were made since. What fails is no matter: the next process makes them again.
    fn save_cache(&self) {
        let made = self.pipeline_count();
        let Some(file) = &self.file else { return };
        if self.is_lost() || self.saved.swap(made, Ordering::AcqRel) >= made {
            return;
        }
        // SAFETY: the device is open.
        let Ok(data) = (unsafe { self.device.get_pipeline_cache_data(self.cache) }) else {
            return;
        };
        // A driver may write the same pipelines in other bytes each time: only more of them are news.
        if self.facts.identity.made(&data) && self.known.swap(data.len(), Ordering::AcqRel) < data.len() {
            let _ = cache::write(file, &data);
        }
    }

    /// What it is and can.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The instance that it belongs to.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// How many pipelines were made.
    pub fn pipeline_count(&self) -> usize {
        lock(&self.pipelines).len()
    }

    pub(super) fn layout(&self, buffers: usize) -> Result<(vk::DescriptorSetLayout, vk::PipelineLayout), Error> {
        let mut layouts = lock(&self.layouts);
        if let Some(layout) = layouts.get(&buffers) {
            return Ok(*layout);
        }
        let bindings: Vec<_> = (0..=buffers as u32)
            .map(|binding| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(binding)
                    .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: the device is open; so below.
        let set = unsafe { self.device.create_descriptor_set_layout(&info, None) }
            .map_err(|r| error("make a set layout", r))?;
        let sets = [set];
        let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
        // SAFETY: as above.
        let layout = unsafe { self.device.create_pipeline_layout(&info, None) }.map_err(|r| {
            // SAFETY: nothing uses it.
            unsafe { self.device.destroy_descriptor_set_layout(set, None) };
            error("make a pipeline layout", r)
        })?;
        layouts.insert(buffers, (set, layout));
        Ok((set, layout))
    }

    /// The pipeline of a kernel, made when it is first asked for.
    pub(super) fn pipeline(&self, kernel: &Kernel) -> Result<vk::Pipeline, Error> {
        if !self.facts.runs(kernel) {
            return Err(Error::internal(format!(
                "the kernel `{}` does not run on `{}`",
                kernel.name, self.facts.name
            )));
        }
        let (_, layout) = self.layout(kernel.writes.len())?;
        let mut pipelines = lock(&self.pipelines);
        if let Some(pipeline) = pipelines.get(&kernel.index) {
            return Ok(*pipeline);
        }
        let words: Vec<u32> = kernel
            .spirv
            .chunks_exact(4)
            .map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]))
            .collect();
        let info = vk::ShaderModuleCreateInfo::default().code(&words);
        let failed = |r| error(&format!("make a pipeline of `{}`", kernel.name), r);
        // SAFETY: naga validated the module in the build, and the device has what it needs.
        let module = unsafe { self.device.create_shader_module(&info, None) }.map_err(failed)?;
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main");
        let info = [vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout)];
        // SAFETY: layout and module are of this device; the module is not needed after.
        let made = unsafe {
            let made = self.device.create_compute_pipelines(self.cache, &info, None);
            self.device.destroy_shader_module(module, None);
            made
        };
        let made = made.map_err(|(_, r)| failed(r))?;
        let pipeline = *made.first().ok_or_else(|| failed(vk::Result::ERROR_UNKNOWN))?;
        pipelines.insert(kernel.index, pipeline);
        Ok(pipeline)
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        self.save_cache();
        // SAFETY: buffers and recordings keep this alive, so none is left, and each waited for its work.
        unsafe {
            let _ = self.device.device_wait_idle();
            for pipeline in lock(&self.pipelines).values() {
                self.device.destroy_pipeline(*pipeline, None);
            }
            for (set, layout) in lock(&self.layouts).values() {
                self.device.destroy_pipeline_layout(*layout, None);
                self.device.destroy_descriptor_set_layout(*set, None);
            }
            self.device.destroy_pipeline_cache(self.cache, None);
            self.device.destroy_device(None);
        }
    }
}

/// The driver, for who shares out memory.
struct Driver<'a>(&'a Gpu);

impl Backing for Driver<'_> {
    type Block = Block;

    fn allocate(&self, kind: usize, bytes: u64) -> Result<Block, Error> {
        let info = vk::BufferCreateInfo::default()
            .size(bytes)
            .usage(USAGE)
            .sharing_mode(vk::SharingMode::EXCLUSIVE);
        let mut block = Block {
            memory: vk::DeviceMemory::null(),
            buffer: vk::Buffer::null(),
            mapped: std::ptr::null_mut(),
            bytes,
        };
        let Driver(gpu) = self;
        let visible = gpu.facts.memory.types.get(kind).is_some_and(|t| t.visible);
        // SAFETY: the device is open, the kind of memory is one that buffers of this use may have; memory is bound once, and mapped where the
        // processor can. What was made is freed where a step fails.
        let made = unsafe {
            (|| -> Result<(), Error> {
                block.buffer = gpu
                    .device
                    .create_buffer(&info, None)
                    .map_err(|r| error("make a buffer", r))?;
                let needs = gpu.device.get_buffer_memory_requirements(block.buffer);
                let info = vk::MemoryAllocateInfo::default()
                    .allocation_size(needs.size)
                    .memory_type_index(kind as u32);
                let doing = format!("allocate {} bytes", needs.size);
                block.memory = gpu.device.allocate_memory(&info, None).map_err(|r| error(&doing, r))?;
                let bound = gpu.device.bind_buffer_memory(block.buffer, block.memory, 0);
                bound.map_err(|r| error("bind memory", r))?;
                if visible {
                    let flags = vk::MemoryMapFlags::empty();
                    let mapped = gpu.device.map_memory(block.memory, 0, vk::WHOLE_SIZE, flags);
                    block.mapped = mapped.map_err(|r| error("map memory", r))?.cast();
                }
                Ok(())
            })()
        };
        match made {
            Ok(()) => {
                ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
                Ok(block)
            }
            Err(error) => {
                gpu.free(block);
                Err(error)
            }
        }
    }

    fn budget(&self, heap: usize) -> Option<Budget> {
        let Driver(gpu) = self;
        budgets(&gpu.instance, gpu.budget?).get(heap).copied()
    }

    fn release(&self, block: Block) {
        let Driver(gpu) = self;
        ALLOCATIONS.fetch_sub(1, Ordering::Relaxed);
        gpu.free(block);
    }
}

#[cfg(test)]
mod tests {
    use crate::kernels;

    #[test]
    fn kernels_are_found_by_their_index() {
        for (at, kernel) in kernels::ALL.iter().enumerate() {
            assert_eq!(kernel.index, at, "{}", kernel.name);
            assert_eq!(
                kernel.spirv.get(..4),
                Some(&0x0723_0203u32.to_le_bytes()[..]),
                "{}",
                kernel.name
            );
        }
    }
}
