//! A blob that is loaded: the program's image, its weights, and a plan for each set of sizes that it met.

use crate::plan::Plan;
use crate::states::Kept;
use crate::sys::Slot;
use delegraph_sdk::image::{ImageView, Sizes, Source, verify};
use delegraph_sdk::{Error, KeptWeights, Status};

/// Plans that are kept: a program meets few sizes over and over, as a prompt and then single tokens.
const MOST_PLANS: usize = 8;

/// Bytes of the weights that the blob holds, where they lie.
pub trait Packed: Send + Sync {
    /// The bytes of one.
    ///
    /// # Errors
    /// There is none.
    fn bytes(&self, index: u32) -> Result<&[u8], Error>;
}

/// The weights of a program.
pub struct Store {
    /// The host's.
    pub host: Option<KeptWeights>,
    /// The blob's.
    pub packed: Box<dyn Packed>,
}

impl Store {
    /// The bytes of a weight of the image.
    ///
    /// # Errors
    /// There is none, or of another size.
    pub fn bytes(&self, id: u32, size: u64) -> Result<&[u8], Error> {
        let bytes = match id.checked_sub(crate::graph::PACKED) {
            Some(index) => self.packed.bytes(index)?,
            None => match &self.host {
                Some(host) => host.bytes(id)?,
                None => return Err(Error::internal(format!("weight {id} was not kept"))),
            },
        };
        match bytes.len() as u64 == size {
            true => Ok(bytes),
            false => Err(Error::corrupt(format!(
                "weight {id} has {} bytes, the program says {size}",
                bytes.len()
            ))),
        }
    }
}

/// A loaded program.
pub struct Program {
    image: Vec<u8>,
    store: Store,
    sizes: Sizes,
    /// The one that was used last is the first.
    plans: Vec<Plan>,
}

impl Program {
    /// Reads a program. Where all sizes are constant it is planned now, so that the first run is like any other.
    ///
    /// # Errors
    /// It is damaged, or a weight is missing.
    pub fn new(image: &[u8], store: Store, threads: usize) -> Result<Program, Error> {
        let view = verified(image)?;
        let sizes = Sizes::new(&view);
        for weight in view.weights() {
            store.bytes(weight.id(), weight.byte_size())?;
        }
        let mut program = Program {
            image: image.to_vec(),
            store,
            sizes,
            plans: Vec::new(),
        };
        let view = verified(&program.image)?;
        let fixed = view
            .inputs()
            .iter()
            .map(|input| view.value(input).const_dims())
            .collect::<Option<Vec<_>>>();
        if let Some(fixed) = fixed {
            // What does not fit together now was written so, or damaged since.
            let plan = program.planned(fixed.iter().map(Vec::as_slice), threads);
            let plan = plan.map_err(|error| match error.code {
                Status::INTERNAL => Error::corrupt(error.message),
                _ => error,
            })?;
            program.plans.push(plan);
        }
        Ok(program)
    }

    /// The states that sessions keep, each 0.
    ///
    /// # Errors
    /// The program is damaged, or no memory.
    pub fn states(&self) -> Result<Vec<Kept>, Error> {
        crate::states::all(&verified(&self.image)?)
    }

    /// The plan of the last run.
    pub fn last(&mut self) -> Option<&mut Plan> {
        self.plans.first_mut()
    }

    /// How many inputs and outputs it has.
    pub fn border(&self) -> Result<(usize, usize), Error> {
        let view = verified(&self.image)?;
        Ok((view.inputs().len(), view.outputs().len()))
    }

    fn planned<'s>(&mut self, inputs: impl Iterator<Item = &'s [i64]> + Clone, threads: usize) -> Result<Plan, Error> {
        let view = verified(&self.image)?;
        let bound = self.sizes.bind(&view, inputs.clone());
        bound.map_err(|e| Error::invalid(e.to_string()))?;
        let mut weights = vec![Slot::NONE; view.value_count() as usize];
        for value in view.values() {
            if let Source::Weight(index) = value.source() {
                let weight = view.weight(index);
                weights[value.index().0 as usize] = Slot::read(self.store.bytes(weight.id(), weight.byte_size())?);
            }
        }
        Plan::new(
            &view,
            &self.sizes,
            weights,
            inputs.map(<[i64]>::to_vec).collect(),
            threads,
        )
    }

    /// The plan for these sizes of inputs.
    ///
    /// # Errors
    /// Sizes that do not fit the graph, or no memory.
    pub fn plan<'s>(
        &mut self,
        inputs: impl Iterator<Item = &'s [i64]> + Clone,
        threads: usize,
    ) -> Result<&mut Plan, Error> {
        match self.plans.iter().position(|plan| plan.is_for(inputs.clone(), threads)) {
            Some(0) => {}
            Some(at) => self.plans[..=at].rotate_right(1),
            None => {
                let plan = self.planned(inputs, threads)?;
                self.plans.truncate(MOST_PLANS - 1);
                self.plans.insert(0, plan);
            }
        }
        Ok(&mut self.plans[0])
    }
}

fn verified(image: &[u8]) -> Result<ImageView<'_>, Error> {
    verify(image).map_err(|e| Error::corrupt(format!("the program is damaged: {e}")))
}
