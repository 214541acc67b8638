//! `--mode support`: which operators a delegate takes, asked of its partitioner alone.

use crate::output::Output;
use delegraph_runner::{CaseRecord, Claim, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How much of a cell is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cell {
    /// Cases that it takes.
    pub taken: u64,
    /// Of those that it does not take, those that its manifest claims.
    pub broken: u64,
    /// All cases.
    pub all: u64,
}

impl Cell {
    /// `all`, `3/7`, `-`, or `!2` where so many are claimed and not taken.
    pub fn text(self) -> String {
        match self {
            Cell { broken: 1.., .. } => format!("!{}", self.broken),
            Cell { taken: 0, .. } => "-".to_string(),
            Cell { taken, all, .. } if taken == all => "all".to_string(),
            Cell { taken, all, .. } => format!("{taken}/{all}"),
        }
    }
}

/// Operators and dtypes.
pub fn cells(records: &[CaseRecord]) -> BTreeMap<(&str, &str), Cell> {
    let mut cells: BTreeMap<(&str, &str), Cell> = BTreeMap::new();
    for record in records.iter().filter(|record| !record.op.is_empty()) {
        let cell = cells.entry((&record.op, &record.dtype)).or_default();
        cell.all += 1;
        match record.verdict {
            Verdict::Pass => cell.taken += 1,
            _ if record.claim == Claim::Claimed => cell.broken += 1,
            _ => {}
        }
    }
    cells
}

/// The table, an operator a line; empty where no case is about an operator.
pub fn table(records: &[CaseRecord]) -> String {
    let cells = cells(records);
    let ops: BTreeSet<&str> = cells.keys().map(|(op, _)| *op).collect();
    let dtypes: BTreeSet<&str> = cells.keys().map(|(_, dtype)| *dtype).collect();
    let width = ops.iter().map(|op| op.len()).max().unwrap_or(0).max(8);
    if ops.is_empty() {
        return String::new();
    }
    let mut text = format!("{:<width$}", "operator");
    for dtype in &dtypes {
        text += &format!(" {dtype:>7}");
    }
    text += "\n";
    for op in ops {
        text += &format!("{op:<width$}");
        for dtype in &dtypes {
            let cell = cells.get(&(op, *dtype)).map_or(".".to_string(), |cell| cell.text());
            text += &format!(" {cell:>7}");
        }
        text += "\n";
    }
    text + "all: takes every case   n/m: takes some   -: takes none   !n: claims n cases that it refuses   .: no case\n"
}

/// Prints the table and leaves it in the folder of the run.
///
/// # Errors
/// The disk refuses.
pub fn write(records: &[CaseRecord], folder: &Path, output: &Output) -> anyhow::Result<()> {
    let table = table(records);
    for line in table.lines() {
        output.data(line);
    }
    crate::output::write_atomically(&folder.join("support.txt"), table.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(op: &str, dtype: &str, verdict: Verdict, claim: Claim) -> CaseRecord {
        let mut record = CaseRecord::new(format!("op/{op}/{dtype}"), verdict, "");
        (record.op, record.dtype, record.claim) = (op.to_string(), dtype.to_string(), claim);
        record
    }

    #[test]
    fn a_cell_says_how_much_is_taken_and_what_is_claimed_in_vain() {
        let table = table(&[
            record("aten::add", "f32", Verdict::Pass, Claim::Claimed),
            record("aten::add", "f32", Verdict::Pass, Claim::Taken),
            record("aten::add", "f16", Verdict::Pass, Claim::Taken),
            record("aten::add", "f16", Verdict::Skip, Claim::None),
            record("aten::mul", "f32", Verdict::Skip, Claim::None),
            record("aten::div", "f32", Verdict::FailClaimed, Claim::Claimed),
            record("", "", Verdict::Pass, Claim::Unknown),
        ]);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["operator", "f16", "f32"]);
        assert_eq!(lines[1], ["aten::add", "1/2", "all"]);
        assert_eq!(lines[2], ["aten::div", ".", "!1"]);
        assert_eq!(lines[3], ["aten::mul", ".", "-"]);
        assert_eq!(super::table(&[]), "");
    }
}
