//! Joins the folders of one run's parts: shards, or folders of single cases.

use crate::folder::{self, BUNDLES, Kept, bundle_name, in_order};
use crate::record::CaseRecord;
use crate::run_info::RunInfo;
use crate::shard::{is_in_all, share};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Parts, joined.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// What was run; without a shard, and finished if every case is there.
    pub info: RunInfo,
    /// The ids of all cases of the run.
    pub plan: Vec<String>,
    /// The records, in the order of the plan.
    pub records: Vec<CaseRecord>,
    /// Cases without a record.
    pub missing: Vec<String>,
    /// What lacks, in sentences: `shard 3 of 4 is missing`.
    pub lacks: Vec<String>,
    /// For each record, the folder that it is from.
    from: Vec<PathBuf>,
}

/// Joins parts that were read.
///
/// # Errors
/// One sentence: there are none, two are of different things, or two have a case and disagree on it.
pub fn merge(parts: &[(PathBuf, Kept)]) -> Result<Merged, String> {
    let Some((first_path, first)) = parts.first() else {
        return Err("there is nothing to merge".to_string());
    };
    for (path, part) in parts {
        let between = |problem: String| {
            let (a, b) = (first_path.display(), path.display());
            format!("`{a}` and `{b}` are no parts of one run: {problem}")
        };
        first.info.same_subject(&part.info).map_err(between)?;
        let counts = (
            first.info.shard.map(|shard| shard.1),
            part.info.shard.map(|shard| shard.1),
        );
        if let (Some(a), Some(b)) = counts
            && a != b
        {
            return Err(between(format!("they are cut into {a} and {b} shards")));
        }
    }
    let mut joined: BTreeMap<String, (CaseRecord, &PathBuf, &Kept)> = BTreeMap::new();
    for (path, part) in parts {
        for record in &part.records {
            match joined.get_mut(&record.id) {
                None => {
                    joined.insert(record.id.clone(), (record.clone(), path, part));
                }
                Some((had, _, _)) if had.verdict == record.verdict => {}
                // It says what the library is, and one machine thinks otherwise: the worst of it stands.
                Some(had) if is_in_all(&record.id) && had.2.info.shard != part.info.shard => {
                    let (old, new) = (had.0.clone(), record.clone());
                    let newer = new.verdict.is_failure() && !old.verdict.is_failure();
                    let (mut worst, other, at) = match newer {
                        true => (new, old, (path, part)),
                        false => (old, new, (had.1, had.2)),
                    };
                    let note = format!("it is {} in another shard", other.verdict.name());
                    if !worst.reason.contains(&note) {
                        worst.reason = match worst.reason.is_empty() {
                            true => note,
                            false => format!("{}; {note}", worst.reason),
                        };
                    }
                    *had = (worst, at.0, at.1);
                }
                Some((had, other, _)) => {
                    return Err(format!(
                        "`{}` is {} in `{}` and {} in `{}`\n  hint: run the case again, and merge one of the two",
                        record.id,
                        had.verdict.name(),
                        other.display(),
                        record.verdict.name(),
                        path.display()
                    ));
                }
            }
        }
    }
    let missing: Vec<String> = first
        .plan
        .iter()
        .filter(|id| !joined.contains_key(*id))
        .cloned()
        .collect();
    let mut info = first.info.clone();
    info.shard = None;
    let started = parts.iter().map(|(_, part)| part.info.started.clone()).min();
    info.started = started.unwrap_or_default();
    // A folder of a single case never ends by itself: what counts is that every case is there.
    let ended = |part: &Kept| part.info.finished.clone().unwrap_or(part.info.started.clone());
    let finished = parts.iter().map(|(_, part)| ended(part)).max();
    info.finished = finished.filter(|_| missing.is_empty());
    let records = in_order(
        &first.plan,
        joined.values().map(|(record, _, _)| record.clone()).collect(),
    );
    let from = records.iter().map(|record| joined[&record.id].1.clone()).collect();
    Ok(Merged {
        lacks: lacks(parts, first, &missing),
        info,
        plan: first.plan.clone(),
        records,
        missing,
        from,
    })
}

/// Which shards are not there, or not whole.
fn lacks(parts: &[(PathBuf, Kept)], first: &Kept, missing: &[String]) -> Vec<String> {
    let missing: BTreeSet<&String> = missing.iter().collect();
    let Some(count) = parts.iter().find_map(|(_, part)| part.info.shard).map(|shard| shard.1) else {
        return match missing.len() {
            0 => Vec::new(),
            n => vec![format!("{n} of {} cases are missing", first.plan.len())],
        };
    };
    let mut lacks = Vec::new();
    for index in 1..=count {
        let absent = share(&first.plan, (index, count))
            .iter()
            .filter(|id| missing.contains(id))
            .count();
        let there = parts.iter().any(|(_, part)| part.info.shard == Some((index, count)));
        match (there, absent) {
            (_, 0) => {}
            (true, n) => lacks.push(format!("shard {index} of {count} lacks {n} cases")),
            (false, n) => lacks.push(format!("shard {index} of {count} is missing, with {n} cases")),
        }
    }
    lacks
}

impl Merged {
    /// Writes the folder of the joined run, with the bundles of its parts.
    ///
    /// # Errors
    /// The folder holds a run already, or the disk refuses.
    pub fn write(&self, folder: &Path) -> Result<(), String> {
        if folder::is_run(folder) {
            return Err(format!(
                "`{}` holds a run already\n  hint: choose another folder for the joined run",
                folder.display()
            ));
        }
        folder::write(folder, &self.info, &self.plan, &self.records)?;
        for (record, from) in self.records.iter().zip(&self.from) {
            if record.bundle.is_empty() {
                continue;
            }
            let name = bundle_name(&record.id);
            let (from, to) = (from.join(BUNDLES).join(&name), folder.join(BUNDLES).join(&name));
            copy(&from, &to).map_err(|error| format!("cannot copy `{}`: {error}", from.display()))?;
        }
        Ok(())
    }
}

/// Copies the files of a bundle; folders within are none of ours.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::{plan_sha256, read, write};
    use crate::record::Verdict;
    use crate::run_info::LibraryId;

    fn plan() -> Vec<String> {
        ["abi/a", "op/b", "op/c", "op/d", "op/e"]
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn info(shard: Option<(u32, u32)>) -> RunInfo {
        RunInfo {
            schema: RunInfo::SCHEMA.to_string(),
            library: Some(LibraryId {
                sha256: "00".to_string(),
                ..LibraryId::default()
            }),
            cases_sha256: plan_sha256(&plan()),
            cases: 5,
            shard,
            started: format!("2026-01-0{}T00:00:00Z", shard.map_or(5, |shard| shard.0)),
            finished: Some(format!("2026-02-0{}T00:00:00Z", shard.map_or(5, |shard| shard.0))),
            ..RunInfo::default()
        }
    }

    /// A part as it is read from its folder.
    fn part(name: &str, info: &RunInfo, records: &[(&str, Verdict)]) -> (PathBuf, Kept) {
        let place = tempfile::tempdir().unwrap();
        let records: Vec<CaseRecord> = records
            .iter()
            .map(|(id, verdict)| CaseRecord::new(*id, *verdict, ""))
            .collect();
        write(place.path(), info, &plan(), &records).unwrap();
        (name.into(), read(place.path()).unwrap())
    }

    const PASS: Verdict = Verdict::Pass;

    fn halves() -> [(PathBuf, Kept); 2] {
        [
            part(
                "one",
                &info(Some((1, 2))),
                &[("abi/a", PASS), ("op/b", PASS), ("op/d", PASS)],
            ),
            part(
                "two",
                &info(Some((2, 2))),
                &[("abi/a", PASS), ("op/c", Verdict::Fail), ("op/e", PASS)],
            ),
        ]
    }

    #[test]
    fn two_halves_are_a_whole() {
        let [one, two] = halves();
        for parts in [[one.clone(), two.clone()], [two, one]] {
            let merged = merge(&parts).unwrap();
            let ids: Vec<&String> = merged.records.iter().map(|record| &record.id).collect();
            assert_eq!(ids, plan().iter().collect::<Vec<_>>());
            assert_eq!(merged.records[2].verdict, Verdict::Fail);
            assert_eq!(merged.info.shard, None);
            assert_eq!(merged.info.started, "2026-01-01T00:00:00Z");
            assert_eq!(merged.info.finished.as_deref(), Some("2026-02-02T00:00:00Z"));
            assert!(merged.missing.is_empty() && merged.lacks.is_empty());
        }
    }

    #[test]
    fn what_lacks_is_named_and_the_run_is_not_finished() {
        let [one, _] = halves();
        let merged = merge(&[one]).unwrap();
        assert_eq!(merged.missing, ["op/c", "op/e"]);
        assert_eq!(merged.lacks, ["shard 2 of 2 is missing, with 2 cases"]);
        assert_eq!(merged.info.finished, None);
        let cut = part("two", &info(Some((2, 2))), &[("op/e", PASS)]);
        let [one, _] = halves();
        let merged = merge(&[one, cut]).unwrap();
        assert_eq!(merged.lacks, ["shard 2 of 2 lacks 1 cases"]);
        assert!(merge(&[]).is_err());
    }

    #[test]
    fn folders_of_single_cases_are_joined() {
        let one = |id| part(id, &info(None), &[(id, PASS)]);
        let parts: Vec<_> = ["op/e", "op/c", "abi/a", "op/d"].into_iter().map(one).collect();
        let merged = merge(&parts).unwrap();
        assert_eq!(merged.lacks, ["1 of 5 cases are missing"]);
        let merged = merge(&[parts, vec![one("op/b")]].concat()).unwrap();
        assert!(merged.missing.is_empty() && merged.info.finished.is_some());
    }

    #[test]
    fn parts_of_different_runs_are_refused() {
        let [one, _] = halves();
        let base = info(Some((2, 2)));
        let mut library = base.clone();
        library.library.as_mut().unwrap().sha256 = "01".to_string();
        let mut kit = base.clone();
        kit.kit.commit = "other".to_string();
        let mut list = base.clone();
        list.lists = vec![crate::run_info::ListId::default()];
        let mut device = base.clone();
        device.device = Some(1);
        let mut devices = base.clone();
        devices.devices = vec![crate::run_info::DeviceId::default()];
        let mut seed = base.clone();
        seed.seed = 9;
        let mut waivers = base.clone();
        waivers.waivers_sha256 = Some("02".to_string());
        let mut mode = base.clone();
        mode.mode = "perf".to_string();
        let mut options = base.clone();
        options.options.insert("at".to_string(), "x".into());
        for (what, other) in [
            ("library", library),
            ("kit", kit),
            ("lists", list),
            ("device", device),
            ("devices", devices),
            ("seed", seed),
            ("waivers", waivers),
            ("mode", mode),
            ("options", options),
        ] {
            let problem = merge(&[one.clone(), part("two", &other, &[("op/c", PASS)])]).unwrap_err();
            assert!(problem.contains(&format!("`{what}`")), "{problem}");
            assert!(problem.contains("`one` and `two`"), "{problem}");
        }
        let problem = merge(&[one, part("two", &info(Some((2, 3))), &[])]).unwrap_err();
        assert!(problem.contains("2 and 3 shards"), "{problem}");
    }

    #[test]
    fn a_case_that_two_parts_disagree_on_is_refused_unless_all_shards_run_it() {
        let [one, two] = halves();
        let again = part("again", &info(Some((2, 2))), &[("op/c", PASS)]);
        let problem = merge(&[one.clone(), two.clone(), again]).unwrap_err();
        assert!(
            problem.contains("`op/c` is fail in `two` and pass in `again`"),
            "{problem}"
        );
        let same = part("again", &info(Some((2, 2))), &[("op/c", Verdict::Fail)]);
        assert_eq!(merge(&[one.clone(), two, same]).unwrap().records.len(), 5);
        let bad = part("two", &info(Some((2, 2))), &[("abi/a", Verdict::Crash)]);
        for parts in [[one.clone(), bad.clone()], [bad, one.clone()]] {
            let merged = merge(&parts).unwrap();
            assert_eq!(merged.records[0].verdict, Verdict::Crash);
            assert_eq!(merged.records[0].reason, "it is pass in another shard");
        }
        let twice = part("again", &info(Some((1, 2))), &[("abi/a", Verdict::Crash)]);
        assert!(merge(&[one, twice]).is_err());
    }

    #[test]
    fn a_joined_run_is_never_written_over_another_and_brings_its_bundles() {
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (place.path().join("from"), place.path().join("to"));
        let mut record = CaseRecord::new("op/b", Verdict::Fail, "x");
        record.bundle = "bundles/op__b".to_string();
        write(&from, &info(None), &plan(), &[record]).unwrap();
        std::fs::create_dir_all(from.join("bundles/op__b")).unwrap();
        std::fs::write(from.join("bundles/op__b/repro.sh"), "x").unwrap();
        let merged = merge(&[(from.clone(), read(&from).unwrap())]).unwrap();
        merged.write(&to).unwrap();
        assert_eq!(std::fs::read(to.join("bundles/op__b/repro.sh")).unwrap(), b"x");
        assert_eq!(read(&to).unwrap().records, merged.records);
        assert!(merged.write(&to).unwrap_err().contains("already"));
    }
}
