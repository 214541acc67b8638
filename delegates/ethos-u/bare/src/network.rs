//! A network as Vela compiled it, read where it lies: the blocks of a `vela_bin_stream`, and the container of its command stream.

use crate::Error;

const HEADER: usize = 32;

pub(crate) fn damaged(offset: usize, text: &'static str) -> Error {
    Error::Damaged { offset, text }
}

/// A number of 32 bits.
pub(crate) fn word(bytes: &[u8], at: usize) -> Result<u32, Error> {
    let found = at.checked_add(4).and_then(|end| bytes.get(at..end));
    let found = found.and_then(|b| b.first_chunk::<4>());
    found
        .map(|b| u32::from_le_bytes(*b))
        .ok_or(damaged(at, "a number is cut off"))
}

fn part<'n>(bytes: &'n [u8], at: usize, size: usize, text: &'static str) -> Result<&'n [u8], Error> {
    let found = at.checked_add(size).and_then(|end| bytes.get(at..end));
    found.ok_or(damaged(at, text))
}

/// An input or output: where it is in the scratch memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor {
    /// First byte.
    pub offset: usize,
    /// Bytes of an element.
    pub element: usize,
    /// Elements.
    pub elements: usize,
}

impl Tensor {
    /// Bytes of all of it.
    pub fn bytes(&self) -> usize {
        self.element * self.elements
    }
}

/// A network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network<'n> {
    /// The config word that its stream was compiled for.
    pub config: u32,
    /// The id word.
    pub id: u32,
    /// Commands, without their container.
    pub commands: &'n [u8],
    /// Weights.
    pub weights: &'n [u8],
    /// Bytes of the scratch memory.
    pub scratch: usize,
    /// Bytes of the memory near the processor.
    pub fast: usize,
    inputs: &'n [u8],
    outputs: &'n [u8],
}

impl<'n> Network<'n> {
    /// Reads the blocks of a network.
    ///
    /// # Errors
    /// It is damaged, or a tensor lies outside of the scratch memory.
    pub fn parse(bytes: &'n [u8]) -> Result<Network<'n>, Error> {
        let size = |name: &str| -> Result<usize, Error> { Ok(word(block(bytes, name)?, 0)? as usize) };
        let (config, id, commands) = stream(block(bytes, "cmd_data")?)?;
        let network = Network {
            config,
            id,
            commands,
            weights: block(bytes, "weight_data")?,
            scratch: size("scratch_size")?,
            // A network of ExecuTorch's has no such block, and no such memory.
            fast: match block(bytes, "fast_size") {
                Ok(_) => size("fast_size")?,
                Err(_) => 0,
            },
            inputs: block(bytes, "inputs")?,
            outputs: block(bytes, "outputs")?,
        };
        for tensors in [network.inputs, network.outputs] {
            for number in 0..count(tensors)? {
                let found = tensor(tensors, number)?;
                let end = found.offset.checked_add(found.bytes());
                if end.is_none_or(|end| end > network.scratch) {
                    return Err(damaged(0, "a tensor outside of the scratch memory"));
                }
            }
        }
        Ok(network)
    }

    /// Number of inputs.
    pub fn input_count(&self) -> usize {
        count(self.inputs).unwrap_or(0)
    }

    /// Number of outputs.
    pub fn output_count(&self) -> usize {
        count(self.outputs).unwrap_or(0)
    }

    /// An input.
    pub fn input(&self, number: usize) -> Option<Tensor> {
        (number < self.input_count()).then(|| tensor(self.inputs, number).ok())?
    }

    /// An output.
    pub fn output(&self, number: usize) -> Option<Tensor> {
        (number < self.output_count()).then(|| tensor(self.outputs, number).ok())?
    }
}

/// The data of a block, by its name.
fn block<'n>(bytes: &'n [u8], name: &str) -> Result<&'n [u8], Error> {
    let mut at = 0usize;
    loop {
        let header = part(bytes, at, HEADER, "the header of a block is cut off")?;
        let (named, _) = header.split_at(16);
        let length = named.iter().position(|b| *b == 0).unwrap_or(16);
        let named = named.get(..length).unwrap_or_default();
        let size = word(header, 16)? as usize;
        let data = part(bytes, at + HEADER, size, "the data of a block is cut off")?;
        if at == 0 && named != b"vela_bin_stream" {
            return Err(damaged(0, "it does not begin with `vela_bin_stream`"));
        }
        // External data is a key in place of the data.
        if at > 0 && named == name.as_bytes() && header.get(20) == Some(&0) {
            return Ok(data);
        }
        if named == b"vela_end_stream" {
            return Err(damaged(at, "a block of the network is missing"));
        }
        at = size
            .checked_next_multiple_of(16)
            .and_then(|size| at.checked_add(HEADER)?.checked_add(size))
            .ok_or(damaged(at, "a size beyond the address space"))?;
    }
}

fn count(tensors: &[u8]) -> Result<usize, Error> {
    let count = word(tensors, 0)? as usize;
    match count.checked_mul(36).and_then(|n| n.checked_add(4)) == Some(tensors.len()) {
        true => Ok(count),
        false => Err(damaged(0, "the number of tensors does not fit their bytes")),
    }
}

/// Six sizes, bytes of an element, offset, region.
fn tensor(tensors: &[u8], number: usize) -> Result<Tensor, Error> {
    let at = 4 + 36 * number;
    let field = |i: usize| word(tensors, at + 4 * i).map(|w| w as usize);
    let mut elements = 1usize;
    for i in 0..6 {
        elements = elements
            .checked_mul(field(i)?)
            .ok_or(damaged(at, "a tensor beyond the address space"))?;
    }
    let found = Tensor {
        offset: field(7)?,
        element: field(6)?,
        elements,
    };
    match (elements.checked_mul(found.element), field(8)?) {
        (Some(_), 1) => Ok(found),
        (None, _) => Err(damaged(at, "a tensor beyond the address space")),
        _ => Err(damaged(at, "a tensor that is not in region 1")),
    }
}

/// Config word, id word and commands of a `COP1` or `COP2`.
fn stream(bytes: &[u8]) -> Result<(u32, u32, &[u8]), Error> {
    match bytes.first_chunk::<4>() {
        Some(b"COP1") => cop1(bytes),
        Some(b"COP2") => cop2(bytes),
        _ => Err(damaged(0, "neither `COP1` nor `COP2`")),
    }
}

fn cop1(bytes: &[u8]) -> Result<(u32, u32, &[u8]), Error> {
    let (mut at, mut config, mut commands) = (4, None, None);
    while at < bytes.len() {
        let action = word(bytes, at)?;
        match action & 0xff {
            1 => {
                config = Some((word(bytes, at + 4)?, word(bytes, at + 8)?));
                at += 12;
            }
            2 if commands.is_some() => return Err(damaged(at, "a second command stream")),
            2 => {
                let size = 4 * ((action >> 16) as usize | ((action >> 8 & 0xff) as usize) << 16);
                commands = Some(part(bytes, at + 4, size, "the command stream is cut off")?);
                at += 4 + size;
            }
            5 => at += 4,
            _ => return Err(damaged(at, "an action that is not known")),
        }
    }
    match (config, commands) {
        (Some((config, id)), Some(commands)) => Ok((config, id, commands)),
        (None, _) => Err(damaged(bytes.len(), "no configuration")),
        (_, None) => Err(damaged(bytes.len(), "no command stream")),
    }
}

fn cop2(bytes: &[u8]) -> Result<(u32, u32, &[u8]), Error> {
    if word(bytes, 16)? != 1 || bytes.get(28..32) != Some(b"VEUM") {
        return Err(damaged(16, "an entry that is not known"));
    }
    let (length, metadata) = (word(bytes, 20)? as usize, word(bytes, 24)? as usize);
    let start = metadata
        .checked_add(28)
        .and_then(|end| end.checked_next_multiple_of(16));
    let end = length.checked_add(24);
    let inside = start.zip(end).and_then(|(start, end)| bytes.get(start..end));
    match inside.filter(|commands| commands.len().is_multiple_of(4)) {
        Some(commands) => Ok((word(bytes, 40)?, word(bytes, 44)?, commands)),
        None => Err(damaged(20, "entry and metadata do not fit each other")),
    }
}
