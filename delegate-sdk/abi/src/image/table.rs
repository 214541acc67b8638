//! Tables of fixed-stride records in a run of bytes.

use crate::c::ImageTableKind;

/// Number of kinds of tables that this version knows.
pub(crate) const KINDS: usize = 13;

/// Where a table lies.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Span {
    pub offset: usize,
    pub record_size: usize,
    pub count: u32,
}

/// Where every table lies; a kind that is absent is empty.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Layout {
    spans: [Span; KINDS],
}

impl Layout {
    pub fn slot(&mut self, kind: ImageTableKind) -> Option<&mut Span> {
        self.spans.get_mut((kind.0 as usize).wrapping_sub(1))
    }

    pub fn table<'a>(&self, bytes: &'a [u8], kind: ImageTableKind) -> Table<'a> {
        let span = self.spans[kind.0 as usize - 1];
        let end = span.offset + span.record_size * span.count as usize;
        Table {
            bytes: &bytes[span.offset..end],
            record_size: span.record_size,
            count: span.count,
        }
    }
}

/// A table. Reads past its end give 0, so that a wrong index is a wrong answer and no panic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table<'a> {
    pub bytes: &'a [u8],
    pub record_size: usize,
    pub count: u32,
}

impl<'a> Table<'a> {
    fn field<const N: usize>(&self, record: u32, offset: usize) -> [u8; N] {
        let at = self.record_size * record as usize + offset;
        let bytes = self.bytes.get(at..at + N);
        bytes.and_then(|b| b.try_into().ok()).unwrap_or([0; N])
    }

    pub fn u32(&self, record: u32, offset: usize) -> u32 {
        u32::from_le_bytes(self.field(record, offset))
    }

    pub fn u64(&self, record: u32, offset: usize) -> u64 {
        u64::from_le_bytes(self.field(record, offset))
    }

    pub fn i64(&self, record: u32, offset: usize) -> i64 {
        i64::from_le_bytes(self.field(record, offset))
    }

    pub fn f64(&self, record: u32, offset: usize) -> f64 {
        f64::from_bits(self.u64(record, offset))
    }

    /// The text at an offset of the table of strings; it was checked when the image was.
    pub fn text(&self, offset: u32, size: u32) -> &'a str {
        let (offset, size) = (offset as usize, size as usize);
        let bytes = self.bytes.get(offset..offset + size).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default()
    }

    /// True if the list `start .. start + count` lies in the table.
    pub fn holds(&self, start: u32, count: u32) -> bool {
        start.checked_add(count).is_some_and(|end| end <= self.count)
    }
}
