//! View operators as copies: each describes where the elements of its result lie in its input, and one [`Move`] fetches them.

use crate::registry::Kernel;
use crate::stage::{Arena, bytes_of, dim_of, dims_of, expect_dtype, parts};
use crate::strided::{Axis, Move};
use crate::{Call, KernelError, Out, Tensor};
use alloc::format;
use delegraph_types::{Dims, MAX_RANK};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::view_copy.out", view_copy),
    ("aten::_unsafe_view.out", view_copy),
    ("executorch_prim::et_view.default", view_copy),
    ("aten::permute_copy.out", permute_copy),
    ("aten::transpose_copy.int_out", transpose_copy),
    ("aten::t_copy.out", t_copy),
    ("aten::expand_copy.out", expand_copy),
    ("aten::slice_copy.Tensor_out", slice_copy),
    ("aten::narrow_copy.out", narrow_copy),
    ("aten::select_copy.int_out", select_copy),
    ("aten::squeeze_copy.out", squeeze_copy),
    ("aten::squeeze_copy.dim_out", squeeze_copy),
    ("aten::squeeze_copy.dims_out", squeeze_copy),
    ("aten::unsqueeze_copy.out", unsqueeze_copy),
    ("aten::diagonal_copy.out", diagonal_copy),
    ("aten::unfold_copy.out", unfold_copy),
    ("aten::as_strided_copy.out", as_strided_copy),
    ("aten::flip.out", flip),
    ("aten::rot90.out", rot90),
];

/// A window on a tensor's elements: strides may be negative or zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// Sizes of the window.
    pub sizes: Dims,
    /// Strides in elements of the tensor looked at.
    pub strides: Dims,
    /// The element that the window starts at.
    pub offset: usize,
}

impl View {
    /// All of it.
    pub fn all(sizes: &Dims, strides: &Dims) -> View {
        View {
            sizes: *sizes,
            strides: *strides,
            offset: 0,
        }
    }

    /// `[start, end)` of a dimension, every `step`; bounds are clamped as Python's.
    ///
    /// # Errors
    /// No such dimension, or the step is not positive.
    pub fn slice(mut self, dim: i64, start: Option<i64>, end: Option<i64>, step: i64) -> Result<View, KernelError> {
        let d = dim_of(&self.sizes, dim, "dim")?;
        if self.sizes.rank() == 0 {
            return Err(KernelError::invalid("self", "a 0-dim tensor cannot be sliced"));
        }
        if step <= 0 {
            return Err(KernelError::invalid("step", format!("step {step} is not positive")));
        }
        let size = self.sizes[d];
        let clamp = |at: i64, low: i64| (if at < 0 { at.saturating_add(size) } else { at }).clamp(low, size);
        let start = clamp(start.unwrap_or(0), 0);
        let end = clamp(end.unwrap_or(i64::MAX), 0).max(start);
        self.advance(start, self.strides[d]);
        self.sizes[d] = (end - start) / step + i64::from((end - start) % step != 0);
        self.strides[d] = self.strides[d].saturating_mul(step);
        Ok(self)
    }

    /// One index of a dimension, which goes away.
    ///
    /// # Errors
    /// No such dimension or index.
    pub fn select(mut self, dim: i64, index: i64) -> Result<View, KernelError> {
        let d = dim_of(&self.sizes, dim, "dim")?;
        if self.sizes.rank() == 0 {
            return Err(KernelError::invalid(
                "self",
                "nothing can be selected from a 0-dim tensor",
            ));
        }
        let size = self.sizes[d];
        let at = if index < 0 { index.saturating_add(size) } else { index };
        if !(0..size).contains(&at) {
            return Err(KernelError::invalid(
                "index",
                format!("index {index} is out of range for dimension {d} of size {size}"),
            ));
        }
        self.advance(at, self.strides[d]);
        self.sizes.remove(d);
        self.strides.remove(d);
        Ok(self)
    }

    /// The diagonal of two dimensions, which go away, as a new last dimension.
    ///
    /// # Errors
    /// No such dimensions, or the same one twice.
    pub fn diagonal(mut self, offset: i64, dim1: i64, dim2: i64) -> Result<View, KernelError> {
        let (d1, d2) = (dim_of(&self.sizes, dim1, "dim1")?, dim_of(&self.sizes, dim2, "dim2")?);
        if d1 == d2 {
            return Err(KernelError::invalid("dim2", format!("dimension {d1} is given twice")));
        }
        let (rows, columns) = (self.sizes[d1], self.sizes[d2]);
        let (row, column) = if offset >= 0 {
            (0, offset)
        } else {
            (offset.saturating_neg(), 0)
        };
        let length = rows.saturating_sub(row).min(columns.saturating_sub(column)).max(0);
        if length > 0 {
            self.advance(row, self.strides[d1]);
            self.advance(column, self.strides[d2]);
        }
        let stride = self.strides[d1].saturating_add(self.strides[d2]);
        for dims in [&mut self.sizes, &mut self.strides] {
            dims.remove(d1.max(d2));
            dims.remove(d1.min(d2));
        }
        push(&mut self.sizes, length)?;
        push(&mut self.strides, stride)?;
        Ok(self)
    }

    /// A dimension backwards.
    fn reversed(mut self, d: usize) -> View {
        let steps = (self.sizes[d] - 1).max(0);
        self.advance(steps, self.strides[d]);
        self.strides[d] = self.strides[d].saturating_neg();
        self
    }

    /// Strides of an empty tensor may be anything: what they wrap to is never read.
    fn advance(&mut self, steps: i64, stride: i64) {
        self.offset = self.offset.wrapping_add(steps.wrapping_mul(stride) as usize);
    }
}

/// Copies a window of `source` to the output, which takes its sizes.
///
/// # Errors
/// The output has another dtype or does not fit.
pub(crate) fn fetch(source: &Tensor, view: &View, out: &mut Out) -> Result<(), KernelError> {
    expect_dtype(out, 0, source.dtype())?;
    out.resize(&view.sizes)?;
    let plan = Move::of(&view.sizes, &view.strides, &out.strides())?;
    plan.copy_bytes(source.dtype().size(), source.bytes(), view.offset, out.bytes_mut(), 0)
}

/// Copies `source` to the output along axes that its sizes and the output's strides give.
///
/// # Errors
/// The output has another dtype or does not fit.
pub(crate) fn fetch_axes<const N: usize>(
    source: &Tensor,
    sizes: &Dims,
    out: &mut Out,
    axes: impl FnOnce(&Dims) -> ([Axis; N], usize),
) -> Result<(), KernelError> {
    expect_dtype(out, 0, source.dtype())?;
    out.resize(sizes)?;
    if sizes.numel() == Some(0) {
        return Ok(());
    }
    let (axes, used) = axes(&out.strides());
    let plan = Move::new(axes.into_iter().take(used))?;
    plan.copy_bytes(source.dtype().size(), source.bytes(), 0, out.bytes_mut(), 0)
}

fn emit(call: &mut Call, view: impl FnOnce(View) -> Result<View, KernelError>) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let view = view(View::all(source.sizes(), source.strides()))?;
    fetch(&source, &view, call.out(0)?)
}

/// Fills in a size of -1.
fn inferred(size: &[i64], numel: usize) -> Result<Dims, KernelError> {
    let mut dims = Dims::new(size).map_err(|error| KernelError::invalid("size", format!("{error}")))?;
    let open = size.iter().position(|&s| s == -1);
    if let Some(at) = open {
        dims[at] = 1;
        let known = dims.numel().unwrap_or(0);
        if known == 0 || !numel.is_multiple_of(known) {
            return Err(KernelError::invalid(
                "size",
                format!("-1 cannot be inferred for {numel} elements and the other sizes {dims}"),
            ));
        }
        dims[at] = (numel / known) as i64;
    }
    if dims.numel() != Some(numel) {
        return Err(KernelError::invalid(
            "size",
            format!("size {dims} does not hold {numel} elements"),
        ));
    }
    Ok(dims)
}

fn view_copy(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let sizes = inferred(call.ints(1)?, source.numel())?;
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, source.dtype())?;
    out.resize(&sizes)?;
    let width = source.dtype().size();
    let flat = source.sizes().contiguous_strides();
    if source.is_contiguous() {
        let plan = Move::of(&sizes, &sizes.contiguous_strides(), &out.strides())?;
        return plan.copy_bytes(width, source.bytes(), 0, out.bytes_mut(), 0);
    }
    let gather = Move::of(source.sizes(), source.strides(), &flat)?;
    if out.is_contiguous() {
        return gather.copy_bytes(width, source.bytes(), 0, out.bytes_mut(), 0);
    }
    let bytes = source.numel() * width;
    let row_major = Arena::new(scratch, bytes_of::<u8>(bytes))?.take::<u8>(bytes)?;
    gather.copy_bytes(width, source.bytes(), 0, row_major, 0)?;
    let plan = Move::of(&sizes, &sizes.contiguous_strides(), &out.strides())?;
    plan.copy_bytes(width, row_major, 0, out.bytes_mut(), 0)
}

fn permute_copy(call: &mut Call) -> Result<(), KernelError> {
    let dims = call.ints(1)?;
    emit(call, |view| {
        let rank = view.sizes.rank();
        if dims.len() != rank {
            return Err(KernelError::invalid(
                "dims",
                format!("{} dimensions for a tensor of {rank}", dims.len()),
            ));
        }
        let mut result = view;
        let mut seen = [false; MAX_RANK];
        for (at, &dim) in dims.iter().enumerate() {
            let d = dim_of(&view.sizes, dim, "dims")?;
            if core::mem::replace(&mut seen[d], true) {
                return Err(KernelError::invalid("dims", format!("dimension {d} is given twice")));
            }
            result.sizes[at] = view.sizes[d];
            result.strides[at] = view.strides[d];
        }
        Ok(result)
    })
}

fn swapped(mut view: View, dim0: i64, dim1: i64) -> Result<View, KernelError> {
    let (a, b) = (dim_of(&view.sizes, dim0, "dim0")?, dim_of(&view.sizes, dim1, "dim1")?);
    if a != b {
        view.sizes.swap(a, b);
        view.strides.swap(a, b);
    }
    Ok(view)
}

fn transpose_copy(call: &mut Call) -> Result<(), KernelError> {
    let (dim0, dim1) = (call.int(1)?, call.int(2)?);
    emit(call, |view| swapped(view, dim0, dim1))
}

fn t_copy(call: &mut Call) -> Result<(), KernelError> {
    emit(call, |view| match view.sizes.rank() {
        0 | 1 => Ok(view),
        2 => swapped(view, 0, 1),
        rank => Err(KernelError::invalid(
            "self",
            format!("a tensor of {rank} dimensions has no transpose"),
        )),
    })
}

/// `view` broadcast to `size`, where -1 keeps a size.
///
/// # Errors
/// It does not broadcast.
pub(crate) fn expanded(view: &View, size: &[i64]) -> Result<View, KernelError> {
    let rank = view.sizes.rank();
    let Some(new) = size.len().checked_sub(rank) else {
        return Err(KernelError::invalid(
            "size",
            format!("a tensor of {rank} dimensions does not expand to {}", size.len()),
        ));
    };
    let mut sizes = Dims::new(size).map_err(|error| KernelError::invalid("size", format!("{error}")))?;
    let mut strides = Dims::filled(size.len(), 0);
    for d in new..size.len() {
        let have = view.sizes[d - new];
        if sizes[d] == -1 || sizes[d] == have {
            sizes[d] = have;
            strides[d] = view.strides[d - new];
        } else if have != 1 {
            return Err(KernelError::invalid(
                "size",
                format!("size {have} of dimension {} does not expand to {}", d - new, sizes[d]),
            ));
        }
    }
    dims_of(&sizes, "size")?;
    Ok(View {
        sizes,
        strides,
        offset: view.offset,
    })
}

fn expand_copy(call: &mut Call) -> Result<(), KernelError> {
    let size = call.ints(1)?;
    emit(call, |view| expanded(&view, size))
}

fn slice_copy(call: &mut Call) -> Result<(), KernelError> {
    let (dim, start, end, step) = (call.int(1)?, call.optional_int(2)?, call.optional_int(3)?, call.int(4)?);
    emit(call, |view| view.slice(dim, start, end, step))
}

fn narrow_copy(call: &mut Call) -> Result<(), KernelError> {
    let (dim, start, length) = (call.int(1)?, call.int(2)?, call.int(3)?);
    emit(call, |view| {
        let d = dim_of(&view.sizes, dim, "dim")?;
        let size = view.sizes.get(d).copied().unwrap_or(0);
        let from = if start < 0 { start.saturating_add(size) } else { start };
        if length < 0 || from < 0 || from.saturating_add(length) > size {
            return Err(KernelError::invalid(
                "start",
                format!("start {start} and length {length} leave dimension {d} of size {size}"),
            ));
        }
        view.slice(dim, Some(from), Some(from + length), 1)
    })
}

fn select_copy(call: &mut Call) -> Result<(), KernelError> {
    let (dim, index) = (call.int(1)?, call.int(2)?);
    emit(call, |view| view.select(dim, index))
}

/// Serves the forms without a dimension, with one and with several.
fn squeeze_copy(call: &mut Call) -> Result<(), KernelError> {
    let single;
    let dims = match call.args.get(1) {
        None => None,
        Some(crate::Arg::Int(dim)) => {
            single = [*dim];
            Some(&single[..])
        }
        Some(_) => Some(call.ints(1)?),
    };
    emit(call, |view| {
        let mut drop = [dims.is_none(); MAX_RANK];
        for &dim in dims.unwrap_or(&[]) {
            drop[dim_of(&view.sizes, dim, "dim")?] = true;
        }
        let mut result = view;
        for d in (0..view.sizes.rank()).rev() {
            if drop[d] && view.sizes[d] == 1 {
                result.sizes.remove(d);
                result.strides.remove(d);
            }
        }
        Ok(result)
    })
}

fn unsqueeze_copy(call: &mut Call) -> Result<(), KernelError> {
    let dim = call.int(1)?;
    emit(call, |mut view| {
        let rank = view.sizes.rank() as i64;
        let at = if dim < 0 { dim.saturating_add(rank + 1) } else { dim };
        if !(0..=rank).contains(&at) {
            return Err(KernelError::invalid(
                "dim",
                format!("dimension {dim} is out of range for a tensor of {rank} dimensions"),
            ));
        }
        let full = |error| KernelError::invalid("self", format!("{error}"));
        view.sizes.insert(at as usize, 1).map_err(full)?;
        view.strides.insert(at as usize, 0).map_err(full)?;
        Ok(view)
    })
}

fn diagonal_copy(call: &mut Call) -> Result<(), KernelError> {
    let (offset, dim1, dim2) = (call.int(1)?, call.int(2)?, call.int(3)?);
    emit(call, |view| view.diagonal(offset, dim1, dim2))
}

fn unfold_copy(call: &mut Call) -> Result<(), KernelError> {
    let (dim, size, step) = (call.int(1)?, call.int(2)?, call.int(3)?);
    emit(call, |mut view| {
        let d = dim_of(&view.sizes, dim, "dimension")?;
        let zero_dim = view.sizes.rank() == 0;
        let (have, stride) = if zero_dim {
            (1, 1)
        } else {
            (view.sizes[d], view.strides[d])
        };
        if size < 0 || size > have || step <= 0 {
            return Err(KernelError::invalid(
                "size",
                format!("windows of {size} every {step} do not fit dimension {d} of size {have}"),
            ));
        }
        if !zero_dim {
            view.sizes[d] = (have - size) / step + 1;
            view.strides[d] = stride.saturating_mul(step);
        }
        push(&mut view.sizes, size)?;
        push(&mut view.strides, stride)?;
        Ok(view)
    })
}

fn as_strided_copy(call: &mut Call) -> Result<(), KernelError> {
    let source = call.tensor(0)?;
    let sizes = dims_of(call.ints(1)?, "size")?;
    let strides = Dims::new(call.ints(2)?).map_err(|error| KernelError::invalid("stride", format!("{error}")))?;
    let offset = usize::try_from(call.optional_int(3)?.unwrap_or(0));
    if strides.rank() != sizes.rank() || strides.iter().any(|&s| s < 0) {
        return Err(KernelError::invalid(
            "stride",
            format!("strides {strides:?} for sizes {sizes}"),
        ));
    }
    let Ok(offset) = offset else {
        return Err(KernelError::invalid("storage_offset", "a negative offset"));
    };
    let view = View { sizes, strides, offset };
    let (out, scratch) = parts(call, 0)?;
    if source.is_contiguous() {
        return fetch(&source, &view, out);
    }
    // The strides are those of a row-major tensor: values are logically contiguous.
    let bytes = source.numel() * source.dtype().size();
    let row_major = Arena::new(scratch, bytes_of::<u8>(bytes))?.take::<u8>(bytes)?;
    let strides = source.sizes().contiguous_strides();
    Move::of(source.sizes(), source.strides(), &strides)?.copy_bytes(
        source.dtype().size(),
        source.bytes(),
        0,
        row_major,
        0,
    )?;
    fetch(
        &Tensor::new(source.dtype(), source.sizes(), &strides, row_major)?,
        &view,
        out,
    )
}

fn flip(call: &mut Call) -> Result<(), KernelError> {
    let dims = call.ints(1)?;
    emit(call, |mut view| {
        let mut seen = [false; MAX_RANK];
        for &dim in dims {
            let d = dim_of(&view.sizes, dim, "dims")?;
            if core::mem::replace(&mut seen[d], true) {
                return Err(KernelError::invalid("dims", format!("dimension {d} is given twice")));
            }
            if view.sizes.rank() > 0 {
                view = view.reversed(d);
            }
        }
        Ok(view)
    })
}

fn rot90(call: &mut Call) -> Result<(), KernelError> {
    let (times, dims) = (call.int(1)?.rem_euclid(4), call.ints(2)?);
    let &[dim0, dim1] = dims else {
        return Err(KernelError::invalid(
            "dims",
            format!("{} dimensions where 2 are rotated", dims.len()),
        ));
    };
    emit(call, |view| {
        let (a, b) = (dim_of(&view.sizes, dim0, "dims")?, dim_of(&view.sizes, dim1, "dims")?);
        if a == b {
            return Err(KernelError::invalid("dims", format!("dimension {a} is given twice")));
        }
        match times {
            0 => Ok(view),
            1 => swapped(view.reversed(b), dim0, dim1),
            2 => Ok(view.reversed(a).reversed(b)),
            _ => swapped(view.reversed(a), dim0, dim1),
        }
    })
}

fn push(dims: &mut Dims, size: i64) -> Result<(), KernelError> {
    dims.push(size)
        .map_err(|error| KernelError::invalid("self", format!("{error}")))
}
