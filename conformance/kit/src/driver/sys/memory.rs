//! Memory between pages that must not be touched.

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use std::ptr::NonNull;

/// Which side of the bytes the guard is at, without a gap. The other side has a gap, filled with a known byte: [`Guarded::strayed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The byte behind the last one must not be touched.
    End,
    /// The byte before the first one must not be touched.
    Start,
    /// As `End`, but as many bytes further down: to lie at an odd multiple of an element's size.
    Before(usize),
}

/// Bytes of a page on every machine that this runs on, or a multiple of it.
const PAGE: usize = 65536;

/// What gaps are filled with.
const GAP: u8 = 0xc5;

/// Bytes in pages of their own, with a page that must not be touched before and behind.
pub struct Guarded {
    base: NonNull<u8>,
    /// Of all, guards included.
    mapped: usize,
    start: usize,
    size: usize,
}

// SAFETY: it owns its pages; shared access only reads.
unsafe impl Send for Guarded {}
// SAFETY: as above.
unsafe impl Sync for Guarded {}

impl Guarded {
    /// `size` bytes, all 0, at a multiple of `align` (a power of two, at most 4096). With [`Place::End`] the guard follows at once where
    /// `size` is a multiple of `align`.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn new(size: usize, place: Place, align: usize) -> Result<Guarded, String> {
        let none = || format!("{size} bytes with guards do not fit in memory");
        let inner = size
            .checked_add(2 * 4096)
            .and_then(|n| n.checked_next_multiple_of(PAGE))
            .ok_or_else(none)?;
        let mapped = inner.checked_add(2 * PAGE).ok_or_else(none)?;
        // SAFETY: new pages of the system's choosing; nobody else knows them.
        let base = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                mapped,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let base = NonNull::new(base.map_err(|error| format!("{}: {error}", none()))?.cast::<u8>()).ok_or_else(none)?;
        let end = PAGE + inner;
        let align = align.clamp(1, 4096);
        let start = match place {
            Place::Start => PAGE,
            Place::End => (end - size) / align * align,
            Place::Before(bytes) => ((end - size) / align * align).saturating_sub(bytes).max(PAGE),
        };
        let memory = Guarded {
            base,
            mapped,
            start,
            size,
        };
        // SAFETY: both guards are pages of this mapping, which nothing points into yet.
        unsafe {
            std::ptr::write_bytes(base.as_ptr().add(PAGE), GAP, inner);
            std::ptr::write_bytes(base.as_ptr().add(start), 0, size);
            mprotect(base.as_ptr().cast(), PAGE, MprotectFlags::empty()).map_err(|error| error.to_string())?;
            mprotect(base.as_ptr().add(end).cast(), PAGE, MprotectFlags::empty()).map_err(|error| error.to_string())?;
        }
        Ok(memory)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: they lie within the mapping and are initialized.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(self.start), self.size) }
    }

    /// The bytes, to write. Those that are protected fault.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(self.start), self.size) }
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Writes the bytes, as many as are given and fit.
    pub fn fill(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(self.size);
        // SAFETY: within the mapping; whoever protects it writes no more, which `protect` makes sure of by faulting.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(self.start), count) };
    }

    /// Writes bytes from an offset on, as many as are given and fit.
    pub fn fill_at(&mut self, offset: usize, bytes: &[u8]) {
        let offset = offset.min(self.size);
        let count = bytes.len().min(self.size - offset);
        // SAFETY: as in `fill`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(self.start + offset), count) };
    }

    /// Writes every byte.
    pub fn fill_with(&mut self, byte: u8) {
        // SAFETY: as in `fill`.
        unsafe { std::ptr::write_bytes(self.base.as_ptr().add(self.start), byte, self.size) };
    }

    /// Makes all of it read-only: a write faults.
    ///
    /// # Errors
    /// The system refuses.
    pub fn protect(&mut self) -> Result<(), String> {
        self.set(MprotectFlags::READ)
    }

    /// Makes it writable again.
    ///
    /// # Errors
    /// The system refuses.
    pub fn unprotect(&mut self) -> Result<(), String> {
        self.set(MprotectFlags::READ | MprotectFlags::WRITE)
    }

    /// Makes all of it untouchable: a read faults. [`Guarded::bytes`] must not be called until [`Guarded::unprotect`].
    ///
    /// # Errors
    /// The system refuses.
    pub fn close(&mut self) -> Result<(), String> {
        self.set(MprotectFlags::empty())
    }

    /// [`Guarded::close`] of what is shared: others must not call [`Guarded::bytes`] from here on.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn close_shared(&self) -> Result<(), String> {
        self.set(MprotectFlags::empty())
    }

    fn set(&self, flags: MprotectFlags) -> Result<(), String> {
        // SAFETY: the pages between the guards are this mapping's own.
        let set = unsafe { mprotect(self.base.as_ptr().add(PAGE).cast(), self.mapped - 2 * PAGE, flags) };
        set.map_err(|error| error.to_string())
    }

    /// Where the bytes begin.
    pub fn as_ptr(&self) -> *mut u8 {
        // SAFETY: within the mapping.
        unsafe { self.base.as_ptr().add(self.start) }
    }

    /// How far from the bytes, at most, something was written into the gaps between them and the guards; `None`: nowhere.
    pub fn strayed(&self) -> Option<usize> {
        let (from, to) = (PAGE, self.mapped - PAGE);
        // SAFETY: between the guards, initialized.
        let all = unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(from), to - from) };
        let (first, behind) = (self.start - from, self.start - from + self.size);
        let before = all[..first].iter().position(|byte| *byte != GAP).map(|at| first - at);
        let after = all[behind..].iter().rposition(|byte| *byte != GAP).map(|at| at + 1);
        before.max(after)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own, and ends here.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_lie_at_their_guard() {
        let mut memory = Guarded::new(12, Place::End, 4).unwrap();
        memory.fill(&[7; 12]);
        assert_eq!(memory.bytes(), [7; 12]);
        assert_eq!((memory.as_ptr().addr() + 12) % 4096, 0);
        assert_eq!(memory.strayed(), None);
        // SAFETY: in the gap, which is this mapping's own.
        unsafe { memory.as_ptr().sub(3).write(0) };
        assert_eq!(memory.strayed(), Some(3));
        let memory = Guarded::new(12, Place::Start, 4).unwrap();
        assert_eq!(memory.as_ptr().addr() % 4096, 0);
        // SAFETY: as above.
        unsafe { memory.as_ptr().add(13).write(0) };
        assert_eq!(memory.strayed(), Some(2));
        let odd = Guarded::new(12, Place::Before(4), 4).unwrap();
        assert_eq!((odd.as_ptr().addr() + 16) % 4096, 0);
    }
}
