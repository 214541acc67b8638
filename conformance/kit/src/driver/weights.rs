//! The host's weights, read-only and with a guard behind each.

use crate::driver::sys::memory::{Guarded, Place};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Weights by id.
#[derive(Default)]
pub struct HostWeights {
    items: BTreeMap<u32, Guarded>,
    /// `weight_retain` less `weight_release`.
    pub(crate) retained: AtomicI64,
    /// Calls of `weight_map`.
    pub(crate) mapped: AtomicU64,
}

impl HostWeights {
    /// Weights with these bytes.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn new<'a>(items: impl IntoIterator<Item = (u32, &'a [u8])>) -> Result<HostWeights, String> {
        HostWeights::placed(items, Place::End, 64)
    }

    /// The same somewhere else. The contract promises no alignment of weights.
    ///
    /// # Errors
    /// As [`HostWeights::new`].
    pub fn placed<'a>(
        items: impl IntoIterator<Item = (u32, &'a [u8])>,
        place: Place,
        align: usize,
    ) -> Result<HostWeights, String> {
        let items = items.into_iter().map(|(id, bytes)| {
            let mut memory = Guarded::new(bytes.len(), place, align)?;
            memory.fill(bytes);
            memory.protect()?;
            Ok((id, memory))
        });
        Ok(HostWeights {
            items: items.collect::<Result<_, String>>()?,
            ..HostWeights::default()
        })
    }

    /// Makes all of them untouchable, as memory that was given back is.
    ///
    /// # Errors
    /// The system refuses.
    pub fn close(&self) -> Result<(), String> {
        self.items.values().try_for_each(Guarded::close_shared)
    }

    pub(crate) fn get(&self, id: u32) -> Option<&Guarded> {
        self.items.get(&id)
    }

    /// How often the delegate retained them more than it released them. 0 once all its sessions are gone.
    pub fn retained(&self) -> i64 {
        self.retained.load(Ordering::SeqCst)
    }

    /// How often weights were mapped.
    pub fn mapped(&self) -> u64 {
        self.mapped.load(Ordering::SeqCst)
    }
}
