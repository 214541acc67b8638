//! Convolutions, and the operators that lay out their windows.

use super::Rule;
use super::call::{Call, Result};
use crate::{Expr, TensorType, Type};

pub(super) fn rule(base: &str) -> Option<Rule> {
    Some(match base {
        "convolution" | "_convolution" | "convolution_overrideable" => |c| convolution(c, c.bool("transposed")?),
        "conv1d"
        | "conv2d"
        | "conv3d"
        | "_conv_depthwise2d"
        | "conv_depthwise3d"
        | "_convolution_mode"
        | "thnn_conv2d"
        | "_slow_conv2d_forward"
        | "slow_conv3d"
        | "slow_conv3d_forward"
        | "slow_conv_dilated2d"
        | "slow_conv_dilated3d" => |c| convolution(c, false),
        "conv_transpose1d"
        | "conv_transpose2d"
        | "conv_transpose3d"
        | "slow_conv_transpose2d"
        | "slow_conv_transpose3d" => |c| convolution(c, true),
        "conv_tbc" => conv_tbc,
        "im2col" => im2col,
        "col2im" => col2im,
        _ => return None,
    })
}

/// `(size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1`
pub(super) fn window_count(size: &Expr, kernel: &Expr, stride: &Expr, padding: &Expr, dilation: &Expr) -> Expr {
    let one = || Expr::Int(1);
    let reach = dilation.clone() * (kernel.clone() - one()) + one();
    (size.clone() + Expr::Int(2) * padding.clone() - reach).floor_div(stride.clone()) + one()
}

/// Refuses strides and dilations that are not positive.
pub(super) fn check_positive(c: &Call, name: &str, items: &[Expr]) -> Result<()> {
    match items.iter().filter_map(Expr::as_int).find(|i| *i <= 0) {
        Some(bad) => c.invalid(format!("`{name}` is {bad}")),
        None => Ok(()),
    }
}

fn convolution(c: &Call, transposed: bool) -> Result<Vec<Type>> {
    let (x, w) = (c.first()?, c.tensor("weight")?);
    c.rank_at_least(w, 3)?;
    let n = w.rank() - 2;
    if x.rank() != n + 1 && x.rank() != n + 2 {
        return c.invalid(format!("input {x} does not fit weight {w}"));
    }
    let lead = x.rank() - n;
    let ones = vec![Expr::Int(1); n];
    let zeros = vec![Expr::Int(0); n];
    let stride = c.spatial("stride", n, &ones)?;
    let dilation = c.spatial("dilation", n, &ones)?;
    check_positive(c, "stride", &stride)?;
    check_positive(c, "dilation", &dilation)?;
    let mode = c.str("padding").ok().map(str::to_string);
    let padding = match &mode {
        Some(_) => zeros.clone(),
        None => c.spatial("padding", n, &zeros)?,
    };
    let output_padding = c.spatial("output_padding", n, &zeros)?;
    let groups = if c.given("groups") {
        c.int("groups")?
    } else {
        Expr::Int(1)
    };
    let (channels, inner) = match transposed {
        true => (w.shape[1].clone() * groups, w.shape[0].clone()),
        false => (w.shape[0].clone(), w.shape[1].clone() * groups),
    };
    c.same_size(&x.shape[lead - 1], &inner)?;
    let mut shape = x.shape[..lead - 1].to_vec();
    shape.push(channels);
    for d in 0..n {
        let (size, kernel) = (&x.shape[lead + d], &w.shape[2 + d]);
        shape.push(match (transposed, mode.as_deref()) {
            (false, Some("same")) => size.clone(),
            (false, _) => window_count(size, kernel, &stride[d], &padding[d], &dilation[d]),
            (true, _) => {
                let one = || Expr::Int(1);
                (size.clone() - one()) * stride[d].clone() - Expr::Int(2) * padding[d].clone()
                    + dilation[d].clone() * (kernel.clone() - one())
                    + output_padding[d].clone()
                    + one()
            }
        });
    }
    c.one(x.dtype, shape)
}

/// Time first, channels last.
fn conv_tbc(c: &Call) -> Result<Vec<Type>> {
    let (x, w) = (c.first()?, c.tensor("weight")?);
    match (x.shape.as_slice(), w.shape.as_slice()) {
        ([time, batch, _], [kernel, _, channels]) => {
            let one = Expr::Int(1);
            let time = window_count(time, kernel, &one, &c.int("pad")?, &one);
            c.one(x.dtype, vec![time, batch.clone(), channels.clone()])
        }
        _ => c.invalid(format!("{x} and {w}: expected rank 3")),
    }
}

/// kernel, stride, padding, dilation of `im2col` and `col2im`, and the number of windows in an image.
fn blocks(c: &Call, height: &Expr, width: &Expr) -> Result<(Expr, Expr)> {
    let kernel = c.spatial("kernel_size", 2, &[])?;
    let one = [Expr::Int(1), Expr::Int(1)];
    let stride = c.spatial("stride", 2, &one)?;
    let dilation = c.spatial("dilation", 2, &one)?;
    let padding = c.spatial("padding", 2, &[Expr::Int(0), Expr::Int(0)])?;
    if kernel.len() != 2 {
        return c.invalid("`kernel_size` is empty");
    }
    check_positive(c, "stride", &stride)?;
    let rows = window_count(height, &kernel[0], &stride[0], &padding[0], &dilation[0]);
    let columns = window_count(width, &kernel[1], &stride[1], &padding[1], &dilation[1]);
    Ok((kernel[0].clone() * kernel[1].clone(), rows * columns))
}

/// (leading sizes, the last `n` sizes) of a tensor of rank `n` or `n + 1`.
fn unbatched<'t>(c: &Call, t: &'t TensorType, n: usize) -> Result<(&'t [Expr], &'t [Expr])> {
    if t.rank() != n && t.rank() != n + 1 {
        return c.invalid(format!("{t}: expected rank {n} or {}", n + 1));
    }
    Ok(t.shape.split_at(t.rank() - n))
}

fn im2col(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let (batch, image) = unbatched(c, t, 3)?;
    let (window, count) = blocks(c, &image[1], &image[2])?;
    c.one(t.dtype, [batch, &[image[0].clone() * window, count]].concat())
}

fn col2im(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let (batch, columns) = unbatched(c, t, 2)?;
    let size = c.spatial("output_size", 2, &[])?;
    if size.len() != 2 {
        return c.invalid("`output_size` is empty");
    }
    let (window, _) = blocks(c, &size[0], &size[1])?;
    check_positive(c, "kernel_size", std::slice::from_ref(&window))?;
    let channels = columns[0].clone().floor_div(window);
    c.one(t.dtype, [batch, &[channels], &size].concat())
}
