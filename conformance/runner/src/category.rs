//! What cases are about.

use serde::{Deserialize, Serialize};

/// The sixteen categories of the conformance programme. A case's id begins with its category's name: `memory/guard-pages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    /// What the file is, and what its table and structs hold.
    Abi,
    /// Orders of calls, ends and beginnings.
    Lifecycle,
    /// Verdicts on nodes: manifest, partition and execution agree.
    Partition,
    /// Numbers of one operator at a time.
    Op,
    /// The same in quantized types.
    Quantized,
    /// Sizes that are known at run time.
    Dynamic,
    /// States that sessions keep.
    State,
    /// Where tensors lie, and who writes where.
    Memory,
    /// Submitted runs, fences, deadlines.
    Async,
    /// Compiled blobs: damaged, foreign, older, newer.
    Blob,
    /// Images that no host would give.
    BadInput,
    /// Many threads.
    Threading,
    /// What is left behind.
    Leak,
    /// A host that fails.
    Fault,
    /// Small networks.
    Model,
    /// Times and bytes, which are reported and not judged as absolute.
    Performance,
}

impl Category {
    /// Every category, in the order of reports.
    pub const ALL: [Category; 16] = [
        Category::Abi,
        Category::Lifecycle,
        Category::Partition,
        Category::Op,
        Category::Quantized,
        Category::Dynamic,
        Category::State,
        Category::Memory,
        Category::Async,
        Category::Blob,
        Category::BadInput,
        Category::Threading,
        Category::Leak,
        Category::Fault,
        Category::Model,
        Category::Performance,
    ];

    /// The name in ids and reports.
    pub fn name(self) -> &'static str {
        match self {
            Category::Abi => "abi",
            Category::Lifecycle => "lifecycle",
            Category::Partition => "partition",
            Category::Op => "op",
            Category::Quantized => "quantized",
            Category::Dynamic => "dynamic",
            Category::State => "state",
            Category::Memory => "memory",
            Category::Async => "async",
            Category::Blob => "blob",
            Category::BadInput => "bad-input",
            Category::Threading => "threading",
            Category::Leak => "leak",
            Category::Fault => "fault",
            Category::Model => "model",
            Category::Performance => "performance",
        }
    }

    /// The category that an id begins with.
    pub fn of(id: &str) -> Option<Category> {
        let name = id.split('/').next()?;
        Category::ALL.into_iter().find(|category| category.name() == name)
    }
}
