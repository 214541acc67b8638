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
    /// Where copies are submitted, if not where kernels run.
    beside: Option<Arc<Timeline>>,
    used: u64,
    /// Submitted, and not waited for.
    running: Vec<Recording>,
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
            beside: None,
            used: 0,
            running: Vec::new(),
            copies: Vec::new(),
        }
    }

    /// As [`Upload::new`], for buffers that no kernel has used: on the queue that only copies, where the device has one. Kernels of other sessions run
    /// on meanwhile.
    ///
    /// # Errors
    /// What the driver says.
    pub fn beside(gpu: &'a Arc<Gpu>, expected: u64) -> Result<Upload<'a>, Error> {
        Ok(Upload {
            beside: Timeline::of_copies(gpu)?.map(Arc::new),
            ..Upload::new(gpu, expected)
        })
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
        let copied: Vec<Copied> = self
            .copies
            .iter()
            .map(|(target, to, _, bytes)| (target, *to, *bytes))
            .collect();
        for batch in plan(&copied, self.beside.is_some()) {
            let commands: Vec<Command<'_>> = batch
                .steps
                .iter()
                .filter_map(|step| {
                    Some(match step {
                        Step::Copy(at) => {
                            let (target, to, from, bytes) = self.copies.get(*at)?;
                            Command::Copy {
                                from: (staging, *from, *bytes),
                                to: (target, *to, *bytes),
                            }
                        }
                        Step::Release(part) => Command::Release(*part),
                        Step::Acquire(part) => Command::Acquire(*part),
                        Step::Barrier => Command::Barrier,
                    })
                })
                .collect();
            match (&self.beside, batch.copies_beside) {
                (Some(beside), true) => {
                    let recording = Recording::new(beside, &commands, false)?;
                    recording.submit()?;
                    // Kept until it is done: dropping it waits.
                    self.running.push(recording);
                }
                (beside, _) => {
                    let recording = Recording::new(timeline, &commands, false)?;
                    recording.submit_after(beside.as_deref())?;
                    timeline.wait(None)?;
                }
            }
        }
        self.running.clear();
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

/// A part of a target that is written: the target, first byte, bytes.
type Copied<'b> = (&'b Arc<Buffer>, u64, u64);

/// What a submission of an upload does, in order.
#[derive(Debug, PartialEq, Eq)]
enum Step<P> {
    /// The copy of this index.
    Copy(usize),
    Release(P),
    Acquire(P),
    Barrier,
}

/// A submission. Each begins when the one before is done.
#[derive(Debug, PartialEq, Eq)]
struct Batch<P> {
    /// It is for the queue that only copies.
    copies_beside: bool,
    steps: Vec<Step<P>>,
}

/// The submissions that make copies. Where they are made beside the queue that computes, each part that was written is handed to it after.
fn plan<P: Copy>(copied: &[P], beside: bool) -> Vec<Batch<P>> {
    let mut steps: Vec<Step<P>> = (0..copied.len()).map(Step::Copy).collect();
    if !beside {
        steps.push(Step::Barrier);
        return vec![Batch {
            copies_beside: false,
            steps,
        }];
    }
    steps.extend(copied.iter().map(|part| Step::Release(*part)));
    vec![
        Batch {
            copies_beside: true,
            steps,
        },
        Batch {
            copies_beside: false,
            steps: copied.iter().map(|part| Step::Acquire(*part)).collect(),
        },
    ]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_queue_copies_and_then_kernels_see_it() {
        let [batch] = &plan(&['a', 'b'], false)[..] else {
            panic!("one submission")
        };
        assert!(!batch.copies_beside);
        assert_eq!(batch.steps, [Step::Copy(0), Step::Copy(1), Step::Barrier]);
    }

    #[test]
    fn what_another_queue_copied_is_handed_over_once() {
        let [copies, takes] = &plan(&['a', 'b'], true)[..] else {
            panic!("two submissions")
        };
        assert!(copies.copies_beside && !takes.copies_beside);
        assert_eq!(
            copies.steps,
            [Step::Copy(0), Step::Copy(1), Step::Release('a'), Step::Release('b')]
        );
        assert_eq!(takes.steps, [Step::Acquire('a'), Step::Acquire('b')]);
    }
}
