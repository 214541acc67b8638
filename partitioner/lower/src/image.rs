//! A set of nodes as a graph image, with the indices that lead back.

use crate::states::{RegionState, states_of};
use delegraph_abi::image::{self, ExprIndex, ImageBuilder, ImageError, ValueIndex, WeightIndex};
use delegraph_abi::{DType as Code, MemoryFormat as FormatCode};
use delegraph_ir::{
    Arg, Bytes, Constant, ConstantId, Def, Expr, ExprOp, Graph, MemoryFormat, Module, Node, NodeId, Quant, Type,
    ValueId,
};
use delegraph_opset::{Version, Versions};
use delegraph_passes::channels_last::channels_last;
use delegraph_tag::{BorderSizes, Boundary, Reads, builtin_refusal, live};
use delegraph_types::{DType, Scalar};
use rustc_hash::FxHashMap;
use std::borrow::Cow;

/// In what form a delegate gets its images.
#[derive(Debug, Clone, Copy)]
pub struct Form<'a> {
    /// All versions of the operator table.
    pub versions: &'a Versions,
    /// The one that the image is written in. No node of a newer operator is offered.
    pub version: Version,
    /// Normal form 1 instead of 0.
    pub channels_last: bool,
}

impl<'a> Form<'a> {
    /// The newest version, and normal form 0.
    pub fn newest(versions: &'a Versions) -> Form<'a> {
        Form {
            versions,
            version: versions.newest(),
            channels_last: false,
        }
    }

    /// Why the version lacks a node's operator, if it does.
    fn lacks(&self, node: &Node) -> Option<String> {
        let since = self.versions.since(node.op);
        let name = |version| self.versions.name(version);
        (since > self.version).then(|| {
            format!(
                "not offered: `{}` is of the operator table {}, and the delegate was built for {}",
                node.op,
                name(since),
                name(self.version)
            )
        })
    }
}

/// Nodes as an image.
#[derive(Debug, Clone)]
pub struct Image {
    /// `DGG1`.
    pub bytes: Vec<u8>,
    /// The node of the graph that each node of the image is, or that it was put in for.
    pub nodes: Vec<NodeId>,
    /// The operator of each node of the image.
    pub operators: Vec<&'static str>,
    /// In the order of the image's inputs.
    pub inputs: Vec<ValueId>,
    /// In the order of the image's outputs.
    pub outputs: Vec<ValueId>,
    /// The constant of each weight; its position is the weight's id.
    pub weights: Vec<ConstantId>,
}

/// Everything of a graph that a delegate may be asked about.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The nodes that are offered.
    pub image: Image,
    /// For each node of the graph, why it is not offered, if so.
    pub refusals: Vec<Option<Cow<'static, str>>>,
}

/// A graph could not be written as an image.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LayoutError {
    /// A node with a subgraph in a region: tagging never makes one.
    #[error("node `{node}` has a subgraph, which an image cannot hold")]
    Subgraph {
        /// The node's name.
        node: String,
    },
    /// A region of which a folded node is only partly in, or whose border is another one in the view: tagging never makes one.
    #[error("node `{node}` does not make an image: its region and its folded form have other borders")]
    Torn {
        /// The node's name.
        node: String,
    },
    /// A constant that the module does not have.
    #[error("value `{value}` names a constant that does not exist")]
    NoConstant {
        /// The value's name.
        value: String,
    },
    /// The image's writer refused it.
    #[error("the graph `{graph}` does not make an image: {error:?}")]
    Image {
        /// The graph's name.
        graph: String,
        /// Why.
        error: ImageError,
    },
}

/// Why a node of unbounded results is not offered.
const UNPLANNED: &str =
    "not offered: its result has no upper bound, so no room can be set aside for it (give the dimension a `max`)";

/// Writes all nodes of a graph that can be offered to delegates.
///
/// # Errors
/// See [`LayoutError`].
pub fn offer(module: &Module, graph: &Graph, form: Form<'_>) -> Result<Offer, LayoutError> {
    let live = live(graph);
    // A delegate writes into memory that the host gives it, so the host has to know how much is enough.
    let unplanned = |node: &Node| {
        let mut tensors = node.outputs.iter().filter_map(|value| graph.tensor(*value));
        tensors
            .any(|ty| ty.planned_bytes(&module.symbols).is_none())
            .then_some(UNPLANNED)
    };
    let refusals: Vec<Option<Cow<'static, str>>> = graph
        .nodes
        .iter()
        .zip(live)
        .map(|(node, live)| {
            let unread = (!live).then_some("nothing reads what it makes");
            let builtin = builtin_refusal(graph, node).or(unread).or_else(|| unplanned(node));
            builtin.map(Cow::Borrowed).or_else(|| form.lacks(node).map(Cow::Owned))
        })
        .collect();
    let nodes: Vec<NodeId> = graph.node_ids().filter(|id| refusals[id.index()].is_none()).collect();
    let image = of_nodes(module, graph, &nodes, &Reads::of(graph), form)?;
    Ok(Offer { image, refusals })
}

/// Writes some nodes of a graph, which are in execution order.
///
/// # Errors
/// See [`LayoutError`].
pub fn of_nodes(
    module: &Module,
    graph: &Graph,
    nodes: &[NodeId],
    reads: &Reads,
    form: Form<'_>,
) -> Result<Image, LayoutError> {
    let boundary = Boundary::of(graph, nodes, reads);
    let states = states_of(module, graph, nodes, &boundary, reads);
    write(module, graph, nodes, boundary, &states, form)
}

/// Writes some nodes with inputs and outputs in a given order, and the states among these.
pub(crate) fn write(
    module: &Module,
    graph: &Graph,
    nodes: &[NodeId],
    boundary: Boundary,
    states: &[RegionState],
    form: Form<'_>,
) -> Result<Image, LayoutError> {
    if !form.channels_last {
        return write_as_is(module, graph, nodes, boundary, states, form);
    }
    let (graph, origins) = channels_last(graph, nodes, &boundary.outputs);
    let all: Vec<NodeId> = graph.node_ids().collect();
    let image = write_as_is(module, &graph, &all, boundary, states, form)?;
    Ok(Image {
        nodes: origins,
        ..image
    })
}

fn write_as_is(
    module: &Module,
    graph: &Graph,
    nodes: &[NodeId],
    boundary: Boundary,
    states: &[RegionState],
    form: Form<'_>,
) -> Result<Image, LayoutError> {
    let mut writer = Writer {
        module,
        graph,
        builder: ImageBuilder::new(&graph.name),
        sizes: BorderSizes::of(graph, &boundary.inputs, &module.symbols),
        exprs: FxHashMap::default(),
        values: FxHashMap::default(),
        weights: Vec::new(),
        weight_of: FxHashMap::default(),
    };
    writer.builder.opset(form.versions.name(form.version));
    writer.builder.normal_form(u32::from(form.channels_last));
    for input in &boundary.inputs {
        let value = graph.value(*input);
        let ty = writer.ty(&value.ty)?;
        let index = writer.builder.input(&value.name, &ty);
        writer.values.insert(*input, index);
    }
    for id in &boundary.constants {
        let value = graph.value(*id);
        if let Def::Constant(constant) = value.def {
            let ty = writer.ty(&value.ty)?;
            let weight = writer.weight(constant, &value.name)?;
            let index = writer.builder.weight_value(&value.name, &ty, weight);
            writer.values.insert(*id, index);
        }
    }
    for id in nodes {
        writer.node(*id)?;
    }
    for output in &boundary.outputs {
        writer.builder.output(writer.values[output]);
    }
    for state in states {
        // A view may have given its ends types of its own.
        let ends = [
            boundary.inputs.get(state.input as usize),
            boundary.outputs.get(state.output as usize),
        ];
        let [Some(before), Some(after)] = ends.map(|end| end.map(|value| &graph.value(*value).ty)) else {
            continue;
        };
        if before != after {
            continue;
        }
        writer.builder.state(&state.name, state.input, state.output, None);
    }
    let finished = writer.builder.finish();
    Ok(Image {
        bytes: finished.map_err(|error| LayoutError::Image {
            graph: graph.name.clone(),
            error,
        })?,
        nodes: nodes.to_vec(),
        operators: nodes.iter().map(|id| graph.node(*id).op.name()).collect(),
        inputs: boundary.inputs,
        outputs: boundary.outputs,
        weights: writer.weights,
    })
}

/// The weights of an image, contiguous.
#[derive(Debug, Clone, Default)]
pub struct ImageWeights {
    items: Vec<Bytes>,
    constants: Vec<ConstantId>,
    tag: Option<u64>,
}

impl ImageWeights {
    /// Looks the constants up. Contiguous ones are not copied.
    ///
    /// # Errors
    /// The name of a constant that does not lie inside its storage.
    pub fn new(module: &Module, constants: &[ConstantId]) -> Result<ImageWeights, String> {
        let bytes = |id: &ConstantId| {
            let constant = module.constants.find(*id);
            constant
                .and_then(Constant::to_contiguous)
                .ok_or_else(|| constant.map_or_else(|| id.to_string(), |c| c.name.clone()))
        };
        Ok(ImageWeights {
            items: constants.iter().map(bytes).collect::<Result<_, _>>()?,
            constants: constants.to_vec(),
            tag: None,
        })
    }

    /// Lets a delegate see which weights of several graphs are the same constant; `tag` is the module's own in this process.
    pub(crate) fn shared_as(mut self, tag: u64) -> ImageWeights {
        self.tag = Some(tag);
        self
    }
}

impl delegraph_host::Weights for ImageWeights {
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.items.get(id as usize).map(Bytes::as_slice)
    }

    /// The top bit keeps apart what other kinds of weights give, which are addresses.
    fn share_key(&self, id: u32) -> Option<[u64; 2]> {
        let constant = self.constants.get(id as usize)?;
        Some([1 << 63 | self.tag?, constant.index() as u64])
    }
}

struct Writer<'a> {
    module: &'a Module,
    graph: &'a Graph,
    builder: ImageBuilder,
    sizes: BorderSizes,
    exprs: FxHashMap<Expr, ExprIndex>,
    values: FxHashMap<ValueId, ValueIndex>,
    weights: Vec<ConstantId>,
    weight_of: FxHashMap<ConstantId, WeightIndex>,
}

impl Writer<'_> {
    fn node(&mut self, id: NodeId) -> Result<(), LayoutError> {
        let graph = self.graph;
        let node = graph.node(id);
        let args: Vec<image::Arg> = node
            .args
            .iter()
            .map(|arg| self.arg(arg, &node.name))
            .collect::<Result<_, _>>()?;
        let types: Vec<image::Type> = node
            .outputs
            .iter()
            .map(|v| self.ty(&graph.value(*v).ty))
            .collect::<Result<_, _>>()?;
        let outputs: Vec<(&str, &image::Type)> = node
            .outputs
            .iter()
            .zip(&types)
            .map(|(v, ty)| (graph.value(*v).name.as_str(), ty))
            .collect();
        let source = node.source.as_deref().unwrap_or_default();
        let made = self.builder.node(&node.name, node.op.name(), &args, &outputs, source);
        self.values.extend(node.outputs.iter().copied().zip(made));
        Ok(())
    }

    fn arg(&mut self, arg: &Arg, node: &str) -> Result<image::Arg, LayoutError> {
        let value = |writer: &Self, v: &ValueId| writer.values[v];
        Ok(match arg {
            Arg::None => image::Arg::None,
            Arg::Value(v) => image::Arg::Value(value(self, v)),
            Arg::Int(Expr::Int(i)) => image::Arg::Int(*i),
            Arg::Int(e) | Arg::Sym(e) => image::Arg::Expr(self.expr(e)),
            Arg::Float(f) => image::Arg::Float(*f),
            Arg::Bool(b) => image::Arg::Bool(*b),
            Arg::Str(s) => image::Arg::Str(s.clone()),
            Arg::DType(dtype) => image::Arg::DType(dtype_code(*dtype)),
            Arg::MemoryFormat(format) => image::Arg::MemoryFormat(match format {
                MemoryFormat::Contiguous => FormatCode::CONTIGUOUS,
                MemoryFormat::Preserve => FormatCode::PRESERVE,
                MemoryFormat::ChannelsLast => FormatCode::CHANNELS_LAST,
                MemoryFormat::ChannelsLast3d => FormatCode::CHANNELS_LAST_3D,
            }),
            Arg::Ints(items) => image::Arg::Ints(items.iter().map(|e| self.expr(e)).collect()),
            Arg::Floats(items) => image::Arg::Floats(items.clone()),
            Arg::Bools(items) => image::Arg::Bools(items.clone()),
            Arg::Scalars(items) => image::Arg::Scalars(items.iter().map(|s| scalar(*s)).collect()),
            Arg::Values(items) => image::Arg::Values(items.iter().map(|v| value(self, v)).collect()),
            Arg::OptionalValues(items) => {
                image::Arg::OptionalValues(items.iter().map(|v| v.as_ref().map(|v| value(self, v))).collect())
            }
            Arg::Graph(_) => return Err(LayoutError::Subgraph { node: node.to_string() }),
        })
    }

    fn ty(&mut self, ty: &Type) -> Result<image::Type, LayoutError> {
        Ok(match ty {
            Type::Tensor(tensor) => image::Type::Tensor {
                dtype: dtype_code(tensor.dtype),
                dims: tensor.shape.iter().map(|e| self.expr(e)).collect(),
                quant: tensor.quant.as_ref().map(|q| self.quant(q)).transpose()?,
            },
            Type::Int(expr) => image::Type::Int(self.expr(expr)),
            Type::Float => image::Type::Float,
            Type::Bool => image::Type::Bool,
        })
    }

    fn quant(&mut self, quant: &Quant) -> Result<image::Quant, LayoutError> {
        let mut weights = |scales: &ConstantId, zero_points: &Option<ConstantId>| {
            let scales = self.weight(*scales, "scales")?;
            let zero_points = zero_points.map(|id| self.weight(id, "zero points")).transpose()?;
            Ok((scales, zero_points))
        };
        Ok(match quant {
            Quant::PerTensor {
                scale,
                zero_point,
                quant_min,
                quant_max,
            } => image::Quant::PerTensor {
                scale: *scale,
                zero_point: *zero_point,
                quant_min: *quant_min,
                quant_max: *quant_max,
            },
            Quant::PerAxis {
                axis,
                scales,
                zero_points,
                quant_min,
                quant_max,
            } => {
                let (scales, zero_points) = weights(scales, zero_points)?;
                image::Quant::PerAxis {
                    axis: *axis,
                    scales,
                    zero_points,
                    quant_min: *quant_min,
                    quant_max: *quant_max,
                }
            }
            Quant::PerBlock {
                block,
                scales,
                zero_points,
                quant_min,
                quant_max,
            } => {
                let (scales, zero_points) = weights(scales, zero_points)?;
                image::Quant::PerBlock {
                    block: block.clone(),
                    scales,
                    zero_points,
                    quant_min: *quant_min,
                    quant_max: *quant_max,
                }
            }
        })
    }

    /// Weights are numbered in order of first use, so that equal regions make equal images.
    fn weight(&mut self, id: ConstantId, value: &str) -> Result<WeightIndex, LayoutError> {
        if let Some(index) = self.weight_of.get(&id) {
            return Ok(*index);
        }
        let constant = self.module.constants.find(id).ok_or_else(|| LayoutError::NoConstant {
            value: value.to_string(),
        })?;
        let number = self.weights.len() as u32;
        let index = self.builder.weight(number, dtype_code(constant.dtype), &constant.sizes);
        self.weights.push(id);
        self.weight_of.insert(id, index);
        Ok(index)
    }

    /// A size, in terms of what the inputs tell.
    fn expr(&mut self, expr: &Expr) -> ExprIndex {
        if let Some(index) = self.exprs.get(expr) {
            return *index;
        }
        let rewritten = self.sizes.rewrite(expr);
        let index = self.rewritten(&rewritten);
        self.exprs.insert(expr.clone(), index);
        index
    }

    fn rewritten(&mut self, expr: &Expr) -> ExprIndex {
        if let Some(index) = self.exprs.get(expr) {
            return *index;
        }
        let index = match expr {
            Expr::Int(i) => self.builder.int(*i),
            Expr::Float(bits) => self.builder.float(f64::from_bits(*bits)),
            Expr::Symbol(symbol) => {
                let range = self.sizes.range(symbol, &self.module.symbols);
                self.builder.symbol(&symbol.0, range.min, range.max)
            }
            Expr::Op(op, operands) => {
                let operands: Vec<ExprIndex> = operands.iter().map(|e| self.rewritten(e)).collect();
                self.builder.op(op_code(*op), &operands)
            }
        };
        self.exprs.insert(expr.clone(), index);
        index
    }
}

fn scalar(value: Scalar) -> image::Arg {
    match value {
        Scalar::Bool(b) => image::Arg::Bool(b),
        Scalar::Int(i) => image::Arg::Int(i),
        Scalar::Float(f) => image::Arg::Float(f),
    }
}

fn dtype_code(dtype: DType) -> Code {
    Code(dtype.pte_code() as u32)
}

fn op_code(op: ExprOp) -> image::ExprOp {
    match op {
        ExprOp::Add => image::ExprOp::ADD,
        ExprOp::Mul => image::ExprOp::MUL,
        ExprOp::FloorDiv => image::ExprOp::FLOOR_DIV,
        ExprOp::CeilDiv => image::ExprOp::CEIL_DIV,
        ExprOp::Mod => image::ExprOp::MOD,
        ExprOp::Max => image::ExprOp::MAX,
        ExprOp::Min => image::ExprOp::MIN,
        ExprOp::Pow => image::ExprOp::POW,
        ExprOp::TrueDiv => image::ExprOp::TRUE_DIV,
        ExprOp::Eq => image::ExprOp::EQ,
        ExprOp::Ne => image::ExprOp::NE,
        ExprOp::Lt => image::ExprOp::LT,
        ExprOp::Le => image::ExprOp::LE,
        ExprOp::Gt => image::ExprOp::GT,
        ExprOp::Ge => image::ExprOp::GE,
        ExprOp::And => image::ExprOp::AND,
        ExprOp::Or => image::ExprOp::OR,
        ExprOp::Not => image::ExprOp::NOT,
        ExprOp::Where => image::ExprOp::WHERE,
        ExprOp::ToFloat => image::ExprOp::TO_FLOAT,
        ExprOp::Trunc => image::ExprOp::TRUNC,
        ExprOp::Floor => image::ExprOp::FLOOR,
        ExprOp::Ceil => image::ExprOp::CEIL,
        ExprOp::Round => image::ExprOp::ROUND,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_abi::image::{ArgView, Expr as ViewExpr, Kind, Source, verify};
    use delegraph_ir::{Symbol, SymbolRange, TensorType};
    use delegraph_types::Dims;

    fn constant(module: &mut Module, name: &str, dtype: DType, sizes: &[i64], bytes: Vec<u8>) -> ConstantId {
        let constant = Constant::contiguous(name, dtype, Dims::new(sizes).unwrap(), Bytes::from(bytes));
        module.constants.push(constant)
    }

    #[test]
    fn a_region_reads_back_as_it_was() {
        let mut module = Module::default();
        let unused = constant(&mut module, "unused", DType::F32, &[1], vec![0; 4]);
        let w = constant(&mut module, "w", DType::F32, &[8, 4], vec![7; 128]);
        module
            .symbols
            .ranges
            .insert(Symbol::new("s0"), SymbolRange { min: 2, max: Some(9) });
        let s = Expr::symbol("s0");
        let mut graph = Graph::new("forward");
        let sized = |last| Type::from(TensorType::new(DType::F32, vec![s.clone(), Expr::Int(last)]));
        let x = graph.add_input("x", sized(4));
        let unused = graph.add_constant("unused", TensorType::fixed(DType::F32, &[1]), unused);
        let weight = graph.add_constant("w", TensorType::fixed(DType::F32, &[8, 4]), w);
        let before = graph
            .push("aten::mul.Tensor", vec![x.into(), unused.into()], vec![sized(4)])
            .unwrap()[0];
        let y = graph
            .push("aten::linear", vec![before.into(), weight.into()], vec![sized(8)])
            .unwrap()[0];
        let flat = Type::from(TensorType::new(DType::F32, vec![s.clone() * Expr::Int(8)]));
        let size = vec![s.clone() * Expr::Int(8)];
        let z = graph
            .push("aten::view", vec![y.into(), Arg::Ints(size)], vec![flat])
            .unwrap()[0];
        graph.add_output(z);
        graph.nodes[1].source = Some("model.py:3".into());

        let image = of_nodes(
            &module,
            &graph,
            &[NodeId(1), NodeId(2)],
            &Reads::of(&graph),
            Form::newest(&Versions::builtin()),
        )
        .unwrap();
        assert_eq!(
            (image.inputs, image.outputs, image.weights),
            (vec![before], vec![z], vec![w])
        );
        let view = verify(&image.bytes).unwrap();
        let ops: Vec<(&str, &str, &str)> = view.nodes().map(|n| (n.name(), n.op(), n.debug())).collect();
        assert_eq!(
            ops,
            [("linear_1", "aten::linear", "model.py:3"), ("view_2", "aten::view", "")]
        );
        let input = view.value(view.inputs().get(0).unwrap());
        assert_eq!((input.name(), input.kind()), ("mul_0", Kind::Tensor(Code::F32)));
        let ViewExpr::Symbol(symbol) = view.expr(input.dims().get(0).unwrap()) else {
            panic!()
        };
        let symbol = view.symbol(symbol);
        assert_eq!((symbol.name, symbol.min, symbol.max), ("s0", 2, Some(9)));
        let linear = view.nodes().next().unwrap();
        let weight = view.value(linear.arg(1).value().unwrap());
        assert_eq!(
            (weight.const_dims().unwrap(), weight.weight().unwrap().id()),
            (vec![8, 4], 0)
        );
        assert!(matches!(weight.source(), Source::Weight(_)));
        assert!(linear.arg(2).is_none());
        let reshape = view.nodes().nth(1).unwrap();
        let ArgView::Ints(size) = reshape.arg(1) else { panic!() };
        let size = size.exprs().get(0).unwrap();
        assert!(matches!(view.expr(size), ViewExpr::Op(image::ExprOp::MUL, _)));
        assert_eq!(view.outputs().len(), 1);

        let weights = ImageWeights::new(&module, &[w]).unwrap();
        assert_eq!(delegraph_host::Weights::bytes(&weights, 0), Some(&[7u8; 128][..]));
        assert_eq!(delegraph_host::Weights::bytes(&weights, 1), None);
    }

    #[test]
    fn every_kind_of_argument_crosses() {
        let mut graph = Graph::new("forward");
        let ty = || Type::from(TensorType::fixed(DType::F32, &[4]));
        let x = graph.add_input("x", ty());
        let y = graph.push("aten::relu", vec![x.into()], vec![ty()]).unwrap()[0];
        let half = Expr::op(ExprOp::TrueDiv, vec![Expr::symbol("s0"), Expr::Int(2)]);
        // An image takes the arguments as they come; only the graph must be sound.
        graph.nodes[0].args = vec![
            Arg::Value(x),
            Arg::Int(Expr::Int(-3)),
            Arg::Int(Expr::symbol("s0")),
            Arg::Sym(half),
            Arg::Float(0.5),
            Arg::Bool(true),
            Arg::Str("valid".into()),
            Arg::DType(DType::BF16),
            Arg::MemoryFormat(MemoryFormat::ChannelsLast),
            Arg::ints(&[1, 2]),
            Arg::Floats(vec![1.5]),
            Arg::Bools(vec![false]),
            Arg::Scalars(vec![Scalar::Int(4), Scalar::Float(0.25)]),
            Arg::Values(vec![x, x]),
            Arg::OptionalValues(vec![None, Some(x)]),
            Arg::None,
        ];
        graph.add_output(y);
        let image = of_nodes(
            &Module::default(),
            &graph,
            &[NodeId(0)],
            &Reads::of(&graph),
            Form::newest(&Versions::builtin()),
        )
        .unwrap();
        let view = verify(&image.bytes).unwrap();
        let node = view.nodes().next().unwrap();
        let kinds: Vec<String> = node
            .args()
            .map(|a| format!("{a:?}").split(['(', ' ']).next().unwrap().to_string())
            .collect();
        let expected = [
            "Value",
            "Int",
            "Expr",
            "Expr",
            "Float",
            "Bool",
            "Str",
            "DType",
            "MemoryFormat",
            "Ints",
            "Numbers",
            "Numbers",
            "Numbers",
            "Values",
            "OptionalValues",
            "None",
        ];
        assert_eq!(kinds, expected);
        assert_eq!(node.arg(1).int(), Some(-3));
        assert!(matches!(node.arg(7), ArgView::DType(Code::BF16)));
        assert!(matches!(node.arg(8), ArgView::MemoryFormat(FormatCode::CHANNELS_LAST)));
        let body = Arg::Graph(Box::new(Graph::new("body")));
        graph.nodes[0].args.push(body);
        let result = of_nodes(
            &Module::default(),
            &graph,
            &[NodeId(0)],
            &Reads::of(&graph),
            Form::newest(&Versions::builtin()),
        );
        assert!(matches!(result, Err(LayoutError::Subgraph { .. })));
    }

    #[test]
    fn sizes_behind_a_stride_are_told_by_the_region_s_inputs() {
        let mut graph = Graph::new("forward");
        let rows = (Expr::symbol("s0") - Expr::Int(1)).floor_div(Expr::Int(2)) + Expr::Int(1);
        let ty = |e: &Expr| Type::from(TensorType::new(DType::F32, vec![e.clone()]));
        let x = graph.add_input("x", ty(&Expr::symbol("s0")));
        let y = graph.push("aten::relu", vec![x.into()], vec![ty(&rows)]).unwrap()[0];
        let double = rows.clone() * Expr::Int(2);
        let args = vec![Arg::Values(vec![y, y]), Arg::int(0)];
        let z = graph.push("aten::cat", args, vec![ty(&double)]).unwrap()[0];
        graph.add_output(z);
        let image = of_nodes(
            &Module::default(),
            &graph,
            &[NodeId(1)],
            &Reads::of(&graph),
            Form::newest(&Versions::builtin()),
        )
        .unwrap();
        let view = verify(&image.bytes).unwrap();
        let mut sizes = image::Sizes::new(&view);
        sizes.bind(&view, [[7].as_slice()]).unwrap();
        assert_eq!(sizes.dims(&view, view.outputs().get(0).unwrap()), Some(vec![14]));
    }

    #[test]
    fn quantized_types_bring_their_scales() {
        let mut module = Module::default();
        let scales = constant(&mut module, "scales", DType::F32, &[4], vec![0; 16]);
        let mut graph = Graph::new("forward");
        let mut ty = TensorType::fixed(DType::I8, &[4, 2]);
        ty.quant = Some(Quant::PerAxis {
            axis: 0,
            scales,
            zero_points: None,
            quant_min: -127,
            quant_max: 127,
        });
        let x = graph.add_input("x", ty.clone().into());
        let y = graph.push("aten::relu", vec![x.into()], vec![ty.into()]).unwrap()[0];
        graph.add_output(y);
        let image = of_nodes(
            &module,
            &graph,
            &[NodeId(0)],
            &Reads::of(&graph),
            Form::newest(&Versions::builtin()),
        )
        .unwrap();
        assert_eq!(image.weights, [scales]);
        let view = verify(&image.bytes).unwrap();
        let quant = view.value(view.outputs().get(0).unwrap()).quant();
        assert!(
            matches!(
                quant,
                Some(image::Quant::PerAxis {
                    axis: 0,
                    quant_min: -127,
                    ..
                })
            ),
            "{quant:?}"
        );
    }

    #[test]
    fn a_constant_outside_its_storage_is_named() {
        let mut module = Module::default();
        let id = constant(&mut module, "w", DType::F32, &[4], vec![0; 16]);
        module.constants[id].offset = 1;
        assert_eq!(ImageWeights::new(&module, &[id]).unwrap_err(), "w");
        let mut graph = Graph::new("forward");
        let w = graph.add_constant("gone", TensorType::fixed(DType::F32, &[4]), ConstantId(9));
        let ty = TensorType::fixed(DType::F32, &[4]);
        graph.push("aten::relu", vec![w.into()], vec![ty.into()]).unwrap();
        let result = of_nodes(
            &module,
            &graph,
            &[NodeId(0)],
            &Reads::of(&graph),
            Form::newest(&Versions::builtin()),
        );
        assert!(matches!(result, Err(LayoutError::NoConstant { value }) if value == "gone"));
    }
}
