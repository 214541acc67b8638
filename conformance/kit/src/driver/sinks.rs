//! What takes a delegate's answers. Everything is kept, also what no host would accept.

use crate::driver::call::Fail;
use crate::driver::lock;
use delegraph_abi::c;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// A sink that knows when its call has ended.
pub(crate) struct Sink<T> {
    inner: Mutex<T>,
    pub ended: AtomicBool,
}

impl<T: Default> Sink<T> {
    pub fn new() -> Box<Sink<T>> {
        Box::new(Sink {
            inner: Mutex::default(),
            ended: AtomicBool::new(false),
        })
    }

    pub fn end(&self) -> T {
        self.ended.store(true, Ordering::SeqCst);
        std::mem::take(&mut *lock(&self.inner))
    }

    pub fn with<R>(&self, body: impl FnOnce(&mut T) -> R) -> R {
        body(&mut lock(&self.inner))
    }
}

/// An answer for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAnswer {
    /// Whether it takes it.
    pub supported: u32,
    /// Why not.
    pub reason: c::Reason,
    /// In words.
    pub text: String,
}

/// Answers of a `partition` call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PartAnswers {
    pub nodes: Vec<(u32, NodeAnswer)>,
    /// Nodes among them: a graph may have very many.
    pub seen: HashSet<u32>,
    pub sets: Vec<Vec<u32>>,
    pub count: u32,
    /// Verdicts from this one on are refused.
    pub fail_after: Option<u64>,
    /// How many were.
    pub failed: u64,
}

/// What a `compile` call wrote.
#[derive(Debug, Clone, Default)]
pub(crate) struct BlobParts {
    pub precision: String,
    pub drivers: [String; 2],
    pub requirements: Vec<(bool, u32, u32, u32)>,
    pub states: Vec<u32>,
    pub sections: Vec<(String, u32, Vec<u8>)>,
    /// What is refused, and when.
    pub fail: Fail,
    /// Calls of `blob_write`.
    pub writes: u64,
    /// How many calls were refused.
    pub failed: u64,
}

/// The verdict of a `blob_check` call; each that was given.
pub(crate) type Verdicts = Vec<(c::BlobVerdict, String)>;
