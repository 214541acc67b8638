//! The two traits that make a delegate, and what they answer with.

use crate::{Blob, BlobMeta, Context, Error, Options, TensorOut, TensorView, Weights};
use delegraph_abi::Reason;
use delegraph_abi::image::{ImageView, NodeIndex};
use std::borrow::Cow;

/// What a delegate says of itself. Everything is constant: the host reads it before it initializes anything.
#[derive(Debug, Clone, Copy)]
pub struct Info {
    /// Backend id, for example `vulkan`; the manifest says the same.
    pub name: &'static str,
    /// Who makes it.
    pub vendor: &'static str,
    /// Semantic version; the manifest says the same.
    pub version: &'static str,
    /// Names one build; may be empty.
    pub build: &'static str,
    /// Name of the form of its blobs; two forms never share a name.
    pub format: &'static str,
    /// Version of that form. A blob of another version is `UNSUPPORTED_HERE`, unless `check_blob` says better.
    pub format_version: u32,
}

/// A delegate: answers what it takes, compiles it, loads what it compiled.
///
/// All of it may be called from several threads at once.
pub trait Delegate: Sized + Send + Sync + 'static {
    /// Its name and version.
    const INFO: Info;

    /// Starts it.
    ///
    /// # Errors
    /// An option that it does not know ([`Options::check`]), or a driver that is not there.
    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Self, Error>;

    /// The devices found when it started. Ids are 0, 1, … in order.
    fn devices(&self) -> Vec<Device>;

    /// Says for every node of the graph whether it takes it, or why not.
    ///
    /// # Errors
    /// Only what has nothing to do with single nodes.
    fn partition(&self, graph: &ImageView<'_>, context: &Context<'_>) -> Result<Partition, Error>;

    /// Compiles a graph, of which it took every node. Inputs and outputs of the session are the graph's, in order.
    ///
    /// # Errors
    /// Something that could not be seen before; name the node, and the host tags again without it.
    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        target: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error>;

    /// Judges a blob by its metadata, without loading it.
    fn check_blob(&self, meta: &BlobMeta<'_>) -> BlobVerdict {
        BlobVerdict::by_format(&Self::INFO, meta)
    }

    /// Makes a session of a blob. Its bytes are borrowed for the call; copy what is needed later.
    /// [`Weights::keep`] keeps the weights for as long as the session wants them.
    ///
    /// # Errors
    /// The blob is damaged or not fit, or the device failed.
    fn load(&self, blob: &Blob<'_>, weights: &Weights<'_>, context: &Context<'_>) -> Result<Box<dyn Session>, Error>;
}

/// A loaded blob. One run at a time; may move between threads.
pub trait Session: Send {
    /// Runs once. The host has checked number, dtype and rank of every tensor, and that sizes fit bytes and alignment
    /// fits the dtype. An output comes with its largest sizes; [`TensorOut::set_sizes`] states the actual ones.
    ///
    /// # Errors
    /// Sizes that do not fit the graph, or a failure of the device. The host then runs the region by itself: inputs must be
    /// untouched, outputs may hold anything.
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error>;
}

/// Kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DeviceKind {
    Cpu,
    Gpu,
    Npu,
    Dsp,
    Mcu,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Kind.
    pub kind: DeviceKind,
    /// Name for people.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// Architecture or chip; a target of `compile` where the delegate has targets.
    pub arch: String,
    /// Driver version; may be empty.
    pub driver: String,
    /// Bytes of its memory; 0: not known.
    pub memory: u64,
}

/// Answer for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It takes the node.
    Take,
    /// It does not; the reason is shown to people as it stands.
    Refuse(Reason, Cow<'static, str>),
}

/// Answer for a graph.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partition {
    /// One a node, in order.
    pub verdicts: Vec<Verdict>,
    /// Sets of nodes of which it wants all or none.
    pub atomic_sets: Vec<Vec<NodeIndex>>,
}

impl Partition {
    /// Asks `verdict` about every node.
    pub fn each<'a>(
        graph: &ImageView<'a>,
        mut verdict: impl FnMut(delegraph_abi::image::NodeView<'a>) -> Verdict,
    ) -> Partition {
        Partition {
            verdicts: graph.nodes().map(&mut verdict).collect(),
            atomic_sets: Vec::new(),
        }
    }
}

/// A part of a compiled blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Name, unique within the blob.
    pub name: String,
    /// Alignment that it is loaded at: a power of two, at most 4096.
    pub align: u32,
    /// Content.
    pub bytes: Vec<u8>,
}

/// What `compile` gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compiled {
    /// Lower precision that it computes in (`f16`, `int8`); empty: that of the graph.
    pub precision: String,
    /// At least one.
    pub sections: Vec<Section>,
}

impl From<Vec<u8>> for Compiled {
    /// One section `code`.
    fn from(bytes: Vec<u8>) -> Compiled {
        Compiled {
            precision: String::new(),
            sections: vec![Section {
                name: "code".to_string(),
                align: 16,
                bytes,
            }],
        }
    }
}

/// What a delegate thinks of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobVerdict {
    /// Made for exactly this.
    Optimal,
    /// Runs; compiling again would do better.
    RecompileBetter(String),
    /// Mine, but it does not run here.
    UnsupportedHere(String),
    /// Of another delegate.
    NotMine(String),
    /// Damaged.
    Corrupt(String),
}

impl BlobVerdict {
    /// The plain judgement: the delegate's and the form's names, and the form's version.
    pub fn by_format(info: &Info, meta: &BlobMeta<'_>) -> BlobVerdict {
        if meta.delegate != info.name || meta.format != info.format {
            return BlobVerdict::NotMine(format!(
                "the blob is of `{}` in the form `{}`, not of `{}` in the form `{}`",
                meta.delegate, meta.format, info.name, info.format
            ));
        }
        if meta.format_version != info.format_version {
            return BlobVerdict::UnsupportedHere(format!(
                "version {} of the form `{}` is not {}",
                meta.format_version, info.format, info.format_version
            ));
        }
        BlobVerdict::Optimal
    }
}
