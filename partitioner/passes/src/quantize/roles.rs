//! The operators that can stand on quantized types, and what their tensors are to them.

use delegraph_ir::{Arg, Node};
use delegraph_types::Scalar;

/// What an operator does to numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It computes: every tensor may have a scale of its own.
    Computes,
    /// It only moves or picks elements: on integers it is the same operator, if all have one scale.
    Moves,
}

/// An operator that can stand on quantized types, by the positions of its tensors among its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// What it does to numbers.
    pub kind: Kind,
    /// Activations: one scale for the whole tensor. An argument may be a list of tensors, or a number.
    pub data: &'static [usize],
    /// A weight may have a scale a slice or a block.
    pub weight: Option<usize>,
    /// A bias counts in the product of the scales of input and weight.
    pub bias: Option<usize>,
}

const fn plain(kind: Kind, data: &'static [usize]) -> Roles {
    Roles {
        kind,
        data,
        weight: None,
        bias: None,
    }
}

/// A layer with a weight: input, weight, bias.
const LAYER: Roles = Roles {
    kind: Kind::Computes,
    data: &[0],
    weight: Some(1),
    bias: Some(2),
};
/// A table of rows that indices pick from: only the table is quantized.
const TABLE: Roles = Roles {
    kind: Kind::Computes,
    data: &[],
    weight: Some(0),
    bias: None,
};
/// `bias + a @ b`
const BIASED: Roles = Roles {
    kind: Kind::Computes,
    data: &[1],
    weight: Some(2),
    bias: Some(0),
};
const PRODUCT: Roles = Roles {
    kind: Kind::Computes,
    data: &[0],
    weight: Some(1),
    bias: None,
};

/// What the tensors of an operator are to it; `None`: it cannot stand on quantized types. Only its first result is meant: the
/// others must be read by nobody.
pub fn roles_of(op: &str) -> Option<Roles> {
    Some(match op.strip_prefix("aten::")? {
        "linear"
        | "conv1d"
        | "conv1d.padding"
        | "conv2d"
        | "conv2d.padding"
        | "conv3d"
        | "conv3d.padding"
        | "convolution"
        | "conv_transpose1d"
        | "conv_transpose2d.input"
        | "conv_transpose3d.input" => LAYER,
        "addmm" => BIASED,
        "mm" | "matmul" | "bmm" | "prelu" => PRODUCT,
        "embedding" => TABLE,
        "add.Tensor" | "sub.Tensor" | "mul.Tensor" | "div.Tensor" | "maximum" | "minimum" => {
            plain(Kind::Computes, &[0, 1])
        }
        "relu"
        | "relu6"
        | "hardtanh"
        | "clamp"
        | "clamp_min"
        | "clamp_max"
        | "leaky_relu"
        | "elu"
        | "sigmoid"
        | "tanh"
        | "silu"
        | "gelu"
        | "hardswish"
        | "hardsigmoid"
        | "neg"
        | "abs"
        | "add.Scalar"
        | "sub.Scalar"
        | "mul.Scalar"
        | "div.Scalar"
        | "softmax.int"
        | "_softmax"
        | "layer_norm"
        | "native_layer_norm"
        | "group_norm"
        | "native_group_norm"
        | "instance_norm"
        | "rms_norm"
        | "mean.dim"
        | "sum.dim_IntList"
        | "avg_pool1d"
        | "avg_pool2d"
        | "adaptive_avg_pool1d"
        | "adaptive_avg_pool2d"
        | "_adaptive_avg_pool2d"
        | "upsample_bilinear2d"
        | "upsample_bilinear2d.vec" => plain(Kind::Computes, &[0]),
        "view"
        | "reshape"
        | "_unsafe_view"
        | "permute"
        | "transpose.int"
        | "t"
        | "flatten.using_ints"
        | "unflatten.int"
        | "squeeze"
        | "squeeze.dim"
        | "squeeze.dims"
        | "unsqueeze"
        | "slice.Tensor"
        | "select.int"
        | "narrow"
        | "expand"
        | "clone"
        | "contiguous"
        | "alias"
        | "flip"
        | "repeat"
        | "pixel_shuffle"
        | "constant_pad_nd"
        | "cat"
        | "stack"
        | "max_pool1d"
        | "max_pool2d"
        | "max_pool2d_with_indices"
        | "amax"
        | "amin"
        | "upsample_nearest2d"
        | "upsample_nearest2d.vec" => plain(Kind::Moves, &[0]),
        _ => return None,
    })
}

/// The limits, lower and upper, of an activation that only limits. `None`: the node is none, or its limits are not known.
pub fn limits(node: &Node) -> Option<(Option<f64>, Option<f64>)> {
    let number = |position: usize| match node.args.get(position) {
        None | Some(Arg::None) => Some(None),
        Some(arg) => arg.as_scalar().map(Scalar::as_f64).filter(|n| !n.is_nan()).map(Some),
    };
    let (low, high) = match node.op.name() {
        "aten::relu" => (Some(0.0), None),
        "aten::relu6" => (Some(0.0), Some(6.0)),
        "aten::hardtanh" | "aten::clamp" => (number(1)?, number(2)?),
        "aten::clamp_min" => (number(1)?, None),
        "aten::clamp_max" => (None, number(1)?),
        _ => return None,
    };
    let crossed = matches!((low, high), (Some(low), Some(high)) if low > high);
    (!crossed).then_some((low, high))
}
