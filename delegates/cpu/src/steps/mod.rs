//! What a program does, one kind of step a file. A step is made for one set of sizes, and holds all that it needs but its tensors.

pub mod attention;
pub mod bytes;
pub mod conv;
pub mod elementwise;
pub mod generic;
pub mod layout;
pub mod linear;
pub mod norm;
pub mod pooling;
pub mod quantized;
pub mod recurrent;
pub mod shuffle;
pub mod state;

use crate::plan::Shapes;
use crate::sys::{Io, Slot};
use delegraph_cpu_kernels::{Activation, Pool};
use delegraph_sdk::Error;
use delegraph_sdk::arguments::Arguments;

/// A step for one set of sizes.
pub trait Step: Send {
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
        bytes::LINEAR => bytes::linear(node, shapes),
        attention::NAME => attention::make(node, shapes),
        recurrent::NAME => recurrent::make(node, shapes),
        state::NAME => state::make(node, shapes),
        conv::NAME => conv::make(node, shapes),
        elementwise::NAME => elementwise::make(node, shapes),
        quantized::LINEAR => quantized::linear(node, shapes),
        quantized::EMBEDDING => quantized::embedding(node, shapes),
        pooling::NAME => pooling::make(node, shapes),
        norm::NORM => norm::norm(node, shapes),
        norm::GROUP_NORM => norm::group_norm(node, shapes),
        norm::SOFTMAX => norm::softmax(node, shapes),
        linear::NAME => linear::make(node, shapes),
        layout::NAME => layout::make(node, shapes),
        "aten::permute" | "aten::transpose.int" => {
            layout::operator(node, shapes).unwrap_or_else(|| generic::make(node, shapes))
        }
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
