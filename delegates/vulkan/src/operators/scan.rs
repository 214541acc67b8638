//! Running sums and their like along a dimension.

use crate::caps::{self, Operator, Refusal};
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels::{self, Kernel};
use crate::node::Node;
use crate::operators::reduce::{accept_any, accept_sum, is_float};
use crate::operators::reduce_rows::{GROUP, code};
use crate::operators::softmax::split;
use crate::operators::sort::pick;
use crate::tensor::{Layout, Tensor};
use delegraph_sdk::image::NodeView;
use delegraph_sdk::{DType, Error};

type Encoded = Result<(), Error>;

/// Kernels for one kind of state: a row by an invocation or by a workgroup, for elements of 32 and of 16 bits.
struct Kernels {
    flat: [&'static Kernel; 2],
    group: [&'static Kernel; 2],
}

const FLOAT: Kernels = Kernels {
    flat: [&kernels::SCAN_FLOAT_FLAT, &kernels::SCAN_FLOAT_FLAT_NARROW],
    group: [&kernels::SCAN_FLOAT_GROUP, &kernels::SCAN_FLOAT_GROUP_NARROW],
};
const LOG: Kernels = Kernels {
    flat: [&kernels::SCAN_LOG_FLAT, &kernels::SCAN_LOG_FLAT_NARROW],
    group: [&kernels::SCAN_LOG_GROUP, &kernels::SCAN_LOG_GROUP_NARROW],
};
const WHOLE: Kernels = Kernels {
    flat: [&kernels::SCAN_WHOLE_FLAT; 2],
    group: [&kernels::SCAN_WHOLE_GROUP; 2],
};
const PLACE: Kernels = Kernels {
    flat: [&kernels::SCAN_PLACE_FLAT; 2],
    group: [&kernels::SCAN_PLACE_GROUP; 2],
};

fn scan(e: &mut Encoder<'_>, kernels: &Kernels, what: u32, x: &Tensor, dim: usize, out: &Tensor) -> Encoded {
    let (before, length, after) = split(&x.dims, dim);
    let rows = before * after;
    if rows == 0 || length == 0 {
        return Ok(());
    }
    let narrow = usize::from(out.element() == 2);
    let group = length > 64 && !(after > 1 && rows >= 1024);
    let (kernel, size) = match group {
        true => (kernels.group[narrow], 1),
        false => (kernels.flat[narrow], GROUP),
    };
    let params = [rows, code(x)?, code(out)?, length, after, what, length.div_ceil(GROUP)];
    e.dispatch(kernel, &[read(x), write(out)], &params, grid(rows, size))
}

/// Sum (0) or product (1), in floats or whole numbers as the output is.
fn encode_scan(node: &Node<'_>, e: &mut Encoder<'_>, what: u32) -> Encoded {
    let x = e.input(node, 0)?;
    let out = e.output(node, 0, Layout::RowMajor)?;
    let dim = node.dim(1, x.dims.len())?;
    let kernels = if is_float(out.dtype) { &FLOAT } else { &WHOLE };
    scan(e, kernels, what, &x, dim, &out)
}

fn encode_log(node: &Node<'_>, e: &mut Encoder<'_>) -> Encoded {
    let x = e.input(node, 0)?;
    let out = e.output(node, 0, Layout::RowMajor)?;
    let dim = node.dim(1, x.dims.len())?;
    scan(e, &LOG, 0, &x, dim, &out)
}

/// The largest (0) or smallest (1) so far, and where it is.
fn encode_extreme(node: &Node<'_>, e: &mut Encoder<'_>, what: u32) -> Encoded {
    let x = e.input(node, 0)?;
    let values = e.output(node, 0, Layout::RowMajor)?;
    let places = e.output(node, 1, Layout::RowMajor)?;
    let dim = node.dim(1, x.dims.len())?;
    scan(e, &PLACE, what, &x, dim, &places)?;
    pick(e, &x, dim, Ok(&places), &values)
}

/// Whole numbers come out as 32 or 64 bits.
fn accept_scan(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept_sum(node)?;
    match caps::output_dtype(node) {
        Some(out) if is_float(out) || matches!(out, DType::I32 | DType::I64) => Ok(()),
        _ => Err(Refusal::dtype(format!("`{}` in less than 32 bits", node.op()))),
    }
}

fn accept_log(node: &NodeView<'_>) -> Result<(), Refusal> {
    match (caps::dtype(node, 0), caps::output_dtype(node)) {
        (Some(x), Some(out)) if is_float(x) && x == out => Ok(()),
        _ => Err(Refusal::dtype(format!("`{}` of whole numbers", node.op()))),
    }
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::cumsum",
        accept: accept_scan,
        encode: |n, e| encode_scan(n, e, 0),
    },
    Operator {
        name: "aten::cumprod",
        accept: accept_scan,
        encode: |n, e| encode_scan(n, e, 1),
    },
    Operator {
        name: "aten::logcumsumexp",
        accept: accept_log,
        encode: encode_log,
    },
    Operator {
        name: "aten::cummax",
        accept: accept_any,
        encode: |n, e| encode_extreme(n, e, 0),
    },
    Operator {
        name: "aten::cummin",
        accept: accept_any,
        encode: |n, e| encode_extreme(n, e, 1),
    },
];
