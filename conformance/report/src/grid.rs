//! The grid of operators by dtypes. Each cell has a letter, a tone, and how many of its cases passed.

use crate::truth::{Truth, category_of};
use delegraph_runner::{CaseRecord, Claim, Verdict};
use std::collections::BTreeMap;

/// Letters in the order in which they win a cell of several cases, with what they mean and the tone where nothing else sets one.
pub const LETTERS: [(char, &str, Tone); 10] = [
    ('C', "crash", Tone::Bad),
    ('H', "hang", Tone::Bad),
    ('F', "fail, or claimed and refused", Tone::Bad),
    ('~', "flaky: passed when run again", Tone::Warn),
    ('X', "known failure, waived", Tone::Warn),
    ('W', "quality warning", Tone::Warn),
    ('P', "pass", Tone::Good),
    ('S', "skipped: no device, file or library", Tone::Plain),
    ('U', "unsupported and declared: neither claimed nor taken", Tone::Quiet),
    ('.', "no case", Tone::Plain),
];

/// What a cell is about, beside its letter. It is shown by colour and by shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Something is wrong.
    Bad,
    /// Something is to be known: waived, flaky, worse than it should be, or claimed and not run.
    Warn,
    /// Right.
    Good,
    /// Undeclared, which costs nothing.
    Quiet,
    /// Nothing to say.
    Plain,
}

impl Tone {
    /// One word, as style sheets name it.
    pub fn name(self) -> &'static str {
        match self {
            Tone::Bad => "bad",
            Tone::Warn => "warn",
            Tone::Good => "good",
            Tone::Quiet => "quiet",
            Tone::Plain => "plain",
        }
    }
}

/// One operator in one dtype.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// One of [`LETTERS`].
    pub letter: char,
    /// What it is about.
    pub tone: Tone,
    /// Cases that passed.
    pub passed: u64,
    /// All cases.
    pub total: u64,
    /// Whether the delegate takes some of them, and the manifest claims none.
    pub beyond: bool,
}

/// Operators by dtypes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grid {
    /// Columns: floating point first, then integers by size.
    pub dtypes: Vec<String>,
    /// Rows by name. As many cells as there are columns; no cell where there is no case.
    pub rows: Vec<(String, Vec<Option<Cell>>)>,
}

/// The letter of one case.
pub fn letter(case: &CaseRecord) -> char {
    match (case.verdict, case.claim) {
        (Verdict::Pass, _) => 'P',
        (Verdict::Fail | Verdict::FailClaimed, _) => 'F',
        (Verdict::Crash, _) => 'C',
        (Verdict::Hang, _) => 'H',
        (Verdict::Waived, _) => 'X',
        (Verdict::Flaky, _) => '~',
        (Verdict::QualityWarning, _) => 'W',
        (Verdict::Skip, Claim::None) => 'U',
        (Verdict::Skip, _) => 'S',
    }
}

/// The grid of the cases that are about one operator in one dtype. Cases that measure time are not in it.
pub fn grid(truth: &Truth) -> Grid {
    let mut cells: BTreeMap<&str, BTreeMap<&str, Vec<&CaseRecord>>> = BTreeMap::new();
    for case in &truth.cases {
        if !case.op.is_empty() && !case.dtype.is_empty() && category_of(case) != "performance" {
            cells
                .entry(&case.op)
                .or_default()
                .entry(&case.dtype)
                .or_default()
                .push(case);
        }
    }
    let mut dtypes: Vec<&str> = cells.values().flat_map(|row| row.keys().copied()).collect();
    dtypes.sort_by_key(|dtype| (column(dtype), *dtype));
    dtypes.dedup();
    let row = |(op, row): (&&str, &BTreeMap<&str, Vec<&CaseRecord>>)| {
        let cells = dtypes.iter().map(|dtype| row.get(dtype).map(|cases| cell(cases)));
        (op.to_string(), cells.collect())
    };
    Grid {
        rows: cells.iter().map(row).collect(),
        dtypes: dtypes.iter().map(ToString::to_string).collect(),
    }
}

/// Where a dtype's column stands; one that is not known here comes last.
fn column(dtype: &str) -> usize {
    const ORDER: [&str; 17] = [
        "f32", "f16", "bf16", "f64", "c64", "c128", "i64", "i32", "i16", "i8", "i4", "u64", "u32", "u16", "u8", "u4",
        "bool",
    ];
    ORDER.iter().position(|known| *known == dtype).unwrap_or(ORDER.len())
}

fn cell(cases: &[&CaseRecord]) -> Cell {
    let letters: Vec<char> = cases.iter().map(|case| letter(case)).collect();
    let (letter, _, tone) = LETTERS
        .into_iter()
        .find(|(letter, _, _)| letters.contains(letter))
        .unwrap_or(LETTERS[LETTERS.len() - 1]);
    let any = |claim| cases.iter().any(|case| case.claim == claim);
    let untested = |case: &&&CaseRecord| case.claim == Claim::Claimed && case.verdict == Verdict::Skip;
    Cell {
        letter,
        // What is claimed and was not run is to be known, however well the rest of the cell does.
        tone: match tone {
            Tone::Bad => Tone::Bad,
            _ if cases.iter().any(|case| untested(&case)) => Tone::Warn,
            tone => tone,
        },
        passed: letters.iter().filter(|letter| **letter == 'P').count() as u64,
        total: cases.len() as u64,
        beyond: any(Claim::Taken) && !any(Claim::Claimed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_runner::RunInfo;

    fn case(op: &str, dtype: &str, verdict: Verdict, claim: Claim, n: usize) -> CaseRecord {
        let mut case = CaseRecord::new(format!("op/{op}/{dtype}/{n}"), verdict, "");
        (case.op, case.dtype, case.claim) = (op.to_string(), dtype.to_string(), claim);
        case
    }

    #[test]
    fn claims_and_results_are_apart() {
        use Claim::{Claimed, None, Taken, Unknown};
        use Verdict::*;
        for (cases, letter, tone, passed) in [
            (vec![(Pass, Claimed), (Pass, Taken)], 'P', Tone::Good, 2),
            (vec![(Pass, Claimed), (Fail, Claimed)], 'F', Tone::Bad, 1),
            (vec![(FailClaimed, Claimed)], 'F', Tone::Bad, 0),
            (vec![(Fail, Claimed), (Hang, Taken)], 'H', Tone::Bad, 0),
            (vec![(Hang, Claimed), (Crash, Taken)], 'C', Tone::Bad, 0),
            (vec![(Waived, Claimed), (Pass, Claimed)], 'X', Tone::Warn, 1),
            (vec![(Flaky, Claimed), (Waived, Claimed)], '~', Tone::Warn, 0),
            (vec![(QualityWarning, Taken), (Pass, Taken)], 'W', Tone::Warn, 1),
            (vec![(Skip, Claimed)], 'S', Tone::Warn, 0),
            (vec![(Pass, Claimed), (Skip, Claimed)], 'P', Tone::Warn, 1),
            (vec![(Skip, Unknown)], 'S', Tone::Plain, 0),
            (vec![(Skip, None)], 'U', Tone::Quiet, 0),
            (vec![(Skip, None), (Pass, Taken)], 'P', Tone::Good, 1),
        ] {
            let records = cases.iter().enumerate();
            let records = records
                .map(|(i, (verdict, claim))| case("aten::add", "f32", *verdict, *claim, i))
                .collect();
            let grid = grid(&Truth::new(RunInfo::default(), records));
            let cell = grid.rows[0].1[0].clone().unwrap();
            assert_eq!(
                (cell.letter, cell.tone, cell.passed),
                (letter, tone, passed),
                "{cases:?}"
            );
            assert_eq!(cell.total, cases.len() as u64);
        }
    }

    #[test]
    fn rows_and_columns_have_an_order() {
        let pass = |op, dtype| case(op, dtype, Verdict::Pass, Claim::Claimed, 0);
        let mut slow = pass("aten::zzz", "f32");
        slow.category = "performance".to_string();
        let cases = vec![
            pass("b", "i8"),
            pass("b", "f32"),
            pass("a", "q8"),
            slow,
            CaseRecord::new("abi/x", Verdict::Pass, ""),
        ];
        let grid = grid(&Truth::new(RunInfo::default(), cases));
        assert_eq!(grid.dtypes, ["f32", "i8", "q8"]);
        let names: Vec<&str> = grid.rows.iter().map(|(op, _)| op.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(grid.rows[0].1[0].is_none() && grid.rows[0].1[2].is_some());
    }
}
