//! Graphs with states, and what the cases of states do with them.

use crate::case::{Failure, Outcome, Trial};
use crate::driver::{Compiled, Extra, HostWeights, Instance, Library, Loaded, Place, Refused, Script, Tensor};
use crate::workload::{decode, encode, normal_form, numbers};
use delegraph_abi::image::{Arg, ImageBuilder, Type};
use delegraph_abi::{DType, Status, c};
use std::sync::Arc;
use std::time::Duration;

/// A graph with states. Several say the same, in operators that different delegates have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `total += x; y = total`
    Sum,
    /// `total += x; y = relu(total)`
    SumThenRelu,
    /// `total += x; y = total * x`, over another rank.
    SumTimesInput,
    /// `first += x; second -= x; y = first`: two states.
    Pair,
    /// `log += mask * x; y = log`: where the mask is 1, `x` is put.
    AppendByMask,
    /// `log = index_copy(log, 0, position, x); y = log`
    AppendByIndexCopy,
    /// `log = index_put(log, [position], x); y = log`
    AppendByIndexPut,
    /// `log = scatter(log, 0, positions, x); y = log`
    AppendByScatter,
}

/// States of [`Form::Pair`].
pub const STATES_OF_PAIR: u32 = 2;

/// Element types that forms are tried in.
const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::I32];

/// Entries of a state that grows, and elements of each.
const ENTRIES: i64 = 6;
const WIDTH: i64 = 4;

/// A state of a graph: its input, output and sizes.
#[derive(Debug, Clone)]
pub struct StateSpec {
    /// Position among the inputs.
    pub input: usize,
    /// Position among the outputs.
    pub output: usize,
    /// Sizes.
    pub sizes: Vec<i64>,
}

/// A graph with states.
#[derive(Debug, Clone)]
pub struct StateGraph {
    /// What it computes.
    pub form: Form,
    /// Element type of `x` and the states.
    pub dtype: DType,
    /// The graph image.
    pub image: Vec<u8>,
    /// Nodes.
    pub nodes: u32,
    /// Element type and sizes of the inputs, in order.
    pub inputs: Vec<(DType, Vec<i64>)>,
    /// The same of the outputs.
    pub outputs: Vec<(DType, Vec<i64>)>,
    /// In the order of the image.
    pub states: Vec<StateSpec>,
}

impl StateGraph {
    /// Makes the image.
    pub fn new(form: Form, dtype: DType, normal_form: u32) -> StateGraph {
        let mut image = ImageBuilder::new("forward");
        image.normal_form(normal_form);
        let grows = matches!(
            form,
            Form::AppendByMask | Form::AppendByIndexCopy | Form::AppendByIndexPut | Form::AppendByScatter
        );
        let (x_sizes, state_sizes) = match form {
            Form::SumTimesInput => (vec![2, 2, 3], vec![2, 2, 3]),
            _ if grows => (vec![1, WIDTH], vec![ENTRIES, WIDTH]),
            _ => (vec![3, 5], vec![3, 5]),
        };
        let mut inputs = vec![(dtype, x_sizes), (dtype, state_sizes.clone())];
        match form {
            Form::Pair => inputs.push((dtype, state_sizes.clone())),
            Form::AppendByMask => inputs.push((dtype, vec![ENTRIES, 1])),
            Form::AppendByIndexCopy | Form::AppendByIndexPut => inputs.push((DType::I64, vec![1])),
            Form::AppendByScatter => inputs.push((DType::I64, vec![1, WIDTH])),
            _ => {}
        }
        let mut types = Vec::new();
        let mut values = Vec::new();
        for (i, (dtype, sizes)) in inputs.iter().enumerate() {
            let dims: Vec<_> = sizes.iter().map(|size| image.int(*size)).collect();
            types.push(Type::tensor(*dtype, &dims));
            values.push(image.input(["x", "before", "third"][i], &types[i]));
        }
        let (x, before) = (Arg::Value(values[0]), Arg::Value(values[1]));
        let state = types[1].clone();
        let mut nodes = 0;
        let mut node = |op: &str, args: &[Arg]| {
            nodes += 1;
            let name = format!("n{nodes}");
            image.node(&name, op, args, &[(&format!("{name}_out"), &state)], "")[0]
        };
        let third = values.get(2).copied().unwrap_or(values[1]);
        let mut outs = Vec::new();
        match form {
            Form::Sum => {
                let sum = node("aten::add.Tensor", &[before, x, Arg::Int(1)]);
                outs.extend([sum, sum]);
            }
            Form::SumThenRelu => {
                let sum = node("aten::add.Tensor", &[before, x, Arg::Int(1)]);
                outs.extend([node("aten::relu", &[Arg::Value(sum)]), sum]);
            }
            Form::SumTimesInput => {
                let sum = node("aten::add.Tensor", &[before, x.clone(), Arg::Int(1)]);
                outs.extend([node("aten::mul.Tensor", &[Arg::Value(sum), x]), sum]);
            }
            Form::Pair => {
                let first = node("aten::add.Tensor", &[before, x.clone(), Arg::Int(1)]);
                let second = node("aten::sub.Tensor", &[Arg::Value(third), x, Arg::Int(1)]);
                outs.extend([first, first, second]);
            }
            Form::AppendByMask => {
                let placed = node("aten::mul.Tensor", &[Arg::Value(third), x]);
                let log = node("aten::add.Tensor", &[before, Arg::Value(placed), Arg::Int(1)]);
                outs.extend([log, log]);
            }
            Form::AppendByIndexCopy => {
                let log = node("aten::index_copy", &[before, Arg::Int(0), Arg::Value(third), x]);
                outs.extend([log, log]);
            }
            Form::AppendByIndexPut => {
                let indices = Arg::OptionalValues(vec![Some(third)]);
                let log = node("aten::index_put", &[before, indices, x, Arg::Bool(false)]);
                outs.extend([log, log]);
            }
            Form::AppendByScatter => {
                let log = node("aten::scatter.src", &[before, Arg::Int(0), Arg::Value(third), x]);
                outs.extend([log, log]);
            }
        }
        let outputs = vec![(dtype, state_sizes.clone()); outs.len()];
        for value in outs {
            image.output(value);
        }
        let mut states = vec![StateSpec {
            input: 1,
            output: 1,
            sizes: state_sizes.clone(),
        }];
        image.state("first", 1, 1, grows.then_some(0));
        if form == Form::Pair {
            image.state("second", 2, 2, None);
            states.push(StateSpec {
                input: 2,
                output: 2,
                sizes: state_sizes,
            });
        }
        StateGraph {
            form,
            dtype,
            // The same calls gave a valid image in the tests of this file.
            image: image.finish().unwrap_or_default(),
            nodes,
            inputs,
            outputs,
            states,
        }
    }

    /// Elements of `x`, and of the first state where it does not grow.
    pub fn count(&self) -> usize {
        self.inputs[0].1.iter().product::<i64>() as usize
    }

    /// Elements of a state.
    pub fn count_of(&self, state: u32) -> usize {
        self.states[state as usize].sizes.iter().product::<i64>() as usize
    }

    /// Bytes of a state.
    pub fn bytes_of(&self, state: u32) -> usize {
        self.count_of(state) * self.dtype.size().unwrap_or(1)
    }

    /// Entries of the state that grows.
    pub fn entries(&self) -> u64 {
        ENTRIES as u64
    }

    /// The first entries of a growing state's elements, and zeros behind them.
    pub fn cut(&self, numbers: &[f64], length: u64) -> Vec<f64> {
        let keep = (length as usize).saturating_mul(WIDTH as usize);
        let each = numbers.iter().enumerate();
        each.map(|(i, number)| if i < keep { *number } else { 0.0 }).collect()
    }

    /// Numbers for `x`, from a seed.
    pub fn numbers(&self, seed: u64) -> Vec<f64> {
        numbers(self.count().max((ENTRIES * WIDTH) as usize), seed)[..self.count()].to_vec()
    }

    /// The elements' bytes.
    pub fn encode(&self, numbers: &[f64]) -> Vec<u8> {
        encode(self.dtype, numbers)
    }

    /// The inverse.
    pub fn decode(&self, bytes: &[u8]) -> Vec<f64> {
        decode(self.dtype, bytes)
    }

    /// What output 0 is when the first state is this.
    pub fn visible(&self, state: &[f64]) -> Vec<f64> {
        match self.form {
            Form::SumThenRelu => state.iter().map(|x| x.max(0.0)).collect(),
            _ => state.to_vec(),
        }
    }

    /// The third input's bytes for an append at a position.
    fn position(&self, position: u64) -> Vec<u8> {
        match self.form {
            Form::AppendByMask => {
                let mask: Vec<f64> = (0..ENTRIES as u64)
                    .map(|i| f64::from(u8::from(i == position)))
                    .collect();
                match self.dtype {
                    // Plain integers, not the steps of 0.25 that numbers are written in.
                    DType::I32 => mask.iter().flat_map(|x| (*x as i32).to_le_bytes()).collect(),
                    _ => self.encode(&mask),
                }
            }
            Form::AppendByScatter => (0..WIDTH).flat_map(|_| position.to_le_bytes()).collect(),
            _ => position.to_le_bytes().to_vec(),
        }
    }
}

/// Elements whose bits are all in use, where the type is one that can hold any of them.
pub fn encode32(dtype: DType, count: usize) -> Option<Vec<u8>> {
    let pattern = |i: usize| 1.0 + (i as u32).wrapping_mul(0x9e37_79b9) as f32 / u32::MAX as f32;
    (dtype == DType::F32).then(|| (0..count).flat_map(|i| pattern(i).to_le_bytes()).collect())
}

/// A started delegate with a compiled graph that has states.
pub struct Kept {
    /// The library.
    pub library: Arc<Library>,
    /// The delegate.
    pub instance: Instance,
    /// The graph.
    pub graph: StateGraph,
    /// Compiled.
    pub blob: Compiled,
    weights: Arc<HostWeights>,
    device: Option<u32>,
}

impl Kept {
    /// Starts the delegate, and compiles the first of these graphs that it takes, in the first element type that it takes.
    ///
    /// # Errors
    /// Skip: it takes none. Fail: it takes one and refuses to compile it.
    pub fn open(trial: &Trial<'_>, forms: &[Form]) -> Result<Kept, Failure> {
        let library = Arc::new(Library::open(trial.subject)?);
        for (feature, role) in [(c::Feature::COMPILE, "compile"), (c::Feature::RUN, "run")] {
            if !library.has(feature) {
                return Err(Failure::skip(format!("the library does not {role}")));
            }
        }
        let instance = library.start(&trial.subject.options, &Script::default())?;
        let weights = Arc::new(HostWeights::default());
        let mut refusal = String::new();
        for dtype in DTYPES {
            for form in forms {
                // Integers stand for steps of 0.25 here, and a product of two of them does not.
                if (*form, dtype) == (Form::SumTimesInput, DType::I32) {
                    continue;
                }
                let graph = StateGraph::new(*form, dtype, normal_form(trial));
                let answers = instance.partition(&graph.image, graph.nodes, &Script::default())?;
                if !answers.takes_all(graph.nodes) {
                    if refusal.is_empty() {
                        refusal = answers.reason();
                    }
                    continue;
                }
                let blob = instance
                    .compile(&graph.image, &weights, "", &Script::default())
                    .map_err(|refused| Failure::fail(format!("it takes {form:?} of {dtype}, but {refused}")))?;
                let device = trial.subject.device;
                return Ok(Kept {
                    library,
                    instance,
                    graph,
                    blob,
                    weights,
                    device,
                });
            }
        }
        Err(Failure::skip(format!(
            "not claimed: it takes none of the kit's graphs with states: {refusal}"
        )))
    }

    /// Loads the blob.
    ///
    /// # Errors
    /// It refuses.
    pub fn load(&self) -> Result<Loaded, Failure> {
        Ok(self
            .instance
            .load(&self.blob, &self.weights, self.device, &Script::default())?)
    }

    /// Whether numbers are right: exactly, or as nearly as the precision is that the blob states.
    ///
    /// # Errors
    /// The first that is not.
    pub fn compare(&self, got: &[f64], want: &[f64]) -> Result<(), String> {
        let range = want.iter().fold(1f64, |most, x| most.max(x.abs()));
        let tolerance = match self.blob.meta.precision.as_str() {
            "" => 0.0,
            "f16" | "bf16" => 1e-2 * range,
            _ => 5e-2 * range,
        };
        if got.len() != want.len() {
            return Err(format!("{} elements, where {} are right", got.len(), want.len()));
        }
        let wrong = |(got, want): (&f64, &f64)| {
            let difference = (got - want).abs();
            difference.is_nan() || difference > tolerance
        };
        match got.iter().zip(want).position(wrong) {
            Some(i) => Err(format!("element {i} is {}, where {} is right", got[i], want[i])),
            None => Ok(()),
        }
    }

    /// Tensors for a run: those of states that are kept are there for their sizes.
    fn tensors(&self, x: &[f64], third: Option<Vec<u8>>, states: &[f64]) -> Result<(Vec<Tensor>, Vec<Tensor>), String> {
        let requirement = |output: bool, index: usize| {
            let all = self.blob.requirements.iter();
            let mine = all.filter(move |r| (r.0, r.1 as usize) == (output, index));
            mine.fold((0, 0), |(align, multiple), r| {
                (align.max(r.2 as usize), multiple.max(r.3 as usize))
            })
        };
        let inputs = self.graph.inputs.iter().enumerate().map(|(i, (dtype, sizes))| {
            let bytes = match i {
                0 => self.graph.encode(x),
                2 if third.is_some() => third.clone().unwrap_or_default(),
                _ => self.graph.encode(states),
            };
            let (align, multiple) = requirement(false, i);
            Tensor::laid(*dtype, sizes, Place::End, align, multiple)?.holding(&bytes, true)
        });
        let outputs = self.graph.outputs.iter().enumerate().map(|(i, (dtype, sizes))| {
            let (align, multiple) = requirement(true, i);
            Tensor::laid(*dtype, sizes, Place::End, align, multiple)
        });
        Ok((inputs.collect::<Result<_, _>>()?, outputs.collect::<Result<_, _>>()?))
    }

    /// Positions of the tensors that a run has without bytes: inputs first.
    fn kept(&self) -> Vec<usize> {
        let inputs = self.graph.inputs.len();
        let states = self.blob.states.iter();
        let states = states.filter_map(|state| self.graph.states.get(*state as usize));
        states.flat_map(|state| [state.input, inputs + state.output]).collect()
    }

    fn looked_at(&self, outputs: &[Tensor]) -> Result<Vec<f64>, Failure> {
        if let Some((i, distance)) = outputs
            .iter()
            .enumerate()
            .find_map(|(i, output)| Some((i, output.memory.strayed()?)))
        {
            return Err(Failure::fail(format!(
                "it wrote outside of output {i}, {distance} bytes from it"
            )));
        }
        Ok(self.graph.decode(outputs[0].actual()))
    }

    /// One run of a session that keeps the states; the visible output. No commit.
    ///
    /// # Errors
    /// The delegate refuses.
    pub fn try_step(&self, session: &mut Loaded, x: &[f64], script: &Script) -> Result<Vec<f64>, Refused> {
        let kit = |problem: String| Refused {
            function: "the kit",
            status: Status::INTERNAL,
            vendor_code: 0,
            node: None,
            message: problem,
            hint: String::new(),
        };
        let zero = vec![0.0; self.graph.count_of(0)];
        let (inputs, mut outputs) = self.tensors(x, None, &zero).map_err(kit)?;
        session.run_without(&inputs, &mut outputs, &self.kept(), script)?;
        self.looked_at(&outputs).map_err(|failure| kit(failure.reason))
    }

    /// One run, its output as it has to be when the first state becomes `after`, and its commit.
    ///
    /// # Errors
    /// The delegate refuses, or is wrong.
    pub fn step(&self, session: &mut Loaded, x: &[f64], after: &[f64], accept: bool) -> Outcome {
        let y = self.try_step(session, x, &Script::default())?;
        self.judge(&y, x, after)?;
        Ok(session.commit(accept, &Script::default())?)
    }

    fn judge(&self, y: &[f64], x: &[f64], after: &[f64]) -> Outcome {
        let want = match self.graph.form {
            Form::SumTimesInput => after.iter().zip(x).map(|(after, x)| after * x).collect(),
            _ => self.graph.visible(after),
        };
        self.compare(y, &want)
            .map_err(|problem| Failure::fail(format!("output 0: {problem}")))
    }

    /// The same by `session_submit`.
    ///
    /// # Errors
    /// As [`Kept::step`], or the run does not end.
    pub fn step_submitted(
        &self,
        session: &mut Loaded,
        x: &[f64],
        after: &[f64],
        accept: bool,
        within: Duration,
    ) -> Outcome {
        let zero = vec![0.0; self.graph.count_of(0)];
        let (inputs, outputs) = self.tensors(x, None, &zero)?;
        let kept = self.kept();
        let extra = Extra {
            kept: &kept,
            ..Extra::default()
        };
        let flight = session.submit_with(inputs, outputs, &extra, &Script::default())?;
        let end = flight
            .wait(within)
            .ok_or_else(|| Failure::fail(format!("`session_submit`: no fence was signalled within {within:?}")))?;
        let (_, outputs) = flight.finish();
        if end.status != Status::OK {
            return Err(Failure::fail(format!(
                "the run ended with {}: {}",
                end.status, end.message
            )));
        }
        self.judge(&self.looked_at(&outputs)?, x, after)?;
        Ok(session.commit(accept, &Script::default())?)
    }

    /// One run that appends `x` at a position, and its commit.
    ///
    /// # Errors
    /// The delegate refuses.
    pub fn append(&self, session: &mut Loaded, x: &[f64], position: u64) -> Outcome {
        let zero = vec![0.0; self.graph.count_of(0)];
        let (inputs, mut outputs) = self.tensors(x, Some(self.graph.position(position)), &zero)?;
        session.run_without(&inputs, &mut outputs, &self.kept(), &Script::default())?;
        self.looked_at(&outputs)?;
        Ok(session.commit(true, &Script::default())?)
    }

    /// One run of a session that keeps no states: the state is given, and comes back as an output.
    ///
    /// # Errors
    /// The delegate refuses.
    pub fn run_owned(&self, session: &mut Loaded, x: &[f64], state: &[f64]) -> Result<(Vec<f64>, Vec<f64>), Failure> {
        let (inputs, mut outputs) = self.tensors(x, None, state)?;
        session.run(&inputs, &mut outputs, &Script::default())?;
        let mut y = self.looked_at(&outputs)?;
        if self.graph.form == Form::SumTimesInput {
            // As if it were the state: what it was made of is known.
            y = y.iter().zip(x).map(|(y, x)| y / x).collect();
        }
        Ok((y, self.graph.decode(outputs[1].actual())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_an_image() {
        for dtype in DTYPES {
            for form in [
                Form::Sum,
                Form::SumThenRelu,
                Form::SumTimesInput,
                Form::Pair,
                Form::AppendByMask,
                Form::AppendByIndexCopy,
                Form::AppendByIndexPut,
                Form::AppendByScatter,
            ] {
                let graph = StateGraph::new(form, dtype, 0);
                assert!(!graph.image.is_empty(), "{form:?} {dtype}");
                let view = delegraph_abi::image::verify(&graph.image).unwrap();
                assert_eq!(view.states().count(), graph.states.len());
                assert_eq!(view.node_count(), graph.nodes);
            }
        }
    }
}
