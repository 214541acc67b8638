//! Files that were truncated, flipped or made to hurt, and what must happen with them: each is read or refused, without a
//! panic, a hang, or memory that the file's own size does not justify.
//!
//! A [`Target`] is one parser of outside bytes with everything behind it that a hostile file can reach. Its body is written
//! once and called by the fuzz targets (`runtime/fuzz`) and by a plain test that replays the corpus and seeded mutants. This
//! crate knows no delegate.
//!
//! ```
//! use delegraph_hostile::{Outcome, find};
//!
//! let target = find("manifest").unwrap();
//! assert!(matches!((target.body)(b"nonsense", &|| {}), Outcome::Refused(_)));
//! let (name, seed) = &target.seeds()[0];
//! assert!(matches!((target.body)(seed, &|| {}), Outcome::Read), "{name}");
//! let mutant = target.mutant(&target.seeds(), 7);
//! (target.body)(&mutant, &|| {});
//! ```

mod mutate;
mod random;
mod seeds;
mod targets;
pub mod zip;

pub use mutate::{Mutation, mutate};
pub use random::Random;
pub use targets::{Outcome, TARGETS, Target, find};
