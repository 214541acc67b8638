//! What a library may not do to the process that it is in.

use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{life, open};
use crate::driver::Script;
use crate::driver::process::{Shared, stdout_of};

pub fn stdout(trial: &mut Trial<'_>) -> Outcome {
    let mut outcome = Ok(());
    // Loading and the entry are part of it.
    let written = stdout_of(|| {
        outcome = open(trial).and_then(|library| life(&library, trial, &Script::default()));
    })?;
    outcome?;
    match written.is_empty() {
        true => Ok(()),
        false => Err(Failure::fail(format!(
            "it wrote {} bytes to standard output: {:?}",
            written.len(),
            String::from_utf8_lossy(&written).chars().take(120).collect::<String>()
        ))),
    }
}

/// The process before and after a whole life, loading included.
fn around(trial: &Trial<'_>) -> Result<(Shared, Shared), Failure> {
    let before = Shared::now();
    let library = open(trial)?;
    life(&library, trial, &Script::default())?;
    Ok((before, Shared::now()))
}

pub fn signal_handlers(trial: &mut Trial<'_>) -> Outcome {
    let (before, after) = around(trial)?;
    match after.handler_changed(&before) {
        None => Ok(()),
        Some(what) => Err(Failure::fail(format!("it changed {what}"))),
    }
}

pub fn process_state(trial: &mut Trial<'_>) -> Outcome {
    let (before, mut after) = around(trial)?;
    // Signals have a case of their own.
    after.handlers.clone_from(&before.handlers);
    match after.changed(&before) {
        None => Ok(()),
        Some(what) => Err(Failure::fail(format!("it changed {what}"))),
    }
}
