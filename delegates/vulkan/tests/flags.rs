//! Values that are not allowed: a kernel sets a flag, and the run fails. What is allowed goes on as before, in the same session.

mod common;

use common::{Numbers, alone, available, code, devices};
use delegraph_abi::image::{Arg, ImageBuilder, Type};
use delegraph_abi::{DType as Code, Status};
use delegraph_host::{CallOptions, DelegateError, Input, Output, Session};
use delegraph_types::{DType, Dims};
use serde_json::json;

/// An element type of the tests; elements are given as whole numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Of {
    Float,
    Int,
    Long,
}

impl Of {
    fn code(self) -> Code {
        match self {
            Of::Float => Code::F32,
            Of::Int => Code::I32,
            Of::Long => Code::I64,
        }
    }

    fn dtype(self) -> DType {
        match self {
            Of::Float => DType::F32,
            Of::Int => DType::I32,
            Of::Long => DType::I64,
        }
    }

    fn bytes(self, numbers: &[i64]) -> Vec<u8> {
        let bytes = |x: &i64| match self {
            Of::Float => (*x as f32).to_ne_bytes().to_vec(),
            Of::Int => (*x as i32).to_ne_bytes().to_vec(),
            Of::Long => x.to_ne_bytes().to_vec(),
        };
        numbers.iter().flat_map(bytes).collect()
    }
}

/// A tensor: type and sizes.
type Tensor = (Of, &'static [i64]);

struct Case {
    op: &'static str,
    inputs: &'static [Tensor],
    /// The arguments, of the inputs' values.
    args: fn(&[Arg]) -> Vec<Arg>,
    out: Tensor,
    /// Numbers of the inputs but for the last one.
    given: &'static [&'static [i64]],
    /// The last input, and what PyTorch makes of it.
    good: (&'static [i64], &'static [i64]),
    /// The last input, for which PyTorch raises an error.
    bad: &'static [&'static [i64]],
}

const TABLE: Tensor = (Of::Float, &[5, 2]);
const ROWS: &[i64] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

/// Three integers that three others divide.
fn division(op: &'static str, of: Of, args: fn(&[Arg]) -> Vec<Arg>, result: &'static [i64]) -> Case {
    Case {
        op,
        inputs: match of {
            Of::Int => &[(Of::Int, &[3]), (Of::Int, &[3])],
            _ => &[(Of::Long, &[3]), (Of::Long, &[3])],
        },
        args,
        out: (of, &[3]),
        given: &[&[7, -7, 9]],
        good: (&[2, 2, -4], result),
        bad: &[&[2, 0, 4], &[0, 0, 0], &[1, 1, 0]],
    }
}

fn cases() -> Vec<Case> {
    let two = |v: &[Arg]| v.to_vec();
    vec![
        Case {
            op: "aten::embedding",
            inputs: &[TABLE, (Of::Long, &[3])],
            args: |v| {
                vec![
                    v[0].clone(),
                    v[1].clone(),
                    Arg::Int(-1),
                    Arg::Bool(false),
                    Arg::Bool(false),
                ]
            },
            out: (Of::Float, &[3, 2]),
            given: &[ROWS],
            good: (&[4, 0, 2], &[9, 10, 1, 2, 5, 6]),
            bad: &[&[0, 5, 1], &[-1, 0, 0], &[0, 0, i64::MAX], &[1 << 32, 0, 0]],
        },
        Case {
            op: "aten::index_select",
            inputs: &[TABLE, (Of::Int, &[2])],
            args: |v| vec![v[0].clone(), Arg::Int(0), v[1].clone()],
            out: (Of::Float, &[2, 2]),
            given: &[ROWS],
            good: (&[1, 4], &[3, 4, 9, 10]),
            bad: &[&[0, 5], &[-1, 0]],
        },
        Case {
            op: "aten::gather",
            inputs: &[TABLE, (Of::Long, &[5, 1])],
            args: |v| vec![v[0].clone(), Arg::Int(1), v[1].clone(), Arg::Bool(false)],
            out: (Of::Float, &[5, 1]),
            given: &[ROWS],
            good: (&[0, 1, 0, 1, 0], &[1, 4, 5, 8, 9]),
            bad: &[&[0, 0, 2, 0, 0], &[0, 0, 0, 0, -1]],
        },
        Case {
            op: "aten::index.Tensor",
            inputs: &[TABLE, (Of::Long, &[2])],
            args: |v| match &v[1] {
                Arg::Value(index) => vec![v[0].clone(), Arg::OptionalValues(vec![Some(*index)])],
                other => vec![v[0].clone(), other.clone()],
            },
            out: (Of::Float, &[2, 2]),
            given: &[ROWS],
            // Negative ones count from the end.
            good: (&[3, -5], &[7, 8, 1, 2]),
            bad: &[&[5, 0], &[0, -6]],
        },
        Case {
            op: "aten::scatter.src",
            inputs: &[TABLE, (Of::Float, &[1, 2]), (Of::Long, &[1, 2])],
            args: |v| vec![v[0].clone(), Arg::Int(0), v[2].clone(), v[1].clone()],
            out: TABLE,
            given: &[ROWS, &[100, 200]],
            good: (&[4, 1], &[1, 2, 3, 200, 5, 6, 7, 8, 100, 10]),
            bad: &[&[5, 0], &[0, -1]],
        },
        division("aten::floor_divide", Of::Long, two, &[3, -4, -3]),
        division("aten::floor_divide", Of::Int, two, &[3, -4, -3]),
        division(
            "aten::div.Tensor_mode",
            Of::Long,
            |v| vec![v[0].clone(), v[1].clone(), Arg::Str("trunc".into())],
            &[3, -3, -2],
        ),
        division(
            "aten::div.Tensor_mode",
            Of::Int,
            |v| vec![v[0].clone(), v[1].clone(), Arg::Str("floor".into())],
            &[3, -4, -3],
        ),
        division("aten::remainder.Tensor", Of::Long, two, &[1, 1, -3]),
        division("aten::remainder.Tensor", Of::Int, two, &[1, 1, -3]),
        division("aten::fmod.Tensor", Of::Long, two, &[1, -1, 1]),
        division("aten::fmod.Tensor", Of::Int, two, &[1, -1, 1]),
    ]
}

fn image(case: &Case) -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let ty = |image: &mut ImageBuilder, (of, sizes): Tensor| {
        let dims: Vec<_> = sizes.iter().map(|size| image.int(*size)).collect();
        Type::tensor(of.code(), &dims)
    };
    let mut values = Vec::new();
    for (at, tensor) in case.inputs.iter().enumerate() {
        let ty = ty(&mut image, *tensor);
        values.push(Arg::Value(image.input(&format!("in{at}"), &ty)));
    }
    let out = ty(&mut image, case.out);
    let made = image.node("node", case.op, &(case.args)(&values), &[("out", &out)], "")[0];
    image.output(made);
    image.finish().unwrap()
}

fn run(session: &mut Session, case: &Case, last: &[i64]) -> Result<Vec<u8>, DelegateError> {
    let numbers = case.given.iter().copied().chain([last]);
    let bytes: Vec<Vec<u8>> = case
        .inputs
        .iter()
        .zip(numbers)
        .map(|((of, _), x)| of.bytes(x))
        .collect();
    let inputs: Vec<Input<'_>> = case
        .inputs
        .iter()
        .zip(&bytes)
        .map(|((of, sizes), bytes)| Input {
            dtype: of.dtype(),
            sizes,
            bytes,
        })
        .collect();
    let (of, sizes) = case.out;
    let mut room = of.bytes(&vec![-77; sizes.iter().product::<i64>() as usize]);
    let mut outputs = [Output {
        dtype: of.dtype(),
        sizes: Dims::new(sizes).unwrap(),
        bytes: &mut room,
    }];
    session.execute_with(&inputs, &mut outputs, &CallOptions::default())?;
    Ok(room)
}

#[test]
fn what_is_not_allowed_fails_the_run_and_nothing_after_it() {
    let _alone = alone();
    let Some(delegate) = available(json!({})) else { return };
    for case in cases() {
        let blob = delegate.compile(&image(&case), &*Numbers::new(), "").unwrap();
        for device in devices(&delegate) {
            let options = CallOptions::default();
            let mut session = delegate
                .load_with(&blob, Numbers::new(), Some(device), &options)
                .unwrap();
            let (last, expected) = case.good;
            for bad in case.bad {
                let made = run(&mut session, &case, last).unwrap();
                assert_eq!(made, case.out.0.bytes(expected), "{} of {last:?} on {device}", case.op);
                let outcome = run(&mut session, &case, bad);
                let text = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
                assert_eq!(
                    code(outcome),
                    Status::INVALID_ARGUMENT,
                    "{} of {bad:?} on {device}",
                    case.op
                );
                assert!(
                    text.contains("out of range") && text.contains("divided by zero"),
                    "{text}"
                );
            }
            assert_eq!(run(&mut session, &case, last).unwrap(), case.out.0.bytes(expected));
        }
    }
}
