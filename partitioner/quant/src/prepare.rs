//! The float model as it is quantized best: attention in its parts, batch norms in their layers, products with constant
//! matrices as linear layers, root mean squares as the operator that they are.

use crate::{QuantError, Scheme};
use delegraph_ir::{Arg, Constant, Constants, Def, Graph, Module, Node, Op, TensorType, ValueId, fill_defaults};
use delegraph_passes::batch_norm::NormFolder;
use delegraph_passes::decompose::decompose_once;
use delegraph_passes::simplify;
use delegraph_types::{DType, Dims};

/// Composites whose parts can be quantized, and who themselves cannot.
const IN_PARTS: [&str; 11] = [
    "aten::scaled_dot_product_attention",
    "aten::_scaled_dot_product_attention_math",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_safe_softmax",
    "aten::einsum",
    "aten::split.Tensor",
    "aten::split_with_sizes",
    "aten::chunk",
    "aten::unbind.int",
    "aten::pad",
    "aten::linalg_vector_norm",
];

/// Brings a module into the form that is quantized. It computes what it did; the weights of layers before a batch norm are new.
///
/// # Errors
/// A malformed node.
pub(crate) fn prepare(module: &mut Module, scheme: &Scheme) -> Result<(), QuantError> {
    decompose_once(module, &|_, node| {
        !IN_PARTS.contains(&node.op.name()) || scheme.keeps(node)
    })?;
    simplify(module)?;
    let Module { graphs, constants, .. } = module;
    if let Some(graph) = graphs.first_mut() {
        if let Some(folded) = NormFolder::default().fold(constants, graph, &|_| false) {
            *graph = folded.graph;
        }
        products(graph, constants, scheme);
        root_mean_squares(graph, scheme);
    }
    simplify(module)?;
    Ok(())
}

/// Products with a constant matrix become linear layers.
fn products(graph: &mut Graph, constants: &mut Constants, scheme: &Scheme) {
    let Some(linear) = Op::find("aten::linear") else { return };
    for i in 0..graph.nodes.len() {
        let node = &graph.nodes[i];
        if scheme.keeps(node) {
            continue;
        }
        let Some((input, weight, bias)) = product(graph, node) else {
            continue;
        };
        let Some(turned) = transposed(graph, constants, weight) else {
            continue;
        };
        let args = vec![
            Arg::Value(input),
            Arg::Value(turned),
            bias.map_or(Arg::None, Arg::Value),
        ];
        let node = &mut graph.nodes[i];
        (node.op, node.args) = (linear, fill_defaults(linear, args));
    }
}

/// Input, matrix and bias of a product that a linear layer could compute.
pub(crate) fn product(graph: &Graph, node: &Node) -> Option<(ValueId, ValueId, Option<ValueId>)> {
    let value = |at: usize| node.args.get(at)?.as_value();
    let (input, weight, bias) = match node.op.name() {
        "aten::mm" | "aten::matmul" => (value(0)?, value(1)?, None),
        "aten::addmm" => {
            let one = |name: &str| {
                node.arg(name)
                    .and_then(Arg::as_scalar)
                    .is_some_and(|s| s.as_f64() == 1.0)
            };
            (one("beta") && one("alpha")).then_some(())?;
            (value(1)?, value(2)?, Some(value(0)?))
        }
        _ => return None,
    };
    let matrix = graph.tensor(weight)?;
    let fits = matrix.rank() == 2 && graph.tensor(input)?.rank() >= 2;
    let bias_fits = match bias {
        None => true,
        Some(bias) => graph.tensor(bias)?.shape == matrix.shape.get(1..)?,
    };
    (fits && bias_fits).then_some((input, weight, bias))
}

/// A constant matrix with its dimensions swapped: the same bytes.
fn transposed(graph: &mut Graph, constants: &mut Constants, value: ValueId) -> Option<ValueId> {
    let Def::Constant(id) = graph.value(value).def else {
        return None;
    };
    let turned = turned(constants.find(id)?)?;
    let ty = TensorType::fixed(turned.dtype, turned.sizes.as_slice());
    let name = format!("{}_turned", graph.value(value).name);
    let id = constants.push(turned);
    Some(graph.add_constant(name, ty, id))
}

/// A matrix with its dimensions swapped.
pub(crate) fn turned(matrix: &Constant) -> Option<Constant> {
    let swap = |dims: &Dims| match dims.as_slice() {
        [a, b] => Dims::new(&[*b, *a]).ok(),
        _ => None,
    };
    Some(Constant {
        sizes: swap(&matrix.sizes)?,
        strides: swap(&matrix.strides)?,
        ..matrix.clone()
    })
}

/// `weight * (x * rsqrt(mean(x ** 2) + eps))` over the last dimension becomes `rms_norm`. In parts, the square of what is
/// normalized would have to be quantized, and most of it would be lost.
fn root_mean_squares(graph: &mut Graph, scheme: &Scheme) {
    let Some(op) = Op::find("aten::rms_norm") else { return };
    let producers = graph.producers();
    for i in 0..graph.nodes.len() {
        let node = &graph.nodes[i];
        if scheme.keeps(node) {
            continue;
        }
        let made = |value: ValueId| producers[value.index()].map(|id| graph.node(id));
        let Some((x, weight, eps)) = root_mean_square(graph, node, &made) else {
            continue;
        };
        let Some(width) = graph.tensor(x).and_then(|ty| ty.shape.last()).cloned() else {
            continue;
        };
        let args = vec![x.into(), Arg::Ints(vec![width]), weight.into(), Arg::Float(eps)];
        let node = &mut graph.nodes[i];
        (node.op, node.args) = (op, fill_defaults(op, args));
    }
}

/// What is normalized, the weight, and what is added to the mean.
fn root_mean_square<'g>(
    graph: &'g Graph,
    node: &Node,
    made: &dyn Fn(ValueId) -> Option<&'g Node>,
) -> Option<(ValueId, ValueId, f64)> {
    let pair = |node: &Node, op: &str| {
        (node.op.name() == op).then_some(())?;
        Some((node.args.first()?.as_value()?, node.args.get(1)?.as_value()?))
    };
    let f32 = |value: ValueId| graph.tensor(value).filter(|ty| ty.dtype == DType::F32);
    let (a, b) = pair(node, "aten::mul.Tensor")?;
    let is_weight = |value: &ValueId| matches!(graph.value(*value).def, Def::Constant(_));
    let (weight, normed) = if is_weight(&a) { (a, b) } else { (b, a) };
    let (a, b) = pair(made(normed)?, "aten::mul.Tensor")?;
    let root = |value: ValueId| made(value).filter(|node| node.op.name() == "aten::rsqrt");
    let (x, root) = match root(b) {
        Some(root) => (a, root),
        None => (b, root(a)?),
    };
    let shifted = made(root.args.first()?.as_value()?).filter(|node| node.op.name() == "aten::add.Tensor")?;
    let eps = shifted.args.get(1)?.as_scalar()?.as_f64();
    let one = shifted
        .arg("alpha")
        .and_then(Arg::as_scalar)
        .is_none_or(|alpha| alpha.as_f64() == 1.0);
    let mean = made(shifted.args.first()?.as_value()?).filter(|node| node.op.name() == "aten::mean.dim")?;
    let square = made(mean.args.first()?.as_value()?).filter(|node| node.op.name() == "aten::pow.Tensor_Scalar")?;
    let squares = square.args.first()?.as_value()? == x && square.args.get(1)?.as_scalar()?.as_f64() == 2.0;
    let (ty, weight_ty) = (f32(x)?, f32(weight)?);
    let last = ty.rank() as i64 - 1;
    let dims = mean.args.get(1)?.as_ints()?;
    let over_last = matches!(dims.as_slice(), [dim] if *dim == -1 || *dim == last);
    let keeps = mean.arg("keepdim") == Some(&Arg::Bool(true));
    let fits = weight_ty.rank() == 1 && weight_ty.shape.first() == ty.shape.last();
    (one && squares && over_last && keeps && fits && is_weight(&weight)).then_some((x, weight, eps))
}
