//! A corpus of operator calls: what is asked of an operator, and what PyTorch answered. The only reader of that format.
//!
//! A folder holds `index.jsonl`, one call a line, and `shard-N.safetensors`, the tensors that the lines name by key. The format
//! is described in `conformance/corpus/README.md`; `conformance/corpus/make_corpus.py` writes it.

use crate::compare::{Difference, Tolerance, compare};
use crate::fixture::{FixtureError, Tensors, format_error, read};
use crate::leaf::Leaf;
use delegraph_types::{DType, Scalar};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An open corpus. Shards are read when a case first needs them.
#[derive(Debug)]
pub struct Corpus {
    folder: PathBuf,
    /// In the order of the index.
    pub cases: Vec<OpCase>,
    shards: BTreeMap<u64, Tensors>,
}

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub struct OpCase {
    /// Unique in the corpus: 16 hexadecimal digits.
    pub key: String,
    /// `aten::add.Tensor`
    pub op: String,
    /// The shard with the case's tensors.
    pub shard: u64,
    /// By parameter name, in the order of the schema; a generator is left out.
    pub args: Vec<(String, Argument)>,
    /// One for each returned value.
    pub out: Vec<Want>,
    /// Zero where results have to be exact.
    pub tolerance: Tolerance,
    /// The sample that led to the call, or `edge`.
    pub source: String,
}

/// An argument; tensors are keys of the shard.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    /// `None`
    None,
    /// A tensor.
    Tensor(String),
    /// `Tensor[]` or `Tensor?[]`
    Tensors(Vec<Option<String>>),
    /// A Python number; at a `Tensor` parameter it is a wrapped number.
    Number(Scalar),
    /// `str`
    Str(String),
    /// `int[]`
    Ints(Vec<i64>),
    /// `float[]`
    Floats(Vec<f64>),
    /// `bool[]`
    Bools(Vec<bool>),
    /// `Scalar[]`
    Scalars(Vec<Scalar>),
    /// `torch.float32`, by its name without `torch.`; it need not be one that Delegraph has.
    DType(String),
    /// `torch.contiguous_format`, likewise.
    MemoryFormat(String),
    /// A layout or a device: every tensor here is strided and on the CPU.
    Place,
}

/// What a returned value has to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Want {
    /// A tensor.
    Tensor(String),
    /// A list of tensors.
    Tensors(Vec<String>),
    /// A number.
    Number(Scalar),
    /// A tensor of which only dtype and shape are determined.
    Meta {
        /// PyTorch's name.
        dtype: String,
        /// Sizes.
        shape: Vec<i64>,
    },
    /// A tensor of which nothing is determined.
    Skip,
}

#[derive(Deserialize)]
struct RawCase {
    id: String,
    op: String,
    shard: u64,
    args: Vec<(String, Value)>,
    out: Vec<Value>,
    #[serde(default)]
    rtol: Option<Value>,
    #[serde(default)]
    atol: Option<Value>,
    #[serde(default)]
    source: String,
}

impl Corpus {
    /// Reads the index of a folder.
    ///
    /// # Errors
    /// It cannot be read, or a line is no case.
    pub fn open(folder: &Path) -> Result<Corpus, FixtureError> {
        let path = folder.join("index.jsonl");
        let text = read(&path)?;
        let text =
            std::str::from_utf8(&text).map_err(|error| format_error(&path, format!("it is no UTF-8: {error}")))?;
        let cases = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let cases = cases
            .map(|(i, line)| {
                parse_case(line).map_err(|problem| format_error(&path, format!("line {}: {problem}", i + 1)))
            })
            .collect::<Result<_, _>>()?;
        Ok(Corpus {
            folder: folder.to_path_buf(),
            cases,
            shards: BTreeMap::new(),
        })
    }

    /// The file of a shard.
    pub fn shard_path(&self, shard: u64) -> PathBuf {
        self.folder.join(format!("shard-{shard}.safetensors"))
    }

    /// The tensors of a shard.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn shard(&mut self, shard: u64) -> Result<&Tensors, FixtureError> {
        let path = self.shard_path(shard);
        match self.shards.entry(shard) {
            std::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let mut tensors = Tensors::read(&path)?;
                let here = self.cases.iter().filter(|case| case.shard == shard);
                for key in here.flat_map(OpCase::keys) {
                    if let Some(stored) = key.strip_suffix(COMPLEX)
                        && tensors.get(key).is_none()
                    {
                        let leaf = tensors.get(stored).and_then(Leaf::as_complex).ok_or_else(|| {
                            format_error(&path, format!("`{stored}` holds no parts of complex numbers"))
                        })?;
                        tensors.insert(key, leaf);
                    }
                }
                Ok(entry.insert(tensors))
            }
        }
    }

    /// The tensors of a case.
    ///
    /// # Errors
    /// Its shard cannot be read.
    pub fn tensors(&mut self, case: usize) -> Result<&Tensors, FixtureError> {
        let shard = self.cases[case].shard;
        self.shard(shard)
    }
}

impl OpCase {
    /// `aten::add.Tensor/160654f5a47d0d23`: what reports call it.
    pub fn id(&self) -> String {
        format!("{}/{}", self.op, self.key)
    }

    /// The recorded argument of this parameter.
    pub fn arg(&self, name: &str) -> Option<&Argument> {
        self.args.iter().find(|(have, _)| have == name).map(|(_, arg)| arg)
    }

    /// Keys of the tensors that go in, in order.
    pub fn inputs(&self) -> Vec<&str> {
        let mut keys = Vec::new();
        for (_, arg) in &self.args {
            match arg {
                Argument::Tensor(key) => keys.push(key.as_str()),
                Argument::Tensors(items) => keys.extend(items.iter().flatten().map(String::as_str)),
                _ => {}
            }
        }
        keys
    }

    /// Keys of the tensors that come out, in order; `None` where a result is no tensor or is not determined.
    pub fn outputs(&self) -> Option<Vec<&str>> {
        let mut keys = Vec::new();
        for want in &self.out {
            match want {
                Want::Tensor(key) => keys.push(key.as_str()),
                Want::Tensors(items) => keys.extend(items.iter().map(String::as_str)),
                _ => return None,
            }
        }
        Some(keys)
    }

    /// Keys of all tensors.
    fn keys(&self) -> impl Iterator<Item = &str> {
        let out = self.out.iter().flat_map(|want| match want {
            Want::Tensor(key) => std::slice::from_ref(key),
            Want::Tensors(items) => items,
            _ => &[],
        });
        self.inputs().into_iter().chain(out.map(String::as_str))
    }

    /// The dtype that the case is filed under: that of its first tensor, or else of its first result.
    pub fn dtype(&self, tensors: &Tensors) -> String {
        let of = |key: &str| match tensors.get(key) {
            Some(Leaf::Tensor { dtype, .. }) => dtype.name().to_string(),
            _ => String::new(),
        };
        if let Some(key) = self.inputs().first() {
            return of(key);
        }
        match self.out.first() {
            Some(Want::Tensor(key)) => of(key),
            Some(Want::Meta { dtype, .. }) => DType::from_name(dtype).map_or(dtype.clone(), |d| d.name().to_string()),
            _ => String::new(),
        }
    }

    /// Compares results with what was recorded; returned lists are flattened.
    ///
    /// # Errors
    /// A sentence that names the first result that differs.
    pub fn judge(&self, got: &[Leaf], tensors: &Tensors) -> Result<Difference, String> {
        let mut rest = got.iter();
        let mut worst = Difference::default();
        let mut position = 0;
        for want in &self.out {
            let keys = match want {
                Want::Tensors(keys) => keys.len(),
                _ => 1,
            };
            for k in 0..keys {
                let got = rest
                    .next()
                    .ok_or_else(|| format!("got {} results, want more", got.len()))?;
                let judged = match want {
                    Want::Tensor(key) => self.against(got, key, tensors),
                    Want::Tensors(keys) => self.against(got, &keys[k], tensors),
                    Want::Number(number) => self.number(got, *number),
                    Want::Meta { dtype, shape } => like(got, dtype, shape),
                    Want::Skip => Ok(Difference::default()),
                };
                worst = worst.join(judged.map_err(|reason| format!("output {position}: {reason}"))?);
                position += 1;
            }
        }
        match rest.count() {
            0 => Ok(worst),
            _ => Err(format!("got {} results, want {position}", got.len())),
        }
    }

    /// A bool, an int and a float are three things.
    fn number(&self, got: &Leaf, want: Scalar) -> Result<Difference, String> {
        let want = leaf(want);
        match std::mem::discriminant(got) == std::mem::discriminant(&want) {
            true => compare(got, &want, self.tolerance),
            false => Err(format!("got {}, want {}", got.describe(), want.describe())),
        }
    }

    fn against(&self, got: &Leaf, key: &str, tensors: &Tensors) -> Result<Difference, String> {
        let want = tensors
            .get(key)
            .ok_or_else(|| format!("the shard has no tensor `{key}`"))?;
        compare(got, want, self.tolerance)
    }
}

/// A number as a leaf.
pub fn leaf(number: Scalar) -> Leaf {
    match number {
        Scalar::Bool(b) => Leaf::Bool(b),
        Scalar::Int(i) => Leaf::Int(i),
        Scalar::Float(f) => Leaf::Float(f),
    }
}

/// dtype and shape alone.
fn like(got: &Leaf, want: &str, sizes: &[i64]) -> Result<Difference, String> {
    match got {
        Leaf::Tensor { dtype, shape, .. } if dtype.torch_name() == want && shape == sizes => Ok(Difference::default()),
        _ => Err(format!(
            "got {}, want a {want} tensor of sizes {sizes:?}",
            got.describe()
        )),
    }
}

/// A line of the index.
///
/// # Errors
/// It is no case, in a sentence.
pub fn parse_case(line: &str) -> Result<OpCase, String> {
    let raw: RawCase = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let number = |value: &Option<Value>| value.as_ref().map_or(Ok(0.0), float);
    Ok(OpCase {
        tolerance: Tolerance {
            rtol: number(&raw.rtol)?,
            atol: number(&raw.atol)?,
        },
        args: raw
            .args
            .iter()
            .map(|(name, value)| Ok((name.clone(), argument(value)?)))
            .collect::<Result<_, String>>()?,
        out: raw.out.iter().map(want).collect::<Result<_, String>>()?,
        key: raw.id,
        op: raw.op,
        shard: raw.shard,
        source: raw.source,
    })
}

/// The kind of a value and what it holds; `None` for null.
fn tagged(value: &Value) -> Result<Option<(&str, &Value)>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let pair = value
        .as_object()
        .and_then(|object| object.iter().find(|(kind, _)| *kind != "complex"));
    let (kind, inner) = pair.ok_or_else(|| format!("{value} is no value"))?;
    Ok(Some((kind, inner)))
}

/// What follows the key of a tensor that is stored as its parts: the same tensor may be there as it is, too.
const COMPLEX: &str = " as complex";

/// The key of a tensor. `"complex": true`: it is complex, and stored with a last dimension of 2 for its parts; in a list, each is.
fn key(value: &Value, item: &Value) -> Option<String> {
    let key = item.as_str()?;
    match value["complex"] == true {
        true => Some(format!("{key}{COMPLEX}")),
        false => Some(key.to_string()),
    }
}

/// An argument in the form of the index.
///
/// # Errors
/// It is none, in a sentence.
pub fn argument(value: &Value) -> Result<Argument, String> {
    let Some((kind, inner)) = tagged(value)? else {
        return Ok(Argument::None);
    };
    let no_such = || format!("{value} is no argument");
    let items = || inner.as_array().map(Vec::as_slice).ok_or_else(no_such);
    let text = || inner.as_str().map(str::to_string).ok_or_else(no_such);
    Ok(match kind {
        "t" => Argument::Tensor(key(value, inner).ok_or_else(no_such)?),
        "tl" => Argument::Tensors(items()?.iter().map(|item| key(value, item)).collect()),
        "i" | "f" | "b" => Argument::Number(scalar(kind, inner)?),
        "s" => Argument::Str(text()?),
        "il" => Argument::Ints(
            items()?
                .iter()
                .map(Value::as_i64)
                .collect::<Option<_>>()
                .ok_or_else(no_such)?,
        ),
        "fl" => Argument::Floats(items()?.iter().map(float).collect::<Result<_, _>>()?),
        "bl" => Argument::Bools(
            items()?
                .iter()
                .map(Value::as_bool)
                .collect::<Option<_>>()
                .ok_or_else(no_such)?,
        ),
        "sl" => Argument::Scalars(
            items()?
                .iter()
                .map(|item| {
                    let (kind, inner) = tagged(item)?.ok_or_else(no_such)?;
                    scalar(kind, inner)
                })
                .collect::<Result<_, _>>()?,
        ),
        "dtype" => Argument::DType(text()?),
        "memory_format" => Argument::MemoryFormat(text()?),
        "layout" | "device" => Argument::Place,
        _ => return Err(no_such()),
    })
}

fn want(value: &Value) -> Result<Want, String> {
    let no_such = || format!("{value} is no result");
    let (kind, inner) = tagged(value)?.ok_or_else(no_such)?;
    let text = |value: &Value| value.as_str().map(str::to_string).ok_or_else(no_such);
    Ok(match kind {
        "t" => Want::Tensor(key(value, inner).ok_or_else(no_such)?),
        "tl" => {
            let keys = inner.as_array().ok_or_else(no_such)?.iter();
            Want::Tensors(
                keys.map(|item| key(value, item))
                    .collect::<Option<_>>()
                    .ok_or_else(no_such)?,
            )
        }
        "i" | "f" | "b" => Want::Number(scalar(kind, inner)?),
        "meta" => Want::Meta {
            dtype: text(&inner["dtype"])?,
            shape: inner["shape"]
                .as_array()
                .and_then(|sizes| sizes.iter().map(Value::as_i64).collect())
                .ok_or_else(no_such)?,
        },
        "skip" => Want::Skip,
        _ => return Err(no_such()),
    })
}

fn scalar(kind: &str, value: &Value) -> Result<Scalar, String> {
    let found = match kind {
        "i" => value.as_i64().map(Scalar::Int),
        "b" => value.as_bool().map(Scalar::Bool),
        "f" => Some(Scalar::Float(float(value)?)),
        _ => None,
    };
    found.ok_or_else(|| format!("{value} is no number of kind `{kind}`"))
}

/// A JSON number, or `inf`, `-inf` or `nan`.
fn float(value: &Value) -> Result<f64, String> {
    let parsed = || match value.as_str()? {
        "inf" => Some(f64::INFINITY),
        "-inf" => Some(f64::NEG_INFINITY),
        "nan" => Some(f64::NAN),
        _ => None,
    };
    value
        .as_f64()
        .or_else(parsed)
        .ok_or_else(|| format!("{value} is no float"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_read() {
        let line = r#"{"id":"00","op":"aten::x","shard":0,"args":[
            ["a",null],["b",{"t":"k"}],["c",{"t":"k","complex":true}],["d",{"tl":["k",null]}],["e",{"i":-1}],["f",{"f":"-inf"}],
            ["g",{"b":true}],["h",{"s":"mean"}],["i",{"il":[1,2]}],["j",{"fl":[0.5]}],["k",{"bl":[false]}],
            ["l",{"sl":[{"i":1},{"f":2.0}]}],["m",{"dtype":"float16"}],["n",{"layout":"strided"}],
            ["o",{"memory_format":"contiguous_format"}]],
            "out":[{"t":"k"},{"tl":["k"]},{"meta":{"dtype":"float32","shape":[2]}},{"skip":true},{"i":3}],"rtol":0.5}"#;
        let case = parse_case(&line.replace('\n', "")).unwrap();
        let args: Vec<Argument> = case.args.iter().map(|(_, arg)| arg.clone()).collect();
        let key = "k".to_string();
        assert_eq!(
            args,
            [
                Argument::None,
                Argument::Tensor(key.clone()),
                Argument::Tensor(format!("{key} as complex")),
                Argument::Tensors(vec![Some(key.clone()), None]),
                Argument::Number(Scalar::Int(-1)),
                Argument::Number(Scalar::Float(f64::NEG_INFINITY)),
                Argument::Number(Scalar::Bool(true)),
                Argument::Str("mean".to_string()),
                Argument::Ints(vec![1, 2]),
                Argument::Floats(vec![0.5]),
                Argument::Bools(vec![false]),
                Argument::Scalars(vec![Scalar::Int(1), Scalar::Float(2.0)]),
                Argument::DType("float16".to_string()),
                Argument::Place,
                Argument::MemoryFormat("contiguous_format".to_string()),
            ]
        );
        assert_eq!(case.inputs(), ["k", "k as complex", "k"]);
        assert_eq!(case.outputs(), None, "a number is among them");
        assert_eq!(case.out.len(), 5);
        assert_eq!((case.tolerance.rtol, case.tolerance.atol), (0.5, 0.0));
        assert_eq!(case.id(), "aten::x/00");
    }

    #[test]
    fn results_are_judged_by_their_kind() {
        let tensors = Tensors::default();
        let case = |out: &str| {
            parse_case(&format!(
                r#"{{"id":"00","op":"aten::x","shard":0,"args":[],"out":[{out}]}}"#
            ))
            .unwrap()
        };
        let zeros = Leaf::Tensor {
            dtype: DType::F32,
            shape: vec![2],
            bytes: vec![0; 8],
        };
        for (out, got, pass) in [
            (r#"{"i":3}"#, vec![Leaf::Int(3)], true),
            (r#"{"i":3}"#, vec![Leaf::Int(4)], false),
            (r#"{"b":true}"#, vec![Leaf::Bool(true)], true),
            (r#"{"b":true}"#, vec![Leaf::Int(1)], false),
            (r#"{"f":1.0}"#, vec![Leaf::Int(1)], false),
            (r#"{"f":"nan"}"#, vec![Leaf::Float(f64::NAN)], true),
            (r#"{"meta":{"dtype":"float32","shape":[2]}}"#, vec![zeros.clone()], true),
            (
                r#"{"meta":{"dtype":"float32","shape":[1]}}"#,
                vec![zeros.clone()],
                false,
            ),
            (r#"{"meta":{"dtype":"int32","shape":[2]}}"#, vec![zeros.clone()], false),
            (r#"{"skip":true}"#, vec![zeros.clone()], true),
            (r#"{"skip":true}"#, vec![], false),
            (r#"{"skip":true}"#, vec![zeros.clone(), zeros.clone()], false),
            (r#"{"t":"absent"}"#, vec![zeros.clone()], false),
        ] {
            assert_eq!(case(out).judge(&got, &tensors).is_ok(), pass, "{out} {got:?}");
        }
    }

    #[test]
    fn malformed_lines_are_refused() {
        for args in [
            r#"["a",{"i":"x"}]"#,
            r#"["a",{"what":1}]"#,
            r#"["a",7]"#,
            r#"["a",{"il":[1,"x"]}]"#,
            r#"["a",{"f":"Infinity"}]"#,
        ] {
            let line = format!(r#"{{"id":"00","op":"aten::x","shard":0,"args":[{args}],"out":[]}}"#);
            assert!(parse_case(&line).is_err(), "{args}");
        }
        assert!(parse_case("{}").is_err());
    }
}
