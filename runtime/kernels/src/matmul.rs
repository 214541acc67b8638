//! Matrix and vector products: `mm bmm addmm baddbmm addbmm linear mv addmv dot addr`.
//!
//! All are [`products`]: a batch of m x k by k x n, then `beta * self + alpha * product`.

use crate::gemm::{self, Factor, Matrix, MatrixMut};
use crate::parallel::{each, portion};
use crate::registry::Kernel;
use crate::stage::{Arena, bytes_of, count, dims_of, expect_dtype, out_bytes, parts, produce};
use crate::strided::Move;
use crate::views::{View, expanded};
use crate::wide::{Wide, convert};
use crate::{Call, KernelError, Out, Scratch, Tensor};
use alloc::format;
use delegraph_types::{DType, Element, Parallel, Scalar, bf16, f16};

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
    match dtype {
        DType::F32 => compute::<f32>(out, scratch, &task),
        DType::F16 => compute::<f16>(out, scratch, &task),
        DType::BF16 => compute::<bf16>(out, scratch, &task),
        DType::F64 => compute::<f64>(out, scratch, &task),
        // PyTorch multiplies bools as a logical or of ands: any nonzero sum is true, which the store to bool gives.
        other if other.is_complex() => complex(out, scratch, &task),
        other if !other.is_float() => compute::<i64>(out, scratch, &task),
        other => Err(KernelError::unsupported("self", format!("dtype {other}"))),
    }
}

/// Complex factors, with nothing added.
fn complex(out: &mut Out, scratch: &mut Scratch, task: &Task) -> Result<(), KernelError> {
    if task.bias.is_some() || task.summed {
        let dtype = out.dtype();
        return Err(KernelError::unsupported(
            "self",
            format!("a sum with products of dtype {dtype}"),
        ));
    }
    let dims = (task.batch, task.m, task.k, task.n);
    crate::complex::products((&task.a, &task.b), dims, task.b_transposed, (out, scratch))
}

/// Factors of type `T`, or converted to it.
fn compute<T: Factor + Element>(out: &mut Out, scratch: &mut Scratch, task: &Task) -> Result<(), KernelError>
where
    T::Sum: Wide,
{
    // A fraction for a product of integers is truncated, as PyTorch does.
    let number = |scalar: Scalar| T::Sum::of(scalar).unwrap_or(T::Sum::load(scalar.as_i64()));
    let (alpha, beta) = (number(task.alpha), number(task.beta));
    let (m, k, n) = (task.m, task.k, task.n);
    let b_dims = if task.b_transposed {
        [task.batch, n, k]
    } else {
        [task.batch, k, n]
    };
    let parallel = out.parallel();
    // Many small products are shared out; a few large ones are divided, one after the other.
    let units = (m.saturating_mul(k).saturating_mul(n) / 16).max(1);
    let items = if task.summed {
        task.batch
    } else {
        portion(parallel, task.batch, units, 1)
    };
    let apart = items < task.batch && task.batch >= parallel.threads();
    let room = match apart {
        true => task.batch.div_ceil(items).saturating_mul(gemm::room::<T::Sum>(m, k, n)),
        false => gemm::room_on::<T::Sum>(parallel, m, k, n),
    };
    let total = [
        operand_bytes::<T>(&task.a, [task.batch, m, k]),
        operand_bytes::<T>(&task.b, b_dims),
        out_bytes::<T::Sum>(out),
        bytes_of::<gemm::Packed<T>>(room),
    ];
    let mut arena = Arena::new(scratch, total.into_iter().fold(0, usize::saturating_add))?;
    let a = operand::<T>(&mut arena, &task.a, [task.batch, m, k])?;
    let b = operand::<T>(&mut arena, &task.b, b_dims)?;
    let panels = arena.take::<gemm::Packed<T>>(room)?;
    let sizes = *out.sizes();
    produce::<T::Sum>(out, &mut arena, |dst, _| {
        // With beta 0 the bias is not read: its NaN do not spread.
        let bias = task.bias.as_ref().filter(|_| beta != <T::Sum as Wide>::ZERO);
        if let Some(bias) = bias {
            let view = expanded(&View::all(bias.sizes(), bias.strides()), &sizes)?;
            let plan = Move::of(&view.sizes, &view.strides, &sizes.contiguous_strides())?;
            let target = (T::Sum::DTYPE, bytemuck::cast_slice_mut(dst), 0);
            convert(&plan, (bias.dtype(), bias.bytes(), 0), target)?;
            if beta != <T::Sum as Wide>::ONE {
                dst.iter_mut().for_each(|x| *x = beta.times(*x));
            }
        } else if task.batch == 0 {
            dst.fill(T::Sum::ZERO);
        }
        let one = |parallel, i: usize, dst: &mut [T::Sum], panels: &mut [gemm::Packed<T>]| {
            let (a, b) = (a.matrix(i)?, b.matrix(i)?);
            let b = if task.b_transposed { b.transposed() } else { b };
            let c = MatrixMut::dense(dst, m, n)?;
            let accumulate = bias.is_some() || (task.summed && i > 0);
            gemm::product(parallel, a, b, c, alpha, accumulate, panels)
        };
        if apart {
            let room = gemm::room::<T::Sum>(m, k, n).max(1);
            let chunks = dst.chunks_mut((items * m * n).max(1)).zip(panels.chunks_mut(room));
            return each(parallel, chunks.enumerate(), |(i, (dst, panels))| {
                for (k, dst) in dst.chunks_exact_mut((m * n).max(1)).enumerate() {
                    one(Parallel::SERIAL, i * items + k, dst, panels)?;
                }
                Ok(())
            });
        }
        for i in 0..task.batch {
            let target = if task.summed { 0 } else { i * m * n };
            one(parallel, i, &mut dst[target..target + m * n], panels)?;
        }
        Ok(())
    })
}

/// A batch of matrices in memory.
struct Operand<'s, T> {
    data: &'s [T],
    dims: [usize; 3],
    strides: [usize; 3],
}

impl<'s, T> Operand<'s, T> {
    fn matrix(&self, index: usize) -> Result<Matrix<'s, T>, KernelError> {
        let [_, rows, columns] = self.dims;
        let data = self.data.get(index.saturating_mul(self.strides[0])..).unwrap_or(&[]);
        Matrix::new(data, (rows, columns), (self.strides[1], self.strides[2]))
    }
}

/// The strides of a tensor of which the dimensions, in order, make up `dims`; `None` if they do not lie evenly in memory.
fn collapsed(tensor: &Tensor, dims: [usize; 3]) -> Option<[usize; 3]> {
    let mut strides = [0; 3];
    if tensor.numel() == 0 {
        return Some(strides);
    }
    let mut axes = tensor.sizes().iter().zip(tensor.strides().iter()).rev();
    for (stride, &want) in strides.iter_mut().zip(&dims).rev() {
        let mut size = 1usize;
        while size < want {
            let (&axis, &step) = axes.next()?;
            let (axis, step) = (usize::try_from(axis).ok()?, usize::try_from(step).ok()?);
            if axis == 1 {
                continue;
            }
            if size == 1 {
                *stride = step;
            } else if stride.checked_mul(size) != Some(step) {
                return None;
            }
            size = size.checked_mul(axis)?;
        }
        if size != want {
            return None;
        }
    }
    Some(strides)
}

fn operand_bytes<T: Element>(tensor: &Tensor, dims: [usize; 3]) -> usize {
    if tensor.dtype() == T::DTYPE && collapsed(tensor, dims).is_some() {
        0
    } else {
        bytes_of::<T>(tensor.numel())
    }
}

/// The tensor where it lies, or a copy of it.
fn operand<'s, T: Element>(
    arena: &mut Arena<'s>,
    tensor: &Tensor<'s>,
    dims: [usize; 3],
) -> Result<Operand<'s, T>, KernelError> {
    if tensor.dtype() == T::DTYPE
        && let (Some(data), Some(strides)) = (tensor.data::<T>(), collapsed(tensor, dims))
    {
        return Ok(Operand { data, dims, strides });
    }
    let copy = arena.take::<T>(tensor.numel())?;
    let plan = Move::of(tensor.sizes(), tensor.strides(), &tensor.sizes().contiguous_strides())?;
    let target = bytemuck::cast_slice_mut(copy);
    convert(&plan, (tensor.dtype(), tensor.bytes(), 0), (T::DTYPE, target, 0))?;
    Ok(Operand {
        data: copy,
        dims,
        strides: [dims[1].saturating_mul(dims[2]), dims[2], 1],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_types::Dims;

    #[test]
    fn dimensions_that_lie_evenly_are_taken_together() {
        let data = [0u8; 96];
        let strides_of = |sizes: &[i64], strides: &[i64], dims| {
            let (sizes, strides) = (Dims::new(sizes).unwrap(), Dims::new(strides).unwrap());
            collapsed(&Tensor::new(DType::F32, &sizes, &strides, &data).unwrap(), dims)
        };
        assert_eq!(strides_of(&[2, 3, 4], &[12, 4, 1], [1, 6, 4]), Some([0, 4, 1]));
        assert_eq!(strides_of(&[2, 3, 4], &[12, 4, 1], [2, 3, 4]), Some([12, 4, 1]));
        assert_eq!(strides_of(&[4, 6], &[1, 4], [1, 4, 6]), Some([0, 1, 4]));
        assert_eq!(strides_of(&[2, 3, 4], &[4, 8, 1], [1, 6, 4]), None);
        assert_eq!(strides_of(&[1, 3, 1, 4], &[99, 4, 7, 1], [1, 3, 4]), Some([0, 4, 1]));
        assert_eq!(strides_of(&[0, 3], &[3, 1], [1, 0, 3]), Some([0, 0, 0]));
    }
}
