//! The library's numbers of errors: their names, and what they are in the contract.

use super::log::text;
use super::table::Table;
use super::words::Words;
use delegraph_sdk::{Error, Status};

/// Numbers and what they mean.
const NAMES: &[(u64, &str)] = &[
    (1000, "not supported"),
    (1002, "out of memory"),
    (1003, "system error"),
    (1004, "invalid argument"),
    (1005, "operation not permitted"),
    (1006, "platform not supported"),
    (1007, "communication with the system failed"),
    (1008, "incompatible binaries"),
    (1009, "binaries cannot be loaded"),
    (1010, "resource unavailable"),
    (1011, "communication with the system failed for good"),
    (1100, "general error"),
    (2000, "unknown property"),
    (3110, "the operation is not valid"),
    (4000, "the backend cannot be initialized"),
    (4003, "the backend does not support this"),
    (4004, "invalid argument for the backend"),
    (4005, "no such operation or package"),
    (4006, "no such provider of operations"),
    (4007, "operations cannot be registered"),
    (4008, "version of the backend not supported"),
    (4009, "operations registered twice"),
    (4010, "inconsistent configuration"),
    (4011, "invalid backend handle"),
    (4012, "invalid configuration of the backend"),
    (5000, "invalid argument for the context"),
    (5001, "no such context"),
    (5002, "invalid context handle"),
    (5003, "the context is not finalized"),
    (5004, "the binary is of another version"),
    (5005, "no context can be made of the binary"),
    (5006, "the size of the binary cannot be told"),
    (5007, "the binary cannot be made"),
    (5008, "invalid configuration of the binary"),
    (5010, "invalid configuration of the context"),
    (5011, "the binary is suboptimal"),
    (5012, "the context was aborted"),
    (5013, "the context timed out"),
    (6000, "invalid argument for the graph"),
    (6001, "invalid graph handle"),
    (6002, "no such graph"),
    (6003, "invalid name"),
    (6004, "invalid tensor"),
    (6005, "invalid description of an operation"),
    (6007, "a node is not connected"),
    (6020, "the graph cannot be created"),
    (6021, "the graph cannot be optimized"),
    (6022, "the graph cannot be finalized"),
    (6023, "the graph is not finalized"),
    (6024, "the graph is finalized already"),
    (6025, "too many executions wait"),
    (6031, "the execution was aborted"),
    (6033, "the execution timed out"),
    (6036, "a shape is not fixed"),
    (6040, "the graph has a cycle"),
    (7001, "invalid tensor handle"),
    (7003, "the tensor is there already"),
    (7004, "invalid parameter of a tensor"),
    (7005, "unsupported parameter of a tensor"),
    (7006, "two names of tensors have one hash"),
    (8001, "invalid memory handle"),
    (8002, "memory is registered already"),
    (8003, "memory cannot be mapped"),
    (8004, "invalid shape of memory"),
    (14000, "invalid device handle"),
    (14001, "invalid configuration of the device"),
    (14002, "the hardware is not available"),
    (30001, "not a context binary"),
    (30010, "the binary is cut short, or is none"),
];

/// Our name of a number.
pub fn name(code: u64) -> Option<&'static str> {
    let at = NAMES.binary_search_by_key(&code, |(number, _)| *number).ok()?;
    Some(NAMES[at].1)
}

/// What a number is in the contract.
fn status(code: u64) -> Status {
    match code {
        1000 | 1006 | 3110 | 4003 | 4005 => Status::UNSUPPORTED,
        1002 => Status::OUT_OF_MEMORY,
        1008 | 5004 | 5008 => Status::BLOB_INCOMPATIBLE,
        5005 | 30001 | 30010 => Status::BLOB_CORRUPT,
        4000 | 14002 => Status::DEPENDENCY_MISSING,
        5013 | 6033 => Status::TIMEOUT,
        _ => Status::VENDOR,
    }
}

/// `NAME (NUMBER)`, in the library's words if it has any of this number, else in ours.
pub fn described(table: &Table, code: u64) -> String {
    let mut message = std::ptr::null();
    let theirs = match table.error_message() {
        // SAFETY: the output is valid for a write; what is written points to a constant text of the library's.
        Ok(function) if unsafe { function(code, &mut message) } == 0 => unsafe { text(message) },
        _ => String::new(),
    };
    let theirs = theirs
        .lines()
        .next()
        .unwrap_or_default()
        .trim()
        .trim_end_matches('.')
        .to_string();
    match (name(code), theirs.is_empty()) {
        (Some(ours), _) => format!("{ours} ({code})"),
        (None, false) => format!("{theirs} ({code})"),
        (None, true) => format!("error {code}"),
    }
}

/// The error that a number is: what was being done, the number's name, and what the library said besides.
pub fn failed(table: &Table, doing: &str, code: u64, words: &Words) -> Error {
    let mut message = format!("the QNN library failed to {doing}: {}", described(table, code));
    if let Some(reason) = words.reason() {
        message.push_str(": ");
        message.push_str(&reason);
    }
    Error::new(status(code), message).vendor_code(code as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_order_and_have_names() {
        assert!(NAMES.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(name(6022), Some("the graph cannot be finalized"));
        assert_eq!(name(6), None);
        assert_eq!(status(30010), Status::BLOB_CORRUPT);
    }
}
