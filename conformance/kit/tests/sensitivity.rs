//! Whether the tolerances see what they are for: results that are wrong by little, in one element, have to fail.
//!
//! What is wrong is made here and tells nothing of any delegate: a value that moved by a few parts of the largest, a sign, a neighbour's
//! value, a sum that lost its last term.

use delegraph_kit::numerics::data::{call_tensors, calls, program_tensors, programs};
use delegraph_kit::numerics::tolerance::{Class, Policy, Rule, Want, judge};
use delegraph_runner::Leaf;
use delegraph_runner::leaf::to_f64;
use delegraph_types::{DType, bf16, f16};
use std::collections::BTreeMap;

fn rounded(dtype: DType, value: f64) -> Vec<u8> {
    match dtype {
        DType::F32 => (value as f32).to_le_bytes().to_vec(),
        DType::F16 => f16::from_f64(value).to_le_bytes().to_vec(),
        DType::BF16 => bf16::from_f64(value).to_le_bytes().to_vec(),
        other => panic!("{other} is no float of the cases"),
    }
}

/// The same tensor with one element replaced.
fn with(leaf: &Leaf, i: usize, value: f64) -> Leaf {
    let Leaf::Tensor { dtype, shape, bytes } = leaf else {
        panic!()
    };
    let (dtype, shape, mut bytes) = (*dtype, shape.clone(), bytes.clone());
    bytes[i * dtype.size()..(i + 1) * dtype.size()].copy_from_slice(&rounded(dtype, value));
    Leaf::Tensor { dtype, shape, bytes }
}

/// Parts of the largest element that one may not move by without being noticed.
fn parts(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1e-4,
        DType::F16 => 0.05,
        _ => 0.4,
    }
}

#[test]
fn an_element_that_moved_is_seen_in_nearly_every_call() {
    let tensors = call_tensors().unwrap();
    let mut seen: BTreeMap<(String, &str), (usize, usize)> = BTreeMap::new();
    let mut blind = Vec::new();
    for call in calls().unwrap() {
        let keys = call.case.outputs().unwrap();
        let want = tensors.get(keys[0]).unwrap();
        let Leaf::Tensor { dtype, bytes, .. } = want else {
            continue;
        };
        let values = to_f64(*dtype, bytes);
        let finite = |v: &f64| v.is_finite();
        let largest = values
            .iter()
            .filter(|v| finite(v))
            .fold(0.0, |most: f64, v| most.max(v.abs()));
        // Values at the ends of the range say little of small differences.
        let usual = matches!(call.rule.policy, Policy::Usual) && !call.case.key.ends_with("large-magnitude");
        if !dtype.is_float() || largest == 0.0 || !usual {
            continue;
        }
        let find = |list: &[Option<String>]| list.first().and_then(Option::as_deref).and_then(|key| tensors.get(key));
        let judged = Want {
            rounded: want,
            precise: find(&call.precise),
            scale: find(&call.scale),
        };
        assert!(
            judge(&call.rule, "", want, judged).1.is_ok(),
            "{}: the wanted result itself fails",
            call.case.id()
        );
        let i = values.iter().position(finite).unwrap();
        let moved = with(want, i, values[i] + largest * parts(*dtype));
        let caught = judge(&call.rule, "", &moved, judged).1.is_err();
        let slot = seen
            .entry((format!("{:?}", call.rule.class), dtype.name()))
            .or_default();
        slot.0 += usize::from(caught);
        slot.1 += 1;
        if !caught {
            blind.push(call.case.id());
        }
    }
    println!("caught of all, by class and dtype: {seen:?}\nnot caught: {blind:#?}");
    for ((class, dtype), (caught, all)) in &seen {
        assert!(
            caught * 100 >= all * 90,
            "{class} of {dtype}: {caught} of {all}; not caught: {blind:?}"
        );
    }
    assert!(seen.values().map(|(_, all)| all).sum::<usize>() > 1000);
}

#[test]
fn a_step_too_much_or_a_lost_clamp_is_seen_in_every_quantized_program() {
    let tensors = program_tensors().unwrap();
    let mut checked = 0;
    let mut weak = Vec::new();
    for program in programs()
        .unwrap()
        .iter()
        .filter(|program| program.id.starts_with("quantized/"))
    {
        let rule = Rule::new(&program.class, program.k, "").unwrap();
        let key = &program.steps[0].out[0];
        let Some(want @ Leaf::Tensor { dtype, shape, bytes }) = tensors.get(key) else {
            panic!("{}", program.id)
        };
        if !matches!(
            rule.class,
            Class::Quantized | Class::QuantizedExact | Class::QuantizedRounding | Class::QuantizedDeep
        ) || dtype.is_float()
        {
            continue;
        }
        let values = to_f64(*dtype, bytes);
        let (low, high) = values
            .iter()
            .fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        if high - low < 8.0 {
            weak.push(format!("{}: from {low} to {high}", program.id));
        }
        // Every element one step up, where there is one; of 16 bits two, because they are judged by their mean, which has to be under one.
        let shifted: Vec<u8> = match dtype {
            DType::I16 => values
                .iter()
                .flat_map(|v| ((*v + 2.0).min(32767.0) as i16).to_le_bytes())
                .collect(),
            DType::I8 => values.iter().map(|v| (*v + 1.0).min(127.0) as i8 as u8).collect(),
            _ => values.iter().map(|v| (*v + 1.0).min(255.0) as u8).collect(),
        };
        let got = Leaf::Tensor {
            dtype: *dtype,
            shape: shape.clone(),
            bytes: shifted,
        };
        let want = Want {
            rounded: want,
            precise: None,
            scale: None,
        };
        if program.class != "quantized-deep" && judge(&rule, "", &got, want).1.is_ok() {
            weak.push(format!("{}: a step is not seen", program.id));
        }
        if program.about.contains("relu") {
            // A tenth of the elements or more are at the clamp: a delegate that loses it is off in all of them.
            let clamped = values.iter().filter(|v| **v == low).count();
            if clamped * 10 < values.len() {
                weak.push(format!("{}: {clamped} of {} are clamped", program.id, values.len()));
            }
        }
        checked += 1;
    }
    assert!(weak.is_empty(), "{weak:#?}");
    assert!(checked > 150, "{checked}");
}

#[test]
fn infinite_and_denormal_cases_hold_what_they_say() {
    let tensors = call_tensors().unwrap();
    for call in calls().unwrap() {
        let inputs = call.case.inputs();
        let values = |key: &str| match tensors.get(key) {
            Some(Leaf::Tensor { dtype, bytes, .. }) if dtype.is_float() => to_f64(*dtype, bytes),
            _ => Vec::new(),
        };
        let all: Vec<f64> = inputs.iter().flat_map(|key| values(key)).collect();
        let id = call.case.id();
        match call.rule.policy {
            Policy::NegativeZero => assert!(all.iter().any(|v| *v == 0.0 && v.is_sign_negative()), "{id}"),
            Policy::Denormal if !id.ends_with("saturation") => {
                assert!(
                    all.iter().any(|v| *v != 0.0 && v.abs() < f64::from(f32::MIN_POSITIVE)),
                    "{id}"
                );
            }
            Policy::NonFinite if !id.ends_with("infinity") => assert!(all.iter().any(|v| !v.is_finite()), "{id}"),
            _ => {}
        }
    }
}

/// Kernels in the dtype itself, with sums in their own order: a tolerance that these do not keep would be one for double precision alone.
#[test]
fn the_portable_kernels_are_within_the_tolerances() {
    let caller =
        delegraph_kit::call::Caller::new(Default::default(), delegraph_host::Host::discover(Default::default()));
    let tensors = call_tensors().unwrap();
    let mut wrong = Vec::new();
    let mut count = 0;
    for call in calls().unwrap() {
        let mut record = delegraph_runner::CaseRecord::new("x", delegraph_runner::Verdict::Pass, "");
        let got = match caller.execute(&call.case, tensors, &mut record) {
            Ok(got) => got,
            Err(error) => {
                wrong.push(format!("{}: {error}", call.case.id()));
                continue;
            }
        };
        let find =
            |list: &[Option<String>], i: usize| list.get(i).and_then(Option::as_deref).and_then(|key| tensors.get(key));
        for (i, (got, key)) in got.iter().zip(call.case.outputs().unwrap()).enumerate() {
            let want = Want {
                rounded: tensors.get(key).unwrap(),
                precise: find(&call.precise, i),
                scale: find(&call.scale, i),
            };
            if let Err(reason) = judge(&call.rule, "", got, want).1 {
                wrong.push(format!("{}: {reason}", call.case.id()));
            }
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{} of {count}: {wrong:#?}", wrong.len());
}
