//! A language model with the methods `prefill` and `decode` gives the logits of the last token, whichever way it was made.
#![cfg(feature = "cpu")]

mod common;

use delegraph::quantize::Scheme;
use delegraph::{Config, DType, Dims, LoadOptions, Session, Source, Value, language_model};
use delegraph_ir::Module;
use delegraph_runner::Leaf;
use delegraph_runner::fixture::Tensors;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PROMPT: usize = 5;
const VOCABULARY: usize = 64;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn import(name: &str) -> Module {
    let mut module = delegraph::import(&Source::open(data(name)).unwrap()).unwrap();
    language_model::last_logits(&mut module).unwrap();
    module
}

/// Tokens, and the logits of the last of the first five, six and so on.
fn expected(kind: &str) -> (Vec<i64>, Vec<Vec<f32>>) {
    let tensors = Tensors::read(&data("language_model.safetensors")).unwrap();
    let bytes = |name: &str| match tensors.iter().find(|(key, _)| *key == name) {
        Some((_, Leaf::Tensor { bytes, .. })) => bytes.to_vec(),
        other => panic!("{name}: {other:?}"),
    };
    let tokens: Vec<i64> = bytes("tokens")
        .as_chunks()
        .0
        .iter()
        .map(|b| i64::from_le_bytes(*b))
        .collect();
    let logits = (0..=tokens.len() - PROMPT).map(|step| {
        let bytes = bytes(&format!("{kind}.{step}"));
        bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    });
    let logits = logits.collect();
    (tokens, logits)
}

fn config(backend: &str) -> Config {
    let mut config = Config::default();
    config.select.order = vec![backend.to_string()];
    config
}

/// For families of processors, where there are any.
fn config_for(backend: &str, isa: &str) -> Config {
    let mut config = config(backend);
    if !isa.is_empty() {
        let options = &mut config.backend.entry(backend.to_string()).or_default().options;
        options.insert("isa".to_string(), isa.to_string().into());
    }
    config
}

fn compiled(module: Module, backend: &str) -> (Source, u64) {
    compiled_for(module, backend, "")
}

fn compiled_for(module: Module, backend: &str, isa: &str) -> (Source, u64) {
    let config = config_for(backend, isa);
    let host = delegraph::discover(&config, false);
    let compiled = delegraph::compile(module, &config, &host, &mut |_| {}).unwrap();
    (Source::from_bytes(compiled.bytes, "model.pte"), compiled.purposes.blobs)
}

fn open(source: &Source, method: &str, backend: &str) -> Session {
    open_for(source, method, backend, "")
}

fn open_for(source: &Source, method: &str, backend: &str, isa: &str) -> Session {
    let config = config_for(backend, isa);
    let host = Arc::new(delegraph::discover(&config, false));
    let options = LoadOptions {
        method: method.to_string(),
        ..LoadOptions::default()
    };
    let session = Session::open(source, &config, &host, options).unwrap();
    let kept = session
        .report()
        .regions
        .iter()
        .any(|region| !region.kept_states.is_empty());
    let report = session.report();
    let refusals: Vec<_> = report.regions.iter().map(|region| &region.refusals).collect();
    assert_eq!(
        kept,
        backend == "cpu",
        "{method}: the delegate has the caches; {refusals:?}"
    );
    session
}

/// Logits of tokens at positions from `start` on.
fn step(session: &mut Session, tokens: &[i64], start: usize) -> Vec<f32> {
    let ids: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    let places: Vec<u8> = (start..start + tokens.len())
        .flat_map(|at| (at as i64).to_le_bytes())
        .collect();
    let count = tokens.len() as i64;
    let ids = Value::tensor(DType::I64, Dims::new(&[1, count]).unwrap(), &ids);
    let places = Value::tensor(DType::I64, Dims::new(&[count]).unwrap(), &places);
    session.run(&[ids, places]).unwrap();
    let Value::Tensor(logits) = session.output(0).unwrap() else {
        panic!("no tensor")
    };
    if logits.dtype == DType::BF16 {
        let words = logits.to_contiguous();
        return words
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16))
            .collect();
    }
    assert_eq!(
        logits.shape.as_slice(),
        [1, 1, VOCABULARY as i64],
        "of the last token alone"
    );
    logits
        .to_contiguous()
        .as_chunks()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

/// The largest difference from eager PyTorch over all steps: the prompt by one session, the others by another where there is one.
fn difference(prefill: &mut Session, mut decode: Option<&mut Session>) -> f32 {
    let (tokens, want) = expected("logits");
    let mut got = vec![step(prefill, &tokens[..PROMPT], 0)];
    if let Some(decode) = &mut decode {
        assert!(
            decode.adopt_state(prefill).unwrap() >= 4,
            "keys and values of two layers"
        );
    }
    for at in PROMPT..tokens.len() {
        let session = decode.as_deref_mut().unwrap_or(prefill);
        got.push(step(session, &tokens[at..at + 1], at));
    }
    let pairs = got.iter().flatten().zip(want.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_prompt_and_single_tokens() {
    for backend in ["portable", "cpu"] {
        let (one, one_blob) = compiled(import("language_model.pt2"), backend);
        let alone = difference(&mut open(&one, "forward", backend), None);
        assert!(alone < 1e-4, "{backend}: {alone}");

        let both = language_model::methods(import("language_model.pt2"), None).unwrap();
        let files = language_model::methods(
            import("language_model.prefill.pt2"),
            Some(import("language_model.decode.pt2")),
        );
        for module in [both, files.unwrap()] {
            let names: Vec<&str> = module.states.iter().map(|state| state.name.as_str()).collect();
            assert_eq!(
                module.states.len(),
                import("language_model.pt2").states.len(),
                "caches are shared: {names:?}"
            );
            let (source, blobs) = compiled(module, backend);
            let (mut prefill, mut decode) = (open(&source, "prefill", backend), open(&source, "decode", backend));
            let difference = difference(&mut prefill, Some(&mut decode));
            assert!(difference < 1e-4, "{backend}: {difference}");
            // Weights are there once: what comes a second time is the program.
            assert!(blobs < one_blob + 60_000, "{blobs} bytes of blobs beside {one_blob}");
        }
    }
}

#[test]
fn a_prompt_and_single_tokens_of_several_families() {
    let methods = || language_model::methods(import("language_model.pt2"), None).unwrap();
    let blobs_of = |isa: &str| compiled_for(methods(), "cpu", isa);
    let (source, blobs) = blobs_of("avx2,avx512");
    for isa in ["avx2", "avx512", "host"] {
        let (mut prefill, mut decode) = (
            open_for(&source, "prefill", "cpu", isa),
            open_for(&source, "decode", "cpu", isa),
        );
        let difference = difference(&mut prefill, Some(&mut decode));
        assert!(difference < 1e-4, "{isa}: {difference}");
    }
    // The caches are the same whoever holds them.
    let (mut prefill, mut decode) = (
        open_for(&source, "prefill", "cpu", "avx512"),
        open_for(&source, "decode", "cpu", "avx2"),
    );
    assert!(difference(&mut prefill, Some(&mut decode)) < 1e-4);
    assert!(blobs < blobs_of("avx2").1 + blobs_of("avx512").1, "{blobs}");
}

#[test]
fn quantized_products_of_several_families_are_the_same_bits() {
    let methods = || {
        let mut module = import("language_model.pt2");
        let scheme: Scheme = "8da4w;embedding=4".parse().unwrap();
        delegraph::quantize(&mut module, &scheme, &[], &mut |_| {}).unwrap();
        language_model::methods(module, None).unwrap()
    };
    let (tokens, _) = expected("logits");
    let run = |source: &Source, isa: &str| {
        let mut session = open_for(source, "prefill", "cpu", isa);
        let mut logits = step(&mut session, &tokens[..PROMPT], 0);
        let mut decode = open_for(source, "decode", "cpu", isa);
        decode.adopt_state(&mut session).unwrap();
        logits.extend(step(&mut decode, &tokens[PROMPT..PROMPT + 1], PROMPT));
        logits
    };
    let (both, blobs) = compiled_for(methods(), "cpu", "avx512vnni,avx2");
    let (mut alone, mut sum) = (Vec::new(), 0);
    for isa in ["avx2", "avx512vnni"] {
        let (source, blobs) = compiled_for(methods(), "cpu", isa);
        alone.push(run(&source, isa));
        sum += blobs;
        assert_eq!(run(&both, isa), alone[0], "{isa}");
    }
    assert_eq!(alone[0], alone[1]);
    assert!(blobs < sum, "{blobs} and {sum}");
}

#[test]
fn a_matrix_of_tokens_and_logits_is_packed_once() {
    let quantized = |scheme: &str| {
        let mut module = import("language_model.pt2");
        let scheme: Scheme = scheme.parse().unwrap();
        delegraph::quantize(&mut module, &scheme, &[], &mut |_| {}).unwrap();
        module
    };
    let has = |source: &Source, operator: &[u8]| {
        let bytes = source.bytes().as_slice();
        bytes.windows(operator.len()).any(|window| window == operator)
    };
    // Both of 4 bits in groups of 32; of 8 bits a row, the table is another than the product's matrix.
    for (scheme, tied) in [
        ("w4;embedding=4", true),
        ("8da4w;embedding=4", true),
        ("w4;embedding=8", false),
    ] {
        let (source, _) = compiled(quantized(scheme), "cpu");
        assert_eq!(has(&source, b"cpu::embedding_packed"), tied, "{scheme}");
        if scheme.starts_with("8da4w") {
            // A step of an activation's byte more or less is seen in the logits.
            continue;
        }
        let (tokens, _) = expected("logits");
        let run = |backend: &str| {
            let (source, _) = compiled(quantized(scheme), backend);
            let mut session = open(&source, "forward", backend);
            let mut logits = step(&mut session, &tokens[..PROMPT], 0);
            logits.extend(step(&mut session, &tokens[PROMPT..PROMPT + 1], PROMPT));
            logits
        };
        let (ours, portable) = (run("cpu"), run("portable"));
        let range = portable.iter().fold(0f32, |most, x| most.max(x.abs()));
        let worst = ours
            .iter()
            .zip(&portable)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst <= range * 1e-5, "{scheme}: {worst} of {range}");
    }
}

#[test]
fn what_is_no_language_model_is_named() {
    let mut module = delegraph::import(&common::source("mtcnn-pnet")).unwrap();
    let error = language_model::last_logits(&mut module).unwrap_err().to_string();
    assert!(
        error.contains("logits are floats of `[batch, tokens, vocabulary]`"),
        "{error}"
    );
    let other = delegraph::import(&common::source("arch-kv-cache")).unwrap();
    let two = language_model::methods(import("language_model.pt2"), Some(other)).unwrap();
    assert_eq!(two.graphs.len(), 2, "buffers of other names are others");
    let error = language_model::last_logits(&mut { two }).unwrap_err().to_string();
    assert!(error.contains("prefill, decode"), "{error}");
}

#[test]
fn halves_are_as_near_as_pytorch_s_own() {
    let (source, _) = compiled(import("language_model.bf16.pt2"), "cpu");
    let mut session = open(&source, "forward", "cpu");
    let (tokens, exact) = expected("rounded");
    let (_, theirs) = expected("bf16");
    let mut ours = vec![step(&mut session, &tokens[..PROMPT], 0)];
    for at in PROMPT..tokens.len() {
        ours.push(step(&mut session, &tokens[at..at + 1], at));
    }
    let squares = |of: &[Vec<f32>]| -> f64 {
        let pairs = of.iter().flatten().zip(exact.iter().flatten());
        pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum()
    };
    assert!(
        squares(&ours) <= squares(&theirs),
        "{} and {}",
        squares(&ours),
        squares(&theirs)
    );
    assert!(squares(&theirs) > 0.0);
}
