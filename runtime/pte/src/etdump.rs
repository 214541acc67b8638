//! ETDump: what profiled runs did, in the form that ExecuTorch's developer tools read (`executorch.devtools.Inspector`).
//!
//! Written only. The form is ExecuTorch 1.5's: a FlatBuffer `ED00` behind its own length. Times are nanoseconds of any one clock.

use crate::WriteError;
use crate::generated::dump as fb;
use alloc::vec::Vec;
use flatbuffers::{FlatBufferBuilder, WIPOffset};

/// Where an event belongs in a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To the run as a whole.
    Run,
    /// To an instruction.
    Instruction(u32),
}

/// Something that took time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// What it was: `OPERATOR_CALL`, `native_call_gelu.out`. Tools name a delegate's own events by their id, and ExecuTorch gives those no name.
    pub name: Option<&'a str>,
    /// Where it belongs.
    pub place: Place,
    /// For a delegate's own event, the id that leads to the node of the graph.
    pub delegate_id: Option<&'a str>,
    /// For a delegate's own event, bytes that tools hand to a parser of the user's; empty: none.
    pub metadata: &'a [u8],
    /// Nanoseconds.
    pub start_ns: u64,
    /// Nanoseconds, not before `start_ns`.
    pub end_ns: u64,
}

/// A block of events. ExecuTorch calls the block of a run `Execute`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block<'a> {
    /// Its name. Tools average the blocks that have equal names and equal events.
    pub name: &'a str,
    /// In the order in which they ended.
    pub events: Vec<Event<'a>>,
}

/// Most bytes of a dump: offsets in a FlatBuffer have 31 bits.
const MOST: usize = 1 << 30;
/// The identifier of the format.
const IDENTIFIER: &str = "ED00";
/// The chain of instructions; plans have one.
const CHAIN: i32 = 0;
/// What stands for "no chain", "no number".
const NONE: i32 = -1;

/// Writes a dump of these blocks.
///
/// # Errors
/// [`WriteError::Io`]: it would be larger than the format can be.
pub fn write(blocks: &[Block<'_>]) -> Result<Vec<u8>, WriteError> {
    let mut fbb = FlatBufferBuilder::new();
    let mut runs = Vec::with_capacity(blocks.len());
    for block in blocks {
        let mut events = Vec::with_capacity(block.events.len());
        for event in &block.events {
            let more = event.name.map_or(0, str::len) + event.delegate_id.map_or(0, str::len) + event.metadata.len();
            if fbb.unfinished_data().len().saturating_add(more) > MOST {
                return Err(WriteError::Io("an ETDump of more than 1 GiB".into()));
            }
            events.push(self::event(&mut fbb, event));
        }
        let args = fb::RunDataArgs {
            name: Some(fbb.create_shared_string(block.name)),
            bundled_input_index: NONE,
            allocators: None,
            events: Some(fbb.create_vector(&events)),
        };
        runs.push(fb::RunData::create(&mut fbb, &args));
    }
    let args = fb::ETDumpArgs {
        version: 0,
        run_data: Some(fbb.create_vector(&runs)),
    };
    let root = fb::ETDump::create(&mut fbb, &args);
    fbb.finish_size_prefixed(root, Some(IDENTIFIER));
    Ok(fbb.finished_data().to_vec())
}

fn event<'b>(fbb: &mut FlatBufferBuilder<'b>, event: &Event<'_>) -> WIPOffset<fb::Event<'b>> {
    let (chain_index, instruction_id) = match event.place {
        Place::Run => (NONE, 0),
        Place::Instruction(index) => (CHAIN, i32::try_from(index).unwrap_or(i32::MAX)),
    };
    let args = fb::ProfileEventArgs {
        name: event.name.map(|name| fbb.create_shared_string(name)),
        chain_index,
        instruction_id,
        delegate_debug_id_int: NONE,
        delegate_debug_id_str: event.delegate_id.map(|id| fbb.create_shared_string(id)),
        delegate_debug_metadata: (!event.metadata.is_empty()).then(|| fbb.create_vector(event.metadata)),
        start_time: event.start_ns,
        end_time: event.end_ns,
    };
    let profile = fb::ProfileEvent::create(fbb, &args);
    let args = fb::EventArgs {
        profile_event: Some(profile),
        allocation_event: None,
        debug_event: None,
    };
    fb::Event::create(fbb, &args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(bytes: &[u8], at: usize) -> usize {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
    }

    /// Where a field of the table at `table` stands, by the rules of FlatBuffers and not by generated code.
    fn field(bytes: &[u8], table: usize, index: usize) -> Option<usize> {
        let back = i32::from_le_bytes(bytes[table..table + 4].try_into().unwrap());
        let vtable = (table as i64 - i64::from(back)) as usize;
        let entry = |i: usize| {
            usize::from(u16::from_le_bytes(
                bytes[vtable + i..vtable + i + 2].try_into().unwrap(),
            ))
        };
        let place = 4 + 2 * index;
        (place < entry(0) && entry(place) != 0).then(|| table + entry(place))
    }

    fn follow(bytes: &[u8], at: usize) -> usize {
        at + u32_at(bytes, at)
    }

    fn text(bytes: &[u8], at: usize) -> &str {
        let at = follow(bytes, at);
        core::str::from_utf8(&bytes[at + 4..at + 4 + u32_at(bytes, at)]).unwrap()
    }

    /// The places of the fields are those of ExecuTorch's schema: ETDump.run_data 1; RunData.name 0, events 3; Event.profile_event 0;
    /// ProfileEvent.name 0, chain 1, instruction 2, id as text 4, metadata 5, start 6, end 7.
    #[test]
    fn the_fields_lie_where_executorch_reads_them() {
        let blocks = [Block {
            name: "Execute",
            events: alloc::vec![
                Event {
                    name: None,
                    place: Place::Instruction(3),
                    delegate_id: Some("linear"),
                    metadata: b"{}",
                    start_ns: 10,
                    end_ns: 25,
                },
                Event {
                    name: Some("Method::execute"),
                    place: Place::Run,
                    delegate_id: None,
                    metadata: b"",
                    start_ns: 5,
                    end_ns: 30,
                },
            ],
        }];
        let bytes = write(&blocks).unwrap();
        assert_eq!(u32_at(&bytes, 0), bytes.len() - 4);
        assert_eq!(&bytes[8..12], b"ED00");
        let root = follow(&bytes, 4);
        let runs = follow(&bytes, field(&bytes, root, 1).unwrap());
        assert_eq!(u32_at(&bytes, runs), 1);
        let run = follow(&bytes, runs + 4);
        assert_eq!(text(&bytes, field(&bytes, run, 0).unwrap()), "Execute");
        let events = follow(&bytes, field(&bytes, run, 3).unwrap());
        assert_eq!(u32_at(&bytes, events), 2);
        let profile = |i: usize| {
            let event = follow(&bytes, events + 4 + 4 * i);
            follow(&bytes, field(&bytes, event, 0).unwrap())
        };
        let time = |table, index| {
            let at = field(&bytes, table, index).unwrap();
            u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
        };
        let first = profile(0);
        assert_eq!(field(&bytes, first, 0), None);
        assert_eq!(field(&bytes, first, 1), None, "chain 0 is the default");
        assert_eq!(u32_at(&bytes, field(&bytes, first, 2).unwrap()), 3);
        assert_eq!(text(&bytes, field(&bytes, first, 4).unwrap()), "linear");
        let metadata = follow(&bytes, field(&bytes, first, 5).unwrap());
        assert_eq!(&bytes[metadata..metadata + 6], b"\x02\0\0\0{}");
        assert_eq!((time(first, 6), time(first, 7)), (10, 25));
        let second = profile(1);
        assert_eq!(text(&bytes, field(&bytes, second, 0).unwrap()), "Method::execute");
        assert_eq!(u32_at(&bytes, field(&bytes, second, 1).unwrap()), u32::MAX as usize);
        assert_eq!(u32_at(&bytes, field(&bytes, second, 2).unwrap()), 0);
        assert_eq!(field(&bytes, second, 4), None);
    }
}
