//! The recorded cases, embedded in the program: nothing else has to be on a device.
//!
//! `conformance/cases/README.md` describes the form. A case is read when it is first asked for; the list of ids is made once.

use super::tolerance::Rule;
use delegraph_runner::corpus::{OpCase, parse_case};
use delegraph_runner::fixture::Tensors;
use serde::Deserialize;
use std::path::Path;
use std::sync::OnceLock;

const CALLS: &str = include_str!("../../../cases/index.jsonl");
const PROGRAMS: &str = include_str!("../../../cases/programs.jsonl");
const CALL_TENSORS: &[u8] = include_bytes!("../../../cases/shard-0.safetensors");
const PROGRAM_TENSORS: &[u8] = include_bytes!("../../../cases/shard-1.safetensors");

/// A recorded call of an operator.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is called, and what came out, rounded to its dtype.
    pub case: OpCase,
    /// How a result is judged.
    pub rule: Rule,
    /// Parameters whose tensors are weights.
    pub constants: Vec<String>,
    /// By result: key of what came out before it was rounded to a dtype of 16 bits.
    pub precise: Vec<Option<String>>,
    /// By result: key of the magnitude that its rounding is measured by.
    pub scale: Vec<Option<String>>,
}

/// What a line of the index holds beside an [`OpCase`].
#[derive(Deserialize)]
struct More {
    #[serde(rename = "class")]
    class: String,
    #[serde(default = "one")]
    k: u64,
    #[serde(default)]
    policy: String,
    #[serde(default)]
    constants: Vec<String>,
    #[serde(default)]
    precise: Vec<Option<String>>,
    #[serde(default)]
    scale: Vec<Option<String>>,
}

fn one() -> u64 {
    1
}

/// A recorded program: a line of `programs.jsonl`.
#[derive(Debug, Clone, Deserialize)]
pub struct Program {
    /// `quantized/linear/int8-per-axis/rank2`
    pub id: String,
    /// What it is about, for the grid of a report.
    pub op: String,
    /// How results are judged: a class by name.
    pub class: String,
    /// Terms of a sum.
    #[serde(default = "one")]
    pub k: u64,
    /// The dtype of its first input.
    pub dtype: String,
    /// What is odd about it.
    #[serde(default)]
    pub about: String,
    /// Smallest and largest size of each symbol.
    pub symbols: std::collections::BTreeMap<String, [i64; 2]>,
    /// Name, dtype by PyTorch's name, sizes.
    pub inputs: Vec<(String, String, Vec<serde_json::Value>)>,
    /// Name and key.
    pub constants: Vec<(String, String)>,
    /// Name, key of the first value, and the value that it has after a run.
    #[serde(default)]
    pub states: Vec<(String, String, String)>,
    /// Operator, arguments by parameter, results.
    pub nodes: Vec<Node>,
    /// Values that it gives.
    pub outputs: Vec<String>,
    /// Runs, in this order, on one session.
    pub steps: Vec<Step>,
    /// Inputs that have to be refused.
    #[serde(default)]
    pub refused: Vec<Vec<String>>,
}

/// A node of a program: operator, arguments by parameter, names of its results.
pub type Node = (String, Vec<(String, serde_json::Value)>, Vec<String>);

/// A run of a program.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    /// Keys of what goes in.
    #[serde(rename = "in")]
    pub inputs: Vec<String>,
    /// Keys of what comes out.
    pub out: Vec<String>,
    /// By result: key of the magnitude that its rounding is measured by.
    #[serde(default)]
    pub scale: Vec<String>,
}

/// A line of the index.
///
/// # Errors
/// It is malformed, in a sentence.
fn call_of(line: &str) -> Result<Call, String> {
    let case = parse_case(line)?;
    let more: More = serde_json::from_str(line).map_err(|error| error.to_string())?;
    Ok(Call {
        rule: Rule::new(&more.class, more.k, &more.policy)?,
        constants: more.constants,
        precise: more.precise,
        scale: more.scale,
        case,
    })
}

/// Everything that was recorded, for a hash over it.
pub fn recorded() -> Vec<&'static [u8]> {
    vec![CALLS.as_bytes(), PROGRAMS.as_bytes(), CALL_TENSORS, PROGRAM_TENSORS]
}

/// Every recorded call.
///
/// # Errors
/// The embedded file is malformed, which a test rules out.
pub fn calls() -> Result<&'static [Call], String> {
    static CELL: OnceLock<Result<Vec<Call>, String>> = OnceLock::new();
    let read = || {
        let lines = CALLS.lines().enumerate();
        let calls = lines.map(|(i, line)| call_of(line).map_err(|problem| format!("index.jsonl:{}: {problem}", i + 1)));
        calls.collect()
    };
    CELL.get_or_init(read).as_deref().map_err(String::clone)
}

/// Every recorded program.
///
/// # Errors
/// As [`calls`].
pub fn programs() -> Result<&'static [Program], String> {
    static CELL: OnceLock<Result<Vec<Program>, String>> = OnceLock::new();
    let read = || {
        let lines = PROGRAMS.lines().enumerate();
        let parsed = lines
            .map(|(i, line)| serde_json::from_str(line).map_err(|error| format!("programs.jsonl:{}: {error}", i + 1)));
        parsed.collect()
    };
    CELL.get_or_init(read).as_deref().map_err(String::clone)
}

fn tensors(
    cell: &'static OnceLock<Result<Tensors, String>>,
    bytes: &[u8],
    name: &str,
) -> Result<&'static Tensors, String> {
    let read = || Tensors::parse(bytes, Path::new(name)).map_err(|error| error.to_string());
    cell.get_or_init(read).as_ref().map_err(String::clone)
}

/// The tensors of calls.
///
/// # Errors
/// As [`calls`].
pub fn call_tensors() -> Result<&'static Tensors, String> {
    static CELL: OnceLock<Result<Tensors, String>> = OnceLock::new();
    tensors(&CELL, CALL_TENSORS, "shard-0.safetensors")
}

/// The tensors of programs.
///
/// # Errors
/// As [`calls`].
pub fn program_tensors() -> Result<&'static Tensors, String> {
    static CELL: OnceLock<Result<Tensors, String>> = OnceLock::new();
    tensors(&CELL, PROGRAM_TENSORS, "shard-1.safetensors")
}
