//! What a program does, one kind of step a file. A step is made for one set of sizes, and holds all that it needs but its tensors.

pub mod attention;
pub mod bands;
pub mod bytes;
pub mod conv;
pub mod convert;
pub mod dynamic_conv;
pub mod elementwise;
pub mod generic;
pub mod integers;
pub mod layout;
pub mod linear;
pub mod norm;
pub mod pooling;
pub mod quantized;
pub mod recurrent;
pub mod resize;
pub mod shuffle;
pub mod state;
pub mod transposed;

use crate::plan::Shapes;
use crate::sys::{Io, Slot};
use delegraph_cpu_kernels::{Activation, Pool};
use delegraph_sdk::Error;
use delegraph_sdk::arguments::Arguments;
use delegraph_sdk::image::ValueIndex;

/// The arithmetic of a step: a multiply and an add are two operations. What is done to each element of a result before it is stored (bias,
/// function, scales) does not count where the result is a sum of products.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Operations of a run; 0: not known.
    pub operations: u64,
    /// What is multiplied.
    pub arithmetic: Arithmetic,
}

/// What a step multiplies, which says how many a machine can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Arithmetic {
    /// Floats of 32 bits.
    #[default]
    F32,
    /// Integers of 8 bits, summed in 32.
    Int8,
}

impl Work {
    /// Operations on floats, as the product of what there is of each.
    pub fn floats(counts: &[usize]) -> Work {
        Work {
            operations: counts
                .iter()
                .fold(1, |product: u64, count| product.saturating_mul(*count as u64)),
            arithmetic: Arithmetic::F32,
        }
    }

    /// The same of products of bytes.
    pub fn bytes(counts: &[usize]) -> Work {
        Work {
            arithmetic: Arithmetic::Int8,
            ..Work::floats(counts)
        }
    }
}

/// Bytes that nodes read and write, of which each but the first reads what the one before it makes: that does not count. Of tables and states only
/// the rows that are looked up or written.
pub fn moved(nodes: &[Arguments<'_>], shapes: &Shapes) -> u64 {
    let all: u64 = nodes.iter().map(|node| moved_by(node, shapes)).sum();
    let between = nodes.iter().rev().skip(1).flat_map(|node| node.view().outputs().iter());
    all.saturating_sub(between.map(|value| 2 * shapes.bytes(value) as u64).sum())
}

fn moved_by(node: &Arguments<'_>, shapes: &Shapes) -> u64 {
    let bytes = |value: ValueIndex| shapes.bytes(value) as u64;
    let inputs: Vec<ValueIndex> = node.view().inputs().collect();
    let outputs = node.view().outputs().iter();
    let written: u64 = outputs.map(bytes).sum();
    let part = |tables: &[ValueIndex], indices: ValueIndex, rows: usize| {
        let tables: u64 = tables.iter().map(|table| bytes(*table)).sum();
        let looked_up = shapes.count(indices).min(rows) as u128;
        let read = u128::from(tables) * looked_up / rows.max(1) as u128;
        bytes(indices) + read as u64 + written
    };
    match (node.op(), inputs.as_slice()) {
        (quantized::EMBEDDING, [indices, tables @ ..]) if !tables.is_empty() => {
            part(tables, *indices, shapes.of(tables[0]).first().copied().unwrap_or(1))
        }
        (quantized::PACKED_EMBEDDING, [indices, tables @ ..]) => part(tables, *indices, node.natural(3).unwrap_or(1)),
        ("aten::embedding", [table, indices, ..]) => {
            part(&[*table], *indices, shapes.of(*table).first().copied().unwrap_or(1))
        }
        (state::NAME, [_, index, source]) => bytes(*index) + 2 * bytes(*source),
        _ => inputs.iter().map(|value| bytes(*value)).sum::<u64>() + written,
    }
}

/// A step for one set of sizes.
pub trait Step: Send {
    /// Its arithmetic in a run; nothing: not known, or it only moves numbers.
    fn work(&self) -> Work {
        Work::default()
    }

    /// Bytes that it needs for itself while it runs, on so many threads.
    fn scratch(&self, _threads: usize) -> usize {
        0
    }

    /// Runs it. Inputs are the values that the node reads, in the order of its arguments.
    ///
    /// # Errors
    /// A value that the operator does not allow.
    fn run(&self, io: Io<'_>, pool: &dyn Pool, kernels: &mut delegraph_kernels::Scratch) -> Result<(), Error>;

    /// The last run counts: what it wrote over is forgotten.
    fn accept(&self) {}

    /// The last run does not count: what it wrote over in the output is put back.
    fn undo(&self, _output: &mut [u8]) {}
}

/// Makes the step of a node. `slots` has the weights.
///
/// # Errors
/// An operator that is not known, or arguments that do not fit.
pub fn make(node: &Arguments<'_>, shapes: &Shapes, slots: &[Slot]) -> Result<Box<dyn Step>, Error> {
    let _ = slots;
    match node.op() {
        bytes::CONV => bytes::conv(node, shapes),
        dynamic_conv::NAME => dynamic_conv::make(node, shapes),
        bytes::LINEAR => bytes::linear(node, shapes),
        integers::PAIR => integers::pair(node, shapes),
        integers::MAP => integers::map(node, shapes),
        integers::MEAN => integers::mean(node, shapes),
        integers::QUANTIZE => integers::quantize(node, shapes),
        attention::NAME => attention::make(node, shapes),
        recurrent::NAME => recurrent::make(node, shapes),
        state::NAME => state::make(node, shapes),
        conv::NAME => conv::make(node, shapes),
        transposed::NAME => transposed::make(node, shapes),
        elementwise::NAME => elementwise::make(node, shapes),
        quantized::LINEAR => quantized::linear(node, shapes),
        quantized::ROWS => quantized::rows(node, shapes),
        quantized::EMBEDDING => quantized::embedding(node, shapes),
        quantized::PACKED_EMBEDDING => quantized::packed_embedding(node, shapes),
        pooling::NAME => pooling::make(node, shapes),
        pooling::BYTES => pooling::average(node, shapes),
        resize::NAME => resize::make(node, shapes),
        norm::NORM => norm::norm(node, shapes),
        norm::GROUP_NORM => norm::group_norm(node, shapes),
        norm::SOFTMAX => norm::softmax(node, shapes),
        linear::NAME => linear::make(node, shapes),
        layout::NAME => layout::make(node, shapes),
        convert::NAME => convert::make(node, shapes),
        "aten::permute" | "aten::transpose.int" => {
            layout::operator(node, shapes).unwrap_or_else(|| generic::make(node, shapes))
        }
        "aten::mean.dim" => pooling::mean(node, shapes).map_or_else(|| generic::make(node, shapes), Ok),
        shuffle::NAME => shuffle::make(node, shapes),
        _ => generic::make(node, shapes),
    }
}

/// A function as a node's arguments name it: a word and two numbers.
///
/// # Errors
/// A word that is not known.
pub fn activation(node: &Arguments<'_>, at: usize) -> Result<Activation, Error> {
    let (word, a, b) = (node.str(at)?, node.float(at + 1)? as f32, node.float(at + 2)? as f32);
    function(word, a, b).ok_or_else(|| Error::corrupt(format!("`{word}` is no function")))
}

/// The function of a word and its numbers.
pub fn function(word: &str, a: f32, b: f32) -> Option<Activation> {
    Some(match word {
        "none" => Activation::None,
        "relu" => Activation::Relu,
        "clamp" => Activation::Clamp(a, b),
        "leaky_relu" => Activation::LeakyRelu(a),
        "hardsigmoid" => Activation::HardSigmoid,
        "hardswish" => Activation::HardSwish,
        "sigmoid" => Activation::Sigmoid,
        "silu" => Activation::Silu,
        "tanh" => Activation::Tanh,
        "gelu" => Activation::Gelu,
        "gelu_tanh" => Activation::GeluTanh,
        _ => return None,
    })
}
