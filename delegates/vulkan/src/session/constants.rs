//! Constants on the device. Sessions of a device whose weights have the same key share one copy.

use super::upload::Upload;
use super::{Opened, run};
use crate::compile::pack;
use crate::packing::Key;
use crate::program::Plan;
use crate::schedule::{Packed as PackedConstant, Schedule, Source};
use crate::sys::{Buffer, lock};
use delegraph_sdk::{Context, Error, KeptWeights, Weights};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

/// Whose bytes: the key of the host's, and the form.
type SharedKey = ([u64; 2], Option<(String, Vec<u32>)>);

/// Constants that are on a device, for as long as a session has them.
#[derive(Default)]
pub struct Shared(Mutex<HashMap<SharedKey, Weak<Buffer>>>);

impl Shared {
    fn find(&self, key: &SharedKey) -> Option<Arc<Buffer>> {
        lock(&self.0).get(key)?.upgrade()
    }

    /// Shares a buffer, or finds that another session was faster.
    fn offer(&self, key: SharedKey, buffer: Arc<Buffer>) -> Arc<Buffer> {
        let mut all = lock(&self.0);
        all.retain(|_, known| known.strong_count() > 0);
        if let Some(known) = all.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        all.insert(key, Arc::downgrade(&buffer));
        buffer
    }
}

/// The host's weights, in `load` or later.
pub enum Host<'a> {
    Call(&'a Weights<'a>),
    Kept(&'a KeptWeights),
}

impl Host<'_> {
    fn bytes(&self, id: u32) -> Result<&[u8], Error> {
        match self {
            Host::Call(weights) => weights.bytes(id),
            Host::Kept(weights) => weights.bytes(id),
        }
    }

    fn unmap(&self, id: u32) {
        match self {
            Host::Call(weights) => weights.unmap(id),
            Host::Kept(weights) => weights.unmap(id),
        }
    }

    fn share_key(&self, id: u32) -> Option<[u64; 2]> {
        match self {
            Host::Call(weights) => weights.share_key(id),
            Host::Kept(weights) => weights.share_key(id),
        }
    }
}

/// The packed constants of a blob.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    pub plan: &'a Plan,
    pub section: &'a [u8],
}

impl<'a> Packed<'a> {
    fn find(&self, key: &Key) -> Result<Option<&'a [u8]>, Error> {
        let Some((_, place)) = self.plan.constants.iter().find(|(known, _)| known == key) else {
            return Ok(None);
        };
        let end = place.offset.checked_add(place.bytes);
        let bytes = end.and_then(|end| self.section.get(place.offset as usize..end as usize));
        let bytes = bytes.ok_or_else(|| Error::corrupt("a packed constant ends beyond its section"))?;
        Ok(Some(bytes))
    }
}

/// One that is to be uploaded.
struct Wanted<'s> {
    /// Size of the storage; 0: that of the bytes.
    size: u64,
    weight: u32,
    /// `None`: as the host has it.
    form: Option<(Key, Option<&'s PackedConstant>)>,
}

/// Constants of a session.
pub struct Constants {
    device: Arc<Opened>,
    weights: HashMap<u32, Arc<Buffer>>,
    packed: HashMap<Key, Arc<Buffer>>,
    kept: Option<KeptWeights>,
}

impl Constants {
    /// None yet.
    pub fn new(device: &Arc<Opened>) -> Constants {
        Constants {
            device: Arc::clone(device),
            weights: HashMap::new(),
            packed: HashMap::new(),
            kept: None,
        }
    }

    /// Keeps the host's weights, for sizes that need others than those that are here by now.
    pub fn keep(&mut self, weights: KeptWeights) {
        self.kept = Some(weights);
    }

    /// A weight as the host has it.
    pub fn weight(&self, id: u32) -> Result<&Arc<Buffer>, Error> {
        let found = self.weights.get(&id);
        found.ok_or_else(|| Error::internal(format!("weight {id} is not on the device")))
    }

    /// A weight in another form.
    pub fn packed(&self, key: &Key) -> Result<&Arc<Buffer>, Error> {
        let found = self.packed.get(key);
        found.ok_or_else(|| {
            Error::internal(format!(
                "weight {} is not on the device as `{}`",
                key.weight, key.packing
            ))
        })
    }

    /// Brings what a schedule needs, in `load`.
    pub fn bring(
        &mut self,
        schedule: &Schedule,
        host: &Host<'_>,
        packed: &Packed<'_>,
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let wanted = self.missing(schedule)?;
        self.upload(wanted, host, Some(packed), context)
    }

    /// Brings what a schedule needs, after `load`.
    pub fn bring_kept(&mut self, schedule: &Schedule, context: &Context<'_>) -> Result<(), Error> {
        let wanted = self.missing(schedule)?;
        if wanted.is_empty() {
            return Ok(());
        }
        let kept = self.kept.take();
        let outcome = match &kept {
            Some(kept) => self.upload(wanted, &Host::Kept(kept), None, context),
            None => Err(Error::internal("the weights were not kept")),
        };
        self.kept = kept;
        outcome
    }

    /// Brings all packed constants of a blob.
    pub fn bring_packed(&mut self, host: &Host<'_>, packed: &Packed<'_>, context: &Context<'_>) -> Result<(), Error> {
        let keys = packed.plan.constants.iter().map(|(key, _)| key);
        let wanted = keys
            .filter(|key| !self.packed.contains_key(*key))
            .map(|key| Wanted {
                size: 0,
                weight: key.weight,
                form: Some((key.clone(), None)),
            })
            .collect();
        self.upload(wanted, host, Some(packed), context)
    }

    fn missing<'s>(&self, schedule: &'s Schedule) -> Result<Vec<Wanted<'s>>, Error> {
        let mut wanted = Vec::new();
        for storage in &schedule.storages {
            match &storage.source {
                Source::Weight(id) if !self.weights.contains_key(id) => wanted.push(Wanted {
                    size: storage.bytes,
                    weight: *id,
                    form: None,
                }),
                Source::Packed(index) => {
                    let constant = schedule.packed.get(*index);
                    let constant = constant.ok_or_else(|| Error::internal("no such constant"))?;
                    if !self.packed.contains_key(&constant.key) {
                        wanted.push(Wanted {
                            size: storage.bytes,
                            weight: constant.key.weight,
                            form: Some((constant.key.clone(), Some(constant))),
                        });
                    }
                }
                _ => {}
            }
        }
        Ok(wanted)
    }

    fn upload(
        &mut self,
        wanted: Vec<Wanted<'_>>,
        host: &Host<'_>,
        packed: Option<&Packed<'_>>,
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let device = Arc::clone(&self.device);
        let mut upload = Upload::beside(&device.gpu, wanted.iter().map(|w| w.size).sum())?;
        let mut made = Vec::new();
        let total = wanted.len() as u64;
        for (at, one) in wanted.into_iter().enumerate() {
            run::in_time(context)?;
            context.progress(at as u64, total, "weights to the device");
            let form = one
                .form
                .as_ref()
                .map(|(key, _)| (key.packing.clone(), key.arguments.clone()));
            let shared = host.share_key(one.weight).map(|key| (key, form));
            let known = shared.as_ref().and_then(|key| device.shared.find(key));
            let (buffer, shared) = match known {
                Some(buffer) => (buffer, None),
                None => {
                    let bytes: Cow<'_, [u8]> = match &one.form {
                        None => Cow::Borrowed(host.bytes(one.weight)?),
                        Some((key, constant)) => match (packed.map(|p| p.find(key)).transpose()?.flatten(), constant) {
                            (Some(bytes), _) => Cow::Borrowed(bytes),
                            // This device lowers otherwise than the compiler expected.
                            (None, Some(constant)) => Cow::Owned(pack(constant, host.bytes(one.weight)?)?),
                            (None, None) => return Err(Error::internal("no such constant")),
                        },
                    };
                    (upload.buffer(one.size, &bytes)?, shared)
                }
            };
            made.push((one.weight, one.form.map(|(key, _)| key), buffer, shared));
        }
        upload.finish()?;
        for (weight, form, buffer, shared) in made {
            host.unmap(weight);
            let buffer = match shared {
                Some(key) => device.shared.offer(key, buffer),
                None => buffer,
            };
            match form {
                Some(key) => self.packed.insert(key, buffer),
                None => self.weights.insert(weight, buffer),
            };
        }
        Ok(())
    }
}
