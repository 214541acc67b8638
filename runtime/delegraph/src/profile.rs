//! What recorded runs spent their time on, as lists: the executor's steps, and in place of a delegate's call the events that it told.

use crate::trace::{CallRecord, Names, Recorder, StepRecord};
use delegraph_host::ProfileEvent;

/// A recorded run that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunProfile {
    /// From its start to its end.
    pub ns: u64,
    /// In the order in which they ended. They do not overlap, but for events of several lanes of a delegate.
    pub steps: Vec<StepProfile>,
}

/// A step of a run: a kernel of the executor, an event of a delegate, or what is left of a delegate's call without its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepProfile {
    /// The delegate; `None`: the executor.
    pub backend: Option<String>,
    /// The first instruction of the program that it is of. One of a loop has a step each time.
    pub instruction: u32,
    /// Which event of its call it is; `None`: a kernel, or the call itself.
    pub event: Option<usize>,
    /// What ran: the kernel or the event; `call` is the call itself.
    pub name: String,
    /// The node of the graph; empty: of none in particular, or not known.
    pub node: String,
    /// From its start to its end; of a call, without its events.
    pub ns: u64,
    /// Bytes moved; 0: not known.
    pub bytes: u64,
    /// Arithmetic operations, a multiply and an add as two; 0: not known.
    pub operations: u64,
}

/// What a recorder heard.
pub(crate) fn profile(recorder: &Recorder) -> Vec<RunProfile> {
    let record = recorder.record();
    let ended = record.runs.iter().filter(|run| run.end_ns != 0);
    ended
        .map(|run| RunProfile {
            ns: run.end_ns.saturating_sub(run.start_ns),
            steps: run
                .steps
                .iter()
                .flat_map(|step| match &step.call {
                    Some(call) => call_steps(recorder.names(), step, call),
                    None => vec![kernel(recorder.names(), step)],
                })
                .collect(),
        })
        .collect()
}

fn kernel(names: &Names, step: &StepRecord) -> StepProfile {
    let origin = names.of_instruction(step.instruction);
    StepProfile {
        backend: None,
        instruction: step.instruction,
        event: None,
        name: step.name.clone(),
        node: origin.map_or_else(String::new, |origin| origin.name.to_string()),
        ns: step.end_ns.saturating_sub(step.start_ns),
        bytes: 0,
        operations: 0,
    }
}

/// The events of a call, and what is left of it. Where events name nodes, those that name none are wholes that hold others.
fn call_steps(names: &Names, step: &StepRecord, call: &CallRecord) -> Vec<StepProfile> {
    let length = |event: &ProfileEvent| event.end_ns.saturating_sub(event.start_ns);
    let whole = StepProfile {
        backend: Some(call.callee.backend.to_string()),
        instruction: step.instruction,
        event: None,
        name: "call".to_string(),
        node: String::new(),
        ns: step.end_ns.saturating_sub(step.start_ns),
        bytes: 0,
        operations: 0,
    };
    let named = call.events.iter().any(|event| event.node.is_some());
    let mut steps: Vec<StepProfile> = call
        .events
        .iter()
        .enumerate()
        .filter(|(_, event)| event.node.is_some() == named)
        .map(|(at, event)| StepProfile {
            event: Some(at),
            name: event.name.clone(),
            node: names
                .of_event(&call.callee, event)
                .map_or_else(String::new, |origin| origin.name.to_string()),
            ns: length(event),
            bytes: event.bytes,
            operations: event.operations,
            ..whole.clone()
        })
        .collect();
    let told: u64 = steps.iter().map(|step| step.ns).sum();
    steps.push(StepProfile {
        ns: whole.ns.saturating_sub(told),
        ..whole
    });
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Callee;

    fn event(node: Option<u32>, times: (u64, u64)) -> ProfileEvent {
        ProfileEvent {
            name: format!("{times:?}"),
            node,
            lane: 0,
            start_ns: times.0,
            end_ns: times.1,
            bytes: 4,
            operations: 8,
        }
    }

    /// Names and times of a call from 100 to 200 with these events.
    fn steps(events: Vec<ProfileEvent>) -> Vec<(String, u64, u64)> {
        let call = CallRecord {
            callee: Callee {
                backend: "npu".into(),
                blob: "0".into(),
            },
            failed: false,
            events,
        };
        let step = StepRecord {
            instruction: 3,
            end: 5,
            name: "region".to_string(),
            start_ns: 100,
            end_ns: 200,
            call: None,
        };
        let steps = call_steps(&Names::default(), &step, &call);
        assert!(
            steps
                .iter()
                .all(|s| s.backend.as_deref() == Some("npu") && s.instruction == 3)
        );
        steps.into_iter().map(|s| (s.name, s.ns, s.operations)).collect()
    }

    #[test]
    fn what_events_do_not_tell_of_a_call_is_the_call() {
        let call = |ns| ("call".to_string(), ns, 0);
        assert_eq!(steps(vec![]), [call(100)]);
        let [a, b, whole] = [
            event(Some(0), (110, 140)),
            event(Some(1), (150, 180)),
            event(None, (105, 190)),
        ];
        let of = |event: &ProfileEvent| (event.name.clone(), event.end_ns - event.start_ns, 8);
        let expected = [of(&a), of(&b), call(40)];
        assert_eq!(steps(vec![a, b, whole.clone()]), expected);
        assert_eq!(steps(vec![whole.clone()]), [of(&whole), call(15)]);
        // Lanes beside each other: more than the call is long.
        let twice = [event(Some(0), (100, 200)), event(Some(0), (100, 200))];
        assert_eq!(steps(twice.to_vec()).last(), Some(&call(0)));
    }
}
