//! Runs recorded calls of operators (the format of the operator corpus) as one-node graphs: decomposed, then interpreted by
//! the portable kernels, then compared with what PyTorch gave.

use delegraph_ir::{Arg, Def, Expr, Graph, MemoryFormat, Module, Node, Op, Output, TensorType, Type, ValueId};
use delegraph_kernels::{Buffer, Call, Growable, Out, Scratch, Tensor};
use delegraph_opset::BaseType;
use delegraph_passes::decompose::decompose;
use delegraph_types::{DType, Dims, Element, Operand, Scalar, bf16, f16, result_dtype};
use safetensors::SafeTensors;
use serde_json::Value;

/// What became of a case.
#[derive(Debug)]
pub enum Verdict {
    /// Equal within its tolerances.
    Passed,
    /// What went wrong.
    Failed(String),
    /// An operator is left that no kernel computes.
    NoKernel(&'static str),
    /// Complex numbers or unspecified results.
    LeftOut,
}

/// A tensor with memory of its own, row-major.
struct Stored {
    dtype: DType,
    sizes: Dims,
    memory: Growable,
}

impl Stored {
    fn new(dtype: DType, sizes: Dims, data: &[u8]) -> Result<Stored, String> {
        let mut memory = Growable::default();
        memory.reserve(data.len()).map_err(text)?.copy_from_slice(data);
        Ok(Stored { dtype, sizes, memory })
    }

    fn load(shard: &SafeTensors, key: &str) -> Result<Stored, String> {
        let view = shard.tensor(key).map_err(text)?;
        let name = format!("{:?}", view.dtype()).to_lowercase();
        let dtype = DType::from_name(&name).ok_or_else(|| format!("dtype `{name}`"))?;
        let sizes: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
        Stored::new(dtype, Dims::new(&sizes).map_err(text)?, view.data())
    }

    fn tensor(&self) -> Tensor<'_> {
        let bytes = self.sizes.numel().unwrap_or(0) * self.dtype.size();
        Tensor::contiguous(self.dtype, self.sizes, &self.memory.bytes()[..bytes]).expect("memory of its size")
    }

    fn ty(&self) -> TensorType {
        TensorType::fixed(self.dtype, &self.sizes)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Runs one case.
pub fn run_case(case: &Value, shard: &SafeTensors) -> Verdict {
    match attempt(case, shard) {
        Ok(verdict) => verdict,
        Err(problem) => Verdict::Failed(problem),
    }
}

fn attempt(case: &Value, shard: &SafeTensors) -> Result<Verdict, String> {
    if case["args"].to_string().contains("\"complex\":true") || case["out"].to_string().contains("\"complex\":true") {
        return Ok(Verdict::LeftOut);
    }
    let Some(op) = case["op"].as_str().and_then(Op::find) else {
        return Ok(Verdict::NoKernel("(not in the table)"));
    };
    let mut wants = Vec::new();
    for value in case["out"].as_array().ok_or("no `out`")? {
        if let Some(key) = value["t"].as_str() {
            wants.push(Stored::load(shard, key)?);
        } else if let Some(keys) = value["tl"].as_array() {
            for key in keys {
                wants.push(Stored::load(shard, key.as_str().unwrap_or(""))?);
            }
        } else {
            return Ok(Verdict::LeftOut);
        }
    }
    let mut module = Module::default();
    let mut graph = Graph::new("forward");
    let mut inputs = Vec::new();
    let schema = op.schema();
    let given = case["args"].as_array().ok_or("no `args`")?;
    let mut args = Vec::new();
    for param in &schema.params {
        let value = given.iter().find(|pair| pair[0].as_str() == Some(&param.name));
        let Some(value) = value else {
            // A generator: not recorded.
            args.push(Arg::None);
            continue;
        };
        let mut arg = argument(&value[1], shard, &mut graph, &mut inputs)?;
        arg = match (arg, param.ty.base, param.ty.list) {
            (Arg::Int(e), BaseType::Float, false) => Arg::Float(e.as_int().unwrap_or(0) as f64),
            (Arg::Int(e), _, true) => Arg::Ints(vec![e; usize::from(param.ty.length.unwrap_or(1))]),
            (Arg::OptionalValues(items), _, _) if !param.ty.optional_items => {
                Arg::Values(items.into_iter().flatten().collect())
            }
            (arg, _, _) => arg,
        };
        args.push(arg);
    }
    let types = wants.iter().map(|want| want.ty().into()).collect();
    let outputs = graph.push(op.name(), args, types).map_err(text)?;
    outputs.iter().for_each(|&v| graph.add_output(v));
    module.graphs.push(graph);
    decompose(&mut module, &|_, _| false).map_err(text)?;
    let graph = &module.graphs[0];
    let mut values: Vec<Option<Stored>> = (0..graph.values.len()).map(|_| None).collect();
    for (value, stored) in inputs {
        values[value.index()] = Some(stored);
    }
    for (i, value) in graph.values.iter().enumerate() {
        if let Def::Constant(id) = value.def {
            let constant = &module.constants[id];
            let bytes = constant.to_contiguous().ok_or("a constant outside of its storage")?;
            values[i] = Some(Stored::new(constant.dtype, constant.sizes, bytes.as_slice())?);
        }
    }
    for node in &graph.nodes {
        if let Some(missing) = interpret(graph, node, &mut values)? {
            return Ok(Verdict::NoKernel(missing));
        }
    }
    let (rtol, atol) = (tolerance(case, "rtol"), tolerance(case, "atol"));
    for (i, (output, want)) in graph.outputs.iter().zip(&wants).enumerate() {
        let Output::Value(output) = output else {
            return Err("an output that is no value".into());
        };
        let have = values[output.index()].as_ref().ok_or("an output that nothing made")?;
        if let Some(problem) = difference(have, want, rtol, atol) {
            return Err(format!("output {i}: {problem}"));
        }
    }
    Ok(Verdict::Passed)
}

fn tolerance(case: &Value, key: &str) -> f64 {
    case.get(key).map_or(0.0, float)
}

/// An argument of a case; tensors become inputs of the graph.
fn argument(
    value: &Value,
    shard: &SafeTensors,
    graph: &mut Graph,
    inputs: &mut Vec<(ValueId, Stored)>,
) -> Result<Arg, String> {
    let Some((kind, inner)) = value.as_object().and_then(|o| o.iter().find(|(k, _)| *k != "complex")) else {
        return Ok(Arg::None);
    };
    let items = || inner.as_array().cloned().unwrap_or_default();
    let mut tensor = |key: &str| -> Result<ValueId, String> {
        let stored = Stored::load(shard, key)?;
        let id = graph.add_input(format!("x{}", inputs.len()), stored.ty().into());
        inputs.push((id, stored));
        Ok(id)
    };
    Ok(match kind.as_str() {
        "t" => Arg::Value(tensor(inner.as_str().unwrap_or(""))?),
        "tl" => Arg::OptionalValues(
            items()
                .iter()
                .map(|key| key.as_str().map(&mut tensor).transpose())
                .collect::<Result<_, _>>()?,
        ),
        "i" => Arg::int(inner.as_i64().ok_or("integer")?),
        "f" => Arg::Float(float(inner)),
        "b" => Arg::Bool(inner.as_bool().unwrap_or(false)),
        "s" => Arg::Str(inner.as_str().unwrap_or("").to_string()),
        "il" => Arg::Ints(items().iter().map(|v| Expr::Int(v.as_i64().unwrap_or(0))).collect()),
        "fl" => Arg::Floats(items().iter().map(float).collect()),
        "bl" => Arg::Bools(items().iter().map(|v| v.as_bool().unwrap_or(false)).collect()),
        "dtype" => DType::from_name(inner.as_str().unwrap_or("")).map_or(Arg::None, Arg::DType),
        "memory_format" => match inner.as_str() {
            Some("contiguous_format") => Arg::MemoryFormat(MemoryFormat::Contiguous),
            Some("channels_last") => Arg::MemoryFormat(MemoryFormat::ChannelsLast),
            Some("preserve_format") => Arg::MemoryFormat(MemoryFormat::Preserve),
            _ => Arg::None,
        },
        _ => Arg::None,
    })
}

/// A JSON number, or `inf`, `-inf` or `nan`.
fn float(value: &Value) -> f64 {
    value
        .as_f64()
        .or_else(|| value.as_str()?.parse().ok())
        .unwrap_or(f64::NAN)
}

/// An argument as a kernel takes it, owning its lists.
enum Held {
    None,
    Int(i64),
    Float(f64),
    Bool(bool),
    Str(String),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Bools(Vec<bool>),
    Value(ValueId),
    Number(Stored),
    Values(Vec<Option<ValueId>>, bool),
}

/// Computes a node; the operator's name if there is no kernel for it.
fn interpret(graph: &Graph, node: &Node, values: &mut [Option<Stored>]) -> Result<Option<&'static str>, String> {
    let op = node.op;
    let called = op.out_variant().unwrap_or(op);
    let Some(kernel) = delegraph_kernels::find(called.name()) else {
        return Ok(Some(op.name()));
    };
    let schema = op.schema();
    let mut held = Vec::new();
    for param in called.schema().inputs() {
        let arg = schema.position(&param.name).map_or(Arg::None, |i| node.args[i].clone());
        held.push(match arg {
            Arg::None if param.name == "memory_format" => Held::None,
            Arg::None => Held::None,
            Arg::Value(v) => Held::Value(v),
            Arg::Values(vs) => Held::Values(vs.into_iter().map(Some).collect(), param.ty.optional_items),
            Arg::OptionalValues(vs) => Held::Values(vs, param.ty.optional_items),
            Arg::Int(_) | Arg::Float(_) | Arg::Bool(_) if param.ty.base == BaseType::Tensor => {
                Held::Number(number(graph, node, &arg)?)
            }
            Arg::Int(e) => {
                let i = e.as_int().ok_or("a symbol")?;
                if param.ty.base == BaseType::Float {
                    Held::Float(i as f64)
                } else {
                    Held::Int(i)
                }
            }
            Arg::Float(f) => Held::Float(f),
            Arg::Bool(b) => Held::Bool(b),
            Arg::Str(s) => Held::Str(s),
            Arg::DType(d) => Held::Int(i64::from(d.pte_code())),
            Arg::MemoryFormat(format) => Held::Int(match format {
                MemoryFormat::Contiguous => 0,
                MemoryFormat::Preserve => 1,
                MemoryFormat::ChannelsLast => 2,
                MemoryFormat::ChannelsLast3d => 3,
            }),
            Arg::Ints(items) => Held::Ints(
                items
                    .iter()
                    .map(|e| e.as_int().ok_or("a symbol"))
                    .collect::<Result<_, _>>()?,
            ),
            Arg::Floats(items) => Held::Floats(items),
            Arg::Bools(items) => Held::Bools(items),
            Arg::Scalars(_) | Arg::Sym(_) | Arg::Graph(_) => return Err(format!("an argument `{}`", param.name)),
        });
    }
    let read = |v: ValueId| {
        values[v.index()]
            .as_ref()
            .map(Stored::tensor)
            .ok_or(format!("{v} is read before it is made"))
    };
    let mut lists = Vec::new();
    for arg in &held {
        lists.push(match arg {
            Held::Values(items, _) => items
                .iter()
                .map(|v| v.map(&read).transpose())
                .collect::<Result<Vec<_>, _>>()?,
            Held::Value(v) => vec![Some(read(*v)?)],
            _ => Vec::new(),
        });
    }
    let plain: Vec<Vec<Tensor>> = lists
        .iter()
        .map(|list| list.iter().flatten().copied().collect())
        .collect();
    let args: Vec<delegraph_kernels::Arg> = held
        .iter()
        .enumerate()
        .map(|(i, arg)| match arg {
            Held::None => delegraph_kernels::Arg::None,
            Held::Int(v) => delegraph_kernels::Arg::Int(*v),
            Held::Float(v) => delegraph_kernels::Arg::Float(*v),
            Held::Bool(v) => delegraph_kernels::Arg::Bool(*v),
            Held::Str(v) => delegraph_kernels::Arg::Str(v),
            Held::Ints(v) => delegraph_kernels::Arg::Ints(v),
            Held::Floats(v) => delegraph_kernels::Arg::Floats(v),
            Held::Bools(v) => delegraph_kernels::Arg::Bools(v),
            Held::Value(_) => delegraph_kernels::Arg::Tensor(plain[i][0]),
            Held::Number(stored) => delegraph_kernels::Arg::Tensor(stored.tensor()),
            Held::Values(_, true) => delegraph_kernels::Arg::OptionalTensors(&lists[i]),
            Held::Values(_, false) => delegraph_kernels::Arg::Tensors(&plain[i]),
        })
        .collect();
    let mut memories: Vec<Growable> = node.outputs.iter().map(|_| Growable::default()).collect();
    let mut outs = Vec::new();
    for (&output, memory) in node.outputs.iter().zip(&mut memories) {
        let ty = graph.tensor(output).ok_or("a result that is no tensor")?;
        outs.push(Out::new(
            ty.dtype,
            Dims::filled(1, 0),
            Dims::SCALAR,
            Buffer::Growable(memory),
        ));
    }
    let mut scratch = Scratch::default();
    let mut call = Call {
        args: &args,
        outs: &mut outs,
        scratch: &mut scratch,
        result: None,
    };
    kernel(&mut call).map_err(|e| format!("`{}`: {e}", op.name()))?;
    let made: Vec<(DType, Dims)> = outs.iter().map(|out| (out.dtype(), *out.sizes())).collect();
    drop(outs);
    drop(args);
    for ((&output, (dtype, sizes)), memory) in node.outputs.iter().zip(made).zip(memories) {
        let want = graph.tensor(output).and_then(TensorType::static_dims);
        if want.is_some_and(|want| want != sizes) {
            let want = graph.value(output).ty.to_string();
            return Err(format!("`{}` gives {dtype}[{sizes}], its type says {want}", op.name()));
        }
        values[output.index()] = Some(Stored { dtype, sizes, memory });
    }
    Ok(None)
}

/// A wrapped number as a 0-dim tensor of the dtype that the node's tensors promote to with it.
fn number(graph: &Graph, node: &Node, arg: &Arg) -> Result<Stored, String> {
    let value = arg.as_scalar().ok_or("a symbol")?;
    let tensors = node.args.iter().filter_map(|arg| match arg {
        Arg::Value(v) => match &graph.value(*v).ty {
            Type::Tensor(t) => Some(Operand::tensor(t.dtype, t.rank())),
            _ => None,
        },
        Arg::Int(_) | Arg::Float(_) | Arg::Bool(_) => arg.as_scalar().map(Operand::Number),
        _ => None,
    });
    let dtype = result_dtype(tensors).unwrap_or(value.dtype());
    let (f, i) = (value.as_f64(), value.as_i64());
    let bytes = match dtype {
        DType::F32 => (f as f32).to_le_bytes().to_vec(),
        DType::F64 => f.to_le_bytes().to_vec(),
        DType::F16 => f16::from_f64(f).to_le_bytes().to_vec(),
        DType::BF16 => bf16::from_f64(f).to_le_bytes().to_vec(),
        DType::Bool => vec![u8::from(value.as_bool())],
        _ => i.to_le_bytes()[..dtype.size()].to_vec(),
    };
    Stored::new(dtype, Dims::SCALAR, &bytes)
}

fn difference(have: &Stored, want: &Stored, rtol: f64, atol: f64) -> Option<String> {
    if have.sizes != want.sizes || have.dtype != want.dtype {
        return Some(format!(
            "{}[{}] instead of {}[{}]",
            have.dtype, have.sizes, want.dtype, want.sizes
        ));
    }
    let (a, b) = (have.tensor(), want.tensor());
    let count = want.sizes.numel().unwrap_or(0);
    let differs = |i: usize| {
        let (a, b) = (element(&a, i), element(&b, i));
        match want.dtype.is_float() {
            true => !close(a.as_f64(), b.as_f64(), rtol, atol),
            false => a.as_i64() != b.as_i64(),
        }
    };
    let wrong: Vec<usize> = (0..count).filter(|&i| differs(i)).collect();
    let first = *wrong.first()?;
    Some(format!(
        "{} of {count} wrong, at {first} {} instead of {} ({}, {})",
        wrong.len(),
        element(&a, first),
        element(&b, first),
        want.dtype,
        want.sizes
    ))
}

fn close(have: f64, want: f64, rtol: f64, atol: f64) -> bool {
    let near = (have - want).abs() <= atol + rtol * want.abs() && want.is_finite();
    have == want || (have.is_nan() && want.is_nan()) || near
}

fn element(tensor: &Tensor, at: usize) -> Scalar {
    fn read<T: Element>(tensor: &Tensor, at: usize) -> T {
        tensor.data::<T>().expect("its dtype")[at]
    }
    match tensor.dtype() {
        DType::Bool | DType::U8 => Scalar::Int(i64::from(read::<u8>(tensor, at))),
        DType::I8 => Scalar::Int(i64::from(read::<i8>(tensor, at))),
        DType::I16 => Scalar::Int(i64::from(read::<i16>(tensor, at))),
        DType::I32 => Scalar::Int(i64::from(read::<i32>(tensor, at))),
        DType::I64 => Scalar::Int(read::<i64>(tensor, at)),
        DType::F16 => Scalar::Float(f64::from(read::<f16>(tensor, at))),
        DType::BF16 => Scalar::Float(f64::from(read::<bf16>(tensor, at))),
        DType::F32 => Scalar::Float(f64::from(read::<f32>(tensor, at))),
        DType::F64 => Scalar::Float(read::<f64>(tensor, at)),
        _ => Scalar::Float(f64::NAN),
    }
}
