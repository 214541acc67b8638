//! Tensors that are odd, or that no host would give.

use crate::case::{Failure, Outcome, Trial};
use crate::categories::basis::{compiler, open, warn};
use crate::categories::endure::stray;
use crate::categories::small::{Small, graphs};
use crate::driver::{HostWeights, Instance, Loaded, Place, Script, Tensor};
use crate::workload::{Bench, Kind, normal_form};
use delegraph_abi::c::Feature;
use delegraph_abi::{DType, Status};
use std::sync::Arc;

/// A session of a small graph; `None`: it is not taken.
fn session(trial: &Trial<'_>, instance: &Instance, small: &Small) -> Result<Option<Loaded>, Failure> {
    let script = Script::default();
    if !instance.partition(&small.image, 1, &script)?.takes_all(1) {
        return Ok(None);
    }
    let weights = Arc::new(HostWeights::default());
    let Ok(blob) = instance.compile(&small.image, &weights, "", &script) else {
        return Ok(None);
    };
    // Tensors of another alignment are another case's business.
    if !blob.requirements.is_empty() {
        return Ok(None);
    }
    Ok(Some(instance.load(&blob, &weights, trial.subject.device, &script)?))
}

fn outputs_of(small: &Small) -> Result<Vec<Tensor>, String> {
    let outputs = small.outputs.iter();
    outputs
        .map(|(dtype, sizes)| Tensor::output(*dtype, sizes, Place::End))
        .collect()
}

fn runs(trial: &Trial<'_>) -> Result<Instance, Failure> {
    let (library, instance) = compiler(trial)?;
    match library.has(Feature::RUN) {
        true => Ok(instance),
        false => Err(Failure::skip("the library does not run")),
    }
}

pub fn indices(trial: &mut Trial<'_>) -> Outcome {
    let instance = runs(trial)?;
    let mut tried = 0;
    let with_indices = ["aten::embedding", "aten::gather", "aten::index_select"];
    for small in graphs(normal_form(trial)) {
        if !with_indices.iter().any(|op| small.name.contains(op)) {
            continue;
        }
        let Some(mut session) = session(trial, &instance, &small)? else {
            continue;
        };
        for index in [-1i64, -9, 9, 10, 1 << 20, 1 << 40, i64::MAX, i64::MIN] {
            let what = format!("{} with the index {index}", small.name);
            trial.step(&what);
            let inputs = small.inputs.iter().map(|(dtype, sizes)| {
                let bytes = match *dtype {
                    DType::I64 => index.to_le_bytes().repeat(sizes.iter().product::<i64>() as usize),
                    other => super::super::small::bytes(other, sizes),
                };
                Tensor::input(*dtype, sizes, &bytes, Place::End)
            });
            let inputs: Vec<Tensor> = inputs.collect::<Result<_, _>>()?;
            let mut outputs = outputs_of(&small)?;
            // A status or some result: either is in order.
            let _ = session.run(&inputs, &mut outputs, &Script::default());
            stray(&outputs).map_err(|text| Failure::fail(format!("{what}: {text}")))?;
            tried += 1;
        }
    }
    trial.measure("runs", f64::from(tried));
    match tried {
        0 => Err(Failure::skip(
            "not claimed: it takes none of `aten::embedding`, `aten::gather`, `aten::index_select`",
        )),
        _ => Ok(()),
    }
}

pub fn sizes(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let mut session = bench.load()?;
    let script = Script::default();
    let mut warnings = Vec::new();
    let given = &bench.workload.inputs;
    let changes: [(&str, &dyn Fn(&[i64]) -> Vec<i64>); 6] = [
        ("twice as large", &|sizes| sizes.iter().map(|n| n * 2).collect()),
        ("one row longer", &|sizes| {
            sizes.iter().enumerate().map(|(d, n)| n + i64::from(d == 0)).collect()
        }),
        ("one column wider", &|sizes| {
            sizes.iter().enumerate().map(|(d, n)| n + i64::from(d == 1)).collect()
        }),
        ("transposed", &|sizes| sizes.iter().rev().copied().collect()),
        ("smaller", &|sizes| sizes.iter().map(|n| (n - 1).max(1)).collect()),
        ("empty", &|sizes| vec![0; sizes.len()]),
    ];
    for (name, change) in changes {
        // All inputs, and each alone.
        for alone in std::iter::once(None).chain((0..given.len()).map(Some)) {
            let inputs = given.iter().enumerate().map(|(i, spec)| {
                let sizes = match alone {
                    Some(one) if one != i => spec.sizes.clone(),
                    _ => change(&spec.sizes),
                };
                let mut tensor = Tensor::output(spec.dtype, &sizes, Place::End)?;
                tensor.memory.fill_with(0);
                tensor.memory.protect()?;
                Ok(tensor)
            });
            let inputs: Vec<Tensor> = inputs.collect::<Result<_, String>>()?;
            let (_, _, mut outputs) = bench.tensors(1, Place::End)?;
            let which = alone.map_or("every input".to_string(), |i| format!("input {i}"));
            let what = format!("{which} {name}");
            trial.step(&what);
            match session.run(&inputs, &mut outputs, &script) {
                Err(refused) if refused.status == Status::INTERNAL => {
                    warnings.push(format!(
                        "{what}: {refused}; {} would be right",
                        Status::SHAPE_OUT_OF_RANGE
                    ));
                }
                Err(_) => {}
                Ok(()) => {
                    // What was compiled for fixed sizes has no say in smaller ones; larger results do not fit.
                    let largest = bench.workload.outputs.iter().map(|spec| &spec.sizes);
                    for (i, (output, largest)) in outputs.iter().zip(largest).enumerate() {
                        if output.sizes.iter().zip(largest).any(|(is, most)| is > most || *is < 0) {
                            return Err(Failure::fail(format!(
                                "{what}: output {i} has sizes {:?}, where {largest:?} are the largest",
                                output.sizes
                            )));
                        }
                    }
                    if name == "twice as large" && alone.is_none() {
                        warnings.push(format!(
                            "{what}: it runs, where {} would be right",
                            Status::SHAPE_OUT_OF_RANGE
                        ));
                    }
                }
            }
            stray(&outputs).map_err(|text| Failure::fail(format!("{what}: {text}")))?;
        }
    }
    bench.run_once(&mut session, 1, &script)?;
    warn(&warnings)
}

/// The largest number of f16.
const F16_MAX: f32 = 65504.0;

pub fn numbers(trial: &mut Trial<'_>) -> Outcome {
    let library = open(trial)?;
    let floats = |_: Kind, dtype: DType| dtype == DType::F32;
    let bench = Bench::on(library, trial, &Script::default(), floats, (3, 5, 1))?;
    let mut session = bench.load()?;
    for number in [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::MAX,
        f32::MIN_POSITIVE / 4.0,
        -0.0,
        f32::from_bits(0xffa0_0001),
    ] {
        let what = format!("inputs of {number:e} ({:#010x})", number.to_bits());
        trial.step(&what);
        let inputs = bench.workload.inputs.iter().map(|spec| {
            let bytes = number.to_le_bytes().repeat(spec.count());
            let tensor = Tensor::input(spec.dtype, &spec.sizes, &bytes, Place::End)?;
            match bench.blob.requirements.is_empty() {
                true => Ok(tensor),
                false => tensor.aligned(4096),
            }
        });
        let inputs: Vec<Tensor> = inputs.collect::<Result<_, String>>()?;
        let (_, _, mut outputs) = bench.tensors(1, Place::End)?;
        let run = session.run(&inputs, &mut outputs, &Script::default());
        // A blob that computes in f16 may leave a number that f16 does not hold to the host: a refusal is better than an infinity.
        let beyond = bench.blob.meta.precision == "f16" && number.is_finite() && number.abs() > F16_MAX;
        if !(beyond && run.is_err()) {
            run.map_err(|refused| Failure::fail(format!("{what}: {refused}")))?;
        }
        stray(&outputs).map_err(|text| Failure::fail(format!("{what}: {text}")))?;
    }
    bench.run_once(&mut session, 1, &Script::default()).map(drop)
}

pub fn wrong(trial: &mut Trial<'_>) -> Outcome {
    let bench = Bench::open(trial)?;
    let mut session = bench.load()?;
    let script = Script::default();
    let mut offer = |what: &str, inputs: Vec<Tensor>, mut outputs: Vec<Tensor>, kept: &[usize]| -> Outcome {
        trial.step(what);
        // Any status is in order.
        let _ = session.run_without(&inputs, &mut outputs, kept, &script);
        stray(&outputs).map_err(|text| Failure::fail(format!("{what}: {text}")))
    };
    let fresh = || {
        bench
            .tensors(1, Place::End)
            .map(|(_, inputs, outputs)| (inputs, outputs))
    };
    let (_, outputs) = fresh()?;
    offer("no inputs", Vec::new(), outputs, &[])?;
    let (inputs, _) = fresh()?;
    offer("no outputs", inputs, Vec::new(), &[])?;
    offer("no tensors at all", Vec::new(), Vec::new(), &[])?;
    let (mut inputs, outputs) = fresh()?;
    inputs.pop();
    offer("one input too few", inputs, outputs, &[])?;
    let (mut inputs, outputs) = fresh()?;
    inputs.extend(fresh()?.0);
    offer("twice as many inputs", inputs, outputs, &[])?;
    let (inputs, mut outputs) = fresh()?;
    outputs.extend(fresh()?.1);
    offer("twice as many outputs", inputs, outputs, &[])?;
    for dtype in [DType::I8, DType::F64, DType::BOOL, DType(99)] {
        if dtype != bench.workload.inputs[0].dtype {
            let (mut inputs, outputs) = fresh()?;
            inputs[0].dtype = dtype;
            offer(&format!("an input of {dtype}"), inputs, outputs, &[])?;
            let (inputs, mut outputs) = fresh()?;
            outputs[0].dtype = dtype;
            offer(&format!("an output of {dtype}"), inputs, outputs, &[])?;
        }
    }
    for sizes in [
        vec![],
        vec![15],
        vec![3, 5, 1],
        vec![1; 16],
        vec![-3, -5],
        vec![i64::MAX, i64::MAX],
    ] {
        let (mut inputs, outputs) = fresh()?;
        inputs[0].sizes.clone_from(&sizes);
        offer(&format!("an input of sizes {sizes:?}"), inputs, outputs, &[])?;
        let (inputs, mut outputs) = fresh()?;
        outputs[0].sizes.clone_from(&sizes);
        offer(&format!("an output of sizes {sizes:?}"), inputs, outputs, &[])?;
    }
    let (inputs, outputs) = fresh()?;
    offer("an input without bytes", inputs, outputs, &[0])?;
    let (inputs, outputs) = fresh()?;
    let behind = inputs.len();
    offer("an output without bytes", inputs, outputs, &[behind])
}
