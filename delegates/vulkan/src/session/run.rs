//! One run: inputs in, submit, wait, outputs out.

use super::lowered::Recorded;
use super::profile;
use crate::sys::Timeline;
use delegraph_sdk::{Context, Error, Status, TensorOut, TensorView};
use std::sync::Arc;
use std::time::Duration;

/// How long is waited before it is looked whether the run was cancelled.
const SLICE: Duration = Duration::from_millis(2);

/// Commands that were submitted.
pub struct Started {
    recorded: Arc<Recorded>,
    timeline: Arc<Timeline>,
    first: bool,
    /// When they were submitted, by the host's clock.
    since: u64,
}

impl Started {
    /// Writes the inputs and submits. What was submitted before on the timeline is done.
    pub fn new(
        recorded: Arc<Recorded>,
        first: bool,
        inputs: &[TensorView<'_>],
        timeline: &Arc<Timeline>,
        context: &Context<'_>,
    ) -> Result<Started, Error> {
        for (input, room) in inputs.iter().zip(&recorded.inputs) {
            let Some(room) = room else { continue };
            let bytes = input.bytes.get(..room.bytes as usize);
            let bytes = bytes.ok_or_else(|| Error::invalid("an input is shorter than its sizes say"))?;
            room.buffer.write(room.offset, bytes)?;
        }
        in_time(context)?;
        let since = context.now_ns();
        recorded.recording.submit()?;
        Ok(Started {
            recorded,
            timeline: Arc::clone(timeline),
            first,
            since,
        })
    }

    /// True if the device uses memory of the host's: then a run does not end before the device is done.
    pub fn in_place(&self) -> bool {
        self.recorded.in_place()
    }

    /// True if it is the first run of these sizes.
    pub fn is_first(&self) -> bool {
        self.first
    }

    /// What was submitted.
    pub fn timeline(&self) -> &Arc<Timeline> {
        &self.timeline
    }

    /// Reads the outputs. The device is done.
    pub fn end(self, outputs: &mut [TensorOut<'_>], context: &Context<'_>) -> Result<(), Error> {
        let recorded = &self.recorded;
        recorded.recording.rest();
        if outputs.len() != recorded.outputs.len() {
            return Err(Error::invalid(format!(
                "{} outputs, not {}",
                outputs.len(),
                recorded.outputs.len()
            )));
        }
        if let Some(flag) = &recorded.flag {
            let mut words = [0; 16];
            flag.buffer.read(flag.offset, &mut words)?;
            if words != [0; 16] {
                return Err(
                    Error::invalid("an index is out of range, or an integer is divided by zero")
                        .hint("the portable kernels name the node and the value"),
                );
            }
        }
        for (mirror, half, room) in &recorded.mirrors {
            mirror.keep(*half, |bytes| room.buffer.read(room.offset, bytes))?;
        }
        for ((out, room), sizes) in outputs.iter_mut().zip(&recorded.outputs).zip(&recorded.sizes) {
            out.set_sizes(sizes)?;
            let Some(room) = room else { continue };
            let bytes = out.bytes.get_mut(..room.bytes as usize);
            let bytes = bytes.ok_or_else(|| Error::invalid("an output has too little room"))?;
            room.buffer.read(room.offset, bytes)?;
        }
        if !recorded.steps.is_empty() {
            profile::tell(recorded, self.timeline.gpu(), self.since, context)?;
        }
        self.timeline.gpu().instance().messages().check()
    }
}

/// Whether somebody still waits.
///
/// # Errors
/// `CANCELLED` or `TIMEOUT`.
pub fn in_time(context: &Context<'_>) -> Result<(), Error> {
    if context.is_cancelled() {
        return Err(Error::new(Status::CANCELLED, "nobody waits for the run any more"));
    }
    match context.time_left() {
        Some(Duration::ZERO) => Err(Error::new(Status::TIMEOUT, "the deadline has passed")),
        _ => Ok(()),
    }
}

/// Waits until what was submitted is done, as long as somebody waits for it. `to_the_end`: until then in any case.
///
/// # Errors
/// `CANCELLED`, `TIMEOUT`, `DEVICE_LOST`, or what the driver says.
pub fn wait(timeline: &Timeline, context: &Context<'_>, to_the_end: bool) -> Result<(), Error> {
    if timeline.is_done()? {
        return Ok(());
    }
    let mut late = Ok(());
    loop {
        let slice = context.time_left().map_or(SLICE, |left| left.min(SLICE));
        // A deadline that has passed leaves nothing to wait for, unless it is to the end.
        let slice = if late.is_err() { SLICE } else { slice };
        if timeline.wait(Some(slice))? {
            return late;
        }
        if late.is_ok() {
            late = in_time(context);
        }
        if late.is_err() && !to_the_end {
            return late;
        }
    }
}
