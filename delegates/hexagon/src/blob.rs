//! The blob: what `compile` writes and `load` reads.
//!
//! | section | content |
//! | --- | --- |
//! | `header` | [`Header`], in the form below: what the binary was made for and by, and how the host's tensors meet those of its graph |
//! | `context` | the library's context binary, as it came; the same bytes in every blob of graphs that were compiled together |
//!
//! The header is words of 32 bits, little-endian: the magic `DGHX`, the version, then the fields in their order. A text is its length in
//! bytes and its bytes, padded with zeros to words. Everything is checked as it is read; what the library itself says of the binary is
//! compared with it in `execute.rs`.

use crate::graph::{Convert, DataType, Port, Quantization, ScaleOffset};
use crate::sys::{GraphInfo, TensorInfo};
use delegraph_sdk::{DType, Error, Status};

/// The first word of a header.
pub const MAGIC: u32 = u32::from_le_bytes(*b"DGHX");
/// Version of this form; also that of the delegate's blobs.
pub const VERSION: u32 = 1;
/// The section that holds the header.
pub const HEADER: &str = "header";
/// The section that holds the context binary.
pub const CONTEXT: &str = "context";
/// Most dimensions that are read.
const MAX_RANK: usize = 8;
/// Stands for "none" where an index is expected.
const NONE: u32 = u32::MAX;

/// What a blob says of itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Header {
    /// Qualcomm's id of the chip.
    pub soc: u32,
    /// Its name, for people.
    pub soc_name: String,
    /// Version of its architecture.
    pub arch: u32,
    /// MiB of tightly coupled memory that the graph may take.
    pub vtcm_mb: u32,
    /// Version of the library's core API: major, minor, patch.
    pub core: [u32; 3],
    /// Version of the backend's API.
    pub backend: [u32; 3],
    /// The library's own name of its build.
    pub build: String,
    /// The option of this name.
    pub performance_mode: String,
    /// SHA-256 of the section `context`.
    pub digest: [u8; 32],
    /// Its bytes.
    pub size: u64,
    /// The graph's name within the context.
    pub graph: String,
    /// One an input of the session, in order.
    pub inputs: Vec<Slot>,
    /// One an output of the session, in order.
    pub outputs: Vec<Slot>,
    /// Nodes of the graph by name, with the node of the image that each is of, for profiles.
    pub nodes: Vec<(String, Option<u32>)>,
}

/// A tensor of the session's and the graph's tensor that it comes in by, or goes out.
#[derive(Debug, Clone, PartialEq)]
pub struct Slot {
    /// The host's element type.
    pub dtype: DType,
    /// The host's sizes; none for a tensor without dimensions.
    pub dims: Vec<u32>,
    /// What is done to elements on their way in; the opposite on the way out.
    pub convert: Convert,
    /// The graph's tensor; `None`: an input that nobody reads.
    pub tensor: Option<TensorInfo>,
}

impl Slot {
    /// The slot of a port, whose tensor the library knows as `tensor`; sizes are the host's.
    ///
    /// # Errors
    /// A tensor at the border with a quantization that no border has.
    pub fn of(port: &Port, dims: Vec<u32>, tensor: Option<TensorInfo>) -> Result<Slot, Error> {
        if let Some(TensorInfo { name, quantization, .. }) = &tensor
            && !matches!(quantization, Quantization::None | Quantization::PerTensor(_))
        {
            let text = format!("`{name}` is at the border and quantized as {quantization:?}");
            return Err(Error::unsupported(text));
        }
        Ok(Slot {
            dtype: port.dtype,
            dims,
            convert: port.convert,
            tensor,
        })
    }

    /// Scale and offset of the graph's tensor, if it has one pair.
    pub fn pair(&self) -> Option<ScaleOffset> {
        match self.tensor.as_ref().map(|tensor| &tensor.quantization) {
            Some(Quantization::PerTensor(pair)) => Some(*pair),
            _ => None,
        }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().map(|d| *d as usize).product()
    }

    /// Bytes of the host's tensor.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size().unwrap_or(1)
    }

    /// Whether host and graph agree on the elements.
    fn check(&self) -> Result<(), Error> {
        let size = self.dtype.size().ok_or_else(|| wrong("an element type is not known"))?;
        let mut count = 1u64;
        for dim in &self.dims {
            count = count
                .checked_mul(u64::from(*dim))
                .filter(|count| (1..1 << 40).contains(count))
                .ok_or_else(|| wrong("sizes of a tensor are not sizes"))?;
        }
        let Some(tensor) = &self.tensor else { return Ok(()) };
        let wanted = if self.dims.is_empty() {
            vec![1]
        } else {
            self.dims.clone()
        };
        let inner = tensor.data_type.size();
        let fits = match self.convert {
            Convert::Same => size == inner,
            Convert::Half => self.dtype == DType::F32 && tensor.data_type == DataType::Float16,
            Convert::Narrow => self.dtype == DType::I64 && tensor.data_type == DataType::Int32,
            Convert::FlipSign => size == inner && size <= 2,
            Convert::Quantize => {
                let fixed = matches!(tensor.data_type, DataType::UFixed8 | DataType::UFixed16);
                self.dtype == DType::F32 && fixed && self.pair().is_some()
            }
        };
        let scaled = match tensor.quantization {
            Quantization::PerTensor(pair) => pair.scale.is_finite() && pair.scale > 0.0,
            _ => true,
        };
        match fits && scaled && tensor.dims == wanted {
            true => Ok(()),
            false => Err(wrong(format!("`{}` does not fit the host's tensor", tensor.name))),
        }
    }
}

impl Header {
    /// The section `header`.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Writer(Vec::new());
        out.words(&[MAGIC, VERSION, self.soc]);
        out.text(&self.soc_name);
        out.words(&[self.arch, self.vtcm_mb]);
        out.words(&self.core);
        out.words(&self.backend);
        out.text(&self.build);
        out.text(&self.performance_mode);
        out.0.extend(self.digest);
        out.words(&[self.size as u32, (self.size >> 32) as u32]);
        out.text(&self.graph);
        for slots in [&self.inputs, &self.outputs] {
            out.words(&[slots.len() as u32]);
            slots.iter().for_each(|slot| out.slot(slot));
        }
        out.words(&[self.nodes.len() as u32]);
        for (name, source) in &self.nodes {
            out.text(name);
            out.words(&[source.unwrap_or(NONE)]);
        }
        out.0
    }

    /// Reads the section `header`.
    ///
    /// # Errors
    /// `BLOB_CORRUPT`: it is cut off, of another form, or contradicts itself. `BLOB_INCOMPATIBLE`: it is of another version.
    pub fn read(bytes: &[u8]) -> Result<Header, Error> {
        let mut reader = Reader { bytes };
        if reader.word()? != MAGIC {
            return Err(wrong("it does not begin with `DGHX`"));
        }
        let version = reader.word()?;
        if version != VERSION {
            let text = format!("version {version} of the header is not {VERSION}");
            return Err(Error::new(Status::BLOB_INCOMPATIBLE, text).hint("compile the model again"));
        }
        let header = Header {
            soc: reader.word()?,
            soc_name: reader.text()?,
            arch: reader.word()?,
            vtcm_mb: reader.word()?,
            core: reader.triple()?,
            backend: reader.triple()?,
            build: reader.text()?,
            performance_mode: reader.text()?,
            digest: reader.digest()?,
            size: u64::from(reader.word()?) | u64::from(reader.word()?) << 32,
            graph: reader.text()?,
            inputs: reader.many(Reader::slot)?,
            outputs: reader.many(Reader::slot)?,
            nodes: reader.many(|r| {
                let name = r.text()?;
                let source = r.word()?;
                Ok((name, Some(source).filter(|source| *source != NONE)))
            })?,
        };
        if !reader.bytes.is_empty() {
            return Err(wrong(format!("{} bytes follow it", reader.bytes.len())));
        }
        header.inputs.iter().chain(&header.outputs).try_for_each(Slot::check)?;
        if let Some(at) = header.outputs.iter().position(|slot| slot.tensor.is_none()) {
            return Err(wrong(format!("nobody makes output {at}")));
        }
        Ok(header)
    }

    /// The border of the graph, as the library knows it.
    pub fn border(&self) -> GraphInfo {
        let tensors = |slots: &[Slot]| slots.iter().filter_map(|slot| slot.tensor.clone()).collect();
        GraphInfo {
            name: self.graph.clone(),
            inputs: tensors(&self.inputs),
            outputs: tensors(&self.outputs),
        }
    }

    /// The image's node behind a node of the graph.
    pub fn source(&self, name: &str) -> Option<u32> {
        self.nodes.iter().find(|(known, _)| known == name)?.1
    }
}

fn wrong(what: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("the blob's header: {what}"))
}

struct Writer(Vec<u8>);

impl Writer {
    fn words(&mut self, words: &[u32]) {
        self.0.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }

    fn text(&mut self, text: &str) {
        self.words(&[text.len() as u32]);
        self.0.extend(text.as_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn dims(&mut self, dims: &[u32]) {
        self.words(&[dims.len() as u32]);
        self.words(dims);
    }

    fn slot(&mut self, slot: &Slot) {
        self.words(&[slot.dtype.0, slot.convert.code()]);
        self.dims(&slot.dims);
        self.words(&[u32::from(slot.tensor.is_some())]);
        let Some(tensor) = &slot.tensor else { return };
        self.text(&tensor.name);
        self.words(&[tensor.id, tensor.data_type as u32]);
        self.dims(&tensor.dims);
        match tensor.quantization {
            Quantization::PerTensor(pair) => self.words(&[1, pair.scale.to_bits(), pair.offset as u32]),
            // `Slot::of` lets no other through.
            _ => self.words(&[0]),
        }
    }
}

impl Convert {
    const ALL: [Convert; 5] = [
        Convert::Same,
        Convert::Half,
        Convert::Narrow,
        Convert::FlipSign,
        Convert::Quantize,
    ];

    fn code(self) -> u32 {
        Convert::ALL.iter().position(|c| *c == self).unwrap_or(0) as u32
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (head, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or_else(|| wrong("it is cut off"))?;
        self.bytes = rest;
        Ok(head)
    }

    fn word(&mut self) -> Result<u32, Error> {
        let bytes = self.take(4)?;
        Ok(bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)))
    }

    fn triple(&mut self) -> Result<[u32; 3], Error> {
        Ok([self.word()?, self.word()?, self.word()?])
    }

    fn digest(&mut self) -> Result<[u8; 32], Error> {
        let bytes = self.take(32)?;
        bytes.try_into().map_err(|_| wrong("it is cut off"))
    }

    fn text(&mut self) -> Result<String, Error> {
        let length = self.word()? as usize;
        if length > self.bytes.len() {
            return Err(wrong("it is cut off"));
        }
        let (text, padding) = self.take(length.next_multiple_of(4))?.split_at(length);
        if padding.iter().any(|byte| *byte != 0) {
            return Err(wrong("a text is padded with something"));
        }
        std::str::from_utf8(text)
            .map(str::to_string)
            .map_err(|_| wrong("a text is not UTF-8"))
    }

    /// So many things, each of a word at least.
    fn many<T>(&mut self, one: impl Fn(&mut Self) -> Result<T, Error>) -> Result<Vec<T>, Error> {
        let count = self.word()? as usize;
        if count > self.bytes.len() / 4 {
            return Err(wrong("it is cut off"));
        }
        (0..count).map(|_| one(self)).collect()
    }

    fn flag(&mut self) -> Result<bool, Error> {
        match self.word()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(wrong(format!("{other} where 0 or 1 stands"))),
        }
    }

    fn dims(&mut self) -> Result<Vec<u32>, Error> {
        let dims = self.many(Reader::word)?;
        match dims.len() <= MAX_RANK && !dims.contains(&0) {
            true => Ok(dims),
            false => Err(wrong("sizes of a tensor are not sizes")),
        }
    }

    fn slot(&mut self) -> Result<Slot, Error> {
        let dtype = DType(self.word()?);
        let convert = self.word()? as usize;
        let convert = Convert::ALL.get(convert).copied();
        Ok(Slot {
            dtype,
            convert: convert.ok_or_else(|| wrong("a conversion is not known"))?,
            dims: self.dims()?,
            tensor: match self.flag()? {
                true => Some(self.tensor()?),
                false => None,
            },
        })
    }

    fn tensor(&mut self) -> Result<TensorInfo, Error> {
        Ok(TensorInfo {
            name: self.text()?,
            id: self.word()?,
            data_type: DataType::of(self.word()?).ok_or_else(|| wrong("a type of the graph is not known"))?,
            dims: self.dims()?,
            quantization: match self.flag()? {
                true => Quantization::PerTensor(ScaleOffset {
                    scale: f32::from_bits(self.word()?),
                    offset: self.word()? as i32,
                }),
                false => Quantization::None,
            },
        })
    }
}

/// A header with everything that one can have, for tests and as a seed of the fuzz target.
pub fn sample() -> Header {
    let slot = |dtype, dims: &[u32], convert, data_type, quantization| Slot {
        dtype,
        dims: dims.to_vec(),
        convert,
        tensor: Some(TensorInfo {
            name: format!("{dtype}"),
            id: 3,
            data_type,
            dims: if dims.is_empty() { vec![1] } else { dims.to_vec() },
            quantization,
        }),
    };
    let pair = ScaleOffset {
        scale: 0.5,
        offset: -128,
    };
    Header {
        soc: 57,
        soc_name: "sm8650".to_string(),
        arch: 75,
        vtcm_mb: 8,
        core: [2, 40, 0],
        backend: [5, 51, 0],
        build: "v2.51.0".to_string(),
        performance_mode: "default".to_string(),
        digest: [7; 32],
        size: 4096,
        graph: "g0".to_string(),
        inputs: vec![
            slot(
                DType::F32,
                &[1, 8],
                Convert::Half,
                DataType::Float16,
                Quantization::None,
            ),
            slot(
                DType::I8,
                &[2, 3],
                Convert::FlipSign,
                DataType::UFixed8,
                Quantization::PerTensor(pair),
            ),
            slot(DType::I64, &[], Convert::Narrow, DataType::Int32, Quantization::None),
            Slot {
                dtype: DType::F32,
                dims: vec![4],
                convert: Convert::Half,
                tensor: None,
            },
        ],
        outputs: vec![slot(
            DType::BOOL,
            &[5],
            Convert::Same,
            DataType::Bool,
            Quantization::None,
        )],
        nodes: vec![("mul".to_string(), Some(0)), ("output".to_string(), None)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back_as_it_was() {
        let bytes = sample().write();
        assert_eq!(Header::read(&bytes).unwrap(), sample());
        assert_eq!(sample().source("mul"), Some(0));
        assert_eq!(sample().source("output"), None);
    }

    #[test]
    fn every_cut_and_every_byte_too_many_is_noticed() {
        let bytes = sample().write();
        for end in 0..bytes.len() {
            let error = Header::read(&bytes[..end]).unwrap_err();
            assert_eq!(error.code, Status::BLOB_CORRUPT, "{end}");
        }
        assert!(Header::read(&[bytes.as_slice(), &[0; 4]].concat()).is_err());
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = sample().write();
        bytes[4] = 2;
        assert_eq!(Header::read(&bytes).unwrap_err().code, Status::BLOB_INCOMPATIBLE);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let changes: [fn(&mut Header); 6] = [
            |h| h.inputs[0].dims = vec![1, 9],
            |h| h.inputs[0].convert = Convert::Same,
            |h| h.inputs[1].dtype = DType::I32,
            |h| h.inputs[2].dims = vec![u32::MAX; 3],
            |h| h.outputs[0].tensor = None,
            |h| h.outputs[0].dims = vec![0],
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut header = sample();
            change(&mut header);
            assert!(Header::read(&header.write()).is_err(), "{at}");
        }
    }

    #[test]
    fn flipped_bits_never_panic() {
        let bytes = sample().write();
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            if let Ok(header) = Header::read(&flipped) {
                assert_eq!(Header::read(&header.write()).unwrap(), header);
            }
        }
    }
}
