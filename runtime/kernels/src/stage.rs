//! Inputs and outputs of heavy kernels as contiguous slices of the type they compute in, borrowed where they already are that.

use crate::strided::Move;
use crate::wide::{Wide, convert};
use crate::{Call, KernelError, Out, Scratch, Tensor};
use bytemuck::Pod;
use delegraph_types::{DType, Dims};

/// Every slice of an [`Arena`] starts at a multiple of this.
const ALIGN: usize = 16;

/// Scratch memory handed out in pieces.
pub(crate) struct Arena<'s> {
    rest: &'s mut [u8],
}

/// How many bytes of an [`Arena`] `count` elements take.
pub(crate) fn bytes_of<T>(count: usize) -> usize {
    count.saturating_mul(size_of::<T>()).saturating_add(ALIGN) / ALIGN * ALIGN
}

/// Bytes that [`Arena::load`] takes.
pub(crate) fn load_bytes<W: Wide>(tensor: &Tensor) -> usize {
    if is_direct::<W>(tensor) {
        0
    } else {
        bytes_of::<W>(tensor.numel())
    }
}

/// Bytes that [`produce`] takes for an output of `count` elements.
pub(crate) fn out_bytes<W: Wide>(out: &Out) -> usize {
    if out.dtype() == W::DTYPE && out.is_contiguous() {
        0
    } else {
        bytes_of::<W>(out.sizes().numel().unwrap_or(0))
    }
}

impl<'s> Arena<'s> {
    /// `bytes` of scratch: the sum of what will be taken.
    ///
    /// # Errors
    /// Memory cannot be had.
    pub fn new(scratch: &'s mut Scratch, bytes: usize) -> Result<Arena<'s>, KernelError> {
        Ok(Arena {
            rest: scratch.bytes(bytes)?,
        })
    }

    /// Over memory that was taken for it.
    pub fn over(memory: &'s mut [u8]) -> Arena<'s> {
        Arena { rest: memory }
    }

    /// `count` elements, contents unspecified.
    ///
    /// # Errors
    /// The arena is smaller than all that is taken from it.
    pub fn take<T: Pod>(&mut self, count: usize) -> Result<&'s mut [T], KernelError> {
        let bytes = bytes_of::<T>(count);
        if bytes > self.rest.len() {
            return Err(KernelError::OutOfMemory(bytes));
        }
        let (piece, rest) = core::mem::take(&mut self.rest).split_at_mut(bytes);
        self.rest = rest;
        let words: &'s mut [T] = bytemuck::try_cast_slice_mut(&mut piece[..count * size_of::<T>()])
            .map_err(|_| KernelError::OutOfMemory(bytes))?;
        Ok(words)
    }

    /// The tensor's elements in row-major order, converted to `W`.
    ///
    /// # Errors
    /// The dtype has no conversion, or the arena is too small.
    pub fn load<W: Wide>(&mut self, tensor: &Tensor<'s>) -> Result<&'s [W], KernelError> {
        if is_direct::<W>(tensor)
            && let Some(data) = tensor.data::<W>()
        {
            return Ok(data);
        }
        let slice = self.take::<W>(tensor.numel())?;
        let plan = Move::of(tensor.sizes(), tensor.strides(), &tensor.sizes().contiguous_strides())?;
        let target = bytemuck::cast_slice_mut(slice);
        convert(&plan, (tensor.dtype(), tensor.bytes(), 0), (W::DTYPE, target, 0))?;
        Ok(slice)
    }
}

/// Lets `compute` fill the output in row-major order, then stores it in the output's dtype and layout. Call after
/// [`Out::resize`]; `compute` must write every element.
///
/// # Errors
/// What `compute` gives; the dtype has no conversion; the arena is too small.
pub(crate) fn produce<'s, W: Wide>(
    out: &mut Out,
    arena: &mut Arena<'s>,
    compute: impl FnOnce(&mut [W], &mut Arena<'s>) -> Result<(), KernelError>,
) -> Result<(), KernelError> {
    if out_bytes::<W>(out) == 0
        && let Some(data) = out.data_mut::<W>()
    {
        return compute(data, arena);
    }
    let slice = arena.take::<W>(out.sizes().numel().unwrap_or(0))?;
    compute(slice, arena)?;
    store(bytemuck::cast_slice(slice), W::DTYPE, out)
}

/// Stores row-major elements of `dtype` in the output, converting.
///
/// # Errors
/// The dtype has no conversion.
pub(crate) fn store(src: &[u8], dtype: DType, out: &mut Out) -> Result<(), KernelError> {
    let (sizes, strides, out_dtype) = (*out.sizes(), out.strides(), out.dtype());
    let plan = Move::of(&sizes, &sizes.contiguous_strides(), &strides)?;
    convert(&plan, (dtype, src, 0), (out_dtype, out.bytes_mut(), 0))
}

/// The output at `index` together with the scratch memory.
///
/// # Errors
/// There is no such output.
pub(crate) fn parts<'c, 'a>(
    call: &'c mut Call<'a, '_>,
    index: usize,
) -> Result<(&'c mut Out<'a>, &'c mut Scratch), KernelError> {
    let inputs = call.args.len();
    match call.outs.get_mut(index) {
        Some(out) => Ok((out, call.scratch)),
        None => Err(KernelError::WrongKind {
            index: inputs + index,
            expected: "an output tensor",
        }),
    }
}

/// Checks an output's dtype.
///
/// # Errors
/// It is another one.
pub(crate) fn expect_dtype(out: &Out, index: usize, want: DType) -> Result<(), KernelError> {
    if out.dtype() == want {
        return Ok(());
    }
    Err(KernelError::OutputDtype {
        index,
        got: out.dtype(),
        want,
    })
}

/// Resolves a possibly negative dimension.
///
/// # Errors
/// It is out of range.
pub(crate) fn dim_of(sizes: &Dims, dim: i64, argument: &'static str) -> Result<usize, KernelError> {
    sizes.resolve_dim(dim).ok_or_else(|| {
        KernelError::invalid(
            argument,
            alloc::format!(
                "dimension {dim} is out of range for a tensor of {} dimensions",
                sizes.rank()
            ),
        )
    })
}

/// Sizes as [`Dims`]: none negative, not too many, their product in range.
///
/// # Errors
/// They are not so.
pub(crate) fn dims_of(sizes: &[i64], argument: &'static str) -> Result<Dims, KernelError> {
    let dims = Dims::new(sizes).map_err(|error| KernelError::invalid(argument, alloc::format!("{error}")))?;
    if dims.numel().is_none() {
        return Err(KernelError::invalid(
            argument,
            alloc::format!("size {dims} is negative or too large"),
        ));
    }
    Ok(dims)
}

/// Product of sizes that were checked before.
pub(crate) fn count(sizes: &[i64]) -> usize {
    sizes
        .iter()
        .fold(1usize, |n, &size| n.saturating_mul(usize::try_from(size).unwrap_or(0)))
}

fn is_direct<W: Wide>(tensor: &Tensor) -> bool {
    tensor.dtype() == W::DTYPE && tensor.is_contiguous()
}
