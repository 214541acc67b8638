//! Blobs over the real host, with the delegate linked in: what is compiled runs, and what was changed is refused with a reason.

mod common;

use delegraph_abi::envelope::{self, Section};
use delegraph_abi::image::{Arg, ImageBuilder, Type};
use delegraph_abi::{DType as Code, Status};
use delegraph_hexagon::Hexagon;
use delegraph_hexagon::blob::{CONTEXT, HEADER, Header};
use delegraph_host::{BlobVerdict, Delegate, DelegateError, Host, HostOptions, Input, Output, Weights};
use delegraph_sdk::roles::{CompileSet, Run};
use delegraph_sdk::static_entry_as;
use delegraph_types::{DType, Dims};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

const SIZES: [i64; 2] = [4, 32];

struct NoWeights;

impl Weights for NoWeights {
    fn bytes(&self, _: u32) -> Option<&[u8]> {
        None
    }
}

/// The delegate, started with options.
fn delegate(options: Value) -> Arc<Delegate> {
    let host = Host::discover(HostOptions {
        options: [("hexagon".to_string(), options)].into(),
        ..HostOptions::default()
    });
    let entry = static_entry_as::<Hexagon, (CompileSet, Run)>();
    host.register_static("hexagon", entry).unwrap();
    host.delegate("hexagon").unwrap()
}

/// The delegate with the library.
fn available(folder: &Path, more: Value) -> Arc<Delegate> {
    let mut options = more;
    options["library"] = folder.to_str().unwrap().into();
    delegate(options)
}

/// `x * y`.
fn image() -> Vec<u8> {
    product_of(SIZES[0])
}

/// `x * y` with so many rows.
fn product_of(rows: i64) -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let sizes = [rows, SIZES[1]].map(|size| image.int(size));
    let ty = Type::tensor(Code::F32, &sizes);
    let (x, y) = (image.input("x", &ty), image.input("y", &ty));
    let args = [Arg::Value(x), Arg::Value(y)];
    let out = image.node("mul", "aten::mul.Tensor", &args, &[("mul", &ty)], "")[0];
    image.output(out);
    image.finish().unwrap()
}

/// Loads a blob and multiplies small whole numbers, whose products 16 bits hold exactly.
fn run(delegate: &Delegate, blob: &[u8]) -> Result<(), DelegateError> {
    let mut session = delegate.load(blob, Arc::new(NoWeights))?;
    let count = (SIZES[0] * SIZES[1]) as usize;
    let x: Vec<f32> = (0..count).map(|i| i as f32 % 17.0 - 8.0).collect();
    let y: Vec<f32> = (0..count).map(|i| i as f32 % 5.0 - 2.0).collect();
    let bytes = |numbers: &[f32]| -> Vec<u8> { numbers.iter().flat_map(|x| x.to_ne_bytes()).collect() };
    let (xs, ys) = (bytes(&x), bytes(&y));
    let input = |bytes| Input {
        dtype: DType::F32,
        sizes: &SIZES,
        bytes,
    };
    let mut out = vec![0; count * 4];
    let mut outputs = [Output {
        dtype: DType::F32,
        sizes: Dims::new(&SIZES).unwrap(),
        bytes: &mut out,
    }];
    session.execute(&[input(&xs), input(&ys)], &mut outputs)?;
    let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x * y).collect();
    let got: Vec<f32> = out
        .chunks_exact(4)
        .map(|b| f32::from_ne_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(got, expected);
    Ok(())
}

/// A blob with another header, and its bytes of the context changed.
fn changed(blob: &[u8], header: impl Fn(&mut Header), context: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let old = envelope::parse(blob).unwrap();
    let section = |name: &str| old.sections.iter().find(|s| s.name == name).unwrap().bytes.to_vec();
    let (mut head, mut bytes) = (Header::read(&section(HEADER)).unwrap(), section(CONTEXT));
    context(&mut bytes);
    header(&mut head);
    rewritten(blob, &head.write(), &bytes)
}

fn rewritten(blob: &[u8], header: &[u8], context: &[u8]) -> Vec<u8> {
    let old = envelope::parse(blob).unwrap();
    let section = |name, bytes| Section { name, align: 16, bytes };
    let sections = [section(HEADER, header), section(CONTEXT, context)];
    envelope::write(&old.meta, &sections, |bytes| Sha256::digest(bytes).into()).unwrap()
}

#[track_caller]
fn refused(delegate: &Delegate, blob: &[u8], code: Status, text: &str) {
    let error = run(delegate, blob).unwrap_err();
    assert_eq!(error.code, code, "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

#[test]
fn what_is_compiled_runs_and_what_was_changed_does_not() {
    let Some(folder) = common::folder() else { return };
    let own = available(&folder, json!({}));
    assert_eq!(own.devices().unwrap().len(), 1);
    let partition = own.partition(&image(), "").unwrap();
    assert!(
        partition.verdicts.iter().all(|verdict| verdict.supported),
        "{partition:?}"
    );
    let blob = own.compile(&image(), &NoWeights, "").unwrap();
    let meta = envelope::parse(&blob).unwrap().meta;
    assert_eq!(meta.precision, "f16");
    assert_eq!(own.check_blob(&blob).unwrap(), BlobVerdict::Optimal);
    run(&own, &blob).unwrap();
    // Two at once: one context.
    let _first = own.load(&blob, Arc::new(NoWeights)).unwrap();
    run(&own, &blob).unwrap();

    let keep = |_: &mut Vec<u8>| {};
    let digested = |head: &mut Header, bytes: &[u8]| {
        head.digest = Sha256::digest(bytes).into();
        head.size = bytes.len() as u64;
    };
    // The binary is not the header's.
    let flipped = changed(&blob, |_| {}, |bytes| bytes[1000] ^= 1);
    refused(
        &own,
        &flipped,
        Status::BLOB_CORRUPT,
        "not the one that the blob's header is of",
    );
    // It is cut off, and the header says so.
    let context = {
        let old = envelope::parse(&blob).unwrap();
        old.sections.iter().find(|s| s.name == CONTEXT).unwrap().bytes.to_vec()
    };
    let short = &context[..context.len() / 2];
    let cut = changed(&blob, |head| digested(head, short), |bytes| bytes.truncate(short.len()));
    let error = run(&own, &cut).unwrap_err();
    assert!([Status::BLOB_CORRUPT, Status::VENDOR].contains(&error.code), "{error}");
    // It is no context binary at all.
    let junk = vec![7; 4096];
    let no_binary = changed(&blob, |head| digested(head, &junk), |bytes| bytes.clone_from(&junk));
    refused(&own, &no_binary, Status::BLOB_CORRUPT, "");
    // The header is cut off, of a newer version, for a chip that is not known, for another graph, made by a newer library.
    let header = |change: &dyn Fn(&mut Header)| changed(&blob, change, keep);
    let cut = rewritten(&blob, &header_of(&blob).write()[..40], &context);
    refused(&own, &cut, Status::BLOB_CORRUPT, "cut off");
    let mut newer = header_of(&blob).write();
    newer[4] = 9;
    refused(
        &own,
        &rewritten(&blob, &newer, &context),
        Status::BLOB_INCOMPATIBLE,
        "version 9",
    );
    refused(
        &own,
        &header(&|h| h.soc = 999),
        Status::BLOB_INCOMPATIBLE,
        "not known here",
    );
    refused(
        &own,
        &header(&|h| h.graph = "g7".to_string()),
        Status::BLOB_CORRUPT,
        "no graph `g7`",
    );
    refused(
        &own,
        &header(&rename),
        Status::BLOB_CORRUPT,
        "tensor `other` of graph `g0`",
    );
}

fn rename(header: &mut Header) {
    header.inputs[0].tensor.as_mut().unwrap().name = "other".to_string();
}

fn header_of(blob: &[u8]) -> Header {
    let old = envelope::parse(blob).unwrap();
    Header::read(old.sections.iter().find(|s| s.name == HEADER).unwrap().bytes).unwrap()
}

#[test]
fn a_blob_of_another_chip_or_a_newer_library_is_refused() {
    let Some(folder) = common::folder() else { return };
    let own = available(&folder, json!({ "soc": "sm8650" }));
    let blob = own.compile(&image(), &NoWeights, "sm8650").unwrap();
    run(&own, &blob).unwrap();
    let keep = |_: &mut Vec<u8>| {};
    let other = changed(&blob, |h| h.soc = 69, keep);
    refused(
        &own,
        &other,
        Status::BLOB_INCOMPATIBLE,
        "for sm8750, and the option `soc` is sm8650",
    );
    let newer = changed(&blob, |h| h.backend[1] += 1, keep);
    refused(&own, &newer, Status::BLOB_INCOMPATIBLE, "made by");
    // Without the option, the process's chip stands against it.
    let free = available(&folder, json!({}));
    refused(&free, &other, Status::UNSUPPORTED, "one chip a process");
    let error = free.compile(&image(), &NoWeights, "sm8450").unwrap_err();
    assert!(error.message.contains("one chip a process"), "{error}");
    let error = free.compile(&image(), &NoWeights, "sm1").unwrap_err();
    assert_eq!(error.code, Status::INVALID_ARGUMENT);
    assert!(error.hint.contains("sm8650 (57)"), "{error}");
}

#[test]
fn graphs_that_are_compiled_together_are_in_one_context() {
    let Some(folder) = common::folder() else { return };
    let own = available(&folder, json!({}));
    // The same graph twice, as two methods may have it, and a third one.
    let graphs = [image(), image(), product_of(1)];
    let asked: Vec<(&[u8], &dyn Weights)> = graphs.iter().map(|graph| (graph.as_slice(), &NoWeights as _)).collect();
    let blobs = own.compile_set(&asked, "sm8650").unwrap();
    let context = |blob: &[u8]| {
        let parsed = envelope::parse(blob).unwrap();
        let section = parsed.sections.iter().find(|s| s.name == CONTEXT).unwrap();
        Sha256::digest(section.bytes).to_vec()
    };
    assert!(blobs.iter().all(|blob| context(blob) == context(&blobs[0])));
    let names: Vec<String> = blobs.iter().map(|blob| header_of(blob).graph).collect();
    assert_eq!(names, ["g0", "g1", "g2"]);
    run(&own, &blobs[0]).unwrap();
    run(&own, &blobs[1]).unwrap();
    // A chip that there is not is the whole set's error.
    let error = own.compile_set(&asked, "sm1").unwrap_err();
    assert!(
        error.graph.is_none() && error.error.hint.contains("sm8650"),
        "{error:?}"
    );
    let error = own.partition(&image(), "sm1").unwrap_err();
    assert_eq!(error.code, Status::INVALID_ARGUMENT);
}

#[test]
fn without_the_library_the_table_answers_and_nothing_is_compiled_or_loaded() {
    let own = delegate(json!({ "library": "/nowhere" }));
    assert!(own.devices().unwrap().is_empty());
    let partition = own.partition(&image(), "").unwrap();
    assert!(
        partition.verdicts.iter().all(|verdict| verdict.supported),
        "{partition:?}"
    );
    let error = own.compile(&image(), &NoWeights, "").unwrap_err();
    assert_eq!(error.code, Status::DEPENDENCY_MISSING, "{error}");
    assert!(
        error.message.contains("unavailable") && error.message.contains("/nowhere"),
        "{error}"
    );
    // With integers only, floats are refused.
    let own = delegate(json!({ "library": "/nowhere", "precision": "integer" }));
    let partition = own.partition(&image(), "").unwrap();
    assert!(
        partition.verdicts.iter().all(|verdict| !verdict.supported),
        "{partition:?}"
    );
}
