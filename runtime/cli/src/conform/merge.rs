//! `delegraph conform merge`: the parts of a run joined.

use super::summary;
use crate::args::MergeArgs;
use crate::output::Output;
use delegraph_report::check::WAIVERS;
use delegraph_runner::folder;
use delegraph_runner::merge::merge;
use std::time::Instant;

/// Runs the command. A run that lacks cases is not finished: exit code 1.
///
/// # Errors
/// A folder cannot be read (3), the parts are not of one run (3), or the folder to write cannot be (2).
pub fn run(args: &MergeArgs, output: &Output) -> anyhow::Result<u8> {
    let started = Instant::now();
    let mut parts = Vec::new();
    for path in &args.folders {
        parts.push((path.clone(), folder::read(path).map_err(crate::bad_input)?));
    }
    let merged = merge(&parts).map_err(crate::bad_input)?;
    merged.write(&args.output).map_err(crate::usage)?;
    // All parts used the same waivers: the merge was refused else.
    let waivers = args
        .folders
        .iter()
        .map(|part| part.join(WAIVERS))
        .find(|path| path.is_file());
    if let Some(path) = waivers {
        crate::output::write_atomically(&args.output.join(WAIVERS), &std::fs::read(path)?)?;
    }
    let report = delegraph_report::write_views_with(&args.output, &delegraph_kit::lists::members)?;
    summary::table(&report, output);
    for lack in &merged.lacks {
        output.data(format!("not finished: {lack}"));
    }
    let mut object = serde_json::to_value(&report)?;
    object["lacks"] = merged.lacks.clone().into();
    object["missing"] = merged.missing.clone().into();
    output.json(&object)?;
    summary::closing(
        &report,
        started.elapsed(),
        &format!("{} folders joined in {}", parts.len(), args.output.display()),
        Some(&args.output),
        output,
    );
    Ok(report.exit_code)
}
