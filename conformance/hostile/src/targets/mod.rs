//! The targets. A body takes bytes and returns on any input; it panics only where something is wrong with *us*.

mod abi;
mod model;
mod program;
mod text;

use crate::seeds;
use crate::{Mutation, Random, mutate};

/// What became of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It was read, and what follows was done.
    Read,
    /// It was refused with this message.
    Refused(String),
}

/// A parser of outside bytes, with what lies behind it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name; also the fuzz target's and the corpus folder's.
    pub name: &'static str,
    /// Feeds it. The function is called when reading is over and a run begins, which may take the memory that the program
    /// states.
    pub body: fn(&[u8], &dyn Fn()) -> Outcome,
    /// How its inputs are changed.
    pub mutation: Mutation,
    /// Mutants of the plain test.
    pub mutants: u64,
}

/// Every target.
pub const TARGETS: [Target; 20] = [
    target("pt2", model::pt2, Mutation::Pt2, 10_000),
    target("pte", program::pte, Mutation::Bytes, 12_000),
    target("ptd", program::ptd, Mutation::Bytes, 3_000),
    target("bundled", program::bundled, Mutation::Bytes, 3_000),
    target("ir_segment", model::ir_segment, Mutation::Json, 6_000),
    target("overlay", program::overlay, Mutation::Json, 4_000),
    target("origins", program::origins, Mutation::Json, 3_000),
    target("graph_image", abi::graph_image, Mutation::Bytes, 12_000),
    target("envelope", abi::envelope, Mutation::Bytes, 3_000),
    target("vulkan_plan", abi::vulkan_plan, Mutation::Bytes, 3_000),
    target("ethos_u_network", abi::ethos_u_network, Mutation::Bytes, 3_000),
    target("cpu_families", abi::cpu_families, Mutation::Bytes, 3_000),
    target("hexagon_blob", abi::hexagon_blob, Mutation::Bytes, 3_000),
    target("manifest", text::manifest, Mutation::Text, 2_000),
    target("config", text::config, Mutation::Text, 3_000),
    target("lock", text::lock, Mutation::Text, 3_000),
    target("hash_list", text::hash_list, Mutation::Text, 2_000),
    target("signature", text::signature, Mutation::Text, 2_000),
    target("elf", text::elf, Mutation::Bytes, 6_000),
    target("safetensors", text::safetensors, Mutation::LengthJson, 4_000),
];

const fn target(name: &'static str, body: fn(&[u8], &dyn Fn()) -> Outcome, mutation: Mutation, mutants: u64) -> Target {
    Target {
        name,
        body,
        mutation,
        mutants,
    }
}

/// The target of a name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// Small real inputs, each with a name.
    ///
    /// # Panics
    /// A file of the repository is missing.
    pub fn seeds(&self) -> Vec<(String, Vec<u8>)> {
        seeds::of(self.name)
    }

    /// Inputs that once failed, and others made by hand to hurt.
    ///
    /// # Panics
    /// The corpus cannot be read.
    pub fn corpus(&self) -> Vec<(String, Vec<u8>)> {
        seeds::corpus(self.name)
    }

    /// Mutant `number` of the seeds, always the same.
    pub fn mutant(&self, seeds: &[(String, Vec<u8>)], number: u64) -> Vec<u8> {
        let mut random = Random::of(self.name, number);
        let pick = |at: usize| seeds.get(at).map_or(&[][..], |(_, seed)| seed.as_slice());
        let seed = pick(number as usize % seeds.len().max(1));
        let other = pick(random.below(seeds.len()));
        mutate(self.mutation, seed, other, &mut random)
    }
}

/// The outcome of an error of the public crate: on a bad file, the command line must end with 2 or 3.
fn refused(error: &delegraph::Error) -> Outcome {
    assert!(
        matches!(error.exit_code(), 2 | 3),
        "exit code {} for a bad file: {error}",
        error.exit_code()
    );
    let message = error.to_string();
    assert!(!message.trim().is_empty(), "an error without a message");
    Outcome::Refused(message)
}
