//! Writes a program for each recorded call of an operator, for stock ExecuTorch to run.
//!
//! `cargo run -p delegraph-emit --example corpus_programs -- CORPUS OUT [--op GLOB-PREFIX]`
//!
//! CORPUS holds `index.jsonl` and its `.safetensors` shards. OUT gets `N.pte` for case number N and `cases.jsonl`, a line a case: `id`, `op`,
//! `file` or `error`, `shard`, `inputs` and `outputs` (keys of the shard), `rtol`, `atol`. `conformance/referee/check_ops.py` runs them.

use delegraph_emit::{Input, emit};
use delegraph_ir::{Arg, Expr, Graph, MemoryFormat, Module, Op, TensorType, ValueId};
use delegraph_opset::BaseType;
use delegraph_types::{DType, Dims};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [corpus, out, rest @ ..] = words.as_slice() else {
        return Err("corpus_programs CORPUS OUT [--op PREFIX]".into());
    };
    let prefix = match rest {
        [flag, prefix] if flag == "--op" => prefix.as_str(),
        _ => "",
    };
    std::fs::create_dir_all(out)?;
    let mut lines = std::io::BufWriter::new(std::fs::File::create(format!("{out}/cases.jsonl"))?);
    let mut shards: BTreeMap<u64, Value> = BTreeMap::new();
    let (mut written, mut refused) = (0, 0);
    std::panic::set_hook(Box::new(|_| {}));
    for (number, line) in std::fs::read_to_string(format!("{corpus}/index.jsonl"))?
        .lines()
        .enumerate()
    {
        let case: Value = serde_json::from_str(line)?;
        let op = case["op"].as_str().unwrap_or("");
        if !op.starts_with(prefix) || line.contains("\"complex\"") {
            continue;
        }
        let shard = case["shard"].as_u64().ok_or("no shard")?;
        if let std::collections::btree_map::Entry::Vacant(slot) = shards.entry(shard) {
            slot.insert(header(&format!("{corpus}/shard-{shard}.safetensors"))?);
        }
        let made = std::panic::catch_unwind(|| program(&case, &shards[&shard]).map_err(|e| e.to_string()));
        let mut record = json!({
            "id": case["id"], "op": op, "shard": shard, "rtol": case["rtol"], "atol": case["atol"], "args": case["args"],
        });
        match made.unwrap_or_else(|_| Err("PANIC".to_string())) {
            Ok((bytes, inputs, outputs)) => {
                std::fs::write(format!("{out}/{number}.pte"), bytes)?;
                record["file"] = format!("{number}.pte").into();
                record["inputs"] = inputs.into();
                record["outputs"] = outputs.into();
                written += 1;
            }
            Err(problem) => {
                record["error"] = problem.into();
                refused += 1;
            }
        }
        writeln!(lines, "{record}")?;
    }
    println!("{written} programs, {refused} cases without one");
    Ok(())
}

/// The header of a safetensors file: name to dtype and shape.
fn header(path: &str) -> Result<Value> {
    let mut file = std::fs::File::open(path)?;
    let mut length = [0u8; 8];
    file.read_exact(&mut length)?;
    let mut text = vec![0u8; usize::try_from(u64::from_le_bytes(length))?];
    file.read_exact(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn tensor_type(shard: &Value, key: &str) -> Result<TensorType> {
    let entry = &shard[key];
    let name = entry["dtype"].as_str().ok_or("no such tensor")?.to_lowercase();
    let dtype = DType::from_name(&name).ok_or_else(|| format!("dtype `{name}`"))?;
    let sizes: Vec<i64> = entry["shape"]
        .as_array()
        .ok_or("no shape")?
        .iter()
        .filter_map(Value::as_i64)
        .collect();
    Ok(TensorType::fixed(dtype, &Dims::new(&sizes)?))
}

/// The program of a case, and the keys of its inputs and outputs.
fn program(case: &Value, shard: &Value) -> Result<(Vec<u8>, Vec<String>, Vec<String>)> {
    let op = case["op"].as_str().and_then(Op::find).ok_or("not in the table")?;
    let mut outputs = Vec::new();
    for value in case["out"].as_array().ok_or("no `out`")? {
        match (value["t"].as_str(), value["tl"].as_array()) {
            (Some(key), _) => outputs.push(key.to_string()),
            (_, Some(keys)) => outputs.extend(keys.iter().filter_map(Value::as_str).map(str::to_string)),
            _ => return Err("unspecified results".into()),
        }
    }
    let mut graph = Graph::new("forward");
    let mut inputs = Vec::new();
    let mut args = Vec::new();
    for param in &op.schema().params {
        let given = case["args"].as_array().ok_or("no `args`")?;
        let Some(value) = given.iter().find(|pair| pair[0].as_str() == Some(&param.name)) else {
            args.push(Arg::None);
            continue;
        };
        let arg = argument(&value[1], shard, &mut graph, &mut inputs)?;
        args.push(match (arg, param.ty.base, param.ty.list) {
            (Arg::Int(e), BaseType::Float, false) => Arg::Float(e.as_int().unwrap_or(0) as f64),
            (Arg::Int(e), _, true) => Arg::Ints(vec![e; usize::from(param.ty.length.unwrap_or(1))]),
            (Arg::OptionalValues(items), _, _) if !param.ty.optional_items => {
                Arg::Values(items.into_iter().flatten().collect())
            }
            (arg, _, _) => arg,
        });
    }
    let types = outputs
        .iter()
        .map(|key| tensor_type(shard, key).map(Into::into))
        .collect::<Result<Vec<_>>>()?;
    let results = graph.push(op.name(), args, types)?;
    results.iter().for_each(|&value| graph.add_output(value));
    let mut module = Module::default();
    module.graphs.push(graph);
    delegraph_passes::simplify(&mut module)?;
    delegraph_passes::to_portable(&mut module)?;
    delegraph_ir::verify(&module)?;
    let emitted = emit(Input {
        module: &module,
        regions: &[],
        source: None,
    })?;
    Ok((emitted.bytes, inputs, outputs))
}

/// An argument of a case; tensors become inputs of the graph.
fn argument(value: &Value, shard: &Value, graph: &mut Graph, inputs: &mut Vec<String>) -> Result<Arg> {
    let Some((kind, inner)) = value.as_object().and_then(|object| object.iter().next()) else {
        return Ok(Arg::None);
    };
    let items = inner.as_array().map_or(&[][..], Vec::as_slice);
    let mut tensor = |key: &str| -> Result<ValueId> {
        let id = graph.add_input(format!("x{}", inputs.len()), tensor_type(shard, key)?.into());
        inputs.push(key.to_string());
        Ok(id)
    };
    Ok(match kind.as_str() {
        "t" => Arg::Value(tensor(inner.as_str().unwrap_or(""))?),
        "tl" => {
            let items = items.iter().map(|key| key.as_str().map(&mut tensor).transpose());
            Arg::OptionalValues(items.collect::<Result<_>>()?)
        }
        "i" => Arg::int(inner.as_i64().ok_or("integer")?),
        "f" => Arg::Float(float(inner)),
        "b" => Arg::Bool(inner.as_bool().unwrap_or(false)),
        "s" => Arg::Str(inner.as_str().unwrap_or("").to_string()),
        "il" => Arg::Ints(items.iter().map(|v| Expr::Int(v.as_i64().unwrap_or(0))).collect()),
        "fl" => Arg::Floats(items.iter().map(float).collect()),
        "bl" => Arg::Bools(items.iter().map(|v| v.as_bool().unwrap_or(false)).collect()),
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
    let parsed = || value.as_str()?.parse().ok();
    value.as_f64().or_else(parsed).unwrap_or(f64::NAN)
}
