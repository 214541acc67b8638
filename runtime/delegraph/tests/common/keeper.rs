//! A delegate that keeps states: the reference delegate behind the way of the fault delegate to keep them. What it is to fail at, its
//! option says; what the host does to its states, it counts.

use delegraph_host::{Host, HostOptions};
use delegraph_reference::Reference;
use delegraph_sdk::image::ImageView;
use delegraph_sdk::roles::{Compile as CompileRole, Run as RunRole, State as StateRole};
use delegraph_sdk::{
    Blob, Compile, Compiled, Context, Delegate, Device, Error, Info, OptionValue, Options, Partition, Reason, Run,
    Status, TensorOut, TensorView, Verdict, Weights, static_entry_as,
};
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[path = "../../../../conformance/fault/src/keep.rs"]
mod keep;

/// What was done to the states of this thread's sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    pub runs: u32,
    pub accepted: u32,
    pub dropped: u32,
    pub resets: u32,
    pub snapshots: u32,
    pub restores: u32,
}

thread_local! {
    pub static DONE: RefCell<Done> = RefCell::default();
    /// Set in the next run, after it has computed.
    pub static CANCEL: RefCell<Option<Arc<AtomicBool>>> = RefCell::default();
}

pub fn done() -> Done {
    DONE.with_borrow(Clone::clone)
}

fn count(what: impl FnOnce(&mut Done)) {
    DONE.with_borrow_mut(what);
}

/// Keeps states, and fails at what its option `fail` says: `run:3` in the third run of a session, `lost:3` the same for good,
/// `commit:3` in the third commit, `snapshot` in each and `snapshot:2` in the second, `state` by states that are off by one.
pub struct Keeper {
    inner: Reference,
    fail: String,
    /// Operators that it does not take, by spaces.
    without: String,
}

impl Delegate for Keeper {
    const INFO: Info = Info {
        name: "keeper",
        vendor: "tests",
        version: "0.0.1",
        build: "",
        format: "keeper.reference",
        format_version: 1,
    };

    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Keeper, Error> {
        options.check(&["fail", "without"])?;
        let text = |key| match options.find(key) {
            Some(OptionValue::Str(text)) => text.to_string(),
            _ => String::new(),
        };
        Ok(Keeper {
            inner: Reference::new(&Options::default(), context)?,
            fail: text("fail"),
            without: text("without"),
        })
    }

    fn devices(&self) -> Vec<Device> {
        Vec::new()
    }
}

impl Compile for Keeper {
    fn partition(&self, graph: &ImageView<'_>, context: &Context<'_>) -> Result<Partition, Error> {
        let mut partition = self.inner.partition(graph, context)?;
        for (node, verdict) in graph.nodes().zip(&mut partition.verdicts) {
            if self.without.split(' ').any(|op| op == node.op()) {
                *verdict = Verdict::Refuse(Reason::OTHER, "not this one".into());
            }
        }
        Ok(partition)
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        target: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error> {
        let mut compiled = self.inner.compile(graph, weights, target, context)?;
        if let Some((kept, section)) = keep::section(graph) {
            compiled.kept_states = kept;
            compiled.sections.push(section);
        }
        Ok(compiled)
    }
}

impl Run for Keeper {
    fn load(
        &self,
        blob: &Blob<'_>,
        weights: &Weights<'_>,
        context: &Context<'_>,
    ) -> Result<Box<dyn delegraph_sdk::Session>, Error> {
        let inner = self.inner.load(blob, weights, context)?;
        let Ok(section) = blob.section(keep::SECTION) else {
            return Ok(inner);
        };
        let (at, when) = self.fail.split_once(':').unwrap_or((&self.fail, "0"));
        Ok(Box::new(KeeperSession {
            inner: keep::Keeping::new(inner, section)?,
            at: at.to_string(),
            when: when.parse().unwrap(),
            runs: 0,
            commits: 0,
            snapshots: 0,
        }))
    }
}

struct KeeperSession {
    inner: keep::Keeping,
    at: String,
    when: u32,
    runs: u32,
    commits: u32,
    snapshots: u32,
}

impl KeeperSession {
    fn lost(&self) -> Result<(), Error> {
        match self.at == "lost" && self.runs >= self.when {
            true => Err(Error::new(Status::DEVICE_LOST, "the device does not answer")),
            false => Ok(()),
        }
    }
}

impl delegraph_sdk::Session for KeeperSession {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        self.runs += 1;
        count(|done| done.runs += 1);
        self.inner.execute(inputs, outputs, context)?;
        if let Some(cancel) = CANCEL.take() {
            cancel.store(true, Ordering::Relaxed);
        }
        self.lost()?;
        match self.at == "run" && self.runs == self.when {
            true => Err(Error::internal("no power")),
            false => Ok(()),
        }
    }

    fn state_commit(&mut self, accept: bool, context: &Context<'_>) -> Result<(), Error> {
        self.commits += 1;
        count(|done| match accept {
            true => done.accepted += 1,
            false => done.dropped += 1,
        });
        if self.at == "commit" && self.commits == self.when {
            return Err(Error::internal("the queue is stuck"));
        }
        self.inner.state_commit(accept, context)
    }

    fn state_reset(&mut self, state: u32, context: &Context<'_>) -> Result<(), Error> {
        count(|done| done.resets += 1);
        self.lost()?;
        self.inner.state_reset(state, context)
    }

    fn state_snapshot(&mut self, state: u32, out: &mut [u8], context: &Context<'_>) -> Result<(), Error> {
        count(|done| done.snapshots += 1);
        self.lost()?;
        self.snapshots += 1;
        if self.at == "snapshot" && (self.when == 0 || self.snapshots == self.when) {
            return Err(Error::internal("no way to read it"));
        }
        self.inner.state_snapshot(state, out, context)?;
        if self.at == "state" {
            out[..4].copy_from_slice(&1e3f32.to_le_bytes());
        }
        Ok(())
    }

    fn state_restore(&mut self, state: u32, bytes: &[u8], context: &Context<'_>) -> Result<(), Error> {
        count(|done| done.restores += 1);
        self.lost()?;
        self.inner.state_restore(state, bytes, context)
    }
}

/// A host with the delegate linked in.
pub fn host(fail: &str, without: &str) -> Arc<Host> {
    let options = serde_json::json!({ "fail": fail, "without": without });
    let host = Host::discover(HostOptions {
        options: [("keeper".to_string(), options)].into(),
        ..HostOptions::default()
    });
    let entry = static_entry_as::<Keeper, (CompileRole, RunRole, StateRole)>();
    host.register_static("keeper", entry).unwrap();
    Arc::new(host)
}
