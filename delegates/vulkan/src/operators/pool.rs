//! Pooling over windows of one, two and three dimensions.
//!
//! Images of f32 and f16 are pooled channels last; everything else, and the places of maxima, by a plain kernel on row-major tensors.

use crate::caps::{self, Operator, Refusal, rank};
use crate::codes::code;
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels::{self, Kernel};
use crate::node::Node;
use crate::tensor::{Layout, Tensor, checked_count};
use delegraph_sdk::image::{NodeView, ValueIndex};
use delegraph_sdk::{DType, Error};

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    row("aten::max_pool1d", accept_max::<1>, encode_max::<1>),
    row("aten::max_pool2d", accept_max::<2>, encode_max::<2>),
    row("aten::max_pool3d", accept_max::<3>, encode_max::<3>),
    row("aten::max_pool1d_with_indices", accept_max::<1>, encode_max::<1>),
    row("aten::max_pool2d_with_indices", accept_max::<2>, encode_max::<2>),
    row("aten::max_pool3d_with_indices", accept_max::<3>, encode_max::<3>),
    row("aten::adaptive_max_pool1d", accept_max::<1>, encode_adaptive_max::<1>),
    row("aten::adaptive_max_pool2d", accept_max::<2>, encode_adaptive_max::<2>),
    row("aten::adaptive_max_pool3d", accept_max::<3>, encode_adaptive_max::<3>),
    row("aten::avg_pool1d", accept_mean::<1>, encode_mean::<1>),
    row("aten::avg_pool2d", accept_mean::<2>, encode_mean::<2>),
    row("aten::avg_pool3d", accept_mean::<3>, encode_mean::<3>),
    row("aten::adaptive_avg_pool1d", accept_mean::<1>, encode_adaptive_mean::<1>),
    row("aten::adaptive_avg_pool2d", accept_mean::<2>, encode_adaptive_mean::<2>),
    row("aten::adaptive_avg_pool3d", accept_mean::<3>, encode_adaptive_mean::<3>),
    row(
        "aten::_adaptive_avg_pool2d",
        accept_mean::<2>,
        encode_adaptive_mean::<2>,
    ),
    row(
        "aten::_adaptive_avg_pool3d",
        accept_mean::<3>,
        encode_adaptive_mean::<3>,
    ),
];

const fn row(
    name: &'static str,
    accept: fn(&NodeView<'_>) -> Result<(), Refusal>,
    encode: fn(&Node<'_>, &mut Encoder<'_>) -> Result<(), Error>,
) -> Operator {
    Operator { name, accept, encode }
}

/// Whole planes from so many pixels on are summed by a workgroup.
const WHOLE: u32 = 256;

fn accept_rank<const SPACE: usize>(node: &NodeView<'_>) -> Result<(), Refusal> {
    match rank(node, 0) {
        Some(rank) if rank == SPACE + 1 || rank == SPACE + 2 => Ok(()),
        rank => Err(Refusal::shape(format!(
            "pooling of {SPACE} dimensions of a tensor of rank {}",
            rank.unwrap_or(0)
        ))),
    }
}

fn accept_max<const SPACE: usize>(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept_rank::<SPACE>(node)?;
    match caps::dtype(node, 0) {
        Some(DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::I16 | DType::I8 | DType::U8) => Ok(()),
        _ => Err(Refusal::dtype("the largest of windows of this type")),
    }
}

fn accept_mean<const SPACE: usize>(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept_rank::<SPACE>(node)?;
    caps::all_of(node, &[DType::F32, DType::F16, DType::BF16])
}

/// Windows along one dimension; a kernel of 0 divides the input into as many parts as there are outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Axis {
    input: u32,
    output: u32,
    kernel: u32,
    stride: u32,
    padding: u32,
    dilation: u32,
}

impl Axis {
    const POINT: Axis = Axis {
        input: 1,
        output: 1,
        kernel: 1,
        stride: 1,
        padding: 0,
        dilation: 1,
    };

    fn words(&self) -> [u32; 7] {
        let end = self.input.saturating_add(self.padding);
        [
            self.input,
            self.output,
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            end,
        ]
    }

    fn is_whole(&self) -> bool {
        self.kernel == 0 && self.output == 1
    }
}

/// What is made of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Largest,
    /// The mean: what is divided by, if that is given, and whether padding counts.
    Mean(Option<f32>, bool),
}

impl Way {
    /// Parameters 3 to 6 of the kernels.
    fn words(self, dtype: DType) -> [u32; 4] {
        let least = match dtype {
            DType::F32 | DType::F16 | DType::BF16 => f32::NEG_INFINITY.to_bits(),
            _ => i32::MIN as u32,
        };
        match self {
            Way::Largest => [0, 0, 0, least],
            Way::Mean(divisor, padded) => [1, divisor.unwrap_or(0.0).to_bits(), u32::from(padded), least],
        }
    }
}

/// A list of one number a dimension, of which one may stand for all.
fn each(list: &[i64], default: &[i64], space: usize) -> Result<Vec<u32>, Error> {
    let list = if list.is_empty() { default } else { list };
    let wide: Vec<i64> = match *list {
        [one] => vec![one; space],
        _ => list.to_vec(),
    };
    let numbers: Vec<u32> = wide.iter().filter_map(|n| u32::try_from(*n).ok()).collect();
    match numbers.len() == space && wide.len() == space && numbers.iter().all(|n| *n < 1 << 30) {
        true => Ok(numbers),
        false => Err(Error::invalid(format!("{list:?} for windows of {space} dimensions"))),
    }
}

/// The sizes of input and output along the last dimensions.
fn sides(node: &Node<'_>, e: &Encoder<'_>, space: usize) -> Result<[Axis; 3], Error> {
    let (x, out) = (e.dims(node.value(0)?)?, e.dims(node.output(0)?)?);
    let start = x.len().checked_sub(space).filter(|_| x.len() == out.len());
    let start = start.ok_or_else(|| Error::invalid(format!("pooling of {x:?} to {out:?}")))?;
    let mut axes = [Axis::POINT; 3];
    for d in 0..space {
        axes[3 - space + d] = Axis {
            input: x[start + d],
            output: out[start + d],
            ..Axis::POINT
        };
    }
    Ok(axes)
}

/// Windows of a fixed size: kernel, stride, padding and, if there is one, dilation begin at argument 1.
fn fixed(node: &Node<'_>, e: &Encoder<'_>, space: usize, dilated: bool) -> Result<[Axis; 3], Error> {
    let mut axes = sides(node, e, space)?;
    let kernel = node.ints(1)?;
    let stride = each(&node.ints(2)?, &kernel, space)?;
    let padding = each(&node.ints(3)?, &[0], space)?;
    let dilation = match dilated {
        true => each(&node.ints(4)?, &[1], space)?,
        false => vec![1; space],
    };
    let kernel = each(&kernel, &[], space)?;
    for d in 0..space {
        let axis = &mut axes[3 - space + d];
        (axis.kernel, axis.stride, axis.padding, axis.dilation) = (kernel[d], stride[d], padding[d], dilation[d]);
        if axis.kernel == 0 || axis.stride == 0 || axis.dilation == 0 {
            return Err(Error::invalid("kernel, stride and dilation are positive numbers"));
        }
    }
    Ok(axes)
}

fn adaptive(node: &Node<'_>, e: &Encoder<'_>, space: usize) -> Result<[Axis; 3], Error> {
    let mut axes = sides(node, e, space)?;
    for axis in &mut axes[3 - space..] {
        axis.kernel = 0;
        // The kernel multiplies an output's number and the input's size.
        checked_count(&[axis.output.saturating_add(1), axis.input])?;
    }
    Ok(axes)
}

fn encode_max<const SPACE: usize>(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let axes = fixed(node, e, SPACE, true)?;
    encode(node, e, &axes, SPACE, Way::Largest)
}

fn encode_adaptive_max<const SPACE: usize>(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let axes = adaptive(node, e, SPACE)?;
    encode(node, e, &axes, SPACE, Way::Largest)
}

fn encode_mean<const SPACE: usize>(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let axes = fixed(node, e, SPACE, false)?;
    // `avg_pool1d` has no divisor.
    let divisor = match SPACE {
        1 => None,
        _ => node.optional_scalar(6)?.map(|d| d.float() as f32),
    };
    if divisor == Some(0.0) {
        return Err(Error::invalid("a divisor of zero"));
    }
    encode(node, e, &axes, SPACE, Way::Mean(divisor, node.bool(5)?))
}

fn encode_adaptive_mean<const SPACE: usize>(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let axes = adaptive(node, e, SPACE)?;
    encode(node, e, &axes, SPACE, Way::Mean(None, false))
}

/// True if a node reads the value, or it leaves the region.
fn is_used(node: &NodeView<'_>, value: ValueIndex) -> bool {
    let image = node.image();
    image.outputs().iter().any(|v| v == value)
        || (0..image.node_count()).any(|i| {
            let node = image.node(delegraph_sdk::image::NodeIndex(i));
            node.inputs().any(|v| v == value)
        })
}

fn encode(node: &Node<'_>, e: &mut Encoder<'_>, axes: &[Axis; 3], space: usize, way: Way) -> Result<(), Error> {
    let value = node.value(0)?;
    let (dims, dtype) = (e.dims(value)?, e.dtype(value)?);
    let places = node.view().outputs().get(1).filter(|v| is_used(&node.view(), *v));
    if dims.len() == 4 && space == 2 && places.is_none() && matches!(dtype, DType::F32 | DType::F16) {
        return channels_last(node, e, axes, way);
    }
    let x = e.tensor(value, Layout::RowMajor)?;
    let out = e.output(node, 0, Layout::RowMajor)?;
    let indices = match node.view().outputs().get(1) {
        Some(_) => Some(e.output(node, 1, Layout::RowMajor)?),
        None => None,
    };
    let code = code(dtype).ok_or_else(|| Error::internal(format!("pooling of {dtype}")))?;
    let words = (u64::from(out.count()) * u64::from(out.element())).div_ceil(4) as u32;
    let mut params = vec![words, out.count(), code];
    params.extend(way.words(dtype));
    params.push(u32::from(indices.is_some()));
    for axis in axes {
        params.extend(axis.words());
    }
    let unused = match indices {
        Some(_) => None,
        None => Some(e.make(DType::I32, &[4], Layout::RowMajor)?),
    };
    let places: &Tensor = indices.as_ref().or(unused.as_ref()).unwrap_or(&out);
    let operands = [read(&x), write(&out), write(places)];
    e.dispatch(&kernels::POOL_PLAIN, &operands, &params, grid(words, 64))
}

fn channels_last(node: &Node<'_>, e: &mut Encoder<'_>, axes: &[Axis; 3], way: Way) -> Result<(), Error> {
    let x = e.tensor(node.value(0)?, Layout::Nhwc4)?;
    let out = e.output(node, 0, Layout::Nhwc4)?;
    let [_, down, across] = axes;
    let by_dtype = |single: &'static Kernel, half: &'static Kernel| match x.dtype {
        DType::F16 => half,
        _ => single,
    };
    let [_, channels, height, width] = x.dims[..] else {
        return Err(Error::internal("an image has four dimensions"));
    };
    let (blocks, count) = (channels.div_ceil(4), out.stored() / 4);
    let pixels = height * width;
    if way == Way::Mean(None, false) && down.is_whole() && across.is_whole() && pixels >= WHOLE {
        let kernel = by_dtype(&kernels::POOL_WHOLE_F32, &kernels::POOL_WHOLE_F16);
        let params = [count, blocks, pixels];
        return e.dispatch(kernel, &[read(&x), write(&out)], &params, grid(count, 1));
    }
    let mut params = vec![count, blocks, channels];
    params.extend(way.words(x.dtype));
    params.push(0);
    params.extend(down.words());
    params.extend(across.words());
    let kernel = by_dtype(&kernels::POOL_CHANNELS_F32, &kernels::POOL_CHANNELS_F16);
    e.dispatch(kernel, &[read(&x), write(&out)], &params, grid(count, 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_spread() {
        assert_eq!(each(&[], &[3, 2], 2).unwrap(), [3, 2]);
        assert_eq!(each(&[2], &[3, 2], 2).unwrap(), [2, 2]);
        assert!(each(&[1, 2, 3], &[], 2).is_err());
        assert!(each(&[-1], &[], 2).is_err());
        assert!(each(&[], &[], 2).is_err());
    }

    #[test]
    fn ways_in_words() {
        assert_eq!(Way::Largest.words(DType::I8)[3], 0x8000_0000);
        assert_eq!(
            Way::Mean(Some(3.0), true).words(DType::F32)[..3],
            [1, 3f32.to_bits(), 1]
        );
    }
}
