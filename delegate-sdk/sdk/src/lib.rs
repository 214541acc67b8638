//! Write a delegate in safe Rust.
//!
//! A delegate is a type that implements [`Delegate`], which says who it is, and a trait for each of its roles: [`Compile`] says
//! what it takes and compiles it, [`Run`] makes [`Session`]s of what was compiled. A delegate whose compiler and runtime are two
//! libraries is two types, one a role, which share the name and the form of the blobs. The SDK turns a type into the C table of
//! `delegraph.h`, catches panics, and carries errors with their node and hint. It knows no host: the same type serves as a plugin
//! ([`export_delegate`]) and linked in ([`static_entry`]).
//!
//! # A whole delegate
//!
//! It adds two f32 tensors of one size, and multiplies the sum by an option:
//!
//! ```
//! use delegraph_sdk::image::{ImageView, NodeIndex, NodeView};
//! use delegraph_sdk::*;
//!
//! struct Adder {
//!     scale: f32,
//! }
//!
//! impl Delegate for Adder {
//!     const INFO: Info = Info {
//!         name: "adder",
//!         vendor: "example",
//!         version: "0.1.0",
//!         build: "",
//!         format: "adder.scale",
//!         format_version: 1,
//!     };
//!
//!     // The host checks options before it starts the delegate, and says which key was meant by a wrong one.
//!     const OPTIONS_SCHEMA: &'static str = r#"{
//!         "properties": { "scale": { "type": "number", "minimum": 0, "default": 1, "description": "factor of every sum" } }
//!     }"#;
//!
//!     fn new(options: &Options<'_>, _: &Context<'_>) -> Result<Adder, Error> {
//!         // An older host knows no schema.
//!         options.check(&["scale"])?;
//!         let scale = match options.find("scale") {
//!             None => 1.0,
//!             Some(OptionValue::Float(scale)) => scale as f32,
//!             Some(OptionValue::Int(scale)) => scale as f32,
//!             Some(other) => return Err(Error::invalid(format!("`scale` is {other:?}, no number"))),
//!         };
//!         Ok(Adder { scale })
//!     }
//!
//!     fn devices(&self) -> Vec<Device> {
//!         Vec::new()
//!     }
//! }
//!
//! /// What it takes: one place, asked by `partition` and by `compile`.
//! fn verdict(node: &NodeView<'_>) -> Verdict {
//!     if node.op() != ops::ATEN_ADD_TENSOR {
//!         return Verdict::Refuse(Reason::UNKNOWN_OP, format!("`{}` is not an addition", node.op()).into());
//!     }
//!     let graph = node.image();
//!     let mut tensors = node.inputs().chain(node.outputs().iter()).map(|v| graph.value(v));
//!     let Some(out) = node.outputs().iter().next().map(|v| graph.value(v)) else {
//!         return Verdict::Refuse(Reason::OTHER, "it makes nothing".into());
//!     };
//!     let dims = out.const_dims();
//!     if dims.is_none() || !tensors.all(|t| t.dtype() == Some(DType::F32) && t.const_dims() == dims) {
//!         return Verdict::Refuse(Reason::SHAPE, "f32 of one fixed size only".into());
//!     }
//!     match node.inputs().count() == 2 && node.arg(2).float() == Some(1.0) {
//!         true => Verdict::Take,
//!         false => Verdict::Refuse(Reason::ATTRIBUTE, "`alpha` must be 1, both operands tensors".into()),
//!     }
//! }
//!
//! impl Compile for Adder {
//!     fn partition(&self, graph: &ImageView<'_>, _: &Context<'_>) -> Result<Partition, Error> {
//!         Ok(Partition::each(graph, |node| verdict(&node)))
//!     }
//!
//!     fn compile(
//!         &self,
//!         graph: &ImageView<'_>,
//!         _: &Weights<'_>,
//!         _target: &str,
//!         context: &Context<'_>,
//!     ) -> Result<Compiled, Error> {
//!         for node in graph.nodes() {
//!             context.progress(u64::from(node.index().0), u64::from(graph.node_count()), node.name());
//!             if let Verdict::Refuse(_, text) = verdict(&node) {
//!                 // The host tags again without this node.
//!                 return Err(Error::unsupported(text).at(node.index()));
//!             }
//!         }
//!         if graph.node_count() != 1 || graph.inputs().len() != 2 {
//!             let last = NodeIndex(graph.node_count().saturating_sub(1));
//!             return Err(Error::unsupported("one addition of two inputs at a time").at(last));
//!         }
//!         // Bytes become a blob of one section, `code`. A `Compiled` says more: precision, drivers, what tensors need.
//!         Ok(self.scale.to_le_bytes().to_vec().into())
//!     }
//! }
//!
//! impl Run for Adder {
//!     fn load(&self, blob: &Blob<'_>, _: &Weights<'_>, _: &Context<'_>) -> Result<Box<dyn Session>, Error> {
//!         match blob.section("code")?.try_into() {
//!             Ok(scale) => Ok(Box::new(Sum { scale: f32::from_le_bytes(scale) })),
//!             Err(_) => Err(Error::corrupt("the scale is not of four bytes")),
//!         }
//!     }
//! }
//!
//! struct Sum {
//!     scale: f32,
//! }
//!
//! impl Session for Sum {
//!     fn execute(
//!         &mut self,
//!         inputs: &[TensorView<'_>],
//!         outputs: &mut [TensorOut<'_>],
//!         context: &Context<'_>,
//!     ) -> Result<(), Error> {
//!         let start_ns = context.now_ns();
//!         let ([a, b], [out]) = (inputs, outputs) else {
//!             return Err(Error::invalid("two inputs and one output"));
//!         };
//!         out.set_sizes(a.sizes)?;
//!         let (Some(a), Some(b), Some(out)) = (a.elements::<f32>(), b.elements::<f32>(), out.elements::<f32>()) else {
//!             return Err(Error::invalid("f32 only"));
//!         };
//!         out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (a, b))| *out = self.scale * (a + b));
//!         if context.profiling() {
//!             let bytes = 12 * out.len() as u64;
//!             let end_ns = context.now_ns();
//!             context.profile(&[ProfileEvent { name: "add", start_ns, end_ns, bytes, ..ProfileEvent::default() }]);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! // In the plugin crate: delegraph_sdk::export_delegate!(adder::Adder);
//! let _linked_in = static_entry::<Adder>();
//! // If it only ran what a compiler elsewhere made: export_delegate!(adder::Adder: run), or
//! let _executor = static_entry_as::<Adder, roles::Run>();
//! ```
//!
//! # More
//!
//! - Older and newer hosts: every function of the host that came after the first minor of the ABI is asked for. Where the host is
//!   older, [`Context`]'s methods answer plainly, and a [`Requirement`] that could not be met is an error of `compile`.
//! - What was packed when it was compiled, read where it lies: [`Blob::keep`] in `load`, with a section that asks for the alignment that it
//!   needs ([`Section`]).
//! - A device that works on its own: export with `submit` and override [`Session::submit`]. It gets a [`SubmittedRun`], a value that
//!   moves to the thread that waits for the device and ends exactly once.
//! - A device that reads the host's memory in place: implement [`Import`], export with `import`.
//! - A device that reads memory of others by handle, a dma-buf for example, or that lets others see its own: implement `External` beside it,
//!   export with `external`.
//! - A device that keeps caches from run to run: name the states of the graph in [`Compiled::kept_states`], write the methods `state_` of
//!   [`Session`], export with `state`.
//! - Variables: read them by [`environment`], which knows none in a process that was started with more rights than its caller has.
//! - Sizes that are numbers by now: [`arguments`] reads what a node was given.
//! - A compiler that puts several graphs into one context, so that what they share is stored once: override [`Compile::compile_set`],
//!   export with `compile_set`.
//! - A compiler for several chips: [`Context::target`] names the one that is asked about, in `partition` too.
//! - Threads: [`Context::parallel_for`] borrows the host's; bring none of your own for computing.

mod answer;
pub mod arguments;
mod blob;
mod call;
mod delegate;
mod error;
mod extension;
#[cfg(unix)]
mod external;
#[cfg(feature = "layout-check")]
pub mod layout_check;
#[rustfmt::skip]
pub mod ops;
mod options;
mod submit;
mod sys;
mod table;
mod tensor;
mod weights;

pub use answer::{BlobVerdict, Compiled, Partition, Requirement, Section, TensorPlace, Verdict};
pub use blob::{Blob, BlobMeta, KeptBlob};
pub use call::{Context, LogLevel, ProfileEvent};
pub use delegate::{Compile, Delegate, Device, DeviceKind, Import, Info, Run, Session};
pub use delegraph_abi::{DType, MemoryFormat, Reason, Status, c, image};
pub use error::{Error, SetError};
pub use extension::Extension;
#[cfg(unix)]
pub use external::{Exported, External, ExternalMemory, HandleType, HandleTypes, Handles, Origin};
pub use options::{OptionValue, Options};
pub use submit::SubmittedRun;
pub use sys::{Element, HostMemory, Mapped, environment};
pub use table::{entry, roles, static_entry, static_entry_as};
pub use tensor::{Imported, TensorOut, TensorView};
pub use weights::{KeptWeights, Weights};
