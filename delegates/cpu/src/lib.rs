//! The CPU delegate: the processor as an ordinary delegate, behind the ordinary contract.
//!
//! ```text
//! partition  caps.rs                        every operator that has a kernel
//! compile    graph.rs, passes               the region is rewritten: layouts, fused steps, packed weights
//!            compile.rs                     the program is an image of the contract's form, with operators of the delegate's own
//! load       execute.rs, program.rs         weights stay where they lie
//! run        plan.rs, steps/                once for each set of sizes: steps with all pointers resolved, and one piece of memory
//! ```
//!
//! Where the portable plan runs operator by operator, this runs whole regions. Kernels are in `delegraph-cpu-kernels`; what no pass makes a step of
//! its own is run by its portable kernel.

pub mod caps;
pub mod compile;
mod execute;
pub mod families;
pub mod family;
pub mod graph;
pub mod passes;
pub mod place;
pub mod plan;
pub mod program;
pub mod settings;
pub mod states;
pub mod steps;
pub mod sys;
pub mod threads;
pub mod view;

use delegraph_cpu_kernels::Isa;
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, BlobMeta, BlobVerdict, Compile, Compiled, Context, Delegate, Device, DeviceKind, Error, Info, Options,
    Partition, Run, Session, Weights,
};

/// The name of the form of its blobs.
pub const FORMAT: &str = "delegraph.cpu";
/// The oldest version of blobs that is read: one program, which nobody says the family of.
const OLDEST: u32 = 2;

/// The CPU delegate.
pub struct Cpu {
    settings: settings::Settings,
}

impl Delegate for Cpu {
    const INFO: Info = Info {
        name: "cpu",
        vendor: "Delegraph",
        version: env!("CARGO_PKG_VERSION"),
        build: "",
        format: FORMAT,
        format_version: 3,
    };

    const OPTIONS_SCHEMA: &'static str = settings::SCHEMA;

    fn new(options: &Options<'_>, _: &Context<'_>) -> Result<Cpu, Error> {
        Ok(Cpu {
            settings: settings::Settings::read(options)?,
        })
    }

    fn devices(&self) -> Vec<Device> {
        vec![Device {
            kind: DeviceKind::Cpu,
            name: format!("this machine's processor, with {}", Isa::best()),
            vendor: String::new(),
            arch: std::env::consts::ARCH.to_string(),
            driver: String::new(),
            memory: 0,
        }]
    }
}

impl Compile for Cpu {
    fn partition(&self, graph: &ImageView<'_>, _: &Context<'_>) -> Result<Partition, Error> {
        let known = caps::Known::of(graph);
        Ok(Partition::each(graph, |node| caps::verdict(&node, &known)))
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        _: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error> {
        compile::compile(graph, weights, &self.settings, context)
    }
}

impl Run for Cpu {
    fn check_blob(&self, meta: &BlobMeta<'_>) -> BlobVerdict {
        let format_version = meta.format_version.clamp(OLDEST, Self::INFO.format_version);
        BlobVerdict::by_format(
            &Info {
                format_version,
                ..Self::INFO
            },
            meta,
        )
    }

    fn load(&self, blob: &Blob<'_>, weights: &Weights<'_>, context: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        execute::load(blob, weights, self.settings.isa.as_deref(), context)
    }
}
