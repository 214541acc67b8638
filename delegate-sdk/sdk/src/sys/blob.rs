//! What holds a blob's bytes on the host's side.

use super::{HostTable, RawCall, host_function};
use crate::{Error, Status};
use delegraph_abi::c;

/// What holds the bytes of the blob that is being loaded.
#[derive(Clone, Copy)]
pub(crate) struct RawOwner {
    owner: *const c::BlobOwner,
    host: HostTable,
}

// SAFETY: the contract lets every host function be called from any thread; the pointer is only passed to them.
unsafe impl Send for RawOwner {}
// SAFETY: as above.
unsafe impl Sync for RawOwner {}

impl std::fmt::Debug for RawOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:p}", self.owner)
    }
}

impl RawOwner {
    /// `owner` may be NULL: nothing can be kept then.
    pub fn new(owner: *const c::BlobOwner, call: &RawCall) -> RawOwner {
        RawOwner {
            owner,
            host: call.host(),
        }
    }

    /// Keeps these sections of the blob, which the host gave.
    pub fn keep<'s>(&self, sections: impl Iterator<Item = (&'s str, &'s [u8])>) -> Result<KeptBytes, Error> {
        let refused = || Error::new(Status::UNSUPPORTED, "the host does not keep the bytes of this blob");
        // Both, or what was kept could not be given back.
        let retain = host_function!(self.host, blob_retain)
            .filter(|_| !self.owner.is_null() && host_function!(self.host, blob_release).is_some())
            .ok_or_else(refused)?;
        // SAFETY: the load that it was given to has not returned: a `Blob` lives no longer.
        match unsafe { retain(self.owner) } {
            Status::OK => Ok(KeptBytes {
                owner: *self,
                sections: sections
                    .map(|(name, bytes)| (name.to_string(), std::ptr::from_ref(bytes)))
                    .collect(),
            }),
            _ => Err(refused()),
        }
    }
}

/// Sections whose bytes the host keeps until it is dropped.
pub(crate) struct KeptBytes {
    owner: RawOwner,
    sections: Vec<(String, *const [u8])>,
}

// SAFETY: the bytes are only read, by everybody; the contract lets them be given back on any thread.
unsafe impl Send for KeptBytes {}
// SAFETY: as above.
unsafe impl Sync for KeptBytes {}

impl KeptBytes {
    pub fn section(&self, name: &str) -> Option<&[u8]> {
        let mut found = self.sections.iter().filter(|(n, _)| n == name);
        // SAFETY: the host keeps the bytes at their place, and nobody writes them, until they are given back when this is dropped.
        found.next().map(|(_, bytes)| unsafe { &**bytes })
    }
}

impl Drop for KeptBytes {
    fn drop(&mut self) {
        if let Some(release) = host_function!(self.owner.host, blob_release) {
            // SAFETY: called once for the `blob_retain` that made this; borrows of the bytes are over.
            unsafe { release(self.owner.owner) }
        }
    }
}
