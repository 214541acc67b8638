//! Graphs, images and tensors that are odd, or that no host would give.
//!
//! Three kinds. Images that [`delegraph_abi::image::verify`] accepts may reach a delegate, whatever they say: it refuses them or runs them, in
//! bounds; a crash or hang is a failure. Images that it does not accept never come from a host in order ("graph image, verified by the host"),
//! and neither do tensors of a wrong number, dtype or rank: cases of those are *hardening*, where a crash or hang counts as a quality warning.

mod execute;
mod mutants;
mod odd;

use crate::case::{Case, case};

/// The cases.
pub const CASES: &[Case] = &[
    case(
        "bad-input/odd-sizes",
        "Tensors of rank 0 and 16, of no elements and of more than any machine holds are refused or computed.",
        odd::sizes,
    ),
    case(
        "bad-input/odd-attributes",
        "Strides, dimensions, counts and numbers that an operator cannot have are refused, or computed in bounds.",
        odd::attributes,
    ),
    case(
        "bad-input/odd-arguments",
        "Nodes with too few or too many arguments, and arguments of another kind than the operator's schema has.",
        odd::arguments,
    ),
    case(
        "bad-input/odd-dtypes",
        "Operators over element types that they do not have, and results of another type than their operands give.",
        odd::dtypes,
    ),
    case(
        "bad-input/odd-results",
        "Nodes whose results have other sizes, or another number, than the operator gives: outputs are written up to their largest sizes.",
        odd::results,
    ),
    case(
        "bad-input/odd-graphs",
        "Graphs without inputs, with outputs that are inputs, weights or the same value twice, with hundreds of inputs and long lists.",
        odd::whole,
    ),
    case(
        "bad-input/newer-image",
        "Unknown tables, longer records, a longer header and directory are stepped over: the answers are those without them.",
        mutants::newer,
    ),
    case(
        "bad-input/newer-major",
        "An image of another major is another format: it is refused, unless `image_version` of `dg_delegate_info` says that it is read.",
        mutants::newer_major,
    ),
    case(
        "bad-input/mutants",
        "Images in which numbers were changed at random and that a host accepts are refused, or computed in bounds.",
        mutants::verified,
    )
    .limit(60),
    case(
        "bad-input/broken-images",
        "Images that are cut short or damaged, which no host in order hands over, do not end the process.",
        mutants::unverified,
    )
    .limit(60)
    .hardening(),
    case(
        "bad-input/indices",
        "Indices, read at run time, that lie outside of what they index are refused, or read nothing outside.",
        execute::indices,
    ),
    case(
        "bad-input/tensor-sizes",
        "Inputs whose sizes are outside of their bounds are DG_E_SHAPE_OUT_OF_RANGE, and outputs stay in their bounds.",
        execute::sizes,
    ),
    case(
        "bad-input/numbers",
        "NaN, infinities and subnormal numbers as inputs do not fail a run or end the process.",
        execute::numbers,
    ),
    case(
        "bad-input/tensors-wrong",
        "Tensors of a wrong number, dtype or rank, or without bytes, which no host in order hands over, do not end the process.",
        execute::wrong,
    )
    .hardening(),
];
