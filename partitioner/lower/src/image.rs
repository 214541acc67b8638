//! A set of nodes as a graph image, with the indices that lead back.

use delegraph_abi::image::{self, ExprIndex, ImageBuilder, ImageError, ValueIndex, WeightIndex};
use delegraph_abi::{DType as Code, MemoryFormat as FormatCode};
use delegraph_ir::{
    Arg, Bytes, Constant, ConstantId, Def, Expr, ExprOp, Graph, MemoryFormat, Module, NodeId, Quant, Type, ValueId,
};
use delegraph_tag::{Boundary, Reads, builtin_refusal, live};
use delegraph_types::{DType, Scalar};
use rustc_hash::FxHashMap;

/// Nodes as an image.
#[derive(Debug, Clone)]
pub struct Image {
    /// `DGG1`.
    pub bytes: Vec<u8>,
    /// The node of the graph that each node of the image is.
    pub nodes: Vec<NodeId>,
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
    pub refusals: Vec<Option<&'static str>>,
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

/// Writes all nodes of a graph that can be offered to delegates.
///
/// # Errors
/// See [`LayoutError`].
pub fn offer(module: &Module, graph: &Graph) -> Result<Offer, LayoutError> {
    let live = live(graph);
    let refusals: Vec<Option<&'static str>> = graph
        .nodes
        .iter()
        .zip(live)
        .map(|(node, live)| builtin_refusal(graph, node).or((!live).then_some("nothing reads what it makes")))
        .collect();
    let nodes: Vec<NodeId> = graph.node_ids().filter(|id| refusals[id.index()].is_none()).collect();
    let image = of_nodes(module, graph, &nodes, &Reads::of(graph))?;
    Ok(Offer { image, refusals })
}

/// Writes some nodes of a graph, which are in execution order.
///
/// # Errors
/// See [`LayoutError`].
pub fn of_nodes(module: &Module, graph: &Graph, nodes: &[NodeId], reads: &Reads) -> Result<Image, LayoutError> {
    let boundary = Boundary::of(graph, nodes, reads);
    let mut writer = Writer {
        module,
        graph,
        builder: ImageBuilder::new(&graph.name),
        exprs: FxHashMap::default(),
        values: FxHashMap::default(),
        weights: Vec::new(),
        weight_of: FxHashMap::default(),
    };
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
    let finished = writer.builder.finish();
    Ok(Image {
        bytes: finished.map_err(|error| LayoutError::Image {
            graph: graph.name.clone(),
            error,
        })?,
        nodes: nodes.to_vec(),
        inputs: boundary.inputs,
        outputs: boundary.outputs,
        weights: writer.weights,
    })
}

/// The weights of an image, contiguous.
#[derive(Debug, Clone, Default)]
pub struct ImageWeights {
    items: Vec<Bytes>,
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
        })
    }
}

impl delegraph_host::Weights for ImageWeights {
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.items.get(id as usize).map(Bytes::as_slice)
    }
}

struct Writer<'a> {
    module: &'a Module,
    graph: &'a Graph,
    builder: ImageBuilder,
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

    fn expr(&mut self, expr: &Expr) -> ExprIndex {
        if let Some(index) = self.exprs.get(expr) {
            return *index;
        }
        let index = match expr {
            Expr::Int(i) => self.builder.int(*i),
            Expr::Float(bits) => self.builder.float(f64::from_bits(*bits)),
            Expr::Symbol(symbol) => {
                let range = self.module.symbols.range(symbol);
                self.builder.symbol(&symbol.0, range.min, range.max)
            }
            Expr::Op(op, operands) => {
                let operands: Vec<ExprIndex> = operands.iter().map(|e| self.expr(e)).collect();
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
