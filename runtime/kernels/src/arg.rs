//! Extremes with their places: the first one, and the first NaN before all others, as PyTorch on the CPU.

use crate::elementwise::check_category;
use crate::lanes::Writer;
use crate::math::Num;
use crate::reduce::{Dims, dims_at};
use crate::registry::Kernel;
use crate::rows::{Rows, shape_reduced, with_accumulator};
use crate::{Call, KernelError};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::argmax.out", |call| places(call, true)),
    ("aten::argmin.out", |call| places(call, false)),
    ("aten::max.dim_max", |call| both(call, true)),
    ("aten::min.dim_min", |call| both(call, false)),
];

/// The extreme of the present row and its place.
fn find<W: Num>(rows: &mut Rows<W>, largest: bool) -> Result<(W, i64), KernelError> {
    let mut best: Option<(W, i64)> = None;
    let mut at = 0i64;
    rows.each(|piece| {
        for &x in piece {
            let better = match best {
                None => true,
                Some((have, _)) if have.is_nan() => false,
                Some((have, _)) => x.is_nan() || if largest { x > have } else { x < have },
            };
            if better {
                best = Some((x, at));
            }
            at += 1;
        }
    })?;
    Ok(best.unwrap_or((W::ZERO, 0)))
}

fn places(call: &mut Call, largest: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, Dims::One, 1)?;
    check_row(set.inside(input.sizes()).contains(&0))?;
    let out = call.out(0)?;
    shape_reduced(out, &input, set, keepdim)?;
    with_accumulator!(input.dtype(), "self", W => {
        let mut rows = Rows::<W>::new(input, set);
        let mut writer = Writer::<i64>::whole(out);
        while rows.advance() {
            let (_, place) = find(&mut rows, largest)?;
            writer.push(out, place)?;
        }
        Ok(())
    })
}

fn both(call: &mut Call, largest: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let (set, keepdim) = dims_at(call, &input, Dims::One, 1)?;
    check_row(set.inside(input.sizes()).contains(&0))?;
    check_category(call.out(0)?, 0, input.dtype())?;
    for index in 0..2 {
        shape_reduced(call.out(index)?, &input, set, keepdim)?;
    }
    with_accumulator!(input.dtype(), "self", W => {
        let mut rows = Rows::<W>::new(input, set);
        let mut values = Writer::<W>::whole(call.out(0)?);
        let mut indices = Writer::<i64>::whole(call.out(1)?);
        while rows.advance() {
            let (value, place) = find(&mut rows, largest)?;
            values.push(call.out(0)?, value)?;
            indices.push(call.out(1)?, place)?;
        }
        Ok(())
    })
}

fn check_row(empty: bool) -> Result<(), KernelError> {
    match empty {
        true => Err(KernelError::invalid("self", "no extreme of a row of no elements")),
        false => Ok(()),
    }
}
