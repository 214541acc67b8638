//! What command streams come in: Vela's `COP1` and `COP2`, and the blocks of ExecuTorch's `vela_bin_stream`.

use crate::Error;

/// Which processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Product {
    U55,
    U65,
    U85,
}

impl Product {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Product::U55 => "Ethos-U55",
            Product::U65 => "Ethos-U65",
            Product::U85 => "Ethos-U85",
        }
    }
}

/// The configuration that a stream was compiled for: the config word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// The word itself.
    pub word: u32,
    /// Processor.
    pub product: Product,
    /// Multiplications a cycle: 32 to 2048.
    pub macs: u32,
    /// KiB of its internal memory, which also holds the tables (U55 and U65); of both cores together.
    pub shram_kib: u32,
}

impl Config {
    /// Reads the word: bits 0 to 3 the logarithm of the multiplications, 8 to 15 the memory, 28 to 31 the product.
    ///
    /// # Errors
    /// A product that there is not.
    pub fn of(word: u32, offset: usize) -> Result<Config, Error> {
        let product = match word >> 28 {
            0 => Product::U55,
            1 => Product::U65,
            2 => Product::U85,
            other => {
                return Err(Error::container(
                    offset,
                    format!("product {other} of the config word is not known"),
                ));
            }
        };
        Ok(Config {
            word,
            product,
            macs: 1 << (word & 15),
            shram_kib: (word >> 8) & 0xff,
        })
    }

    /// For a processor by its product and multiplications a cycle, with the memory that Arm's configurations have.
    pub fn new(product: Product, macs: u32) -> Config {
        let shram_kib = match (product, macs) {
            (Product::U85, _) => 0,
            (_, 32 | 64) => 16,
            (_, 128) => 24,
            (Product::U65, 512) => 96,
            (_, _) => 48,
        };
        let code = match product {
            Product::U55 => 0,
            Product::U65 => 1,
            Product::U85 => 2,
        };
        Config {
            word: code << 28 | shram_kib << 8 | macs.checked_ilog2().unwrap_or(0),
            product,
            macs,
            shram_kib,
        }
    }

    /// Cores that each have a weight stream of their own.
    pub fn cores(&self) -> usize {
        match (self.product, self.macs) {
            (Product::U65 | Product::U85, 512) => 2,
            (Product::U85, 1024 | 2048) => 4,
            _ => 1,
        }
    }
}

/// A command stream with its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// What it was compiled for.
    pub config: Config,
    /// The id word: architecture and product, as the compiler wrote it.
    pub id: u32,
    /// The commands.
    pub words: Vec<u32>,
}

fn word(bytes: &[u8], offset: usize) -> Result<u32, Error> {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map(|chunk| u32::from_le_bytes(*chunk))
        .ok_or_else(|| Error::container(offset, "a word is cut off"))
}

fn words(bytes: &[u8], offset: usize, count: usize) -> Result<Vec<u32>, Error> {
    let end = count.checked_mul(4).and_then(|size| offset.checked_add(size));
    let part = end.and_then(|end| bytes.get(offset..end)).ok_or_else(|| {
        Error::container(
            offset,
            format!(
                "{count} words are announced, and there are {} bytes",
                bytes.len() - offset
            ),
        )
    })?;
    Ok(part.as_chunks::<4>().0.iter().map(|c| u32::from_le_bytes(*c)).collect())
}

/// Longest command stream, in bytes: what the hardware's size register holds.
pub const MAX_STREAM: usize = 16 << 20;

impl Stream {
    /// Bare words, with the configuration that they were compiled for.
    ///
    /// # Errors
    /// No multiple of 4 bytes.
    pub fn bare(bytes: &[u8], config: Config) -> Result<Stream, Error> {
        if !bytes.len().is_multiple_of(4) || bytes.len() > MAX_STREAM {
            return Err(Error::container(
                bytes.len(),
                "no command stream has this number of bytes",
            ));
        }
        Ok(Stream {
            config,
            id: 0,
            words: words(bytes, 0, bytes.len() / 4)?,
        })
    }

    /// A container, by its first word.
    ///
    /// # Errors
    /// It is neither `COP1` nor `COP2`, or is damaged.
    pub fn parse(bytes: &[u8]) -> Result<Stream, Error> {
        if bytes.len() > MAX_STREAM {
            return Err(Error::container(0, "longer than a command stream can be"));
        }
        match bytes.first_chunk::<4>() {
            Some(b"COP1") => cop1(bytes),
            Some(b"COP2") => cop2(bytes),
            _ => Err(Error::container(0, "neither `COP1` nor `COP2`")),
        }
    }
}

/// Actions: the low byte of a word is its kind.
fn cop1(bytes: &[u8]) -> Result<Stream, Error> {
    let (mut at, mut config, mut id, mut commands) = (4, None, 0, None);
    while at < bytes.len() {
        let action = word(bytes, at)?;
        match action & 0xff {
            1 => {
                config = Some(Config::of(word(bytes, at + 4)?, at + 4)?);
                id = word(bytes, at + 8)?;
                at += 12;
            }
            2 => {
                let count = (action >> 16) as usize | ((action >> 8 & 0xff) as usize) << 16;
                if commands.is_some() {
                    return Err(Error::container(at, "a second command stream"));
                }
                commands = Some(words(bytes, at + 4, count)?);
                at += 4 + 4 * count;
            }
            5 => at += 4,
            other => return Err(Error::container(at, format!("action {other} is not known"))),
        }
    }
    match (config, commands) {
        (Some(config), Some(words)) => Ok(Stream { config, id, words }),
        (None, _) => Err(Error::container(bytes.len(), "no configuration")),
        (_, None) => Err(Error::container(bytes.len(), "no command stream")),
    }
}

/// A header, one entry of metadata, and the stream at a multiple of 16.
fn cop2(bytes: &[u8]) -> Result<Stream, Error> {
    let rest = u64::from(word(bytes, 8)?) | u64::from(word(bytes, 12)?) << 32;
    if Some(rest) != bytes.len().checked_sub(16).map(|n| n as u64) {
        return Err(Error::container(
            8,
            format!("{rest} bytes are announced, and {} follow", bytes.len() - 16),
        ));
    }
    let kind = word(bytes, 16)?;
    if kind != 1 {
        return Err(Error::container(16, format!("entry {kind} is not known")));
    }
    let (length, metadata) = (word(bytes, 20)? as usize, word(bytes, 24)? as usize);
    if bytes.get(28..32) != Some(b"VEUM") {
        return Err(Error::container(28, "the metadata is not `VEUM`"));
    }
    let config = Config::of(word(bytes, 40)?, 40)?;
    let id = word(bytes, 44)?;
    let header = 28usize.checked_add(metadata).map(|end| end.next_multiple_of(16));
    // An entry is counted from behind its kind and its length.
    let end = length.checked_add(24).filter(|end| *end <= bytes.len());
    match (header, end) {
        (Some(start), Some(end)) if start <= end && (end - start).is_multiple_of(4) => Ok(Stream {
            config,
            id,
            words: words(bytes, start, (end - start) / 4)?,
        }),
        _ => Err(Error::container(20, "entry and metadata do not fit each other")),
    }
}

/// A block of a `vela_bin_stream`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its data; the key of it where `external`.
    pub data: &'a [u8],
    /// The data lies elsewhere, under a key of 64 characters.
    pub external: bool,
}

const BLOCK_HEADER: usize = 32;

/// The blocks of a `vela_bin_stream`, without its two end marks.
///
/// # Errors
/// It does not begin or end with them, or a block does not fit.
pub fn blocks(bytes: &[u8]) -> Result<Vec<Block<'_>>, Error> {
    let mut at = 0usize;
    let mut all: Vec<Block<'_>> = Vec::new();
    loop {
        let header = at
            .checked_add(BLOCK_HEADER)
            .and_then(|end| bytes.get(at..end))
            .ok_or_else(|| Error::container(at, "the header of a block is cut off"))?;
        let (name, _) = header.split_at(16);
        let length = name.iter().position(|b| *b == 0).unwrap_or(16);
        let name =
            std::str::from_utf8(&name[..length]).map_err(|_| Error::container(at, "a block's name is no text"))?;
        let size = word(bytes, at + 16)? as usize;
        let data = (at + BLOCK_HEADER)
            .checked_add(size)
            .and_then(|end| bytes.get(at + BLOCK_HEADER..end))
            .ok_or_else(|| {
                Error::container(
                    at,
                    format!("block `{name}` announces {size} bytes, which are not there"),
                )
            })?;
        let block = Block {
            name,
            data,
            external: header[20] != 0,
        };
        match (all.is_empty() && at == 0, name) {
            (true, "vela_bin_stream") => {}
            (true, _) => return Err(Error::container(0, "it does not begin with `vela_bin_stream`")),
            (false, "vela_end_stream") => return Ok(all),
            (false, _) => all.push(block),
        }
        at += BLOCK_HEADER + size.next_multiple_of(16);
    }
}

/// Writes blocks as a `vela_bin_stream`, with its end marks. Names have at most 16 bytes; longer ones are cut.
pub fn write_blocks(blocks: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let ends = [("vela_bin_stream", &[][..]), ("vela_end_stream", &[][..])];
    for (name, data) in ends[..1].iter().chain(blocks).chain(&ends[1..]) {
        let mut header = [0; BLOCK_HEADER];
        let length = name.len().min(16);
        header[..length].copy_from_slice(&name.as_bytes()[..length]);
        header[16..20].copy_from_slice(&(data.len() as u32).to_le_bytes());
        out.extend(header);
        out.extend(*data);
        out.resize(out.len().next_multiple_of(16), 0);
    }
    out
}

/// An input or output of a `vela_bin_stream`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Io {
    /// Sizes, with leading ones.
    pub shape: [i32; 6],
    /// Bytes of an element.
    pub element: u32,
    /// Byte of its region.
    pub offset: u32,
    /// Region.
    pub region: u8,
}

/// The block `inputs` or `outputs`.
///
/// # Errors
/// It is cut off, or a number is negative.
pub fn io(data: &[u8]) -> Result<Vec<Io>, Error> {
    let count = word(data, 0)? as usize;
    if count.checked_mul(36).and_then(|n| n.checked_add(4)) != Some(data.len()) {
        return Err(Error::container(
            0,
            format!("{count} tensors do not fit {} bytes", data.len()),
        ));
    }
    let tensor = |i: usize| -> Result<Io, Error> {
        let at = 4 + 36 * i;
        let all = words(data, at, 9)?;
        if all.iter().any(|w| *w > i32::MAX as u32) {
            return Err(Error::container(at, "a negative number"));
        }
        let mut shape = [0; 6];
        shape.iter_mut().zip(&all).for_each(|(to, from)| *to = *from as i32);
        let region = u8::try_from(all[8]).map_err(|_| Error::container(at + 32, "a region beyond the last"))?;
        Ok(Io {
            shape,
            element: all[6],
            offset: all[7],
            region,
        })
    };
    (0..count).map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn le(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    #[test]
    fn cop1_has_a_configuration_and_commands() {
        let mut bytes = b"COP1".to_vec();
        bytes.extend(le(&[1, 0x0000_1807, 0x1006_6001, 5, 2 << 16 | 2, 0xffff_0000, 0]));
        let stream = Stream::parse(&bytes).unwrap();
        assert_eq!((stream.config.product, stream.config.macs), (Product::U55, 128));
        assert_eq!(stream.config.shram_kib, 24);
        assert_eq!(stream.words, [0xffff_0000, 0]);
        assert_eq!(Config::new(Product::U55, 128).word, 0x1807);
        assert_eq!(Config::new(Product::U65, 256).word, 0x1000_3008);
        for cut in 0..bytes.len() {
            assert!(Stream::parse(&bytes[..cut]).is_err(), "{cut}");
        }
        bytes[20] = 9;
        assert!(Stream::parse(&bytes).is_err());
    }

    #[test]
    fn blocks_are_named_and_bounded() {
        let bytes = write_blocks(&[("scratch_size", &[1, 2, 3, 4])]);
        let found = blocks(&bytes).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name, found[0].data), ("scratch_size", &[1, 2, 3, 4][..]));
        for cut in 0..bytes.len() {
            assert!(blocks(&bytes[..cut]).is_err(), "{cut}");
        }
        let tensor = le(&[1, 1, 1, 1, 2, 2, 8, 1, 64, 1]);
        assert_eq!(io(&tensor).unwrap()[0].offset, 64);
        assert!(io(&tensor[..39]).is_err());
    }
}
