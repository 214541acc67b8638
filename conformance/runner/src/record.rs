//! Verdicts and the report.

use crate::run_info::RunInfo;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The outcome of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Within its tolerance.
    Pass,
    /// Not.
    Fail,
    /// Not run: a file, device or library is absent, or the delegate does not claim the case and does not take it ([`Claim::None`]).
    /// Never shown as a pass.
    Skip,
    /// The delegate's manifest claims it, the delegate refuses it.
    FailClaimed,
    /// A known failure with a reason.
    Waived,
    /// The process died.
    Crash,
    /// The process did not end in time.
    Hang,
    /// Failed first, passed when run again.
    Flaky,
    /// Within the tolerance of its precision, but worse than it should be.
    QualityWarning,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Verdict; 9] = [
        Verdict::Pass,
        Verdict::Fail,
        Verdict::Skip,
        Verdict::FailClaimed,
        Verdict::Waived,
        Verdict::Crash,
        Verdict::Hang,
        Verdict::Flaky,
        Verdict::QualityWarning,
    ];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Skip => "skip",
            Verdict::FailClaimed => "fail-claimed",
            Verdict::Waived => "waived",
            Verdict::Crash => "crash",
            Verdict::Hang => "hang",
            Verdict::Flaky => "flaky",
            Verdict::QualityWarning => "quality-warning",
        }
    }

    /// Whether the run as a whole answers no because of it.
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            Verdict::Fail | Verdict::FailClaimed | Verdict::Crash | Verdict::Hang
        )
    }
}

/// What a delegate says of a case before it is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Claim {
    /// Nobody asked: no single library is tested, or the case is about no operator.
    #[default]
    Unknown,
    /// Its manifest lists it: it has to pass.
    Claimed,
    /// Its manifest does not, and the delegate takes it all the same: it has to pass.
    Taken,
    /// Neither: the case is skipped, with the delegate's own reason.
    None,
}

impl Claim {
    /// Whether nobody asked.
    pub fn is_unknown(&self) -> bool {
        *self == Claim::Unknown
    }
}

/// The waiver that let a case off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaivedBy {
    /// Why.
    pub reason: String,
    /// Where it is followed up.
    pub issue: String,
    /// The last day, in UTC, on which it counts: `2027-06-30`.
    pub expires: String,
    /// Who let it off.
    pub approver: String,
}

/// One line of the JSON Lines log. Names follow ExecuTorch's backend-suite report where one exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseRecord {
    /// Unique and stable: `arch-lstm/a`.
    pub id: String,
    /// Outcome.
    pub verdict: Verdict,
    /// Why, for everything but a pass.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What it is about: a [`crate::category::Category`] by name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub category: String,
    /// The operator, where the case is a call of one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The dtype of its first tensor.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dtype: String,
    /// Sizes of its tensors, for people: `[1,3,8,8] [4,3,3,3]`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub shapes: String,
    /// Backends in order, or `portable`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub delegate: String,
    /// Version of the delegate, where one library is tested.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub delegate_version: String,
    /// Name of the device that it ran on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// Driver of that device.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// What the delegate says of the case beforehand.
    #[serde(default, skip_serializing_if = "Claim::is_unknown")]
    pub claim: Claim,
    /// `test`, `perf` or `support`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// The waiver that let it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiver: Option<WaivedBy>,
    /// Largest absolute difference over all steps and outputs; infinite where one is no number. JSON has no such number: `null` there.
    #[serde(default, deserialize_with = "or_infinite")]
    pub max_abs: f64,
    /// Largest relative difference.
    #[serde(default, deserialize_with = "or_infinite")]
    pub max_rel: f64,
    /// Signal to noise in dB, of the worst output; absent where there is no noise, or the case has no numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snr_db: Option<f64>,
    /// The tolerance, as text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tolerance: String,
    /// Nodes inside delegated regions that a delegate really ran.
    #[serde(default)]
    pub delegated_nodes: u64,
    /// Other nodes.
    #[serde(default)]
    pub undelegated_nodes: u64,
    /// Regions that fell back to the portable plan.
    #[serde(default)]
    pub fallbacks: u64,
    /// Milliseconds to compile, where the case compiles.
    #[serde(default)]
    pub compile_ms: f64,
    /// Milliseconds to load.
    #[serde(default)]
    pub load_ms: f64,
    /// Milliseconds in all.
    #[serde(default)]
    pub total_ms: f64,
    /// Median time of a run in microseconds, where runs are timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<f64>,
    /// 95th percentile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95_us: Option<f64>,
    /// Most memory that the process of the case had, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// Numbers that a case measures beside these, by name with unit: `rss_slope_kb_per_1000`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measured: BTreeMap<String, f64>,
    /// Folder of the repro bundle, relative to the report's; only of failures.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bundle: String,
    /// The exact command that runs this case again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub repro: String,
}

/// Reads what `serde_json` writes for an infinite number, so that a line with a wildly wrong result is read back like any other.
fn or_infinite<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

impl CaseRecord {
    /// A record with only an outcome.
    pub fn new(id: impl Into<String>, verdict: Verdict, reason: impl Into<String>) -> CaseRecord {
        CaseRecord {
            id: id.into(),
            verdict,
            reason: reason.into(),
            category: String::new(),
            op: String::new(),
            dtype: String::new(),
            shapes: String::new(),
            delegate: String::new(),
            delegate_version: String::new(),
            device: String::new(),
            driver: String::new(),
            claim: Claim::Unknown,
            waiver: None,
            mode: "test".to_string(),
            max_abs: 0.0,
            max_rel: 0.0,
            snr_db: None,
            tolerance: String::new(),
            delegated_nodes: 0,
            undelegated_nodes: 0,
            fallbacks: 0,
            compile_ms: 0.0,
            load_ms: 0.0,
            total_ms: 0.0,
            p50_us: None,
            p95_us: None,
            peak_bytes: None,
            measured: BTreeMap::new(),
            bundle: String::new(),
            repro: String::new(),
        }
    }
}

/// Counts by verdict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// All cases.
    pub total: u64,
    /// One count a verdict, zeros included.
    #[serde(flatten)]
    pub counts: BTreeMap<String, u64>,
}

/// What `conform --json` writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name and version of this object.
    pub schema: String,
    /// The tool and its version.
    pub tool: String,
    /// The machine.
    pub host: String,
    /// What was run over which library; absent where a report is made of cases alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunInfo>,
    /// Exit code of the run.
    pub exit_code: u8,
    /// Counts.
    pub summary: Summary,
    /// Every case, in order.
    pub cases: Vec<CaseRecord>,
}

impl Report {
    /// The report of these cases. Exit code 1 where a case failed, crashed or hung, or where nothing was run.
    pub fn new(cases: Vec<CaseRecord>) -> Report {
        let mut counts: BTreeMap<String, u64> = Verdict::ALL.iter().map(|v| (v.name().to_string(), 0)).collect();
        for case in &cases {
            *counts.entry(case.verdict.name().to_string()).or_default() += 1;
        }
        let ran = cases.iter().any(|case| case.verdict != Verdict::Skip);
        let failed = cases.iter().any(|case| case.verdict.is_failure());
        Report {
            schema: "delegraph.conform/1".to_string(),
            tool: format!("delegraph {}", env!("CARGO_PKG_VERSION")),
            host: crate::run_info::host(),
            run: None,
            exit_code: u8::from(failed || !ran),
            summary: Summary {
                total: cases.len() as u64,
                counts,
            },
            cases,
        }
    }

    /// The cases as JSON Lines.
    pub fn json_lines(&self) -> String {
        self.cases
            .iter()
            .filter_map(|case| serde_json::to_string(case).ok())
            .map(|line| line + "\n")
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_infinite_difference_survives_its_line() {
        let mut case = CaseRecord::new("op/a", Verdict::Fail, "wrong");
        case.max_abs = f64::INFINITY;
        let line = serde_json::to_string(&case).unwrap();
        assert_eq!(serde_json::from_str::<CaseRecord>(&line).unwrap(), case, "{line}");
    }

    #[test]
    fn nothing_run_is_not_a_success() {
        assert_eq!(Report::new(Vec::new()).exit_code, 1);
        let skip = CaseRecord::new("a", Verdict::Skip, "no file");
        assert_eq!(Report::new(vec![skip.clone()]).exit_code, 1);
        let pass = CaseRecord::new("b", Verdict::Pass, "");
        assert_eq!(Report::new(vec![skip, pass.clone()]).exit_code, 0);
        for verdict in [Verdict::Fail, Verdict::Crash, Verdict::Hang, Verdict::FailClaimed] {
            assert_eq!(
                Report::new(vec![pass.clone(), CaseRecord::new("c", verdict, "x")]).exit_code,
                1
            );
        }
    }
}
