//! Products of matrices and vectors, and attention.

use super::Rule;
use super::call::{Call, Result};
use crate::{Expr, TensorType, Type};
use delegraph_types::DType;
use std::collections::BTreeMap;

pub(super) fn rule(base: &str) -> Option<Rule> {
    Some(match base {
        "mm" | "matmul" | "linalg_matmul" | "mv" | "dot" | "vdot" | "_int_mm" | "bmm" | "int_matmul" => |c| {
            let [a, b] = two(c)?;
            let dtype = match c.dtype("out_dtype")? {
                Some(dtype) => dtype,
                None if c.schema.name.ends_with("_int_mm") => DType::I32,
                None => a.dtype,
            };
            c.one(dtype, matmul(c, &a.shape, &b.shape)?)
        },
        "addmm" | "_addmm_activation" => |c| {
            let (a, b) = (c.tensor("mat1")?, c.tensor("mat2")?);
            added(c, &matmul(c, &a.shape, &b.shape)?)
        },
        "addmv" => |c| {
            let (a, b) = (c.tensor("mat")?, c.tensor("vec")?);
            added(c, &matmul(c, &a.shape, &b.shape)?)
        },
        "addr" => |c| {
            let (a, b) = (c.tensor("vec1")?, c.tensor("vec2")?);
            let dtype = c.promoted(&["self", "vec1", "vec2"])?;
            c.one(dtype, outer(c, a, b)?)
        },
        "baddbmm" => |c| {
            let (a, b) = (c.tensor("batch1")?, c.tensor("batch2")?);
            added(c, &matmul(c, &a.shape, &b.shape)?)
        },
        "addbmm" => |c| {
            let (a, b) = (c.tensor("batch1")?, c.tensor("batch2")?);
            let product = matmul(c, &a.shape, &b.shape)?;
            added(c, product.get(1..).unwrap_or_default())
        },
        "linear" => |c| {
            let (x, w) = (c.tensor("input")?, c.tensor("weight")?);
            c.rank_at_least(x, 1)?;
            let mut shape = x.shape.clone();
            let inner = shape.pop().unwrap_or(Expr::Int(1));
            match w.shape.as_slice() {
                [k] => {
                    c.same_size(&inner, k)?;
                }
                [out, k] => {
                    c.same_size(&inner, k)?;
                    shape.push(out.clone());
                }
                _ => return c.invalid(format!("weight {w}: expected a matrix")),
            }
            c.one(x.dtype, shape)
        },
        "outer" | "ger" => |c| {
            let [a, b] = two(c)?;
            c.one(DType::promote(a.dtype, b.dtype), outer(c, a, b)?)
        },
        "inner" => |c| {
            let [a, b] = two(c)?;
            if a.rank() == 0 || b.rank() == 0 {
                return c.one(a.dtype, c.broadcast(&a.shape, &b.shape)?);
            }
            let shape = [&a.shape[..a.rank() - 1], &b.shape[..b.rank() - 1]].concat();
            c.one(a.dtype, shape)
        },
        "kron" => |c| {
            let [a, b] = two(c)?;
            let rank = a.rank().max(b.rank());
            let at = |t: &TensorType, d: usize| match (d + t.rank()).checked_sub(rank) {
                Some(i) => t.shape[i].clone(),
                None => Expr::Int(1),
            };
            c.one(
                DType::promote(a.dtype, b.dtype),
                (0..rank).map(|d| at(a, d) * at(b, d)).collect(),
            )
        },
        "tensordot" => tensordot,
        "einsum" => einsum,
        "bilinear" => |c| {
            let (a, b, w) = (c.tensor("input1")?, c.tensor("input2")?, c.tensor("weight")?);
            c.rank_at_least(a, 1)?;
            c.rank_at_least(b, 1)?;
            c.rank_at_least(w, 1)?;
            let mut shape = a.shape[..a.rank() - 1].to_vec();
            shape.push(w.shape[0].clone());
            c.one(a.dtype, shape)
        },
        "chain_matmul" | "linalg_multi_dot" => |c| {
            let parts = c.tensors(if c.has("matrices") { "matrices" } else { "tensors" })?;
            let Some((first, rest)) = parts.split_first() else {
                return c.invalid("no tensors");
            };
            let mut shape = first.shape.clone();
            for t in rest {
                shape = matmul(c, &shape, &t.shape)?;
            }
            c.one(first.dtype, shape)
        },
        "linalg_vecdot" => |c| {
            let (a, b) = (c.tensor("x")?, c.tensor("y")?);
            let mut shape = c.broadcast(&a.shape, &b.shape)?;
            if shape.is_empty() {
                return c.invalid("expected a vector");
            }
            shape.remove(c.dim("dim", shape.len())?);
            c.one(a.dtype, shape)
        },
        "cross" | "linalg_cross" => |c| {
            let [a, b] = two(c)?;
            c.one(DType::promote(a.dtype, b.dtype), c.broadcast(&a.shape, &b.shape)?)
        },
        "scaled_dot_product_attention" => |c| c.one(c.tensor("query")?.dtype, attention(c)?),
        "_scaled_dot_product_attention_math" => |c| {
            let (q, k) = (c.tensor("query")?, c.tensor("key")?);
            let out = c.made(q.dtype, attention(c)?)?;
            let mut weights = q.shape.clone();
            let n = weights.len();
            weights[n - 1] = k.shape[k.rank() - 2].clone();
            Ok(vec![out, c.made(q.dtype, weights)?])
        },
        "_scaled_dot_product_flash_attention_for_cpu" => |c| {
            let q = c.tensor("query")?;
            let out = attention(c)?;
            let lse = out[..out.len() - 1].to_vec();
            Ok(vec![c.made(q.dtype, out)?, c.made(DType::F32, lse)?])
        },
        "cdist" | "_cdist_forward" | "_euclidean_dist" => |c| {
            let (a, b) = (c.tensor("x1")?, c.tensor("x2")?);
            c.rank_at_least(a, 2)?;
            c.rank_at_least(b, 2)?;
            let mut shape = c.broadcast(&a.shape[..a.rank() - 2], &b.shape[..b.rank() - 2])?;
            shape.extend([a.shape[a.rank() - 2].clone(), b.shape[b.rank() - 2].clone()]);
            c.one(DType::promote(a.dtype, b.dtype), shape)
        },
        "_pdist_forward" | "pdist" => |c| {
            let t = c.first()?;
            c.rank_at_least(t, 2)?;
            let n = t.shape[0].clone();
            c.one(t.dtype, vec![(n.clone() * (n - Expr::Int(1))).floor_div(Expr::Int(2))])
        },
        _ => return None,
    })
}

/// The first two tensor arguments.
fn two<'a>(c: &Call<'a>) -> Result<[&'a TensorType; 2]> {
    match c.schema.params.as_slice() {
        [a, b, ..] => {
            let (a, b) = (a.name.clone(), b.name.clone());
            Ok([c.tensor(&a)?, c.tensor(&b)?])
        }
        _ => c.invalid("expected two operands"),
    }
}

/// The shape of `torch.matmul`, all rank mixes.
fn matmul(c: &Call, a: &[Expr], b: &[Expr]) -> Result<Vec<Expr>> {
    let (Some(inner_a), Some(inner_b)) = (a.last(), b.get(b.len().max(2) - 2)) else {
        return c.invalid("a 0-dim tensor has no product");
    };
    c.same_size(inner_a, inner_b)?;
    let batch = |s: &[Expr]| s[..s.len().max(2) - 2].to_vec();
    let (batch_a, batch_b) = (
        if a.len() > 2 { batch(a) } else { vec![] },
        if b.len() > 2 { batch(b) } else { vec![] },
    );
    let mut shape = c.broadcast(&batch_a, &batch_b)?;
    if a.len() >= 2 {
        shape.push(a[a.len() - 2].clone());
    }
    if b.len() >= 2 {
        shape.push(b[b.len() - 1].clone());
    }
    Ok(shape)
}

/// `self` plus a product: the product's shape, which `self` broadcasts to.
fn added(c: &Call, product: &[Expr]) -> Result<Vec<Type>> {
    let t = c.first()?;
    let shape = c.broadcast(&t.shape, product)?;
    if shape.len() != product.len() {
        return c.invalid(format!("{t} does not broadcast to the product"));
    }
    c.one(t.dtype, shape)
}

fn outer(c: &Call, a: &TensorType, b: &TensorType) -> Result<Vec<Expr>> {
    match (a.shape.as_slice(), b.shape.as_slice()) {
        ([n], [m]) => Ok(vec![n.clone(), m.clone()]),
        _ => c.invalid(format!("{a} and {b}: expected two vectors")),
    }
}

fn tensordot(c: &Call) -> Result<Vec<Type>> {
    let [a, b] = two(c)?;
    let dims_a = c.dims("dims_self", a.rank())?.unwrap_or_default();
    let dims_b = c.dims("dims_other", b.rank())?.unwrap_or_default();
    if dims_a.len() != dims_b.len() {
        return c.invalid("`dims_self` and `dims_other` differ in length");
    }
    let keep = |t: &TensorType, dims: &[usize]| -> Vec<Expr> {
        (0..t.rank())
            .filter(|d| !dims.contains(d))
            .map(|d| t.shape[d].clone())
            .collect()
    };
    c.one(a.dtype, [keep(a, &dims_a), keep(b, &dims_b)].concat())
}

fn attention(c: &Call) -> Result<Vec<Expr>> {
    let (q, k, v) = (c.tensor("query")?, c.tensor("key")?, c.tensor("value")?);
    for t in [q, k, v] {
        c.rank_at_least(t, 2)?;
    }
    let lead = |t: &'_ TensorType, n: usize| t.shape[..t.rank().saturating_sub(n)].to_vec();
    let mut shape = match c.bool("enable_gqa")? {
        // Keys and values are repeated to the query's heads, which are the third dimension from the end.
        true if q.rank() >= 3 => {
            let mut batch = c.broadcast(&lead(q, 3), &lead(k, 3))?;
            batch = c.broadcast(&batch, &lead(v, 3))?;
            batch.push(q.shape[q.rank() - 3].clone());
            batch
        }
        _ => c.broadcast(&c.broadcast(&lead(q, 2), &lead(k, 2))?, &lead(v, 2))?,
    };
    c.same_size(&q.shape[q.rank() - 1], &k.shape[k.rank() - 1])?;
    c.same_size(&k.shape[k.rank() - 2], &v.shape[v.rank() - 2])?;
    shape.extend([q.shape[q.rank() - 2].clone(), v.shape[v.rank() - 1].clone()]);
    Ok(shape)
}

/// `einsum` with letters, `...` and an implicit output.
fn einsum(c: &Call) -> Result<Vec<Type>> {
    let parts = c.tensors("tensors")?;
    let equation: String = c.str("equation")?.chars().filter(|ch| !ch.is_whitespace()).collect();
    let (inputs, output) = match equation.split_once("->") {
        Some((inputs, output)) => (inputs, Some(output)),
        None => (equation.as_str(), None),
    };
    let terms: Vec<&str> = inputs.split(',').collect();
    if terms.len() != parts.len() || parts.is_empty() {
        return c.invalid(format!("{} terms for {} tensors", terms.len(), parts.len()));
    }
    let mut sizes: BTreeMap<char, Expr> = BTreeMap::new();
    let mut count: BTreeMap<char, usize> = BTreeMap::new();
    let mut ellipsis: Vec<Expr> = Vec::new();
    for (term, t) in terms.iter().zip(&parts) {
        let (left, right) = term.split_once("...").unwrap_or((term, ""));
        let letters = left.chars().count() + right.chars().count();
        if letters > t.rank() || (letters != t.rank() && !term.contains("...")) {
            return c.invalid(format!("term `{term}` does not fit {t}"));
        }
        let middle = t.rank() - letters;
        let start = left.chars().count();
        ellipsis = c.broadcast(&ellipsis, &t.shape[start..start + middle])?;
        let labelled = left
            .chars()
            .zip(&t.shape)
            .chain(right.chars().zip(&t.shape[start + middle..]));
        for (label, size) in labelled {
            if !label.is_ascii_alphabetic() {
                return c.invalid(format!("`{label}` is not a letter"));
            }
            *count.entry(label).or_insert(0) += 1;
            let merged = match sizes.get(&label) {
                Some(have) => c.broadcast_size(have, size)?,
                None => size.clone(),
            };
            sizes.insert(label, merged);
        }
    }
    // BTreeMap is sorted as einsum's implicit output is: capitals first.
    let implicit: String = count.iter().filter(|(_, n)| **n == 1).map(|(l, _)| *l).collect();
    let output = output.map_or(format!("...{implicit}"), str::to_string);
    let mut shape = Vec::new();
    let (left, right) = match output.split_once("...") {
        Some((left, right)) => (left, Some(right)),
        None => (output.as_str(), None),
    };
    let push = |labels: &str, shape: &mut Vec<Expr>| -> Result<()> {
        for label in labels.chars() {
            match sizes.get(&label) {
                Some(size) => shape.push(size.clone()),
                None => return c.invalid(format!("label `{label}` of the output is in no term")),
            }
        }
        Ok(())
    };
    push(left, &mut shape)?;
    if let Some(right) = right {
        shape.extend(ellipsis);
        push(right, &mut shape)?;
    }
    // A label that one term has alone is summed first, which makes integers i64.
    let alone = |label: char| terms.iter().filter(|term| term.contains(label)).count() == 1;
    let summed = count.keys().any(|&label| alone(label) && !output.contains(label));
    let dtype = parts[0].dtype;
    let dtype = if summed && !dtype.is_float() && !dtype.is_complex() {
        DType::I64
    } else {
        dtype
    };
    c.one(dtype, shape)
}
