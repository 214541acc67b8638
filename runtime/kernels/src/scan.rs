//! Running sums, products and extremes along one dimension.

use crate::columns::{Columns, Layout};
use crate::elementwise::check_category;
use crate::lanes::{LANES, Lane, Writer};
use crate::math::{Num, Real};
use crate::registry::Kernel;
use crate::rows::{DimSet, Rows, Starts, with_accumulator};
use crate::stage::dim_of;
use crate::wide::Wide;
use crate::{Call, KernelError, Out};
use delegraph_types::DType;

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::cummax.out", |call| extreme(call, true)),
    ("aten::cummin.out", |call| extreme(call, false)),
    ("aten::cumprod.out", |call| total(call, true)),
    ("aten::cumsum.out", |call| total(call, false)),
    ("aten::logcumsumexp.out", log_sum),
];

/// An output written row by row.
struct OutRows<R> {
    starts: Starts,
    writer: Writer<R>,
}

impl<R: Lane> OutRows<R> {
    fn new(out: &Out, set: DimSet) -> OutRows<R> {
        let (sizes, strides) = (*out.sizes(), out.strides());
        OutRows {
            starts: Starts::new(&sizes, &strides, set),
            writer: Writer::new(&set.inside(&sizes), &set.inside(&strides)),
        }
    }

    fn advance(&mut self) {
        self.writer.seek(self.starts.next().unwrap_or(0));
    }
}

/// `step` gives each element of the output from the one of the input; `restart` is called before each row.
fn scan<W: Wide + Lane>(call: &mut Call, set: DimSet, state: W, step: impl Fn(W, W) -> W) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let out = call.out(0)?;
    out.resize(input.sizes())?;
    let (sizes, strides) = (*out.sizes(), out.strides());
    if let Some(columns) = Columns::<W>::of(input, set)
        && let Some(targets) = Layout::of(&sizes, &strides, set)
        && columns.width() == targets.width()
    {
        let mut writer = Writer::<W>::new(&[columns.width() as i64], &[1]);
        let mut have = [state; LANES];
        return columns.groups_with(targets, LANES, |reader, (start, steps), (to, to_steps), count| {
            let have = &mut have[..count];
            have.fill(state);
            for (offset, to_offset) in steps.zip(to_steps) {
                reader.seek(start + offset);
                for (have, &x) in have.iter_mut().zip(reader.read(count)?) {
                    *have = step(*have, x);
                }
                writer.seek(to + to_offset);
                writer.write(out, count, |slots| slots.copy_from_slice(have))?;
            }
            Ok(())
        });
    }
    let mut rows = Rows::<W>::new(input, set);
    let mut written = OutRows::<W>::new(out, set);
    while rows.advance() {
        written.advance();
        let mut have = state;
        let mut result = Ok(());
        rows.each(|piece| {
            if result.is_ok() {
                result = written.writer.write(out, piece.len(), |slots| {
                    for (slot, &x) in slots.iter_mut().zip(piece) {
                        have = step(have, x);
                        *slot = have;
                    }
                });
            }
        })?;
        result?;
    }
    Ok(())
}

fn total(call: &mut Call, product: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let set = DimSet::one(dim_of(input.sizes(), call.int(1)?, "dim")?);
    let natural = if input.dtype().is_float() {
        input.dtype()
    } else {
        DType::I64
    };
    let dtype = call.optional_dtype(2)?.unwrap_or(natural);
    check_category(call.out(0)?, 0, dtype)?;
    with_accumulator!(dtype, "dtype", W => match product {
        true => scan::<W>(call, set, W::ONE, W::times),
        false => scan::<W>(call, set, W::ZERO, W::plus),
    })
}

fn log_sum(call: &mut Call) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let set = DimSet::one(dim_of(input.sizes(), call.int(1)?, "dim")?);
    check_category(call.out(0)?, 0, input.dtype())?;
    scan::<f64>(call, set, f64::NEG_INFINITY, |have, x| {
        let (low, high) = (have.smaller(x), have.larger(x));
        if low == high && Real::is_infinite(low) {
            return low;
        }
        high + Real::log1p(Real::exp(low - high))
    })
}

/// The last of equal extremes; NaN from its first place on.
fn extreme(call: &mut Call, largest: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let set = DimSet::one(dim_of(input.sizes(), call.int(1)?, "dim")?);
    check_category(call.out(0)?, 0, input.dtype())?;
    for index in 0..2 {
        call.out(index)?.resize(input.sizes())?;
    }
    with_accumulator!(input.dtype(), "self", W => {
        let mut rows = Rows::<W>::new(input, set);
        let mut values = OutRows::<W>::new(call.out(0)?, set);
        let mut places = OutRows::<i64>::new(call.out(1)?, set);
        while rows.advance() {
            values.advance();
            places.advance();
            let (mut best, mut at, mut next) = (None::<W>, 0i64, 0i64);
            let mut result = Ok(());
            rows.each(|piece| {
                for &x in piece {
                    let better = match best {
                        None => true,
                        Some(have) => Wide::is_nan(x) || !Wide::is_nan(have) && (if largest { x >= have } else { x <= have }),
                    };
                    if better {
                        (best, at) = (Some(x), next);
                    }
                    next += 1;
                    if result.is_ok() {
                        result = push_both(call, &mut values, &mut places, best.unwrap_or(x), at);
                    }
                }
            })?;
            result?;
        }
        Ok(())
    })
}

fn push_both<W: Lane>(
    call: &mut Call,
    values: &mut OutRows<W>,
    places: &mut OutRows<i64>,
    value: W,
    place: i64,
) -> Result<(), KernelError> {
    values.writer.push(call.out(0)?, value)?;
    places.writer.push(call.out(1)?, place)
}
