//! The host's weights.

use super::{HostTable, RawCall, bytes, host_function};
use crate::{Error, Status};
use delegraph_abi::c;

/// The host's weights.
#[derive(Clone, Copy)]
pub(crate) struct RawWeights {
    weights: *const c::Weights,
    host: HostTable,
}

// SAFETY: the contract lets every host function be called from any thread; the pointer is only passed to them.
unsafe impl Send for RawWeights {}
// SAFETY: as above.
unsafe impl Sync for RawWeights {}

impl RawWeights {
    /// `weights` may be NULL: there are none then.
    pub fn new(weights: *const c::Weights, call: &RawCall) -> RawWeights {
        RawWeights {
            weights,
            host: call.host(),
        }
    }

    /// The bytes live as long as the handle does: [`crate::Weights`] and [`crate::KeptWeights`] give them their lifetimes.
    pub fn map<'a>(&self, id: u32) -> Result<&'a [u8], Error> {
        let missing = || Error::new(Status::NOT_FOUND, format!("there is no weight {id}"));
        let map = host_function!(self.host, weight_map)
            .filter(|_| !self.weights.is_null())
            .ok_or_else(missing)?;
        let (mut data, mut size) = (std::ptr::null(), 0);
        // SAFETY: the handle is alive, see above; both outputs are valid for writes.
        let status = unsafe { map(self.weights, id, &mut data, &mut size) };
        if status != Status::OK {
            return Err(missing());
        }
        // SAFETY: on OK the host gives bytes that live as long as the handle.
        Ok(unsafe { bytes(data, size) })
    }

    pub fn retain(&self) -> Result<(), Error> {
        let refused = || Error::new(Status::UNSUPPORTED, "the host keeps weights only for what `load` makes");
        let retain = host_function!(self.host, weight_retain)
            .filter(|_| !self.weights.is_null())
            .ok_or_else(refused)?;
        // SAFETY: the handle is alive.
        match unsafe { retain(self.weights) } {
            Status::OK => Ok(()),
            _ => Err(refused()),
        }
    }

    pub fn release(&self) {
        if let Some(release) = host_function!(self.host, weight_release) {
            // SAFETY: called once for each `retain`, by the drop of what it made.
            unsafe { release(self.weights) }
        }
    }

    pub fn unmap(&self, id: u32) {
        if let Some(unmap) = host_function!(self.host, weight_unmap).filter(|_| !self.weights.is_null()) {
            // SAFETY: the handle is alive. The bytes stay valid as long as it does, so nothing that `map` gave dangles.
            unsafe { unmap(self.weights, id) }
        }
    }

    pub fn share_key(&self, id: u32) -> Option<[u64; 2]> {
        let find = host_function!(self.host, weight_share_key).filter(|_| !self.weights.is_null())?;
        let mut key = [0; 2];
        // SAFETY: the handle is alive; the output has room for two words.
        let status = unsafe { find(self.weights, id, key.as_mut_ptr()) };
        (status == Status::OK).then_some(key)
    }
}
