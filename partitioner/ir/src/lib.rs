//! The graph that Delegraph works on: SSA over the one operator table, functional, with symbolic shapes.
//!
//! A [`Module`] holds named [`Graph`]s (one a method), the [`Constants`] and states that they share, and the [`Symbols`]
//! of dynamic dimensions. A [`Graph`] is a list of [`Node`]s in execution order over [`Value`]s. Nothing in it mutates:
//! a change of a buffer or of an input is a [`Mutation`] at the graph's end. Size arithmetic is not in nodes but in
//! [`Expr`]essions over symbols, which arguments and shapes hold; the emitter makes instructions of them.
//!
//! This crate knows no file format, no delegate and no kernel.
//!
//! ```
//! use delegraph_ir::{Arg, Graph, Module, TensorType};
//! use delegraph_types::DType;
//!
//! let mut module = Module::default();
//! let mut graph = Graph::new("forward");
//! let x = graph.add_input("x", TensorType::fixed(DType::F32, &[2, 3]).into());
//! let y = graph.push("aten::relu", vec![Arg::Value(x)], vec![TensorType::fixed(DType::F32, &[2, 3]).into()]).unwrap()[0];
//! graph.add_output(y);
//! module.graphs.push(graph);
//! assert_eq!(module.graphs[0].nodes[0].op.name(), "aten::relu");
//! ```

mod constant;
mod expr;
mod graph;
mod id;
mod infer;
mod merge;
mod module;
mod serialize;
mod text;
mod ty;
mod verify;

pub use constant::{Bytes, Constant, Constants};
pub use expr::{Expr, ExprOp, Symbol, SymbolRange, Symbols};
pub use graph::{
    Arg, Def, Graph, Input, InputKind, MemoryFormat, Mutation, MutationTarget, Node, Output, UnknownOp, Value,
    default_arg, fill_defaults,
};
pub use id::{ConstantId, NodeId, RegionId, StateId, ValueId};
pub use infer::{InferError, can_infer, infer};
pub use merge::MergeError;
pub use module::{Module, State};
pub use serialize::{DeserializeError, deserialize, serialize};
pub use ty::{Quant, TensorType, Type};

pub use verify::{VerifyError, verify};

pub use delegraph_opset::Op;
