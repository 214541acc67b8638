//! `delegraph conform index`: one page of many reports.

use crate::args::{Global, IndexArgs};
use crate::output::{Output, write_atomically};
use delegraph_report::index::{Gather, gather, page};
use std::path::{Component, Path, PathBuf};

/// Runs the command. The answer is no where a folder did not pass the check, or where there is no report at all.
///
/// # Errors
/// The folder cannot be looked through, or the page cannot be written.
pub fn run(args: &IndexArgs, _global: &Global, output: &Output) -> anyhow::Result<u8> {
    if !args.folder.is_dir() {
        return Err(crate::bad_input(format!("`{}` is no folder", args.folder.display())));
    }
    let file = args.output.clone().unwrap_or_else(|| args.folder.join("index.html"));
    let index = gather(Gather {
        folder: &args.folder,
        question: super::report::question(&args.folder, None),
    })
    .map_err(super::report::error)?;
    let base = base(&file, &args.folder)?;
    let object = serde_json::to_value(&index)?;
    write_atomically(&file, page(&index, &base).as_bytes())?;
    let data = file.with_file_name("index.json");
    write_atomically(&data, format!("{object:#}\n").as_bytes())?;
    for folder in &index.unsound {
        let first = folder.findings.first().map_or("", String::as_str);
        output.data(format!("not counted: {}: {first}", folder.folder));
    }
    for step in &index.steps {
        let (before, after) = (&step.before.0, &step.after.0);
        output.data(format!(
            "worse: {} {before} -> {after} on {}: {} regressions",
            step.delegate, step.device, step.count
        ));
    }
    let (reports, unsound) = (index.reports.len(), index.unsound.len());
    output.data(format!(
        "{reports} reports, {unsound} folders not counted: {}",
        file.display()
    ));
    output.json(&object)?;
    Ok(u8::from(unsound > 0 || reports == 0))
}

/// The way from the folder of a page to the folder of the reports: empty, or a path that ends in `/`.
fn base(file: &Path, folder: &Path) -> anyhow::Result<String> {
    let parent = file
        .parent()
        .filter(|path| !path.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let real = |path: &Path| -> anyhow::Result<PathBuf> {
        path.canonicalize()
            .map_err(|error| crate::usage(format!("`{}`: {error}", path.display())))
    };
    let (from, to) = (real(parent)?, real(folder)?);
    let (from, to): (Vec<Component<'_>>, Vec<Component<'_>>) = (from.components().collect(), to.components().collect());
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let mut way = "../".repeat(from.len() - common);
    for part in &to[common..] {
        way.push_str(&delegraph_report::html::percent(&part.as_os_str().to_string_lossy()));
        way.push('/');
    }
    Ok(way)
}
