//! The reference delegate: plain and right.
//!
//! It evaluates a graph node by node, on the processor, in `f64` and `i64`, and rounds each value to its element type.
//! It is what other delegates are compared with, and an example to begin one from: what it takes is said in one table
//! ([`caps`]), an operator family is one file of [`ops`], and a node that it is not sure about is refused with the reason.
//!
//! It knows the SDK alone: no kernels, no types of the runtime, no host. What a vendor's delegate cannot reach, this one
//! does not reach either. It is not fast, and must not become so at the price of being plain.
//!
//! ```
//! use delegraph_reference::execute::{Program, WeightBytes};
//! use delegraph_sdk::image::{Arg, ImageBuilder, Type};
//! use delegraph_sdk::{DType, Error, TensorView};
//!
//! struct NoWeights;
//! impl WeightBytes for NoWeights {
//!     fn bytes(&self, id: u32) -> Result<&[u8], Error> {
//!         Err(Error::invalid(format!("there is no weight {id}")))
//!     }
//! }
//!
//! let mut image = ImageBuilder::new("forward");
//! let two = image.int(2);
//! let ty = Type::tensor(DType::F32, &[two]);
//! let x = image.input("x", &ty);
//! let y = image.node("relu", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
//! image.output(y);
//!
//! let mut program = Program::new(&image.finish().unwrap())?;
//! let bytes = [(-1f32).to_le_bytes(), 3f32.to_le_bytes()].concat();
//! let x = TensorView::new(DType::F32, &[2], &bytes);
//! let made = program.run(&[x], &NoWeights)?;
//! assert_eq!(made[0].floats()?, [0.0, 3.0]);
//! # Ok::<(), Error>(())
//! ```

pub mod call;
pub mod caps;
mod compile;
mod device;
pub mod execute;
mod layout;
mod math;
mod number;
pub mod ops;
mod promote;
mod quant;
pub mod tensor;
#[cfg(test)]
mod testing;
mod walk;

use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, Compile, Compiled, Context, Delegate, Device, Error, Info, Options, Partition, Run, Session, Weights,
};

/// The reference delegate.
pub struct Reference;

impl Delegate for Reference {
    const INFO: Info = Info {
        name: "reference",
        vendor: "Delegraph",
        version: env!("CARGO_PKG_VERSION"),
        build: "",
        format: "delegraph.reference",
        format_version: 1,
    };

    fn new(options: &Options<'_>, _: &Context<'_>) -> Result<Reference, Error> {
        options.check(&[])?;
        Ok(Reference)
    }

    fn devices(&self) -> Vec<Device> {
        device::devices()
    }
}

impl Compile for Reference {
    fn partition(&self, graph: &ImageView<'_>, _: &Context<'_>) -> Result<Partition, Error> {
        Ok(Partition::each(graph, |node| caps::verdict(&node)))
    }

    fn compile(&self, graph: &ImageView<'_>, _: &Weights<'_>, _: &str, _: &Context<'_>) -> Result<Compiled, Error> {
        compile::compile(graph)
    }
}

impl Run for Reference {
    fn load(&self, blob: &Blob<'_>, weights: &Weights<'_>, _: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        execute::load(blob, weights)
    }
}
