//! `--mode support`: which operators a delegate takes, asked of its partitioner alone.

use super::child::Request;
use crate::output::Output;
use delegraph_kit::subject::SubjectRequest;
use delegraph_runner::CaseRecord;
use delegraph_runner::child::Launcher;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// How much of a cell is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cell {
    /// Questions that it answers with yes: calls that it takes.
    pub taken: u64,
    /// Of those that it does not take, those that its manifest claims.
    pub broken: u64,
    /// All questions.
    pub all: u64,
    /// It failed instead of answering.
    pub unanswered: bool,
}

impl Cell {
    /// `all`, `3/7`, `-`, `!2` where so many are claimed and not taken, `?` where it failed.
    pub fn text(self) -> String {
        match self {
            Cell { unanswered: true, .. } => "?".to_string(),
            Cell { broken: 1.., .. } => format!("!{}", self.broken),
            Cell { taken: 0, .. } => "-".to_string(),
            Cell { taken, all, .. } if taken == all => "all".to_string(),
            Cell { taken, all, .. } => format!("{taken}/{all}"),
        }
    }
}

/// Operators and dtypes, counted from what the cases measured.
pub fn cells(records: &[CaseRecord]) -> BTreeMap<(&str, &str), Cell> {
    let mut cells: BTreeMap<(&str, &str), Cell> = BTreeMap::new();
    for record in records.iter().filter(|record| !record.op.is_empty()) {
        let cell = cells.entry((&record.op, &record.dtype)).or_default();
        let measured = |name: &str| record.measured.get(name).map_or(0, |count| *count as u64);
        cell.all += measured("asked");
        cell.taken += measured("taken");
        cell.broken += measured("broken");
        cell.unanswered |= !record.measured.contains_key("asked");
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
    text + "all: every call is taken   n/m: some are   -: none is   !n: n are claimed and refused   ?: it failed   .: no call\n"
}

/// Prints the table; with a folder, leaves it there, and with it the claims that fit the answers.
///
/// # Errors
/// The disk refuses, or no child can be started.
pub fn write(
    records: &[CaseRecord],
    request: &SubjectRequest,
    folder: Option<&Path>,
    output: &Output,
) -> anyhow::Result<()> {
    let table = table(records);
    for line in table.lines() {
        output.data(line);
    }
    let Some(folder) = folder else { return Ok(()) };
    crate::output::write_atomically(&folder.join("support.txt"), table.as_bytes())?;
    let claims = folder.join("claims.toml");
    match propose(request, &claims)? {
        None => output.talk(format!("claims that fit are in {}", claims.display())),
        Some(problem) => output.talk(format!("no claims are proposed: {problem}")),
    }
    Ok(())
}

/// Seconds that all questions may take.
const LIMIT: u64 = 300;

/// Asks everything once more in a child, which writes the claims; why it did not.
fn propose(request: &SubjectRequest, file: &Path) -> anyhow::Result<Option<String>> {
    let request = Request {
        subject: request.clone(),
        seed: 0,
        support: true,
        propose: Some(std::path::absolute(file)?),
        digests: None,
        cases: Vec::new(),
        bundles: None,
        mark: String::new(),
        parent: std::process::id(),
    };
    let launcher = Launcher {
        program: std::env::current_exe()?,
        arguments: vec!["conform".to_string(), "kit".to_string()],
        limit: Duration::from_secs(LIMIT),
        retries: 0,
    };
    let _ = std::fs::remove_file(file);
    // It has no case and so no record: the file says that it ended well.
    let record = launcher.run("claims", &serde_json::to_value(&request)?);
    Ok(match file.is_file() {
        true => None,
        false => Some(record.reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_runner::Verdict;

    fn record(op: &str, dtype: &str, asked: u32, taken: u32, broken: u32) -> CaseRecord {
        let mut record = CaseRecord::new(format!("partition/support/{op}/{dtype}"), Verdict::Pass, "");
        (record.op, record.dtype) = (op.to_string(), dtype.to_string());
        for (name, count) in [("asked", asked), ("taken", taken), ("broken", broken)] {
            record.measured.insert(name.to_string(), count.into());
        }
        record
    }

    #[test]
    fn a_cell_says_how_much_is_taken_and_what_is_claimed_in_vain() {
        let mut crashed = record("aten::mul", "f16", 0, 0, 0);
        crashed.measured.clear();
        let table = table(&[
            record("aten::add", "f32", 3, 3, 0),
            record("aten::add", "f16", 2, 1, 0),
            record("aten::mul", "f32", 4, 0, 0),
            crashed,
            record("aten::div", "f32", 5, 3, 1),
        ]);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["operator", "f16", "f32"]);
        assert_eq!(lines[1], ["aten::add", "1/2", "all"]);
        assert_eq!(lines[2], ["aten::div", ".", "!1"]);
        assert_eq!(lines[3], ["aten::mul", "?", "-"]);
        assert_eq!(super::table(&[]), "");
    }
}
