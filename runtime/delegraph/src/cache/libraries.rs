//! Hashes of the files that a delegate's code was loaded of.

use super::Digest;
use crate::sys::map_file;
use delegraph_host::{Delegate, FileIdentity, LibraryFile};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Hashes by what the system says of a file: a library is hashed once a process.
static KNOWN: Mutex<BTreeMap<[u8; 56], Digest>> = Mutex::new(BTreeMap::new());

/// The hash of each library of a delegate, in order; none for one that is linked into the program.
///
/// # Errors
/// One sentence: a library cannot be read, or is not the file any more that was loaded.
pub(crate) fn hashes(delegate: &Delegate) -> Result<Vec<Digest>, String> {
    delegate.libraries().iter().map(hash).collect()
}

fn hash(library: &LibraryFile) -> Result<Digest, String> {
    let shown = library.path.display();
    let failed = |error: std::io::Error| format!("its library `{shown}` cannot be read: {error}");
    let file = File::open(&library.path).map_err(failed)?;
    let identity = file.metadata().ok().as_ref().and_then(FileIdentity::of);
    if identity != library.identity {
        return Err(format!("its library `{shown}` was replaced after it was loaded"));
    }
    let key = identity.map(FileIdentity::to_bytes);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(digest) = key.and_then(|key| known.get(&key)) {
        return Ok(*digest);
    }
    let digest = of_file(&file, &library.path)?;
    known.extend(key.map(|key| (key, digest)));
    Ok(digest)
}

fn of_file(file: &File, path: &Path) -> Result<Digest, String> {
    let bytes = map_file(file).map_err(|error| format!("its library `{}` cannot be read: {error}", path.display()))?;
    Ok(Sha256::digest(bytes.as_slice()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_library_that_was_replaced_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib.so");
        std::fs::write(&path, b"one").unwrap();
        let of = |path: &Path| LibraryFile {
            path: path.to_path_buf(),
            identity: FileIdentity::of(&std::fs::metadata(path).unwrap()),
        };
        let library = of(&path);
        assert_eq!(hash(&library).unwrap()[..], Sha256::digest(b"one")[..]);
        assert_eq!(hash(&library).unwrap()[..], Sha256::digest(b"one")[..]);
        std::fs::write(folder.path().join("new"), b"two").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(hash(&library).unwrap_err().contains("was replaced"));
        assert_eq!(hash(&of(&path)).unwrap()[..], Sha256::digest(b"two")[..]);
        std::fs::remove_file(&path).unwrap();
        assert!(hash(&library).unwrap_err().contains("cannot be read"));
    }
}
