//! The self-check: on the first run that a delegate does of a region, the region's instructions run too, and the outputs are
//! compared.
//!
//! The delegate's outputs are kept aside, the instructions write theirs over them, and [`SelfCheck`] judges each pair. Where all
//! agree the delegate's are put back, so that the first run gives what every later one does; where one differs the portable
//! ones stand. Regions write no state, so nothing is counted twice. A state that the delegate keeps is compared when the run counts,
//! since it cannot be read before. The memory for it is given back afterwards.

use crate::error::RegionError;
use crate::kept::Held;
use crate::region::RegionCall;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use delegraph_kernels::{Out, Tensor};
use delegraph_types::Dims;

/// Judges what a delegate computed. Called from the thread that runs the method.
pub trait SelfCheck: Send + Sync {
    /// Compares an output of the region that begins at `start` with that of its instructions: dtype, sizes and strides are
    /// the same.
    ///
    /// # Errors
    /// They differ by more than they may: a sentence that says how much.
    fn compare(&self, start: u32, output: usize, delegate: &Tensor<'_>, portable: &Tensor<'_>) -> Result<(), String>;
}

impl fmt::Debug for dyn SelfCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("self-check")
    }
}

/// What the self-check of a region found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Checked {
    /// Nothing so far: it is off, or the delegate did not do the region yet.
    #[default]
    Not,
    /// The outputs agree.
    Agrees,
    /// They do not: the delegate is not asked any more.
    Differs(String),
    /// The instructions could not run beside it; the delegate's outputs stand.
    Impossible(String),
}

/// Outputs of a delegate, kept while the instructions run; `None` for those that are states which it keeps itself.
#[derive(Debug, Default)]
pub(crate) struct Kept(Vec<Option<(Dims, Vec<u8>)>>);

/// Copies the outputs as they are.
pub(crate) struct Keep<'k> {
    pub kept: &'k mut Kept,
    pub states: &'k [Held],
}

impl RegionCall for Keep<'_> {
    fn execute(&mut self, _: &[Tensor<'_>], outputs: &mut [Out<'_>]) -> Result<(), RegionError> {
        self.kept.0.clear();
        for (index, out) in outputs.iter_mut().enumerate() {
            if self.states.iter().any(|held| held.state.output == index) {
                self.kept.0.push(None);
                continue;
            }
            let sizes = *out.sizes();
            let bytes = out.bytes_mut();
            let mut copy = Vec::new();
            copy.try_reserve_exact(bytes.len())
                .map_err(|_| RegionError::Failed(format!("no memory for a copy of {} bytes", bytes.len())))?;
            copy.extend_from_slice(bytes);
            self.kept.0.push(Some((sizes, copy)));
        }
        Ok(())
    }
}

/// Compares what was kept with what the instructions wrote, and puts it back where all agrees.
pub(crate) struct Judge<'k> {
    pub check: &'k dyn SelfCheck,
    pub start: u32,
    pub kept: &'k Kept,
}

impl RegionCall for Judge<'_> {
    fn execute(&mut self, inputs: &[Tensor<'_>], outputs: &mut [Out<'_>]) -> Result<(), RegionError> {
        let differs = |text: String| RegionError::Differs(format!("self-check: {text}"));
        for (index, (out, kept)) in outputs.iter_mut().zip(&self.kept.0).enumerate() {
            let Some((sizes, bytes)) = kept else { continue };
            if out.sizes() != sizes {
                return Err(differs(format!(
                    "output {index} has sizes {sizes}, by the portable plan {}",
                    out.sizes()
                )));
            }
            let (dtype, strides) = (out.dtype(), out.strides());
            let failed = |error| RegionError::Failed(format!("{error}"));
            let delegate = Tensor::new(dtype, sizes, &strides, bytes).map_err(failed)?;
            let portable = Tensor::new(dtype, sizes, &strides, out.bytes_mut()).map_err(failed)?;
            let verdict = self.check.compare(self.start, index, &delegate, &portable);
            verdict.map_err(|how| differs(format!("output {index} {how}")))?;
        }
        PutBack(self.kept).execute(inputs, outputs)
    }
}

/// Writes what was kept over whatever is there.
pub(crate) struct PutBack<'k>(pub &'k Kept);

impl RegionCall for PutBack<'_> {
    fn execute(&mut self, _: &[Tensor<'_>], outputs: &mut [Out<'_>]) -> Result<(), RegionError> {
        for (out, kept) in outputs.iter_mut().zip(&self.0.0) {
            let Some((sizes, bytes)) = kept else { continue };
            out.resize(sizes)
                .map_err(|error| RegionError::Failed(format!("{error}")))?;
            out.bytes_mut().copy_from_slice(bytes);
        }
        Ok(())
    }
}
