//! `delegraph delegate check`

use crate::args::{DelegateCheckArgs, Global};
use crate::output::Output;

/// Runs the command.
///
/// # Errors
/// Always, so far.
pub fn run(_: &DelegateCheckArgs, _: &Global, _: &Output) -> anyhow::Result<u8> {
    Err(crate::usage("`delegate check` comes with the next commit"))
}
