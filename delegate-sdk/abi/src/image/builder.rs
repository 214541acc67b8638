//! Writes an image.

use super::{ExprIndex, ExprOp, MemoryFormat, ValueIndex, WeightIndex};
use crate::c::DType;
use alloc::string::String;
use alloc::vec::Vec;

/// Type of a value.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// A tensor.
    Tensor {
        /// Element type.
        dtype: DType,
        /// Sizes.
        dims: Vec<ExprIndex>,
        /// Set where integers stand for real numbers.
        quant: Option<Quant>,
    },
    /// An integer that is read at run time; the expression is the symbol that it binds.
    Int(ExprIndex),
    /// A float that is read at run time.
    Float,
    /// A boolean that is read at run time.
    Bool,
}

impl Type {
    /// A tensor that is not quantized.
    pub fn tensor(dtype: DType, dims: &[ExprIndex]) -> Type {
        Type::Tensor {
            dtype,
            dims: dims.to_vec(),
            quant: None,
        }
    }
}

/// How integers stand for real numbers: `real = (q - zero_point) * scale`.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Quant {
    /// One scale and zero point.
    PerTensor {
        scale: f64,
        zero_point: i64,
        quant_min: i64,
        quant_max: i64,
    },
    /// One a slice of `axis`; no zero points: all 0.
    PerAxis {
        axis: u32,
        scales: WeightIndex,
        zero_points: Option<WeightIndex>,
        quant_min: i64,
        quant_max: i64,
    },
    /// One a block; the weights' sizes are the tensor's, each divided by `block`'s.
    PerBlock {
        block: Vec<u32>,
        scales: WeightIndex,
        zero_points: Option<WeightIndex>,
        quant_min: i64,
        quant_max: i64,
    },
}

/// An argument of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Arg {
    /// `None`, or a parameter that means nothing here (generator, device).
    None,
    /// A constant integer; at a Tensor parameter it is a Python number, as floats and booleans are.
    Int(i64),
    /// An integer, float or boolean computed from sizes.
    Expr(ExprIndex),
    /// A float.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A string.
    Str(String),
    /// An element type.
    DType(DType),
    /// A memory format.
    MemoryFormat(MemoryFormat),
    /// A tensor, or a number read at run time.
    Value(ValueIndex),
    /// `int[]`, constant or not.
    Ints(Vec<ExprIndex>),
    /// `float[]`
    Floats(Vec<f64>),
    /// `bool[]`
    Bools(Vec<bool>),
    /// `Scalar[]`: [`Arg::Int`], [`Arg::Float`] and [`Arg::Bool`] only.
    Scalars(Vec<Arg>),
    /// `Tensor[]`
    Values(Vec<ValueIndex>),
    /// `Tensor?[]`
    OptionalValues(Vec<Option<ValueIndex>>),
}

/// Builds an image. Indices are given out in order; mistakes are reported by [`ImageBuilder::finish`].
pub struct ImageBuilder {}

impl ImageBuilder {
    /// An empty graph.
    pub fn new(name: &str) -> ImageBuilder {
        let _ = name;
        ImageBuilder {}
    }

    /// States the version of the operator table and its normal form; left alone, this version's.
    pub fn opset(&mut self, version: &str) {
        let _ = version;
    }

    /// A dynamic size. The same name gives the same expression.
    pub fn symbol(&mut self, name: &str, min: i64, max: Option<i64>) -> ExprIndex {
        let _ = (name, min, max);
        ExprIndex(0)
    }

    /// A constant integer.
    pub fn int(&mut self, value: i64) -> ExprIndex {
        let _ = value;
        ExprIndex(0)
    }

    /// A constant float.
    pub fn float(&mut self, value: f64) -> ExprIndex {
        let _ = value;
        ExprIndex(0)
    }

    /// An operator on expressions.
    pub fn op(&mut self, op: ExprOp, operands: &[ExprIndex]) -> ExprIndex {
        let _ = (op, operands);
        ExprIndex(0)
    }

    /// A weight: its id for the host, element type and sizes. The same id gives the same weight.
    pub fn weight(&mut self, id: u32, dtype: DType, sizes: &[i64]) -> WeightIndex {
        let _ = (id, dtype, sizes);
        WeightIndex(0)
    }

    /// A value that the caller gives, at the end of the inputs.
    pub fn input(&mut self, name: &str, ty: &Type) -> ValueIndex {
        let _ = (name, ty);
        ValueIndex(0)
    }

    /// A value that is a weight.
    pub fn weight_value(&mut self, name: &str, ty: &Type, weight: WeightIndex) -> ValueIndex {
        let _ = (name, ty, weight);
        ValueIndex(0)
    }

    /// A node at the end, and its outputs (name and type). `debug`: the source line; may be empty.
    pub fn node(
        &mut self,
        name: &str,
        op: &str,
        args: &[Arg],
        outputs: &[(&str, &Type)],
        debug: &str,
    ) -> Vec<ValueIndex> {
        let _ = (name, op, args, debug);
        outputs.iter().map(|_| ValueIndex(0)).collect()
    }

    /// A value that the caller gets, at the end of the outputs.
    pub fn output(&mut self, value: ValueIndex) {
        let _ = value;
    }

    /// The image.
    ///
    /// # Errors
    /// An index that was not given out, or a graph that [`super::verify`] would refuse.
    pub fn finish(self) -> Result<Vec<u8>, super::ImageError> {
        Err(super::ImageError::Empty)
    }
}
