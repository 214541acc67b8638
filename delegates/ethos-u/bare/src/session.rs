//! A network that is run, in memory of the caller.

use crate::driver::{Driver, Job, Memory};
use crate::error::Error;
use crate::network::{Network, Tensor};

/// What addresses that the processor is given are multiples of.
const ALIGN: usize = 16;
/// Bits of a config word that say which processor: the logarithm of its multiplications a cycle, and the product.
const PROCESSOR: u32 = 0xf000_000f;

/// A network that can be run. It borrows the bytes that it was read from.
#[derive(Debug, Clone, Copy)]
pub struct Session<'n> {
    network: Network<'n>,
}

fn align(bytes: &[u8], what: &'static str) -> Result<(), Error> {
    match bytes.is_empty() || bytes.as_ptr().addr().is_multiple_of(ALIGN) {
        true => Ok(()),
        false => Err(Error::Misaligned { what, align: ALIGN }),
    }
}

impl<'n> Session<'n> {
    /// Of the section `network` of a blob; or of what ExecuTorch's backend compiled, which has the same form.
    ///
    /// # Errors
    /// It is damaged.
    pub fn new(section: &'n [u8]) -> Result<Session<'n>, Error> {
        Ok(Session {
            network: Network::parse(section)?,
        })
    }

    /// What is run.
    pub fn network(&self) -> &Network<'n> {
        &self.network
    }

    /// Writes an input to where the network reads it. All of them are written before a run.
    ///
    /// # Errors
    /// There is no such input, it has other bytes, or the memory is too small.
    pub fn write_input(&self, number: usize, bytes: &[u8], memory: &mut Memory<'_>) -> Result<(), Error> {
        let what = "input";
        let tensor = self.network.input(number).ok_or(Error::NoTensor { what, number })?;
        size(what, number, tensor, bytes.len())?;
        let given = memory.scratch.len();
        let place = memory.scratch.get_mut(tensor.offset..tensor.offset + tensor.bytes());
        place
            .ok_or(self.too_small(given))
            .map(|place| place.copy_from_slice(bytes))
    }

    /// Reads an output. Outputs are there from a run to the next use of the memory.
    ///
    /// # Errors
    /// There is no such output, it has other bytes, or the memory is too small.
    pub fn read_output(&self, number: usize, memory: &Memory<'_>, out: &mut [u8]) -> Result<(), Error> {
        let what = "output";
        let tensor = self.network.output(number).ok_or(Error::NoTensor { what, number })?;
        size(what, number, tensor, out.len())?;
        let place = memory.scratch.get(tensor.offset..tensor.offset + tensor.bytes());
        place
            .ok_or(self.too_small(memory.scratch.len()))
            .map(|place| out.copy_from_slice(place))
    }

    /// Runs the network on the inputs that were written.
    ///
    /// # Errors
    /// The driver is one of another processor, the memory is too small or lies at odd addresses, or the driver fails.
    pub fn run<D: Driver>(&self, driver: &mut D, memory: &mut Memory<'_>) -> Result<(), Error> {
        let network = &self.network;
        let device = driver.config();
        if (device ^ network.config) & PROCESSOR != 0 {
            return Err(Error::OtherProcessor {
                stream: network.config,
                device,
            });
        }
        let (scratch_given, fast_given) = (memory.scratch.len(), memory.fast.len());
        let scratch = memory.scratch.get_mut(..network.scratch);
        let scratch = scratch.ok_or(self.too_small(scratch_given))?;
        let fast = memory.fast.get_mut(..network.fast).ok_or(Error::TooSmall {
            what: "fast memory",
            needed: network.fast,
            given: fast_given,
        })?;
        align(network.commands, "the command stream")?;
        align(network.weights, "the weights")?;
        align(scratch, "the scratch memory")?;
        align(fast, "the fast memory")?;
        let job = Job {
            config: network.config,
            commands: network.commands,
            weights: network.weights,
            scratch,
            fast,
        };
        driver.submit(job).map_err(Error::Driver)
    }

    fn too_small(&self, given: usize) -> Error {
        Error::TooSmall {
            what: "scratch memory",
            needed: self.network.scratch,
            given,
        }
    }
}

fn size(what: &'static str, number: usize, tensor: Tensor, given: usize) -> Result<(), Error> {
    let needed = tensor.bytes();
    match given == needed {
        true => Ok(()),
        false => Err(Error::TensorSize {
            what,
            number,
            needed,
            given,
        }),
    }
}
