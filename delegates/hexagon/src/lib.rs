//! The Hexagon delegate: Qualcomm's NPUs through Qualcomm's own QNN library, which is loaded when it is there.
//!
//! ```text
//! partition  caps.rs -> builder.rs, operators/   a node is lowered alone; validate.rs shows it to the library
//! compile    builder.rs -> graph.rs              the region as a QNN graph
//!            compile.rs, blob.rs, sys/           finalized by the library for one chip; its context binary behind our header
//! load       engine.rs                           header and metadata are compared, the context is made, or shared
//! run        execute.rs, border.rs               elements are converted at the border, the graph is executed
//! ```
//!
//! The library is found at the start (`place.rs`). Without it, the table alone says what would be taken, and compiling and loading answer that
//! it is missing. A process has one chip: the first that is compiled for or loaded.

pub mod blob;
pub mod border;
pub mod builder;
pub mod caps;
pub mod compile;
mod engine;
mod execute;
pub mod flow;
pub mod graph;
pub mod node;
pub mod operators;
pub mod packing;
pub mod place;
mod profile;
pub mod settings;
pub mod soc;
pub mod sys;
pub mod validate;

use crate::blob::Header;
use crate::builder::WeightBytes;
use crate::engine::Engine;
use crate::settings::Settings;
use crate::soc::Soc;
use crate::sys::Library;
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, BlobMeta, BlobVerdict, Compile, Compiled, Context, Delegate, Device, DeviceKind, Error, Info, LogLevel,
    Options, Partition, Run, Session, SetError, Status, Weights,
};
use sha2::{Digest, Sha256};
use std::sync::{Arc, OnceLock};

/// On these machines Qualcomm's library computes on the processor, as a chip would.
const EMULATED: bool = cfg!(target_arch = "x86_64");

/// The Hexagon delegate.
pub struct Hexagon {
    settings: Settings,
    /// Qualcomm's library; or why there is none.
    library: Result<Arc<Library>, Error>,
    /// What was made first, kept until the shutdown: the library keeps some 40 KB of each backend and device that it frees.
    engine: OnceLock<Arc<Engine>>,
}

impl Delegate for Hexagon {
    const INFO: Info = Info {
        name: "hexagon",
        vendor: "Delegraph",
        version: env!("CARGO_PKG_VERSION"),
        build: "",
        format: "delegraph.hexagon",
        format_version: blob::VERSION,
    };

    const OPTIONS_SCHEMA: &'static str = settings::SCHEMA;

    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Hexagon, Error> {
        let settings = Settings::read(options)?;
        let library = engine::library(settings.library.as_deref());
        if let Err(error) = &library {
            context.log(LogLevel::Info, &unavailable(error).to_string());
        }
        Ok(Hexagon {
            settings,
            library,
            engine: OnceLock::new(),
        })
    }

    fn devices(&self) -> Vec<Device> {
        self.library.iter().map(|library| self.device(library)).collect()
    }
}

fn unavailable(error: &Error) -> Error {
    let mut error = error.clone();
    error.message = format!("unavailable: {}", error.message);
    error
}

impl Hexagon {
    fn device(&self, library: &Library) -> Device {
        let chips: Vec<&str> = soc::SOCS.iter().map(|soc| soc.name).collect();
        let chip = self.settings.chip_for("").map_or("", |soc| soc.name);
        Device {
            kind: if EMULATED { DeviceKind::Cpu } else { DeviceKind::Npu },
            name: match EMULATED {
                true => format!("HTP emulated on this machine's processor, as {}", chips.join(", ")),
                false => "HTP".to_string(),
            },
            vendor: "Qualcomm".to_string(),
            arch: chip.to_string(),
            driver: format!(
                "{} core {} backend {} build {}",
                library.provider(),
                library.api_version(),
                library.backend_version(),
                library.build_id()
            ),
            memory: 0,
        }
    }

    /// The library with a chip.
    fn engine(&self, soc: &'static Soc) -> Result<Arc<Engine>, Error> {
        let library = self.library.as_ref().map_err(unavailable)?;
        let engine = Engine::of(library, soc)?;
        self.engine.get_or_init(|| Arc::clone(&engine));
        Ok(engine)
    }

    /// Compiles regions into one context.
    fn compile_all(
        &self,
        regions: &[(ImageView<'_>, &dyn WeightBytes)],
        target: &str,
        context: &Context<'_>,
    ) -> Result<Vec<Compiled>, compile::Failed> {
        let soc = self.settings.chip_for(target)?;
        let engine = self.engine(soc)?;
        let compiled = compile::compile(regions, engine.qnn(), soc, &self.settings, context);
        engine.tell(context);
        compiled
    }
}

impl Compile for Hexagon {
    fn partition(&self, graph: &ImageView<'_>, context: &Context<'_>) -> Result<Partition, Error> {
        let soc = self.settings.chip_for(context.target())?;
        // Without the library the table alone answers.
        let engine = match self.library {
            Ok(_) => Some(self.engine(soc)?),
            Err(_) => None,
        };
        let qnn = engine.as_ref().map(|engine| engine.qnn());
        let partition = validate::partition(graph, qnn, self.settings.integer, context);
        if let Some(engine) = engine {
            engine.tell(context);
        }
        Ok(partition)
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        target: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error> {
        let compiled = self.compile_all(&[(*graph, weights)], target, context);
        let mut blobs = compiled.map_err(|failed| failed.error)?;
        blobs.pop().ok_or_else(|| Error::internal("nothing was compiled"))
    }

    fn compile_set(
        &self,
        graphs: &[(ImageView<'_>, Weights<'_>)],
        target: &str,
        context: &Context<'_>,
    ) -> Result<Vec<Compiled>, SetError> {
        let regions: Vec<(ImageView<'_>, &dyn WeightBytes)> =
            graphs.iter().map(|(graph, weights)| (*graph, weights as _)).collect();
        let compiled = self.compile_all(&regions, target, context);
        compiled.map_err(|failed| match failed.graph {
            Some(graph) => failed.error.of_graph(graph),
            None => failed.error.into(),
        })
    }
}

impl Run for Hexagon {
    fn check_blob(&self, meta: &BlobMeta<'_>) -> BlobVerdict {
        let plain = BlobVerdict::by_format(&Self::INFO, meta);
        if plain != BlobVerdict::Optimal {
            return plain;
        }
        let library = match &self.library {
            Ok(library) => library,
            Err(error) => return BlobVerdict::UnsupportedHere(unavailable(error).message),
        };
        if !meta.target.is_empty()
            && let Err(error) = settings::chip(meta.target).and_then(|soc| self.allowed(soc))
        {
            return BlobVerdict::UnsupportedHere(error.message);
        }
        let (core, backend) = (library.api_version(), library.backend_version());
        let ours = (
            [core.major, core.minor, core.patch],
            [backend.major, backend.minor, backend.patch],
        );
        let ours_named = compile::driver(ours.0, ours.1);
        match compile::versions(meta.driver_min) {
            None => BlobVerdict::Corrupt(format!("`{}` names no versions of the QNN library", meta.driver_min)),
            Some(theirs) if theirs > ours => {
                BlobVerdict::UnsupportedHere(format!("it needs {}, and here is {ours_named}", meta.driver_min))
            }
            Some(theirs) if theirs == ours => BlobVerdict::Optimal,
            Some(_) => BlobVerdict::RecompileBetter(format!("it is of {}, and here is {ours_named}", meta.driver_min)),
        }
    }

    fn load(&self, blob: &Blob<'_>, _: &Weights<'_>, context: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        if let Some(device) = blob.device.filter(|device| *device != 0) {
            return Err(Error::new(
                Status::NOT_FOUND,
                format!("there is no device {device}; there is 0"),
            ));
        }
        let header = Header::read(blob.section(blob::HEADER)?)?;
        let binary = blob.section(blob::CONTEXT)?;
        if binary.len() as u64 != header.size || header.digest != <[u8; 32]>::from(Sha256::digest(binary)) {
            return Err(Error::corrupt(
                "the context binary is not the one that the blob's header is of",
            ));
        }
        let soc = soc::SOCS.iter().find(|soc| soc.id == header.soc).ok_or_else(|| {
            let text = format!(
                "the blob is for {} ({}), which is not known here",
                header.soc_name, header.soc
            );
            Error::new(Status::BLOB_INCOMPATIBLE, text).hint(format!("the chips are {}", soc::names()))
        })?;
        self.allowed(soc)?;
        let engine = self.engine(soc)?;
        let graph = engine.load(&header, binary);
        engine.tell(context);
        if let Some(error) = engine.unchecked() {
            context.log(
                LogLevel::Info,
                &format!("context binaries are not compared with their headers: {error}"),
            );
        }
        Ok(Box::new(execute::Loaded::new(engine, graph?, header)))
    }
}

impl Hexagon {
    /// Whether the options let a blob for this chip run.
    fn allowed(&self, soc: &Soc) -> Result<(), Error> {
        match self.settings.soc {
            Some(chosen) if chosen != soc => Err(Error::new(
                Status::BLOB_INCOMPATIBLE,
                format!("the blob is for {}, and the option `soc` is {}", soc.name, chosen.name),
            )
            .hint(format!("compile for {}, or leave the option out", chosen.name))),
            _ => Ok(()),
        }
    }
}
