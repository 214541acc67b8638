//! Convolutions on tensors that lie channels last.

use super::geometry::Geometry;
use super::{NO_BIAS, bias, float_code};
use crate::chain::Op;
use crate::encoder::{Encoder, Finish, grid, read, write};
use crate::kernels::{self, Kernel};
use crate::node::Node;
use crate::operators::movement;
use crate::packing::{Packing, conv};
use crate::tensor::{Layout, Tensor};
use delegraph_sdk::{DType, Error};

/// Invocations of a workgroup of these kernels.
const GROUP: u32 = 64;

/// Pixels that an invocation makes.
const PIXELS: u32 = 4;

/// Tiles of 2 by 2 outputs of Winograd's F(2x2, 3x3).
pub fn tiles(g: &Geometry) -> u64 {
    let [_, down, across] = &g.axes;
    u64::from(g.batch) * u64::from(down.output.div_ceil(2)) * u64::from(across.output.div_ceil(2))
}

/// The number of invocations, if a grid can have it.
fn invocations(factors: &[u32]) -> Result<u32, Error> {
    crate::tensor::checked_count(factors)
}

/// The input, channels last.
fn input(node: &Node<'_>, e: &mut Encoder<'_>, g: &Geometry) -> Result<Tensor, Error> {
    let value = node.value(0)?;
    if e.dims(value)?.len() == 4 {
        return e.tensor(value, Layout::Nhwc4);
    }
    let line = e.tensor(value, Layout::RowMajor)?.reshaped(&g.input4())?;
    movement::to_layout(e, &line, Layout::Nhwc4)
}

/// The weights in blocks, or by channel.
fn weights(node: &Node<'_>, e: &mut Encoder<'_>, g: &Geometry, by_channel: bool) -> Result<Tensor, Error> {
    let value = node.value(1)?;
    let dtype = e.dtype(value)?;
    let volume: u32 = g.axes.iter().map(|axis| axis.kernel).product();
    let blocks = g.outputs.next_multiple_of(4);
    let dims = match by_channel {
        true => vec![volume, blocks],
        false => vec![volume, g.inner().next_multiple_of(4), blocks],
    };
    if e.is_constant(value) {
        let (packing, arguments): (&'static Packing, &[u32]) = match by_channel {
            true => (&conv::DEPTHWISE, &[]),
            false => (&conv::BLOCKS, &[g.groups, u32::from(g.transposed)]),
        };
        return e.packed(value, packing, arguments, dtype, &dims);
    }
    let plain = e.tensor(value, Layout::RowMajor)?;
    let packed = e.make(dtype, &dims, Layout::RowMajor)?;
    let count = packed.count() / 4;
    let params = [
        count,
        float_code(dtype)?,
        volume,
        g.inner(),
        g.outputs,
        g.share(),
        u32::from(g.transposed),
        u32::from(by_channel),
    ];
    let kernel = by_dtype(dtype, &kernels::CONV_PACK_F32, &kernels::CONV_PACK_F16);
    e.dispatch(kernel, &[read(&plain), write(&packed)], &params, grid(count, GROUP))?;
    Ok(packed)
}

fn by_dtype(dtype: DType, single: &'static Kernel, half: &'static Kernel) -> &'static Kernel {
    if dtype == DType::F16 { half } else { single }
}

/// The links that the variants FEW of the kernels apply; the others have all of `finish()`.
const FEW: &[Op] = &[
    Op::Add,
    Op::Mul,
    Op::Max,
    Op::Clamp,
    Op::Hardswish,
    Op::Hardsigmoid,
    Op::Leaky,
];

/// The variants of a kernel.
struct Variants {
    few: [&'static Kernel; 2],
    any: [&'static Kernel; 2],
}

impl Variants {
    /// The one for an element type and what is applied to results.
    fn of(&self, dtype: DType, links: &[u32]) -> &'static Kernel {
        let is_half = dtype == DType::F16;
        let mut operations = links.iter().skip(1).step_by(5).map(|head| head & 255);
        let is_one_of_few = |op| FEW.iter().any(|few| *few as u32 == op) || (is_half && op == Op::As as u32);
        let set = if operations.all(is_one_of_few) {
            self.few
        } else {
            self.any
        };
        set[usize::from(is_half)]
    }
}

/// The output and the kernel that writes it: channels last for four dimensions, row-major else.
fn output(
    node: &Node<'_>,
    e: &mut Encoder<'_>,
    last: &Variants,
    rows: &Variants,
) -> Result<(Finish, &'static Kernel), Error> {
    let value = node.output(0)?;
    let (rank, dtype) = (e.dims(value)?.len(), e.dtype(value)?);
    let (layout, variants) = match rank {
        4 => (Layout::Nhwc4, last),
        _ => (Layout::RowMajor, rows),
    };
    let finish = e.finish(node, layout)?;
    let kernel = variants.of(dtype, &finish.links);
    Ok((finish, kernel))
}

/// 1 by 1: a product of matrices.
pub fn point(node: &Node<'_>, e: &mut Encoder<'_>, g: &Geometry) -> Result<(), Error> {
    let x = input(node, e, g)?;
    let w = weights(node, e, g, false)?;
    let (bias, bias_code) = bias(node, e, &w, g)?;
    let finish = e.finish(node, Layout::Nhwc4)?;
    let [_, down, across] = &g.axes;
    let pixels = invocations(&[g.batch, down.output, across.output])?;
    let variants = Variants {
        few: [&kernels::CONV_POINT_F32, &kernels::CONV_POINT_F16],
        any: [&kernels::CONV_POINT_ANY_F32, &kernels::CONV_POINT_ANY_F16],
    };
    let kernel = variants.of(x.dtype, &finish.links);
    product(
        e,
        kernel,
        &Product {
            g,
            pixels,
            batch: 1,
            bias_code,
        },
        &[&x, &w, &bias],
        &finish,
    )
}

/// One product of matrices, or several.
struct Product<'a> {
    g: &'a Geometry,
    pixels: u32,
    batch: u32,
    bias_code: u32,
}

fn product(
    e: &mut Encoder<'_>,
    kernel: &'static Kernel,
    of: &Product<'_>,
    [x, w, bias]: &[&Tensor; 3],
    finish: &Finish,
) -> Result<(), Error> {
    let (inner, blocks) = (of.g.channels.div_ceil(4), of.g.outputs.div_ceil(4));
    let (tiles, rows) = (blocks.div_ceil(2), of.pixels.div_ceil(PIXELS));
    let count = invocations(&[tiles, rows, of.batch])?;
    let mut params = vec![count, tiles, blocks, inner, rows, of.pixels, of.g.outputs, of.bias_code];
    params.extend(&finish.links);
    let [first, second] = &finish.extra;
    let operands = [
        read(x),
        read(w),
        read(bias),
        read(first),
        read(second),
        write(&finish.out),
    ];
    e.dispatch(kernel, &operands, &params, grid(count, GROUP))
}

/// Any kernel.
pub fn direct(node: &Node<'_>, e: &mut Encoder<'_>, g: &Geometry) -> Result<(), Error> {
    let x = input(node, e, g)?;
    let w = weights(node, e, g, false)?;
    let (bias, bias_code) = bias(node, e, &w, g)?;
    let last = Variants {
        few: [&kernels::CONV_DIRECT_F32, &kernels::CONV_DIRECT_F16],
        any: [&kernels::CONV_DIRECT_ANY_F32, &kernels::CONV_DIRECT_ANY_F16],
    };
    let rows = Variants {
        few: [&kernels::CONV_DIRECT_ROWS_F32, &kernels::CONV_DIRECT_ROWS_F16],
        any: [&kernels::CONV_DIRECT_ANY_ROWS_F32, &kernels::CONV_DIRECT_ANY_ROWS_F16],
    };
    let (finish, kernel) = output(node, e, &last, &rows)?;
    let [_, down, across] = &g.axes;
    let group_blocks = g.share().div_ceil(4);
    let group_tiles = group_blocks.div_ceil(2);
    let row = across.gap * across.output.div_ceil(across.gap).div_ceil(PIXELS);
    let count = invocations(&[g.groups, group_tiles, row, down.output, g.batch])?;
    let mut params = vec![
        count,
        g.groups * group_tiles,
        group_tiles,
        group_blocks,
        g.outputs.div_ceil(4),
        g.inner().div_ceil(4),
        g.channels.div_ceil(4),
        row,
        down.output,
        across.output,
        down.input,
        across.input,
        down.kernel,
        across.kernel,
        g.outputs,
        bias_code,
    ];
    for axis in [down, across] {
        let (whole, rest) = axis.step_parts();
        params.extend([axis.multiple, axis.offset as u32, whole, rest, axis.gap, axis.lift()]);
    }
    params.extend(&finish.links);
    let [first, second] = &finish.extra;
    let operands = [
        read(&x),
        read(&w),
        read(&bias),
        read(first),
        read(second),
        write(&finish.out),
    ];
    e.dispatch(kernel, &operands, &params, grid(count, GROUP))
}

/// A channel a group.
pub fn depthwise(node: &Node<'_>, e: &mut Encoder<'_>, g: &Geometry) -> Result<(), Error> {
    let x = input(node, e, g)?;
    let w = weights(node, e, g, true)?;
    let (bias, bias_code) = bias(node, e, &w, g)?;
    let last = Variants {
        few: [&kernels::CONV_DEPTHWISE_F32, &kernels::CONV_DEPTHWISE_F16],
        any: [&kernels::CONV_DEPTHWISE_ANY_F32, &kernels::CONV_DEPTHWISE_ANY_F16],
    };
    let rows = Variants {
        few: [&kernels::CONV_DEPTHWISE_ROWS_F32, &kernels::CONV_DEPTHWISE_ROWS_F16],
        any: [
            &kernels::CONV_DEPTHWISE_ANY_ROWS_F32,
            &kernels::CONV_DEPTHWISE_ANY_ROWS_F16,
        ],
    };
    let (finish, kernel) = output(node, e, &last, &rows)?;
    let [_, down, across] = &g.axes;
    let (blocks, row) = (g.channels.div_ceil(4), across.output.div_ceil(PIXELS));
    let count = invocations(&[blocks, row, down.output, g.batch])?;
    let mut params = vec![
        count,
        blocks,
        row,
        down.output,
        across.output,
        down.input,
        across.input,
        down.kernel,
        across.kernel,
        g.channels,
        bias_code,
    ];
    for axis in [down, across] {
        params.extend([axis.multiple, axis.offset.wrapping_neg() as u32, axis.step as u32]);
    }
    params.extend(&finish.links);
    let [first, second] = &finish.extra;
    let operands = [
        read(&x),
        read(&w),
        read(&bias),
        read(first),
        read(second),
        write(&finish.out),
    ];
    e.dispatch(kernel, &operands, &params, grid(count, GROUP))
}

/// 3 by 3 by Winograd's F(2x2, 3x3): 16 products of a quarter of the pixels, in f32 whatever the tensors are.
pub fn winograd(node: &Node<'_>, e: &mut Encoder<'_>, g: &Geometry) -> Result<(), Error> {
    let x = input(node, e, g)?;
    let (inner, blocks) = (g.channels.div_ceil(4), g.outputs.div_ceil(4));
    let w = e.packed(
        node.value(1)?,
        &conv::WINOGRAD,
        &[],
        DType::F32,
        &[16, 4 * inner, 4 * blocks],
    )?;
    let [_, down, across] = &g.axes;
    let (row, column) = (across.output.div_ceil(2), down.output.div_ceil(2));
    let tiles = invocations(&[g.batch, row, column])?;

    let spread = e.make(DType::F32, &[16, tiles, 4 * inner], Layout::RowMajor)?;
    let count = invocations(&[tiles, inner])?;
    let padding = [down, across].map(|axis| axis.offset.wrapping_neg() as u32);
    let params = [
        count,
        inner,
        row,
        column,
        down.input,
        across.input,
        padding[0],
        padding[1],
        tiles,
    ];
    let kernel = by_dtype(x.dtype, &kernels::WINOGRAD_INPUT_F32, &kernels::WINOGRAD_INPUT_F16);
    e.dispatch(kernel, &[read(&x), write(&spread)], &params, grid(count, GROUP))?;

    let products = e.make(DType::F32, &[16, tiles, 4 * blocks], Layout::RowMajor)?;
    let nothing = Finish {
        out: products.clone(),
        links: vec![0],
        extra: [w.clone(), w.clone()],
    };
    let of = Product {
        g,
        pixels: tiles,
        batch: 16,
        bias_code: NO_BIAS,
    };
    product(e, &kernels::CONV_POINT_F32, &of, &[&spread, &w, &w], &nothing)?;

    let (bias, bias_code) = bias(node, e, &w, g)?;
    let finish = e.finish(node, Layout::Nhwc4)?;
    let count = invocations(&[tiles, blocks])?;
    let mut params = vec![
        count,
        blocks,
        row,
        column,
        down.output,
        across.output,
        g.outputs,
        bias_code,
        tiles,
    ];
    params.extend(&finish.links);
    let variants = Variants {
        few: [&kernels::WINOGRAD_OUTPUT_F32, &kernels::WINOGRAD_OUTPUT_F16],
        any: [&kernels::WINOGRAD_OUTPUT_ANY_F32, &kernels::WINOGRAD_OUTPUT_ANY_F16],
    };
    let kernel = variants.of(x.dtype, &finish.links);
    let [first, second] = &finish.extra;
    let operands = [
        read(&products),
        read(&bias),
        read(first),
        read(second),
        write(&finish.out),
    ];
    e.dispatch(kernel, &operands, &params, grid(count, GROUP))
}
