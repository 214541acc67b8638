//! What is computed in f16 already, and what is still exact.
//!
//! f32 becomes f16 where it enters a graph. An operator that rounds nothing (it moves, selects, compares) would give rounded numbers for
//! exact ones there, and be worth little: it stays on the host. Behind one that computes, and so rounds to f16 anyway, nothing is lost, and
//! it is taken. f16, integers and quantized numbers are never rounded, and what is made of integers is exact.

use crate::caps::Refusal;
use delegraph_sdk::DType;
use delegraph_sdk::image::{ImageView, NodeView, Source, ValueIndex};
use std::cell::OnceCell;
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
    "native_channel_shuffle",
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

/// Operators that take a mean off their numbers, without namespace and overload: f32 that lies far from 0 beside its spread is rounded to
/// little more than nothing of that by f16.
const CENTERED: &[&str] = &[
    "group_norm",
    "instance_norm",
    "layer_norm",
    "native_group_norm",
    "native_layer_norm",
];

/// An operator without its namespace and overload.
fn base(op: &str) -> &str {
    let name = op.split_once("::").map_or(op, |(_, name)| name);
    name.split_once('.').map_or(name, |(name, _)| name)
}

/// True if an operator rounds nothing.
pub fn is_exact(op: &str) -> bool {
    EXACT.binary_search(&base(op)).is_ok()
}

/// True for floats that integers of 16 bits stand for.
fn is_from_16_bits(image: &ImageView<'_>, value: ValueIndex) -> bool {
    match image.value(value).source() {
        Source::Node(index) => {
            let node = image.node(index);
            base(node.op()) == "dequantize_per_tensor" && is_of_16_bits(image, node.arg(0).value())
        }
        _ => false,
    }
}

/// Which values are of f16, while the nodes of an image are asked about in their order.
#[derive(Debug, Default)]
pub struct Flow {
    /// Computed in f16: what is moved with them may be rounded.
    rounded: HashSet<ValueIndex>,
    /// Made of other types, and exact in f16.
    exact: HashSet<ValueIndex>,
    /// What some node reads; found when it is asked for.
    read: OnceCell<HashSet<ValueIndex>>,
}

/// True for integers of 16 bits.
fn is_of_16_bits(image: &ImageView<'_>, value: Option<ValueIndex>) -> bool {
    let dtype = value.and_then(|value| image.value(value).dtype());
    matches!(dtype, Some(DType::I16 | DType::U16))
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
        let few_bits = match base(node.op()) {
            // On the way out of the graph it is done by the host, and exact.
            "dequantize_per_tensor" => {
                is_of_16_bits(&image, node.arg(0).value())
                    && node.outputs().iter().any(|value| self.is_read(&image, value))
            }
            "quantize_per_tensor" => is_of_16_bits(&image, node.outputs().get(0)) && self.is_behind(node),
            _ => node.inputs().any(|value| is_from_16_bits(&image, value)),
        };
        if few_bits {
            return Err(Refusal::dtype("integers of 16 bits have more of them than f16 keeps"));
        }
        if CENTERED.contains(&base(node.op())) {
            let x = node.arg(0).value();
            let given =
                x.is_some_and(|x| is_single(&image, x) && !self.rounded.contains(&x) && !self.exact.contains(&x));
            return match given {
                false => Ok(()),
                true => Err(Refusal::dtype(
                    "it takes a mean off f32 that nobody has computed in f16, which may leave little of it there",
                )),
            };
        }
        if !rounds_nothing(node) {
            return Ok(());
        }
        // From f32 to f16 the rounding is what the program asks for.
        let halves = node
            .outputs()
            .iter()
            .all(|v| image.value(v).dtype() == Some(DType::F16));
        let singles: Vec<ValueIndex> = node.inputs().filter(|value| is_single(&image, *value)).collect();
        let exact = singles.iter().all(|value| self.exact.contains(value));
        match halves || exact || self.is_behind(node) {
            true => Ok(()),
            false => Err(Refusal::dtype(
                "it rounds nothing, and f32 that nobody has computed in f16 would be rounded to it",
            )),
        }
    }

    fn is_read(&self, image: &ImageView<'_>, value: ValueIndex) -> bool {
        let all = || image.nodes().flat_map(|node| node.inputs()).collect();
        self.read.get_or_init(all).contains(&value)
    }

    /// True if a node reads what was computed in f16.
    fn is_behind(&self, node: &NodeView<'_>) -> bool {
        node.inputs().any(|value| self.rounded.contains(&value))
    }

    /// A node was taken: what it makes of f32 is of f16 from here on.
    pub fn take(&mut self, node: &NodeView<'_>) {
        let image = node.image();
        let singles = node.outputs().iter().filter(|value| is_single(&image, *value));
        match rounds_nothing(node) && !self.is_behind(node) {
            true => self.exact.extend(singles),
            false => self.rounded.extend(singles),
        }
    }
}

/// True if a node rounds nothing: an operator that never does, or a product by a power of two.
fn rounds_nothing(node: &NodeView<'_>) -> bool {
    let scales = matches!(
        node.op(),
        "aten::mul.Tensor" | "aten::mul.Scalar" | "aten::div.Tensor" | "aten::div.Scalar"
    );
    let number = || node.arg(1).float().or(node.arg(1).int().map(|i| i as f64));
    is_exact(node.op()) || (scales && number().is_some_and(is_power_of_two))
}

fn is_power_of_two(number: f64) -> bool {
    number.is_normal() && number.to_bits() & ((1 << 52) - 1) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_sdk::image::{Arg, ImageBuilder, Type, verify};

    #[test]
    fn operators_are_found() {
        assert!(EXACT.is_sorted());
        assert!(is_power_of_two(-0.25) && is_power_of_two(8.0) && !is_power_of_two(3.0) && !is_power_of_two(0.0));
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
