//! Sessions: evaluate the nodes of an image in order.

use crate::call::Call;
use crate::caps::Operator;
use crate::compile::{self, SECTION};
use crate::layout;
use crate::quant;
use crate::tensor::Tensor;
use crate::walk::to_sizes;
use delegraph_sdk::image::{ImageView, NodeView, Sizes, Source, ValueIndex, verify};
use delegraph_sdk::{Blob, Context, DType, Error, KeptWeights, ProfileEvent, Session, TensorOut, TensorView, Weights};
use std::rc::Rc;

/// Bytes of weights by their id.
pub trait WeightBytes {
    /// The bytes of a weight: contiguous, row-major, little-endian.
    ///
    /// # Errors
    /// There is no such weight.
    fn bytes(&self, id: u32) -> Result<&[u8], Error>;
}

impl WeightBytes for KeptWeights {
    fn bytes(&self, id: u32) -> Result<&[u8], Error> {
        KeptWeights::bytes(self, id)
    }
}

/// A graph that is ready to run.
pub struct Program {
    image: Vec<u8>,
    operators: Vec<&'static Operator>,
    /// For each node, the values that nothing reads after it.
    finished: Vec<Vec<ValueIndex>>,
    sizes: Sizes,
}

impl Program {
    /// Checks an image and every node of it.
    ///
    /// # Errors
    /// It is damaged, or has a node that the delegate does not take.
    pub fn new(image: &[u8]) -> Result<Program, Error> {
        let view = verified(image)?;
        Ok(Program {
            operators: compile::check(&view)?,
            finished: last_uses(&view),
            sizes: Sizes::new(&view),
            image: image.to_vec(),
        })
    }

    /// Evaluates the graph: one tensor an output, in order.
    ///
    /// # Errors
    /// Inputs that do not fit the graph, or values that an operator does not allow (an index out of range).
    pub fn run(&mut self, inputs: &[TensorView<'_>], weights: &dyn WeightBytes) -> Result<Vec<Rc<Tensor>>, Error> {
        self.run_timed(inputs, weights, None)
    }

    /// [`Program::run`], with a clock that each node is timed by.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn run_timed(
        &mut self,
        inputs: &[TensorView<'_>],
        weights: &dyn WeightBytes,
        mut timer: Option<&mut Timer<'_>>,
    ) -> Result<Vec<Rc<Tensor>>, Error> {
        // A view borrows the bytes, so that a session cannot hold both without unsafe code. Checking again is linear in
        // the size of the graph, and small beside evaluating it.
        let view = verified(&self.image)?;
        let sizes = &mut self.sizes;
        sizes
            .bind(&view, inputs.iter().map(|input| input.sizes))
            .map_err(|e| Error::invalid(e.to_string()))?;
        let mut values: Vec<Option<Rc<Tensor>>> = vec![None; view.value_count() as usize];
        for (index, input) in view.inputs().iter().zip(inputs) {
            let read = decode(&view, index, input.dtype, to_sizes(input.sizes)?, input.bytes)?;
            values[index.0 as usize] = Some(Rc::new(read));
        }
        for ((node, operator), finished) in view.nodes().zip(&self.operators).zip(&self.finished) {
            let start_ns = timer.as_ref().map(|timer| (timer.now)());
            for index in node.inputs() {
                weigh(&view, index, &mut values, weights).map_err(|e| e.at(node.index()))?;
            }
            let mut replaced = unfold(&node, &mut values, weights).map_err(|e| e.at(node.index()))?;
            // In front: what was there before the numbers is put back last.
            let turned = layout::unturn(&node, &mut values).map_err(|e| e.at(node.index()))?;
            replaced.splice(..0, turned);
            let call = Call::new(node, &*sizes, &values);
            let made = evaluate(operator, &call).and_then(|made| fold(&node, made, weights));
            let made = made.map_err(|e| e.at(node.index()))?;
            for (index, tensor) in replaced {
                values[index.0 as usize] = Some(tensor);
            }
            for (output, tensor) in node.outputs().iter().zip(made) {
                values[output.0 as usize] = Some(Rc::new(tensor));
            }
            if let (Some(timer), Some(start_ns)) = (timer.as_deref_mut(), start_ns) {
                timer.events.push(ProfileEvent {
                    name: operator.name,
                    node: Some(node.index()),
                    start_ns,
                    end_ns: (timer.now)(),
                    bytes: moved(&node, &values),
                    ..ProfileEvent::default()
                });
            }
            for index in finished {
                values[index.0 as usize] = None;
            }
        }
        let give = |index: ValueIndex| {
            weigh(&view, index, &mut values, weights)?;
            let value = values[index.0 as usize].clone();
            value.ok_or_else(|| Error::internal("an output was not made"))
        };
        view.outputs().iter().map(give).collect()
    }
}

/// Times nodes.
pub struct Timer<'a> {
    /// The clock, in nanoseconds.
    pub now: &'a dyn Fn() -> u64,
    /// One a node, in order.
    pub events: Vec<ProfileEvent<'static>>,
}

/// Bytes that a node reads and writes, as its types have them.
fn moved(node: &NodeView<'_>, values: &[Option<Rc<Tensor>>]) -> u64 {
    let bytes = |index: ValueIndex| {
        let tensor = values[index.0 as usize].as_ref()?;
        Some((tensor.len() * tensor.dtype().size()?) as u64)
    };
    node.inputs().chain(node.outputs().iter()).filter_map(bytes).sum()
}

/// Puts the numbers that quantized inputs of a node stand for in their places; gives the integers back.
fn unfold(
    node: &NodeView<'_>,
    values: &mut [Option<Rc<Tensor>>],
    weights: &dyn WeightBytes,
) -> Result<Vec<(ValueIndex, Rc<Tensor>)>, Error> {
    let mut integers: Vec<(ValueIndex, Rc<Tensor>)> = Vec::new();
    if quant::is_explicit(node) {
        return Ok(integers);
    }
    let image = node.image();
    for index in node.inputs().filter(|v| image.value(*v).quant().is_some()) {
        let slot = &mut values[index.0 as usize];
        // What a node reads twice is unfolded once: by then it holds floats.
        if let Some(tensor) = slot.clone().filter(|t| !t.dtype().is_float()) {
            *slot = Some(Rc::new(quant::dequantize(&image, index, &tensor, weights)?));
            integers.push((index, tensor));
        }
    }
    Ok(integers)
}

/// Quantizes what a node made, where its type says so.
fn fold(node: &NodeView<'_>, made: Vec<Tensor>, weights: &dyn WeightBytes) -> Result<Vec<Tensor>, Error> {
    let image = node.image();
    let each = |(index, tensor): (ValueIndex, Tensor)| match image.value(index).quant() {
        Some(_) if !quant::is_explicit(node) => quant::quantize(&image, index, &tensor, weights),
        _ => Ok(tensor),
    };
    node.outputs().iter().zip(made).map(each).collect()
}

/// Runs an operator, and holds what it makes against what the image declares: a difference is a mistake, here or there, and
/// a wrong number is worse than an error.
fn evaluate(operator: &Operator, call: &Call<'_>) -> Result<Vec<Tensor>, Error> {
    let made = (operator.eval)(call)?;
    if made.len() != call.outputs() {
        let (op, count) = (operator.name, made.len());
        return Err(Error::internal(format!(
            "`{op}` makes {count} tensors, not {}",
            call.outputs()
        )));
    }
    for (i, tensor) in made.iter().enumerate() {
        let (dtype, sizes) = (call.out_dtype(i)?, call.out_sizes(i)?);
        if tensor.dtype() != dtype || tensor.sizes() != sizes {
            return Err(Error::internal(format!(
                "`{}` makes {}{:?}, the graph says {dtype}{sizes:?}",
                operator.name,
                tensor.dtype(),
                tensor.sizes()
            )));
        }
    }
    match layout::turned(&call.view()) {
        Some(_) => layout::turn(made),
        None => Ok(made),
    }
}

fn verified(image: &[u8]) -> Result<ImageView<'_>, Error> {
    verify(image).map_err(|e| Error::corrupt(format!("the graph image is damaged: {e}")))
}

/// For each node, the values whose last reader it is. Outputs of the graph stay.
fn last_uses(view: &ImageView<'_>) -> Vec<Vec<ValueIndex>> {
    let mut last: Vec<Option<usize>> = vec![None; view.value_count() as usize];
    for (at, node) in view.nodes().enumerate() {
        for index in node.inputs().chain(node.outputs().iter()) {
            last[index.0 as usize] = Some(at);
        }
    }
    for output in view.outputs().iter() {
        last[output.0 as usize] = None;
    }
    let mut finished = vec![Vec::new(); view.node_count() as usize];
    for (index, at) in last.into_iter().enumerate() {
        if let Some(at) = at {
            finished[at].push(ValueIndex(index as u32));
        }
    }
    finished
}

/// Reads a weight when it is first needed; it is forgotten after its last use, so that only the bytes are kept.
fn weigh(
    view: &ImageView<'_>,
    index: ValueIndex,
    values: &mut [Option<Rc<Tensor>>],
    weights: &dyn WeightBytes,
) -> Result<(), Error> {
    let slot = &mut values[index.0 as usize];
    let (None, Source::Weight(weight)) = (&slot, view.value(index).source()) else {
        return Ok(());
    };
    let weight = view.weight(weight);
    let sizes = to_sizes(&weight.sizes().collect::<Vec<i64>>())?;
    let tensor = decode(view, index, weight.dtype(), sizes, weights.bytes(weight.id())?)?;
    *slot = Some(Rc::new(tensor));
    Ok(())
}

fn decode(
    view: &ImageView<'_>,
    index: ValueIndex,
    dtype: DType,
    sizes: Vec<usize>,
    bytes: &[u8],
) -> Result<Tensor, Error> {
    let declared = view.value(index).dtype();
    if declared != Some(dtype) {
        let name = view.value(index).name();
        return Err(Error::invalid(format!("`{name}` is of another type than {dtype}")));
    }
    Tensor::from_bytes(dtype, sizes, bytes)
}

/// A loaded blob.
struct Evaluator {
    program: Program,
    weights: Kept,
}

/// Weights where the host has any.
struct Kept(Option<KeptWeights>);

impl WeightBytes for Kept {
    fn bytes(&self, id: u32) -> Result<&[u8], Error> {
        match &self.0 {
            Some(weights) => weights.bytes(id),
            None => Err(Error::internal(format!("weight {id} was not kept"))),
        }
    }
}

/// Makes a session of a blob. The weights stay where they are; their sizes are checked now.
///
/// # Errors
/// The blob is damaged, has a node that this version does not take, or a weight is missing.
pub fn load(blob: &Blob<'_>, weights: &Weights<'_>) -> Result<Box<dyn Session>, Error> {
    load_image(blob.section(SECTION)?, weights)
}

/// Makes a session of a graph image, wherever it comes from.
///
/// # Errors
/// As [`load`].
pub fn load_image(image: &[u8], weights: &Weights<'_>) -> Result<Box<dyn Session>, Error> {
    let program = Program::new(image)?;
    let view = verified(&program.image)?;
    for weight in view.weights() {
        let have = weights.bytes(weight.id())?.len() as u64;
        if have != weight.byte_size() {
            let (id, want) = (weight.id(), weight.byte_size());
            return Err(Error::corrupt(format!(
                "weight {id} has {have} bytes, the graph says {want}"
            )));
        }
    }
    let kept = if view.weight_count() > 0 {
        Some(weights.keep()?)
    } else {
        None
    };
    Ok(Box::new(Evaluator {
        program,
        weights: Kept(kept),
    }))
}

impl Session for Evaluator {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let now = || context.now_ns();
        let mut timer = context.profiling().then(|| Timer {
            now: &now,
            events: Vec::new(),
        });
        let made = self.program.run_timed(inputs, &self.weights, timer.as_mut());
        if let Some(timer) = timer {
            context.profile(&timer.events);
        }
        let made = made?;
        if made.len() != outputs.len() {
            return Err(Error::invalid(format!("{} outputs, not {}", made.len(), outputs.len())));
        }
        made.iter().zip(outputs).try_for_each(|(tensor, out)| tensor.write(out))
    }
}
