//! `delegraph delegate abi-diff`

use crate::args::{DelegateAbiDiffArgs, Global};
use crate::output::Output;

/// Runs the command.
///
/// # Errors
/// Always, so far.
pub fn run(_: &DelegateAbiDiffArgs, _: &Global, _: &Output) -> anyhow::Result<u8> {
    Err(crate::usage("`delegate abi-diff` comes with the next commit"))
}
