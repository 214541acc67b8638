//! Elementwise operators as chains: an accumulator, and links that are applied to it one after another.
//!
//! ```text
//! x = load(y); x = op(x, y, z); x = op(x, y, z); ...      y, z: a number, or a tensor that broadcasts
//! ```
//!
//! The kernel `chain` runs any chain, so that one pipeline serves all operators of a class of dtypes, and chains of several nodes are one dispatch. The
//! kernels that end with `finish()` run those links that [`Op::finishes`] names.

use crate::caps::Refusal;
use crate::codes::code;
use crate::encoder::{Bind, Encoder, grid, read, write};
use crate::kernels::{self, Kernel};
use crate::node::Scalar;
use crate::operators::elementwise;
use crate::tensor::{Layout, Tensor};
use delegraph_sdk::image::{NodeView, Sizes, ValueIndex};
use delegraph_sdk::{DType, Error};

macro_rules! operations {
    ($($name:ident = $number:literal, $wgsl:literal;)*) => {
        /// An operation; `include/ops.wgsl` says what each does.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Op {
            $($name = $number,)*
        }

        /// All operations by their names in WGSL.
        pub const OPS: &[(&str, u32)] = &[$(($wgsl, $number),)*];
    };
}

operations! {
    Load = 0, "OP_LOAD";
    Add = 1, "OP_ADD";
    Rsub = 2, "OP_RSUB";
    Mul = 3, "OP_MUL";
    Div = 4, "OP_DIV";
    Rdiv = 5, "OP_RDIV";
    Max = 6, "OP_MAX";
    Min = 7, "OP_MIN";
    Clamp = 8, "OP_CLAMP";
    Eq = 9, "OP_EQ";
    Ne = 10, "OP_NE";
    Lt = 11, "OP_LT";
    Le = 12, "OP_LE";
    Gt = 13, "OP_GT";
    Ge = 14, "OP_GE";
    Select = 15, "OP_SELECT";
    Fill = 16, "OP_FILL";
    Keep = 17, "OP_KEEP";
    And = 18, "OP_AND";
    Or = 19, "OP_OR";
    Xor = 20, "OP_XOR";
    Not = 21, "OP_NOT";
    Abs = 22, "OP_ABS";
    Neg = 23, "OP_NEG";
    Sign = 24, "OP_SIGN";
    Ceil = 25, "OP_CEIL";
    Floor = 26, "OP_FLOOR";
    Round = 27, "OP_ROUND";
    Trunc = 28, "OP_TRUNC";
    Frac = 29, "OP_FRAC";
    Sqrt = 30, "OP_SQRT";
    Rsqrt = 31, "OP_RSQRT";
    Reciprocal = 32, "OP_RECIPROCAL";
    Square = 33, "OP_SQUARE";
    Hardswish = 34, "OP_HARDSWISH";
    Hardsigmoid = 35, "OP_HARDSIGMOID";
    Leaky = 36, "OP_LEAKY";
    Threshold = 37, "OP_THRESHOLD";
    Hardshrink = 38, "OP_HARDSHRINK";
    Softshrink = 39, "OP_SOFTSHRINK";
    IsNan = 40, "OP_IS_NAN";
    IsInf = 41, "OP_IS_INF";
    IsFinite = 42, "OP_IS_FINITE";
    Copysign = 43, "OP_COPYSIGN";
    NanToNum = 44, "OP_NAN_TO_NUM";
    As = 45, "OP_AS";
    Fmax = 46, "OP_FMAX";
    Fmin = 47, "OP_FMIN";
    BitAnd = 48, "OP_BIT_AND";
    BitOr = 49, "OP_BIT_OR";
    BitXor = 50, "OP_BIT_XOR";
    BitNot = 51, "OP_BIT_NOT";
    ShiftLeft = 52, "OP_SHIFT_LEFT";
    ShiftRight = 53, "OP_SHIFT_RIGHT";
    FloorDiv = 64, "OP_FLOOR_DIV";
    TruncDiv = 65, "OP_TRUNC_DIV";
    Fmod = 66, "OP_FMOD";
    Remainder = 67, "OP_REMAINDER";
    Pow = 68, "OP_POW";
    Rpow = 69, "OP_RPOW";
    Exp = 70, "OP_EXP";
    Exp2 = 71, "OP_EXP2";
    Expm1 = 72, "OP_EXPM1";
    Log = 73, "OP_LOG";
    Log2 = 74, "OP_LOG2";
    Log10 = 75, "OP_LOG10";
    Log1p = 76, "OP_LOG1P";
    Sigmoid = 77, "OP_SIGMOID";
    Silu = 78, "OP_SILU";
    Tanh = 79, "OP_TANH";
    Gelu = 80, "OP_GELU";
    GeluTanh = 81, "OP_GELU_TANH";
    Mish = 82, "OP_MISH";
    LogSigmoid = 83, "OP_LOG_SIGMOID";
    Softplus = 84, "OP_SOFTPLUS";
    Elu = 85, "OP_ELU";
    Sin = 86, "OP_SIN";
    Cos = 87, "OP_COS";
    Tan = 88, "OP_TAN";
    Asin = 89, "OP_ASIN";
    Acos = 90, "OP_ACOS";
    Atan = 91, "OP_ATAN";
    Sinh = 92, "OP_SINH";
    Cosh = 93, "OP_COSH";
    Asinh = 94, "OP_ASINH";
    Acosh = 95, "OP_ACOSH";
    Atanh = 96, "OP_ATANH";
    Erf = 97, "OP_ERF";
    Erfc = 98, "OP_ERFC";
    Atan2 = 99, "OP_ATAN2";
    Hypot = 100, "OP_HYPOT";
    Logaddexp = 101, "OP_LOGADDEXP";
    Xlogy = 102, "OP_XLOGY";
    Logit = 103, "OP_LOGIT";
}

impl Op {
    /// True if floats need the variant `math` of the kernel for it.
    pub fn is_math(self) -> bool {
        self as u32 >= Op::FloorDiv as u32
    }

    /// True if only the kernels that are not light do it in `finish()`.
    pub fn is_curve(self) -> bool {
        matches!(self, Op::Sigmoid | Op::Silu | Op::Tanh | Op::Gelu | Op::GeluTanh)
    }

    /// True if `finish()` of `include/finish.wgsl` does it.
    pub fn finishes(self) -> bool {
        FINISHING.contains(&self)
    }

    /// The operation that gives the same with the accumulator and `y` in each other's place.
    pub fn mirrored(self) -> Option<Op> {
        Some(match self {
            Op::Mul | Op::Max | Op::Min | Op::Eq | Op::Ne | Op::And | Op::Or | Op::Xor => self,
            Op::BitAnd | Op::BitOr | Op::BitXor | Op::Hypot | Op::Logaddexp | Op::Fmax | Op::Fmin => self,
            Op::Lt => Op::Gt,
            Op::Gt => Op::Lt,
            Op::Le => Op::Ge,
            Op::Ge => Op::Le,
            Op::Div => Op::Rdiv,
            Op::Rdiv => Op::Div,
            Op::Pow => Op::Rpow,
            Op::Rpow => Op::Pow,
            _ => return None,
        })
    }
}

/// What `finish()` of `include/finish.wgsl` does.
const FINISHING: &[Op] = &[
    Op::Add,
    Op::Rsub,
    Op::Mul,
    Op::Div,
    Op::Rdiv,
    Op::Max,
    Op::Min,
    Op::Clamp,
    Op::Abs,
    Op::Neg,
    Op::Square,
    Op::Hardswish,
    Op::Hardsigmoid,
    Op::Leaky,
    Op::As,
    Op::Sigmoid,
    Op::Silu,
    Op::Tanh,
    Op::Gelu,
    Op::GeluTanh,
];

/// An operand of a link.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operand {
    /// A number.
    Number(Scalar),
    /// A tensor that broadcasts to the sizes of the output.
    Value(ValueIndex),
    /// A list that lies along this dimension of the output.
    Along(ValueIndex, u32),
}

impl Operand {
    /// The tensor, and the dimension of the output that it lies along, if it is a list.
    pub fn source(self) -> Option<(ValueIndex, Option<u32>)> {
        match self {
            Operand::Number(_) => None,
            Operand::Value(value) => Some((value, None)),
            Operand::Along(value, dim) => Some((value, Some(dim))),
        }
    }

    fn is_number(self, wanted: f64) -> bool {
        matches!(self, Operand::Number(number) if number.float() == wanted)
    }
}

/// What a link has no use for.
pub const NOTHING: Operand = Operand::Number(Scalar::Int(0));

/// An operation on the accumulator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// What is done.
    pub op: Op,
    /// First operand.
    pub y: Operand,
    /// Second operand.
    pub z: Operand,
    /// A third number that some operations have: bits of an f32, or as `ops.wgsl` says.
    pub y2: u32,
}

impl Link {
    /// Without operands.
    pub fn new(op: Op) -> Link {
        Link::of(op, NOTHING)
    }

    /// With one operand.
    pub fn of(op: Op, y: Operand) -> Link {
        // Sums have the factor of y in z.
        let z = match op {
            Op::Add | Op::Rsub => Operand::Number(Scalar::Int(1)),
            _ => NOTHING,
        };
        Link { op, y, z, y2: 0 }
    }

    /// With two operands.
    pub fn two(op: Op, y: Operand, z: Operand) -> Link {
        Link { op, y, z, y2: 0 }
    }

    /// The accumulator becomes what a dtype makes of it: between the links of nodes that were apart. `None`: no kernel has the dtype.
    pub fn rounding(dtype: DType) -> Option<Link> {
        let y2 = code(dtype)?;
        Some(Link {
            y2,
            ..Link::new(Op::As)
        })
    }

    fn sources(&self) -> impl Iterator<Item = (ValueIndex, Option<u32>)> {
        [self.y, self.z].into_iter().filter_map(Operand::source)
    }
}

/// What the kernel computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// f32, for all float types.
    Float,
    /// i32, for bool and integers of up to 32 bits.
    Int,
    /// 64-bit integers.
    Long,
}

impl Class {
    /// The class of a dtype; `None`: no kernel computes in it.
    pub fn of(dtype: DType) -> Option<Class> {
        Some(match dtype {
            DType::F32 | DType::F16 | DType::BF16 => Class::Float,
            DType::I32 | DType::I16 | DType::I8 | DType::U8 | DType::BOOL => Class::Int,
            DType::I64 => Class::Long,
            _ => return None,
        })
    }

    fn kernel(self, links: &[Link]) -> &'static Kernel {
        match self {
            Class::Float if links.iter().any(|link| link.op.is_math()) => &kernels::CHAIN_MATH,
            Class::Float => &kernels::CHAIN_FLOAT,
            Class::Int => &kernels::CHAIN_INT,
            Class::Long => &kernels::CHAIN_LONG,
        }
    }

    fn words(self, number: Scalar) -> [u32; 2] {
        match self {
            Class::Float => [(number.float() as f32).to_bits(), 0],
            Class::Int => [number.int() as u32, 0],
            Class::Long => [number.int() as u32, (number.int() >> 32) as u32],
        }
    }
}

/// A chain: the first link loads the accumulator.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// What it computes in; operands of other types are converted where they are loaded.
    pub dtype: DType,
    /// In order.
    pub links: Vec<Link>,
}

/// The most tensors that a chain has as operands.
pub const MAX_TENSORS: usize = 4;

impl Chain {
    /// The tensors that it reads, each once, in the order of their slots; with the dimension that a list lies along.
    pub fn sources(&self) -> Vec<(ValueIndex, Option<u32>)> {
        let mut sources = Vec::new();
        for source in self.links.iter().flat_map(Link::sources) {
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        sources
    }

    /// The same chain so that the accumulator begins as this value, which is read nowhere else: what is left are the links to append to the chain that
    /// makes the value. `None`: it cannot be put so.
    pub fn continues(&self, value: ValueIndex) -> Option<Vec<Link>> {
        let (first, rest) = self.links.split_first()?;
        let is_value = |operand: Operand| operand == Operand::Value(value);
        let mut links = rest.to_vec();
        if !is_value(first.y) {
            let second = links.first_mut()?;
            let factor = second.z;
            match second.op {
                // x + z y is y + x for z = 1, and y - x for z = -1.
                Op::Add if is_value(second.y) && factor.is_number(1.0) => {}
                Op::Add if is_value(second.y) && factor.is_number(-1.0) => {
                    (second.op, second.z) = (Op::Rsub, Operand::Number(Scalar::Int(1)));
                }
                // mask ? value : z
                Op::Select if is_value(second.y) => *second = Link::two(Op::Keep, second.z, first.y),
                Op::Select if is_value(second.z) => *second = Link::two(Op::Fill, second.y, first.y),
                op if is_value(second.y) => second.op = op.mirrored()?,
                _ => return None,
            }
            if !matches!(second.op, Op::Keep | Op::Fill) {
                second.y = first.y;
            }
        }
        let again = links.iter().flat_map(Link::sources).any(|(other, _)| other == value);
        (first.op == Op::Load && !again).then_some(links)
    }
}

/// What a node computes, as a chain. Without `sizes` numbers that depend on sizes stand as 0: good for deciding, not for running.
///
/// # Errors
/// It is no elementwise operator, or not one that is taken, and why.
pub fn links(node: &NodeView<'_>, sizes: Option<&Sizes>) -> Result<Chain, Refusal> {
    elementwise::describe(node, sizes)
}

/// What a node does to `value`, as links that `finish()` applies to the result of the kernel that makes it. At most two tensors are read besides; they must
/// have the sizes and the layout of the output. `None`: the node is not of that kind.
pub fn finish_links(node: &NodeView<'_>, sizes: Option<&Sizes>, value: ValueIndex) -> Option<Vec<Link>> {
    let chain = links(node, sizes).ok()?;
    let links = chain.continues(value)?;
    let plain_operand = |operand| !matches!(operand, Operand::Along(..));
    let fits = |link: &Link| link.op.finishes() && plain_operand(link.y) && matches!(link.z, Operand::Number(_));
    let out = node.image().value(node.outputs().get(0)?).dtype()?;
    let plain = Class::of(out) == Some(Class::Float) && Class::of(chain.dtype) == Some(Class::Float);
    (plain && links.iter().all(fits)).then_some(links)
}

/// The parameters of links: five words each. `slot` tells the slot and the dtype of a tensor, and of a list along a dimension.
///
/// # Errors
/// No kernel reads the dtype of an operand.
pub fn words(
    class: Class,
    links: &[Link],
    slot: impl Fn(ValueIndex, Option<u32>) -> Result<(u32, DType), Error>,
) -> Result<Vec<u32>, Error> {
    let mut words = Vec::with_capacity(links.len() * 5);
    for link in links {
        let operand = |operand: Operand| match (operand, operand.source()) {
            (Operand::Number(number), _) => Ok((0, 0, class.words(number))),
            (_, Some((value, along))) => {
                let (slot, dtype) = slot(value, along)?;
                let code = code(dtype).ok_or_else(|| Error::unsupported(format!("no kernel reads {dtype}")))?;
                Ok((slot, code, [0, 0]))
            }
            _ => Err(Error::internal("an operand that is nothing")),
        };
        let (y_slot, y_code, [y, y_high]) = operand(link.y)?;
        let (z_slot, z_code, [z, z_high]) = operand(link.z)?;
        words.push(link.op as u32 | y_slot << 8 | z_slot << 12 | y_code << 16 | z_code << 20);
        words.extend([y, y_high | link.y2, z, z_high]);
    }
    Ok(words)
}

/// Runs a chain. The tensors are those of [`Chain::sources`] in whatever layout each lies.
///
/// # Errors
/// More than [`MAX_TENSORS`] tensors, one that does not broadcast to the output, or a dtype that no kernel has.
pub fn dispatch(e: &mut Encoder<'_>, chain: &Chain, tensors: &[Tensor], out: &Tensor) -> Result<(), Error> {
    let class =
        Class::of(chain.dtype).ok_or_else(|| Error::unsupported(format!("no chain computes in {}", chain.dtype)))?;
    let out_code = code(out.dtype).ok_or_else(|| Error::unsupported(format!("no kernel writes {}", out.dtype)))?;
    let sources = chain.sources();
    if tensors.len() != sources.len() || tensors.len() > MAX_TENSORS {
        return Err(Error::internal(format!("a chain of {} tensors", tensors.len())));
    }
    let strides = tensors.iter().zip(&sources).map(|(tensor, (_, along))| match along {
        None => broadcast(tensor, &out.dims),
        Some(dim) => list_along(tensor, &out.dims, *dim as usize),
    });
    let places = Places::new(out, &strides.collect::<Result<Vec<_>, _>>()?);
    let count = out.stored();
    let rank = places.dims.len() as u32;
    let mut params = vec![count, out_code, rank, places.limit, chain.links.len() as u32];
    for (size, strides) in &places.dims {
        params.push(*size);
        params.extend(strides);
    }
    params.extend(words(class, &chain.links, |value, along| {
        let slot = sources.iter().position(|source| *source == (value, along)).unwrap_or(0);
        Ok((slot as u32 + 1, tensors[slot].dtype))
    })?);
    let spare = match tensors.first() {
        Some(tensor) => read(tensor),
        None => read(&e.bytes(DType::U8, &[16], vec![0; 16])?),
    };
    let mut operands: Vec<Bind> = tensors.iter().map(read).collect();
    operands.resize(MAX_TENSORS, spare);
    operands.push(write(out));
    if count == 0 {
        return Ok(());
    }
    e.dispatch(
        class.kernel(&chain.links),
        &operands,
        &params,
        grid(count.div_ceil(4), 64),
    )
}

/// How the kernel walks: dimensions as they lie in the output, with the strides of each operand.
struct Places {
    dims: Vec<(u32, [u32; MAX_TENSORS])>,
    /// Size of the last dimension without padding.
    limit: u32,
}

impl Places {
    /// `strides`: for each operand, by the dimensions of the output.
    fn new(out: &Tensor, strides: &[Vec<u32>]) -> Places {
        let mut order: Vec<usize> = (0..out.dims.len()).collect();
        let mut sizes = out.dims.clone();
        let mut limit = *out.dims.last().unwrap_or(&1);
        if let (Layout::Nhwc4, [_, channels, ..]) = (out.layout, out.dims.as_slice()) {
            order = vec![0, 2, 3, 1];
            limit = *channels;
            sizes[1] = channels.next_multiple_of(4);
        }
        let mut dims: Vec<(u32, [u32; MAX_TENSORS])> = Vec::new();
        for (position, dim) in order.iter().enumerate() {
            let mut here = [0; MAX_TENSORS];
            for (slot, strides) in here.iter_mut().zip(strides) {
                *slot = strides[*dim];
            }
            let size = sizes[*dim];
            let padded = position + 1 == order.len() && limit != size;
            if size == 1 {
                continue;
            }
            // Two dimensions are one where each operand steps over the inner one as a whole.
            match dims.last_mut() {
                Some((outer, steps))
                    if !padded && steps.iter().zip(here).all(|(step, inner)| *step == inner * size) =>
                {
                    (*outer, *steps) = (*outer * size, here);
                }
                _ => dims.push((size, here)),
            }
        }
        // What is merged has no padding.
        if limit == *order.last().map_or(&limit, |dim| &sizes[*dim]) {
            limit = u32::MAX;
        }
        if dims.is_empty() {
            dims.push((1, [0; MAX_TENSORS]));
        }
        Places { dims, limit }
    }
}

/// The strides of a list that lies along a dimension.
fn list_along(tensor: &Tensor, dims: &[u32], dim: usize) -> Result<Vec<u32>, Error> {
    let count = tensor.count();
    if dims.get(dim) != Some(&count) {
        return Err(Error::invalid(format!(
            "{count} elements along dimension {dim} of {dims:?}"
        )));
    }
    Ok((0..dims.len()).map(|d| u32::from(d == dim)).collect())
}

/// The strides of a tensor by the dimensions of what it broadcasts to.
fn broadcast(tensor: &Tensor, dims: &[u32]) -> Result<Vec<u32>, Error> {
    let misfit = || Error::internal(format!("{:?} does not broadcast to {dims:?}", tensor.dims));
    let missing = dims.len().checked_sub(tensor.dims.len()).ok_or_else(misfit)?;
    let own = match (tensor.layout, tensor.dims.as_slice()) {
        (Layout::Nhwc4, [_, c, h, w]) => {
            let c = c.next_multiple_of(4);
            vec![h * w * c, 1, w * c, c]
        }
        _ => tensor.strides(),
    };
    let mut strides = vec![0; missing];
    for ((size, stride), wanted) in tensor.dims.iter().zip(own).zip(&dims[missing..]) {
        strides.push(match size {
            _ if size == wanted && *size != 1 => stride,
            1 => 0,
            _ => return Err(misfit()),
        });
    }
    Ok(strides)
}

#[cfg(test)]
mod tests;
