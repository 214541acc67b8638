//! A loaded blob, evaluated by the reference delegate's [`Program`], with numbers that may be wrong.

use crate::sys::memory::{self, Remembered};
use crate::{image, is, numbers};
use delegraph_reference::execute::{Program, WeightBytes};
use delegraph_reference::tensor::Tensor;
use delegraph_sdk::image::{ImageView, Quant, verify};
use delegraph_sdk::{Context, Error, KeptWeights, Session, TensorOut, TensorView, Weights};
use std::collections::BTreeMap;

/// The weights as this mutant reads them.
pub struct Kept {
    weights: Option<KeptWeights>,
    instead: BTreeMap<u32, Vec<u8>>,
}

impl WeightBytes for Kept {
    fn bytes(&self, id: u32) -> Result<&[u8], Error> {
        match (self.instead.get(&id), &self.weights) {
            (Some(bytes), _) => Ok(bytes),
            (None, Some(weights)) => weights.bytes(id),
            (None, None) => Err(Error::internal(format!("weight {id} was not kept"))),
        }
    }
}

/// A session without states.
pub struct Evaluator {
    program: Program,
    /// As it was compiled, without what is misread.
    image: Vec<u8>,
    weights: Kept,
    /// Where weights lay when the blob was loaded, by id.
    remembered: Vec<(u32, Remembered)>,
}

impl Evaluator {
    /// Checks an image and its weights.
    ///
    /// # Errors
    /// The image is damaged, has a node that is not taken, or a weight is missing or of another size.
    pub fn new(bytes: &[u8], weights: &Weights<'_>) -> Result<Evaluator, Error> {
        let program = Program::new(&image::misread(bytes)?)?;
        let view = verified(bytes)?;
        let mut instead = BTreeMap::new();
        let mut remembered = Vec::new();
        for weight in view.weights() {
            let mapped = weights.bytes(weight.id());
            if mapped.is_err() && is("ignores-weight-failure") {
                memory::fault();
            }
            let mapped = mapped?;
            if mapped.len() as u64 != weight.byte_size() {
                let (id, have, want) = (weight.id(), mapped.len(), weight.byte_size());
                return Err(Error::corrupt(format!(
                    "weight {id} has {have} bytes, the graph says {want}"
                )));
            }
            if is("writes-weight") {
                memory::write_lent(mapped);
            }
            if is("weights-not-retained") {
                remembered.push((weight.id(), Remembered::new(mapped)));
            }
        }
        if is("one-scale-for-all") {
            instead = one_scale(&view, weights)?;
        }
        let kept = match view.weight_count() {
            0 => None,
            _ if is("weights-not-retained") => None,
            _ => Some(weights.keep()?),
        };
        let image = bytes.to_vec();
        Ok(Evaluator {
            program,
            image,
            weights: Kept { weights: kept, instead },
            remembered,
        })
    }
}

impl Session for Evaluator {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        _: &Context<'_>,
    ) -> Result<(), Error> {
        for (id, weight) in &self.remembered {
            self.weights.instead.insert(*id, weight.read());
        }
        let made = self.program.run(inputs, &self.weights)?;
        if made.len() != outputs.len() {
            return Err(Error::invalid(format!("{} outputs, not {}", made.len(), outputs.len())));
        }
        let made: Vec<Tensor> = made.iter().map(|tensor| (**tensor).clone()).collect();
        let view = verified(&self.image)?;
        let made = numbers::spoil(&view, inputs, &self.weights, made)?;
        made.iter().zip(outputs).try_for_each(|(tensor, out)| tensor.write(out))
    }
}

fn verified(image: &[u8]) -> Result<ImageView<'_>, Error> {
    verify(image).map_err(|e| Error::corrupt(format!("the graph image is damaged: {e}")))
}

/// Scales of weights that have one a slice, all as the first.
fn one_scale(view: &ImageView<'_>, weights: &Weights<'_>) -> Result<BTreeMap<u32, Vec<u8>>, Error> {
    let mut instead = BTreeMap::new();
    for value in view.values() {
        if let Some(Quant::PerAxis { scales, .. }) = value.quant() {
            let weight = view.weight(scales);
            let width = weight.dtype().size().unwrap_or(1);
            let bytes = weights.bytes(weight.id())?;
            let first = bytes.get(..width).unwrap_or_default();
            instead.insert(weight.id(), first.repeat(bytes.len() / width));
        }
    }
    Ok(instead)
}
