//! A delegate that is linked into the program.

use crate::c::EntryFn;

/// The entry of a delegate that is linked into the program, for registration without a library.
#[derive(Debug, Clone, Copy)]
pub struct StaticEntry(EntryFn);

impl StaticEntry {
    /// Vouches for an entry.
    ///
    /// # Safety
    /// The entry, and every function of the table that it gives, keeps the contract of `delegraph.h`.
    pub const unsafe fn new(entry: EntryFn) -> StaticEntry {
        StaticEntry(entry)
    }

    /// The entry.
    pub const fn entry(self) -> EntryFn {
        self.0
    }
}
