//! Files that are read once: what was hashed is what is used.

use super::Digest;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest library that is checked.
const MAX_LIBRARY: u64 = 2 << 30;
/// Largest manifest, lock, statement, signature or key that is read.
pub(crate) const MAX_TEXT: u64 = 1 << 20;

/// A library file whose hash is known.
///
/// On Linux with glibc it is a *copy* in memory that is sealed: neither this process nor another can change it, whatever
/// becomes of the file it was made of, and the loader is given this copy. Elsewhere it is the open file, and the loader is
/// given its path: on Windows it cannot be written, renamed or deleted while this value lives; on other systems somebody who
/// may write the file or its folder could change it between the check and the load.
#[derive(Debug)]
pub struct CheckedFile {
    path: PathBuf,
    file: File,
    sha256: Digest,
}

/// Where files are sealed copies.
pub(crate) const SEALS: bool = cfg!(all(target_os = "linux", target_env = "gnu"));

impl CheckedFile {
    /// Opens a file and hashes it.
    ///
    /// # Errors
    /// One sentence: it cannot be read, is not a regular file, or is larger than 2 GiB.
    pub fn open(path: &Path) -> Result<CheckedFile, String> {
        Ok(CheckedFile::open_with_bytes(path)?.0)
    }

    /// [`CheckedFile::open`], with the bytes that the hash is of.
    pub(crate) fn open_with_bytes(path: &Path) -> Result<(CheckedFile, Bytes), String> {
        let opened = open(path).map_err(|e| format!("`{}` cannot be read: {e}", path.display()))?;
        CheckedFile::of(path, opened)
    }

    /// Of a file that is open already; `path` is what it is called.
    pub(crate) fn of(path: &Path, opened: File) -> Result<(CheckedFile, Bytes), String> {
        let wrong = |e: std::io::Error| format!("`{}` cannot be read: {e}", path.display());
        let metadata = opened.metadata().map_err(wrong)?;
        if !metadata.is_file() || metadata.len() > MAX_LIBRARY {
            return Err(format!("`{}` is not a file of at most 2 GiB", path.display()));
        }
        let (file, bytes) = settle(path, opened).map_err(wrong)?;
        let checked = CheckedFile {
            path: path.to_path_buf(),
            file,
            sha256: Digest::of(&bytes),
        };
        Ok((checked, bytes))
    }

    /// A descriptor that another process checked and handed over, with the hash that it found: the worker's side.
    ///
    /// # Errors
    /// One sentence: files are sealed copies here, and this is none, so that what was checked could have changed.
    pub fn received(path: &Path, file: File, sha256: Digest) -> Result<CheckedFile, String> {
        let name = path.display();
        check_sealed(&file).map_err(|e| format!("the checked copy of `{name}` cannot be used: {e}"))?;
        Ok(CheckedFile {
            path: path.to_path_buf(),
            file,
            sha256,
        })
    }

    /// See [`super::Library::again`].
    #[cfg(target_os = "linux")]
    pub(crate) fn again(&self) -> Result<CheckedFile, String> {
        let wrong = |e: std::io::Error| format!("`{}` cannot be opened once more: {e}", self.path.display());
        Ok(CheckedFile {
            path: self.path.clone(),
            file: self.file.try_clone().map_err(wrong)?,
            sha256: self.sha256,
        })
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The checked copy, or the open file; see [`CheckedFile`]. May be handed to another process.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Hash of what [`CheckedFile::load_path`] names.
    pub fn sha256(&self) -> Digest {
        self.sha256
    }

    /// What the loader of this process is given. Of a sealed copy it names the descriptor: it is good as long as this value
    /// lives, and the loader remembers it, so that the value must outlive what was loaded by it.
    pub fn load_path(&self) -> PathBuf {
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        {
            use std::os::fd::AsRawFd;
            PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
        }
        #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
        self.path.clone()
    }
}

/// Bytes that a hash was taken of.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) type Bytes = memmap2::Mmap;
/// Bytes that a hash was taken of.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) type Bytes = Vec<u8>;

/// Opens without waiting: a named pipe in a library's place must not hold the host up.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    #[cfg(windows)]
    {
        use std::os::windows::fs::OpenOptionsExt;
        // FILE_SHARE_READ alone: nobody may write, rename or delete it while it is open here.
        options.share_mode(1);
    }
    options.open(path)
}

/// Copies into sealed memory. The hash is taken of the copy after it is sealed, so that no moment is left to change it in.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn settle(path: &Path, mut opened: File) -> std::io::Result<(File, Bytes)> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let name = path.file_name().unwrap_or_default().to_string_lossy().replace('\0', "");
    let name: String = name.chars().take(60).collect();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // The first is what kernels from 6.3 want of memory that is never executed as a program; older ones do not know it.
    let copy = memfd_create(name.as_str(), flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create(name.as_str(), flags))
        .map_err(std::io::Error::from)?;
    let mut copy = File::from(copy);
    let copied = std::io::copy(&mut Read::by_ref(&mut opened).take(MAX_LIBRARY + 1), &mut copy)?;
    if copied > MAX_LIBRARY {
        return Err(std::io::Error::other("it grows while it is read"));
    }
    fcntl_add_seals(&copy, SEALS_NEEDED | SealFlags::SEAL).map_err(std::io::Error::from)?;
    let bytes = sealed_bytes(&copy)?;
    Ok((copy, bytes))
}

/// What makes a copy unchangeable.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const SEALS_NEEDED: rustix::fs::SealFlags = rustix::fs::SealFlags::WRITE
    .union(rustix::fs::SealFlags::SHRINK)
    .union(rustix::fs::SealFlags::GROW);

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn check_sealed(file: &File) -> std::io::Result<()> {
    let seals = rustix::fs::fcntl_get_seals(file).map_err(std::io::Error::from)?;
    match seals.contains(SEALS_NEEDED) {
        true => Ok(()),
        false => Err(std::io::Error::other("it is not sealed")),
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn check_sealed(_: &File) -> std::io::Result<()> {
    Ok(())
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn sealed_bytes(file: &File) -> std::io::Result<Bytes> {
    check_sealed(file)?;
    if file.metadata()?.len() > MAX_LIBRARY {
        return Err(std::io::Error::other("it is larger than 2 GiB"));
    }
    // SAFETY: the file is sealed, which was just seen: its bytes and its length never change.
    unsafe { memmap2::Mmap::map(file) }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn settle(_: &Path, opened: File) -> std::io::Result<(File, Bytes)> {
    let bytes = sealed_bytes(&opened)?;
    Ok((opened, bytes))
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn sealed_bytes(mut file: &File) -> std::io::Result<Bytes> {
    use std::io::{Seek, SeekFrom};
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    Read::take(file, MAX_LIBRARY + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_LIBRARY {
        return Err(std::io::Error::other("it grows while it is read"));
    }
    Ok(bytes)
}

/// Reads a small text file once. `what` names it in the error: `the manifest`.
///
/// # Errors
/// One sentence: it cannot be read, is no file of at most 1 MiB, or is not UTF-8. An absent file is told apart.
pub(crate) fn read_text(path: &Path, what: &str) -> Result<String, Unread> {
    let wrong = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::NotFound => Unread::Absent,
        _ => Unread::Wrong(format!("{what} cannot be read: {e}")),
    };
    let file = open(path).map_err(wrong)?;
    let size = || Unread::Wrong(format!("{what} is not a file of at most 1 MiB"));
    if !file.metadata().map_err(wrong)?.is_file() {
        return Err(size());
    }
    let mut bytes = Vec::new();
    file.take(MAX_TEXT + 1).read_to_end(&mut bytes).map_err(wrong)?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(size());
    }
    String::from_utf8(bytes).map_err(|_| Unread::Wrong(format!("{what} is not UTF-8 text")))
}

/// Why a text could not be had.
#[derive(Debug)]
pub(crate) enum Unread {
    Absent,
    Wrong(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_was_opened_is_what_is_hashed_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libx.so");
        std::fs::write(&path, "good").unwrap();
        let opened = open(&path).unwrap();
        // The path names another file from here on, as in an attack between the check and the load.
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        std::fs::write(&path, "evil").unwrap();
        let (checked, bytes) = CheckedFile::of(&path, opened).unwrap();
        assert_eq!(checked.sha256(), Digest::of(b"good"));
        assert_eq!(&bytes[..], b"good");
        if SEALS {
            assert_eq!(std::fs::read(checked.load_path()).unwrap(), b"good");
        }
    }

    #[test]
    fn a_sealed_copy_cannot_be_changed() {
        if !SEALS {
            println!("skipped: files are not sealed copies on this system");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libx.so");
        std::fs::write(&path, "good").unwrap();
        let checked = CheckedFile::open(&path).unwrap();
        // In place, in the same inode, after the check.
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .write_all(b"evil")
            .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"evil");
        assert_eq!(std::fs::read(checked.load_path()).unwrap(), b"good");
        // In the copy itself, by whoever has its name.
        if let Ok(mut copy) = std::fs::OpenOptions::new().write(true).open(checked.load_path()) {
            assert!(copy.write_all(b"evil").is_err());
            assert!(copy.set_len(0).is_err());
        }
        assert_eq!(std::fs::read(checked.load_path()).unwrap(), b"good");
        let handed = checked.file().try_clone().unwrap();
        let received = CheckedFile::received(&path, handed, checked.sha256()).unwrap();
        assert_eq!(std::fs::read(received.load_path()).unwrap(), b"good");
        let unsealed = File::open(&path).unwrap();
        assert!(
            CheckedFile::received(&path, unsealed, checked.sha256())
                .unwrap_err()
                .contains("cannot be used")
        );
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(CheckedFile::open(folder.path()).unwrap_err().contains("is not a file"));
        assert!(
            CheckedFile::open(&folder.path().join("absent"))
                .unwrap_err()
                .contains("cannot be read")
        );
        let big = folder.path().join("big");
        File::create(&big).unwrap().set_len(MAX_LIBRARY + 1).unwrap();
        assert!(CheckedFile::open(&big).unwrap_err().contains("at most 2 GiB"));
        assert!(matches!(read_text(&big, "the lock"), Err(Unread::Wrong(text)) if text.contains("at most 1 MiB")));
        assert!(matches!(
            read_text(&folder.path().join("absent"), "the lock"),
            Err(Unread::Absent)
        ));
        #[cfg(unix)]
        {
            let pipe = folder.path().join("pipe");
            let made = std::process::Command::new("mkfifo").arg(&pipe).status();
            match made.is_ok_and(|status| status.success()) {
                true => assert!(CheckedFile::open(&pipe).unwrap_err().contains("is not a file")),
                false => println!("skipped: no `mkfifo` here"),
            }
        }
    }
}
