//! For which families of processors the CPU delegate's blobs were compiled, and what they hold for each. Nothing of it runs.

use crate::output::bytes;
use delegraph_abi::envelope;
use delegraph_cpu::families::Families;
use delegraph_pte::Verified;
use delegraph_pte::overlay::{OVERLAY_KEY, Overlay, Region, section_key};
use std::collections::HashSet;

/// Bytes of weights that the programs of the same families read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Packed {
    /// Their names; none: they are not recorded.
    pub families: Vec<String>,
    /// Bytes of the sections.
    pub bytes: u64,
}

impl Packed {
    /// `1.2 MB of weights for avx2, neon`
    pub fn line(&self) -> String {
        format!("{} of weights for {}", bytes(self.bytes), names(&self.families))
    }
}

/// `avx2, neon`
pub fn names(families: &[String]) -> String {
    match families {
        [] => "a family that is not recorded".to_string(),
        families => families.join(", "),
    }
}

/// What is found so far.
#[derive(Default)]
pub struct Found {
    /// In the order of the file.
    pub packed: Vec<Packed>,
    /// Blobs and shared sections that were counted.
    seen: HashSet<String>,
}

impl Found {
    /// Of all blobs of a program, what several of them share counted once. Blobs that cannot be read are passed over.
    pub fn of_file(file: &[u8]) -> Found {
        let mut found = Found::default();
        let Ok(verified) = Verified::parse(file) else {
            return found;
        };
        let overlay = verified.named(file, OVERLAY_KEY);
        let overlay: Overlay = overlay
            .and_then(|json| serde_json::from_slice(json).ok())
            .unwrap_or_default();
        for region in overlay.methods.iter().flat_map(|method| &method.regions) {
            found.add_region(region, &verified, file);
        }
        found
    }

    /// Counts the blobs of a region, and says for which families each of its programs was compiled.
    pub fn add_region(&mut self, region: &Region, verified: &Verified, file: &[u8]) -> Vec<Vec<String>> {
        let bucketed = region.bucketed.iter().map(|entry| &entry.candidate);
        let mut programs = Vec::new();
        for candidate in region.candidates.iter().chain(bucketed) {
            let blob = verified.named(file, &candidate.blob).unwrap_or_default();
            programs.extend(
                self.add(&candidate.blob, blob, &|key| verified.named(file, key))
                    .unwrap_or_default(),
            );
        }
        programs.dedup();
        programs
    }

    /// Counts a blob; `None`: it is not one of the CPU delegate, or cannot be read.
    fn add<'a>(
        &mut self,
        key: &str,
        blob: &'a [u8],
        named: &dyn Fn(&str) -> Option<&'a [u8]>,
    ) -> Option<Vec<Vec<String>>> {
        let mut envelope = envelope::parse(blob).ok()?;
        if envelope.meta.format != delegraph_cpu::FORMAT {
            return None;
        }
        envelope.resolve(&|hash| named(&section_key(hash))).ok()?;
        let sections: Vec<(&str, &[u8])> = envelope.sections.iter().map(|s| (s.name, s.bytes)).collect();
        let families = Families::of(&sections).ok()?;
        let is_new = self.seen.insert(key.to_string());
        for (at, (name, section)) in sections.iter().enumerate() {
            let readers = families
                .programs
                .iter()
                .filter(|entry| entry.weights.iter().any(|w| w == name));
            let mut readers = readers.peekable();
            let is_first = match envelope.share_hash(at) {
                Some(hash) => self.seen.insert(section_key(hash)),
                None => is_new,
            };
            if readers.peek().is_none() || !is_first {
                continue;
            }
            let of: Vec<String> = readers.flat_map(|entry| entry.families.iter().cloned()).collect();
            match self.packed.iter_mut().find(|packed| packed.families == of) {
                Some(packed) => packed.bytes += section.len() as u64,
                None => self.packed.push(Packed {
                    families: of,
                    bytes: section.len() as u64,
                }),
            }
        }
        Some(families.programs.into_iter().map(|entry| entry.families).collect())
    }
}
