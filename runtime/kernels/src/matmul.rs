//! Matrix and vector products: `mm bmm addmm baddbmm addbmm linear mv addmv dot addr`.
//!
//! All are [`products`]: a batch of m x k by k x n, then `beta * self + alpha * product`.

use crate::registry::Kernel;
use crate::stage::{Arena, count, dims_of, expect_dtype, load_bytes, out_bytes, parts, produce};
use crate::strided::Move;
use crate::sys::{Matrix, Product};
use crate::views::{View, expanded};
use crate::wide::{Wide, convert, with_wide};
use crate::{Call, KernelError, Tensor};
use alloc::format;
use delegraph_types::{Element, Scalar};

pub(crate) const KERNELS: &[(&str, Kernel)] = &[
    ("aten::mm.out", mm),
    ("aten::bmm.out", bmm),
    ("aten::mv.out", mv),
    ("aten::dot.out", dot),
    ("aten::linear.out", linear),
    ("aten::addmm.out", addmm),
    ("aten::baddbmm.out", baddbmm),
    ("aten::addbmm.out", addbmm),
    ("aten::addmv.out", addmv),
    ("aten::addr.out", addr),
];

/// One batched product and what is done to it.
struct Task<'a> {
    a: Tensor<'a>,
    b: Tensor<'a>,
    /// Products, of which the results are summed if `summed`.
    batch: usize,
    m: usize,
    k: usize,
    n: usize,
    /// `b` is stored as n x k.
    b_transposed: bool,
    /// The batch is summed to one matrix.
    summed: bool,
    /// Added, broadcast to the output.
    bias: Option<Tensor<'a>>,
    beta: Scalar,
    alpha: Scalar,
}

impl<'a> Task<'a> {
    fn plain(a: Tensor<'a>, b: Tensor<'a>, batch: usize, (m, k, n): (usize, usize, usize)) -> Task<'a> {
        Task {
            a,
            b,
            batch,
            m,
            k,
            n,
            b_transposed: false,
            summed: false,
            bias: None,
            beta: Scalar::Int(1),
            alpha: Scalar::Int(1),
        }
    }
}

fn mismatch(a: &Tensor, b: &Tensor) -> KernelError {
    KernelError::invalid("self", format!("{} and {} do not multiply", a.sizes(), b.sizes()))
}

fn mm(call: &mut Call) -> Result<(), KernelError> {
    let (a, b) = (call.tensor(0)?, call.tensor(1)?);
    let dims = matrices(&a, &b)?;
    products(call, &[dims.0 as i64, dims.2 as i64], Task::plain(a, b, 1, dims))
}

/// m, k and n of two matrices.
fn matrices(a: &Tensor, b: &Tensor) -> Result<(usize, usize, usize), KernelError> {
    match (a.sizes().as_slice(), b.sizes().as_slice()) {
        (&[m, k], &[k2, n]) if k == k2 => Ok((m as usize, k as usize, n as usize)),
        _ => Err(mismatch(a, b)),
    }
}

/// Batch, m, k and n of two batches of matrices.
fn batches(a: &Tensor, b: &Tensor) -> Result<(usize, (usize, usize, usize)), KernelError> {
    match (a.sizes().as_slice(), b.sizes().as_slice()) {
        (&[batch, m, k], &[batch2, k2, n]) if k == k2 && batch == batch2 => {
            Ok((batch as usize, (m as usize, k as usize, n as usize)))
        }
        _ => Err(mismatch(a, b)),
    }
}

fn bmm(call: &mut Call) -> Result<(), KernelError> {
    let (a, b) = (call.tensor(0)?, call.tensor(1)?);
    let (batch, dims) = batches(&a, &b)?;
    products(
        call,
        &[batch as i64, dims.0 as i64, dims.2 as i64],
        Task::plain(a, b, batch, dims),
    )
}

fn mv(call: &mut Call) -> Result<(), KernelError> {
    let (a, b) = (call.tensor(0)?, call.tensor(1)?);
    let (m, k) = matrix_vector(&a, &b)?;
    products(call, &[m as i64], Task::plain(a, b, 1, (m, k, 1)))
}

fn matrix_vector(a: &Tensor, b: &Tensor) -> Result<(usize, usize), KernelError> {
    match (a.sizes().as_slice(), b.sizes().as_slice()) {
        (&[m, k], &[k2]) if k == k2 => Ok((m as usize, k as usize)),
        _ => Err(mismatch(a, b)),
    }
}

fn dot(call: &mut Call) -> Result<(), KernelError> {
    let (a, b) = (call.tensor(0)?, call.tensor(1)?);
    match (a.sizes().as_slice(), b.sizes().as_slice()) {
        (&[k], &[k2]) if k == k2 => products(call, &[], Task::plain(a, b, 1, (1, k as usize, 1))),
        _ => Err(mismatch(&a, &b)),
    }
}

/// `input @ weight.T + bias`, the input of any rank, the weight a matrix or one row.
fn linear(call: &mut Call) -> Result<(), KernelError> {
    let (input, weight, bias) = (call.tensor(0)?, call.tensor(1)?, call.optional_tensor(2)?);
    let (Some((&k, rows)), Some(&k2)) = (input.sizes().split_last(), weight.sizes().last()) else {
        return Err(mismatch(&input, &weight));
    };
    if weight.rank() > 2 || k != k2 {
        return Err(mismatch(&input, &weight));
    }
    let mut sizes = dims_of(rows, "input")?;
    let n = if weight.rank() == 2 { weight.sizes()[0] } else { 1 };
    if weight.rank() == 2 {
        sizes
            .push(n)
            .map_err(|error| KernelError::invalid("input", format!("{error}")))?;
    }
    let task = Task {
        b_transposed: true,
        bias,
        ..Task::plain(input, weight, 1, (count(rows), k as usize, n as usize))
    };
    products(call, &sizes, task)
}

/// Reads `*, Scalar beta=1, Scalar alpha=1` at 3 and 4 and adds argument 0.
fn added<'a>(call: &Call<'a, '_>, task: Task<'a>) -> Result<Task<'a>, KernelError> {
    Ok(Task {
        bias: Some(call.tensor(0)?),
        beta: call.scalar(3)?,
        alpha: call.scalar(4)?,
        ..task
    })
}

fn addmm(call: &mut Call) -> Result<(), KernelError> {
    let (a, b) = (call.tensor(1)?, call.tensor(2)?);
    let dims = matrices(&a, &b)?;
    let task = added(call, Task::plain(a, b, 1, dims))?;
    products(call, &[dims.0 as i64, dims.2 as i64], task)
}

fn baddbmm(call: &mut Call) -> Result<(), KernelError> {
    let (a, b) = (call.tensor(1)?, call.tensor(2)?);
    let (batch, dims) = batches(&a, &b)?;
    let task = added(call, Task::plain(a, b, batch, dims))?;
    products(call, &[batch as i64, dims.0 as i64, dims.2 as i64], task)
}

fn addbmm(call: &mut Call) -> Result<(), KernelError> {
    let (a, b) = (call.tensor(1)?, call.tensor(2)?);
    let (batch, dims) = batches(&a, &b)?;
    let task = Task {
        summed: true,
        ..added(call, Task::plain(a, b, batch, dims))?
    };
    products(call, &[dims.0 as i64, dims.2 as i64], task)
}

fn addmv(call: &mut Call) -> Result<(), KernelError> {
    let (a, b) = (call.tensor(1)?, call.tensor(2)?);
    let (m, k) = matrix_vector(&a, &b)?;
    let task = added(call, Task::plain(a, b, 1, (m, k, 1)))?;
    products(call, &[m as i64], task)
}

fn addr(call: &mut Call) -> Result<(), KernelError> {
    let (a, b) = (call.tensor(1)?, call.tensor(2)?);
    let (&[m], &[n]) = (a.sizes().as_slice(), b.sizes().as_slice()) else {
        return Err(mismatch(&a, &b));
    };
    let task = added(call, Task::plain(a, b, 1, (m as usize, 1, n as usize)))?;
    products(call, &[m, n], task)
}

fn products(call: &mut Call, sizes: &[i64], task: Task) -> Result<(), KernelError> {
    let dtype = task.a.dtype();
    let others = [Some(&task.b), task.bias.as_ref()];
    if let Some(other) = others.into_iter().flatten().find(|t| t.dtype() != dtype) {
        return Err(KernelError::invalid(
            "self",
            format!("dtypes {dtype} and {} do not multiply", other.dtype()),
        ));
    }
    let sizes = dims_of(sizes, "self")?;
    let (out, scratch) = parts(call, 0)?;
    expect_dtype(out, 0, dtype)?;
    out.resize(&sizes)?;
    with_wide!(dtype, "self", W => {
        // A fraction for a product of integers is truncated, as PyTorch does.
        let number = |scalar: Scalar| W::of(scalar).unwrap_or(W::load(scalar.as_i64()));
        let (alpha, beta) = (number(task.alpha), number(task.beta));
        // PyTorch multiplies bools as a logical or of ands: any nonzero sum is true, which the store to bool gives.
        let bias_bytes = match &task.bias {
            Some(_) => crate::stage::bytes_of::<W>(count(&sizes)),
            None => 0,
        };
        let total = load_bytes::<W>(&task.a)
            .saturating_add(load_bytes::<W>(&task.b))
            .saturating_add(out_bytes::<W>(out))
            .saturating_add(bias_bytes);
        let mut arena = Arena::new(scratch, total)?;
        let (a, b) = (arena.load::<W>(&task.a)?, arena.load::<W>(&task.b)?);
        produce::<W>(out, &mut arena, |dst, arena| {
            multiply(&task, a, b, dst)?;
            if alpha != W::ONE {
                dst.iter_mut().for_each(|x| *x = x.times(alpha));
            }
            // With beta 0 the bias is not read: its NaN do not spread.
            if let Some(bias) = task.bias.as_ref().filter(|_| beta != W::ZERO) {
                let view = expanded(&View::all(bias.sizes(), bias.strides()), &sizes)?;
                let rows = arena.take::<W>(dst.len())?;
                let plan = Move::of(&view.sizes, &view.strides, &sizes.contiguous_strides())?;
                convert(&plan, (dtype, bias.bytes(), 0), (W::DTYPE, bytemuck::cast_slice_mut(rows), 0))?;
                for (x, &add) in dst.iter_mut().zip(rows.iter()) {
                    *x = x.plus(if beta == W::ONE { add } else { beta.times(add) });
                }
            }
            Ok(())
        })
    })
}

fn multiply<W: Product>(task: &Task, a: &[W], b: &[W], dst: &mut [W]) -> Result<(), KernelError> {
    let (m, k, n) = (task.m, task.k, task.n);
    if task.batch == 0 {
        dst.fill(W::ZERO);
    }
    for i in 0..task.batch {
        let a = Matrix::rows(&a[i * m * k..(i + 1) * m * k], k);
        let b = &b[i * k * n..(i + 1) * k * n];
        let b = match task.b_transposed {
            true => Matrix::rows(b, k).transposed(),
            false => Matrix::rows(b, n),
        };
        let target = if task.summed { 0 } else { i * m * n };
        W::product(
            (m, k, n),
            a,
            b,
            (&mut dst[target..target + m * n], n),
            task.summed && i > 0,
        )?;
    }
    Ok(())
}
