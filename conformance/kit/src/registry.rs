//! Every case of the kit by its id, whatever it is made of. A new source of cases is one line of [`SOURCES`].

use crate::case::{self, LIMIT};
use crate::categories;
use crate::numerics::{self, Numerics, data};
use crate::subject::Subject;
use delegraph_runner::{CaseRecord, Category, Verdict};
use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

/// What is known of a case without running it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseInfo {
    /// Category and name; unique and stable.
    pub id: String,
    /// What it makes sure of, in one line.
    pub about: String,
    /// The category that the id begins with.
    pub category: Category,
    /// The operator that it calls; empty: none, or many.
    pub op: String,
    /// The dtype of its first tensor; empty as `op` is.
    pub dtype: String,
    /// Seconds after which it is a hang.
    pub limit: u64,
    /// Whether many such cases may share a process.
    pub batch: bool,
    /// See [`case::Case::hardening`].
    pub hardening: bool,
}

impl CaseInfo {
    /// A case about no operator, with a process and the usual limit of its own. `None`: the id begins with no category.
    pub fn new(id: impl Into<String>, about: impl Into<String>) -> Option<CaseInfo> {
        let id = id.into();
        Some(CaseInfo {
            category: Category::of(&id)?,
            id,
            about: about.into(),
            op: String::new(),
            dtype: String::new(),
            limit: LIMIT,
            batch: false,
            hardening: false,
        })
    }

    /// A crash or hang where nobody may be blamed for one is a quality warning.
    pub fn soften(&self, record: &mut CaseRecord) {
        if self.hardening && matches!(record.verdict, Verdict::Crash | Verdict::Hang) {
            record.reason = format!("{}: {}", record.verdict.name(), record.reason);
            record.verdict = Verdict::QualityWarning;
        }
    }
}

/// A record, and the files that explain a failure, by name.
pub type Ran = (CaseRecord, BTreeMap<String, Vec<u8>>);

/// The cases of a source in one process, over one library: what they share, such as a loaded library, is made once.
pub trait Batch {
    /// Runs a case. The record has this id whatever happens.
    fn run(&mut self, id: &str) -> Ran;
}

/// Where cases come from.
pub struct Source {
    /// All of them, in the order of reports.
    pub list: fn() -> Vec<CaseInfo>,
    /// Begins a process of them: the library under test, and what random inputs are made from.
    pub open: for<'s> fn(&'s Subject, u64) -> Box<dyn Batch + 's>,
    /// What the recorded references of the source are made of: each is hashed into the kit's identity. Empty: it records none.
    pub references: fn() -> Vec<&'static [u8]>,
}

/// Cases that talk to the library through the driver.
const RAW: Source = Source {
    list: raw_list,
    open: raw_open,
    references: Vec::new,
};

/// Cases of numbers.
const NUMERICS: Source = Source {
    list: numbers_list,
    open: numbers_open,
    references: data::recorded,
};

/// Every source.
pub const SOURCES: &[Source] = &[RAW, NUMERICS];

/// Every case with its source, in the order of reports: by category, then as the source has them.
fn table() -> &'static (Vec<CaseInfo>, HashMap<String, usize>) {
    static TABLE: OnceLock<(Vec<CaseInfo>, HashMap<String, usize>)> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut cases = Vec::new();
        let mut sources = HashMap::new();
        for (at, source) in SOURCES.iter().enumerate() {
            for case in (source.list)() {
                // Of two cases of one id the first stays; a test sees to it that there are none.
                if !sources.contains_key(&case.id) {
                    sources.insert(case.id.clone(), at);
                    cases.push(case);
                }
            }
        }
        cases.sort_by_key(|case| case.category);
        (cases, sources)
    })
}

/// Every case of the kit, in the order of reports.
pub fn cases() -> &'static [CaseInfo] {
    &table().0
}

/// The cases of a process, over one library.
pub struct Process<'s> {
    subject: &'s Subject,
    seed: u64,
    open: BTreeMap<usize, Box<dyn Batch + 's>>,
}

impl<'s> Process<'s> {
    /// Begins. A source is opened when its first case is run.
    pub fn new(subject: &'s Subject, seed: u64) -> Process<'s> {
        Process {
            subject,
            seed,
            open: BTreeMap::new(),
        }
    }

    /// Runs a case. An id that there is not fails.
    pub fn run(&mut self, id: &str) -> Ran {
        match self.batch(id) {
            Some(batch) => batch.run(id),
            None => unknown(id),
        }
    }

    fn batch(&mut self, id: &str) -> Option<&mut Box<dyn Batch + 's>> {
        let at = *table().1.get(id)?;
        let (subject, seed) = (self.subject, self.seed);
        let open = SOURCES.get(at)?.open;
        Some(self.open.entry(at).or_insert_with(|| open(subject, seed)))
    }
}

fn unknown(id: &str) -> Ran {
    let record = CaseRecord::new(id, Verdict::Fail, format!("the kit has no case `{id}`"));
    (record, BTreeMap::new())
}

/// Runs one case in this process.
pub fn run_case(id: &str, subject: &Subject, seed: u64) -> Ran {
    Process::new(subject, seed).run(id)
}

/// The cases that talk to the library through the driver.
fn raw_list() -> Vec<CaseInfo> {
    let known = |case: &case::Case| {
        let info = CaseInfo::new(case.id, case.about)?;
        Some(CaseInfo {
            limit: case.limit,
            hardening: case.hardening,
            ..info
        })
    };
    categories::cases().filter_map(known).collect()
}

struct Raw<'s> {
    subject: &'s Subject,
    seed: u64,
}

fn raw_open(subject: &Subject, seed: u64) -> Box<dyn Batch + '_> {
    Box::new(Raw { subject, seed })
}

impl Batch for Raw<'_> {
    fn run(&mut self, id: &str) -> Ran {
        match categories::cases().find(|case| case.id == id) {
            Some(case) => case::run(id, self.subject, self.seed, case.run),
            None => unknown(id),
        }
    }
}

fn numbers_list() -> Vec<CaseInfo> {
    let known = |info: &numerics::Info| {
        let case = CaseInfo::new(info.id.clone(), numerics::about(info))?;
        Some(CaseInfo {
            op: info.op.clone(),
            dtype: info.dtype.clone(),
            limit: info.limit,
            // A process that others have warmed up measures something else.
            batch: info.category != Category::Performance,
            ..case
        })
    };
    numerics::infos().iter().filter_map(known).collect()
}

/// What is embedded cannot be malformed, but a manifest may be: then every case says so.
struct Numbers<'s>(Result<Numerics<'s>, String>, u64);

fn numbers_open(subject: &Subject, seed: u64) -> Box<dyn Batch + '_> {
    Box::new(Numbers(Numerics::new(subject), seed))
}

impl Batch for Numbers<'_> {
    fn run(&mut self, id: &str) -> Ran {
        match &self.0 {
            Ok(numbers) => numbers.run(id, Some(self.1)),
            Err(problem) => (CaseRecord::new(id, Verdict::Fail, problem.clone()), BTreeMap::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_id_is_there_once_and_begins_with_its_category() {
        let mut seen = BTreeSet::new();
        for source in SOURCES {
            for case in (source.list)() {
                assert!(seen.insert(case.id.clone()), "`{}` is there twice", case.id);
                assert_eq!(Category::of(&case.id), Some(case.category), "{}", case.id);
                assert!(
                    case.id.split('/').count() > 1,
                    "`{}` is a category and no case",
                    case.id
                );
                assert!((1..=3600).contains(&case.limit), "{}: {} s", case.id, case.limit);
            }
        }
        assert_eq!(seen.len(), cases().len());
        assert_eq!(
            raw_list().len(),
            categories::cases().count(),
            "a case's id begins with no category"
        );
    }
}
