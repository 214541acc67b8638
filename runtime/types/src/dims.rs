//! Sizes and strides of a tensor, inline and without allocation.

use core::fmt;
use core::ops::{Deref, DerefMut};

/// Largest rank, as in ExecuTorch (`kTensorDimensionLimit`).
pub const MAX_RANK: usize = 16;

/// A shape of more than [`MAX_RANK`] dimensions was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RankError(pub usize);

impl fmt::Display for RankError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} is above the limit of {MAX_RANK}", self.0)
    }
}

impl core::error::Error for RankError {}

/// Up to [`MAX_RANK`] sizes or strides, in elements. Dereferences to `[i64]`.
#[derive(Clone, Copy)]
pub struct Dims {
    len: u8,
    items: [i64; MAX_RANK],
}

impl Dims {
    /// The shape of a 0-dim tensor.
    pub const SCALAR: Dims = Dims {
        len: 0,
        items: [0; MAX_RANK],
    };

    /// Copies `sizes`.
    ///
    /// # Errors
    /// More than [`MAX_RANK`] of them.
    #[inline]
    pub fn new(sizes: &[i64]) -> Result<Dims, RankError> {
        if sizes.len() > MAX_RANK {
            return Err(RankError(sizes.len()));
        }
        let mut items = [0; MAX_RANK];
        items[..sizes.len()].copy_from_slice(sizes);
        Ok(Dims {
            len: sizes.len() as u8,
            items,
        })
    }

    /// `len` times `value`.
    ///
    /// # Panics
    /// If `len` is above [`MAX_RANK`].
    #[inline]
    pub fn filled(len: usize, value: i64) -> Dims {
        assert!(len <= MAX_RANK);
        let mut items = [0; MAX_RANK];
        items[..len].fill(value);
        Dims { len: len as u8, items }
    }

    /// The dimensions as a slice.
    #[inline]
    pub fn as_slice(&self) -> &[i64] {
        &self.items[..self.len as usize]
    }

    /// Number of dimensions.
    #[inline]
    pub fn rank(&self) -> usize {
        self.len as usize
    }

    /// Appends a dimension.
    ///
    /// # Errors
    /// The rank is already [`MAX_RANK`].
    #[inline]
    pub fn push(&mut self, size: i64) -> Result<(), RankError> {
        if self.rank() == MAX_RANK {
            return Err(RankError(MAX_RANK + 1));
        }
        self.items[self.rank()] = size;
        self.len += 1;
        Ok(())
    }

    /// Inserts a dimension before `at`.
    ///
    /// # Errors
    /// The rank is already [`MAX_RANK`].
    ///
    /// # Panics
    /// If `at` is above the rank.
    pub fn insert(&mut self, at: usize, size: i64) -> Result<(), RankError> {
        assert!(at <= self.rank());
        self.push(0)?;
        let rank = self.rank();
        self.items.copy_within(at..rank - 1, at + 1);
        self.items[at] = size;
        Ok(())
    }

    /// Removes and returns dimension `at`.
    ///
    /// # Panics
    /// If `at` is not below the rank.
    pub fn remove(&mut self, at: usize) -> i64 {
        assert!(at < self.rank());
        let size = self.items[at];
        let rank = self.rank();
        self.items.copy_within(at + 1..rank, at);
        self.len -= 1;
        size
    }

    /// Number of elements of a tensor of these sizes: 1 for a 0-dim tensor; `None` on overflow or a negative size.
    #[inline]
    pub fn numel(&self) -> Option<usize> {
        let mut count = 1usize;
        let mut empty = false;
        for &size in self.iter() {
            let size = usize::try_from(size).ok()?;
            if size == 0 {
                empty = true;
            } else {
                count = count.checked_mul(size)?;
            }
        }
        Some(if empty { 0 } else { count })
    }

    /// Row-major strides in elements. Sizes of 0 count as 1, as in PyTorch.
    #[inline]
    pub fn contiguous_strides(&self) -> Dims {
        let mut strides = Dims::filled(self.rank(), 0);
        let mut step = 1i64;
        for d in (0..self.rank()).rev() {
            strides[d] = step;
            step = step.saturating_mul(self[d].max(1));
        }
        strides
    }

    /// True if a tensor of these sizes with these strides is row-major: strides of dimensions of at most one element say nothing.
    #[inline]
    pub fn are_contiguous_for(&self, sizes: &Dims) -> bool {
        let mut step = 1i64;
        self.rank() == sizes.rank()
            && sizes.iter().zip(self.iter()).rev().all(|(&size, &stride)| {
                let lies = size <= 1 || stride == step;
                step = step.saturating_mul(size.max(1));
                lies
            })
    }

    /// Strides of a dense tensor whose dimensions are laid out in `dim_order` (outermost first), as `.pte` files state them.
    /// `None` if `dim_order` is not a permutation of the dimensions.
    pub fn strides_of_dim_order(&self, dim_order: &[u8]) -> Option<Dims> {
        if dim_order.len() != self.rank() {
            return None;
        }
        let mut seen = [false; MAX_RANK];
        let mut strides = Dims::filled(self.rank(), 0);
        let mut step = 1i64;
        for &d in dim_order.iter().rev() {
            let d = d as usize;
            if d >= self.rank() || seen[d] {
                return None;
            }
            seen[d] = true;
            strides[d] = step;
            step = step.saturating_mul(self[d].max(1));
        }
        Some(strides)
    }

    /// Resolves a possibly negative dimension index as PyTorch does (a 0-dim tensor accepts 0 and -1).
    #[inline]
    pub fn resolve_dim(&self, dim: i64) -> Option<usize> {
        let rank = self.rank().max(1) as i64;
        let dim = if dim < 0 { dim + rank } else { dim };
        (0..rank).contains(&dim).then_some(dim as usize)
    }

    /// The shape that `self` and `other` broadcast to; `None` if they do not.
    pub fn broadcast(&self, other: &Dims) -> Option<Dims> {
        let rank = self.rank().max(other.rank());
        let mut out = Dims::filled(rank, 1);
        for d in 0..rank {
            let a = (d + self.rank()).checked_sub(rank).map_or(1, |i| self[i]);
            let b = (d + other.rank()).checked_sub(rank).map_or(1, |i| other[i]);
            out[d] = match (a, b) {
                (a, b) if a == b => a,
                (1, b) => b,
                (a, 1) => a,
                _ => return None,
            };
        }
        Some(out)
    }
}

impl Deref for Dims {
    type Target = [i64];
    #[inline]
    fn deref(&self) -> &[i64] {
        self.as_slice()
    }
}

impl DerefMut for Dims {
    #[inline]
    fn deref_mut(&mut self) -> &mut [i64] {
        &mut self.items[..self.len as usize]
    }
}

impl PartialEq for Dims {
    #[inline]
    fn eq(&self, other: &Dims) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Dims {}

impl Default for Dims {
    fn default() -> Dims {
        Dims::SCALAR
    }
}

impl TryFrom<&[i64]> for Dims {
    type Error = RankError;
    fn try_from(sizes: &[i64]) -> Result<Dims, RankError> {
        Dims::new(sizes)
    }
}

impl fmt::Debug for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_slice(), f)
    }
}

impl fmt::Display for Dims {
    /// `2x3x4`; `scalar` for a 0-dim tensor.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("scalar");
        }
        for (i, size) in self.iter().enumerate() {
            if i > 0 {
                f.write_str("x")?;
            }
            write!(f, "{size}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(sizes: &[i64]) -> Dims {
        Dims::new(sizes).unwrap()
    }

    #[test]
    fn numel_counts_and_refuses_overflow() {
        assert_eq!(Dims::SCALAR.numel(), Some(1));
        assert_eq!(dims(&[2, 0, 3]).numel(), Some(0));
        assert_eq!(dims(&[i64::MAX, 3]).numel(), None);
        assert_eq!(dims(&[-1]).numel(), None);
    }

    #[test]
    fn dim_order_gives_channels_last_strides() {
        let nchw = dims(&[1, 2, 3, 4]);
        assert_eq!(nchw.strides_of_dim_order(&[0, 2, 3, 1]).unwrap(), dims(&[24, 1, 8, 2]));
        assert_eq!(nchw.strides_of_dim_order(&[0, 2, 2, 1]), None);
        assert_eq!(nchw.strides_of_dim_order(&[0, 2, 1]), None);
    }

    #[test]
    fn strides_of_single_elements_say_nothing() {
        let sizes = dims(&[2, 1, 3]);
        assert!(sizes.contiguous_strides().are_contiguous_for(&sizes));
        assert!(dims(&[3, 77, 1]).are_contiguous_for(&sizes));
        assert!(!dims(&[1, 3, 2]).are_contiguous_for(&sizes));
        assert!(!dims(&[3, 1]).are_contiguous_for(&sizes));
        assert!(dims(&[5, 9]).are_contiguous_for(&dims(&[0, 1])));
        assert!(Dims::SCALAR.are_contiguous_for(&Dims::SCALAR));
    }

    #[test]
    fn broadcast_follows_numpy() {
        assert_eq!(dims(&[3, 1]).broadcast(&dims(&[4])), Some(dims(&[3, 4])));
        assert_eq!(dims(&[3]).broadcast(&dims(&[4])), None);
        assert_eq!(dims(&[0]).broadcast(&dims(&[1])), Some(dims(&[0])));
    }

    #[test]
    fn insert_and_remove_move_the_tail() {
        let mut d = dims(&[2, 3]);
        d.insert(1, 9).unwrap();
        assert_eq!(d, dims(&[2, 9, 3]));
        assert_eq!(d.remove(0), 2);
        assert_eq!(d, dims(&[9, 3]));
    }
}
