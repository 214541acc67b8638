//! Inputs and outputs in memory of the app's: right wherever they lie and whoever computes, and in place where it can be.
//!
//! Memory files stand for all handles here: this machine's kernel need not make dma-bufs. The delegate looks at them in a map of its own, as a
//! device would, so that what it reads and writes is what the handle is of.
#![cfg(target_os = "linux")]

mod common;

#[path = "../../../conformance/double/src/external.rs"]
mod in_place;
#[path = "../../../conformance/double/src/sys.rs"]
mod mapping;

use common::{config, fixture, open, order, source, value};
use delegraph::{Dims, Handle, HandleType, InputKind, Memory, MemoryView, Origin, Session, Value};
use delegraph_host::{Host, HostOptions};
use delegraph_reference::Reference;
use delegraph_runner::Leaf;
use delegraph_sdk::image::ImageView;
use delegraph_sdk::roles;
use delegraph_sdk::{
    Blob, BlobMeta, BlobVerdict, Compile, Compiled, Context, Delegate, Device, Error, Exported, External,
    ExternalMemory, Handles, HostMemory, Import, Imported, Info, Mapped, OptionValue, Options, Partition, Run, Status,
    TensorOut, TensorView, Weights, static_entry_as,
};
use mapping::Mapping;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tensors that runs of `Sharing` found in a map of its own.
static MAPPED: AtomicU64 = AtomicU64::new(0);

/// The reference delegate over memory by handle; option `fails`: every run fails, and has spoilt the outputs.
struct Sharing {
    inner: Reference,
    fails: bool,
}

impl Delegate for Sharing {
    const INFO: Info = Info {
        name: "sharing",
        vendor: "tests",
        version: "0.0.1",
        build: "",
        format: "sharing.reference",
        format_version: 1,
    };

    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Sharing, Error> {
        options.check(&["fails"])?;
        Ok(Sharing {
            inner: Reference::new(&Options::default(), context)?,
            fails: options.find("fails") == Some(OptionValue::Bool(true)),
        })
    }

    fn devices(&self) -> Vec<Device> {
        self.inner.devices()
    }
}

impl Compile for Sharing {
    fn partition(&self, graph: &ImageView<'_>, context: &Context<'_>) -> Result<Partition, Error> {
        self.inner.partition(graph, context)
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        target: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error> {
        self.inner.compile(graph, weights, target, context)
    }
}

impl Run for Sharing {
    fn check_blob(&self, meta: &BlobMeta<'_>) -> BlobVerdict {
        BlobVerdict::by_format(&Self::INFO, meta)
    }

    fn load(
        &self,
        blob: &Blob<'_>,
        weights: &Weights<'_>,
        context: &Context<'_>,
    ) -> Result<Box<dyn delegraph_sdk::Session>, Error> {
        let inner = self.inner.load(blob, weights, context)?;
        Ok(Box::new(SharingSession(inner, self.fails)))
    }
}

/// `None`: memory where the host sees it.
type Buffer = Option<Mapping>;

impl Import for Sharing {
    type Buffer = Buffer;

    fn import(&self, _: HostMemory, _: &Context<'_>) -> Result<Buffer, Error> {
        Ok(None)
    }
}

impl External for Sharing {
    fn handles(&self, _: Option<u32>) -> Handles {
        let memfd = [delegraph_sdk::HandleType::Memfd].into_iter().collect();
        Handles {
            import: memfd,
            export: memfd,
        }
    }

    fn import_external(&self, memory: ExternalMemory<'_>, _: &Context<'_>) -> Result<Buffer, Error> {
        let mapping = Mapping::new(memory.fd, memory.size);
        mapping.map(Some).map_err(|error| Error::internal(error.to_string()))
    }

    fn export(
        &self,
        _: Option<u32>,
        _: delegraph_sdk::HandleType,
        size: u64,
        _: &Context<'_>,
    ) -> Result<Exported<Buffer>, Error> {
        let (mapping, fd, size) = Mapping::create(size).map_err(|error| Error::internal(error.to_string()))?;
        Ok(Exported {
            buffer: Some(mapping),
            fd,
            size,
            origin: delegraph_sdk::Origin::default(),
        })
    }

    fn mapped(&self, buffer: &Buffer) -> Option<Mapped> {
        buffer.as_ref().map(Mapping::mapped)
    }
}

struct SharingSession(Box<dyn delegraph_sdk::Session>, bool);

fn place<'m>(buffer: &Imported<'m>) -> Result<Option<(&'m Mapping, u64)>, Error> {
    let known = buffer
        .buffer::<Buffer>()
        .ok_or_else(|| Error::internal("another's buffer"))?;
    Ok(known.as_ref().map(|mapping| {
        MAPPED.fetch_add(1, Ordering::Relaxed);
        (mapping, buffer.offset())
    }))
}

impl delegraph_sdk::Session for SharingSession {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        in_place::in_place(inputs, outputs, place, |inputs, outputs| {
            if self.1 {
                outputs.iter_mut().for_each(|output| output.bytes.fill(0x5a));
                return Err(Error::new(Status::DEVICE_BUSY, "somebody else has the device"));
            }
            self.0.execute(inputs, outputs, context)
        })
    }
}

fn host(fails: bool) -> Arc<Host> {
    let host = Host::discover(HostOptions {
        options: [("sharing".to_string(), serde_json::json!({ "fails": fails }))].into(),
        ..HostOptions::default()
    });
    let entry = static_entry_as::<Sharing, (roles::Compile, roles::External)>();
    host.register_static("sharing", entry).unwrap();
    Arc::new(host)
}

const MODEL: &str = "arch-mlp-dynamic-batch";

/// A sealed memory file.
fn memfd(size: u64) -> OwnedFd {
    let (_, fd, _) = Mapping::create(size).unwrap();
    fd
}

fn memory(size: u64) -> Arc<Memory> {
    Arc::new(Memory::of_handle(Handle::memfd(memfd(size)).unwrap()).unwrap())
}

/// Runs every step of the longest case with tensors in the memory, the output from `SIZE / 2` on; what is there is what PyTorch says, and what the
/// session shows.
fn runs_in(session: &mut Session, memory: &Arc<Memory>) -> u64 {
    let fixture = fixture(MODEL);
    let case = fixture.cases.iter().max_by_key(|case| case.steps.len()).unwrap();
    for (i, step) in case.steps.iter().enumerate() {
        let values: Vec<Value<'_>> = step.inputs.iter().map(|leaf| within(leaf, memory, 4096)).collect();
        session.run(&values).unwrap();
        let shown = common::leaf(session.output(0).unwrap());
        let Leaf::Tensor { dtype, shape, bytes } = &shown else {
            panic!("the output is a tensor")
        };
        let mut there = vec![0; bytes.len()];
        memory.read_at(SIZE / 2, &mut there).unwrap();
        assert!(
            there == *bytes,
            "step {i}: the memory has other bytes than the session shows"
        );
        let there = Leaf::Tensor {
            dtype: *dtype,
            shape: shape.clone(),
            bytes: there,
        };
        let compared = delegraph_runner::compare::compare(&there, &step.outputs[0], fixture.tolerance);
        compared.unwrap_or_else(|reason| panic!("step {i}: {reason}"));
    }
    case.steps.len() as u64
}

/// Bytes of the memory.
const SIZE: usize = 1 << 18;

/// A tensor, put into the memory.
fn within<'v>(leaf: &'v Leaf, memory: &'v Arc<Memory>, offset: usize) -> Value<'v> {
    let Leaf::Tensor { dtype, shape, bytes } = leaf else {
        return value(leaf);
    };
    memory.write_at(offset, bytes).unwrap();
    Value::Memory(MemoryView {
        dtype: *dtype,
        shape: Dims::new(shape).unwrap(),
        memory,
        offset,
    })
}

#[test]
fn a_delegate_uses_a_handle_in_place() {
    let mut session = open(&source(MODEL), &order(&["sharing"]), &host(false)).unwrap();
    let memory = memory(SIZE as u64);
    assert_eq!(session.bind_output(0, &memory, SIZE / 2, 0).unwrap(), None);
    let before = MAPPED.load(Ordering::Relaxed);
    let steps = runs_in(&mut session, &memory);
    assert!(
        MAPPED.load(Ordering::Relaxed) >= before + 2 * steps,
        "tensors came without the buffer"
    );
    let report = session.report();
    assert_eq!(report.fallbacks(), 0, "{}", report.why_portable());
    let used = report.memory.unwrap();
    assert_eq!(
        (used.inputs_in_place, used.outputs_in_place),
        (steps, steps),
        "{used:?}"
    );
    assert_eq!((used.inputs_copied, used.outputs_copied, used.copied_bytes), (0, 0, 0));
    let region = &report.regions[0];
    assert_eq!((region.copied_tensors, region.shared_memories), (0, 1));
    // Back to the session's own.
    session.forget_memory(&memory).unwrap();
    common::check(&mut session, &fixture(MODEL));
    assert_eq!(session.report().regions[0].shared_memories, 0);
    // And there again, in memory that the delegate has allocated.
    let exported = session.export_memory(HandleType::Memfd, SIZE as u64).unwrap();
    assert_eq!(session.bind_output(0, &exported, SIZE / 2, 0).unwrap(), None);
    runs_in(&mut session, &exported);
    assert_eq!(session.report().memory.unwrap().copied_bytes, 0);
}

#[test]
fn the_portable_kernels_and_delegates_without_handles_compute_the_same_there() {
    // A device that fails, one that knows no handles, and none.
    for (names, host) in [
        (&["sharing"][..], host(true)),
        (&["faulty"], common::host("")),
        (&["faulty"], common::host("always")),
        (&[], common::nobody()),
    ] {
        let settings = if names.is_empty() { config("") } else { order(names) };
        let mut session = open(&source(MODEL), &settings, &host).unwrap();
        let memory = memory(SIZE as u64);
        assert_eq!(session.bind_output(0, &memory, SIZE / 2, 0).unwrap(), None, "{names:?}");
        runs_in(&mut session, &memory);
        let used = session.report().memory.unwrap();
        assert_eq!((used.inputs_copied, used.outputs_copied), (0, 0), "{names:?}: {used:?}");
    }
}

#[test]
fn a_worker_is_given_the_descriptor() {
    if common::worker::skipped() {
        return;
    }
    let config = common::worker::config("", "");
    let mut session = open(&source(MODEL), &config, &common::worker::host(&config)).unwrap();
    let memory = memory(SIZE as u64);
    session.bind_output(0, &memory, SIZE / 2, 0).unwrap();
    runs_in(&mut session, &memory);
    let report = session.report();
    assert_eq!(report.fallbacks(), 0, "{}", report.why_portable());
    assert_eq!(report.regions[0].isolation.as_deref(), Some("worker"));
    assert_eq!(
        (report.regions[0].copied_tensors, report.regions[0].shared_memories),
        (0, 1)
    );
    // What a worker cannot map is copied, and right.
    session.forget_memory(&memory).unwrap();
    let host = host(false);
    let exporter = host.delegate("sharing").unwrap();
    let opaque = Handle::opaque(memfd(SIZE as u64), SIZE as u64, Origin::default()).unwrap();
    let refused = session.import_memory(opaque).err().unwrap().to_string();
    assert!(refused.contains("worker"), "{refused}");
    drop(exporter);
    common::check(&mut session, &fixture(MODEL));
}

#[test]
fn wrong_places_are_named() {
    let mut session = open(&source(MODEL), &order(&["sharing"]), &host(false)).unwrap();
    let memory = memory(SIZE as u64);
    let mut refused = |index: usize, offset: usize, size: usize| {
        let outcome = session.bind_output(index, &memory, offset, size).map(drop);
        outcome.expect_err("it was bound").to_string()
    };
    assert!(refused(7, 0, 0).contains("output 7: the method has 1 outputs"));
    assert!(refused(0, SIZE - 16, 0).contains("do not fit in a memory of"));
    assert!(refused(0, usize::MAX - 3, 0).contains("do not fit in a memory of"));
    assert!(refused(0, 0, 4).contains("bytes, 4 are given"));
    // Not aligned: it is copied there, and counted.
    let reason = session.bind_output(0, &memory, SIZE / 2 + 4, 0).unwrap();
    assert!(
        reason.is_some_and(|reason| reason.contains("multiple of 16")),
        "{reason:?}"
    );
    let fixture = fixture(MODEL);
    common::check(&mut session, &fixture);
    assert!(session.report().memory.unwrap().outputs_copied > 0);
    // An input beyond the end.
    let InputKind::Tensor { dtype, sizes, .. } = session.inputs()[0].kind else {
        panic!("the input is a tensor")
    };
    let beyond = Value::Memory(MemoryView {
        dtype,
        shape: sizes,
        memory: &memory,
        offset: SIZE - 4,
    });
    let problem = session.run(&[beyond]).unwrap_err().to_string();
    assert!(
        problem.contains("input 0") && problem.contains("is not within it"),
        "{problem}"
    );
}

#[test]
fn handles_are_looked_at_before_they_are_mapped() {
    let file: OwnedFd = tempfile::tempfile().unwrap().into();
    let problem = |outcome: std::io::Result<Handle>| outcome.expect_err("it was taken").to_string();
    assert!(problem(Handle::memfd(file.try_clone().unwrap())).contains("no memory file"));
    assert!(problem(Handle::dma_buf(file)).contains("no dma-buf"));
    assert!(problem(Handle::dma_buf(memfd(4096))).contains("no dma-buf"));
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    let unsealed = rustix::fs::memfd_create("unsealed", flags).unwrap();
    rustix::fs::ftruncate(&unsealed, 4096).unwrap();
    assert!(problem(Handle::memfd(unsealed)).contains("F_SEAL_SHRINK"));
    assert!(problem(Handle::opaque(memfd(4096), 0, Origin::default())).contains("0 bytes"));
    // What can only be read takes no output.
    let (_, fd, _) = Mapping::create(SIZE as u64).unwrap();
    rustix::fs::fcntl_add_seals(&fd, rustix::fs::SealFlags::FUTURE_WRITE).unwrap();
    let readable = Arc::new(Memory::of_handle(Handle::memfd(fd).unwrap()).unwrap());
    assert!(!readable.is_writable());
    let mut session = open(&source(MODEL), &order(&["sharing"]), &host(false)).unwrap();
    let problem = session.bind_output(0, &readable, 0, 0).unwrap_err().to_string();
    assert!(problem.contains("only be read"), "{problem}");
    assert!(readable.write_at(0, &[1]).is_err());
}

/// With the executor's rules on which outputs may move, whatever the program is.
#[test]
fn outputs_of_every_fixture_are_right_in_memory() {
    let (mut in_place, mut copied) = (Vec::new(), Vec::new());
    let folders = std::fs::read_dir(common::folder("")).unwrap();
    let mut names: Vec<String> = folders
        .map(|entry| entry.unwrap())
        .filter(|entry| {
            entry.path().join("model.pt2").is_file() && !entry.file_name().to_string_lossy().contains("minilm")
        })
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in &names {
        for (host, settings) in [(common::nobody(), config("")), (host(false), order(&["sharing"]))] {
            let mut session = open(&source(name), &settings, &host).unwrap();
            let memory = memory(1 << 22);
            let mut offset = 0;
            for index in 0..session.output_count() {
                let InputKind::Tensor { dtype, sizes, .. } = session.outputs()[index].kind else {
                    continue;
                };
                let size = sizes.numel().unwrap_or(usize::MAX).saturating_mul(dtype.size());
                if offset + size > 1 << 22 {
                    continue;
                }
                match session.bind_output(index, &memory, offset, 0) {
                    Ok(None) => in_place.push(format!("{name} {index}")),
                    Ok(Some(reason)) => copied.push(format!("{name} {index}: {reason}")),
                    Err(error) => copied.push(format!("{name} {index}: {error}")),
                }
                offset += size.next_multiple_of(64);
            }
            common::check(&mut session, &fixture(name));
        }
    }
    println!("in place: {}\nnot: {copied:#?}", in_place.len());
    assert!(in_place.len() > copied.len(), "{copied:#?}");
}

#[test]
fn a_thousand_rounds_leave_no_descriptor() {
    let mut session = open(&source(MODEL), &order(&["sharing"]), &host(false)).unwrap();
    let fixture = fixture(MODEL);
    let step = &fixture.cases[0].steps[0];
    let fd = memfd(SIZE as u64);
    let mut round = || {
        let handle = Handle::memfd(fd.try_clone().unwrap()).unwrap();
        let memory = session.import_memory(handle).unwrap();
        session.bind_output(0, &memory, SIZE / 2, 0).unwrap();
        let values: Vec<Value<'_>> = step.inputs.iter().map(|leaf| within(leaf, &memory, 0)).collect();
        session.run(&values).unwrap();
        session.forget_memory(&memory).unwrap();
    };
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    round();
    let before = descriptors();
    (0..1000).for_each(|_| round());
    // Other tests of this program open and close theirs meanwhile.
    assert!(descriptors() < before + 200, "{before} became {}", descriptors());
}
