//! Failures: a status for the caller, and the details of the last one on each thread.

use crate::generated::status;
use std::cell::RefCell;
use std::ffi::CString;

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Of [`status`].
    pub(crate) status: u32,
    kind: &'static str,
    text: String,
}

impl Failure {
    /// The call is wrong.
    pub(crate) fn usage(text: impl Into<String>) -> Failure {
        Failure {
            status: status::USAGE,
            kind: "usage",
            text: text.into(),
        }
    }

    /// A panic of ours.
    pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> Failure {
        let words = payload.downcast_ref::<&str>().map(|text| (*text).to_string());
        let words = words.or_else(|| payload.downcast_ref::<String>().cloned());
        Failure {
            status: status::INTERNAL,
            kind: "internal",
            text: format!(
                "internal error: {}\n  hint: please report it with the model, if you may",
                words.unwrap_or_else(|| "a panic".to_string())
            ),
        }
    }
}

impl From<delegraph::Error> for Failure {
    fn from(error: delegraph::Error) -> Failure {
        Failure {
            status: u32::from(error.exit_code()),
            kind: error.kind(),
            text: error.to_string(),
        }
    }
}

/// What `delegraph_last_error` shows.
pub(crate) struct Last {
    pub(crate) status: u32,
    pub(crate) kind: CString,
    pub(crate) message: CString,
    pub(crate) hint: CString,
}

thread_local! {
    static LAST: RefCell<Last> = RefCell::new(Last {
        status: status::OK,
        kind: CString::default(),
        message: CString::default(),
        hint: CString::default(),
    });
}

/// Keeps a failure for this thread, and gives its status.
pub(crate) fn keep(failure: Failure) -> u32 {
    let (message, hint) = failure.text.split_once("\n  hint: ").unwrap_or((&failure.text, ""));
    let last = Last {
        status: failure.status,
        kind: text(failure.kind),
        message: text(message),
        hint: text(hint),
    };
    // At the end of a thread there may be nowhere left to keep it.
    let _ = LAST.try_with(|slot| *slot.borrow_mut() = last);
    failure.status
}

/// Reads the last failure of this thread.
pub(crate) fn last<T>(read: impl FnOnce(&Last) -> T) -> Option<T> {
    LAST.try_with(|slot| read(&slot.borrow())).ok()
}

/// Text as C has it: a NUL inside, which no name should have, is left out.
pub(crate) fn text(text: &str) -> CString {
    let bytes: Vec<u8> = text.bytes().filter(|byte| *byte != 0).collect();
    CString::new(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_apart_from_its_message() {
        let failure = Failure::usage("no method `a`\n  hint: there is `b`\0");
        assert_eq!(keep(failure), status::USAGE);
        let seen = last(|last| (last.message.clone(), last.hint.clone())).unwrap();
        assert_eq!(seen, (c"no method `a`".to_owned(), c"there is `b`".to_owned()));
        let other = std::thread::spawn(|| last(|last| last.status)).join().unwrap();
        assert_eq!(other, Some(status::OK), "another thread has failed in nothing");
    }
}
