//! Files that are told apart without reading them.

use crate::trust::Library;
use std::fs::Metadata;
use std::path::PathBuf;

/// What the system says of a file: as long as all of it stays as it is, so do the file's bytes. Nobody can set the time of the
/// last change of an inode, unlike that of its content.
///
/// Only systems with inodes have it; elsewhere there is none, and whoever wants to know has to read the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// Device.
    pub device: u64,
    /// Number of the inode.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Time of the last change of the content, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// Time of the last change of the inode, in nanoseconds since 1970.
    pub changed_ns: i128,
}

impl FileIdentity {
    /// Of an open file's metadata; `None` where the system has no such thing.
    #[cfg(unix)]
    pub fn of(metadata: &Metadata) -> Option<FileIdentity> {
        use std::os::unix::fs::MetadataExt;
        let time = |seconds: i64, nanoseconds: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        Some(FileIdentity {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified_ns: time(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: time(metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Of an open file's metadata; `None` where the system has no such thing.
    #[cfg(not(unix))]
    pub fn of(_: &Metadata) -> Option<FileIdentity> {
        None
    }

    /// All of it, for hashes and file names.
    pub fn to_bytes(self) -> [u8; 56] {
        let mut bytes = [0; 56];
        bytes[..8].copy_from_slice(&self.device.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.inode.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.size.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.modified_ns.to_le_bytes());
        bytes[40..].copy_from_slice(&self.changed_ns.to_le_bytes());
        bytes
    }
}

/// A library that a delegate's code was loaded of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryFile {
    /// Where it was found.
    pub path: PathBuf,
    /// What the file was just before it was loaded.
    pub identity: Option<FileIdentity>,
    /// SHA-256 of the library that was loaded and of each that it brought along, where trust was asked for and so they are known.
    pub hashes: Option<Vec<[u8; 32]>>,
}

impl LibraryFile {
    pub(crate) fn of(library: &Library) -> LibraryFile {
        let path = library.path();
        let metadata = std::fs::metadata(path).ok();
        LibraryFile {
            path: path.to_path_buf(),
            identity: metadata.as_ref().and_then(FileIdentity::of),
            hashes: match library {
                Library::AsFound(_) => None,
                Library::Checked(library) => Some(
                    library
                        .identity()
                        .into_iter()
                        .map(|digest| *digest.as_bytes())
                        .collect(),
                ),
            },
        }
    }
}
