//! The graph image `DGG1`: how a graph crosses to a delegate.
//!
//! One flat, read-only run of bytes, the same in process, in shared memory, on disk and in the fuzzer. Little-endian; every
//! table starts at a multiple of 8; each table states the size of its records, so that a newer writer may append fields and
//! an older reader steps over them. No weights lie in it: a weight is an id that the host maps.
//!
//! ```text
//! ImageHeader | ImageTable directory | tables in any order
//!
//! STRINGS   bytes      UTF-8, referred to by (offset, length)
//! INDICES   u32        lists of expressions, values; referred to by (start, count)
//! WORDS     u64        lists of numbers; sizes of weights
//! SYMBOLS   ImageSymbol   name and range of a dynamic size
//! EXPRS     ImageExpr     sizes: a number, a symbol, or an operator on earlier expressions
//! QUANTS    ImageQuant    per tensor, per axis, per block
//! WEIGHTS   ImageWeight   id, dtype, sizes, bytes
//! VALUES    ImageValue    name, type, dimensions as expressions, where it comes from
//! NODES     ImageNode     name, operator (`aten::linear`), arguments, outputs, source line
//! ARGS      ImageArg      one a parameter of the operator's schema
//! INPUTS    u32        values that the caller gives, in order
//! OUTPUTS   u32        values that the caller gets, in order
//! STATES    ImageState    an output that is an input of the next run; absent where there is none
//! ```
//!
//! Nodes are in execution order: each value is defined before it is read. There are no subgraphs: control flow is never
//! offered to a delegate. `node.arg(i)` belongs to the i-th parameter of the operator's schema, every default filled in.
//!
//! ```
//! use delegraph_abi::DType;
//! use delegraph_abi::image::{Arg, ImageBuilder, Type, verify};
//!
//! let mut image = ImageBuilder::new("forward");
//! let n = image.symbol("s0", 1, Some(512));
//! let four = image.int(4);
//! let ty = Type::tensor(DType::F32, &[n, four]);
//! let x = image.input("x", &ty);
//! let y = image.node("relu", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "model.py:3")[0];
//! image.output(y);
//! let bytes = image.finish().unwrap();
//!
//! let view = verify(&bytes).unwrap();
//! let node = view.nodes().next().unwrap();
//! assert_eq!((node.op(), node.debug()), ("aten::relu", "model.py:3"));
//! ```

mod builder;
mod sizes;
mod table;
mod verify;
mod view;

pub use crate::c::{ExprOp, MemoryFormat};
pub use builder::{Arg, ImageBuilder, Quant, Type};
pub use sizes::{Number, SizeError, Sizes};
pub use verify::{ImageError, verify};
pub use view::{
    ArgView, Expr, ImageView, IntsView, Kind, List, NodeView, NumbersView, Source, State, Symbol, ValueView, WeightView,
};

/// A value of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueIndex(pub u32);
/// A node of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub u32);
/// A size expression of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExprIndex(pub u32);
/// A weight of an image; its id is another number, [`ImageBuilder::weight`]'s first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeightIndex(pub u32);
/// A symbol of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SymbolIndex(pub u32);
