//! The Ethos-U delegate: Arm's microcontroller NPUs. A region becomes a TOSA graph, Arm's compiler Vela makes a command stream of it, and that runs
//! on a functional interpreter of the stream (`delegraph-ethos-u-sim`). It was never run on a chip.
//!
//! ```text
//! partition  caps.rs -> builder.rs, operators/   a node is lowered alone
//! compile    builder.rs -> tosa/ -> vela.rs      the region as a TOSA file, compiled by Vela as an external tool
//! load, run  execute.rs                          the command stream, interpreted
//! ```

pub mod builder;
pub mod caps;
mod execute;
pub mod linux;
pub mod operators;
pub mod target;
pub mod tosa;
pub mod vela;

use crate::builder::{Builder, WeightBytes};
use crate::execute::Network;
use crate::target::Target;
use crate::vela::Vela;
use delegraph_sdk::image::{ImageView, Sizes};
use delegraph_sdk::{
    Blob, Compile, Compiled, Context, Delegate, Device, DeviceKind, Error, Info, OptionValue, Options, Partition, Run,
    Section, Session, Weights,
};

/// The Ethos-U delegate.
pub struct EthosU {
    target: &'static Target,
    vela: Vela,
}

const DEFAULT_TARGET: &str = "ethos-u55-128";
const NETWORK: &str = "network";
/// Section with the version of Vela that made the stream, as text.
const VERSION: &str = "vela";

fn target(name: &str) -> Result<&'static Target, Error> {
    Target::find(name).ok_or_else(|| {
        Error::invalid(format!("there is no target `{name}`")).hint(format!("the targets are {}", Target::names()))
    })
}

/// A graph as TOSA, for a target.
///
/// # Errors
/// What is not taken, with its node.
pub fn lower(graph: &ImageView<'_>, target: &'static Target, weights: &dyn WeightBytes) -> Result<tosa::Graph, Error> {
    let sizes = Sizes::new(graph);
    let mut builder = Builder::new(*graph, target, Some(weights));
    for node in graph.nodes() {
        caps::lower(&node, &sizes, &mut builder)
            .map_err(|refusal| Error::unsupported(refusal.text).at(node.index()))?;
    }
    let inputs: Vec<_> = graph.inputs().iter().collect();
    let outputs: Vec<_> = graph.outputs().iter().collect();
    let made = builder.finish(&inputs, &outputs);
    made.map_err(|refusal| Error::unsupported(refusal.text))
}

impl EthosU {
    /// The target of a name; where it is empty, that of the options.
    fn target_of(&self, name: &str) -> Result<&'static Target, Error> {
        match name {
            "" => Ok(self.target),
            name => target(name),
        }
    }
}

impl Delegate for EthosU {
    const INFO: Info = Info {
        name: "ethos-u",
        vendor: "Delegraph",
        version: env!("CARGO_PKG_VERSION"),
        build: "",
        format: "delegraph.ethos-u",
        format_version: 1,
    };

    const OPTIONS_SCHEMA: &'static str = r#"{
        "properties": {
            "target": { "type": "string", "default": "ethos-u55-128", "enum": ["ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256", "ethos-u65-256", "ethos-u65-512", "ethos-u85-128", "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024", "ethos-u85-2048"], "description": "the processor, where `--target` names none" },
            "vela": { "type": "string", "default": "vela", "description": "path of Arm's compiler Vela, or its name to look for in `PATH`" },
            "memory_mode": { "type": "string", "default": "", "description": "Vela's memory mode; empty: that of the target's preset" }
        }
    }"#;

    fn new(options: &Options<'_>, _: &Context<'_>) -> Result<EthosU, Error> {
        options.check(&["target", "vela", "memory_mode"])?;
        let text = |key, default| match options.find(key) {
            Some(OptionValue::Str(text)) => text,
            _ => default,
        };
        Ok(EthosU {
            target: target(text("target", DEFAULT_TARGET))?,
            vela: Vela::new(text("vela", ""), text("memory_mode", "")),
        })
    }

    fn devices(&self) -> Vec<Device> {
        vec![Device {
            kind: DeviceKind::Mcu,
            name: "functional interpreter, command stream by Vela; not hardware, not cycle-accurate".to_string(),
            vendor: "Delegraph".to_string(),
            arch: self.target.name.to_string(),
            driver: String::new(),
            memory: 0,
        }]
    }
}

impl Compile for EthosU {
    fn partition(&self, graph: &ImageView<'_>, context: &Context<'_>) -> Result<Partition, Error> {
        let target = self.target_of(context.target())?;
        let sizes = Sizes::new(graph);
        let mut partition = Partition::each(graph, |node| caps::verdict(&node, &sizes, target));
        partition.atomic_sets = operators::quantize::sets(graph);
        Ok(partition)
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        wanted: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error> {
        let target = self.target_of(wanted)?;
        let made = lower(graph, target, weights)?;
        let (network, version) = self.vela.compile(&tosa::write(&made), target, context)?;
        let section = |name: &str, bytes| Section {
            name: name.to_string(),
            align: 16,
            bytes,
        };
        Ok(Compiled {
            precision: "int8".to_string(),
            sections: vec![section(NETWORK, network), section(VERSION, version.into_bytes())],
            ..Compiled::default()
        })
    }
}

impl Run for EthosU {
    fn load(&self, blob: &Blob<'_>, _: &Weights<'_>, _: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        let network = Network::read(blob.section(NETWORK)?)?;
        let wanted = self.target_of(blob.meta.target)?;
        if !wanted.is_of(&network.stream().config) {
            let config = network.stream().config;
            return Err(Error::corrupt(format!(
                "the stream is for {}-{}, not for {}",
                config.product.name(),
                config.macs,
                wanted.name
            )));
        }
        Ok(Box::new(network))
    }
}
