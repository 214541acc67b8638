//! What a delegate answers with.

use crate::{BlobMeta, Info};
use delegraph_abi::Reason;
use delegraph_abi::image::{ImageView, NodeIndex, NodeView};
use std::borrow::Cow;

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
    pub fn each<'a>(graph: &ImageView<'a>, mut verdict: impl FnMut(NodeView<'a>) -> Verdict) -> Partition {
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

/// What `compile` gives. Write it with `..Compiled::default()`: fields are appended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Compiled {
    /// Lower precision that it computes in (`f16`, `int8`); empty: that of the graph.
    pub precision: String,
    /// At least one.
    pub sections: Vec<Section>,
    /// Oldest driver that it runs on; empty: any. [`crate::BlobMeta`] gives it back, and the host compares nothing: drivers number
    /// themselves as they like.
    pub driver_min: String,
    /// Newest driver that it runs on; empty: any.
    pub driver_max: String,
    /// What its tensors need in every run.
    pub requirements: Vec<Requirement>,
    /// States of the graph that sessions keep themselves, by index in [`ImageView::states`]: their tensors come without bytes, and the
    /// session has the methods `state_` of [`crate::Session`].
    pub kept_states: Vec<u32>,
}

/// A tensor of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorPlace {
    /// The input of this index.
    Input(u32),
    /// The output of this index.
    Output(u32),
}

/// What a tensor needs in every run, beyond the contract. The host copies a tensor that is not so, and counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requirement {
    /// Which one.
    pub tensor: TensorPlace,
    /// Its bytes lie at a multiple of this: a power of two, at most 4096. 0: of the element's size.
    pub alignment: u32,
    /// There is room for a multiple of so many bytes, at most 4096. 0: for the elements.
    pub size_multiple: u32,
}

impl From<Vec<u8>> for Compiled {
    /// One section `code`.
    fn from(bytes: Vec<u8>) -> Compiled {
        Compiled {
            sections: vec![Section {
                name: "code".to_string(),
                align: 16,
                bytes,
            }],
            ..Compiled::default()
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
