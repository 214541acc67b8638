//! Mutants: blind ones, and ones that keep the outer form so that they get deep.

mod bytes;
mod json;
mod pt2;
mod text;

use crate::Random;

/// How inputs of a target are changed. Each kind also changes bytes blindly now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Bits, bytes, offsets and lengths.
    Bytes,
    /// The tree of a JSON text.
    Json,
    /// `u64` length, that many bytes of JSON, data: the form of safetensors.
    LengthJson,
    /// Lines, numbers and strings of a text.
    Text,
    /// Members of an archive: the JSON of programs and tables, pickles, names.
    Pt2,
}

/// A changed copy of `seed`; `other` is what parts may be taken from.
pub fn mutate(kind: Mutation, seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let formed = match kind {
        Mutation::Bytes => None,
        _ if random.one_in(8) => None,
        Mutation::Json => json::mutate(seed, random),
        Mutation::LengthJson => json::mutate_after_length(seed, random),
        Mutation::Text => text::mutate(seed, random),
        Mutation::Pt2 => pt2::mutate(seed, random),
    };
    formed.unwrap_or_else(|| bytes::mutate(seed, other, random))
}
