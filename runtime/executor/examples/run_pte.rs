//! Runs the cases of a model fixture and compares: `run_pte [--trace] FOLDER|FILE.pte ...`.
//!
//! A folder holds `model.pte`, `fixture.json`, `inputs.safetensors` and `expected.safetensors`. A `.pte` alone is loaded
//! and run on zeros.

use delegraph_executor::{Event, Executor, Input, Options, Output, ProgramData, Trace};
use delegraph_pte::Verified;
use delegraph_pte::model::{EValue, Plan};
use delegraph_types::{DType, bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

type Failure = Box<dyn Error>;

fn main() {
    let (mut failed, mut trace, mut bench) = (0, false, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--trace" => trace = true,
            "--bench" => bench = true,
            path => match run(Path::new(path), trace, bench) {
                Ok(text) => println!("ok   {path}: {text}"),
                Err(error) => {
                    failed += 1;
                    println!("FAIL {path}: {error}");
                }
            },
        }
    }
    std::process::exit(i32::from(failed > 0));
}

fn run(path: &Path, trace: bool, bench: bool) -> Result<String, Failure> {
    let folder = path.is_dir();
    let file = if folder {
        path.join("model.pte")
    } else {
        path.to_path_buf()
    };
    let bytes = Arc::new(std::fs::read(file)?);
    let program = Arc::new(Verified::parse(&bytes)?);
    let data: Arc<dyn ProgramData> = bytes;
    if !folder {
        let mut text = String::new();
        for plan in &program.plans {
            let mut executor = Executor::new(program.clone(), &plan.name, data.clone(), Options::default())?;
            let plan = executor.plan().clone();
            executor.run(&zeros(&plan))?;
            for index in 0..executor.output_count() {
                text += &format!(
                    "{} {index} {:.60}; ",
                    plan.name,
                    format!("{:?}", floats(&executor.output(index)?))
                );
            }
        }
        return Ok(text);
    }
    let fixture: Value = serde_json::from_slice(&std::fs::read(path.join("fixture.json"))?)?;
    let inputs = std::fs::read(path.join("inputs.safetensors"))?;
    let expected = std::fs::read(path.join("expected.safetensors"))?;
    let (inputs, expected) = (SafeTensors::deserialize(&inputs)?, SafeTensors::deserialize(&expected)?);
    let (rtol, atol) = (number(&fixture["rtol"]), number(&fixture["atol"]));
    let (mut steps, mut worst) = (0, 0f64);
    let start = Instant::now();
    for case in items(&fixture["cases"]) {
        let mut executor = Executor::new(program.clone(), "forward", data.clone(), Options::default())?;
        if trace {
            executor.set_trace(Some(Box::new(Printer(Instant::now()))));
        }
        for step in items(&case["steps"]) {
            let leaves = items(&step["inputs"]);
            let all_sizes = leaves.iter().map(|leaf| sizes(leaf, &inputs));
            let all_sizes = all_sizes.collect::<Result<Vec<_>, _>>()?;
            let given = leaves.iter().zip(&all_sizes);
            let given = given.map(|(leaf, sizes)| input(leaf, sizes, &inputs));
            let given = given.collect::<Result<Vec<_>, _>>()?;
            executor.run(&given)?;
            if bench {
                let start = Instant::now();
                executor.run(&given)?;
                println!("     {:?}", start.elapsed());
            }
            steps += 1;
            let wanted = items(&step["outputs"]);
            // A file that mutates an input or a buffer may return that first: the last outputs are the method's own.
            let extra = executor
                .output_count()
                .checked_sub(wanted.len())
                .ok_or_else(|| format!("{} outputs, expected {}", executor.output_count(), wanted.len()))?;
            for (index, leaf) in wanted.iter().enumerate() {
                let got = executor.output(extra + index)?;
                let difference = compare(leaf, &got, &expected, rtol, atol)
                    .map_err(|error| format!("step {}, output {index}: {error}", steps - 1))?;
                worst = worst.max(difference);
            }
            for (index, leaf) in items(&step["inputs_after"]).iter().enumerate() {
                // What the method cannot change may have stayed with the caller.
                let Ok(got) = executor.input_after(index) else {
                    continue;
                };
                if leaf.get("tensor").is_some() {
                    compare(leaf, &got, &expected, rtol, atol)
                        .map_err(|error| format!("input {index} after: {error}"))?;
                }
            }
        }
        if let Some(buffers) = case["buffers_after"].as_object() {
            for (name, leaf) in buffers {
                let Some(state) = executor.state(name).map_err(|error| error.to_string())? else {
                    continue;
                };
                let leaf = if leaf.is_string() {
                    serde_json::json!({ "tensor": leaf })
                } else {
                    leaf.clone()
                };
                compare(&leaf, &Output::Tensor(state), &expected, rtol, atol)
                    .map_err(|error| format!("buffer `{name}`: {error}"))?;
            }
        }
    }
    Ok(format!(
        "{steps} steps, worst difference {worst:.3e}, {:.1?}",
        start.elapsed()
    ))
}

struct Printer(Instant);

impl Trace for Printer {
    fn now(&mut self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
    fn record(&mut self, event: Event<'_>) {
        let micros = (event.stop - event.start) as f64 / 1e3;
        println!("     {:5} {:50} {micros:10.1} us", event.instruction, event.name);
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn dtype(dtype: Dtype) -> Result<DType, Failure> {
    Ok(match dtype {
        Dtype::BOOL => DType::Bool,
        Dtype::U8 => DType::U8,
        Dtype::I8 => DType::I8,
        Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        other => return Err(format!("dtype {other:?}").into()),
    })
}

/// The sizes of a leaf that is a tensor.
fn sizes(leaf: &Value, tensors: &SafeTensors<'_>) -> Result<Vec<i64>, Failure> {
    Ok(match leaf["tensor"].as_str() {
        Some(key) => tensors.tensor(key)?.shape().iter().map(|&d| d as i64).collect(),
        None => Vec::new(),
    })
}

fn input<'a>(leaf: &'a Value, sizes: &'a [i64], tensors: &SafeTensors<'a>) -> Result<Input<'a>, Failure> {
    if let Some(key) = leaf["tensor"].as_str() {
        let view = tensors.tensor(key)?;
        return Ok(Input::Bytes {
            dtype: dtype(view.dtype())?,
            sizes,
            data: view.data(),
        });
    }
    Ok(match &leaf["const"] {
        Value::Bool(b) => Input::Bool(*b),
        Value::String(text) => Input::Str(text),
        Value::Number(n) => match n.as_i64() {
            Some(i) => Input::Int(i),
            None => Input::Float(number(&leaf["const"])),
        },
        _ => Input::None,
    })
}

fn compare(leaf: &Value, got: &Output<'_>, tensors: &SafeTensors<'_>, rtol: f64, atol: f64) -> Result<f64, Failure> {
    let got_values = floats(got);
    let (want, shape) = match leaf["tensor"].as_str() {
        Some(key) => {
            let view = tensors.tensor(key)?;
            let sizes: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
            let Output::Tensor(tensor) = got else {
                return Err(format!("{got:?} is no tensor").into());
            };
            if tensor.dtype() != dtype(view.dtype())? || tensor.sizes().as_slice() != &sizes[..] {
                return Err(format!(
                    "{}{}, expected {:?}{sizes:?}",
                    tensor.dtype(),
                    tensor.sizes(),
                    view.dtype()
                )
                .into());
            }
            (decode(tensor.dtype(), view.data()), Some(sizes))
        }
        None => {
            let want = match &leaf["const"] {
                Value::Bool(b) => vec![f64::from(u8::from(*b))],
                Value::Number(n) => vec![n.as_f64().unwrap_or(f64::NAN)],
                _ => vec![],
            };
            (want, None)
        }
    };
    if want.len() != got_values.len() {
        return Err(format!("{} elements, expected {} {shape:?}", got_values.len(), want.len()).into());
    }
    let mut worst = 0f64;
    for (i, (got, want)) in got_values.iter().zip(&want).enumerate() {
        let difference = (got - want).abs();
        if got == want || got.is_nan() && want.is_nan() {
            continue;
        }
        if difference > atol + rtol * want.abs() || difference.is_nan() {
            return Err(format!("element {i} is {got}, expected {want}").into());
        }
        worst = worst.max(difference);
    }
    Ok(worst)
}

/// The elements in row-major order.
fn floats(output: &Output<'_>) -> Vec<f64> {
    let tensor = match output {
        Output::Tensor(tensor) => tensor,
        Output::Int(i) => return vec![*i as f64],
        Output::Bool(b) => return vec![f64::from(u8::from(*b))],
        Output::Float(f) => return vec![*f],
        _ => return vec![],
    };
    let all = decode(tensor.dtype(), tensor.bytes());
    let (sizes, strides) = (tensor.sizes(), tensor.strides());
    (0..tensor.numel() as i64)
        .map(|mut index| {
            let mut offset = 0;
            for d in (0..sizes.rank()).rev() {
                offset += (index % sizes[d]) * strides[d];
                index /= sizes[d];
            }
            all[offset as usize]
        })
        .collect()
}

fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let words = bytes.chunks_exact(dtype.size());
    macro_rules! read {
        ($ty:ty) => {
            words
                .map(|w| <$ty>::from_le_bytes(w.try_into().unwrap_or_default()) as f64)
                .collect()
        };
    }
    match dtype {
        DType::U8 | DType::Bool => bytes.iter().map(|b| f64::from(*b)).collect(),
        DType::I8 => read!(i8),
        DType::I16 => read!(i16),
        DType::I32 => read!(i32),
        DType::I64 => read!(i64),
        DType::F32 => read!(f32),
        DType::F64 => read!(f64),
        DType::F16 => words.map(|w| f16::from_le_bytes([w[0], w[1]]).to_f64()).collect(),
        DType::BF16 => words.map(|w| bf16::from_le_bytes([w[0], w[1]]).to_f64()).collect(),
        _ => vec![],
    }
}

fn zeros(plan: &Plan) -> Vec<Input<'_>> {
    static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
    plan.inputs
        .iter()
        .map(|&value| match &plan.values[value as usize] {
            EValue::Tensor(tensor) => Input::Bytes {
                dtype: tensor.dtype,
                sizes: &tensor.sizes,
                data: &ZEROS[..tensor.sizes.numel().unwrap_or(0) * tensor.dtype.size()],
            },
            EValue::Int(i) => Input::Int(*i),
            EValue::Bool(b) => Input::Bool(*b),
            EValue::Double(f) => Input::Float(*f),
            _ => Input::None,
        })
        .collect()
}
