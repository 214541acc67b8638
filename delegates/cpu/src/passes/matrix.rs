//! Constant matrices of small integers, as graphs say it: integers that are made floats by a scale for each row, for groups of a row, or for all.
//!
//! | operator | scales |
//! | --- | --- |
//! | `torchao::dequantize_affine` with blocks of one row | one for each block |
//! | `quantized_decomposed::dequantize_per_channel_group` | one for each group of a row |
//! | `quantized_decomposed::dequantize_per_channel` of axis 0 | one for each row |
//! | `quantized_decomposed::dequantize_per_tensor` | one |

use super::{Target, bytes, floats, is_constant};
use crate::graph::{Graph, Node, ValueId, arg, float};
use delegraph_sdk::DType;
use delegraph_sdk::image::Arg;

/// torchao's operator.
pub const AFFINE: &str = "torchao::dequantize_affine";
const GROUPS: &str = "quantized_decomposed::dequantize_per_channel_group";
const CHANNELS: &str = "quantized_decomposed::dequantize_per_channel";
const WHOLE: &str = "quantized_decomposed::dequantize_per_tensor";

/// A constant matrix of small integers.
pub struct Matrix {
    /// The integers, `[rows, columns]` of `i8`.
    pub values: ValueId,
    /// Of groups, `[rows, columns / group]`.
    pub scales: Scales,
    /// Of groups as the scales are, or all 0.
    pub zeros: Option<ValueId>,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Columns that have a scale in common.
    pub group: usize,
    /// Least and largest integer.
    pub range: [i64; 2],
}

/// Scales of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scales {
    /// A constant of `f32` or `f64`.
    Value(ValueId),
    /// The bits of the number that all have in common.
    One(u64),
}

/// The constant matrix that a value is the floats of.
pub fn of(graph: &Graph, makers: &[Option<usize>], value: ValueId) -> Option<Matrix> {
    let node = &graph.nodes[makers[value]?];
    let values = node.value(0)?;
    if graph.values[value].dtype != DType::F32 || graph.values[values].dtype != DType::I8 || !is_constant(graph, values)
    {
        return None;
    }
    let &[rows, columns] = graph.sizes(values)?.as_slice() else {
        return None;
    };
    let number = |at: usize| float(node.args.get(at)).map(|x| x as i64);
    let is_i8 = |at: usize| node.args.get(at) == Some(&Arg::DType(DType::I8));
    let (scales, zeros, group, range) = match node.op.as_str() {
        AFFINE => {
            let block = graph.int_list(node.args.get(1))?;
            let &[1, group] = block.as_slice() else { return None };
            (Scales::Value(node.value(2)?), node.value(3), group, 5)
        }
        GROUPS if is_i8(5) => (Scales::Value(node.value(1)?), node.value(2), number(6)?, 3),
        CHANNELS if is_i8(6) && number(3) == Some(0) => (Scales::Value(node.value(1)?), node.value(2), columns, 4),
        WHOLE if is_i8(5) && number(2) == Some(0) => {
            (Scales::One(float(node.args.get(1))?.to_bits()), None, columns, 3)
        }
        _ => return None,
    };
    if group <= 0 || columns % group != 0 {
        return None;
    }
    if let Scales::Value(scales) = scales {
        let count: i64 = graph.sizes(scales)?.iter().product();
        let is_float = matches!(graph.values[scales].dtype, DType::F32 | DType::F64);
        if !is_float || !is_constant(graph, scales) || count != rows * (columns / group) {
            return None;
        }
    }
    let fits = |zeros: ValueId| {
        let known = matches!(
            graph.values[zeros].dtype,
            DType::I8 | DType::I32 | DType::I64 | DType::F32
        );
        let like =
            |scales: Scales| matches!(scales, Scales::Value(scales) if graph.sizes(zeros) == graph.sizes(scales));
        known && is_constant(graph, zeros) && like(scales)
    };
    zeros.is_none_or(fits).then_some(Matrix {
        values,
        scales,
        zeros,
        rows: rows as usize,
        columns: columns as usize,
        group: group as usize,
        range: [number(range)?, number(range + 1)?],
    })
}

/// Whether a node makes such floats, and has no kernel of its own.
pub fn is_inner(node: &Node) -> bool {
    node.op == AFFINE
}

impl Matrix {
    /// What tells it from others.
    pub fn key(&self) -> (ValueId, Scales, Option<ValueId>) {
        (self.values, self.scales, self.zeros)
    }

    /// The integers.
    pub fn numbers(&self, graph: &Graph, target: &Target<'_>) -> Option<Vec<i8>> {
        Some(bytes(graph, target, self.values)?.iter().map(|b| *b as i8).collect())
    }

    /// The scales of all groups.
    pub fn scale_list(&self, graph: &Graph, target: &Target<'_>) -> Option<Vec<f32>> {
        match self.scales {
            Scales::One(bits) => Some(vec![
                f64::from_bits(bits) as f32;
                self.rows * (self.columns / self.group)
            ]),
            Scales::Value(scales) if graph.values[scales].dtype == DType::F64 => {
                let all = bytes(graph, target, scales)?;
                Some(
                    all.as_chunks()
                        .0
                        .iter()
                        .map(|b| f64::from_le_bytes(*b) as f32)
                        .collect(),
                )
            }
            Scales::Value(scales) => floats(graph, target, scales),
        }
    }

    /// The scales as a constant of `f32`.
    pub fn scales(&self, graph: &mut Graph, target: &Target<'_>) -> Option<Arg> {
        if let Scales::Value(scales) = self.scales
            && graph.values[scales].dtype == DType::F32
        {
            return Some(arg(scales));
        }
        let scales = self.scale_list(graph, target)?;
        let name = format!("{} scales", graph.values[self.values].name);
        let made = graph.constant(&name, DType::F32, &[scales.len() as i64], super::to_bytes(&scales));
        Some(arg(made))
    }

    /// Zero points as floats, unless all are 0.
    pub fn zero_points(&self, graph: &Graph, target: &Target<'_>) -> Option<Option<Vec<f32>>> {
        let Some(zeros) = self.zeros else { return Some(None) };
        let all = bytes(graph, target, zeros)?;
        if all.iter().all(|byte| *byte == 0) {
            return Some(None);
        }
        Some(Some(match graph.values[zeros].dtype {
            DType::I8 => all.iter().map(|b| f32::from(*b as i8)).collect(),
            DType::I32 => all
                .as_chunks()
                .0
                .iter()
                .map(|b| i32::from_le_bytes(*b) as f32)
                .collect(),
            DType::I64 => all
                .as_chunks()
                .0
                .iter()
                .map(|b| i64::from_le_bytes(*b) as f32)
                .collect(),
            DType::F32 => floats(graph, target, zeros)?,
            _ => return None,
        }))
    }
}
