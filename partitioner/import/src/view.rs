//! Which operators return views, and of what kind.

use crate::graph::Builder;
use crate::tensor::{Step, TensorId};
use delegraph_ir::{Arg, Expr, MemoryFormat, Op, TensorType};
use delegraph_opset::{BaseType, Schema};

/// An output of a node, as far as aliasing is concerned.
pub(crate) struct Output<'a> {
    pub ty: &'a TensorType,
    pub strides: Option<&'a [Expr]>,
    /// Position among the outputs, and the types of those before it.
    pub index: usize,
    pub before: &'a [&'a TensorType],
}

/// The parameter whose tensor the result may share memory with; `None`: the result is new memory. Of a parameter that is a list,
/// each output may share with the item of its position.
pub(crate) fn aliased_parameter(op: Op, schema: &Schema) -> Option<usize> {
    // Composites that may return (a view of) an argument although their schema does not say so.
    const UNDECLARED: [&str; 14] = [
        "aten::_unsafe_view",
        "aten::alpha_dropout",
        "aten::atleast_1d",
        "aten::atleast_2d",
        "aten::atleast_3d",
        "aten::broadcast_tensors",
        "aten::dropout",
        "aten::einsum",
        "aten::feature_alpha_dropout",
        "aten::feature_dropout",
        "aten::meshgrid",
        "aten::meshgrid.indexing",
        "aten::sum_to_size",
        "aten::type_as",
    ];
    let declared = schema.params.iter().position(|p| p.aliased && !p.mutated);
    declared
        .filter(|_| schema.returns.iter().any(|r| r.aliased))
        .or_else(|| {
            let listed = UNDECLARED.contains(&op.name());
            listed
                .then(|| schema.params.iter().position(|p| p.ty.base == BaseType::Tensor))
                .flatten()
        })
}

impl Builder<'_> {
    /// How an output shares memory with `base`; `None`: it does not.
    pub fn step_of(&self, op: Op, args: &[Arg], base: TensorId, out: &Output) -> Option<Step> {
        let base = self.tensor(base);
        let rank = base.ty.rank() as i64;
        let same_shape = base.ty.shape == out.ty.shape;
        let same_strides = base
            .strides
            .as_deref()
            .zip(out.strides)
            .map(|(a, b)| equal_strides(&base.ty.shape, a, b));
        let name = op.name().split_once("::").map_or(op.name(), |(_, name)| name);
        let (name, overload) = name.split_once('.').unwrap_or((name, ""));
        let dim = |i: usize| {
            args.get(i)
                .and_then(Arg::as_int)
                .map(|d| if d < 0 { d + rank } else { d })
        };
        let in_rank = |d: i64| (0..rank).contains(&d);
        let opaque = || Some(Step::Opaque(op, args.to_vec()));
        match name {
            // Conjugates are views of the same memory, with a bit that says so; the real part is every second element.
            "conj" | "real" | "_conj" | "mH" | "adjoint" | "matrix_H" if base.ty.dtype.is_complex() => opaque(),
            "alias" | "detach" | "positive" | "lift_fresh" | "resolve_conj" | "resolve_neg" | "conj" | "real"
            | "_conj" | "pin_memory" => Some(Step::Same),
            "dropout" | "feature_dropout" | "alpha_dropout" | "feature_alpha_dropout" => {
                match (args.get(1), args.get(2).and_then(Arg::as_bool)) {
                    (_, Some(false)) => Some(Step::Same),
                    (Some(Arg::Float(p)), _) if *p == 0.0 => Some(Step::Same),
                    _ => None,
                }
            }
            "to" | "type_as" | "_autocast_to_full_precision" | "_autocast_to_reduced_precision" => {
                let schema = op.schema();
                let copy = schema.position("copy").and_then(|i| args[i].as_bool()) == Some(true);
                let format = schema.position("memory_format").map(|i| &args[i]);
                let keeps = matches!(
                    format,
                    None | Some(Arg::None | Arg::MemoryFormat(MemoryFormat::Preserve))
                );
                if copy || base.ty.dtype != out.ty.dtype {
                    return None;
                }
                match same_strides {
                    _ if keeps => Some(Step::Same),
                    Some(Some(true)) => Some(Step::Same),
                    Some(Some(false)) => None,
                    _ => Some(Step::Unknown(op)),
                }
            }
            // A copy has other strides than its source, which would have been returned otherwise.
            "contiguous" => match same_strides {
                Some(Some(true)) => Some(Step::Same),
                Some(Some(false)) => None,
                _ => Some(Step::Unknown(op)),
            },
            "view" if overload == "dtype" => opaque(),
            "view" | "view_as" | "unsqueeze" | "squeeze" | "unflatten" | "_unsafe_view" | "_reshape_alias" => {
                Some(Step::Reshape)
            }
            "atleast_1d" | "atleast_2d" | "atleast_3d" if overload.is_empty() => Some(Step::Reshape),
            "reshape" | "reshape_as" | "flatten" | "ravel" => {
                let strides = base.strides.as_deref();
                match strides.map(|s| equal_strides(&base.ty.shape, s, &contiguous_strides(&base.ty.shape))) {
                    Some(Some(true)) => Some(Step::Reshape),
                    _ if same_shape && same_strides == Some(Some(true)) => Some(Step::Reshape),
                    Some(Some(false)) => match viewable(&base.ty.shape, strides?, &out.ty.shape) {
                        Some(true) => Some(Step::Reshape),
                        Some(false) => None,
                        None => Some(Step::Unknown(op)),
                    },
                    _ => Some(Step::Unknown(op)),
                }
            }
            "expand" | "expand_as" | "broadcast_to" | "sum_to_size" => {
                if without_ones(&base.ty.shape) == without_ones(&out.ty.shape) {
                    Some(Step::Reshape)
                } else if name == "sum_to_size" {
                    None
                } else {
                    opaque()
                }
            }
            "permute" => {
                let dims: Vec<i64> = args
                    .get(1)?
                    .as_ints()?
                    .iter()
                    .map(|d| if *d < 0 { d + rank } else { *d })
                    .collect();
                let mut sorted = dims.clone();
                sorted.sort_unstable();
                (sorted == (0..rank).collect::<Vec<_>>())
                    .then_some(Step::Permute(dims))
                    .or_else(opaque)
            }
            "transpose" | "swapaxes" | "swapdims" => match dim(1).zip(dim(2)) {
                Some((a, b)) if in_rank(a) && in_rank(b) => Some(Step::Permute(swapped(rank, a, b))),
                _ if rank == 0 => Some(Step::Same),
                _ => opaque(),
            },
            "t" if rank < 2 => Some(Step::Same),
            "t" | "mT" | "adjoint" | "mH" | "matrix_H" if rank >= 2 => {
                Some(Step::Permute(swapped(rank, rank - 2, rank - 1)))
            }
            "numpy_T" | "T" => Some(Step::Permute((0..rank).rev().collect())),
            "movedim" | "moveaxis" => {
                let list = |i: usize| match args.get(i) {
                    Some(Arg::Int(e)) => Some(vec![e.as_int()?]),
                    Some(other) => other.as_ints(),
                    None => None,
                };
                moved(rank, &list(1)?, &list(2)?).map(Step::Permute).or_else(opaque)
            }
            "slice" => Some(Step::Slice(args.get(1..5)?.to_vec())),
            "select" => Some(Step::Select(args.get(1..3)?.to_vec())),
            "diagonal" => Some(Step::Diagonal(args.get(1..4)?.to_vec())),
            "narrow" if overload.is_empty() => {
                let (Arg::Int(start), Arg::Int(length)) = (args.get(2)?, args.get(3)?) else {
                    return opaque();
                };
                // A negative start counts from the end.
                let dim = usize::try_from(dim(1)?).ok()?;
                let start = match start.as_int() {
                    Some(i64::MIN..0) => start.clone() + base.ty.shape.get(dim)?.clone(),
                    Some(_) => start.clone(),
                    None => return opaque(),
                };
                let end = start.clone() + length.clone();
                Some(Step::Slice(slice_args(dim, start, end)))
            }
            "unbind" => Some(Step::Select(vec![args.get(1)?.clone(), Arg::int(out.index as i64)])),
            "split" | "split_with_sizes" | "chunk" | "tensor_split" | "hsplit" | "vsplit" | "dsplit" => {
                let dim = match name {
                    "hsplit" if rank == 1 => 0,
                    "hsplit" => 1,
                    "vsplit" => 0,
                    "dsplit" => 2,
                    _ => dim(2)?,
                };
                let dim = usize::try_from(dim).ok()?;
                let mut start = Expr::Int(0);
                for ty in out.before {
                    start = start + ty.shape.get(dim)?.clone();
                }
                let end = start.clone() + out.ty.shape.get(dim)?.clone();
                Some(Step::Slice(slice_args(dim, start, end)))
            }
            _ if args.first().is_some_and(|a| matches!(a, Arg::Value(_))) => opaque(),
            _ => Some(Step::Unknown(op)),
        }
    }
}

fn slice_args(dim: usize, start: Expr, end: Expr) -> Vec<Arg> {
    vec![Arg::int(dim as i64), Arg::Int(start), Arg::Int(end), Arg::int(1)]
}

fn swapped(rank: i64, a: i64, b: i64) -> Vec<i64> {
    let mut dims: Vec<i64> = (0..rank).collect();
    dims.swap(a as usize, b as usize);
    dims
}

/// Dimensions of the permutation that `movedim` is.
fn moved(rank: i64, source: &[i64], destination: &[i64]) -> Option<Vec<i64>> {
    let wrap = |d: &i64| Some(if *d < 0 { d + rank } else { *d }).filter(|d| (0..rank).contains(d));
    let source: Vec<i64> = source.iter().map(wrap).collect::<Option<_>>()?;
    let destination: Vec<i64> = destination.iter().map(wrap).collect::<Option<_>>()?;
    let mut dims: Vec<Option<i64>> = vec![None; rank as usize];
    for (s, d) in source.iter().zip(&destination) {
        dims[*d as usize] = Some(*s);
    }
    let mut rest = (0..rank).filter(|d| !source.contains(d));
    dims.into_iter().map(|d| d.or_else(|| rest.next())).collect()
}

fn without_ones(shape: &[Expr]) -> Vec<&Expr> {
    shape.iter().filter(|s| s.as_int() != Some(1)).collect()
}

pub(crate) fn contiguous_strides(shape: &[Expr]) -> Vec<Expr> {
    let mut strides = vec![Expr::Int(1); shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d].clone() * shape[d].clone();
    }
    strides
}

/// True or false where it can be told; dimensions of one element do not count.
fn equal_strides(shape: &[Expr], a: &[Expr], b: &[Expr]) -> Option<bool> {
    if shape.iter().any(|s| s.as_int() == Some(0)) {
        return Some(true);
    }
    let differing = (0..shape.len()).filter(|d| shape[*d].as_int() != Some(1) && a.get(*d) != b.get(*d));
    let mut known = Some(true);
    for d in differing {
        let constants = a.get(d).and_then(Expr::as_int).zip(b.get(d).and_then(Expr::as_int));
        // A dimension of symbolic size may have one element, so that its stride does not matter.
        match constants.is_some() && shape[d].as_int().is_some() {
            true => return Some(false),
            false => known = None,
        }
    }
    known
}

/// Whether a reshape of strided memory is a view, as `at::detail::computeStride` tells it; `None` for symbolic sizes.
fn viewable(shape: &[Expr], strides: &[Expr], new: &[Expr]) -> Option<bool> {
    let ints = |list: &[Expr]| list.iter().map(Expr::as_int).collect::<Option<Vec<i64>>>();
    let (old, strides, new) = (ints(shape)?, ints(strides)?, ints(new)?);
    if old.contains(&0) || new.contains(&0) {
        return Some(true);
    }
    let mut view = new.len() as i64 - 1;
    let (mut old_count, mut new_count) = (1i64, 1i64);
    // Stride of the innermost dimension of the run; dimensions of one element may lie anywhere.
    let mut innermost = strides.last().copied().unwrap_or(1);
    for d in (0..old.len()).rev() {
        old_count = old_count.checked_mul(old[d])?;
        // The end of a run of dimensions that lie without gaps in memory.
        let run_ends = d == 0 || (old[d - 1] != 1 && Some(strides[d - 1]) != old_count.checked_mul(innermost));
        if run_ends {
            while view >= 0 && (new_count < old_count || new[view as usize] == 1) {
                new_count = new_count.checked_mul(new[view as usize])?;
                view -= 1;
            }
            if new_count != old_count {
                return Some(false);
            }
            (old_count, new_count) = (1, 1);
            innermost = if d > 0 { strides[d - 1] } else { 1 };
        }
    }
    Some(view == -1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(items: &[i64]) -> Vec<Expr> {
        items.iter().map(|i| Expr::Int(*i)).collect()
    }

    #[test]
    fn reshapes_of_strided_memory() {
        // Expectations: torch.empty_strided(shape, strides).reshape(new)._is_view()
        let cases: [(&[i64], &[i64], &[i64], bool); 9] = [
            (&[1, 4], &[77, 1], &[4], true),
            (&[3, 1], &[5, 9], &[3], true),
            (&[2, 3, 1, 4], &[12, 4, 7, 1], &[6, 4], true),
            (&[4, 6], &[1, 4], &[24], false),
            (&[4, 6], &[12, 1], &[2, 2, 6], true),
            (&[4, 6], &[12, 1], &[4, 2, 3], true),
            (&[4, 6], &[12, 1], &[24], false),
            (&[2, 3, 4], &[24, 4, 1], &[2, 12], true),
            (&[2, 1, 4], &[4, 99, 1], &[8], true),
        ];
        for (shape, strides, new, want) in cases {
            assert_eq!(
                viewable(&ints(shape), &ints(strides), &ints(new)),
                Some(want),
                "{shape:?} {strides:?} {new:?}"
            );
        }
    }

    #[test]
    fn strides_of_single_elements_do_not_count() {
        assert_eq!(
            equal_strides(&ints(&[1, 3]), &ints(&[7, 1]), &ints(&[3, 1])),
            Some(true)
        );
        assert_eq!(
            equal_strides(&ints(&[2, 3]), &ints(&[7, 1]), &ints(&[3, 1])),
            Some(false)
        );
        let symbolic = [Expr::symbol("s0"), Expr::Int(3)];
        assert_eq!(equal_strides(&symbolic, &ints(&[7, 1]), &ints(&[3, 1])), None);
    }

    #[test]
    fn movedim_is_a_permutation() {
        assert_eq!(moved(3, &[0], &[-1]), Some(vec![1, 2, 0]));
        assert_eq!(moved(4, &[0, 1], &[2, 3]), Some(vec![2, 3, 0, 1]));
        assert_eq!(moved(2, &[5], &[0]), None);
    }
}
