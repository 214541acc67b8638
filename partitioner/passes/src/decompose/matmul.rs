//! Products of matrices and vectors: everything becomes `mm`, `bmm` or `addmm`.

use super::{Replacement, Rules, one};
use crate::PassError;
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Expr, ValueId};
use delegraph_types::Scalar;

pub(super) const RULES: Rules = &[
    ("aten::linear", linear),
    ("aten::matmul", |rw| {
        let (a, b) = (rw.tensor(0)?, rw.tensor(1)?);
        one(matmul(rw, a, b))
    }),
    ("aten::mv", |rw| {
        let (matrix, vector) = (rw.tensor(0)?, rw.tensor(1)?);
        one(matmul(rw, matrix, vector))
    }),
    ("aten::dot", |rw| {
        let (a, b) = (rw.tensor(0)?, rw.tensor(1)?);
        one(matmul(rw, a, b))
    }),
    ("aten::vdot", |rw| {
        let (a, b) = (rw.tensor(0)?, rw.tensor(1)?);
        let a = conjugated(rw, a)?;
        one(matmul(rw, a, b))
    }),
    ("aten::outer", |rw| {
        let (a, b) = (rw.tensor(0)?, rw.tensor(1)?);
        let column = rw.unsqueeze(a, 1)?;
        one(rw.mul(column, b))
    }),
    ("aten::inner", |rw| {
        let (a, b) = (rw.tensor(0)?, rw.tensor(1)?);
        let (ra, rb) = (rw.rank(a)?, rw.rank(b)?);
        if ra == 0 || rb == 0 {
            return one(rw.mul(a, b));
        }
        one(contract(rw, a, b, &[ra - 1], &[rb - 1]))
    }),
    ("aten::tensordot", |rw| {
        let (a, b) = (rw.tensor(0)?, rw.tensor(1)?);
        let (ra, rb) = (rw.rank(a)?, rw.rank(b)?);
        let resolve = |rw: &Rewrite, index: usize, rank: usize| -> Result<Vec<usize>, PassError> {
            rw.ints(index)?.into_iter().map(|d| rw.dim_of(d, rank)).collect()
        };
        let (dims_a, dims_b) = (resolve(rw, 2, ra)?, resolve(rw, 3, rb)?);
        if dims_a.len() != dims_b.len() {
            return Err(rw.invalid("the lists of dimensions differ in length"));
        }
        one(contract(rw, a, b, &dims_a, &dims_b))
    }),
    ("aten::addmv", |rw| {
        let (matrix, vector) = (rw.tensor(1)?, rw.tensor(2)?);
        let (matrix, vector) = (rw.upcast_half(matrix)?, rw.upcast_half(vector)?);
        let product = matmul(rw, matrix, vector)?;
        weighted(rw, product)
    }),
    ("aten::addr", |rw| {
        let (a, b) = (rw.tensor(1)?, rw.tensor(2)?);
        let (a, b) = (rw.upcast_half(a)?, rw.upcast_half(b)?);
        let column = rw.unsqueeze(a, 1)?;
        let product = rw.mul(column, b)?;
        weighted(rw, product)
    }),
    ("aten::addbmm", |rw| {
        let (a, b) = (rw.tensor(1)?, rw.tensor(2)?);
        let (a, b) = (rw.upcast_half(a)?, rw.upcast_half(b)?);
        let products = rw.binary("aten::bmm", a, b)?;
        let dtype = rw.dtype(products)?;
        let product = rw.emit("aten::sum.dim_IntList", args![products, vec![0], false, dtype])?;
        weighted(rw, product)
    }),
    ("aten::baddbmm", |rw| {
        let (a, b) = (rw.tensor(1)?, rw.tensor(2)?);
        let (a, b) = (rw.upcast_half(a)?, rw.upcast_half(b)?);
        let product = rw.binary("aten::bmm", a, b)?;
        weighted(rw, product)
    }),
    ("aten::chain_matmul", |rw| chain(rw)),
    ("aten::linalg_multi_dot", |rw| chain(rw)),
    ("aten::bilinear", bilinear),
    ("aten::linalg_vecdot", |rw| {
        let (a, b, dim) = (rw.tensor(0)?, rw.tensor(1)?, rw.int(2)?);
        let a = conjugated(rw, a)?;
        let product = rw.mul(a, b)?;
        let dtype = rw.dtype(product)?;
        one(rw.emit("aten::sum.dim_IntList", args![product, vec![dim], false, dtype]))
    }),
    ("aten::kron", kron),
];

/// The first factor of an inner product.
fn conjugated(rw: &mut Rewrite, x: ValueId) -> Result<ValueId, PassError> {
    match rw.dtype(x)?.is_complex() {
        true => super::spectral::conjugate(rw, x),
        false => Ok(x),
    }
}

impl Rewrite<'_> {
    /// Casts halves to `f32`; other dtypes stay.
    pub(super) fn upcast_half(&mut self, x: ValueId) -> Result<ValueId, PassError> {
        match self.dtype(x)?.is_float() {
            true => self.upcast(x),
            false => Ok(x),
        }
    }
}

/// `input weightᵀ + bias` over a 2-d view.
fn linear(rw: &mut Rewrite) -> Replacement {
    let (x, weight, bias) = (rw.tensor(0)?, rw.tensor(1)?, rw.optional_tensor(2)?);
    let (mut shape, rank) = (rw.shape(x)?, rw.rank(x)?);
    if rank == 0 {
        return Err(rw.invalid("the input has no dimension"));
    }
    if rw.rank(weight)? == 1 {
        // A vector of weights: no output dimension.
        let product = matmul(rw, x, weight)?;
        return match bias {
            Some(bias) => one(rw.add(product, bias)),
            None => Ok(Some(vec![product])),
        };
    }
    let (inputs, outputs) = (rw.size(weight, 1)?, rw.size(weight, 0)?);
    let transposed = rw.transpose_last(weight)?;
    let rows = Expr::product(&shape[..rank - 1]);
    let flat = rw.view(x, vec![rows.clone(), inputs])?;
    let product = match bias {
        Some(bias) if rw.rank(bias)? <= 2 => rw.emit("aten::addmm", args![bias, flat, transposed])?,
        Some(_) => return Err(rw.unsupported("a bias of more than two dimensions")),
        None => rw.binary("aten::mm", flat, transposed)?,
    };
    shape[rank - 1] = outputs;
    one(rw.view(product, shape))
}

/// `torch.matmul` of any two ranks.
pub(super) fn matmul(rw: &mut Rewrite, a: ValueId, b: ValueId) -> Result<ValueId, PassError> {
    let (sa, sb) = (rw.shape(a)?, rw.shape(b)?);
    match (sa.len(), sb.len()) {
        (0, _) | (_, 0) => Err(rw.invalid("both operands need a dimension at least")),
        (1, _) => {
            let row = rw.unsqueeze(a, 0)?;
            let matrix = if sb.len() == 1 { rw.unsqueeze(b, 1)? } else { b };
            let product = matmul(rw, row, matrix)?;
            let mut shape = rw.shape(product)?;
            shape.remove(shape.len() - 2);
            if sb.len() == 1 {
                shape.pop();
            }
            rw.view(product, shape)
        }
        (_, 1) => {
            let column = rw.unsqueeze(b, 1)?;
            let product = matmul(rw, a, column)?;
            let mut shape = rw.shape(product)?;
            shape.pop();
            rw.view(product, shape)
        }
        (2, 2) => rw.binary("aten::mm", a, b),
        (3, 3) if sa[0] == sb[0] => rw.binary("aten::bmm", a, b),
        (rank, 2) => {
            // A stack of rows by one matrix is one product.
            let flat = rw.view(a, vec![Expr::product(&sa[..rank - 1]), sa[rank - 1].clone()])?;
            let product = rw.binary("aten::mm", flat, b)?;
            let mut shape = sa;
            shape[rank - 1] = sb[1].clone();
            rw.view(product, shape)
        }
        (ra, rb) => {
            let batch = rw.broadcast(&[&sa[..ra - 2], &sb[..rb - 2]])?;
            let flatten = |rw: &mut Rewrite, x: ValueId, matrix: &[Expr]| {
                let full: Vec<Expr> = batch.iter().chain(matrix).cloned().collect();
                let x = if full.len() == rw.rank(x)? && full == rw.shape(x)? {
                    x
                } else {
                    rw.expand(x, full)?
                };
                let flat: Vec<Expr> = std::iter::once(Expr::product(&batch))
                    .chain(matrix.iter().cloned())
                    .collect();
                rw.view(x, flat)
            };
            let (a, b) = (flatten(rw, a, &sa[ra - 2..])?, flatten(rw, b, &sb[rb - 2..])?);
            let product = rw.binary("aten::bmm", a, b)?;
            let mut shape = batch.clone();
            shape.extend([sa[ra - 2].clone(), sb[rb - 1].clone()]);
            rw.view(product, shape)
        }
    }
}

/// Sums products over pairs of dimensions; the result has the rest of `a`'s dimensions, then the rest of `b`'s.
fn contract(
    rw: &mut Rewrite,
    mut a: ValueId,
    mut b: ValueId,
    dims_a: &[usize],
    dims_b: &[usize],
) -> Result<ValueId, PassError> {
    // A pair of which one has size 1 broadcasts: the other is summed first.
    for (&da, &db) in dims_a.iter().zip(dims_b) {
        let (sa, sb) = (rw.size(a, da)?.as_int(), rw.size(b, db)?.as_int());
        if sa == Some(1) && sb != Some(1) {
            b = sum_as_is(rw, b, db)?;
        } else if sb == Some(1) && sa != Some(1) {
            a = sum_as_is(rw, a, da)?;
        }
    }
    let (sa, sb) = (rw.shape(a)?, rw.shape(b)?);
    let rest = |rank: usize, dims: &[usize]| (0..rank).filter(|d| !dims.contains(d)).collect::<Vec<usize>>();
    let (rest_a, rest_b) = (rest(sa.len(), dims_a), rest(sb.len(), dims_b));
    let sizes = |shape: &[Expr], dims: &[usize]| dims.iter().map(|&d| shape[d].clone()).collect::<Vec<Expr>>();
    let inner = Expr::product(&sizes(&sa, dims_a));
    let left = rw.permute(a, &[rest_a.as_slice(), dims_a].concat())?;
    let left = rw.view(left, vec![Expr::product(&sizes(&sa, &rest_a)), inner.clone()])?;
    let right = rw.permute(b, &[dims_b, rest_b.as_slice()].concat())?;
    let right = rw.view(right, vec![inner, Expr::product(&sizes(&sb, &rest_b))])?;
    let product = rw.binary("aten::mm", left, right)?;
    rw.view(product, [sizes(&sa, &rest_a), sizes(&sb, &rest_b)].concat())
}

/// A sum that keeps the dtype, where a plain one makes `i64` of integers.
fn sum_as_is(rw: &mut Rewrite, x: ValueId, dim: usize) -> Result<ValueId, PassError> {
    let dtype = rw.dtype(x)?;
    rw.emit("aten::sum.dim_IntList", args![x, vec![dim as i64], true, dtype])
}

/// `beta * self + alpha * product`; a `beta` of 0 drops `self`, NaN and all. Arguments 3 and 4 are `beta` and `alpha`, which
/// ATen takes as integers over integer tensors.
fn weighted(rw: &mut Rewrite, product: ValueId) -> Replacement {
    let (this, mut beta, mut alpha) = (rw.tensor(0)?, rw.scalar(3)?, rw.scalar(4)?);
    let out = rw.output_type(0)?;
    if !out.dtype.is_float() && !out.dtype.is_complex() {
        (beta, alpha) = (Scalar::Int(beta.as_i64()), Scalar::Int(alpha.as_i64()));
    }
    let this = rw.upcast_half(this)?;
    let product = if alpha.as_f64() == 1.0 {
        product
    } else {
        rw.mul(product, alpha)?
    };
    if beta.as_f64() == 0.0 {
        return one(rw.expand(product, out.shape));
    }
    let this = if beta.as_f64() == 1.0 {
        this
    } else {
        rw.mul(this, beta)?
    };
    one(rw.add(this, product))
}

fn chain(rw: &mut Rewrite) -> Replacement {
    let items = rw.tensors(0)?;
    let mut items = items.into_iter();
    let first = items.next().ok_or_else(|| rw.invalid("no matrices"))?;
    let mut product = first;
    for next in items {
        product = matmul(rw, product, next)?;
    }
    Ok(Some(vec![product]))
}

/// `out[…, k] = Σ_ij x1[…, i] weight[k, i, j] x2[…, j] + bias[k]`
fn bilinear(rw: &mut Rewrite) -> Replacement {
    let (x1, x2, weight, bias) = (rw.tensor(0)?, rw.tensor(1)?, rw.tensor(2)?, rw.optional_tensor(3)?);
    let (shape, weights) = (rw.shape(x1)?, rw.shape(weight)?);
    let (Some((last, batch)), [k, i, j]) = (shape.split_last(), weights.as_slice()) else {
        return Err(rw.invalid("an input without dimensions, or weights that are not three-dimensional"));
    };
    let rows = Expr::product(batch);
    let x1 = rw.view(x1, vec![rows.clone(), last.clone()])?;
    let x2 = rw.view(x2, vec![rows.clone(), Expr::Int(1), j.clone()])?;
    let by_input = rw.permute(weight, &[1, 0, 2])?;
    let by_input = rw.view(by_input, vec![i.clone(), k.clone() * j.clone()])?;
    let partial = rw.binary("aten::mm", x1, by_input)?;
    let partial = rw.view(partial, vec![rows, k.clone(), j.clone()])?;
    let products = rw.mul(partial, x2)?;
    let mut sum = rw.sum(products, vec![-1], false)?;
    if let Some(bias) = bias {
        sum = rw.add(sum, bias)?;
    }
    let shape = batch.iter().cloned().chain([k.clone()]).collect();
    one(rw.view(sum, shape))
}

/// Each element of `a` times all of `b`, interleaved dimension by dimension.
fn kron(rw: &mut Rewrite) -> Replacement {
    let (a, b) = (rw.tensor(0)?, rw.tensor(1)?);
    let (sa, sb) = (rw.shape(a)?, rw.shape(b)?);
    let rank = sa.len().max(sb.len());
    let padded = |shape: &[Expr]| {
        let mut out = vec![Expr::Int(1); rank - shape.len()];
        out.extend_from_slice(shape);
        out
    };
    let (sa, sb) = (padded(&sa), padded(&sb));
    let spread_a = sa.iter().flat_map(|s| [s.clone(), Expr::Int(1)]).collect();
    let spread_b = sb.iter().flat_map(|s| [Expr::Int(1), s.clone()]).collect();
    let (a, b) = (rw.view(a, spread_a)?, rw.view(b, spread_b)?);
    let product = rw.mul(a, b)?;
    one(rw.view(product, sa.into_iter().zip(sb).map(|(x, y)| x * y).collect()))
}
