//! The folder of a run: `run.json` says what is run, `cases.txt` which cases, `cases.jsonl` what came of each. Nothing else is the truth.
//!
//! `run.json` and `cases.txt` are written before the first case, and a record is appended when its case ends, so that whatever ends the
//! process leaves a folder that [`Folder::begin`] goes on with. At the end the records are put in the order of `cases.txt`.

use crate::record::CaseRecord;
use crate::run_info::RunInfo;
use crate::shard::share;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What was run.
pub const RUN: &str = "run.json";
/// The ids of all cases of the whole run, one a line, in the order of reports.
pub const PLAN: &str = "cases.txt";
/// The records, one a line.
pub const CASES: &str = "cases.jsonl";
/// Evidence of failures, a folder a case.
pub const BUNDLES: &str = "bundles";

/// Most bytes of a file of the folder that are read.
const MOST: u64 = 1 << 30;

/// What a folder holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// What was run.
    pub info: RunInfo,
    /// The ids of all cases of the whole run.
    pub plan: Vec<String>,
    /// The records that there are, in the order of the file.
    pub records: Vec<CaseRecord>,
    /// Bytes of the records: what is behind them was cut in the middle.
    bytes: u64,
}

impl Kept {
    /// The cases that this folder's run has to run: all, or those of its shard.
    pub fn share(&self) -> Vec<String> {
        match self.info.shard {
            Some(shard) => share(&self.plan, shard),
            None => self.plan.clone(),
        }
    }
}

/// The text of `cases.txt`.
pub fn plan_text(ids: &[String]) -> String {
    ids.iter().map(|id| format!("{id}\n")).collect()
}

/// The hash that [`RunInfo::cases_sha256`] is.
pub fn plan_sha256(ids: &[String]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(plan_text(ids)) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Name of the bundle of a case: the id without `/`.
pub fn bundle_name(id: &str) -> String {
    id.replace('/', "__")
}

/// Whether a folder holds a run.
pub fn is_run(folder: &Path) -> bool {
    folder.join(RUN).is_file()
}

/// Reads the folder of a run. A last line of records that was cut in the middle is dropped.
///
/// # Errors
/// One sentence with the file: it is missing or malformed, or the files do not belong together.
pub fn read(folder: &Path) -> Result<Kept, String> {
    let (run, plan, cases) = (folder.join(RUN), folder.join(PLAN), folder.join(CASES));
    let info: RunInfo = serde_json::from_str(&text(&run)?).map_err(|error| format!("`{}`: {error}", run.display()))?;
    if info.schema != RunInfo::SCHEMA {
        return Err(format!(
            "`{}`: the schema is `{}`, and this is a reader of `{}`",
            run.display(),
            info.schema,
            RunInfo::SCHEMA
        ));
    }
    let ids: Vec<String> = text(&plan)?.lines().map(str::to_string).collect();
    if plan_sha256(&ids) != info.cases_sha256 {
        return Err(format!(
            "`{}` is not what the hash in `{RUN}` says: it was changed",
            plan.display()
        ));
    }
    let lines = match cases.exists() {
        true => text(&cases)?,
        false => String::new(),
    };
    let known: BTreeSet<&String> = ids.iter().collect();
    let (mut records, mut seen, mut bytes) = (Vec::new(), BTreeSet::new(), 0);
    for (at, line) in lines.split_inclusive('\n').enumerate() {
        let wrong = |problem: String| format!("`{}`, line {}: {problem}", cases.display(), at + 1);
        if !line.ends_with('\n') {
            break;
        }
        let record: CaseRecord = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
        if !known.contains(&record.id) {
            return Err(wrong(format!("`{}` is no case of this run", record.id)));
        }
        if !seen.insert(record.id.clone()) {
            return Err(wrong(format!("`{}` is there twice", record.id)));
        }
        bytes += line.len() as u64;
        records.push(record);
    }
    Ok(Kept {
        info,
        plan: ids,
        records,
        bytes,
    })
}

fn text(path: &Path) -> Result<String, String> {
    let wrong = |problem: String| format!("`{}`: {problem}", path.display());
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(MOST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| wrong(error.to_string()))?;
    if bytes.len() as u64 > MOST {
        return Err(wrong("it is larger than 1 GiB".to_string()));
    }
    // A line may be cut in the middle of a character.
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let good = error.utf8_error().valid_up_to();
            let bytes = error.into_bytes();
            match bytes[good..].contains(&b'\n') {
                true => Err(wrong(format!("byte {good} is no UTF-8"))),
                false => Ok(String::from_utf8_lossy(&bytes[..good]).into_owned()),
            }
        }
    }
}

/// A folder that is written to. Only one process can have it at a time.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    info: RunInfo,
    plan: Vec<String>,
    log: File,
}

impl Folder {
    /// Begins a run in a folder, or goes on with the one that is there: gives the records that it has already. `fresh` forgets them.
    ///
    /// # Errors
    /// One sentence: the folder holds a run of something else, another process writes to it, or the disk refuses.
    pub fn begin(
        path: &Path,
        info: RunInfo,
        plan: Vec<String>,
        fresh: bool,
    ) -> Result<(Folder, Vec<CaseRecord>), String> {
        let shown = path.display();
        let failed = |error: std::io::Error| format!("cannot write to `{shown}`: {error}");
        std::fs::create_dir_all(path).map_err(failed)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(path.join(CASES))
            .map_err(failed)?;
        match lock(&log) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(format!("another run is writing to `{shown}`")),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut info = info;
        let mut records = Vec::new();
        if fresh {
            log.set_len(0).map_err(failed)?;
            match std::fs::remove_dir_all(path.join(BUNDLES)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        } else if is_run(path) {
            let kept = read(path)?;
            kept.info
                .same_subject(&info)
                .and_then(|()| match kept.info.shard == info.shard {
                    true => Ok(()),
                    false => Err(format!(
                        "they differ in `shard`: {:?} and {:?}",
                        kept.info.shard, info.shard
                    )),
                })
                .map_err(|problem| {
                    format!(
                        "`{shown}` holds a run of something else: {problem}\n  hint: `--fresh` forgets it, or choose another folder"
                    )
                })?;
            log.set_len(kept.bytes).map_err(failed)?;
            info.started = kept.info.started;
            records = kept.records;
        } else if log.metadata().map_err(failed)?.len() > 0 {
            return Err(format!(
                "`{shown}` has a `{CASES}` and no `{RUN}`\n  hint: `--fresh` forgets it, or choose another folder"
            ));
        }
        info.finished = None;
        replace(&path.join(PLAN), plan_text(&plan).as_bytes()).map_err(failed)?;
        let folder = Folder {
            path: path.to_path_buf(),
            info,
            plan,
            log,
        };
        folder.write_info()?;
        Ok((folder, records))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is run.
    pub fn info(&self) -> &RunInfo {
        &self.info
    }

    /// The bundle of a case, which need not be there.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.path.join(BUNDLES).join(bundle_name(id))
    }

    /// Appends a record.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn append(&mut self, record: &CaseRecord) -> Result<(), String> {
        let mut line = serde_json::to_vec(record).map_err(|error| error.to_string())?;
        line.push(b'\n');
        self.log
            .write_all(&line)
            .and_then(|()| self.log.flush())
            .map_err(|error| self.failed(&error))
    }

    /// Ends the run: puts the records in order, and says when it ended if every case of the run, or of its shard, has one.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(mut self, now: String) -> Result<Kept, String> {
        let kept = read(&self.path)?;
        let have: BTreeSet<&String> = kept.records.iter().map(|record| &record.id).collect();
        if kept.share().iter().all(|id| have.contains(id)) {
            self.info.finished = Some(now);
        }
        let records = in_order(&self.plan, kept.records);
        write_records(&self.path, &records)?;
        self.write_info()?;
        read(&self.path)
    }

    fn write_info(&self) -> Result<(), String> {
        write_info(&self.path, &self.info)
    }

    fn failed(&self, error: &std::io::Error) -> String {
        format!("cannot write to `{}`: {error}", self.path.display())
    }
}

/// Locks the log. A process that is just being started holds every open file of its parent for a moment, so that a lock which was let go
/// may need one to be free.
fn lock(log: &File) -> Result<(), TryLockError> {
    for _ in 0..50 {
        match log.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            other => return other,
        }
    }
    log.try_lock()
}

/// Records in the order of a plan.
pub fn in_order(plan: &[String], mut records: Vec<CaseRecord>) -> Vec<CaseRecord> {
    let places: BTreeMap<&str, usize> = plan.iter().enumerate().map(|(at, id)| (id.as_str(), at)).collect();
    records.sort_by_key(|record| places.get(record.id.as_str()).copied().unwrap_or(usize::MAX));
    records
}

/// Writes a whole run at once.
///
/// # Errors
/// The disk refuses.
pub fn write(folder: &Path, info: &RunInfo, plan: &[String], records: &[CaseRecord]) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot write to `{}`: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(failed)?;
    replace(&folder.join(PLAN), plan_text(plan).as_bytes()).map_err(failed)?;
    write_records(folder, records)?;
    write_info(folder, info)
}

fn write_info(folder: &Path, info: &RunInfo) -> Result<(), String> {
    let path = folder.join(RUN);
    let text = serde_json::to_string_pretty(info).map_err(|error| error.to_string())?;
    replace(&path, format!("{text}\n").as_bytes())
        .map_err(|error| format!("cannot write `{}`: {error}", path.display()))
}

fn write_records(folder: &Path, records: &[CaseRecord]) -> Result<(), String> {
    let path = folder.join(CASES);
    let mut text = Vec::new();
    for record in records {
        serde_json::to_writer(&mut text, record).map_err(|error| error.to_string())?;
        text.push(b'\n');
    }
    replace(&path, &text).map_err(|error| format!("cannot write `{}`: {error}", path.display()))
}

/// Writes a file beside its place and renames it there.
pub fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.partial", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = File::create(&beside).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_data()
    });
    let renamed = written.and_then(|()| std::fs::rename(&beside, path));
    if renamed.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Verdict;

    fn ids(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    fn info(plan: &[String], seed: u64) -> RunInfo {
        RunInfo {
            schema: RunInfo::SCHEMA.to_string(),
            suite: "run".to_string(),
            cases_sha256: plan_sha256(plan),
            cases: plan.len() as u64,
            seed,
            started: "2026-01-01T00:00:00Z".to_string(),
            ..RunInfo::default()
        }
    }

    fn pass(id: &str) -> CaseRecord {
        CaseRecord::new(id, Verdict::Pass, "")
    }

    #[test]
    fn a_run_goes_on_where_it_was_cut() {
        let place = tempfile::tempdir().unwrap();
        let plan = ids(&["abi/a", "abi/b", "op/ü"]);
        let (mut folder, had) = Folder::begin(place.path(), info(&plan, 1), plan.clone(), false).unwrap();
        assert!(had.is_empty());
        folder.append(&pass("op/ü")).unwrap();
        folder.append(&pass("abi/b")).unwrap();
        drop(folder);
        let whole = std::fs::read(place.path().join(CASES)).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        // Whatever of the second line is there, in the middle of a character too, the first stands and the second is run again.
        for cut in 0..=whole.len() {
            std::fs::write(place.path().join(CASES), &whole[..cut]).unwrap();
            let mut later = info(&plan, 1);
            later.started = "2027-01-01T00:00:00Z".to_string();
            let (folder, had) = Folder::begin(place.path(), later, plan.clone(), false).unwrap();
            let want = usize::from(cut >= first) + usize::from(cut == whole.len());
            assert_eq!(had.len(), want, "cut at {cut}");
            assert_eq!(folder.info().started, "2026-01-01T00:00:00Z");
            let length = std::fs::metadata(place.path().join(CASES)).unwrap().len() as usize;
            assert_eq!(length, [0, first, whole.len()][want]);
        }
        let (mut folder, _) = Folder::begin(place.path(), info(&plan, 1), plan.clone(), false).unwrap();
        folder.append(&pass("abi/a")).unwrap();
        let kept = folder.finish("2026-01-02T00:00:00Z".to_string()).unwrap();
        let order: Vec<&str> = kept.records.iter().map(|record| record.id.as_str()).collect();
        assert_eq!(order, ["abi/a", "abi/b", "op/ü"]);
        assert_eq!(kept.info.finished.as_deref(), Some("2026-01-02T00:00:00Z"));
    }

    #[test]
    fn a_run_that_lacks_cases_is_not_finished() {
        let place = tempfile::tempdir().unwrap();
        let plan = ids(&["abi/a", "op/b"]);
        let (mut folder, _) = Folder::begin(place.path(), info(&plan, 1), plan, false).unwrap();
        folder.append(&pass("op/b")).unwrap();
        assert_eq!(folder.finish("now".to_string()).unwrap().info.finished, None);
    }

    #[test]
    fn a_run_of_something_else_is_refused_until_it_is_forgotten() {
        let place = tempfile::tempdir().unwrap();
        let plan = ids(&["abi/a"]);
        let (mut folder, _) = Folder::begin(place.path(), info(&plan, 1), plan.clone(), false).unwrap();
        folder.append(&pass("abi/a")).unwrap();
        let busy = Folder::begin(place.path(), info(&plan, 1), plan.clone(), false).unwrap_err();
        assert!(busy.contains("another run"), "{busy}");
        drop(folder);
        let other = Folder::begin(place.path(), info(&plan, 2), plan.clone(), false).unwrap_err();
        assert!(other.contains("`seed`") && other.contains("--fresh"), "{other}");
        let mut shard = info(&plan, 1);
        shard.shard = Some((1, 2));
        let other = Folder::begin(place.path(), shard, plan.clone(), false).unwrap_err();
        assert!(other.contains("`shard`"), "{other}");
        std::fs::create_dir_all(place.path().join(BUNDLES).join("abi__a")).unwrap();
        let (_, had) = Folder::begin(place.path(), info(&plan, 2), plan, true).unwrap();
        assert!(had.is_empty() && !place.path().join(BUNDLES).exists());
    }

    #[test]
    fn what_was_changed_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let plan = ids(&["abi/a", "abi/b"]);
        write(place.path(), &info(&plan, 1), &plan, &[pass("abi/a")]).unwrap();
        assert!(read(place.path()).is_ok());
        let line = serde_json::to_string(&pass("abi/a")).unwrap();
        for (lines, problem) in [
            (format!("{line}\n{line}\n"), "twice"),
            (format!("{}\n", line.replace("abi/a", "abi/c")), "no case"),
            (format!("{{}}\n{line}\n"), "line 1"),
        ] {
            std::fs::write(place.path().join(CASES), lines).unwrap();
            let error = read(place.path()).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        std::fs::write(place.path().join(PLAN), "abi/a\n").unwrap();
        assert!(read(place.path()).unwrap_err().contains("hash"));
        std::fs::write(place.path().join(RUN), "{").unwrap();
        assert!(read(place.path()).unwrap_err().contains(RUN));
    }
}
