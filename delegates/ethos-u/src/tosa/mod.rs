//! TOSA graphs: as data, and as the FlatBuffer file that Arm's tools read.

mod graph;
mod write;

pub use graph::{Attribute, DType, Graph, Op, Operator, Rounding, Tensor};
pub use write::write;
