//! `delegraph conform report`: the views of a run, made again, and the check of a folder that was handed in.

use crate::args::{Global, ReportArgs};
use crate::output::{Output, Tint, write_atomically};
use delegraph_report::check::{About, Checked, Question, check, verdicts};
use delegraph_report::statement::{STATEMENT, template};
use delegraph_report::{ReportError, Truth, VIEWS, write_views_with};
use delegraph_runner::run_info::ListId;
use serde_json::json;
use std::path::Path;

/// Runs the command.
///
/// # Errors
/// The folder holds no run, or a view cannot be written.
pub fn run(args: &ReportArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    if args.check {
        return checked(args, global, output);
    }
    if args.init_statement {
        return init_statement(&args.folder, output);
    }
    let report = write_views_with(&args.folder, &delegraph_kit::lists::members).map_err(error)?;
    let truth = Truth::read(&args.folder).map_err(error)?;
    for line in verdicts(&truth) {
        output.data(line);
    }
    output.talk(format!("{}: {}", args.folder.display(), VIEWS.join(" ")));
    output.json(&serde_json::to_value(&report)?)?;
    Ok(0)
}

/// A file that is malformed is bad input; one that cannot be written is wrong use.
pub(super) fn error(error: ReportError) -> anyhow::Error {
    match error {
        ReportError::Write { .. } => crate::usage(error.to_string()),
        error => crate::bad_input(error.to_string()),
    }
}

/// The lists that this program holds, by name: hash and ids.
pub(super) fn kit_list(wanted: &ListId) -> Option<(String, Vec<String>)> {
    let lists = delegraph_kit::lists::all().ok()?;
    let list = lists.into_iter().find(|list| list.entry.name == wanted.name)?;
    Some((list.entry.sha256, list.cases))
}

/// What is asked of a folder.
pub(super) fn question<'a>(folder: &'a Path, library: Option<&'a Path>) -> Question<'a> {
    Question {
        folder,
        library,
        list: &kit_list,
        matches: delegraph_config::glob_match,
    }
}

fn checked(args: &ReportArgs, _global: &Global, output: &Output) -> anyhow::Result<u8> {
    if !args.folder.is_dir() {
        return Err(crate::bad_input(format!("`{}` is no folder", args.folder.display())));
    }
    let result = check(question(&args.folder, args.library.as_deref()));
    for line in &result.good {
        output.data(format!("{} {line}", output.tint(Tint::Green, "ok     ")));
    }
    for finding in &result.findings {
        let (tint, word) = match finding.about {
            About::Integrity => (Tint::Red, "wrong  "),
            About::Submission => (Tint::Yellow, "missing"),
        };
        output.data(format!("{} {}", output.tint(tint, word), finding.text));
    }
    output.data(closing(&result));
    let verdicts = result
        .truth
        .as_ref()
        .filter(|_| result.is_sound())
        .map(verdicts)
        .unwrap_or_default();
    for line in &verdicts {
        output.data(line);
    }
    let exit_code = u8::from(!result.is_submission());
    let findings = result.findings.iter().map(|finding| {
        let about = match finding.about {
            About::Integrity => "integrity",
            About::Submission => "submission",
        };
        json!({ "about": about, "text": finding.text })
    });
    output.json(&json!({
        "schema": "delegraph.conform-check/1",
        "exit_code": exit_code,
        "sound": result.is_sound(),
        "submission": result.is_submission(),
        "findings": findings.collect::<Vec<_>>(),
        "good": result.good,
        "verdicts": verdicts,
    }))?;
    Ok(exit_code)
}

fn closing(result: &Checked) -> String {
    let count = result.findings.len();
    match (result.is_sound(), result.is_submission()) {
        (_, true) => "the folder is complete and its files belong together".to_string(),
        (true, false) => format!("the report is sound; as a submission it lacks {count} things"),
        (false, _) => format!("the report cannot be counted: {count} findings"),
    }
}

fn init_statement(folder: &Path, output: &Output) -> anyhow::Result<u8> {
    let truth = Truth::read(folder).map_err(error)?;
    let path = folder.join(STATEMENT);
    if path.exists() {
        return Err(crate::usage(format!(
            "`{}` is there already: it is not written over",
            path.display()
        )));
    }
    write_atomically(&path, template(&truth).as_bytes())?;
    output.data(format!("`{}`: fill in what stands behind the colons", path.display()));
    Ok(0)
}
