//! Recorded models: a folder with `fixture.json`, `inputs.safetensors`, `expected.safetensors` and the model's files.

use crate::compare::Tolerance;
use crate::leaf::Leaf;
use delegraph_types::DType;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A fixture that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("`{}`: {problem}", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A recorded model.
#[derive(Debug)]
pub struct Fixture {
    /// Its folder.
    pub folder: PathBuf,
    /// Tolerance of every comparison.
    pub tolerance: Tolerance,
    /// A case starts from a fresh model; its steps run in order on that one instance.
    pub cases: Vec<Case>,
}

/// Steps on one instance.
#[derive(Debug, Clone)]
pub struct Case {
    /// Unique in the fixture.
    pub name: String,
    /// In order.
    pub steps: Vec<Step>,
    /// Buffer name to its value after the last step.
    pub buffers_after: BTreeMap<String, Leaf>,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Step {
    /// Flattened arguments, then keyword arguments.
    pub inputs: Vec<Leaf>,
    /// Flattened results.
    pub outputs: Vec<Leaf>,
    /// The inputs after the call, where the model changes them.
    pub inputs_after: Vec<Leaf>,
}

#[derive(Deserialize)]
struct RawFixture {
    rtol: f64,
    atol: f64,
    cases: Vec<RawCase>,
}

#[derive(Deserialize)]
struct RawCase {
    name: String,
    steps: Vec<RawStep>,
    #[serde(default)]
    buffers_after: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct RawStep {
    inputs: Vec<RawLeaf>,
    outputs: Vec<RawLeaf>,
    #[serde(default)]
    inputs_after: Vec<RawLeaf>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawLeaf {
    Tensor { tensor: String },
    Const { r#const: serde_json::Value },
}

impl Fixture {
    /// Reads a fixture folder.
    ///
    /// # Errors
    /// A file is absent or malformed, or names a tensor that is not there.
    pub fn read(folder: &Path) -> Result<Fixture, FixtureError> {
        let path = folder.join("fixture.json");
        let bytes = read(&path)?;
        let raw: RawFixture = serde_json::from_slice(&bytes).map_err(|error| format_error(&path, error.to_string()))?;
        let inputs = Tensors::read(&folder.join("inputs.safetensors"))?;
        let expected = Tensors::read(&folder.join("expected.safetensors"))?;
        let mut cases = Vec::new();
        for case in raw.cases {
            let mut steps = Vec::new();
            for step in &case.steps {
                steps.push(Step {
                    inputs: inputs.leaves(&step.inputs)?,
                    outputs: expected.leaves(&step.outputs)?,
                    inputs_after: expected.leaves(&step.inputs_after)?,
                });
            }
            let mut buffers_after = BTreeMap::new();
            for (name, key) in &case.buffers_after {
                let key = key
                    .as_str()
                    .or_else(|| key.get("tensor").and_then(serde_json::Value::as_str));
                let key = key.ok_or_else(|| format_error(&path, format!("buffer `{name}` names no tensor")))?;
                buffers_after.insert(name.clone(), expected.leaf(key)?);
            }
            cases.push(Case {
                name: case.name,
                steps,
                buffers_after,
            });
        }
        Ok(Fixture {
            folder: folder.to_path_buf(),
            tolerance: Tolerance {
                rtol: raw.rtol,
                atol: raw.atol,
            },
            cases,
        })
    }

    /// Names of the cases without reading tensors.
    ///
    /// # Errors
    /// As [`Fixture::read`].
    pub fn case_names(folder: &Path) -> Result<Vec<String>, FixtureError> {
        let path = folder.join("fixture.json");
        let raw: RawFixture =
            serde_json::from_slice(&read(&path)?).map_err(|error| format_error(&path, error.to_string()))?;
        Ok(raw.cases.into_iter().map(|case| case.name).collect())
    }
}

/// The tensors of a safetensors file.
#[derive(Debug, Clone, Default)]
pub struct Tensors {
    path: PathBuf,
    items: BTreeMap<String, Leaf>,
}

impl Tensors {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or is no safetensors file.
    pub fn read(path: &Path) -> Result<Tensors, FixtureError> {
        Tensors::parse(&read(path)?, path)
    }

    /// Reads the bytes of a file; `path` is for messages.
    ///
    /// # Errors
    /// They are no safetensors file.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Tensors, FixtureError> {
        let file =
            safetensors::SafeTensors::deserialize(bytes).map_err(|error| format_error(path, error.to_string()))?;
        let mut items = BTreeMap::new();
        for (name, view) in file.tensors() {
            let dtype = dtype_of(view.dtype()).ok_or_else(|| {
                format_error(
                    path,
                    format!("tensor `{name}` has unsupported dtype {:?}", view.dtype()),
                )
            })?;
            let leaf = Leaf::Tensor {
                dtype,
                shape: view.shape().iter().map(|&d| d as i64).collect(),
                bytes: view.data().to_vec(),
            };
            items.insert(name, leaf);
        }
        Ok(Tensors {
            path: path.to_path_buf(),
            items,
        })
    }

    /// Puts a tensor in, in place of one of this name.
    pub fn insert(&mut self, name: &str, leaf: Leaf) {
        self.items.insert(name.to_string(), leaf);
    }

    /// Every tensor by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Leaf)> {
        self.items.iter().map(|(name, leaf)| (name.as_str(), leaf))
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Leaf> {
        self.items.get(name)
    }

    fn leaf(&self, key: &str) -> Result<Leaf, FixtureError> {
        self.items
            .get(key)
            .cloned()
            .ok_or_else(|| format_error(&self.path, format!("no tensor `{key}`")))
    }

    fn leaves(&self, raw: &[RawLeaf]) -> Result<Vec<Leaf>, FixtureError> {
        raw.iter()
            .map(|leaf| match leaf {
                RawLeaf::Tensor { tensor } => self.leaf(tensor),
                RawLeaf::Const { r#const } => constant(r#const).ok_or_else(|| {
                    format_error(
                        &self.path,
                        format!("constant {const} is no Python scalar, string or None", const = r#const),
                    )
                }),
            })
            .collect()
    }
}

fn constant(value: &serde_json::Value) -> Option<Leaf> {
    use serde_json::Value;
    Some(match value {
        Value::Null => Leaf::None,
        Value::Bool(b) => Leaf::Bool(*b),
        Value::Number(n) => match n.as_i64() {
            Some(i) => Leaf::Int(i),
            None => Leaf::Float(n.as_f64()?),
        },
        Value::String(s) => Leaf::Str(s.clone()),
        _ => return None,
    })
}

fn dtype_of(dtype: safetensors::Dtype) -> Option<DType> {
    use safetensors::Dtype as S;
    Some(match dtype {
        S::BOOL => DType::Bool,
        S::U8 => DType::U8,
        S::I8 => DType::I8,
        S::I16 => DType::I16,
        S::U16 => DType::U16,
        S::F16 => DType::F16,
        S::BF16 => DType::BF16,
        S::I32 => DType::I32,
        S::U32 => DType::U32,
        S::F32 => DType::F32,
        S::F64 => DType::F64,
        S::I64 => DType::I64,
        S::U64 => DType::U64,
        S::C64 => DType::C64,
        _ => return None,
    })
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FixtureError> {
    std::fs::read(path).map_err(|source| FixtureError::Read {
        path: path.to_path_buf(),
        source,
    })
}

pub(crate) fn format_error(path: &Path, problem: String) -> FixtureError {
    FixtureError::Format {
        path: path.to_path_buf(),
        problem,
    }
}
