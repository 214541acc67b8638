//! Runs as they were: the executor's steps, and what delegates say of their calls, on one clock.
//!
//! A recorder is on in one session at a time and hears from the thread that runs it. `chrome.rs` and `dump.rs` write what it heard.

use delegraph_executor::{Event, Trace};
use delegraph_host::{ProfileEvent, now_ns};
use delegraph_pte::origins::{Origin, Origins};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Most steps and events that are kept, all together.
const MOST: usize = 1_000_000;

/// Collects what runs do.
#[derive(Clone)]
pub(crate) struct Recorder {
    record: Arc<Mutex<Record>>,
    names: Arc<Names>,
}

/// What runs did. Times are nanoseconds of [`now_ns`].
#[derive(Default)]
pub(crate) struct Record {
    /// When recording began.
    pub(crate) origin_ns: u64,
    pub(crate) runs: Vec<RunRecord>,
    /// Steps and events that are kept.
    kept: usize,
    /// The call of the step that is not over yet.
    pending: Option<CallRecord>,
}

/// A run.
#[derive(Default)]
pub(crate) struct RunRecord {
    pub(crate) start_ns: u64,
    /// 0: it never ended.
    pub(crate) end_ns: u64,
    /// In the order in which they ended.
    pub(crate) steps: Vec<StepRecord>,
}

/// A step of the executor.
pub(crate) struct StepRecord {
    /// First instruction.
    pub(crate) instruction: u32,
    /// One past the last.
    pub(crate) end: u32,
    /// Operator, or kind of instruction.
    pub(crate) name: String,
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    /// Of a region: the delegate's call.
    pub(crate) call: Option<CallRecord>,
}

/// A call of a delegate.
pub(crate) struct CallRecord {
    pub(crate) callee: Callee,
    pub(crate) failed: bool,
    pub(crate) events: Vec<ProfileEvent>,
}

/// Who is called, and what with.
#[derive(Clone)]
pub(crate) struct Callee {
    pub(crate) backend: Arc<str>,
    /// The key of the blob.
    pub(crate) blob: Arc<str>,
}

/// Nodes by instruction and by node of a blob's graph.
#[derive(Default)]
pub(crate) struct Names {
    /// `None`: the file has none.
    origins: Option<Origins>,
    method: String,
}

impl Names {
    /// The names of a method, from the file's segment; a damaged one costs the names and no more.
    pub(crate) fn new(segment: Option<&[u8]>, method: &str) -> Names {
        Names {
            origins: segment.and_then(|json| serde_json::from_slice(json).ok()),
            method: method.to_string(),
        }
    }

    pub(crate) fn of_instruction(&self, instruction: u32) -> Option<Origin<'_>> {
        self.origins.as_ref()?.of_instruction(&self.method, instruction)
    }

    pub(crate) fn of_event(&self, callee: &Callee, event: &ProfileEvent) -> Option<Origin<'_>> {
        self.origins.as_ref()?.of_blob(&callee.blob, event.node?)
    }
}

impl Recorder {
    pub(crate) fn new(names: Names) -> Recorder {
        Recorder {
            record: Arc::new(Mutex::new(Record {
                origin_ns: now_ns(),
                ..Record::default()
            })),
            names: Arc::new(names),
        }
    }

    pub(crate) fn record(&self) -> MutexGuard<'_, Record> {
        // Nothing is left half done by a thread that ends.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    pub(crate) fn run_begins(&self) {
        let mut record = self.record();
        record.pending = None;
        if record.room(1) {
            record.runs.push(RunRecord {
                start_ns: now_ns(),
                ..RunRecord::default()
            });
        }
    }

    pub(crate) fn run_ended(&self) {
        if let Some(run) = self.record().runs.last_mut().filter(|run| run.end_ns == 0) {
            run.end_ns = now_ns();
        }
    }

    /// A delegate was called; the executor's step of it ends next.
    pub(crate) fn called(&self, callee: &Callee, events: Vec<ProfileEvent>, failed: bool) {
        let mut record = self.record();
        if record.room(events.len()) {
            record.pending = Some(CallRecord {
                callee: callee.clone(),
                failed,
                events,
            });
        }
    }
}

impl Record {
    /// Takes room for more, if there is any.
    fn room(&mut self, more: usize) -> bool {
        let fits = self.kept.saturating_add(more) <= MOST;
        if fits {
            self.kept += more;
        }
        fits
    }
}

impl Trace for Recorder {
    fn now(&mut self) -> u64 {
        now_ns()
    }

    fn record(&mut self, event: Event<'_>) {
        let mut record = Recorder::record(self);
        let call = event.region.then(|| record.pending.take()).flatten();
        // A region whose delegate is not asked any more takes no time of its own.
        if (event.region && call.is_none()) || !record.room(1) {
            return;
        }
        if let Some(run) = record.runs.last_mut().filter(|run| run.end_ns == 0) {
            run.steps.push(StepRecord {
                instruction: event.instruction,
                end: event.end,
                name: event.name.to_string(),
                start_ns: event.start,
                end_ns: event.stop,
                call,
            });
        }
    }
}
