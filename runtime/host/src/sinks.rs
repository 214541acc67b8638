//! What takes a delegate's answers: verdicts of nodes, blobs, verdicts of blobs. The host's functions that write into them.

use crate::NodeVerdict;
use crate::call::lock;
use crate::raw::text;
use delegraph_abi::envelope::{MAX_ALIGN, Requirement};
use delegraph_abi::{Status, c};
use std::sync::{Mutex, PoisonError};

/// Takes the answers of a partition call.
#[derive(Default)]
pub(crate) struct PartSink(Mutex<PartAnswers>);

/// What has been answered so far.
#[derive(Default)]
pub(crate) struct PartAnswers {
    pub verdicts: Vec<Option<NodeVerdict>>,
    pub atomic_sets: Vec<Vec<u32>>,
    /// First answer that was out of contract.
    pub problem: Option<String>,
    /// Members of all sets together, so that sets cannot grow without end.
    members: u64,
}

impl PartSink {
    pub fn new(nodes: u32) -> PartSink {
        PartSink(Mutex::new(PartAnswers {
            verdicts: vec![None; nodes as usize],
            ..PartAnswers::default()
        }))
    }

    pub fn as_ptr(&self) -> *mut c::PartSink {
        (self as *const Self).cast_mut().cast()
    }

    pub fn answers(self) -> PartAnswers {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartAnswers {
    fn refuse(&mut self, problem: String) -> Status {
        self.problem.get_or_insert(problem);
        Status::INVALID_ARGUMENT
    }
}

pub(crate) unsafe extern "C" fn part_node_verdict(
    sink: *mut c::PartSink,
    node: u32,
    supported: u32,
    reason: c::Reason,
    words: *const u8,
    words_size: u64,
) -> Status {
    // SAFETY: the delegate passes the sink that it was given, and a text that is valid for this call.
    unsafe {
        let Some(sink) = sink.cast::<PartSink>().as_ref() else {
            return Status::INVALID_ARGUMENT;
        };
        let words = text("a reason", words, words_size);
        let mut answers = lock(&sink.0);
        let words = match words {
            Ok(words) => words,
            Err(why) => return answers.refuse(format!("node {node}: {why}")),
        };
        let count = answers.verdicts.len();
        match answers.verdicts.get_mut(node as usize) {
            None => answers.refuse(format!("a verdict on node {node} of {count}")),
            Some(Some(_)) => answers.refuse(format!("two verdicts on node {node}")),
            Some(slot) => {
                let supported = supported != 0;
                let named = || reason.name().map_or("no reason given".to_string(), reason_words);
                *slot = Some(NodeVerdict {
                    supported,
                    code: if supported { 0 } else { reason.0 },
                    reason: match (supported, words.is_empty()) {
                        (true, _) => String::new(),
                        (false, true) => named(),
                        (false, false) => words,
                    },
                });
                Status::OK
            }
        }
    }
}

/// `DYNAMIC_SHAPE` -> `dynamic shape`
fn reason_words(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', " ")
}

pub(crate) unsafe extern "C" fn part_atomic_set(sink: *mut c::PartSink, nodes: *const u32, count: u64) -> Status {
    // SAFETY: as in `part_node_verdict`; the list is read after its size was checked.
    unsafe {
        let Some(sink) = sink.cast::<PartSink>().as_ref() else {
            return Status::INVALID_ARGUMENT;
        };
        let mut answers = lock(&sink.0);
        let total = answers.verdicts.len() as u64;
        answers.members += count.min(total + 1);
        // Sets that share nodes are merged later; more members than this say nothing new.
        if count > total || answers.members > total.saturating_mul(16) {
            return answers.refuse(format!("atomic sets of more nodes than the graph's {total} can need"));
        }
        if count > 0 && (nodes.is_null() || !nodes.is_aligned()) {
            return answers.refuse("an atomic set is NULL or misaligned".to_string());
        }
        let set = match count {
            0 => Vec::new(),
            _ => std::slice::from_raw_parts(nodes, count as usize).to_vec(),
        };
        if let Some(node) = set.iter().find(|n| u64::from(**n) >= total) {
            return answers.refuse(format!("an atomic set names node {node} of {total}"));
        }
        answers.atomic_sets.push(set);
        Status::OK
    }
}

/// Takes the blob of a compile call.
#[derive(Default)]
pub(crate) struct BlobSink(Mutex<BlobParts>);

/// What has been written so far.
#[derive(Default)]
pub(crate) struct BlobParts {
    pub precision: String,
    /// Oldest and newest driver.
    pub drivers: [String; 2],
    /// Whether of an output, its index, and what it needs.
    pub requirements: Vec<(bool, u32, Requirement)>,
    /// States of the graph that sessions keep, by index.
    pub states: Vec<u32>,
    pub sections: Vec<(String, u32, Vec<u8>)>,
    /// First thing that was out of contract.
    pub problem: Option<String>,
}

impl BlobSink {
    /// Whether nothing was out of contract so far.
    pub fn is_sound(&self) -> bool {
        lock(&self.0).problem.is_none()
    }

    pub fn as_ptr(&self) -> *mut c::BlobSink {
        (self as *const Self).cast_mut().cast()
    }

    pub fn parts(self) -> BlobParts {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// # Safety
    /// `sink` is NULL or what `as_ptr` gave for the call that runs.
    unsafe fn with(sink: *mut c::BlobSink, body: impl FnOnce(&mut BlobParts) -> Result<(), String>) -> Status {
        // SAFETY: the caller vouches for it.
        let Some(sink) = (unsafe { sink.cast::<BlobSink>().as_ref() }) else {
            return Status::INVALID_ARGUMENT;
        };
        let mut parts = lock(&sink.0);
        match body(&mut parts) {
            Ok(()) => Status::OK,
            Err(problem) => {
                parts.problem.get_or_insert(problem);
                Status::INVALID_ARGUMENT
            }
        }
    }
}

pub(crate) unsafe extern "C" fn blob_set_precision(sink: *mut c::BlobSink, precision: *const u8, size: u64) -> Status {
    // SAFETY: the delegate passes the sink that it was given, and a text that is valid for this call.
    unsafe {
        BlobSink::with(sink, |parts| {
            parts.precision = text("the precision", precision, size)?;
            Ok(())
        })
    }
}

pub(crate) unsafe extern "C" fn blob_set_driver_range(
    sink: *mut c::BlobSink,
    min: *const u8,
    min_size: u64,
    max: *const u8,
    max_size: u64,
) -> Status {
    // SAFETY: as in `blob_set_precision`.
    unsafe {
        BlobSink::with(sink, |parts| {
            parts.drivers = [
                text("the oldest driver", min, min_size)?,
                text("the newest driver", max, max_size)?,
            ];
            Ok(())
        })
    }
}

/// Most requirements that a blob may state: more tensors than any region has.
const MAX_REQUIREMENTS: usize = 1 << 16;

pub(crate) unsafe extern "C" fn blob_require(
    sink: *mut c::BlobSink,
    is_output: u32,
    index: u32,
    alignment: u32,
    size_multiple: u32,
) -> Status {
    // SAFETY: as in `blob_set_precision`.
    unsafe {
        BlobSink::with(sink, |parts| {
            let requirement = Requirement {
                alignment,
                size_multiple,
            };
            if alignment > MAX_ALIGN || (alignment != 0 && !alignment.is_power_of_two()) || size_multiple > MAX_ALIGN {
                return Err(format!(
                    "a tensor is to lie at a multiple of {alignment}, with room for a multiple of {size_multiple}"
                ));
            }
            if parts.requirements.len() >= MAX_REQUIREMENTS {
                return Err("it states requirements without end".to_string());
            }
            parts.requirements.push((is_output != 0, index, requirement));
            Ok(())
        })
    }
}

pub(crate) unsafe extern "C" fn blob_keep_state(sink: *mut c::BlobSink, state: u32) -> Status {
    // SAFETY: as in `blob_set_precision`.
    unsafe {
        BlobSink::with(sink, |parts| {
            // Each once, which also bounds the list: a state that is not there ends it when the blob is made.
            if parts.states.contains(&state) || parts.states.len() >= MAX_REQUIREMENTS {
                return Err(format!("it keeps state {state} twice, or states without end"));
            }
            parts.states.push(state);
            Ok(())
        })
    }
}

pub(crate) unsafe extern "C" fn blob_begin_section(
    sink: *mut c::BlobSink,
    name: *const u8,
    size: u64,
    align: u32,
) -> Status {
    // SAFETY: as in `blob_set_precision`.
    unsafe {
        BlobSink::with(sink, |parts| {
            let name = text("a section's name", name, size)?;
            if !align.is_power_of_two() || align > MAX_ALIGN {
                return Err(format!("section `{name}` asks for an alignment of {align}"));
            }
            if parts.sections.iter().any(|(n, ..)| *n == name) {
                return Err(format!("two sections are called `{name}`"));
            }
            parts.sections.push((name, align, Vec::new()));
            Ok(())
        })
    }
}

pub(crate) unsafe extern "C" fn blob_write(sink: *mut c::BlobSink, data: *const u8, size: u64) -> Status {
    // SAFETY: as in `blob_set_precision`.
    unsafe {
        BlobSink::with(sink, |parts| {
            let section = parts.sections.last_mut();
            let (.., bytes) = section.ok_or("bytes are written before a section begins")?;
            let count = usize::try_from(size).map_err(|_| "more bytes than fit in memory".to_string())?;
            if count == 0 {
                return Ok(());
            }
            if data.is_null() {
                return Err("the bytes written are NULL".to_string());
            }
            bytes
                .try_reserve(count)
                .map_err(|_| format!("{count} more bytes do not fit in memory"))?;
            bytes.extend_from_slice(std::slice::from_raw_parts(data, count));
            Ok(())
        })
    }
}

/// Takes the verdict of a check call.
#[derive(Default)]
pub(crate) struct CheckSink(Mutex<Option<Result<(c::BlobVerdict, String), String>>>);

impl CheckSink {
    pub fn as_ptr(&self) -> *mut c::CheckSink {
        (self as *const Self).cast_mut().cast()
    }

    pub fn verdict(self) -> Option<Result<(c::BlobVerdict, String), String>> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) unsafe extern "C" fn blob_set_verdict(
    sink: *mut c::CheckSink,
    verdict: c::BlobVerdict,
    reason: *const u8,
    size: u64,
) -> Status {
    // SAFETY: the delegate passes the sink that it was given, and a text that is valid for this call.
    unsafe {
        let Some(sink) = sink.cast::<CheckSink>().as_ref() else {
            return Status::INVALID_ARGUMENT;
        };
        let answer = text("the reason of a verdict", reason, size).map(|reason| (verdict, reason));
        let status = if answer.is_ok() {
            Status::OK
        } else {
            Status::INVALID_ARGUMENT
        };
        *lock(&sink.0) = Some(answer);
        status
    }
}
