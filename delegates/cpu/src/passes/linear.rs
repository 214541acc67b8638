//! Products with constant matrices: the matrix is packed.

use super::activation::Function;
use super::{Target, floats, is_constant, to_bytes};
use crate::graph::{Graph, Node, ValueId, arg};
use crate::steps::linear;
use delegraph_cpu_kernels::gemm;
use delegraph_sdk::image::Arg;
use delegraph_sdk::{DType, Error};
use half::{bf16, f16};
use std::collections::HashMap;

/// A product that a node is.
struct Product {
    x: ValueId,
    weight: ValueId,
    bias: Option<ValueId>,
    /// The weight is `[n, k]`, not `[k, n]`.
    transposed: bool,
}

/// Packs weights.
///
/// # Errors
/// None.
pub fn run(graph: &mut Graph, target: &Target<'_>) -> Result<(), Error> {
    let mut packed: HashMap<(ValueId, bool), ValueId> = HashMap::new();
    for at in 0..graph.nodes.len() {
        let Some(product) = product(graph, &graph.nodes[at]) else {
            continue;
        };
        let Some(sizes) = graph.sizes(product.weight) else {
            continue;
        };
        let [n, k] = match (sizes.as_slice(), product.transposed) {
            ([n, k], true) | ([k, n], false) => [*n as usize, *k as usize],
            _ => continue,
        };
        let width = target.packing.panel;
        let key = (product.weight, product.transposed);
        let weight = match packed.get(&key) {
            Some(known) => *known,
            None => {
                let Some(numbers) = floats(graph, target, product.weight) else {
                    continue;
                };
                let mut out = vec![0.0f32; gemm::packed_len(k, n, width)];
                let (row, column) = if product.transposed { (1, k) } else { (n, 1) };
                gemm::pack_matrix(k, n, width, &numbers, row, column, &mut out);
                let name = format!("{} packed", graph.values[product.weight].name);
                let dtype = graph.values[product.weight].dtype;
                let bytes = match dtype {
                    // Exact: the numbers were so before.
                    DType::F16 => out.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
                    DType::BF16 => out.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
                    _ => to_bytes(&out),
                };
                let made = graph.constant(&name, dtype, &[out.len() as i64], bytes);
                packed.insert(key, made);
                made
            }
        };
        let optional = |value: Option<ValueId>| value.map_or(Arg::None, arg);
        let mut args = vec![arg(product.x), arg(weight), optional(product.bias), Arg::None];
        args.extend([Arg::Int(n as i64), Arg::Int(width as i64)]);
        args.extend(Function::NONE.args());
        args.push(Arg::Bool(false));
        let node = &mut graph.nodes[at];
        (node.op, node.args) = (linear::NAME.to_string(), args);
    }
    Ok(())
}

/// Whether a node is such a product.
pub fn is_taken(graph: &Graph, node: &Node) -> bool {
    product(graph, node).is_some_and(|product| graph.sizes(product.weight).is_some())
}

/// The product with a constant matrix that a node is, if it is one of `f32`.
fn product(graph: &Graph, node: &Node) -> Option<Product> {
    let rank = |value: ValueId| graph.values[value].dims.len();
    let optional = |at: usize| match node.args.get(at) {
        None | Some(Arg::None) => Some(None),
        Some(Arg::Value(value)) => Some(Some(value.0 as usize)),
        _ => None,
    };
    let one = |at: usize| {
        matches!(node.args.get(at), None | Some(Arg::None | Arg::Int(1)))
            || crate::graph::float(node.args.get(at)) == Some(1.0)
    };
    let product = match node.op.as_str() {
        "aten::linear" => Product {
            x: node.value(0)?,
            weight: node.value(1)?,
            bias: optional(2)?,
            transposed: true,
        },
        "aten::mm" | "aten::matmul" if node.value(1).is_some_and(|w| rank(w) == 2) && rank(node.value(0)?) >= 2 => {
            Product {
                x: node.value(0)?,
                weight: node.value(1)?,
                bias: None,
                transposed: false,
            }
        }
        "aten::addmm" if one(3) && one(4) => Product {
            x: node.value(1)?,
            weight: node.value(2)?,
            bias: optional(0)?,
            transposed: false,
        },
        _ => return None,
    };
    let float = |value: ValueId| graph.values[value].dtype == DType::F32;
    // A bias of one row; anything else is added behind.
    let n = *graph.values[*node.outputs.first()?].dims.last()?;
    let row = |bias: ValueId| rank(bias) == 1 && graph.known(graph.values[bias].dims[0]) == graph.known(n);
    let fits = is_constant(graph, product.weight)
        && matches!(
            graph.values[product.weight].dtype,
            DType::F32 | DType::F16 | DType::BF16
        )
        && [product.x, node.outputs[0]].into_iter().all(float)
        && product.bias.is_none_or(|bias| float(bias) && row(bias))
        && rank(product.x) >= 1;
    fits.then_some(product)
}
