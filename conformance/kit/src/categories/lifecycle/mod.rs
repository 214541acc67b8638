//! Orders of calls, ends and beginnings.

mod beside;
mod failed;
mod lives;
mod sessions;

use crate::case::{Case, Failure, Outcome, case};
use crate::driver::HostWeights;

/// The cases.
pub const CASES: &[Case] = &[
    case(
        "lifecycle/again",
        "`initialize` may be called again after `shutdown`: the second life gives the results of the first.",
        lives::again,
    ),
    case(
        "lifecycle/thousand-cycles",
        "A delegate begins and ends 1,000 times, or as often as 10 s allow; how often is stated.",
        lives::thousand,
    )
    .limit(60),
    case(
        "lifecycle/two-instances",
        "Two delegates of one library work side by side, and the end of one leaves the other as it was.",
        beside::two_instances,
    ),
    case(
        "lifecycle/two-hosts",
        "`initialize` may be called for several hosts in one process: each has its own table of the host's.",
        beside::two_hosts,
    ),
    case(
        "lifecycle/options-differ",
        "Two delegates with other options do not take each other's.",
        beside::options_differ,
    ),
    case(
        "lifecycle/many-sessions",
        "Many sessions of one blob are alive at once, and give the same results.",
        sessions::many_sessions,
    ),
    case(
        "lifecycle/unload-out-of-order",
        "Sessions are unloaded in any order; those that stay go on working.",
        sessions::out_of_order,
    ),
    case(
        "lifecycle/interleaved",
        "`compile`, `blob_check` and `session_load` between the runs of a session change nothing for it.",
        sessions::interleaved,
    ),
    case(
        "lifecycle/load-after-failed-load",
        "A `session_load` that failed leaves nothing behind: no retained weights, and the next one works.",
        failed::failed_load,
    ),
    case(
        "lifecycle/run-after-failed-run",
        "After a run that failed the session runs as before.",
        failed::failed_run,
    ),
    case(
        "lifecycle/compile-after-failed-compile",
        "After a `compile` that failed the delegate compiles as before.",
        failed::failed_compile,
    ),
    case(
        "lifecycle/failed-initialize",
        "After an `initialize` that refused its options the next one works.",
        lives::failed_initialize,
    ),
    case(
        "lifecycle/devices-same",
        "`device_enumerate` gives the same devices until `shutdown`, and the same after a new beginning.",
        lives::devices_same,
    ),
    case(
        "lifecycle/threads-end",
        "`shutdown` stops the delegate's threads: within 2 s there are as many as before `initialize`.",
        lives::threads_end,
    ),
    case(
        "lifecycle/session-outlives-blob",
        "A blob is valid until `session_load` returns, the weights as long as they are retained: a session works once both are gone from the host's hands.",
        sessions::outlives_blob,
    ),
];

/// Two results of one case that have to be the same.
fn same(what: &str, first: &[u8], second: &[u8]) -> Outcome {
    match first.iter().zip(second).position(|(a, b)| a != b) {
        None => Ok(()),
        Some(at) => Err(Failure::fail(format!(
            "{what}: byte {at} of the result is {:#04x}, it was {:#04x}",
            second[at], first[at]
        ))),
    }
}

/// Weights that every session has let go of.
fn released(weights: &HostWeights) -> Outcome {
    match weights.retained() {
        0 => Ok(()),
        n => Err(Failure::fail(format!(
            "once every session was unloaded, weights were retained {n} times more often than released"
        ))),
    }
}
