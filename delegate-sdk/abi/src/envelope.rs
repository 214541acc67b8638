//! The envelope of a blob: what the host writes around the bytes that a delegate compiled.
//!
//! A delegate's payload is opaque; the envelope says whose it is, for what it was made and of which graph, so that a blob can
//! be judged without loading anything. It lies in `.pte` files and caches. Little-endian:
//!
//! ```text
//!   0  "DGB1"                    magic
//!   4  u16 major, u16 minor      another major is another format; a minor appends to the header
//!   8  u32 header size           where the tables begin
//!  12  u32 format version        of the payload
//!  16  u32 abi minor             of the delegate that compiled it
//!  20  u32 abi major             of the delegate that compiled it; before ABI 1.0 this was reserved and 0, which is its major
//!  24  u64 total size
//!  32  [u8; 32] graph hash       SHA-256 of the graph image
//!  64  [u8; 32] payload hash     SHA-256 of everything from the payload on
//!  96  u64 payload offset
//! 104  5 x (u32 offset, u32 size)   delegate, delegate version, format, target, precision: text
//! 144  (u32 offset, u32 count)   sections: u32 name offset, u32 name size, u64 offset, u64 size, u32 align, u32 0
//! 152  (u32 offset, u32 count)   tensors: u32 direction (0 in, 1 out), u32 dtype, u32 rank, u16 alignment, u16 size multiple;
//!                                inputs first
//!      since minor 1, where the header reaches so far:
//! 160  [u8; 32] options hash     SHA-256 of the options of the delegate that compiled it; all zero: not recorded
//! 192  [u8; 32] weights hash     SHA-256 of the weights that it was compiled with; all zero: not recorded
//! 224  2 x (u32 offset, u32 size)   oldest driver, newest driver: text
//! 240  (u32 offset, u32 count)   states that sessions keep themselves: u32 state, u32 input, u32 output, u32 growth axis (all
//!                                ones: none), u32 name offset, u32 name size, u64 bytes, u64 size along the growth axis
//!      since minor 2, where the header reaches so far:
//! 248  [u8; 32] header hash      SHA-256 of everything before the payload, with zeros in this place
//! ```
//!
//! Offsets count from the first byte of the envelope. Sections lie in the payload, each at a multiple of its alignment.
//!
//! Major 1 is major 0 with sections that lie elsewhere, so that blobs of one file share them: the last word of such a section is 1, and its
//! offset is that of its SHA-256, among the texts. Whoever loads the blob finds the bytes by the hash ([`Envelope::resolve`]).

use crate::c::{DType, MAX_RANK, NONE};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

const MAGIC: [u8; 4] = *b"DGB1";
const MAJOR: u16 = 0;
/// Of an envelope with sections that lie elsewhere.
const MAJOR_APART: u16 = 1;
/// In the last word of a section: it lies elsewhere.
const APART: u32 = 1;
const MINOR: u16 = 2;
/// Bytes of the header of minor 0.
const FIRST_HEADER_SIZE: usize = 160;
/// Bytes of the header as far as the drivers.
const DRIVERS_END: usize = 240;
/// Bytes of the header as far as the states.
const STATES_END: usize = 248;
const HEADER_SIZE: usize = 280;
/// Where the header's own hash lies.
const HEADER_HASH: usize = 248;
const SECTION_SIZE: usize = 32;
const TENSOR_SIZE: usize = 16;
const STATE_SIZE: usize = 40;
/// Largest alignment of a section.
pub const MAX_ALIGN: u32 = 4096;

/// Largest size of a text in bytes.
pub const MAX_TEXT: u32 = 1024;

/// A tensor that goes in or out of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorSpec {
    /// Element type.
    pub dtype: DType,
    /// Number of dimensions.
    pub rank: u32,
    /// What it needs beyond the contract.
    pub requirement: Requirement,
}

/// What a tensor of a session needs beyond the contract, as `blob_require` states it. 0: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Requirement {
    /// Its bytes begin at a multiple of this: a power of two, at most [`MAX_ALIGN`].
    pub alignment: u32,
    /// There is room for a multiple of so many bytes, at most [`MAX_ALIGN`].
    pub size_multiple: u32,
}

impl Requirement {
    fn pack(self) -> u32 {
        self.alignment | self.size_multiple << 16
    }

    fn unpack(word: u32) -> Result<Requirement, EnvelopeError> {
        let (alignment, size_multiple) = (word & 0xffff, word >> 16);
        let sound = alignment == 0 || alignment.is_power_of_two();
        match sound && alignment <= MAX_ALIGN && size_multiple <= MAX_ALIGN {
            true => Ok(Requirement {
                alignment,
                size_multiple,
            }),
            false => Err(EnvelopeError::Corrupt("a tensor's requirement is not allowed")),
        }
    }

    /// What meets both.
    pub fn and(self, other: Requirement) -> Requirement {
        let (a, b) = (self.size_multiple.max(1), other.size_multiple.max(1));
        let gcd = {
            let (mut a, mut b) = (a, b);
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        Requirement {
            alignment: self.alignment.max(other.alignment),
            size_multiple: (a / gcd * b).min(MAX_ALIGN * MAX_ALIGN),
        }
    }
}

/// A state that sessions of a blob keep themselves, as `blob_keep_state` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptState {
    /// Index in STATES of the graph image.
    pub state: u32,
    /// Its name there.
    pub name: String,
    /// Position among the inputs: no data comes with it.
    pub input: u32,
    /// Position among the outputs: no data is taken from it.
    pub output: u32,
    /// Dimension along which runs append, if any, and its size.
    pub growth: Option<(u32, u64)>,
    /// Bytes of its elements.
    pub bytes: u64,
}

/// What an envelope says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Backend id of the delegate that compiled it.
    pub delegate: String,
    /// Version of that delegate.
    pub delegate_version: String,
    /// Name of the payload's form.
    pub format: String,
    /// Version of the payload's form.
    pub format_version: u32,
    /// What it was compiled for; empty: anything.
    pub target: String,
    /// Lower precision that it computes in; empty: that of the graph.
    pub precision: String,
    /// Major of the ABI of the delegate that compiled it.
    pub abi_major: u32,
    /// Minor of that major.
    pub abi_minor: u32,
    /// SHA-256 of the graph image.
    pub graph_hash: [u8; 32],
    /// SHA-256 of the options of the delegate that compiled it; all zero: not recorded.
    pub options_hash: [u8; 32],
    /// SHA-256 of the weights that it was compiled with; all zero: not recorded.
    pub weights_hash: [u8; 32],
    /// Oldest driver that it runs on; empty: any.
    pub driver_min: String,
    /// Newest driver that it runs on; empty: any.
    pub driver_max: String,
    /// In order.
    pub inputs: Vec<TensorSpec>,
    /// In order.
    pub outputs: Vec<TensorSpec>,
    /// States that sessions keep themselves.
    pub states: Vec<KeptState>,
}

/// A part of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section<'a> {
    /// Unique within the blob.
    pub name: &'a str,
    /// Power of two, at most [`MAX_ALIGN`].
    pub align: u32,
    /// Content.
    pub bytes: &'a [u8],
}

/// Which section of a blob lies elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Apart {
    /// Its position among the sections.
    pub section: usize,
    /// Its bytes.
    pub size: u64,
    /// Their SHA-256.
    pub hash: [u8; 32],
}

/// A parsed envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// What it says.
    pub meta: Meta,
    /// In the order written. Those that lie elsewhere are empty until [`Envelope::resolve`].
    pub sections: Vec<Section<'a>>,
    /// The sections that lie elsewhere, in order.
    pub apart: Vec<Apart>,
    /// Everything before the payload.
    pub header: &'a [u8],
    /// The header has a hash of its own.
    pub has_header_hash: bool,
    /// Everything that the payload hash covers.
    pub payload: &'a [u8],
    /// SHA-256 that the payload must have; the caller compares.
    pub payload_hash: [u8; 32],
}

impl<'a> Envelope<'a> {
    /// Whether the header is as it was written; true of one before minor 2, which has no hash. `sha256` is the hash function.
    pub fn header_is_whole(&self, sha256: impl Fn(&[u8]) -> [u8; 32]) -> bool {
        if !self.has_header_hash {
            return true;
        }
        let mut header = self.header.to_vec();
        match header.get_mut(HEADER_HASH..HEADER_SIZE) {
            Some(own) => {
                let mut stated = [0; 32];
                stated.copy_from_slice(own);
                own.fill(0);
                sha256(&header) == stated
            }
            None => false,
        }
    }

    /// Gives the sections that lie elsewhere their bytes, which `find` finds by their hash. That the bytes have that hash is left to the
    /// caller.
    ///
    /// # Errors
    /// One is not found, or is of another size.
    pub fn resolve(&mut self, find: &dyn Fn(&[u8; 32]) -> Option<&'a [u8]>) -> Result<(), EnvelopeError> {
        for apart in &self.apart {
            let bytes =
                find(&apart.hash).ok_or(EnvelopeError::Corrupt("a section that lies elsewhere is not there"))?;
            if bytes.len() as u64 != apart.size {
                return Err(EnvelopeError::Corrupt(
                    "a section that lies elsewhere is of another size",
                ));
            }
            // In bounds: parsing counted it.
            self.sections[apart.section].bytes = bytes;
        }
        Ok(())
    }

    /// The hash of a section that lies elsewhere, by its position.
    pub fn share_hash(&self, section: usize) -> Option<&[u8; 32]> {
        let mut found = self.apart.iter().filter(|apart| apart.section == section);
        found.next().map(|apart| &apart.hash)
    }

    /// Bytes of all sections, wherever they lie, and what is between them.
    pub fn payload_size(&self) -> u64 {
        let apart = self.apart.iter().map(|apart| apart.size);
        apart.fold(self.payload.len() as u64, u64::saturating_add)
    }
}

/// Why bytes are not a blob in its envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Not an envelope at all.
    Magic,
    /// Another major version.
    Version(u16),
    /// Fewer or more bytes than it states.
    Size {
        /// Bytes stated.
        stated: u64,
        /// Bytes given.
        given: u64,
    },
    /// Something lies outside, or is not what it should be.
    Corrupt(&'static str),
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnvelopeError::Magic => f.write_str("not a blob"),
            EnvelopeError::Version(major) => write!(f, "blob envelope of major version {major}; this is {MAJOR_APART}"),
            EnvelopeError::Size { stated, given } => write!(f, "a blob of {stated} bytes is given as {given} bytes"),
            EnvelopeError::Corrupt(what) => write!(f, "the blob's envelope is damaged: {what}"),
        }
    }
}

impl core::error::Error for EnvelopeError {}

/// Writes a blob. `sha256` is the hash function.
///
/// # Errors
/// No section, a name that is not unique, an alignment that is not allowed, a rank that is too large, more than 4 GiB of header.
pub fn write(
    meta: &Meta,
    sections: &[Section<'_>],
    sha256: impl Fn(&[u8]) -> [u8; 32],
) -> Result<Vec<u8>, EnvelopeError> {
    write_apart(meta, sections, &[], sha256)
}

/// [`write()`] of a blob of which the sections of these hashes, by position, lie elsewhere; their bytes are not written.
///
/// # Errors
/// As there.
pub fn write_apart(
    meta: &Meta,
    sections: &[Section<'_>],
    apart: &[(usize, [u8; 32])],
    sha256: impl Fn(&[u8]) -> [u8; 32],
) -> Result<Vec<u8>, EnvelopeError> {
    check_sections(sections)?;
    let hash_of = |section: usize| apart.iter().find(|(at, _)| *at == section).map(|(_, hash)| hash);
    let texts = [
        &meta.delegate,
        &meta.delegate_version,
        &meta.format,
        &meta.target,
        &meta.precision,
        &meta.driver_min,
        &meta.driver_max,
    ];
    if texts.iter().any(|t| t.len() > MAX_TEXT as usize) {
        return Err(EnvelopeError::Corrupt("a text is too long"));
    }
    let tensors = meta.inputs.len() + meta.outputs.len();
    let states_at = HEADER_SIZE + sections.len() * SECTION_SIZE + tensors * TENSOR_SIZE;
    let tables_end = states_at + meta.states.len() * STATE_SIZE;
    check_states(meta)?;
    let mut strings = Vec::new();
    let mut text = |s: &str| {
        let at = (tables_end + strings.len()) as u32;
        strings.extend_from_slice(s.as_bytes());
        (at, s.len() as u32)
    };
    let texts = texts.map(|t| text(t));
    let names: Vec<(u32, u32)> = sections.iter().map(|s| text(s.name)).collect();
    let state_names: Vec<(u32, u32)> = meta.states.iter().map(|s| text(&s.name)).collect();
    let hashes_at = tables_end + strings.len();
    for (_, hash) in apart {
        strings.extend_from_slice(hash);
    }
    let payload_align = sections.iter().map(|s| s.align as usize).max().unwrap_or(1);
    let payload = (tables_end + strings.len()).next_multiple_of(payload_align);
    let mut offsets = Vec::new();
    let mut end = payload;
    for (i, section) in sections.iter().enumerate() {
        if let Some(at) = apart.iter().position(|(section, _)| *section == i) {
            offsets.push(hashes_at + 32 * at);
            continue;
        }
        end = end.next_multiple_of(section.align as usize);
        offsets.push(end);
        end += section.bytes.len();
    }
    if u32::try_from(payload).is_err() {
        return Err(EnvelopeError::Corrupt("the header is too large"));
    }

    let mut out = Vec::with_capacity(end);
    let put32 = |out: &mut Vec<u8>, value: u32| out.extend_from_slice(&value.to_le_bytes());
    let put64 = |out: &mut Vec<u8>, value: u64| out.extend_from_slice(&value.to_le_bytes());
    out.extend_from_slice(&MAGIC);
    let major = if apart.is_empty() { MAJOR } else { MAJOR_APART };
    out.extend_from_slice(&major.to_le_bytes());
    out.extend_from_slice(&MINOR.to_le_bytes());
    for word in [HEADER_SIZE as u32, meta.format_version, meta.abi_minor, meta.abi_major] {
        put32(&mut out, word);
    }
    put64(&mut out, end as u64);
    out.extend_from_slice(&meta.graph_hash);
    out.extend_from_slice(&[0; 32]);
    put64(&mut out, payload as u64);
    let (texts, drivers) = texts.split_at(5);
    for &(at, size) in texts {
        put32(&mut out, at);
        put32(&mut out, size);
    }
    for word in [
        HEADER_SIZE,
        sections.len(),
        HEADER_SIZE + sections.len() * SECTION_SIZE,
        tensors,
    ] {
        put32(&mut out, word as u32);
    }
    out.extend_from_slice(&meta.options_hash);
    out.extend_from_slice(&meta.weights_hash);
    for &(at, size) in drivers {
        put32(&mut out, at);
        put32(&mut out, size);
    }
    put32(&mut out, states_at as u32);
    put32(&mut out, meta.states.len() as u32);
    out.extend_from_slice(&[0; 32]);
    for (i, ((section, name), offset)) in sections.iter().zip(&names).zip(&offsets).enumerate() {
        put32(&mut out, name.0);
        put32(&mut out, name.1);
        put64(&mut out, *offset as u64);
        put64(&mut out, section.bytes.len() as u64);
        put32(&mut out, section.align);
        put32(&mut out, if hash_of(i).is_some() { APART } else { 0 });
    }
    let directions = [(0, &meta.inputs), (1, &meta.outputs)];
    for (direction, spec) in directions
        .iter()
        .flat_map(|(d, specs)| specs.iter().map(move |s| (*d, s)))
    {
        if spec.rank > MAX_RANK {
            return Err(EnvelopeError::Corrupt("a rank is too large"));
        }
        for word in [direction, spec.dtype.0, spec.rank, spec.requirement.pack()] {
            put32(&mut out, word);
        }
    }
    for (state, name) in meta.states.iter().zip(&state_names) {
        let (axis, size) = state.growth.unwrap_or((NONE, 0));
        for word in [state.state, state.input, state.output, axis, name.0, name.1] {
            put32(&mut out, word);
        }
        put64(&mut out, state.bytes);
        put64(&mut out, size);
    }
    out.extend_from_slice(&strings);
    for (i, (section, offset)) in sections.iter().zip(&offsets).enumerate() {
        if hash_of(i).is_some() {
            continue;
        }
        out.resize(*offset, 0);
        out.extend_from_slice(section.bytes);
    }
    out.resize(end, 0);
    let hash = sha256(&out[payload..]);
    out[64..96].copy_from_slice(&hash);
    let hash = sha256(&out[..payload]);
    out[HEADER_HASH..HEADER_SIZE].copy_from_slice(&hash);
    Ok(out)
}

/// Each input and output is there, and of one state only.
fn check_states(meta: &Meta) -> Result<(), EnvelopeError> {
    let mut seen = [
        alloc::vec![false; meta.inputs.len()],
        alloc::vec![false; meta.outputs.len()],
    ];
    let mut indices: Vec<u32> = meta.states.iter().map(|s| s.state).collect();
    indices.sort_unstable();
    if indices.windows(2).any(|w| w[0] == w[1]) {
        return Err(EnvelopeError::Corrupt("a state is kept twice"));
    }
    for state in &meta.states {
        for (seen, at) in seen.iter_mut().zip([state.input, state.output]) {
            match seen.get_mut(at as usize) {
                Some(taken) if !*taken => *taken = true,
                _ => return Err(EnvelopeError::Corrupt("a state has no input or output of its own")),
            }
        }
        let (input, output) = (meta.inputs[state.input as usize], meta.outputs[state.output as usize]);
        if (input.dtype, input.rank) != (output.dtype, output.rank) {
            return Err(EnvelopeError::Corrupt(
                "a state has a dtype before a run and another after it",
            ));
        }
        if state.growth.is_some_and(|(axis, _)| axis >= input.rank) {
            return Err(EnvelopeError::Corrupt("a state grows along no dimension of it"));
        }
        if state.name.len() > MAX_TEXT as usize {
            return Err(EnvelopeError::Corrupt("a text is too long"));
        }
    }
    Ok(())
}

fn check_sections(sections: &[Section<'_>]) -> Result<(), EnvelopeError> {
    if sections.iter().any(|s| s.name.len() > MAX_TEXT as usize) {
        return Err(EnvelopeError::Corrupt("a text is too long"));
    }
    if sections.is_empty() {
        return Err(EnvelopeError::Corrupt("it has no section"));
    }
    let mut names: Vec<&str> = sections.iter().map(|s| s.name).collect();
    names.sort_unstable();
    if names.windows(2).any(|w| w[0] == w[1]) {
        return Err(EnvelopeError::Corrupt("a section's name occurs twice"));
    }
    if sections
        .iter()
        .any(|s| !s.align.is_power_of_two() || s.align > MAX_ALIGN)
    {
        return Err(EnvelopeError::Corrupt("a section's alignment is not allowed"));
    }
    Ok(())
}

/// Parses a blob; the payload's hash is left to the caller.
///
/// # Errors
/// Anything that is out of place.
pub fn parse(bytes: &[u8]) -> Result<Envelope<'_>, EnvelopeError> {
    let reader = Reader(bytes);
    if bytes.len() < FIRST_HEADER_SIZE || bytes[..4] != MAGIC {
        return Err(EnvelopeError::Magic);
    }
    let major = reader.u32(4)? as u16;
    if major != MAJOR && major != MAJOR_APART {
        return Err(EnvelopeError::Version(major));
    }
    let stated = reader.u64(24)?;
    if stated != bytes.len() as u64 {
        return Err(EnvelopeError::Size {
            stated,
            given: bytes.len() as u64,
        });
    }
    let payload_offset = reader.u64(96)?;
    let payload = usize::try_from(payload_offset)
        .ok()
        .and_then(|at| bytes.get(at..))
        .ok_or(EnvelopeError::Corrupt("the payload lies outside"))?;
    let text = |at: usize| -> Result<String, EnvelopeError> {
        Ok(String::from(reader.text(reader.u32(at)?, reader.u32(at + 4)?)?))
    };
    let mut meta = Meta {
        delegate: text(104)?,
        delegate_version: text(112)?,
        format: text(120)?,
        target: text(128)?,
        precision: text(136)?,
        format_version: reader.u32(12)?,
        abi_minor: reader.u32(16)?,
        abi_major: reader.u32(20)?,
        graph_hash: reader.array(32)?,
        options_hash: [0; 32],
        weights_hash: [0; 32],
        driver_min: String::new(),
        driver_max: String::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        states: Vec::new(),
    };
    let header_size = reader.u32(8)? as usize;
    // The minor is in the upper half of the word with the major.
    let hashed = reader.u32(4)? >> 16 >= 2;
    if hashed && header_size < HEADER_SIZE {
        return Err(EnvelopeError::Corrupt("its header ends before its hash"));
    }
    if header_size >= DRIVERS_END {
        meta.options_hash = reader.array(160)?;
        meta.weights_hash = reader.array(192)?;
        meta.driver_min = text(224)?;
        meta.driver_max = text(232)?;
    }
    let (mut sections, mut apart) = (Vec::new(), Vec::new());
    for at in reader.records(144, SECTION_SIZE)? {
        let (offset, size) = (reader.u64(at + 8)?, reader.u64(at + 16)?);
        if major == MAJOR_APART && reader.u32(at + 28)? == APART {
            let place = usize::try_from(offset).map_err(|_| EnvelopeError::Corrupt("a section's hash lies outside"))?;
            apart.push(Apart {
                section: sections.len(),
                size,
                hash: reader.array(place)?,
            });
            sections.push(Section {
                name: reader.text(reader.u32(at)?, reader.u32(at + 4)?)?,
                align: reader.u32(at + 24)?,
                bytes: &[],
            });
            continue;
        }
        let end = offset.checked_add(size).filter(|end| *end <= stated);
        if offset < payload_offset || end.is_none() {
            return Err(EnvelopeError::Corrupt("a section lies outside of the payload"));
        }
        sections.push(Section {
            name: reader.text(reader.u32(at)?, reader.u32(at + 4)?)?,
            align: reader.u32(at + 24)?,
            // In bounds: the end was compared with the number of bytes.
            bytes: &bytes[offset as usize..(offset + size) as usize],
        });
        let align = u64::from(reader.u32(at + 24)?);
        if align == 0 || offset % align != 0 {
            return Err(EnvelopeError::Corrupt("a section is misaligned"));
        }
    }
    check_sections(&sections)?;
    for at in reader.records(152, TENSOR_SIZE)? {
        let spec = TensorSpec {
            dtype: DType(reader.u32(at + 4)?),
            rank: reader.u32(at + 8)?,
            requirement: Requirement::unpack(reader.u32(at + 12)?)?,
        };
        if spec.rank > MAX_RANK {
            return Err(EnvelopeError::Corrupt("a rank is too large"));
        }
        match reader.u32(at)? {
            0 => meta.inputs.push(spec),
            1 => meta.outputs.push(spec),
            _ => return Err(EnvelopeError::Corrupt("a tensor goes neither in nor out")),
        }
    }
    if header_size >= STATES_END {
        for at in reader.records(240, STATE_SIZE)? {
            if meta.states.len() >= meta.inputs.len() {
                return Err(EnvelopeError::Corrupt("it keeps more states than there are inputs"));
            }
            let axis = reader.u32(at + 12)?;
            meta.states.push(KeptState {
                state: reader.u32(at)?,
                name: String::from(reader.text(reader.u32(at + 16)?, reader.u32(at + 20)?)?),
                input: reader.u32(at + 4)?,
                output: reader.u32(at + 8)?,
                growth: (axis != NONE).then_some((axis, reader.u64(at + 32)?)),
                bytes: reader.u64(at + 24)?,
            });
        }
        check_states(&meta)?;
    }
    Ok(Envelope {
        meta,
        sections,
        apart,
        header: &bytes[..bytes.len() - payload.len()],
        has_header_hash: hashed,
        payload,
        payload_hash: reader.array(64)?,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], EnvelopeError> {
        let bytes = at.checked_add(N).and_then(|end| self.0.get(at..end));
        bytes
            .and_then(|b| b.try_into().ok())
            .ok_or(EnvelopeError::Corrupt("it ends too early"))
    }

    fn u32(&self, at: usize) -> Result<u32, EnvelopeError> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    fn u64(&self, at: usize) -> Result<u64, EnvelopeError> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }

    fn text(&self, at: u32, size: u32) -> Result<&'a str, EnvelopeError> {
        // Long texts, shared by many records, would make comparing them slow.
        if size > MAX_TEXT {
            return Err(EnvelopeError::Corrupt("a text is too long"));
        }
        let (at, size) = (at as usize, size as usize);
        let bytes = at.checked_add(size).and_then(|end| self.0.get(at..end));
        let bytes = bytes.ok_or(EnvelopeError::Corrupt("a text lies outside"))?;
        core::str::from_utf8(bytes).map_err(|_| EnvelopeError::Corrupt("a text is not UTF-8"))
    }

    /// Offsets of the records of the table whose place and count lie at `at`.
    fn records(&self, at: usize, size: usize) -> Result<impl Iterator<Item = usize> + use<>, EnvelopeError> {
        let (start, count) = (self.u32(at)? as usize, self.u32(at + 4)? as usize);
        let end = count.checked_mul(size).and_then(|n| n.checked_add(start));
        if end.is_none_or(|end| end > self.0.len()) {
            return Err(EnvelopeError::Corrupt("a table lies outside"));
        }
        Ok((0..count).map(move |i| start + i * size))
    }
}
