//! Delegates that were built when earlier versions of the ABI were the newest: each works with the host of today, unchanged, beside those of
//! other versions and majors, in this process and in a worker (`conformance/frozen`).
#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]

use delegraph_abi::envelope;
use delegraph_abi::image::{Arg, ImageBuilder, Type};
use delegraph_host::{BlobVerdict, Host, HostOptions, Input, Isolation, Output, Session, Weights};
use delegraph_types::{DType, Dims};
use std::path::{Path, PathBuf};
use std::sync::Arc;

struct NoWeights;

impl Weights for NoWeights {
    fn bytes(&self, _: u32) -> Option<&[u8]> {
        None
    }
}

/// An addition, and a subtraction that the delegate does not have.
fn image(op: &str) -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let four = image.int(4);
    let ty = Type::tensor(delegraph_abi::DType::F32, &[four]);
    let (a, b) = (image.input("a", &ty), image.input("b", &ty));
    let arguments = [Arg::Value(a), Arg::Value(b), Arg::Int(1)];
    let sum = image.node("sum", op, &arguments, &[("sum", &ty)], "")[0];
    image.output(sum);
    image.finish().unwrap()
}

fn bytes(numbers: &[f32; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (slot, number) in bytes.chunks_mut(4).zip(numbers) {
        slot.copy_from_slice(&number.to_ne_bytes());
    }
    bytes
}

#[repr(align(16))]
struct Aligned([u8; 16]);

/// A delegate of `conformance/frozen`, ready to run.
struct Opened {
    /// Its folder: `v0.1`.
    version: String,
    session: Session,
}

fn open(folder: &Path, isolation: Isolation, worker: Option<PathBuf>) -> Opened {
    let version = folder.file_name().unwrap().to_str().unwrap().to_string();
    let host = Host::discover(HostOptions {
        pinned: vec![("frozen-add".to_string(), folder.join("frozen-add.delegate.toml"))],
        isolation: [("frozen-add".to_string(), isolation)].into(),
        worker_binary: worker,
        ..HostOptions::default()
    });
    let delegate = host
        .delegate("frozen-add")
        .unwrap_or_else(|error| panic!("{version}: {error}"));
    let info = delegate.info();
    assert_eq!(format!("v{}.{}", info.abi_major, info.abi_minor), version);
    let answer = delegate.partition(&image("aten::add.Tensor"), "").unwrap();
    assert!(answer.verdicts[0].supported, "{answer:?}");
    let answer = delegate.partition(&image("aten::sub.Tensor"), "").unwrap();
    assert!(
        !answer.verdicts[0].supported && !answer.verdicts[0].reason.is_empty(),
        "{answer:?}"
    );
    let blob = delegate.compile(&image("aten::add.Tensor"), &NoWeights, "").unwrap();
    let meta = envelope::parse(&blob).unwrap().meta;
    assert_eq!(format!("v{}.{}", meta.abi_major, meta.abi_minor), version);
    assert_eq!(delegate.check_blob(&blob).unwrap(), BlobVerdict::Optimal);
    let session = delegate.load(&blob, Arc::new(NoWeights)).unwrap();
    Opened { version, session }
}

impl Opened {
    fn run(&mut self) {
        let (a, b) = (
            Aligned(bytes(&[1.0, -2.0, 0.5, 1e6])),
            Aligned(bytes(&[2.0, 2.0, 0.25, 1.0])),
        );
        let input = |bytes| Input {
            dtype: DType::F32,
            sizes: &[4],
            bytes,
        };
        let mut out = Aligned([0; 16]);
        let mut outputs = [Output {
            dtype: DType::F32,
            sizes: Dims::new(&[4]).unwrap(),
            bytes: &mut out.0,
        }];
        let outcome = self.session.execute(&[input(&a.0), input(&b.0)], &mut outputs);
        outcome.unwrap_or_else(|error| panic!("{}: {error}", self.version));
        assert_eq!(outputs[0].sizes.as_slice(), [4]);
        assert_eq!(out.0, bytes(&[3.0, 0.0, 0.75, 1_000_001.0]), "{}", self.version);
    }
}

/// Opens all, so that each lives beside the others, of its own major and of another, and runs them in turn.
fn run_together(folders: &[PathBuf], isolation: Isolation, worker: Option<&PathBuf>) {
    let open = |folder: &PathBuf| open(folder, isolation, worker.cloned());
    let mut all: Vec<Opened> = folders.iter().map(open).collect();
    for _ in 0..3 {
        all.iter_mut().for_each(Opened::run);
    }
    // One after another ends, and the others go on.
    while !all.is_empty() {
        all.remove(0);
        all.iter_mut().for_each(Opened::run);
    }
}

#[test]
fn every_delegate_that_worked_once_works() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/frozen");
    let mut versions: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    versions.retain(|path| path.is_dir());
    versions.sort();
    // One a version, the open one too.
    assert_eq!(versions.len(), delegraph_abi::c::LAYOUT_HASHES.len(), "{versions:?}");
    let worker = std::env::current_exe()
        .unwrap()
        .ancestors()
        .nth(2)
        .unwrap()
        .join("delegraph-worker");
    run_together(&versions, Isolation::InProcess, None);
    if worker.is_file() {
        run_together(&versions, Isolation::Worker, Some(&worker));
    } else {
        println!("skipped: delegates of earlier days in a worker, which is not built");
    }
}
