//! Operators that put tensors together or take them apart.

use super::Rule;
use super::call::{Call, Result};
use crate::{Arg, Expr, TensorType, Type};
use delegraph_types::{DType, MAX_RANK, Operand, result_dtype};

pub(super) fn rule(base: &str) -> Option<Rule> {
    Some(match base {
        "cat" | "concat" | "concatenate" => |c| {
            let parts = c.tensors("tensors")?;
            let shapes: Vec<&[Expr]> = parts.iter().map(|t| t.shape.as_slice()).collect();
            cat(c, &parts, &shapes, None)
        },
        "hstack" | "column_stack" => |c| {
            let parts = c.tensors("tensors")?;
            let columns = c.schema.name.starts_with("aten::column");
            let shapes: Vec<Vec<Expr>> = parts
                .iter()
                .map(|t| match (t.rank(), columns) {
                    (0, true) => vec![1.into(), 1.into()],
                    (0, false) => vec![1.into()],
                    (1, true) => vec![t.shape[0].clone(), 1.into()],
                    _ => t.shape.clone(),
                })
                .collect();
            let shapes: Vec<&[Expr]> = shapes.iter().map(Vec::as_slice).collect();
            let dim = usize::from(shapes.first().is_some_and(|s| s.len() > 1));
            cat(c, &parts, &shapes, Some(dim))
        },
        "vstack" | "row_stack" => |c| stacked(c, 0),
        "dstack" => |c| stacked(c, 2),
        "stack" | "_stack" => stack,
        "split" | "unsafe_split" | "split_with_sizes" | "unsafe_split_with_sizes" => split,
        "chunk" | "unsafe_chunk" => chunk,
        "tensor_split" => tensor_split,
        "hsplit" | "vsplit" | "dsplit" => nsplit,
        "unbind" => unbind,
        "broadcast_tensors" => broadcast_tensors,
        "meshgrid" => meshgrid,
        "cartesian_prod" => |c| {
            let parts = c.tensors("tensors")?;
            let count = Expr::product(parts.iter().flat_map(|t| &t.shape));
            let dtype = joined_dtype(c, &parts)?;
            match parts.len() {
                1 => c.one(dtype, vec![count]),
                n => c.one(dtype, vec![count, Expr::Int(n as i64)]),
            }
        },
        "block_diag" => |c| {
            let parts = c.tensors("tensors")?;
            let mut side = [Expr::Int(0), Expr::Int(0)];
            for t in &parts {
                let one = Expr::Int(1);
                let (rows, columns) = match t.shape.as_slice() {
                    [] => (&one, &one),
                    [n] => (&one, n),
                    [rows, columns] => (rows, columns),
                    _ => return c.invalid(format!("{t}: expected a matrix")),
                };
                side = [side[0].clone() + rows.clone(), side[1].clone() + columns.clone()];
            }
            c.one(joined_dtype(c, &parts)?, side.to_vec())
        },
        _ => return None,
    })
}

/// The promoted dtype of a list of tensors.
fn joined_dtype(c: &Call, parts: &[&TensorType]) -> Result<DType> {
    match result_dtype(parts.iter().map(|t| Operand::tensor(t.dtype, t.rank()))) {
        Some(dtype) => Ok(dtype),
        None => c.invalid("no tensors"),
    }
}

fn cat(c: &Call, parts: &[&TensorType], shapes: &[&[Expr]], dim: Option<usize>) -> Result<Vec<Type>> {
    let dtype = joined_dtype(c, parts)?;
    // PyTorch skips empty vectors (`f32[0]`), whatever the others' rank.
    let skipped = |s: &&&[Expr]| !(s.len() == 1 && s[0].as_int() == Some(0));
    let mut real = shapes.iter().filter(skipped);
    let Some(first) = real.next() else {
        return c.one(dtype, vec![Expr::Int(0)]);
    };
    if first.is_empty() {
        return c.invalid("0-dim tensors cannot be concatenated");
    }
    let dim = match dim {
        Some(dim) => dim,
        None => c.dim("dim", first.len())?,
    };
    let mut shape = first.to_vec();
    for other in real {
        if other.len() != shape.len() {
            return c.invalid(format!("ranks {} and {} differ", shape.len(), other.len()));
        }
        for d in 0..shape.len() {
            shape[d] = match d == dim {
                true => shape[d].clone() + other[d].clone(),
                false => c.same_size(&shape[d], &other[d])?,
            };
        }
    }
    c.one(dtype, shape)
}

/// `vstack` and `dstack`: rank 2 (3) at least, then joined along `dim`.
fn stacked(c: &Call, dim: usize) -> Result<Vec<Type>> {
    let parts = c.tensors("tensors")?;
    let one = || Expr::Int(1);
    let shapes: Vec<Vec<Expr>> = parts
        .iter()
        .map(|t| match (t.shape.as_slice(), dim) {
            ([], 0) => vec![one(), one()],
            ([n], 0) => vec![one(), n.clone()],
            ([], _) => vec![one(), one(), one()],
            ([n], _) => vec![one(), n.clone(), one()],
            ([a, b], 2) => vec![a.clone(), b.clone(), one()],
            (shape, _) => shape.to_vec(),
        })
        .collect();
    let shapes: Vec<&[Expr]> = shapes.iter().map(Vec::as_slice).collect();
    cat(c, &parts, &shapes, Some(dim))
}

fn stack(c: &Call) -> Result<Vec<Type>> {
    let parts = c.tensors("tensors")?;
    let dtype = joined_dtype(c, &parts)?;
    let mut shape = parts[0].shape.clone();
    for other in &parts[1..] {
        if other.rank() != shape.len() {
            return c.invalid(format!("ranks {} and {} differ", shape.len(), other.rank()));
        }
        for (size, other) in shape.iter_mut().zip(&other.shape) {
            *size = c.same_size(size, other)?;
        }
    }
    let dim = c.dim("dim", shape.len() + 1)?;
    shape.insert(dim, Expr::Int(parts.len() as i64));
    c.one(dtype, shape)
}

/// More pieces than this are not a graph that anybody wrote.
const MAX_PIECES: i64 = 1 << 16;

/// One type a piece, sizes along `dim` given.
fn pieces(c: &Call, t: &TensorType, dim: usize, sizes: Vec<Expr>) -> Result<Vec<Type>> {
    sizes
        .into_iter()
        .map(|size| {
            let mut shape = t.shape.clone();
            shape[dim] = size;
            c.made(t.dtype, shape)
        })
        .collect()
}

/// Pieces of `size` along `dim`, the last one smaller.
fn even_pieces(c: &Call, t: &TensorType, dim: usize, size: &Expr) -> Result<Vec<Type>> {
    let total = &t.shape[dim];
    let (Some(n), Some(size)) = (total.as_int(), size.as_int()) else {
        // Symbols that cancel: `split(x, s0 * 2 // 2)`.
        return match total.clone().floor_div(size.clone()).as_int() {
            Some(count @ 1..MAX_PIECES) if size.clone() * Expr::Int(count) == *total => {
                pieces(c, t, dim, vec![size.clone(); count as usize])
            }
            _ => c.unsupported("a split into a symbolic number of pieces"),
        };
    };
    if size < 0 || (size == 0 && n != 0) {
        return c.invalid(format!("pieces of size {size}"));
    }
    let count = if n == 0 { 1 } else { (n + size - 1) / size };
    if count > MAX_PIECES {
        return c.invalid(format!("{count} pieces"));
    }
    let sizes = (0..count).map(|i| Expr::Int(size.min(n - i * size))).collect();
    pieces(c, t, dim, sizes)
}

fn split(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, 1)?;
    let dim = c.dim("dim", t.rank())?;
    let name = if c.has("split_size") {
        "split_size"
    } else {
        "split_sizes"
    };
    match c.arg(name) {
        Arg::Ints(sizes) => {
            let sum = sizes.iter().fold(Expr::Int(0), |acc, s| acc + s.clone());
            c.same_size(&sum, &t.shape[dim])?;
            pieces(c, t, dim, sizes.clone())
        }
        _ => even_pieces(c, t, dim, &c.int(name)?),
    }
}

fn chunk(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, 1)?;
    let dim = c.dim("dim", t.rank())?;
    let chunks = c.fixed_int("chunks")?;
    if !(1..=MAX_PIECES).contains(&chunks) {
        return c.invalid(format!("{chunks} chunks"));
    }
    let size = c.ceil_div(t.shape[dim].clone(), Expr::Int(chunks));
    if t.shape[dim].as_int() == Some(0) {
        return pieces(c, t, dim, vec![Expr::Int(0); chunks as usize]);
    }
    if t.shape[dim].as_int().is_none() {
        // The exporter fixed the number of chunks: all but the last are whole.
        let whole = Expr::Int(chunks - 1) * size.clone();
        let last = t.shape[dim].clone() - whole;
        let mut sizes = vec![size; chunks as usize - 1];
        sizes.push(last);
        return pieces(c, t, dim, sizes);
    }
    even_pieces(c, t, dim, &size)
}

fn tensor_split(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, 1)?;
    let dim = c.dim("dim", t.rank())?;
    split_at(c, t, dim)
}

fn nsplit(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    let name = c.schema.name.as_str();
    let dim = match t.rank() {
        0 => return c.invalid(format!("{t}: expected a dimension to split")),
        1 => 0,
        _ if name.starts_with("aten::h") => 1,
        _ if name.starts_with("aten::v") => 0,
        2 => return c.invalid(format!("{t}: expected rank 3")),
        _ => 2,
    };
    split_at(c, t, dim)
}

/// By `indices`, or into `sections` nearly equal ones.
fn split_at(c: &Call, t: &TensorType, dim: usize) -> Result<Vec<Type>> {
    let total = t.shape[dim].clone();
    if c.has("indices") {
        let mut at = Expr::Int(0);
        let mut sizes = Vec::new();
        for index in c.ints("indices")? {
            let index = match index.as_int() {
                Some(i) if i < 0 => c.not_negative(total.clone() + index),
                _ => c.smaller(&index, &total),
            };
            sizes.push(c.not_negative(index.clone() - at));
            at = index;
        }
        sizes.push(total - at);
        return pieces(c, t, dim, sizes);
    }
    let sections = c.fixed_int("sections")?;
    if !(1..=MAX_PIECES).contains(&sections) {
        return c.invalid(format!("{sections} sections"));
    }
    let Some(n) = total.as_int() else {
        return c.unsupported("splitting a symbolic size into sections");
    };
    let sizes = (0..sections)
        .map(|i| Expr::Int(n / sections + i64::from(i < n % sections)))
        .collect();
    pieces(c, t, dim, sizes)
}

fn unbind(c: &Call) -> Result<Vec<Type>> {
    let t = c.first()?;
    c.rank_at_least(t, 1)?;
    let dim = c.dim("dim", t.rank())?;
    let Some(count) = t.shape[dim].as_int() else {
        return c.unsupported("unbinding a symbolic size");
    };
    if count > MAX_PIECES {
        return c.invalid(format!("{count} pieces"));
    }
    let mut shape = t.shape.clone();
    shape.remove(dim);
    (0..count).map(|_| c.made(t.dtype, shape.clone())).collect()
}

fn broadcast_tensors(c: &Call) -> Result<Vec<Type>> {
    let parts = c.tensors("tensors")?;
    let mut shape = Vec::new();
    for t in &parts {
        shape = c.broadcast(&shape, &t.shape)?;
    }
    parts.iter().map(|t| c.made(t.dtype, shape.clone())).collect()
}

fn meshgrid(c: &Call) -> Result<Vec<Type>> {
    let parts = c.tensors("tensors")?;
    if parts.len() > MAX_RANK {
        return c.invalid(format!("{} tensors", parts.len()));
    }
    let mut shape = Vec::with_capacity(parts.len());
    for t in &parts {
        shape.push(match t.shape.as_slice() {
            [] => Expr::Int(1),
            [n] => n.clone(),
            _ => return c.invalid(format!("{t}: expected a vector")),
        });
    }
    if c.has("indexing") && c.str("indexing")? == "xy" && shape.len() >= 2 {
        shape.swap(0, 1);
    }
    parts.iter().map(|t| c.made(t.dtype, shape.clone())).collect()
}
