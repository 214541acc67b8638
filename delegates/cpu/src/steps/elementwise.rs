//! A chain of functions of elements, in one pass over memory.

use super::{Step, Work};
use crate::plan::Shapes;
use crate::sys::Io;
use delegraph_cpu_kernels::elementwise::{self, Binary, Input, Operand, Program, Unary};
use delegraph_cpu_kernels::{Isa, Pool};
use delegraph_sdk::Error;
use delegraph_sdk::arguments::Arguments;
use smallvec::SmallVec;

/// `cpu::elementwise(inputs, kinds, code, numbers, trailing)`: each input is one of [`Kind`]; `trailing` dimensions of the output are a row; the
/// code is [`Code`]s with their operands.
pub const NAME: &str = "cpu::elementwise";

/// How an input covers the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub enum Kind {
    /// One number an element.
    Full = 0,
    /// The same in every row.
    Row = 1,
    /// One number a row.
    Column = 2,
    /// One number.
    Scalar = 3,
}

/// Operands from here on are earlier steps; below, inputs.
pub const STEP: i64 = 1 << 16;
/// Operands from here on are numbers of the node.
pub const NUMBER: i64 = 1 << 17;

/// Functions of one number by their code, behind those of [`super::function`].
const UNARY: [Unary; 12] = [
    Unary::Sqrt,
    Unary::Rsqrt,
    Unary::Abs,
    Unary::Negate,
    Unary::Square,
    Unary::Reciprocal,
    Unary::Exp,
    Unary::Log,
    Unary::Erf,
    Unary::Floor,
    Unary::Ceil,
    Unary::Round,
];
const BINARY: [Binary; 6] = [
    Binary::Add,
    Binary::Sub,
    Binary::Mul,
    Binary::Div,
    Binary::Min,
    Binary::Max,
];

/// What a step of the code does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Code {
    /// One of the functions of a word, with its numbers' places.
    Activation(&'static str, i64),
    /// A function of one number.
    Unary(Unary),
    /// A function of two.
    Binary(Binary),
}

const WORDS: [&str; 11] = [
    "none",
    "relu",
    "clamp",
    "leaky_relu",
    "hardsigmoid",
    "hardswish",
    "sigmoid",
    "silu",
    "tanh",
    "gelu",
    "gelu_tanh",
];

impl Code {
    /// As four integers: the code, two operands, and the place of numbers.
    pub fn write(self, operands: [i64; 2]) -> [i64; 4] {
        let (code, numbers) = match self {
            Code::Activation(word, numbers) => (WORDS.iter().position(|w| *w == word).unwrap_or(0), numbers),
            Code::Unary(unary) => (100 + UNARY.iter().position(|u| *u == unary).unwrap_or(0), 0),
            Code::Binary(binary) => (200 + BINARY.iter().position(|b| *b == binary).unwrap_or(0), 0),
        };
        [code as i64, operands[0], operands[1], numbers]
    }
}

struct Elementwise {
    program: Program,
    kinds: Vec<Kind>,
    columns: usize,
    /// Of the output.
    elements: usize,
    /// Of the chain.
    functions: usize,
}

/// Makes the step.
///
/// # Errors
/// Arguments that do not fit.
pub fn make(node: &Arguments<'_>, shapes: &Shapes) -> Result<Box<dyn Step>, Error> {
    let wrong = || Error::corrupt("a chain of element functions is damaged");
    let (inputs, output) = (node.values(0)?, node.output(0)?);
    let (kinds, code, numbers) = (node.ints(1)?, node.ints(2)?, node.floats(3)?);
    let trailing = node.natural(4)?;
    let sizes = shapes.of(output);
    let total: usize = sizes.iter().product();
    let columns: usize = sizes[sizes.len().saturating_sub(trailing)..].iter().product();
    let operand = |code: i64| -> Option<Operand> {
        Some(match code {
            0..STEP => Operand::Input(code as usize),
            STEP..NUMBER => Operand::Step((code - STEP) as usize),
            _ => Operand::Constant(*numbers.get(usize::try_from(code - NUMBER).ok()?)? as f32),
        })
    };
    let mut steps = Vec::new();
    for step in code.as_chunks::<4>().0 {
        let [code, a, b, place] = *step;
        let a = operand(a).ok_or_else(wrong)?;
        steps.push(match code {
            0..100 => {
                let word = WORDS.get(code as usize).ok_or_else(wrong)?;
                let number = |at: i64| {
                    numbers
                        .get(usize::try_from(at).unwrap_or(usize::MAX))
                        .copied()
                        .unwrap_or(0.0) as f32
                };
                let activation = super::function(word, number(place), number(place.saturating_add(1)));
                let activation = activation.ok_or_else(wrong)?;
                elementwise::Step::Unary(Unary::Activation(activation), a)
            }
            100..200 => elementwise::Step::Unary(*UNARY.get(code as usize - 100).ok_or_else(wrong)?, a),
            _ => {
                let binary = usize::try_from(code - 200)
                    .ok()
                    .and_then(|code| BINARY.get(code))
                    .ok_or_else(wrong)?;
                elementwise::Step::Binary(*binary, a, operand(b).ok_or_else(wrong)?)
            }
        });
    }
    let functions = steps.len();
    let program = Program::new(steps, inputs.len()).ok_or_else(wrong)?;
    let mut read = Vec::new();
    for (input, kind) in inputs.iter().zip(&kinds) {
        let count = shapes.count(*input);
        let (kind, need) = match kind {
            0 => (Kind::Full, total),
            1 => (Kind::Row, columns),
            2 => (Kind::Column, total / columns.max(1)),
            3 => (Kind::Scalar, 1),
            _ => return Err(wrong()),
        };
        if count != need {
            return Err(wrong());
        }
        read.push(kind);
    }
    match read.len() == inputs.len() {
        true => Ok(Box::new(Elementwise {
            program,
            kinds: read,
            columns,
            elements: total,
            functions,
        })),
        false => Err(wrong()),
    }
}

impl Step for Elementwise {
    /// One an element and function, whatever a function is made of.
    fn work(&self) -> Work {
        Work::floats(&[self.elements, self.functions])
    }

    fn run(&self, io: Io<'_>, pool: &dyn Pool, _: &mut delegraph_kernels::Scratch) -> Result<(), Error> {
        let mut io = io;
        let input = |(at, kind): (usize, &Kind)| {
            let x: &[f32] = io.input(at);
            match kind {
                Kind::Full => Input::Full(x),
                Kind::Row => Input::Row(x),
                Kind::Column => Input::Column(x),
                Kind::Scalar => Input::Scalar(x[0]),
            }
        };
        let mut inputs: SmallVec<[Input<'_>; 8]> = SmallVec::new();
        for operand in self.kinds.iter().enumerate() {
            inputs.push(input(operand));
        }
        self.program.run(Isa::best(), pool, &inputs, self.columns, io.output(0));
        Ok(())
    }
}
