//! What the manifest claims beforehand, and what `partition` says of it.

use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::compiler;
use crate::driver::Script;
use crate::support::{ask_all, cases};
use delegraph_host::Claims;
use delegraph_lower::Operators;
use delegraph_runner::Claim;

/// The claims; skipped where there are none.
fn claims_of(trial: &Trial<'_>) -> Result<Claims, Failure> {
    match &trial.subject.manifest {
        None => Err(Failure::skip("there is no manifest beside the library")),
        Some((_, manifest)) if manifest.claims.is_empty() => {
            Err(Failure::skip("the manifest claims nothing: it has no `[[op]]`"))
        }
        Some((_, manifest)) => Ok(manifest.claims.clone()),
    }
}

/// Operators and parameters of claims.
pub fn exist(trial: &mut Trial<'_>) -> Outcome {
    match claims_of(trial)?.problems(&Operators).into_iter().next() {
        None => Ok(()),
        Some(problem) => Err(Failure::fail(problem)),
    }
}

/// What is claimed is taken.
pub fn kept(trial: &mut Trial<'_>) -> Outcome {
    let claims = claims_of(trial)?;
    let (_, instance) = compiler(trial)?;
    let asked = ask_all(cases::of(None)?, &claims, &mut |image| {
        let answers = instance
            .partition(image, 1, &Script::default())
            .map_err(|refused| refused.to_string())?;
        answers.complete(1)?;
        Ok(match answers.takes(0) {
            true => Ok(()),
            false => Err(answers.reason()),
        })
    })?;
    let claimed = asked.iter().filter(|one| one.claimed.is_ok()).count();
    let taken = asked.iter().filter(|one| one.taken.is_ok()).count();
    trial.measure("asked", asked.len() as f64);
    trial.measure("claimed", claimed as f64);
    trial.measure("taken", taken as f64);
    trial.record.claim = Claim::Claimed;
    match asked.iter().find(|one| one.is_broken_promise()) {
        None => Ok(()),
        Some(broken) => {
            let why = broken.taken.as_ref().err().cloned().unwrap_or_default();
            let table = broken.claimed.as_ref().map_or(0, |at| at + 1);
            trial.keep("graph.dgg", broken.question.image.clone());
            Err(Failure::claimed(format!(
                "`[[op]]` {table} of the manifest claims {}, and `partition` refuses it: {why}",
                broken.question.name()
            )))
        }
    }
}
