//! Blobs as Delegraph writes them into programs (`DGB1`), read without memory of its own. The layout is described in `delegraph-abi`.

use crate::Error;
use crate::network::{damaged, word};

const MAGIC: &[u8] = b"DGB1";
const MINIMAL: usize = 160;
/// Bytes of the record of a section.
const SECTION: usize = 32;

/// A number of 64 bits that has to fit the address space.
fn long(bytes: &[u8], at: usize) -> Result<usize, Error> {
    let whole = u64::from(word(bytes, at)?) | u64::from(word(bytes, at.saturating_add(4))?) << 32;
    usize::try_from(whole).map_err(|_| damaged(at, "a size beyond the address space"))
}

/// A section of a blob, by its name. That the bytes have the hash that the blob states is not checked: it is the program's, which lies in memory of
/// the board.
///
/// # Errors
/// The blob is damaged, or has no section of the name; or it lies elsewhere in its program, because another blob shares it.
pub fn section<'b>(blob: &'b [u8], name: &str) -> Result<&'b [u8], Error> {
    if blob.len() < MINIMAL || !blob.starts_with(MAGIC) {
        return Err(damaged(0, "it is no blob"));
    }
    let major = word(blob, 4)? & 0xffff;
    if major > 1 {
        return Err(damaged(4, "the blob is of another version"));
    }
    if long(blob, 24)? != blob.len() {
        return Err(damaged(24, "the blob has another size than it states"));
    }
    let (table, count) = (word(blob, 144)? as usize, word(blob, 148)? as usize);
    for i in 0..count {
        let record = i.checked_mul(SECTION).and_then(|far| table.checked_add(far));
        let record = record.ok_or(damaged(144, "the table of sections lies outside"))?;
        let (place, size) = (word(blob, record)? as usize, word(blob, record + 4)? as usize);
        let named = place.checked_add(size).and_then(|end| blob.get(place..end));
        if named != Some(name.as_bytes()) {
            continue;
        }
        if major == 1 && word(blob, record + 28)? == 1 {
            return Err(damaged(record, "the section lies elsewhere in its program"));
        }
        let (place, size) = (long(blob, record + 8)?, long(blob, record + 16)?);
        let bytes = place.checked_add(size).and_then(|end| blob.get(place..end));
        return bytes.ok_or(damaged(record, "a section lies outside of the blob"));
    }
    Err(damaged(144, "the blob has no section of this name"))
}
