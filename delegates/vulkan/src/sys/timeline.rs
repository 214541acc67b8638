//! What was submitted for one session, and how far the device is.

use super::{Gpu, error, lock};
use ash::vk;
use delegraph_sdk::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A timeline semaphore: each submission signals the next number, in order.
pub struct Timeline {
    pub(super) gpu: Arc<Gpu>,
    /// What is submitted goes to the queue that copies beside the one that computes.
    copies: bool,
    semaphore: vk::Semaphore,
    submitted: AtomicU64,
}

impl Timeline {
    /// A timeline on which nothing was submitted.
    ///
    /// # Errors
    /// What the driver says.
    pub fn new(gpu: &Arc<Gpu>) -> Result<Timeline, Error> {
        Ok(Timeline {
            semaphore: semaphore(gpu)?,
            gpu: Arc::clone(gpu),
            copies: false,
            submitted: AtomicU64::new(0),
        })
    }

    /// A timeline of the queue that copies; `None`: the device has none of its own.
    ///
    /// # Errors
    /// What the driver says.
    pub fn of_copies(gpu: &Arc<Gpu>) -> Result<Option<Timeline>, Error> {
        match gpu.transfer.is_some() {
            true => {
                let mut timeline = Timeline::new(gpu)?;
                timeline.copies = true;
                Ok(Some(timeline))
            }
            false => Ok(None),
        }
    }

    /// The family of its queue.
    pub(super) fn family(&self) -> u32 {
        match self.copies {
            true => self.gpu.families().copies,
            false => self.gpu.families().computes,
        }
    }

    /// The device.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Hands commands to the device.
    ///
    /// # Errors
    /// `INTERNAL`: what was submitted before is not done; `DEVICE_LOST`, or what the driver says.
    /// The commands begin when all that `after` has so far is done.
    pub(super) fn submit(&self, commands: vk::CommandBuffer, after: Option<&Timeline>) -> Result<(), Error> {
        self.gpu.alive()?;
        let before = self.submitted.load(Ordering::Acquire);
        if !self.is_done()? {
            return Err(Error::internal("the commands before are not done"));
        }
        if self.gpu.instance.loses_device() {
            return Err(self.gpu.failed("submit", vk::Result::ERROR_DEVICE_LOST));
        }
        let (values, semaphores, buffers) = ([before + 1], [self.semaphore], [commands]);
        let first: Vec<(vk::Semaphore, u64)> = after
            .iter()
            .map(|other| (other.semaphore, other.submitted.load(Ordering::Acquire)))
            .collect();
        let (waited, reached): (Vec<vk::Semaphore>, Vec<u64>) = first.into_iter().unzip();
        let stages = vec![vk::PipelineStageFlags::ALL_COMMANDS; waited.len()];
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default()
            .wait_semaphore_values(&reached)
            .signal_semaphore_values(&values);
        let info = [vk::SubmitInfo::default()
            .command_buffers(&buffers)
            .wait_semaphores(&waited)
            .wait_dst_stage_mask(&stages)
            .signal_semaphores(&semaphores)
            .push_next(&mut timeline)];
        let queue = match (&self.gpu.transfer, self.copies) {
            (Some(Some(transfer)), true) => lock(transfer),
            _ => lock(&self.gpu.queue),
        };
        // SAFETY: the queue is ours while it is locked; nothing of this timeline's is running, so that the commands are not.
        unsafe { self.gpu.device.queue_submit(*queue, &info, vk::Fence::null()) }
            .map_err(|r| self.gpu.failed("submit", r))?;
        self.submitted.store(before + 1, Ordering::Release);
        Ok(())
    }

    /// True if all that was submitted is done.
    ///
    /// # Errors
    /// `DEVICE_LOST`, or what the driver says.
    pub fn is_done(&self) -> Result<bool, Error> {
        // SAFETY: the semaphore is a timeline of this device.
        let value = unsafe { self.gpu.device.get_semaphore_counter_value(self.semaphore) };
        let value = value.map_err(|r| self.gpu.failed("look at a semaphore", r))?;
        Ok(value >= self.submitted.load(Ordering::Acquire))
    }

    /// Waits until what was submitted is done; `false`: not in this time.
    ///
    /// # Errors
    /// `DEVICE_LOST`, or what the driver says.
    pub fn wait(&self, limit: Option<Duration>) -> Result<bool, Error> {
        wait_any(&self.gpu, &[self], None, limit)
    }

    /// Waits for ever; for those who are about to free what the device uses.
    pub(super) fn finish(&self) {
        let _ = self.wait(None);
    }
}

/// Ends a wait from another thread.
pub struct Bell {
    gpu: Arc<Gpu>,
    semaphore: vk::Semaphore,
    rung: Mutex<u64>,
}

impl Bell {
    /// A bell that was not rung.
    ///
    /// # Errors
    /// What the driver says.
    pub fn new(gpu: &Arc<Gpu>) -> Result<Bell, Error> {
        Ok(Bell {
            semaphore: semaphore(gpu)?,
            gpu: Arc::clone(gpu),
            rung: Mutex::new(0),
        })
    }

    /// How often it was rung.
    pub fn count(&self) -> u64 {
        *lock(&self.rung)
    }

    /// Rings it.
    ///
    /// # Errors
    /// What the driver says.
    pub fn ring(&self) -> Result<(), Error> {
        let mut rung = lock(&self.rung);
        let info = vk::SemaphoreSignalInfo::default()
            .semaphore(self.semaphore)
            .value(*rung + 1);
        // SAFETY: no other number was signalled since the lock was taken, so that this is the next.
        unsafe { self.gpu.device.signal_semaphore(&info) }.map_err(|r| self.gpu.failed("signal", r))?;
        *rung += 1;
        Ok(())
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // SAFETY: nobody waits for it any more: a wait borrows it.
        unsafe { self.gpu.device.destroy_semaphore(self.semaphore, None) };
    }
}

fn semaphore(gpu: &Gpu) -> Result<vk::Semaphore, Error> {
    let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
    let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
    // SAFETY: the device is open.
    unsafe { gpu.device.create_semaphore(&info, None) }.map_err(|r| error("make a semaphore", r))
}

/// Waits until one of the timelines is done, or the bell was rung more often than so; `false`: nothing came in this time.
///
/// # Errors
/// `DEVICE_LOST`, or what the driver says.
pub fn wait_any(
    gpu: &Gpu,
    timelines: &[&Timeline],
    bell: Option<(&Bell, u64)>,
    limit: Option<Duration>,
) -> Result<bool, Error> {
    let mut owners = timelines
        .iter()
        .map(|t| &t.gpu)
        .chain(bell.iter().map(|(bell, _)| &bell.gpu));
    if owners.any(|owner| !std::ptr::eq(&**owner, gpu)) {
        return Err(Error::internal("a timeline is of another device"));
    }
    let all = timelines
        .iter()
        .map(|t| (t.semaphore, t.submitted.load(Ordering::Acquire)));
    let (semaphores, values): (Vec<vk::Semaphore>, Vec<u64>) =
        all.chain(bell.map(|(bell, count)| (bell.semaphore, count + 1))).unzip();
    let info = vk::SemaphoreWaitInfo::default()
        .flags(vk::SemaphoreWaitFlags::ANY)
        .semaphores(&semaphores)
        .values(&values);
    let limit = limit.map_or(u64::MAX, |limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
    // SAFETY: the semaphores are timelines of this device.
    match unsafe { gpu.device.wait_semaphores(&info, limit) } {
        Ok(()) => Ok(true),
        Err(vk::Result::TIMEOUT) => Ok(false),
        Err(result) => Err(gpu.failed("wait", result)),
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        self.finish();
        // SAFETY: nothing that signals it is running, or the device is lost.
        unsafe { self.gpu.device.destroy_semaphore(self.semaphore, None) };
    }
}
