//! Tensors on the device, while a region is lowered: what they are, not where they lie.

use delegraph_sdk::{DType, Error};

/// How elements lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Contiguous, the last dimension fastest: as tensors of the contract are.
    RowMajor,
    /// Four dimensions N, C, H, W that lie as N, H, W, C, with C padded to a multiple of 4. Elements of the padding are always zero: whoever
    /// writes a tensor writes them, whoever reads may rely on it.
    Nhwc4,
}

/// A tensor. Several may share one storage: a reshape is another tensor of the same `storage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Index in the schedule's storages.
    pub storage: usize,
    /// Byte in the storage that it begins at: a multiple of 256.
    pub offset: u64,
    /// Element type.
    pub dtype: DType,
    /// Sizes, N C H W for [`Layout::Nhwc4`] too.
    pub dims: Vec<u32>,
    /// Layout.
    pub layout: Layout,
}

impl Tensor {
    /// Number of elements, without padding.
    pub fn count(&self) -> u32 {
        // `checked_count` was asked when it was made.
        self.dims.iter().product()
    }

    /// Number of elements that lie in memory, with the padding of [`Layout::Nhwc4`].
    pub fn stored(&self) -> u32 {
        match (self.layout, self.dims.as_slice()) {
            (Layout::Nhwc4, [n, c, h, w]) => n * c.next_multiple_of(4) * h * w,
            _ => self.count(),
        }
    }

    /// Bytes of an element.
    pub fn element(&self) -> u32 {
        self.dtype.size().unwrap_or(1) as u32
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        u64::from(self.stored()) * u64::from(self.element())
    }

    /// The same elements under other sizes; row-major only.
    ///
    /// # Errors
    /// Another number of elements, or another layout.
    pub fn reshaped(&self, dims: &[u32]) -> Result<Tensor, Error> {
        if self.layout != Layout::RowMajor || checked_count(dims)? != self.count() {
            return Err(Error::internal(format!("{:?} does not become {dims:?}", self.dims)));
        }
        Ok(Tensor {
            dims: dims.to_vec(),
            ..self.clone()
        })
    }

    /// Row-major strides in elements.
    pub fn strides(&self) -> Vec<u32> {
        strides(&self.dims)
    }
}

/// Row-major strides in elements.
pub fn strides(dims: &[u32]) -> Vec<u32> {
    let mut strides = vec![1u32; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(dims[i].max(1));
    }
    strides
}

/// The number of elements.
///
/// # Errors
/// More than kernels count: 2³¹ − 1.
pub fn checked_count(dims: &[u32]) -> Result<u32, Error> {
    let count = dims
        .iter()
        .try_fold(1u64, |product, dim| product.checked_mul(u64::from(*dim)));
    count
        .filter(|count| *count <= i32::MAX as u64)
        .map(|count| count as u32)
        .ok_or_else(|| {
            Error::unsupported(format!(
                "a tensor of sizes {dims:?} has more elements than kernels count"
            ))
        })
}
