//! Elements by indices that are tensors: the engine that reads them, and what it shares with the one that writes.
//!
//! Negative indices count from the end in lists (`index`, `index_put`), in flattened tensors (`take`, `put`) and where PyTorch fills; elsewhere they are
//! out of range. Indices out of range, for which PyTorch raises an error, make the run fail. Until then they are moved to the nearest that there is: nothing
//! outside of a tensor is touched.

pub mod gather;
pub mod rows;
pub mod scatter;
pub mod write;

use super::movement::{WIDE, kind, units, widening};
use crate::caps::{self, Refusal};
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::tensor::{Layout, Tensor, checked_count, strides};
use delegraph_sdk::image::{ArgView, NodeView, ValueIndex};
use delegraph_sdk::{DType, Error};

/// Index tensors are of these types.
fn is_index(dtype: Option<DType>) -> bool {
    matches!(dtype, Some(DType::I64 | DType::I32))
}

/// The index tensor at an argument, and types that are moved everywhere.
///
/// # Errors
/// It is of another type.
pub fn indexes(node: &NodeView<'_>, argument: usize) -> Result<(), Refusal> {
    super::movement::movable(node)?;
    match is_index(caps::dtype(node, argument)) {
        true => Ok(()),
        false => Err(Refusal::dtype("indices are i64 or i32")),
    }
}

/// The list of index tensors at argument 1. Masks would make the sizes depend on data.
///
/// # Errors
/// There is none, or one is of another type.
pub fn indexes_by_list(node: &NodeView<'_>) -> Result<(), Refusal> {
    super::movement::movable(node)?;
    let list: Vec<ValueIndex> = match node.arg(1) {
        ArgView::Values(list) => list.iter().collect(),
        ArgView::OptionalValues(list) => list.iter().flatten().collect(),
        _ => Vec::new(),
    };
    if list.is_empty() {
        return Err(Refusal::attribute("no index is a tensor"));
    }
    match list.iter().all(|v| is_index(caps::dtype_of(node, *v))) {
        true => Ok(()),
        false => Err(Refusal::dtype(
            "indices are i64 or i32; masks make sizes that depend on data",
        )),
    }
}

/// An index tensor, row-major.
#[derive(Debug, Clone)]
pub struct Index {
    /// Its elements.
    pub tensor: Tensor,
    /// How many indices there are; 0: the elements are places in memory by now.
    pub extent: u32,
    /// Elements of what is indexed from one index to the next.
    pub jump: i64,
    /// Negative ones count from the end; else they are out of range.
    pub wraps: bool,
}

impl Index {
    /// Words of an element, and a bit that says whether negative ones are out of range: as `include/chosen.wgsl` takes them.
    fn words(&self) -> u32 {
        self.tensor.element() / 4 | u32::from(!self.wraps) << 2
    }
}

/// A dimension of a result that is read by indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dim {
    /// How many.
    pub size: u32,
    /// Elements of the source from one to the next, at one index.
    pub source: i64,
    /// Elements of the index tensor from one to the next.
    pub index: u32,
}

/// Dimensions of a result that are those of the index tensor.
pub fn dims_of(index: &Tensor) -> impl Iterator<Item = Dim> + '_ {
    index.dims.iter().zip(strides(&index.dims)).map(|(size, index)| Dim {
        size: *size,
        source: 0,
        index,
    })
}

/// Writes to a new tensor `out`, in order, the elements of `source` whose place is the sum of `start`, of what the dimensions say and of what the
/// index tensor says.
///
/// # Errors
/// There is nothing to read, or the device cannot.
pub fn gather(
    e: &mut Encoder<'_>,
    (source, start): (&Tensor, i64),
    index: &Index,
    dims: &[Dim],
    out: &Tensor,
) -> Result<(), Error> {
    let count = checked_count(&dims.iter().map(|d| d.size).collect::<Vec<_>>())?;
    if count != out.count() {
        return Err(Error::invalid(format!(
            "{count} elements do not make up {:?}",
            out.dims
        )));
    }
    if count == 0 {
        return Ok(());
    }
    if source.count() == 0 {
        return Err(Error::invalid("an index into a tensor without elements"));
    }
    let mut kept: Vec<Dim> = Vec::with_capacity(dims.len());
    for dim in dims.iter().filter(|d| d.size != 1) {
        let joins = |outer: &&mut Dim| {
            outer.source == dim.source * i64::from(dim.size)
                && u64::from(outer.index) == u64::from(dim.index) * u64::from(dim.size)
        };
        match kept.last_mut().filter(joins) {
            Some(outer) => {
                *outer = Dim {
                    size: outer.size * dim.size,
                    ..*dim
                }
            }
            None => kept.push(*dim),
        }
    }
    let mut dims = kept;
    let by = widening(kind(out.dtype), |by| match dims.split_last() {
        Some((last, outer)) => {
            let whole = |n: i64| n % by == 0;
            // Places in memory are of elements, not of wider ones.
            index.extent > 0
                && (last.source, last.index) == (1, 0)
                && whole(i64::from(last.size))
                && whole(start)
                && whole(index.jump)
                && outer.iter().all(|d| whole(d.source))
        }
        None => false,
    });
    let kind = kind(out.dtype) + by;
    if let Some((last, outer)) = dims.split_last_mut() {
        last.size >>= by;
        outer.iter_mut().for_each(|d| d.source >>= by);
    }
    let (count, start, jump) = (count >> by, start >> by, index.jump >> by);
    let kernel = if kind == WIDE {
        &kernels::GATHER_WIDE
    } else {
        &kernels::GATHER_WORDS
    };
    let within: i64 = dims.iter().map(|d| i64::from(d.size - 1) * d.source).sum();
    let flag = e.flag()?;
    for part in parts(e, source, index, (start, within, jump), kind) {
        let mut params = vec![count, kind, 0, 0, (start - part.skipped) as u32, jump as u32];
        params.extend([index.extent, index.words(), part.first, part.end, dims.len() as u32]);
        params.extend(dims.iter().flat_map(|d| [d.size, d.source as u32, d.index]));
        let element = 1i64 << kind;
        let bound = match part.bytes {
            0 => read(source),
            bytes => read(source).part((part.skipped * element) as u64, bytes),
        };
        let operands = [bound, read(&index.tensor), write(&flag), write(out)];
        e.dispatch(kernel, &operands, &params, grid(units(count, kind), 64))?;
    }
    Ok(())
}

/// Some rows of a table that is too much for one binding.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    first: u32,
    end: u32,
    /// Elements that are not bound, and bytes that are; 0: all.
    skipped: i64,
    bytes: u64,
}

/// The parts that a table is read in.
fn parts(
    e: &Encoder<'_>,
    source: &Tensor,
    index: &Index,
    (start, within, jump): (i64, i64, i64),
    kind: u32,
) -> Vec<Part> {
    let most = e.facts().limits.storage_range;
    let row = (jump.max(0) as u64) << kind;
    let fits = source.bytes().next_multiple_of(16) <= most;
    if fits || index.extent == 0 || start != 0 || within >= jump || row + 512 > most {
        return vec![Part {
            first: 0,
            end: u32::MAX,
            skipped: 0,
            bytes: 0,
        }];
    }
    in_parts(index.extent, row, most - 512, kind)
}

/// Rows of `row` bytes in parts of at most `most` bytes, each from a multiple of 256 bytes on.
fn in_parts(rows: u32, row: u64, most: u64, kind: u32) -> Vec<Part> {
    let at_once = u32::try_from(most / row.max(1)).unwrap_or(u32::MAX).max(1);
    let firsts = (0..rows).step_by(at_once as usize);
    firsts
        .map(|first| {
            let end = first.saturating_add(at_once).min(rows);
            let skipped = u64::from(first) * row / 256 * 256;
            Part {
                first,
                end: if end == rows { u32::MAX } else { end },
                skipped: (skipped >> kind) as i64,
                bytes: u64::from(end) * row - skipped,
            }
        })
        .collect()
}

/// The index tensors of a list, stretched to their common sizes, as one; `strides`: of what they index, by dimension.
///
/// # Errors
/// They do not broadcast, or the device cannot.
pub fn combined(
    e: &mut Encoder<'_>,
    given: &[(usize, Tensor)],
    axes: &[(u32, i64)],
) -> Result<(Index, Vec<u32>), Error> {
    let sizes = common_sizes(given.iter().map(|(_, t)| t.dims.as_slice()))?;
    let count = checked_count(&sizes)?;
    let mut all = given.iter().map(|(at, tensor)| {
        let (extent, jump) = axes.get(*at).copied().unwrap_or((0, 0));
        Index {
            tensor: tensor.clone(),
            extent,
            jump,
            wraps: true,
        }
    });
    let first = all.next().ok_or_else(|| Error::invalid("no index is a tensor"))?;
    let mut sum = first;
    for next in all {
        let out = e.make(DType::I32, &sizes, Layout::RowMajor)?;
        let (a, b) = (stretched(&sum.tensor, &sizes), stretched(&next.tensor, &sizes));
        let mut params = vec![count];
        for index in [&sum, &next] {
            params.extend([index.words(), index.extent, index.jump as u32]);
        }
        params.push(sizes.len() as u32);
        for (d, size) in sizes.iter().enumerate() {
            params.extend([*size, a[d], b[d]]);
        }
        if count > 0 {
            let flag = e.flag()?;
            let operands = [read(&sum.tensor), read(&next.tensor), write(&flag), write(&out)];
            e.dispatch(&kernels::PLACES, &operands, &params, grid(count, 64))?;
        }
        sum = Index {
            tensor: out,
            extent: 0,
            jump: 1,
            wraps: true,
        };
    }
    Ok((sum, sizes))
}

/// Strides of a tensor that is stretched to sizes: 0 where it repeats.
fn stretched(tensor: &Tensor, sizes: &[u32]) -> Vec<u32> {
    let missing = sizes.len().saturating_sub(tensor.dims.len());
    let own = tensor.dims.iter().zip(strides(&tensor.dims));
    let own = own.map(|(size, stride)| if *size == 1 { 0 } else { stride });
    std::iter::repeat_n(0, missing).chain(own).collect()
}

/// The sizes that tensors broadcast to.
fn common_sizes<'t>(all: impl Iterator<Item = &'t [u32]> + Clone) -> Result<Vec<u32>, Error> {
    let rank = all.clone().map(<[u32]>::len).max().unwrap_or(0);
    let mut sizes = vec![1u32; rank];
    for dims in all {
        for (size, dim) in sizes[rank - dims.len()..].iter_mut().zip(dims) {
            match (*size, *dim) {
                (have, want) if have == want => {}
                (1, want) => *size = want,
                (_, 1) => {}
                (have, want) => {
                    return Err(Error::invalid(format!(
                        "indices of sizes {have} and {want} do not broadcast"
                    )));
                }
            }
        }
    }
    Ok(sizes)
}

/// The index tensors of the list at argument 1, and the dimensions that they are for.
fn given(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<Vec<(usize, Tensor)>, Error> {
    let list = node.optional_values(1)?;
    let given = list.iter().enumerate().filter_map(|(d, v)| Some((d, (*v)?)));
    given
        .map(|(d, value)| Ok((d, e.tensor(value, Layout::RowMajor)?)))
        .collect()
}

/// Where the dimensions of index tensors come among those that have none: where they stand if they stand together, else first.
fn front(given: &[(usize, Tensor)]) -> usize {
    match (given.first(), given.last()) {
        (Some((first, _)), Some((last, _))) if given.len() == last - first + 1 => *first,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dims: &[u32]) -> Tensor {
        Tensor {
            storage: 0,
            offset: 0,
            dtype: DType::I64,
            dims: dims.to_vec(),
            layout: Layout::RowMajor,
        }
    }

    #[test]
    fn tables_are_read_in_parts() {
        let parts = in_parts(10, 100, 450, 2);
        assert_eq!(parts.len(), 3);
        for (part, (first, end)) in parts.iter().zip([(0, 4), (4, 8), (8, u32::MAX)]) {
            assert_eq!((part.first, part.end), (first, end));
            assert_eq!(part.skipped * 4 % 256, 0);
            assert!(part.skipped * 4 <= i64::from(first) * 100);
            let last = end.min(10);
            assert_eq!(part.skipped as u64 * 4 + part.bytes, u64::from(last) * 100);
        }
    }

    #[test]
    fn sizes_broadcast() {
        let all: [&[u32]; 3] = [&[3, 1], &[4], &[]];
        assert_eq!(common_sizes(all.into_iter()).unwrap(), [3, 4]);
        assert!(common_sizes([&[3][..], &[4]].into_iter()).is_err());
        assert_eq!(stretched(&tensor(&[3, 1]), &[2, 3, 4]), [0, 1, 0]);
    }

    #[test]
    fn indices_apart_come_first() {
        assert_eq!(front(&[(1, tensor(&[2])), (2, tensor(&[2]))]), 1);
        assert_eq!(front(&[(0, tensor(&[2])), (2, tensor(&[2]))]), 0);
        assert_eq!(front(&[(1, tensor(&[2])), (3, tensor(&[2]))]), 0);
    }
}
