//! The engine that writes elements to places which index tensors name: see `include/columns.wgsl`.

use super::Index;
use crate::codes::code;
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::{Node, Scalar};
use crate::operators::create::bits_of;
use crate::operators::movement::{WIDE, kind, widening};
use crate::tensor::{Tensor, checked_count};
use delegraph_sdk::{DType, Error};

/// How an element meets the one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meeting {
    /// It takes its place.
    Replace,
    /// It is added.
    Sum,
    /// It is multiplied with it.
    Product,
    /// The larger stays; NaN before all.
    Maximum,
    /// The smaller stays; NaN before all.
    Minimum,
}

impl Meeting {
    /// By the name of a reduction.
    pub fn named(name: &str) -> Option<Meeting> {
        Some(match name {
            "sum" | "add" => Meeting::Sum,
            "prod" | "multiply" => Meeting::Product,
            "amax" => Meeting::Maximum,
            "amin" => Meeting::Minimum,
            _ => return None,
        })
    }

    /// That of a node which names it at argument 4.
    ///
    /// # Errors
    /// It names none.
    pub fn of(node: &Node<'_>) -> Result<Meeting, Error> {
        let meeting = Meeting::named(node.str(4)?);
        meeting.ok_or_else(|| Error::internal("a reduction that was not checked"))
    }

    /// The number of `accumulate.wgsl`; `None`: nothing is computed.
    fn number(self) -> Option<u32> {
        match self {
            Meeting::Replace => None,
            Meeting::Sum => Some(0),
            Meeting::Product => Some(1),
            Meeting::Maximum => Some(2),
            Meeting::Minimum => Some(3),
        }
    }
}

/// A dimension that columns differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dim {
    /// How many.
    pub size: u32,
    /// Elements of the output from one to the next.
    pub out: i64,
    /// Elements of the source from one to the next.
    pub source: i64,
    /// Elements of the index tensor from one to the next.
    pub index: u32,
}

/// Elements on their way to places: see `include/columns.wgsl`.
pub struct Write<'t> {
    /// What is written.
    pub source: &'t Tensor,
    /// The place of its first element.
    pub start: i64,
    /// Where it goes.
    pub index: &'t Index,
    /// Indices of a column.
    pub count: u32,
    /// Elements of the index tensor from one of them to the next.
    pub index_stride: u32,
    /// The same in the source.
    pub source_stride: i64,
    /// What columns differ in.
    pub dims: Vec<Dim>,
    /// How elements meet those that are there.
    pub meeting: Meeting,
    /// What the elements are multiplied by before they are added.
    pub factor: Scalar,
}

impl Write<'_> {
    /// Writes.
    ///
    /// # Errors
    /// The device cannot.
    pub fn to(mut self, e: &mut Encoder<'_>, out: &Tensor) -> Result<(), Error> {
        let columns = checked_count(&self.dims.iter().map(|d| d.size).collect::<Vec<_>>())?;
        if columns == 0 || self.count == 0 || out.count() == 0 {
            return Ok(());
        }
        self.dims = joined(&self.dims);
        let by = match self.meeting {
            Meeting::Replace => widening(kind(out.dtype), |by| self.widens(by)),
            _ => 0,
        };
        let kind = kind(out.dtype) + by;
        if let (Some((last, outer)), true) = (self.dims.split_last_mut(), by > 0) {
            last.size >>= by;
            for dim in outer {
                dim.out >>= by;
                dim.source >>= by;
            }
        }
        let (columns, index) = (columns >> by, self.index);
        let number = self.meeting.number();
        let factor = factor(out.dtype, self.factor)?;
        let mut params = vec![columns, kind, self.count, 0, (self.start >> by) as u32];
        params.extend([
            (index.jump >> by) as u32,
            index.extent,
            index.words(),
            self.index_stride,
        ]);
        params.extend([
            (self.source_stride >> by) as u32,
            code(out.dtype).unwrap_or(0),
            number.unwrap_or(0),
        ]);
        params.extend([factor[0], factor[1], self.dims.len() as u32]);
        for dim in &self.dims {
            params.extend([dim.size, dim.out as u32, dim.source as u32, dim.index]);
        }
        let kernel = match (number, kind) {
            (Some(_), 2..) => &kernels::ACCUMULATE_WORDS,
            (Some(_), _) => &kernels::ACCUMULATE_LANES,
            (None, WIDE) => &kernels::SCATTER_WIDE,
            (None, 2 | 3) => &kernels::SCATTER_WORDS,
            (None, _) => &kernels::SCATTER_LANES,
        };
        let flag = e.flag()?;
        let operands = [read(self.source), read(&index.tensor), write(&flag), write(out)];
        e.dispatch(kernel, &operands, &params, grid(columns, 64))
    }

    fn widens(&self, by: i64) -> bool {
        let whole = |n: i64| n % by == 0;
        let Some((last, outer)) = self.dims.split_last() else {
            return false;
        };
        self.index.extent > 0
            && (last.out, last.source, last.index) == (1, 1, 0)
            && whole(i64::from(last.size))
            && whole(self.start)
            && whole(self.index.jump)
            && whole(self.source_stride)
            && outer.iter().all(|d| whole(d.out) && whole(d.source))
    }
}

/// Dimensions without those of size 1, neighbours joined where they are one.
fn joined(dims: &[Dim]) -> Vec<Dim> {
    let mut kept: Vec<Dim> = Vec::with_capacity(dims.len());
    for dim in dims.iter().filter(|d| d.size != 1) {
        let inner = i64::from(dim.size);
        let joins = |outer: &&mut Dim| {
            outer.out == dim.out * inner
                && outer.source == dim.source * inner
                && i64::from(outer.index) == i64::from(dim.index) * inner
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
    kept
}

/// The bits of a factor, as `accumulate.wgsl` takes them.
fn factor(dtype: DType, factor: Scalar) -> Result<[u32; 2], Error> {
    Ok(match dtype.is_float() {
        true => [(factor.float() as f32).to_bits(), 0],
        false => {
            let bits = bits_of(DType::I64, factor)?;
            [bits as u32, (bits >> 32) as u32]
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_joined() {
        let dim = |size, stride, index| Dim {
            size,
            out: stride,
            source: stride,
            index,
        };
        assert_eq!(joined(&[dim(2, 12, 0), dim(1, 5, 0), dim(3, 4, 0)]), [dim(6, 4, 0)]);
        assert_eq!(joined(&[dim(2, 12, 1), dim(3, 4, 0)]).len(), 2);
    }
}
