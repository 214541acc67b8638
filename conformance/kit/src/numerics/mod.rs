//! Cases of numbers: operators, quantized patterns, sizes known at run time, small networks, times.
//!
//! Each goes through all of Delegraph with the library under test as the only backend ([`engine`]). Wanted results were recorded from
//! PyTorch ([`data`]) or come from an oracle in double precision ([`oracle`], [`random`]); never from a delegate or from Delegraph's own
//! kernels. How far a result may be from them is said by its class ([`tolerance`]).

pub mod claim;
pub mod data;
pub mod engine;
pub mod evidence;
pub mod oracle;
pub mod performance;
pub mod program;
pub mod random;
pub mod tolerance;

use crate::call::program as module_of;
use crate::case::{Failure, LIMIT, Outcome, Trial};
use crate::subject::Subject;
use data::{Call, Program, Step};
use delegraph_ir::Module;
use delegraph_runner::fixture::Tensors;
use delegraph_runner::{CaseRecord, Category, Leaf};
use engine::{Engine, Taken};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use tolerance::{Measure, Rule, Want};

/// The seed of random cases where none is given.
pub const SEED: u64 = 0x5eed;

/// A case, before it is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Unique and stable.
    pub id: String,
    /// What it is about.
    pub category: Category,
    /// The operator, or what stands for one in the grid of a report.
    pub op: String,
    /// The dtype that it is filed under.
    pub dtype: String,
    /// Seconds after which it is a hang.
    pub limit: u64,
}

/// Every case of numbers, in the order of reports. Made once.
pub fn infos() -> &'static [Info] {
    static CELL: OnceLock<Vec<Info>> = OnceLock::new();
    CELL.get_or_init(|| {
        let mut infos = Vec::new();
        let info = |id: String, category, op: &str, dtype: &str, limit| Info {
            id,
            category,
            op: op.to_string(),
            dtype: dtype.to_string(),
            limit,
        };
        // What is embedded is well formed: a test reads it.
        for call in data::calls().unwrap_or_default() {
            let dtype = call.case.key.split('/').next().unwrap_or_default();
            infos.push(info(id_of(call), Category::Op, &call.case.op, dtype, LIMIT));
        }
        for (id, op) in random::ids() {
            infos.push(info(id, Category::Op, op, "f32", LIMIT));
        }
        for program in data::programs().unwrap_or_default() {
            let category = Category::of(&program.id).unwrap_or(Category::Model);
            infos.push(info(
                program.id.clone(),
                category,
                &program.op,
                &program.dtype,
                2 * LIMIT,
            ));
        }
        for (id, name) in performance::ids() {
            infos.push(info(id, Category::Performance, &name, "", 4 * LIMIT));
        }
        infos
    })
}

/// `op/aten::add.Tensor/f32/rank4`
fn id_of(call: &Call) -> String {
    format!("op/{}/{}", call.case.op, call.case.key)
}

/// What a case makes sure of, in one line.
pub fn about(info: &Info) -> String {
    let edge = info.id.rsplit('/').next().unwrap_or_default();
    let mut programs = data::programs().unwrap_or_default().iter();
    if let Some(program) = programs.find(|program| program.id == info.id && !program.about.is_empty()) {
        return format!("{}: {edge}, against PyTorch; {}", info.op, program.about);
    }
    match info.category {
        Category::Op if edge.starts_with("random-") => {
            format!("{} with random arguments, against double precision", info.op)
        }
        Category::Op => format!("{} of {}: {edge}, against PyTorch", info.op, info.dtype),
        Category::Performance => format!("times and bytes of {}", info.op),
        _ => format!("{}: {edge}, against PyTorch", info.op),
    }
}

/// Runs cases of numbers over one library, which is loaded once.
pub struct Numerics<'s> {
    subject: &'s Subject,
    engine: Engine,
    /// Positions of recorded calls and programs by id.
    calls: BTreeMap<String, usize>,
    programs: BTreeMap<&'static str, usize>,
}

impl<'s> Numerics<'s> {
    /// Over this library. It is loaded by the first case.
    ///
    /// # Errors
    /// What is embedded is malformed, or the manifest cannot be copied.
    pub fn new(subject: &'s Subject) -> Result<Numerics<'s>, String> {
        let calls = data::calls()?.iter().enumerate();
        let programs = data::programs()?.iter().enumerate();
        Ok(Numerics {
            subject,
            engine: Engine::new(subject)?,
            calls: calls.map(|(i, call)| (id_of(call), i)).collect(),
            programs: programs.map(|(i, program)| (program.id.as_str(), i)).collect(),
        })
    }

    /// Runs a case. `seed` chooses the values of random ones, and of no other. An id that does not exist is a failure.
    pub fn run(&self, id: &str, seed: Option<u64>) -> (CaseRecord, BTreeMap<String, Vec<u8>>) {
        let seed = seed.unwrap_or(SEED);
        let (mut record, mut evidence) = crate::case::run(id, self.subject, seed, |trial| {
            file(trial, id);
            if let Some(&i) = self.calls.get(id) {
                return self.call(&data::calls()?[i], trial);
            }
            if let Some(&i) = self.programs.get(id) {
                return self.program(&data::programs()?[i], trial);
            }
            if let Some(case) = random::case(id, seed) {
                return self.random(case?, trial);
            }
            if let Some(workload) = performance::workload(id) {
                return performance::run(&self.engine, workload?, trial);
            }
            Err(Failure::fail(format!("there is no case `{id}`")))
        });
        if record.mode.is_empty() {
            record.mode = "test".to_string();
        }
        if !record.verdict.is_failure() && record.verdict != delegraph_runner::Verdict::QualityWarning {
            evidence.clear();
        }
        (record, evidence)
    }

    fn call(&self, call: &Call, trial: &mut Trial<'_>) -> Outcome {
        let tensors = data::call_tensors()?;
        let (module, inputs) = module_of(&call.case, tensors, &call.constants)?;
        let keys = call.case.outputs().ok_or("a recorded result is no tensor")?;
        let find = |key: &str| {
            tensors
                .get(key)
                .ok_or_else(|| format!("the shard has no tensor `{key}`"))
        };
        let optional =
            |list: &[Option<String>], i: usize| list.get(i).and_then(Option::as_deref).map(&find).transpose();
        let mut wants = Vec::new();
        for (i, key) in keys.iter().enumerate() {
            wants.push(Want {
                rounded: find(key)?,
                precise: optional(&call.precise, i)?,
                scale: optional(&call.scale, i)?,
            });
        }
        let step = Run { inputs, wants };
        self.judge(module, &call.rule, &[step], trial)
    }

    fn random(&self, case: random::Case, trial: &mut Trial<'_>) -> Outcome {
        let (module, inputs) = module_of(&case.call, &case.tensors, &case.constants)?;
        let scale = case.scale.as_ref();
        let want = Want {
            rounded: &case.rounded,
            precise: Some(&case.precise),
            scale,
        };
        let step = Run {
            inputs,
            wants: vec![want],
        };
        self.judge(module, &case.rule, &[step], trial)
    }

    fn program(&self, program: &Program, trial: &mut Trial<'_>) -> Outcome {
        let tensors = data::program_tensors()?;
        let rule = Rule::new(&program.class, program.k, "")?;
        let module = program::build(program, tensors)?;
        let steps = program
            .steps
            .iter()
            .map(|step| run_of(step, tensors))
            .collect::<Result<Vec<_>, _>>()?;
        self.judge(module, &rule, &steps, trial)?;
        self.refuses(program, tensors, &steps, &rule, trial)
    }

    /// Compiles, runs every step, compares, and runs again: the same inputs give the same bits, whatever ran in between.
    fn judge(&self, module: Module, rule: &Rule, steps: &[Run<'_>], trial: &mut Trial<'_>) -> Outcome {
        if let Some(first) = steps.first() {
            trial.record.shapes = evidence::shapes(&first.inputs);
        }
        let stateful = !module.states.is_empty();
        let taken = self.engine.compile(module, trial)?;
        if let Some(reason) = unpromised(trial.subject, steps).or_else(|| beyond(&taken.precision, rule, steps)) {
            return Err(Failure::skip(reason));
        }
        let mut session = self.engine.open(&taken, "case", trial)?;
        let mut found = Measure::default();
        let mut given = Vec::new();
        for (i, step) in steps.iter().enumerate() {
            let at = |reason: String| match steps.len() {
                1 => reason,
                _ => format!("run {i}: {reason}"),
            };
            let got = engine::run(&mut session, &step.inputs).map_err(|error| failed(trial, step, at(error)))?;
            engine::ran_all(&session)?;
            let compared = compare(rule, &taken, &got, &step.wants);
            let (measure, result) = compared;
            found = found.join(measure);
            if let Err(reason) = result {
                note(found, rule, &taken, step, trial);
                let got: Vec<&Leaf> = got.iter().collect();
                evidence::keep(trial, "got", &got);
                return Err(failed(trial, step, at(reason)));
            }
            given.push(got);
        }
        if let Some(step) = steps.first() {
            note(found, rule, &taken, step, trial);
        }
        let manifest = trial.subject.manifest.as_ref();
        if found.flushed == Some(true) && manifest.is_some_and(|(_, manifest)| manifest.numeric.denormals) {
            let reason =
                "a denormal number came back as 0, and the manifest does not say `numeric.denormals = \"flush\"`";
            return Err(Failure::claimed(reason));
        }
        if stateful {
            session.reset();
        } else if let Some(step) = steps.first() {
            // Other values in between: nothing of them may be left in the next results.
            let others: Vec<Leaf> = step.inputs.iter().map(|input| reversed(input)).collect();
            let others: Vec<&Leaf> = others.iter().collect();
            engine::run(&mut session, &others)
                .map_err(|error| failed(trial, step, format!("with other values: {error}")))?;
        }
        for (i, (step, first)) in steps.iter().zip(&given).enumerate() {
            let again = engine::run(&mut session, &step.inputs).map_err(|error| failed(trial, step, error))?;
            if again != *first {
                let got: Vec<&Leaf> = again.iter().collect();
                evidence::keep(trial, "again", &got);
                let reason = format!("run {i} again, after other inputs, gives other bits for the same inputs");
                return Err(failed(trial, step, reason));
            }
        }
        engine::ran_all(&session)?;
        if !taken.precision.is_empty() && found.is_poor() {
            return Err(Failure::warning(format!(
                "within what the declared precision `{}` grants, but the cosine between result and want is {:.5}",
                taken.precision,
                found.cosine.unwrap_or_default()
            )));
        }
        Ok(())
    }

    /// Inputs beyond the bounds are refused, and a session that refused some runs on.
    fn refuses(
        &self,
        program: &Program,
        tensors: &Tensors,
        steps: &[Run<'_>],
        rule: &Rule,
        trial: &mut Trial<'_>,
    ) -> Outcome {
        let Some(first) = steps.first().filter(|_| !program.refused.is_empty()) else {
            return Ok(());
        };
        let taken = self
            .engine
            .compile(program::build(program, tensors)?, &mut aside(trial))?;
        let mut session = self.engine.open(&taken, "case", &mut aside(trial))?;
        for keys in &program.refused {
            let inputs = find_all(keys, tensors)?;
            if engine::run(&mut session, &inputs).is_ok() {
                let sizes = evidence::shapes(&inputs);
                return Err(Failure::fail(format!(
                    "inputs of sizes {sizes}, which are out of bounds, are not refused"
                )));
            }
            let got = engine::run(&mut session, &first.inputs)?;
            let (_, result) = compare(rule, &taken, &got, &first.wants);
            result.map_err(|reason| format!("after inputs that are out of bounds: {reason}"))?;
        }
        Ok(())
    }
}

/// Files a record under the operator and the dtype that the list has.
fn file(trial: &mut Trial<'_>, id: &str) {
    if let Some(info) = infos().iter().find(|info| info.id == id) {
        trial.record.op.clone_from(&info.op);
        trial.record.dtype.clone_from(&info.dtype);
    }
}

/// Inputs and what is wanted for them.
struct Run<'t> {
    inputs: Vec<&'t Leaf>,
    wants: Vec<Want<'t>>,
}

/// The numbers of all float tensors of some runs, inputs and what is wanted.
fn floats<'s>(steps: &'s [Run<'_>]) -> impl Iterator<Item = f64> + 's {
    let leaves = steps.iter().flat_map(|step| {
        step.inputs
            .iter()
            .copied()
            .chain(step.wants.iter().map(|want| want.rounded))
    });
    leaves.flat_map(|leaf| match leaf {
        Leaf::Tensor { dtype, bytes, .. } if dtype.is_float() => delegraph_runner::leaf::to_f64(*dtype, bytes),
        _ => Vec::new(),
    })
}

/// What a case has, and the manifest promises nothing of.
fn unpromised(subject: &Subject, steps: &[Run<'_>]) -> Option<String> {
    let (_, manifest) = subject.manifest.as_ref()?;
    let has = |what: fn(f64) -> bool| floats(steps).any(what);
    let key = match () {
        () if !manifest.numeric.nan && has(f64::is_nan) => "nan",
        () if !manifest.numeric.infinity && has(f64::is_infinite) => "infinity",
        () => return None,
    };
    Some(format!(
        "the manifest promises nothing of it: `numeric.{key} = \"any\"`"
    ))
}

/// Numbers that the precision which a blob declares does not have.
fn beyond(precision: &str, rule: &Rule, steps: &[Run<'_>]) -> Option<String> {
    let narrow = tolerance::narrower(delegraph_types::DType::F32, precision);
    if narrow == delegraph_types::DType::F32 {
        return None;
    }
    if rule.policy == tolerance::Policy::Denormal {
        return Some(format!(
            "denormal numbers of f32 are none of `{precision}`, which the blob declares to compute in"
        ));
    }
    let most = tolerance::largest(narrow);
    let number = floats(steps).find(|number| number.is_finite() && number.abs() > most)?;
    Some(format!(
        "{number:e} is beyond `{precision}`, which the blob declares to compute in"
    ))
}

/// A trial beside a trial, whose record is thrown away.
fn aside<'s>(trial: &Trial<'s>) -> Trial<'s> {
    Trial {
        subject: trial.subject,
        seed: trial.seed,
        record: trial.record.clone(),
        evidence: BTreeMap::new(),
    }
}

fn find_all<'t>(keys: &[String], tensors: &'t Tensors) -> Result<Vec<&'t Leaf>, String> {
    let find = |key: &String| {
        tensors
            .get(key)
            .ok_or_else(|| format!("the shard has no tensor `{key}`"))
    };
    keys.iter().map(find).collect()
}

fn run_of<'t>(step: &Step, tensors: &'t Tensors) -> Result<Run<'t>, String> {
    let scales = find_all(&step.scale, tensors)?;
    let outs = find_all(&step.out, tensors)?;
    let want = |(i, rounded): (usize, &'t Leaf)| Want {
        rounded,
        precise: None,
        scale: scales.get(i).copied(),
    };
    Ok(Run {
        inputs: find_all(&step.inputs, tensors)?,
        wants: outs.into_iter().enumerate().map(want).collect(),
    })
}

/// Every output; the first that is wrong is named.
fn compare(rule: &Rule, taken: &Taken, got: &[Leaf], wants: &[Want<'_>]) -> (Measure, Result<(), String>) {
    if got.len() != wants.len() {
        let reason = format!("got {} outputs, want {}", got.len(), wants.len());
        return (Measure::default(), Err(reason));
    }
    let mut found = Measure::default();
    let mut outcome = Ok(());
    for (i, (got, want)) in got.iter().zip(wants).enumerate() {
        let (measure, result) = tolerance::judge(rule, &taken.precision, got, *want);
        found = found.join(measure);
        if let (Ok(()), Err(reason)) = (&outcome, result) {
            outcome = Err(match wants.len() {
                1 => reason,
                _ => format!("output {i}: {reason}"),
            });
        }
    }
    (found, outcome)
}

/// Fills in the record's numbers.
fn note(found: Measure, rule: &Rule, taken: &Taken, step: &Run<'_>, trial: &mut Trial<'_>) {
    let record = &mut trial.record;
    record.max_abs = found.max_abs;
    record.max_rel = found.max_rel;
    record.snr_db = found.snr_db;
    if let Some(Leaf::Tensor { dtype, .. }) = step.wants.first().map(|want| want.rounded) {
        record.tolerance = rule.limit(*dtype, &taken.precision).to_string();
        if !taken.precision.is_empty() {
            record.tolerance += &format!(" (declared precision {})", taken.precision);
        }
    }
    trial.measure("max_ulp", found.max_ulp);
    let flag = |flag: bool| f64::from(u8::from(flag));
    let numbers = [
        ("cosine", found.cosine),
        ("flushes_denormals", found.flushed.map(flag)),
        ("keeps_negative_zero", found.signed_zero.map(flag)),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            trial.measure(name, value);
        }
    }
}

/// A failure with what went in and what was wanted.
fn failed(trial: &mut Trial<'_>, step: &Run<'_>, reason: String) -> Failure {
    evidence::keep(trial, "inputs", &step.inputs);
    let wants: Vec<&Leaf> = step.wants.iter().map(|want| want.rounded).collect();
    evidence::keep(trial, "want", &wants);
    Failure::fail(reason)
}

/// The same elements in reverse: valid wherever the tensor is, an index too.
fn reversed(leaf: &Leaf) -> Leaf {
    match leaf {
        Leaf::Tensor { dtype, shape, bytes } => Leaf::Tensor {
            dtype: *dtype,
            shape: shape.clone(),
            bytes: bytes.chunks(dtype.size().max(1)).rev().flatten().copied().collect(),
        },
        other => other.clone(),
    }
}
