//! The conformance kit: judges a delegate from its binary.
//!
//! A [`case::Case`] is a function that is given the [`subject::Subject`] (a library, and its manifest where it has one) and says what is
//! wrong with it. It runs in a process of its own. Cases of numbers go through all of Delegraph, as an app would ([`numerics`]); the others
//! talk to the library through [`driver`], a host that is made for testing: it hands over what no other host would, lets its own functions
//! fail on request, puts guard pages around what it lends, and notes each call that breaks the contract.
//!
//! Reading order: [`subject`], [`case`], [`driver`], [`workload`] (graphs that a delegate may take), [`stateful`] (those with
//! states), [`categories`], [`registry`] (every case by its id), [`lists`] (which of them make a list).

pub mod call;
pub mod case;
pub mod categories;
pub mod driver;
pub mod file;
pub mod leaf;
pub mod lists;
pub mod numerics;
pub mod registry;
pub mod stateful;
pub mod subject;
pub mod support;
mod usage;
pub mod workload;

pub use categories::blob::digests_of;
use sha2::Digest;

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}
