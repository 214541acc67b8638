//! A few slices of a tensor replaced, where it cannot be written in place: one dispatch copies the others and brings these. So a cache of keys or
//! values takes a step of one token.

use super::Index;
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::operators::movement::{Axis, View, WIDE, compact, kind, units, widening};
use crate::tensor::Layout;
use delegraph_sdk::Error;

/// Most slices: each element looks at all of their indices.
const MOST: u32 = 8;

/// Makes the first output of argument 0, with the slices of a dimension that `index` names replaced by those of `slices`, whose dimension `at` and
/// as many as `along` says are those of the index. `false`: another way is better.
///
/// # Errors
/// The device cannot.
pub fn replace(
    node: &Node<'_>,
    e: &mut Encoder<'_>,
    index: &Index,
    slices: &View,
    (at, along): (usize, usize),
) -> Result<bool, Error> {
    let count = index.tensor.count();
    let dims = e.dims(node.value(0)?)?;
    let one = |axes: &[Axis]| match compact(axes)[..] {
        [] => Some(0),
        [axis] => Some(axis.stride),
        _ => None,
    };
    let (Some(before), Some(middle), Some(behind)) = (
        slices.axes.get(..at).and_then(one),
        slices.axes.get(at..at + along).and_then(one),
        slices.axes.get(at + along..).and_then(one),
    ) else {
        return Ok(false);
    };
    let (true, Some(size)) = ((1..=MOST).contains(&count), dims.get(at).copied()) else {
        return Ok(false);
    };
    let inner: u32 = dims.iter().skip(at + 1).product();
    if dims.contains(&0) || index.extent == 0 || e.spare(node, 0).is_some() {
        return Ok(false);
    }
    let old = e.input(node, 0)?;
    let out = e.output(node, 0, Layout::RowMajor)?;
    if out.dims != old.dims {
        return Err(Error::invalid("the output has other sizes than what it is made of"));
    }
    let by = widening(kind(out.dtype), |by| {
        let whole = |n: i64| n % by == 0;
        behind == 1 && whole(i64::from(inner)) && whole(slices.start) && whole(before) && whole(middle)
    });
    let kind = kind(out.dtype) + by;
    let elements = out.count() >> by;
    let mut params = vec![elements, kind, 0, 0, size, inner >> by, count, index.words()];
    params.extend([slices.start >> by, before >> by, middle >> by, behind].map(|n| n as u32));
    let kernel = match kind {
        WIDE => &kernels::ROWS_WIDE,
        _ => &kernels::ROWS_WORDS,
    };
    let flag = e.flag()?;
    let operands = [
        read(&old),
        read(&slices.source),
        read(&index.tensor),
        write(&flag),
        write(&out),
    ];
    e.dispatch(kernel, &operands, &params, grid(units(elements, kind), 64))?;
    Ok(true)
}
