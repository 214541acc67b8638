//! Constants: weights and literals, as strided windows on shared bytes.

use crate::ConstantId;
use delegraph_types::{DType, Dims};
use std::sync::Arc;

/// Bytes that somebody keeps alive: a mapped file, a vector, a segment.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    start: usize,
    end: usize,
}

impl Bytes {
    /// All bytes of `owner`, which is kept alive.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>) -> Bytes {
        let end = (*owner).as_ref().len();
        Bytes { owner, start: 0, end }
    }

    /// A window of these bytes; `None` if it does not lie inside.
    pub fn slice(&self, start: usize, length: usize) -> Option<Bytes> {
        let start = self.start.checked_add(start)?;
        let end = start.checked_add(length)?;
        (end <= self.end).then(|| Bytes {
            owner: self.owner.clone(),
            start,
            end,
        })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.start..self.end]
    }

    /// Identity of the storage: equal for windows on the same bytes.
    pub fn address(&self) -> (usize, usize) {
        let slice = self.as_slice();
        (slice.as_ptr() as usize, slice.len())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes::new(Arc::new(bytes))
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.end - self.start)
    }
}

/// A tensor whose contents are known: a strided window on a storage, as `.pt2` archives share storages.
#[derive(Debug, Clone)]
pub struct Constant {
    /// Fully qualified name (`encoder.layer.0.weight`) or a name made by a pass.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub sizes: Dims,
    /// Strides in elements.
    pub strides: Dims,
    /// First element, in elements from the start of `storage`.
    pub offset: usize,
    /// Little-endian bytes.
    pub storage: Bytes,
}

impl Constant {
    /// A contiguous constant over exactly its bytes.
    pub fn contiguous(name: impl Into<String>, dtype: DType, sizes: Dims, storage: Bytes) -> Constant {
        Constant {
            name: name.into(),
            dtype,
            sizes,
            strides: sizes.contiguous_strides(),
            offset: 0,
            storage,
        }
    }

    /// True if the elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        let want = self.sizes.contiguous_strides();
        (0..self.sizes.rank()).all(|d| self.sizes[d] <= 1 || self.strides[d] == want[d])
            || self.sizes.numel() == Some(0)
    }

    /// The elements in row-major order: borrowed where the window is contiguous, gathered where it is not.
    /// `None` if the window does not lie inside its storage.
    pub fn to_contiguous(&self) -> Option<Bytes> {
        let item = self.dtype.size();
        let count = self.sizes.numel()?;
        let byte_count = count.checked_mul(item)?;
        if self.is_contiguous() {
            return self.storage.slice(self.offset.checked_mul(item)?, byte_count);
        }
        let bytes = self.storage.as_slice();
        // Every element must lie inside: checked once by the extremes, since offsets are monotone in each index.
        let (mut low, mut high) = (self.offset as i128, self.offset as i128);
        for d in 0..self.sizes.rank() {
            let reach = i128::from(self.sizes[d] - 1) * i128::from(self.strides[d]);
            *(if reach < 0 { &mut low } else { &mut high }) += reach;
        }
        if low < 0 || (high + 1) * item as i128 > bytes.len() as i128 {
            return None;
        }
        let mut out = Vec::with_capacity(byte_count);
        let mut index = Dims::filled(self.sizes.rank(), 0);
        let mut at = self.offset as i64;
        for _ in 0..count {
            out.extend_from_slice(&bytes[at as usize * item..][..item]);
            for d in (0..self.sizes.rank()).rev() {
                index[d] += 1;
                at += self.strides[d];
                if index[d] < self.sizes[d] {
                    break;
                }
                at -= self.strides[d] * self.sizes[d];
                index[d] = 0;
            }
        }
        Some(out.into())
    }
}

/// The constants of a module, indexed by [`ConstantId`].
#[derive(Debug, Clone, Default)]
pub struct Constants {
    items: Vec<Constant>,
}

impl Constants {
    /// Adds a constant.
    pub fn push(&mut self, constant: Constant) -> ConstantId {
        self.items.push(constant);
        ConstantId::from(self.items.len() - 1)
    }

    /// The constant of this id, if there is one.
    pub fn find(&self, id: ConstantId) -> Option<&Constant> {
        self.items.get(id.index())
    }

    /// All of them, in order of id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ConstantId, &Constant)> {
        self.items.iter().enumerate().map(|(i, c)| (ConstantId::from(i), c))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl std::ops::Index<ConstantId> for Constants {
    type Output = Constant;
    fn index(&self, id: ConstantId) -> &Constant {
        &self.items[id.index()]
    }
}

impl std::ops::IndexMut<ConstantId> for Constants {
    fn index_mut(&mut self, id: ConstantId) -> &mut Constant {
        &mut self.items[id.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transposed_window_is_gathered_and_a_bad_one_refused() {
        let storage = Bytes::from((0u8..12).collect::<Vec<u8>>());
        let mut c = Constant {
            name: "w".into(),
            dtype: DType::U8,
            sizes: Dims::new(&[3, 2]).unwrap(),
            strides: Dims::new(&[1, 3]).unwrap(),
            offset: 6,
            storage,
        };
        assert_eq!(c.to_contiguous().unwrap().as_slice(), &[6, 9, 7, 10, 8, 11]);
        c.offset = 7;
        assert!(c.to_contiguous().is_none());
    }
}
