//! `delegraph delegate new`

use crate::args::DelegateNewArgs;
use crate::output::Output;

/// Runs the command.
///
/// # Errors
/// Always, so far.
pub fn run(_: &DelegateNewArgs, _: &Output) -> anyhow::Result<u8> {
    Err(crate::usage("`delegate new` comes with the next commit"))
}
