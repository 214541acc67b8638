//! Runs a corpus of operator calls through the decompositions and the portable kernels.
//!
//! `cargo run -p delegraph-passes --example corpus_decompose -- FOLDER [--op GLOB[,GLOB]] [--fails N] [--all]`
//! `… -- --uncovered` lists the operators of the table that have neither a decomposition nor a kernel.
//!
//! FOLDER holds `index.jsonl` and its `.safetensors` shards. Only operators with a decomposition are run unless `--all`.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Verdict, run_case};
use delegraph_ir::Op;
use delegraph_opset::BaseType;
use delegraph_passes::decompose::has_rule;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::ExitCode;

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    no_kernel: usize,
    left_out: usize,
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

/// True if nothing failed.
fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let (mut folder, mut globs, mut fails, mut all) = (String::new(), "*".to_string(), 2, false);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--op" => globs = words.next().ok_or("--op needs a pattern")?,
            "--fails" => fails = words.next().ok_or("--fails needs a number")?.parse()?,
            "--all" => all = true,
            "--uncovered" => {
                uncovered();
                return Ok(true);
            }
            _ => folder = word,
        }
    }
    let index = std::fs::read_to_string(format!("{folder}/index.jsonl"))?;
    let mut shards: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut missing: BTreeMap<&'static str, usize> = BTreeMap::new();
    std::panic::set_hook(Box::new(|_| {}));
    for line in index.lines() {
        let case: Value = serde_json::from_str(line)?;
        let name = case["op"].as_str().ok_or("case without op")?;
        let wanted = globs.split(',').any(|glob| matches(glob.as_bytes(), name.as_bytes()));
        if !wanted || !(all || Op::find(name).is_some_and(has_rule)) {
            continue;
        }
        let number = case["shard"].as_u64().ok_or("case without shard")?;
        if let std::collections::btree_map::Entry::Vacant(slot) = shards.entry(number) {
            slot.insert(std::fs::read(format!("{folder}/shard-{number}.safetensors"))?);
        }
        let shard = SafeTensors::deserialize(&shards[&number])?;
        let verdict = std::panic::catch_unwind(|| run_case(&case, &shard)).unwrap_or_else(|cause| {
            let text = cause.downcast_ref::<String>().map(String::as_str);
            let text = text.or(cause.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Verdict::Failed(format!("PANIC: {text}"))
        });
        let tally = tallies.entry(name.to_string()).or_default();
        match verdict {
            Verdict::Passed => tally.passed += 1,
            Verdict::LeftOut => tally.left_out += 1,
            Verdict::NoKernel(op) => {
                tally.no_kernel += 1;
                *missing.entry(op).or_default() += 1;
            }
            Verdict::Failed(why) => {
                if tally.failed < fails {
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
    for (name, t) in &tallies {
        if t.failed > 0 || t.no_kernel > 0 || globs != "*" {
            let counts = (t.passed, t.failed, t.no_kernel, t.left_out);
            println!(
                "{name}: {} passed, {} failed, {} no kernel, {} left out",
                counts.0, counts.1, counts.2, counts.3
            );
        }
        sum.passed += t.passed;
        sum.failed += t.failed;
        sum.no_kernel += t.no_kernel;
        sum.left_out += t.left_out;
    }
    println!("operators that stay and have no kernel: {missing:?}");
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

/// Lists functional operators over tensors that have neither a decomposition nor a kernel.
fn uncovered() {
    for op in Op::all() {
        let schema = op.schema();
        let functional = schema.params.iter().all(|p| !p.mutated)
            && schema.params.iter().any(|p| p.ty.base == BaseType::Tensor)
            && schema.returns.iter().any(|r| r.ty.base == BaseType::Tensor);
        let kernel = op.out_variant().unwrap_or(op).name();
        if functional && !has_rule(op) && delegraph_kernels::find(kernel).is_none() {
            println!("{}", op.name());
        }
    }
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
