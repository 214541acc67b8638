//! Runs a compiled network on the functional interpreter of the command stream.

use delegraph_ethos_u_sim::container::{Io, blocks, io};
use delegraph_ethos_u_sim::{Interpreter, Limits, Memory, Stream};
use delegraph_sdk::{Context, DType, Error, Session, TensorOut, TensorView};

/// A network, and the memory that it works on.
pub struct Network {
    stream: Stream,
    weights: Vec<u8>,
    scratch: Vec<u8>,
    fast: Vec<u8>,
    inputs: Vec<Io>,
    outputs: Vec<Io>,
}

/// Largest scratch memory: what a damaged blob could ask for otherwise.
const MAX_SCRATCH: usize = 1 << 30;

fn bytes(tensor: &Io) -> Option<usize> {
    let mut size = usize::try_from(tensor.element).ok()?;
    for dim in tensor.shape {
        size = size.checked_mul(usize::try_from(dim).ok()?)?;
    }
    Some(size)
}

impl Network {
    /// Reads a blob's section.
    ///
    /// # Errors
    /// It is damaged, or a tensor lies outside the memory.
    pub fn read(section: &[u8]) -> Result<Network, Error> {
        let corrupt = |e: delegraph_ethos_u_sim::Error| Error::corrupt(e.to_string());
        let blocks = blocks(section).map_err(corrupt)?;
        let find = |name: &str| {
            let block = blocks.iter().find(|block| block.name == name && !block.external);
            block
                .map(|block| block.data)
                .ok_or_else(|| Error::corrupt(format!("the network has no block `{name}`")))
        };
        let size = |name: &str| -> Result<usize, Error> {
            let size: [u8; 4] = find(name)?
                .try_into()
                .map_err(|_| Error::corrupt(format!("`{name}` is no size")))?;
            let size = u32::from_le_bytes(size) as usize;
            match size <= MAX_SCRATCH {
                true => Ok(size),
                false => Err(Error::corrupt(format!("`{name}` asks for {size} bytes"))),
            }
        };
        let network = Network {
            stream: Stream::parse(find("cmd_data")?).map_err(corrupt)?,
            weights: find("weight_data")?.to_vec(),
            scratch: vec![0; size("scratch_size")?],
            fast: vec![0; size("fast_size")?],
            inputs: io(find("inputs")?).map_err(corrupt)?,
            outputs: io(find("outputs")?).map_err(corrupt)?,
        };
        for tensor in network.inputs.iter().chain(&network.outputs) {
            let end = bytes(tensor).and_then(|size| size.checked_add(tensor.offset as usize));
            if tensor.region != 1 || end.is_none_or(|end| end > network.scratch.len()) {
                return Err(Error::corrupt("a tensor outside the scratch memory"));
            }
        }
        Ok(network)
    }

    /// What it was compiled for.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    fn range(tensor: &Io, given: usize) -> Result<std::ops::Range<usize>, Error> {
        let size = bytes(tensor).unwrap_or(0);
        if size != given {
            return Err(Error::invalid(format!("a tensor of {given} bytes in place of {size}")));
        }
        Ok(tensor.offset as usize..tensor.offset as usize + size)
    }
}

/// Integers of 8 unsigned bits are signed ones in the network, and back: 128 less, which is the highest bit turned over.
fn signed(dtype: DType, bytes: &mut [u8]) {
    if dtype == DType::U8 {
        bytes.iter_mut().for_each(|byte| *byte ^= 0x80);
    }
}

impl Session for Network {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        _: &Context<'_>,
    ) -> Result<(), Error> {
        if inputs.len() != self.inputs.len() || outputs.len() != self.outputs.len() {
            return Err(Error::invalid("another number of tensors than was compiled for"));
        }
        for (given, tensor) in inputs.iter().zip(&self.inputs) {
            let count: i64 = given.sizes.iter().product();
            let size = count as usize * given.dtype.size().unwrap_or(1);
            let range = Network::range(tensor, size)?;
            let room = &mut self.scratch[range];
            room.copy_from_slice(&given.bytes[..size]);
            signed(given.dtype, room);
        }
        let mut memory = Memory::new();
        memory.map(0, &self.weights);
        memory.map_mut(1, &mut self.scratch);
        memory.map_mut(2, &mut self.fast);
        let mut interpreter = Interpreter::new(self.stream.config, Limits::default());
        interpreter
            .run(&self.stream, &mut memory)
            .map_err(|e| Error::internal(format!("the interpreter of the command stream: {e}")))?;
        for (out, tensor) in outputs.iter_mut().zip(&self.outputs) {
            let count: i64 = out.sizes.iter().product();
            let size = count as usize * out.dtype.size().unwrap_or(1);
            let range = Network::range(tensor, size)?;
            out.bytes[..size].copy_from_slice(&self.scratch[range]);
            signed(out.dtype, &mut out.bytes[..size]);
        }
        Ok(())
    }
}
