//! Images of another size: by repeating, picking, and by sums of neighbours.
//!
//! TOSA has an operator for it, of which Vela takes little for U55 and U65, and which Linux's driver does not run. Nearest neighbours are moves.
//! Bilinear ones are a sum over rows and one over columns with weights that are the same for all: two layers of whole numbers, exact up to the one
//! rounding at the end.

use super::movement::{picked, same_scale};
use crate::builder::Builder;
use crate::caps::{Operator, Refusal};
use crate::tosa::{Attribute, DType, Op};
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::image::ValueIndex;

/// Largest denominator of a neighbour's weight, for 8 signed bits.
const DENOMINATOR: i64 = 127;

/// Sizes of a tensor with channels last, and of what it becomes.
fn sizes(b: &Builder<'_>, x: ValueIndex, out: ValueIndex) -> Result<([i32; 4], [i32; 4]), Refusal> {
    let four = |dims: Vec<i32>| <[i32; 4]>::try_from(dims).ok();
    match (four(b.dims(x)?), four(b.dims(out)?)) {
        (Some(from), Some(to)) if b.image().normal_form() == 1 => Ok((from, to)),
        _ => Err(Refusal::shape("an image of another number of dimensions than two")),
    }
}

/// The step from one result to the next, in elements of the input: that of the sizes, or one that was given beside them.
fn step(from: i32, to: i32, given: Option<f64>) -> f64 {
    match given {
        Some(scale) if scale > 0.0 => 1.0 / scale,
        _ => f64::from(from) / f64::from(to),
    }
}

/// The factors that were given beside the sizes, of height and width.
fn factors(node: &Arguments<'_>, vec: bool, at: usize) -> Result<[Option<f64>; 2], Refusal> {
    if vec {
        let list = node.optional_floats(at)?.unwrap_or_default();
        return Ok([list.first().copied(), list.get(1).copied()]);
    }
    let one = |at: usize| -> Result<Option<f64>, Refusal> { Ok(node.optional_scalar(at)?.map(|s| s.float())) };
    Ok([one(at)?, one(at + 1)?])
}

fn nearest(node: &Arguments<'_>, b: &mut Builder<'_>, vec: bool) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    same_scale(b, x, out)?;
    let (from, to) = sizes(b, x, out)?;
    let given = factors(node, vec, 2)?;
    let mut tensor = b.read(x)?;
    for axis in [1, 2] {
        // PyTorch multiplies in f32.
        let step = match given[axis - 1] {
            Some(scale) if scale > 0.0 => (1.0 / scale) as f32,
            _ => from[axis] as f32 / to[axis] as f32,
        };
        let index = |i: i32| ((i as f32 * step) as i32).min(from[axis] - 1);
        let indices: Vec<i32> = (0..to[axis]).map(index).collect();
        tensor = picked(b, tensor, axis, &indices)?;
    }
    b.finish_plain(out, tensor)
}

/// Whole numbers by which inputs (second) count in outputs (first), and their sum, which is the same for each output.
fn weights(from: i32, to: i32, align: bool, given: Option<f64>) -> Result<(Vec<i8>, i64), Refusal> {
    let refuse = || Refusal::attribute(format!("weights of neighbours finer than one in {DENOMINATOR}"));
    // Where output `i` lies among the inputs: `(i * up + shift) / down`.
    let (from_wide, to_wide) = (i64::from(from), i64::from(to));
    let (up, shift, down) = match align {
        true => (from_wide - 1, 0, (to_wide - 1).max(1)),
        false => {
            let exact = f64::from(from) / f64::from(to);
            if (step(from, to, given) - exact).abs() > 1e-6 * exact {
                return Err(Refusal::attribute("a factor that is not that of the sizes"));
            }
            (2 * from_wide, from_wide - to_wide, 2 * to_wide)
        }
    };
    let common = gcd(gcd(up, shift.abs()), down);
    let (up, shift, down) = (up / common, shift / common, down / common);
    if down > DENOMINATOR {
        return Err(refuse());
    }
    let mut all = vec![0i8; (from_wide * to_wide) as usize];
    for i in 0..to_wide {
        let place = (i * up + shift).clamp(0, (from_wide - 1) * down);
        let (low, part) = (place / down, place % down);
        let row = (i * from_wide) as usize;
        all[row + low as usize] += (down - part) as i8;
        if part > 0 {
            all[row + low as usize + 1] += part as i8;
        }
    }
    Ok((all, down))
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A layer over the last dimension without bias.
fn mixed(b: &mut Builder<'_>, tensor: usize, zero: i64, [to, from]: [i32; 2], weights: Vec<i8>, sums: DType) -> usize {
    let dtype = b.type_of(tensor);
    let mut shape = b.shape_of(tensor);
    shape[3] = to;
    let data = weights.into_iter().map(|w| w as u8).collect();
    let inputs = [
        tensor,
        b.constant(DType::Int8, &[to, 1, 1, from], data),
        b.integers(sums, &vec![0; to as usize]),
        b.integers(dtype, &[zero]),
        b.integers(DType::Int8, &[0]),
    ];
    let attribute = Attribute::Conv {
        pad: [0; 4],
        stride: [1; 2],
        dilation: [1; 2],
        accumulator: sums,
    };
    b.op(Op::Conv2d, attribute, &inputs, sums, &shape)
}

fn bilinear(node: &Arguments<'_>, b: &mut Builder<'_>, vec: bool) -> Result<(), Refusal> {
    let (x, out) = (node.value(0)?, node.output(0)?);
    let ([_, h, w, _], [_, rows, columns, _]) = sizes(b, x, out)?;
    let (align, given) = (node.bool(2)?, factors(node, vec, 3)?);
    if (b.dtype(x)?, b.dtype(out)?) != (DType::Int8, DType::Int8) {
        return Err(Refusal::dtype("neighbours of 16 bits"));
    }
    let (from, to) = (b.scale(x)?, b.scale(out)?);
    let (down_weights, down) = weights(h, rows, align, given[0])?;
    let (across_weights, across) = weights(w, columns, align, given[1])?;
    let tensor = b.read(x)?;
    // Sums over columns are whole numbers of 16 bits: 255 * 127 at most.
    let tensor = b.transposed(tensor, &[0, 1, 3, 2]);
    let sums = mixed(b, tensor, from.zero_point, [columns, w], across_weights, DType::Int32);
    let tensor = b.rescale(sums, &[1.0], 0, DType::Int16, 0)?;
    let tensor = b.transposed(tensor, &[0, 2, 3, 1]);
    let sums = mixed(b, tensor, 0, [rows, h], down_weights, DType::Int48);
    let factor = from.scale / (down * across) as f64 / to.scale;
    let tensor = b.rescale(sums, &[factor], 0, DType::Int8, to.zero_point)?;
    // From channels, columns, rows.
    let tensor = b.transposed(tensor, &[0, 3, 2, 1]);
    b.finish_plain(out, tensor)
}

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::upsample_nearest2d",
        lower: |n, b| nearest(n, b, false),
    },
    Operator {
        name: "aten::upsample_nearest2d.vec",
        lower: |n, b| nearest(n, b, true),
    },
    Operator {
        name: "aten::upsample_bilinear2d",
        lower: |n, b| bilinear(n, b, false),
    },
    Operator {
        name: "aten::upsample_bilinear2d.vec",
        lower: |n, b| bilinear(n, b, true),
    },
];

#[cfg(test)]
mod tests {
    use super::weights;

    #[test]
    fn weights_are_those_of_pytorch() {
        // torch.nn.functional.interpolate(eye(3)[:, None], size=6 or 5, mode="linear", align_corners=...).T times the denominator
        let (all, down) = weights(3, 6, false, None).unwrap();
        assert_eq!(down, 4);
        assert_eq!(all, [4, 0, 0, 3, 1, 0, 1, 3, 0, 0, 3, 1, 0, 1, 3, 0, 0, 4]);
        let (all, down) = weights(3, 5, true, None).unwrap();
        assert_eq!((all, down), (vec![2, 0, 0, 1, 1, 0, 0, 2, 0, 0, 1, 1, 0, 0, 2], 2));
        assert!(weights(100, 201, false, None).is_err());
        assert!(weights(4, 8, false, Some(2.1)).is_err());
        assert!(weights(4, 8, false, Some(2.0)).is_ok());
        assert_eq!(weights(1, 3, true, None).unwrap(), (vec![1, 1, 1], 1));
    }
}
