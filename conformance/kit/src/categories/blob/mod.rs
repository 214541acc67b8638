//! Compiled blobs: judged, damaged, foreign, loaded elsewhere.
//!
//! The host checks the hash of a blob's bytes before a delegate sees them. A delegate can therefore not be blamed for wrong numbers of a
//! blob in which one bit is another: how many positions give such is measured, and no more. That it crashes, hangs or writes out of bounds
//! is a failure all the same, since blobs are files that people bring.

mod check;
mod compiled;
mod damage;
mod set;

use crate::case::{Case, case};
pub use compiled::digests_of;

/// The cases.
pub const CASES: &[Case] = &[
    case(
        "blob/reproducible",
        "Compiling a graph in two processes gives the same bytes: hashes and signatures of models count on it (guide.md).",
        compiled::reproducible,
    ),
    case(
        "blob/reproducible-again",
        "Compiling a graph again in the same process gives the same bytes, in one instance and in two (a warning).",
        compiled::reproducible_again,
    ),
    case(
        "blob/shape-of-it",
        "A blob has at least one section; requirements and states name tensors and states of the graph.",
        compiled::shape_of_it,
    ),
    case(
        "blob/check-own",
        "`blob_check` of a delegate's own blob says OPTIMAL or RECOMPILE_BETTER, once.",
        check::own,
    ),
    case(
        "blob/check-foreign",
        "`blob_check` of a blob of another delegate or form does not say that it runs here; NOT_MINE is the word for it.",
        check::foreign,
    ),
    case(
        "blob/check-newer-format",
        "`blob_check` of a later version of the delegate's form does not say OPTIMAL.",
        check::newer,
    ),
    case(
        "blob/check-driver",
        "`blob_check` of a blob for other drivers does not say OPTIMAL, where the delegate stated a range when it compiled.",
        check::driver,
    ),
    case(
        "blob/check-target",
        "`blob_check` of a blob for a target that the manifest does not name does not say OPTIMAL (a warning).",
        check::target,
    ),
    case(
        "blob/check-same",
        "`blob_check` gives one verdict of the contract, with a reason unless it is OPTIMAL, and the same one each time.",
        check::same,
    ),
    case(
        "blob/load-elsewhere",
        "A blob loads in another instance, after a new beginning, and after its compiler's end, and gives the same results.",
        compiled::load_elsewhere,
    ),
    case(
        "blob/compile-set",
        "Graphs that are compiled together give one blob each, which is sound, loads by itself and is right; so does one graph alone. A write that the host refuses fails the call.",
        set::together,
    ),
    case(
        "blob/flipped-bits",
        "A blob in which a bit is another is refused, or runs to some result or status, in bounds. Wrong numbers are counted, not judged.",
        damage::flipped,
    )
    .limit(60),
    case(
        "blob/truncated",
        "A blob that is cut short anywhere is refused, or runs to some result or status, in bounds.",
        damage::truncated,
    ),
    case(
        "blob/extended",
        "A blob with more bytes than were written is refused, or gives the right result.",
        damage::extended,
    ),
    case(
        "blob/garbage",
        "Bytes that are no blob at all are not loaded and run: random ones, zeros, none, no sections.",
        damage::garbage,
    ),
    case(
        "blob/sections-changed",
        "A blob whose sections are missing, renamed, doubled or in another order is refused, or gives the right result.",
        damage::sections_changed,
    ),
    case(
        "blob/of-another-graph",
        "A blob with the metadata of another graph is refused, or runs as what its sections say; its tensors are not guessed.",
        damage::other_graph,
    ),
    case(
        "blob/weights-missing",
        "Weights that the host does not have fail the load or the run.",
        damage::weights_missing,
    ),
];
