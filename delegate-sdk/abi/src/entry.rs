//! A delegate that is linked into the program.

use crate::c::{ABI_MAJOR, EntryFn};

/// The entry of a delegate that is linked into the program, for registration without a library.
#[derive(Debug, Clone, Copy)]
pub struct StaticEntry {
    entry: EntryFn,
    major: u16,
}

impl StaticEntry {
    /// Vouches for an entry of this major of the ABI: what the library would export as [`ENTRY`](crate::c::ENTRY).
    ///
    /// # Safety
    /// The entry, and every function of the table that it gives, keeps the contract of `delegraph.h`.
    pub const unsafe fn new(entry: EntryFn) -> StaticEntry {
        // SAFETY: the caller promises it.
        unsafe { StaticEntry::of_major(ABI_MAJOR, entry) }
    }

    /// Vouches for an entry of another major, for example 0: what the library would export as `dg_delegate_entry_v0`. A host that does not know
    /// the major refuses it.
    ///
    /// # Safety
    /// The entry, and every function of the table that it gives, keeps the contract of that major's `delegraph.h`.
    pub const unsafe fn of_major(major: u16, entry: EntryFn) -> StaticEntry {
        StaticEntry { entry, major }
    }

    /// The entry.
    pub const fn entry(self) -> EntryFn {
        self.entry
    }

    /// The major of the ABI that the entry is of.
    pub const fn major(self) -> u16 {
        self.major
    }
}
