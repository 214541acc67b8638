//! What is computed in f16 already, and what is still exact.
//!
//! f32 becomes f16 where it enters a graph. An operator that rounds nothing (it moves, selects, compares) would give rounded numbers for
//! exact ones there, and be worth little: it stays on the host. Behind one that computes, and so rounds to f16 anyway, nothing is lost, and
//! it is taken. f16, integers and quantized numbers are never rounded.

use crate::caps::Refusal;
use delegraph_sdk::DType;
use delegraph_sdk::image::{ImageView, NodeView, ValueIndex};
use std::collections::HashSet;

/// Operators that round nothing, without their namespace and overload.
const EXACT: &[&str] = &[
    "_to_copy",
    "_unsafe_view",
    "abs",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "alias",
    "alias_copy",
    "amax",
    "amin",
    "argmax",
    "argmin",
    "cat",
    "ceil",
    "channel_shuffle",
    "chunk",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clone",
    "concat",
    "constant_pad_nd",
    "contiguous",
    "convert_element_type",
    "detach",
    "detach_copy",
    "embedding",
    "eq",
    "expand",
    "expand_as",
    "expand_copy",
    "flatten",
    "flip",
    "floor",
    "gather",
    "ge",
    "gt",
    "hardshrink",
    "hardtanh",
    "index",
    "index_copy",
    "index_put",
    "index_select",
    "isinf",
    "isnan",
    "le",
    "lift_fresh_copy",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "lt",
    "masked_fill",
    "max",
    "max_pool1d",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_pool3d",
    "maximum",
    "min",
    "minimum",
    "narrow",
    "ne",
    "neg",
    "pad",
    "permute",
    "permute_copy",
    "pixel_shuffle",
    "pixel_unshuffle",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "relu",
    "relu6",
    "repeat",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
    "reshape",
    "reshape_as",
    "roll",
    "round",
    "scatter",
    "select",
    "select_copy",
    "select_scatter",
    "sign",
    "slice",
    "slice_copy",
    "slice_scatter",
    "split",
    "split_copy",
    "split_with_sizes",
    "split_with_sizes_copy",
    "squeeze",
    "squeeze_copy",
    "stack",
    "swapaxes",
    "t",
    "take_along_dim",
    "threshold",
    "tile",
    "to",
    "topk",
    "transpose",
    "transpose_copy",
    "tril",
    "triu",
    "trunc",
    "type_as",
    "unbind",
    "unflatten",
    "unsqueeze",
    "unsqueeze_copy",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "view",
    "view_as",
    "view_copy",
    "where",
];

/// True if an operator rounds nothing.
pub fn is_exact(op: &str) -> bool {
    let name = op.split_once("::").map_or(op, |(_, name)| name);
    let name = name.split_once('.').map_or(name, |(name, _)| name);
    EXACT.binary_search(&name).is_ok()
}

/// Which values are rounded to f16, while the nodes of an image are asked about in their order.
#[derive(Debug, Default)]
pub struct Flow {
    rounded: HashSet<ValueIndex>,
}

fn is_single(image: &ImageView<'_>, value: ValueIndex) -> bool {
    let view = image.value(value);
    view.dtype() == Some(DType::F32) && view.quant().is_none()
}

impl Flow {
    /// Whether a node keeps the promise that nothing exact is rounded.
    ///
    /// # Errors
    /// It does not.
    pub fn check(&self, node: &NodeView<'_>) -> Result<(), Refusal> {
        let image = node.image();
        if !is_exact(node.op()) {
            return Ok(());
        }
        // From f32 to f16 the rounding is what the program asks for.
        let halves = node
            .outputs()
            .iter()
            .all(|v| image.value(v).dtype() == Some(DType::F16));
        let mut singles = node.inputs().filter(|value| is_single(&image, *value)).peekable();
        let rounds = singles.peek().is_some() && !halves && !singles.any(|value| self.rounded.contains(&value));
        match rounds {
            false => Ok(()),
            true => Err(Refusal::dtype(
                "it rounds nothing, and f32 that nobody has computed in f16 would be rounded to it",
            )),
        }
    }

    /// A node was taken: what it makes of f32 is of f16 from here on.
    pub fn take(&mut self, node: &NodeView<'_>) {
        let image = node.image();
        let singles = node.outputs().iter().filter(|value| is_single(&image, *value));
        self.rounded.extend(singles);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_sdk::image::{Arg, ImageBuilder, Type, verify};

    #[test]
    fn operators_are_found() {
        assert!(EXACT.is_sorted());
        assert!(is_exact("aten::slice.Tensor") && is_exact("aten::view") && !is_exact("aten::add.Tensor"));
    }

    #[test]
    fn moves_are_taken_behind_what_computes() {
        let mut image = ImageBuilder::new("g");
        let four = image.int(4);
        let ty = Type::tensor(DType::F32, &[four]);
        let x = image.input("x", &ty);
        let moved = image.node("before", "aten::relu", &[Arg::Value(x)], &[("m", &ty)], "")[0];
        let computed = image.node("tanh", "aten::tanh", &[Arg::Value(moved)], &[("c", &ty)], "")[0];
        let last = image.node("behind", "aten::relu", &[Arg::Value(computed)], &[("l", &ty)], "")[0];
        image.output(last);
        let bytes = image.finish().unwrap();
        let view = verify(&bytes).unwrap();
        let mut flow = Flow::default();
        let mut verdicts = Vec::new();
        for node in view.nodes() {
            let verdict = flow.check(&node).is_ok();
            if verdict {
                flow.take(&node);
            }
            verdicts.push(verdict);
        }
        assert_eq!(verdicts, [false, true, true]);
    }
}
