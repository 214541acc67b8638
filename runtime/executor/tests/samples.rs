//! Programs that ExecuTorch 1.5.1 wrote give what ExecuTorch 1.5.1 gives (`make_expected.py`).

mod common;

use common::{encode, floats, load, sample};
use delegraph_executor::{Executor, Input, LoadError, Options, Output, ProgramData};
use delegraph_pte::{BundledProgram, BundledValue, DataFile, Verified};
use delegraph_types::{DType, Dims};
use serde_json::Value;
use std::sync::Arc;

fn tensor(leaf: &Value) -> (DType, Dims, Vec<f64>) {
    let shape: Vec<i64> = leaf["shape"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d.as_i64().unwrap())
        .collect();
    let data = leaf["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect();
    let dtype = DType::from_name(leaf["dtype"].as_str().unwrap()).unwrap();
    (dtype, Dims::new(&shape).unwrap(), data)
}

fn check(place: &str, leaf: &Value, output: &Output<'_>) {
    if let Some(number) = leaf.get("number") {
        if number.is_null() {
            assert!(matches!(output, Output::None), "{place}: {output:?} is not None");
            return;
        }
        let want = number
            .as_f64()
            .unwrap_or_else(|| f64::from(u8::from(number.as_bool().unwrap())));
        assert_eq!(floats(output), [want], "{place}");
        return;
    }
    let (dtype, sizes, want) = tensor(leaf);
    let Output::Tensor(got) = output else {
        panic!("{place}: {output:?} is no tensor");
    };
    assert_eq!((got.dtype(), *got.sizes()), (dtype, sizes), "{place}");
    for (i, (got, want)) in floats(output).iter().zip(&want).enumerate() {
        assert!(
            (got - want).abs() <= 1e-5 + 1e-5 * want.abs(),
            "{place}: element {i} is {got}, expected {want}"
        );
    }
}

/// Runs every recorded case with the program at this offset from an aligned address.
fn run_all(shift: usize) {
    struct Shifted(Vec<u8>, usize);
    impl ProgramData for Shifted {
        fn bytes(&self) -> &[u8] {
            &self.0[self.1..]
        }
    }
    let text = include_str!("data/expected.json");
    let entries: Value = serde_json::from_str(text).unwrap();
    for entry in entries.as_array().unwrap() {
        let (file, method) = (entry["file"].as_str().unwrap(), entry["method"].as_str().unwrap());
        let mut bytes = vec![0; shift];
        bytes.extend(sample(file));
        let program = Arc::new(Verified::parse(&bytes[shift..]).unwrap());
        let data = Arc::new(Shifted(bytes, shift));
        let mut executor =
            Executor::new(program, method, data, Options::default()).unwrap_or_else(|error| panic!("{file}: {error}"));
        for (number, run) in entry["runs"].as_array().unwrap().iter().enumerate() {
            let leaves = run["inputs"].as_array().unwrap();
            let data: Vec<_> = leaves
                .iter()
                .map(|leaf| {
                    let (dtype, sizes, values) = tensor(leaf);
                    (dtype, sizes, encode(dtype, &values))
                })
                .collect();
            let inputs: Vec<Input<'_>> = data
                .iter()
                .map(|(dtype, sizes, data)| Input::Bytes {
                    dtype: *dtype,
                    sizes,
                    data,
                })
                .collect();
            let place = format!("{file} {method} run {number}");
            executor.run(&inputs).unwrap_or_else(|error| panic!("{place}: {error}"));
            let outputs = run["outputs"].as_array().unwrap();
            assert_eq!(executor.output_count(), outputs.len(), "{place}");
            for (index, leaf) in outputs.iter().enumerate() {
                check(
                    &format!("{place} output {index}"),
                    leaf,
                    &executor.output(index).unwrap(),
                );
            }
        }
    }
}

#[test]
fn recorded_runs() {
    run_all(0);
}

#[test]
fn a_file_at_an_odd_address() {
    run_all(1);
    run_all(4);
}

/// An input that is only read stays where the caller has it if it lies as the plan says; else it is copied. Both give the same.
#[test]
fn inputs_that_are_lent_and_inputs_that_are_copied_give_the_same() {
    let entries: Value = serde_json::from_str(include_str!("data/expected.json")).unwrap();
    let (mut lent, mut copied) = (0, 0);
    for entry in entries.as_array().unwrap() {
        let (file, method) = (entry["file"].as_str().unwrap(), entry["method"].as_str().unwrap());
        let mut executor = load(sample(file), method, Options::default());
        for run in entry["runs"].as_array().unwrap() {
            let given: Vec<_> = run["inputs"].as_array().unwrap().iter().map(tensor).collect();
            // Words give alignment; one byte further there is none.
            let words: Vec<Vec<u64>> = given
                .iter()
                .map(|(dtype, _, values)| {
                    let bytes = encode(*dtype, values);
                    let mut words = vec![0u64; bytes.len() / 8 + 2];
                    bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(&bytes);
                    words
                })
                .collect();
            let mut results = Vec::new();
            for shift in [0, 1] {
                executor.reset();
                let moved: Vec<Vec<u64>> = words
                    .iter()
                    .map(|words| {
                        let mut moved = vec![0u64; words.len() + 1];
                        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut moved);
                        bytes[shift..shift + words.len() * 8].copy_from_slice(bytemuck::cast_slice(words));
                        moved
                    })
                    .collect();
                let inputs: Vec<Input<'_>> = given
                    .iter()
                    .zip(&moved)
                    .map(|((dtype, sizes, values), moved)| Input::Bytes {
                        dtype: *dtype,
                        sizes,
                        data: &bytemuck::cast_slice(moved)[shift..shift + values.len() * dtype.size()],
                    })
                    .collect();
                executor.run(&inputs).unwrap();
                for (index, (dtype, ..)) in given.iter().enumerate() {
                    let stays = executor
                        .input_after(index)
                        .is_err_and(|error| error.to_string().contains("where it was given"));
                    *(if stays { &mut lent } else { &mut copied }) += 1;
                    assert!(
                        !stays || shift == 0 || dtype.size() == 1,
                        "{file}: a misaligned input was lent"
                    );
                }
                let outputs = (0..executor.output_count()).map(|i| floats(&executor.output(i).unwrap()));
                results.push(outputs.collect::<Vec<_>>());
            }
            assert_eq!(results[0], results[1], "{file}");
        }
    }
    assert!(lent > 0 && copied > 0, "{lent} lent, {copied} copied");
}

#[test]
fn reset_restores_the_initial_state() {
    let file = sample("mutable-buffer-initialised.pte");
    let mut executor = load(file, "forward", Options::default());
    let ones = encode(DType::F32, &[1.0; 4]);
    let input = [common::f32s(&[4], &ones)];
    let run = |executor: &mut Executor| {
        executor.run(&input).unwrap();
        common::output(executor, 0)
    };
    let (first, second) = (run(&mut executor), run(&mut executor));
    assert_ne!(first, second);
    executor.reset();
    assert_eq!(run(&mut executor), first);
}

#[test]
fn external_weights() {
    /// A `.ptd` file, each tensor at an aligned address of its own.
    struct WithData(Vec<u8>, Vec<(String, Vec<u64>, usize)>);
    impl ProgramData for WithData {
        fn bytes(&self) -> &[u8] {
            &self.0
        }
        fn external(&self, name: &str) -> Option<&[u8]> {
            let (_, words, len) = self.1.iter().find(|(have, ..)| have == name)?;
            // Tests run on a little-endian machine; u64 words give alignment.
            let bytes: &[u8] = bytemuck::cast_slice(words);
            bytes.get(..*len)
        }
    }
    let file = sample("external-constants.pte");
    let program = Arc::new(Verified::parse(&file).unwrap());
    let none = Executor::new(program.clone(), "forward", Arc::new(file.clone()), Options::default());
    assert_eq!(
        none.err(),
        Some(LoadError::Data("no external data for `a.weight`".into()))
    );

    let ptd = sample("external-constants.ptd");
    let data = DataFile::parse(&ptd).unwrap();
    let tensors = data
        .entries
        .iter()
        .map(|entry| {
            let bytes = data.bytes(&ptd, &entry.name).unwrap();
            let words = bytes
                .chunks(8)
                .map(|chunk| {
                    let mut word = [0; 8];
                    word[..chunk.len()].copy_from_slice(chunk);
                    u64::from_le_bytes(word)
                })
                .collect();
            (entry.name.clone(), words, bytes.len())
        })
        .collect();
    // The bundle is the same network with its weights inside: both must give what the bundle expects.
    let bundle_file = sample("bundled.bpte");
    let bundle = BundledProgram::parse(&bundle_file).unwrap();
    let case = &bundle.suites[0].cases[0];
    let (BundledValue::Tensor(input), BundledValue::Tensor(want)) = (&case.inputs[0], &case.expected[0]) else {
        panic!("the case holds no tensors");
    };
    let inside = load(bundle.program.to_vec(), "forward", Options::default());
    let outside = Executor::new(
        program,
        "forward",
        Arc::new(WithData(file, tensors)),
        Options::default(),
    )
    .unwrap();
    for mut executor in [inside, outside] {
        let input = Input::Bytes {
            dtype: input.dtype,
            sizes: &input.sizes,
            data: input.data,
        };
        executor.run(&[input]).unwrap();
        let got = common::output(&executor, 0);
        assert_eq!(got.len() * 4, want.data.len());
        for (got, word) in got.iter().zip(want.data.chunks_exact(4)) {
            let want = f64::from(f32::from_le_bytes(word.try_into().unwrap()));
            assert!((got - want).abs() < 1e-5, "{got} {want}");
        }
    }
}

#[test]
fn an_absent_delegate_is_refused_by_name() {
    let file = sample("xnnpack.pte");
    let program = Arc::new(Verified::parse(&file).unwrap());
    let error = Executor::new(program, "forward", Arc::new(file), Options::default())
        .err()
        .unwrap();
    let want = LoadError::Delegate {
        instruction: 0,
        backend: "XnnpackBackend".into(),
    };
    assert_eq!(error, want);
}
