//! Compiled blobs, as they come back.

use crate::Error;
use crate::sys::{KeptBytes, RawOwner};
use std::fmt;

/// What the envelope says of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobMeta<'a> {
    /// Backend id.
    pub delegate: &'a str,
    /// Version of the delegate that made it.
    pub delegate_version: &'a str,
    /// Name of its form.
    pub format: &'a str,
    /// Version of its form.
    pub format_version: u32,
    /// What it was compiled for; empty: anything.
    pub target: &'a str,
    /// Lower precision that it computes in; empty: that of the graph.
    pub precision: &'a str,
    /// SHA-256 of the graph image.
    pub graph_hash: &'a [u8; 32],
    /// Oldest driver that it runs on, as [`crate::Compiled`] stated it; empty: any.
    pub driver_min: &'a str,
    /// Newest driver that it runs on; empty: any.
    pub driver_max: &'a str,
    /// SHA-256 of the options that the delegate was started with when it compiled the blob; `None`: not recorded.
    pub options_hash: Option<&'a [u8; 32]>,
    /// SHA-256 of the weights that it was compiled with; `None`: not recorded.
    pub weights_hash: Option<&'a [u8; 32]>,
}

/// A blob that is to be loaded. The host has checked its hashes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Blob<'a> {
    /// From its envelope.
    pub meta: BlobMeta<'a>,
    /// Name and content, in the order written.
    pub sections: Vec<(&'a str, &'a [u8])>,
    /// SHA-256 of those sections that several blobs of the program have, by name. See [`Blob::share_hash`].
    pub shared: Vec<(&'a str, &'a [u8; 32])>,
    /// The device that the user chose, an index of [`crate::Delegate::devices`]; `None`: the delegate chooses. A host may name one
    /// that there is not: refuse it with `NOT_FOUND`.
    pub device: Option<u32>,
    pub(crate) owner: RawOwner,
}

impl<'a> Blob<'a> {
    /// The content of a section.
    ///
    /// # Errors
    /// There is no such section.
    pub fn section(&self, name: &str) -> Result<&'a [u8], Error> {
        self.sections
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, bytes)| *bytes)
            .ok_or_else(|| missing(name))
    }

    /// The SHA-256 of a section that several blobs of the program have: sessions of equal hashes may keep one copy of what they make of
    /// it. `None`: nobody else has the section, or the host is older than ABI 0.2.
    pub fn share_hash(&self, name: &str) -> Option<&'a [u8; 32]> {
        let mut found = self.shared.iter().filter(|(n, _)| *n == name);
        found.next().map(|(_, hash)| *hash)
    }

    /// Keeps the bytes of all sections beyond [`crate::Run::load`], where they lie, until the result is dropped: in the mapped file, where the
    /// host has it mapped. A session that reads what was packed for it in place has it in memory once, and copies nothing when it is loaded.
    ///
    /// # Errors
    /// `UNSUPPORTED`: this host does not keep them, as one that is older than ABI 1.1. Copy what is needed, then.
    ///
    /// # Examples
    ///
    /// ```
    /// use delegraph_sdk::{Blob, Error, KeptBlob};
    ///
    /// enum Packed {
    ///     InPlace(KeptBlob),
    ///     Copied(Vec<u8>),
    /// }
    ///
    /// impl Packed {
    ///     fn of(blob: &Blob<'_>) -> Result<Packed, Error> {
    ///         match blob.keep() {
    ///             Ok(kept) => Ok(Packed::InPlace(kept)),
    ///             Err(_) => Ok(Packed::Copied(blob.section("packed")?.to_vec())),
    ///         }
    ///     }
    ///
    ///     fn bytes(&self) -> Result<&[u8], Error> {
    ///         match self {
    ///             Packed::InPlace(kept) => kept.section("packed"),
    ///             Packed::Copied(bytes) => Ok(bytes),
    ///         }
    ///     }
    /// }
    /// ```
    pub fn keep(&self) -> Result<KeptBlob, Error> {
        let sections = self.sections.iter().map(|(name, bytes)| (*name, *bytes));
        Ok(KeptBlob {
            bytes: self.owner.keep(sections)?,
        })
    }
}

/// The bytes of a blob's sections, kept beyond the load. They are given back when it is dropped, which may be on any thread, and after the
/// session is gone, but not after the delegate is. Share one among sessions in an `Arc`.
pub struct KeptBlob {
    bytes: KeptBytes,
}

impl KeptBlob {
    /// The content of a section, at the place and the alignment that it had in [`Blob::section`].
    ///
    /// # Errors
    /// There is no such section.
    pub fn section(&self, name: &str) -> Result<&[u8], Error> {
        self.bytes.section(name).ok_or_else(|| missing(name))
    }
}

impl fmt::Debug for KeptBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptBlob").finish_non_exhaustive()
    }
}

fn missing(name: &str) -> Error {
    Error::corrupt(format!("the blob has no section `{name}`"))
}
