//! `fallback_weights = "drop"`: a file without the weights that delegates have packed gives the same results, and says what it cannot do.
#![cfg(feature = "cpu")]

mod common;

use common::{check, config, fixture, open, source, value};
use delegraph::{Compiled, Session, Source};
use delegraph_config::Config;
use delegraph_cpu::Cpu;
use delegraph_host::Host;
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, BlobMeta, BlobVerdict, Compile, Context, Delegate, Device, Error, Info, Options, Partition, Run, TensorOut,
    TensorView, Weights, roles, static_entry_as,
};
use std::sync::Arc;

/// A host with all three delegates.
fn host(fault: &str) -> Arc<Host> {
    let host = common::host(fault);
    let cpu = static_entry_as::<Cpu, (roles::Compile, roles::Run, roles::State)>();
    host.register_static("cpu", cpu).unwrap();
    host
}

fn choosing(backend: &str, weights: &str, more: &str) -> Config {
    config(&format!(
        "[select]\norder = [\"{backend}\"]\n[backend.{backend}]\nfallback_weights = \"{weights}\"\n{more}"
    ))
}

fn compile(name: &str, config: &Config, host: &Host) -> Compiled {
    let module = delegraph::import(&source(name)).unwrap();
    delegraph::compile(module, config, host, &mut |_| {}).unwrap()
}

fn file(compiled: &Compiled) -> Source {
    Source::from_bytes(compiled.bytes.clone(), "model.pte")
}

#[test]
fn a_smaller_file_gives_the_same() {
    let host = host("");
    for name in ["mtcnn-pnet", "minilm-l6-int8", "quant-torchao-8da4w", "arch-tiny-llama"] {
        let kept = compile(name, &choosing("cpu", "keep", ""), &host);
        let dropped = compile(name, &choosing("cpu", "drop", ""), &host);
        let (most, least) = (kept.purposes, dropped.purposes);
        assert_eq!((most.left_out, least.ir), (0, 0), "{name}");
        assert!(least.left_out > 0 && most.ir > 0, "{name}");
        assert!(
            dropped.bytes.len() as u64 + least.left_out <= kept.bytes.len() as u64,
            "{name}: {} and {} bytes, {} left out",
            kept.bytes.len(),
            dropped.bytes.len(),
            least.left_out
        );
        let mut session = open(&file(&dropped), &choosing("cpu", "drop", ""), &host).unwrap();
        check(&mut session, &fixture(name));
    }
}

#[test]
fn weights_that_others_read_stay() {
    let host = host("");
    let apart = "[[rule]]\nmatch = { op = \"aten.convolution*\" }\ndeny = [\"cpu\"]\nreason = \"test\"\n";
    let config = choosing("cpu", "drop", apart);
    let compiled = compile("mtcnn-pnet", &config, &host);
    let mut session = open(&file(&compiled), &config, &host).unwrap();
    check(&mut session, &fixture("mtcnn-pnet"));
    let report = session.report();
    assert!(report.portable_nodes > 0 && report.delegated_nodes() > 0);
}

#[test]
fn a_file_without_weights_says_what_it_needs() {
    let host = host("");
    let compiled = compile("mtcnn-pnet", &choosing("cpu", "drop", ""), &host);
    let portable = config("[select]\norder = [\"portable\"]\n");
    let error = open(&file(&compiled), &portable, &host).err().unwrap();
    let text = error.to_string();
    assert!(
        text.contains("was written without") && text.contains("weight`"),
        "{text}"
    );
    assert!(text.contains("fallback_weights = \"keep\""), "{text}");
    let error = delegraph::import(&file(&compiled)).unwrap_err().to_string();
    assert!(error.contains("compile the model that it was made of again"), "{error}");
}

#[test]
fn what_no_delegate_here_has_is_denied() {
    let with = host("");
    let compiled = compile("mtcnn-pnet", &choosing("cpu", "drop", ""), &with);
    let error = open(&file(&compiled), &Config::default(), &common::nobody())
        .err()
        .unwrap();
    assert_eq!(error.exit_code(), 4, "{error}");
}

#[test]
fn what_a_blob_asks_for_stays() {
    // The reference delegate keeps no weights in its blobs: the kernels can catch what fails.
    let drop = choosing("faulty", "drop", "");
    let compiled = compile("mtcnn-pnet", &drop, &host(""));
    assert_eq!(compiled.purposes.left_out, 0);
    let mut session = open(&file(&compiled), &drop, &host("always")).unwrap();
    check(&mut session, &fixture("mtcnn-pnet"));
}

/// The CPU delegate, whose second run of each session fails.
struct Packed(Cpu);

impl Delegate for Packed {
    const INFO: Info = Cpu::INFO;

    fn new(_: &Options<'_>, context: &Context<'_>) -> Result<Packed, Error> {
        Ok(Packed(Cpu::new(&Options::default(), context)?))
    }

    fn devices(&self) -> Vec<Device> {
        self.0.devices()
    }
}

impl Compile for Packed {
    fn partition(&self, graph: &ImageView<'_>, context: &Context<'_>) -> Result<Partition, Error> {
        self.0.partition(graph, context)
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        target: &str,
        context: &Context<'_>,
    ) -> Result<delegraph_sdk::Compiled, Error> {
        self.0.compile(graph, weights, target, context)
    }
}

impl Run for Packed {
    fn check_blob(&self, meta: &BlobMeta<'_>) -> BlobVerdict {
        BlobVerdict::by_format(&Self::INFO, meta)
    }

    fn load(
        &self,
        blob: &Blob<'_>,
        weights: &Weights<'_>,
        context: &Context<'_>,
    ) -> Result<Box<dyn delegraph_sdk::Session>, Error> {
        Ok(Box::new(SecondFails(self.0.load(blob, weights, context)?, 0)))
    }
}

struct SecondFails(Box<dyn delegraph_sdk::Session>, u32);

impl delegraph_sdk::Session for SecondFails {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        self.1 += 1;
        match self.1 {
            2 => Err(Error::internal("it broke")),
            _ => self.0.execute(inputs, outputs, context),
        }
    }
}

#[test]
fn a_delegate_that_fails_is_no_wrong_number() {
    let host = Arc::new(Host::discover(delegraph_host::HostOptions::default()));
    host.register_static("cpu", static_entry_as::<Packed, (roles::Compile, roles::Run)>())
        .unwrap();
    let drop = choosing("cpu", "drop", "");
    let compiled = compile("mtcnn-pnet", &drop, &host);
    assert!(compiled.purposes.left_out > 0);
    let fixture = fixture("mtcnn-pnet");
    let mut session = open(&file(&compiled), &drop, &host).unwrap();
    check(&mut session, &fixture);
    let inputs = fixture.cases[0].steps[0].inputs.iter().map(value).collect::<Vec<_>>();
    let error = session.run(&inputs).unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
    assert!(error.to_string().contains("the file was written without"), "{error}");
    // It is asked again.
    check(&mut session, &fixture);
}

#[test]
fn a_self_check_says_that_it_cannot() {
    let host = host("");
    let compiled = compile("mtcnn-pnet", &choosing("cpu", "drop", ""), &host);
    let mut checking = choosing("cpu", "drop", "");
    checking.select.self_check = delegraph_config::SelfCheck::FirstRun;
    let mut session: Session = open(&file(&compiled), &checking, &host).unwrap();
    check(&mut session, &fixture("mtcnn-pnet"));
    let report = session.report();
    let words: Vec<&str> = report
        .regions
        .iter()
        .filter_map(|region| region.self_check.as_deref())
        .collect();
    assert!(
        words.iter().any(|words| words.contains("was written without")),
        "{words:?}"
    );
}

#[test]
fn damage_is_found_by_hash() {
    let host = Arc::new(Host::discover(delegraph_host::HostOptions {
        payloads: delegraph_host::Payloads::Trusted,
        ..Default::default()
    }));
    let cpu = static_entry_as::<Cpu, (roles::Compile, roles::Run, roles::State)>();
    host.register_static("cpu", cpu).unwrap();
    let config = choosing("cpu", "keep", "");
    let whole = compile("mtcnn-pnet", &config, &host).bytes;
    let blob = {
        let start = whole.windows(4).position(|bytes| bytes == b"DGB1").unwrap();
        let size = u64::from_le_bytes(whole[start + 24..][..8].try_into().unwrap()) as usize;
        start..start + size
    };
    let payload = u64::from_le_bytes(whole[blob.start + 96..][..8].try_into().unwrap()) as usize;
    let delegated = |at: usize, host: &Arc<Host>| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        let session = open(&Source::from_bytes(bytes, "model.pte"), &config, host).unwrap();
        session.report().regions[0].backend.is_some()
    };
    // The graph's hash in the header; the last byte of the weights.
    assert!(!delegated(blob.start + 40, &host));
    assert!(!delegated(blob.start + payload - 1, &host));
    assert!(delegated(blob.end - 1, &host), "payloads are not read");
    assert!(!delegated(blob.end - 1, &self::host("")), "payloads are compared");
}
