//! Types of values.

use crate::{ConstantId, Expr, Symbols};
use delegraph_types::{DType, Dims};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How an integer tensor stands for real numbers: `real = (q - zero_point) * scale`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Quant {
    /// One scale and zero point.
    PerTensor {
        /// Step.
        scale: f64,
        /// Integer that stands for 0.
        zero_point: i64,
        /// Smallest integer used.
        quant_min: i64,
        /// Largest integer used.
        quant_max: i64,
    },
    /// One scale and zero point a slice of `axis`.
    PerAxis {
        /// Dimension of the tensor.
        axis: u32,
        /// f32 or f64 `[n]`.
        scales: ConstantId,
        /// Integer `[n]`; absent: all 0.
        zero_points: Option<ConstantId>,
        /// Smallest integer used.
        quant_min: i64,
        /// Largest integer used.
        quant_max: i64,
    },
    /// One scale and zero point a block; the constants' shape is the tensor's, each size divided by `block`'s.
    PerBlock {
        /// Block size of each dimension.
        block: Vec<u32>,
        /// One a block.
        scales: ConstantId,
        /// One a block; absent: all 0.
        zero_points: Option<ConstantId>,
        /// Smallest integer used.
        quant_min: i64,
        /// Largest integer used.
        quant_max: i64,
    },
}

/// dtype, shape and quantization of a tensor. Values are logically contiguous; a layout is a matter of the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorType {
    /// Element type (the storage type of a quantized tensor).
    pub dtype: DType,
    /// Sizes.
    pub shape: Vec<Expr>,
    /// Set where the q/dq folding pass made a quantized type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quant: Option<Quant>,
}

impl TensorType {
    /// A tensor type.
    pub fn new(dtype: DType, shape: Vec<Expr>) -> TensorType {
        TensorType {
            dtype,
            shape,
            quant: None,
        }
    }

    /// A tensor type with constant sizes.
    pub fn fixed(dtype: DType, sizes: &[i64]) -> TensorType {
        TensorType::new(dtype, sizes.iter().map(|&s| Expr::Int(s)).collect())
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The sizes, if all are constant.
    pub fn static_dims(&self) -> Option<Dims> {
        let sizes: Option<Vec<i64>> = self.shape.iter().map(Expr::as_int).collect();
        Dims::new(&sizes?).ok()
    }

    /// Largest sizes under the symbols' ranges; `None` if one is unbounded.
    pub fn upper_dims(&self, symbols: &Symbols) -> Option<Dims> {
        let sizes: Option<Vec<i64>> = self.shape.iter().map(|e| e.upper_bound(symbols)).collect();
        Dims::new(&sizes?).ok()
    }

    /// Bytes at the largest sizes, for a planner; `None` where they are unbounded, or so many that the tensor is allocated
    /// at its actual size while the program runs.
    pub fn planned_bytes(&self, symbols: &Symbols) -> Option<usize> {
        let fixed = self.static_dims();
        let largest = fixed.or_else(|| self.upper_dims(symbols))?;
        let bytes = largest.numel()?.checked_mul(self.dtype.size())?;
        (fixed.is_some() || bytes <= LARGEST_PLANNED).then_some(bytes)
    }
}

/// A tensor of dynamic sizes whose largest ones take more than this is not planned.
const LARGEST_PLANNED: usize = 1 << 30;

/// Type of a value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Type {
    /// A tensor.
    Tensor(TensorType),
    /// An integer that is read at run time (`_local_scalar_dense`, an integer input); the expression is the symbol it binds.
    Int(Expr),
    /// A float that is read at run time.
    Float,
    /// A boolean that is read at run time.
    Bool,
}

impl Type {
    /// The tensor type, if it is one.
    pub fn as_tensor(&self) -> Option<&TensorType> {
        match self {
            Type::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

impl From<TensorType> for Type {
    fn from(tensor: TensorType) -> Type {
        Type::Tensor(tensor)
    }
}

impl fmt::Display for TensorType {
    /// `f32[2,s77]`; a quantized one is `i8[2,3]:q(0.5,-3)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, size) in self.shape.iter().enumerate() {
            write!(f, "{}{size}", if i == 0 { "" } else { "," })?;
        }
        f.write_str("]")?;
        match &self.quant {
            None => Ok(()),
            Some(Quant::PerTensor { scale, zero_point, .. }) => write!(f, ":q({scale:?},{zero_point})"),
            Some(Quant::PerAxis { axis, scales, .. }) => write!(f, ":q(axis {axis}, {scales})"),
            Some(Quant::PerBlock { block, scales, .. }) => write!(f, ":q(block {block:?}, {scales})"),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Tensor(tensor) => write!(f, "{tensor}"),
            Type::Int(expr) => write!(f, "int({expr})"),
            Type::Float => f.write_str("float"),
            Type::Bool => f.write_str("bool"),
        }
    }
}
