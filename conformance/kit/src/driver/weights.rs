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
        let items = items.into_iter().map(|(id, bytes)| {
            let mut memory = Guarded::new(bytes.len(), Place::End, 64)?;
            memory.fill(bytes);
            memory.protect()?;
            Ok((id, memory))
        });
        Ok(HostWeights {
            items: items.collect::<Result<_, String>>()?,
            ..HostWeights::default()
        })
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
