//! Positions of elements: dimensions, strides, broadcasting.

use crate::tensor::{count, room};
use delegraph_sdk::Error;
use std::borrow::Cow;

/// Positions in memory of the elements of a strided tensor, in row-major order.
#[derive(Debug, Clone)]
pub struct Offsets {
    sizes: Vec<usize>,
    strides: Vec<isize>,
    index: Vec<usize>,
    next: isize,
    left: usize,
}

impl Offsets {
    /// The elements of `sizes`, from the one at `start`.
    ///
    /// # Errors
    /// More elements than can be.
    pub fn new(sizes: &[usize], strides: &[isize], start: isize) -> Result<Offsets, Error> {
        Ok(Offsets {
            sizes: sizes.to_vec(),
            strides: strides.to_vec(),
            index: vec![0; sizes.len()],
            next: start,
            left: count(sizes)?,
        })
    }
}

impl Iterator for Offsets {
    type Item = isize;

    fn next(&mut self) -> Option<isize> {
        self.left = self.left.checked_sub(1)?;
        let here = self.next;
        let dims = self.index.iter_mut().zip(&self.sizes).zip(&self.strides).rev();
        for ((index, size), stride) in dims {
            *index += 1;
            self.next = self.next.wrapping_add(*stride);
            if *index < *size {
                break;
            }
            self.next = self.next.wrapping_sub(stride.wrapping_mul(*size as isize));
            *index = 0;
        }
        Some(here)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Strides of a row-major tensor.
pub fn strides(sizes: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; sizes.len()];
    for d in (1..sizes.len()).rev() {
        strides[d - 1] = strides[d].wrapping_mul(sizes[d].max(1) as isize);
    }
    strides
}

/// A dimension counted from the end where it is negative; a number without dimensions counts as having one.
///
/// # Errors
/// There is no such dimension.
pub fn dim(dim: i64, rank: usize) -> Result<usize, Error> {
    let ranks = rank.max(1) as i64;
    let counted = if dim < 0 { dim.saturating_add(ranks) } else { dim };
    usize::try_from(counted)
        .ok()
        .filter(|_| counted < ranks)
        .ok_or_else(|| Error::invalid(format!("there is no dimension `{dim}` among {rank}")))
}

/// Several dimensions, in the order given; an empty list means all of them.
///
/// # Errors
/// There is no such dimension.
pub fn dims(list: &[i64], rank: usize) -> Result<Vec<usize>, Error> {
    if list.is_empty() {
        return Ok((0..rank).collect());
    }
    // A number without dimensions takes 0 and -1, which are none.
    let all: Vec<usize> = list.iter().map(|d| dim(*d, rank)).collect::<Result<_, _>>()?;
    Ok(if rank == 0 { Vec::new() } else { all })
}

/// A tensor as (before, along, after) a dimension: its element `[i, j, k]` lies at `(i * along + j) * after + k`.
pub fn split_at(sizes: &[usize], dim: usize) -> (usize, usize, usize) {
    // An empty tensor may have other sizes of any product.
    let product = |sizes: &[usize]| sizes.iter().fold(1usize, |total, size| total.saturating_mul(*size));
    let before = product(&sizes[..dim.min(sizes.len())]);
    let along = sizes.get(dim).copied().unwrap_or(1);
    let after = product(sizes.get(dim + 1..).unwrap_or_default());
    (before, along, after)
}

/// Sizes as the integers of the graph.
///
/// # Errors
/// A negative size.
pub fn to_sizes(sizes: &[i64]) -> Result<Vec<usize>, Error> {
    let all: Option<Vec<usize>> = sizes.iter().map(|s| usize::try_from(*s).ok()).collect();
    all.ok_or_else(|| Error::invalid(format!("sizes {sizes:?} are negative")))
}

/// The sizes that tensors broadcast to.
///
/// # Errors
/// They do not fit together.
pub fn broadcast(all: &[&[usize]]) -> Result<Vec<usize>, Error> {
    let rank = all.iter().map(|sizes| sizes.len()).max().unwrap_or(0);
    let mut result = vec![1; rank];
    for sizes in all {
        let tail = result.iter_mut().skip(rank - sizes.len());
        for (have, size) in tail.zip(*sizes) {
            if *have == 1 {
                *have = *size;
            } else if *size != 1 && size != have {
                return Err(Error::invalid(format!("sizes {all:?} do not broadcast")));
            }
        }
    }
    Ok(result)
}

/// Strides that repeat a tensor of sizes `from` over sizes `to`.
///
/// # Errors
/// They do not fit.
pub fn broadcast_strides(from: &[usize], to: &[usize]) -> Result<Vec<isize>, Error> {
    let misfit = || Error::invalid(format!("sizes {from:?} do not expand to {to:?}"));
    let missing = to.len().checked_sub(from.len()).ok_or_else(misfit)?;
    let mut expanded = vec![0; missing];
    for ((size, stride), target) in from.iter().zip(strides(from)).zip(&to[missing..]) {
        expanded.push(match (*size, *target) {
            (1, _) => 0,
            (size, target) if size == target => stride,
            _ => return Err(misfit()),
        });
    }
    Ok(expanded)
}

/// Elements of sizes `from`, repeated to sizes `to`; borrowed where nothing is repeated.
///
/// # Errors
/// They do not fit.
pub fn expanded<'a, T: Copy>(values: &'a [T], from: &[usize], to: &[usize]) -> Result<Cow<'a, [T]>, Error> {
    if from == to {
        return Ok(Cow::Borrowed(values));
    }
    let offsets = Offsets::new(to, &broadcast_strides(from, to)?, 0)?;
    let mut all = room(count(to)?)?;
    for at in offsets {
        all.push(
            *values
                .get(at as usize)
                .ok_or_else(|| Error::internal("an element is missing"))?,
        );
    }
    Ok(Cow::Owned(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_follow_strides() {
        let transposed: Vec<isize> = Offsets::new(&[3, 2], &[1, 3], 0).unwrap().collect();
        assert_eq!(transposed, [0, 3, 1, 4, 2, 5]);
        let flipped: Vec<isize> = Offsets::new(&[2, 2], &[-2, 1], 2).unwrap().collect();
        assert_eq!(flipped, [2, 3, 0, 1]);
        assert_eq!(Offsets::new(&[0, 5], &[5, 1], 0).unwrap().count(), 0);
        assert_eq!(Offsets::new(&[], &[], 7).unwrap().collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn broadcasting() {
        assert_eq!(broadcast(&[&[3, 1], &[2]]).unwrap(), [3, 2]);
        assert_eq!(broadcast(&[&[0], &[1]]).unwrap(), [0]);
        assert!(broadcast(&[&[3], &[2]]).is_err());
        assert_eq!(*expanded(&[1, 2], &[2, 1], &[2, 3]).unwrap(), [1, 1, 1, 2, 2, 2]);
        assert!(expanded(&[1, 2], &[2], &[]).is_err());
    }

    #[test]
    fn dimensions_count_from_the_end() {
        assert_eq!(dim(-1, 3).unwrap(), 2);
        assert_eq!(dim(-1, 0).unwrap(), 0);
        assert!(dim(3, 3).is_err() && dim(i64::MIN, 3).is_err());
        assert_eq!(dims(&[], 2).unwrap(), [0, 1]);
        assert_eq!(dims(&[-1], 0).unwrap(), [0; 0]);
    }
}
