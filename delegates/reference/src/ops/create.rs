//! Tensors out of numbers and sizes. What they hold is known; random and uninitialized ones are refused, for their names
//! are not in the table.

use crate::call::Call;
use crate::caps::{Operator, Refusal, anything, op, output_dtype};
use crate::tensor::{Data, Tensor, count, filled, room};
use delegraph_sdk::arguments::Scalar;
use delegraph_sdk::image::NodeView;
use delegraph_sdk::{DType, Error};

type Made = Result<Vec<Tensor>, Error>;

/// Every element is a number; the image says how many.
fn full(call: &Call<'_>, value: Scalar) -> Made {
    let sizes = call.out_sizes(0)?;
    let items = count(&sizes)?;
    let data = match value {
        Scalar::Float(value) => Data::Float(filled(items, value)?),
        value => Data::Int(filled(items, value.int())?),
    };
    call.one(sizes, data)
}

/// `start`, `start + step`, …; the image says how many.
fn arange(call: &Call<'_>, start: Scalar, step: Scalar) -> Made {
    let sizes = call.out_sizes(0)?;
    let items = count(&sizes)?;
    let data = if call.out_dtype(0)?.is_float() {
        let mut made = room(items)?;
        made.extend((0..items).map(|i| start.float() + i as f64 * step.float()));
        Data::Float(made)
    } else {
        let mut made = room(items)?;
        let (start, step) = (start.int(), step.int());
        made.extend((0..items).map(|i| start.wrapping_add(step.wrapping_mul(i as i64))));
        Data::Int(made)
    };
    call.one(sizes, data)
}

/// Evenly spaced; counted from the nearer end, so that both ends are exact.
fn linspace(call: &Call<'_>) -> Made {
    let (start, end, steps) = (call.float(0)?, call.float(1)?, call.natural(2)?);
    let step = if steps > 1 {
        (end - start) / (steps - 1) as f64
    } else {
        0.0
    };
    let mut made = room(steps)?;
    made.extend((0..steps).map(|i| {
        if i < steps / 2 || steps == 1 {
            start + step * i as f64
        } else {
            end - step * (steps - 1 - i) as f64
        }
    }));
    call.one(vec![steps], Data::Float(made))
}

/// PyTorch computes 16-bit and integer steps in their own dtype, which shows.
fn check_linspace(node: &NodeView<'_>) -> Result<(), Refusal> {
    match output_dtype(node) {
        Some(DType::F32 | DType::F64) => Ok(()),
        _ => Err(Refusal::dtype("`aten::linspace` gives f32 and f64 only")),
    }
}

fn eye(call: &Call<'_>) -> Made {
    let sizes = call.out_sizes(0)?;
    let columns = sizes.last().copied().unwrap_or(0);
    let mut made = filled(count(&sizes)?, 0)?;
    made.iter_mut()
        .step_by(columns + 1)
        .take(columns)
        .for_each(|slot| *slot = 1);
    call.one(sizes, Data::Int(made))
}

const LIKE: &str = "Tensor any any any any any";

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::full", "int[] Scalar any any any any", anything, |c| {
        full(c, c.scalar(1)?)
    }),
    op("aten::full_like", "Tensor Scalar any any any any any", anything, |c| {
        full(c, c.scalar(1)?)
    }),
    op("aten::new_full", "Tensor int[] Scalar any any any any", anything, |c| {
        full(c, c.scalar(2)?)
    }),
    op("aten::zeros", "int[] any any any any", anything, |c| {
        full(c, Scalar::Int(0))
    }),
    op("aten::zeros_like", LIKE, anything, |c| full(c, Scalar::Int(0))),
    op("aten::new_zeros", "Tensor int[] any any any any", anything, |c| {
        full(c, Scalar::Int(0))
    }),
    op("aten::ones", "int[] any any any any", anything, |c| {
        full(c, Scalar::Int(1))
    }),
    op("aten::ones_like", LIKE, anything, |c| full(c, Scalar::Int(1))),
    op("aten::new_ones", "Tensor int[] any any any any", anything, |c| {
        full(c, Scalar::Int(1))
    }),
    op("aten::scalar_tensor", "Scalar any any any any", anything, |c| {
        full(c, c.scalar(0)?)
    }),
    op("aten::arange", "Scalar any any any any", anything, |c| {
        arange(c, Scalar::Int(0), Scalar::Int(1))
    }),
    op("aten::arange.start", "Scalar Scalar any any any any", anything, |c| {
        arange(c, c.scalar(0)?, Scalar::Int(1))
    }),
    op(
        "aten::arange.start_step",
        "Scalar Scalar Scalar any any any any",
        anything,
        |c| arange(c, c.scalar(0)?, c.scalar(2)?),
    ),
    op(
        "aten::linspace",
        "Scalar Scalar int any any any any",
        check_linspace,
        linspace,
    ),
    op("aten::eye", "int any any any any", anything, eye),
];

#[cfg(test)]
mod tests {
    use crate::testing::{f32s, gives, i64s};
    use delegraph_sdk::image::Arg;

    #[test]
    fn out_of_nothing() {
        let none = || Arg::None.into();
        let full = [[2][..].into(), Arg::Float(1.5).into(), none(), none(), none(), none()];
        gives("aten::full", &full, &[f32s(&[2], &[1.5, 1.5])]);
        let steps = [
            Arg::Int(5),
            Arg::Int(0),
            Arg::Int(-2),
            Arg::None,
            Arg::None,
            Arg::None,
            Arg::None,
        ];
        gives(
            "aten::arange.start_step",
            &steps.map(Into::into),
            &[i64s(&[3], &[5, 3, 1])],
        );
        let eye = [Arg::Int(2).into(), none(), none(), none(), none()];
        gives("aten::eye", &eye, &[i64s(&[2, 2], &[1, 0, 0, 1])]);
    }
}
