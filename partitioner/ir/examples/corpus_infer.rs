//! Compares inferred result types with those that PyTorch recorded in an operator corpus.
//!
//! `cargo run -p delegraph-ir --example corpus_infer -- CORPUS [OPERATOR]`: `CORPUS` is a folder with `index.jsonl` and its
//! safetensors shards; `OPERATOR` keeps the operators whose name contains it. Exit code 1 if any type differs.

use delegraph_ir::{Arg, Graph, InferError, MemoryFormat, Op, Symbols, TensorType, Type, infer};
use delegraph_types::{DType, Scalar};
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().collect();
    let folder = Path::new(arguments.get(1).ok_or("usage: corpus_infer CORPUS [OPERATOR]")?);
    let only = arguments.get(2).cloned().unwrap_or_default();
    let mut shards: HashMap<u64, HashMap<String, TensorType>> = HashMap::new();
    let (mut right, mut wrong, mut skipped) = (0, 0, 0);
    let mut missing: BTreeMap<String, usize> = BTreeMap::new();
    for line in std::fs::read_to_string(folder.join("index.jsonl"))?.lines() {
        let case: Json = serde_json::from_str(line)?;
        let name = case["op"].as_str().unwrap_or_default();
        if !name.contains(&only) {
            continue;
        }
        let Some(op) = Op::find(name) else {
            *missing.entry(format!("{name} (not in the table)")).or_default() += 1;
            continue;
        };
        let shard = case["shard"].as_u64().unwrap_or(0);
        if let std::collections::hash_map::Entry::Vacant(slot) = shards.entry(shard) {
            slot.insert(types(&folder.join(format!("shard-{shard}.safetensors")))?);
        }
        let tensors = &shards[&shard];
        if line.contains("\"complex\"") {
            skipped += 1;
            continue;
        }
        let mut graph = Graph::new("case");
        let args: Vec<Arg> = op
            .schema()
            .params
            .iter()
            .map(|p| {
                let given = case["args"]
                    .as_array()
                    .and_then(|a| a.iter().find(|a| a[0] == p.name.as_str()));
                given.map_or(Arg::None, |a| argument(&a[1], tensors, &mut graph))
            })
            .collect();
        let Some(want) = results(&case["out"], tensors) else {
            skipped += 1;
            continue;
        };
        match infer(op, &args, &graph, &Symbols::default()) {
            Ok(got) if matches(&got, &want) => right += 1,
            Err(InferError::DataDependent { .. }) => skipped += 1,
            Err(InferError::Unsupported { .. }) => *missing.entry(name.to_string()).or_default() += 1,
            other => {
                wrong += 1;
                let want: Vec<String> = want
                    .iter()
                    .map(|t| t.as_ref().map_or("?".into(), Type::to_string))
                    .collect();
                let got = match other {
                    Ok(got) => got.iter().map(Type::to_string).collect::<Vec<_>>().join(" "),
                    Err(error) => error.to_string(),
                };
                println!(
                    "{name} {}: got {got}, want {}; args {}",
                    case["id"],
                    want.join(" "),
                    case["args"]
                );
            }
        }
    }
    println!("right {right}, wrong {wrong}, skipped {skipped}, without a rule {missing:?}");
    std::process::exit(i32::from(wrong > 0));
}

fn types(path: &Path) -> Result<HashMap<String, TensorType>, Error> {
    let bytes = std::fs::read(path)?;
    let tensors = safetensors::SafeTensors::deserialize(&bytes)?;
    let mut out = HashMap::new();
    for (name, view) in tensors.tensors() {
        let dtype = format!("{:?}", view.dtype()).to_lowercase();
        let dtype = DType::from_name(&dtype).ok_or_else(|| format!("{name}: dtype {dtype}"))?;
        let sizes: Vec<i64> = view.shape().iter().map(|&s| s as i64).collect();
        out.insert(name.to_string(), TensorType::fixed(dtype, &sizes));
    }
    Ok(out)
}

fn float(value: &Json) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| value.as_str().and_then(|s| s.parse().ok()).unwrap_or(f64::NAN))
}

fn argument(value: &Json, tensors: &HashMap<String, TensorType>, graph: &mut Graph) -> Arg {
    let Some((kind, value)) = value.as_object().and_then(|o| o.iter().next()) else {
        return Arg::None;
    };
    let mut input = |key: &Json| {
        let ty = &tensors[key.as_str().unwrap_or_default()];
        graph.add_input("x", ty.clone().into())
    };
    let items = || value.as_array().cloned().unwrap_or_default();
    match kind.as_str() {
        "t" => Arg::Value(input(value)),
        "tl" => {
            let all: Vec<_> = items().iter().map(|k| (!k.is_null()).then(|| input(k))).collect();
            match all.iter().all(Option::is_some) {
                true => Arg::Values(all.into_iter().flatten().collect()),
                false => Arg::OptionalValues(all),
            }
        }
        "i" => Arg::int(value.as_i64().unwrap_or(0)),
        "f" => Arg::Float(float(value)),
        "b" => Arg::Bool(value == true),
        "s" => Arg::Str(value.as_str().unwrap_or_default().into()),
        "il" => Arg::ints(&items().iter().filter_map(Json::as_i64).collect::<Vec<_>>()),
        "fl" => Arg::Floats(items().iter().map(float).collect()),
        "bl" => Arg::Bools(items().iter().map(|b| b == true).collect()),
        "sl" => Arg::Scalars(items().iter().map(scalar).collect()),
        "dtype" => DType::from_name(value.as_str().unwrap_or_default()).map_or(Arg::None, Arg::DType),
        "memory_format" => Arg::MemoryFormat(MemoryFormat::Contiguous),
        _ => Arg::None,
    }
}

fn scalar(value: &Json) -> Scalar {
    match (value.get("i"), value.get("b")) {
        (Some(i), _) => Scalar::Int(i.as_i64().unwrap_or(0)),
        (_, Some(b)) => Scalar::Bool(b == true),
        _ => Scalar::Float(float(&value["f"])),
    }
}

/// The recorded types, `None` where one is not checked; `None` for results that are no tensors.
fn results(out: &Json, tensors: &HashMap<String, TensorType>) -> Option<Vec<Option<Type>>> {
    let mut types = Vec::new();
    for item in out.as_array()? {
        let known = |key: &Json| tensors.get(key.as_str()?).cloned().map(Type::from);
        let (kind, value) = item.as_object()?.iter().next()?;
        match kind.as_str() {
            "t" => types.push(Some(known(value)?)),
            "tl" => types.extend(value.as_array()?.iter().map(known)),
            "skip" => types.push(None),
            "meta" => {
                let dtype = DType::from_name(value["dtype"].as_str()?)?;
                let sizes: Vec<i64> = value["shape"].as_array()?.iter().filter_map(Json::as_i64).collect();
                types.push(Some(TensorType::fixed(dtype, &sizes).into()));
            }
            "f" => types.push(Some(Type::Float)),
            "b" => types.push(Some(Type::Bool)),
            _ => return None,
        }
    }
    Some(types)
}

fn matches(got: &[Type], want: &[Option<Type>]) -> bool {
    got.len() == want.len() && got.iter().zip(want).all(|(g, w)| w.as_ref().is_none_or(|w| g == w))
}
