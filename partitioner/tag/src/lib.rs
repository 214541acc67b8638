//! Tagging: which delegate takes which nodes, and why the others do not.
//!
//! Delegates give a [`Verdict`] with a reason for every node, and sets of nodes that they take whole or not at all. The
//! [`Policy`] adds what the user forbids. Out of these, [`plan`] makes regions: connected, convex, as large as they get, and
//! never in a cycle with each other, so that each is one atomic step. [`apply`] writes them into the graph and orders it so
//! that each region is one contiguous range; [`tag`] does both.
//!
//! This crate knows no host and no delegate: an [`Answer`] is all it sees of one.
//!
//! ```
//! use delegraph_ir::{Arg, Graph, Module, TensorType};
//! use delegraph_tag::{Answer, Policy, Verdict, tag};
//! use delegraph_types::DType;
//!
//! let module = Module::default();
//! let mut graph = Graph::new("forward");
//! let ty = TensorType::fixed(DType::F32, &[8, 8]);
//! let x = graph.add_input("x", ty.clone().into());
//! let y = graph.push("aten::relu", vec![Arg::Value(x)], vec![ty.clone().into()]).unwrap()[0];
//! let z = graph.push("aten::sin", vec![Arg::Value(y)], vec![ty.into()]).unwrap()[0];
//! graph.add_output(z);
//! let answer = Answer { verdicts: vec![Verdict::yes(), Verdict::no("no sine")], atomic_sets: vec![] };
//! let policy = Policy { min_nodes: 1, ..Policy::default() };
//! let tagging = tag(&module, &mut graph, &[("npu".into(), answer)], &policy, &[]);
//! assert_eq!(tagging.regions.len(), 1);
//! assert_eq!(tagging.nodes[1].refusals, [("npu".to_string(), "no sine".to_string())]);
//! ```

mod answer;
mod boundary;
mod engine;
mod plan;
mod planner;
mod policy;
mod sizes;
mod work;

pub use answer::{Answer, Verdict, builtin_refusal};
pub use boundary::{Boundary, Reads, live};
pub use plan::{Exclusion, NodeReport, TaggedRegion, Tagging, apply, plan, tag};
pub use policy::{Policy, Rule};
pub use sizes::BorderSizes;
pub use work::{Work, moves_only, work};
