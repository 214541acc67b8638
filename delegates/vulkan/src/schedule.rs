//! What a region becomes: commands over storages, as plain data. A schedule is made for one set of sizes and is all that recording needs.

use crate::kernels::Kernel;
use crate::packing::{Key, Packing};
use delegraph_sdk::DType;

/// Where the bytes of a storage come from and go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Device memory that lives from its first to its last command.
    Scratch,
    /// An input of the session: copied in before the first command.
    Input(u32),
    /// A state that the session keeps, before the run.
    State(u32),
    /// The same state after the run, in other memory: it counts when the run is committed.
    NextState(u32),
    /// A constant of the graph, as the host has it.
    Weight(u32),
    /// A constant in another form: the index in [`Schedule::packed`].
    Packed(usize),
    /// Bytes that lowering made.
    Bytes(Vec<u8>),
}

/// Some bytes on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Size, a multiple of 16: kernels read whole vectors.
    pub bytes: u64,
    /// Where they come from.
    pub source: Source,
}

/// A buffer binding of a dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// Which storage.
    pub storage: usize,
    /// First byte: a multiple of 256.
    pub offset: u64,
    /// Bytes from there on, a multiple of 4.
    pub bytes: u64,
}

/// One command.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// What runs.
    pub kernel: &'static Kernel,
    /// One a buffer of the kernel.
    pub bindings: Vec<Binding>,
    /// The parameters: words in [`Schedule::params`], from a multiple of [`PARAMS_ALIGN`] on.
    pub params: std::ops::Range<usize>,
    /// Workgroups.
    pub groups: [u32; 3],
    /// Node of the graph image that it is for.
    pub node: u32,
}

/// An output of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where it lies.
    pub binding: Binding,
    /// Its sizes.
    pub sizes: Vec<i64>,
    /// It is this state, which the session keeps: nobody reads it.
    pub state: Option<u32>,
}

/// A constant in another form than the host's.
#[derive(Debug, Clone)]
pub struct Packed {
    /// What tells it from others.
    pub key: Key,
    /// Its form.
    pub packing: &'static Packing,
    /// The constant's element type and sizes.
    pub dtype: DType,
    /// As above.
    pub dims: Vec<u32>,
}

/// Words that each block of parameters begins at a multiple of: 256 bytes, the largest alignment that a device may ask for.
pub const PARAMS_ALIGN: usize = 64;

/// The commands of a region for one set of sizes.
#[derive(Debug, Clone, Default)]
pub struct Schedule {
    /// By their index.
    pub storages: Vec<Storage>,
    /// In order.
    pub dispatches: Vec<Dispatch>,
    /// Parameters of all dispatches.
    pub params: Vec<u32>,
    /// One an output of the session, in order.
    pub outputs: Vec<Output>,
    /// Words that kernels set where a value is not allowed ([`crate::encoder::Encoder::flag`]): to be looked at after each run. Nothing where
    /// no kernel does.
    pub flag: Option<Binding>,
    /// Constants in other forms, each once.
    pub packed: Vec<Packed>,
    /// Dispatches that only change a layout.
    pub transfers: u32,
}
