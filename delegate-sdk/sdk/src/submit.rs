//! Runs that end after the call that began them.

use crate::sys::{RawCall, RawRun};
use crate::{Context, Error, Status, TensorOut, TensorView};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A run that was submitted: its tensors and its context, both valid until it ends.
///
/// It is a value that moves: [`crate::Session::submit`] gets it, and hands it to whatever thread learns that the device is done.
/// It ends exactly once, by [`SubmittedRun::finish`] or [`SubmittedRun::complete`]; one that is dropped without, by a panic for
/// example, ends with `INTERNAL`, so that nobody waits for it in vain. What is kept alive for ever (in a `static`, by
/// [`std::mem::forget`]) never ends, and the caller waits as long.
#[must_use = "a run that is dropped has failed"]
pub struct SubmittedRun {
    call: RawCall,
    /// `None`: ended.
    raw: Option<RawRun>,
}

impl SubmittedRun {
    pub(crate) fn new(raw: RawRun) -> SubmittedRun {
        SubmittedRun {
            call: raw.call(),
            raw: Some(raw),
        }
    }

    /// The inputs, as in [`crate::Session::execute`].
    pub fn inputs(&self) -> Vec<TensorView<'_>> {
        self.raw.as_ref().map_or_else(Vec::new, RawRun::inputs)
    }

    /// The outputs, as in [`crate::Session::execute`].
    pub fn outputs_mut(&mut self) -> Vec<TensorOut<'_>> {
        self.parts().1
    }

    /// Inputs and outputs at once.
    pub fn parts(&mut self) -> (Vec<TensorView<'_>>, Vec<TensorOut<'_>>) {
        self.raw
            .as_mut()
            .map_or_else(|| (Vec::new(), Vec::new()), RawRun::parts)
    }

    /// The call of the run: it can be cancelled, has a deadline, takes profile events.
    pub fn context(&self) -> Context<'_> {
        // The run has not ended: whatever ends it consumes `self`.
        Context::new(self.call)
    }

    /// Ends the run. The outputs are the caller's from here on.
    pub fn finish(mut self, outcome: Result<(), Error>) {
        self.end(outcome);
    }

    /// Does the work here and now, and ends the run with what comes of it; a panic becomes `INTERNAL`.
    pub fn complete(
        mut self,
        body: impl FnOnce(&[TensorView<'_>], &mut [TensorOut<'_>], &Context<'_>) -> Result<(), Error>,
    ) {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let context = Context::new(self.call);
            let (inputs, mut outputs) = self.parts();
            body(&inputs, &mut outputs, &context)
        }));
        self.end(outcome.unwrap_or_else(|panic| Err(Error::panicked(&*panic))));
    }

    fn end(&mut self, outcome: Result<(), Error>) {
        if let Some(raw) = self.raw.take() {
            raw.end(outcome);
        }
    }
}

impl Drop for SubmittedRun {
    fn drop(&mut self) {
        let why = match std::thread::panicking() {
            true => "the delegate panicked in a submitted run",
            false => "the delegate dropped a submitted run without an outcome",
        };
        self.end(Err(Error::new(Status::INTERNAL, why)));
    }
}
