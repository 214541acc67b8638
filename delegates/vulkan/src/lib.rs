//! The Vulkan delegate: compute shaders on any GPU that has a Vulkan driver.
//!
//! ```text
//! partition  caps.rs: what it takes                      one predicate, from `operators/`
//! compile    compile.rs, program.rs                      the graph becomes a blob
//! load       session.rs                                  the blob becomes a session on one device
//! run        encoder.rs -> schedule.rs -> placement.rs   once for each set of sizes: operators give dispatches, these get memory
//!            sys/                                        commands are recorded once, submitted each run
//! ```
//!
//! A device is not needed to partition or compile.

pub mod caps;
pub mod chain;
pub mod codes;
mod compile;
pub mod encoder;
pub mod facts;
pub mod fuse;
pub mod kernels;
pub mod node;
pub mod operators;
pub mod packing;
pub mod placement;
pub mod program;
pub mod schedule;
mod session;
pub mod sys;
pub mod tensor;

use crate::facts::{Facts, Kind};
use crate::sys::{Gpu, Instance};
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, Compile, Compiled, Context, Delegate, Device, DeviceKind, Error, Info, LogLevel, OptionValue, Options,
    Partition, Run, Session, Weights,
};
use std::sync::{Arc, Mutex, PoisonError};

/// The Vulkan delegate.
pub struct Vulkan {
    /// The loader and an instance; or why there is none.
    instance: Result<Arc<Instance>, Error>,
    facts: Vec<Facts>,
    /// Opened devices, by index.
    gpus: Mutex<Vec<Option<Arc<Gpu>>>>,
}

impl Delegate for Vulkan {
    const INFO: Info = Info {
        name: "vulkan",
        vendor: "Delegraph",
        version: env!("CARGO_PKG_VERSION"),
        build: "",
        format: "delegraph.vulkan",
        format_version: program::VERSION,
    };

    const OPTIONS_SCHEMA: &'static str = r#"{
        "properties": {
            "device": { "type": "string", "default": "", "description": "a part of the device's name, its kind (`discrete`, `integrated`, `virtual`, `software`) or its index; empty: the best" },
            "loader": { "type": "string", "default": "", "description": "path of the Vulkan loader; empty: the system's" },
            "validation": { "type": "boolean", "default": false, "description": "use the validation layers; what they say fails the run" }
        }
    }"#;

    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Vulkan, Error> {
        options.check(&["device", "loader", "validation"])?;
        let text = |key| match options.find(key) {
            Some(OptionValue::Str(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        let validation = options.find("validation") == Some(OptionValue::Bool(true))
            || std::env::var_os("DELEGRAPH_VULKAN_VALIDATION").is_some_and(|v| v == "1");
        let instance = Instance::open(text("loader"), validation);
        let facts = instance
            .as_ref()
            .map_err(Error::clone)
            .and_then(|instance| Gpu::list(instance));
        let facts = facts.unwrap_or_else(|error| {
            // Partitioning and compiling need no device.
            context.log(LogLevel::Info, &format!("unavailable: {}", error.message));
            Vec::new()
        });
        let gpus = Mutex::new(vec![None; facts.len()]);
        Ok(Vulkan { instance, facts, gpus })
    }

    fn devices(&self) -> Vec<Device> {
        self.facts.iter().map(device).collect()
    }
}

impl Vulkan {
    /// Opens a device, once.
    fn gpu(&self, index: Option<u32>) -> Result<Arc<Gpu>, Error> {
        let instance = self.instance.as_ref().map_err(Error::clone)?;
        let index = index.map_or(0, |index| index as usize);
        let mut gpus = self.gpus.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(gpu)) = gpus.get(index) {
            return Ok(Arc::clone(gpu));
        }
        let gpu = Gpu::open(instance, index)?;
        if let Some(slot) = gpus.get_mut(index) {
            *slot = Some(Arc::clone(&gpu));
        }
        Ok(gpu)
    }
}

fn device(facts: &Facts) -> Device {
    Device {
        kind: match facts.kind {
            Kind::Software => DeviceKind::Cpu,
            _ => DeviceKind::Gpu,
        },
        name: facts.name.clone(),
        vendor: facts.vendor.clone(),
        arch: String::new(),
        driver: facts.driver.clone(),
        memory: facts.limits.memory,
    }
}

impl Compile for Vulkan {
    fn partition(&self, graph: &ImageView<'_>, _: &Context<'_>) -> Result<Partition, Error> {
        Ok(Partition::each(graph, |node| caps::verdict(&node)))
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        _: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error> {
        compile::compile(graph, weights, context)
    }
}

impl Run for Vulkan {
    fn load(&self, blob: &Blob<'_>, weights: &Weights<'_>, _: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        session::load(blob, weights, self.gpu(blob.device)?)
    }
}
