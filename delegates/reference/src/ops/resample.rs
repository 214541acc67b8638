//! Resizing of images: along each dimension, an output element is a weighted sum of a few of the input's.

use crate::call::Call;
use crate::caps::{Operator, Refusal, dtype, floats, op, rank};
use crate::tensor::{Data, Tensor, count, filled};
use crate::walk::split_at;
use delegraph_sdk::image::NodeView;
use delegraph_sdk::{DType, Error};

type Made = Result<Vec<Tensor>, Error>;

/// An element of the input and its weight.
type Tap = (usize, f64);

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Nearest,
    Linear,
    Cubic,
}

/// What an output element is made of. PyTorch computes places in f32, and so must this: they are cut off.
fn taps(way: Way, at: usize, size: usize, out: usize, align: bool, factor: Option<f64>) -> Vec<Tap> {
    let last = size.saturating_sub(1);
    let ratio = match factor {
        Some(factor) if factor > 0.0 => (1.0 / factor) as f32,
        _ => size as f32 / out as f32,
    };
    if way == Way::Nearest {
        return vec![(((at as f32 * ratio) as usize).min(last), 1.0)];
    }
    let place = match align {
        true if out > 1 => at as f32 * (last as f32 / (out - 1) as f32),
        true => 0.0,
        false => ratio * (at as f32 + 0.5) - 0.5,
    };
    if way == Way::Linear {
        let place = place.max(0.0);
        let first = (place as usize).min(last);
        let rest = f64::from(place - first as f32).clamp(0.0, 1.0);
        return vec![(first, 1.0 - rest), ((first + 1).min(last), rest)];
    }
    let first = place.floor();
    let t = f64::from(place - first);
    // Keys's cubic convolution with a = -0.75, as OpenCV and PyTorch have it.
    let a = -0.75;
    let near = |x: f64| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
    let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
    let places = (-1..=2).map(|i| (first as i64 + i).clamp(0, last as i64) as usize);
    places.zip(weights).collect()
}

fn along(x: &Tensor, d: usize, taps: &[Vec<Tap>]) -> Result<Tensor, Error> {
    let (before, size, after) = split_at(x.sizes(), d);
    let mut sizes = x.sizes().to_vec();
    sizes[d] = taps.len();
    let values = x.to_floats();
    let mut made = filled(count(&sizes)?, 0.0)?;
    if !made.is_empty() {
        for i in 0..before {
            for (j, taps) in taps.iter().enumerate() {
                let out = &mut made[(i * sizes[d] + j) * after..][..after];
                for (source, weight) in taps {
                    let row = &values[(i * size + source) * after..][..after];
                    out.iter_mut().zip(row).for_each(|(out, x)| *out += x * weight);
                }
            }
        }
    }
    // Between dimensions nothing is rounded.
    Tensor::new(DType::F64, sizes, Data::Float(made))
}

/// `factors` is the argument with one factor a dimension; with sizes instead, the ratio follows from them.
fn resize(call: &Call<'_>, way: Way, space: usize, align: Option<usize>, factors: usize) -> Made {
    let (x, out) = (call.tensor(0)?, call.out_sizes(0)?);
    let align = align.map(|i| call.bool(i)).transpose()?.unwrap_or(false);
    let factors = if call.is_none(factors) {
        Vec::new()
    } else {
        call.floats(factors)?
    };
    let start = x.rank() - space.min(x.rank());
    let mut made = x.clone();
    for d in start..x.rank() {
        let (size, target) = (x.sizes()[d], out.get(d).copied().unwrap_or(0));
        if size == 0 {
            return Err(Error::invalid("nothing cannot be resized"));
        }
        let factor = factors.get(d - start).copied();
        let mut all = crate::tensor::room(target)?;
        all.extend((0..target).map(|at| taps(way, at, size, target, align, factor)));
        made = along(&made, d, &all)?;
    }
    call.one(made.sizes().to_vec(), made.data().clone())
}

fn check<const SPACE: usize>(node: &NodeView<'_>) -> Result<(), Refusal> {
    floats(node)?;
    match rank(node, 0) {
        Some(rank) if rank == SPACE + 2 => Ok(()),
        rank => Err(Refusal::rank(format!(
            "resizing of a tensor of rank {}",
            rank.unwrap_or(0)
        ))),
    }
}

/// PyTorch rounds 16-bit floats after each row, which shows where weights are negative.
fn check_cubic(node: &NodeView<'_>) -> Result<(), Refusal> {
    check::<2>(node)?;
    match dtype(node, 0) {
        Some(DType::F32 | DType::F64) => Ok(()),
        _ => Err(Refusal::dtype("cubic resizing of f32 and f64 only")),
    }
}

const NEAREST: &str = "Tensor int[]? float[]?";
const SMOOTH: &str = "Tensor int[]? bool float[]?";

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::upsample_nearest1d.vec", NEAREST, check::<1>, |c| {
        resize(c, Way::Nearest, 1, None, 2)
    }),
    op("aten::upsample_nearest2d.vec", NEAREST, check::<2>, |c| {
        resize(c, Way::Nearest, 2, None, 2)
    }),
    op("aten::upsample_nearest3d.vec", NEAREST, check::<3>, |c| {
        resize(c, Way::Nearest, 3, None, 2)
    }),
    op("aten::upsample_linear1d.vec", SMOOTH, check::<1>, |c| {
        resize(c, Way::Linear, 1, Some(2), 3)
    }),
    op("aten::upsample_bilinear2d.vec", SMOOTH, check::<2>, |c| {
        resize(c, Way::Linear, 2, Some(2), 3)
    }),
    op("aten::upsample_trilinear3d.vec", SMOOTH, check::<3>, |c| {
        resize(c, Way::Linear, 3, Some(2), 3)
    }),
    op("aten::upsample_bicubic2d.vec", SMOOTH, check_cubic, |c| {
        resize(c, Way::Cubic, 2, Some(2), 3)
    }),
];

#[cfg(test)]
mod tests {
    use crate::testing::{f32s, gives};
    use delegraph_sdk::image::Arg;

    #[test]
    fn twice_as_long() {
        let x = f32s(&[1, 1, 2], &[0.0, 4.0]);
        let nearest = [(&x).into(), [4][..].into(), Arg::None.into()];
        gives(
            "aten::upsample_nearest1d.vec",
            &nearest,
            &[f32s(&[1, 1, 4], &[0.0, 0.0, 4.0, 4.0])],
        );
        let linear = |align| [(&x).into(), [4][..].into(), Arg::Bool(align).into(), Arg::None.into()];
        gives(
            "aten::upsample_linear1d.vec",
            &linear(false),
            &[f32s(&[1, 1, 4], &[0.0, 1.0, 3.0, 4.0])],
        );
        let third = 4.0 / 3.0;
        gives(
            "aten::upsample_linear1d.vec",
            &linear(true),
            &[f32s(&[1, 1, 4], &[0.0, third, 2.0 * third, 4.0])],
        );
    }
}
