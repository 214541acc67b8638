//! Small graphs that a delegate may take: what the cases that are about no operator in particular run.
//!
//! [`Bench::open`] goes up a ladder of them, most common first, and takes the first that the delegate takes and compiles. A delegate that takes
//! none is skipped by those cases. Expected values are computed here, in `f64`, by the formula that stands beside each graph.

use crate::case::{Failure, Outcome, Trial};
use crate::driver::{Compiled, HostWeights, Instance, Library, Loaded, Place, Refused, Script, Tensor};
use delegraph_abi::image::{Arg, ImageBuilder, Quant, Type, ValueIndex};
use delegraph_abi::{DType, c};
use delegraph_host::Pass;
use delegraph_runner::Verdict;
use half::f16;
use std::sync::Arc;

/// Element type and sizes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub sizes: Vec<i64>,
}

impl Spec {
    /// How many elements.
    pub fn count(&self) -> usize {
        self.sizes.iter().product::<i64>() as usize
    }
}

/// What a graph computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Add,
    Mul,
    Sub,
    Relu,
    Sigmoid,
    Matmul,
    Linear,
    Softmax,
    QuantizedAdd,
}

/// Every kind, with the element types that it is tried in.
const LADDER: [(Kind, DType); 15] = [
    (Kind::Add, DType::F32),
    (Kind::Mul, DType::F32),
    (Kind::Relu, DType::F32),
    (Kind::Sub, DType::F32),
    (Kind::Sigmoid, DType::F32),
    (Kind::Linear, DType::F32),
    (Kind::Matmul, DType::F32),
    (Kind::Softmax, DType::F32),
    (Kind::Add, DType::F16),
    (Kind::Mul, DType::F16),
    (Kind::Relu, DType::F16),
    (Kind::Linear, DType::F16),
    (Kind::Matmul, DType::F16),
    (Kind::QuantizedAdd, DType::I8),
    (Kind::Add, DType::I32),
];

/// Scale of every quantized tensor here; the zero point is 0.
const SCALE: f64 = 0.25;

/// A graph of one kind of node.
#[derive(Debug, Clone)]
pub struct Workload {
    /// What it computes.
    pub kind: Kind,
    /// Nodes in a row, each on the result of the one before.
    pub nodes: u32,
    /// The graph image.
    pub image: Vec<u8>,
    /// Id and bytes.
    pub weights: Vec<(u32, Vec<u8>)>,
    /// In order.
    pub inputs: Vec<Spec>,
    /// In order.
    pub outputs: Vec<Spec>,
}

impl Workload {
    /// A graph over `[rows, columns]`. Kinds whose result has other sizes than their input (matmul) have one node, whatever `nodes` says.
    pub fn new(kind: Kind, dtype: DType, rows: i64, columns: i64, nodes: u32, normal_form: u32) -> Workload {
        let spec = |sizes: &[i64]| Spec {
            dtype,
            sizes: sizes.to_vec(),
        };
        let mut image = ImageBuilder::new("forward");
        image.normal_form(normal_form);
        let ty = |image: &mut ImageBuilder, spec: &Spec| {
            let dims: Vec<_> = spec.sizes.iter().map(|size| image.int(*size)).collect();
            match Type::tensor(spec.dtype, &dims) {
                Type::Tensor { dtype, dims, .. } if kind == Kind::QuantizedAdd => Type::Tensor {
                    dtype,
                    dims,
                    quant: Some(Quant::PerTensor {
                        scale: SCALE,
                        zero_point: 0,
                        quant_min: -128,
                        quant_max: 127,
                    }),
                },
                plain => plain,
            }
        };
        let shape = spec(&[rows, columns]);
        let (inputs, output, weights) = match kind {
            Kind::Add | Kind::Mul | Kind::Sub | Kind::QuantizedAdd => {
                (vec![shape.clone(), shape.clone()], shape, vec![])
            }
            Kind::Relu | Kind::Sigmoid | Kind::Softmax => (vec![shape.clone()], shape, vec![]),
            Kind::Matmul => (vec![shape, spec(&[columns, 3])], spec(&[rows, 3]), vec![]),
            Kind::Linear => (
                vec![shape],
                spec(&[rows, 5]),
                vec![(0, spec(&[5, columns])), (1, spec(&[5]))],
            ),
        };
        let values: Vec<ValueIndex> = inputs
            .iter()
            .enumerate()
            .map(|(i, spec)| {
                let ty = ty(&mut image, spec);
                image.input(&format!("x{i}"), &ty)
            })
            .collect();
        let constants: Vec<ValueIndex> = weights
            .iter()
            .map(|(id, spec)| {
                let ty = ty(&mut image, spec);
                let weight = image.weight(*id, spec.dtype, &spec.sizes);
                image.weight_value(&format!("w{id}"), &ty, weight)
            })
            .collect();
        let out = ty(&mut image, &output);
        let nodes = if matches!(kind, Kind::Matmul | Kind::Linear) {
            1
        } else {
            nodes.max(1)
        };
        let mut last = values[0];
        for i in 0..nodes {
            let (op, args) = match kind {
                Kind::Add | Kind::QuantizedAdd => (
                    "aten::add.Tensor",
                    vec![Arg::Value(last), Arg::Value(values[1]), Arg::Int(1)],
                ),
                Kind::Sub => (
                    "aten::sub.Tensor",
                    vec![Arg::Value(last), Arg::Value(values[1]), Arg::Int(1)],
                ),
                Kind::Mul => ("aten::mul.Tensor", vec![Arg::Value(last), Arg::Value(values[1])]),
                Kind::Relu => ("aten::relu", vec![Arg::Value(last)]),
                Kind::Sigmoid => ("aten::sigmoid", vec![Arg::Value(last)]),
                Kind::Softmax => ("aten::softmax.int", vec![Arg::Value(last), Arg::Int(-1), Arg::None]),
                Kind::Matmul => ("aten::mm", vec![Arg::Value(last), Arg::Value(values[1])]),
                Kind::Linear => (
                    "aten::linear",
                    vec![Arg::Value(last), Arg::Value(constants[0]), Arg::Value(constants[1])],
                ),
            };
            last = image.node(&format!("n{i}"), op, &args, &[(&format!("y{i}"), &out)], "")[0];
        }
        image.output(last);
        Workload {
            kind,
            nodes,
            // The same calls gave a valid image in the tests of this file.
            image: image.finish().unwrap_or_default(),
            weights: weights
                .iter()
                .map(|(id, spec)| (*id, encode(dtype, &numbers(spec.count(), 77 + u64::from(*id)))))
                .collect(),
            inputs,
            outputs: vec![output],
        }
    }

    /// Bytes of the inputs, made from a seed.
    pub fn input_bytes(&self, seed: u64) -> Vec<Vec<u8>> {
        let specs = self.inputs.iter().enumerate();
        specs
            .map(|(i, spec)| {
                encode(
                    spec.dtype,
                    &numbers(spec.count(), seed.wrapping_mul(31).wrapping_add(i as u64)),
                )
            })
            .collect()
    }

    /// The right result for these inputs, and how far a result may be from it.
    pub fn want(&self, inputs: &[Vec<u8>]) -> (Vec<f64>, f64) {
        let dtype = self.inputs[0].dtype;
        let x = decode(dtype, &inputs[0]);
        let y = inputs.get(1).map_or(Vec::new(), |bytes| decode(dtype, bytes));
        let weight = |id: usize| decode(dtype, &self.weights[id].1);
        let columns = *self.inputs[0].sizes.last().unwrap_or(&1) as usize;
        let one = |x: Vec<f64>| -> Vec<f64> {
            match self.kind {
                Kind::Add | Kind::QuantizedAdd => x.iter().zip(&y).map(|(x, y)| x + y).collect(),
                Kind::Sub => x.iter().zip(&y).map(|(x, y)| x - y).collect(),
                Kind::Mul => x.iter().zip(&y).map(|(x, y)| x * y).collect(),
                Kind::Relu => x.iter().map(|x| x.max(0.0)).collect(),
                Kind::Sigmoid => x.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
                Kind::Softmax => x
                    .chunks(columns)
                    .flat_map(|row| {
                        let most = row.iter().fold(f64::NEG_INFINITY, |most, x| most.max(*x));
                        let sum: f64 = row.iter().map(|x| (x - most).exp()).sum();
                        row.iter().map(move |x| (x - most).exp() / sum).collect::<Vec<_>>()
                    })
                    .collect(),
                Kind::Matmul => x
                    .chunks(columns)
                    .flat_map(|row| {
                        (0..3)
                            .map(|j| row.iter().enumerate().map(|(k, x)| x * y[k * 3 + j]).sum())
                            .collect::<Vec<f64>>()
                    })
                    .collect(),
                Kind::Linear => {
                    let (weight, bias) = (weight(0), weight(1));
                    x.chunks(columns)
                        .flat_map(|row| {
                            let out =
                                |j: usize| -> f64 { row.iter().zip(&weight[j * columns..]).map(|(x, w)| x * w).sum() };
                            bias.iter()
                                .enumerate()
                                .map(|(j, bias)| out(j) + bias)
                                .collect::<Vec<_>>()
                        })
                        .collect()
                }
            }
        };
        let mut value = x;
        for _ in 0..self.nodes {
            value = one(value);
        }
        let range = value.iter().fold(0f64, |most, x| most.max(x.abs()));
        let tolerance = match dtype {
            DType::F32 => 1e-5 + 1e-4 * range,
            DType::F16 => 2e-3 * (range + 1.0) * f64::from(self.nodes),
            // One step; the result may be rounded either way.
            DType::I8 => SCALE * f64::from(self.nodes),
            _ => 0.0,
        };
        let saturated = |x: f64| {
            if self.kind == Kind::QuantizedAdd {
                x.clamp(-128.0 * SCALE, 127.0 * SCALE)
            } else {
                x
            }
        };
        (value.into_iter().map(saturated).collect(), tolerance)
    }

    /// Whether an output is right.
    ///
    /// # Errors
    /// The first element that is not.
    pub fn check(&self, inputs: &[Vec<u8>], output: &[u8], precision: &str) -> Result<(), String> {
        let (want, tolerance) = self.want(inputs);
        let range = want.iter().fold(0f64, |most, x| most.max(x.abs()));
        // As everywhere: a blob that states a lower precision is judged by that.
        let tolerance = match precision {
            "" => tolerance,
            "f16" => tolerance.max(2e-3 * range),
            "bf16" => tolerance.max(2e-2 * range),
            _ => tolerance.max(5e-2 * range),
        };
        let got = decode(self.outputs[0].dtype, output);
        if got.len() != want.len() {
            return Err(format!("{} elements, where {} are right", got.len(), want.len()));
        }
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let difference = (got - want).abs();
            if difference.is_nan() || difference > tolerance {
                return Err(format!(
                    "element {i} is {got}, where {want} is right (within {tolerance:.1e})"
                ));
            }
        }
        Ok(())
    }
}

/// Small numbers of both signs, exact in every element type here: multiples of 0.25 from -4 to 4, none of them 0.
pub fn numbers(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let step = ((state >> 33) % 16) as f64 + 1.0;
            if (state >> 32) & 1 == 0 {
                step * 0.25
            } else {
                step * -0.25
            }
        })
        .collect()
}

/// Numbers as bytes of a type; integers and quantized ones in steps of 0.25.
pub fn encode(dtype: DType, numbers: &[f64]) -> Vec<u8> {
    let each = |f: &dyn Fn(f64) -> Vec<u8>| numbers.iter().flat_map(|x| f(*x)).collect();
    match dtype {
        DType::F32 => each(&|x| (x as f32).to_le_bytes().to_vec()),
        DType::F16 => each(&|x| f16::from_f64(x).to_le_bytes().to_vec()),
        DType::I8 => each(&|x| ((x / SCALE) as i8).to_le_bytes().to_vec()),
        DType::I32 => each(&|x| ((x / SCALE) as i32).to_le_bytes().to_vec()),
        _ => Vec::new(),
    }
}

/// The inverse of [`encode`].
pub fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        DType::F32 => bytes
            .chunks_exact(4)
            .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
            .collect(),
        DType::F16 => bytes
            .chunks_exact(2)
            .map(|b| f16::from_le_bytes([b[0], b[1]]).to_f64())
            .collect(),
        DType::I8 => bytes.iter().map(|b| f64::from(*b as i8) * SCALE).collect(),
        DType::I32 => bytes
            .chunks_exact(4)
            .map(|b| f64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]])) * SCALE)
            .collect(),
        _ => Vec::new(),
    }
}

/// A started delegate with a compiled graph that it takes.
pub struct Bench {
    /// The library.
    pub library: Arc<Library>,
    /// The delegate.
    pub instance: Instance,
    /// The graph.
    pub workload: Workload,
    /// Its weights.
    pub weights: Arc<HostWeights>,
    /// Compiled.
    pub blob: Compiled,
    device: Option<u32>,
}

impl Bench {
    /// Starts the delegate, and compiles the first graph of the ladder that it takes, over `[3, 5]`.
    ///
    /// # Errors
    /// Skip: it takes none, or lacks a role. Fail: it takes one and refuses to compile it.
    pub fn open(trial: &Trial<'_>) -> Result<Bench, Failure> {
        Bench::over(trial, 3, 5, 1)
    }

    /// The same over `[rows, columns]`, with so many nodes in a row.
    ///
    /// # Errors
    /// As [`Bench::open`].
    pub fn over(trial: &Trial<'_>, rows: i64, columns: i64, nodes: u32) -> Result<Bench, Failure> {
        Bench::among(trial, [rows, columns], nodes, |_, _| true)
    }

    /// A graph with weights over `[3, 5]`.
    ///
    /// # Errors
    /// As [`Bench::open`].
    pub fn weighted(trial: &Trial<'_>) -> Result<Bench, Failure> {
        Bench::among(trial, [3, 5], 1, |kind, _| kind == Kind::Linear)
    }

    /// Every graph of the ladder that the delegate takes, at most so many of them, each by a delegate of its own.
    ///
    /// # Errors
    /// As [`Bench::open`], and the first that `body` finds, with the name of the graph.
    pub fn each(
        trial: &Trial<'_>,
        [rows, columns]: [i64; 2],
        most: usize,
        mut body: impl FnMut(&Bench) -> Outcome,
    ) -> Outcome {
        let mut taken = 0;
        let mut first = None;
        for rung in LADDER {
            let bench = match Bench::among(trial, [rows, columns], 1, |kind, dtype| (kind, dtype) == rung) {
                Err(refused) if refused.verdict == Verdict::Skip => {
                    first.get_or_insert(refused);
                    continue;
                }
                other => other?,
            };
            body(&bench).map_err(|failure| Failure {
                reason: format!(
                    "{:?} of {} over [{rows}, {columns}]: {}",
                    rung.0, rung.1, failure.reason
                ),
                ..failure
            })?;
            taken += 1;
            if taken == most {
                break;
            }
        }
        match first {
            Some(refused) if taken == 0 => Err(refused),
            _ => Ok(()),
        }
    }

    /// The first graph of the ladder that is wanted and taken.
    ///
    /// # Errors
    /// As [`Bench::open`].
    pub fn among(
        trial: &Trial<'_>,
        [rows, columns]: [i64; 2],
        nodes: u32,
        wanted: impl Fn(Kind, DType) -> bool,
    ) -> Result<Bench, Failure> {
        let library = Arc::new(Library::open(trial.subject)?);
        Bench::on(library, trial, &Script::default(), wanted, (rows, columns, nodes))
    }

    /// The same with a library that is loaded, with calls as a script says, and of the kinds only that are asked for.
    ///
    /// # Errors
    /// As [`Bench::open`].
    pub fn on(
        library: Arc<Library>,
        trial: &Trial<'_>,
        script: &Script,
        kinds: impl Fn(Kind, DType) -> bool,
        (rows, columns, nodes): (i64, i64, u32),
    ) -> Result<Bench, Failure> {
        for (feature, role) in [(c::Feature::COMPILE, "compile"), (c::Feature::RUN, "run")] {
            if !library.has(feature) {
                return Err(Failure::skip(format!("the library does not {role}")));
            }
        }
        let instance = library.start(&trial.subject.options, script)?;
        let mut refusal = String::new();
        for (kind, dtype) in LADDER.into_iter().filter(|(kind, dtype)| kinds(*kind, *dtype)) {
            let workload = Workload::new(kind, dtype, rows, columns, nodes, normal_form(trial));
            let answers = instance.partition(&workload.image, workload.nodes, script)?;
            if !answers.takes_all(workload.nodes) {
                if refusal.is_empty() {
                    refusal = answers.reason();
                }
                continue;
            }
            let weights = workload.weights.iter().map(|(id, bytes)| (*id, bytes.as_slice()));
            let weights = Arc::new(HostWeights::new(weights)?);
            let blob = instance
                .compile(&workload.image, &weights, "", script)
                .map_err(|refused| Failure::fail(format!("it takes {kind:?} of {dtype}, but {refused}")))?;
            return Ok(Bench {
                library,
                instance,
                workload,
                weights,
                blob,
                device: trial.subject.device,
            });
        }
        Err(Failure::skip(format!(
            "not claimed: it takes none of the kit's small graphs: {refusal}"
        )))
    }

    /// Loads the blob.
    ///
    /// # Errors
    /// It refuses.
    pub fn load(&self) -> Result<Loaded, Failure> {
        self.load_as(&Script::default())
    }

    /// The same with calls as a script says.
    ///
    /// # Errors
    /// It refuses.
    pub fn load_as(&self, script: &Script) -> Result<Loaded, Failure> {
        Ok(self.load_with(&self.weights, script)?)
    }

    /// Loads the blob with other weights, or a host that does something.
    ///
    /// # Errors
    /// It refuses.
    pub fn load_with(&self, weights: &Arc<HostWeights>, script: &Script) -> Result<Loaded, Refused> {
        self.instance.load(&self.blob, weights, self.device, script)
    }

    /// The graph's weights once more, somewhere else.
    ///
    /// # Errors
    /// There is no memory.
    pub fn weights_at(&self, place: Place, align: usize) -> Result<Arc<HostWeights>, Failure> {
        let weights = self.workload.weights.iter().map(|(id, bytes)| (*id, bytes.as_slice()));
        Ok(Arc::new(HostWeights::placed(weights, place, align)?))
    }

    /// Tensors for a run: inputs made from a seed, with their bytes, and outputs that are not written. They lie as the blob requires, and no
    /// better: [`Place::Before`] makes that exact.
    ///
    /// # Errors
    /// There is no memory.
    pub fn tensors(&self, seed: u64, place: Place) -> Result<(Vec<Vec<u8>>, Vec<Tensor>, Vec<Tensor>), Failure> {
        let bytes = self.workload.input_bytes(seed);
        let inputs: Result<Vec<Tensor>, String> = bytes
            .iter()
            .enumerate()
            .map(|(i, bytes)| self.room(false, i, place)?.holding(bytes, true))
            .collect();
        Ok((bytes, inputs?, self.outputs(place)?))
    }

    /// Outputs for a run, not written.
    ///
    /// # Errors
    /// There is no memory.
    pub fn outputs(&self, place: Place) -> Result<Vec<Tensor>, Failure> {
        let outputs = 0..self.workload.outputs.len();
        Ok(outputs
            .map(|i| self.room(true, i, place))
            .collect::<Result<_, String>>()?)
    }

    /// Room for an input or output, as the blob requires it.
    ///
    /// # Errors
    /// There is no memory.
    pub fn room(&self, output: bool, index: usize, place: Place) -> Result<Tensor, String> {
        let specs = if output {
            &self.workload.outputs
        } else {
            &self.workload.inputs
        };
        let spec = specs
            .get(index)
            .ok_or_else(|| format!("the graph has no tensor {index}"))?;
        let (mut align, mut multiple) = (0, 0);
        for requirement in &self.blob.requirements {
            if (requirement.0, requirement.1 as usize) == (output, index) {
                align = align.max(requirement.2 as usize);
                multiple = multiple.max(requirement.3 as usize);
            }
        }
        Tensor::laid(spec.dtype, &spec.sizes, place, align, multiple)
    }

    /// One run with inputs of a seed, and a look at its result.
    ///
    /// # Errors
    /// It refuses, or is wrong.
    pub fn run_once(&self, session: &mut Loaded, seed: u64, script: &Script) -> Result<Vec<u8>, Failure> {
        let (bytes, inputs, mut outputs) = self.tensors(seed, Place::End)?;
        session.run(&inputs, &mut outputs, script)?;
        self.check(&bytes, &outputs)?;
        Ok(outputs[0].actual().to_vec())
    }

    /// Whether outputs are right, and whether nothing was written beside them.
    ///
    /// # Errors
    /// They are not.
    pub fn check(&self, inputs: &[Vec<u8>], outputs: &[Tensor]) -> Result<(), Failure> {
        for (i, output) in outputs.iter().enumerate() {
            if let Some(distance) = output.memory.strayed() {
                return Err(Failure::fail(format!(
                    "it wrote outside of output {i}, {distance} bytes from it"
                )));
            }
            if output.sizes != self.workload.outputs[i].sizes {
                let right = &self.workload.outputs[i].sizes;
                return Err(Failure::fail(format!(
                    "output {i} has sizes {:?}, where {right:?} are right",
                    output.sizes
                )));
            }
        }
        Ok(self
            .workload
            .check(inputs, outputs[0].actual(), &self.blob.meta.precision)?)
    }
}

/// The normal form that the manifest asks for.
pub fn normal_form(trial: &Trial<'_>) -> u32 {
    let manifest = trial.subject.manifest.as_ref();
    u32::from(manifest.is_some_and(|(_, manifest)| manifest.passes.contains(&Pass::Nhwc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rung_is_an_image() {
        for (kind, dtype) in LADDER {
            for nodes in [1, 3] {
                let workload = Workload::new(kind, dtype, 3, 5, nodes, 0);
                assert!(!workload.image.is_empty(), "{kind:?} {dtype}");
                let inputs = workload.input_bytes(1);
                let (want, _) = workload.want(&inputs);
                assert_eq!(want.len(), workload.outputs[0].count());
                workload.check(&inputs, &encode(dtype, &want), "f16").unwrap();
                let mut wrong = encode(dtype, &want);
                wrong.fill(0x7f);
                assert!(workload.check(&inputs, &wrong, "").is_err(), "{kind:?} {dtype}");
            }
        }
    }
}
