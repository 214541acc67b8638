//! The extended header between a FlatBuffer's identifier and its first table (`eh00` of programs, `FH01` of data files).

use crate::PteError;
use alloc::format;
use alloc::string::String;
use core::ops::Range;

/// Bytes before the header: root offset and file identifier.
pub(crate) const BEFORE: usize = 8;

/// Where the parts of a file lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// FlatBuffer bytes from the start of the file.
    pub flatbuffer_len: usize,
    /// Start of the segments; 0: there are none.
    pub segment_base: u64,
    /// Bytes of all segments; the rest of the file where the header does not say.
    pub segment_len: u64,
}

/// The file kinds that carry such a header.
pub(crate) struct Kind {
    /// `.pte`
    pub name: &'static str,
    /// FlatBuffers file identifier.
    pub identifier: &'static str,
    /// Magic of the extended header.
    pub magic: &'static [u8; 4],
}

pub(crate) const PTE: Kind = Kind {
    name: ".pte",
    identifier: "ET12",
    magic: b"eh00",
};

pub(crate) const PTD: Kind = Kind {
    name: ".ptd",
    identifier: "FT01",
    magic: b"FH01",
};

/// Checks the identifier and reads the header, if there is one.
pub(crate) fn read(bytes: &[u8], kind: &Kind) -> Result<Header, PteError> {
    check_identifier(bytes, kind.name, kind.identifier)?;
    let whole = Header {
        flatbuffer_len: bytes.len(),
        segment_base: 0,
        segment_len: 0,
    };
    if bytes.get(8..12) != Some(&kind.magic[..]) {
        return Ok(whole);
    }
    let damaged = |problem: String| PteError::Damaged(format!("extended header: {problem}"));
    let length = read_u32(bytes, 12).ok_or_else(|| damaged("truncated".into()))?;
    // Programs: [size of the FlatBuffer, base, length]. Data files put the FlatBuffer's own offset first.
    let fields = match kind.magic {
        b"FH01" => [24, 32, 40],
        _ => [16, 24, 32],
    };
    let has_len = length as usize + BEFORE >= fields[2] + 8;
    if (length as usize + BEFORE) < fields[1] + 8 {
        return Err(damaged(format!("length {length} is too short")));
    }
    let field = |at: usize| read_u64(bytes, at).ok_or_else(|| damaged("truncated".into()));
    let (size, base) = (field(fields[0])?, field(fields[1])?);
    let total = bytes.len() as u64;
    let segment_len = match has_len {
        true => field(fields[2])?,
        false => total.saturating_sub(base),
    };
    let start = match kind.magic {
        b"FH01" => field(16)?,
        _ => 0,
    };
    let end = start
        .checked_add(size)
        .filter(|end| *end <= total && *end >= BEFORE as u64);
    let Some(end) = end else {
        return Err(damaged(format!("{size} bytes of FlatBuffer in a file of {total}")));
    };
    if base == 0 && segment_len != 0 && has_len {
        return Err(damaged(format!("{segment_len} bytes of segments without a start")));
    }
    if base != 0 && (base < end || base.checked_add(segment_len).is_none_or(|end| end > total)) {
        return Err(damaged(format!(
            "segments at {base} of {segment_len} bytes after a FlatBuffer of {end} in a file of {total}"
        )));
    }
    Ok(Header {
        flatbuffer_len: usize::try_from(end).map_err(|_| damaged("too large for this machine".into()))?,
        segment_base: base,
        segment_len: if base == 0 { 0 } else { segment_len },
    })
}

impl Header {
    /// Absolute range of a segment that is `size` bytes at `offset` from the base.
    pub(crate) fn segment(&self, index: usize, offset: u64, size: u64) -> Result<Range<u64>, PteError> {
        let inside = offset.checked_add(size).is_some_and(|end| end <= self.segment_len);
        if !inside {
            return Err(PteError::invalid(
                format!("segment {index}"),
                format!(
                    "{size} bytes at {offset} do not lie in the {} bytes of segments",
                    self.segment_len
                ),
            ));
        }
        // The header was checked: base + segment_len lies in the file.
        Ok(self.segment_base + offset..self.segment_base + offset + size)
    }
}

/// Refuses a file whose FlatBuffers identifier is another one.
pub(crate) fn check_identifier(bytes: &[u8], name: &'static str, identifier: &str) -> Result<(), PteError> {
    match bytes.get(4..8) {
        Some(have) if have == identifier.as_bytes() => Ok(()),
        Some(have) => Err(PteError::NotThisKind {
            expected: name,
            problem: format!("identifier `{}`, expected `{identifier}`", have.escape_ascii()),
        }),
        None => Err(PteError::NotThisKind {
            expected: name,
            problem: format!("{} bytes", bytes.len()),
        }),
    }
}

/// Limits that keep the verifier's work, and what is built from the result, in proportion to the file: a FlatBuffer may
/// point at one table from many places.
pub(crate) fn verifier_options(len: usize) -> flatbuffers::VerifierOptions {
    flatbuffers::VerifierOptions {
        max_depth: 16,
        max_tables: len / 4 + 16,
        max_apparent_size: len.saturating_mul(8).saturating_add(4096),
        ignore_missing_null_terminator: false,
    }
}

/// The verifier's error on one line.
pub(crate) fn damaged(error: flatbuffers::InvalidFlatbuffer) -> PteError {
    let text = format!("{error}");
    let mut parts = text
        .split('\n')
        .map(|line| line.trim().trim_end_matches('.'))
        .filter(|line| !line.is_empty());
    let mut line = String::from(parts.next().unwrap_or("damaged"));
    // The innermost three places say enough.
    for part in parts.take(3) {
        line.push_str(", ");
        line.push_str(part);
    }
    if let Some(first) = line.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    PteError::Damaged(line)
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
