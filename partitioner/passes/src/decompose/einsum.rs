//! `aten::einsum`: parsed, then contracted pair by pair from the left by batched matrix products.

use super::{Replacement, Rules, one};
use crate::PassError;
use crate::args;
use crate::rewrite::Rewrite;
use delegraph_ir::{Expr, ValueId};
use std::collections::BTreeMap;

pub(super) const RULES: Rules = &[("aten::einsum", einsum)];

/// A subscript: a letter, or a dimension under the ellipsis counted from its right end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    /// Sorted first and from the left, as they stand in an implicit output.
    Ellipsis(std::cmp::Reverse<usize>),
    Letter(char),
}

/// A tensor and the labels of its dimensions, each once.
#[derive(Debug, Clone)]
struct Operand {
    value: ValueId,
    labels: Vec<Label>,
}

fn einsum(rw: &mut Rewrite) -> Replacement {
    let (equation, values) = (rw.text(0)?, rw.tensors(1)?);
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (inputs, output) = match equation.split_once("->") {
        Some((inputs, output)) => (inputs, Some(output)),
        None => (equation.as_str(), None),
    };
    let terms: Vec<&str> = inputs.split(',').collect();
    if terms.len() != values.len() {
        return Err(rw.invalid(format!("{} terms for {} operands", terms.len(), values.len())));
    }
    let mut operands = Vec::with_capacity(values.len());
    let mut ellipsis = 0;
    let mut counts: BTreeMap<Label, usize> = BTreeMap::new();
    for (term, value) in terms.iter().zip(values) {
        let labels = subscripts(rw, term, Some(rw.rank(value)?))?;
        for label in &labels {
            *counts.entry(*label).or_default() += 1;
            if let Label::Ellipsis(std::cmp::Reverse(i)) = label {
                ellipsis = ellipsis.max(i + 1);
            }
        }
        operands.push(diagonals(rw, value, labels)?);
    }
    let output: Vec<Label> = match output {
        Some(text) => subscripts(rw, text, None)?
            .into_iter()
            .flat_map(|label| match label {
                // Written without a rank: stands for all of them.
                Label::Ellipsis(std::cmp::Reverse(usize::MAX)) => all_ellipsis(ellipsis),
                other => vec![other],
            })
            .collect(),
        None => counts
            .iter()
            .filter(|(label, count)| matches!(label, Label::Ellipsis(_)) || **count == 1)
            .map(|(label, _)| *label)
            .collect(),
    };
    for (i, label) in output.iter().enumerate() {
        if output[..i].contains(label) || !counts.contains_key(label) {
            return Err(rw.invalid("the output names a subscript twice, or one that no operand has"));
        }
    }
    let mut rest = operands.into_iter();
    let first = rest.next().ok_or_else(|| rw.invalid("no operands"))?;
    let mut rest: Vec<Operand> = rest.rev().collect();
    let mut left = first;
    while let Some(right) = rest.pop() {
        let kept = |label: &Label| output.contains(label) || rest.iter().any(|operand| operand.labels.contains(label));
        left = pair(rw, left, right, &kept)?;
    }
    let left = summed(rw, left, &|label| output.contains(label))?;
    let order: Option<Vec<usize>> = output
        .iter()
        .map(|label| left.labels.iter().position(|l| l == label))
        .collect();
    let order = order.ok_or_else(|| rw.invalid("a subscript of the output was lost"))?;
    one(rw.permute(left.value, &order))
}

fn all_ellipsis(count: usize) -> Vec<Label> {
    (0..count)
        .rev()
        .map(|i| Label::Ellipsis(std::cmp::Reverse(i)))
        .collect()
}

/// The labels of a term; with a rank, the ellipsis is written out, without one it is a single mark.
fn subscripts(rw: &Rewrite, term: &str, rank: Option<usize>) -> Result<Vec<Label>, PassError> {
    let letters = term.chars().filter(char::is_ascii_alphabetic).count();
    let hidden = match rank {
        Some(rank) => rank.checked_sub(letters),
        None => Some(0),
    };
    let hidden =
        hidden.ok_or_else(|| rw.invalid(format!("`{term}` has more subscripts than its operand has dimensions")))?;
    let (mut labels, mut seen, mut rest) = (Vec::new(), false, term);
    while let Some(c) = rest.chars().next() {
        if let Some(tail) = rest.strip_prefix("...") {
            if seen {
                return Err(rw.invalid(format!("`{term}` has two ellipses")));
            }
            seen = true;
            match rank {
                Some(_) => labels.extend(all_ellipsis(hidden)),
                None => labels.push(Label::Ellipsis(std::cmp::Reverse(usize::MAX))),
            }
            rest = tail;
        } else if c.is_ascii_alphabetic() {
            labels.push(Label::Letter(c));
            rest = &rest[1..];
        } else {
            return Err(rw.invalid(format!("`{c}` is not a subscript")));
        }
    }
    if !seen && hidden != 0 {
        return Err(rw.invalid(format!("`{term}` has fewer subscripts than its operand has dimensions")));
    }
    Ok(labels)
}

/// A subscript that is repeated in one term takes the diagonal.
fn diagonals(rw: &mut Rewrite, mut value: ValueId, mut labels: Vec<Label>) -> Result<Operand, PassError> {
    while let Some((first, second)) = repeated(&labels) {
        value = rw.emit("aten::diagonal", args![value, 0, first as i64, second as i64])?;
        let label = labels.remove(second);
        labels.remove(first);
        labels.push(label);
    }
    Ok(Operand { value, labels })
}

fn repeated(labels: &[Label]) -> Option<(usize, usize)> {
    labels.iter().enumerate().find_map(|(second, label)| {
        let first = labels[..second].iter().position(|l| l == label)?;
        Some((first, second))
    })
}

/// Sums away the labels that are not kept.
fn summed(rw: &mut Rewrite, operand: Operand, kept: &dyn Fn(&Label) -> bool) -> Result<Operand, PassError> {
    let dims: Vec<i64> = (0..operand.labels.len())
        .filter(|&d| !kept(&operand.labels[d]))
        .map(|d| d as i64)
        .collect();
    if dims.is_empty() {
        return Ok(operand);
    }
    let dtype = rw.dtype(operand.value)?;
    let value = rw.emit("aten::sum.dim_IntList", args![operand.value, dims, false, dtype])?;
    let labels = operand.labels.into_iter().filter(|label| kept(label)).collect();
    Ok(Operand { value, labels })
}

/// Drops a dimension of size 1 whose label the other operand has at another size: it broadcasts.
fn without_ones(rw: &mut Rewrite, operand: Operand, other: &Operand) -> Result<Operand, PassError> {
    let (mine, theirs) = (rw.shape(operand.value)?, rw.shape(other.value)?);
    let drops = |d: usize| {
        let at = other.labels.iter().position(|l| *l == operand.labels[d]);
        mine[d].as_int() == Some(1) && at.is_some_and(|at| theirs[at].as_int() != Some(1))
    };
    let stays: Vec<usize> = (0..mine.len()).filter(|&d| !drops(d)).collect();
    if stays.len() == mine.len() {
        return Ok(operand);
    }
    let value = rw.view(operand.value, stays.iter().map(|&d| mine[d].clone()).collect())?;
    let labels = stays.iter().map(|&d| operand.labels[d]).collect();
    Ok(Operand { value, labels })
}

/// The sum over all labels that are not kept of the products of two operands.
fn pair(rw: &mut Rewrite, left: Operand, right: Operand, kept: &dyn Fn(&Label) -> bool) -> Result<Operand, PassError> {
    let left = without_ones(rw, left, &right)?;
    let right = without_ones(rw, right, &left)?;
    let right_labels = right.labels.clone();
    let left = summed(rw, left, &|label| kept(label) || right_labels.contains(label))?;
    let left_labels = left.labels.clone();
    let right = summed(rw, right, &|label| kept(label) || left_labels.contains(label))?;
    let shared = |kept_too: bool| -> Vec<Label> {
        let both = left.labels.iter().filter(|label| right.labels.contains(label));
        both.copied().filter(|label| kept(label) == kept_too).collect()
    };
    let (batch, inner) = (shared(true), shared(false));
    let own = |a: &Operand, b: &Operand| -> Vec<Label> {
        a.labels
            .iter()
            .copied()
            .filter(|label| !b.labels.contains(label))
            .collect()
    };
    let (rows, columns) = (own(&left, &right), own(&right, &left));
    let size_of = |rw: &Rewrite, operand: &Operand, labels: &[Label]| -> Result<Vec<Expr>, PassError> {
        labels
            .iter()
            .map(|label| match operand.labels.iter().position(|l| l == label) {
                Some(d) => rw.size(operand.value, d),
                None => Err(rw.invalid("a subscript was lost")),
            })
            .collect()
    };
    let (batch_size, inner_size) = (size_of(rw, &left, &batch)?, size_of(rw, &left, &inner)?);
    let (row_size, column_size) = (size_of(rw, &left, &rows)?, size_of(rw, &right, &columns)?);
    for (label, size) in batch.iter().zip(&batch_size).chain(inner.iter().zip(&inner_size)) {
        let other = size_of(rw, &right, &[*label])?;
        if let (Some(a), Some(b)) = (size.as_int(), other[0].as_int())
            && a != b
        {
            return Err(rw.invalid(format!("a subscript has sizes {a} and {b}")));
        }
    }
    let arrange = |rw: &mut Rewrite, operand: &Operand, order: &[&[Label]], shape: Vec<Expr>| {
        let order: Vec<usize> = order
            .iter()
            .flat_map(|labels| labels.iter())
            .filter_map(|label| operand.labels.iter().position(|l| l == label))
            .collect();
        let value = rw.permute(operand.value, &order)?;
        rw.view(value, shape)
    };
    let (b, r, c, i) = (
        Expr::product(&batch_size),
        Expr::product(&row_size),
        Expr::product(&column_size),
        Expr::product(&inner_size),
    );
    let value = if inner.is_empty() {
        let one = || Expr::Int(1);
        let x = arrange(rw, &left, &[&batch, &rows], vec![b.clone(), r.clone(), one()])?;
        let y = arrange(rw, &right, &[&batch, &columns], vec![b, one(), c])?;
        rw.mul(x, y)?
    } else if batch.is_empty() {
        let x = arrange(rw, &left, &[&rows, &inner], vec![r, i.clone()])?;
        let y = arrange(rw, &right, &[&inner, &columns], vec![i, c])?;
        rw.binary("aten::mm", x, y)?
    } else {
        let x = arrange(rw, &left, &[&batch, &rows, &inner], vec![b.clone(), r, i.clone()])?;
        let y = arrange(rw, &right, &[&batch, &inner, &columns], vec![b, i, c])?;
        rw.binary("aten::bmm", x, y)?
    };
    let shape = [batch_size, row_size, column_size].concat();
    let value = rw.view(value, shape)?;
    Ok(Operand {
        value,
        labels: [batch, rows, columns].concat(),
    })
}
