//! Arguments and results.

use crate::MemoryView;
use delegraph_types::{DType, Dims};
use std::borrow::Cow;

/// A tensor over borrowed bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorView<'a> {
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub shape: Dims,
    /// Strides in elements.
    pub strides: Dims,
    /// Little-endian bytes of the strided extent.
    pub bytes: &'a [u8],
}

impl<'a> TensorView<'a> {
    /// Whether the strides are exactly those of a row-major tensor, also along dimensions where they say nothing.
    pub(crate) fn is_row_major(&self) -> bool {
        let mut step = 1i64;
        self.shape.rank() == self.strides.rank()
            && self.shape.iter().zip(self.strides.iter()).rev().all(|(size, stride)| {
                let lies = *stride == step;
                step = step.saturating_mul((*size).max(1));
                lies
            })
    }

    /// The elements in row-major order: borrowed where they lie so already.
    pub fn to_contiguous(&self) -> Cow<'a, [u8]> {
        let want = self.shape.contiguous_strides();
        let row_major = (0..self.shape.rank()).all(|d| self.shape[d] <= 1 || self.strides[d] == want[d]);
        let item = self.dtype.size();
        let count = self.shape.numel().unwrap_or(0);
        if row_major {
            return Cow::Borrowed(&self.bytes[..(count * item).min(self.bytes.len())]);
        }
        let mut out = vec![0; count * item];
        self.write_contiguous(&mut out);
        Cow::Owned(out)
    }

    /// Writes the elements in row-major order.
    pub(crate) fn write_contiguous(&self, out: &mut [u8]) {
        let item = self.dtype.size();
        let mut index = Dims::filled(self.shape.rank(), 0);
        for slot in out.chunks_exact_mut(item) {
            let at: i64 = index.iter().zip(self.strides.iter()).map(|(i, s)| i * s).sum();
            if let Some(element) = self.bytes.get(at as usize * item..).and_then(|rest| rest.get(..item)) {
                slot.copy_from_slice(element);
            }
            for d in (0..self.shape.rank()).rev() {
                index[d] += 1;
                if index[d] < self.shape[d] {
                    break;
                }
                index[d] = 0;
            }
        }
    }
}

/// A leaf of the flattened arguments or results of a method.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
    Tensor(TensorView<'a>),
    /// An input of this shape that was made where the method reads it ([`crate::Session::input_buffer`]); never an output.
    InPlace(Dims),
    /// An input that lies in memory of the app's; never an output.
    Memory(MemoryView<'a>),
}

impl<'a> Value<'a> {
    /// A row-major tensor; `bytes` are exactly its elements, at any alignment.
    pub fn tensor(dtype: DType, shape: Dims, bytes: &'a [u8]) -> Value<'a> {
        Value::Tensor(TensorView {
            dtype,
            shape,
            strides: shape.contiguous_strides(),
            bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channels_last_tensor_is_gathered() {
        let view = TensorView {
            dtype: DType::U8,
            shape: Dims::new(&[1, 2, 1, 3]).unwrap(),
            strides: Dims::new(&[6, 1, 6, 2]).unwrap(),
            bytes: &[0, 1, 2, 3, 4, 5],
        };
        assert_eq!(view.to_contiguous().as_ref(), &[0, 2, 4, 1, 3, 5]);
    }
}
