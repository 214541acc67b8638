//! Borrowed tensors.

use crate::KernelError;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use delegraph_types::{DType, Dims, Element, Parallel};

/// A tensor that a kernel reads: strided (never overlapping) elements over borrowed bytes.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    dtype: DType,
    // Borrowed: both are large, and a tensor is copied at every turn.
    sizes: &'a Dims,
    strides: &'a Dims,
    /// All that is lent.
    data: &'a [u8],
    /// Bytes of the strided extent.
    extent: usize,
}

impl<'a> Tensor<'a> {
    /// A tensor over `data`.
    ///
    /// # Errors
    /// `data` is too short for the strided extent, or not aligned for the dtype.
    #[inline]
    pub fn new(dtype: DType, sizes: &'a Dims, strides: &'a Dims, data: &'a [u8]) -> Result<Tensor<'a>, KernelError> {
        let extent = extent(sizes, strides).and_then(|n| n.checked_mul(dtype.size()));
        match extent {
            Some(bytes) if bytes <= data.len() && (data.as_ptr() as usize).is_multiple_of(dtype.align()) => {
                Ok(Tensor {
                    dtype,
                    sizes,
                    strides,
                    data,
                    extent: bytes,
                })
            }
            _ => Err(misplaced(dtype, sizes, data.len())),
        }
    }

    /// Element type.
    #[inline]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Sizes.
    #[inline]
    pub fn sizes(&self) -> &'a Dims {
        self.sizes
    }

    /// Strides in elements, never negative.
    #[inline]
    pub fn strides(&self) -> &'a Dims {
        self.strides
    }

    /// Number of dimensions.
    #[inline]
    pub fn rank(&self) -> usize {
        self.sizes.rank()
    }

    /// Number of elements.
    #[inline]
    pub fn numel(&self) -> usize {
        self.sizes.numel().unwrap_or(0)
    }

    /// True if the elements lie in row-major order.
    #[inline]
    pub fn is_contiguous(&self) -> bool {
        self.strides.are_contiguous_for(self.sizes)
    }

    /// The bytes of the strided extent.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        // `new` has compared them.
        &self.data[..self.extent]
    }

    /// [`Tensor::bytes`] and what lies behind them that may be read, too: unspecified bytes, where planners left room.
    #[inline]
    pub fn room(&self) -> &'a [u8] {
        self.data
    }

    /// The elements of the strided extent; index it with [`Tensor::strides`]. `bool` tensors are read as `u8`.
    /// `None` if the dtype is another one.
    #[inline]
    pub fn data<T: Element>(&self) -> Option<&'a [T]> {
        let matches = T::DTYPE == self.dtype || (self.dtype == DType::Bool && T::DTYPE == DType::U8);
        if !matches {
            return None;
        }
        bytemuck::try_cast_slice(self.bytes()).ok()
    }
}

/// Memory of somebody else's, of a fixed size: one that a device or another process works in, too.
pub trait Lent: Send + Sync {
    /// All of it, sixteen bytes a word.
    fn words(&self) -> &[u128];
    /// All of it, to write to.
    fn words_mut(&mut self) -> &mut [u128];
}

/// Memory that grows at run time, aligned for every dtype.
#[derive(Debug, Clone)]
pub struct Growable {
    words: Words,
    limit: usize,
}

enum Words {
    Own(Vec<u128>),
    Lent(Box<dyn Lent>),
}

impl Words {
    #[inline]
    fn all(&self) -> &[u128] {
        match self {
            Words::Own(words) => words,
            Words::Lent(lent) => lent.words(),
        }
    }

    #[inline]
    fn all_mut(&mut self) -> &mut [u128] {
        match self {
            Words::Own(words) => words,
            Words::Lent(lent) => lent.words_mut(),
        }
    }
}

impl Clone for Words {
    /// A copy is nobody's but its owner's.
    fn clone(&self) -> Words {
        Words::Own(self.all().to_vec())
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lent = if matches!(self, Words::Lent(_)) { ", lent" } else { "" };
        write!(f, "{} bytes{lent}", self.all().len() * 16)
    }
}

impl Default for Growable {
    fn default() -> Growable {
        Growable::up_to(usize::MAX)
    }
}

impl Growable {
    /// Memory that grows up to this many bytes: a size that is only known at run time comes from the file, and so may be any.
    pub fn up_to(limit: usize) -> Growable {
        Growable {
            words: Words::Own(Vec::new()),
            limit,
        }
    }

    /// Memory of somebody else's. Should it have to grow, its content moves to memory of its own.
    pub fn lent(memory: Box<dyn Lent>) -> Growable {
        Growable {
            words: Words::Lent(memory),
            limit: usize::MAX,
        }
    }

    /// The first `len` bytes, grown and zeroed as needed.
    ///
    /// # Errors
    /// The allocation fails, or is beyond the limit.
    pub fn reserve(&mut self, len: usize) -> Result<&mut [u8], KernelError> {
        if len > self.limit {
            return Err(KernelError::OutOfMemory(len));
        }
        let words = len.div_ceil(16);
        if self.words.all().len() < words {
            if let Words::Lent(lent) = &self.words {
                self.words = Words::Own(lent.words().to_vec());
            }
            if let Words::Own(own) = &mut self.words {
                if own.is_empty() {
                    // Zeros of the system, which cost nothing until they are touched.
                    let zeros = bytemuck::allocation::try_zeroed_slice_box::<u128>(words);
                    *own = zeros.map_err(|()| KernelError::OutOfMemory(len))?.into_vec();
                }
                own.try_reserve_exact(words - own.len())
                    .map_err(|_| KernelError::OutOfMemory(len))?;
                own.resize(words, 0);
            }
        }
        Ok(&mut bytemuck::cast_slice_mut(self.words.all_mut())[..len])
    }

    /// All bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self.words.all())
    }

    /// All bytes, to write to.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self.words.all_mut())
    }

    /// Gives the memory back.
    pub fn free(&mut self) {
        self.words = Words::Own(Vec::new());
    }
}

/// Memory of an output.
#[derive(Debug)]
pub enum Buffer<'a> {
    /// Planned memory: an output must fit.
    Fixed(&'a mut [u8]),
    /// Run-time memory.
    Growable(&'a mut Growable),
}

/// A tensor that a kernel writes. Its sizes are those of the last run until [`Out::resize`].
#[derive(Debug)]
pub struct Out<'a> {
    dtype: DType,
    sizes: Dims,
    dim_order: &'a Dims,
    buffer: Buffer<'a>,
    /// Most bytes of the buffer that elements may take.
    capacity: usize,
    parallel: Parallel,
}

impl<'a> Out<'a> {
    /// An output. `dim_order` lists the dimensions from the outermost to the innermost in memory; it is used where its
    /// length is the rank, and is row-major otherwise.
    #[inline]
    pub fn new(dtype: DType, sizes: Dims, dim_order: &'a Dims, buffer: Buffer<'a>) -> Out<'a> {
        Out {
            dtype,
            sizes,
            dim_order,
            buffer,
            capacity: usize::MAX,
            parallel: Parallel::SERIAL,
        }
    }

    /// The same, whose elements take at most so many bytes of planned memory; what lies behind is room, see [`Out::room_mut`].
    #[inline]
    pub fn within(self, capacity: usize) -> Out<'a> {
        Out { capacity, ..self }
    }

    /// The same, to be computed on these threads.
    #[inline]
    pub fn on(self, parallel: Parallel) -> Out<'a> {
        Out { parallel, ..self }
    }

    /// The threads that may compute it.
    #[inline]
    pub fn parallel(&self) -> Parallel {
        self.parallel
    }

    /// Element type.
    #[inline]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Present sizes.
    #[inline]
    pub fn sizes(&self) -> &Dims {
        &self.sizes
    }

    /// Strides in elements that follow from the present sizes and the dim_order.
    #[inline]
    pub fn strides(&self) -> Dims {
        if self.is_row_major() {
            return self.sizes.contiguous_strides();
        }
        let mut order = [0u8; delegraph_types::MAX_RANK];
        for (slot, d) in order.iter_mut().zip(self.dim_order.iter()) {
            *slot = u8::try_from(*d).unwrap_or(u8::MAX);
        }
        self.sizes
            .strides_of_dim_order(&order[..self.dim_order.rank()])
            .unwrap_or_else(|| self.sizes.contiguous_strides())
    }

    /// True if the memory is row-major.
    #[inline]
    pub fn is_contiguous(&self) -> bool {
        self.is_row_major() || self.strides().are_contiguous_for(&self.sizes)
    }

    /// Its dimensions lie in their own order, or in none that has the rank.
    #[inline]
    fn is_row_major(&self) -> bool {
        let ordered = self.dim_order.iter().enumerate().all(|(i, d)| *d == i as i64);
        ordered || self.dim_order.rank() != self.sizes.rank()
    }

    /// Sets the sizes. Contents are unspecified afterwards unless the sizes are the same.
    ///
    /// # Errors
    /// The new size does not fit planned memory, or run-time memory cannot be had.
    #[inline]
    pub fn resize(&mut self, sizes: &Dims) -> Result<(), KernelError> {
        let bytes = sizes
            .numel()
            .and_then(|n| n.checked_mul(self.dtype.size()))
            .ok_or(KernelError::OutOfMemory(usize::MAX))?;
        match &mut self.buffer {
            Buffer::Fixed(data) if bytes > data.len().min(self.capacity) => {
                return Err(KernelError::OutputTooLarge {
                    got: Box::new(*sizes),
                    dtype: self.dtype,
                    capacity: data.len().min(self.capacity),
                });
            }
            Buffer::Fixed(_) => {}
            Buffer::Growable(memory) => {
                memory.reserve(bytes)?;
            }
        }
        if self.sizes != *sizes {
            self.sizes = *sizes;
        }
        Ok(())
    }

    /// Bytes of the present sizes.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let bytes = self.sizes.numel().unwrap_or(0) * self.dtype.size();
        match &mut self.buffer {
            Buffer::Fixed(data) => {
                let end = bytes.min(data.len());
                &mut data[..end]
            }
            Buffer::Growable(memory) => {
                let all = memory.bytes_mut();
                let end = bytes.min(all.len());
                &mut all[..end]
            }
        }
    }

    /// The bytes of the present sizes and, in planned memory, all that is lent behind them: whatever is written there nobody reads.
    #[inline]
    pub fn room_mut(&mut self) -> &mut [u8] {
        if matches!(self.buffer, Buffer::Growable(_)) {
            return self.bytes_mut();
        }
        match &mut self.buffer {
            Buffer::Fixed(data) => data,
            Buffer::Growable(memory) => memory.bytes_mut(),
        }
    }

    /// Elements of the present sizes; index them with [`Out::strides`]. `bool` tensors are written as `u8` 0 or 1.
    /// `None` if the dtype is another one.
    #[inline]
    pub fn data_mut<T: Element>(&mut self) -> Option<&mut [T]> {
        let matches = T::DTYPE == self.dtype || (self.dtype == DType::Bool && T::DTYPE == DType::U8);
        if !matches {
            return None;
        }
        bytemuck::try_cast_slice_mut(self.bytes_mut()).ok()
    }

    /// The memory, element after element, as outputs of one dimension with `len` elements, the last one with what is left.
    pub(crate) fn chunks(&mut self, len: usize) -> impl ExactSizeIterator<Item = &mut [u8]> {
        let bytes = len.max(1).saturating_mul(self.dtype.size());
        self.bytes_mut().chunks_mut(bytes)
    }

    /// An output of one dimension over one of [`Out::chunks`].
    pub(crate) fn of_chunk(dtype: DType, chunk: &mut [u8]) -> Out<'_> {
        let len = chunk.len() / dtype.size();
        Out::new(dtype, Dims::filled(1, len as i64), &Dims::SCALAR, Buffer::Fixed(chunk))
    }

    /// The output as something to read (its present contents, for operators that update in place). Its strides are put in `strides`.
    ///
    /// # Errors
    /// The memory is shorter than the sizes say.
    pub fn as_tensor<'s>(&'s mut self, strides: &'s mut Dims) -> Result<Tensor<'s>, KernelError> {
        *strides = self.strides();
        let bytes = self.sizes.numel().unwrap_or(0) * self.dtype.size();
        let all = match &self.buffer {
            Buffer::Fixed(data) => data,
            Buffer::Growable(memory) => memory.bytes(),
        };
        Tensor::new(self.dtype, &self.sizes, strides, &all[..bytes.min(all.len())])
    }
}

#[cold]
fn misplaced(dtype: DType, sizes: &Dims, bytes: usize) -> KernelError {
    KernelError::invalid(
        "self",
        alloc::format!("{dtype} tensor of {sizes} does not lie in its {bytes} bytes"),
    )
}

/// Elements from the first to one past the last of a strided tensor; `None` on overflow or negative strides.
fn extent(sizes: &Dims, strides: &Dims) -> Option<usize> {
    if sizes.rank() != strides.rank() {
        return None;
    }
    if sizes.numel()? == 0 {
        return Some(0);
    }
    let mut last = 0usize;
    for d in 0..sizes.rank() {
        let stride = usize::try_from(strides[d]).ok()?;
        last = last.checked_add(stride.checked_mul(sizes[d] as usize - 1)?)?;
    }
    last.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_grows_up_to_its_limit() {
        let mut memory = Growable::up_to(100);
        assert_eq!(memory.reserve(100).unwrap().len(), 100);
        assert!(matches!(memory.reserve(101), Err(KernelError::OutOfMemory(101))));
        assert!(matches!(
            Growable::default().reserve(usize::MAX),
            Err(KernelError::OutOfMemory(_))
        ));
    }
}
