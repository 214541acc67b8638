//! Functions of elements, and chains of them in one pass over memory.
//!
//! A [`Program`] is a list of steps; each gives one number an element, from inputs, constants and earlier steps. It is evaluated [`CHUNK`]
//! elements at a time, so that what lies between two steps never leaves the first cache. Every element is computed on its own: results do not
//! depend on how work is divided.

use crate::pool::{self, Pool, Shared};
use crate::simd::{Op, Simd, dispatch};
use crate::{Activation, Isa, math};

/// Elements that one step computes before the next.
pub const CHUNK: usize = 256;
/// Results of steps that a program may need at once.
const SLOTS: usize = 16;
/// Inputs of a program.
const INPUTS: usize = 8;
/// Steps of a program.
const STEPS: usize = 64;

/// A function of one number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unary {
    /// One of those that follow sums.
    Activation(Activation),
    /// The square root.
    Sqrt,
    /// `1 / sqrt(x)`
    Rsqrt,
    /// The size.
    Abs,
    /// `-x`
    Negate,
    /// `x * x`
    Square,
    /// `1 / x`
    Reciprocal,
    /// The exponential.
    Exp,
    /// The natural logarithm.
    Log,
    /// The error function.
    Erf,
    /// The next integer below.
    Floor,
    /// The next integer above.
    Ceil,
    /// The nearest integer, halves to even.
    Round,
}

/// A function of two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// The smaller one; a NaN if either is.
    Min,
    /// The larger one; a NaN if either is.
    Max,
}

/// How two numbers are compared. Nothing compares with a NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// `a < b`
    Less,
    /// `a <= b`
    LessEqual,
    /// `a == b`
    Equal,
}

/// What a step reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operand {
    /// The input of this index.
    Input(usize),
    /// The result of the step of this index.
    Step(usize),
    /// A number.
    Constant(f32),
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// A function of one number.
    Unary(Unary, Operand),
    /// A function of two.
    Binary(Binary, Operand, Operand),
    /// `a * b + c`, rounded once where the machine can.
    MulAdd(Operand, Operand, Operand),
    /// The third where the comparison of the first two holds, else the fourth.
    Select(Compare, Operand, Operand, Operand, Operand),
}

impl Step {
    fn operands(&self) -> [Option<Operand>; 4] {
        match *self {
            Step::Unary(_, a) => [Some(a), None, None, None],
            Step::Binary(_, a, b) => [Some(a), Some(b), None, None],
            Step::MulAdd(a, b, c) => [Some(a), Some(b), Some(c), None],
            Step::Select(_, a, b, c, d) => [Some(a), Some(b), Some(c), Some(d)],
        }
    }
}

/// An input of a program over `rows` by `columns` elements.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// One number an element.
    Full(&'a [f32]),
    /// One number a column: the same in every row.
    Row(&'a [f32]),
    /// One number a row.
    Column(&'a [f32]),
    /// One number.
    Scalar(f32),
    /// What the output holds, before it is overwritten.
    Output,
}

/// Checked steps, with the place of each result.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    steps: Vec<Step>,
    slots: Vec<usize>,
    inputs: usize,
}

impl Program {
    /// Of steps, the last of which gives the output, over `inputs` inputs. `None`: there is no step or there are more than 64, more than eight
    /// inputs, an operand that is no input and no earlier step, or more than sixteen results are needed at once.
    pub fn new(steps: Vec<Step>, inputs: usize) -> Option<Program> {
        if steps.is_empty() || steps.len() > STEPS || inputs > INPUTS {
            return None;
        }
        let mut last = vec![0; steps.len()];
        for (at, step) in steps.iter().enumerate() {
            for operand in step.operands().into_iter().flatten() {
                match operand {
                    Operand::Step(of) if of < at => last[of] = at,
                    Operand::Input(of) if of < inputs => {}
                    Operand::Constant(_) => {}
                    _ => return None,
                }
            }
        }
        let mut free: Vec<usize> = (0..SLOTS).rev().collect();
        let mut slots = vec![0; steps.len()];
        for at in 0..steps.len() {
            // A step may write over what it is the last to read: it goes element by element.
            for of in 0..at {
                if last[of] == at {
                    free.push(slots[of]);
                }
            }
            slots[at] = free.pop()?;
            if last[at] == 0 {
                free.push(slots[at]);
            }
        }
        Some(Program { steps, slots, inputs })
    }

    /// How many inputs it has.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Evaluates it over `out.len() / columns` rows. Inputs beyond [`Program::inputs`] are not read.
    ///
    /// # Panics
    /// There are fewer inputs than the program has, or one is too short for its kind.
    pub fn run(&self, isa: Isa, pool: &dyn Pool, inputs: &[Input], columns: usize, out: &mut [f32]) {
        if out.is_empty() {
            return;
        }
        if let [step] = self.steps[..]
            && inputs[..self.inputs]
                .iter()
                .all(|input| matches!(input, Input::Full(_) | Input::Output))
            && !step
                .operands()
                .iter()
                .flatten()
                .any(|operand| matches!(operand, Operand::Constant(_)))
        {
            return each(isa, pool, step, None, &inputs[..self.inputs], out);
        }
        let rows = out.len().div_ceil(columns.max(1));
        for input in &inputs[..self.inputs] {
            match input {
                Input::Full(x) => assert!(x.len() >= out.len(), "a full input is as long as the output"),
                Input::Row(x) => assert!(x.len() >= columns, "a row is as long as there are columns"),
                Input::Column(x) => assert!(x.len() >= rows, "a column is as long as there are rows"),
                Input::Scalar(_) | Input::Output => {}
            }
        }
        // Where rows are short, a chunk is some whole rows; where they are long, a part of one.
        let (chunk, per_row) = match columns {
            0..=CHUNK => (CHUNK / columns.max(1) * columns.max(1), 1),
            _ => (CHUNK, columns.div_ceil(CHUNK)),
        };
        let chunks = match columns {
            0..=CHUNK => out.len().div_ceil(chunk),
            _ => rows * per_row,
        };
        let parts = pool::parts(pool, chunks, 15 * (1 + self.steps.len()));
        let total = out.len();
        let shared = Shared::new(out);
        pool.run(parts, &|part| {
            dispatch(
                isa,
                Evaluate {
                    program: self,
                    inputs,
                    columns: columns.max(1),
                    chunk,
                    per_row,
                    chunks: pool::range(chunks, parts, part, 1),
                    total,
                    out: shared,
                },
            );
        });
    }
}

/// `function(x)`, element by element.
///
/// # Panics
/// `x` is shorter than `out`.
pub fn unary(isa: Isa, pool: &dyn Pool, function: Unary, x: &[f32], out: &mut [f32]) {
    each(
        isa,
        pool,
        Step::Unary(function, Operand::Input(0)),
        None,
        &[Input::Full(x)],
        out,
    );
}

/// [`unary`] of what the output holds.
pub fn unary_in_place(isa: Isa, pool: &dyn Pool, function: Unary, x: &mut [f32]) {
    each(
        isa,
        pool,
        Step::Unary(function, Operand::Input(0)),
        None,
        &[Input::Output],
        x,
    );
}

/// `activation(function(a, b))`, element by element.
///
/// # Panics
/// `a` or `b` is shorter than `out`.
pub fn binary(
    isa: Isa,
    pool: &dyn Pool,
    function: Binary,
    a: &[f32],
    b: &[f32],
    activation: Activation,
    out: &mut [f32],
) {
    let step = Step::Binary(function, Operand::Input(0), Operand::Input(1));
    each(
        isa,
        pool,
        step,
        Some(activation),
        &[Input::Full(a), Input::Full(b)],
        out,
    );
}

/// One or two steps, without a program that has to be allocated.
fn each(isa: Isa, pool: &dyn Pool, step: Step, then: Option<Activation>, inputs: &[Input], out: &mut [f32]) {
    for input in inputs {
        if let Input::Full(x) = input {
            assert!(x.len() >= out.len(), "an input is as long as the output");
        }
    }
    let total = out.len();
    let chunks = total.div_ceil(CHUNK);
    let parts = pool::parts(pool, chunks, 40);
    let shared = Shared::new(out);
    pool.run(parts, &|part| {
        let part = pool::range(chunks, parts, part, 1);
        // What one function leaves for the next stays in the first cache.
        let some = match then {
            None => part.len().max(1),
            Some(_) => 1,
        };
        for chunk in part.step_by(some) {
            let range = chunk * CHUNK..((chunk + some) * CHUNK).min(total);
            dispatch(
                isa,
                Single {
                    step,
                    then,
                    inputs,
                    range,
                    out: shared,
                },
            );
        }
    });
}

struct Single<'a> {
    step: Step,
    then: Option<Activation>,
    inputs: &'a [Input<'a>],
    range: std::ops::Range<usize>,
    out: Shared<f32>,
}

impl Op for Single<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: the range is within the output, of which no other part has it.
        let to = unsafe { self.out.at(self.range.start) };
        let source = |operand: Option<Operand>| match operand {
            Some(Operand::Input(of)) => match self.inputs[of] {
                Input::Full(x) => Source {
                    from: x[self.range.start..].as_ptr(),
                    stride: 1,
                },
                _ => Source { from: to, stride: 1 },
            },
            _ => Source { from: to, stride: 1 },
        };
        let sources = self.step.operands().map(source);
        // SAFETY: inputs are as long as the output.
        unsafe {
            perform(s, &self.step, sources, to, self.range.len());
            match self.then {
                None | Some(Activation::None) => {}
                Some(then) => {
                    let step = Step::Unary(Unary::Activation(then), Operand::Input(0));
                    perform(s, &step, [Source { from: to, stride: 1 }; 4], to, self.range.len());
                }
            }
        }
    }
}

/// Where a step reads: `stride` is 1, or 0 for sixteen equal numbers.
#[derive(Clone, Copy)]
struct Source {
    from: *const f32,
    stride: usize,
}

struct Evaluate<'a> {
    program: &'a Program,
    inputs: &'a [Input<'a>],
    columns: usize,
    chunk: usize,
    per_row: usize,
    chunks: std::ops::Range<usize>,
    total: usize,
    out: Shared<f32>,
}

impl Op for Evaluate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut slots = [const { std::mem::MaybeUninit::<[f32; CHUNK]>::uninit() }; SLOTS];
        let mut staged = [[0.0; CHUNK]; INPUTS];
        let short = self.columns <= CHUNK;
        for (input, staged) in self.inputs.iter().zip(&mut staged) {
            match input {
                Input::Scalar(x) => staged[..16].fill(*x),
                Input::Row(x) if short => {
                    for row in staged[..self.chunk].chunks_mut(self.columns) {
                        row.copy_from_slice(&x[..row.len()]);
                    }
                }
                _ => {}
            }
        }
        for chunk in self.chunks {
            let (row, column, start, end) = if short {
                let start = chunk * self.chunk;
                (start / self.columns, 0, start, (start + self.chunk).min(self.total))
            } else {
                let (row, column) = (chunk / self.per_row, chunk % self.per_row * CHUNK);
                let start = row * self.columns + column;
                let end = (row + 1) * self.columns;
                (row, column, start, (start + CHUNK).min(end).min(self.total))
            };
            if start >= end {
                continue;
            }
            // SAFETY: the chunk lies within the output, and no other part has it.
            let to = unsafe { self.out.at(start) };
            let mut sources = [Source { from: to, stride: 1 }; INPUTS];
            let places = sources.iter_mut().zip(&mut staged);
            for (input, (source, staged)) in self.inputs[..self.program.inputs].iter().zip(places) {
                *source = match input {
                    Input::Full(x) => Source {
                        from: x[start..].as_ptr(),
                        stride: 1,
                    },
                    Input::Output => Source { from: to, stride: 1 },
                    Input::Scalar(_) => Source {
                        from: staged.as_ptr(),
                        stride: 0,
                    },
                    Input::Row(_) if short => Source {
                        from: staged.as_ptr(),
                        stride: 1,
                    },
                    Input::Row(x) => Source {
                        from: x[column..].as_ptr(),
                        stride: 1,
                    },
                    Input::Column(x) if short => {
                        for (to, x) in staged[..end - start].chunks_mut(self.columns).zip(&x[row..]) {
                            to.fill(*x);
                        }
                        Source {
                            from: staged.as_ptr(),
                            stride: 1,
                        }
                    }
                    Input::Column(x) => {
                        staged[..16].fill(x[row]);
                        Source {
                            from: staged.as_ptr(),
                            stride: 0,
                        }
                    }
                };
            }
            for (at, step) in self.program.steps.iter().enumerate() {
                let mut read = [Source { from: to, stride: 1 }; 4];
                let mut constants = [[0.0; 16]; 4];
                for ((operand, source), constant) in step.operands().iter().zip(&mut read).zip(&mut constants) {
                    *source = match *operand {
                        Some(Operand::Input(of)) => sources[of],
                        Some(Operand::Step(of)) => Source {
                            from: slots[self.program.slots[of]].as_ptr().cast(),
                            stride: 1,
                        },
                        Some(Operand::Constant(c)) => {
                            *constant = [c; 16];
                            Source {
                                from: constant.as_ptr(),
                                stride: 0,
                            }
                        }
                        None => continue,
                    };
                }
                let write = match at + 1 == self.program.steps.len() {
                    true => to,
                    false => slots[self.program.slots[at]].as_mut_ptr().cast(),
                };
                // SAFETY: every source has as many elements as the chunk, or sixteen that are read again and again; an earlier step wrote those of a
                // slot, which nothing has overwritten since, as `Program::new` saw to.
                unsafe { perform(s, step, read, write, end - start) };
            }
        }
    }
}

/// One step over `n` elements.
///
/// # Safety
/// Sources have `n` elements, or sixteen where their stride is 0; `to` has `n`, and is no source or exactly one.
#[inline(always)]
unsafe fn perform<S: Simd>(s: S, step: &Step, from: [Source; 4], to: *mut f32, n: usize) {
    let [a, b, c, d] = from;
    let whole = n / S::LANES * S::LANES;
    macro_rules! each {
        ($($name:ident),* => $made:expr) => {{
            for at in (0..whole).step_by(S::LANES) {
                // SAFETY: as the caller says.
                $(let $name = unsafe { s.load($name.from.add(at * $name.stride)) };)*
                let made = $made;
                // SAFETY: as the caller says.
                unsafe { s.store(to.add(at), made) };
            }
            if whole < n {
                // SAFETY: as the caller says.
                $(let $name = unsafe { s.load_part($name.from.add(whole * $name.stride), n - whole) };)*
                let made = $made;
                // SAFETY: as the caller says.
                unsafe { s.store_part(to.add(whole), made, n - whole) };
            }
        }};
    }
    let (zero, one) = (s.splat(0.0), s.splat(1.0));
    match *step {
        Step::Unary(function, _) => match function {
            Unary::Activation(Activation::Gelu) => each!(a => Activation::Gelu.apply(s, a)),
            Unary::Activation(Activation::Silu) => each!(a => Activation::Silu.apply(s, a)),
            Unary::Activation(Activation::Sigmoid) => each!(a => Activation::Sigmoid.apply(s, a)),
            Unary::Activation(Activation::Tanh) => each!(a => Activation::Tanh.apply(s, a)),
            Unary::Activation(other) => each!(a => other.apply(s, a)),
            Unary::Sqrt => each!(a => s.sqrt(a)),
            Unary::Rsqrt => each!(a => s.div(one, s.sqrt(a))),
            Unary::Abs => each!(a => s.abs(a)),
            Unary::Negate => each!(a => s.mul(a, s.splat(-1.0))),
            Unary::Square => each!(a => s.mul(a, a)),
            Unary::Reciprocal => each!(a => s.div(one, a)),
            Unary::Exp => each!(a => math::exp(s, a)),
            Unary::Log => each!(a => math::log(s, a)),
            Unary::Erf => each!(a => math::erf(s, a)),
            Unary::Floor => each!(a => s.floor(a)),
            Unary::Ceil => each!(a => s.sub(zero, s.floor(s.sub(zero, a)))),
            Unary::Round => each!(a => s.round(a)),
        },
        Step::Binary(function, ..) => match function {
            Binary::Add => each!(a, b => s.add(a, b)),
            Binary::Sub => each!(a, b => s.sub(a, b)),
            Binary::Mul => each!(a, b => s.mul(a, b)),
            Binary::Div => each!(a, b => s.div(a, b)),
            // Of the two methods, the first operand's NaN stays; the other's is chosen here.
            Binary::Min => each!(a, b => s.select(s.eq(b, b), s.min(a, b), b)),
            Binary::Max => each!(a, b => s.select(s.eq(b, b), s.max(a, b), b)),
        },
        Step::MulAdd(..) => each!(a, b, c => s.fma(a, b, c)),
        Step::Select(compare, ..) => match compare {
            Compare::Less => each!(a, b, c, d => s.select(s.lt(a, b), c, d)),
            Compare::LessEqual => each!(a, b, c, d => s.select(s.lt(a, b), c, s.select(s.eq(a, b), c, d))),
            Compare::Equal => each!(a, b, c, d => s.select(s.eq(a, b), c, d)),
        },
    }
}

#[cfg(test)]
mod tests;
