//! Commands that are recorded once and submitted often.

use super::{Buffer, Gpu, error};
use crate::kernels::Kernel;
use ash::vk;
use delegraph_sdk::{Error, Status};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// A part of a buffer.
pub type Part<'a> = (&'a Arc<Buffer>, u64, u64);

/// A command.
pub enum Command<'a> {
    /// Runs a kernel.
    Dispatch {
        /// What runs.
        kernel: &'static Kernel,
        /// Its parameters.
        params: Part<'a>,
        /// One a buffer of the kernel.
        buffers: Vec<Part<'a>>,
        /// Workgroups.
        groups: [u32; 3],
    },
    /// Copies bytes.
    Copy {
        /// From here.
        from: Part<'a>,
        /// To here: as many bytes.
        to: Part<'a>,
    },
    /// What comes after sees what came before.
    Barrier,
}

/// Recorded commands.
pub struct Recording {
    gpu: Arc<Gpu>,
    commands: vk::CommandPool,
    descriptors: vk::DescriptorPool,
    buffer: vk::CommandBuffer,
    timeline: vk::Semaphore,
    submitted: AtomicU64,
    /// Kept alive: the commands use them.
    _uses: Vec<Arc<Buffer>>,
}

impl Recording {
    /// Records commands.
    ///
    /// # Errors
    /// A pipeline that cannot be made, or what the driver says.
    pub fn new(gpu: &Arc<Gpu>, commands: &[Command<'_>]) -> Result<Recording, Error> {
        let device = &gpu.device;
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(gpu.family);
        // SAFETY: the device is open; so below. What was made is destroyed by `drop`, whatever comes of the rest.
        let pool = unsafe { device.create_command_pool(&info, None) }.map_err(|r| error("make a command pool", r))?;
        let mut recording = Recording {
            gpu: Arc::clone(gpu),
            commands: pool,
            descriptors: vk::DescriptorPool::null(),
            buffer: vk::CommandBuffer::null(),
            timeline: vk::Semaphore::null(),
            submitted: AtomicU64::new(0),
            _uses: Vec::new(),
        };
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: as above.
        recording.timeline =
            unsafe { device.create_semaphore(&info, None) }.map_err(|r| error("make a semaphore", r))?;
        let (mut sets, mut descriptors) = (0, 0);
        for command in commands {
            if let Command::Dispatch { buffers, .. } = command {
                sets += 1;
                descriptors += buffers.len() as u32 + 1;
            }
        }
        if sets > 0 {
            let sizes = [vk::DescriptorPoolSize::default()
                .ty(vk::DescriptorType::STORAGE_BUFFER)
                .descriptor_count(descriptors)];
            let info = vk::DescriptorPoolCreateInfo::default()
                .max_sets(sets)
                .pool_sizes(&sizes);
            // SAFETY: as above.
            recording.descriptors = unsafe { device.create_descriptor_pool(&info, None) }
                .map_err(|r| error("make a descriptor pool", r))?;
        }
        let info = vk::CommandBufferAllocateInfo::default()
            .command_pool(pool)
            .command_buffer_count(1);
        // SAFETY: as above.
        let buffers =
            unsafe { device.allocate_command_buffers(&info) }.map_err(|r| error("make a command buffer", r))?;
        recording.buffer = *buffers
            .first()
            .ok_or_else(|| Error::internal("no command buffer was made"))?;
        // SAFETY: as above; a buffer that may be submitted again after its work is done.
        unsafe { device.begin_command_buffer(recording.buffer, &vk::CommandBufferBeginInfo::default()) }
            .map_err(|r| error("record", r))?;
        for command in commands {
            recording.record(command)?;
        }
        // SAFETY: as above.
        unsafe { device.end_command_buffer(recording.buffer) }.map_err(|r| error("record", r))?;
        Ok(recording)
    }

    fn record(&mut self, command: &Command<'_>) -> Result<(), Error> {
        let gpu = Arc::clone(&self.gpu);
        let device = &gpu.device;
        match command {
            Command::Dispatch {
                kernel,
                params,
                buffers,
                groups,
            } => {
                let (set_layout, layout) = gpu.layout(kernel.writes.len())?;
                let pipeline = gpu.pipeline(kernel)?;
                let layouts = [set_layout];
                let info = vk::DescriptorSetAllocateInfo::default()
                    .descriptor_pool(self.descriptors)
                    .set_layouts(&layouts);
                // SAFETY: the pool has room for all sets of these commands.
                let sets =
                    unsafe { device.allocate_descriptor_sets(&info) }.map_err(|r| error("make a descriptor set", r))?;
                let set = *sets
                    .first()
                    .ok_or_else(|| Error::internal("no descriptor set was made"))?;
                let infos: Vec<[vk::DescriptorBufferInfo; 1]> = std::iter::once(params)
                    .chain(buffers)
                    .map(|(buffer, offset, size)| {
                        [vk::DescriptorBufferInfo::default()
                            .buffer(buffer.raw)
                            .offset(*offset)
                            .range(*size)]
                    })
                    .collect();
                let writes: Vec<vk::WriteDescriptorSet<'_>> = infos
                    .iter()
                    .enumerate()
                    .map(|(i, info)| {
                        vk::WriteDescriptorSet::default()
                            .dst_set(set)
                            .dst_binding(i as u32)
                            .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
                            .buffer_info(info)
                    })
                    .collect();
                // SAFETY: set, buffers, pipeline and command buffer are of this device and live as long as this recording.
                unsafe {
                    device.update_descriptor_sets(&writes, &[]);
                    device.cmd_bind_pipeline(self.buffer, vk::PipelineBindPoint::COMPUTE, pipeline);
                    device.cmd_bind_descriptor_sets(
                        self.buffer,
                        vk::PipelineBindPoint::COMPUTE,
                        layout,
                        0,
                        &[set],
                        &[],
                    );
                    device.cmd_dispatch(self.buffer, groups[0], groups[1], groups[2]);
                }
                self._uses.extend(
                    std::iter::once(params)
                        .chain(buffers)
                        .map(|(buffer, ..)| Arc::clone(buffer)),
                );
            }
            Command::Copy { from, to } => {
                let region = [vk::BufferCopy::default()
                    .src_offset(from.1)
                    .dst_offset(to.1)
                    .size(from.2)];
                // SAFETY: as above; the ranges are within the buffers, by the schedule.
                unsafe { device.cmd_copy_buffer(self.buffer, from.0.raw, to.0.raw, &region) };
                self._uses.extend([Arc::clone(from.0), Arc::clone(to.0)]);
            }
            Command::Barrier => {
                let access = vk::AccessFlags::SHADER_READ
                    | vk::AccessFlags::SHADER_WRITE
                    | vk::AccessFlags::TRANSFER_READ
                    | vk::AccessFlags::TRANSFER_WRITE;
                let stages = vk::PipelineStageFlags::COMPUTE_SHADER | vk::PipelineStageFlags::TRANSFER;
                let written = vk::AccessFlags::SHADER_WRITE | vk::AccessFlags::TRANSFER_WRITE;
                let barrier = [vk::MemoryBarrier::default()
                    .src_access_mask(written)
                    .dst_access_mask(access | vk::AccessFlags::HOST_READ)];
                // SAFETY: as above.
                unsafe {
                    device.cmd_pipeline_barrier(
                        self.buffer,
                        stages,
                        stages | vk::PipelineStageFlags::HOST,
                        vk::DependencyFlags::empty(),
                        &barrier,
                        &[],
                        &[],
                    );
                }
            }
        }
        Ok(())
    }

    /// Hands the commands to the device. They must not be running: wait first.
    ///
    /// # Errors
    /// `DEVICE_LOST`, or what the driver says.
    pub fn submit(&self) -> Result<(), Error> {
        let value = self.submitted.load(Ordering::Acquire) + 1;
        let (values, semaphores, buffers) = ([value], [self.timeline], [self.buffer]);
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&values);
        let info = [vk::SubmitInfo::default()
            .command_buffers(&buffers)
            .signal_semaphores(&semaphores)
            .push_next(&mut timeline)];
        let queue = self.gpu.queue.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the queue is ours while it is locked; the commands are not running, as the caller promises by `wait`.
        unsafe { self.gpu.device.queue_submit(*queue, &info, vk::Fence::null()) }.map_err(|r| error("submit", r))?;
        self.submitted.store(value, Ordering::Release);
        Ok(())
    }

    /// Waits until what was submitted is done.
    ///
    /// # Errors
    /// `TIMEOUT`, `DEVICE_LOST`, or what the driver says.
    pub fn wait(&self, limit: Option<Duration>) -> Result<(), Error> {
        let (semaphores, values) = ([self.timeline], [self.submitted.load(Ordering::Acquire)]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        let limit = limit.map_or(u64::MAX, |limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        // SAFETY: the semaphore is a timeline of this device.
        match unsafe { self.gpu.device.wait_semaphores(&info, limit) } {
            Ok(()) => Ok(()),
            Err(vk::Result::TIMEOUT) => Err(Error::new(Status::TIMEOUT, "the device has not finished in time")),
            Err(result) => Err(error("wait", result)),
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.timeline != vk::Semaphore::null() {
            let _ = self.wait(None);
        }
        // SAFETY: the work is done, or the device is lost. Destroying a null handle does nothing; pools free what was made from them.
        unsafe {
            self.gpu.device.destroy_semaphore(self.timeline, None);
            self.gpu.device.destroy_descriptor_pool(self.descriptors, None);
            self.gpu.device.destroy_command_pool(self.commands, None);
        }
    }
}
