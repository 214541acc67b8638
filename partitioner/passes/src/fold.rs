//! Constant folding: what only constants feed is computed once, here, by the portable kernels.

use crate::run::run;
use delegraph_ir::{Arg, Constant, Constants, Def, Graph, Module, Node, TensorType, ValueId};
use delegraph_types::Dims;

/// A result of up to this many bytes is folded whatever its inputs; a larger one only if it is no larger than they are.
const SMALL: usize = 64 << 10;

/// Replaces nodes whose inputs are all constants by constants, in subgraphs too. Nodes of a region are left alone, and so are
/// the dequantizations of weights, which would grow the file. A node that no kernel can do stays.
pub fn fold_constants(module: &mut Module) {
    let Module { graphs, constants, .. } = module;
    for graph in graphs {
        fold(graph, constants);
    }
}

fn fold(graph: &mut Graph, constants: &mut Constants) {
    let mut nodes = std::mem::take(&mut graph.nodes);
    nodes.retain_mut(|node| {
        for arg in &mut node.args {
            if let Arg::Graph(subgraph) = arg {
                fold(subgraph, constants);
            }
        }
        if !can_fold(node) {
            return true;
        }
        let Some(folded) = computed(graph, constants, node) else {
            return true;
        };
        for (value, constant) in node.outputs.iter().zip(folded) {
            graph.values[value.index()].def = Def::Constant(constants.push(constant));
        }
        false
    });
    graph.nodes = nodes;
}

fn can_fold(node: &Node) -> bool {
    let name = node.op.name();
    let aten = name
        .strip_prefix("aten::")
        .or_else(|| name.strip_prefix("dim_order_ops::"));
    aten.is_some() && node.region.is_none() && !node.outputs.is_empty() && !node.op.is_random()
}

/// The constants that the node's outputs are; `None` if they cannot or should not be computed.
fn computed(graph: &Graph, constants: &Constants, node: &Node) -> Option<Vec<Constant>> {
    let constant = |id: ValueId| match graph.values.get(id.index())?.def {
        Def::Constant(id) => constants.find(id).cloned(),
        _ => None,
    };
    let mut read = 0usize;
    for id in node.inputs() {
        let constant = constant(id)?;
        read = read.checked_add(constant.sizes.numel()?.checked_mul(constant.dtype.size())?)?;
    }
    let mut types: Vec<TensorType> = Vec::with_capacity(node.outputs.len());
    let mut made = 0usize;
    for id in &node.outputs {
        let ty = graph.tensor(*id)?;
        if ty.quant.is_some() {
            return None;
        }
        made = made.checked_add(ty.static_dims()?.numel()?.checked_mul(ty.dtype.size())?)?;
        types.push(ty.clone());
    }
    if made > SMALL.max(read) {
        return None;
    }
    let name = |id: &ValueId| graph.value(*id).name.clone();
    if let Some(mut window) = rearranged(node, &constant) {
        window.name = name(node.outputs.first()?);
        return Some(vec![window]);
    }
    let results = run(node.op, &node.args, &constant, &types).ok()?;
    let constants = node.outputs.iter().zip(results);
    Some(
        constants
            .map(|(id, (dtype, sizes, bytes))| Constant::contiguous(name(id), dtype, sizes, bytes))
            .collect(),
    )
}

/// A transposed weight is the same bytes under other strides.
fn rearranged(node: &Node, constant: &dyn Fn(ValueId) -> Option<Constant>) -> Option<Constant> {
    let source = constant(node.args.first()?.as_value()?)?;
    let rank = source.sizes.rank();
    let order: Vec<usize> = match node.op.name() {
        "aten::permute" => {
            let dims = node.args.get(1)?.as_ints()?;
            dims.iter()
                .map(|d| source.sizes.resolve_dim(*d))
                .collect::<Option<_>>()?
        }
        "aten::transpose.int" => {
            let dim = |i: usize| source.sizes.resolve_dim(node.args.get(i)?.as_int()?);
            let mut order: Vec<usize> = (0..rank).collect();
            if rank > 0 {
                order.swap(dim(1)?, dim(2)?);
            }
            order
        }
        "aten::t" if rank <= 2 => (0..rank).rev().collect(),
        _ => return None,
    };
    if order.len() != rank {
        return None;
    }
    let pick = |from: &Dims| Dims::new(&order.iter().map(|&d| from[d]).collect::<Vec<_>>()).ok();
    Some(Constant {
        sizes: pick(&source.sizes)?,
        strides: pick(&source.strides)?,
        ..source
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_ir::{Bytes, Expr, RegionId};
    use delegraph_types::DType;

    fn floats(items: &[f32]) -> Bytes {
        items.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into()
    }

    fn matrix(module: &mut Module, graph: &mut Graph) -> ValueId {
        let dims = Dims::new(&[2, 3]).unwrap();
        let id = module.constants.push(Constant::contiguous(
            "w",
            DType::F32,
            dims,
            floats(&[1., 2., 3., 4., 5., 6.]),
        ));
        graph.add_constant("w", TensorType::fixed(DType::F32, &[2, 3]), id)
    }

    fn contents(module: &Module, id: ValueId) -> Option<Vec<u8>> {
        match module.graphs[0].value(id).def {
            Def::Constant(id) => Some(module.constants[id].to_contiguous()?.as_slice().to_vec()),
            _ => None,
        }
    }

    #[test]
    fn a_transposed_weight_is_a_window_and_a_sum_is_computed() {
        let mut module = Module::default();
        let mut graph = Graph::new("forward");
        let w = matrix(&mut module, &mut graph);
        let turned = TensorType::fixed(DType::F32, &[3, 2]);
        let t = graph
            .push("aten::t", vec![w.into()], vec![turned.clone().into()])
            .unwrap()[0];
        let n = graph.push("aten::neg", vec![t.into()], vec![turned.into()]).unwrap()[0];
        graph.add_output(n);
        module.graphs.push(graph);
        fold_constants(&mut module);
        assert!(module.graphs[0].nodes.is_empty());
        assert_eq!(
            contents(&module, t).unwrap(),
            floats(&[1., 4., 2., 5., 3., 6.]).as_slice()
        );
        assert_eq!(
            contents(&module, n).unwrap(),
            floats(&[-1., -4., -2., -5., -3., -6.]).as_slice()
        );
        delegraph_ir::verify(&module).unwrap();
    }

    #[test]
    fn what_must_stay_stays() {
        let mut module = Module::default();
        let mut graph = Graph::new("forward");
        let w = matrix(&mut module, &mut graph);
        let ty = || TensorType::fixed(DType::F32, &[2, 3]);
        let input = graph.add_input("x", ty().into());
        let large = TensorType::fixed(DType::F32, &[4000, 2, 3]);
        let symbolic = TensorType::new(DType::F32, vec![Expr::symbol("s0"), 2.into(), 3.into()]);
        let region = graph.push("aten::neg", vec![w.into()], vec![ty().into()]).unwrap();
        graph.nodes[0].region = Some(RegionId(0));
        let cases = [
            graph
                .push("aten::add.Tensor", vec![w.into(), input.into()], vec![ty().into()])
                .unwrap(),
            graph
                .push(
                    "aten::expand",
                    vec![w.into(), Arg::ints(&[4000, 2, 3])],
                    vec![large.into()],
                )
                .unwrap(),
            graph
                .push(
                    "aten::expand",
                    vec![w.into(), Arg::Ints(vec![Expr::symbol("s0"), 2.into(), 3.into()])],
                    vec![symbolic.into()],
                )
                .unwrap(),
            graph
                .push("aten::rand", vec![Arg::ints(&[2, 3])], vec![ty().into()])
                .unwrap(),
            region,
        ];
        let values: Vec<ValueId> = cases.into_iter().flatten().collect();
        values.iter().for_each(|v| graph.add_output(*v));
        let count = graph.nodes.len();
        module.graphs.push(graph);
        fold_constants(&mut module);
        assert_eq!(module.graphs[0].nodes.len(), count);
    }
}
