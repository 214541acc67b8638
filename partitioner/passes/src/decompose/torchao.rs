//! torchao's affine quantization by blocks, in the arithmetic of its `quant_primitives.py` (0.18).

use super::{Replacement, Rules, one};
use crate::PassError;
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Arg, Expr, ValueId};
use delegraph_types::{DType, Scalar};

pub(super) const RULES: Rules = &[
    ("torchao::quantize_affine", quantize),
    ("torchao::dequantize_affine", dequantize),
    ("torchao::choose_qparams_affine", choose),
];

/// A tensor's sizes cut into blocks.
struct Blocks {
    /// Sizes with each cut dimension as (blocks, block size).
    split: Vec<Expr>,
    /// Dimensions of `split` inside a block.
    inner: Vec<i64>,
}

impl Blocks {
    /// `split` with the dimensions inside a block as 1: the shape of scales.
    fn scales(&self) -> Vec<Expr> {
        let mut shape = self.split.clone();
        for &d in &self.inner {
            shape[d as usize] = Expr::Int(1);
        }
        shape
    }
}

/// `_get_reduction_params`
fn blocks(rw: &Rewrite, x: ValueId, index: usize) -> Result<Blocks, PassError> {
    let (sizes, block) = (rw.shape(x)?, rw.exprs(index)?);
    if sizes.len() != block.len() {
        return Err(rw.invalid(format!("{} block sizes for rank {}", block.len(), sizes.len())));
    }
    let mut out = Blocks {
        split: Vec::new(),
        inner: Vec::new(),
    };
    for (size, block) in sizes.into_iter().zip(block) {
        let known = block.as_int();
        if block == size || known == Some(1) {
            if known != Some(1) {
                out.inner.push(out.split.len() as i64);
            }
            out.split.push(size);
            continue;
        }
        let Some(width) = known.filter(|&w| w > 1) else {
            return Err(rw.unsupported(format!("a block of {block} in a dimension of {size}")));
        };
        if size.as_int().is_some_and(|s| s % width != 0) {
            return Err(rw.invalid(format!("size {size} is no multiple of the block size {width}")));
        }
        out.split.push(size.floor_div(Expr::Int(width)));
        out.inner.push(out.split.len() as i64);
        out.split.push(Expr::Int(width));
    }
    Ok(out)
}

/// The limits given, or those of the dtype.
fn limits(rw: &Rewrite, dtype: Option<DType>, low: usize, high: usize) -> Result<(Scalar, Scalar), PassError> {
    let range = dtype.and_then(DType::int_range);
    let limit = |index: usize, of_range: fn((i128, i128)) -> i128| {
        if !rw.is_none(index) {
            return rw.scalar(index);
        }
        let value = range.map(of_range).and_then(|v| i64::try_from(v).ok());
        value
            .map(Scalar::Int)
            .ok_or_else(|| rw.unsupported("a quantized dtype without given limits"))
    };
    Ok((limit(low, |r| r.0)?, limit(high, |r| r.1)?))
}

/// A zero point tensor; one without elements counts as none.
fn zero_point(rw: &Rewrite, index: usize) -> Result<Option<ValueId>, PassError> {
    let value = rw.optional_tensor(index)?;
    let empty = |v: ValueId| Ok::<_, PassError>(rw.shape(v)?.iter().any(|s| s.as_int() == Some(0)));
    match value {
        Some(v) if empty(v)? => Ok(None),
        other => Ok(other),
    }
}

/// input, block_size, scale, zero_point, output_dtype, quant_min, quant_max
fn quantize(rw: &mut Rewrite) -> Replacement {
    let (x, scale) = (rw.tensor(0)?, rw.tensor(2)?);
    let zero_point = zero_point(rw, 3)?;
    let dtype = rw.output_type(0)?.dtype;
    let (low, high) = limits(rw, Some(dtype), 5, 6)?;
    let blocks = blocks(rw, x, 1)?;
    let shape = rw.shape(x)?;
    let x = rw.view(x, blocks.split.clone())?;
    let scale = rw.view(scale, blocks.scales())?;
    let inverse = rw.unary("aten::reciprocal", scale)?;
    let scaled = rw.mul(x, inverse)?;
    let mut y = rw.unary("aten::round", scaled)?;
    if let Some(zero_point) = zero_point {
        let zero_point = rw.view(zero_point, blocks.scales())?;
        y = rw.add(y, zero_point)?;
    }
    let y = rw.emit("aten::clamp", args![y, low, high])?;
    let y = rw.view(y, shape)?;
    one(rw.cast(y, dtype))
}

/// input, block_size, scale, zero_point, input_dtype, quant_min, quant_max, output_dtype
fn dequantize(rw: &mut Rewrite) -> Replacement {
    let (x, scale) = (rw.tensor(0)?, rw.tensor(2)?);
    let zero_point = zero_point(rw, 3)?;
    let dtype = rw.output_type(0)?.dtype;
    let blocks = blocks(rw, x, 1)?;
    let shape = rw.shape(x)?;
    let x = rw.view(x, blocks.split.clone())?;
    let scale = rw.view(scale, blocks.scales())?;
    let mut y = rw.cast(x, dtype)?;
    if let Some(zero_point) = zero_point {
        let zero_point = rw.view(zero_point, blocks.scales())?;
        let zero_point = rw.cast(zero_point, dtype)?;
        y = rw.sub(y, zero_point)?;
    }
    let y = rw.mul(y, scale)?;
    let y = rw.view(y, shape)?;
    one(rw.cast(y, dtype))
}

/// input, mapping_type, block_size, target_dtype, quant_min, quant_max, eps, scale_dtype, zero_point_dtype, keepdim
fn choose(rw: &mut Rewrite) -> Replacement {
    let (x, mapping) = (rw.tensor(0)?, rw.text(1)?);
    let (low, high) = limits(rw, rw.dtype_arg(3)?, 4, 5)?;
    let (low, high) = (low.as_f64(), high.as_f64());
    let dtype = rw.dtype(x)?;
    let eps = match (rw.optional_float(6)?, dtype) {
        (Some(eps), _) => eps,
        // finfo(dtype).smallest_normal
        (None, DType::F16) => 2f64.powi(-14),
        (None, DType::F32 | DType::BF16) => f64::from(f32::MIN_POSITIVE),
        (None, dtype) => return Err(rw.unsupported(format!("an input of dtype {dtype}"))),
    };
    let keepdim = rw.bool(9)?;
    let blocks = blocks(rw, x, 2)?;
    let x = rw.view(x, blocks.split.clone())?;
    let least = rw.emit("aten::amin", args![x, blocks.inner.clone(), keepdim])?;
    let most = rw.emit("aten::amax", args![x, blocks.inner, keepdim])?;
    let least = rw.emit("aten::clamp", args![least, Arg::None, 0.0])?;
    let most = rw.emit("aten::clamp", args![most, 0.0])?;
    let (scale, zero_point) = match mapping.as_str() {
        "SYMMETRIC" => {
            let negated = rw.unary("aten::neg", least)?;
            let reach = rw.binary("aten::maximum", negated, most)?;
            let scale = rw.div(reach, (high - low) / 2.0)?;
            (scale, None)
        }
        "SYMMETRIC_NO_CLIPPING_ERR" => {
            if low == 0.0 || high == 0.0 {
                return Err(rw.invalid("a limit of 0"));
            }
            let (below, above) = (rw.div(least, low)?, rw.div(most, high)?);
            let larger = rw.binary("aten::gt.Tensor", below, above)?;
            (rw.select_where(larger, below, above)?, None)
        }
        "ASYMMETRIC" => {
            let span = rw.sub(most, least)?;
            let scale = rw.div(span, high - low)?;
            (scale, Some(least))
        }
        other => return Err(rw.invalid(format!("mapping type `{other}`"))),
    };
    let scale = rw.emit("aten::clamp", args![scale, eps])?;
    let zero_point = match zero_point {
        None => {
            let middle = ((high + low + 1.0) / 2.0).trunc();
            let (shape, dtype) = (rw.shape(scale)?, rw.dtype(scale)?);
            rw.full(shape, middle, dtype)?
        }
        Some(least) => {
            let steps = rw.div(least, scale)?;
            let steps = rw.unary("aten::round", steps)?;
            let zero_point = rw.emit("aten::rsub.Scalar", args![steps, low])?;
            rw.emit("aten::clamp", args![zero_point, low, high])?
        }
    };
    let mut out = Vec::with_capacity(2);
    for (i, value) in [scale, zero_point].into_iter().enumerate() {
        let ty = rw.output_type(i)?;
        let value = rw.view(value, ty.shape)?;
        out.push(rw.cast(value, ty.dtype)?);
    }
    Ok(Some(out))
}
