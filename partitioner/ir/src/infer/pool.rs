//! Pooling.

use super::Rule;
use super::call::{Call, Result};
use super::conv::{check_positive, window_count};
use crate::{Expr, ExprOp, Type};
use delegraph_types::DType;

pub(super) fn rule(base: &str) -> Option<Rule> {
    Some(match base {
        "avg_pool1d" | "max_pool1d" => |c| pool(c, 1, false),
        "avg_pool2d" | "max_pool2d" | "quantized_max_pool2d" => |c| pool(c, 2, false),
        "avg_pool3d" | "max_pool3d" => |c| pool(c, 3, false),
        "max_pool1d_with_indices" => |c| pool(c, 1, true),
        "max_pool2d_with_indices" => |c| pool(c, 2, true),
        "max_pool3d_with_indices" => |c| pool(c, 3, true),
        "adaptive_avg_pool1d" => |c| adaptive(c, 1, false),
        "adaptive_avg_pool2d" | "_adaptive_avg_pool2d" => |c| adaptive(c, 2, false),
        "adaptive_avg_pool3d" | "_adaptive_avg_pool3d" => |c| adaptive(c, 3, false),
        "adaptive_max_pool1d" => |c| adaptive(c, 1, true),
        "adaptive_max_pool2d" | "fractional_max_pool2d" => |c| adaptive(c, 2, true),
        "adaptive_max_pool3d" | "fractional_max_pool3d" => |c| adaptive(c, 3, true),
        "max_unpool2d" => |c| adaptive(c, 2, false),
        "max_unpool3d" => |c| adaptive(c, 3, false),
        _ => return None,
    })
}

/// Windows along one dimension. In `ceil_mode` a last window that would start in the padding after the end is left out.
fn count(c: &Call, size: &Expr, kernel: &Expr, stride: &Expr, padding: &Expr, dilation: &Expr) -> Result<Expr> {
    if !c.bool("ceil_mode")? {
        return Ok(window_count(size, kernel, stride, padding, dilation));
    }
    let one = || Expr::Int(1);
    let widened = size.clone() + stride.clone() - one();
    let count = window_count(&widened, kernel, stride, padding, dilation);
    let last_start = (count.clone() - one()) * stride.clone();
    let end = size.clone() + padding.clone();
    Ok(if c.known_le(&end, &last_start) {
        count - one()
    } else if (end.clone() - last_start.clone()).lower_bound(c.symbols) >= Some(1) {
        count
    } else {
        let outside = Expr::op(ExprOp::Ge, vec![last_start, end]);
        Expr::op(ExprOp::Where, vec![outside, count.clone() - one(), count])
    })
}

fn pool(c: &Call, n: usize, with_indices: bool) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, n)?;
    let kernel = c.spatial("kernel_size", n, &[])?;
    if kernel.is_empty() {
        return c.invalid("`kernel_size` is empty");
    }
    let stride = c.spatial("stride", n, &kernel)?;
    let padding = c.spatial("padding", n, &vec![Expr::Int(0); n])?;
    let dilation = c.spatial("dilation", n, &vec![Expr::Int(1); n])?;
    check_positive(c, "kernel_size", &kernel)?;
    check_positive(c, "stride", &stride)?;
    check_positive(c, "dilation", &dilation)?;
    let at = t.rank() - n;
    let mut shape = t.shape.clone();
    for d in 0..n {
        shape[at + d] = count(c, &t.shape[at + d], &kernel[d], &stride[d], &padding[d], &dilation[d])?;
    }
    results(c, shape, with_indices)
}

fn adaptive(c: &Call, n: usize, with_indices: bool) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, n)?;
    let size = c.spatial("output_size", n, &[])?;
    if size.is_empty() {
        return c.invalid("`output_size` is empty");
    }
    let mut shape = t.shape.clone();
    shape.truncate(t.rank() - n);
    shape.extend(size);
    results(c, shape, with_indices)
}

fn results(c: &Call, shape: Vec<Expr>, with_indices: bool) -> Result<Vec<Type>> {
    let dtype = c.first()?.dtype;
    let mut types = vec![c.made(dtype, shape.clone())?];
    if with_indices {
        types.push(c.made(DType::I64, shape)?);
    }
    Ok(types)
}
