//! Orders along a dimension. NaN is larger than everything, and equals stay in the order that they had.
//!
//! Blocks of rows are put in order in shared memory. Where few of a long row are wanted, each block keeps that many and what was kept is put in
//! order again; otherwise runs are merged, twice as long each time.

use crate::caps::{Operator, Refusal};
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::operators::reduce::accept_any;
use crate::operators::reduce_rows::{code, words};
use crate::operators::softmax::split;
use crate::tensor::{Layout, Tensor};
use delegraph_sdk::image::NodeView;
use delegraph_sdk::{DType, Error};

type Encoded = Result<(), Error>;

/// Elements that a workgroup puts in order: `sort_block.wgsl`.
const BLOCK: u32 = 1024;

/// Most elements that blocks keep for another round: above, runs are merged.
const MOST_KEPT: u32 = 256;

/// Elements of `x` at places along a dimension: a tensor of i64 that lies as `out` does, or one place for all.
///
/// # Errors
/// Beyond the device's limits.
pub fn pick(e: &mut Encoder<'_>, x: &Tensor, dim: usize, places: Result<&Tensor, u32>, out: &Tensor) -> Encoded {
    let (before, length, after) = split(&x.dims, dim);
    let rows = before * after;
    if out.count() == 0 || rows == 0 || length == 0 {
        return Ok(());
    }
    let one = places.err().unwrap_or(u32::MAX);
    let places = places.unwrap_or(x);
    let params = [out.count(), code(x)?, length, after, out.count() / rows, one];
    let groups = grid(words(out.count(), out.dtype), 64);
    e.dispatch(
        &kernels::SORT_PICK,
        &[read(x), read(places), write(out)],
        &params,
        groups,
    )
}

/// What is put in order.
struct Lines<'a> {
    x: &'a Tensor,
    rows: u32,
    length: u32,
    /// Step within a row.
    after: u32,
    descending: bool,
}

/// The candidates of one round.
struct Round {
    /// Where they are, or all of a row.
    candidates: Option<Tensor>,
    count: u32,
    kept: u32,
    /// As i64, as the output lies.
    last: bool,
}

impl Lines<'_> {
    /// Puts blocks in order and keeps the first of each; returns how many are kept of a row.
    fn sort_blocks(&self, e: &mut Encoder<'_>, round: &Round, out: &Tensor) -> Encoded {
        let blocks = round.count.div_ceil(BLOCK);
        let of_row = kept_of_row(round.count, round.kept);
        let mut params = vec![
            self.rows,
            code(self.x)?,
            self.length,
            self.after,
            u32::from(self.descending),
        ];
        params.extend([round.count, u32::from(round.candidates.is_some()), blocks]);
        params.extend([round.kept, of_row, u32::from(round.last)]);
        let candidates = round.candidates.as_ref().unwrap_or(self.x);
        let operands = [read(self.x), read(candidates), write(out)];
        e.dispatch(&kernels::SORT_BLOCK, &operands, &params, grid(self.rows * blocks, 1))
    }

    fn merge(&self, e: &mut Encoder<'_>, runs: &Tensor, run: u32, (out, wanted): (&Tensor, Option<u32>)) -> Encoded {
        let count = self.rows * self.length;
        let mut params = vec![
            count,
            code(self.x)?,
            self.length,
            self.after,
            u32::from(self.descending),
            run,
        ];
        params.extend([u32::from(wanted.is_some()), wanted.unwrap_or(0)]);
        let operands = [read(self.x), read(runs), write(out)];
        e.dispatch(&kernels::SORT_MERGE, &operands, &params, grid(count, 64))
    }

    /// The places of the first `wanted` of each row, into a tensor of i64.
    fn order(&self, e: &mut Encoder<'_>, wanted: u32, out: &Tensor) -> Encoded {
        if self.rows == 0 || wanted == 0 {
            return Ok(());
        }
        let mut round = Round {
            candidates: None,
            count: self.length,
            kept: wanted.min(BLOCK),
            last: self.length <= BLOCK,
        };
        if wanted > MOST_KEPT && !round.last {
            return self.order_all(e, wanted, out);
        }
        while !round.last {
            let kept = kept_of_row(round.count, round.kept);
            let next = e.make(DType::I32, &[self.rows, kept], Layout::RowMajor)?;
            self.sort_blocks(e, &round, &next)?;
            round.candidates = Some(next);
            round.count = kept;
            round.last = kept <= BLOCK;
        }
        self.sort_blocks(e, &round, out)
    }

    fn order_all(&self, e: &mut Encoder<'_>, wanted: u32, out: &Tensor) -> Encoded {
        let round = Round {
            candidates: None,
            count: self.length,
            kept: BLOCK,
            last: false,
        };
        let mut runs = e.make(DType::I32, &[self.rows, self.length], Layout::RowMajor)?;
        self.sort_blocks(e, &round, &runs)?;
        let mut run = BLOCK;
        while run.saturating_mul(2) < self.length {
            let next = e.make(DType::I32, &[self.rows, self.length], Layout::RowMajor)?;
            self.merge(e, &runs, run, (&next, None))?;
            (runs, run) = (next, run * 2);
        }
        self.merge(e, &runs, run, (out, Some(wanted)))
    }
}

/// What all blocks of a row keep together.
fn kept_of_row(count: u32, kept: u32) -> u32 {
    (count / BLOCK) * kept.min(BLOCK) + (count % BLOCK).min(kept)
}

/// Places of the first `wanted` elements along a dimension.
fn order(
    e: &mut Encoder<'_>,
    (x, dim): (&Tensor, usize),
    wanted: Option<u32>,
    descending: bool,
    out: &Tensor,
) -> Encoded {
    let (before, length, after) = split(&x.dims, dim);
    let wanted = wanted.unwrap_or(length);
    if wanted > length {
        return Err(Error::invalid(format!("{wanted} of {length} elements")));
    }
    let lines = Lines {
        x,
        rows: before * after,
        length,
        after,
        descending,
    };
    lines.order(e, wanted, out)
}

/// Values in order and where they were; `dim` and `descending` are where the arguments are.
fn encode_sort(node: &Node<'_>, e: &mut Encoder<'_>, dim: usize, descending: usize) -> Encoded {
    let x = e.input(node, 0)?;
    let (values, places) = (
        e.output(node, 0, Layout::RowMajor)?,
        e.output(node, 1, Layout::RowMajor)?,
    );
    let dim = node.dim(dim, x.dims.len())?;
    order(e, (&x, dim), None, node.bool(descending)?, &places)?;
    pick(e, &x, dim, Ok(&places), &values)
}

fn encode_places(node: &Node<'_>, e: &mut Encoder<'_>, dim: usize, descending: usize) -> Encoded {
    let x = e.input(node, 0)?;
    let places = e.output(node, 0, Layout::RowMajor)?;
    let dim = node.dim(dim, x.dims.len())?;
    order(e, (&x, dim), None, node.bool(descending)?, &places)
}

fn encode_values(node: &Node<'_>, e: &mut Encoder<'_>) -> Encoded {
    let x = e.input(node, 0)?;
    let values = e.output(node, 0, Layout::RowMajor)?;
    let places = e.make(DType::I64, &x.dims, Layout::RowMajor)?;
    order(e, (&x, 0), None, false, &places)?;
    pick(e, &x, 0, Ok(&places), &values)
}

fn natural(node: &Node<'_>, argument: usize) -> Result<u32, Error> {
    let number = node.int(argument)?;
    u32::try_from(number).map_err(|_| Error::invalid(format!("{number} elements")))
}

fn encode_top(node: &Node<'_>, e: &mut Encoder<'_>) -> Encoded {
    let x = e.input(node, 0)?;
    let (values, places) = (
        e.output(node, 0, Layout::RowMajor)?,
        e.output(node, 1, Layout::RowMajor)?,
    );
    let dim = node.dim(2, x.dims.len())?;
    order(e, (&x, dim), Some(natural(node, 1)?), node.bool(3)?, &places)?;
    pick(e, &x, dim, Ok(&places), &values)
}

/// The element that has a place in the order, and where it is.
fn encode_kth(node: &Node<'_>, e: &mut Encoder<'_>) -> Encoded {
    let x = e.input(node, 0)?;
    let (values, places) = (
        e.output(node, 0, Layout::RowMajor)?,
        e.output(node, 1, Layout::RowMajor)?,
    );
    let dim = node.dim(2, x.dims.len())?;
    let wanted = natural(node, 1)?;
    let mut dims = x.dims.clone();
    if let Some(size) = dims.get_mut(dim) {
        *size = wanted;
    }
    let first = e.make(DType::I64, &dims, Layout::RowMajor)?;
    order(e, (&x, dim), Some(wanted), false, &first)?;
    pick(e, &first, dim, Err(wanted.saturating_sub(1)), &places)?;
    pick(e, &x, dim, Ok(&places), &values)
}

const fn row(name: &'static str, encode: fn(&Node<'_>, &mut Encoder<'_>) -> Encoded) -> Operator {
    Operator {
        name,
        accept: accept_any,
        encode,
    }
}

fn accept_top(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept_any(node)?;
    match node.arg(4).bool() {
        Some(true) => Ok(()),
        _ => Err(Refusal::attribute("`sorted` is not true: the order is not specified")),
    }
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    row("aten::sort", |n, e| encode_sort(n, e, 1, 2)),
    row("aten::sort.stable", |n, e| encode_sort(n, e, 2, 3)),
    row("aten::argsort", |n, e| encode_places(n, e, 1, 2)),
    row("aten::argsort.stable", |n, e| encode_places(n, e, 2, 3)),
    row("aten::msort", encode_values),
    row("aten::kthvalue", encode_kth),
    Operator {
        name: "aten::topk",
        accept: accept_top,
        encode: encode_top,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_keep_what_they_have() {
        assert_eq!(kept_of_row(1024, 5), 5);
        assert_eq!(kept_of_row(2050, 5), 12);
        assert_eq!(kept_of_row(2050, 1024), 2050);
        assert_eq!(kept_of_row(3, 1024), 3);
    }
}
