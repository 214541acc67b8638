//! Brings bytes to the device: straight where the processor sees its memory, else in large pieces through a staging buffer.

use crate::memory::Use;
use crate::sys::{Buffer, Command, Gpu, Recording, Timeline};
use delegraph_sdk::Error;
use std::sync::Arc;

/// The largest staging buffer.
const STAGING: u64 = 32 << 20;

/// An upload of many buffers in few submissions.
pub struct Upload<'a> {
    gpu: &'a Arc<Gpu>,
    /// Bytes that are still to come, as far as that is known: staging need not be larger.
    expected: u64,
    staging: Option<(Arc<Buffer>, Arc<Timeline>)>,
    used: u64,
    /// Target, offset there, offset in the staging buffer, bytes.
    copies: Vec<(Arc<Buffer>, u64, u64, u64)>,
}

impl<'a> Upload<'a> {
    /// Nothing is uploaded yet; `expected` bytes will be.
    pub fn new(gpu: &'a Arc<Gpu>, expected: u64) -> Upload<'a> {
        Upload {
            gpu,
            expected,
            staging: None,
            used: 0,
            copies: Vec::new(),
        }
    }

    /// A new buffer with these bytes, once [`Upload::finish`] was called.
    ///
    /// # Errors
    /// There is no memory, or what the driver says.
    pub fn buffer(&mut self, size: u64, bytes: &[u8]) -> Result<Arc<Buffer>, Error> {
        let target = Arc::new(Buffer::new(self.gpu, size.max(bytes.len() as u64), Use::Device)?);
        self.put(&target, bytes)?;
        Ok(target)
    }

    /// Puts bytes at the start of a buffer that the device is not using.
    ///
    /// # Errors
    /// As [`Upload::buffer`].
    pub fn put(&mut self, target: &Arc<Buffer>, bytes: &[u8]) -> Result<(), Error> {
        if target.is_mapped() {
            return target.write(0, bytes);
        }
        let mut done = 0;
        while done < bytes.len() {
            let (staging, _) = self.staging()?;
            let room = staging.size() - self.used;
            if room == 0 {
                self.flush()?;
                continue;
            }
            let end = bytes.len().min(done.saturating_add(room as usize));
            let part = bytes.get(done..end).unwrap_or_default();
            staging.write(self.used, part)?;
            self.copies
                .push((Arc::clone(target), done as u64, self.used, part.len() as u64));
            self.used = (self.used + part.len() as u64).next_multiple_of(16).min(staging.size());
            done = end;
        }
        Ok(())
    }

    fn staging(&mut self) -> Result<(Arc<Buffer>, Arc<Timeline>), Error> {
        if let Some(staging) = &self.staging {
            return Ok(staging.clone());
        }
        let size = self.expected.clamp(4096, STAGING);
        let made = (
            Arc::new(Buffer::new(self.gpu, size, Use::Upload)?),
            Arc::new(Timeline::new(self.gpu)?),
        );
        Ok(self.staging.insert(made).clone())
    }

    fn flush(&mut self) -> Result<(), Error> {
        let (Some((staging, timeline)), false) = (&self.staging, self.copies.is_empty()) else {
            return Ok(());
        };
        let mut commands: Vec<Command<'_>> = self
            .copies
            .iter()
            .map(|(target, to, from, bytes)| Command::Copy {
                from: (staging, *from, *bytes),
                to: (target, *to, *bytes),
            })
            .collect();
        commands.push(Command::Barrier);
        let recording = Recording::new(timeline, &commands, false)?;
        recording.submit()?;
        timeline.wait(None)?;
        self.copies.clear();
        self.used = 0;
        Ok(())
    }

    /// Waits until all is on the device.
    ///
    /// # Errors
    /// What the driver says.
    pub fn finish(mut self) -> Result<(), Error> {
        self.flush()
    }
}

/// Reads the start of a buffer that the device is not using.
pub fn read(gpu: &Arc<Gpu>, from: &Arc<Buffer>, out: &mut [u8]) -> Result<(), Error> {
    if from.reads_fast() || out.is_empty() {
        return from.read(0, out);
    }
    let size = (out.len() as u64).min(STAGING);
    let staging = Arc::new(Buffer::new(gpu, size, Use::Readback)?);
    let timeline = Arc::new(Timeline::new(gpu)?);
    for (at, part) in out.chunks_mut(size as usize).enumerate() {
        let bytes = part.len() as u64;
        let copy = Command::Copy {
            from: (from, at as u64 * size, bytes),
            to: (&staging, 0, bytes),
        };
        let recording = Recording::new(&timeline, &[copy, Command::Barrier], false)?;
        recording.submit()?;
        timeline.wait(None)?;
        staging.read(0, part)?;
    }
    Ok(())
}
