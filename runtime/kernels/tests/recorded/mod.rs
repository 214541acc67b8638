//! Recorded calls of the operator corpus, as calls of kernels. `conformance/corpus/README.md` describes the files.
#![allow(dead_code, reason = "each user uses some of it")]

use delegraph_kernels::{Arg, Buffer, Call, Growable, Kernel, KernelError, Out, Scratch, Tensor, find};
use delegraph_opset::{BaseType, Op, ParamType, Schema};
use delegraph_types::{DType, Dims, MAX_RANK, Scalar};
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeMap;

pub type Problem = Box<dyn std::error::Error>;

/// A folder that holds `index.jsonl` and its `.safetensors` shards.
pub struct Corpus {
    folder: String,
    shards: BTreeMap<u64, Vec<u8>>,
}

impl Corpus {
    /// The corpus and the lines of its index, one a case.
    pub fn open(folder: &str) -> Result<(Corpus, Vec<Value>), Problem> {
        let index = std::fs::read_to_string(format!("{folder}/index.jsonl"))?;
        let cases = index.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let corpus = Corpus {
            folder: folder.to_string(),
            shards: BTreeMap::new(),
        };
        Ok((corpus, cases))
    }

    /// The tensors of a case.
    pub fn shard(&mut self, case: &Value) -> Result<SafeTensors<'_>, Problem> {
        let number = case["shard"].as_u64().ok_or("case without shard")?;
        if let std::collections::btree_map::Entry::Vacant(slot) = self.shards.entry(number) {
            slot.insert(std::fs::read(format!("{}/shard-{number}.safetensors", self.folder))?);
        }
        Ok(SafeTensors::deserialize(&self.shards[&number])?)
    }
}

/// A case that a kernel can be asked about.
#[derive(Clone)]
pub struct Recorded {
    /// The name that the kernel is called by.
    pub name: &'static str,
    kernel: Kernel,
    args: Vec<(Held, ParamType)>,
    /// Every tensor among the arguments, in their order.
    pub tensors: Vec<Stored>,
    /// Those that an in-place operator changes: outputs with contents.
    updated: Vec<usize>,
    /// What the outputs have to be.
    pub wants: Vec<Want>,
}

/// What a call gave.
pub struct Given {
    /// One a wanted tensor, in order.
    pub tensors: Vec<Stored>,
    /// Of an operator that returns a number.
    pub number: Option<Scalar>,
}

/// What an output has to be.
#[derive(Clone)]
pub enum Want {
    Tensor(Stored),
    Meta(DType, Dims),
    /// Not looked at: what `_embedding_bag` keeps for its gradient, which are integers.
    Anything,
    Number(Value),
}

impl Recorded {
    /// A case of the corpus; `None` where no kernel computes it.
    ///
    /// # Errors
    /// The case is not understood.
    pub fn of_case(case: &Value, shard: &SafeTensors, strided: bool) -> Result<Option<Recorded>, Problem> {
        let kernel = case["op"].as_str().and_then(Op::find).and_then(kernel_of);
        let Some((name, kernel, schema)) = kernel else {
            return Ok(None);
        };
        let mut recorded = Recorded {
            name,
            kernel,
            args: Vec::new(),
            tensors: Vec::new(),
            updated: Vec::new(),
            wants: Vec::new(),
        };
        let args = case["args"].as_array().ok_or("args")?;
        for param in schema.inputs() {
            let given = args.iter().find(|pair| pair[0].as_str() == Some(&param.name));
            let mut arg = match given {
                Some(pair) => hold(&pair[1], shard, strided, &mut recorded.tensors)?,
                None => default(&param.default),
            };
            if let (Held::Tensor(index), true) = (&arg, param.mutated) {
                recorded.updated.push(*index);
                arg = Held::None;
            }
            if let (Held::Int(one), true) = (&arg, param.ty.list) {
                arg = Held::Ints(vec![*one; usize::from(param.ty.length.unwrap_or(1))]);
            }
            recorded.args.push((arg, param.ty));
        }
        for value in case["out"].as_array().ok_or("out")? {
            recorded.wants.extend(wants(value, shard)?);
        }
        Ok(Some(recorded))
    }

    /// Calls the kernel. The outputs have the dtypes that `dtype` makes of the recorded ones; `strided` as for the inputs.
    ///
    /// # Errors
    /// The kernel's own.
    pub fn call(&self, strided: bool, dtype: impl Fn(DType) -> DType) -> Result<Given, KernelError> {
        let views: Vec<Tensor> = self.tensors.iter().map(Stored::tensor).collect();
        let lists: Vec<(Vec<Tensor>, Vec<Option<Tensor>>)> = self
            .args
            .iter()
            .map(|(arg, _)| match arg {
                Held::Tensors(items) => (
                    items.iter().flatten().map(|&i| views[i]).collect(),
                    items.iter().map(|item| item.map(|i| views[i])).collect(),
                ),
                _ => (Vec::new(), Vec::new()),
            })
            .collect();
        let args: Vec<Arg> = self
            .args
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
        let mut memories: Vec<Growable> = self.wants.iter().map(|_| Growable::default()).collect();
        let mut outs: Vec<Out> = Vec::new();
        let order = |rank: usize| {
            let order: Vec<i64> = match strided {
                true => reversed(rank).into_iter().map(i64::from).collect(),
                false => Vec::new(),
            };
            Dims::new(&order).expect("a rank that a tensor has")
        };
        let orders: Vec<Dims> = (0..=MAX_RANK).map(order).collect();
        // What an in-place operator changes is an output with contents.
        let mut present = self.updated.iter().map(|&i| &self.tensors[i]);
        for (want, memory) in self.wants.iter().zip(&mut memories) {
            let (wanted, rank) = match want {
                Want::Tensor(stored) => (stored.dtype, stored.sizes.rank()),
                Want::Meta(dtype, sizes) => (*dtype, sizes.rank()),
                Want::Anything => (DType::I64, 1),
                Want::Number(_) => continue,
            };
            let (mut dtype, mut sizes) = (dtype(wanted), Dims::filled(1, 0));
            if let Some(before) = present.next() {
                let bytes = before.tensor().bytes();
                memory.reserve(bytes.len())?.copy_from_slice(bytes);
                (dtype, sizes) = (before.dtype, before.sizes);
            }
            outs.push(Out::new(dtype, sizes, &orders[rank], Buffer::Growable(memory)));
        }
        let mut scratch = Scratch::default();
        let mut call = Call {
            args: &args,
            outs: &mut outs,
            scratch: &mut scratch,
            result: None,
        };
        (self.kernel)(&mut call)?;
        let number = call.result;
        let shapes: Vec<(DType, Dims, Dims)> = outs.iter().map(|o| (o.dtype(), *o.sizes(), o.strides())).collect();
        drop(outs);
        let written = self.wants.iter().zip(memories);
        let written = written.filter(|(want, _)| !matches!(want, Want::Number(_)));
        let tensors = shapes
            .into_iter()
            .zip(written)
            .map(|((dtype, sizes, strides), (_, memory))| Stored {
                dtype,
                sizes,
                strides,
                memory,
            })
            .collect();
        Ok(Given { tensors, number })
    }
}

/// Whether tensors of a value are complex, and stored with a last dimension of 2 for their parts.
fn is_complex(value: &Value) -> bool {
    value["complex"] == true
}

/// What one returned value has to be: a list is a tensor each.
fn wants(value: &Value, shard: &SafeTensors) -> Result<Vec<Want>, Problem> {
    let load = |key: &str| Stored::load(shard, key, is_complex(value), false).map(Want::Tensor);
    if let Some(key) = value["t"].as_str() {
        return Ok(vec![load(key)?]);
    }
    if let Some(keys) = value["tl"].as_array() {
        return keys.iter().map(|key| load(key.as_str().unwrap_or(""))).collect();
    }
    if let Some(meta) = value.get("meta") {
        let dtype = meta["dtype"]
            .as_str()
            .and_then(DType::from_name)
            .ok_or("dtype of an output")?;
        let shape: Vec<i64> = meta["shape"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_i64)
            .collect();
        return Ok(vec![Want::Meta(dtype, Dims::new(&shape)?)]);
    }
    Ok(vec![match value.get("skip") {
        Some(_) => Want::Anything,
        None => Want::Number(value.clone()),
    }])
}

/// A tensor of a case, in memory of its own.
#[derive(Clone)]
pub struct Stored {
    pub dtype: DType,
    pub sizes: Dims,
    pub strides: Dims,
    memory: Growable,
}

impl Stored {
    /// A tensor of a shard; `complex`: its last dimension there is of the parts of its elements; `strided`: its last dimension is the
    /// outermost in memory.
    ///
    /// # Errors
    /// It is not there.
    pub fn load(shard: &SafeTensors, key: &str, complex: bool, strided: bool) -> Result<Stored, Problem> {
        let view = shard.tensor(key)?;
        let text = format!("{:?}", view.dtype());
        let mut dtype = DType::from_name(&text.to_lowercase()).ok_or_else(|| format!("dtype `{text}`"))?;
        let mut sizes = view.shape().iter().map(|&d| d as i64).collect::<Vec<_>>();
        if complex {
            dtype = dtype.complex().ok_or("the dtype of parts")?;
            sizes.pop();
        }
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

    /// The tensor.
    pub fn tensor(&self) -> Tensor<'_> {
        let bytes = self.sizes.numel().unwrap_or(0) * self.dtype.size();
        Tensor::new(self.dtype, &self.sizes, &self.strides, &self.memory.bytes()[..bytes]).expect("memory of its size")
    }
}

fn reversed(rank: usize) -> Vec<u8> {
    (0..rank as u8).rev().collect()
}

/// Offset of the element that is the `linear`th in row-major order.
pub fn position(mut linear: usize, sizes: &Dims, strides: &Dims) -> usize {
    let mut at = 0;
    for d in (0..sizes.rank()).rev() {
        let size = sizes[d].max(1) as usize;
        at += linear % size * strides[d] as usize;
        linear /= size;
    }
    at
}

/// An argument that owns its lists; tensors are indices into the case's tensors.
#[derive(Clone)]
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
        tensors.push(Stored::load(shard, key, is_complex(value), strided)?);
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
pub fn float(value: &Value) -> f64 {
    value
        .as_f64()
        .or_else(|| value.as_str()?.parse().ok())
        .unwrap_or(f64::NAN)
}

/// The kernel that computes `op`, with the schema it is called by.
fn kernel_of(op: Op) -> Option<(&'static str, Kernel, Schema)> {
    let called = op.out_variant().unwrap_or(op);
    Some((called.name(), find(called.name())?, called.schema()))
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

impl Stored {
    /// The same elements in another dtype, as `aten::_to_copy` converts them; it knows no 8-bit floats, which get bytes.
    pub fn convert(&self, to: DType) -> Stored {
        if matches!(to, DType::F8E5M2 | DType::F8E4M3) {
            return Stored {
                dtype: to,
                ..self.convert(DType::U8)
            };
        }
        let mut stored = Stored {
            dtype: to,
            sizes: self.sizes,
            strides: self.strides,
            memory: Growable::default(),
        };
        let mut out = Out::new(
            to,
            Dims::filled(1, 0),
            &Dims::SCALAR,
            Buffer::Growable(&mut stored.memory),
        );
        let args = [Arg::Tensor(self.tensor()), Arg::Bool(false), Arg::None];
        let copy = find("aten::_to_copy.out").expect("its kernel");
        copy(&mut Call {
            args: &args,
            outs: std::slice::from_mut(&mut out),
            scratch: &mut Scratch::default(),
            result: None,
        })
        .expect("any dtype converts to any other");
        stored
    }

    /// A tensor of `calls.jsonl`: dtype, sizes, elements.
    fn of_json(value: &Value) -> Result<Stored, Problem> {
        let numbers = |value: &Value| -> Vec<f64> { value.as_array().into_iter().flatten().map(float).collect() };
        let sizes: Vec<i64> = numbers(&value[1]).into_iter().map(|x| x as i64).collect();
        let sizes = Dims::new(&sizes)?;
        let mut stored = Stored {
            dtype: DType::F64,
            sizes,
            strides: sizes.contiguous_strides(),
            memory: Growable::default(),
        };
        let items = numbers(&value[2]);
        let bytes = stored.memory.reserve(items.len() * 8)?;
        for (to, x) in bytes.chunks_mut(8).zip(items) {
            to.copy_from_slice(&x.to_ne_bytes());
        }
        Ok(stored.convert(DType::from_name(value[0].as_str().unwrap_or("")).ok_or("dtype")?))
    }
}

impl Recorded {
    /// A line of `calls.jsonl`.
    ///
    /// # Errors
    /// The line is not understood.
    pub fn of_call(call: &Value) -> Result<Recorded, Problem> {
        let op = call["kernel"].as_str().and_then(Op::find).ok_or("the operator")?;
        let (mut args, mut tensors, mut updated) = (Vec::new(), Vec::new(), Vec::new());
        for (value, param) in call["args"].as_array().into_iter().flatten().zip(op.schema().inputs()) {
            let items = |of: &str| value[of].as_array().into_iter().flatten();
            let arg = if value.get("t").is_some() {
                tensors.push(Stored::of_json(&value["t"])?);
                Held::Tensor(tensors.len() - 1)
            } else if value.get("m").is_some() {
                tensors.push(Stored::of_json(&value["m"])?);
                updated.push(tensors.len() - 1);
                Held::None
            } else if value.get("il").is_some() {
                Held::Ints(items("il").filter_map(Value::as_i64).collect())
            } else if value.get("bl").is_some() {
                Held::Bools(items("bl").filter_map(Value::as_bool).collect())
            } else if let Some(int) = value["i"].as_i64() {
                Held::Int(int)
            } else if let Some(bool) = value["b"].as_bool() {
                Held::Bool(bool)
            } else {
                value.get("f").map_or(Held::None, |x| Held::Float(float(x)))
            };
            args.push((arg, param.ty));
        }
        let wants = call["outs"].as_array().into_iter().flatten();
        let wants = wants.map(|value| Stored::of_json(value).map(Want::Tensor));
        Ok(Recorded {
            name: op.name(),
            kernel: find(op.name()).ok_or("a kernel")?,
            args,
            tensors,
            updated,
            wants: wants.collect::<Result<_, _>>()?,
        })
    }

    /// The dtype of the first tensor; without one, of what is made. `None` for a call of numbers, and for no elements: a kernel
    /// may look at no dtype then.
    pub fn dtype(&self) -> Option<DType> {
        let first = self.tensors.first().map(|tensor| (tensor.dtype, tensor.sizes));
        let (dtype, sizes) = first.or_else(|| match self.wants.first()? {
            Want::Tensor(stored) => Some((stored.dtype, stored.sizes)),
            Want::Meta(dtype, sizes) => Some((*dtype, *sizes)),
            Want::Anything | Want::Number(_) => None,
        })?;
        (sizes.numel() != Some(0)).then_some(dtype)
    }

    /// Whether the kernel gives a result where [`dtype`](Recorded::dtype) is this one: for the first tensor alone, or for every
    /// tensor that shares its dtype; with outputs of the recorded dtypes, of the new one where they had the old one, all of it, of its
    /// parts or of the complex dtype that it is a part of, or all `f32`, as of a sum of integers that is asked for in floats.
    pub fn accepts(&self, to: DType) -> bool {
        let Some(old) = self.dtype() else { return false };
        [true, false].into_iter().any(|all| {
            let mut call = self.clone();
            for (i, tensor) in call.tensors.iter_mut().enumerate() {
                if i == 0 || all && tensor.dtype == old {
                    *tensor = tensor.convert(to);
                }
            }
            let outs: [&dyn Fn(DType) -> DType; 6] = [
                &|out| if out == old { to } else { out },
                &|_| to,
                &|out| out,
                &|_| to.real(),
                &|_| to.complex().unwrap_or(to),
                &|_| DType::F32,
            ];
            // Of what takes no tensor, the dtype is that of the output.
            let outs = if call.tensors.is_empty() { &outs[..2] } else { &outs[..] };
            outs.iter().any(|dtype| call.call(false, dtype).is_ok())
        })
    }
}
