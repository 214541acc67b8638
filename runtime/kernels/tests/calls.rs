//! Recorded calls of kernels that the operator corpus has no or few cases of. `make_calls.py` says where the numbers come from.

mod common;

use common::{Held, Wanted, call, close, new};
use delegraph_kernels::Arg;
use delegraph_types::DType;
use serde_json::Value;

fn held(value: &Value) -> Held {
    let dtype = DType::from_name(value[0].as_str().unwrap()).unwrap();
    let sizes: Vec<i64> = value[1]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_i64().unwrap())
        .collect();
    let items: Vec<f64> = value[2]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect();
    Held::new(dtype, &sizes, &items)
}

#[test]
fn recorded_calls_give_the_recorded_results() {
    let mut wrong = Vec::new();
    let text = include_str!("data/calls.jsonl");
    for (line, text) in text.lines().enumerate() {
        let case: Value = serde_json::from_str(text).unwrap();
        let name = case["kernel"].as_str().unwrap();
        let given = case["args"].as_array().unwrap();
        let tensors: Vec<Option<Held>> = given.iter().map(|v| v.get("t").map(held)).collect();
        let ints: Vec<Vec<i64>> = given
            .iter()
            .map(|v| {
                v["il"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_i64)
                    .collect()
            })
            .collect();
        let bools: Vec<Vec<bool>> = given
            .iter()
            .map(|v| {
                v["bl"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_bool)
                    .collect()
            })
            .collect();
        let args: Vec<Arg> = (0..given.len())
            .map(|i| {
                let value = &given[i];
                match (
                    &tensors[i],
                    value["i"].as_i64(),
                    value["f"].as_f64(),
                    value["b"].as_bool(),
                ) {
                    (Some(tensor), ..) => Arg::Tensor(tensor.tensor()),
                    (_, Some(int), ..) => Arg::Int(int),
                    (_, _, Some(float), _) => Arg::Float(float),
                    (_, _, _, Some(bool)) => Arg::Bool(bool),
                    _ if value.get("il").is_some() => Arg::Ints(&ints[i]),
                    _ if value.get("bl").is_some() => Arg::Bools(&bools[i]),
                    _ => Arg::None,
                }
            })
            .collect();
        let wants: Vec<Held> = case["outs"].as_array().unwrap().iter().map(held).collect();
        let mut outs: Vec<Wanted> = given
            .iter()
            .filter_map(|v| v.get("m"))
            .map(|v| Wanted::Changed(held(v)))
            .collect();
        outs.extend(wants[outs.len()..].iter().map(|want| new(want.dtype)));
        let place = format!("line {}, {name}", line + 1);
        let got = match call(name, &args, outs) {
            Ok((got, _)) => got,
            Err(error) => {
                wrong.push(format!("{place}: {error}"));
                continue;
            }
        };
        for (i, (got, want)) in got.iter().zip(&wants).enumerate() {
            let (rtol, atol) = match want.dtype {
                DType::F64 => (1e-9, 1e-12),
                DType::F32 => (1e-5, 1e-5),
                DType::F16 => (1e-3, 1e-5),
                _ => (0.0, 0.0),
            };
            let (a, b) = (got.items(), want.items());
            let same = a.iter().zip(&b).all(|(a, b)| close(*a, *b, rtol, atol));
            if got.sizes != want.sizes || !same {
                wrong.push(format!(
                    "{place}, output {i}: {} {a:?}\n  instead of {} {b:?}",
                    got.sizes, want.sizes
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_a_tensor_grows_by_is_zeros() {
    let source = Held::new(DType::I32, &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let args = [Arg::Tensor(source.tensor()), Arg::Ints(&[2, 3]), Arg::None];
    let (outs, _) = call("aten::resize.out", &args, vec![new(DType::I32)]).unwrap();
    assert_eq!(outs[0].items(), [1.0, 2.0, 3.0, 4.0, 0.0, 0.0]);
    for (size, want) in [(&[5][..], &[1.0, 2.0, 3.0, 4.0, 0.0][..]), (&[1, 3], &[1.0, 2.0, 3.0])] {
        let present = Held::new(DType::I32, &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
        let args = [Arg::None, Arg::Ints(size), Arg::None];
        let (outs, _) = call("aten::resize_", &args, vec![Wanted::Changed(present)]).unwrap();
        assert_eq!((outs[0].sizes.as_slice(), &outs[0].items()[..]), (size, want));
    }
}
