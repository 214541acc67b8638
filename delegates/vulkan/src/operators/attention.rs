//! Scaled dot-product attention: a product of queries and keys, a softmax behind masks, a product with the values.

use super::attention_few::Few;
use super::matmul::{FLOATS, spread_steps};
use super::product::{Batch, Product, Side, encode, is_wide, join};
use super::strided::{Strided, operand};
use crate::caps::{self, Operator, Refusal, dtype, rank};
use crate::codes::code;
use crate::encoder::{Encoder, grid, read, write};
use crate::kernels;
use crate::node::Node;
use crate::tensor::{Layout, Tensor, strides};
use delegraph_sdk::image::{ArgView, NodeView};
use delegraph_sdk::{DType, Error};

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::scaled_dot_product_attention",
        accept: |node| accept(node, &PLAIN),
        encode: |node, e| lower(node, e, &PLAIN),
    },
    Operator {
        name: "aten::_scaled_dot_product_flash_attention_for_cpu",
        accept: |node| accept(node, &FLASH),
        encode: |node, e| lower(node, e, &FLASH),
    },
];

/// Places of arguments.
struct Arguments {
    mask: usize,
    dropout: usize,
    causal: usize,
    scale: usize,
    grouped: Option<usize>,
    /// The second output has the logarithms of the sums of exponentials.
    logs: bool,
}

const PLAIN: Arguments = Arguments {
    mask: 3,
    dropout: 4,
    causal: 5,
    scale: 6,
    grouped: Some(7),
    logs: false,
};

const FLASH: Arguments = Arguments {
    mask: 5,
    dropout: 3,
    causal: 4,
    scale: 6,
    grouped: None,
    logs: true,
};

fn accept(node: &NodeView<'_>, arguments: &Arguments) -> Result<(), Refusal> {
    for i in 0..3 {
        match (dtype(node, i), rank(node, i)) {
            (Some(dtype), Some(2..=4)) if FLOATS.contains(&dtype) => {}
            (Some(dtype), Some(rank)) => {
                return Err(Refusal::dtype(format!("attention of {dtype} tensors of rank {rank}")));
            }
            _ => return Err(Refusal::attribute("attention needs three tensors")),
        }
    }
    if dtype(node, arguments.mask).is_some_and(|mask| mask != DType::BOOL && !FLOATS.contains(&mask)) {
        return Err(Refusal::dtype("a mask is bool or of floats up to 32 bits"));
    }
    let outputs = if arguments.logs { 2 } else { 1 };
    if node.outputs().len() != outputs {
        return Err(Refusal::attribute(format!("`{}` with other outputs", node.op())));
    }
    let logs = node.outputs().iter().nth(1);
    if logs.is_some_and(|logs| caps::dtype_of(node, logs) != Some(DType::F32)) {
        return Err(Refusal::dtype("logarithms of sums in another type than f32"));
    }
    match node.arg(arguments.dropout) {
        ArgView::Float(0.0) | ArgView::Int(0) | ArgView::None => Ok(()),
        _ => Err(Refusal::attribute("attention with dropout is random")),
    }
}

/// Queries, keys and values, as the products see them.
pub struct Shapes {
    /// Batch dimensions: their sizes, and steps of query, key and value.
    pub batch: Vec<(u32, [u32; 3])>,
    /// Queries.
    pub rows: u32,
    /// Keys.
    pub columns: u32,
    /// Width of queries and keys.
    pub width: u32,
    /// Width of the values.
    pub depth: u32,
    /// How many heads of the query share one of the keys.
    shared: u32,
}

impl Shapes {
    fn of(query: &Strided, key: &Strided, value: &Strided, grouped: bool) -> Result<Shapes, Error> {
        let misfit = || {
            Error::invalid(format!(
                "attention of {:?} over {:?} and {:?}",
                query.dims, key.dims, value.dims
            ))
        };
        let ([q @ .., rows, width], [k @ .., columns, key_width], [v @ .., value_columns, depth]) =
            (&query.dims[..], &key.dims[..], &value.dims[..])
        else {
            return Err(misfit());
        };
        if width != key_width || columns != value_columns {
            return Err(misfit());
        }
        let heads = |dims: &[u32]| dims.last().copied().unwrap_or(1);
        let shared = match grouped && heads(k) != heads(q) {
            true if heads(k) > 0 && heads(q).is_multiple_of(heads(k)) && heads(k) == heads(v) => heads(q) / heads(k),
            true => return Err(misfit()),
            false => 1,
        };
        // Sizes and steps of batches. Where heads are shared, they are two dimensions: those of the keys, and their share.
        let batches = |of: &Strided, share: u32| -> Vec<(u32, u32)> {
            let count = of.dims.len() - 2;
            let mut dims: Vec<(u32, u32)> = (0..count).map(|i| (of.dims[i], of.steps[i])).collect();
            if shared > 1
                && let Some((heads, step)) = dims.pop()
            {
                dims.push((heads / share, step * share));
                dims.push((share, if share > 1 { step } else { 0 }));
            }
            dims
        };
        let all = [batches(query, shared), batches(key, 1), batches(value, 1)];
        let rank = all.iter().map(Vec::len).max().unwrap_or(0);
        let mut batch = Vec::with_capacity(rank);
        for i in 0..rank {
            let at = |dims: &Vec<(u32, u32)>| (i + dims.len()).checked_sub(rank).map_or((1, 0), |i| dims[i]);
            let of = [at(&all[0]), at(&all[1]), at(&all[2])];
            let size = of.iter().map(|(size, _)| *size).find(|size| *size != 1).unwrap_or(1);
            if of.iter().any(|(have, _)| *have != 1 && *have != size) {
                return Err(misfit());
            }
            batch.push((size, of.map(|(have, step)| if have == 1 { 0 } else { step })));
        }
        Ok(Shapes {
            batch,
            rows: *rows,
            columns: *columns,
            width: *width,
            depth: *depth,
            shared,
        })
    }

    /// Steps of a mask: over batches, rows and columns.
    pub fn mask_steps(&self, mask: Option<&Tensor>) -> Result<(Vec<u32>, [u32; 2]), Error> {
        let Some(mask) = mask else {
            return Ok((vec![0; self.batch.len()], [0, 0]));
        };
        // The sizes of the scores as the mask sees them: heads are one dimension.
        let mut sizes: Vec<u32> = self.batch.iter().map(|(size, _)| *size).collect();
        if self.shared > 1
            && let Some(group) = sizes.pop()
            && let Some(heads) = sizes.last_mut()
        {
            *heads *= group;
        }
        sizes.extend([self.rows, self.columns]);
        let mut steps = spread_steps(&mask.dims, &sizes)?;
        let column = steps.pop().unwrap_or(0);
        let row = steps.pop().unwrap_or(0);
        if self.shared > 1
            && let Some(last) = steps.last_mut()
        {
            let head = *last;
            *last = head * self.shared;
            steps.push(head);
        }
        Ok((steps, [row, column]))
    }

    /// Steps of scores or results, whose batches lie one after the other.
    fn dense(&self, matrix: u32) -> Vec<u32> {
        let sizes: Vec<u32> = self.batch.iter().map(|(size, _)| *size).collect();
        strides(&sizes).into_iter().map(|step| step * matrix).collect()
    }
}

fn lower(node: &Node<'_>, e: &mut Encoder<'_>, arguments: &Arguments) -> Result<(), Error> {
    let along: fn(&[u32]) -> bool = |steps| steps.last() == Some(&1);
    let query = operand(node, e, 0, along)?;
    let key = operand(node, e, 1, along)?;
    let value = operand(node, e, 2, along)?;
    let mask = node.optional_value(arguments.mask)?;
    let mask = mask.map(|mask| e.tensor(mask, Layout::RowMajor)).transpose()?;
    let causal = node.bool(arguments.causal)?;
    let grouped = arguments.grouped.map_or(Ok(false), |i| node.bool(i))?;
    let shapes = Shapes::of(&query, &key, &value, grouped)?;
    let scale = match node.optional_scalar(arguments.scale)? {
        Some(scale) => scale.float(),
        None => 1.0 / f64::from(shapes.width).sqrt(),
    };
    let finish = e.finish(node, Layout::RowMajor)?;
    let logs = match arguments.logs {
        true => Some(e.output(node, 1, Layout::RowMajor)?),
        false => None,
    };
    let few = Few {
        query: &query,
        key: &key,
        value: &value,
        mask: mask.as_ref(),
        shapes: &shapes,
        causal,
        scale: scale as f32,
    };
    if logs.is_none() && finish.links == [0] && few.fits(e.facts()) {
        return few.encode(e, &finish.out);
    }
    let count: u32 = shapes.batch.iter().map(|(size, _)| *size).product();
    let scores = e.make(DType::F32, &[count, shapes.rows, shapes.columns], Layout::RowMajor)?;
    let side = |tensor: &Tensor, row, column| Side {
        tensor: tensor.clone(),
        base: 0,
        row,
        column,
    };
    let row = |of: &Strided| of.steps[of.steps.len() - 2];
    let batch = |steps: &dyn Fn(usize, &[u32; 3]) -> [u32; 2]| -> Vec<Batch> {
        let dims = shapes.batch.iter().enumerate();
        dims.map(|(i, (size, of))| {
            let [a, b] = steps(i, of);
            Batch {
                size: *size,
                steps: [a, b, 0],
            }
        })
        .collect()
    };
    let products = Product {
        m: shapes.rows,
        n: shapes.columns,
        k: shapes.width,
        batch: batch(&|_, [q, k, _]| [*q, *k]),
        a: side(&query.tensor, row(&query), 1),
        b: side(&key.tensor, 1, row(&key)),
        alpha: scale as f32,
        addend: None,
    };
    let plain = e.unfinished(scores.clone())?;
    encode(e, products, &plain)?;
    shares(e, &shapes, &scores, mask.as_ref(), causal, logs.as_ref())?;
    let dense = shapes.dense(shapes.rows * shapes.columns);
    let sums = Product {
        m: shapes.rows,
        n: shapes.depth,
        k: shapes.columns,
        batch: batch(&|i, [_, _, v]| [dense[i], *v]),
        a: side(&scores, shapes.columns, 1),
        b: side(&value.tensor, row(&value), 1),
        alpha: 1.0,
        addend: None,
    };
    encode(e, sums, &finish)
}

/// Scores become shares.
fn shares(
    e: &mut Encoder<'_>,
    shapes: &Shapes,
    scores: &Tensor,
    mask: Option<&Tensor>,
    causal: bool,
    logs: Option<&Tensor>,
) -> Result<(), Error> {
    let rows = scores.dims[0] * scores.dims[1];
    if rows == 0 || (scores.count() == 0 && logs.is_none()) {
        return Ok(());
    }
    let (steps, [row, column]) = shapes.mask_steps(mask)?;
    let dims = shapes.batch.iter().zip(steps).map(|((size, _), step)| Batch {
        size: *size,
        steps: [step, 0, 0],
    });
    let dims = join(&dims.collect::<Vec<_>>());
    if dims.len() > 3 {
        return Err(Error::unsupported("a mask over more than three batch dimensions"));
    }
    let mut sizes = [1; 3];
    let mut batch = [0; 3];
    for (i, dim) in dims.iter().rev().enumerate() {
        (sizes[2 - i], batch[2 - i]) = (dim.size, dim.steps[0]);
    }
    let flags = u32::from(mask.is_some()) | u32::from(causal) << 1 | u32::from(logs.is_some()) << 2;
    let of = mask.map_or(Some(0), |mask| code(mask.dtype));
    let of = of.ok_or_else(|| Error::internal("a mask of a type without a code"))?;
    let mut params = vec![
        rows,
        shapes.columns,
        shapes.rows,
        sizes[1],
        sizes[2],
        flags,
        of,
        0,
        0,
        0,
    ];
    params.extend([0, row, column, batch[0], batch[1], batch[2]]);
    let nothing = e.nothing()?;
    let logs = match logs {
        Some(logs) => logs.clone(),
        None => e.make(DType::F32, &[4], Layout::RowMajor)?,
    };
    let operands = [read(mask.unwrap_or(&nothing)), write(scores), write(&logs)];
    // A row is long enough for a workgroup, where barriers cost little.
    match is_wide(e.facts()) && shapes.columns >= 64 {
        true => e.dispatch(
            &kernels::ATTENTION_SOFTMAX_GROUP,
            &operands,
            &params,
            grid(super::product::checked(&[rows, 64])?, 64),
        ),
        false => e.dispatch(&kernels::ATTENTION_SOFTMAX_LINE, &operands, &params, grid(rows, 64)),
    }
}
