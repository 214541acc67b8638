//! Runs a corpus of operator calls through the delegate and compares with the recorded results.
//!
//! `cargo run -p delegraph-reference --example corpus -- FOLDER [--op TEXT] [--fails N] [--all]`
//!
//! FOLDER holds `index.jsonl` and its `.safetensors` shards. Each case becomes a graph of one node, which is offered to the
//! delegate as a host would. `--op` takes operators whose name begins with TEXT; `--fails` is how many failures of an
//! operator to print; `--all` prints a line for every operator, else only for those with failures.

use delegraph_reference::caps;
use delegraph_reference::execute::{Program, WeightBytes};
use delegraph_reference::tensor::Tensor;
use delegraph_sdk::image::{Arg, ImageBuilder, NodeIndex, Type, verify};
use delegraph_sdk::{DType, Error, MemoryFormat, TensorView};
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::ExitCode;

type Problem = Box<dyn std::error::Error>;

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    refused: usize,
    left_out: usize,
    reasons: BTreeMap<String, usize>,
}

/// What became of a case.
enum Verdict {
    Passed,
    Failed(String),
    Refused(String),
    /// Complex numbers, results that are not specified, results that are no tensors.
    LeftOut,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::from(2)
        }
    }
}

/// True if every case that the delegate takes passed.
fn run() -> Result<bool, Problem> {
    let (mut folder, mut prefix, mut fails, mut all) = (String::new(), String::new(), 2, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--op" => prefix = words.next().ok_or("--op needs a text")?,
            "--fails" => fails = words.next().ok_or("--fails needs a number")?.parse()?,
            "--all" => all = true,
            _ => folder = word,
        }
    }
    let index = std::fs::read_to_string(format!("{folder}/index.jsonl"))?;
    let mut shards: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    for line in index.lines() {
        let case: Value = serde_json::from_str(line)?;
        let name = case["op"].as_str().ok_or("a case without `op`")?;
        if !name.starts_with(&prefix) {
            continue;
        }
        let number = case["shard"].as_u64().ok_or("a case without `shard`")?;
        if let std::collections::btree_map::Entry::Vacant(slot) = shards.entry(number) {
            slot.insert(std::fs::read(format!("{folder}/shard-{number}.safetensors"))?);
        }
        let shard = SafeTensors::deserialize(&shards[&number])?;
        let tally = tallies.entry(name.to_string()).or_default();
        match check(&case, &shard).unwrap_or_else(|problem| Verdict::Failed(problem.to_string())) {
            Verdict::Passed => tally.passed += 1,
            Verdict::LeftOut => tally.left_out += 1,
            Verdict::Refused(reason) => {
                tally.refused += 1;
                *tally.reasons.entry(reason).or_default() += 1;
            }
            Verdict::Failed(why) => {
                if tally.failed < fails {
                    println!("FAIL {name} {}: {why}\n     {}", case["id"], case["args"]);
                }
                tally.failed += 1;
            }
        }
    }
    let mut sum = Tally::default();
    for (name, tally) in &tallies {
        if tally.failed > 0 || all {
            let reasons: Vec<String> = tally.reasons.iter().map(|(why, n)| format!("{n} × {why}")).collect();
            println!(
                "{name}: {} passed, {} failed, {} refused, {} left out {}",
                tally.passed,
                tally.failed,
                tally.refused,
                tally.left_out,
                reasons.join("; ")
            );
        }
        sum.passed += tally.passed;
        sum.failed += tally.failed;
        sum.refused += tally.refused;
        sum.left_out += tally.left_out;
    }
    println!(
        "{} operators, {} taken; cases: {} passed, {} failed, {} refused, {} left out",
        tallies.len(),
        tallies.values().filter(|t| t.passed + t.failed > 0).count(),
        sum.passed,
        sum.failed,
        sum.refused,
        sum.left_out
    );
    Ok(sum.failed == 0)
}

/// A tensor of a case.
struct Stored {
    dtype: DType,
    sizes: Vec<i64>,
    bytes: Vec<u8>,
}

impl Stored {
    fn load(shard: &SafeTensors<'_>, key: &str) -> Result<Stored, Problem> {
        let view = shard.tensor(key)?;
        Ok(Stored {
            dtype: dtype(&format!("{:?}", view.dtype())).ok_or("a dtype that is not known")?,
            sizes: view.shape().iter().map(|d| *d as i64).collect(),
            bytes: view.data().to_vec(),
        })
    }

    fn ty(&self, image: &mut ImageBuilder) -> Type {
        let dims: Vec<_> = self.sizes.iter().map(|size| image.int(*size)).collect();
        Type::tensor(self.dtype, &dims)
    }
}

/// By the names of safetensors and of PyTorch.
fn dtype(name: &str) -> Option<DType> {
    Some(match name {
        "F32" | "float32" => DType::F32,
        "F64" | "float64" => DType::F64,
        "F16" | "float16" => DType::F16,
        "BF16" | "bfloat16" => DType::BF16,
        "I64" | "int64" => DType::I64,
        "I32" | "int32" => DType::I32,
        "I16" | "int16" => DType::I16,
        "I8" | "int8" => DType::I8,
        "U8" | "uint8" => DType::U8,
        "BOOL" | "bool" => DType::BOOL,
        _ => return None,
    })
}

struct NoWeights;

impl WeightBytes for NoWeights {
    fn bytes(&self, id: u32) -> Result<&[u8], Error> {
        Err(Error::invalid(format!("there is no weight {id}")))
    }
}

fn check(case: &Value, shard: &SafeTensors<'_>) -> Result<Verdict, Problem> {
    if case["args"].to_string().contains("\"complex\":true") || case["out"].to_string().contains("\"complex\":true") {
        return Ok(Verdict::LeftOut);
    }
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
    let mut image = ImageBuilder::new("forward");
    let mut inputs = Vec::new();
    let mut args = Vec::new();
    for pair in case["args"].as_array().ok_or("no `args`")? {
        args.push(argument(&pair[1], shard, &mut image, &mut inputs)?);
    }
    let types: Vec<Type> = wants.iter().map(|want| want.ty(&mut image)).collect();
    let outputs: Vec<(&str, &Type)> = types.iter().map(|ty| ("y", ty)).collect();
    let op = case["op"].as_str().ok_or("no `op`")?;
    for value in image.node("node", op, &args, &outputs, "") {
        image.output(value);
    }
    let image = image.finish().map_err(|e| format!("{e:?}"))?;
    let view = verify(&image).map_err(|e| format!("{e:?}"))?;
    if let Err(refusal) = caps::accept(&view.node(NodeIndex(0))) {
        return Ok(Verdict::Refused(refusal.text));
    }
    let views: Vec<TensorView<'_>> = inputs
        .iter()
        .map(|input: &Stored| TensorView {
            dtype: input.dtype,
            sizes: &input.sizes,
            bytes: &input.bytes,
        })
        .collect();
    let made = Program::new(&image)?.run(&views, &NoWeights)?;
    let (rtol, atol) = (tolerance(case, "rtol"), tolerance(case, "atol"));
    for (i, (have, want)) in made.iter().zip(&wants).enumerate() {
        let sizes = want.sizes.iter().map(|s| *s as usize).collect();
        let want = Tensor::from_bytes(want.dtype, sizes, &want.bytes)?;
        if let Some(problem) = difference(have, &want, rtol, atol) {
            return Ok(Verdict::Failed(format!("output {i}: {problem}")));
        }
    }
    Ok(Verdict::Passed)
}

fn tolerance(case: &Value, key: &str) -> f64 {
    case.get(key).map_or(0.0, float)
}

fn difference(have: &Tensor, want: &Tensor, rtol: f64, atol: f64) -> Option<String> {
    let (a, b) = (have.to_floats(), want.to_floats());
    let exact = !want.dtype().is_float();
    let same = |a: f64, b: f64| {
        let near = !exact && (a - b).abs() <= atol + rtol * b.abs() && b.is_finite();
        a == b || (a.is_nan() && b.is_nan()) || near
    };
    let wrong: Vec<usize> = (0..b.len()).filter(|i| !same(a[*i], b[*i])).collect();
    let first = *wrong.first()?;
    Some(format!(
        "{} of {} wrong, at {first} {} instead of {} ({}{:?})",
        wrong.len(),
        b.len(),
        a[first],
        b[first],
        want.dtype(),
        want.sizes()
    ))
}

/// An argument of a case; tensors become inputs of the graph.
fn argument(
    value: &Value,
    shard: &SafeTensors<'_>,
    image: &mut ImageBuilder,
    inputs: &mut Vec<Stored>,
) -> Result<Arg, Problem> {
    let Some((kind, inner)) = value.as_object().and_then(|o| o.iter().find(|(k, _)| *k != "complex")) else {
        return Ok(Arg::None);
    };
    let items = || inner.as_array().into_iter().flatten();
    let mut tensor = |key: &str| -> Result<_, Problem> {
        let stored = Stored::load(shard, key)?;
        let ty = stored.ty(image);
        inputs.push(stored);
        Ok(image.input(&format!("x{}", inputs.len()), &ty))
    };
    Ok(match kind.as_str() {
        "t" => Arg::Value(tensor(inner.as_str().unwrap_or(""))?),
        "tl" => Arg::OptionalValues(
            items()
                .map(|key| key.as_str().map(&mut tensor).transpose())
                .collect::<Result<_, _>>()?,
        ),
        "i" => Arg::Int(inner.as_i64().ok_or("an integer that is none")?),
        "f" => Arg::Float(float(inner)),
        "b" => Arg::Bool(inner.as_bool().unwrap_or(false)),
        "s" => Arg::Str(inner.as_str().unwrap_or("").to_string()),
        "il" => Arg::Ints(items().map(|v| image.int(v.as_i64().unwrap_or(0))).collect()),
        "fl" => Arg::Floats(items().map(float).collect()),
        "bl" => Arg::Bools(items().map(|v| v.as_bool().unwrap_or(false)).collect()),
        "dtype" => Arg::DType(dtype(inner.as_str().unwrap_or("")).unwrap_or(DType(99))),
        "memory_format" => match inner.as_str() {
            Some("contiguous_format") => Arg::MemoryFormat(MemoryFormat::CONTIGUOUS),
            Some("preserve_format") => Arg::MemoryFormat(MemoryFormat::PRESERVE),
            Some("channels_last") => Arg::MemoryFormat(MemoryFormat::CHANNELS_LAST),
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
