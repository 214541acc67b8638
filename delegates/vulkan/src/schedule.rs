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

impl Schedule {
    /// Drops dispatches whose results nobody reads: a matrix that is turned over, where the product reads it as it lay before, for example.
    pub fn drop_unread(&mut self) {
        let mut read: Vec<bool> = self
            .storages
            .iter()
            .map(|storage| !matches!(storage.source, Source::Scratch))
            .collect();
        let mut mark = |binding: &Binding| {
            if let Some(read) = read.get_mut(binding.storage) {
                *read = true;
            }
        };
        self.outputs.iter().for_each(|output| mark(&output.binding));
        self.flag.iter().for_each(mark);
        let mut kept = Vec::with_capacity(self.dispatches.len());
        while let Some(dispatch) = self.dispatches.pop() {
            let mut written = dispatch
                .bindings
                .iter()
                .zip(dispatch.kernel.writes)
                .filter(|(_, writes)| **writes);
            if written.any(|(binding, _)| read.get(binding.storage).is_none_or(|read| *read)) {
                for binding in &dispatch.bindings {
                    if let Some(read) = read.get_mut(binding.storage) {
                        *read = true;
                    }
                }
                kept.push(dispatch);
            } else if dispatch.kernel.name.starts_with("transfer_") {
                self.transfers = self.transfers.saturating_sub(1);
            }
        }
        kept.reverse();
        self.dispatches = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels;

    #[test]
    fn what_nobody_reads_is_not_made() {
        let storage = |source| Storage { bytes: 16, source };
        let binding = |storage| Binding {
            storage,
            offset: 0,
            bytes: 16,
        };
        let dispatch = |from, to| Dispatch {
            kernel: &kernels::TRANSFER_TO_NHWC4,
            bindings: vec![binding(from), binding(to)],
            params: 0..1,
            groups: [1; 3],
            node: to as u32,
        };
        let scratch = || storage(Source::Scratch);
        let mut schedule = Schedule {
            storages: vec![storage(Source::Input(0)), scratch(), scratch(), scratch(), scratch()],
            dispatches: vec![dispatch(0, 1), dispatch(1, 2), dispatch(0, 3), dispatch(3, 4)],
            outputs: vec![Output {
                binding: binding(2),
                sizes: vec![4],
                state: None,
            }],
            ..Schedule::default()
        };
        schedule.drop_unread();
        let nodes: Vec<u32> = schedule.dispatches.iter().map(|d| d.node).collect();
        assert_eq!(nodes, [1, 2]);
    }
}
