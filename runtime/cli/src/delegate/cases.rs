//! Ten small graphs of one operator each, which come with the command: what a first delegate takes first.

use delegraph::{Dims, LoadOptions, Session, Source, Value};
use delegraph_config::Config;
use delegraph_host::Host;
use delegraph_ir::{Arg, Constant, Graph, Module, Op, TensorType, ValueId, infer};
use delegraph_lower::Lowered;
use delegraph_types::{DType, Scalar};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// What became of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The delegate ran it, and the results are those of the portable kernels.
    Pass,
    /// The delegate took it, and failed or gave other results.
    Fail,
    /// The delegate did not take it.
    NotTaken,
}

/// A case and what became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Name of the case.
    pub id: String,
    /// The operator.
    pub op: String,
    /// What became of it.
    pub verdict: Verdict,
    /// Why it is not taken, or what is wrong.
    pub reason: String,
    /// Largest difference from the portable kernels.
    pub max_abs: f64,
}

/// A case: its name, its operator, the sizes of its inputs (f32), and how its arguments are made.
struct Case {
    id: &'static str,
    op: &'static str,
    inputs: &'static [&'static [i64]],
    args: fn(&mut Maker, &[ValueId]) -> Vec<Arg>,
}

/// In the order in which a first delegate learns them.
const CASES: [Case; 10] = [
    Case {
        id: "add",
        op: "aten::add.Tensor",
        inputs: &[&[2, 3], &[2, 3]],
        args: with_alpha,
    },
    Case {
        id: "sub",
        op: "aten::sub.Tensor",
        inputs: &[&[2, 3], &[2, 3]],
        args: with_alpha,
    },
    Case {
        id: "mul",
        op: "aten::mul.Tensor",
        inputs: &[&[2, 3], &[2, 3]],
        args: plain,
    },
    Case {
        id: "relu",
        op: "aten::relu",
        inputs: &[&[2, 3]],
        args: plain,
    },
    Case {
        id: "sigmoid",
        op: "aten::sigmoid",
        inputs: &[&[2, 3]],
        args: plain,
    },
    Case {
        id: "add-broadcast",
        op: "aten::add.Tensor",
        inputs: &[&[2, 3], &[3]],
        args: with_alpha,
    },
    Case {
        id: "softmax",
        op: "aten::softmax.int",
        inputs: &[&[2, 5]],
        args: last_dimension,
    },
    Case {
        id: "matmul",
        op: "aten::mm",
        inputs: &[&[2, 3], &[3, 4]],
        args: plain,
    },
    Case {
        id: "linear",
        op: "aten::linear",
        inputs: &[&[2, 3]],
        args: |maker, x| {
            vec![
                Arg::Value(x[0]),
                maker.weight("weight", &[4, 3]),
                maker.weight("bias", &[4]),
            ]
        },
    },
    Case {
        id: "conv2d",
        op: "aten::conv2d",
        inputs: &[&[1, 2, 5, 5]],
        args: |maker, x| {
            let (weight, bias) = (maker.weight("weight", &[3, 2, 3, 3]), maker.weight("bias", &[3]));
            let ones = || Arg::ints(&[1, 1]);
            vec![Arg::Value(x[0]), weight, bias, ones(), ones(), ones(), Arg::int(1)]
        },
    },
];

fn plain(_: &mut Maker, inputs: &[ValueId]) -> Vec<Arg> {
    inputs.iter().map(|input| Arg::Value(*input)).collect()
}

fn with_alpha(maker: &mut Maker, inputs: &[ValueId]) -> Vec<Arg> {
    let mut args = plain(maker, inputs);
    args.push(Arg::scalar(Scalar::Int(1)));
    args
}

fn last_dimension(maker: &mut Maker, inputs: &[ValueId]) -> Vec<Arg> {
    let mut args = plain(maker, inputs);
    args.extend([Arg::int(-1), Arg::None]);
    args
}

struct Maker {
    module: Module,
    graph: Graph,
}

impl Maker {
    /// A weight as an argument.
    fn weight(&mut self, name: &str, sizes: &[i64]) -> Arg {
        let dims = Dims::new(sizes).unwrap_or_default();
        let constant = Constant::contiguous(name, DType::F32, dims, numbers(sizes, 5).into());
        let id = self.module.constants.push(constant);
        Arg::Value(self.graph.add_constant(name, TensorType::fixed(DType::F32, &dims), id))
    }
}

/// Small numbers of both signs, none of them special; bytes of f32.
fn numbers(sizes: &[i64], seed: i64) -> Vec<u8> {
    let count: i64 = sizes.iter().product();
    (0..count)
        .flat_map(|i| (((i * 7 + seed * 3) % 11 - 5) as f32 * 0.375).to_le_bytes())
        .collect()
}

/// How many cases there are.
pub fn count() -> usize {
    CASES.len()
}

/// Name of a case.
pub fn name(case: usize) -> &'static str {
    CASES[case].id
}

/// Runs a case over a delegate.
pub fn run(case: usize, backend: &str, config: &Config, host: &Arc<Host>) -> Outcome {
    let case = &CASES[case];
    let mut outcome = Outcome {
        id: case.id.to_string(),
        op: case.op.to_string(),
        verdict: Verdict::Pass,
        reason: String::new(),
        max_abs: 0.0,
    };
    if let Err((verdict, reason)) = judge(case, backend, config, host, &mut outcome.max_abs) {
        (outcome.verdict, outcome.reason) = (verdict, reason);
    }
    outcome
}

fn judge(
    case: &Case,
    backend: &str,
    config: &Config,
    host: &Arc<Host>,
    max_abs: &mut f64,
) -> Result<(), (Verdict, String)> {
    let fail = |problem: String| (Verdict::Fail, problem);
    let portable = execute(case, &Config::default(), host).map_err(fail)?;
    let ran = execute(case, &over(backend, config), host).map_err(fail)?;
    if ran.delegated == 0 {
        return Err(refusal(&ran.lowered));
    }
    if let Some(why) = ran.fallback {
        return Err(fail(format!("it took the node, but did not run it: {why}")));
    }
    compare(&ran.result, &portable.result, &ran.precision, max_abs).map_err(fail)
}

/// As elsewhere: a delegate that states a lower precision is judged by that.
fn compare(got: &[f32], right: &[f32], precision: &str, max_abs: &mut f64) -> Result<(), String> {
    let range = f64::from(right.iter().fold(0f32, |most, x| most.max(x.abs())));
    let bound = match precision {
        "" => 1e-5 + 1e-4 * range,
        "f16" => 2e-3 * range,
        "bf16" => 2e-2 * range,
        _ => 5e-2 * range,
    };
    if got.len() != right.len() {
        return Err(format!("{} elements, where {} are right", got.len(), right.len()));
    }
    for (i, (got, right)) in got.iter().zip(right).enumerate() {
        let difference = (f64::from(*got) - f64::from(*right)).abs();
        *max_abs = max_abs.max(difference);
        // A NaN is no small difference.
        if difference.is_nan() || difference > bound {
            return Err(format!("element {i} is {got}, where {right} is right"));
        }
    }
    Ok(())
}

/// Why nothing was delegated: it was refused, or taken and then not compiled.
fn refusal(lowered: &Lowered) -> (Verdict, String) {
    let graphs = || lowered.graphs.iter();
    if let Some(problem) = graphs().flat_map(|graph| &graph.problems).next() {
        return (
            Verdict::Fail,
            format!("it took the node, but did not compile it: {}", problem.message),
        );
    }
    if let Some(problem) = lowered.backends.iter().find_map(|state| state.problem.clone()) {
        return (Verdict::Fail, problem);
    }
    let refusals = graphs().flat_map(|graph| &graph.nodes).flat_map(|node| &node.refusals);
    let reason = refusals.map(|refusal| refusal.reason.clone()).next();
    (Verdict::NotTaken, reason.unwrap_or_default())
}

/// Compiles every case that a delegate takes, into a file a case: what those who have its library may have of it.
///
/// # Errors
/// A file cannot be written.
pub fn keep(folder: &Path, backend: &str, host: &Arc<Host>) -> std::io::Result<()> {
    let config = over(backend, &Config::default());
    for case in &CASES {
        let compiled = module(case).and_then(|module| {
            delegraph::compile(module, &config, host, &mut |_| {}).map_err(|error| error.to_string())
        });
        if let Ok(compiled) = compiled
            && compiled.report.coverage().delegated_nodes > 0
        {
            std::fs::write(
                folder.join(format!("{}.precision", case.id)),
                precision(&compiled.report),
            )?;
            std::fs::write(folder.join(case.id), compiled.bytes)?;
        }
    }
    Ok(())
}

/// Runs what [`keep`] wrote, perhaps of another library: it passes, fails, or is not taken, if the blob is refused.
pub fn replay(case: usize, folder: &Path, backend: &str, host: &Arc<Host>) -> Option<Outcome> {
    let case = &CASES[case];
    let bytes = std::fs::read(folder.join(case.id)).ok()?;
    let precision = std::fs::read_to_string(folder.join(format!("{}.precision", case.id))).unwrap_or_default();
    let mut outcome = Outcome {
        id: case.id.to_string(),
        op: case.op.to_string(),
        verdict: Verdict::Pass,
        reason: String::new(),
        max_abs: 0.0,
    };
    let fail = |problem: String| (Verdict::Fail, problem);
    let judged = execute(case, &Config::default(), host)
        .map_err(fail)
        .and_then(|portable| {
            let (result, state) = load_and_run(case, bytes, &over(backend, &Config::default()), host).map_err(fail)?;
            match state {
                State::Refused(why) => Err((Verdict::NotTaken, why)),
                State::Failed(why) => Err(fail(why)),
                State::Ran => compare(&result, &portable.result, &precision, &mut outcome.max_abs).map_err(fail),
            }
        });
    if let Err((verdict, reason)) = judged {
        (outcome.verdict, outcome.reason) = (verdict, reason);
    }
    Some(outcome)
}

/// The configuration that wants a delegate.
fn over(backend: &str, config: &Config) -> Config {
    let mut over = config.clone();
    over.select.order = vec![backend.to_string()];
    over.select.min_nodes = 1;
    over
}

/// What a case gave.
struct Ran {
    result: Vec<f32>,
    delegated: u64,
    precision: String,
    fallback: Option<String>,
    lowered: Lowered,
}

/// What became of a program's regions.
enum State {
    /// Delegates ran them, or there are none.
    Ran,
    /// No delegate wanted the blob.
    Refused(String),
    /// A delegate wanted it, and failed.
    Failed(String),
}

/// Compiles, loads and runs a case.
fn execute(case: &Case, config: &Config, host: &Arc<Host>) -> Result<Ran, String> {
    let compiled = delegraph::compile(module(case)?, config, host, &mut |_| {}).map_err(text)?;
    let (result, state) = load_and_run(case, compiled.bytes, config, host)?;
    Ok(Ran {
        result,
        delegated: compiled.report.coverage().delegated_nodes,
        precision: precision(&compiled.report),
        fallback: match state {
            State::Ran => None,
            State::Refused(why) | State::Failed(why) => Some(why),
        },
        lowered: compiled.report,
    })
}

/// The lower precision that the first blob states.
fn precision(lowered: &Lowered) -> String {
    let regions = lowered.graphs.iter().flat_map(|graph| &graph.regions);
    let mut candidates = regions.flat_map(|region| &region.candidates);
    candidates
        .next()
        .map_or(String::new(), |candidate| candidate.precision.clone())
}

/// Loads a program of a case and runs it.
fn load_and_run(case: &Case, program: Vec<u8>, config: &Config, host: &Arc<Host>) -> Result<(Vec<f32>, State), String> {
    let source = Source::from_bytes(program, case.id);
    let mut session = Session::open(&source, config, host, LoadOptions::default()).map_err(text)?;
    let refused = session.report().regions.iter().any(|region| region.backend.is_none());
    let mut given = Vec::new();
    for (i, sizes) in case.inputs.iter().enumerate() {
        given.push((Dims::new(sizes).map_err(text)?, numbers(sizes, i as i64)));
    }
    let inputs: Vec<Value<'_>> = given
        .iter()
        .map(|(dims, bytes)| Value::tensor(DType::F32, *dims, bytes))
        .collect();
    session.run(&inputs).map_err(text)?;
    let Value::Tensor(tensor) = session.output(0).map_err(text)? else {
        return Err("the result is no tensor".to_string());
    };
    let bytes = tensor.to_contiguous();
    let numbers = bytes.chunks_exact(4);
    let result = numbers.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let report = session.report();
    let mut reasons = report.regions.iter().flat_map(|region| &region.refusals);
    let reason = reasons.next().map_or(String::new(), |(_, why)| why.clone());
    let state = match (refused, report.fallbacks()) {
        (true, _) => State::Refused(reason),
        (false, 0) => State::Ran,
        (false, _) => State::Failed(reason),
    };
    Ok((result, state))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The graph of a case.
fn module(case: &Case) -> Result<Module, String> {
    let op = Op::find(case.op).ok_or_else(|| format!("`{}` is not in the table", case.op))?;
    let mut maker = Maker {
        module: Module::default(),
        graph: Graph::new("forward"),
    };
    let inputs: Vec<ValueId> = case
        .inputs
        .iter()
        .enumerate()
        .map(|(i, sizes)| {
            let dims = Dims::new(sizes).unwrap_or_default();
            maker
                .graph
                .add_input(format!("x{i}"), TensorType::fixed(DType::F32, &dims).into())
        })
        .collect();
    let args = (case.args)(&mut maker, &inputs);
    let args = delegraph_ir::fill_defaults(op, args);
    let types = infer(op, &args, &maker.graph, &maker.module.symbols).map_err(|error| error.to_string())?;
    let results = maker
        .graph
        .push(case.op, args, types)
        .map_err(|error| error.to_string())?;
    for result in results {
        maker.graph.add_output(result);
    }
    maker.module.graphs.push(maker.graph);
    delegraph_ir::verify(&maker.module).map_err(|error| error.to_string())?;
    Ok(maker.module)
}

#[cfg(test)]
mod tests {
    use super::*;
    use delegraph_host::HostOptions;

    #[test]
    fn every_case_runs_portably_and_is_offered() {
        let host = Arc::new(Host::discover(HostOptions::default()));
        for case in &CASES {
            let ran =
                execute(case, &Config::default(), &host).unwrap_or_else(|problem| panic!("{}: {problem}", case.id));
            assert!(ran.result.iter().any(|x| *x != 0.0), "{}", case.id);
        }
        let add = execute(&CASES[0], &Config::default(), &host).unwrap();
        // By hand: 0.375 * (-5 - 2), 0.375 * (2 + 5), 0.375 * (-2 + 1).
        assert_eq!(add.result[..3], [-2.625, 2.625, -0.375]);
    }
}
