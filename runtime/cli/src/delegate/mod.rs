//! `delegraph delegate`: what a vendor needs beside the SDK.

mod abi_diff;
mod cases;
mod certificate;
mod check;
mod lock;
mod new;
pub mod probe;
mod sign;
mod verify;

use crate::args::{DelegateCommand, Global};
use crate::output::Output;

/// Runs the command.
///
/// # Errors
/// Wrong use, a file that is none, or a delegate that fails.
pub fn run(command: &DelegateCommand, global: &Global, output: &Output) -> anyhow::Result<u8> {
    match command {
        DelegateCommand::New(args) => new::run(args, output),
        DelegateCommand::Check(args) => check::run(args, global, output),
        DelegateCommand::AbiDiff(args) => abi_diff::run(args, global, output),
        DelegateCommand::Lock(args) => lock::run(args, global, output),
        DelegateCommand::Sign(args) => sign::run(args, output),
        DelegateCommand::Verify(args) => verify::run(args, global, output),
        DelegateCommand::Probe(args) => probe::child(args, global),
    }
}
