//! Regions become context binaries: a graph image becomes a QNN graph, the library finalizes it for the chip, and the blob is the library's
//! binary behind a header of ours.

use crate::blob::{self, Header, Slot};
use crate::builder::{Builder, WeightBytes};
use crate::caps;
use crate::graph::{Graph, Port};
use crate::settings::Settings;
use crate::soc::Soc;
use crate::sys::{CompileOptions, GraphInfo, Qnn, TensorInfo, Version};
use crate::validate;
use delegraph_sdk::image::{ImageView, NodeIndex, Sizes, ValueIndex};
use delegraph_sdk::{Compiled, Context, Error, Section, Status};
use sha2::{Digest, Sha256};

/// Multiples of which sections lie at: the library copies what it is given, so this is for our words alone.
const ALIGN: u32 = 16;

/// The QNN graph of a region.
///
/// # Errors
/// A node that cannot be lowered after all, named.
pub fn graph_of<'a>(image: ImageView<'a>, weights: &'a dyn WeightBytes, name: &str) -> Result<Graph, Error> {
    let mut builder = Builder::new(image, weights, name);
    let sizes = Sizes::new(&image);
    for index in 0..image.node_count() {
        let node = image.node(NodeIndex(index));
        caps::lower(&node, &sizes, &mut builder)
            .map_err(|refusal| Error::unsupported(refusal.text).at(node.index()))?;
    }
    let outputs: Vec<ValueIndex> = image.outputs().iter().collect();
    builder
        .finish(&outputs)
        .map_err(|refusal| Error::unsupported(refusal.text))
}

/// Why graphs that belong together were not compiled: the error, and which of them it is about.
#[derive(Debug)]
pub struct Failed {
    /// What went wrong, with the node if one is known.
    pub error: Error,
    /// Index among the graphs; `None`: all of them together.
    pub graph: Option<usize>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed { error, graph: None }
    }
}

/// Compiles regions into one context: one blob each, which all have the same section `context`.
///
/// # Errors
/// See [`Failed`].
pub fn compile(
    regions: &[(ImageView<'_>, &dyn WeightBytes)],
    qnn: &Qnn,
    soc: &Soc,
    settings: &Settings,
    context: &Context<'_>,
) -> Result<Vec<Compiled>, Failed> {
    let vtcm_mb = settings.vtcm_of(soc)?;
    let mut graphs = Vec::with_capacity(regions.len());
    for (at, (image, weights)) in regions.iter().enumerate() {
        context.progress(at as u64, regions.len() as u64 + 1, "making QNN graphs");
        let graph = graph_of(*image, *weights, &format!("g{at}"));
        graphs.push(graph.map_err(|error| Failed { error, graph: Some(at) })?);
    }
    if context.is_cancelled() {
        return Err(Error::new(Status::CANCELLED, "the caller gave up").into());
    }
    let total = regions.len() as u64 + 1;
    context.progress(total - 1, total, "the QNN library finalizes the graphs");
    let options = CompileOptions {
        vtcm_mb: (settings.vtcm_mb != 0).then_some(vtcm_mb),
    };
    let all: Vec<&Graph> = graphs.iter().collect();
    let made = qnn.compile(&all, &options).map_err(|failed| {
        let at = failed
            .graph
            .as_ref()
            .and_then(|name| graphs.iter().position(|graph| graph.name == *name));
        let Some(at) = at else {
            return Failed::from(failed.error);
        };
        let graph = &graphs[at];
        // A library that names no node may still refuse one when it sees it among the others.
        let node = failed.node.or_else(|| validate::first_refused(graph, qnn));
        let source = node.and_then(|node| graph.nodes.get(node)?.source);
        Failed {
            error: match source {
                Some(source) => failed.error.at(source),
                None => failed.error,
            },
            graph: Some(at),
        }
    })?;
    let library = qnn.library();
    let numbers = |version: Version| [version.major, version.minor, version.patch];
    let common = Header {
        soc: soc.id,
        soc_name: soc.name.to_string(),
        arch: soc.arch,
        vtcm_mb,
        core: numbers(library.api_version()),
        backend: numbers(library.backend_version()),
        build: library.build_id().to_string(),
        performance_mode: settings.performance_mode.to_string(),
        digest: Sha256::digest(&made.binary).into(),
        size: made.binary.len() as u64,
        ..Header::default()
    };
    let mut blobs = Vec::with_capacity(graphs.len());
    for ((graph, (image, _)), info) in graphs.iter().zip(regions).zip(&made.graphs) {
        let header = Header {
            graph: graph.name.clone(),
            inputs: slots(graph, image, &graph.inputs, info, image.inputs().iter())?,
            outputs: slots(graph, image, &graph.outputs, info, image.outputs().iter())?,
            nodes: graph
                .nodes
                .iter()
                .map(|node| (node.name.clone(), node.source.map(|source| source.0)))
                .collect(),
            ..common.clone()
        };
        blobs.push(Compiled {
            precision: match graph.tensors.iter().any(|tensor| tensor.data_type.is_float()) {
                true => "f16".to_string(),
                // Sums of the emulation, and of the chip, may be a step off.
                false => "int8".to_string(),
            },
            // The oldest library that reads the binary, for `check_blob`.
            driver_min: driver(common.core, common.backend),
            sections: vec![
                section(blob::HEADER, header.write()),
                section(blob::CONTEXT, made.binary.clone()),
            ],
            ..Compiled::default()
        });
    }
    Ok(blobs)
}

/// Versions of a library, core API and backend API, as the envelope states them.
pub fn driver(core: [u32; 3], backend: [u32; 3]) -> String {
    let dotted = |v: [u32; 3]| format!("{}.{}.{}", v[0], v[1], v[2]);
    format!("qnn {} htp {}", dotted(core), dotted(backend))
}

/// Reads what [`driver`] wrote; `None`: it is something else.
pub fn versions(driver: &str) -> Option<([u32; 3], [u32; 3])> {
    let dotted = |text: &str| -> Option<[u32; 3]> {
        let parts: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
        parts?.try_into().ok()
    };
    let (core, backend) = driver.strip_prefix("qnn ")?.split_once(" htp ")?;
    Some((dotted(core)?, dotted(backend)?))
}

fn section(name: &str, bytes: Vec<u8>) -> Section {
    Section {
        name: name.to_string(),
        align: ALIGN,
        bytes,
    }
}

/// One slot a port: the host's sizes, and the tensor as the library knows it.
fn slots(
    graph: &Graph,
    image: &ImageView<'_>,
    ports: &[Port],
    info: &GraphInfo,
    values: impl Iterator<Item = ValueIndex>,
) -> Result<Vec<Slot>, Error> {
    let known = |name: &str| -> Result<TensorInfo, Error> {
        let mut all = info.inputs.iter().chain(&info.outputs);
        let found = all.find(|tensor| tensor.name == name).cloned();
        found.ok_or_else(|| Error::internal(format!("the library has no tensor `{name}`")))
    };
    let slot = |(port, value): (&Port, ValueIndex)| {
        let dims = image.value(value).const_dims().unwrap_or_default();
        let dims = dims.into_iter().map(|d| u32::try_from(d).unwrap_or(u32::MAX)).collect();
        let tensor = port.tensor.map(|id| known(&graph.tensor(id).name)).transpose()?;
        Slot::of(port, dims, tensor)
    };
    ports.iter().zip(values).map(slot).collect()
}
