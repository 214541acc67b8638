//! A graph that a delegate may do with as it likes, within the contract: refuse it, refuse to compile it, to load it, to run it; or run it,
//! in bounds.

use crate::case::{Failure, Trial};
use crate::driver::{HostWeights, Instance, Place, Refused, Script, Structs, Tensor};
use delegraph_abi::c::Feature;
use delegraph_abi::image::{ImageView, verify};
use delegraph_abi::{DType, Status};
use std::sync::Arc;

/// Most bytes of a tensor or of all weights that the kit makes for such a graph.
const MOST: usize = 1 << 22;

/// How far a graph came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reached {
    /// `partition` failed.
    Refused,
    /// It was answered, and not all of it was taken.
    Answered,
    /// It was taken and not compiled.
    Taken,
    /// It was compiled and not loaded or not run.
    Compiled,
    /// It ran.
    Ran,
}

/// Counts, by how far graphs came, and what was remarkable.
#[derive(Default)]
pub struct Endured {
    counts: [u32; 5],
    /// Panics and exceptions that were caught.
    pub warnings: Vec<String>,
}

impl Endured {
    /// Notes the counts in the record.
    pub fn measure(&self, trial: &mut Trial<'_>) {
        for (name, count) in ["refused", "answered", "taken", "compiled", "ran"]
            .into_iter()
            .zip(self.counts)
        {
            trial.measure(name, f64::from(count));
        }
    }

    /// Hands a verified graph to a delegate, and follows it as far as it goes.
    ///
    /// # Errors
    /// The delegate did what the contract forbids.
    pub fn follow(
        &mut self,
        trial: &mut Trial<'_>,
        instance: &Instance,
        what: &str,
        image: &[u8],
    ) -> Result<(), Failure> {
        trial.step(what);
        let view = verify(image).map_err(|error| Failure::fail(format!("{what}: the kit's image: {error}")))?;
        let reached = self.reach(trial, instance, what, image, &view);
        if reached.is_err() {
            trial.keep("graph.dgg", image);
        }
        self.counts[reached? as usize] += 1;
        Ok(())
    }

    /// A graph that contradicts itself may be found out late, by whatever status. A panic or exception that was caught is a mistake.
    fn surprised(&mut self, what: &str, refused: &Refused) {
        let caught = ["panic", "exception"].iter().any(|word| refused.message.contains(word));
        if refused.status == Status::INTERNAL && caught {
            self.warnings.push(format!("{what}: {refused}"));
        }
    }

    fn reach(
        &mut self,
        trial: &Trial<'_>,
        instance: &Instance,
        what: &str,
        image: &[u8],
        view: &ImageView<'_>,
    ) -> Result<Reached, Failure> {
        let wrong = |text: String| Failure::fail(format!("{what}: {text}"));
        let script = Script::default();
        let nodes = view.node_count();
        let answers = match instance.partition(image, nodes, &script) {
            Ok(answers) => answers,
            Err(refused) => {
                self.surprised(what, &refused);
                return Ok(Reached::Refused);
            }
        };
        answers.complete(nodes).map_err(wrong)?;
        if nodes == 0 || !answers.takes_all(nodes) {
            return Ok(Reached::Answered);
        }
        let Some(weights) = zero_weights(view) else {
            return Ok(Reached::Taken);
        };
        let blob = match instance.compile(image, &weights, "", &script) {
            Ok(blob) => blob,
            Err(refused) => {
                self.surprised(what, &refused);
                return Ok(Reached::Taken);
            }
        };
        let tensors = tensors(view, !blob.requirements.is_empty());
        let Some((inputs, mut outputs)) = tensors.filter(|_| instance.library.has(Feature::RUN)) else {
            return Ok(Reached::Compiled);
        };
        let mut session = match instance.load(&blob, &weights, trial.subject.device, &script) {
            Ok(session) => session,
            Err(refused) => {
                self.surprised(what, &refused);
                return Ok(Reached::Compiled);
            }
        };
        let largest: Vec<Vec<i64>> = outputs.iter().map(|output| output.sizes.clone()).collect();
        if let Err(refused) = session.run(&inputs, &mut outputs, &Script::of(Structs::Extended)) {
            self.surprised(what, &refused);
            stray(&outputs).map_err(wrong)?;
            return Ok(Reached::Compiled);
        }
        stray(&outputs).map_err(wrong)?;
        for (i, (output, largest)) in outputs.iter().zip(&largest).enumerate() {
            if output.sizes.iter().zip(largest).any(|(is, most)| is > most || *is < 0) {
                return Err(wrong(format!(
                    "output {i} has sizes {:?}, where {largest:?} are the largest",
                    output.sizes
                )));
            }
        }
        Ok(Reached::Ran)
    }
}

/// The first output beside which something was written.
pub fn stray(outputs: &[Tensor]) -> Result<(), String> {
    for (i, output) in outputs.iter().enumerate() {
        if let Some(distance) = output.memory.strayed() {
            return Err(format!("it wrote outside of output {i}, {distance} bytes from it"));
        }
    }
    Ok(())
}

/// Weights of zeros; `None`: more than the kit makes.
fn zero_weights(view: &ImageView<'_>) -> Option<Arc<HostWeights>> {
    let mut items: Vec<(u32, Vec<u8>)> = Vec::new();
    let mut all = 0usize;
    for weight in view.weights() {
        let size = usize::try_from(weight.byte_size()).ok()?;
        all = all.checked_add(size).filter(|all| *all <= MOST)?;
        items.push((weight.id(), vec![0; size]));
    }
    HostWeights::new(items.iter().map(|(id, bytes)| (*id, bytes.as_slice())))
        .ok()
        .map(Arc::new)
}

/// Tensors of the inputs, read-only, and of the outputs; `None`: one is a number, of sizes that are not constant, or too large.
fn tensors(view: &ImageView<'_>, aligned: bool) -> Option<(Vec<Tensor>, Vec<Tensor>)> {
    let spec = |value: delegraph_abi::image::ValueIndex| -> Option<(DType, Vec<i64>)> {
        let value = view.value(value);
        let (dtype, dims) = (value.dtype()?, value.const_dims()?);
        let bytes = dims
            .iter()
            .try_fold(dtype.size()?, |n, d| n.checked_mul(usize::try_from(*d).ok()?))?;
        (bytes <= MOST).then_some((dtype, dims))
    };
    let place = |tensor: Tensor| match aligned {
        true => tensor.aligned(4096).ok(),
        false => Some(tensor),
    };
    let inputs = view.inputs().iter().map(|value| {
        let (dtype, sizes) = spec(value)?;
        let bytes = super::small::bytes(dtype, &sizes);
        place(Tensor::input(dtype, &sizes, &bytes, Place::End).ok()?)
    });
    let inputs = inputs.collect::<Option<Vec<_>>>()?;
    let outputs = view.outputs().iter().map(|value| {
        let (dtype, sizes) = spec(value)?;
        place(Tensor::output(dtype, &sizes, Place::End).ok()?)
    });
    Some((inputs, outputs.collect::<Option<Vec<_>>>()?))
}
