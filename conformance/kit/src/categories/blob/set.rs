//! Graphs that are compiled together.

use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{open, refused, with_weights};
use crate::driver::{Fail, HostWeights, Script};
use crate::workload::Bench;
use delegraph_abi::{Status, c};
use delegraph_runner::Verdict;
use std::collections::BTreeSet;
use std::sync::Arc;

pub fn together(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    if !library.has(c::Feature::COMPILE_SET) {
        return Err(Failure::skip("not claimed: it does not have DG_FEATURE_COMPILE_SET"));
    }
    let script = Script::default();
    // Of one kind and one set of weights, with other sizes.
    let first = match with_weights(trial) {
        Err(skipped) if skipped.verdict == Verdict::Skip => Bench::open(trial)?,
        other => other?,
    };
    let kind = first.workload.kind;
    let second = Bench::on(library, trial, &script, |other, _| other == kind, (4, 5, 1))?;
    let mut benches = [first, second];
    let graphs = |benches: &[Bench]| -> Vec<(Vec<u8>, Arc<HostWeights>)> {
        let graphs = benches
            .iter()
            .map(|bench| (bench.workload.image.clone(), bench.weights.clone()));
        graphs.collect()
    };
    let owned = graphs(&benches);
    let given: Vec<(&[u8], &Arc<HostWeights>)> = owned.iter().map(|(image, weights)| (&image[..], weights)).collect();
    for count in [1, 2] {
        trial.step(&format!("a set of {count}"));
        let blobs = benches[0].instance.compile_set(&given[..count], "", &script)?;
        for (number, (bench, blob)) in benches.iter_mut().zip(blobs).enumerate() {
            let what = format!("graph {number} of a set of {count}");
            if blob.sections.is_empty() {
                return Err(Failure::fail(format!("{what}: `compile_set` wrote no section")));
            }
            let names: BTreeSet<&String> = blob.sections.iter().map(|(name, ..)| name).collect();
            if names.len() != blob.sections.len() {
                return Err(Failure::fail(format!("{what}: two sections of one name")));
            }
            let found = |failure: Failure| Failure {
                reason: format!("{what}: {}", failure.reason),
                ..failure
            };
            bench.blob = blob;
            let mut session = bench.load().map_err(found)?;
            bench.run_once(&mut session, 1, &script).map_err(found)?;
            bench.run_once(&mut session, 2, &script).map_err(found)?;
        }
    }
    trial.step("a host that takes no more bytes");
    let fail = Fail {
        blob_write: Some(0),
        ..Fail::default()
    };
    let full = script.clone().failing(fail);
    let outcome = benches[0].instance.compile_set(&given, "", &full);
    let statuses = [Status::OUT_OF_MEMORY, Status::INTERNAL, Status::INVALID_ARGUMENT];
    refused("`compile_set` with a host whose `blob_write` fails", outcome, &statuses).map(|_| ())
}
