//! Softmax and its relatives.

use crate::call::Call;
use crate::caps::{Operator, floats, op, to_float};
use crate::math::max;
use crate::tensor::{Data, Tensor};
use crate::walk::{dim, split_at};
use delegraph_sdk::Error;

/// Replaces each line along a dimension by a function of it.
fn lines(call: &Call<'_>, f: fn(&mut [f64])) -> Result<Vec<Tensor>, Error> {
    let x = call.tensor(0)?;
    let (before, along, after) = split_at(x.sizes(), dim(call.int(1)?, x.rank())?);
    let mut values = x.to_floats();
    let mut line = vec![0.0; if values.is_empty() { 0 } else { along }];
    if !values.is_empty() {
        for (i, k) in (0..before).flat_map(|i| (0..after).map(move |k| (i, k))) {
            let at = |j: usize| (i * along + j) * after + k;
            line.iter_mut().enumerate().for_each(|(j, slot)| *slot = values[at(j)]);
            f(&mut line);
            line.iter().enumerate().for_each(|(j, value)| values[at(j)] = *value);
        }
    }
    call.one(x.sizes().to_vec(), Data::Float(values))
}

/// `e^x`, divided by the sum. The largest is subtracted first: nothing overflows.
pub fn softmax(line: &mut [f64]) {
    let top = line.iter().copied().fold(f64::NEG_INFINITY, max);
    line.iter_mut().for_each(|x| *x = (*x - top).exp());
    let sum: f64 = line.iter().sum();
    line.iter_mut().for_each(|x| *x /= sum);
}

fn log_softmax(line: &mut [f64]) {
    let top = line.iter().copied().fold(f64::NEG_INFINITY, max);
    let sum: f64 = line.iter().map(|x| (x - top).exp()).sum();
    line.iter_mut().for_each(|x| *x = *x - top - sum.ln());
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::softmax.int", "Tensor int dtype?", to_float, |c| {
        lines(c, softmax)
    }),
    op("aten::_softmax", "Tensor int bool", floats, |c| lines(c, softmax)),
    op("aten::log_softmax.int", "Tensor int dtype?", to_float, |c| {
        lines(c, log_softmax)
    }),
    op("aten::_log_softmax", "Tensor int bool", floats, |c| {
        lines(c, log_softmax)
    }),
];

#[cfg(test)]
mod tests {
    use crate::testing::{f32s, gives};
    use delegraph_sdk::image::Arg;

    #[test]
    fn shares_of_a_line() {
        let x = f32s(&[2, 2], &[0.0, 1000.0, 0.0, 1000.0]);
        let items = |dim| [(&x).into(), Arg::Int(dim).into(), Arg::None.into()];
        gives("aten::softmax.int", &items(-1), &[f32s(&[2, 2], &[0.0, 1.0, 0.0, 1.0])]);
        gives("aten::softmax.int", &items(0), &[f32s(&[2, 2], &[0.5; 4])]);
        let half = -std::f32::consts::LN_2;
        gives("aten::log_softmax.int", &items(0), &[f32s(&[2, 2], &[half; 4])]);
    }
}
