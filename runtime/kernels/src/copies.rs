//! Copies that keep the shape: clone, conversion to another dtype or dimension order, copy into, row by row.

use crate::complex::convert_or_drop;
use crate::join::fill;
use crate::registry::Kernel;
use crate::stage::{dims_of, expect_dtype};
use crate::strided::Move;
use crate::views::{View, expanded, fetch};
use crate::wide::convert;
use crate::{Call, KernelError, Out, Tensor};
use alloc::format;
use delegraph_types::Scalar;

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::clone.out", clone),
    ("aten::alias_copy.out", clone),
    ("aten::detach_copy.out", clone),
    ("aten::lift_fresh_copy.out", clone),
    ("dim_order_ops::_clone_dim_order.out", clone),
    ("et_copy::_h2d_copy.out", clone),
    ("et_copy::_d2h_copy.out", clone),
    ("aten::_to_copy.out", to_copy),
    ("dim_order_ops::_to_dim_order_copy.out", to_copy),
    ("dim_order_ops::_empty_dim_order.out", empty_dim_order),
    ("aten::copy.out", copy),
    ("aten::copy_", copy_in_place),
    ("executorch_prim::et_copy_index.tensor", copy_index),
];

fn clone(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    fetch(&source, &View::all(source.sizes(), source.strides()), call.out(0)?)
}

/// The output's own dtype and dimension order say what to convert to.
fn to_copy(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let out = call.out(0)?;
    out.resize(source.sizes())?;
    assign(&source, out)
}

/// Writes `source`, broadcast and converted, to all of the output.
///
/// # Errors
/// It does not broadcast to the output's sizes, or cannot be converted.
pub(crate) fn assign(source: &Tensor, out: &mut Out) -> Result<(), KernelError> {
    let view = expanded(&View::all(source.sizes(), source.strides()), out.sizes())?;
    let plan = Move::of(&view.sizes, &view.strides, &out.strides())?;
    let dtype = out.dtype();
    let to = (dtype, out.bytes_mut(), 0);
    match source.dtype().is_complex() && source.dtype() != dtype {
        true => convert_or_drop(&plan, (source.dtype(), source.bytes(), 0), to),
        false => convert(&plan, (source.dtype(), source.bytes(), 0), to),
    }
}

fn empty_dim_order(call: &mut Call) -> Result<(), KernelError> {
    let sizes = dims_of(call.ints(0)?, "size")?;
    let out = call.out(0)?;
    out.resize(&sizes)?;
    fill(out, Scalar::Bool(false))
}

fn copy(call: &mut Call) -> Result<(), KernelError> {
    let (like, source) = (call.tensor(0)?, call.tensor(1)?);
    let out = call.out(0)?;
    expect_dtype(out, 0, like.dtype())?;
    out.resize(like.sizes())?;
    assign(&source, out)
}

fn copy_in_place(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(1)?;
    assign(&source, call.out(0)?)
}

/// ExecuTorch's loop body of map and scan: `copy_to` grows to `index + 1` rows, and the last one is set.
fn copy_index(call: &mut Call) -> Result<(), KernelError> {
    let (source, index) = (call.tensor(1)?, call.int(2)?);
    let out = call.out(0)?;
    expect_dtype(out, 0, source.dtype())?;
    let mut sizes = *out.sizes();
    if sizes.rank() == 0 || sizes[1..] != source.sizes()[..] {
        return Err(KernelError::invalid(
            "copy_from",
            format!("{} is no row of {sizes}", source.sizes()),
        ));
    }
    if index < 0 {
        return Err(KernelError::invalid("index", format!("row {index}")));
    }
    sizes[0] = index.saturating_add(1);
    let sizes = dims_of(&sizes, "index")?;
    let row_major = out.is_contiguous();
    out.resize(&sizes)?;
    if !row_major {
        // Rows already written would move when the tensor grows.
        return Err(KernelError::unsupported(
            "copy_to",
            "a dimension order other than row-major",
        ));
    }
    let row = View::all(&sizes, &out.strides()).select(0, index)?;
    let plan = Move::of(source.sizes(), source.strides(), &row.strides)?;
    plan.copy_bytes(source.dtype().size(), source.bytes(), 0, out.bytes_mut(), row.offset)
}
