//! The cases of a folder of recorded models, and how one is judged.

use crate::compare::{Difference, Lower, Tolerance, compare};
use crate::fixture::{Case, Fixture, FixtureError};
use crate::leaf::Leaf;
use crate::record::{CaseRecord, Verdict};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Which file of a fixture is the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// `model.pt2`
    Pt2,
    /// `model.core.pt2`
    Core,
    /// `model.pte`
    Pte,
    /// `model.pt2`, compiled to a `.pte` first.
    Compiled,
}

impl Source {
    /// The file of the fixture.
    pub fn file_name(self) -> &'static str {
        match self {
            Source::Pt2 | Source::Compiled => "model.pt2",
            Source::Core => "model.core.pt2",
            Source::Pte => "model.pte",
        }
    }

    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Source::Pt2 => "pt2",
            Source::Core => "core",
            Source::Pte => "pte",
            Source::Compiled => "compiled",
        }
    }
}

/// What a subject counts while it runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counters {
    /// Nodes that delegates ran.
    pub delegated_nodes: u64,
    /// Other nodes.
    pub undelegated_nodes: u64,
    /// Regions that fell back.
    pub fallbacks: u64,
    /// Milliseconds to compile.
    pub compile_ms: f64,
    /// Milliseconds to load.
    pub load_ms: f64,
}

/// A system that loads model files.
pub trait Subject {
    /// Loads a fresh instance.
    ///
    /// # Errors
    /// A sentence for the report.
    fn load(&mut self, file: &Path, source: Source) -> Result<Box<dyn Instance>, String>;
}

/// What a call gives.
#[derive(Debug, Clone, Default)]
pub struct StepResult {
    /// Flattened results.
    pub outputs: Vec<Leaf>,
    /// The inputs after the call; `None` where they cannot be seen.
    pub inputs_after: Option<Vec<Leaf>>,
}

/// A loaded model.
pub trait Instance {
    /// Runs one call.
    ///
    /// # Errors
    /// A sentence for the report.
    fn run(&mut self, inputs: &[Leaf]) -> Result<StepResult, String>;

    /// A mutable buffer by name; `None` where the file has no such name.
    ///
    /// # Errors
    /// It is kept where it cannot be had: a sentence for the report.
    fn buffer(&mut self, name: &str) -> Result<Option<Leaf>, String>;

    /// Counts so far.
    fn counters(&self) -> Counters;

    /// What is granted because something in it computes in a lower precision and says so; `None`: nothing does.
    fn lower(&self) -> Option<Lower> {
        None
    }
}

/// By which results are judged.
#[derive(Clone, Copy)]
struct Allowed {
    tolerance: Tolerance,
    lower: Option<Lower>,
}

impl Allowed {
    fn compare(&self, got: &Leaf, want: &Leaf) -> Result<Difference, String> {
        let plain = compare(got, want, self.tolerance);
        match (plain, self.lower) {
            (Err(_), Some(lower)) => lower.compare(got, want),
            (plain, _) => plain,
        }
    }
}

/// A case by its fixture folder and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCase {
    /// `arch-lstm/a`
    pub id: String,
    /// The fixture's folder.
    pub folder: PathBuf,
    /// Name of the case in the fixture.
    pub case: String,
}

/// The cases of `folder`: a fixture itself, or a folder of fixtures. Sorted.
///
/// # Errors
/// The folder or a fixture cannot be read.
pub fn list(folder: &Path) -> Result<Vec<ModelCase>, FixtureError> {
    let mut folders = Vec::new();
    if folder.join("fixture.json").is_file() {
        folders.push(folder.to_path_buf());
    } else {
        let entries = std::fs::read_dir(folder).map_err(|source| FixtureError::Read {
            path: folder.to_path_buf(),
            source,
        })?;
        folders.extend(
            entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.join("fixture.json").is_file()),
        );
    }
    folders.sort();
    let mut cases = Vec::new();
    for folder in folders {
        let name = folder
            .canonicalize()
            .ok()
            .and_then(|path| path.file_name().map(|n| n.to_string_lossy().into_owned()))
            .unwrap_or_else(|| "model".to_string());
        for case in Fixture::case_names(&folder)? {
            cases.push(ModelCase {
                id: format!("{name}/{case}"),
                folder: folder.clone(),
                case,
            });
        }
    }
    Ok(cases)
}

/// Runs one case. A fixture without the file is skipped.
pub fn run(subject: &mut dyn Subject, case: &ModelCase, source: Source) -> CaseRecord {
    let file = case.folder.join(source.file_name());
    if !file.is_file() {
        return CaseRecord::new(
            &case.id,
            Verdict::Skip,
            format!("no {} in the fixture", source.file_name()),
        );
    }
    run_file(subject, case, &file, source)
}

/// Runs one case on a file that need not be the fixture's own.
pub fn run_file(subject: &mut dyn Subject, case: &ModelCase, file: &Path, source: Source) -> CaseRecord {
    let started = Instant::now();
    let mut record = match Fixture::read(&case.folder) {
        Err(error) => return CaseRecord::new(&case.id, Verdict::Fail, error.to_string()),
        Ok(fixture) => match fixture.cases.iter().find(|c| c.name == case.case) {
            None => {
                return CaseRecord::new(
                    &case.id,
                    Verdict::Fail,
                    format!("the fixture has no case `{}`", case.case),
                );
            }
            Some(steps) => judge(subject, &fixture, steps, case, file, source),
        },
    };
    record.total_ms = started.elapsed().as_secs_f64() * 1e3;
    record
}

fn judge(
    subject: &mut dyn Subject,
    fixture: &Fixture,
    steps: &Case,
    case: &ModelCase,
    file: &Path,
    source: Source,
) -> CaseRecord {
    let mut record = CaseRecord::new(&case.id, Verdict::Pass, "");
    record.tolerance = format!("rtol {:e}, atol {:e}", fixture.tolerance.rtol, fixture.tolerance.atol);
    let mut instance = match subject.load(file, source) {
        Ok(instance) => instance,
        Err(reason) => {
            record.verdict = Verdict::Fail;
            record.reason = reason;
            return record;
        }
    };
    let allowed = Allowed {
        tolerance: fixture.tolerance,
        lower: instance.lower(),
    };
    if let Some(lower) = allowed.lower {
        record.tolerance += &format!("; or, by the precision that a delegate declares: {lower}");
    }
    let mut worst = Difference::default();
    let mut problem = None;
    for (i, step) in steps.steps.iter().enumerate() {
        match check_step(&mut *instance, allowed, step) {
            Ok(difference) => worst = worst.join(difference),
            Err(reason) => {
                problem = Some(format!("step {i}: {reason}"));
                break;
            }
        }
    }
    if problem.is_none() {
        for (name, want) in &steps.buffers_after {
            let got = match instance.buffer(name) {
                Ok(Some(got)) => got,
                Err(reason) => {
                    problem = Some(format!("buffer `{name}`: {reason}"));
                    break;
                }
                // Programs of others name their buffers or do not; everything else has the names.
                Ok(None) if source == Source::Pte => continue,
                Ok(None) => {
                    problem = Some(format!("there is no buffer `{name}` to compare"));
                    break;
                }
            };
            match allowed.compare(&got, want) {
                Ok(difference) => worst = worst.join(difference),
                Err(reason) => {
                    problem = Some(format!("buffer `{name}`: {reason}"));
                    break;
                }
            }
        }
    }
    let counters = instance.counters();
    record.max_abs = worst.max_abs;
    record.max_rel = worst.max_rel;
    record.delegated_nodes = counters.delegated_nodes;
    record.undelegated_nodes = counters.undelegated_nodes;
    record.fallbacks = counters.fallbacks;
    record.compile_ms = counters.compile_ms;
    record.load_ms = counters.load_ms;
    if let Some(reason) = problem {
        record.verdict = Verdict::Fail;
        record.reason = reason;
    }
    record
}

fn check_step(
    instance: &mut dyn Instance,
    allowed: Allowed,
    step: &crate::fixture::Step,
) -> Result<Difference, String> {
    let result = instance.run(&step.inputs)?;
    // ExecuTorch's exporter returns an input that the model changes before the results.
    let extra = result.outputs.len().saturating_sub(step.outputs.len());
    let (returned_inputs, outputs) = result.outputs.split_at(extra);
    if outputs.len() != step.outputs.len() || (extra > 0 && step.inputs_after.is_empty()) {
        return Err(format!(
            "got {} outputs, want {}",
            result.outputs.len(),
            step.outputs.len()
        ));
    }
    let mut worst = Difference::default();
    for (k, (got, want)) in outputs.iter().zip(&step.outputs).enumerate() {
        worst = worst.join(
            allowed
                .compare(got, want)
                .map_err(|reason| format!("output {k}: {reason}"))?,
        );
    }
    for (k, returned) in returned_inputs.iter().enumerate() {
        let known = step
            .inputs_after
            .iter()
            .any(|after| allowed.compare(returned, after).is_ok());
        if !known {
            return Err(format!("output {k} is none of the changed inputs"));
        }
    }
    if let Some(after) = &result.inputs_after {
        // Numbers and texts are passed by value: only a tensor can be changed by the call.
        let tensors = |(_, (_, want)): &(usize, (&Leaf, &Leaf))| matches!(want, Leaf::Tensor { .. });
        for (k, (got, want)) in after.iter().zip(&step.inputs_after).enumerate().filter(tensors) {
            let difference = allowed.compare(got, want);
            worst = worst.join(difference.map_err(|reason| format!("input {k} after the call: {reason}"))?);
        }
    }
    Ok(worst)
}
