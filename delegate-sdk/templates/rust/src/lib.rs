//! A delegate for Delegraph: who it is, and how the parts hang together.

mod caps;
mod compile;
mod device;
mod execute;
mod ops;

use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, Compile, Compiled, Context, Delegate, Device, Error, Info, Options, Partition, Run, Session, Weights,
};

/// The delegate. A real one has its driver's handle here.
pub struct MyNpuDelegate;

impl Delegate for MyNpuDelegate {
    // `name`, `vendor` and `version` say the same in my-npu.delegate.toml.
    const INFO: Info = Info {
        name: "my-npu",
        vendor: "Example Inc.",
        version: env!("CARGO_PKG_VERSION"),
        build: "",
        // The form of the blobs. Raise the version whenever an old blob would be misread.
        format: "my-npu.steps",
        format_version: 1,
    };

    fn new(options: &Options<'_>, _: &Context<'_>) -> Result<MyNpuDelegate, Error> {
        // A typing error in somebody's backends.toml must be found.
        options.check(&[])?;
        Ok(MyNpuDelegate)
    }

    fn devices(&self) -> Vec<Device> {
        device::devices()
    }
}

impl Compile for MyNpuDelegate {
    fn partition(&self, graph: &ImageView<'_>, _: &Context<'_>) -> Result<Partition, Error> {
        Ok(Partition::each(graph, |node| caps::verdict(&node)))
    }

    // The target is what the user asked for with `--target my-npu:NAME`; empty: anything.
    fn compile(&self, graph: &ImageView<'_>, _: &Weights<'_>, _: &str, _: &Context<'_>) -> Result<Compiled, Error> {
        compile::compile(graph)
    }
}

impl Run for MyNpuDelegate {
    fn load(&self, blob: &Blob<'_>, _: &Weights<'_>, _: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(execute::Steps::read(blob.section("code")?)?))
    }
}

// The library's one symbol. To link the delegate into a program as well, move this line to a crate of its own: two libraries
// that export the same symbol cannot be linked together.
delegraph_sdk::export_delegate!(MyNpuDelegate);
