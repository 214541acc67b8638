//! Convolutions, channels last.

use super::linear::Ends;
use super::{Step, Work};
use crate::plan::Shapes;
use crate::sys::Io;
use delegraph_cpu_kernels::conv::{self, Layout, Shape, depthwise, grouped};
use delegraph_cpu_kernels::gemm::Stored;
use delegraph_cpu_kernels::{Isa, Pool};
use delegraph_sdk::Error;
use delegraph_sdk::arguments::Arguments;

/// `cpu::conv(x, packed, bias?, residual?, method, layout, kernel, stride, padding, dilation, groups, width, function, number, number,
/// residual_last)`: `x` is `[n, h, w, c]` (`layout` `nhwc`) or `[n, c, h, w]` (`nchw`), the output always `[n, h, w, c]`; `padding` is top, bottom,
/// left, right.
pub const NAME: &str = "cpu::conv";
/// The argument of the method.
pub const METHOD: usize = 4;
/// The argument of the layout.
pub const LAYOUT: usize = 5;
/// The argument of the function's word; its numbers and `residual_last` follow.
pub const FUNCTION: usize = 12;
/// The argument of the bias; the residual follows.
pub const BIAS: usize = 2;

/// How a convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// As a product with gathered rows.
    Gemm,
    /// One filter a channel.
    Depthwise,
    /// Groups of few channels.
    Grouped,
    /// By fewer products.
    Winograd,
}

/// A convolution of one set of sizes.
pub struct Conv {
    /// How it is computed.
    pub method: Method,
    /// Of the input.
    pub layout: Layout,
    /// Its sizes.
    pub shape: Shape,
    /// Columns of a panel of weights.
    pub width: usize,
    /// What is done to sums.
    pub ends: Ends,
}

fn pair(node: &Arguments<'_>, at: usize) -> Result<[usize; 2], Error> {
    let given = node.ints(at)?;
    let sizes: Vec<usize> = given.iter().filter_map(|x| usize::try_from(*x).ok()).collect();
    sizes.try_into().map_err(|_| node.misfit(at, "two sizes"))
}

/// Makes the step.
///
/// # Errors
/// Arguments that do not fit.
pub fn make(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    Ok(Box::new(read(node, shapes)?))
}

/// Reads a node.
///
/// # Errors
/// Arguments that do not fit.
pub fn read(node: &Arguments<'_>, shapes: &Shapes) -> Result<Conv, Error> {
    let (x, weight, output) = (node.value(0)?, node.value(1)?, node.output(0)?);
    let method = match node.str(METHOD)? {
        "gemm" => Method::Gemm,
        "depthwise" => Method::Depthwise,
        "grouped" => Method::Grouped,
        "winograd" => Method::Winograd,
        _ => return Err(node.misfit(METHOD, "a method")),
    };
    let (&[batch, a, b, c], &[_, out_height, out_width, out_channels]) = (shapes.of(x), shapes.of(output)) else {
        return Err(node.misfit(0, "a tensor of four dimensions"));
    };
    let (layout, [height, width, channels]) = match node.str(LAYOUT)? {
        "nhwc" => (Layout::ChannelsLast, [a, b, c]),
        "nchw" if method == Method::Gemm => (Layout::ChannelsFirst, [b, c, a]),
        _ => return Err(node.misfit(LAYOUT, "a layout")),
    };
    let padding: Vec<usize> = node.ints(8)?.iter().filter_map(|p| usize::try_from(*p).ok()).collect();
    let &[top, bottom, left, right] = padding.as_slice() else {
        return Err(node.misfit(8, "four borders"));
    };
    let shape = Shape {
        batch,
        height,
        width,
        channels,
        out_channels,
        kernel: pair(node, 6)?,
        stride: pair(node, 7)?,
        padding: [[top, bottom], [left, right]],
        dilation: pair(node, 9)?,
        groups: node.natural(10)?,
    };
    let panel = node.natural(11)?;
    let positive = shape
        .kernel
        .iter()
        .chain(&shape.stride)
        .chain(&shape.dilation)
        .all(|x| *x > 0)
        && shape.groups > 0;
    let small = [height, width, top, bottom, left, right]
        .iter()
        .chain(&shape.kernel)
        .chain(&shape.dilation)
        .all(|x| *x < 1 << 14);
    let fits = positive
        && small
        && channels % shape.groups == 0
        && out_channels % shape.groups == 0
        && shape.output() == [out_height, out_width]
        && shapes.count(weight)
            == match method {
                Method::Gemm if matches!(panel, 8 | 16 | 32) => conv::packed_len(&shape, panel),
                Method::Depthwise if shape.groups == channels && channels == out_channels => {
                    depthwise::packed_len(&shape)
                }
                Method::Grouped if grouped::fits(&shape, panel) => grouped::packed_len(&shape, panel),
                Method::Winograd if matches!(panel, 8 | 16 | 32) => conv::winograd::packed_len(&shape, panel),
                _ => return Err(Error::corrupt("a convolution's method does not fit it")),
            };
    if !fits {
        return Err(Error::corrupt(format!(
            "packed weights do not fit the convolution {shape:?}"
        )));
    }
    Ok(Conv {
        method,
        layout,
        shape,
        width: panel,
        ends: Ends::read(node, BIAS, FUNCTION)?,
    })
}

impl Step for Conv {
    /// Those of the direct form, padding included: Winograd's does fewer, so that what it reaches of a machine's peak may be more than all.
    fn work(&self) -> Work {
        let shape = &self.shape;
        let ([rows, columns], [height, width]) = (shape.output(), shape.kernel);
        let inputs = shape.channels / shape.groups;
        Work::floats(&[2, shape.batch, rows, columns, shape.out_channels, height, width, inputs])
    }

    fn scratch(&self, threads: usize) -> usize {
        size_of::<f32>()
            * match self.method {
                Method::Gemm => conv::scratch_len(&self.shape, self.layout, threads),
                Method::Depthwise => 0,
                Method::Grouped => grouped::scratch_len(&self.shape, self.width, threads),
                Method::Winograd => conv::winograd::scratch_len(&self.shape, threads),
            }
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let (epilogue, isa) = (self.ends.epilogue(&io, 2), Isa::best());
        let (x, weights) = (io.input::<f32>(0), io.input::<f32>(1));
        let (out, scratch) = (io.output::<f32>(0), io.scratch::<f32>());
        let shape = &self.shape;
        match self.method {
            Method::Gemm => {
                let weights = Stored::F32(weights);
                conv::conv(
                    isa,
                    pool,
                    shape,
                    self.layout,
                    x,
                    weights,
                    self.width,
                    out,
                    &epilogue,
                    scratch,
                );
            }
            Method::Depthwise => depthwise::conv(isa, pool, shape, x, weights, out, &epilogue),
            Method::Grouped => grouped::conv(isa, pool, shape, x, weights, self.width, out, &epilogue, scratch),
            Method::Winograd => {
                let weights = Stored::F32(weights);
                conv::winograd::conv(isa, pool, shape, x, weights, self.width, out, &epilogue, scratch);
            }
        }
        Ok(())
    }
}
