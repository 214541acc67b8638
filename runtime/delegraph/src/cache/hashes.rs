//! Hashes of parts of files, kept so that weights are not hashed again at each load.
//!
//! A part is known by its file's identity (device, inode, size, both times of change), its offset and its length. Each file has
//! one entry in the cache: `u64 offset, u64 length, [u8; 32] hash` for each part.

use super::Digest;
use super::store::{Found, Kind, Store};
use delegraph_host::FileIdentity;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::time::SystemTime;

const RECORD: usize = 48;
/// Most parts of one file that are kept.
const MOST: usize = 1 << 20;
/// A file whose last change is not older than this may change again without its times telling.
const SETTLED_NS: i128 = 2_000_000_000;

/// The parts of one file.
#[derive(Debug)]
pub(crate) struct FileHashes {
    identity: FileIdentity,
    known: BTreeMap<(u64, u64), Digest>,
    changed: bool,
}

impl FileHashes {
    /// What the cache knows of a file.
    pub(crate) fn of(store: &Store, identity: FileIdentity) -> FileHashes {
        let known = match store.read(Kind::Hashes, &key(&identity)) {
            Found::Whole(content) => parse(&content),
            Found::Absent | Found::Damaged(_) => BTreeMap::new(),
        };
        FileHashes {
            identity,
            known,
            changed: false,
        }
    }

    /// The hash of a part, and whether its bytes had to be read for it.
    pub(crate) fn digest(&mut self, offset: u64, bytes: &[u8]) -> (Digest, bool) {
        let part = (offset, bytes.len() as u64);
        if let Some(known) = self.known.get(&part) {
            return (*known, false);
        }
        let digest: Digest = Sha256::digest(bytes).into();
        if self.known.len() < MOST {
            self.known.insert(part, digest);
            self.changed = true;
        }
        (digest, true)
    }

    /// Keeps what is new.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub(crate) fn save(&mut self, store: &Store) -> Result<(), String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_nanos() as i128);
        let age = now - self.identity.modified_ns.max(self.identity.changed_ns);
        if !self.changed || age < SETTLED_NS {
            return Ok(());
        }
        self.changed = false;
        let mut content = Vec::with_capacity(self.known.len() * RECORD);
        for ((offset, length), digest) in &self.known {
            content.extend_from_slice(&offset.to_le_bytes());
            content.extend_from_slice(&length.to_le_bytes());
            content.extend_from_slice(digest);
        }
        store.write(Kind::Hashes, &key(&self.identity), &content)
    }
}

fn key(identity: &FileIdentity) -> Digest {
    Sha256::digest(identity.to_bytes()).into()
}

fn parse(content: &[u8]) -> BTreeMap<(u64, u64), Digest> {
    let mut known = BTreeMap::new();
    for record in content.chunks_exact(RECORD).take(MOST) {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| record[at + i]));
        known.insert((number(0), number(8)), std::array::from_fn(|i| record[16 + i]));
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(age_ns: i128) -> FileIdentity {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_nanos() as i128;
        FileIdentity {
            device: 1,
            inode: 2,
            size: 3,
            modified_ns: now - age_ns,
            changed_ns: now - age_ns,
        }
    }

    #[test]
    fn parts_are_read_once_for_each_state_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 1 << 20).unwrap();
        let old = identity(60_000_000_000);
        let mut hashes = FileHashes::of(&store, old);
        let (first, read) = hashes.digest(16, b"weight");
        assert!(read);
        assert_eq!(first[..], Sha256::digest(b"weight")[..]);
        assert_eq!(hashes.digest(16, b"weight"), (first, false));
        hashes.save(&store).unwrap();
        let mut again = FileHashes::of(&store, old);
        assert_eq!(again.digest(16, b"weight"), (first, false));
        // Another offset, another length.
        assert!(again.digest(17, b"weight").1);
        assert!(again.digest(16, b"weigh").1);
        // Every part of the identity counts.
        let changes: [fn(&mut FileIdentity); 5] = [
            |i| i.device += 1,
            |i| i.inode += 1,
            |i| i.size += 1,
            |i| i.modified_ns += 1,
            |i| i.changed_ns += 1,
        ];
        for change in changes {
            let mut other = old;
            change(&mut other);
            assert!(FileHashes::of(&store, other).digest(16, b"weight").1);
        }
    }

    #[test]
    fn a_file_that_may_still_change_is_not_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 1 << 20).unwrap();
        let young = identity(1_000_000);
        let mut hashes = FileHashes::of(&store, young);
        hashes.digest(0, b"weight");
        hashes.save(&store).unwrap();
        assert!(FileHashes::of(&store, young).digest(0, b"weight").1);
    }
}
