//! Ten small graphs of one operator each, which come with the command: what a first delegate takes first.

use delegraph::{Dims, LoadOptions, Session, Source, Value};
use delegraph_config::Config;
use delegraph_host::Host;
use delegraph_ir::{Arg, Constant, Graph, Module, Op, TensorType, ValueId, infer};
use delegraph_lower::Lowered;
use delegraph_types::{DType, Scalar};
use serde::{Deserialize, Serialize};
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
    let mut over = config.clone();
    over.select.order = vec![backend.to_string()];
    over.select.min_nodes = 1;
    let ran = execute(case, &over, host).map_err(fail)?;
    if ran.delegated == 0 {
        return Err(refusal(&ran.lowered));
    }
    if let Some(why) = ran.fallback {
        return Err(fail(format!("it took the node, but did not run it: {why}")));
    }
    let range = portable.result.iter().fold(0f32, |most, x| most.max(x.abs()));
    // As elsewhere: a delegate that states a lower precision is judged by that.
    let bound = match ran.precision.as_str() {
        "" => 1e-5 + 1e-4 * f64::from(range),
        "f16" => 2e-3 * f64::from(range),
        "bf16" => 2e-2 * f64::from(range),
        _ => 5e-2 * f64::from(range),
    };
    if ran.result.len() != portable.result.len() {
        let (got, want) = (ran.result.len(), portable.result.len());
        return Err(fail(format!("{got} elements, where {want} are right")));
    }
    for (i, (got, want)) in ran.result.iter().zip(&portable.result).enumerate() {
        let difference = f64::from(*got) - f64::from(*want);
        *max_abs = max_abs.max(difference.abs());
        // A NaN is no small difference.
        if !(difference.abs() <= bound) {
            return Err(fail(format!("element {i} is {got}, where {want} is right")));
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

/// What a case gave.
struct Ran {
    result: Vec<f32>,
    delegated: u64,
    precision: String,
    fallback: Option<String>,
    lowered: Lowered,
}

/// Compiles, loads and runs a case.
fn execute(case: &Case, config: &Config, host: &Arc<Host>) -> Result<Ran, String> {
    fn text(error: impl std::fmt::Display) -> String {
        error.to_string()
    }
    let compiled = delegraph::compile(module(case)?, config, host, &mut |_| {}).map_err(text)?;
    let precision = compiled
        .report
        .graphs
        .iter()
        .flat_map(|graph| &graph.regions)
        .flat_map(|region| &region.candidates);
    let precision = precision
        .map(|candidate| candidate.precision.clone())
        .next()
        .unwrap_or_default();
    let source = Source::from_bytes(compiled.bytes, case.id);
    let mut session = Session::open(&source, config, host, LoadOptions::default()).map_err(text)?;
    let given: Vec<Vec<u8>> = case
        .inputs
        .iter()
        .enumerate()
        .map(|(i, sizes)| numbers(sizes, i as i64))
        .collect();
    let mut inputs = Vec::new();
    for (sizes, bytes) in case.inputs.iter().zip(&given) {
        inputs.push(Value::tensor(DType::F32, Dims::new(sizes).map_err(text)?, bytes));
    }
    session.run(&inputs).map_err(text)?;
    let Value::Tensor(tensor) = session.output(0).map_err(text)? else {
        return Err("the result is no tensor".to_string());
    };
    let bytes = tensor.to_contiguous();
    let result = bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    let report = session.report();
    let refused = report
        .regions
        .iter()
        .flat_map(|region| &region.refusals)
        .map(|(_, why)| why.clone())
        .next();
    Ok(Ran {
        result,
        delegated: compiled.report.coverage().delegated_nodes,
        precision,
        fallback: (report.fallbacks() > 0).then(|| refused.unwrap_or_default()),
        lowered: compiled.report,
    })
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
