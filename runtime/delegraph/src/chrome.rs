//! A record in Chrome's trace event format, which Perfetto opens too.
//!
//! One process. Its thread 1 is the executor: runs, and within them steps. Every lane of every delegate is a thread after it. Times are
//! microseconds since recording began.

use crate::trace::{CallRecord, Names, Record, Recorder, StepRecord};
use delegraph_pte::origins::Origin;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The executor's thread.
const EXECUTOR: u64 = 1;

/// Writes what a recorder heard.
pub(crate) fn chrome_trace(recorder: &Recorder) -> String {
    let record = recorder.record();
    let mut writer = Writer {
        origin_ns: record.origin_ns,
        names: recorder.names(),
        lanes: BTreeMap::new(),
        events: Vec::new(),
    };
    writer.thread(EXECUTOR, "executor");
    writer.record(&record);
    json!({ "traceEvents": writer.events, "displayTimeUnit": "ns" }).to_string()
}

struct Writer<'a> {
    origin_ns: u64,
    names: &'a Names,
    /// The thread of each delegate's lane.
    lanes: BTreeMap<(&'a str, u32), u64>,
    events: Vec<Value>,
}

impl<'a> Writer<'a> {
    fn record(&mut self, record: &'a Record) {
        for (i, run) in record.runs.iter().enumerate() {
            let last = run.steps.last().map_or(run.start_ns, |step| step.end_ns);
            let times = (run.start_ns, run.end_ns.max(last));
            let args = Map::from_iter([("run".to_string(), json!(i))]);
            self.complete("run", "run", EXECUTOR, times, args);
            for step in &run.steps {
                match &step.call {
                    Some(call) => self.call(step, call),
                    None => self.step(step),
                }
            }
        }
    }

    fn step(&mut self, step: &StepRecord) {
        let mut args = origin(self.names.of_instruction(step.instruction));
        args.insert("instruction".into(), step.instruction.into());
        self.complete(&step.name, "step", EXECUTOR, (step.start_ns, step.end_ns), args);
    }

    fn call(&mut self, step: &StepRecord, call: &'a CallRecord) {
        let backend: &'a str = &call.callee.backend;
        let region = |args: &mut Map<String, Value>| {
            args.insert("backend".into(), backend.into());
            args.insert("region".into(), step.instruction.into());
        };
        let mut args = Map::new();
        region(&mut args);
        args.insert("region_end".into(), step.end.into());
        if call.failed {
            args.insert("failed".into(), true.into());
        }
        self.complete(backend, "region", EXECUTOR, (step.start_ns, step.end_ns), args);
        for event in &call.events {
            let mut args = origin(self.names.of_event(&call.callee, event));
            region(&mut args);
            if let Some(node) = event.node {
                args.insert("image_node".into(), node.into());
            }
            for (key, count) in [("bytes", event.bytes), ("operations", event.operations)] {
                if count != 0 {
                    args.insert(key.into(), count.into());
                }
            }
            let lane = self.lane(backend, event.lane);
            self.complete(&event.name, "delegate", lane, (event.start_ns, event.end_ns), args);
        }
    }

    fn lane(&mut self, backend: &'a str, lane: u32) -> u64 {
        let next = EXECUTOR + 1 + self.lanes.len() as u64;
        let thread = *self.lanes.entry((backend, lane)).or_insert(next);
        if thread == next {
            self.thread(thread, &format!("{backend} lane {lane}"));
        }
        thread
    }

    /// Names a thread, and keeps it in its place.
    fn thread(&mut self, thread: u64, name: &str) {
        let metadata = |what: &str, key: &str, value: Value| {
            let args = Map::from_iter([(key.to_string(), value)]);
            json!({ "name": what, "ph": "M", "pid": 1, "tid": thread, "args": args })
        };
        if thread == EXECUTOR {
            self.events.push(metadata("process_name", "name", "delegraph".into()));
        }
        self.events.push(metadata("thread_name", "name", name.into()));
        self.events
            .push(metadata("thread_sort_index", "sort_index", thread.into()));
    }

    fn complete(&mut self, name: &str, kind: &str, thread: u64, times: (u64, u64), args: Map<String, Value>) {
        // A delegate's clock may say that it began before the recording did.
        let start = (i128::from(times.0) - i128::from(self.origin_ns)) as f64 / 1e3;
        let length = times.1.saturating_sub(times.0) as f64 / 1e3;
        self.events.push(json!({
            "name": name, "cat": kind, "ph": "X", "ts": start, "dur": length, "pid": 1, "tid": thread, "args": args,
        }));
    }
}

/// What is known of a node.
fn origin(origin: Option<Origin<'_>>) -> Map<String, Value> {
    let mut args = Map::new();
    if let Some(origin) = origin {
        let all = [
            ("node", origin.name),
            ("op", origin.operator),
            ("source", origin.source),
        ];
        for (key, text) in all.into_iter().filter(|(_, text)| !text.is_empty()) {
            args.insert(key.into(), text.into());
        }
    }
    args
}
