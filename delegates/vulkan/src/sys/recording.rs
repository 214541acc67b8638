//! Commands that are recorded once and submitted often.

use super::{Buffer, Gpu, Timeline, error, lock};
use crate::choice::Families;
use crate::kernels::Kernel;
use ash::vk;
use delegraph_sdk::Error;
use std::sync::{Arc, Mutex, Weak};

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
    /// The queue that copies hands over what it wrote.
    Release(Part<'a>),
    /// The queue that computes takes it: the same part, on another timeline, after that.
    Acquire(Part<'a>),
}

/// One half of handing a part of a buffer from the queue that copies to the one that computes. Vulkan wants it said by both, in the same words; what a
/// half says of the other queue's work counts for nothing there.
#[derive(Clone, Copy)]
struct Handover {
    stages: [vk::PipelineStageFlags; 2],
    access: [vk::AccessFlags; 2],
    families: [u32; 2],
}

impl Handover {
    fn new(families: Families, releases: bool) -> Handover {
        let (written, nothing) = (vk::AccessFlags::TRANSFER_WRITE, vk::AccessFlags::empty());
        let used = vk::AccessFlags::SHADER_READ
            | vk::AccessFlags::SHADER_WRITE
            | vk::AccessFlags::TRANSFER_READ
            | vk::AccessFlags::TRANSFER_WRITE;
        let user = vk::PipelineStageFlags::COMPUTE_SHADER | vk::PipelineStageFlags::TRANSFER;
        Handover {
            stages: match releases {
                true => [vk::PipelineStageFlags::TRANSFER, vk::PipelineStageFlags::BOTTOM_OF_PIPE],
                // The submission waits for the other queue's in all stages.
                false => [vk::PipelineStageFlags::ALL_COMMANDS, user],
            },
            access: match releases {
                true => [written, nothing],
                false => [nothing, used],
            },
            families: match families.copies == families.computes {
                true => [vk::QUEUE_FAMILY_IGNORED; 2],
                false => [families.copies, families.computes],
            },
        }
    }
}

/// The buffers of commands that others use between runs, each once.
fn shared<'a>(commands: &'a [Command<'_>]) -> Vec<&'a Arc<Buffer>> {
    let parts = commands.iter().flat_map(|command| match command {
        Command::Dispatch { params, buffers, .. } => std::iter::once(params).chain(buffers).collect(),
        Command::Copy { from, to } => vec![from, to],
        Command::Release(part) | Command::Acquire(part) => vec![part],
        Command::Barrier => Vec::new(),
    });
    let mut shared: Vec<&Arc<Buffer>> = parts
        .map(|(buffer, ..)| *buffer)
        .filter(|buffer| buffer.owner().is_some())
        .collect();
    shared.sort_by_key(|buffer| Arc::as_ptr(buffer));
    shared.dedup_by(|a, b| Arc::ptr_eq(a, b));
    shared
}

/// Recorded commands.
pub struct Recording {
    timeline: Arc<Timeline>,
    commands: vk::CommandPool,
    descriptors: vk::DescriptorPool,
    buffer: vk::CommandBuffer,
    queries: vk::QueryPool,
    /// Dispatches that were timed.
    timed: u32,
    barriers: u32,
    /// Kept alive: the commands use them.
    uses: Vec<Arc<Buffer>>,
    /// Memory of the host's, which it may take back: then the commands are of no use any more.
    borrows: Vec<Weak<Buffer>>,
    /// Memory of the host's that is kept alive while the commands run.
    held: Mutex<Vec<Arc<Buffer>>>,
}

impl Recording {
    /// Records commands, which are submitted on this timeline. `timed`: with the device's clock before and after each dispatch.
    ///
    /// # Errors
    /// A pipeline that cannot be made, or what the driver says.
    pub fn new(timeline: &Arc<Timeline>, commands: &[Command<'_>], timed: bool) -> Result<Recording, Error> {
        let gpu = &timeline.gpu;
        gpu.alive()?;
        let device = &gpu.device;
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(timeline.family());
        // SAFETY: the device is open; so below. What was made is destroyed by `drop`, whatever comes of the rest.
        let pool = unsafe { device.create_command_pool(&info, None) }.map_err(|r| error("make a command pool", r))?;
        let mut recording = Recording {
            timeline: Arc::clone(timeline),
            commands: pool,
            descriptors: vk::DescriptorPool::null(),
            buffer: vk::CommandBuffer::null(),
            queries: vk::QueryPool::null(),
            timed: 0,
            barriers: 0,
            uses: Vec::new(),
            borrows: Vec::new(),
            held: Mutex::default(),
        };
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
        if timed && sets > 0 && gpu.timestamp_bits > 0 {
            let info = vk::QueryPoolCreateInfo::default()
                .query_type(vk::QueryType::TIMESTAMP)
                .query_count(2 * sets);
            // SAFETY: as above; the family of the queue has timestamps.
            unsafe {
                recording.queries = device
                    .create_query_pool(&info, None)
                    .map_err(|r| error("make a query pool", r))?;
                device.cmd_reset_query_pool(recording.buffer, recording.queries, 0, 2 * sets);
            }
        }
        let shared = shared(commands);
        recording.hand_over(gpu, &shared, true);
        for command in commands {
            recording.record(gpu, command)?;
        }
        recording.hand_over(gpu, &shared, false);
        recording.uses.sort_by_key(Arc::as_ptr);
        recording.uses.dedup_by(|a, b| Arc::ptr_eq(a, b));
        // SAFETY: as above.
        unsafe { device.end_command_buffer(recording.buffer) }.map_err(|r| error("record", r))?;
        Ok(recording)
    }

    /// Takes memory that others use between runs over for this queue, or gives it back.
    fn hand_over(&self, gpu: &Gpu, shared: &[&Arc<Buffer>], take: bool) {
        if shared.is_empty() {
            return;
        }
        let used = vk::AccessFlags::SHADER_READ
            | vk::AccessFlags::SHADER_WRITE
            | vk::AccessFlags::TRANSFER_READ
            | vk::AccessFlags::TRANSFER_WRITE;
        let ours = self.timeline.family();
        let barriers: Vec<vk::BufferMemoryBarrier<'_>> = shared
            .iter()
            .map(|buffer| {
                let owner = buffer.owner().unwrap_or(vk::QUEUE_FAMILY_EXTERNAL);
                let barrier = vk::BufferMemoryBarrier::default()
                    .buffer(buffer.raw)
                    .offset(0)
                    .size(vk::WHOLE_SIZE);
                match take {
                    true => barrier
                        .dst_access_mask(used)
                        .src_queue_family_index(owner)
                        .dst_queue_family_index(ours),
                    false => barrier
                        .src_access_mask(used)
                        .src_queue_family_index(ours)
                        .dst_queue_family_index(owner),
                }
            })
            .collect();
        let work = vk::PipelineStageFlags::COMPUTE_SHADER | vk::PipelineStageFlags::TRANSFER;
        let (before, after) = match take {
            true => (vk::PipelineStageFlags::TOP_OF_PIPE, work),
            false => (work, vk::PipelineStageFlags::BOTTOM_OF_PIPE),
        };
        let none = vk::DependencyFlags::empty();
        // SAFETY: the buffers live while the commands run; the command buffer is recorded.
        unsafe {
            gpu.device
                .cmd_pipeline_barrier(self.buffer, before, after, none, &[], &barriers, &[]);
        }
    }

    /// Keeps a buffer alive, if it is ours.
    fn uses(&mut self, buffer: &Arc<Buffer>) {
        match buffer.is_imported() {
            true => self.borrows.push(Arc::downgrade(buffer)),
            false => self.uses.push(Arc::clone(buffer)),
        }
    }

    fn stamp(&self, gpu: &Gpu, stage: vk::PipelineStageFlags, query: u32) {
        if self.queries != vk::QueryPool::null() {
            // SAFETY: the pool has two queries a dispatch.
            unsafe { gpu.device.cmd_write_timestamp(self.buffer, stage, self.queries, query) };
        }
    }

    fn record(&mut self, gpu: &Gpu, command: &Command<'_>) -> Result<(), Error> {
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
                            .offset(buffer.base + *offset)
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
                self.stamp(gpu, vk::PipelineStageFlags::TOP_OF_PIPE, 2 * self.timed);
                // SAFETY: set, buffers, pipeline and command buffer are of this device and live as long as this recording, or while it runs.
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
                self.stamp(gpu, vk::PipelineStageFlags::COMPUTE_SHADER, 2 * self.timed + 1);
                self.timed += 1;
                for (buffer, ..) in std::iter::once(params).chain(buffers) {
                    self.uses(buffer);
                }
            }
            Command::Copy { from, to } => {
                let region = [vk::BufferCopy::default()
                    .src_offset(from.0.base + from.1)
                    .dst_offset(to.0.base + to.1)
                    .size(from.2)];
                // SAFETY: as above; the ranges are within the buffers, by the schedule.
                unsafe { device.cmd_copy_buffer(self.buffer, from.0.raw, to.0.raw, &region) };
                self.uses(from.0);
                self.uses(to.0);
            }
            Command::Release(part) | Command::Acquire(part) => {
                let (buffer, offset, size) = part;
                let half = Handover::new(gpu.families(), matches!(command, Command::Release(_)));
                let barrier = [vk::BufferMemoryBarrier::default()
                    .src_access_mask(half.access[0])
                    .dst_access_mask(half.access[1])
                    .src_queue_family_index(half.families[0])
                    .dst_queue_family_index(half.families[1])
                    .buffer(buffer.raw)
                    .offset(buffer.base + offset)
                    .size(*size)];
                // SAFETY: as above.
                unsafe {
                    device.cmd_pipeline_barrier(
                        self.buffer,
                        half.stages[0],
                        half.stages[1],
                        vk::DependencyFlags::empty(),
                        &[],
                        &barrier,
                        &[],
                    );
                }
                self.uses(buffer);
            }
            Command::Barrier => {
                self.barriers += 1;
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

    /// Hands the commands to the device.
    ///
    /// # Errors
    /// `INTERNAL`: what was submitted on the timeline before is not done, or memory of the host's that the commands use is gone; `DEVICE_LOST`, or
    /// what the driver says.
    pub fn submit(&self) -> Result<(), Error> {
        self.submit_after(None)
    }

    /// As [`Recording::submit`]; the commands begin when all that was submitted on another timeline is done.
    ///
    /// # Errors
    /// As there.
    pub fn submit_after(&self, after: Option<&Timeline>) -> Result<(), Error> {
        let held: Option<Vec<Arc<Buffer>>> = self.borrows.iter().map(Weak::upgrade).collect();
        *lock(&self.held) = held.ok_or_else(|| Error::internal("memory that was imported is gone"))?;
        self.timeline.submit(self.buffer, after)
    }

    /// True if memory of the host's that the commands use is gone.
    pub fn is_stale(&self) -> bool {
        self.borrows.iter().any(|buffer| buffer.strong_count() == 0)
    }

    /// Lets go of memory of the host's, if the commands are done.
    pub fn rest(&self) {
        if self.timeline.is_done().unwrap_or(true) {
            lock(&self.held).clear();
        }
    }

    /// How many barriers there are.
    pub fn barriers(&self) -> u32 {
        self.barriers
    }

    /// The device's clock before and after each dispatch, in ticks; empty without `timed`, or where the device has no clock. The commands must be done.
    ///
    /// # Errors
    /// What the driver says.
    pub fn ticks(&self) -> Result<Vec<[u64; 2]>, Error> {
        let mut ticks = vec![[0u64; 2]; self.timed as usize];
        if self.queries == vk::QueryPool::null() || !self.timeline.is_done()? {
            return Ok(Vec::new());
        }
        let gpu = &self.timeline.gpu;
        let flags = vk::QueryResultFlags::TYPE_64 | vk::QueryResultFlags::WAIT;
        let flat = ticks.as_flattened_mut();
        // SAFETY: the pool has as many queries, and the commands that write them are done.
        unsafe { gpu.device.get_query_pool_results(self.queries, 0, flat, flags) }
            .map_err(|r| gpu.failed("read timestamps", r))?;
        flat.iter_mut().for_each(|tick| *tick &= gpu.tick_mask());
        Ok(ticks)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.timeline.finish();
        let device = &self.timeline.gpu.device;
        // SAFETY: the work is done, or the device is lost. Destroying a null handle does nothing; pools free what was made from them.
        unsafe {
            device.destroy_query_pool(self.queries, None);
            device.destroy_descriptor_pool(self.descriptors, None);
            device.destroy_command_pool(self.commands, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_of_a_handover_name_the_same_families() {
        let families = Families { computes: 1, copies: 2 };
        let (release, acquire) = (Handover::new(families, true), Handover::new(families, false));
        assert_eq!(release.families, [2, 1]);
        assert_eq!(acquire.families, release.families);
        // What was written is made available by the queue that wrote it, and visible by the one that reads it.
        assert!(release.access == [vk::AccessFlags::TRANSFER_WRITE, vk::AccessFlags::empty()]);
        assert!(acquire.access[0].is_empty());
        assert!(acquire.access[1].contains(vk::AccessFlags::SHADER_READ));
        // A queue that only copies knows no stage of shaders.
        let known = vk::PipelineStageFlags::TRANSFER | vk::PipelineStageFlags::BOTTOM_OF_PIPE;
        assert!(release.stages.iter().all(|stage| known.contains(*stage)));
    }

    #[test]
    fn one_family_owns_what_it_wrote() {
        let families = Families { computes: 0, copies: 0 };
        for releases in [true, false] {
            assert_eq!(
                Handover::new(families, releases).families,
                [vk::QUEUE_FAMILY_IGNORED; 2]
            );
        }
    }
}
