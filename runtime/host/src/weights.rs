//! Weights as delegates see them: by id, mapped in place, shared by key.

use crate::Weights;
use delegraph_abi::{Status, c};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Weights as a delegate holds them. It lives in an `Arc`, of which each `weight_retain` takes one count more.
pub(crate) struct WeightsHandle {
    source: WeightsSource,
    retained: AtomicUsize,
}

enum WeightsSource {
    /// Of the call that runs; the handle dies with it.
    Borrowed(*const dyn Weights),
    Shared(Arc<dyn Weights>),
}

// SAFETY: `Weights` is Sync, and a borrowed one is read during the call that borrows it only.
unsafe impl Send for WeightsHandle {}
// SAFETY: as above.
unsafe impl Sync for WeightsHandle {}

impl WeightsHandle {
    pub fn shared(weights: Arc<dyn Weights>) -> Arc<WeightsHandle> {
        Arc::new(WeightsHandle {
            source: WeightsSource::Shared(weights),
            retained: AtomicUsize::new(0),
        })
    }

    /// # Safety
    /// The handle is dropped before `weights` is.
    pub unsafe fn borrowed(weights: &dyn Weights) -> Arc<WeightsHandle> {
        // SAFETY: only the lifetime is changed, and the caller promises that it is kept.
        let weights: &'static dyn Weights =
            unsafe { std::mem::transmute::<&dyn Weights, &'static dyn Weights>(weights) };
        Arc::new(WeightsHandle {
            source: WeightsSource::Borrowed(weights),
            retained: AtomicUsize::new(0),
        })
    }

    pub fn as_ptr(self: &Arc<Self>) -> *mut c::Weights {
        Arc::as_ptr(self).cast_mut().cast()
    }

    fn source(&self) -> &dyn Weights {
        match &self.source {
            // SAFETY: the handle lives no longer than what it borrows.
            WeightsSource::Borrowed(weights) => unsafe { &**weights },
            WeightsSource::Shared(weights) => &**weights,
        }
    }
}

pub(crate) unsafe extern "C" fn weight_map(
    weights: *const c::Weights,
    id: u32,
    out_data: *mut *const u8,
    out_size: *mut u64,
) -> Status {
    // SAFETY: the delegate passes the handle that it was given, and valid outputs.
    unsafe {
        let Some(handle) = weights.cast::<WeightsHandle>().as_ref() else {
            return Status::INVALID_ARGUMENT;
        };
        if out_data.is_null() || out_size.is_null() {
            return Status::INVALID_ARGUMENT;
        }
        let Some(bytes) = handle.source().bytes(id) else {
            return Status::NOT_FOUND;
        };
        out_data.write(bytes.as_ptr());
        out_size.write(bytes.len() as u64);
        Status::OK
    }
}

pub(crate) unsafe extern "C" fn weight_retain(weights: *const c::Weights) -> Status {
    // SAFETY: as in `weight_map`; the handle lies in an `Arc`.
    unsafe {
        let pointer = weights.cast::<WeightsHandle>();
        match pointer.as_ref() {
            None => Status::INVALID_ARGUMENT,
            Some(handle) => match handle.source {
                WeightsSource::Borrowed(_) => Status::UNSUPPORTED,
                WeightsSource::Shared(_) => {
                    handle.retained.fetch_add(1, Ordering::Relaxed);
                    Arc::increment_strong_count(pointer);
                    Status::OK
                }
            },
        }
    }
}

pub(crate) unsafe extern "C" fn weight_release(weights: *const c::Weights) {
    // SAFETY: as in `weight_map`; a count is given back only if one was taken.
    unsafe {
        let pointer = weights.cast::<WeightsHandle>();
        let taken = |n: usize| n.checked_sub(1);
        let released = pointer.as_ref().is_some_and(|handle| {
            let update = handle.retained.fetch_update(Ordering::AcqRel, Ordering::Relaxed, taken);
            update.is_ok()
        });
        if released {
            Arc::decrement_strong_count(pointer);
        }
    }
}

pub(crate) unsafe extern "C" fn weight_unmap(weights: *const c::Weights, id: u32) {
    // SAFETY: as in `weight_map`.
    if let Some(handle) = unsafe { weights.cast::<WeightsHandle>().as_ref() } {
        handle.source().unmap(id);
    }
}

pub(crate) unsafe extern "C" fn weight_share_key(weights: *const c::Weights, id: u32, out_key: *mut u64) -> Status {
    // SAFETY: as in `weight_map`; the output has room for two words.
    unsafe {
        let Some(handle) = weights.cast::<WeightsHandle>().as_ref() else {
            return Status::INVALID_ARGUMENT;
        };
        if out_key.is_null() {
            return Status::INVALID_ARGUMENT;
        }
        if handle.source().bytes(id).is_none() {
            return Status::NOT_FOUND;
        }
        let Some(key) = handle.source().share_key(id) else {
            return Status::UNSUPPORTED;
        };
        out_key.cast::<[u64; 2]>().write_unaligned(key);
        Status::OK
    }
}
