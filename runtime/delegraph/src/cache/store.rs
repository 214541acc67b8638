//! The folder: one file an entry, written whole or not at all, verified when it is read.
//!
//! ```text
//!  0  "DGC1"          magic
//!  4  [u8; 4]         kind of the content: "blob", or "hash" for hashes of a file's parts
//!  8  [u8; 32]        key
//! 40  [u8; 32]        SHA-256 of the content
//! 72                  content: a blob in its envelope, or what `hashes.rs` writes
//! ```
//!
//! A writer makes a temporary file in the same folder and renames it, so that a reader sees a whole entry or none, and of two
//! writers of one key either wins. Nothing is synchronized to the disk: an entry that a power cut leaves short is found out by
//! its hash, and costs one compilation. Nothing is locked.

use super::Digest;
use sha2::{Digest as _, Sha256};
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const MAGIC: [u8; 4] = *b"DGC1";
const HEADER: usize = 72;
/// Largest entry that is read.
const MOST: u64 = 4 << 30;
/// Most files of the folder that are looked at.
const MOST_FILES: usize = 100_000;
const TEMPORARY: &str = ".tmp-";
/// A temporary file of this age was left behind by a process that was ended.
const STALE: Duration = Duration::from_secs(3600);

/// What an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A compiled blob.
    Blob,
    /// Hashes of a file's parts.
    Hashes,
}

impl Kind {
    fn tag(self) -> [u8; 4] {
        match self {
            Kind::Blob => *b"blob",
            Kind::Hashes => *b"hash",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Kind::Blob => "blob",
            Kind::Hashes => "hashes",
        }
    }
}

/// What became of a look-up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The content.
    Whole(Vec<u8>),
    /// There is no entry.
    Absent,
    /// There was one, which is removed as far as it can be; the reason.
    Damaged(String),
}

/// A folder of entries that this user alone may write.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    quota: u64,
}

impl Store {
    /// Opens a folder, making it where it is not there. `quota` is the most bytes that entries may take together.
    ///
    /// # Errors
    /// One sentence: it cannot be made, or somebody else may write it, and compiled code is not taken from there.
    pub(crate) fn open(folder: &Path, quota: u64) -> Result<Store, String> {
        let shown = folder.display();
        make(folder).map_err(|error| format!("the cache folder `{shown}` cannot be made: {error}"))?;
        let metadata =
            std::fs::metadata(folder).map_err(|error| format!("the cache folder `{shown}` cannot be read: {error}"))?;
        if !metadata.is_dir() {
            return Err(format!("the cache folder `{shown}` is a file"));
        }
        check_owner(folder, &metadata)?;
        Ok(Store {
            folder: folder.to_path_buf(),
            quota,
        })
    }

    /// The entry of a key.
    pub(crate) fn read(&self, kind: Kind, key: &Digest) -> Found {
        let path = self.path(kind, key);
        let damaged = |reason: String| {
            // Where it cannot be removed it is found out again.
            let _ = std::fs::remove_file(&path);
            Found::Damaged(reason)
        };
        // Opening a pipe would wait for its writer.
        match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Found::Absent,
            Ok(metadata) if metadata.is_file() => {}
            _ => return Found::Absent,
        }
        let Ok(file) = File::open(&path) else {
            return Found::Absent;
        };
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        if size > MOST {
            return damaged(format!("it has {size} bytes"));
        }
        let mut bytes = Vec::new();
        if let Err(error) = (&file).take(MOST).read_to_end(&mut bytes) {
            return damaged(format!("it cannot be read: {error}"));
        }
        match content(kind, key, &bytes) {
            Err(reason) => damaged(reason.to_string()),
            Ok(()) => {
                // Eviction goes by last use. In a folder that cannot be written nothing is evicted either.
                let _ = file.set_modified(SystemTime::now());
                bytes.drain(..HEADER);
                Found::Whole(bytes)
            }
        }
    }

    /// Removes an entry that turned out to be of no use.
    pub(crate) fn remove(&self, kind: Kind, key: &Digest) {
        let _ = std::fs::remove_file(self.path(kind, key));
    }

    /// Writes an entry, over one that is there.
    ///
    /// # Errors
    /// One sentence: the disk is full, the folder cannot be written, or the entry is larger than the quota. Nothing is left
    /// behind then.
    pub(crate) fn write(&self, kind: Kind, key: &Digest, content: &[u8]) -> Result<(), String> {
        let size = content.len() as u64 + HEADER as u64;
        if size > self.quota.min(MOST) {
            return Err(format!(
                "an entry of {size} bytes is larger than the cache's quota of {}",
                self.quota
            ));
        }
        let path = self.path(kind, key);
        let failed =
            |error: std::io::Error| format!("the cache folder `{}` takes nothing: {error}", self.folder.display());
        // Dropped on failure, which removes it.
        let mut file = tempfile::Builder::new()
            .prefix(TEMPORARY)
            .tempfile_in(&self.folder)
            .map_err(failed)?;
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&kind.tag());
        header.extend_from_slice(key);
        header.extend_from_slice(&Sha256::digest(content));
        file.write_all(&header).map_err(failed)?;
        file.write_all(content).map_err(failed)?;
        match file.persist(&path) {
            Ok(_) => Ok(()),
            // Where an open file cannot be replaced, its reader has what was to be written.
            Err(_) if path.is_file() => Ok(()),
            Err(error) => Err(failed(error.error)),
        }
    }

    /// Removes what was not used for longest until the rest is within the quota, and temporary files that nobody writes any
    /// more. Gives the number of entries removed.
    pub(crate) fn evict(&self) -> u64 {
        let Ok(folder) = std::fs::read_dir(&self.folder) else {
            return 0;
        };
        let now = SystemTime::now();
        let mut entries = Vec::new();
        let mut total = 0u64;
        for item in folder.flatten().take(MOST_FILES) {
            let (path, name) = (item.path(), item.file_name());
            let Ok(metadata) = item.metadata() else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if !metadata.is_file() {
                continue;
            }
            if name.to_string_lossy().starts_with(TEMPORARY) {
                if now.duration_since(used).is_ok_and(|age| age > STALE) {
                    let _ = std::fs::remove_file(path);
                }
            } else if is_entry(&path) {
                total += metadata.len();
                entries.push((used, metadata.len(), path));
            }
        }
        entries.sort();
        let mut removed = 0;
        for (_, size, path) in entries {
            if total <= self.quota {
                break;
            }
            if std::fs::remove_file(path).is_ok() {
                removed += 1;
            }
            total -= size;
        }
        removed
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, kind: Kind, key: &Digest) -> PathBuf {
        let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(name).with_extension(kind.extension())
    }
}

/// Whether a file is one of ours by its name: a folder that was named by mistake keeps what it has.
fn is_entry(path: &Path) -> bool {
    let of_a_kind = |extension: &str| {
        [Kind::Blob, Kind::Hashes]
            .iter()
            .any(|kind| kind.extension() == extension)
    };
    let extension = path.extension().and_then(|extension| extension.to_str());
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    extension.is_some_and(of_a_kind) && stem.len() == 64 && stem.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether bytes are an entry of this kind and key, whole.
fn content(kind: Kind, key: &Digest, bytes: &[u8]) -> Result<(), &'static str> {
    let header = bytes.get(..HEADER).ok_or("it ends too early")?;
    if header[..4] != MAGIC || header[4..8] != kind.tag() {
        return Err("it is no entry of this kind");
    }
    if header[8..40] != *key {
        return Err("it is the entry of another key");
    }
    if header[40..] != *Sha256::digest(&bytes[HEADER..]) {
        return Err("its content does not match its hash");
    }
    Ok(())
}

#[cfg(unix)]
fn make(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make(folder: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).create(folder)
}

/// Blobs are code of devices: none is taken from where another user could have put it.
#[cfg(unix)]
fn check_owner(folder: &Path, metadata: &std::fs::Metadata) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;
    let shown = folder.display();
    let owner = metadata.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(format!(
            "the cache folder `{shown}` belongs to another user and is not used"
        ));
    }
    match metadata.mode() & 0o022 {
        0 => Ok(()),
        _ => Err(format!(
            "the cache folder `{shown}` may be written by other users and is not used (hint: `chmod go-w`)"
        )),
    }
}

#[cfg(not(unix))]
fn check_owner(_: &Path, _: &std::fs::Metadata) -> Result<(), String> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|item| item.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn private() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn every_bit_of_an_entry_and_every_length_is_looked_at() {
        let folder = private();
        let store = Store::open(folder.path(), 1 << 20).unwrap();
        let key = [7; 32];
        store.write(Kind::Blob, &key, b"some content").unwrap();
        assert_eq!(store.read(Kind::Blob, &key), Found::Whole(b"some content".to_vec()));
        assert_eq!(store.read(Kind::Hashes, &key), Found::Absent);
        let path = store.path(Kind::Blob, &key);
        let whole = std::fs::read(&path).unwrap();
        let damage = |bytes: &[u8], what: &str| {
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(store.read(Kind::Blob, &key), Found::Damaged(_)), "{what}");
            assert!(!path.exists(), "{what}: it is dropped");
        };
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            damage(&bytes, &format!("bit {bit}"));
        }
        for length in 0..whole.len() {
            damage(&whole[..length], &format!("{length} bytes"));
        }
        let mut longer = whole.clone();
        longer.push(0);
        damage(&longer, "one byte more");
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_what_is_not_ours_stays() {
        let folder = private();
        let room = 3 * (HEADER as u64 + 100);
        let store = Store::open(folder.path(), room).unwrap();
        std::fs::write(folder.path().join("notes.blob"), [0; 1000]).unwrap();
        let stale = folder.path().join(".tmp-left");
        std::fs::write(&stale, [0; 1000]).unwrap();
        let age = |path: &Path, seconds: u64| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds))
                .unwrap();
        };
        age(&stale, 7200);
        std::fs::write(folder.path().join(".tmp-young"), [0; 1000]).unwrap();
        for key in 1..=3u8 {
            store.write(Kind::Blob, &[key; 32], &[key; 100]).unwrap();
            age(&store.path(Kind::Blob, &[key; 32]), 1000 - u64::from(key) * 100);
        }
        // The first is used again, so that the second is the oldest.
        assert!(matches!(store.read(Kind::Blob, &[1; 32]), Found::Whole(_)));
        assert_eq!(store.evict(), 0, "they are within the quota");
        assert!(!stale.exists());
        store.write(Kind::Hashes, &[4; 32], &[4; 100]).unwrap();
        assert_eq!(store.evict(), 1);
        let left: Vec<u8> = (1..=4)
            .filter(|key| {
                [Kind::Blob, Kind::Hashes]
                    .iter()
                    .any(|kind| store.path(*kind, &[*key; 32]).exists())
            })
            .collect();
        assert_eq!(left, [1, 3, 4]);
        assert!(folder.path().join("notes.blob").exists() && folder.path().join(".tmp-young").exists());
        let error = store.write(Kind::Blob, &[9; 32], &[0; 1000]).unwrap_err();
        assert!(error.contains("larger than the cache's quota"), "{error}");
    }

    #[test]
    fn a_write_that_fails_leaves_nothing() {
        let folder = private();
        let inner = folder.path().join("a/b");
        let store = Store::open(&inner, 1 << 20).unwrap();
        // Renaming over a folder fails as late as anything can.
        std::fs::create_dir(store.path(Kind::Blob, &[1; 32])).unwrap();
        let error = store.write(Kind::Blob, &[1; 32], b"x").unwrap_err();
        assert!(error.contains("takes nothing"), "{error}");
        assert_eq!(names(&inner).len(), 1, "the folder alone");
        assert_eq!(store.read(Kind::Blob, &[1; 32]), Found::Absent);
        std::fs::remove_dir_all(&inner).unwrap();
        assert!(store.write(Kind::Blob, &[1; 32], b"x").is_err());
        assert_eq!(store.read(Kind::Blob, &[1; 32]), Found::Absent);
        assert_eq!(store.evict(), 0);
    }

    #[test]
    #[cfg(unix)]
    fn a_folder_that_others_may_write_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let folder = private();
        let made = folder.path().join("new");
        Store::open(&made, 1).unwrap();
        assert_eq!(std::fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700);
        for mode in [0o777, 0o770, 0o702] {
            std::fs::set_permissions(&made, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = Store::open(&made, 1).unwrap_err();
            assert!(error.contains("may be written by other users"), "{mode:o}: {error}");
        }
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(Store::open(&file, 1).is_err());
    }

    #[test]
    fn writers_of_one_key_do_not_disturb_each_other_or_readers() {
        let folder = private();
        let key = [5; 32];
        let contents: Vec<Vec<u8>> = (0..4u8).map(|i| vec![i; 100_000]).collect();
        std::thread::scope(|scope| {
            for content in &contents {
                scope.spawn(|| {
                    let store = Store::open(folder.path(), 1 << 24).unwrap();
                    for _ in 0..50 {
                        store.write(Kind::Blob, &key, content).unwrap();
                        match store.read(Kind::Blob, &key) {
                            Found::Whole(found) => assert!(contents.contains(&found)),
                            other => panic!("{other:?}"),
                        }
                        store.evict();
                    }
                });
            }
        });
        assert_eq!(names(folder.path()).len(), 1);
    }
}
