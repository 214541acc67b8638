//! Weights of 4 and 8 bits, as torchao and `--quantize` write them: `dequantize_affine` before a product or a table.

use super::activation::Function;
use super::{Target, bytes, floats, is_constant, to_bytes};
use crate::graph::{Graph, Node, ValueId, arg, float};
use crate::steps::quantized::{EMBEDDING, LINEAR, PACKED_EMBEDDING, ROWS};
use delegraph_cpu_kernels::quant::q4::{self, Scales};
use delegraph_cpu_kernels::quant::static8;
use delegraph_cpu_kernels::quant::weight_only::{self, Bits};
use delegraph_sdk::image::Arg;
use delegraph_sdk::{DType, Error};
use std::collections::HashMap;

const DEQUANTIZE: &str = "torchao::dequantize_affine";
const QUANTIZE: &str = "torchao::quantize_affine";
const CHOOSE: &str = "torchao::choose_qparams_affine";

/// A constant matrix of small integers.
struct Matrix {
    values: ValueId,
    scales: ValueId,
    zeros: Option<ValueId>,
    rows: usize,
    columns: usize,
    group: usize,
    /// Least and largest integer.
    range: [i64; 2],
}

/// Matrices that are packed, by their integers, scales, zero points and form: the value, and the arguments that say how.
type Packed = HashMap<(ValueId, ValueId, Option<ValueId>, &'static str), (ValueId, Vec<Arg>)>;

/// Rewrites products and tables.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, target: &Target<'_>) -> Result<(), Error> {
    let makers = graph.makers();
    let mut packed = Packed::new();
    // Tables come last: one that a product has packed is not packed again.
    for tables in [false, true] {
        for at in 0..graph.nodes.len() {
            let made = match graph.nodes[at].op.as_str() {
                "aten::linear" if !tables => linear(graph, target, &makers, at, &mut packed),
                "aten::embedding" if tables => {
                    let tied = packed_embedding(graph, target, &makers, at, &packed);
                    tied.or_else(|| embedding(graph, target, &makers, at))
                }
                _ => None,
            };
            if let Some((op, args)) = made {
                let node = &mut graph.nodes[at];
                (node.op, node.args) = (op.to_string(), args);
            }
        }
    }
    graph.sweep();
    Ok(())
}

/// The constant matrix that a value is the floats of.
fn matrix(graph: &Graph, makers: &[Option<usize>], value: ValueId) -> Option<Matrix> {
    let node = &graph.nodes[makers[value]?];
    if node.op != DEQUANTIZE || graph.values[value].dtype != DType::F32 {
        return None;
    }
    let (values, scales) = (node.value(0)?, node.value(2)?);
    let sizes = graph.sizes(values)?;
    let block = graph.int_list(node.args.get(1))?;
    let (&[rows, columns], &[1, group]) = (sizes.as_slice(), block.as_slice()) else {
        return None;
    };
    let number = |at: usize| float(node.args.get(at)).map(|x| x as i64);
    let fits = graph.values[values].dtype == DType::I8
        && graph.values[scales].dtype == DType::F32
        && is_constant(graph, values)
        && is_constant(graph, scales)
        && group > 0
        && columns % group == 0
        && graph.sizes(scales)?.iter().product::<i64>() == rows * (columns / group);
    let zeros = node.value(3);
    let fits = fits
        && zeros.is_none_or(|zeros| {
            let known = matches!(
                graph.values[zeros].dtype,
                DType::I8 | DType::I32 | DType::I64 | DType::F32
            );
            known && is_constant(graph, zeros) && graph.sizes(zeros) == graph.sizes(scales)
        });
    fits.then_some(Matrix {
        values,
        scales,
        zeros,
        rows: rows as usize,
        columns: columns as usize,
        group: group as usize,
        range: [number(5)?, number(6)?],
    })
}

/// Zero points as floats, unless all are 0.
fn zero_points(graph: &Graph, target: &Target<'_>, matrix: &Matrix) -> Option<Option<Vec<f32>>> {
    let Some(zeros) = matrix.zeros else { return Some(None) };
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

/// The floats that a value was before each row was quantized for itself, and the least scale.
fn dynamic(graph: &Graph, makers: &[Option<usize>], value: ValueId) -> Option<(ValueId, f64)> {
    let made = |value: ValueId, op: &str| makers[value].map(|m| &graph.nodes[m]).filter(|n| n.op == op);
    let back = made(value, DEQUANTIZE)?;
    let there = made(back.value(0)?, QUANTIZE)?;
    let x = there.value(0)?;
    let (scale, zero) = (back.value(2)?, back.value(3)?);
    let choose = made(scale, CHOOSE)?;
    let rank = graph.values[x].dims.len();
    let columns = graph.size(x, rank.checked_sub(1)?)?;
    let mut row = vec![1; rank - 1];
    row.push(columns);
    let is_row = |node: &Node, at: usize| graph.int_list(node.args.get(at)).as_deref() == Some(&row);
    let is_byte = |node: &Node, at: usize| {
        node.args.get(at) == Some(&Arg::DType(DType::I8))
            && float(node.args.get(at + 1)) == Some(-128.0)
            && float(node.args.get(at + 2)) == Some(127.0)
    };
    let fits = graph.values[x].dtype == DType::F32
        && there.value(2) == Some(scale)
        && there.value(3) == Some(zero)
        && choose.value(0) == Some(x)
        && choose.outputs == [scale, zero]
        && choose.args.get(1) == Some(&Arg::Str("ASYMMETRIC".to_string()))
        && is_row(choose, 2)
        && is_row(there, 1)
        && is_row(back, 1)
        && is_byte(choose, 3)
        && is_byte(there, 4)
        && is_byte(back, 4);
    let eps = match choose.args.get(6) {
        None | Some(Arg::None) => f64::from(f32::MIN_POSITIVE),
        given => float(given)?,
    };
    fits.then_some((x, eps))
}

/// A product with such a matrix.
struct Product {
    kind: &'static str,
    x: ValueId,
    eps: f64,
    matrix: Matrix,
}

fn product(graph: &Graph, makers: &[Option<usize>], node: &Node) -> Option<Product> {
    let (x, weight) = (node.value(0)?, node.value(1)?);
    let bias = node.value(2);
    if node.op != "aten::linear"
        || graph.values[x].dtype != DType::F32
        || bias.is_some_and(|bias| graph.values[bias].dtype != DType::F32 || graph.values[bias].dims.len() != 1)
    {
        return None;
    }
    let matrix = matrix(graph, makers, weight)?;
    let four = matrix.range[0] >= -8 && matrix.range[1] <= 7 && matrix.group.is_multiple_of(32);
    let two = matrix.range[0] >= -2 && matrix.range[1] <= 1 && matrix.group.is_multiple_of(16);
    let (kind, x, eps) = match dynamic(graph, makers, x) {
        Some((x, eps)) if four => ("q4", x, eps),
        Some((x, eps)) if matrix.group == matrix.columns && matrix.columns < 1 << 16 => ("q8", x, eps),
        Some(_) => return None,
        None if two => ("w2", x, 0.0),
        None if four => ("w4", x, 0.0),
        None if matrix.group.is_multiple_of(16) || matrix.group == matrix.columns => ("w8", x, 0.0),
        None => return None,
    };
    Some(Product { kind, x, eps, matrix })
}

/// The table that a node looks up, and its indices.
fn table(graph: &Graph, makers: &[Option<usize>], node: &Node) -> Option<(Matrix, ValueId)> {
    let (table, indices) = (node.value(0)?, node.value(1)?);
    let fits = node.op == "aten::embedding" && graph.values[indices].dtype == DType::I64;
    fits.then(|| matrix(graph, makers, table))
        .flatten()
        .map(|matrix| (matrix, indices))
}

/// For each node, whether it is torchao's part of a product or table that steps compute: all that is read of it goes into those.
pub fn taken(graph: &Graph) -> Vec<bool> {
    let makers = graph.makers();
    let matched: Vec<bool> = graph
        .nodes
        .iter()
        .map(|node| product(graph, &makers, node).is_some() || table(graph, &makers, node).is_some())
        .collect();
    let mut taken = vec![false; graph.nodes.len()];
    // From the last to the first: who reads is known before who is read.
    let mut wanted: Vec<bool> = vec![true; graph.values.len()];
    for output in &graph.outputs {
        wanted[*output] = false;
    }
    for (at, node) in graph.nodes.iter().enumerate().rev() {
        let inner = [DEQUANTIZE, QUANTIZE, CHOOSE].contains(&node.op.as_str());
        taken[at] = inner && node.outputs.iter().all(|output| wanted[*output]);
        if !taken[at] && !matched[at] {
            node.reads().for_each(|value| wanted[value] = false);
        }
    }
    taken
}

fn linear(
    graph: &mut Graph,
    target: &Target<'_>,
    makers: &[Option<usize>],
    at: usize,
    packed: &mut Packed,
) -> Option<(&'static str, Vec<Arg>)> {
    let Product { kind, x, eps, matrix } = product(graph, makers, &graph.nodes[at])?;
    let bias = graph.nodes[at].value(2);
    if kind == "q8" {
        return rows(graph, target, &matrix, x, bias, eps, packed);
    }
    let form = if matches!(kind, "w8" | "w2") { kind } else { "four" };
    let key = (matrix.values, matrix.scales, matrix.zeros, form);
    let (value, layout) = match packed.get(&key) {
        Some(known) => known.clone(),
        None => {
            let made = pack(graph, target, &matrix, form)?;
            packed.insert(key, made.clone());
            made
        }
    };
    let mut args = vec![
        arg(x),
        arg(value),
        bias.map_or(Arg::None, arg),
        Arg::None,
        Arg::Str(kind.to_string()),
    ];
    args.extend(layout);
    args.extend([Arg::Str("asymmetric".to_string()), Arg::Float(eps)]);
    args.extend(Function::NONE.args());
    args.push(Arg::Bool(false));
    Some((LINEAR, args))
}

/// A product of rows that are quantized one by one with weights of 8 bits.
fn rows(
    graph: &mut Graph,
    target: &Target<'_>,
    matrix: &Matrix,
    x: ValueId,
    bias: Option<ValueId>,
    eps: f64,
    packed: &mut Packed,
) -> Option<(&'static str, Vec<Arg>)> {
    let (value, zeros) = match packed.get(&(matrix.values, matrix.scales, matrix.zeros, "q8")) {
        Some((value, zeros)) => (*value, zeros.clone()),
        None => {
            let values: Vec<i8> = bytes(graph, target, matrix.values)?.iter().map(|b| *b as i8).collect();
            let shape = static8::Shape {
                inputs: matrix.columns,
                outputs: matrix.rows,
            };
            let mut out = Vec::new();
            static8::pack(shape, &values, &mut out);
            let name = graph.values[matrix.values].name.clone();
            let zeros = zero_points(graph, target, matrix)?.map(|zeros| {
                let all: Vec<u8> = zeros.iter().flat_map(|x| (*x as i32).to_le_bytes()).collect();
                arg(graph.constant(&format!("{name} zeros"), DType::I32, &[zeros.len() as i64], all))
            });
            let value = graph.constant(&format!("{name} packed"), DType::U8, &[out.len() as i64], out);
            let zeros = vec![zeros.unwrap_or(Arg::None)];
            packed.insert(
                (matrix.values, matrix.scales, matrix.zeros, "q8"),
                (value, zeros.clone()),
            );
            (value, zeros)
        }
    };
    let mut args = vec![arg(x), arg(value), arg(matrix.scales), bias.map_or(Arg::None, arg)];
    args.extend(zeros);
    args.push(Arg::Float(eps));
    Some((ROWS, args))
}

/// Packs a matrix: the value, and the arguments that say how.
fn pack(graph: &mut Graph, target: &Target<'_>, matrix: &Matrix, form: &str) -> Option<(ValueId, Vec<Arg>)> {
    let values: Vec<i8> = bytes(graph, target, matrix.values)?.iter().map(|b| *b as i8).collect();
    let scales = floats(graph, target, matrix.scales)?;
    let zeros = zero_points(graph, target, matrix)?;
    let (rows, columns) = (matrix.rows, matrix.columns);
    let (group, width, halves, has_zeros, out) = match form {
        "w8" | "w2" => {
            let made = weight_only::pack(
                if form == "w2" { Bits::Two } else { Bits::Eight },
                rows,
                columns,
                matrix.group,
                &values,
                &scales,
                zeros.as_deref(),
                Scales::Exact,
            );
            let (shape, out) = made.ok()?;
            (shape.group, 16, shape.precision == q4::Precision::F16, shape.zeros, out)
        }
        _ => {
            let width = target.packing.rows;
            let made = q4::pack(
                rows,
                columns,
                matrix.group,
                &values,
                &scales,
                zeros.as_deref(),
                width,
                Scales::Exact,
            );
            let (shape, out) = made.ok()?;
            (
                shape.group,
                width.rows(),
                shape.precision == q4::Precision::F16,
                shape.zeros,
                out,
            )
        }
    };
    let name = format!("{} packed", graph.values[matrix.values].name);
    let value = graph.constant(&name, DType::U8, &[out.len() as i64], out);
    let numbers = [columns, rows, group, width].map(|n| Arg::Int(n as i64));
    let mut layout = numbers.to_vec();
    layout.extend([Arg::Bool(halves), Arg::Bool(has_zeros)]);
    Some((value, layout))
}

/// A table whose rows are those of a product's matrix: language models tie them.
fn packed_embedding(
    graph: &Graph,
    target: &Target<'_>,
    makers: &[Option<usize>],
    at: usize,
    packed: &Packed,
) -> Option<(&'static str, Vec<Arg>)> {
    let (matrix, indices) = table(graph, makers, &graph.nodes[at])?;
    let sizes = [matrix.columns, matrix.rows, matrix.group].map(|n| Arg::Int(n as i64));
    let none = |zeros: Option<Vec<f32>>| zeros.is_none();
    if !zero_points(graph, target, &matrix).is_some_and(none) {
        return None;
    }
    let same = |a: ValueId, b: ValueId| {
        a == b || bytes(graph, target, a).is_some() && bytes(graph, target, a) == bytes(graph, target, b)
    };
    let found = packed.iter().find(|((values, scales, _, form), (_, layout))| {
        let fits = *form == "four" && layout[..3] == sizes && layout.last() == Some(&Arg::Bool(false));
        fits && same(*scales, matrix.scales) && same(*values, matrix.values)
    });
    let (_, (table, layout)) = found?;
    let mut args = vec![arg(indices), arg(*table)];
    args.extend(layout.iter().cloned());
    Some((PACKED_EMBEDDING, args))
}

fn embedding(
    graph: &mut Graph,
    target: &Target<'_>,
    makers: &[Option<usize>],
    at: usize,
) -> Option<(&'static str, Vec<Arg>)> {
    let (matrix, indices) = table(graph, makers, &graph.nodes[at])?;
    let zeros = zero_points(graph, target, &matrix)?;
    let values = bytes(graph, target, matrix.values)?;
    let four = matrix.range[0] >= -8 && matrix.range[1] <= 7 && matrix.columns.is_multiple_of(2);
    let name = graph.values[matrix.values].name.clone();
    let (code, bytes) = match four {
        // The first of two numbers in the upper half.
        true => {
            let pairs = values.as_chunks::<2>().0.iter();
            let half = |b: u8| ((b as i8) + 8) as u8 & 15;
            (
                "four",
                pairs.map(|[a, b]| half(*a) << 4 | half(*b)).collect::<Vec<u8>>(),
            )
        }
        false => ("i8", values.to_vec()),
    };
    let columns = bytes.len() / matrix.rows.max(1);
    let table = graph.constant(
        &format!("{name} packed"),
        DType::U8,
        &[matrix.rows as i64, columns as i64],
        bytes,
    );
    let zeros = zeros.map(|zeros| {
        graph.constant(
            &format!("{name} zeros"),
            DType::F32,
            &[zeros.len() as i64],
            to_bytes(&zeros),
        )
    });
    let args = vec![
        arg(indices),
        arg(table),
        arg(matrix.scales),
        zeros.map_or(Arg::None, arg),
        Arg::Str(code.to_string()),
        Arg::Int(matrix.group as i64),
    ];
    Some((EMBEDDING, args))
}
