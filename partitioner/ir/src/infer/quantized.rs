//! `quantized_decomposed::*` and `torchao::*`.

use super::Rule;
use super::call::{Call, Result};
use crate::{Expr, TensorType, Type};
use delegraph_types::DType;

pub(super) fn rule(base: &str) -> Option<Rule> {
    Some(match base {
        "quantize_per_tensor"
        | "quantize_per_channel"
        | "quantize_per_channel_group"
        | "quantize_per_token"
        | "convert_element_type" => |c| c.one(c.dtype("dtype")?.unwrap_or(DType::F32), c.first()?.shape.clone()),
        "dequantize_per_tensor" | "dequantize_per_channel" => {
            |c| c.one(c.dtype("out_dtype")?.unwrap_or(DType::F32), c.first()?.shape.clone())
        }
        "dequantize_per_channel_group"
        | "dequantize_per_token"
        | "dequantize_affine"
        | "quantize_affine"
        | "dequantize_affine_float8_non_decomposed" => {
            |c| c.one(c.dtype("output_dtype")?.unwrap_or(DType::F32), c.first()?.shape.clone())
        }
        "quantize_affine_float8_non_decomposed" => |c| {
            c.one(
                c.dtype("float8_dtype")?.unwrap_or(DType::F8E4M3),
                c.first()?.shape.clone(),
            )
        },
        "choose_qparams" | "choose_qparams_symmetric" => |c| {
            let one = vec![Expr::Int(1)];
            Ok(vec![c.made(DType::F64, one.clone())?, c.made(DType::I64, one)?])
        },
        "choose_qparams_per_token" => |c| {
            // As eager PyTorch returns them; its meta function, and so a `.pt2`, says f64 and i64.
            let dtype = c.first()?.dtype;
            let dtype = if dtype == DType::F16 { DType::F32 } else { dtype };
            per_token(c, dtype, dtype)
        },
        "choose_qparams_per_token_asymmetric" | "_choose_qparams_per_token_asymmetric_impl" => {
            |c| per_token(c, DType::F64, DType::I64)
        }
        "choose_qparams_affine" => choose_qparams_affine,
        "embedding_byte" => |c| embedding(c, 1),
        "embedding_4bit" => |c| embedding(c, 2),
        "embedding_2bit" => |c| embedding(c, 4),
        "add" | "add_relu" | "fake_quant_per_channel" => |c| c.like(c.first()?),
        "mixed_mm" | "mixed_linear" => |c| {
            let (x, w) = (c.first()?, c.tensor("weight")?);
            c.rank_at_least(x, 1)?;
            c.rank_at_least(w, 2)?;
            let mut shape = x.shape.clone();
            let columns = if c.schema.name.contains("mixed_mm") { 1 } else { 0 };
            shape[x.rank() - 1] = w.shape[columns].clone();
            let dtype = if c.has("dtype") {
                c.dtype("dtype")?.unwrap_or(x.dtype)
            } else {
                x.dtype
            };
            c.one(dtype, shape)
        },
        "int_matmul" => |c| {
            let (a, b) = (c.tensor("a")?, c.tensor("b")?);
            match (a.shape.as_slice(), b.shape.as_slice()) {
                ([n, _], [_, m]) => c.one(DType::I32, vec![n.clone(), m.clone()]),
                _ => c.invalid(format!("{a} and {b}: expected two matrices")),
            }
        },
        _ => return None,
    })
}

/// One scale and zero point a row of the last dimension.
fn per_token(c: &Call, scale: DType, zero_point: DType) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, 1)?;
    let mut shape = t.shape.clone();
    shape[t.rank() - 1] = Expr::Int(1);
    Ok(vec![c.made(scale, shape.clone())?, c.made(zero_point, shape)?])
}

/// A block that spans a dimension (or is no 1) reduces it; a smaller block leaves the number of blocks.
fn choose_qparams_affine(c: &Call) -> Result<Vec<Type>> {
    let t = c.tensor("input")?;
    let block = c.ints("block_size")?;
    if block.len() != t.rank() {
        return c.invalid(format!("{} block sizes for {t}", block.len()));
    }
    let keep = c.bool("keepdim")?;
    let mut shape = Vec::new();
    for (size, block) in t.shape.iter().zip(&block) {
        let kept = match block.as_int() {
            Some(b) if b <= 0 => return c.invalid(format!("a block size of {b}")),
            Some(1) => vec![size.clone()],
            _ if block == size => vec![],
            _ => vec![size.clone().floor_div(block.clone())],
        };
        let reduced = block.as_int() != Some(1);
        shape.extend(kept);
        if keep && reduced {
            shape.push(Expr::Int(1));
        }
    }
    let scale = c.dtype("scale_dtype")?.unwrap_or(t.dtype);
    let zero_point = c.dtype("zero_point_dtype")?.unwrap_or(DType::I32);
    Ok(vec![c.made(scale, shape.clone())?, c.made(zero_point, shape)?])
}

/// Rows of a table that packs `pack` numbers in a byte.
fn embedding(c: &Call, pack: i64) -> Result<Vec<Type>> {
    let (weight, scales, indices): (&TensorType, _, &TensorType) =
        (c.tensor("weight")?, c.tensor("weight_scales")?, c.tensor("indices")?);
    if weight.rank() != 2 {
        return c.invalid(format!("weight {weight}: expected a matrix"));
    }
    let mut shape = indices.shape.clone();
    shape.push(weight.shape[1].clone() * Expr::Int(pack));
    let dtype = if c.has("dtype") {
        c.dtype("dtype")?.unwrap_or(scales.dtype)
    } else {
        scales.dtype
    };
    c.one(dtype, shape)
}
