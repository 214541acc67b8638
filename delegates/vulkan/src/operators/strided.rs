//! Operands as they lie before operators turned, stretched or raised them: products read any steps, so these need no copies.

use crate::encoder::Encoder;
use crate::node::Node;
use crate::tensor::{Layout, Tensor, strides};
use delegraph_sdk::Error;
use delegraph_sdk::image::{ArgView, ImageView, NodeView, Source, ValueIndex};

/// A tensor that is read by steps.
#[derive(Debug, Clone)]
pub struct Strided {
    /// Where the elements lie.
    pub tensor: Tensor,
    /// Sizes as the reader sees them.
    pub dims: Vec<u32>,
    /// From an element to the next along each dimension; 0 along those of size 1.
    pub steps: Vec<u32>,
}

/// The operand at an argument, by steps that `fits` allows; else as it is, row-major.
///
/// # Errors
/// As [`Encoder::tensor`].
pub fn operand(
    node: &Node<'_>,
    e: &mut Encoder<'_>,
    argument: usize,
    fits: fn(&[u32]) -> bool,
) -> Result<Strided, Error> {
    let value = node.value(argument)?;
    let (view, dims) = (node.view(), e.dims(value)?);
    let image = view.image();
    // What lies behind has other parts.
    let path = if e.in_parts() { Vec::new() } else { path(&image, value) };
    if let Some(base) = path.last().and_then(|maker| maker.arg(0).value()) {
        let base_dims = e.dims(base)?;
        if let Some(steps) = steps_behind(e, &image, &path, &base_dims)?
            && fits(&steps)
        {
            let tensor = e.tensor(base, Layout::RowMajor)?;
            return Ok(clean(tensor, dims, steps));
        }
    }
    let tensor = e.tensor(value, Layout::RowMajor)?;
    let steps = strides(&dims);
    Ok(clean(tensor, dims, steps))
}

fn clean(tensor: Tensor, dims: Vec<u32>, mut steps: Vec<u32>) -> Strided {
    for (step, dim) in steps.iter_mut().zip(&dims) {
        if *dim == 1 {
            *step = 0;
        }
    }
    Strided { tensor, dims, steps }
}

/// Operators that readers look behind: what these read is read as long as what they make.
const KNOWN: &[&str] = &[
    "aten::expand",
    "aten::numpy_T",
    "aten::permute",
    "aten::t",
    "aten::transpose.int",
    "aten::unsqueeze",
];

/// True if readers may look behind this operator.
pub fn looks_behind(op: &str) -> bool {
    KNOWN.contains(&op)
}

/// The nodes that a value goes through, the last first, as long as they only change steps.
fn path<'a>(image: &ImageView<'a>, mut value: ValueIndex) -> Vec<NodeView<'a>> {
    const MOST: usize = 8;
    let mut path = Vec::new();
    while path.len() < MOST {
        let Source::Node(index) = image.value(value).source() else {
            break;
        };
        let maker = image.node(index);
        let Some(before) = maker.arg(0).value().filter(|_| KNOWN.contains(&maker.op())) else {
            break;
        };
        path.push(maker);
        value = before;
    }
    path
}

/// The steps of a row-major tensor behind these nodes; `None`: an argument is not known.
fn steps_behind(
    e: &Encoder<'_>,
    image: &ImageView<'_>,
    path: &[NodeView<'_>],
    base: &[u32],
) -> Result<Option<Vec<u32>>, Error> {
    let mut steps = strides(base);
    let mut dims = base.to_vec();
    for maker in path.iter().rev() {
        let Some(made) = maker.outputs().get(0) else {
            return Ok(None);
        };
        let now = e.dims(made)?;
        let Some(order) = order(image, maker, dims.len()) else {
            return Ok(None);
        };
        // A dimension that nothing stands for, or that is stretched, has no step.
        let missing = now.len().saturating_sub(order.len());
        let mut next = vec![0; missing];
        for (from, size) in order.iter().zip(&now[missing..]) {
            next.push(match from {
                Some(from) if dims.get(*from) == Some(size) => steps.get(*from).copied().unwrap_or(0),
                _ => 0,
            });
        }
        (steps, dims) = (next, now);
    }
    Ok(Some(steps))
}

/// For each of the last dimensions that an operator makes, the dimension that it was.
fn order(image: &ImageView<'_>, maker: &NodeView<'_>, rank: usize) -> Option<Vec<Option<usize>>> {
    let wrap = |dim: i64, rank: usize| {
        let dim = if dim < 0 { dim + rank as i64 } else { dim };
        usize::try_from(dim).ok().filter(|dim| *dim < rank)
    };
    let int = |i: usize, rank: usize| match maker.arg(i) {
        ArgView::Int(dim) => wrap(dim, rank),
        _ => None,
    };
    let mut order: Vec<Option<usize>> = (0..rank).map(Some).collect();
    match maker.op() {
        "aten::expand" => {}
        "aten::t" | "aten::numpy_T" => order.reverse(),
        "aten::transpose.int" => order.swap(int(1, rank)?, int(2, rank)?),
        "aten::unsqueeze" => order.insert(int(1, rank + 1)?, None),
        "aten::permute" => {
            let ArgView::Ints(dims) = maker.arg(1) else {
                return None;
            };
            let dims: Option<Vec<i64>> = dims.exprs().iter().map(|dim| image.const_int(dim)).collect();
            order = dims?
                .iter()
                .map(|dim| wrap(*dim, rank).map(Some))
                .collect::<Option<_>>()?;
        }
        _ => return None,
    }
    Some(order)
}
