//! Sessions: elements are converted at the border, the graph is executed, and what the library measured becomes events.

use crate::blob::{Header, Slot};
use crate::border;
use crate::engine::Engine;
use crate::profile;
use crate::sys::{Level, LoadedGraph};
use delegraph_sdk::{Context, Error, Session, Status, TensorOut, TensorView, environment};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A loaded blob.
pub struct Loaded {
    engine: Arc<Engine>,
    graph: LoadedGraph,
    header: Header,
    /// Elements as the graph has them, for tensors that are converted; empty for those that are used in place.
    inputs: Vec<Vec<u8>>,
    outputs: Vec<Vec<u8>>,
}

impl Loaded {
    /// Takes a graph that is ready.
    pub fn new(engine: Arc<Engine>, graph: LoadedGraph, header: Header) -> Loaded {
        Loaded {
            inputs: header.inputs.iter().map(room).collect(),
            outputs: header.outputs.iter().map(room).collect(),
            engine,
            graph,
            header,
        }
    }
}

/// Room for a tensor's elements as the graph has them.
fn room(slot: &Slot) -> Vec<u8> {
    match &slot.tensor {
        Some(tensor) if !border::is_same(slot.dtype, slot.convert) => {
            vec![0; slot.elements() * tensor.data_type.size()]
        }
        _ => Vec::new(),
    }
}

/// Whether somebody still waits.
fn in_time(context: &Context<'_>) -> Result<(), Error> {
    if context.is_cancelled() {
        return Err(Error::new(Status::CANCELLED, "nobody waits for the run any more"));
    }
    match context.time_left() {
        Some(Duration::ZERO) => Err(Error::new(Status::TIMEOUT, "the deadline has passed")),
        _ => Ok(()),
    }
}

/// Holds a tensor's sizes against the graph's, which are fixed.
fn check(what: &str, at: usize, slot: &Slot, sizes: &[i64]) -> Result<(), Error> {
    let same =
        sizes.len() == slot.dims.len() && sizes.iter().zip(&slot.dims).all(|(size, dim)| *size == i64::from(*dim));
    match same {
        true => Ok(()),
        false => Err(Error::new(
            Status::SHAPE_OUT_OF_RANGE,
            format!(
                "{what} {at} has the sizes {sizes:?}; the graph was compiled for {:?}",
                slot.dims
            ),
        )
        .hint("compile for these sizes too: `--shapes`")),
    }
}

/// Ends the process at the execution of the number that DELEGRAPH_HEXAGON_ABORT has, counted from 1: for tests of what a host does then.
fn die_if_told() {
    static EXECUTIONS: AtomicU64 = AtomicU64::new(1);
    let now = EXECUTIONS.fetch_add(1, Ordering::Relaxed);
    let told = environment::variable("DELEGRAPH_HEXAGON_ABORT");
    if told.is_some_and(|number| number == now.to_string().as_str()) {
        std::process::abort();
    }
}

impl Session for Loaded {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let header = &self.header;
        if (inputs.len(), outputs.len()) != (header.inputs.len(), header.outputs.len()) {
            return Err(Error::invalid(format!(
                "{} inputs and {} outputs, not {} and {}",
                inputs.len(),
                outputs.len(),
                header.inputs.len(),
                header.outputs.len()
            )));
        }
        in_time(context)?;
        for (at, ((input, slot), room)) in inputs.iter().zip(&header.inputs).zip(&mut self.inputs).enumerate() {
            check("input", at, slot, input.sizes)?;
            let bytes = input.bytes.get(..slot.bytes());
            let bytes = bytes.ok_or_else(|| Error::invalid(format!("input {at} is shorter than its sizes say")))?;
            if !room.is_empty() {
                border::inward(slot.dtype, slot.convert, slot.pair(), bytes, room)
                    .map_err(|error| Error::new(error.code, format!("input {at}: {}", error.message)))?;
            }
        }
        let mut read = Vec::with_capacity(inputs.len());
        for ((input, slot), room) in inputs.iter().zip(&header.inputs).zip(&self.inputs) {
            match (&slot.tensor, room.is_empty()) {
                (None, _) => {}
                (Some(_), true) => read.push(&input.bytes[..slot.bytes()]),
                (Some(_), false) => read.push(room.as_slice()),
            }
        }
        let mut written: Vec<&mut [u8]> = Vec::with_capacity(outputs.len());
        for (at, ((output, slot), room)) in outputs
            .iter_mut()
            .zip(&header.outputs)
            .zip(&mut self.outputs)
            .enumerate()
        {
            let dims: Vec<i64> = slot.dims.iter().map(|d| i64::from(*d)).collect();
            output.set_sizes(&dims)?;
            let bytes = output.bytes.get_mut(..slot.bytes());
            let bytes = bytes.ok_or_else(|| Error::invalid(format!("output {at} has too little room")))?;
            written.push(if room.is_empty() { bytes } else { room });
        }
        let profile = match context.profiling() {
            true => Some(self.engine.qnn().profile(Level::Detailed)?),
            false => None,
        };
        die_if_told();
        let start = context.now_ns();
        let executed = self.graph.execute(&read, &mut written, profile.as_ref());
        let end = context.now_ns();
        self.engine.tell(context);
        executed?;
        for ((output, slot), room) in outputs.iter_mut().zip(&header.outputs).zip(&self.outputs) {
            if !room.is_empty() {
                border::outward(
                    slot.dtype,
                    slot.convert,
                    slot.pair(),
                    room,
                    &mut output.bytes[..slot.bytes()],
                )?;
            }
        }
        if let Some(profile) = profile {
            profile::tell(&profile.events()?, header, (start, end), context);
        }
        Ok(())
    }
}
