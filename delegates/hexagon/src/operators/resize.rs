//! Resizing of lines and planes.
//!
//! The library resizes by the sizes alone, and rounds places in its own way. So places are worked out here as PyTorch does, in f32, and what
//! the library would place elsewhere is refused: factors that are not the quotient of the sizes, and places that fall on an edge.

use super::images;
use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::graph::Param;
use crate::node::Node;

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    row("aten::upsample_nearest1d.vec", |n, b| lower::<1>(n, b, Way::Nearest)),
    row("aten::upsample_nearest1d", |n, b| lower::<1>(n, b, Way::Nearest)),
    row("aten::upsample_nearest2d.vec", |n, b| lower::<2>(n, b, Way::Nearest)),
    row("aten::upsample_nearest2d", |n, b| lower::<2>(n, b, Way::Nearest)),
    row("aten::upsample_linear1d.vec", |n, b| lower::<1>(n, b, Way::Linear)),
    row("aten::upsample_linear1d", |n, b| lower::<1>(n, b, Way::Linear)),
    row("aten::upsample_bilinear2d.vec", |n, b| lower::<2>(n, b, Way::Linear)),
    row("aten::upsample_bilinear2d", |n, b| lower::<2>(n, b, Way::Linear)),
];

const fn row(name: &'static str, lower: fn(&Node<'_>, &mut Builder<'_>) -> Result<(), Refusal>) -> Operator {
    Operator { name, lower }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Nearest,
    Linear,
}

/// Along one dimension.
#[derive(Debug, Clone, Copy)]
struct Side {
    input: u32,
    output: u32,
    /// The factor that was given, where one was.
    factor: Option<f64>,
}

impl Side {
    /// Steps of the input from output to output.
    fn ratio(&self) -> f32 {
        match self.factor {
            Some(factor) if factor > 0.0 => (1.0 / factor) as f32,
            _ => self.input as f32 / self.output as f32,
        }
    }

    /// True if the factor that was given is the quotient of the sizes.
    fn is_plain(&self) -> bool {
        self.ratio() == self.input as f32 / self.output as f32
    }

    /// True if the place of each output is the same in PyTorch's f32 as in whole numbers, and none is so near to an edge that another
    /// rounding would move it.
    fn is_clear(&self) -> bool {
        let last = self.input - 1;
        (0..self.output).all(|at| {
            let place = ((at as f32 * self.ratio()) as u32).min(last);
            let exact = u64::from(at) * u64::from(self.input) / u64::from(self.output);
            u64::from(place) == exact
        })
    }
}

/// Most outputs along a dimension: beyond, f32 does not count.
const MOST: u32 = 1 << 20;

fn lower<const SPACE: usize>(node: &Node<'_>, b: &mut Builder<'_>, way: Way) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    match way {
        Way::Nearest => images::same_numbers(b, x, out)?,
        Way::Linear => images::one_type(b, &[x, out]).map(|_| ())?,
    }
    let (from, to) = (b.logical_dims(x)?, b.logical_dims(out)?);
    if from.len() != SPACE + 2 || to.len() != SPACE + 2 {
        return Err(Refusal::shape(format!("resizing of {from:?} to {to:?}")));
    }
    let at = if way == Way::Linear { 3 } else { 2 };
    let factors: Vec<Option<f64>> = match node.op().ends_with(".vec") {
        true => match node.optional_floats(at)? {
            Some(list) => list.into_iter().map(Some).collect(),
            None => vec![None; SPACE],
        },
        false => (0..SPACE)
            .map(|d| Ok(node.optional_scalar(at + d)?.map(|s| s.float())))
            .collect::<Result<_, Refusal>>()?,
    };
    for d in 0..SPACE {
        let side = Side {
            input: from[2 + d],
            output: to[2 + d],
            factor: factors.get(d).copied().flatten(),
        };
        if side.output > MOST || !side.is_plain() {
            return Err(Refusal::attribute(format!(
                "from {} to {} by a factor that is not their quotient",
                side.input, side.output
            )));
        }
        if way == Way::Nearest && !side.is_clear() {
            return Err(Refusal::shape(format!(
                "from {} to {}: the nearest element depends on rounding",
                side.input, side.output
            )));
        }
    }
    let (op, align, half) = match way {
        Way::Nearest => ("ResizeNearestNeighbor", false, false),
        Way::Linear => {
            let align = node.bool(2)?;
            ("ResizeBilinear", align, !align)
        }
    };
    let params = vec![
        ("align_corners", Param::Bool(align)),
        ("half_pixel_centers", Param::Bool(half)),
    ];
    let input = images::input(b, x, SPACE, 2)?;
    images::output(b, out, SPACE, 2, |b, y| {
        b.op(op, params, &[input], &[y]);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(input: u32, output: u32, factor: Option<f64>) -> Side {
        Side { input, output, factor }
    }

    #[test]
    fn factors_are_quotients_or_refused() {
        assert!(side(5, 10, None).is_plain());
        assert!(side(5, 10, Some(2.0)).is_plain());
        // 7 of 5: a factor of 1.5 was rounded down.
        assert!(!side(5, 7, Some(1.5)).is_plain());
    }

    #[test]
    fn whole_factors_are_clear() {
        for factor in 1..9 {
            assert!(side(7, 7 * factor, None).is_clear(), "{factor}");
            assert!(side(7 * factor, 7, None).is_clear(), "{factor}");
        }
    }
}
