//! A QNN graph as plain data: tensors, nodes and the ports that the host's tensors come in by. `builder.rs` makes it of a graph image;
//! `sys` gives it to the library; tests read it without one.

use delegraph_sdk::DType;
use delegraph_sdk::image::NodeIndex;
use std::fmt;

/// Element type of a QNN tensor, with the number that the API gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
#[repr(u32)]
pub enum DataType {
    Int8 = 0x0008,
    Int16 = 0x0016,
    Int32 = 0x0032,
    Int64 = 0x0064,
    Uint8 = 0x0108,
    Uint16 = 0x0116,
    Uint32 = 0x0132,
    Float16 = 0x0216,
    Float32 = 0x0232,
    /// Integers that stand for numbers, as all of `Fixed`: signed, for weights.
    SFixed8 = 0x0308,
    SFixed16 = 0x0316,
    /// Biases.
    SFixed32 = 0x0332,
    /// Activations of 8 bits.
    UFixed8 = 0x0408,
    /// Activations of 16 bits.
    UFixed16 = 0x0416,
    UFixed32 = 0x0432,
    Bool = 0x0508,
}

impl DataType {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self as u32 & 0xff {
            0x08 => 1,
            0x16 => 2,
            0x32 => 4,
            _ => 8,
        }
    }

    /// Integers that stand for numbers.
    pub fn is_fixed(self) -> bool {
        matches!(self as u32 >> 8, 3 | 4)
    }

    /// The type of this number, if it is one of ours.
    pub fn of(code: u32) -> Option<DataType> {
        use DataType::*;
        let all = [
            Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Float16, Float32, SFixed8, SFixed16, SFixed32, UFixed8,
            UFixed16, UFixed32, Bool,
        ];
        all.into_iter().find(|t| *t as u32 == code)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// `real = (q + offset) * scale`: QNN's offset is minus the zero point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaleOffset {
    /// Step.
    pub scale: f32,
    /// Minus the integer that stands for 0.
    pub offset: i32,
}

/// How a tensor's integers stand for numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Quantization {
    /// They do not.
    #[default]
    None,
    /// One pair.
    PerTensor(ScaleOffset),
    /// One pair a slice of `axis`.
    PerAxis {
        /// Dimension of the tensor.
        axis: u32,
        /// One a slice.
        pairs: Vec<ScaleOffset>,
    },
    /// As `PerTensor`, of fewer bits than the container has (`BW_SCALE_OFFSET`).
    Narrow {
        /// Bits that are used, from the lowest.
        bits: u32,
        /// The pair.
        pair: ScaleOffset,
    },
    /// As `PerAxis`, of fewer bits than the container has (`BW_AXIS_SCALE_OFFSET`).
    NarrowPerAxis {
        /// Bits that are used, from the lowest.
        bits: u32,
        /// Dimension of the tensor.
        axis: u32,
        /// One a slice.
        pairs: Vec<ScaleOffset>,
    },
    /// Blocks along the dimension of the input channels; a block's scale is its channel's, times an integer (`BLOCKWISE_EXPANSION`).
    Blocks {
        /// Dimension of the output channels.
        axis: u32,
        /// One a channel.
        channels: Vec<ScaleOffset>,
        /// Blocks of a channel.
        blocks: u32,
        /// Bits of a block's integer.
        scale_bits: u32,
        /// `[channel][block]`.
        block_scales: Vec<u8>,
    },
}

/// What a tensor is to its graph.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorKind {
    /// Given for each run (`APP_WRITE`).
    Input,
    /// Read after each run (`APP_READ`).
    Output,
    /// Between nodes (`NATIVE`).
    Native,
    /// A constant, contiguous (`STATIC`). While a node is only asked about, its bytes may be zeros.
    Static(Vec<u8>),
}

/// Index of a tensor in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub u32);

/// A tensor: contiguous, row-major in `dims`.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Unique within the graph.
    pub name: String,
    /// What it is to the graph.
    pub kind: TensorKind,
    /// Element type.
    pub data_type: DataType,
    /// Sizes: at least one, each at least 1. A tensor without dimensions is one of one element.
    pub dims: Vec<u32>,
    /// How its integers stand for numbers.
    pub quantization: Quantization,
}

impl Tensor {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().map(|d| *d as usize).product()
    }

    /// Number of bytes.
    pub fn bytes(&self) -> usize {
        self.elements() * self.data_type.size()
    }
}

/// A parameter of a node.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Param {
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// A constant tensor of `UINT_32` of these sizes.
    U32s(Vec<u32>, Vec<u32>),
    /// A constant tensor of `INT_32` of these sizes.
    I32s(Vec<u32>, Vec<i32>),
}

impl Param {
    /// A list of numbers.
    pub fn list(items: &[u32]) -> Param {
        Param::U32s(vec![items.len() as u32], items.to_vec())
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Unique within the graph.
    pub name: String,
    /// QNN's name of the operator, package `qti.aisw`.
    pub op: &'static str,
    /// By name.
    pub params: Vec<(&'static str, Param)>,
    /// What it reads.
    pub inputs: Vec<TensorId>,
    /// What it makes.
    pub outputs: Vec<TensorId>,
    /// Node of the graph image that it is of; `None`: a copy at the border.
    pub source: Option<NodeIndex>,
}

/// What is done to the host's elements on their way in; the opposite is done on the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Convert {
    /// Nothing.
    Same,
    /// f32 becomes f16.
    Half,
    /// i64 becomes i32; one that does not fit is an error of the run.
    Narrow,
    /// The highest bit is turned over: signed integers become unsigned ones, or the other way round.
    FlipSign,
}

/// A tensor of the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The graph's tensor; `None`: an input that nobody reads.
    pub tensor: Option<TensorId>,
    /// The host's element type.
    pub dtype: DType,
    /// From the host's elements to the graph's.
    pub convert: Convert,
}

/// A graph.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Graph {
    /// Unique within a context.
    pub name: String,
    /// All tensors.
    pub tensors: Vec<Tensor>,
    /// In execution order.
    pub nodes: Vec<Node>,
    /// In the order of the image's inputs.
    pub inputs: Vec<Port>,
    /// In the order of the image's outputs.
    pub outputs: Vec<Port>,
}

impl Graph {
    /// A tensor.
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.0 as usize]
    }

    /// Nodes of an operator.
    pub fn count(&self, op: &str) -> usize {
        self.nodes.iter().filter(|node| node.op == op).count()
    }
}
