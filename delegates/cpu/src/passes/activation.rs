//! Functions of one number, as operators of the table name them.

use crate::graph::{Node, float};
use delegraph_sdk::image::Arg;

/// A function as steps name it: a word and two numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// The word, see [`crate::steps::activation`].
    pub word: &'static str,
    /// Its numbers, 0 where it has none.
    pub numbers: [f64; 2],
}

impl Function {
    /// Nothing.
    pub const NONE: Function = Function {
        word: "none",
        numbers: [0.0; 2],
    };

    /// As arguments of a node.
    pub fn args(&self) -> [Arg; 3] {
        [
            Arg::Str(self.word.to_string()),
            Arg::Float(self.numbers[0]),
            Arg::Float(self.numbers[1]),
        ]
    }
}

/// The function that a node is of its first argument; `None`: it is none that steps have.
pub fn of(node: &Node) -> Option<Function> {
    let plain = |word| {
        Some(Function {
            word,
            numbers: [0.0; 2],
        })
    };
    let number = |at: usize, default: f64| match node.args.get(at) {
        None | Some(Arg::None) => Some(default),
        given => float(given),
    };
    let clamp = |low: Option<f64>, high: Option<f64>| {
        // Bounds that are no numbers, or the wrong way round, have rules of their own.
        let numbers = [low?, high?];
        (numbers[0] <= numbers[1]).then_some(Function { word: "clamp", numbers })
    };
    match node.op.as_str() {
        "aten::relu" => plain("relu"),
        "aten::relu6" => clamp(Some(0.0), Some(6.0)),
        "aten::hardtanh" => clamp(number(1, -1.0), number(2, 1.0)),
        "aten::clamp" => clamp(number(1, f64::NEG_INFINITY), number(2, f64::INFINITY)),
        "aten::clamp_min" => clamp(number(1, f64::NEG_INFINITY), Some(f64::INFINITY)),
        "aten::clamp_max" => clamp(Some(f64::NEG_INFINITY), number(1, f64::INFINITY)),
        "aten::leaky_relu" => Some(Function {
            word: "leaky_relu",
            numbers: [number(1, 0.01)?, 0.0],
        }),
        "aten::hardsigmoid" => plain("hardsigmoid"),
        "aten::hardswish" => plain("hardswish"),
        "aten::sigmoid" => plain("sigmoid"),
        "aten::silu" => plain("silu"),
        "aten::tanh" => plain("tanh"),
        "aten::gelu" => match node.args.get(1) {
            Some(Arg::Str(form)) if form == "tanh" => plain("gelu_tanh"),
            Some(Arg::Str(form)) if form != "none" => None,
            _ => plain("gelu"),
        },
        _ => None,
    }
}
