//! A recorded call of an operator as a program of one node, through all of Delegraph.

use crate::leaf::{leaf, value};
use delegraph::{LoadOptions, Session, Source};
use delegraph_config::Config;
use delegraph_host::Host;
use delegraph_ir::{
    Arg, Constant, Expr, Graph, InferError, MemoryFormat, Module, Op, Symbol, TensorType, Type, ValueId, infer,
};
use delegraph_opset::{BaseType, ParamType};
use delegraph_runner::corpus::{Argument, OpCase, Want};
use delegraph_runner::fixture::Tensors;
use delegraph_runner::{CaseRecord, Leaf, Verdict};
use delegraph_types::{DType, Dims, Scalar};
use std::sync::Arc;
use std::time::Instant;

/// Compiles, loads and runs calls. Every call is compiled anew; the delegates are loaded once.
pub struct Caller {
    config: Config,
    host: Arc<Host>,
}

impl Caller {
    /// With the delegates of `host` that the configuration allows.
    pub fn new(config: Config, host: Host) -> Caller {
        let host = Arc::new(host);
        Caller { config, host }
    }

    /// Runs a case.
    pub fn run(&self, case: &OpCase, tensors: &Tensors) -> CaseRecord {
        let started = Instant::now();
        let mut record = CaseRecord::new(case.id(), Verdict::Pass, "");
        record.op = case.op.clone();
        record.dtype = case.dtype(tensors);
        record.tolerance = format!("rtol {:e}, atol {:e}", case.tolerance.rtol, case.tolerance.atol);
        if let Err(reason) = self.judge(case, tensors, &mut record) {
            record.verdict = Verdict::Fail;
            record.reason = reason;
        }
        record.total_ms = started.elapsed().as_secs_f64() * 1e3;
        record
    }

    fn judge(&self, case: &OpCase, tensors: &Tensors, record: &mut CaseRecord) -> Result<(), String> {
        let got = self.execute(case, tensors, record)?;
        let difference = case.judge(&got, tensors)?;
        record.max_abs = difference.max_abs;
        record.max_rel = difference.max_rel;
        Ok(())
    }

    /// Compiles, loads and runs a case: what it gives.
    ///
    /// # Errors
    /// A sentence that says why it gives nothing.
    pub fn execute(&self, case: &OpCase, tensors: &Tensors, record: &mut CaseRecord) -> Result<Vec<Leaf>, String> {
        let started = Instant::now();
        let (bytes, inputs) = self.compile(case, tensors)?;
        record.compile_ms = started.elapsed().as_secs_f64() * 1e3;
        let started = Instant::now();
        let source = Source::from_bytes(bytes, case.id());
        let mut session = Session::open(&source, &self.config, &self.host, LoadOptions::default()).map_err(text)?;
        record.load_ms = started.elapsed().as_secs_f64() * 1e3;
        let given: Vec<_> = inputs
            .iter()
            .map(|input| value(input))
            .collect::<Result<_, _>>()
            .map_err(text)?;
        session.run(&given).map_err(text)?;
        let got: Vec<Leaf> = (0..session.output_count())
            .map(|i| session.output(i).map(leaf).map_err(text))
            .collect::<Result<_, _>>()?;
        let report = session.report();
        record.delegated_nodes = report.delegated_nodes();
        record.undelegated_nodes = report.portable_nodes;
        record.fallbacks = report.fallbacks();
        Ok(got)
    }

    /// The program of a case, and what goes in.
    ///
    /// # Errors
    /// A sentence that says why there is none.
    pub fn compile<'t>(&self, case: &OpCase, tensors: &'t Tensors) -> Result<(Vec<u8>, Vec<&'t Leaf>), String> {
        let (mut module, inputs) = program(case, tensors, &[])?;
        delegraph_passes::simplify(&mut module).map_err(text)?;
        delegraph_ir::verify(&module).map_err(text)?;
        let compiled = delegraph::compile(module, &self.config, &self.host, &mut |_| {}).map_err(text)?;
        Ok((compiled.bytes, inputs))
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// One node; the tensors of the case are its inputs, but for those of the parameters named in `constants`, which are weights.
///
/// # Errors
/// A sentence that says why there is none: the operator is not in the table, or type inference and PyTorch disagree.
pub fn program<'t>(
    case: &OpCase,
    tensors: &'t Tensors,
    constants: &[String],
) -> Result<(Module, Vec<&'t Leaf>), String> {
    let called = Op::find(&case.op).ok_or("the operator is not in the table")?;
    let op = functional(called).ok_or("the operator writes to its arguments, and has no functional form")?;
    let mut maker = Maker {
        tensors,
        module: Module::default(),
        graph: Graph::new("forward"),
        inputs: Vec::new(),
        constant: false,
    };
    let mut args = Vec::new();
    for param in &op.schema().params {
        maker.constant = constants.contains(&param.name);
        // What is not recorded is a generator.
        args.push(match case.arg(&param.name) {
            Some(arg) => maker
                .argument(arg, param.ty)
                .map_err(|p| format!("argument `{}`: {p}", param.name))?,
            None => Arg::None,
        });
    }
    let types = maker.result_types(case, op, &args)?;
    let results = maker.graph.push(op.name(), args, types).map_err(text)?;
    // A functional form returns the new values of arguments besides, which are not recorded.
    let written = op.schema().returns.len().saturating_sub(called.schema().returns.len());
    for &result in &results[..results.len() - written.min(results.len())] {
        maker.graph.add_output(result);
    }
    maker.module.graphs.push(maker.graph);
    Ok((maker.module, maker.inputs))
}

/// The operator as it stands in a graph, which holds nothing that writes to its arguments: importing sees to that.
pub fn functional(op: Op) -> Option<Op> {
    let schema = op.schema();
    if schema.outs().next().is_some() {
        return op.functional();
    }
    if !schema.params.iter().any(|param| param.mutated) {
        return Some(op);
    }
    let (base, overload) = op.name().split_once('.').unwrap_or((op.name(), ""));
    let dot = if overload.is_empty() { "" } else { "." };
    match base.strip_suffix('_') {
        Some(base) => Op::find(&format!("{base}{dot}{overload}")),
        None => Op::find(&format!("{base}_functional{dot}{overload}")),
    }
}

struct Maker<'t> {
    tensors: &'t Tensors,
    module: Module,
    graph: Graph,
    inputs: Vec<&'t Leaf>,
    /// Whether the tensors of the argument at hand are weights.
    constant: bool,
}

impl<'t> Maker<'t> {
    fn tensor(&self, key: &str) -> Result<(&'t Leaf, TensorType), String> {
        match self.tensors.get(key) {
            Some(leaf @ Leaf::Tensor { dtype, shape, .. }) => Ok((leaf, TensorType::fixed(*dtype, shape))),
            _ => Err(format!("the shard has no tensor `{key}`")),
        }
    }

    fn input(&mut self, key: &str) -> Result<ValueId, String> {
        let (leaf, ty) = self.tensor(key)?;
        if self.constant
            && let Leaf::Tensor { dtype, shape, bytes } = leaf
        {
            let name = format!("w{}", self.module.constants.len());
            let sizes = Dims::new(shape).map_err(text)?;
            let constant = Constant::contiguous(&name, *dtype, sizes, bytes.clone().into());
            let id = self.module.constants.push(constant);
            return Ok(self.graph.add_constant(name, ty, id));
        }
        self.inputs.push(leaf);
        Ok(self.graph.add_input(format!("x{}", self.inputs.len() - 1), ty.into()))
    }

    fn argument(&mut self, arg: &Argument, ty: ParamType) -> Result<Arg, String> {
        Ok(match arg {
            Argument::Tensor(key) => Arg::Value(self.input(key)?),
            Argument::Tensors(keys) => {
                let keys = keys
                    .iter()
                    .map(|key| key.as_deref().map(|key| self.input(key)).transpose());
                let values = keys.collect::<Result<Vec<_>, _>>()?;
                match ty.optional_items {
                    true => Arg::OptionalValues(values),
                    false => Arg::Values(values.into_iter().flatten().collect()),
                }
            }
            plain => return literal(plain, ty),
        })
    }

    /// The types that an exported program would state: those of the recorded results, which type inference has to agree with.
    fn result_types(&mut self, case: &OpCase, op: Op, args: &[Arg]) -> Result<Vec<Type>, String> {
        let mut wanted = Vec::new();
        for want in &case.out {
            match want {
                Want::Tensor(key) => wanted.push(Some(Type::from(self.tensor(key)?.1))),
                Want::Tensors(keys) => {
                    for key in keys {
                        wanted.push(Some(self.tensor(key)?.1.into()));
                    }
                }
                Want::Meta { dtype: name, shape } => wanted.push(Some(TensorType::fixed(dtype(name)?, shape).into())),
                Want::Number(Scalar::Int(_)) => wanted.push(Some(Type::Int(Expr::symbol("u0")))),
                Want::Number(Scalar::Float(_)) => wanted.push(Some(Type::Float)),
                Want::Number(Scalar::Bool(_)) => wanted.push(Some(Type::Bool)),
                Want::Skip => wanted.push(None),
            }
        }
        match infer(op, args, &self.graph, &self.module.symbols) {
            Ok(inferred) => {
                // New values of arguments come last, and are not recorded.
                if Some(op) != Op::find(&case.op) && wanted.len() < inferred.len() {
                    wanted.resize(inferred.len(), None);
                }
                let agree = inferred.len() == wanted.len()
                    && inferred
                        .iter()
                        .zip(&wanted)
                        .all(|(a, b)| b.as_ref().is_none_or(|b| agrees(a, b)));
                match agree {
                    true => Ok(inferred),
                    false => Err(format!(
                        "type inference gives {}, PyTorch {}",
                        listed(inferred.iter().map(Some)),
                        listed(wanted.iter().map(Option::as_ref))
                    )),
                }
            }
            // The exporter names sizes that depend on data with symbols.
            Err(InferError::DataDependent { .. }) => {
                let types = wanted
                    .into_iter()
                    .map(|ty| ty.ok_or("a result of unknown type".to_string()));
                let mut types = types.collect::<Result<Vec<_>, _>>()?;
                self.name_sizes(op, &mut types);
                Ok(types)
            }
            Err(InferError::Unsupported { .. }) if wanted.iter().all(Option::is_some) => {
                Ok(wanted.into_iter().flatten().collect())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Symbols in place of the sizes that depend on data, with the recorded ones as no more than an example.
    fn name_sizes(&mut self, op: Op, types: &mut [Type]) {
        let mut symbols = 0;
        for ty in types {
            let Type::Tensor(ty) = ty else { continue };
            let dims: Vec<usize> = match op.name() {
                // [count, rank]
                "aten::nonzero" | "aten::argwhere" => vec![0],
                "aten::one_hot" => vec![ty.rank().saturating_sub(1)],
                _ => (0..ty.rank()).collect(),
            };
            for dim in dims {
                ty.shape[dim] = Expr::Symbol(Symbol::new(&format!("u{symbols}")));
                symbols += 1;
            }
        }
    }
}

/// An argument that is no tensor.
///
/// # Errors
/// It is one, or Delegraph has no such value.
pub(crate) fn literal(arg: &Argument, ty: ParamType) -> Result<Arg, String> {
    Ok(match arg {
        Argument::None | Argument::Place => Arg::None,
        Argument::Tensor(_) | Argument::Tensors(_) => return Err("a tensor where a plain value is meant".to_string()),
        // One integer stands for a list of equal ones.
        Argument::Number(Scalar::Int(i)) if ty.list => Arg::ints(&vec![*i; usize::from(ty.length.unwrap_or(1))]),
        Argument::Number(Scalar::Int(i)) if ty.base == BaseType::Float => Arg::Float(*i as f64),
        Argument::Number(number) => Arg::scalar(*number),
        Argument::Str(s) => Arg::Str(s.clone()),
        Argument::Ints(items) if ty.base == BaseType::Float => Arg::Floats(items.iter().map(|i| *i as f64).collect()),
        Argument::Ints(items) => Arg::ints(items),
        Argument::Floats(items) => Arg::Floats(items.clone()),
        Argument::Bools(items) => Arg::Bools(items.clone()),
        Argument::Scalars(items) => Arg::Scalars(items.clone()),
        Argument::DType(name) => Arg::DType(dtype(name)?),
        Argument::MemoryFormat(name) => Arg::MemoryFormat(match name.as_str() {
            "contiguous_format" => MemoryFormat::Contiguous,
            "preserve_format" => MemoryFormat::Preserve,
            "channels_last" => MemoryFormat::ChannelsLast,
            "channels_last_3d" => MemoryFormat::ChannelsLast3d,
            _ => return Err(format!("memory format `{name}`")),
        }),
    })
}

/// A dtype by PyTorch's name.
pub(crate) fn dtype(name: &str) -> Result<DType, String> {
    DType::from_name(name).ok_or_else(|| format!("dtype `{name}` is not supported"))
}

/// Equal, but for what an integer is called.
fn agrees(a: &Type, b: &Type) -> bool {
    a == b || matches!((a, b), (Type::Int(_), Type::Int(_)))
}

fn listed<'t>(types: impl Iterator<Item = Option<&'t Type>>) -> String {
    let types: Vec<String> = types.map(|ty| ty.map_or("?".to_string(), Type::to_string)).collect();
    types.join(", ")
}
