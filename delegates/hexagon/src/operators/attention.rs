//! Scaled dot-product attention: a product of queries and keys, masks, a softmax, a product with the values.
//!
//! Queries are scaled before the product, which keeps scores within f16. What a mask hides is set far below every score (`HIDDEN`); a row that
//! is hidden as a whole gives zeros, as in PyTorch. Heads that share keys lie one behind the other: they are more queries of one head.

use super::images;
use super::matmul::{multiply, scaled};
use super::softmax;
use crate::builder::{Builder, Layout};
use crate::caps::{Operator, Refusal};
use crate::graph::{DataType, Quantization, TensorId};
use crate::node::Node;
use delegraph_sdk::image::ValueIndex;
use half::f16;

/// The operators of this family.
pub const OPERATORS: &[Operator] = &[
    Operator {
        name: "aten::scaled_dot_product_attention",
        lower: |node, b| {
            let at = Arguments {
                mask: 3,
                dropout: 4,
                causal: 5,
                scale: 6,
                grouped: Some(7),
            };
            lower(node, b, &at)
        },
    },
    Operator {
        name: "aten::_scaled_dot_product_flash_attention_for_cpu",
        lower: |node, b| {
            let at = Arguments {
                mask: 5,
                dropout: 3,
                causal: 4,
                scale: 6,
                grouped: None,
            };
            lower(node, b, &at)
        },
    },
];

/// Places of arguments.
struct Arguments {
    mask: usize,
    dropout: usize,
    causal: usize,
    scale: usize,
    grouped: Option<usize>,
}

/// A score that no softmax sees beside others, and that a sum with any likely score leaves within f16.
const HIDDEN: f64 = -30000.0;

/// Sizes, with leading dimensions of 1 where a factor has fewer.
struct Sizes {
    /// Of the batch, as queries, keys and values have it.
    batch: Vec<u32>,
    heads: u32,
    /// Heads of keys and values.
    shared: u32,
    rows: u32,
    columns: u32,
    depth: u32,
}

fn lower(node: &Node<'_>, b: &mut Builder<'_>, at: &Arguments) -> Result<(), Refusal> {
    let (q, k, v, out) = (node.value(0)?, node.value(1)?, node.value(2)?, node.output(0)?);
    images::floats(b, &[q, k, v, out])?;
    if node.scalar(at.dropout)?.float() != 0.0 {
        return Err(Refusal::attribute("attention with dropout is random"));
    }
    let causal = node.bool(at.causal)?;
    let grouped = at.grouped.map_or(Ok(false), |i| node.bool(i))?;
    let [q_dims, k_dims, v_dims] = [b.logical_dims(q)?, b.logical_dims(k)?, b.logical_dims(v)?];
    let rank = q_dims.len();
    if !(2..=4).contains(&rank) || k_dims.len() != rank || v_dims.len() != rank {
        return Err(Refusal::shape(format!(
            "attention of {q_dims:?} over {k_dims:?} and {v_dims:?}"
        )));
    }
    let [q_dims, k_dims, v_dims] = [q_dims, k_dims, v_dims].map(|dims| images::filled(&dims, 1, 4));
    let width = q_dims[3];
    let sizes = Sizes {
        batch: vec![q_dims[0]],
        heads: q_dims[1],
        shared: k_dims[1],
        rows: q_dims[2],
        columns: k_dims[2],
        depth: v_dims[3],
    };
    let heads_fit = match grouped {
        true => sizes.heads.is_multiple_of(sizes.shared),
        false => sizes.heads == sizes.shared,
    };
    if k_dims[3] != width || v_dims[2] != sizes.columns || v_dims[1] != sizes.shared || !heads_fit {
        return Err(Refusal::shape(format!(
            "attention of {q_dims:?} over {k_dims:?} and {v_dims:?}"
        )));
    }
    if k_dims[0] != q_dims[0] || v_dims[0] != q_dims[0] {
        return Err(Refusal::shape("attention of batches of different sizes"));
    }
    let scale = match node.optional_scalar(at.scale)? {
        Some(scale) => scale.float(),
        None => 1.0 / f64::from(width).sqrt(),
    };
    let batch = sizes.batch[0];
    // Queries of heads that share keys are the queries of one head.
    let queries = sizes.rows * (sizes.heads / sizes.shared);
    let [q, k, v] = [
        b.read(q, Layout::RowMajor)?,
        b.read(k, Layout::RowMajor)?,
        b.read(v, Layout::RowMajor)?,
    ];
    let q = b.reshaped(q, &[batch, sizes.shared, queries, width])?;
    let k = b.reshaped(k, &k_dims)?;
    let v = b.reshaped(v, &v_dims)?;
    let q = scaled(b, q, scale)?;
    let float = |b: &mut Builder<'_>, dims: &[u32]| b.temporary(DataType::Float16, dims, Quantization::None);
    let mut scores = float(b, &[batch, sizes.shared, queries, sizes.columns]);
    multiply(b, [q, k], [false, true], scores);
    let mask = node.optional_value(at.mask)?;
    let by_head = [batch, sizes.heads, sizes.rows, sizes.columns];
    let mut shown = None;
    if causal || mask.is_some() {
        scores = b.reshaped(scores, &by_head)?;
    }
    if causal {
        let triangle = below(b, &sizes);
        let sum = b.like(scores);
        b.op("ElementWiseAdd", Vec::new(), &[scores, triangle], &[sum]);
        scores = sum;
    }
    if let Some(mask) = mask {
        (scores, shown) = masked(b, scores, mask)?;
    }
    let mut shares = softmax::shares(b, scores);
    if let Some(shown) = shown {
        let zero = b.number(0.0, shares)?;
        let kept = b.like(shares);
        b.op("ElementWiseSelect", Vec::new(), &[shown, shares, zero], &[kept]);
        shares = kept;
    }
    let shares = b.reshaped(shares, &[batch, sizes.shared, queries, sizes.columns])?;
    images::output_as(b, out, &[batch, sizes.shared, queries, sizes.depth], |b, y| {
        multiply(b, [shares, v], [false, false], y);
        Ok(())
    })
}

/// What is added to scores so that a query sees the keys up to its own place: `[1, 1, rows, columns]`.
fn below(b: &mut Builder<'_>, sizes: &Sizes) -> TensorId {
    let (rows, columns) = (sizes.rows as usize, sizes.columns as usize);
    let mut bytes = vec![0; rows * columns * 2];
    if !b.is_asking() {
        let hidden = f16::from_f64(HIDDEN).to_le_bytes();
        for (row, line) in bytes.chunks_exact_mut(columns * 2).enumerate() {
            let behind = line.as_chunks_mut::<2>().0.iter_mut().skip(row + 1);
            behind.for_each(|element| *element = hidden);
        }
    }
    let dims = [1, 1, sizes.rows, sizes.columns];
    b.fixed(DataType::Float16, &dims, Quantization::None, bytes)
}

/// Scores behind a mask; and which of them are shown.
fn masked(b: &mut Builder<'_>, scores: TensorId, mask: ValueIndex) -> Result<(TensorId, Option<TensorId>), Refusal> {
    let (data_type, _) = b.representation(mask)?;
    let name = b.image().value(mask).name();
    let out = b.like(scores);
    let given = b.read(mask, Layout::RowMajor)?;
    let dims = images::filled(&b.tensor(given).dims.clone(), 1, 4);
    let given = b.reshaped(given, &dims)?;
    let hidden = b.number(HIDDEN, scores)?;
    match data_type {
        DataType::Bool => {
            b.op("ElementWiseSelect", Vec::new(), &[given, scores, hidden], &[out]);
            Ok((out, Some(given)))
        }
        DataType::Float16 => {
            // An infinity has no place in a sum of f16.
            let limited = b.like(given);
            b.op("ElementWiseMaximum", Vec::new(), &[given, hidden], &[limited]);
            b.op("ElementWiseAdd", Vec::new(), &[scores, limited], &[out]);
            let shown = b.temporary(DataType::Bool, &dims, Quantization::None);
            b.op("ElementWiseGreater", Vec::new(), &[limited, hidden], &[shown]);
            Ok((out, Some(shown)))
        }
        data_type => Err(Refusal::dtype(format!(
            "the mask `{name}` is {data_type}, neither bool nor float"
        ))),
    }
}
