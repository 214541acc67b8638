//! Resizing of images: along each dimension, an output element is a weighted sum of a few of the input's.
//!
//! Which ones, and their weights, follow from the sizes alone: they are worked out here, as PyTorch does, and given to the kernels as tables.

use crate::caps::{self, Operator, Refusal, rank};
use crate::codes::code;
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::tensor::{Layout, Tensor};
use delegraph_sdk::image::NodeView;
use delegraph_sdk::{DType, Error};

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    row("aten::upsample_nearest1d.vec", accept::<1>, |n, e| {
        nearest::<1>(n, e, Way::Nearest)
    }),
    row("aten::upsample_nearest2d.vec", accept::<2>, |n, e| {
        nearest::<2>(n, e, Way::Nearest)
    }),
    row("aten::upsample_nearest3d.vec", accept::<3>, |n, e| {
        nearest::<3>(n, e, Way::Nearest)
    }),
    row("aten::upsample_nearest1d", accept::<1>, |n, e| {
        nearest::<1>(n, e, Way::Nearest)
    }),
    row("aten::upsample_nearest2d", accept::<2>, |n, e| {
        nearest::<2>(n, e, Way::Nearest)
    }),
    row("aten::upsample_nearest3d", accept::<3>, |n, e| {
        nearest::<3>(n, e, Way::Nearest)
    }),
    row("aten::_upsample_nearest_exact1d.vec", accept::<1>, |n, e| {
        nearest::<1>(n, e, Way::Exact)
    }),
    row("aten::_upsample_nearest_exact2d.vec", accept::<2>, |n, e| {
        nearest::<2>(n, e, Way::Exact)
    }),
    row("aten::_upsample_nearest_exact3d.vec", accept::<3>, |n, e| {
        nearest::<3>(n, e, Way::Exact)
    }),
    row("aten::_upsample_nearest_exact1d", accept::<1>, |n, e| {
        nearest::<1>(n, e, Way::Exact)
    }),
    row("aten::_upsample_nearest_exact2d", accept::<2>, |n, e| {
        nearest::<2>(n, e, Way::Exact)
    }),
    row("aten::_upsample_nearest_exact3d", accept::<3>, |n, e| {
        nearest::<3>(n, e, Way::Exact)
    }),
    row("aten::upsample_linear1d.vec", accept::<1>, |n, e| {
        smooth::<1>(n, e, Way::Linear)
    }),
    row("aten::upsample_bilinear2d.vec", accept::<2>, |n, e| {
        smooth::<2>(n, e, Way::Linear)
    }),
    row("aten::upsample_trilinear3d.vec", accept::<3>, |n, e| {
        smooth::<3>(n, e, Way::Linear)
    }),
    row("aten::upsample_linear1d", accept::<1>, |n, e| {
        smooth::<1>(n, e, Way::Linear)
    }),
    row("aten::upsample_bilinear2d", accept::<2>, |n, e| {
        smooth::<2>(n, e, Way::Linear)
    }),
    row("aten::upsample_trilinear3d", accept::<3>, |n, e| {
        smooth::<3>(n, e, Way::Linear)
    }),
    row("aten::upsample_bicubic2d.vec", accept_cubic, |n, e| {
        smooth::<2>(n, e, Way::Cubic)
    }),
    row("aten::upsample_bicubic2d", accept_cubic, |n, e| {
        smooth::<2>(n, e, Way::Cubic)
    }),
];

const fn row(
    name: &'static str,
    accept: fn(&NodeView<'_>) -> Result<(), Refusal>,
    encode: fn(&Node<'_>, &mut Encoder<'_>) -> Result<(), Error>,
) -> Operator {
    Operator { name, accept, encode }
}

fn accept<const SPACE: usize>(node: &NodeView<'_>) -> Result<(), Refusal> {
    caps::all_of(node, &[DType::F32, DType::F16, DType::BF16])?;
    match rank(node, 0) {
        Some(rank) if rank == SPACE + 2 => Ok(()),
        rank => Err(Refusal::shape(format!(
            "resizing of {SPACE} dimensions of a tensor of rank {}",
            rank.unwrap_or(0)
        ))),
    }
}

/// PyTorch rounds 16-bit floats after each row, which shows where weights are negative.
fn accept_cubic(node: &NodeView<'_>) -> Result<(), Refusal> {
    accept::<2>(node)?;
    match caps::dtype(node, 0) {
        Some(DType::F32) => Ok(()),
        _ => Err(Refusal::dtype("cubic resizing of f32 only")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Nearest,
    /// The nearest to the middle of the output element.
    Exact,
    Linear,
    Cubic,
}

impl Way {
    /// Elements of the input that an output element is made of, along a dimension.
    fn taps(self) -> u32 {
        match self {
            Way::Nearest | Way::Exact => 1,
            Way::Linear => 2,
            Way::Cubic => 4,
        }
    }
}

/// An element of the input and its weight.
type Tap = (u32, f32);

/// Along one dimension.
#[derive(Debug, Clone, Copy)]
struct Side {
    input: u32,
    output: u32,
    /// The factor that was given, where one was.
    factor: Option<f64>,
    align: bool,
}

impl Side {
    const POINT: Side = Side {
        input: 1,
        output: 1,
        factor: None,
        align: false,
    };

    fn taps(&self, way: Way) -> Vec<Tap> {
        (0..self.output).flat_map(|at| self.of(way, at)).collect()
    }

    /// What an output element is made of. PyTorch computes places in f32, and so must this: they are cut off.
    fn of(&self, way: Way, at: u32) -> Vec<Tap> {
        let last = self.input.saturating_sub(1);
        let at = at as f32;
        let ratio = match self.factor {
            Some(factor) if factor > 0.0 => (1.0 / factor) as f32,
            _ => self.input as f32 / self.output as f32,
        };
        match way {
            Way::Nearest => return vec![(((at * ratio) as u32).min(last), 1.0)],
            Way::Exact => return vec![((((at + 0.5) * ratio) as u32).min(last), 1.0)],
            Way::Linear | Way::Cubic => {}
        }
        let place = match self.align {
            true if self.output > 1 => at * (last as f32 / (self.output - 1) as f32),
            true => 0.0,
            false => ratio * (at + 0.5) - 0.5,
        };
        if way == Way::Linear {
            let place = place.max(0.0);
            let first = (place as u32).min(last);
            let rest = (place - first as f32).clamp(0.0, 1.0);
            return vec![(first, 1.0 - rest), ((first + 1).min(last), rest)];
        }
        let first = place.floor();
        let t = f64::from(place - first);
        // Keys's cubic convolution with a = -0.75, as OpenCV and PyTorch have it.
        let a = -0.75;
        let near = |x: f64| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
        let far = |x: f64| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
        let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
        let places = (-1..=2).map(|i| (first as i64 + i).clamp(0, i64::from(last)) as u32);
        places.zip(weights.map(|w| w as f32)).collect()
    }
}

/// The sizes and factors along the last dimensions. `factors` is the argument that the factors begin at.
fn sides(node: &Node<'_>, e: &Encoder<'_>, space: usize, align: bool, factors: usize) -> Result<[Side; 3], Error> {
    let (x, out) = (e.dims(node.value(0)?)?, e.dims(node.output(0)?)?);
    let start = x.len().checked_sub(space).filter(|_| x.len() == out.len());
    let start = start.ok_or_else(|| Error::invalid(format!("resizing of {x:?} to {out:?}")))?;
    let given: Vec<Option<f64>> = match node.op().ends_with(".vec") {
        true => match node.optional_floats(factors)? {
            Some(list) => list.into_iter().map(Some).collect(),
            None => vec![None; space],
        },
        false => (0..space)
            .map(|d| Ok(node.optional_scalar(factors + d)?.map(|s| s.float())))
            .collect::<Result<_, Error>>()?,
    };
    let mut sides = [Side::POINT; 3];
    for d in 0..space {
        let side = Side {
            input: x[start + d],
            output: out[start + d],
            factor: given.get(d).copied().flatten(),
            align,
        };
        if side.input == 0 {
            return Err(Error::invalid("nothing cannot be resized"));
        }
        sides[3 - space + d] = side;
    }
    Ok(sides)
}

fn nearest<const SPACE: usize>(node: &Node<'_>, e: &mut Encoder<'_>, way: Way) -> Result<(), Error> {
    let sides = sides(node, e, SPACE, false, 2)?;
    resize(node, e, &sides, SPACE, way)
}

fn smooth<const SPACE: usize>(node: &Node<'_>, e: &mut Encoder<'_>, way: Way) -> Result<(), Error> {
    let sides = sides(node, e, SPACE, node.bool(2)?, 3)?;
    resize(node, e, &sides, SPACE, way)
}

/// The tables of these sides one behind the other, and where each begins.
fn tables(e: &mut Encoder<'_>, sides: &[Side], ways: &[Way]) -> Result<(Tensor, Vec<u32>), Error> {
    let (mut bytes, mut starts) = (Vec::new(), Vec::new());
    for (side, way) in sides.iter().zip(ways) {
        starts.push((bytes.len() / 8) as u32);
        for (at, weight) in side.taps(*way) {
            bytes.extend(at.to_le_bytes());
            bytes.extend(weight.to_le_bytes());
        }
    }
    let count = (bytes.len() / 4) as u32;
    Ok((e.bytes(DType::I32, &[count], bytes)?, starts))
}

fn resize(node: &Node<'_>, e: &mut Encoder<'_>, sides: &[Side; 3], space: usize, way: Way) -> Result<(), Error> {
    let value = node.value(0)?;
    let dtype = e.dtype(value)?;
    if space == 2 && matches!(dtype, DType::F32 | DType::F16) {
        let x = e.tensor(value, Layout::Nhwc4)?;
        let out = e.output(node, 0, Layout::Nhwc4)?;
        let [_, down, across] = sides;
        let (table, _) = tables(e, &sides[1..], &[way; 2])?;
        let (blocks, count) = (x.dims[1].div_ceil(4), out.stored() / 4);
        let params = [
            count,
            blocks,
            down.output,
            across.output,
            down.input,
            across.input,
            way.taps(),
            way.taps(),
        ];
        let kernel = match dtype {
            DType::F16 => &kernels::RESAMPLE_CHANNELS_F16,
            _ => &kernels::RESAMPLE_CHANNELS_F32,
        };
        let operands = [read(&x), read(&table), write(&out)];
        return e.dispatch(kernel, &operands, &params, grid(count, 64));
    }
    let x = e.tensor(value, Layout::RowMajor)?;
    let out = e.output(node, 0, Layout::RowMajor)?;
    // The missing dimensions in front are copied: a second tap without weight would make NaN of an infinity.
    let ways = [0, 1, 2].map(|d| if d < 3 - space { Way::Nearest } else { way });
    let (table, starts) = tables(e, sides, &ways)?;
    let code = code(dtype).ok_or_else(|| Error::internal(format!("resizing of {dtype}")))?;
    let words = (u64::from(out.count()) * u64::from(out.element())).div_ceil(4) as u32;
    let mut params = vec![words, out.count(), code];
    params.extend(sides.iter().map(|side| side.input));
    params.extend(sides.iter().map(|side| side.output));
    params.extend(ways.map(Way::taps));
    params.extend(&starts);
    let operands = [read(&x), read(&table), write(&out)];
    e.dispatch(&kernels::RESAMPLE_PLAIN, &operands, &params, grid(words, 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(input: u32, output: u32, align: bool) -> Side {
        Side {
            input,
            output,
            factor: None,
            align,
        }
    }

    #[test]
    fn twice_as_long() {
        let places = |way| side(2, 4, false).taps(way).iter().map(|t| t.0).collect::<Vec<_>>();
        assert_eq!(places(Way::Nearest), [0, 0, 1, 1]);
        assert_eq!(places(Way::Exact), [0, 0, 1, 1]);
        let linear = side(2, 4, false).taps(Way::Linear);
        assert_eq!(linear[2..4], [(0, 0.75), (1, 0.25)]);
        assert_eq!(linear[6..], [(1, 0.75), (1, 0.25)]);
        let aligned = side(2, 4, true).taps(Way::Linear);
        assert_eq!(aligned[..2], [(0, 1.0), (1, 0.0)]);
        assert_eq!(aligned[6..], [(1, 1.0), (1, 0.0)]);
    }

    #[test]
    fn the_exact_nearest_looks_at_the_middle() {
        let places = |way| side(5, 3, false).taps(way).iter().map(|t| t.0).collect::<Vec<_>>();
        assert_eq!(places(Way::Nearest), [0, 1, 3]);
        assert_eq!(places(Way::Exact), [0, 2, 4]);
    }

    #[test]
    fn weights_add_up() {
        for way in [Way::Linear, Way::Cubic] {
            let taps = side(5, 7, false).taps(way);
            let each = taps.len() / 7;
            for sum in taps.chunks(each).map(|c| c.iter().map(|t| t.1).sum::<f32>()) {
                assert!((sum - 1.0).abs() < 1e-6, "{way:?} {sum}");
            }
        }
    }
}
