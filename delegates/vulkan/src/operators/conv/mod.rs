//! Convolutions of one, two and three dimensions, plain and transposed, with groups.
//!
//! | method | for | kernels |
//! | --- | --- | --- |
//! | point | 1 by 1, stride 1, one group: a product of matrices over all pixels | `conv_point` |
//! | depthwise | a channel a group | `conv_depthwise` |
//! | Winograd | 3 by 3, stride 1, one group, where it needs fewer operations | `winograd_input`, `conv_point`, `winograd_output` |
//! | direct | everything else of one and two dimensions in groups of whole blocks of four channels, transposed too | `conv_direct` |
//! | plain | the rest | `conv_plain` |
//! | bytes | quantized types, see `bytes.rs` | `conv_bytes`, `conv_bytes_depthwise` |
//!
//! All but the plain one read channels last. They write channels last where the output has four dimensions, row-major else. A convolution of one
//! dimension is one of two dimensions with a height of 1. Winograd's spreads an infinity or NaN of the input to all four pixels of a tile.

mod bytes;
mod fast;
mod geometry;

use crate::caps::{self, Operator, Refusal, rank};
use crate::codes::code;
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::tensor::{Layout, Tensor};
use delegraph_sdk::image::NodeView;
use delegraph_sdk::{DType, Error};
use geometry::{Axis, Geometry};

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    operator("aten::conv1d"),
    operator("aten::conv2d"),
    operator("aten::conv3d"),
    operator("aten::conv1d.padding"),
    operator("aten::conv2d.padding"),
    operator("aten::conv3d.padding"),
    operator("aten::conv_transpose1d"),
    operator("aten::conv_transpose2d.input"),
    operator("aten::conv_transpose3d.input"),
    operator("aten::convolution"),
];

const fn operator(name: &'static str) -> Operator {
    Operator { name, accept, encode }
}

/// The code by which kernels know that there is no bias.
const NO_BIAS: u32 = 255;

fn accept(node: &NodeView<'_>) -> Result<(), Refusal> {
    if bytes::is_quantized(node) {
        return bytes::accept(node);
    }
    caps::floats(node)?;
    let first = caps::dtype(node, 0);
    if node.inputs().any(|value| caps::dtype_of(node, value) != first) {
        return Err(Refusal::dtype("a convolution of tensors of different types"));
    }
    match (rank(node, 0), rank(node, 1)) {
        (Some(x), Some(w @ 3..=5)) if x == w || x + 1 == w => Ok(()),
        (x, w) => Err(Refusal::shape(format!(
            "a convolution of an input of rank {} with weights of rank {}",
            x.unwrap_or(0),
            w.unwrap_or(0)
        ))),
    }
}

/// How a convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Point,
    Depthwise,
    Winograd,
    Direct,
    Plain,
}

/// What a method is chosen by, besides the geometry.
struct Circumstances {
    /// The output has four dimensions.
    is_image: bool,
    is_half: bool,
    /// The weights are known to the compiler.
    is_constant: bool,
    /// Most bytes of a binding.
    range: u64,
}

fn choose(g: &Geometry, at: &Circumstances) -> Method {
    let [depth, down, across] = &g.axes;
    let whole = g.groups == 1 || (g.inner().is_multiple_of(4) && g.share().is_multiple_of(4));
    // Two neighbours of a row share a word.
    let rows_fit = at.is_image || !at.is_half || (across.output.is_multiple_of(2) && across.gap == 1);
    if g.space == 3 || *depth != Axis::POINT || !rows_fit {
        return Method::Plain;
    }
    if g.groups > 1 && g.inner() == 1 && g.share() == 1 && !g.transposed {
        return Method::Depthwise;
    }
    match (whole, g.groups == 1 && at.is_image) {
        (false, _) => Method::Plain,
        (true, true) if down.is_identity() && across.is_identity() => Method::Point,
        (true, true) if at.is_constant && winograd_wins(g, at.range) => Method::Winograd,
        _ => Method::Direct,
    }
}

/// True where Winograd's F(2x2, 3x3) needs clearly fewer operations, and enough tiles share the larger weights.
fn winograd_wins(g: &Geometry, range: u64) -> bool {
    let is_plain = |axis: &Axis| axis.kernel == 3 && axis.multiple == 1 && axis.gap == 1 && axis.step == 1;
    let [_, down, across] = &g.axes;
    if !is_plain(down) || !is_plain(across) || down.offset > 0 || across.offset > 0 || g.transposed {
        return false;
    }
    let (inputs, outputs) = (u64::from(g.channels), u64::from(g.outputs));
    let pixels = u64::from(g.batch) * u64::from(down.output) * u64::from(across.output);
    let tiles = fast::tiles(g);
    let direct = 9 * inputs * outputs * pixels;
    // 32 additions an input tile and 24 an output tile, and the two passes over memory, as half as many multiplications.
    let winograd = tiles * (16 * inputs * outputs + 32 * inputs + 24 * outputs);
    let largest = 16 * 4 * tiles * inputs.max(outputs).next_multiple_of(4);
    inputs >= 16 && outputs >= 16 && tiles >= 16 && winograd * 4 < direct * 3 && largest <= range
}

/// How rows of an image are made of rows: multiple, offset, step and size of the kernel ([`Axis`]); `None`: not row by row.
///
/// # Errors
/// The arguments and sizes do not fit.
pub fn rows(node: &Node<'_>, e: &Encoder<'_>) -> Result<Option<[i64; 4]>, Error> {
    let g = Geometry::of(node, &e.dims(node.value(0)?)?, &e.dims(node.value(1)?)?)?;
    let [_, down, _] = &g.axes;
    let is_plain = !g.transposed && g.space == 2 && down.gap == 1 && down.step > 0;
    let numbers = [
        i64::from(down.multiple),
        i64::from(down.offset),
        i64::from(down.step),
        i64::from(down.kernel),
    ];
    Ok(is_plain.then_some(numbers))
}

fn encode(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let (x, w) = (node.value(0)?, node.value(1)?);
    let mut g = Geometry::of(node, &e.whole_dims(x)?, &e.dims(w)?)?;
    let parts = (e.window(x), e.window(node.output(0)?));
    if let (Some((from, x)), Some((to, out))) = parts {
        g.batch = x.first().copied().unwrap_or(1);
        if let ([_, _, above, _], [_, _, height, _], [_, _, first, _], [_, _, rows, _]) = (from, x, to, out) {
            let down = &mut g.axes[1];
            down.offset += (first * down.multiple) as i32 - *above as i32;
            (down.input, down.output) = (*height, *rows);
        }
    }
    if bytes::is_quantized(&node.view()) {
        return bytes::encode(node, e, &g);
    }
    let output = e.dims(node.output(0)?)?;
    let dtype = e.dtype(x)?;
    let circumstances = Circumstances {
        is_image: output.len() == 4,
        is_half: dtype == DType::F16,
        is_constant: e.is_constant(w),
        range: e.facts().limits.storage_range,
    };
    let [_, down, across] = g.axes;
    // A column lies as a row does, and tiles are pieces of rows.
    if across.is_identity() && across.input == 1 {
        g.axes = [g.axes[0], across, down];
    }
    match choose(&g, &circumstances) {
        Method::Point => fast::point(node, e, &g),
        Method::Depthwise => fast::depthwise(node, e, &g),
        Method::Winograd => fast::winograd(node, e, &g),
        Method::Direct => fast::direct(node, e, &g),
        Method::Plain => plain(node, e, &g),
    }
}

/// The bias, or any tensor, and its code.
fn bias(node: &Node<'_>, e: &mut Encoder<'_>, other: &Tensor, g: &Geometry) -> Result<(Tensor, u32), Error> {
    let Some(value) = node.optional_value(2)? else {
        return Ok((other.clone(), NO_BIAS));
    };
    let bias = e.tensor(value, Layout::RowMajor)?;
    if bias.count() != g.outputs {
        return Err(Error::invalid(format!(
            "{} biases for {} channels",
            bias.count(),
            g.outputs
        )));
    }
    Ok((bias.clone(), float_code(bias.dtype)?))
}

fn float_code(dtype: DType) -> Result<u32, Error> {
    code(dtype).ok_or_else(|| Error::internal(format!("a convolution of {dtype}")))
}

fn plain(node: &Node<'_>, e: &mut Encoder<'_>, g: &Geometry) -> Result<(), Error> {
    let (x, w) = (e.input(node, 0)?, e.input(node, 1)?);
    let (bias, bias_code) = bias(node, e, &w, g)?;
    let finish = e.finish(node, Layout::RowMajor)?;
    let out = &finish.out;
    let words = (u64::from(out.count()) * u64::from(out.element())).div_ceil(4) as u32;
    let mut params = vec![
        words,
        out.count(),
        float_code(x.dtype)?,
        float_code(w.dtype)?,
        bias_code,
        g.channels,
        g.outputs,
        g.inner(),
        g.share(),
        u32::from(g.transposed),
    ];
    for axis in &g.axes {
        params.extend([axis.input, axis.output, axis.kernel, axis.multiple]);
        params.extend([axis.offset as u32, axis.step as u32, axis.gap, axis.lift()]);
    }
    params.extend(&finish.links);
    let [first, second] = &finish.extra;
    let operands = [read(&x), read(&w), read(&bias), read(first), read(second), write(out)];
    e.dispatch(&kernels::CONV_PLAIN, &operands, &params, grid(words, 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(channels: u32, outputs: u32, groups: u32, size: u32, kernel: u32) -> Geometry {
        let axis = Axis {
            input: size,
            output: size,
            kernel,
            offset: -((kernel / 2) as i32),
            ..Axis::POINT
        };
        Geometry {
            batch: 1,
            channels,
            outputs,
            groups,
            transposed: false,
            axes: [Axis::POINT, axis, axis],
            space: 2,
        }
    }

    fn method(g: &Geometry) -> Method {
        choose(
            g,
            &Circumstances {
                is_image: true,
                is_half: false,
                is_constant: true,
                range: 1 << 27,
            },
        )
    }

    #[test]
    fn each_shape_has_its_method() {
        assert_eq!(method(&image(16, 24, 1, 14, 1)), Method::Point);
        assert_eq!(method(&image(24, 24, 24, 14, 3)), Method::Depthwise);
        assert_eq!(method(&image(3, 32, 1, 112, 3)), Method::Direct);
        assert_eq!(method(&image(64, 64, 1, 56, 3)), Method::Winograd);
        assert_eq!(method(&image(512, 512, 1, 5, 3)), Method::Direct);
        assert_eq!(method(&image(16, 16, 4, 14, 3)), Method::Direct);
        assert_eq!(method(&image(6, 6, 2, 14, 3)), Method::Plain);
        assert_eq!(method(&image(6, 12, 6, 14, 3)), Method::Plain);
        let mut volume = image(16, 16, 1, 8, 3);
        volume.space = 3;
        assert_eq!(method(&volume), Method::Plain);
    }
}
