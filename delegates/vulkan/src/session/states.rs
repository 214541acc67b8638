//! States that stay on the device between runs: two memories each, one that counts and one that the next run writes.

use super::Opened;
use super::upload::{Upload, download};
use crate::memory::Use;
use crate::program::Plan;
use crate::sys::Buffer;
use delegraph_sdk::Error;
use delegraph_sdk::image::ImageView;
use std::sync::Arc;

/// The states of a session.
pub struct States {
    device: Arc<Opened>,
    all: Vec<State>,
    /// Which of the two memories counts: 0 or 1, for all states alike.
    turn: usize,
}

struct State {
    /// Its index in the image.
    index: u32,
    memories: [Arc<Buffer>; 2],
    bytes: usize,
    /// Bytes of what lies along the growth axis and behind it, and of one entry; `None`: it does not grow.
    growth: Option<(usize, usize)>,
}

impl States {
    /// Makes the states of a plan, all zero.
    ///
    /// # Errors
    /// There is no memory, or what the driver says.
    pub fn new(device: &Arc<Opened>, plan: &Plan, view: &ImageView<'_>) -> Result<States, Error> {
        let mut states = States {
            device: Arc::clone(device),
            all: Vec::new(),
            turn: 0,
        };
        for state in &plan.states {
            let value = view.inputs().get(state.input as usize).map(|value| view.value(value));
            let known = value.and_then(|value| Some((value.const_dims()?, value.dtype()?.size()?)));
            let (dims, element) = known.ok_or_else(|| Error::corrupt("a kept state has no fixed size"))?;
            let dims: Vec<usize> = dims.iter().map(|d| *d as usize).collect();
            let bytes = dims.iter().product::<usize>() * element;
            let axis = view.state(state.index).and_then(|state| state.growth_axis);
            let growth = axis.and_then(|axis| dims.get(axis as usize..)).map(|behind| {
                let entry = behind.iter().skip(1).product::<usize>() * element;
                (entry * behind.first().copied().unwrap_or(1), entry)
            });
            let size = (bytes as u64).next_multiple_of(16).max(16);
            let memory = || Ok::<_, Error>(Arc::new(Buffer::new(&device.gpu, size, Use::Device)?));
            states.all.push(State {
                index: state.index,
                memories: [memory()?, memory()?],
                bytes,
                growth,
            });
            states.restore(state.index, &vec![0; bytes])?;
        }
        Ok(states)
    }

    /// Which of the two memories counts.
    pub fn turn(&self) -> usize {
        self.turn
    }

    /// The memory of a state before a run, or the one that the run writes.
    ///
    /// # Errors
    /// There is no such state.
    pub fn memory(&self, index: u32, next: bool) -> Result<&Arc<Buffer>, Error> {
        let state = self.find(index)?;
        Ok(&state.memories[(self.turn + usize::from(next)) % 2])
    }

    fn find(&self, index: u32) -> Result<&State, Error> {
        let found = self.all.iter().find(|state| state.index == index);
        found.ok_or_else(|| Error::invalid(format!("the session keeps no state {index}")))
    }

    /// What the last run wrote counts.
    pub fn commit(&mut self) {
        self.turn = 1 - self.turn;
    }

    /// Makes every element 0.
    ///
    /// # Errors
    /// There is no such state, or what the driver says.
    pub fn reset(&self, index: u32) -> Result<(), Error> {
        let bytes = self.find(index)?.bytes;
        self.restore(index, &vec![0; bytes])
    }

    /// Keeps the first entries along the growth axis, and makes the rest 0.
    ///
    /// # Errors
    /// It does not grow, or as [`States::reset`].
    pub fn truncate(&self, index: u32, length: u64) -> Result<(), Error> {
        let state = self.find(index)?;
        let (block, entry) = state
            .growth
            .ok_or_else(|| Error::invalid(format!("state {index} does not grow along an axis")))?;
        let mut bytes = vec![0; state.bytes];
        self.snapshot(index, &mut bytes)?;
        let kept = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_mul(entry))
            .unwrap_or(block)
            .min(block);
        for block in bytes.chunks_exact_mut(block.max(1)) {
            if let Some(rest) = block.get_mut(kept..) {
                rest.fill(0);
            }
        }
        self.restore(index, &bytes)
    }

    /// Reads a state.
    ///
    /// # Errors
    /// Another number of bytes, or as [`States::reset`].
    pub fn snapshot(&self, index: u32, out: &mut [u8]) -> Result<(), Error> {
        self.check(index, out.len())?;
        download(&self.device.gpu, self.memory(index, false)?, out)
    }

    /// Writes a state.
    ///
    /// # Errors
    /// Another number of bytes, or as [`States::reset`].
    pub fn restore(&self, index: u32, bytes: &[u8]) -> Result<(), Error> {
        self.check(index, bytes.len())?;
        let mut upload = Upload::new(&self.device.gpu, bytes.len() as u64);
        upload.write(self.memory(index, false)?, bytes)?;
        upload.finish()
    }

    fn check(&self, index: u32, bytes: usize) -> Result<(), Error> {
        let want = self.find(index)?.bytes;
        match want == bytes {
            true => Ok(()),
            false => Err(Error::invalid(format!("state {index} has {want} bytes, not {bytes}"))),
        }
    }
}
