//! Many reports on one page: which library, on which device and driver, judged by which kit, and what became worse from one version to the next.
//!
//! A folder that does not pass the check is listed with what is wrong and counted nowhere.

mod page;

use crate::check::{About, Checked, Question, check};
use crate::diff::{Change, Side, difference};
use crate::standing::{Standing, standings};
use crate::truth::{ReportError, Truth};
use delegraph_runner::folder::is_run;
use delegraph_runner::run_info::DeviceId;
use serde::Serialize;
use std::cmp::Ordering;
use std::path::{Component, Path, PathBuf};

pub use page::page;

/// How deep below the folder reports are looked for, and how many folders are looked at.
const DEPTH: usize = 8;
const FOLDERS: usize = 100_000;
/// More regressions of one step than these are only counted.
const REGRESSIONS: usize = 50;

/// Where an index finds its files.
#[derive(Clone, Copy)]
pub struct Gather<'a> {
    /// Below this folder.
    pub folder: &'a Path,
    /// As for [`check`]; its `folder` and `library` are not used.
    pub question: Question<'a>,
}

/// A report of an index.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// The folder, relative to the one that was looked through, with `/`.
    pub folder: String,
    /// Name of the delegate, or of the suite.
    pub delegate: String,
    /// Who makes it.
    pub vendor: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the library.
    pub library_sha256: String,
    /// The device.
    pub device: String,
    /// Its driver.
    pub driver: String,
    /// The machine.
    pub host: String,
    /// Version of the kit.
    pub kit: String,
    /// Lists that were run whole.
    pub lists: Vec<String>,
    /// When it was started.
    pub started: String,
    /// `yes`, `conditions`, `no`, `open`; one word, of the worst delegate.
    pub answer: String,
    /// The sentence of the report.
    pub sentence: String,
    /// Claimed cases that passed, and all claimed cases.
    pub claimed: (u64, u64),
    /// Failures of any kind.
    pub failures: u64,
    /// All cases.
    pub cases: u64,
    /// What a submission lacks; the report itself is sound.
    pub lacks: Vec<String>,
    /// Suite and mode: only runs of the same are compared.
    #[serde(skip)]
    mode: String,
}

/// A folder that did not pass the check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unsound {
    /// The folder, as in [`Entry::folder`].
    pub folder: String,
    /// What is wrong, one line each.
    pub findings: Vec<String>,
}

/// What became worse from one version of a library to the next on the same device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// The delegate.
    pub delegate: String,
    /// The device.
    pub device: String,
    /// Version and folder before.
    pub before: (String, String),
    /// Version and folder after.
    pub after: (String, String),
    /// Whether anything else changed: `driver`, `kit`, `lists`.
    pub also: Vec<String>,
    /// How many regressions there are.
    pub count: u64,
    /// The worst of them.
    pub regressions: Vec<Change>,
}

/// An index. As JSON it is `index.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Index {
    /// `delegraph.conform-index/1`
    pub schema: String,
    /// By delegate, version, device, driver, kit and start.
    pub reports: Vec<Entry>,
    /// Folders that did not pass the check.
    pub unsound: Vec<Unsound>,
    /// The worst step first.
    pub steps: Vec<Step>,
}

/// Finds every report below a folder, checks each, and compares successive versions. At most three runs are in memory at a time.
///
/// # Errors
/// The folder cannot be listed.
pub fn gather(what: Gather<'_>) -> Result<Index, ReportError> {
    let mut reports = Vec::new();
    let mut unsound = Vec::new();
    for folder in reports_below(what.folder)? {
        let checked = check(Question {
            folder: &folder,
            library: None,
            ..what.question
        });
        let name = relative(what.folder, &folder);
        match (checked.is_sound(), &checked.truth) {
            (true, Some(truth)) => reports.push(entry(name, truth, &checked)),
            _ => unsound.push(Unsound {
                folder: name,
                findings: checked
                    .findings
                    .into_iter()
                    .filter(|finding| finding.about == About::Integrity)
                    .map(|finding| finding.text)
                    .collect(),
            }),
        }
    }
    reports.sort_by(order);
    let steps = steps(what.folder, &reports)?;
    Ok(Index {
        schema: "delegraph.conform-index/1".to_string(),
        reports,
        unsound,
        steps,
    })
}

/// Folders of runs, in order. Links to folders are not followed, and nothing inside a run is looked at.
fn reports_below(folder: &Path) -> Result<Vec<PathBuf>, ReportError> {
    let mut found = Vec::new();
    let mut open = vec![(folder.to_path_buf(), 0)];
    let mut seen = 0;
    while let Some((folder, depth)) = open.pop() {
        let list = |source| ReportError::Read {
            path: folder.clone(),
            source,
        };
        seen += 1;
        if seen > FOLDERS {
            return Err(ReportError::File {
                path: folder,
                what: format!("there are more than {FOLDERS} folders to look through; name one further down"),
            });
        }
        if is_run(&folder) {
            found.push(folder);
            continue;
        }
        for entry in std::fs::read_dir(&folder).map_err(list)? {
            let entry = entry.map_err(list)?;
            if depth < DEPTH && entry.file_type().map_err(list)?.is_dir() {
                open.push((entry.path(), depth + 1));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A path as seen from a folder, with `/` between its parts; as it is, where it is not below.
pub fn relative(from: &Path, path: &Path) -> String {
    let path = path.strip_prefix(from).unwrap_or(path);
    let parts: Vec<String> = path
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    match parts.is_empty() {
        true => ".".to_string(),
        false => parts.join("/").replace("//", "/"),
    }
}

fn entry(folder: String, truth: &Truth, checked: &Checked) -> Entry {
    let run = &truth.run;
    let library = run.library.clone().unwrap_or_default();
    let standings = standings(truth);
    let worst = ["no", "open", "conditions", "yes"];
    let standing = standings
        .iter()
        .min_by_key(|standing| worst.iter().position(|word| *word == standing.answer.name()));
    let device = device(truth);
    Entry {
        folder,
        delegate: match run.library {
            Some(_) => library.name,
            None => standing.map(|standing| standing.delegate.clone()).unwrap_or_default(),
        },
        vendor: library.vendor,
        version: library.version,
        library_sha256: library.sha256,
        device: format!("{} {}", device.name, device.arch).trim().to_string(),
        driver: device.driver,
        host: run.host.clone(),
        kit: run.kit.version.clone(),
        lists: run.lists.iter().map(|list| list.name.clone()).collect(),
        started: run.started.clone(),
        answer: standing.map_or("open", |standing| standing.answer.name()).to_string(),
        sentence: standing.map(|standing| standing.sentence.clone()).unwrap_or_default(),
        claimed: standing.map_or((0, 0), |standing| (standing.claimed.passed, standing.claimed.total)),
        failures: standings.iter().map(Standing::failures).sum(),
        cases: truth.cases.len() as u64,
        lacks: checked.findings.iter().map(|finding| finding.text.clone()).collect(),
        mode: format!("{} {}", run.suite, run.mode),
    }
}

fn device(truth: &Truth) -> DeviceId {
    let run = &truth.run;
    let chosen = run
        .devices
        .iter()
        .find(|device| run.device.is_none_or(|id| id == device.id));
    chosen.cloned().unwrap_or_default()
}

fn order(a: &Entry, b: &Entry) -> Ordering {
    let place = |entry: &Entry| (entry.delegate.clone(), entry.vendor.clone());
    let rest = |entry: &Entry| (entry.device.clone(), entry.host.clone(), entry.driver.clone());
    place(a)
        .cmp(&place(b))
        .then_with(|| rest(a).cmp(&rest(b)))
        .then_with(|| by_version(&a.version, &b.version))
        .then_with(|| by_version(&a.kit, &b.kit))
        .then_with(|| a.started.cmp(&b.started))
        .then_with(|| a.folder.cmp(&b.folder))
}

/// `2.9` before `2.10`, `2.10-rc1` before `2.10`.
pub(crate) fn by_version(a: &str, b: &str) -> Ordering {
    let (a_main, a_pre) = a.split_once('-').unwrap_or((a, ""));
    let (b_main, b_pre) = b.split_once('-').unwrap_or((b, ""));
    natural(a_main, b_main).then_with(|| match (a_pre, b_pre) {
        ("", "") => Ordering::Equal,
        ("", _) => Ordering::Greater,
        (_, "") => Ordering::Less,
        (a, b) => natural(a, b),
    })
}

/// Runs of digits by their value, everything else by its characters.
fn natural(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| -> Vec<String> {
        let mut parts: Vec<String> = Vec::new();
        for c in text.chars() {
            match parts.last_mut() {
                Some(part) if part.ends_with(|last: char| last.is_ascii_digit() == c.is_ascii_digit()) => part.push(c),
                _ => parts.push(c.to_string()),
            }
        }
        parts
    };
    let one = |a: &String, b: &String| match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(x), Ok(y)) => x.cmp(&y),
        _ => a.cmp(b),
    };
    let (a, b) = (parts(a), parts(b));
    let first = a.iter().zip(&b).map(|(a, b)| one(a, b)).find(|order| order.is_ne());
    first.unwrap_or_else(|| a.len().cmp(&b.len()))
}

/// Compares the last report of each version with the last of the version before, on the same device and host.
fn steps(root: &Path, reports: &[Entry]) -> Result<Vec<Step>, ReportError> {
    let place = |entry: &Entry| {
        let Entry {
            delegate,
            vendor,
            device,
            host,
            mode,
            ..
        } = entry;
        (
            delegate.clone(),
            vendor.clone(),
            device.clone(),
            host.clone(),
            mode.clone(),
        )
    };
    let mut sorted: Vec<&Entry> = reports.iter().collect();
    sorted.sort_by(|a, b| {
        let version = || {
            by_version(&a.version, &b.version)
                .then_with(|| a.started.cmp(&b.started))
                .then_with(|| a.folder.cmp(&b.folder))
        };
        place(a).cmp(&place(b)).then_with(version)
    });
    let mut steps = Vec::new();
    for same in sorted.chunk_by(|a, b| place(a) == place(b)) {
        let last: Vec<&Entry> = same
            .chunk_by(|a, b| a.version == b.version)
            .filter_map(|version| version.last().copied())
            .collect();
        let mut before: Option<(&Entry, Side)> = None;
        // One version alone is compared with nothing.
        for entry in last.iter().filter(|_| last.len() > 1) {
            let side = Side::read(&root.join(&entry.folder))?;
            if let Some((old, old_side)) = &before {
                steps.extend(step(old, old_side, entry, &side));
            }
            before = Some((*entry, side));
        }
    }
    steps.sort_by(|a: &Step, b| {
        let worst = |step: &Step| step.regressions.first().and_then(|change| change.rank);
        worst(a)
            .cmp(&worst(b))
            .then(b.count.cmp(&a.count))
            .then_with(|| (&a.delegate, &a.after).cmp(&(&b.delegate, &b.after)))
    });
    Ok(steps)
}

fn step(old: &Entry, old_side: &Side, new: &Entry, new_side: &Side) -> Option<Step> {
    let mut regressions = difference(old_side, new_side).regressions;
    if regressions.is_empty() {
        return None;
    }
    let count = regressions.len() as u64;
    regressions.truncate(REGRESSIONS);
    let also = [
        ("driver", old.driver != new.driver),
        ("kit", old.kit != new.kit),
        ("lists", old.lists != new.lists),
    ];
    Some(Step {
        delegate: new.delegate.clone(),
        device: new.device.clone(),
        before: (old.version.clone(), old.folder.clone()),
        after: (new.version.clone(), new.folder.clone()),
        also: also
            .into_iter()
            .filter(|(_, changed)| *changed)
            .map(|(what, _)| what.to_string())
            .collect(),
        count,
        regressions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_an_order() {
        let sorted = [
            "0.9", "1.0-rc1", "1.0-rc2", "1.0-rc10", "1.0", "1.0.1", "1.2", "1.10", "r9", "r10",
        ];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(by_version(a, b), i.cmp(&j), "{a} {b}");
            }
        }
    }

    #[test]
    fn paths_are_seen_from_the_folder() {
        assert_eq!(relative(Path::new("/a/b"), Path::new("/a/b/c/d")), "c/d");
        assert_eq!(relative(Path::new("/a/b"), Path::new("/a/b")), ".");
        assert_eq!(relative(Path::new("x"), Path::new("x/y z")), "y z");
    }
}
