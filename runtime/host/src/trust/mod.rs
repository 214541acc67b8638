//! Which libraries may be loaded: pins of a lock file, signatures, and the file that was checked being the file that is loaded.
//!
//! A candidate is trusted if [`Lock`] pins its files, or, where the lock has no pin of its name, if a signed [`HashList`] beside
//! it names them. [`TrustOptions::mode`] says what happens to one that is not. What is checked: the manifest's bytes as they
//! were parsed, and the bytes of the library and of the libraries that it brings along, as they are loaded
//! ([`CheckedFile`] says how). Beside that, [`TrustOptions::conformance`] asks for a [`Certificate`] of the same files. `vendor-docs/trust.md` says what this keeps out and what not.

mod certificate;
mod digest;
mod file;
mod library;
mod lock;
mod needed;
mod signature;

pub use certificate::{
    Certificate, CertificateFile, CertifiedAbi, CertifiedFile, CertifiedKit, CertifiedLibrary, CertifiedList,
    CertifiedWaiver, Demand,
};
pub use delegraph_config::{ListName, Trust};
pub use digest::Digest;
pub use file::CheckedFile;
pub(crate) use file::{SEALS, Unread, read_text};
pub use library::CheckedLibrary;
pub use lock::{Lock, Pin, PinnedFile};
pub use signature::{HashList, Keys, name_in, signed_list};

use crate::Candidate;
use std::path::{Path, PathBuf};

/// When a library may be loaded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrustOptions {
    /// What becomes of a candidate that is neither pinned nor signed.
    pub mode: Trust,
    /// The lock file; one that is not there pins nothing.
    pub lock: Option<PathBuf>,
    /// Public keys of minisign whose signatures count.
    pub keys: Vec<PathBuf>,
    /// The certificate that a candidate must have, whatever the mode is; `None`: it needs none.
    pub conformance: Option<Demand>,
}

/// What the loader is given.
#[derive(Debug)]
pub enum Library {
    /// Whatever lies at this path: nothing was asked of it.
    AsFound(PathBuf),
    /// These bytes.
    Checked(CheckedLibrary),
}

impl Library {
    /// Where it was found.
    pub fn path(&self) -> &Path {
        match self {
            Library::AsFound(path) => path,
            Library::Checked(library) => library.file().path(),
        }
    }

    /// The same library once more, for another process.
    ///
    /// # Errors
    /// The system gives no further descriptor.
    #[cfg(target_os = "linux")]
    pub(crate) fn again(&self) -> Result<Library, String> {
        match self {
            Library::AsFound(path) => Ok(Library::AsFound(path.clone())),
            Library::Checked(library) => Ok(Library::Checked(library.again()?)),
        }
    }

    /// The library with a path that holds in every folder and for every process.
    #[cfg(target_os = "linux")]
    pub(crate) fn absolute(self) -> Result<Library, String> {
        match self {
            Library::AsFound(path) => Ok(Library::AsFound(absolute(&path)?)),
            checked => Ok(checked),
        }
    }
}

/// Where a library really lies.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, String> {
    path.canonicalize()
        .map_err(|e| format!("library `{}` cannot be found: {e}", path.display()))
}

/// What made a library trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ground {
    /// A pin of this lock file.
    Pin(PathBuf),
    /// A signature by this key.
    Signature(PathBuf),
}

/// The options with the files that they name, each read once.
#[derive(Debug)]
pub struct Policy {
    options: TrustOptions,
    lock: Result<Option<Lock>, String>,
    keys: Result<Keys, String>,
}

impl Policy {
    /// Reads the lock and the keys. A problem with them is told of each candidate that it concerns.
    pub fn new(options: TrustOptions) -> Policy {
        let off = options.mode == Trust::Off;
        let lock = match options.lock.as_deref().filter(|_| !off) {
            None => Ok(None),
            Some(path) => Lock::read(path).and_then(|lock| match lock {
                Some(lock) if lock.is_expired() => {
                    let day = lock.expires.map_or(String::new(), |day| format!(" on {day}"));
                    Err(format!(
                        "the pins of `{}` expired{day}: write it again with `delegraph delegate lock`",
                        path.display()
                    ))
                }
                lock => Ok(lock),
            }),
        };
        let keys = if off && options.conformance.is_none() {
            Ok(Keys::default())
        } else {
            Keys::read(&options.keys)
        };
        Policy { options, lock, keys }
    }

    /// What may be loaded of a candidate, and a warning if it was only let through.
    ///
    /// # Errors
    /// One sentence: it is not trusted, and the mode is [`Trust::Require`]; or it has not the certificate that is asked for.
    pub fn admit(&self, candidate: &Candidate) -> Result<(Library, Option<String>), String> {
        let (library, warning) = self.admit_trusted(candidate)?;
        let Some(demand) = &self.options.conformance else {
            return Ok((library, warning));
        };
        let library = match library {
            Library::AsFound(path) => CheckedLibrary::open(&path)?,
            Library::Checked(library) => library,
        };
        self.certified(demand, candidate, &library)?;
        Ok((Library::Checked(library), warning))
    }

    /// Whether a candidate has the certificate that is asked for.
    fn certified(&self, demand: &Demand, candidate: &Candidate, library: &CheckedLibrary) -> Result<(), String> {
        let names: Vec<String> = demand.lists.iter().map(ListName::to_string).collect();
        let refused = |problem: String| {
            let names = names.join("`, `");
            format!("`delegates.require_conformance` asks for a certificate of `{names}`: {problem}")
        };
        let keys = self.keys.as_ref().map_err(Clone::clone)?;
        let path = CertificateFile::path_for(candidate).ok_or("it has no library")?;
        let file = CertificateFile::read(&path).map_err(refused)?.ok_or_else(|| {
            refused(format!(
                "there is no `{}`, which `delegraph conform run` makes",
                path.display()
            ))
        })?;
        file.meets(demand, keys, &candidate.backend, candidate.manifest_sha256, library)
            .map_err(refused)
    }

    /// [`Policy::admit`] as far as pins and signatures go.
    fn admit_trusted(&self, candidate: &Candidate) -> Result<(Library, Option<String>), String> {
        let path = candidate.library.as_deref().ok_or("it has no library")?;
        if self.options.mode == Trust::Off {
            return Ok((Library::AsFound(path.to_path_buf()), None));
        }
        let checked = CheckedLibrary::open(path).and_then(|library| {
            let manifest = candidate.manifest_path.as_deref().zip(candidate.manifest_sha256);
            self.judge(&candidate.backend, manifest, &library)?;
            Ok(library)
        });
        match checked {
            Ok(library) => Ok((Library::Checked(library), None)),
            Err(reason) if self.options.mode == Trust::Warn => {
                let warning = format!("it is loaded although it is not trusted: {reason}");
                Ok((Library::AsFound(path.to_path_buf()), Some(warning)))
            }
            Err(reason) => Err(format!("it is not trusted: {reason}")),
        }
    }

    /// Whether files are trusted, whatever the mode is.
    ///
    /// # Errors
    /// One sentence that says why not, and what to do.
    pub fn judge(
        &self,
        backend: &str,
        manifest: Option<(&Path, Digest)>,
        library: &CheckedLibrary,
    ) -> Result<Ground, String> {
        let ground = self.pinned_or_signed(backend, manifest, library)?;
        match library.problems().first() {
            None => Ok(ground),
            Some(problem) => Err(problem.clone()),
        }
    }

    fn pinned_or_signed(
        &self,
        backend: &str,
        manifest: Option<(&Path, Digest)>,
        library: &CheckedLibrary,
    ) -> Result<Ground, String> {
        // A lock that cannot be read could have said no.
        let lock = self.lock.as_ref().map_err(Clone::clone)?;
        if let (Some(lock), Some(path)) = (lock, &self.options.lock) {
            let mut refusal = None;
            for pin in lock.pins(backend) {
                match pin.check(manifest.map(|(_, sha256)| sha256), library) {
                    Ok(()) => return Ok(Ground::Pin(path.clone())),
                    Err(reason) => refusal = Some(reason),
                }
            }
            if let Some(reason) = refusal {
                return Err(format!(
                    "`{backend}` {reason} (`{}`); if it was changed on purpose, run `delegraph delegate lock`",
                    path.display()
                ));
            }
        }
        let keys = self.keys.as_ref().map_err(Clone::clone)?;
        let named = match manifest {
            Some((path, _)) => path,
            None => library.file().path(),
        };
        if !keys.is_empty()
            && let Some((list, key)) = signed_list(named, keys)?
        {
            let folder = named.parent().unwrap_or(Path::new("."));
            return match list.check(manifest, library, folder) {
                Ok(()) => Ok(Ground::Signature(key)),
                Err(reason) => Err(format!(
                    "`{backend}` {reason} (`{}`)",
                    HashList::path_for(named).display()
                )),
            };
        }
        Err(self.unknown(backend, lock.is_some(), keys.is_empty()))
    }

    /// Neither pinned nor signed.
    fn unknown(&self, backend: &str, has_lock: bool, no_keys: bool) -> String {
        let pin = match &self.options.lock {
            Some(lock) if has_lock => format!("`{}` has no pin of `{backend}`", lock.display()),
            Some(lock) => format!("there is no lock file `{}`", lock.display()),
            None => "there is no lock file (`delegates.lock`)".to_string(),
        };
        let signature = match no_keys {
            true => "no key is configured (`delegates.keys`)",
            false => "it has no signature",
        };
        format!("{pin}, and {signature}; if you know where it comes from, pin it with `delegraph delegate lock`")
    }
}

/// The names of the libraries that an ELF library needs (`DT_NEEDED`), in order; none of what is not ELF.
///
/// # Errors
/// One sentence: it begins as ELF and is broken.
pub fn needed_libraries(bytes: &[u8]) -> Result<Vec<String>, String> {
    Ok(needed::needs(bytes)?.needed)
}

/// A path relative to a folder, with `..` where it must be; as it is where that cannot be.
pub(crate) fn relative_to(path: &Path, folder: &Path) -> PathBuf {
    // Links in folders are followed, or two names of one folder would be far apart; a link that is the file is its name.
    let real = |folder: &Path| {
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        folder
            .canonicalize()
            .or_else(|_| std::path::absolute(folder))
            .map(|folder| library::plain(&folder))
    };
    let (Ok(folder), Some(parent), Some(name)) = (real(folder), path.parent(), path.file_name()) else {
        return path.to_path_buf();
    };
    let Ok(path) = real(parent).map(|parent| parent.join(name)) else {
        return path.to_path_buf();
    };
    let shared = path
        .components()
        .zip(folder.components())
        .take_while(|(a, b)| a == b)
        .count();
    if shared == 0 {
        return path;
    }
    let up = folder
        .components()
        .skip(shared)
        .map(|_| std::path::Component::ParentDir);
    up.chain(path.components().skip(shared)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_relative() {
        for (path, folder, want) in [
            ("/a/b/c.so", "/a", "b/c.so"),
            ("/a/b/c.so", "/a/d/e", "../../b/c.so"),
            ("/a/./b/../c.so", "/a", "c.so"),
        ] {
            assert_eq!(
                relative_to(Path::new(path), Path::new(folder)),
                Path::new(want),
                "{path} {folder}"
            );
        }
        assert_eq!(relative_to(Path::new("x/c.so"), Path::new("")), Path::new("x/c.so"));
    }
}
