//! States that stay on the device between runs. Each has its memory twice: a run reads one half and writes the other, and the halves change
//! places when the run is accepted.
//!
//! What is in a device's memory when it is lost is lost with it. Small states are therefore mirrored: each run's outcome is also kept by the
//! processor, and is there for whoever goes on without the device.

use super::upload::{self, Upload};
use crate::program::Plan;
use crate::sys::{Buffer, Gpu, lock};
use delegraph_sdk::Error;
use delegraph_sdk::image::ImageView;
use std::sync::{Arc, Mutex};

/// What the processor keeps of a state, one a half.
pub struct Mirror(Mutex<[Vec<u8>; 2]>);

impl Mirror {
    /// Bytes of the state.
    pub fn size(&self) -> u64 {
        lock(&self.0).first().map_or(0, Vec::len) as u64
    }

    /// Keeps what `fill` writes as the value of a half.
    pub fn keep(&self, half: usize, fill: impl FnOnce(&mut [u8]) -> Result<(), Error>) -> Result<(), Error> {
        lock(&self.0).get_mut(half).map_or(Ok(()), |bytes| fill(bytes))
    }
}

/// The states of a session.
#[derive(Default)]
pub struct States {
    kept: Vec<Kept>,
    /// Which half is the value.
    half: usize,
}

struct Kept {
    index: u32,
    halves: [Arc<Buffer>; 2],
    dims: Vec<usize>,
    element: usize,
    /// The dimension that it grows along.
    axis: Option<usize>,
    bytes: usize,
    mirror: Option<Arc<Mirror>>,
}

impl States {
    /// Every element is 0. States of up to `mirrored` bytes are mirrored.
    pub fn new(gpu: &Arc<Gpu>, view: &ImageView<'_>, plan: &Plan, mirrored: usize) -> Result<States, Error> {
        let damaged = || Error::corrupt("a state of the plan is none of the graph's");
        let mut kept = Vec::with_capacity(plan.states.len());
        for state in &plan.states {
            let value = view.inputs().get(state.input as usize).ok_or_else(damaged)?;
            let value = view.value(value);
            let element = value.dtype().and_then(|dtype| dtype.size()).ok_or_else(damaged)?;
            let dims = value.const_dims().ok_or_else(damaged)?;
            let dims: Option<Vec<usize>> = dims.iter().map(|d| usize::try_from(*d).ok()).collect();
            let dims = dims.ok_or_else(damaged)?;
            let bytes = dims
                .iter()
                .try_fold(element, |n, d| n.checked_mul(*d))
                .ok_or_else(damaged)?;
            let axis = view.state(state.index).and_then(|s| s.growth_axis);
            let zeros = vec![0; bytes];
            let mut upload = Upload::new(gpu, 2 * bytes as u64);
            let size = (bytes as u64).next_multiple_of(16).max(16);
            let halves = [upload.buffer(size, &zeros)?, upload.buffer(size, &zeros)?];
            upload.finish()?;
            kept.push(Kept {
                index: state.index,
                halves,
                axis: axis.map(|axis| axis as usize).filter(|axis| *axis < dims.len()),
                dims,
                element,
                bytes,
                mirror: (bytes <= mirrored).then(|| Arc::new(Mirror(Mutex::new([zeros.clone(), zeros])))),
            });
        }
        Ok(States { kept, half: 0 })
    }

    /// Which half is the value; commands are recorded for one of the two ways.
    pub fn half(&self) -> usize {
        self.half
    }

    /// The memory of a state's value before a run, or after it.
    pub fn memory(&self, index: u32, next: bool) -> Result<&Arc<Buffer>, Error> {
        let half = self.half ^ usize::from(next);
        self.find(index)?
            .halves
            .get(half)
            .ok_or_else(|| Error::internal("a state has two halves"))
    }

    /// The mirror of a state, if it has one.
    pub fn mirror(&self, index: u32) -> Option<Arc<Mirror>> {
        self.find(index).ok()?.mirror.clone()
    }

    /// What the last run made counts, or not.
    pub fn commit(&mut self, accept: bool) {
        self.half ^= usize::from(accept);
    }

    fn find(&self, index: u32) -> Result<&Kept, Error> {
        let found = self.kept.iter().find(|kept| kept.index == index);
        found.ok_or_else(|| Error::unsupported(format!("the session does not keep state {index}")))
    }

    /// Writes the elements to `out`.
    pub fn snapshot(&self, gpu: &Arc<Gpu>, index: u32, out: &mut [u8]) -> Result<(), Error> {
        let kept = self.find(index)?;
        if out.len() != kept.bytes {
            return Err(Error::invalid(format!(
                "{} bytes for a state of {}",
                out.len(),
                kept.bytes
            )));
        }
        if let (true, Some(mirror)) = (gpu.is_lost(), &kept.mirror) {
            return mirror.keep(self.half, |bytes| {
                out.copy_from_slice(bytes);
                Ok(())
            });
        }
        gpu.alive()?;
        upload::read(gpu, self.memory(index, false)?, out)
    }

    /// Makes the state what `bytes` hold.
    pub fn restore(&self, gpu: &Arc<Gpu>, index: u32, bytes: &[u8]) -> Result<(), Error> {
        let kept = self.find(index)?;
        if bytes.len() != kept.bytes {
            return Err(Error::invalid(format!(
                "{} bytes for a state of {}",
                bytes.len(),
                kept.bytes
            )));
        }
        gpu.alive()?;
        let mut upload = Upload::new(gpu, bytes.len() as u64);
        upload.put(self.memory(index, false)?, bytes)?;
        upload.finish()?;
        match &kept.mirror {
            Some(mirror) => mirror.keep(self.half, |room| {
                room.copy_from_slice(bytes);
                Ok(())
            }),
            None => Ok(()),
        }
    }

    /// Makes every element 0.
    pub fn reset(&self, gpu: &Arc<Gpu>, index: u32) -> Result<(), Error> {
        self.restore(gpu, index, &vec![0; self.find(index)?.bytes])
    }

    /// Keeps the first entries along the growth axis, and makes the rest 0.
    pub fn truncate(&self, gpu: &Arc<Gpu>, index: u32, length: u64) -> Result<(), Error> {
        let kept = self.find(index)?;
        let axis = kept
            .axis
            .ok_or_else(|| Error::unsupported(format!("state {index} does not grow")))?;
        let mut bytes = vec![0; kept.bytes];
        self.snapshot(gpu, index, &mut bytes)?;
        cut(&mut bytes, &kept.dims, kept.element, axis, length);
        self.restore(gpu, index, &bytes)
    }
}

/// Makes all but the first `length` entries along an axis 0.
fn cut(bytes: &mut [u8], dims: &[usize], element: usize, axis: usize, length: u64) {
    let inner: usize = dims.iter().skip(axis + 1).product::<usize>() * element;
    let extent = dims.get(axis).copied().unwrap_or(0);
    let keep = usize::try_from(length).unwrap_or(usize::MAX).min(extent) * inner;
    if extent * inner > 0 {
        for entries in bytes.chunks_mut(extent * inner) {
            if let Some(rest) = entries.get_mut(keep..) {
                rest.fill(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn what_is_cut_off_along_an_axis_is_zero() {
        let mut bytes: Vec<u8> = (1..=12).collect();
        cut(&mut bytes, &[2, 3, 2], 1, 1, 1);
        assert_eq!(bytes, [1, 2, 0, 0, 0, 0, 7, 8, 0, 0, 0, 0]);
        cut(&mut bytes, &[2, 3, 2], 1, 0, 9);
        assert_eq!(bytes[6..8], [7, 8]);
        cut(&mut bytes, &[6], 2, 0, 0);
        assert_eq!(bytes, [0; 12]);
        cut(&mut [], &[2, 0], 4, 1, 0);
    }
}
