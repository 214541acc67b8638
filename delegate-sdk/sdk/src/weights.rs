//! Weights of a graph. Their bytes are the host's.

use crate::Error;
use crate::sys::RawWeights;
use std::marker::PhantomData;

/// Weights by the id that the graph image gives them, for the length of a call.
pub struct Weights<'a> {
    raw: RawWeights,
    _call: PhantomData<&'a [u8]>,
}

impl<'a> Weights<'a> {
    pub(crate) fn new(raw: RawWeights) -> Weights<'a> {
        Weights {
            raw,
            _call: PhantomData,
        }
    }

    /// The bytes of a weight: contiguous, row-major, aligned to nothing in particular.
    ///
    /// # Errors
    /// There is no such weight.
    pub fn bytes(&self, id: u32) -> Result<&'a [u8], Error> {
        self.raw.map(id)
    }

    /// Says that the bytes of a weight are not needed in memory for now, after they were copied to a device for example: the host may
    /// drop their pages. Slices of them stay valid; reading them again may have to fetch them again. Does nothing on a host that is
    /// older than ABI 0.1.
    pub fn unmap(&self, id: u32) {
        self.raw.unmap(id);
    }

    /// Two weights of this process with the same key have the same bytes, whichever blob they belong to: keep one copy of them on the
    /// device. `None`: there is no such weight, or the host knows no key of it.
    pub fn share_key(&self, id: u32) -> Option<[u64; 2]> {
        self.raw.share_key(id)
    }

    /// Keeps the weights beyond the call, until dropped. The host grants it in `load` only.
    ///
    /// # Errors
    /// Not in `load`.
    pub fn keep(&self) -> Result<KeptWeights, Error> {
        self.raw.retain()?;
        Ok(KeptWeights { raw: self.raw })
    }
}

/// Weights that a session keeps.
pub struct KeptWeights {
    raw: RawWeights,
}

impl KeptWeights {
    /// As [`Weights::bytes`].
    ///
    /// # Errors
    /// There is no such weight.
    pub fn bytes(&self, id: u32) -> Result<&[u8], Error> {
        self.raw.map(id)
    }

    /// As [`Weights::unmap`].
    pub fn unmap(&self, id: u32) {
        self.raw.unmap(id);
    }

    /// As [`Weights::share_key`].
    pub fn share_key(&self, id: u32) -> Option<[u64; 2]> {
        self.raw.share_key(id)
    }
}

impl Drop for KeptWeights {
    fn drop(&mut self) {
        self.raw.release();
    }
}
