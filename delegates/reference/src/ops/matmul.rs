//! Products of matrices.

use super::elementwise::{spread_floats, spread_ints};
use super::view::transposed;
use crate::call::Call;
use crate::caps::{Operator, floats, no_bool, op};
use crate::tensor::{Data, Tensor, count, filled};
use crate::walk::broadcast;
use delegraph_sdk::Error;

type Made = Result<Vec<Tensor>, Error>;

/// Numbers that a matrix is made of.
pub trait Ring: Copy {
    /// The sum of nothing.
    const ZERO: Self;
    /// The sum of the products of pairs.
    fn dot(a: &[Self], b: &[Self]) -> Self;
}

impl Ring for f64 {
    const ZERO: f64 = 0.0;

    /// Eight sums side by side: one sum would wait for itself at every step.
    fn dot(a: &[f64], b: &[f64]) -> f64 {
        let ((a_chunks, a_rest), (b_chunks, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
        let mut sums = [0.0; 8];
        for (x, y) in a_chunks.iter().zip(b_chunks) {
            for i in 0..8 {
                sums[i] += x[i] * y[i];
            }
        }
        let rest: f64 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
        sums.iter().sum::<f64>() + rest
    }
}

impl Ring for i64 {
    const ZERO: i64 = 0;

    fn dot(a: &[i64], b: &[i64]) -> i64 {
        let products = a.iter().zip(b).map(|(x, y)| x.wrapping_mul(*y));
        products.fold(0, i64::wrapping_add)
    }
}

/// `out[i][j] = a[i] · b[j]`, where rows have `k` elements: both operands are read along contiguous memory.
pub fn rows<T: Ring>(a: &[T], b: &[T], k: usize, out: &mut [T]) {
    if k == 0 {
        out.fill(T::ZERO);
        return;
    }
    // A row of `b` serves a few rows of `a` while it is in the cache.
    const TILE: usize = 8;
    let n = b.len() / k;
    for (a, out) in a.chunks(TILE * k).zip(out.chunks_mut((TILE * n).max(1))) {
        for (j, b) in b.chunks_exact(k).enumerate() {
            for (i, a) in a.chunks_exact(k).enumerate() {
                out[i * n + j] = T::dot(a, b);
            }
        }
    }
}

/// Batches of `rows`: `a` is `[batch, m, k]`, `b` is `[batch, n, k]`.
fn batches<T: Ring>(a: &[T], b: &[T], batch: usize, (m, n, k): (usize, usize, usize)) -> Result<Vec<T>, Error> {
    let mut out = filled(count(&[batch, m, n])?, T::ZERO)?;
    for (i, out) in out.chunks_mut((m * n).max(1)).enumerate() {
        let (a, b) = (&a[i * m * k..(i + 1) * m * k], &b[i * n * k..(i + 1) * n * k]);
        rows(a, b, k, out);
    }
    Ok(out)
}

/// `a @ b.T` of the last two dimensions, others broadcast: `a` is `[.., m, k]`, `b` is `[.., n, k]`. Sizes and elements.
pub fn product(a: &Tensor, b: &Tensor) -> Result<(Vec<usize>, Data), Error> {
    let ([a_batch @ .., m, k], [b_batch @ .., n, l]) = (a.sizes(), b.sizes()) else {
        return Err(Error::invalid("a matrix has two dimensions"));
    };
    if k != l {
        return Err(Error::invalid(format!(
            "rows of {k} and columns of {l} have no product"
        )));
    }
    let batch_sizes = broadcast(&[a_batch, b_batch])?;
    let batch = count(&batch_sizes)?;
    let with = |last: [usize; 2]| [&batch_sizes[..], &last].concat();
    let (a_sizes, b_sizes) = (with([*m, *k]), with([*n, *k]));
    let shape = (*m, *n, *k);
    let data = match (a.data(), b.data()) {
        (Data::Float(_), Data::Float(_)) => Data::Float(batches(
            &spread_floats(a, &a_sizes)?,
            &spread_floats(b, &b_sizes)?,
            batch,
            shape,
        )?),
        _ => Data::Int(batches(
            &spread_ints(a, &a_sizes)?,
            &spread_ints(b, &b_sizes)?,
            batch,
            shape,
        )?),
    };
    Ok((with([*m, *n]), data))
}

/// `a @ b`, with `b` as `[.., k, n]`.
pub fn matrix_product(a: &Tensor, b: &Tensor) -> Result<(Vec<usize>, Data), Error> {
    if b.rank() < 2 {
        return Err(Error::invalid("a matrix has two dimensions"));
    }
    product(a, &transposed(b, -2, -1)?)
}

fn plain(call: &Call<'_>) -> Made {
    let (sizes, data) = matrix_product(call.tensor(0)?, call.tensor(1)?)?;
    call.one(sizes, data)
}

/// As a matrix: a vector becomes a row or a column, which goes away again in the result.
fn matmul(call: &Call<'_>) -> Made {
    let (a, b) = (call.tensor(0)?, call.tensor(1)?);
    let row = if a.rank() == 1 {
        a.reshaped(vec![1, a.len()])?
    } else {
        a.clone()
    };
    let column = if b.rank() == 1 {
        b.reshaped(vec![b.len(), 1])?
    } else {
        b.clone()
    };
    let (mut sizes, data) = matrix_product(&row, &column)?;
    if b.rank() == 1 {
        sizes.pop();
    }
    if a.rank() == 1 {
        sizes.remove(sizes.len() - usize::from(b.rank() != 1) - 1);
    }
    call.one(sizes, data)
}

/// `x @ weight.T + bias`
pub fn affine(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<(Vec<usize>, Vec<f64>), Error> {
    let k = x.sizes().last().copied().unwrap_or(1);
    let n = if weight.rank() == 2 { weight.sizes()[0] } else { 1 };
    if weight.sizes().last() != Some(&k) || weight.rank() > 2 {
        let (x, weight) = (x.sizes(), weight.sizes());
        return Err(Error::invalid(format!(
            "inputs of sizes {x:?} do not fit weights of sizes {weight:?}"
        )));
    }
    let mut sizes = x.sizes()[..x.rank().saturating_sub(1)].to_vec();
    let m = count(&sizes)?;
    if weight.rank() == 2 {
        sizes.push(n);
    }
    let mut out = filled(count(&[m, n])?, 0.0)?;
    rows(x.floats()?, weight.floats()?, k, &mut out);
    if let Some(bias) = bias {
        let bias = spread_floats(bias, &[n])?;
        for row in out.chunks_mut(n.max(1)) {
            row.iter_mut().zip(&bias).for_each(|(out, bias)| *out += bias);
        }
    }
    Ok((sizes, out))
}

fn linear(call: &Call<'_>) -> Made {
    let (sizes, out) = affine(call.tensor(0)?, call.tensor(1)?, call.optional(2)?)?;
    call.one(sizes, Data::Float(out))
}

/// `beta * self + alpha * product`; `self` does not count where `beta` is 0, not even if it is NaN.
fn scaled_sum(call: &Call<'_>, (sizes, product): (Vec<usize>, Data)) -> Made {
    let (x, beta, alpha) = (call.tensor(0)?, call.scalar(3)?, call.scalar(4)?);
    let data = match product {
        Data::Float(mut values) => {
            values.iter_mut().for_each(|v| *v *= alpha.float());
            if beta.float() != 0.0 {
                let x = spread_floats(x, &sizes)?;
                values.iter_mut().zip(x).for_each(|(v, x)| *v += beta.float() * x);
            }
            Data::Float(values)
        }
        Data::Int(mut values) => {
            let x = spread_ints(x, &sizes)?;
            for (v, x) in values.iter_mut().zip(x) {
                *v = v.wrapping_mul(alpha.int()).wrapping_add(beta.int().wrapping_mul(x));
            }
            Data::Int(values)
        }
    };
    call.one(sizes, data)
}

fn addmm(call: &Call<'_>) -> Made {
    scaled_sum(call, matrix_product(call.tensor(1)?, call.tensor(2)?)?)
}

/// The products of all batches together.
fn addbmm(call: &Call<'_>) -> Made {
    let (sizes, data) = matrix_product(call.tensor(1)?, call.tensor(2)?)?;
    let [_, m, n] = sizes[..] else {
        return Err(Error::invalid("batches of matrices have three dimensions"));
    };
    let chunk = (m * n).max(1);
    let data = match data {
        Data::Float(values) => {
            let mut sum = filled(m * n, 0.0)?;
            for part in values.chunks_exact(chunk) {
                sum.iter_mut().zip(part).for_each(|(sum, v)| *sum += v);
            }
            Data::Float(sum)
        }
        Data::Int(values) => {
            let mut sum = filled(m * n, 0i64)?;
            for part in values.chunks_exact(chunk) {
                sum.iter_mut()
                    .zip(part)
                    .for_each(|(sum, v)| *sum = sum.wrapping_add(*v));
            }
            Data::Int(sum)
        }
    };
    scaled_sum(call, (vec![m, n], data))
}

fn column(x: &Tensor) -> Result<Tensor, Error> {
    x.reshaped(vec![x.len(), 1])
}

fn row(x: &Tensor) -> Result<Tensor, Error> {
    x.reshaped(vec![1, x.len()])
}

fn matrix_vector(a: &Tensor, b: &Tensor) -> Result<(Vec<usize>, Data), Error> {
    let (mut sizes, data) = product(a, &row(b)?)?;
    sizes.pop();
    Ok((sizes, data))
}

/// The rows.
pub const TABLE: &[Operator] = &[
    op("aten::linear", "Tensor Tensor Tensor?", floats, linear),
    op("aten::matmul", "Tensor Tensor", no_bool, matmul),
    op("aten::mm", "Tensor Tensor", no_bool, plain),
    op("aten::bmm", "Tensor Tensor", no_bool, plain),
    op("aten::mv", "Tensor Tensor", no_bool, |c| {
        let (sizes, data) = matrix_vector(c.tensor(0)?, c.tensor(1)?)?;
        c.one(sizes, data)
    }),
    op("aten::dot", "Tensor Tensor", no_bool, |c| {
        let (_, data) = product(&row(c.tensor(0)?)?, &row(c.tensor(1)?)?)?;
        c.one(Vec::new(), data)
    }),
    op("aten::outer", "Tensor Tensor", no_bool, |c| {
        let (sizes, data) = product(&column(c.tensor(0)?)?, &column(c.tensor(1)?)?)?;
        c.one(sizes, data)
    }),
    op("aten::addmm", "Tensor Tensor Tensor Scalar Scalar", no_bool, addmm),
    op("aten::baddbmm", "Tensor Tensor Tensor Scalar Scalar", no_bool, addmm),
    op("aten::addbmm", "Tensor Tensor Tensor Scalar Scalar", no_bool, addbmm),
    op("aten::addmv", "Tensor Tensor Tensor Scalar Scalar", no_bool, |c| {
        scaled_sum(c, matrix_vector(c.tensor(1)?, c.tensor(2)?)?)
    }),
    op("aten::addr", "Tensor Tensor Tensor Scalar Scalar", no_bool, |c| {
        scaled_sum(c, product(&column(c.tensor(1)?)?, &column(c.tensor(2)?)?)?)
    }),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{f32s, gives, i64s, try_run};

    #[test]
    fn products() {
        let a = f32s(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let b = f32s(&[3, 1], &[1.0, 0.0, -1.0]);
        gives("aten::mm", &[(&a).into(), (&b).into()], &[f32s(&[2, 1], &[-2.0, -2.0])]);
        let vector = f32s(&[3], &[1.0, 1.0, 1.0]);
        gives(
            "aten::matmul",
            &[(&a).into(), (&vector).into()],
            &[f32s(&[2], &[6.0, 15.0])],
        );
        let bias = f32s(&[2], &[0.5, -0.5]);
        let want = f32s(&[2, 2], &[14.5, 31.5, 32.5, 76.5]);
        gives("aten::linear", &[(&a).into(), (&a).into(), (&bias).into()], &[want]);
        assert!(try_run("aten::mm", &[(&a).into(), (&a).into()], &[b]).is_err());
        let x = i64s(&[1, 2], &[3, 4]);
        gives(
            "aten::dot",
            &[(&x.reshaped(vec![2]).unwrap()).into(), (&i64s(&[2], &[5, 6])).into()],
            &[i64s(&[], &[39])],
        );
    }

    #[test]
    fn tiles_and_rests() {
        let (m, n, k) = (19, 5, 21);
        let a: Vec<f64> = (0..m * k).map(|i| f64::from(i as u32 % 7)).collect();
        let b: Vec<f64> = (0..n * k).map(|i| f64::from(i as u32 % 5)).collect();
        let mut out = vec![0.0; m * n];
        rows(&a, &b, k, &mut out);
        for (at, have) in out.iter().enumerate() {
            let (i, j) = (at / n, at % n);
            let want: f64 = (0..k).map(|p| a[i * k + p] * b[j * k + p]).sum();
            assert_eq!(*have, want);
        }
    }
}
