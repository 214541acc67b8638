//! What executions measured. In Qualcomm's emulation the numbers are those of this machine: cycles of no chip.

use super::device::{Core, Qnn};
use super::layout::{EventData, Handle, NONE};
use super::log::text;
use delegraph_sdk::Error;
use std::sync::Arc;

/// Most events that are read of one execution, and how deep they nest.
const MOST_EVENTS: usize = 1 << 16;
const DEEPEST: usize = 4;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The execution as a whole.
    Basic = 1,
    /// Each operation.
    Detailed = 2,
}

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds.
    Microseconds,
    /// Cycles of a processor.
    Cycles,
    /// A count.
    Count,
    /// Another of the library's.
    Other(u32),
}

/// One number.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The library's number of the kind of event.
    pub kind: u32,
    /// What is counted.
    pub unit: Unit,
    /// The number.
    pub value: u64,
    /// What it is of, for example a node's name and number; may be empty.
    pub name: String,
    /// How many events it is part of.
    pub depth: usize,
}

/// A handle that executions write into. Each execution's events replace those of the one before.
pub struct Profile {
    core: Arc<Core>,
    raw: Handle,
}

// SAFETY: as of `Core`.
unsafe impl Send for Profile {}
// SAFETY: as of `Core`.
unsafe impl Sync for Profile {}

impl Qnn {
    /// Something to measure executions with.
    ///
    /// # Errors
    /// The library fails.
    pub fn profile(&self, level: Level) -> Result<Profile, Error> {
        let core = &self.core;
        let call = core.call();
        let mut profile = Profile {
            core: Arc::clone(core),
            raw: NONE,
        };
        // SAFETY: the backend is alive, the output is valid for a write.
        let code = unsafe { core.library.table.profile_create()?(core.backend, level as u32, &mut profile.raw) };
        core.check(&call, "make a profile", code)?;
        Ok(profile)
    }
}

impl Profile {
    pub(super) fn handle(&self) -> Handle {
        self.raw
    }

    /// What was measured, each event followed by its parts.
    ///
    /// # Errors
    /// The library fails.
    pub fn events(&self) -> Result<Vec<Event>, Error> {
        let call = self.core.call();
        let (mut list, mut count) = (std::ptr::null(), 0);
        // SAFETY: the profile is alive, the outputs are valid for a write.
        let code = unsafe { self.core.library.table.profile_events()?(self.raw, &mut list, &mut count) };
        self.core.check(&call, "list what was measured", code)?;
        let mut events = Vec::new();
        // SAFETY: the list has so many ids, as long as the profile is alive and nothing is executed with it.
        unsafe { self.add(&call, list, count, 0, &mut events) }?;
        Ok(events)
    }

    /// # Safety
    /// The list is null or has `count` ids of the library's.
    unsafe fn add(
        &self,
        call: &super::log::Call,
        list: *const u64,
        count: u32,
        depth: usize,
        events: &mut Vec<Event>,
    ) -> Result<(), Error> {
        if list.is_null() || depth > DEEPEST {
            return Ok(());
        }
        let table = &self.core.library.table;
        // SAFETY: as the caller says.
        let ids = unsafe { std::slice::from_raw_parts(list, count as usize) }.to_vec();
        for id in ids {
            if events.len() >= MOST_EVENTS {
                break;
            }
            let mut data = EventData {
                kind: 0,
                unit: 0,
                value: 0,
                identifier: std::ptr::null(),
            };
            // SAFETY: the id is the library's, the output is valid for a write.
            let code = unsafe { table.profile_event_data()?(id, &mut data) };
            self.core.check(call, "tell what was measured", code)?;
            events.push(Event {
                kind: data.kind,
                unit: match data.unit {
                    1 => Unit::Microseconds,
                    3 => Unit::Cycles,
                    4 => Unit::Count,
                    other => Unit::Other(other),
                },
                value: data.value,
                // SAFETY: the text belongs to the profile.
                name: unsafe { text(data.identifier) },
                depth,
            });
            let (mut parts, mut count) = (std::ptr::null(), 0);
            // A library without this function has no events below this one.
            let Ok(function) = table.profile_sub_events() else {
                continue;
            };
            // SAFETY: as above.
            if unsafe { function(id, &mut parts, &mut count) } == 0 {
                // SAFETY: as above.
                unsafe { self.add(call, parts, count, depth + 1, events) }?;
            }
        }
        Ok(())
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _call = self.core.call();
        if let (false, Ok(function)) = (self.raw.is_null(), self.core.library.table.profile_free()) {
            // SAFETY: nobody executes with it: that borrows it.
            let _ = unsafe { function(self.raw) };
        }
    }
}
