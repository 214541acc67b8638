//! What host and worker say to each other: JSON over a socket for what is rare, words in a shared page for runs.

use crate::delegate::{BlobVerdict, Device, Info, Partition};
use crate::trust::Digest;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Version of everything here: host and worker are of one build, or do not talk.
pub(crate) const VERSION: u32 = 5;

/// What a worker is asked. Descriptors come with it, in the order that each names.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Descriptors: those of `checked`; the control page.
    Start(Start),
    Devices,
    /// Descriptors: the image.
    Partition {
        target: String,
        limits: Limits,
    },
    /// Descriptors: the image, then the weights' files.
    Compile {
        target: String,
        weights: Vec<WeightPlace>,
        limits: Limits,
    },
    /// Descriptors: the images one after another, then the weights' files.
    CompileSet {
        target: String,
        graphs: Vec<SetGraph>,
        limits: Limits,
    },
    /// Descriptors: the blob.
    Check,
    /// Descriptors: the blob, the session's page, its two events, the sections that lie elsewhere, then the weights' files.
    Load {
        session: u64,
        device: Option<u32>,
        /// Hashes of the sections that lie elsewhere, a descriptor each.
        apart: Vec<[u8; 32]>,
        weights: Vec<WeightPlace>,
        tensors: u64,
        limits: Limits,
    },
    /// Descriptors: a memory. Memories of a session are counted in the order that they come in.
    Share {
        session: u64,
        size: u64,
        kind: Shared,
    },
    /// The memory of this number is not used any more.
    Unshare {
        session: u64,
        number: u64,
    },
    Unload {
        session: u64,
    },
}

/// What a shared memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Shared {
    /// The host's own.
    Own,
    /// A memory file of somebody's.
    Memfd,
    DmaBuf,
}

/// What a worker begins with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Start {
    pub version: u32,
    pub library: PathBuf,
    /// Major of the ABI whose entry is used; `None`: the newest.
    pub abi_major: Option<u16>,
    /// The files that the host checked, where it did: the library, then its dependents in the order to load them. They come as
    /// descriptors, and these are loaded; paths are for messages.
    pub checked: Vec<(PathBuf, Digest)>,
    pub options: Option<serde_json::Value>,
    /// Threads that the delegate may borrow.
    pub threads: usize,
    pub log_level: u32,
    pub sandbox: super::Sandbox,
    /// Its folder for temporary files.
    pub temp: Option<PathBuf>,
    /// Bytes of address space.
    pub memory: Option<u64>,
}

/// What a call has to keep to.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// `None`: no deadline.
    pub time_left_ns: Option<u64>,
    pub correlation: u64,
    pub threads: Option<usize>,
    pub wants_progress: bool,
}

/// Where the bytes of a weight lie.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct WeightPlace {
    pub id: u32,
    /// Index of its file among the message's weight files.
    pub file: u32,
    pub offset: u64,
    pub size: u64,
    pub key: Option<[u64; 2]>,
}

/// A graph of a set.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SetGraph {
    /// Where its image lies in the file of images: offset and bytes.
    pub image: (u64, u64),
    pub weights: Vec<WeightPlace>,
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Not an answer: a line of the delegate's log.
    Log {
        level: u32,
        text: String,
    },
    /// Not an answer: how far the call is.
    Progress {
        done: u64,
        total: u64,
        text: String,
    },
    Started(Box<Info>),
    Devices(Vec<Device>),
    Partition(Partition),
    /// Descriptor: the blob.
    Compiled,
    /// Descriptor: the blobs one after another, of these sizes.
    CompiledSet(Vec<u64>),
    Checked(BlobVerdict),
    Done,
    Failed(Failure),
}

/// A [`crate::DelegateError`] without its backend.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub code: i32,
    pub vendor_code: i64,
    pub node: Option<u32>,
    /// Of a set, the graph that it is about.
    #[serde(default)]
    pub graph: Option<u64>,
    pub message: String,
    pub hint: String,
}

/// Words of the control page.
pub(crate) mod control {
    /// 1: the caller of the running call wants no result any more.
    pub const CANCEL: usize = 0;
    pub const WORDS: usize = 512;
}

/// Words of a session's page.
pub(crate) mod page {
    /// Number of the run that is asked for.
    pub const REQUEST: usize = 0;
    /// Number of the run that has ended.
    pub const RESPONSE: usize = 1;
    /// 1: the run is not wanted any more.
    pub const CANCEL: usize = 2;
    /// Status of the run.
    pub const STATUS: usize = 3;
    pub const VENDOR_CODE: usize = 4;
    /// Node, or all ones.
    pub const NODE: usize = 5;
    /// All ones: no deadline.
    pub const TIME_LEFT: usize = 6;
    pub const CORRELATION: usize = 7;
    /// 0: as the worker was granted.
    pub const THREADS: usize = 8;
    /// 1: events are wanted.
    pub const PROFILE: usize = 9;
    pub const INPUTS: usize = 10;
    pub const OUTPUTS: usize = 11;
    pub const EVENTS: usize = 12;
    /// 1: the session is to end.
    pub const STOP: usize = 13;
    /// 1: the worker is about to sleep until it is signalled.
    pub const WORKER_SLEEPS: usize = 14;
    /// 1: the host is about to sleep until it is signalled.
    pub const HOST_SLEEPS: usize = 15;
    /// What is asked for: a run, or one of the others.
    pub const OP: usize = 16;
    /// The state that it is about.
    pub const STATE: usize = 17;
    /// 1: a run's changes count; or how many entries stay.
    pub const NUMBER: usize = 18;
    /// Bytes of a snapshot, at the beginning of the memory [`DATA_MEMORY`].
    pub const DATA_SIZE: usize = 19;
    pub const DATA_MEMORY: usize = 20;
    pub const MESSAGE: usize = 64;
    pub const MESSAGE_ROOM: usize = 256;
    pub const HINT: usize = MESSAGE + MESSAGE_ROOM;
    pub const HINT_ROOM: usize = 128;
    pub const FIRST_EVENT: usize = HINT + HINT_ROOM;
    pub const MAX_EVENTS: usize = 512;
    /// Name of 7 words, node, lane, start, end, bytes, operations.
    pub const EVENT_WORDS: usize = 13;
    pub const FIRST_TENSOR: usize = FIRST_EVENT + MAX_EVENTS * EVENT_WORDS;
    /// Memory or [`NO_MEMORY`], offset, size, dtype, rank, 16 sizes.
    pub const TENSOR_WORDS: usize = 21;

    /// In place of a memory: the session keeps the tensor.
    pub const NO_MEMORY: u64 = u64::MAX;

    pub const RUN: u64 = 0;
    pub const COMMIT: u64 = 1;
    pub const RESET: u64 = 2;
    pub const TRUNCATE: u64 = 3;
    pub const SNAPSHOT: u64 = 4;
    pub const RESTORE: u64 = 5;

    /// Words of a page for so many tensors.
    pub fn words(tensors: usize) -> usize {
        FIRST_TENSOR + tensors * TENSOR_WORDS
    }
}
