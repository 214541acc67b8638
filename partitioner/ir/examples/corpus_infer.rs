//! Compares inferred result types with those that PyTorch recorded in an operator corpus, with constant sizes and then with
//! symbols in their place.
//!
//! `cargo run -p delegraph-ir --example corpus_infer -- CORPUS [OPERATOR]`: `CORPUS` is a folder with `index.jsonl` and its
//! safetensors shards; `OPERATOR` keeps the operators whose name contains it. Exit code 1 if any type differs.

#[path = "../tests/cases/mod.rs"]
mod cases;

use cases::Outcome;
use delegraph_ir::TensorType;
use delegraph_types::DType;
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().collect();
    let folder = Path::new(arguments.get(1).ok_or("usage: corpus_infer CORPUS [OPERATOR]")?);
    let only = arguments.get(2).cloned().unwrap_or_default();
    let index = std::fs::read_to_string(folder.join("index.jsonl"))?;
    let mut shards: HashMap<u64, HashMap<String, TensorType>> = HashMap::new();
    let mut failed = false;
    for symbolic in [false, true] {
        let (mut right, mut wrong, mut skipped) = (0, 0, 0);
        let mut unsupported: BTreeMap<String, usize> = BTreeMap::new();
        for line in index.lines() {
            let case: Json = serde_json::from_str(line)?;
            let name = case["op"].as_str().unwrap_or_default();
            if !name.contains(&only) || line.contains("\"complex\"") {
                continue;
            }
            let shard = case["shard"].as_u64().unwrap_or(0);
            if let std::collections::hash_map::Entry::Vacant(slot) = shards.entry(shard) {
                slot.insert(types(&folder.join(format!("shard-{shard}.safetensors")))?);
            }
            let tensors = &shards[&shard];
            match cases::run(&case, &|key| tensors[key].clone(), symbolic) {
                Outcome::Right => right += 1,
                Outcome::Skipped => skipped += 1,
                Outcome::Unsupported(what) => *unsupported.entry(what).or_default() += 1,
                Outcome::Wrong(got, want) => {
                    wrong += 1;
                    println!("{name} {}: got {got}, want {want}; args {}", case["id"], case["args"]);
                }
            }
        }
        println!("symbolic {symbolic}: right {right}, wrong {wrong}, skipped {skipped}, unsupported {unsupported:#?}");
        failed |= wrong > 0;
    }
    std::process::exit(i32::from(failed));
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
