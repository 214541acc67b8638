//! Compiled blobs, as they come back.

use crate::Error;

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
            .ok_or_else(|| Error::corrupt(format!("the blob has no section `{name}`")))
    }

    /// The SHA-256 of a section that several blobs of the program have: sessions of equal hashes may keep one copy of what they make of
    /// it. `None`: nobody else has the section, or the host is older than ABI 0.2.
    pub fn share_hash(&self, name: &str) -> Option<&'a [u8; 32]> {
        let mut found = self.shared.iter().filter(|(n, _)| *n == name);
        found.next().map(|(_, hash)| *hash)
    }
}
