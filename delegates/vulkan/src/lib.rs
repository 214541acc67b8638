//! The Vulkan delegate: compute shaders on any GPU that has a Vulkan driver.
//!
//! ```text
//! partition  caps.rs: what it takes                      one predicate, from `operators/`
//! compile    compile.rs, program.rs                      the graph becomes a blob
//! load       session/                                    the blob becomes a session on one device
//! run        encoder.rs -> schedule.rs -> placement.rs   once for each set of sizes: operators give dispatches, these get memory
//!            session/, sys/                              commands are recorded once, submitted each run
//! ```
//!
//! What can be decided without a driver is plain data and tested without one: `choice.rs` (which device), `memory.rs` (which memory, and how it
//! is shared out), `cache.rs` (pipelines on disk).
//!
//! A device is not needed to partition or compile.

pub mod cache;
pub mod caps;
pub mod chain;
pub mod choice;
pub mod codes;
mod compile;
pub mod encoder;
pub mod facts;
pub mod fuse;
pub mod kernels;
pub mod memory;
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
use crate::session::{HostBuffer, Opened, Settings, Shared, Waiter};
use crate::sys::{Gpu, Instance, lock};
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, Compile, Compiled, Context, Delegate, Device, DeviceKind, Error, HostMemory, Import, Info, LogLevel,
    OptionValue, Options, Partition, Run, Session, Status, Weights, environment,
};
#[cfg(unix)]
use delegraph_sdk::{Exported, External, ExternalMemory, HandleType, Handles, Mapped};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// The Vulkan delegate.
pub struct Vulkan {
    /// The loader and an instance; or why there is none.
    instance: Result<Arc<Instance>, Error>,
    /// The devices; or why there is none.
    facts: Result<Vec<Facts>, Error>,
    /// The device that is taken where a session names none.
    wanted: String,
    /// The folder of pipeline caches.
    caches: Option<PathBuf>,
    settings: Settings,
    /// Opened devices, by index.
    opened: Mutex<Vec<Option<Arc<Opened>>>>,
    /// Bytes from which on states stay on the device.
    keep_from: u64,
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
            "cache": { "type": "string", "default": "", "description": "folder of pipeline caches, or `off`; empty: `delegraph/vulkan` in the user's folder of caches" },
            "validation": { "type": "boolean", "default": false, "description": "use the validation layers; what they say fails the run" },
            "mirror": { "type": "integer", "minimum": 0, "default": 1048576, "description": "states of up to so many bytes are also kept by the processor, so that a lost device loses none of them" },
            "replay_check": { "type": "integer", "minimum": 0, "maximum": 1000, "default": 0, "description": "repeat the first run so often, and fail if its results differ by a bit" },
            "keep_states_from": { "type": "integer", "minimum": 0, "default": 0, "description": "bytes from which on a state stays on the device between runs; smaller ones move with each run" }
        }
    }"#;

    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Vulkan, Error> {
        options.check(&[
            "device",
            "loader",
            "cache",
            "validation",
            "mirror",
            "replay_check",
            "keep_states_from",
        ])?;
        let text = |key| match options.find(key) {
            Some(OptionValue::Str(text)) => text,
            _ => "",
        };
        let validation = options.find("validation") == Some(OptionValue::Bool(true))
            || environment::is_set("DELEGRAPH_VULKAN_VALIDATION");
        let number = |key, default: u32| match options.find(key) {
            Some(OptionValue::Int(number)) => u32::try_from(number).unwrap_or(u32::MAX),
            _ => default,
        };
        let keep_from = match options.find("keep_states_from") {
            Some(OptionValue::Int(bytes)) => u64::try_from(bytes).unwrap_or(0),
            _ => 0,
        };
        let loader = Some(text("loader")).filter(|path| !path.is_empty());
        let instance = Instance::open(loader, validation);
        let found = instance.as_ref().map_err(Error::clone).and_then(|i| Gpu::list(i));
        let facts = found.and_then(|facts| match facts.is_empty() {
            true => Err(Error::new(
                Status::DEPENDENCY_MISSING,
                "no Vulkan driver has a device of version 1.2 that computes",
            )
            .hint("install a driver of Vulkan 1.2; `vulkaninfo --summary` shows what there is")),
            false => Ok(facts),
        });
        if let Err(error) = &facts {
            // Partitioning and compiling need no device.
            context.log(LogLevel::Info, &unavailable(error).message);
        }
        Ok(Vulkan {
            wanted: text("device").to_string(),
            caches: cache::folder(text("cache"), environment::variable),
            settings: Settings {
                replay: number("replay_check", 0),
                mirrored: number("mirror", 1 << 20) as usize,
            },
            keep_from,
            opened: Mutex::new(vec![None; facts.as_ref().map_or(0, Vec::len)]),
            instance,
            facts,
        })
    }

    fn devices(&self) -> Vec<Device> {
        self.facts.iter().flatten().map(device).collect()
    }
}

fn unavailable(error: &Error) -> Error {
    let mut error = error.clone();
    error.message = format!("unavailable: {}", error.message);
    error
}

impl Vulkan {
    /// The devices.
    ///
    /// # Errors
    /// There are none.
    fn found(&self) -> Result<&[Facts], Error> {
        self.facts.as_deref().map_err(unavailable)
    }

    /// The device of a session.
    ///
    /// # Errors
    /// There is none, or not this one.
    fn index(&self, chosen: Option<u32>) -> Result<usize, Error> {
        let devices = self.found()?;
        match chosen {
            Some(index) => choice::device(devices, &index.to_string()),
            None => choice::device(devices, &self.wanted),
        }
    }

    /// Opens a device, once; one that was lost again.
    fn open(&self, index: usize) -> Result<Arc<Opened>, Error> {
        let instance = self.instance.as_ref().map_err(unavailable)?;
        let mut opened = lock(&self.opened);
        let slot = opened.get_mut(index).ok_or_else(|| Error::internal("no such device"))?;
        if let Some(known) = slot.as_ref().filter(|known| !known.gpu.is_lost()) {
            return Ok(Arc::clone(known));
        }
        *slot = None;
        let gpu = Gpu::open(instance, index, self.caches.as_deref())?;
        let fresh = Arc::new(Opened {
            waiter: Waiter::new(&gpu),
            shared: Shared::default(),
            gpu,
        });
        Ok(Arc::clone(slot.insert(fresh)))
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
        memory: facts
            .limits
            .budget
            .map_or(facts.limits.memory, |budget| budget.min(facts.limits.memory)),
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
        compile::compile(graph, weights, self.keep_from, context)
    }
}

impl Run for Vulkan {
    fn load(&self, blob: &Blob<'_>, weights: &Weights<'_>, context: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        let opened = self.open(self.index(blob.device)?)?;
        session::load(blob, weights, opened, self.settings, context)
    }
}

impl Import for Vulkan {
    type Buffer = HostBuffer;

    fn import(&self, memory: HostMemory, _: &Context<'_>) -> Result<HostBuffer, Error> {
        self.shown(HostBuffer::new(memory))
    }
}

impl Vulkan {
    /// Shows memory to the devices that sessions are on; before there are any, to the one that they would be on. One has to take it.
    fn shown(&self, buffer: HostBuffer) -> Result<HostBuffer, Error> {
        let in_use: Vec<Arc<Opened>> = lock(&self.opened).iter().flatten().cloned().collect();
        let devices = match in_use.is_empty() {
            true => vec![self.open(self.index(None)?)?],
            false => in_use,
        };
        let mut refused = Ok(());
        let mut shown = false;
        for device in &devices {
            match buffer.show(&device.gpu) {
                Ok(()) => shown = true,
                Err(error) => refused = Err(error),
            }
        }
        match shown {
            true => Ok(buffer),
            false => refused.map(|()| buffer),
        }
    }
}

#[cfg(unix)]
impl External for Vulkan {
    fn handles(&self, device: Option<u32>) -> Handles {
        let index = self.index(device).ok();
        let facts = index.and_then(|index| self.found().ok()?.get(index));
        let Some(facts) = facts else {
            return Handles::default();
        };
        let kinds = [
            (HandleType::OpaqueFd, facts.external.opaque),
            (HandleType::DmaBuf, facts.external.dma_buf),
        ];
        Handles {
            import: kinds.iter().filter(|(_, s)| s.import).map(|(kind, _)| *kind).collect(),
            export: kinds.iter().filter(|(_, s)| s.export).map(|(kind, _)| *kind).collect(),
        }
    }

    fn import_external(&self, memory: ExternalMemory<'_>, _: &Context<'_>) -> Result<HostBuffer, Error> {
        self.shown(HostBuffer::external(&memory)?)
    }

    fn export(
        &self,
        device: Option<u32>,
        handle: HandleType,
        size: u64,
        _: &Context<'_>,
    ) -> Result<Exported<HostBuffer>, Error> {
        let opened = self.open(self.index(device)?)?;
        HostBuffer::export(&opened.gpu, handle, size)
    }

    fn mapped(&self, buffer: &HostBuffer) -> Option<Mapped> {
        buffer.seen()
    }
}
