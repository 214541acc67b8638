//! Convolutions: all of them are `aten::convolution`.

use super::{Replacement, Rules, one};
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Expr, ValueId};

pub(super) const RULES: Rules = &[
    ("aten::conv1d", |rw| plain(rw, 1)),
    ("aten::conv2d", |rw| plain(rw, 2)),
    ("aten::conv3d", |rw| plain(rw, 3)),
    ("aten::conv1d.padding", |rw| by_name(rw, 1)),
    ("aten::conv2d.padding", |rw| by_name(rw, 2)),
    ("aten::conv3d.padding", |rw| by_name(rw, 3)),
    ("aten::_convolution_mode", |rw| {
        let spatial = rw.rank(rw.tensor(1)?)?.saturating_sub(2);
        by_name(rw, spatial)
    }),
    ("aten::conv_transpose1d", |rw| transposed(rw, 1)),
    ("aten::conv_transpose2d.input", |rw| transposed(rw, 2)),
    ("aten::conv_transpose3d.input", |rw| transposed(rw, 3)),
    ("aten::_convolution", |rw| whole(rw)),
    ("aten::_convolution.deprecated", |rw| whole(rw)),
    ("aten::thnn_conv2d", |rw| kernel_first(rw, 2)),
    ("aten::slow_conv3d", |rw| kernel_first(rw, 3)),
];

/// The numbers of a convolution over `spatial` dimensions.
struct Shape {
    stride: Vec<i64>,
    padding: Vec<Expr>,
    dilation: Vec<i64>,
    transposed: bool,
    output_padding: Vec<i64>,
    groups: i64,
}

/// input, weight, bias, stride, padding, dilation, groups
fn plain(rw: &mut Rewrite, spatial: usize) -> Replacement {
    let shape = Shape {
        stride: per_dim(rw, 3, spatial, 1)?,
        padding: per_dim(rw, 4, spatial, 0)?.into_iter().map(Expr::Int).collect(),
        dilation: per_dim(rw, 5, spatial, 1)?,
        transposed: false,
        output_padding: vec![0; spatial],
        groups: rw.int(6)?,
    };
    let (x, weight, bias) = (rw.tensor(0)?, rw.tensor(1)?, rw.optional_tensor(2)?);
    emit(rw, x, weight, bias, spatial, shape)
}

/// The same with padding by name. `same` needs stride 1; an odd total puts the extra element behind.
fn by_name(rw: &mut Rewrite, spatial: usize) -> Replacement {
    let (mut x, weight, bias) = (rw.tensor(0)?, rw.tensor(1)?, rw.optional_tensor(2)?);
    let stride = per_dim(rw, 3, spatial, 1)?;
    let dilation = per_dim(rw, 5, spatial, 1)?;
    let mut padding = vec![0; spatial];
    match rw.text(4)?.as_str() {
        "valid" => {}
        "same" => {
            if stride.iter().any(|&s| s != 1) {
                return Err(rw.invalid("`same` padding with a stride"));
            }
            let kernel = rw.static_shape(weight)?;
            let mut extra = vec![0; 2 * spatial];
            for d in 0..spatial {
                let size = kernel.get(2 + d).copied().unwrap_or(1);
                let total = dilation[d].saturating_mul(size - 1).max(0);
                padding[d] = total / 2;
                // constant_pad_nd counts from the last dimension: (before, after) pairs.
                extra[2 * (spatial - 1 - d) + 1] = total % 2;
            }
            if extra.iter().any(|&e| e != 0) {
                x = rw.emit("aten::constant_pad_nd", args![x, extra, 0])?;
            }
        }
        other => return Err(rw.invalid(format!("padding `{other}`"))),
    }
    let shape = Shape {
        stride,
        padding: padding.into_iter().map(Expr::Int).collect(),
        dilation,
        transposed: false,
        output_padding: vec![0; spatial],
        groups: rw.int(6)?,
    };
    emit(rw, x, weight, bias, spatial, shape)
}

/// input, weight, bias, stride, padding, output_padding, groups, dilation
fn transposed(rw: &mut Rewrite, spatial: usize) -> Replacement {
    let shape = Shape {
        stride: per_dim(rw, 3, spatial, 1)?,
        padding: per_dim(rw, 4, spatial, 0)?.into_iter().map(Expr::Int).collect(),
        dilation: per_dim(rw, 7, spatial, 1)?,
        transposed: true,
        output_padding: per_dim(rw, 5, spatial, 0)?,
        groups: rw.int(6)?,
    };
    let (x, weight, bias) = (rw.tensor(0)?, rw.tensor(1)?, rw.optional_tensor(2)?);
    emit(rw, x, weight, bias, spatial, shape)
}

/// `_convolution`: `convolution` with flags of other engines behind.
fn whole(rw: &mut Rewrite) -> Replacement {
    let spatial = rw.rank(rw.tensor(1)?)?.saturating_sub(2);
    let shape = Shape {
        stride: per_dim(rw, 3, spatial, 1)?,
        padding: per_dim(rw, 4, spatial, 0)?.into_iter().map(Expr::Int).collect(),
        dilation: per_dim(rw, 5, spatial, 1)?,
        transposed: rw.bool(6)?,
        output_padding: per_dim(rw, 7, spatial, 0)?,
        groups: rw.int(8)?,
    };
    let (x, weight, bias) = (rw.tensor(0)?, rw.tensor(1)?, rw.optional_tensor(2)?);
    emit(rw, x, weight, bias, spatial, shape)
}

/// self, weight, kernel_size, bias, stride, padding
fn kernel_first(rw: &mut Rewrite, spatial: usize) -> Replacement {
    let shape = Shape {
        stride: per_dim(rw, 4, spatial, 1)?,
        padding: per_dim(rw, 5, spatial, 0)?.into_iter().map(Expr::Int).collect(),
        dilation: vec![1; spatial],
        transposed: false,
        output_padding: vec![0; spatial],
        groups: 1,
    };
    let (x, weight, bias) = (rw.tensor(0)?, rw.tensor(1)?, rw.optional_tensor(3)?);
    emit(rw, x, weight, bias, spatial, shape)
}

fn emit(
    rw: &mut Rewrite,
    x: ValueId,
    weight: ValueId,
    bias: Option<ValueId>,
    spatial: usize,
    shape: Shape,
) -> Replacement {
    if rw.rank(weight)? != spatial + 2 {
        return Err(rw.invalid(format!(
            "a weight of rank {} over {spatial} dimensions",
            rw.rank(weight)?
        )));
    }
    let unbatched = rw.rank(x)? == spatial + 1;
    let x = if unbatched { rw.unsqueeze(x, 0)? } else { x };
    let y = rw.emit(
        "aten::convolution",
        args![
            x,
            weight,
            bias,
            shape.stride,
            shape.padding,
            shape.dilation,
            shape.transposed,
            shape.output_padding,
            shape.groups
        ],
    )?;
    match unbatched {
        true => one(rw.squeeze(y, 0)),
        false => Ok(Some(vec![y])),
    }
}

/// A list of one a spatial dimension; a single number stands for all, none for `default`.
pub(super) fn per_dim(rw: &Rewrite, index: usize, count: usize, default: i64) -> Result<Vec<i64>, crate::PassError> {
    let items = match rw.arg(index).as_int() {
        Some(item) => vec![item],
        None => rw.ints(index)?,
    };
    match items.len() {
        0 => Ok(vec![default; count]),
        1 => Ok(vec![items[0]; count]),
        n if n == count => Ok(items),
        n => Err(rw.invalid(format!("{n} numbers for {count} dimensions"))),
    }
}
