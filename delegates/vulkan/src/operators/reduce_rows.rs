//! A tensor as rows: the dimensions that a reduction keeps, and for each of their elements those that it reduces.
//!
//! Kernels read elements wherever they lie: both lists have strides, so that nothing is transposed before. `include/reduce_rows.wgsl` is the
//! other side.

use crate::codes;
use crate::encoder::{Encoder, grid};
use crate::facts::Facts;
use crate::kernels::Needs;
use crate::node::{Node, wrap};
use crate::tensor::{Layout, Tensor, checked_count};
use delegraph_sdk::image::ValueIndex;
use delegraph_sdk::{DType, Error};

/// Invocations of a workgroup of the kernels that reduce.
pub const GROUP: u32 = 128;

/// A tensor in the layout that it has by now.
#[derive(Debug, Clone)]
pub struct Lying {
    /// The tensor.
    pub tensor: Tensor,
    /// Elements from one to the next along each of its dimensions.
    pub strides: Vec<u32>,
}

impl Lying {
    /// A tensor and its strides.
    pub fn new(tensor: Tensor) -> Lying {
        let strides = match (tensor.layout, tensor.dims.as_slice()) {
            (Layout::Nhwc4, [_, c, h, w]) => {
                let padded = c.next_multiple_of(4);
                vec![h * w * padded, 1, w * padded, padded]
            }
            _ => tensor.strides(),
        };
        Lying { tensor, strides }
    }

    /// The value at an argument, in whatever layout it lies.
    ///
    /// # Errors
    /// The argument is no tensor.
    pub fn input(node: &Node<'_>, argument: usize, e: &mut Encoder<'_>) -> Result<Lying, Error> {
        let value = node.value(argument)?;
        let layout = e.layout(value);
        Ok(Lying::new(e.tensor(value, layout)?))
    }

    /// Code of its element type.
    ///
    /// # Errors
    /// No kernel reads the type.
    pub fn code(&self) -> Result<u32, Error> {
        code(&self.tensor)
    }
}

/// Code of a tensor's element type.
///
/// # Errors
/// No kernel reads the type.
pub fn code(tensor: &Tensor) -> Result<u32, Error> {
    codes::code(tensor.dtype).ok_or_else(|| Error::internal(format!("no kernel reads {}", tensor.dtype)))
}

/// The tensor at an argument that may be `None`, row-major.
///
/// # Errors
/// The argument is neither.
pub fn optional(node: &Node<'_>, argument: usize, e: &mut Encoder<'_>) -> Result<Option<Tensor>, Error> {
    let value: Option<ValueIndex> = node.optional_value(argument)?;
    value.map(|value| e.tensor(value, Layout::RowMajor)).transpose()
}

/// Words that hold as many elements: an invocation or a workgroup makes one; 64-bit elements count as one.
pub fn words(count: u32, dtype: DType) -> u32 {
    count.div_ceil(lanes(dtype))
}

/// Elements of a word.
pub fn lanes(dtype: DType) -> u32 {
    4 / (dtype.size().unwrap_or(4) as u32).clamp(1, 4)
}

/// A list of dimensions: size and stride, the innermost first.
pub type Dims = Vec<[u32; 2]>;

/// The rows of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// The dimensions that are kept.
    pub kept: Dims,
    /// Those that are reduced.
    pub reduced: Dims,
    /// Number of rows.
    pub count: u32,
    /// Elements of a row.
    pub length: u32,
}

/// How rows are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// A workgroup works on a row, or one invocation.
    pub group: bool,
    /// Parts that a row is cut into.
    pub segments: u32,
    /// Elements of a part; the last may have fewer.
    pub length: u32,
}

impl Rows {
    /// The rows of a tensor along some of its dimensions.
    ///
    /// # Errors
    /// More elements than kernels count.
    pub fn new(x: &Lying, along: &[bool]) -> Result<Rows, Error> {
        let select = |reduced: bool| -> Vec<[u32; 2]> {
            let all = x.tensor.dims.iter().zip(&x.strides).zip(along);
            let chosen = all.filter(|(_, along)| **along == reduced);
            chosen.map(|((size, stride), _)| [*size, *stride]).collect()
        };
        let (kept, reduced) = (select(false), select(true));
        let count = |dims: &Dims| checked_count(&dims.iter().map(|d| d[0]).collect::<Vec<_>>());
        Ok(Rows {
            count: count(&kept)?,
            length: count(&reduced)?,
            kept: merged(&kept),
            reduced: merged(&reduced),
        })
    }

    /// How reductions share them out.
    pub fn plan(&self) -> Plan {
        let side_by_side = self.kept.first().is_some_and(|d| d[1] == 1);
        let group = self.length > 64 && !(side_by_side && self.count >= 1024);
        let length = match group && self.length >= 1 << 15 && self.count < 64 {
            true => 1 << 13,
            false => self.length.max(1),
        };
        Plan {
            group,
            segments: self.length.div_ceil(length).max(1),
            length,
        }
    }

    /// Both lists as parameters that begin at `at`: (the words, where the kept are, where the reduced are).
    pub fn params(&self, at: u32) -> (Vec<u32>, u32, u32) {
        let mut words = listed(&self.kept);
        let reduced = at + words.len() as u32;
        words.extend(listed(&self.reduced));
        (words, at, reduced)
    }

    /// Rows of a tensor of one number for each row and segment.
    pub fn of_segments(&self, segments: u32) -> Rows {
        Rows {
            kept: merged(&[[self.count, segments]]),
            reduced: merged(&[[segments, 1]]),
            count: self.count,
            length: segments,
        }
    }
}

/// A list of dimensions as parameters.
pub fn listed(dims: &Dims) -> Vec<u32> {
    std::iter::once(dims.len() as u32)
        .chain(dims.iter().flatten().copied())
        .collect()
}

/// Dimensions from the outermost to the innermost, as a list for kernels: those of size 1 left out, those that lie as one joined.
pub fn merged(dims: &[[u32; 2]]) -> Dims {
    let mut list: Dims = Vec::new();
    for &[size, stride] in dims.iter().rev().filter(|d| d[0] != 1) {
        match list.last_mut() {
            Some([last, step]) if u64::from(*last) * u64::from(*step) == u64::from(stride) => *last *= size,
            _ => list.push([size, stride]),
        }
    }
    list
}

/// How rows are shared out by kernels that end with `include/norm_main.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// A row for each invocation.
    Flat,
    /// A row for each workgroup.
    Group,
    /// A row for each subgroup, and so many for a workgroup.
    Team(u32),
}

impl Share {
    /// For rows of a length; `side_by_side`: neighbours of a row are apart, those of other rows are not.
    pub fn of(rows: u32, length: u32, side_by_side: bool, facts: &Facts) -> Share {
        if length <= 64 || (side_by_side && rows >= 1024) {
            return Share::Flat;
        }
        let has = facts.has.has(Needs::SUBGROUP) && (2..=GROUP).contains(&facts.subgroup);
        match has && rows >= 64 && length <= facts.subgroup.saturating_mul(64) {
            true => Share::Team(GROUP / facts.subgroup),
            false => Share::Group,
        }
    }

    /// Workgroups for so many rows.
    pub fn grid(self, rows: u32) -> [u32; 3] {
        match self {
            Share::Flat => grid(rows, GROUP),
            Share::Group => grid(rows, 1),
            Share::Team(each) => grid(rows, each),
        }
    }

    /// Rows of a workgroup, for the parameters.
    pub fn rows(self) -> u32 {
        match self {
            Share::Team(each) => each,
            _ => 1,
        }
    }
}

/// Which dimensions an argument names: `None` and an empty list name all.
///
/// # Errors
/// One is out of range.
pub fn along(node: &Node<'_>, argument: usize, rank: usize) -> Result<Vec<bool>, Error> {
    let dims = node.optional_ints(argument)?.unwrap_or_default();
    match dims.is_empty() {
        true => Ok(vec![true; rank]),
        false => along_dims(&dims, rank),
    }
}

/// The dimensions of a list.
///
/// # Errors
/// One is out of range.
pub fn along_dims(dims: &[i64], rank: usize) -> Result<Vec<bool>, Error> {
    let mut along = vec![false; rank];
    for dim in dims {
        let dim = wrap(*dim, rank)?;
        // A number has no dimension, but may be reduced along the one that it would have.
        if let Some(slot) = along.get_mut(dim) {
            *slot = true;
        }
    }
    Ok(along)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lying(dims: &[u32], layout: Layout) -> Lying {
        Lying::new(Tensor {
            storage: 0,
            offset: 0,
            dtype: DType::F32,
            dims: dims.to_vec(),
            layout,
        })
    }

    #[test]
    fn dimensions_join() {
        let rows = Rows::new(&lying(&[2, 3, 4, 5], Layout::RowMajor), &[false, false, true, true]).unwrap();
        assert_eq!((rows.kept, rows.reduced), (vec![[6, 20]], vec![[20, 1]]));
        let rows = Rows::new(&lying(&[2, 3, 4, 5], Layout::RowMajor), &[true, false, true, false]).unwrap();
        assert_eq!((rows.count, rows.length), (15, 8));
        assert_eq!(rows.kept, vec![[5, 1], [3, 20]]);
        assert_eq!(rows.reduced, vec![[4, 5], [2, 60]]);
    }

    #[test]
    fn channels_last_are_read_where_they_lie() {
        let rows = Rows::new(&lying(&[2, 5, 3, 3], Layout::Nhwc4), &[false, false, true, true]).unwrap();
        assert_eq!(rows.kept, vec![[5, 1], [2, 72]]);
        assert_eq!(rows.reduced, vec![[9, 8]]);
    }

    #[test]
    fn empty_rows() {
        let rows = Rows::new(&lying(&[2, 0], Layout::RowMajor), &[false, true]).unwrap();
        assert_eq!((rows.count, rows.length, rows.plan().segments), (2, 0, 1));
    }

    #[test]
    fn rows_are_shared_by_the_size_of_a_subgroup() {
        let mut facts = Facts::weakest();
        assert_eq!(Share::of(1000, 200, false, &facts), Share::Group);
        (facts.has, facts.subgroup) = (Needs::SUBGROUP, 32);
        assert_eq!(Share::of(1000, 200, false, &facts), Share::Team(4));
        assert_eq!(Share::of(1000, 200, false, &facts).grid(1000), [250, 1, 1]);
        assert_eq!(Share::of(1000, 20_000, false, &facts), Share::Group);
        assert_eq!(Share::of(1000, 20, false, &facts), Share::Flat);
    }

    #[test]
    fn long_rows_are_cut() {
        let rows = Rows::new(&lying(&[100_000], Layout::RowMajor), &[true]).unwrap();
        let plan = rows.plan();
        assert_eq!((plan.group, plan.segments, plan.length), (true, 13, 8192));
    }
}
