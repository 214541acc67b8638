//! Blobs of delegates. One that several candidates have is written once, and so is a section that several blobs have.

use crate::EmitError;
use delegraph_abi::envelope::{self, Envelope};
use delegraph_pte::overlay::section_key;
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// Bytes from which on a section is worth a segment of its own.
const LEAST_SHARED: usize = 4096;
/// Most sections of a blob that lie elsewhere: so many files go to a worker's process with it.
const MOST_SHARED: usize = 64;

/// The blobs of a file, by key.
#[derive(Default)]
pub(crate) struct Blobs<'a> {
    items: Vec<(String, &'a [u8])>,
    key_of: FxHashMap<&'a [u8], usize>,
}

/// What is written of the blobs: key, alignment, bytes.
pub(crate) type Written<'a> = Vec<(String, u32, Cow<'a, [u8]>)>;

impl<'a> Blobs<'a> {
    /// The key of a blob, and whether it is new.
    pub(crate) fn add(&mut self, blob: &'a [u8]) -> (String, bool) {
        let next = self.items.len();
        let at = *self.key_of.entry(blob).or_insert(next);
        if at == next {
            self.items.push((format!("delegraph.blob.{next}"), blob));
        }
        (self.items[at].0.clone(), at == next)
    }

    /// The blobs, and the sections that several of them have.
    pub(crate) fn finish(self) -> Result<Written<'a>, EmitError> {
        let parsed: Vec<Option<Envelope<'a>>> = self.items.iter().map(|(_, blob)| envelope::parse(blob).ok()).collect();
        // Only sections of equal size can be equal.
        let mut of_size: FxHashMap<usize, u32> = FxHashMap::default();
        let large = |envelope: &Envelope<'a>| -> Vec<(usize, &'a [u8])> {
            let sections = envelope.sections.iter().enumerate();
            let large = sections.filter(|(_, section)| section.bytes.len() >= LEAST_SHARED);
            large.map(|(at, section)| (at, section.bytes)).collect()
        };
        for (_, bytes) in parsed.iter().flatten().flat_map(large) {
            *of_size.entry(bytes.len()).or_default() += 1;
        }
        let mut times: FxHashMap<[u8; 32], u32> = FxHashMap::default();
        let mut hashes: Vec<Vec<(usize, [u8; 32])>> = Vec::with_capacity(parsed.len());
        for envelope in &parsed {
            let sections = envelope.as_ref().map_or_else(Vec::new, large);
            let again = sections.into_iter().filter(|(_, bytes)| of_size[&bytes.len()] > 1);
            let own: Vec<(usize, [u8; 32])> = again.map(|(at, bytes)| (at, Sha256::digest(bytes).into())).collect();
            own.iter().for_each(|(_, hash)| *times.entry(*hash).or_default() += 1);
            hashes.push(own);
        }
        let mut written: Written<'a> = Vec::with_capacity(self.items.len());
        let mut shared: Vec<(String, u32, Cow<'a, [u8]>)> = Vec::new();
        let mut place_of: FxHashMap<[u8; 32], usize> = FxHashMap::default();
        for (((key, blob), envelope), mut apart) in self.items.into_iter().zip(parsed).zip(hashes) {
            apart.retain(|(_, hash)| times[hash] > 1);
            apart.truncate(MOST_SHARED);
            let align = envelope
                .as_ref()
                .map_or(BLOB_ALIGN, |envelope| blob_align(envelope, &apart));
            let Some(envelope) = envelope.filter(|envelope| !apart.is_empty() && envelope.apart.is_empty()) else {
                written.push((key, align, Cow::Borrowed(blob)));
                continue;
            };
            for (at, hash) in &apart {
                let section = &envelope.sections[*at];
                let place = *place_of.entry(*hash).or_insert_with(|| {
                    shared.push((section_key(hash), BLOB_ALIGN, Cow::Borrowed(section.bytes)));
                    shared.len() - 1
                });
                shared[place].1 = shared[place].1.max(section.align);
            }
            let sha256 = |bytes: &[u8]| Sha256::digest(bytes).into();
            let blob = envelope::write_apart(&envelope.meta, &envelope.sections, &apart, sha256);
            let blob = blob.map_err(|error| EmitError::Write(format!("the blob `{key}`: {error}")))?;
            written.push((key, align, Cow::Owned(blob)));
        }
        written.extend(shared);
        Ok(written)
    }
}

/// What blobs and their shared sections lie at, at least.
const BLOB_ALIGN: u32 = 64;

/// What a blob lies at in the file, so that each of its own sections, which lie aligned in the blob, lies aligned in the file too: a map of the
/// file is read in place. `apart` are those that are written elsewhere.
fn blob_align(envelope: &Envelope<'_>, apart: &[(usize, [u8; 32])]) -> u32 {
    let sections = envelope.sections.iter().enumerate();
    let own = sections.filter(|(at, _)| !apart.iter().any(|(other, _)| other == at));
    own.fold(BLOB_ALIGN, |align, (_, section)| align.max(section.align))
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_abi::envelope::{Meta, Section};

    fn blob(name: &str, sections: &[(&str, &[u8])]) -> Vec<u8> {
        let aligned: Vec<(&str, u32, &[u8])> = sections.iter().map(|(name, bytes)| (*name, 16, *bytes)).collect();
        blob_of(name, &aligned)
    }

    fn blob_of(name: &str, sections: &[(&str, u32, &[u8])]) -> Vec<u8> {
        let meta = Meta {
            delegate: name.to_string(),
            ..Meta::default()
        };
        let sections: Vec<Section<'_>> = sections
            .iter()
            .map(|&(name, align, bytes)| Section { name, align, bytes })
            .collect();
        envelope::write(&meta, &sections, |bytes| Sha256::digest(bytes).into()).unwrap()
    }

    #[test]
    fn what_two_blobs_have_is_written_once() {
        let (large, other, small) = (vec![7; 4096], vec![8; 4096], vec![9; 4095]);
        let first = blob("a", &[("weights", &large), ("code", &small), ("own", &other)]);
        let second = blob("b", &[("code", &small), ("w", &large)]);
        let mut blobs = Blobs::default();
        assert_eq!(blobs.add(&first), ("delegraph.blob.0".to_string(), true));
        assert_eq!(blobs.add(&second), ("delegraph.blob.1".to_string(), true));
        assert_eq!(blobs.add(&first), ("delegraph.blob.0".to_string(), false));
        let written = blobs.finish().unwrap();
        let hash: [u8; 32] = Sha256::digest(&large).into();
        let keys: Vec<&str> = written.iter().map(|(key, ..)| key.as_str()).collect();
        assert_eq!(keys, ["delegraph.blob.0", "delegraph.blob.1", &section_key(&hash)]);
        assert_eq!(written[2].2, large);
        for (at, original) in [(0, &first), (1, &second)] {
            assert!(written[at].2.len() + 4000 < original.len());
            let mut read = envelope::parse(&written[at].2).unwrap();
            assert_eq!(read.apart.len(), 1, "the smaller sections stay where they are");
            assert!(envelope::parse(&written[at].2).unwrap().resolve(&|_| None).is_err());
            assert!(read.resolve(&|_| Some(&small)).is_err(), "of another size");
            read.resolve(&|asked| (*asked == hash).then_some(&large)).unwrap();
            let whole = envelope::parse(original).unwrap();
            assert_eq!((&read.meta, &read.sections), (&whole.meta, &whole.sections));
            assert!(read.payload_size() > whole.payload_size() - 64);
        }
    }

    #[test]
    fn what_one_blob_has_stays_in_it() {
        let first = blob("a", &[("weights", &[7; 5000])]);
        let second = blob("b", &[("weights", &[8; 5000])]);
        let mut blobs = Blobs::default();
        blobs.add(&first);
        blobs.add(&second);
        blobs.add(b"no envelope");
        let written = blobs.finish().unwrap();
        let bytes: Vec<&[u8]> = written.iter().map(|(.., bytes)| &**bytes).collect();
        assert_eq!(bytes, [&first[..], &second, b"no envelope"]);
    }

    #[test]
    fn sections_lie_aligned_in_the_file() {
        let (packed, page, shared) = (vec![1; 100], vec![2; 5000], vec![3; 4096]);
        let first = blob_of(
            "a",
            &[("code", 1, &[9; 3]), ("packed", 64, &packed), ("shared", 256, &shared)],
        );
        let second = blob_of(
            "b",
            &[("page", 4096, &page), ("code", 1, &[8; 5]), ("shared", 512, &shared)],
        );
        let third = blob_of("c", &[("packed", 32, &packed)]);
        let mut blobs = Blobs::default();
        for blob in [&first, &second, &third] {
            blobs.add(blob);
        }
        let written = blobs.finish().unwrap();
        let aligns: Vec<u32> = written.iter().map(|(_, align, _)| *align).collect();
        assert_eq!(
            aligns,
            [64, 4096, 64, 512],
            "three blobs, and the section that two of them have"
        );
        let named: Vec<(String, u32, &[u8])> = written
            .iter()
            .map(|(key, align, b)| (key.clone(), *align, &**b))
            .collect();
        let parts = delegraph_pte::ProgramParts {
            plans: &[],
            constants: &[],
            mutable_states: &[],
            named: &named,
        };
        let mut file = Vec::new();
        delegraph_pte::write(&parts, &mut file).unwrap();
        let offset = |bytes: &[u8]| {
            let found = file.windows(bytes.len()).position(|window| window == bytes);
            found.expect("it is in the file")
        };
        for (key, align, bytes) in &written {
            let start = offset(bytes);
            assert!(start.is_multiple_of(*align as usize), "{key} lies at {start}");
            let Ok(envelope) = envelope::parse(bytes) else { continue };
            for section in envelope.sections.iter().filter(|section| !section.bytes.is_empty()) {
                let at = start + (section.bytes.as_ptr().addr() - bytes.as_ptr().addr());
                assert!(
                    at.is_multiple_of(section.align as usize),
                    "{key}, `{}` at {at}",
                    section.name
                );
            }
        }
    }
}
