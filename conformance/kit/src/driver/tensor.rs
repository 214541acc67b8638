//! A tensor of a run.

use crate::driver::sys::memory::{Guarded, Place};
use delegraph_abi::DType;

/// A tensor in memory of its own.
pub struct Tensor {
    /// Element type.
    pub dtype: DType,
    /// An input's sizes; an output's largest ones before a run, its actual ones after.
    pub sizes: Vec<i64>,
    /// Where its elements lie, and nothing else.
    pub memory: Guarded,
}

/// What outputs hold before a run: a delegate that does not write them leaves it.
pub const UNWRITTEN: u8 = 0x5a;

impl Tensor {
    /// An input: read-only.
    ///
    /// # Errors
    /// There is no memory, or the bytes are not those of the sizes.
    pub fn input(dtype: DType, sizes: &[i64], bytes: &[u8], place: Place) -> Result<Tensor, String> {
        let mut tensor = Tensor::output(dtype, sizes, place)?;
        if tensor.memory.bytes().len() != bytes.len() {
            return Err(format!("{} bytes are given for {dtype}{sizes:?}", bytes.len()));
        }
        tensor.memory.fill(bytes);
        tensor.memory.protect()?;
        Ok(tensor)
    }

    /// An output, with every byte [`UNWRITTEN`].
    ///
    /// # Errors
    /// There is no memory, or such a tensor does not fit it.
    pub fn output(dtype: DType, sizes: &[i64], place: Place) -> Result<Tensor, String> {
        Tensor::laid(dtype, sizes, place, 0, 0)
    }

    /// The same at a multiple of `align`, with room for a multiple of so many bytes; 0: of an element's size. With [`Place::Before`] it lies
    /// at no multiple of twice that.
    ///
    /// # Errors
    /// As [`Tensor::output`].
    pub fn laid(dtype: DType, sizes: &[i64], place: Place, align: usize, multiple: usize) -> Result<Tensor, String> {
        let element = dtype.size().ok_or_else(|| format!("{dtype} has no size"))?;
        let size = sizes
            .iter()
            .try_fold(element, |size, n| size.checked_mul(usize::try_from(*n).ok()?));
        let size = size.ok_or_else(|| format!("{dtype}{sizes:?} does not fit in memory"))?;
        let align = align.max(element);
        let size = size.next_multiple_of(multiple.max(1));
        let (place, align) = match place {
            Place::Before(_) => (Place::Before(align), 2 * align),
            other => (other, align),
        };
        let mut memory = Guarded::new(size, place, align)?;
        memory.fill_with(UNWRITTEN);
        Ok(Tensor {
            dtype,
            sizes: sizes.to_vec(),
            memory,
        })
    }

    /// The same at a multiple of `align`, with room for a multiple of it behind: what a blob may require at most is 4096.
    ///
    /// # Errors
    /// There is no memory.
    pub fn aligned(self, align: usize) -> Result<Tensor, String> {
        let size = self.memory.bytes().len();
        let mut memory = Guarded::new(size.next_multiple_of(align), Place::End, align)?;
        memory.fill(self.memory.bytes());
        Ok(Tensor { memory, ..self })
    }

    /// The same with these elements, read-only if it is asked for.
    ///
    /// # Errors
    /// The bytes are more than it holds, or the system refuses.
    pub fn holding(mut self, bytes: &[u8], protect: bool) -> Result<Tensor, String> {
        if self.memory.size() < bytes.len() {
            return Err(format!(
                "{} bytes are given for {}{:?}",
                bytes.len(),
                self.dtype,
                self.sizes
            ));
        }
        self.memory.fill(bytes);
        if protect {
            self.memory.protect()?;
        }
        Ok(self)
    }

    /// The bytes of the actual elements.
    pub fn actual(&self) -> &[u8] {
        let element = self.dtype.size().unwrap_or(1);
        let count = self
            .sizes
            .iter()
            .try_fold(element, |size, n| size.checked_mul(usize::try_from(*n).ok()?));
        let bytes = self.memory.bytes();
        &bytes[..count.unwrap_or(bytes.len()).min(bytes.len())]
    }
}
