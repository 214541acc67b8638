//! A TOSA graph as data. Names and numbers are those of the TOSA 1.0 specification and of its open FlatBuffer schema.

/// Element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[repr(u32)]
pub enum DType {
    Int8 = 3,
    Int16 = 4,
    Int32 = 5,
    Int48 = 6,
    Shape = 10,
}

impl DType {
    /// Bytes of an element in a file.
    pub fn size(self) -> usize {
        match self {
            DType::Int8 => 1,
            DType::Int16 => 2,
            DType::Int32 => 4,
            DType::Int48 => 6,
            DType::Shape => 8,
        }
    }
}

/// Operator, with its number in the schema; its attribute has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[repr(u32)]
pub enum Op {
    AvgPool2d = 2,
    Conv2d = 3,
    DepthwiseConv2d = 5,
    MatMul = 7,
    MaxPool2d = 8,
    TransposeConv2d = 10,
    Clamp = 11,
    Add = 15,
    ArithmeticRightShift = 16,
    LogicalLeftShift = 22,
    Maximum = 26,
    Minimum = 27,
    Mul = 28,
    Sub = 30,
    Table = 31,
    Clz = 35,
    ReduceMax = 51,
    ReduceMin = 52,
    ReduceSum = 54,
    Concat = 55,
    Pad = 56,
    Reshape = 57,
    Slice = 59,
    Tile = 60,
    Transpose = 61,
    Resize = 64,
    Rescale = 66,
    Const = 67,
    Identity = 68,
    ConstShape = 75,
}

/// How `RESCALE` rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
#[repr(u32)]
pub enum Rounding {
    Single = 1,
    Double = 3,
}

/// Attribute of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Attribute {
    /// Those without fields.
    Plain,
    /// `CONV2D` and `DEPTHWISE_CONV2D`.
    Conv {
        pad: [i32; 4],
        stride: [i32; 2],
        dilation: [i32; 2],
        accumulator: DType,
    },
    TransposeConv {
        out_pad: [i32; 4],
        stride: [i32; 2],
        accumulator: DType,
    },
    AvgPool {
        kernel: [i32; 2],
        stride: [i32; 2],
        pad: [i32; 4],
        accumulator: DType,
    },
    MaxPool {
        kernel: [i32; 2],
        stride: [i32; 2],
        pad: [i32; 4],
    },
    /// Limits, in the bytes of the operand's type.
    Clamp {
        low: Vec<u8>,
        high: Vec<u8>,
    },
    /// `CONCAT`, `REDUCE_SUM`.
    Axis(i32),
    /// `REDUCE_MAX`, `REDUCE_MIN`.
    AxisNan(i32),
    /// `MAXIMUM`, `MINIMUM`.
    Nan,
    Transpose(Vec<i32>),
    Rescale {
        scale32: bool,
        rounding: Rounding,
        per_channel: bool,
    },
    /// `ARITHMETIC_RIGHT_SHIFT`, rounded.
    Rounded,
    /// Nearest or bilinear.
    Resize {
        bilinear: bool,
    },
}

/// A tensor, or a shape that an operator reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Unique within the graph.
    pub name: String,
    /// Sizes.
    pub shape: Vec<i32>,
    /// Element type.
    pub dtype: DType,
    /// Elements of a constant, little-endian, contiguous.
    pub data: Option<Vec<u8>>,
}

/// An operator; operands are indices of tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Operator {
    pub op: Op,
    pub attribute: Attribute,
    pub inputs: Vec<usize>,
    pub outputs: Vec<usize>,
}

/// A graph of one block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Graph {
    pub tensors: Vec<Tensor>,
    /// In execution order. Constants need none: they are written where they are needed.
    pub operators: Vec<Operator>,
    pub inputs: Vec<usize>,
    pub outputs: Vec<usize>,
}
