//! The answers as an operator × dtype table.

use super::Asked;
use delegraph_types::DType;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::{self, Display};

/// What became of all questions of one operator and dtype.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cell {
    /// Questions.
    pub asked: usize,
    /// Of them, taken.
    pub taken: usize,
    /// Of them, claimed by the manifest.
    pub claimed: usize,
    /// Of them, claimed and not taken: broken promises.
    pub broken: usize,
    /// Reasons of those that were not taken, and how many each.
    pub reasons: BTreeMap<String, usize>,
}

impl Cell {
    /// One word: `claimed` and `taken` are for all questions, `part` for some; `refused`; `BROKEN` where a promise is.
    pub fn word(&self) -> &'static str {
        match self {
            Cell { broken: 1.., .. } => "BROKEN",
            Cell { taken: 0, .. } => "refused",
            Cell { taken, asked, .. } if taken < asked => "part",
            Cell { claimed, asked, .. } if claimed == asked => "claimed",
            _ => "taken",
        }
    }
}

/// An operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// By dtype.
    pub cells: BTreeMap<String, Cell>,
}

/// The table. It prints as text for a terminal; it serializes for tools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Table {
    /// By operator.
    pub rows: BTreeMap<String, Row>,
}

/// Counts the answers.
pub fn table(asked: &[Asked]) -> Table {
    let mut table = Table::default();
    for one in asked {
        let row = table.rows.entry(one.question.op.clone()).or_default();
        let cell = row.cells.entry(one.question.dtype.name().to_string()).or_default();
        cell.asked += 1;
        cell.taken += usize::from(one.taken.is_ok());
        cell.claimed += usize::from(one.claimed.is_ok());
        cell.broken += usize::from(one.is_broken_promise());
        if let Err(reason) = &one.taken {
            *cell.reasons.entry(reason.clone()).or_default() += 1;
        }
    }
    table
}

impl Table {
    /// Over all cells.
    pub fn total(&self) -> Cell {
        let mut total = Cell::default();
        for cell in self.rows.values().flat_map(|row| row.cells.values()) {
            total.asked += cell.asked;
            total.taken += cell.taken;
            total.claimed += cell.claimed;
            total.broken += cell.broken;
        }
        total
    }

    /// Why what is refused is refused: operator, dtypes, reason; the same reason of one operator once.
    pub fn reasons(&self) -> Vec<(&str, Vec<&str>, &str)> {
        let mut all: Vec<(&str, Vec<&str>, &str)> = Vec::new();
        for (op, row) in &self.rows {
            let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (dtype, cell) in &row.cells {
                for reason in cell.reasons.keys() {
                    by_reason.entry(reason).or_default().push(dtype);
                }
            }
            all.extend(
                by_reason
                    .into_iter()
                    .map(|(reason, dtypes)| (op.as_str(), dtypes, reason)),
            );
        }
        all
    }
}

impl Display for Table {
    /// A line an operator, a column a dtype; dtypes without any question are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |dtype: &DType| self.rows.values().any(|row| row.cells.contains_key(dtype.name()));
        let dtypes: Vec<DType> = DType::all().filter(has).collect();
        let width = self
            .rows
            .keys()
            .map(String::len)
            .max()
            .unwrap_or(0)
            .max("operator".len());
        let line = |name: &str, cells: Vec<&str>| {
            let cells: String = cells.iter().map(|cell| format!(" {cell:<7}")).collect();
            format!("{name:<width$} {cells}").trim_end().to_string()
        };
        writeln!(
            f,
            "{}",
            line("operator", dtypes.iter().map(|dtype| dtype.name()).collect())
        )?;
        for (op, row) in &self.rows {
            let cells = dtypes
                .iter()
                .map(|dtype| row.cells.get(dtype.name()).map_or("", Cell::word));
            writeln!(f, "{}", line(op, cells.collect()))?;
        }
        let total = self.total();
        writeln!(
            f,
            "{} nodes: {} taken, {} claimed, {} claimed and refused",
            total.asked, total.taken, total.claimed, total.broken
        )
    }
}
