//! Quantizing and back by explicit operators, and choosing scales: `quantized_decomposed`, and `torchao` where blocks are runs of elements.

use super::product::{checked, is_wide};
use crate::caps::{self, Operator, Refusal, dtype, output_dtype};
use crate::codes::code;
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::tensor::{Layout, Tensor};
use delegraph_sdk::image::{ArgView, NodeView};
use delegraph_sdk::{DType, Error};

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    to("quantized_decomposed::quantize_per_tensor.tensor", |n, e| {
        quantize(n, e, Shape::Tensor, 3, false)
    }),
    to("quantized_decomposed::quantize_per_token", |n, e| {
        quantize(n, e, Shape::Token, 3, true)
    }),
    from("quantized_decomposed::dequantize_per_tensor.tensor", |n, e| {
        dequantize(n, e, Shape::Tensor)
    }),
    from("quantized_decomposed::dequantize_per_token", |n, e| {
        dequantize(n, e, Shape::Token)
    }),
    from("quantized_decomposed::dequantize_per_channel_group", |n, e| {
        dequantize(n, e, Shape::Group(6))
    }),
    choosing("quantized_decomposed::choose_qparams.tensor", |n, e| {
        choose_tensor(n, e, 0)
    }),
    choosing("quantized_decomposed::choose_qparams_symmetric.tensor", |n, e| {
        choose_tensor(n, e, 2)
    }),
    choosing("quantized_decomposed::choose_qparams_per_token_asymmetric", |n, e| {
        choose_token(n, e, 1, f64::from(f32::EPSILON))
    }),
    choosing(
        "quantized_decomposed::_choose_qparams_per_token_asymmetric_impl",
        |n, e| choose_token(n, e, 1, f64::from(f32::EPSILON)),
    ),
    choosing("quantized_decomposed::choose_qparams_per_token", |n, e| {
        choose_token(n, e, 4, 1e-5)
    }),
    Operator {
        name: "torchao::quantize_affine",
        accept: |node| accept_to(node).and_then(|()| accept_blocks(node, 1)),
        encode: quantize_affine,
    },
    Operator {
        name: "torchao::dequantize_affine",
        accept: |node| accept_from(node).and_then(|()| accept_blocks(node, 1)),
        encode: |n, e| dequantize_with(n, e, Shape::Block(1), 2, 3),
    },
    Operator {
        name: "torchao::choose_qparams_affine",
        accept: accept_choose_affine,
        encode: choose_affine,
    },
];

type Encode = fn(&Node<'_>, &mut Encoder<'_>) -> Result<(), Error>;

const fn to(name: &'static str, encode: Encode) -> Operator {
    Operator {
        name,
        accept: accept_to,
        encode,
    }
}

const fn from(name: &'static str, encode: Encode) -> Operator {
    Operator {
        name,
        accept: accept_from,
        encode,
    }
}

const fn choosing(name: &'static str, encode: Encode) -> Operator {
    Operator {
        name,
        accept: accept_choose,
        encode,
    }
}

const INTEGERS: &[DType] = &[DType::I8, DType::U8, DType::I16, DType::I32];

/// Scales and zero points among the arguments from the second on are tensors of these types.
fn accept_parameters(node: &NodeView<'_>) -> Result<(), Refusal> {
    let parameters = (1..node.arg_count()).filter_map(|i| dtype(node, i));
    for dtype in parameters {
        let known = matches!(dtype, DType::F32 | DType::F64 | DType::I64) || INTEGERS.contains(&dtype);
        if !known {
            return Err(Refusal::dtype(format!("scales or zero points of {dtype}")));
        }
    }
    Ok(())
}

fn accept_to(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept_parameters(node)?;
    match (dtype(node, 0), output_dtype(node)) {
        (Some(DType::F32), Some(DType::I8 | DType::U8 | DType::I16)) => Ok(()),
        (from, to) => Err(Refusal::dtype(format!("quantizing {} to {}", name(from), name(to)))),
    }
}

fn accept_from(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept_parameters(node)?;
    match (dtype(node, 0), output_dtype(node)) {
        (Some(DType::I8 | DType::U8 | DType::I16), Some(DType::F32)) => Ok(()),
        (from, to) => Err(Refusal::dtype(format!("dequantizing {} to {}", name(from), name(to)))),
    }
}

fn name(dtype: Option<DType>) -> String {
    dtype.map_or("no tensor".to_string(), |dtype| dtype.to_string())
}

fn accept_choose(node: &NodeView<'_>) -> Result<(), Refusal> {
    let outputs: Vec<Option<DType>> = node.outputs().iter().map(|o| caps::dtype_of(node, o)).collect();
    let zeros = [DType::I8, DType::U8, DType::I32, DType::I64, DType::F32];
    match (dtype(node, 0), outputs.as_slice()) {
        (Some(DType::F32), [Some(DType::F32 | DType::F64), Some(zero)]) if zeros.contains(zero) => Ok(()),
        _ => Err(Refusal::dtype("scales of f32 tensors only")),
    }
}

/// Blocks are runs of elements: a 1 for each dimension but the last.
fn accept_blocks(node: &NodeView<'_>, blocks: usize) -> Result<(), Refusal> {
    let image = node.image();
    let ArgView::Ints(sizes) = node.arg(blocks) else {
        return Err(Refusal::attribute("blocks without sizes"));
    };
    let sizes: Vec<Option<i64>> = sizes.exprs().iter().map(|size| image.const_int(size)).collect();
    let runs = match sizes.as_slice() {
        [ones @ .., last] => ones.iter().all(|one| *one == Some(1)) && last.is_some_and(|last| last > 0),
        [] => false,
    };
    match runs && caps::rank(node, 0) == Some(sizes.len()) {
        true => Ok(()),
        false => Err(Refusal::attribute("blocks over several dimensions")),
    }
}

fn accept_choose_affine(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept_choose(node)?;
    accept_blocks(node, 2)?;
    let limits = [4, 5].map(|i| match node.arg(i) {
        ArgView::Int(limit) => Some(limit as f64),
        ArgView::Float(limit) => Some(limit),
        _ => None,
    });
    match (node.arg(1), limits) {
        (ArgView::Str("ASYMMETRIC" | "SYMMETRIC"), [Some(_), Some(_)]) => Ok(()),
        (ArgView::Str("SYMMETRIC_NO_CLIPPING_ERR"), [Some(low), Some(high)]) if low != 0.0 && high != 0.0 => Ok(()),
        _ => Err(Refusal::attribute("a mapping of another kind, or without limits")),
    }
}

/// Which elements share a scale.
#[derive(Clone, Copy)]
enum Shape {
    Tensor,
    Token,
    /// The argument that says how many.
    Group(usize),
    /// The argument with the sizes of a block.
    Block(usize),
}

impl Shape {
    /// Elements in a row that share a scale, and how many scales there are.
    fn of(self, node: &Node<'_>, dims: &[u32]) -> Result<[u32; 2], Error> {
        let all: u32 = dims.iter().product();
        let last = dims.last().copied().unwrap_or(1).max(1);
        Ok(match self {
            Shape::Tensor => [all.max(1), 1],
            Shape::Token => [last, all / last],
            Shape::Group(size) => run(node.int(size)?, last, all)?,
            Shape::Block(sizes) => run(node.ints(sizes)?.last().copied().unwrap_or(1), last, all)?,
        })
    }
}

fn run(size: i64, last: u32, all: u32) -> Result<[u32; 2], Error> {
    match u32::try_from(size) {
        Ok(size) if size > 0 && last.is_multiple_of(size) => Ok([size, all / size]),
        _ => Err(Error::invalid(format!("{last} elements are not blocks of {size}"))),
    }
}

/// Scales and zero points: tensors, or numbers.
struct Parameters {
    scales: Option<Tensor>,
    zeros: Option<Tensor>,
    scale: f64,
    zero: f64,
    shape: [u32; 2],
}

impl Parameters {
    fn read(
        node: &Node<'_>,
        e: &mut Encoder<'_>,
        x: &Tensor,
        shape: Shape,
        [scale, zero]: [usize; 2],
    ) -> Result<Parameters, Error> {
        let mut parameters = Parameters {
            scales: None,
            zeros: None,
            scale: 1.0,
            zero: 0.0,
            shape: shape.of(node, &x.dims)?,
        };
        match node.view().arg(scale).value() {
            Some(value) => parameters.scales = Some(e.tensor(value, Layout::RowMajor)?),
            None => parameters.scale = node.scalar(scale)?.float(),
        }
        match node.view().arg(zero).value() {
            Some(value) => {
                parameters.zeros = Some(e.tensor(value, Layout::RowMajor)?).filter(|zeros| zeros.count() > 0)
            }
            None => parameters.zero = node.optional_scalar(zero)?.map_or(0.0, |zero| zero.float()),
        }
        let [_, count] = parameters.shape;
        let sizes = [&parameters.scales, &parameters.zeros];
        for tensor in sizes.into_iter().flatten() {
            if tensor.count() != count {
                return Err(Error::invalid(format!(
                    "{} scales or zero points for {count} runs of elements",
                    tensor.count()
                )));
            }
        }
        Ok(parameters)
    }

    /// The dispatch; `scale` is what the kernel multiplies by, where it is a number.
    fn dispatch(
        &self,
        e: &mut Encoder<'_>,
        kernel: &'static kernels::Kernel,
        [x, out]: [&Tensor; 2],
        scale: f32,
        shift_first: bool,
        [low, high]: [i64; 2],
    ) -> Result<(), Error> {
        if out.count() == 0 {
            return Ok(());
        }
        let number = |dtype: DType| code(dtype).ok_or_else(|| Error::internal(format!("quantizing {dtype}")));
        let zeros = self.zeros.as_ref().map_or(Ok(0), |zeros| number(zeros.dtype))?;
        let double = self.scales.as_ref().is_some_and(|scales| scales.dtype == DType::F64);
        let flags = u32::from(self.scales.is_some())
            | u32::from(self.zeros.is_some()) << 1
            | u32::from(shift_first) << 2
            | u32::from(double) << 3;
        let [after, count] = self.shape;
        let params = [
            out.count(),
            number(x.dtype)? | number(out.dtype)? << 8 | zeros << 16,
            after.max(1),
            count.max(1),
            flags,
            scale.to_bits(),
            (self.zero as f32).to_bits(),
            low as i32 as u32,
            high as i32 as u32,
        ];
        let nothing = e.nothing()?;
        let operands = [
            read(x),
            read(self.scales.as_ref().unwrap_or(&nothing)),
            read(self.zeros.as_ref().unwrap_or(&nothing)),
            write(out),
        ];
        let words = out.bytes().div_ceil(4) as u32;
        e.dispatch(kernel, &operands, &params, grid(words, 64))
    }
}

fn quantize(node: &Node<'_>, e: &mut Encoder<'_>, shape: Shape, limits: usize, shift_first: bool) -> Result<(), Error> {
    let x = e.input(node, 0)?;
    let parameters = Parameters::read(node, e, &x, shape, [1, 2])?;
    let limits = [node.int(limits)?, node.int(limits + 1)?];
    let out = e.output(node, 0, Layout::RowMajor)?;
    let scale = (1.0 / parameters.scale) as f32;
    parameters.dispatch(e, &kernels::QUANTIZE_TO, [&x, &out], scale, shift_first, limits)
}

fn dequantize(node: &Node<'_>, e: &mut Encoder<'_>, shape: Shape) -> Result<(), Error> {
    dequantize_with(node, e, shape, 1, 2)
}

fn dequantize_with(node: &Node<'_>, e: &mut Encoder<'_>, shape: Shape, scale: usize, zero: usize) -> Result<(), Error> {
    let x = e.input(node, 0)?;
    let parameters = Parameters::read(node, e, &x, shape, [scale, zero])?;
    let out = e.output(node, 0, Layout::RowMajor)?;
    let scale = parameters.scale as f32;
    parameters.dispatch(e, &kernels::QUANTIZE_FROM, [&x, &out], scale, false, [0, 0])
}

/// The least and the greatest integer of a type.
fn range(dtype: DType) -> [i64; 2] {
    match dtype {
        DType::U8 => [0, 255],
        DType::I16 => [-32768, 32767],
        _ => [-128, 127],
    }
}

fn quantize_affine(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let x = e.input(node, 0)?;
    let parameters = Parameters::read(node, e, &x, Shape::Block(1), [2, 3])?;
    let out = e.output(node, 0, Layout::RowMajor)?;
    let [low, high] = range(out.dtype);
    let low = node.optional_scalar(5)?.map_or(low, |low| low.int());
    let high = node.optional_scalar(6)?.map_or(high, |high| high.int());
    let scale = (1.0 / parameters.scale) as f32;
    parameters.dispatch(e, &kernels::QUANTIZE_TO, [&x, &out], scale, false, [low, high])
}

/// How a scale is chosen: as `choose_scale` says.
struct Way {
    way: u32,
    limits: [i64; 2],
    least_scale: f64,
    zero: f64,
}

fn choose(node: &Node<'_>, e: &mut Encoder<'_>, x: &Tensor, shape: [u32; 2], way: &Way) -> Result<(), Error> {
    let [width, rows] = shape;
    if width == 0 || rows == 0 || x.count() == 0 {
        return Err(Error::invalid("there are no elements to choose a scale for"));
    }
    let scales = e.output(node, 0, Layout::RowMajor)?;
    let zeros = e.output(node, 1, Layout::RowMajor)?;
    if scales.count() != rows || zeros.count() != rows {
        return Err(Error::invalid(format!("{} scales for {rows} rows", scales.count())));
    }
    let number = |dtype: DType| match dtype {
        DType::F64 => Ok(9),
        dtype => code(dtype).ok_or_else(|| Error::internal(format!("a scale of {dtype}"))),
    };
    let params = [
        rows,
        width,
        number(x.dtype)? | number(scales.dtype)? << 8 | number(zeros.dtype)? << 16,
        way.way,
        way.limits[0] as i32 as u32,
        way.limits[1] as i32 as u32,
        (way.least_scale as f32).to_bits(),
        (way.zero as f32).to_bits(),
    ];
    let operands = [read(x), write(&scales), write(&zeros)];
    // One long row needs many lanes on every device.
    match width >= if is_wide(e.facts()) { 64 } else { 4096 } {
        true => {
            let count = checked(&[rows, 64])?;
            e.dispatch(&kernels::CHOOSE_SCALE_GROUP, &operands, &params, grid(count, 64))
        }
        false => e.dispatch(&kernels::CHOOSE_SCALE_LINE, &operands, &params, grid(rows, 64)),
    }
}

/// `(input, quant_min, quant_max, eps, dtype)`
fn choose_tensor(node: &Node<'_>, e: &mut Encoder<'_>, way: u32) -> Result<(), Error> {
    let x = e.input(node, 0)?;
    let unsigned = node.optional_dtype(4)? == Some(DType::U8);
    let way = Way {
        way,
        limits: [node.int(1)?, node.int(2)?],
        least_scale: node.scalar(3)?.float(),
        zero: if unsigned { 128.0 } else { 0.0 },
    };
    choose(node, e, &x, [x.count(), 1], &way)
}

/// `(input, dtype)`: a token is a row of the last dimension.
fn choose_token(node: &Node<'_>, e: &mut Encoder<'_>, way: u32, least_scale: f64) -> Result<(), Error> {
    let x = e.input(node, 0)?;
    let shape = Shape::Token.of(node, &x.dims)?;
    let way = Way {
        way,
        limits: [-128, 127],
        least_scale,
        zero: 0.0,
    };
    choose(node, e, &x, shape, &way)
}

/// `(input, mapping_type, block_size, target_dtype, quant_min, quant_max, eps, scale_dtype, zero_point_dtype, keepdim)`
fn choose_affine(node: &Node<'_>, e: &mut Encoder<'_>) -> Result<(), Error> {
    let x = e.input(node, 0)?;
    let shape = Shape::Block(2).of(node, &x.dims)?;
    let limits = [node.int(4)?, node.int(5)?];
    let middle = ((limits[0] + limits[1] + 1) as f64 / 2.0).trunc();
    let way = Way {
        way: match node.str(1)? {
            "ASYMMETRIC" => 0,
            "SYMMETRIC" => 2,
            _ => 3,
        },
        limits,
        least_scale: node
            .optional_scalar(6)?
            .map_or(f64::from(f32::MIN_POSITIVE), |eps| eps.float()),
        zero: middle,
    };
    choose(node, e, &x, shape, &way)
}
