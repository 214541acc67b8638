//! `delegraph bench --roofline`: what each step of a model reaches of what the machine can do, so that the next thing to speed up is seen.
//!
//! A step takes at least as long as its operations by the peak of its arithmetic, and as its bytes by the speed of memory; the longer of the
//! two is its bound. A step whose numbers lie in caches may be faster than memory, and a convolution by Winograd's form does fewer operations
//! than are counted: both may reach more than all. The peaks are of this processor, whichever device a step ran on.

use crate::args::BenchFormat;
use delegraph::{Session, Value};
use delegraph_cpu_kernels::Isa;
use delegraph_cpu_kernels::peak::{self, Peaks};
use delegraph_cpu_kernels::quant::Dot;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long each peak is measured.
const EACH: Duration = Duration::from_millis(300);
/// Most runs that are recorded.
const MAX_RUNS: usize = 100;
/// The end of the names of events whose operations are on integers of 8 bits.
const INT8: &str = " int8";

/// What was measured.
pub struct Roofline {
    threads: usize,
    peaks: Peaks,
    runs: usize,
    /// The median.
    run_ms: f64,
    /// The longest first.
    steps: Vec<Step>,
}

/// A step, in every run; if it is in a loop, all of its times together.
struct Step {
    name: String,
    node: String,
    backend: String,
    /// The median.
    ms: f64,
    operations: u64,
    bytes: u64,
}

/// What limits a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Arithmetic,
    Memory,
}

impl Roofline {
    /// Measures the machine, and so many runs of a session on these inputs.
    ///
    /// # Errors
    /// A run fails.
    pub fn measure(session: &mut Session, values: &[Value<'_>], runs: usize) -> anyhow::Result<Roofline> {
        let threads = session.threads();
        let peaks = peak::measure(threads, EACH);
        session.start_trace();
        for _ in 0..runs.clamp(1, MAX_RUNS) {
            session.run(values)?;
        }
        let profile = session.profile();
        // By region and event: the step, and its nanoseconds in each run.
        let mut all: BTreeMap<(u32, Option<usize>, String), (Step, Vec<u64>)> = BTreeMap::new();
        for (at, run) in profile.iter().enumerate() {
            for step in &run.steps {
                let (known, times) = all
                    .entry((step.instruction, step.event, step.name.clone()))
                    .or_insert_with(|| {
                        let known = Step {
                            name: step.name.clone(),
                            node: step.node.clone(),
                            backend: step.backend.clone().unwrap_or_else(|| delegraph::PORTABLE.to_string()),
                            ms: 0.0,
                            operations: 0,
                            bytes: 0,
                        };
                        (known, vec![0; profile.len()])
                    });
                times[at] += step.ns;
                // Runs are of the same inputs, and do the same.
                if at == 0 {
                    known.operations += step.operations;
                    known.bytes += step.bytes;
                }
            }
        }
        let mut steps: Vec<Step> = all
            .into_values()
            .map(|(step, times)| Step {
                ms: median_ms(times),
                ..step
            })
            .collect();
        steps.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        Ok(Roofline {
            threads,
            peaks,
            runs: profile.len(),
            run_ms: median_ms(profile.iter().map(|run| run.ns).collect()),
            steps,
        })
    }

    /// Of a step: the least time in milliseconds, and what limits it; `None`: nothing is known of it.
    fn bound(&self, step: &Step) -> Option<(f64, Limit)> {
        let peak = match step.name.ends_with(INT8) {
            true => self.peaks.bytes,
            false => self.peaks.floats,
        };
        let ms = |count: u64, rate: f64| if rate > 0.0 { 1e3 * count as f64 / rate } else { 0.0 };
        let (arithmetic, memory) = (ms(step.operations, peak), ms(step.bytes, self.peaks.memory));
        match arithmetic.max(memory) > 0.0 {
            true if arithmetic >= memory => Some((arithmetic, Limit::Arithmetic)),
            true => Some((memory, Limit::Memory)),
            false => None,
        }
    }

    /// The share that milliseconds are of the run.
    fn share(&self, ms: f64) -> f64 {
        if self.run_ms > 0.0 { ms / self.run_ms } else { 0.0 }
    }

    /// Sums of all steps.
    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for step in &self.steps {
            totals.steps_ms += step.ms;
            totals.operations += step.operations;
            totals.bytes += step.bytes;
            match self.bound(step) {
                Some((bound, _)) => totals.bound_ms += bound,
                None => totals.unknown_ms += step.ms,
            }
        }
        totals.known_ms = totals.steps_ms - totals.unknown_ms;
        totals.outside_ms = (self.run_ms - totals.steps_ms).max(0.0);
        totals
    }

    /// The lines of a format.
    pub fn lines(&self, format: BenchFormat) -> Vec<String> {
        let header = [
            "step", "node", "ms", "share", "GFLOP/s", "GB/s", "bound ms", "of bound", "limit",
        ];
        let rows: Vec<[String; 9]> = self.steps.iter().map(|step| self.row(step)).collect();
        match format {
            BenchFormat::Csv => {
                let line = |cells: &[String]| cells.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",");
                let header = header.map(String::from);
                std::iter::once(line(&header))
                    .chain(rows.iter().map(|row| line(row)))
                    .collect()
            }
            BenchFormat::Md => {
                let mut lines = vec![String::new(), format!("| {} |", header.join(" | "))];
                lines.push("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |".to_string());
                lines.extend(rows.iter().map(|row| format!("| {} |", row.join(" | "))));
                lines.push(String::new());
                // A list, so that lines stay lines.
                lines.extend(
                    self.summary()
                        .into_iter()
                        .map(|(name, text)| format!("- {name}: {text}")),
                );
                lines
            }
            BenchFormat::Text => {
                let width = |at: usize| {
                    let cells = rows.iter().map(|row| row[at].chars().count());
                    cells.chain([header[at].len()]).max().unwrap_or(0)
                };
                let widths: [usize; 9] = std::array::from_fn(width);
                let line = |cells: [&str; 9]| {
                    let mut line = String::new();
                    for (at, cell) in cells.iter().enumerate() {
                        let width = widths[at];
                        line += &match at {
                            2..8 => format!("{cell:>width$}  "),
                            _ => format!("{cell:<width$}  "),
                        };
                    }
                    line.trim_end().to_string()
                };
                let mut lines = vec![String::new(), line(header)];
                lines.extend(rows.iter().map(|row| line(std::array::from_fn(|at| row[at].as_str()))));
                lines.push(String::new());
                lines.extend(
                    self.summary()
                        .into_iter()
                        .map(|(name, text)| format!("{name:<10} {text}")),
                );
                lines
            }
        }
    }

    fn row(&self, step: &Step) -> [String; 9] {
        let rate = |count: u64| match count > 0 && step.ms > 0.0 {
            true => format!("{:.1}", count as f64 / step.ms / 1e6),
            false => "-".to_string(),
        };
        let bound = self.bound(step);
        let name = match step.name.as_str() {
            "call" => format!("{} (call)", step.backend),
            name => name.to_string(),
        };
        [
            name,
            if step.node.is_empty() {
                "-".to_string()
            } else {
                step.node.clone()
            },
            format!("{:.4}", step.ms),
            percent(self.share(step.ms)),
            rate(step.operations),
            rate(step.bytes),
            bound.map_or("-".to_string(), |(ms, _)| format!("{ms:.4}")),
            bound
                .filter(|_| step.ms > 0.0)
                .map_or("-".to_string(), |(ms, _)| percent(ms / step.ms)),
            bound.map_or("not known", |(_, limit)| limit.word()).to_string(),
        ]
    }

    /// What stands below the table.
    fn summary(&self) -> Vec<(&'static str, String)> {
        let totals = self.totals();
        let part = |ms: f64| format!("{ms:.3} ms, {} of the run", percent(self.share(ms)));
        vec![
            (
                "machine",
                format!(
                    "{:.1} GFLOP/s of f32 ({}), {:.1} GOP/s of int8 ({}), {:.1} GB/s read from memory; threads: {}",
                    self.peaks.floats / 1e9,
                    Isa::best(),
                    self.peaks.bytes / 1e9,
                    Dot::best().name(),
                    self.peaks.memory / 1e9,
                    self.threads
                ),
            ),
            (
                "total",
                format!(
                    "{:.3} ms a run, the median of {}; {:.3} GFLOP, {:.1} MB in the steps",
                    self.run_ms,
                    self.runs,
                    totals.operations as f64 / 1e9,
                    totals.bytes as f64 / 1e6
                ),
            ),
            (
                "bound",
                match totals.known_ms > 0.0 {
                    true => format!(
                        "{:.3} ms, which is {} of the {:.3} ms of the steps that are known",
                        totals.bound_ms,
                        percent(totals.bound_ms / totals.known_ms),
                        totals.known_ms
                    ),
                    false => "no step says what it does".to_string(),
                },
            ),
            ("not known", part(totals.unknown_ms)),
            ("outside", format!("{}: between steps", part(totals.outside_ms))),
        ]
    }

    /// The object in the report: milliseconds, and counts of operations and bytes of a run.
    pub fn json(&self) -> serde_json::Value {
        let totals = self.totals();
        let steps: Vec<serde_json::Value> = self
            .steps
            .iter()
            .map(|step| {
                let bound = self.bound(step);
                let rate = |count: u64| (count > 0 && step.ms > 0.0).then(|| count as f64 / step.ms / 1e6);
                json!({
                    "name": step.name, "node": step.node, "backend": step.backend, "ms": step.ms, "share": self.share(step.ms),
                    "operations": step.operations, "bytes": step.bytes,
                    "arithmetic": if step.name.ends_with(INT8) { "int8" } else { "f32" },
                    "gop_s": rate(step.operations), "gb_s": rate(step.bytes),
                    "bound_ms": bound.map(|(ms, _)| ms),
                    "reached": bound.filter(|_| step.ms > 0.0).map(|(ms, _)| ms / step.ms),
                    "limit": bound.map(|(_, limit)| limit.word()),
                })
            })
            .collect();
        json!({
            "threads": self.threads, "isa": Isa::best().name(), "dot": Dot::best().name(),
            "f32_gflop_s": self.peaks.floats / 1e9, "int8_gop_s": self.peaks.bytes / 1e9,
            "memory_gb_s": self.peaks.memory / 1e9,
            "runs": self.runs, "run_ms": self.run_ms, "steps_ms": totals.steps_ms, "known_ms": totals.known_ms,
            "unknown_ms": totals.unknown_ms, "outside_ms": totals.outside_ms, "bound_ms": totals.bound_ms,
            "operations": totals.operations, "bytes": totals.bytes, "steps": steps,
        })
    }
}

#[derive(Default)]
struct Totals {
    steps_ms: f64,
    known_ms: f64,
    unknown_ms: f64,
    outside_ms: f64,
    bound_ms: f64,
    operations: u64,
    bytes: u64,
}

impl Limit {
    fn word(self) -> &'static str {
        match self {
            Limit::Arithmetic => "arithmetic",
            Limit::Memory => "memory",
        }
    }
}

fn median_ms(mut ns: Vec<u64>) -> f64 {
    ns.sort_unstable();
    match ns.len() {
        0 => 0.0,
        n => (ns[(n - 1) / 2] + ns[n / 2]) as f64 / 2e6,
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A cell of CSV.
fn quoted(cell: &str) -> String {
    match cell.contains([',', '"']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str, ms: f64, operations: u64, bytes: u64) -> Step {
        Step {
            name: name.to_string(),
            node: "a, b".to_string(),
            backend: "cpu".to_string(),
            ms,
            operations,
            bytes,
        }
    }

    /// 1 GFLOP/s, 10 GOP/s, 1 GB/s.
    fn roofline() -> Roofline {
        Roofline {
            threads: 1,
            peaks: Peaks {
                floats: 1e9,
                bytes: 1e10,
                memory: 1e9,
            },
            runs: 3,
            run_ms: 10.0,
            steps: vec![
                step("conv", 4.0, 2_000_000, 1_000_000),
                step("conv int8", 2.0, 2_000_000, 1_000_000),
                step("call", 1.0, 0, 0),
            ],
        }
    }

    #[test]
    fn the_longer_of_the_two_is_the_bound() {
        let roofline = roofline();
        let bounds: Vec<_> = roofline.steps.iter().map(|step| roofline.bound(step)).collect();
        let expected = [Some((2.0, Limit::Arithmetic)), Some((1.0, Limit::Memory)), None];
        assert_eq!(bounds, expected);
        let totals = roofline.totals();
        assert_eq!(
            (
                totals.steps_ms,
                totals.known_ms,
                totals.unknown_ms,
                totals.outside_ms,
                totals.bound_ms
            ),
            (7.0, 6.0, 1.0, 3.0, 3.0)
        );
    }

    #[test]
    fn formats_have_a_row_a_step() {
        let roofline = roofline();
        let csv = roofline.lines(BenchFormat::Csv);
        assert_eq!(csv[1], "conv,\"a, b\",4.0000,40.0 %,0.5,0.2,2.0000,50.0 %,arithmetic");
        assert_eq!(csv[3], "cpu (call),\"a, b\",1.0000,10.0 %,-,-,-,-,not known");
        assert_eq!(csv.len(), 4);
        let text = roofline.lines(BenchFormat::Text);
        assert_eq!(
            text[2],
            "conv        a, b  4.0000  40.0 %      0.5   0.2    2.0000    50.0 %  arithmetic"
        );
        assert!(roofline.lines(BenchFormat::Md)[3].starts_with("| conv | a, b | 4.0000 |"));
    }

    #[test]
    fn the_median_of_an_even_number_is_between() {
        assert_eq!(median_ms(vec![]), 0.0);
        assert_eq!(median_ms(vec![3_000_000, 1_000_000]), 2.0);
        assert_eq!(median_ms(vec![9_000_000, 1_000_000, 2_000_000]), 2.0);
    }
}
