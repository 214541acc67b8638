use super::*;
use crate::Serial;

/// Four threads' worth of parts, on one.
struct Four;

impl Pool for Four {
    fn threads(&self) -> usize {
        4
    }

    fn run(&self, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        (0..parts).rev().for_each(body);
    }
}

fn numbers(n: usize, step: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * step) % 1009) as f32 / 97.0 - 5.0).collect()
}

fn of(input: &Input, before: &[f32], at: usize, columns: usize) -> f32 {
    match input {
        Input::Full(x) => x[at],
        Input::Row(x) => x[at % columns],
        Input::Column(x) => x[at / columns],
        Input::Scalar(x) => *x,
        Input::Output => before[at],
    }
}

/// The program in doubles, one element at a time.
fn naive(steps: &[Step], inputs: &[Input], before: &[f32], at: usize, columns: usize) -> f64 {
    let mut made: Vec<f64> = Vec::new();
    for step in steps {
        let read = |operand: Operand| match operand {
            Operand::Input(i) => f64::from(of(&inputs[i], before, at, columns)),
            Operand::Step(i) => made[i],
            Operand::Constant(c) => f64::from(c),
        };
        let value = match *step {
            Step::Unary(function, a) => {
                let x = read(a);
                match function {
                    Unary::Activation(activation) => f64::from(activation.of(x as f32)),
                    Unary::Sqrt => x.sqrt(),
                    Unary::Rsqrt => 1.0 / x.sqrt(),
                    Unary::Abs => x.abs(),
                    Unary::Negate => -x,
                    Unary::Square => x * x,
                    Unary::Reciprocal => 1.0 / x,
                    Unary::Exp => x.exp(),
                    Unary::Log => x.ln(),
                    Unary::Erf => math::erf_wide(x),
                    Unary::Floor => x.floor(),
                    Unary::Ceil => x.ceil(),
                    Unary::Round => x.round_ties_even(),
                }
            }
            Step::Binary(function, a, b) => {
                let (a, b) = (read(a), read(b));
                match function {
                    Binary::Add => a + b,
                    Binary::Sub => a - b,
                    Binary::Mul => a * b,
                    Binary::Div => a / b,
                    Binary::Min | Binary::Max if a.is_nan() || b.is_nan() => f64::NAN,
                    Binary::Min => a.min(b),
                    Binary::Max => a.max(b),
                }
            }
            Step::MulAdd(a, b, c) => read(a) * read(b) + read(c),
            Step::Select(compare, a, b, c, d) => {
                let holds = match compare {
                    Compare::Less => read(a) < read(b),
                    Compare::LessEqual => read(a) <= read(b),
                    Compare::Equal => read(a) == read(b),
                };
                if holds { read(c) } else { read(d) }
            }
        };
        made.push(value);
    }
    made[made.len() - 1]
}

fn close(have: f32, want: f64, scale: f64) -> bool {
    (have.is_nan() && want.is_nan())
        || f64::from(have) == want
        || have == want as f32
        || (f64::from(have) - want).abs() <= 1e-6 * (want.abs() + scale)
}

#[test]
fn programs_compute_what_their_steps_say_for_every_kind_of_input() {
    use Operand::{Constant, Input as In, Step as Of};
    let steps = vec![
        Step::Binary(Binary::Add, In(0), In(1)),
        Step::Binary(Binary::Mul, Of(0), In(2)),
        Step::Unary(Unary::Activation(Activation::Sigmoid), Of(1)),
        Step::Binary(Binary::Sub, In(3), Constant(0.5)),
        Step::MulAdd(Of(2), Of(3), Of(0)),
        Step::Select(Compare::Less, Of(4), Constant(0.0), Of(3), Of(4)),
        Step::Binary(Binary::Max, Of(5), In(4)),
        Step::Unary(Unary::Abs, Of(6)),
        Step::Binary(Binary::Div, Of(7), Constant(3.0)),
    ];
    let program = Program::new(steps.clone(), 5).unwrap();
    for (rows, columns) in [
        (0, 3),
        (1, 1),
        (3, 1),
        (7, 5),
        (1, 256),
        (2, 257),
        (40, 19),
        (5, 1000),
        (130, 32),
        (3, 255),
    ] {
        let n = rows * columns;
        let (full, row, column) = (numbers(n, 13), numbers(columns, 31), numbers(rows, 57));
        let before = numbers(n, 7);
        let inputs = [
            Input::Full(&full),
            Input::Row(&row),
            Input::Column(&column),
            Input::Output,
            Input::Scalar(0.25),
        ];
        for isa in Isa::all() {
            let mut out = before.clone();
            program.run(isa, &Serial, &inputs, columns, &mut out);
            let mut divided = before.clone();
            program.run(isa, &Four, &inputs, columns, &mut divided);
            assert_eq!(out, divided);
            for (at, have) in out.iter().enumerate() {
                let want = naive(&steps, &inputs, &before, at, columns);
                // Seven roundings of numbers up to about 60.
                assert!(
                    close(*have, want, 60.0),
                    "{isa}, {rows} x {columns}, {at}: {have}, not {want}"
                );
            }
        }
    }
}

#[test]
fn every_function_is_the_one_it_is_named_for() {
    let mut x = numbers(301, 13);
    x.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 2.5, -2.5]);
    let mut y: Vec<f32> = x.iter().rev().copied().collect();
    y[3] = x[3];
    let unaries = [
        Unary::Activation(Activation::Relu),
        Unary::Activation(Activation::Gelu),
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
    for isa in Isa::all() {
        let mut out = vec![0.0; x.len()];
        for function in unaries {
            unary(isa, &Four, function, &x, &mut out);
            let mut place = x.clone();
            unary_in_place(isa, &Serial, function, &mut place);
            for (at, have) in out.iter().enumerate() {
                let want = naive(
                    &[Step::Unary(function, Operand::Input(0))],
                    &[Input::Full(&x)],
                    &[],
                    at,
                    1,
                );
                assert!(
                    close(*have, want, 1.0),
                    "{isa}, {function:?} of {}: {have}, not {want}",
                    x[at]
                );
                assert!(have.to_bits() == place[at].to_bits());
            }
        }
        for function in [
            Binary::Add,
            Binary::Sub,
            Binary::Mul,
            Binary::Div,
            Binary::Min,
            Binary::Max,
        ] {
            binary(isa, &Four, function, &x, &y, Activation::None, &mut out);
            for (at, have) in out.iter().enumerate() {
                let step = Step::Binary(function, Operand::Input(0), Operand::Input(1));
                let want = naive(&[step], &[Input::Full(&x), Input::Full(&y)], &[], at, 1);
                assert!(
                    close(*have, want, 0.0),
                    "{isa}, {function:?} of {}, {}: {have}",
                    x[at],
                    y[at]
                );
            }
        }
        for compare in [Compare::Less, Compare::LessEqual, Compare::Equal] {
            let step = Step::Select(
                compare,
                Operand::Input(0),
                Operand::Input(1),
                Operand::Constant(1.0),
                Operand::Constant(2.0),
            );
            let inputs = [Input::Full(&x), Input::Full(&y)];
            Program::new(vec![step], 2)
                .unwrap()
                .run(isa, &Serial, &inputs, 7, &mut out);
            for (at, have) in out.iter().enumerate() {
                assert_eq!(f64::from(*have), naive(&[step], &inputs, &[], at, 7));
            }
        }
    }
}

#[test]
fn what_is_no_program_is_refused() {
    let step = |operand| Step::Unary(Unary::Abs, operand);
    assert!(Program::new(vec![], 1).is_none());
    assert!(Program::new(vec![step(Operand::Input(1))], 1).is_none());
    assert!(Program::new(vec![step(Operand::Step(0))], 1).is_none());
    assert!(Program::new(vec![step(Operand::Input(0)); 65], 1).is_none());
    // Seventeen results that are all needed by sums behind them.
    let mut steps = vec![step(Operand::Input(0)); 17];
    steps.extend((0..17).map(|i| Step::Binary(Binary::Add, Operand::Step(i), Operand::Step(i))));
    assert!(Program::new(steps, 1).is_none());
}
