//! Runs a corpus of operator calls over the registered kernels and compares with the recorded results.
//!
//! `cargo run -p delegraph-kernels --example corpus -- FOLDER [--op GLOB] [--fails N] [--strided] [--missing]`
//!
//! FOLDER holds `index.jsonl` and its `.safetensors` shards. `--strided` lays inputs and outputs out in memory with the
//! last dimension outermost; `--missing` lists operators that have no kernel; `--fails` is how many failures of an operator to print.

use delegraph_kernels::{Arg, Buffer, Call, Growable, Kernel, Out, Scratch, Tensor, find};
use delegraph_opset::{BaseType, Op, Schema};
use delegraph_types::{DType, Dims, Element, Scalar, bf16, f16};
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::ExitCode;

type Problem = Box<dyn std::error::Error>;

struct Options {
    folder: String,
    glob: String,
    fails: usize,
    strided: bool,
    missing: bool,
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    no_kernel: usize,
    left_out: usize,
}

/// What became of a case.
enum Verdict {
    Passed,
    Failed(String),
    NoKernel,
    LeftOut,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(2)
        }
    }
}

fn options() -> Result<Options, Problem> {
    let mut options = Options {
        folder: String::new(),
        glob: "*".into(),
        fails: 3,
        strided: false,
        missing: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--op" => options.glob = words.next().ok_or("--op needs a pattern")?,
            "--fails" => options.fails = words.next().ok_or("--fails needs a number")?.parse()?,
            "--strided" => options.strided = true,
            "--missing" => options.missing = true,
            _ => options.folder = word,
        }
    }
    if options.folder.is_empty() {
        return Err("usage: corpus FOLDER [--op GLOB] [--fails N] [--strided] [--missing]".into());
    }
    Ok(options)
}

/// True if every case with a kernel passed.
fn run(options: &Options) -> Result<bool, Problem> {
    let index = std::fs::read_to_string(format!("{}/index.jsonl", options.folder))?;
    let mut shards: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    std::panic::set_hook(Box::new(|_| {}));
    for line in index.lines() {
        let case: Value = serde_json::from_str(line)?;
        let name = case["op"].as_str().ok_or("case without op")?;
        if !options
            .glob
            .split(',')
            .any(|glob| matches(glob.as_bytes(), name.as_bytes()))
        {
            continue;
        }
        let number = case["shard"].as_u64().ok_or("case without shard")?;
        if let std::collections::btree_map::Entry::Vacant(slot) = shards.entry(number) {
            slot.insert(std::fs::read(format!("{}/shard-{number}.safetensors", options.folder))?);
        }
        let shard = SafeTensors::deserialize(&shards[&number])?;
        let verdict = std::panic::catch_unwind(|| check(&case, &shard, options.strided)).unwrap_or_else(|cause| {
            let text = cause.downcast_ref::<String>().map(String::as_str);
            let text = text.or(cause.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Ok(Verdict::Failed(format!("PANIC: {text}")))
        })?;
        let tally = tallies.entry(name.to_string()).or_default();
        match verdict {
            Verdict::Passed => tally.passed += 1,
            Verdict::NoKernel => tally.no_kernel += 1,
            Verdict::LeftOut => tally.left_out += 1,
            Verdict::Failed(why) => {
                if tally.failed < options.fails {
                    println!(
                        "FAIL {name} {}: {why}\n     {}",
                        case["id"].as_str().unwrap_or(""),
                        case["args"]
                    );
                }
                tally.failed += 1;
            }
        }
    }
    let mut sum = Tally::default();
    for (name, tally) in &tallies {
        let done = tally.failed == 0 && tally.no_kernel == 0;
        if tally.failed > 0 || (options.missing && !done) || options.glob != "*" {
            println!(
                "{name}: {} passed, {} failed, {} no kernel, {} left out",
                tally.passed, tally.failed, tally.no_kernel, tally.left_out
            );
        }
        sum.passed += tally.passed;
        sum.failed += tally.failed;
        sum.no_kernel += tally.no_kernel;
        sum.left_out += tally.left_out;
    }
    println!(
        "{} operators; cases: {} passed, {} failed, {} no kernel, {} left out",
        tallies.len(),
        sum.passed,
        sum.failed,
        sum.no_kernel,
        sum.left_out
    );
    Ok(sum.failed == 0)
}

/// `*` stands for any text.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    match glob.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|i| matches(rest, &text[i..])),
        Some((c, rest)) => text
            .split_first()
            .is_some_and(|(t, tail)| t == c && matches(rest, tail)),
    }
}

/// A tensor of a case, in memory of its own.
struct Stored {
    dtype: DType,
    sizes: Dims,
    strides: Dims,
    memory: Growable,
}

impl Stored {
    fn load(shard: &SafeTensors, key: &str, strided: bool) -> Result<Stored, Problem> {
        let view = shard.tensor(key)?;
        let text = format!("{:?}", view.dtype());
        let dtype = DType::from_name(&text.to_lowercase()).ok_or_else(|| format!("dtype `{text}`"))?;
        let sizes = view.shape().iter().map(|&d| d as i64).collect::<Vec<_>>();
        let sizes = Dims::new(&sizes)?;
        let mut stored = Stored {
            dtype,
            sizes,
            strides: sizes.contiguous_strides(),
            memory: Growable::default(),
        };
        let bytes = stored.memory.reserve(view.data().len())?;
        if strided {
            stored.strides = sizes.strides_of_dim_order(&reversed(sizes.rank())).ok_or("order")?;
            for (i, chunk) in view.data().chunks(dtype.size()).enumerate() {
                let at = position(i, &sizes, &stored.strides) * dtype.size();
                bytes[at..at + dtype.size()].copy_from_slice(chunk);
            }
        } else {
            bytes.copy_from_slice(view.data());
        }
        Ok(stored)
    }

    fn tensor(&self) -> Tensor<'_> {
        let bytes = self.sizes.numel().unwrap_or(0) * self.dtype.size();
        Tensor::new(self.dtype, self.sizes, self.strides, &self.memory.bytes()[..bytes]).expect("memory of its size")
    }
}

fn reversed(rank: usize) -> Vec<u8> {
    (0..rank as u8).rev().collect()
}

/// Offset of the element that is the `linear`th in row-major order.
fn position(mut linear: usize, sizes: &Dims, strides: &Dims) -> usize {
    let mut at = 0;
    for d in (0..sizes.rank()).rev() {
        let size = sizes[d].max(1) as usize;
        at += linear % size * strides[d] as usize;
        linear /= size;
    }
    at
}

/// An argument that owns its lists; tensors are indices into the case's tensors.
enum Held {
    None,
    Int(i64),
    Float(f64),
    Bool(bool),
    Str(String),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Bools(Vec<bool>),
    Tensor(usize),
    Tensors(Vec<Option<usize>>),
}

fn hold(value: &Value, shard: &SafeTensors, strided: bool, tensors: &mut Vec<Stored>) -> Result<Held, Problem> {
    let Some((kind, inner)) = value.as_object().and_then(|o| o.iter().find(|(k, _)| *k != "complex")) else {
        return Ok(Held::None);
    };
    let items = || inner.as_array().cloned().unwrap_or_default();
    let mut tensor = |key: &str| -> Result<usize, Problem> {
        tensors.push(Stored::load(shard, key, strided)?);
        Ok(tensors.len() - 1)
    };
    Ok(match kind.as_str() {
        "t" => Held::Tensor(tensor(inner.as_str().unwrap_or(""))?),
        "tl" => Held::Tensors(
            items()
                .iter()
                .map(|key| key.as_str().map(&mut tensor).transpose())
                .collect::<Result<_, _>>()?,
        ),
        "i" => Held::Int(inner.as_i64().ok_or("integer")?),
        "f" => Held::Float(float(inner)),
        "b" => Held::Bool(inner.as_bool().unwrap_or(false)),
        "s" => Held::Str(inner.as_str().unwrap_or("").to_string()),
        "il" => Held::Ints(items().iter().map(|v| v.as_i64().unwrap_or(0)).collect()),
        "fl" => Held::Floats(items().iter().map(float).collect()),
        "bl" => Held::Bools(items().iter().map(|v| v.as_bool().unwrap_or(false)).collect()),
        "dtype" => {
            let dtype = DType::from_name(inner.as_str().unwrap_or("")).ok_or("dtype of an argument")?;
            Held::Int(i64::from(dtype.pte_code()))
        }
        "memory_format" => match inner.as_str() {
            Some("contiguous_format") => Held::Int(0),
            Some("preserve_format") => Held::Int(1),
            Some("channels_last") => Held::Int(2),
            _ => Held::None,
        },
        _ => Held::None,
    })
}

/// A JSON number, or `inf`, `-inf` or `nan`.
fn float(value: &Value) -> f64 {
    value
        .as_f64()
        .or_else(|| value.as_str()?.parse().ok())
        .unwrap_or(f64::NAN)
}

/// The kernel that computes `op`, with the schema it is called by.
fn kernel_of(op: Op) -> Option<(Kernel, Schema)> {
    let called = op.out_variant().unwrap_or(op);
    Some((find(called.name())?, called.schema()))
}

/// What an output has to be.
enum Want<'a> {
    Tensor(Stored),
    Meta(DType, Dims),
    /// Not looked at: what `_embedding_bag` keeps for its gradient, which are integers.
    Anything,
    Number(&'a Value),
}

fn check(case: &Value, shard: &SafeTensors, strided: bool) -> Result<Verdict, Problem> {
    if case["args"].to_string().contains("\"complex\":true") || case["out"].to_string().contains("\"complex\":true") {
        return Ok(Verdict::LeftOut);
    }
    let Some(op) = case["op"].as_str().and_then(Op::find) else {
        return Ok(Verdict::NoKernel);
    };
    let Some((kernel, schema)) = kernel_of(op) else {
        return Ok(Verdict::NoKernel);
    };
    let mut tensors = Vec::new();
    let (mut held, mut updated) = (Vec::new(), Vec::new());
    let args = case["args"].as_array().ok_or("args")?;
    for param in schema.inputs() {
        let given = args.iter().find(|pair| pair[0].as_str() == Some(&param.name));
        let mut arg = match given {
            Some(pair) => hold(&pair[1], shard, strided, &mut tensors)?,
            None => default(&param.default),
        };
        if let (Held::Tensor(index), true) = (&arg, param.mutated) {
            updated.push(*index);
            arg = Held::None;
        }
        if let (Held::Int(one), true) = (&arg, param.ty.list) {
            arg = Held::Ints(vec![*one; usize::from(param.ty.length.unwrap_or(1))]);
        }
        held.push((arg, param.ty));
    }
    let views: Vec<Tensor> = tensors.iter().map(Stored::tensor).collect();
    let lists: Vec<(Vec<Tensor>, Vec<Option<Tensor>>)> = held
        .iter()
        .map(|(arg, _)| match arg {
            Held::Tensors(items) => (
                items.iter().flatten().map(|&i| views[i]).collect(),
                items.iter().map(|item| item.map(|i| views[i])).collect(),
            ),
            _ => (Vec::new(), Vec::new()),
        })
        .collect();
    let call_args: Vec<Arg> = held
        .iter()
        .zip(&lists)
        .map(|((arg, ty), (plain, optional))| match arg {
            Held::None => Arg::None,
            Held::Int(i) if ty.base == BaseType::Float => Arg::Float(*i as f64),
            Held::Int(i) => Arg::Int(*i),
            Held::Float(f) => Arg::Float(*f),
            Held::Bool(b) => Arg::Bool(*b),
            Held::Str(s) => Arg::Str(s),
            Held::Ints(v) => Arg::Ints(v),
            Held::Floats(v) => Arg::Floats(v),
            Held::Bools(v) => Arg::Bools(v),
            Held::Tensor(i) => Arg::Tensor(views[*i]),
            Held::Tensors(_) if ty.optional_items => Arg::OptionalTensors(optional),
            Held::Tensors(_) => Arg::Tensors(plain),
        })
        .collect();
    let mut wants = Vec::new();
    for value in case["out"].as_array().ok_or("out")? {
        if let Some(key) = value["t"].as_str() {
            wants.push(Want::Tensor(Stored::load(shard, key, false)?));
        } else if let Some(keys) = value["tl"].as_array() {
            for key in keys {
                wants.push(Want::Tensor(Stored::load(shard, key.as_str().unwrap_or(""), false)?));
            }
        } else if let Some(meta) = value.get("meta") {
            let dtype = meta["dtype"].as_str().and_then(DType::from_name);
            let Some(dtype) = dtype else {
                return Ok(Verdict::LeftOut);
            };
            let shape: Vec<i64> = meta["shape"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_i64)
                .collect();
            wants.push(Want::Meta(dtype, Dims::new(&shape)?));
        } else if value.get("skip").is_some() {
            wants.push(Want::Anything);
        } else {
            wants.push(Want::Number(value));
        }
    }
    let mut memories: Vec<Growable> = wants.iter().map(|_| Growable::default()).collect();
    let mut outs: Vec<Out> = Vec::new();
    // What an in-place operator changes is an output with contents.
    let mut present = updated.iter().map(|&i| &tensors[i]);
    for (want, memory) in wants.iter().zip(&mut memories) {
        let (dtype, rank) = match want {
            Want::Tensor(stored) => (stored.dtype, stored.sizes.rank()),
            Want::Meta(dtype, sizes) => (*dtype, sizes.rank()),
            Want::Anything => (DType::I64, 1),
            Want::Number(_) => continue,
        };
        let order: Vec<i64> = match strided {
            true => reversed(rank).into_iter().map(i64::from).collect(),
            false => Vec::new(),
        };
        let mut sizes = Dims::new(&[0])?;
        if let Some(before) = present.next() {
            let bytes = before.tensor().bytes();
            memory.reserve(bytes.len())?.copy_from_slice(bytes);
            sizes = before.sizes;
        }
        outs.push(Out::new(dtype, sizes, Dims::new(&order)?, Buffer::Growable(memory)));
    }
    let mut scratch = Scratch::default();
    let mut call = Call {
        args: &call_args,
        outs: &mut outs,
        scratch: &mut scratch,
        result: None,
    };
    if let Err(error) = kernel(&mut call) {
        return Ok(Verdict::Failed(error.to_string()));
    }
    let result = call.result;
    let rtol = case.get("rtol").map_or(0.0, float);
    let atol = case.get("atol").map_or(0.0, float);
    let mut written = outs.iter_mut();
    for (i, want) in wants.iter().enumerate() {
        let problem = match want {
            Want::Number(value) => number_differs(result, value, rtol, atol),
            Want::Anything => {
                written.next();
                None
            }
            Want::Meta(_, sizes) => {
                let out = written.next().ok_or("an output for each tensor")?;
                (out.sizes() != sizes).then(|| format!("shape {} instead of {sizes}", out.sizes()))
            }
            Want::Tensor(stored) => {
                let out = written.next().ok_or("an output for each tensor")?;
                tensor_differs(out, stored, rtol, atol)
            }
        };
        if let Some(problem) = problem {
            return Ok(Verdict::Failed(format!("output {i}: {problem}")));
        }
    }
    Ok(Verdict::Passed)
}

fn default(value: &Option<delegraph_opset::Default>) -> Held {
    use delegraph_opset::Default as D;
    match value {
        None | Some(D::None) => Held::None,
        Some(D::Bool(b)) => Held::Bool(*b),
        Some(D::Int(i)) => Held::Int(*i),
        Some(D::Float(f)) => Held::Float(*f),
        Some(D::Str(s)) => Held::Str(s.clone()),
        Some(D::Ints(v)) => Held::Ints(v.clone()),
        Some(D::Floats(v)) => Held::Floats(v.clone()),
        Some(D::Bools(v)) => Held::Bools(v.clone()),
    }
}

fn number_differs(got: Option<Scalar>, want: &Value, rtol: f64, atol: f64) -> Option<String> {
    let same = match (got, want.get("i"), want.get("f"), want.get("b")) {
        (Some(Scalar::Int(got)), Some(want), _, _) => Some(got) == want.as_i64(),
        (Some(Scalar::Float(got)), _, Some(want), _) => close(got, float(want), rtol, atol),
        (Some(Scalar::Bool(got)), _, _, Some(want)) => Some(got) == want.as_bool(),
        _ => false,
    };
    (!same).then(|| format!("{got:?} instead of {want}"))
}

fn tensor_differs(out: &mut Out, want: &Stored, rtol: f64, atol: f64) -> Option<String> {
    if *out.sizes() != want.sizes {
        return Some(format!("shape {} instead of {}", out.sizes(), want.sizes));
    }
    let have = out.as_tensor().ok()?;
    let (mut wrong, mut first, count) = (0usize, None, want.sizes.numel().unwrap_or(0));
    for i in 0..count {
        let a = element(&have, position(i, have.sizes(), have.strides()));
        let b = element(&want.tensor(), i);
        let same = match want.dtype.is_float() {
            true => close(a.as_f64(), b.as_f64(), rtol, atol),
            false => a.as_i64() == b.as_i64(),
        };
        if !same {
            wrong += 1;
            first.get_or_insert((i, a, b));
        }
    }
    let (i, a, b) = first?;
    Some(format!(
        "{wrong} of {count} wrong, at {i} {a} instead of {b} ({}, {})",
        want.dtype, want.sizes
    ))
}

fn close(got: f64, want: f64, rtol: f64, atol: f64) -> bool {
    got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= atol + rtol * want.abs() && want.is_finite()
}

fn element(tensor: &Tensor, at: usize) -> Scalar {
    fn read<T: Element>(tensor: &Tensor, at: usize) -> T {
        tensor.data::<T>().expect("its dtype")[at]
    }
    match tensor.dtype() {
        DType::Bool => Scalar::Int(i64::from(read::<u8>(tensor, at))),
        DType::U8 => Scalar::Int(i64::from(read::<u8>(tensor, at))),
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
