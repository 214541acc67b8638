//! Softmax and its logarithm along one dimension.

use crate::elementwise::{check_category, with_real};
use crate::lanes::Writer;
use crate::math::{Num, Real};
use crate::registry::Kernel;
use crate::rows::{DimSet, Rows, Starts, pieces};
use crate::stage::{dim_of, parts};
use crate::wide::Wide;
use crate::{Call, KernelError};
use delegraph_types::DType;

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::_log_softmax.out", |call| half_to_float(call, true)),
    ("aten::_softmax.out", |call| half_to_float(call, false)),
    ("aten::log_softmax.int_out", |call| to_dtype(call, true)),
    ("aten::softmax.int_out", |call| to_dtype(call, false)),
];

fn half_to_float(call: &mut Call, logarithm: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?.dtype();
    let dtype = if call.bool(2)? { DType::F32 } else { input };
    softmax(call, dtype, logarithm)
}

fn to_dtype(call: &mut Call, logarithm: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?.dtype();
    let natural = if input.is_float() { input } else { DType::F32 };
    let dtype = call.optional_dtype(2)?.unwrap_or(natural);
    softmax(call, dtype, logarithm)
}

fn softmax(call: &mut Call, dtype: DType, logarithm: bool) -> Result<(), KernelError> {
    let input = call.tensor(0)?;
    let dim = dim_of(input.sizes(), call.int(1)?, "dim")?;
    let set = DimSet::one(dim);
    let (out, scratch) = parts(call, 0)?;
    check_category(out, 0, dtype)?;
    out.resize(input.sizes())?;
    with_real!(dtype, "self", W => {
        let mut rows = Rows::<W>::new(input, set);
        let len = rows.len();
        let row = scratch.elements::<W>(len)?;
        let (sizes, strides) = (*out.sizes(), out.strides());
        let mut starts = Starts::new(&sizes, &strides, set);
        let mut writer = Writer::<W>::new(&set.inside(&sizes), &set.inside(&strides));
        while rows.advance() {
            rows.copy_to(row)?;
            let largest = row.iter().fold(W::NEG_INFINITY, |have, &x| have.larger(x));
            writer.seek(starts.next().unwrap_or(0));
            let mut sum = 0f64;
            if logarithm {
                for x in row.iter() {
                    sum += Real::exp(*x - largest).to_f64();
                }
                let shift = Real::ln(sum) as W;
                pieces(len, |from, count| writer.write(out, count, |slots| {
                    for (slot, &x) in slots.iter_mut().zip(&row[from..]) {
                        *slot = x - largest - shift;
                    }
                }))?;
            } else {
                for x in row.iter_mut() {
                    *x = Real::exp(*x - largest);
                    sum += x.to_f64();
                }
                let scale = (1.0 / sum) as W;
                pieces(len, |from, count| writer.write(out, count, |slots| {
                    for (slot, &x) in slots.iter_mut().zip(&row[from..]) {
                        *slot = x * scale;
                    }
                }))?;
            }
        }
        Ok(())
    })
}
