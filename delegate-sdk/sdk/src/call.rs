//! What the host hands to a call: context, options, weights, blobs.

use crate::Error;
use crate::sys::{RawCall, RawWeights};
use std::marker::PhantomData;

/// The running call.
pub struct Context<'a> {
    call: RawCall,
    _call: PhantomData<&'a ()>,
}

impl Context<'_> {
    pub(crate) fn new<'a>(call: RawCall) -> Context<'a> {
        Context {
            call,
            _call: PhantomData,
        }
    }

    /// The caller wants no result any more: return soon, with any error.
    pub fn is_cancelled(&self) -> bool {
        self.call.is_cancelled()
    }

    /// How many threads [`Context::parallel_for`] uses at once, the calling one included.
    pub fn threads(&self) -> usize {
        self.call.threads()
    }

    /// Calls `body` once for each index below `count`, in any order, on the host's threads and this one, and returns when all calls
    /// have returned. Use this, and no threads of your own: all delegates and the host's kernels share one pool, so that they do not
    /// fight for the cores. A call within `body` runs on its own thread; a panic in it is passed on when all parts have ended.
    pub fn parallel_for(&self, count: usize, body: impl Fn(usize) + Sync) {
        self.call.parallel_for(count, &body);
    }

    /// Writes a line to the host's log.
    pub fn log(&self, level: LogLevel, message: &str) {
        self.call.log(level as u32, message);
    }
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
#[repr(u32)]
pub enum LogLevel {
    Error = delegraph_abi::c::LogLevel::ERROR.0,
    Warn = delegraph_abi::c::LogLevel::WARN.0,
    Info = delegraph_abi::c::LogLevel::INFO.0,
    Debug = delegraph_abi::c::LogLevel::DEBUG.0,
    Trace = delegraph_abi::c::LogLevel::TRACE.0,
}

/// A value of an option.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum OptionValue<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
}

/// The user's options for this delegate.
#[derive(Debug, Clone, Default)]
pub struct Options<'a> {
    /// In the order given.
    pub entries: Vec<(&'a str, OptionValue<'a>)>,
}

impl<'a> Options<'a> {
    /// The value of an option.
    pub fn find(&self, key: &str) -> Option<OptionValue<'a>> {
        self.entries.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }

    /// Refuses options of other names.
    ///
    /// # Errors
    /// The first key that is not in `known`.
    pub fn check(&self, known: &[&str]) -> Result<(), Error> {
        match self.entries.iter().find(|(k, _)| !known.contains(k)) {
            None => Ok(()),
            Some((key, _)) if known.is_empty() => {
                Err(Error::invalid(format!("unknown option `{key}`")).hint("this delegate has no options"))
            }
            Some((key, _)) => Err(Error::invalid(format!("unknown option `{key}`"))
                .hint(format!("the options are `{}`", known.join("`, `")))),
        }
    }
}

/// Weights by the id that the graph image gives them, for the length of a call.
pub struct Weights<'a> {
    raw: RawWeights,
    _call: PhantomData<&'a [u8]>,
}

impl<'a> Weights<'a> {
    pub(crate) fn new(raw: RawWeights) -> Weights<'a> {
        Weights {
            raw,
            _call: PhantomData,
        }
    }

    /// The bytes of a weight: contiguous, row-major, aligned to nothing in particular.
    ///
    /// # Errors
    /// There is no such weight.
    pub fn bytes(&self, id: u32) -> Result<&'a [u8], Error> {
        self.raw.map(id)
    }

    /// Keeps the weights beyond the call, until dropped. The host grants it in `load` only.
    ///
    /// # Errors
    /// Not in `load`.
    pub fn keep(&self) -> Result<KeptWeights, Error> {
        self.raw.retain()?;
        Ok(KeptWeights { raw: self.raw })
    }
}

/// Weights that a session keeps.
pub struct KeptWeights {
    raw: RawWeights,
}

impl KeptWeights {
    /// As [`Weights::bytes`].
    ///
    /// # Errors
    /// There is no such weight.
    pub fn bytes(&self, id: u32) -> Result<&[u8], Error> {
        self.raw.map(id)
    }
}

impl Drop for KeptWeights {
    fn drop(&mut self) {
        self.raw.release();
    }
}

/// What the envelope says of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobMeta<'a> {
    /// Backend id.
    pub delegate: &'a str,
    /// Version of the delegate that made it.
    pub delegate_version: &'a str,
    /// Name of its form.
    pub format: &'a str,
    /// Version of its form.
    pub format_version: u32,
    /// What it was compiled for; empty: anything.
    pub target: &'a str,
    /// Lower precision that it computes in; empty: that of the graph.
    pub precision: &'a str,
    /// SHA-256 of the graph image.
    pub graph_hash: &'a [u8; 32],
}

/// A blob that is to be loaded. The host has checked its hashes.
#[derive(Debug, Clone)]
pub struct Blob<'a> {
    /// From its envelope.
    pub meta: BlobMeta<'a>,
    /// Name and content, in the order written.
    pub sections: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Blob<'a> {
    /// The content of a section.
    ///
    /// # Errors
    /// There is no such section.
    pub fn section(&self, name: &str) -> Result<&'a [u8], Error> {
        self.sections
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, bytes)| *bytes)
            .ok_or_else(|| Error::corrupt(format!("the blob has no section `{name}`")))
    }
}
