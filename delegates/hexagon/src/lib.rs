//! The Hexagon delegate: Qualcomm's NPUs through Qualcomm's own QNN library, which is loaded when it is there.
//!
//! ```text
//! partition  caps.rs -> builder.rs, operators/   a node is lowered alone; validate.rs shows it to the library
//! compile    builder.rs -> graph.rs              the region as a QNN graph
//!            compile.rs, blob.rs, sys/           finalized by the library for one SoC; its context binary in our envelope
//! load       execute.rs                          header and metadata are compared, the context is made
//! run        execute.rs                          elements are converted at the border, the graph is executed
//! ```

pub mod builder;
pub mod caps;
pub mod graph;
pub mod node;
pub mod operators;
pub mod packing;
pub mod soc;
