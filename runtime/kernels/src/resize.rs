//! `resize`: another shape over the same elements.
//!
//! The first elements in row-major order stay, as many as both shapes hold. PyTorch leaves what a tensor grows by unspecified;
//! here it is zeros, so that no result depends on what was in memory before.

use crate::registry::Kernel;
use crate::stage::{Arena, bytes_of, dims_of, expect_dtype, parts};
use crate::strided::Move;
use crate::{Call, KernelError};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[("aten::resize.out", resize), ("aten::resize_", resize_in_place)];

/// `(self, size, memory_format)`
fn resize(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let sizes = dims_of(call.ints(1)?, "size")?;
    check_format(call)?;
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, source.dtype())?;
    out.resize(&sizes)?;
    let width = source.dtype().size();
    let (old, new) = (source.numel() * width, sizes.numel().unwrap_or(0) * width);
    let gather = Move::of(source.sizes(), source.strides(), &source.sizes().contiguous_strides())?;
    let mut arena = Arena::new(scratch, bytes_of::<u8>(old).saturating_add(bytes_of::<u8>(new)))?;
    let (kept, grown) = (arena.take::<u8>(old)?, arena.take::<u8>(new)?);
    gather.copy_bytes(width, source.bytes(), 0, kept, 0)?;
    let both = old.min(new);
    grown[..both].copy_from_slice(&kept[..both]);
    grown[both..].fill(0);
    let scatter = Move::of(&sizes, &sizes.contiguous_strides(), &out.strides())?;
    scatter.copy_bytes(width, grown, 0, out.bytes_mut(), 0)
}

/// The same over the memory of the argument itself.
fn resize_in_place(call: &mut Call) -> Result<(), KernelError> {
    let sizes = dims_of(call.ints(1)?, "size")?;
    check_format(call)?;
    let out = call.out(0)?;
    let straight = out.is_contiguous();
    let old = out.bytes_mut().len();
    out.resize(&sizes)?;
    if !straight || !out.is_contiguous() {
        return Err(KernelError::unsupported("self", "a tensor that is not row-major"));
    }
    if let Some(grown) = out.bytes_mut().get_mut(old..) {
        grown.fill(0);
    }
    Ok(())
}

/// Only the row-major format: 0, or the tensor's own.
fn check_format(call: &Call) -> Result<(), KernelError> {
    match call.optional_int(2)? {
        None | Some(0 | 1) => Ok(()),
        Some(other) => Err(KernelError::unsupported(
            "memory_format",
            alloc::format!("format {other}"),
        )),
    }
}
