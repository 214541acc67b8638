//! Write a delegate in safe Rust.
//!
//! A delegate is a type that implements [`Delegate`]: it says what it takes, compiles it, and makes [`Session`]s of what it
//! compiled. The SDK turns it into the C table of `delegraph.h`, catches panics, and carries errors with their node and hint.
//! It knows no host: the same type serves as a plugin ([`export_delegate`]) and linked in ([`static_entry`]).
//!
//! A delegate that adds two f32 tensors of one size:
//!
//! ```
//! use delegraph_sdk::image::ImageView;
//! use delegraph_sdk::*;
//!
//! struct Adder;
//!
//! impl Delegate for Adder {
//!     const INFO: Info = Info {
//!         name: "adder",
//!         vendor: "example",
//!         version: "0.1.0",
//!         build: "",
//!         format: "adder.count",
//!         format_version: 1,
//!     };
//!
//!     fn new(options: &Options<'_>, _: &Context<'_>) -> Result<Adder, Error> {
//!         options.check(&[])?;
//!         Ok(Adder)
//!     }
//!
//!     fn devices(&self) -> Vec<Device> {
//!         Vec::new()
//!     }
//!
//!     fn partition(&self, graph: &ImageView<'_>, _: &Context<'_>) -> Result<Partition, Error> {
//!         Ok(Partition::each(graph, |node| {
//!             if node.op() != "aten::add.Tensor" {
//!                 return Verdict::Refuse(Reason::UNKNOWN_OP, format!("`{}` is not an addition", node.op()).into());
//!             }
//!             let mut tensors = node.inputs().chain(node.outputs().iter()).map(|v| graph.value(v));
//!             let first = graph.value(node.outputs().iter().next().unwrap()).const_dims();
//!             match tensors.all(|t| t.dtype() == Some(DType::F32) && first.is_some() && t.const_dims() == first) {
//!                 true if node.inputs().count() == 2 && node.arg(2).float() == Some(1.0) => Verdict::Take,
//!                 true => Verdict::Refuse(Reason::ATTRIBUTE, "`alpha` must be 1, both operands tensors".into()),
//!                 false => Verdict::Refuse(Reason::DTYPE, "f32 of one fixed size only".into()),
//!             }
//!         }))
//!     }
//!
//!     fn compile(&self, graph: &ImageView<'_>, _: &Weights<'_>, _: &str, _: &Context<'_>) -> Result<Compiled, Error> {
//!         if graph.node_count() != 1 || graph.inputs().len() != 2 {
//!             return Err(Error::unsupported("one addition of two inputs at a time").hint("raise `min_nodes`"));
//!         }
//!         Ok(vec![1].into())
//!     }
//!
//!     fn load(&self, blob: &Blob<'_>, _: &Weights<'_>, _: &Context<'_>) -> Result<Box<dyn Session>, Error> {
//!         match blob.section("code")? {
//!             [1] => Ok(Box::new(Sum)),
//!             _ => Err(Error::corrupt("the count of additions is not 1")),
//!         }
//!     }
//! }
//!
//! struct Sum;
//!
//! impl Session for Sum {
//!     fn execute(&mut self, inputs: &[TensorView<'_>], outputs: &mut [TensorOut<'_>], _: &Context<'_>) -> Result<(), Error> {
//!         let ([a, b], [out]) = (inputs, outputs) else {
//!             return Err(Error::invalid("two inputs and one output"));
//!         };
//!         out.set_sizes(a.sizes)?;
//!         let (Some(a), Some(b), Some(out)) = (a.elements::<f32>(), b.elements::<f32>(), out.elements::<f32>()) else {
//!             return Err(Error::invalid("f32 only"));
//!         };
//!         out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (a, b))| *out = a + b);
//!         Ok(())
//!     }
//! }
//!
//! // In the plugin crate: delegraph_sdk::export_delegate!(adder::Adder);
//! let _linked_in = static_entry::<Adder>();
//! ```

mod call;
mod delegate;
mod error;
#[cfg(feature = "layout-check")]
pub mod layout_check;
#[rustfmt::skip]
pub mod ops;
mod sys;
mod table;
mod tensor;

pub use call::{Blob, BlobMeta, Context, KeptWeights, LogLevel, OptionValue, Options, Weights};
pub use delegate::{BlobVerdict, Compiled, Delegate, Device, DeviceKind, Info, Partition, Section, Session, Verdict};
pub use delegraph_abi::{DType, MemoryFormat, Reason, Status, c, image};
pub use error::Error;
pub use sys::Element;
pub use table::{entry, static_entry};
pub use tensor::{TensorOut, TensorView};
