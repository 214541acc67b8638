//! What took the time in a run, as the library counts it. In the emulation the counts are those of this machine and of no chip: they say
//! what is large and what is small, and not how long anything takes on a phone.

use crate::blob::Header;
use crate::sys::{Event, Unit};
use delegraph_sdk::image::NodeIndex;
use delegraph_sdk::{Context, ProfileEvent};

/// The lane of whole executions, and that of the operations within.
const EXECUTIONS: u32 = 0;
const OPERATIONS: u32 = 1;

/// Tells the host what an execution took, from when to when by its clock: the execution as a whole, and each operation's share of it by
/// the cycles that the library counted.
pub fn tell(events: &[Event], header: &Header, span: (u64, u64), context: &Context<'_>) {
    let whole = match crate::EMULATED {
        true => format!("{} (emulated)", header.graph),
        false => header.graph.clone(),
    };
    let mut all = vec![ProfileEvent {
        name: &whole,
        node: None,
        lane: EXECUTIONS,
        start_ns: span.0,
        end_ns: span.1.max(span.0),
        ..ProfileEvent::default()
    }];
    let shares = shares(events, header, span);
    all.extend(shares.iter().map(|share| ProfileEvent {
        name: &share.name,
        node: share.node.map(NodeIndex),
        lane: OPERATIONS,
        start_ns: share.span.0,
        end_ns: share.span.1,
        ..ProfileEvent::default()
    }));
    context.profile(&all);
}

/// An operation's share of an execution.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Share {
    name: String,
    node: Option<u32>,
    span: (u64, u64),
}

/// Operations one behind the other, each as long as its cycles of the sum of all.
fn shares(events: &[Event], header: &Header, span: (u64, u64)) -> Vec<Share> {
    let of_operations = |event: &&Event| event.unit == Unit::Cycles && event.depth > 0;
    let operations: Vec<&Event> = events.iter().filter(of_operations).collect();
    let total: u64 = operations.iter().map(|event| event.value).sum();
    let length = span.1.saturating_sub(span.0);
    let mut before = 0u64;
    let at = |cycles: u64| span.0 + (u128::from(length) * u128::from(cycles) / u128::from(total.max(1))) as u64;
    let mut share = |event: &&Event| {
        let start = at(before);
        before += event.value;
        let name = operation(&event.name);
        Share {
            node: header.source(name),
            name: format!("{name}: {} cycles", event.value),
            span: (start, at(before)),
        }
    };
    operations.iter().map(&mut share).collect()
}

/// The node's name in what the library calls an event: `NAME:OpId_3 (cycles)`.
fn operation(event: &str) -> &str {
    let name = event.split(" (").next().unwrap_or(event);
    name.rsplit_once(":OpId_").map_or(name, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_share_the_time_of_their_execution() {
        let event = |name: &str, value, depth, unit| Event {
            kind: 0,
            unit,
            value,
            name: name.to_string(),
            depth,
        };
        let events = [
            event("Accelerator (execute) time", 400, 0, Unit::Microseconds),
            event("Accelerator (execute) time (cycles)", 400, 0, Unit::Cycles),
            event("mul:OpId_3 (cycles)", 300, 1, Unit::Cycles),
            event("other:OpId_4 (cycles)", 100, 1, Unit::Cycles),
        ];
        let found = shares(&events, &crate::blob::sample(), (1000, 2000));
        let expected = [
            ("mul: 300 cycles", Some(0), (1000, 1750)),
            ("other: 100 cycles", None, (1750, 2000)),
        ];
        let found: Vec<_> = found.iter().map(|s| (s.name.as_str(), s.node, s.span)).collect();
        assert_eq!(found, expected);
    }
}
