//! Times and bytes of a few workloads: reported, and wrong only where a workload does not run or does not repeat itself.
//!
//! What is a regression is said by comparing two reports, `delegraph conform diff`.

use super::data::{self, Program};
use super::engine::{self, Engine};
use super::{evidence, program};
use crate::case::{Failure, Outcome, Trial};
use delegraph_ir::Arg;
use delegraph_ir::{Constant, Graph, Module, Op, TensorType, Type, ValueId, infer};
use delegraph_runner::Leaf;
use delegraph_types::{DType, Dims};
use std::time::{Duration, Instant};

/// Runs that are timed at most.
const RUNS: usize = 200;
/// How long they may take together.
const BUDGET: Duration = Duration::from_millis(1500);
/// Runs before the first that is timed.
const WARM_UP: usize = 3;

/// Made here: name and what it is.
const MADE: [(&str, fn() -> Result<(Module, Vec<Leaf>), String>); 4] = [
    ("add-64k", || chain(65_536, &["aten::add.Tensor"])),
    ("elementwise-chain", || {
        chain(
            16_384,
            &["aten::add.Tensor", "aten::relu", "aten::mul.Tensor", "aten::tanh"],
        )
    }),
    ("linear-256", linear),
    ("conv2d-32", convolution),
];

/// What is timed.
pub enum Workload {
    /// A module with inputs.
    Made(Box<Module>, Vec<Leaf>),
    /// A recorded network.
    Recorded(&'static Program),
}

/// Ids, and what stands for an operator.
pub fn ids() -> impl Iterator<Item = (String, String)> {
    let made = MADE.iter().map(|(name, _)| name.to_string());
    let recorded = networks().map(name_of);
    made.chain(recorded)
        .map(|name| (format!("performance/{name}/latency"), name))
}

fn networks() -> impl Iterator<Item = &'static Program> {
    let programs = data::programs().unwrap_or_default().iter();
    programs.filter(|program| program.id.starts_with("model/"))
}

/// `model/conv-net/int8` -> `conv-net-int8`
fn name_of(program: &Program) -> String {
    program.id.trim_start_matches("model/").replace('/', "-")
}

/// The workload of an id; `None`: it is no such id.
pub fn workload(id: &str) -> Option<Result<Workload, String>> {
    let name = id.strip_prefix("performance/")?.strip_suffix("/latency")?;
    if let Some((_, make)) = MADE.iter().find(|(known, _)| *known == name) {
        return Some(make().map(|(module, inputs)| Workload::Made(Box::new(module), inputs)));
    }
    networks()
        .find(|program| name_of(program) == name)
        .map(|program| Ok(Workload::Recorded(program)))
}

/// Times it.
///
/// # Errors
/// It is not taken, does not run, or gives other numbers for the same inputs.
pub fn run(engine: &Engine, workload: Workload, trial: &mut Trial<'_>) -> Outcome {
    trial.record.mode = "perf".to_string();
    let tensors = data::program_tensors()?;
    let (module, inputs) = match workload {
        Workload::Made(module, inputs) => (*module, inputs),
        Workload::Recorded(recorded) => {
            let module = program::build(recorded, tensors)?;
            let keys = recorded
                .steps
                .first()
                .map(|step| step.inputs.as_slice())
                .unwrap_or_default();
            let inputs = super::find_all(keys, tensors)?.into_iter().cloned().collect();
            (module, inputs)
        }
    };
    let inputs: Vec<&Leaf> = inputs.iter().collect();
    trial.record.shapes = evidence::shapes(&inputs);
    let taken = engine.compile(module, trial)?;
    let mut session = engine.open(&taken, "workload", trial)?;
    let cold = trial.record.load_ms;
    let started = Instant::now();
    let first = engine::run(&mut session, &inputs)?;
    let first_us = micros(started.elapsed());
    for _ in 0..WARM_UP {
        session.reset();
        if engine::run(&mut session, &inputs)? != first {
            return Err(Failure::fail("a second run gives other bits for the same inputs"));
        }
    }
    let mut times = Vec::new();
    let all = Instant::now();
    while times.len() < RUNS && all.elapsed() < BUDGET {
        session.reset();
        let given = inputs
            .iter()
            .map(|input| crate::leaf::value(input))
            .collect::<Result<Vec<_>, _>>();
        let given = given.map_err(|error| error.to_string())?;
        let started = Instant::now();
        session.run(&given).map_err(|error| error.to_string())?;
        times.push(micros(started.elapsed()));
    }
    engine::ran_all(&session)?;
    let report = session.report();
    let runs = report
        .regions
        .iter()
        .map(|region| region.delegated_runs)
        .max()
        .unwrap_or(1)
        .max(1) as f64;
    let copied = |of: fn(&delegraph::RegionState) -> u64| report.regions.iter().map(of).sum::<u64>() as f64 / runs;
    trial.measure("copied_tensors_per_run", copied(|region| region.copied_tensors));
    trial.measure("copied_bytes_per_run", copied(|region| region.copied_bytes));
    drop(session);
    let warm_session = engine.open(&taken, "workload", trial)?;
    drop(warm_session);
    let warm = trial.record.load_ms;
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        times
            .get(((times.len() as f64 - 1.0) * share).round() as usize)
            .copied()
    };
    trial.record.p50_us = at(0.5);
    trial.record.p95_us = at(0.95);
    trial.record.load_ms = cold;
    trial.record.peak_bytes = peak();
    trial.measure("load_cold_ms", cold);
    trial.measure("load_warm_ms", warm);
    trial.measure("first_run_us", first_us);
    trial.measure("timed_runs", times.len() as f64);
    trial.measure("program_bytes", taken.bytes.len() as f64);
    let regions = taken.report.graphs.iter().flat_map(|graph| &graph.regions);
    let blobs: usize = regions
        .flat_map(|region| &region.candidates)
        .map(|c| c.blob.len())
        .sum();
    trial.measure("blob_bytes", blobs as f64);
    Ok(())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Most memory that this process had; `None` where the system does not say.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Values that repeat after a while and are near 1.
fn values(count: usize) -> Vec<u8> {
    (0..count)
        .flat_map(|i| ((i * 37 % 101) as f32 / 50.0 - 1.0).to_le_bytes())
        .collect()
}

fn leaf(shape: &[i64]) -> Leaf {
    let count: i64 = shape.iter().product();
    Leaf::Tensor {
        dtype: DType::F32,
        shape: shape.to_vec(),
        bytes: values(count as usize),
    }
}

struct Made {
    module: Module,
    graph: Graph,
}

impl Made {
    fn new() -> Made {
        Made {
            module: Module::default(),
            graph: Graph::new("forward"),
        }
    }

    fn input(&mut self, name: &str, shape: &[i64]) -> ValueId {
        self.graph.add_input(name, TensorType::fixed(DType::F32, shape).into())
    }

    fn weight(&mut self, name: &str, shape: &[i64]) -> Result<ValueId, String> {
        let sizes = Dims::new(shape).map_err(|error| error.to_string())?;
        let count: i64 = shape.iter().product();
        let constant = Constant::contiguous(name, DType::F32, sizes, values(count as usize).into());
        let id = self.module.constants.push(constant);
        Ok(self.graph.add_constant(name, TensorType::fixed(DType::F32, shape), id))
    }

    fn node(&mut self, name: &str, args: Vec<Arg>) -> Result<ValueId, String> {
        let op = Op::find(name).ok_or("an operator is not in the table")?;
        let args = delegraph_ir::fill_defaults(op, args);
        let types: Vec<Type> =
            infer(op, &args, &self.graph, &self.module.symbols).map_err(|error| error.to_string())?;
        let made = self.graph.push(name, args, types).map_err(|error| error.to_string())?;
        made.first()
            .copied()
            .ok_or_else(|| "an operator gives nothing".to_string())
    }

    fn ready(mut self, output: ValueId) -> Module {
        self.graph.add_output(output);
        self.module.graphs.push(self.graph);
        self.module
    }
}

/// Operators on vectors, one after the other; those of two arguments take the input again.
fn chain(length: i64, ops: &[&str]) -> Result<(Module, Vec<Leaf>), String> {
    let mut made = Made::new();
    let (x, y) = (made.input("x", &[length]), made.input("y", &[length]));
    let mut value = x;
    for op in ops {
        let two = op.ends_with(".Tensor");
        let args = if two {
            vec![value.into(), y.into()]
        } else {
            vec![value.into()]
        };
        value = made.node(op, args)?;
    }
    Ok((made.ready(value), vec![leaf(&[length]), leaf(&[length])]))
}

fn linear() -> Result<(Module, Vec<Leaf>), String> {
    let mut made = Made::new();
    let x = made.input("x", &[8, 256]);
    let (w, b) = (made.weight("w", &[256, 256])?, made.weight("b", &[256])?);
    let y = made.node("aten::linear", vec![x.into(), w.into(), b.into()])?;
    Ok((made.ready(y), vec![leaf(&[8, 256])]))
}

fn convolution() -> Result<(Module, Vec<Leaf>), String> {
    let mut made = Made::new();
    let x = made.input("x", &[1, 8, 32, 32]);
    let (w, b) = (made.weight("w", &[8, 8, 3, 3])?, made.weight("b", &[8])?);
    let args = vec![x.into(), w.into(), b.into(), Arg::ints(&[1, 1]), Arg::ints(&[1, 1])];
    let y = made.node("aten::conv2d", args)?;
    Ok((made.ready(y), vec![leaf(&[1, 8, 32, 32])]))
}
