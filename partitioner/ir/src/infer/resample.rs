//! Interpolation and sampling of images.

use super::Rule;
use super::call::{Call, Result};
use crate::{Arg, Expr, ExprOp, Type};

pub(super) fn rule(base: &str) -> Option<Rule> {
    Some(match base {
        "upsample_nearest1d" | "_upsample_nearest_exact1d" | "upsample_linear1d" => |c| upsample(c, 1),
        "upsample_nearest2d"
        | "_upsample_nearest_exact2d"
        | "upsample_bilinear2d"
        | "upsample_bicubic2d"
        | "_upsample_bilinear2d_aa"
        | "_upsample_bicubic2d_aa"
        | "_upsample_lanczos2d_aa" => |c| upsample(c, 2),
        "upsample_nearest3d" | "_upsample_nearest_exact3d" | "upsample_trilinear3d" => |c| upsample(c, 3),
        "grid_sampler" | "grid_sampler_2d" | "grid_sampler_3d" => grid_sampler,
        "affine_grid_generator" => |c| {
            let t = c.first()?;
            let size = c.ints("size")?;
            if size.len() < 4 || size.len() > 5 {
                return c.invalid(format!("{} sizes", size.len()));
            }
            let n = size.len() - 2;
            c.one(t.dtype, [&size[..1], &size[2..], &[Expr::Int(n as i64)]].concat())
        },
        _ => return None,
    })
}

fn upsample(c: &Call, n: usize) -> Result<Vec<Type>> {
    let t = c.first()?;
    if t.rank() != n + 2 {
        return c.invalid(format!("{t}: expected rank {}", n + 2));
    }
    let mut shape = t.shape[..2].to_vec();
    match (c.optional_ints("output_size")?, c.arg("scale_factors")) {
        (Some(size), _) if size.len() == n => shape.extend(size),
        (None, Arg::Floats(scales)) if scales.len() == n => {
            shape.extend(
                t.shape[2..]
                    .iter()
                    .zip(scales)
                    .map(|(size, scale)| scaled(size, *scale)),
            );
        }
        _ => return c.invalid("expected `output_size` or `scale_factors`, one item a dimension"),
    }
    c.one(t.dtype, shape)
}

/// `int(size * scale)`
fn scaled(size: &Expr, scale: f64) -> Expr {
    if scale == scale.trunc() && scale.abs() < 1e9 {
        return size.clone() * Expr::Int(scale as i64);
    }
    let size = Expr::op(ExprOp::ToFloat, vec![size.clone()]);
    Expr::op(
        ExprOp::Trunc,
        vec![Expr::op(ExprOp::Mul, vec![size, Expr::float(scale)])],
    )
}

fn grid_sampler(c: &Call) -> Result<Vec<Type>> {
    let (t, grid) = (c.first()?, c.tensor("grid")?);
    if t.rank() < 3 || grid.rank() != t.rank() {
        return c.invalid(format!("grid {grid} does not fit {t}"));
    }
    let shape = [&t.shape[..2], &grid.shape[1..grid.rank() - 1]].concat();
    c.one(t.dtype, shape)
}
