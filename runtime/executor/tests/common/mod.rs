//! What the tests of this folder share.
#![allow(dead_code)]

use delegraph_executor::{Executor, Input, Options, Output, ProgramData};
use delegraph_pte::Verified;
use delegraph_pte::model::{Allocation, Dynamism, EValue, Instruction, Operator, Plan, Storage, Tensor};
use delegraph_pte::{ProgramParts, write};
use delegraph_types::{DType, Dims, f16};
use std::path::PathBuf;
use std::sync::Arc;

/// A program that ExecuTorch wrote.
pub fn sample(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../pte/tests/data")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn dims(sizes: &[i64]) -> Dims {
    Dims::new(sizes).unwrap()
}

/// The elements of an output in row-major order.
pub fn floats(output: &Output<'_>) -> Vec<f64> {
    let tensor = match output {
        Output::Tensor(tensor) => tensor,
        Output::Int(i) => return vec![*i as f64],
        Output::Float(f) => return vec![*f],
        Output::Bool(b) => return vec![f64::from(u8::from(*b))],
        _ => return vec![],
    };
    let item = tensor.dtype().size();
    let all: Vec<f64> = tensor
        .bytes()
        .chunks_exact(item)
        .map(|word| decode(tensor.dtype(), word))
        .collect();
    (0..tensor.numel() as i64)
        .map(|mut index| {
            let mut offset = 0;
            for d in (0..tensor.rank()).rev() {
                offset += (index % tensor.sizes()[d]) * tensor.strides()[d];
                index /= tensor.sizes()[d];
            }
            all[offset as usize]
        })
        .collect()
}

fn decode(dtype: DType, word: &[u8]) -> f64 {
    match dtype {
        DType::U8 | DType::Bool => f64::from(word[0]),
        DType::I32 => f64::from(i32::from_le_bytes(word.try_into().unwrap())),
        DType::I64 => i64::from_le_bytes(word.try_into().unwrap()) as f64,
        DType::F16 => f16::from_le_bytes(word.try_into().unwrap()).to_f64(),
        DType::F32 => f64::from(f32::from_le_bytes(word.try_into().unwrap())),
        other => panic!("{other} is not in these files"),
    }
}

pub fn encode(dtype: DType, values: &[f64]) -> Vec<u8> {
    let word = |v: &f64| match dtype {
        DType::U8 | DType::Bool => vec![*v as u8],
        DType::I32 => (*v as i32).to_le_bytes().to_vec(),
        DType::I64 => (*v as i64).to_le_bytes().to_vec(),
        DType::F16 => f16::from_f64(*v).to_le_bytes().to_vec(),
        DType::F32 => (*v as f32).to_le_bytes().to_vec(),
        other => panic!("{other} is not in these files"),
    };
    values.iter().flat_map(word).collect()
}

/// An f32 input.
pub fn f32s<'a>(sizes: &'a [i64], data: &'a [u8]) -> Input<'a> {
    Input::Bytes {
        dtype: DType::F32,
        sizes,
        data,
    }
}

/// A hand-written plan. Tensors are f32 vectors of 4 in arena 1, 16 bytes each, unless said otherwise.
#[derive(Default)]
pub struct Builder {
    pub plan: Plan,
}

impl Builder {
    pub fn new() -> Builder {
        Builder {
            plan: Plan {
                name: "forward".into(),
                buffer_sizes: vec![0, 0],
                ..Plan::default()
            },
        }
    }

    pub fn value(&mut self, value: EValue) -> u32 {
        self.plan.values.push(value);
        self.plan.values.len() as u32 - 1
    }

    pub fn tensor(&mut self, sizes: &[i64], dynamism: Dynamism, storage: Storage, name: Option<&str>) -> u32 {
        self.value(EValue::Tensor(Tensor {
            dtype: DType::F32,
            sizes: dims(sizes),
            dim_order: (0..sizes.len() as u8).collect(),
            dynamism,
            storage,
            name: name.map(String::from),
        }))
    }

    /// A vector of 4 in this arena.
    pub fn vector_in(&mut self, memory_id: u32, name: Option<&str>) -> u32 {
        while self.plan.buffer_sizes.len() <= memory_id as usize {
            self.plan.buffer_sizes.push(0);
        }
        let offset = self.plan.buffer_sizes[memory_id as usize];
        self.plan.buffer_sizes[memory_id as usize] += 16;
        let storage = Storage::Arena(Allocation { memory_id, offset });
        self.tensor(&[4], Dynamism::Static, storage, name)
    }

    pub fn vector(&mut self) -> u32 {
        self.vector_in(1, None)
    }

    pub fn input(&mut self) -> u32 {
        let value = self.vector();
        self.plan.inputs.push(value);
        value
    }

    pub fn call(&mut self, name: &str, overload: &str, args: &[u32]) {
        let operator = Operator {
            name: name.into(),
            overload: overload.into(),
        };
        let op = match self.plan.operators.iter().position(|have| *have == operator) {
            Some(op) => op,
            None => {
                self.plan.operators.push(operator);
                self.plan.operators.len() - 1
            }
        } as u32;
        self.plan.instructions.push(Instruction::Kernel {
            op,
            args: args.to_vec(),
        });
    }

    /// `out = a + b`
    pub fn add(&mut self, a: u32, b: u32, out: u32) {
        let alpha = self.value(EValue::Int(1));
        self.call("aten::add", "out", &[a, b, alpha, out, out]);
    }

    /// `to.copy_(from)`
    pub fn copy_(&mut self, to: u32, from: u32) {
        let non_blocking = self.value(EValue::Bool(false));
        self.call("aten::copy_", "", &[to, from, non_blocking, to]);
    }

    pub fn file(&self, constants: &[&[u8]], states: &[&[u8]]) -> Vec<u8> {
        let parts = ProgramParts {
            plans: std::slice::from_ref(&self.plan),
            constants,
            mutable_states: states,
            named: &[],
        };
        let mut file = Vec::new();
        write(&parts, &mut file).unwrap();
        file
    }

    pub fn load(&self) -> Executor {
        load(self.file(&[], &[]), "forward", Options::default())
    }
}

pub fn load(file: Vec<u8>, method: &str, options: Options) -> Executor {
    let program = Arc::new(Verified::parse(&file).unwrap());
    let data: Arc<dyn ProgramData> = Arc::new(file);
    Executor::new(program, method, data, options).unwrap()
}

pub fn output(executor: &Executor, index: usize) -> Vec<f64> {
    floats(&executor.output(index).unwrap())
}
