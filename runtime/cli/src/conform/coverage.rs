//! `delegraph conform coverage`: which operators of core ATen run here, as a table. Every cell is counted from cases that ran.

use super::ops;
use crate::args::{CoverageArgs, Global, OpsArgs};
use crate::output::Output;
use delegraph_kit::call::functional;
use delegraph_opset::Op;
use delegraph_runner::{CaseRecord, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The delegate whose column the table has.
const DELEGATE: &str = "reference";

/// Runs the corpus on portable kernels and on the reference delegate, and prints the table.
///
/// # Errors
/// As `conform ops`.
pub fn run(args: &CoverageArgs, global: &Global, output: &Output) -> anyhow::Result<u8> {
    let records = |backend: &str| ops::records(&of_corpus(args, backend), global, output);
    let (portable, delegated) = (records(delegraph::PORTABLE)?, records(DELEGATE)?);
    if let Some(case) = delegated.iter().find(|case| case.verdict == Verdict::Skip) {
        return Err(crate::usage(format!(
            "{}\n  hint: `cargo build` builds the plugins beside the command",
            case.reason
        )));
    }
    let text = table(&portable, &delegated);
    output.data(text.trim_end());
    let failed = portable.iter().chain(&delegated).any(|case| case.verdict.is_failure());
    output.json(&serde_json::json!({
        "schema": "delegraph.coverage/1", "tool": crate::tool(), "markdown": text, "exit_code": u8::from(failed),
    }))?;
    Ok(u8::from(failed))
}

fn of_corpus(args: &CoverageArgs, backend: &str) -> OpsArgs {
    OpsArgs {
        corpus: args.corpus.clone(),
        backends: crate::args::BackendArgs {
            backend: vec![backend.to_string()],
            target: Vec::new(),
        },
        ..OpsArgs::default()
    }
}

/// What the cases of an operator say.
#[derive(Default)]
struct Row {
    cases: usize,
    passed: usize,
    dtypes: BTreeSet<String>,
    delegated: usize,
    known: Option<String>,
}

fn table(portable: &[CaseRecord], delegated: &[CaseRecord]) -> String {
    let mut rows: BTreeMap<&str, Row> = Op::all()
        .filter(|op| op.is_core())
        .map(|op| (op.name(), Row::default()))
        .collect();
    for case in portable {
        let Some(row) = rows.get_mut(case.op.as_str()) else {
            continue;
        };
        row.cases += 1;
        match case.verdict {
            Verdict::Pass => {
                row.passed += 1;
                row.dtypes.extend((!case.dtype.is_empty()).then(|| case.dtype.clone()));
            }
            _ => row.known = Some(case.reason.clone()),
        }
    }
    for case in delegated {
        let ran = case.verdict == Verdict::Pass && case.delegated_nodes > 0;
        if let Some(row) = rows.get_mut(case.op.as_str()).filter(|_| ran) {
            row.delegated += 1;
        }
    }
    let count = |of: fn(&Row) -> bool| rows.values().filter(|row| of(row)).count();
    let (total, cases) = (rows.len(), rows.values().map(|row| row.cases).sum::<usize>());
    let mut text = String::new();
    let _ = write!(
        text,
        "# Core ATen coverage\n\n\
         Written by `cargo xtask gen coverage` from a run of the cases in [conformance/corpus](../conformance/corpus/README.md); a test fails\n\
         when it is stale. Each case is a recorded call of an operator that was compiled to a program, run, and compared with PyTorch's own\n\
         result within its tolerance. Core ATen is what PyTorch 2.15 tags `core`.\n\n\
         | | operators |\n| --- | --- |\n\
         | tested by at least one case | {} of {total} ({cases} cases) |\n\
         | every case passes on portable kernels | {} of {total} |\n\
         | the `{DELEGATE}` delegate runs at least one case | {} of {total} |\n\n\
         *Computed by*: `kernel`, a portable kernel of its own; `parts`, a decomposition into other operators; both, where the decomposition does\n\
         not cover every argument. *dtypes*: those that the first tensor may have (of an operator without one, the result): `float` is `f16 bf16\n\
         f32 f64`, `int` every integer but `u64`, `complex` `c64 c128`, `any` also `f8`; tests hold the kernels to them. *tested on*: those of\n\
         the cases that pass. *{DELEGATE}*: cases that the delegate ran itself, with the right result.\n\n\
         | operator | computes | computed by | dtypes | tested on | pass | {DELEGATE} |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n",
        count(|row| row.cases > 0),
        count(|row| row.cases > 0 && row.passed == row.cases),
        count(|row| row.delegated > 0),
    );
    let mut notes = Vec::new();
    for (name, row) in &rows {
        let mark = row.known.as_ref().map_or(String::new(), |reason| {
            notes.push(reason);
            format!(" [{}]", notes.len())
        });
        let op = Op::find(name);
        let dtypes: Vec<&str> = row.dtypes.iter().map(String::as_str).collect();
        let _ = writeln!(
            text,
            "| `{name}` | {} | {} | {} | {} | {} of {}{mark} | {} of {} |",
            op.and_then(Op::doc).unwrap_or("-").replace('|', "\\|"),
            computed_by(name),
            op.map(Op::dtypes).unwrap_or_default(),
            dtypes.join(" "),
            row.passed,
            row.cases,
            row.delegated,
            row.cases
        );
    }
    for (i, reason) in notes.iter().enumerate() {
        let _ = write!(text, "\n[{}] {reason}\n", i + 1);
    }
    text
}

/// `kernel`, `parts`, or both.
fn computed_by(name: &str) -> &'static str {
    let Some(op) = Op::find(name).map(|op| functional(op).unwrap_or(op)) else {
        return "-";
    };
    let kernel = delegraph_kernels::find(op.out_variant().unwrap_or(op).name()).is_some();
    match (kernel, delegraph_passes::decompose::has_rule(op)) {
        (true, true) => "kernel, parts",
        (true, false) => "kernel",
        (false, true) => "parts",
        (false, false) => "-",
    }
}
