//! Verifies a folder before anybody reads it: that its files belong together, that nothing was left out or changed, and that what a
//! submission needs is there.
//!
//! Nothing here runs the library. A folder that passes is consistent; that its run was honest is the word of whoever signs the statement
//! or the certificate.

mod certificate;
mod waivers;

pub use waivers::WAIVERS;

use crate::standing::standings;
use crate::statement::{self, STATEMENT};
use crate::truth::{FILE_LIMIT, Truth, read_bytes, read_text, sha256_of_file};
use crate::views::views;
use delegraph_runner::folder::{PLAN, bundle_name, plan_sha256};
use delegraph_runner::run_info::{LibraryId, ListId};
use delegraph_runner::shard::share;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// More findings of one kind are only counted.
const MOST: usize = 10;

/// What is asked.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The folder of a run.
    pub folder: &'a Path,
    /// The library; absent: the one in the folder, if it is there.
    pub library: Option<&'a Path>,
    /// The ids of a list that this kit has, with the list's hash; `None` where it has no list of this name.
    pub list: &'a dyn Fn(&ListId) -> Option<(String, Vec<String>)>,
    /// Whether a glob of a waiver matches a text.
    pub matches: fn(&str, &str) -> bool,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// The files do not belong together, or something is left out: the report says nothing.
    Integrity,
    /// Something that a submission needs is missing: the report may still be right.
    Submission,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub about: About,
    /// One line, which begins with the file.
    pub text: String,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checked {
    /// The run, where it can be read.
    pub truth: Option<Truth>,
    /// What is as it should be, one line each; what could not be compared is said here too.
    pub good: Vec<String>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Checked {
    /// Whether the files belong together and the run is whole, so that the report can be counted.
    pub fn is_sound(&self) -> bool {
        self.truth.is_some() && self.findings.iter().all(|finding| finding.about == About::Submission)
    }

    /// Whether nothing was found at all.
    pub fn is_submission(&self) -> bool {
        self.truth.is_some() && self.findings.is_empty()
    }

    fn wrong(&mut self, about: About, text: impl Into<String>) {
        self.findings.push(Finding {
            about,
            text: text.into(),
        });
    }

    fn broken(&mut self, text: impl Into<String>) {
        self.wrong(About::Integrity, text);
    }

    fn good(&mut self, text: impl Into<String>) {
        self.good.push(text.into());
    }

    /// Findings of one kind, the rest of them counted; `good` where there is none.
    fn all(&mut self, about: About, findings: Vec<String>, good: impl Into<String>) {
        let rest = findings.len().saturating_sub(MOST);
        if findings.is_empty() {
            self.good(good);
        }
        for finding in findings.into_iter().take(MOST) {
            self.wrong(about, finding);
        }
        if rest > 0 {
            self.wrong(about, format!("and {rest} more of the kind"));
        }
    }
}

/// Checks a folder. A file that cannot be read is a finding.
pub fn check(question: Question<'_>) -> Checked {
    let mut checked = Checked::default();
    let folder = question.folder;
    let truth = match Truth::read(folder) {
        Ok(truth) => truth,
        Err(error) => {
            checked.broken(error.to_string());
            return checked;
        }
    };
    ends(&mut checked, &truth);
    made_views(&mut checked, folder, &truth);
    plan(&mut checked, question, &truth);
    if let Some(library) = &truth.run.library {
        files(&mut checked, question, library);
        records(&mut checked, &truth, library);
    }
    waivers::check(&mut checked, question, &truth);
    bundles(&mut checked, folder, &truth);
    certificate::check(&mut checked, question, &truth);
    written_statement(&mut checked, folder, &truth);
    checked.truth = Some(truth);
    checked
}

fn ends(checked: &mut Checked, truth: &Truth) {
    match &truth.run.finished {
        Some(end) => checked.good(format!("run.json: the run ended at {end}")),
        None => checked.broken("run.json: the run has not ended: run it again to resume"),
    }
    if let Some((index, count)) = truth.run.shard {
        checked.broken(format!("run.json: this is shard {index} of {count}: merge them first"));
    }
}

fn made_views(checked: &mut Checked, folder: &Path, truth: &Truth) {
    let views = match views(truth) {
        Ok(views) => views,
        Err(error) => return checked.broken(error.to_string()),
    };
    let wrong = views.iter().filter_map(|(name, text)| {
        let path = folder.join(name);
        match read_bytes(&path, FILE_LIMIT) {
            Ok(bytes) if bytes == text.as_bytes() => None,
            Ok(_) => Some(format!(
                "{name}: it is not what cases.jsonl and run.json give; `delegraph conform report` makes it again"
            )),
            Err(error) => Some(format!("{name}: {error}")),
        }
    });
    let wrong = wrong.collect();
    checked.all(About::Integrity, wrong, "every view is what the log gives");
}

/// `cases.txt` is what `run.json` says, each of its cases has a record, and the lists that were run are in it whole.
fn plan(checked: &mut Checked, question: Question<'_>, truth: &Truth) {
    let run = &truth.run;
    let path = question.folder.join(PLAN);
    if !path.is_file() && run.suite != "run" {
        return checked.good(format!("{PLAN}: not written by `conform {}`", run.suite));
    }
    let ids: Vec<String> = match read_text(&path, FILE_LIMIT) {
        Ok(text) => text.lines().map(str::to_string).collect(),
        Err(error) => return checked.broken(error.to_string()),
    };
    if plan_sha256(&ids) != run.cases_sha256 {
        checked.broken(format!("{PLAN}: its hash is not that in run.json: it was changed"));
    }
    if ids.len() as u64 != run.cases {
        checked.broken(format!(
            "{PLAN}: it has {} cases, and run.json says {}",
            ids.len(),
            run.cases
        ));
    }
    let mine = run.shard.map_or_else(|| ids.clone(), |shard| share(&ids, shard));
    let wanted: BTreeSet<&str> = mine.iter().map(String::as_str).collect();
    let have: BTreeSet<&str> = truth.cases.iter().map(|case| case.id.as_str()).collect();
    let missing = wanted
        .difference(&have)
        .map(|id| format!("cases.jsonl: the case `{id}` has no record"));
    let strange = have
        .difference(&wanted)
        .map(|id| format!("cases.jsonl: `{id}` is no case of this run"));
    let wrong = missing.chain(strange).collect();
    checked.all(
        About::Integrity,
        wrong,
        format!("cases.jsonl: all {} cases of the run have a record", wanted.len()),
    );
    if run.suite == "run" && run.lists.is_empty() {
        checked.wrong(About::Submission, "run.json: no list was run whole");
    }
    let planned: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    for list in &run.lists {
        match (question.list)(list) {
            None => checked.broken(format!("run.json: the list `{}` is none that this kit has", list.name)),
            Some((sha256, _)) if sha256 != list.sha256 => checked.broken(format!(
                "run.json: the list `{}` was another one: its hash is {}, and this kit's is {sha256}",
                list.name, list.sha256
            )),
            Some((_, ids)) => {
                let missing = ids.iter().filter(|id| !planned.contains(id.as_str()));
                let missing: Vec<String> = missing
                    .map(|id| format!("{PLAN}: the case `{id}` of the list `{}` is missing", list.name))
                    .collect();
                checked.all(
                    About::Integrity,
                    missing,
                    format!("the list `{}` was run whole: {} cases", list.name, ids.len()),
                );
            }
        }
    }
}

/// The library, what it needs and its manifest have the hashes that the run wrote down.
fn files(checked: &mut Checked, question: Question<'_>, library: &LibraryId) {
    let within = |file: &str| -> Option<PathBuf> {
        // A name with a folder in it would be read from elsewhere.
        let path = question.folder.join(Path::new(file).file_name()?);
        path.is_file().then_some(path)
    };
    let mut compare = |what: &str, path: Option<PathBuf>, sha256: &str| match path {
        None => checked.good(format!("{what}: not in the folder, so that its hash was not compared")),
        Some(path) => match sha256_of_file(&path) {
            Ok(hash) if hash == sha256 => checked.good(format!("{what}: it is the one that was run")),
            Ok(hash) => checked.broken(format!(
                "{what}: it is not the one that was run: its hash is {hash}, and run.json says {sha256}"
            )),
            Err(error) => checked.broken(error.to_string()),
        },
    };
    let path = question
        .library
        .map(Path::to_path_buf)
        .or_else(|| within(&library.file));
    let beside = |file: &str| {
        let path = question
            .library
            .and_then(Path::parent)
            .map(|folder| folder.join(Path::new(file).file_name().unwrap_or_default()));
        within(file).or(path.filter(|path| path.is_file()))
    };
    compare(&library.file, path, &library.sha256);
    for (file, sha256) in &library.dependents {
        compare(file, beside(file), sha256);
    }
    let manifests = match manifests(question.folder) {
        Ok(manifests) => manifests,
        Err(error) => return checked.broken(format!("cannot list `{}`: {error}", question.folder.display())),
    };
    if library.manifest_sha256.is_empty() {
        return checked.wrong(
            About::Submission,
            "the library was run without a manifest, so that it claims nothing",
        );
    }
    if manifests.is_empty() {
        return checked.wrong(About::Submission, "the manifest is missing: a file *.delegate.toml");
    }
    let same = |path: &&PathBuf| sha256_of_file(path).is_ok_and(|hash| hash == library.manifest_sha256);
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match manifests.iter().find(same) {
        Some(path) => checked.good(format!("{}: it is the manifest that was used", name(path))),
        None => checked.broken(format!(
            "{}: it is not the manifest that was used: run.json says {}",
            manifests.iter().map(name).collect::<Vec<_>>().join(", "),
            library.manifest_sha256
        )),
    }
}

fn manifests(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(100_000) {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".delegate.toml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Every record is of the delegate that the run was of.
fn records(checked: &mut Checked, truth: &Truth, library: &LibraryId) {
    let wrong = truth.cases.iter().filter_map(|case| {
        let version = &case.delegate_version;
        let other = !version.is_empty() && *version != library.version;
        other.then(|| {
            format!(
                "cases.jsonl: `{}` is of version {version}, and the run of {}",
                case.id, library.version
            )
        })
    });
    let wrong = wrong.collect();
    checked.all(
        About::Integrity,
        wrong,
        "cases.jsonl: every record is of this library's version",
    );
}

/// Evidence of each failure is there.
fn bundles(checked: &mut Checked, folder: &Path, truth: &Truth) {
    let named = truth.cases.iter().filter(|case| !case.bundle.is_empty());
    let count = named.clone().count();
    let wrong = named.filter_map(|case| {
        let path = format!("bundles/{}", bundle_name(&case.id));
        match (
            case.bundle.trim_end_matches('/') == path,
            folder.join(&path).join("repro.sh").is_file(),
        ) {
            (false, _) => Some(format!(
                "cases.jsonl: the bundle of `{}` is `{}`, not `{path}`",
                case.id,
                crate::text::cut(&case.bundle, 100)
            )),
            (true, false) => Some(format!("{path}: the evidence of a failure is missing: no repro.sh")),
            (true, true) => None,
        }
    });
    let wrong = wrong.collect();
    checked.all(
        About::Submission,
        wrong,
        format!("bundles: the evidence of {count} cases is there"),
    );
}

fn written_statement(checked: &mut Checked, folder: &Path, truth: &Truth) {
    let hint = "`delegraph conform report --init-statement` writes one to fill in";
    match read_text(&folder.join(STATEMENT), 1 << 20) {
        Err(_) => checked.wrong(About::Submission, format!("{STATEMENT}: it is missing; {hint}")),
        Ok(text) => {
            let wrong = statement::problems(&text, truth)
                .into_iter()
                .map(|problem| format!("{STATEMENT}: {problem}"));
            let wrong = wrong.collect();
            checked.all(About::Submission, wrong, format!("{STATEMENT}: it is filled in"));
        }
    }
}

/// The verdict lines of a checked folder, one a delegate.
pub fn verdicts(truth: &Truth) -> Vec<String> {
    let line = |standing: crate::standing::Standing| {
        format!("{} {}: {}", standing.delegate, standing.version, standing.sentence)
    };
    standings(truth).into_iter().map(line).collect()
}
