//! Reductions over dimensions.

use crate::call::Call;
use crate::caps::{Operator, Refusal, anything, floats, no_bool, op, to_float};
use crate::math::{max, min};
use crate::tensor::{Data, Tensor, count, room};
use crate::walk::{Offsets, dim, dims, strides};
use delegraph_sdk::Error;
use delegraph_sdk::image::NodeView;

type Made = Result<Vec<Tensor>, Error>;

/// A tensor as lines: one for each element of the result.
pub struct Lines {
    /// Sizes of the result.
    pub sizes: Vec<usize>,
    /// Number of elements of a line.
    pub len: usize,
    /// Position of the first element of each line.
    starts: Offsets,
    /// Positions within a line.
    steps: Vec<isize>,
}

impl Lines {
    /// The lines of a tensor along dimensions.
    pub fn new(x: &Tensor, along: &[usize], keep: bool) -> Result<Lines, Error> {
        let all = strides(x.sizes());
        let (mut sizes, mut outer, mut outer_steps) = (Vec::new(), Vec::new(), Vec::new());
        let (mut inner, mut inner_steps) = (Vec::new(), Vec::new());
        for (d, (size, stride)) in x.sizes().iter().zip(all).enumerate() {
            if along.contains(&d) {
                inner.push(*size);
                inner_steps.push(stride);
                if keep {
                    sizes.push(1);
                }
            } else {
                outer.push(*size);
                outer_steps.push(stride);
                sizes.push(*size);
            }
        }
        Ok(Lines {
            sizes,
            len: count(&inner)?,
            starts: Offsets::new(&outer, &outer_steps, 0)?,
            steps: Offsets::new(&inner, &inner_steps, 0)?.collect(),
        })
    }

    /// A result for each line.
    pub fn each<T: Copy, R>(&self, values: &[T], f: impl Fn(&[T]) -> R) -> Result<Vec<R>, Error> {
        let mut made = room(count(&self.sizes)?)?;
        let mut line = room(self.len)?;
        for start in self.starts.clone() {
            line.clear();
            line.extend(
                self.steps
                    .iter()
                    .filter_map(|step| values.get((start + step) as usize).copied()),
            );
            made.push(f(&line));
        }
        Ok(made)
    }
}

/// The dimensions of an argument: a list (none given: all), one, or `None`: all.
fn along(call: &Call<'_>, i: usize, x: &Tensor) -> Result<Vec<usize>, Error> {
    dims(&call.ints(i)?, x.rank())
}

/// A reduction in the class of the output's dtype.
fn fold(
    call: &Call<'_>,
    along: &[usize],
    keep: bool,
    float: impl Fn(&[f64]) -> f64,
    int: impl Fn(&[i64]) -> i64,
) -> Made {
    let x = call.tensor(0)?;
    let lines = Lines::new(x, along, keep)?;
    let data = if call.out_dtype(0)?.is_float() {
        Data::Float(lines.each(&x.to_floats(), float)?)
    } else {
        Data::Int(lines.each(&x.to_ints(), int)?)
    };
    call.one(lines.sizes, data)
}

fn all_dims(call: &Call<'_>) -> Result<Vec<usize>, Error> {
    Ok((0..call.tensor(0)?.rank()).collect())
}

fn sum(call: &Call<'_>, along: &[usize], keep: bool) -> Made {
    let int = |line: &[i64]| line.iter().fold(0i64, |a, b| a.wrapping_add(*b));
    fold(call, along, keep, |line| line.iter().sum(), int)
}

fn mean(call: &Call<'_>, along: &[usize], keep: bool) -> Made {
    fold(
        call,
        along,
        keep,
        |line| line.iter().sum::<f64>() / line.len() as f64,
        |_| 0,
    )
}

fn prod(call: &Call<'_>, along: &[usize], keep: bool) -> Made {
    let int = |line: &[i64]| line.iter().fold(1i64, |a, b| a.wrapping_mul(*b));
    fold(call, along, keep, |line| line.iter().product(), int)
}

fn extreme(call: &Call<'_>, along: &[usize], keep: bool, float: fn(f64, f64) -> f64, int: fn(i64, i64) -> i64) -> Made {
    let lines = Lines::new(call.tensor(0)?, along, keep)?;
    if lines.len == 0 && count(&lines.sizes)? > 0 {
        return Err(Error::invalid("nothing has no largest or smallest element"));
    }
    let floats = |line: &[f64]| line.iter().copied().reduce(float).unwrap_or(0.0);
    fold(call, along, keep, floats, |line| {
        line.iter().copied().reduce(int).unwrap_or(0)
    })
}

/// Whether any, or every, element of a line is not 0.
fn truth(call: &Call<'_>, along: &[usize], keep: bool, all: bool) -> Made {
    let x = call.tensor(0)?;
    let lines = Lines::new(x, along, keep)?;
    let holds = |line: &[bool]| {
        i64::from(if all {
            line.iter().all(|b| *b)
        } else {
            line.iter().any(|b| *b)
        })
    };
    let made = lines.each(&x.to_bools(), holds)?;
    call.one(lines.sizes, Data::Int(made))
}

/// Position of the first extreme element; NaN is both largest and smallest.
pub fn arg_extreme<T: Copy + PartialOrd>(line: &[T], largest: bool) -> usize {
    let is_nan = |x: T| x.partial_cmp(&x).is_none();
    let mut best = 0;
    for (i, x) in line.iter().enumerate() {
        let top = line[best];
        let better = if largest { *x > top } else { *x < top };
        if (better || is_nan(*x)) && !is_nan(top) {
            best = i;
        }
    }
    best
}

fn position(call: &Call<'_>, largest: bool) -> Made {
    let x = call.tensor(0)?;
    let along = if call.is_none(1) {
        all_dims(call)?
    } else {
        along(call, 1, x)?
    };
    let lines = Lines::new(x, &along, call.bool(2)?)?;
    if lines.len == 0 && count(&lines.sizes)? > 0 {
        return Err(Error::invalid("nothing has no largest or smallest element"));
    }
    let made = match x.data() {
        Data::Float(values) => lines.each(values, |line| arg_extreme(line, largest) as i64)?,
        Data::Int(values) => lines.each(values, |line| arg_extreme(line, largest) as i64)?,
    };
    // Without a dimension the result keeps the rank if asked to.
    call.one(lines.sizes, Data::Int(made))
}

/// Extreme elements along a dimension, and where they are.
fn with_position(call: &Call<'_>, largest: bool) -> Made {
    let x = call.tensor(0)?;
    let along = dims(&[call.int(1)?], x.rank())?;
    let lines = Lines::new(x, &along, call.bool(2)?)?;
    if lines.len == 0 && count(&lines.sizes)? > 0 {
        return Err(Error::invalid("nothing has no largest or smallest element"));
    }
    let (values, positions) = match x.data() {
        Data::Float(values) => {
            let found = lines.each(values, |line| {
                (line[arg_extreme(line, largest)], arg_extreme(line, largest) as i64)
            })?;
            let (values, positions) = found.into_iter().unzip();
            (Data::Float(values), positions)
        }
        Data::Int(values) => {
            let found = lines.each(values, |line| {
                (line[arg_extreme(line, largest)], arg_extreme(line, largest) as i64)
            })?;
            let (values, positions) = found.into_iter().unzip();
            (Data::Int(values), positions)
        }
    };
    Ok(vec![
        call.make(0, lines.sizes.clone(), values)?,
        call.make(1, lines.sizes, Data::Int(positions))?,
    ])
}

fn variance(line: &[f64], correction: f64) -> f64 {
    let mean = line.iter().sum::<f64>() / line.len() as f64;
    let squares: f64 = line.iter().map(|x| (x - mean) * (x - mean)).sum();
    squares / (line.len() as f64 - correction).max(0.0)
}

/// Variance, or its root; `correction` is taken from the count, 1 if not given.
fn spread(call: &Call<'_>, correction: f64, keep: bool, root: bool) -> Made {
    let x = call.tensor(0)?;
    let of = |line: &[f64]| {
        let variance = variance(line, correction);
        if root { variance.sqrt() } else { variance }
    };
    fold(call, &along(call, 1, x)?, keep, of, |_| 0)
}

fn correction(call: &Call<'_>) -> Result<f64, Error> {
    Ok(call.optional_scalar(2)?.map_or(1.0, |c| c.float()))
}

fn var_mean(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let mut made = spread(call, correction(call)?, call.bool(3)?, false)?;
    let lines = Lines::new(x, &along(call, 1, x)?, call.bool(3)?)?;
    let means = lines.each(x.floats()?, |line| line.iter().sum::<f64>() / line.len() as f64)?;
    made.push(call.make(1, lines.sizes, Data::Float(means))?);
    Ok(made)
}

fn norm_of(line: &[f64], order: f64) -> f64 {
    let sizes = line.iter().map(|x| x.abs());
    match order {
        0.0 => sizes.filter(|x| *x != 0.0).count() as f64,
        1.0 => sizes.sum(),
        2.0 => sizes.map(|x| x * x).sum::<f64>().sqrt(),
        f64::INFINITY => sizes.fold(0.0, max),
        f64::NEG_INFINITY => sizes.fold(f64::INFINITY, min),
        p => sizes.map(|x| x.powf(p)).sum::<f64>().powf(1.0 / p),
    }
}

fn vector_norm(call: &Call<'_>, order: f64, keep: bool) -> Made {
    let x = call.tensor(0)?;
    fold(call, &along(call, 2, x)?, keep, |line| norm_of(line, order), |_| 0)
}

fn check_vector_norm(node: &NodeView<'_>) -> Result<(), Refusal> {
    floats(node)?;
    match node.arg(4).is_none() {
        true => Ok(()),
        false => Err(Refusal::attribute("a norm in another dtype than its input")),
    }
}

fn log_sum_exp(line: &[f64]) -> f64 {
    let top = line.iter().copied().fold(f64::NEG_INFINITY, max);
    // The difference of equal infinities is NaN.
    let base = if top.is_infinite() { 0.0 } else { top };
    base + line.iter().map(|x| (x - base).exp()).sum::<f64>().ln()
}

fn count_nonzero(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let lines = Lines::new(x, &along(call, 1, x)?, false)?;
    let made = lines.each(&x.to_bools(), |line| line.iter().filter(|b| **b).count() as i64)?;
    call.one(lines.sizes, Data::Int(made))
}

fn aminmax(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let along = if call.is_none(1) {
        all_dims(call)?
    } else {
        vec![dim(call.int(1)?, x.rank())?]
    };
    let along = if x.rank() == 0 { Vec::new() } else { along };
    let low = extreme(call, &along, call.bool(2)?, min, |a, b| a.min(b))?;
    let high = extreme(call, &along, call.bool(2)?, max, |a, b| a.max(b))?;
    Ok([low, high].concat())
}

/// The sum of the elements whose two indices are equal.
fn trace(call: &Call<'_>) -> Made {
    let x = call.tensor(0)?;
    let [rows, columns] = x.sizes() else {
        return Err(Error::invalid("a trace needs a matrix"));
    };
    let at = (0..*rows.min(columns)).map(|i| i * columns + i);
    let data = match x.data() {
        Data::Float(v) => Data::Float(vec![at.map(|i| v[i]).sum()]),
        Data::Int(v) => Data::Int(vec![at.fold(0i64, |sum, i| sum.wrapping_add(v[i]))]),
    };
    call.one(Vec::new(), data)
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::sum", "Tensor dtype?", anything, |c| sum(c, &all_dims(c)?, false)),
    op("aten::sum.dim_IntList", "Tensor int[]? bool dtype?", anything, |c| {
        sum(c, &along(c, 1, c.tensor(0)?)?, c.bool(2)?)
    }),
    op("aten::mean", "Tensor dtype?", to_float, |c| {
        mean(c, &all_dims(c)?, false)
    }),
    op("aten::mean.dim", "Tensor int[]? bool dtype?", to_float, |c| {
        mean(c, &along(c, 1, c.tensor(0)?)?, c.bool(2)?)
    }),
    op("aten::prod", "Tensor dtype?", anything, |c| {
        prod(c, &all_dims(c)?, false)
    }),
    op("aten::prod.dim_int", "Tensor int bool dtype?", anything, |c| {
        prod(c, &along(c, 1, c.tensor(0)?)?, c.bool(2)?)
    }),
    op("aten::amax", "Tensor int[] bool", anything, |c| {
        extreme(c, &along(c, 1, c.tensor(0)?)?, c.bool(2)?, max, |a, b| a.max(b))
    }),
    op("aten::amin", "Tensor int[] bool", anything, |c| {
        extreme(c, &along(c, 1, c.tensor(0)?)?, c.bool(2)?, min, |a, b| a.min(b))
    }),
    op("aten::max", "Tensor", anything, |c| {
        extreme(c, &all_dims(c)?, false, max, |a, b| a.max(b))
    }),
    op("aten::min", "Tensor", anything, |c| {
        extreme(c, &all_dims(c)?, false, min, |a, b| a.min(b))
    }),
    op("aten::aminmax", "Tensor int? bool", anything, aminmax),
    op("aten::max.dim", "Tensor int bool", anything, |c| with_position(c, true)),
    op("aten::min.dim", "Tensor int bool", anything, |c| {
        with_position(c, false)
    }),
    op("aten::argmax", "Tensor int? bool", anything, |c| position(c, true)),
    op("aten::argmin", "Tensor int? bool", anything, |c| position(c, false)),
    op("aten::any", "Tensor", anything, |c| {
        truth(c, &all_dims(c)?, false, false)
    }),
    op("aten::any.dim", "Tensor int bool", anything, |c| {
        truth(c, &along(c, 1, c.tensor(0)?)?, c.bool(2)?, false)
    }),
    op("aten::any.dims", "Tensor int[]? bool", anything, |c| {
        truth(c, &some(c)?, c.bool(2)?, false)
    }),
    op("aten::all", "Tensor", anything, |c| {
        truth(c, &all_dims(c)?, false, true)
    }),
    op("aten::all.dim", "Tensor int bool", anything, |c| {
        truth(c, &along(c, 1, c.tensor(0)?)?, c.bool(2)?, true)
    }),
    op("aten::all.dims", "Tensor int[]? bool", anything, |c| {
        truth(c, &some(c)?, c.bool(2)?, true)
    }),
    op("aten::var.correction", "Tensor int[]? Scalar? bool", floats, |c| {
        spread(c, correction(c)?, c.bool(3)?, false)
    }),
    op("aten::std.correction", "Tensor int[]? Scalar? bool", floats, |c| {
        spread(c, correction(c)?, c.bool(3)?, true)
    }),
    op("aten::var.dim", "Tensor int[]? bool bool", floats, |c| {
        spread(c, f64::from(u8::from(c.bool(2)?)), c.bool(3)?, false)
    }),
    op(
        "aten::var_mean.correction",
        "Tensor int[]? Scalar? bool",
        floats,
        var_mean,
    ),
    op(
        "aten::linalg_vector_norm",
        "Tensor Scalar int[]? bool dtype?",
        check_vector_norm,
        |c| vector_norm(c, c.float(1)?, c.bool(3)?),
    ),
    op("aten::norm.ScalarOpt_dim", "Tensor Scalar? int[] bool", floats, |c| {
        vector_norm(c, c.optional_scalar(1)?.map_or(2.0, |p| p.float()), c.bool(3)?)
    }),
    op("aten::logsumexp", "Tensor int[] bool", to_float, |c| {
        fold(c, &along(c, 1, c.tensor(0)?)?, c.bool(2)?, log_sum_exp, |_| 0)
    }),
    op("aten::count_nonzero", "Tensor int?", anything, count_nonzero),
    op("aten::trace", "Tensor", no_bool, trace),
];

/// Dimensions where an empty list means none, and `None` all.
fn some(call: &Call<'_>) -> Result<Vec<usize>, Error> {
    match (call.is_none(1), call.ints(1)?.is_empty()) {
        (false, true) => Ok(Vec::new()),
        _ => along(call, 1, call.tensor(0)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bools, f32s, gives, i64s};
    use delegraph_sdk::image::Arg;

    #[test]
    fn lines_of_a_matrix() {
        let x = f32s(&[2, 3], &[1.0, 2.0, 3.0, 6.0, 5.0, 4.0]);
        let mean = |keep| [(&x).into(), [0][..].into(), Arg::Bool(keep).into(), Arg::None.into()];
        gives("aten::mean.dim", &mean(false), &[f32s(&[3], &[3.5, 3.5, 3.5])]);
        gives("aten::mean.dim", &mean(true), &[f32s(&[1, 3], &[3.5, 3.5, 3.5])]);
        let one = [(&x).into(), Arg::Int(1).into(), Arg::Bool(false).into()];
        gives("aten::max.dim", &one, &[f32s(&[2], &[3.0, 6.0]), i64s(&[2], &[2, 0])]);
        gives("aten::argmin", &one, &[i64s(&[2], &[0, 2])]);
        let variance = [(&x).into(), [1][..].into(), Arg::None.into(), Arg::Bool(false).into()];
        gives("aten::var.correction", &variance, &[f32s(&[2], &[1.0, 1.0])]);
        let x = bools(&[2], &[0, 1]);
        gives("aten::all", &[(&x).into()], &[bools(&[], &[0])]);
    }

    #[test]
    fn nan_is_extreme() {
        assert_eq!(arg_extreme(&[1.0, f64::NAN, 3.0, f64::NAN], true), 1);
        assert_eq!(arg_extreme(&[2, 7, 7], true), 1);
    }
}
