//! Hashes of the files that a delegate's code was loaded of.

use super::Digest;
use delegraph_host::trust::CheckedLibrary;
use delegraph_host::{Delegate, FileIdentity, LibraryFile};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Hashes by what the system says of a library: it is hashed once a process, with what it brings along.
static KNOWN: Mutex<BTreeMap<[u8; 56], Vec<Digest>>> = Mutex::new(BTreeMap::new());

/// The hashes of each library of a delegate and of those that it brings along, in order; none for one that is linked into the
/// program.
///
/// # Errors
/// One sentence: a library cannot be read, or is not the file any more that was loaded.
pub(crate) fn hashes(delegate: &Delegate) -> Result<Vec<Digest>, String> {
    let each: Vec<Vec<Digest>> = delegate.libraries().iter().map(hash).collect::<Result<_, _>>()?;
    Ok(each.concat())
}

fn hash(library: &LibraryFile) -> Result<Vec<Digest>, String> {
    if let Some(hashes) = &library.hashes {
        return Ok(hashes.clone());
    }
    let shown = library.path.display();
    let identity = || {
        std::fs::metadata(&library.path)
            .ok()
            .as_ref()
            .and_then(FileIdentity::of)
    };
    let replaced = || format!("its library `{shown}` was replaced after it was loaded");
    let key = library.identity.map(FileIdentity::to_bytes);
    if identity() != library.identity {
        return Err(replaced());
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(hashes) = key.and_then(|key| known.get(&key)) {
        return Ok(hashes.clone());
    }
    let checked = CheckedLibrary::open(&library.path)?;
    if identity() != library.identity {
        return Err(replaced());
    }
    let files = std::iter::once(checked.file()).chain(checked.dependents());
    let hashes: Vec<Digest> = files.map(|file| *file.sha256().as_bytes()).collect();
    known.extend(key.map(|key| (key, hashes.clone())));
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest as _, Sha256};
    use std::path::Path;

    #[test]
    #[cfg(unix)]
    fn a_library_that_was_replaced_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lib.so");
        std::fs::write(&path, b"one").unwrap();
        let of = |path: &Path| LibraryFile {
            path: path.to_path_buf(),
            identity: FileIdentity::of(&std::fs::metadata(path).unwrap()),
            hashes: None,
        };
        let library = of(&path);
        assert_eq!(hash(&library).unwrap()[0][..], Sha256::digest(b"one")[..]);
        assert_eq!(hash(&library).unwrap()[0][..], Sha256::digest(b"one")[..]);
        std::fs::write(folder.path().join("new"), b"two").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(hash(&library).unwrap_err().contains("was replaced"));
        assert_eq!(hash(&of(&path)).unwrap()[0][..], Sha256::digest(b"two")[..]);
        std::fs::remove_file(&path).unwrap();
        assert!(hash(&library).unwrap_err().contains("was replaced"));
    }
}
