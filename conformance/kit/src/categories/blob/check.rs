//! Blobs judged by their metadata.

use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{payload, start_in, warn};
use crate::driver::Script;
use crate::workload::Bench;
use delegraph_abi::c::{BlobVerdict, Feature};
use delegraph_abi::envelope::Meta;

fn fail(text: impl Into<String>) -> Failure {
    Failure::fail(text)
}

/// The one verdict on a blob.
fn check(bench: &Bench, what: &str, meta: &Meta) -> Result<(BlobVerdict, String), Failure> {
    let verdicts = bench
        .instance
        .blob_check(meta, payload(bench), &Script::default())
        .map_err(|refused| fail(format!("{what}: {refused}")))?;
    let [(verdict, reason)] = verdicts.as_slice() else {
        return Err(fail(format!(
            "{what}: `blob_check` gave {} verdicts, not 1",
            verdicts.len()
        )));
    };
    if !(BlobVerdict::OPTIMAL.0..=BlobVerdict::CORRUPT.0).contains(&verdict.0) {
        return Err(fail(format!(
            "{what}: `blob_check` gave the verdict {}, which does not exist",
            verdict.0
        )));
    }
    if *verdict != BlobVerdict::OPTIMAL && reason.trim().is_empty() {
        return Err(fail(format!(
            "{what}: `blob_check` gave {} without a reason",
            name(*verdict)
        )));
    }
    Ok((*verdict, reason.clone()))
}

fn name(verdict: BlobVerdict) -> &'static str {
    match verdict {
        BlobVerdict::OPTIMAL => "OPTIMAL",
        BlobVerdict::RECOMPILE_BETTER => "RECOMPILE_BETTER",
        BlobVerdict::UNSUPPORTED_HERE => "UNSUPPORTED_HERE",
        BlobVerdict::NOT_MINE => "NOT_MINE",
        BlobVerdict::CORRUPT => "CORRUPT",
        _ => "an unknown verdict",
    }
}

pub fn own(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let (verdict, reason) = check(&bench, "its own blob", &bench.blob.meta)?;
    match [BlobVerdict::OPTIMAL, BlobVerdict::RECOMPILE_BETTER].contains(&verdict) {
        true => Ok(()),
        false => Err(fail(format!(
            "`blob_check` says {} of its own blob: {reason}",
            name(verdict)
        ))),
    }
}

pub fn foreign(trial: &mut Trial<'_>) -> Outcome {
    // It needs no graph that is taken: only a name that is not its own.
    let (library, instance) = start_in(trial, Feature::RUN, "run")?;
    let info = library.info()?;
    let own = Meta {
        delegate: info.name,
        delegate_version: info.version,
        format: info.blob_format,
        format_version: info.blob_format_version,
        abi_minor: info.abi_minor,
        graph_hash: [7; 32],
        ..Meta::default()
    };
    let foreign = [
        ("another delegate and form", "x-delegraph-kit", "x.delegraph-kit.form"),
        ("another form", own.delegate.as_str(), "x.delegraph-kit.form"),
        ("another delegate", "x-delegraph-kit", own.format.as_str()),
        ("no delegate and no form", "", ""),
    ];
    let mut warnings = Vec::new();
    for (what, delegate, format) in foreign {
        let meta = Meta {
            delegate: delegate.to_string(),
            format: format.to_string(),
            ..own.clone()
        };
        let verdicts = instance.blob_check(&meta, 100, &Script::default())?;
        let [(verdict, reason)] = verdicts.as_slice() else {
            return Err(fail(format!(
                "of a blob of {what}, `blob_check` gave {} verdicts, not 1",
                verdicts.len()
            )));
        };
        match *verdict {
            BlobVerdict::NOT_MINE => {}
            BlobVerdict::OPTIMAL | BlobVerdict::RECOMPILE_BETTER if what != "another delegate" => {
                return Err(fail(format!(
                    "`blob_check` says {} of a blob of {what}",
                    name(*verdict)
                )));
            }
            other => warnings.push(format!(
                "`blob_check` says {} of a blob of {what}: {reason}",
                name(other)
            )),
        }
    }
    warn(&warnings)
}

pub fn newer(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    for version in [bench.blob.meta.format_version.wrapping_add(1), u32::MAX] {
        let meta = Meta {
            format_version: version,
            ..bench.blob.meta.clone()
        };
        let what = format!("version {version} of the form");
        if check(&bench, &what, &meta)?.0 == BlobVerdict::OPTIMAL {
            return Err(fail(format!(
                "`blob_check` says OPTIMAL of {what}; its own is {}",
                bench.blob.meta.format_version
            )));
        }
    }
    Ok(())
}

pub fn driver(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let own = &bench.blob.meta;
    if own.driver_min.is_empty() && own.driver_max.is_empty() {
        return Err(Failure::skip("it states no range of drivers"));
    }
    let most = "99999999.99999.99999".to_string();
    let least = "0.0.0".to_string();
    for (what, min, max) in [
        ("drivers that do not exist yet", most.clone(), most),
        ("drivers that nobody has any more", least.clone(), least),
    ] {
        let meta = Meta {
            driver_min: min,
            driver_max: max,
            ..own.clone()
        };
        if check(&bench, what, &meta)?.0 == BlobVerdict::OPTIMAL {
            return Err(fail(format!("`blob_check` says OPTIMAL of a blob for {what}")));
        }
    }
    Ok(())
}

pub fn target(trial: &mut Trial<'_>) -> Outcome {
    let targets = trial
        .subject
        .manifest
        .as_ref()
        .map_or(0, |(_, manifest)| manifest.targets.len());
    if targets == 0 {
        return Err(Failure::skip("its manifest names no targets"));
    }
    let bench = Bench::open(trial)?;
    let meta = Meta {
        target: "x-delegraph-kit".to_string(),
        ..bench.blob.meta.clone()
    };
    match check(&bench, "a blob for another target", &meta)?.0 {
        BlobVerdict::OPTIMAL => {
            warn(&["`blob_check` says OPTIMAL of a blob for a target that it does not have".to_string()])
        }
        _ => Ok(()),
    }
}

pub fn same(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let own = &bench.blob.meta;
    for (what, meta) in [
        ("its own blob", own.clone()),
        (
            "a blob of an older version of the delegate",
            Meta {
                delegate_version: "0.0.1".into(),
                ..own.clone()
            },
        ),
        (
            "a blob of a newer version of the delegate",
            Meta {
                delegate_version: "999.0.0".into(),
                ..own.clone()
            },
        ),
        (
            "a blob of another precision",
            Meta {
                precision: "int8".into(),
                ..own.clone()
            },
        ),
        (
            "a blob of another graph",
            Meta {
                graph_hash: [9; 32],
                ..own.clone()
            },
        ),
        (
            "a blob of a later minor of the ABI",
            Meta {
                abi_minor: 99,
                ..own.clone()
            },
        ),
        (
            "a blob of other options",
            Meta {
                options_hash: [3; 32],
                ..own.clone()
            },
        ),
    ] {
        let first = check(&bench, what, &meta)?;
        if check(&bench, what, &meta)? != first {
            return Err(fail(format!(
                "{what}: `blob_check` says something else the second time"
            )));
        }
    }
    Ok(())
}
