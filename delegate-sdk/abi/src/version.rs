//! The versions of the ABI that this crate describes: its own, and the earlier ones, whose libraries are read by the same structs.

use crate::c::{ENTRIES, LAYOUT_HASHES};

/// The newest minor of a major; `None`: it is no major of this description.
pub const fn newest_minor(major: u16) -> Option<u16> {
    let mut newest = None;
    let mut i = 0;
    while i < LAYOUT_HASHES.len() {
        if LAYOUT_HASHES[i].0 == major {
            newest = Some(LAYOUT_HASHES[i].1);
        }
        i += 1;
    }
    newest
}

/// `DG_LAYOUT_HASH` of a version; `None`: it is none of this description.
pub fn layout_hash(major: u16, minor: u32) -> Option<u64> {
    let of = |version: &&(u16, u16, u64)| version.0 == major && u32::from(version.1) == minor;
    LAYOUT_HASHES.iter().find(of).map(|version| version.2)
}

/// The name of the entry of a major; `None`: it is no major of this description.
pub fn entry_name(major: u16) -> Option<&'static str> {
    let of = |entry: &&(u16, &'static str)| entry.0 == major;
    ENTRIES.iter().find(of).map(|entry| entry.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::c::{ABI_MAJOR, ABI_MINOR, ENTRY, LAYOUT_HASH};

    #[test]
    fn versions_are_known_by_their_numbers() {
        assert_eq!((ABI_MAJOR, newest_minor(ABI_MAJOR)), (1, Some(ABI_MINOR)));
        assert_eq!((newest_minor(0), newest_minor(2)), (Some(2), None));
        assert_eq!(layout_hash(ABI_MAJOR, ABI_MINOR.into()), Some(LAYOUT_HASH));
        // As `ABI-CHANGELOG.md` has it of the first version.
        assert_eq!(layout_hash(0, 0), Some(0xfdfc_fa4b_7a7c_602e));
        assert_eq!((layout_hash(0, 3), layout_hash(0, 1 << 16)), (None, None));
        assert_eq!(ENTRIES.map(|(major, _)| major), [1, 0]);
        assert_eq!(
            (entry_name(ABI_MAJOR), entry_name(0)),
            (Some(ENTRY), Some("dg_delegate_entry_v0"))
        );
        assert_eq!(entry_name(2), None);
    }
}
