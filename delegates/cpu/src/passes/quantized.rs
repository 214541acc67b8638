//! Weights of 2, 4 and 8 bits before a product or a table, as torchao, PT2E and `--quantize` write them: see [`matrix`]. Activations stay floats, or
//! become bytes when they are there: see [`dynamic`].

use super::activation::Function;
use super::dynamic::{self, Dynamic};
use super::matrix::{self, Matrix, Scales};
use super::{Target, bytes, to_bytes};
use crate::graph::{Graph, Node, ValueId, arg};
use crate::steps::quantized::{EMBEDDING, LINEAR, PACKED_EMBEDDING, ROWS, scheme_args};
use delegraph_cpu_kernels::quant::dynamic::{Formula, Scheme};
use delegraph_cpu_kernels::quant::q4;
use delegraph_cpu_kernels::quant::static8;
use delegraph_cpu_kernels::quant::weight_only::{self, Bits};
use delegraph_sdk::image::Arg;
use delegraph_sdk::{DType, Error};
use std::collections::HashMap;

/// Matrices that are packed, by what tells them apart and their form: the value, and the arguments that say how.
type Packed = HashMap<((ValueId, Scales, Option<ValueId>), &'static str), (ValueId, Vec<Arg>)>;

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

/// A product with such a matrix.
struct Product {
    kind: &'static str,
    x: ValueId,
    /// How activations become bytes, where they do.
    scheme: Option<Scheme>,
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
    let matrix = matrix::of(graph, makers, weight)?;
    let four = matrix.range[0] >= -8 && matrix.range[1] <= 7 && matrix.group.is_multiple_of(32);
    let two = matrix.range[0] >= -2 && matrix.range[1] <= 1 && matrix.group.is_multiple_of(16);
    let made = dynamic::of(graph, makers, x);
    let kind = match made {
        Some(_) if four => "q4",
        Some(_) if matrix.group == matrix.columns && matrix.columns < 1 << 16 => "q8",
        Some(_) => return None,
        None if two => "w2",
        None if four => "w4",
        None if matrix.group.is_multiple_of(16) || matrix.group == matrix.columns => "w8",
        None => return None,
    };
    let (x, scheme) = made.map_or((x, None), |Dynamic { x, scheme }| (x, Some(scheme)));
    Some(Product {
        kind,
        x,
        scheme,
        matrix,
    })
}

/// The table that a node looks up, and its indices.
fn table(graph: &Graph, makers: &[Option<usize>], node: &Node) -> Option<(Matrix, ValueId)> {
    let (table, indices) = (node.value(0)?, node.value(1)?);
    let fits = node.op == "aten::embedding" && graph.values[indices].dtype == DType::I64;
    fits.then(|| matrix::of(graph, makers, table))
        .flatten()
        .map(|matrix| (matrix, indices))
}

/// For each node, whether it is a part without a kernel of a product or table that steps compute: all that is read of it goes into those.
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
        let inner = dynamic::is_inner(node) || matrix::is_inner(node);
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
    let Product {
        kind,
        x,
        scheme,
        matrix,
    } = product(graph, makers, &graph.nodes[at])?;
    let bias = graph.nodes[at].value(2);
    // Of floats that stay so, the scheme says nothing.
    let scheme = scheme.unwrap_or(Scheme::rows(Formula::AffineAsymmetric { eps: 0.0 }));
    if kind == "q8" {
        return rows(graph, target, &matrix, x, bias, scheme, packed);
    }
    let form = if matches!(kind, "w8" | "w2") { kind } else { "four" };
    let key = (matrix.key(), form);
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
    args.extend(scheme_args(scheme));
    args.extend(Function::NONE.args());
    args.push(Arg::Bool(false));
    Some((LINEAR, args))
}

/// A product of rows that become bytes with weights of 8 bits.
fn rows(
    graph: &mut Graph,
    target: &Target<'_>,
    matrix: &Matrix,
    x: ValueId,
    bias: Option<ValueId>,
    scheme: Scheme,
    packed: &mut Packed,
) -> Option<(&'static str, Vec<Arg>)> {
    let key = (matrix.key(), "q8");
    let (value, ends) = match packed.get(&key) {
        Some(known) => known.clone(),
        None => {
            let shape = static8::Shape {
                inputs: matrix.columns,
                outputs: matrix.rows,
            };
            let mut out = Vec::new();
            static8::pack(shape, &matrix.numbers(graph, target)?, &mut out);
            let name = graph.values[matrix.values].name.clone();
            let zeros = matrix.zero_points(graph, target)?.map(|zeros| {
                let all: Vec<u8> = zeros.iter().flat_map(|x| (*x as i32).to_le_bytes()).collect();
                arg(graph.constant(&format!("{name} zeros"), DType::I32, &[zeros.len() as i64], all))
            });
            let ends = vec![matrix.scales(graph, target)?, zeros.unwrap_or(Arg::None)];
            let value = graph.constant(&format!("{name} packed"), DType::U8, &[out.len() as i64], out);
            packed.insert(key, (value, ends.clone()));
            (value, ends)
        }
    };
    let [scales, zeros] = ends.as_slice() else { return None };
    let mut args = vec![
        arg(x),
        arg(value),
        scales.clone(),
        bias.map_or(Arg::None, arg),
        zeros.clone(),
    ];
    args.extend(scheme_args(scheme));
    args.extend(Function::NONE.args());
    Some((ROWS, args))
}

/// Packs a matrix: the value, and the arguments that say how.
fn pack(graph: &mut Graph, target: &Target<'_>, matrix: &Matrix, form: &str) -> Option<(ValueId, Vec<Arg>)> {
    let values = matrix.numbers(graph, target)?;
    let scales = matrix.scale_list(graph, target)?;
    let zeros = matrix.zero_points(graph, target)?;
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
                q4::Scales::Exact,
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
                q4::Scales::Exact,
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
    if !matrix.zero_points(graph, target).is_some_and(none) {
        return None;
    }
    let same = |a: ValueId, b: ValueId| {
        a == b || bytes(graph, target, a).is_some() && bytes(graph, target, a) == bytes(graph, target, b)
    };
    let same_scales = |a: Scales, b: Scales| match (a, b) {
        (Scales::Value(a), Scales::Value(b)) => same(a, b) && graph.values[a].dtype == graph.values[b].dtype,
        (a, b) => a == b,
    };
    let found = packed.iter().find(|(((values, scales, _), form), (_, layout))| {
        let fits = *form == "four" && layout[..3] == sizes && layout.last() == Some(&Arg::Bool(false));
        fits && same_scales(*scales, matrix.scales) && same(*values, matrix.values)
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
    let zeros = matrix.zero_points(graph, target)?;
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
        matrix.scales(graph, target)?,
        zeros.map_or(Arg::None, arg),
        Arg::Str(code.to_string()),
        Arg::Int(matrix.group as i64),
    ];
    Some((EMBEDDING, args))
}
