//! A record as ExecuTorch's ETDump, with the names that its runtime gives to steps, so that its tools take it for one of theirs.
//!
//! A kernel is `native_call_gelu.out` within an `OPERATOR_CALL`; a region is a `DELEGATE_CALL` of its first instruction, and each of
//! the delegate's events has the name of the graph's node for its id.

use crate::Error;
use crate::trace::{CallRecord, Names, Recorder, StepRecord};
use delegraph_host::ProfileEvent;
use delegraph_pte::etdump::{Block, Event, Place, write};
use std::collections::HashMap;

/// The name of a run's block, and of the event that spans it.
const RUN: (&str, &str) = ("Execute", "Method::execute");

/// Texts of a step, which its events borrow.
enum Texts {
    /// The kernel's own event, if it has one, and the instruction's.
    Step(Option<String>, &'static str),
    /// Id and metadata of each event.
    Call(Vec<(String, Vec<u8>)>),
}

/// Writes what a recorder heard.
///
/// # Errors
/// It is more than an ETDump can hold.
pub(crate) fn etdump(recorder: &Recorder) -> Result<Vec<u8>, Error> {
    let record = recorder.record();
    let texts: Vec<Vec<Texts>> = record
        .runs
        .iter()
        .map(|run| run.steps.iter().map(|step| texts(recorder.names(), step)).collect())
        .collect();
    let mut blocks = Vec::with_capacity(record.runs.len());
    for (run, texts) in record.runs.iter().zip(&texts) {
        let mut events = Vec::new();
        for (step, texts) in run.steps.iter().zip(texts) {
            let place = Place::Instruction(step.instruction);
            let named = |name| Event {
                name: Some(name),
                place,
                delegate_id: None,
                metadata: &[],
                start_ns: step.start_ns,
                end_ns: step.end_ns,
            };
            match (texts, &step.call) {
                (Texts::Call(ids), Some(call)) => {
                    events.extend(call.events.iter().zip(ids).map(|(event, (id, metadata))| Event {
                        name: None,
                        place,
                        delegate_id: Some(id),
                        metadata,
                        start_ns: event.start_ns,
                        end_ns: event.end_ns,
                    }));
                    events.push(named("DELEGATE_CALL"));
                }
                (Texts::Step(kernel, kind), _) => {
                    events.extend(kernel.as_deref().map(named));
                    events.push(named(kind));
                }
                (Texts::Call(_), None) => {}
            }
        }
        let last = events.last().map_or(run.start_ns, |event| event.end_ns);
        events.push(Event {
            name: Some(RUN.1),
            place: Place::Run,
            delegate_id: None,
            metadata: &[],
            start_ns: run.start_ns,
            end_ns: run.end_ns.max(last),
        });
        blocks.push(Block { name: RUN.0, events });
    }
    write(&blocks).map_err(|error| Error::Usage(format!("this trace makes no ETDump: {error}")))
}

fn texts(names: &Names, step: &StepRecord) -> Texts {
    if let Some(call) = &step.call {
        return Texts::Call(call_texts(names, call));
    }
    match step.name.as_str() {
        "move" => Texts::Step(None, "MOVE_CALL"),
        "jump" => Texts::Step(None, "JF_CALL"),
        "free" => Texts::Step(None, "FREE_CALL"),
        operator => {
            // Primitive operators are no kernels to ExecuTorch, and say nothing of their own.
            let kernel = operator
                .split_once("::")
                .filter(|(space, _)| *space != "executorch_prim");
            let kernel = kernel.map(|(_, name)| format!("native_call_{name}"));
            Texts::Step(kernel, "OPERATOR_CALL")
        }
    }
}

/// Ids of a call's events, which are different ones: tools keep one event of those that have the same.
fn call_texts(names: &Names, call: &CallRecord) -> Vec<(String, Vec<u8>)> {
    let mut seen: HashMap<&str, u32> = HashMap::new();
    call.events
        .iter()
        .map(|event| {
            let origin = names.of_event(&call.callee, event);
            let id = origin.map_or(event.name.as_str(), |origin| origin.name);
            let count = seen.entry(id).or_default();
            *count += 1;
            let id = match *count {
                1 => id.to_string(),
                n => format!("{id} #{n}"),
            };
            (id, metadata(names, call, event))
        })
        .collect()
}

/// What else is known of an event, as JSON, for a tool's `delegate_metadata_parser`.
fn metadata(names: &Names, call: &CallRecord, event: &ProfileEvent) -> Vec<u8> {
    let origin = names.of_event(&call.callee, event);
    serde_json::json!({
        "event": event.name, "backend": &*call.callee.backend, "lane": event.lane, "image_node": event.node, "bytes": event.bytes,
        "operations": event.operations,
        "op": origin.map(|origin| origin.operator), "source": origin.map(|origin| origin.source),
    })
    .to_string()
    .into_bytes()
}
