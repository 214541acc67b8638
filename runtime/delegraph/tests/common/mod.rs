//! A delegate that fails on demand, around the reference delegate, and short cuts to fixtures.
#![allow(dead_code)]

pub mod keeper;
pub mod worker;

use delegraph::{LoadOptions, Session, Source, Value};
use delegraph_config::{Config, Layers, Origin};
use delegraph_host::{Host, HostOptions};
use delegraph_reference::Reference;
use delegraph_runner::Leaf;
use delegraph_runner::fixture::Fixture;
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, BlobMeta, BlobVerdict, Compile, Compiled, Context, Delegate, Device, Error, Info, OptionValue, Options,
    Partition, Run, Status, TensorOut, TensorView, Weights, static_entry,
};
use delegraph_types::Dims;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Does what the reference delegate does, unless its option `fault` says otherwise.
pub struct Faulty {
    inner: Reference,
    fault: String,
}

impl Delegate for Faulty {
    const INFO: Info = Info {
        name: "faulty",
        vendor: "tests",
        version: "0.0.1",
        build: "",
        format: "faulty.reference",
        format_version: 1,
    };

    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Faulty, Error> {
        options.check(&["fault"])?;
        let fault = match options.find("fault") {
            Some(OptionValue::Str(fault)) => fault.to_string(),
            _ => String::new(),
        };
        if fault == "start" {
            return Err(Error::new(Status::DEPENDENCY_MISSING, "the driver is not there"));
        }
        Ok(Faulty {
            inner: Reference::new(&Options::default(), context)?,
            fault,
        })
    }

    fn devices(&self) -> Vec<Device> {
        self.inner.devices()
    }
}

impl Compile for Faulty {
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
        // Refuses nodes one at a time, as a vendor's compiler does that sees its limits late.
        if self.fault == "compile"
            && let Some(node) = graph.nodes().find(|node| node.op() == "aten::linear")
        {
            return Err(Error::unsupported("no room for a linear layer").at(node.index()));
        }
        if self.fault == "broken" {
            return Err(Error::internal("the compiler broke"));
        }
        self.inner.compile(graph, weights, target, context)
    }
}

impl Run for Faulty {
    fn check_blob(&self, meta: &BlobMeta<'_>) -> BlobVerdict {
        match self.fault.as_str() {
            "check" => BlobVerdict::UnsupportedHere("another chip".to_string()),
            _ => BlobVerdict::by_format(&Self::INFO, meta),
        }
    }

    fn load(
        &self,
        blob: &Blob<'_>,
        weights: &Weights<'_>,
        context: &Context<'_>,
    ) -> Result<Box<dyn delegraph_sdk::Session>, Error> {
        if self.fault == "load" {
            return Err(Error::new(Status::DEVICE_MEMORY_EXHAUSTED, "the device is full"));
        }
        Ok(Box::new(FaultySession {
            inner: self.inner.load(blob, weights, context)?,
            fault: self.fault.clone(),
            runs: 0,
        }))
    }
}

struct FaultySession {
    inner: Box<dyn delegraph_sdk::Session>,
    fault: String,
    runs: u32,
}

impl delegraph_sdk::Session for FaultySession {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        self.runs += 1;
        let fails = match self.fault.as_str() {
            "always" | "panic" | "lost" => true,
            "second" => self.runs == 2,
            _ => false,
        };
        if !fails {
            self.inner.execute(inputs, outputs, context)?;
            let changed: fn(f32) -> f32 = match self.fault.as_str() {
                "wrong" => |x| x + 1.0,
                "nan" => |_| f32::NAN,
                "tiny" => |x| x * (1.0 + 1e-5),
                _ => return Ok(()),
            };
            // One element of each output, as something that is off at an edge would do.
            for bytes in outputs
                .iter_mut()
                .filter_map(|output| output.bytes.first_chunk_mut::<4>())
            {
                *bytes = changed(f32::from_le_bytes(*bytes)).to_le_bytes();
            }
            return Ok(());
        }
        // A device that fails leaves rubbish behind.
        outputs.iter_mut().for_each(|output| output.bytes.fill(0x5a));
        match self.fault.as_str() {
            "panic" => panic!("a mistake in the delegate"),
            "lost" => Err(Error::new(Status::DEVICE_LOST, "the device does not answer")),
            _ => Err(Error::new(Status::DEVICE_BUSY, "somebody else has the device").vendor_code(-7)),
        }
    }
}

/// A host with both delegates linked in; the faulty one with this fault.
pub fn host(fault: &str) -> Arc<Host> {
    let options = serde_json::json!({ "fault": fault });
    let host = Host::discover(HostOptions {
        options: [("faulty".to_string(), options)].into(),
        ..HostOptions::default()
    });
    host.register_static("faulty", static_entry::<Faulty>()).unwrap();
    host.register_static("reference", static_entry::<Reference>()).unwrap();
    Arc::new(host)
}

/// A host with nothing.
pub fn nobody() -> Arc<Host> {
    Arc::new(Host::discover(HostOptions::default()))
}

pub fn config(text: &str) -> Config {
    let mut layers = Layers::default();
    layers.add_text(Origin::Flag, text, None).unwrap();
    layers.resolve(None).unwrap()
}

/// `[select]` with this order.
pub fn order(names: &[&str]) -> Config {
    config(&format!("[select]\norder = {names:?}\n"))
}

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../conformance/fixtures")
        .join(name)
}

pub fn fixture(name: &str) -> Fixture {
    Fixture::read(&folder(name)).unwrap()
}

pub fn source(name: &str) -> Source {
    Source::open(folder(name).join("model.pt2")).unwrap()
}

/// The fixture compiled for these backends, as a source.
pub fn compiled(name: &str, config: &Config, host: &Host) -> Source {
    let module = delegraph::import(&source(name)).unwrap();
    let compiled = delegraph::compile(module, config, host, &mut |_| {}).unwrap();
    Source::from_bytes(compiled.bytes, format!("{name}.pte"))
}

pub fn open(source: &Source, config: &Config, host: &Arc<Host>) -> Result<Session, delegraph::Error> {
    Session::open(source, config, host, LoadOptions::default())
}

pub fn value(leaf: &Leaf) -> Value<'_> {
    match leaf {
        Leaf::None => Value::None,
        Leaf::Bool(b) => Value::Bool(*b),
        Leaf::Int(i) => Value::Int(*i),
        Leaf::Float(f) => Value::Float(*f),
        Leaf::Str(s) => Value::Str(s),
        Leaf::Tensor { dtype, shape, bytes } => Value::tensor(*dtype, Dims::new(shape).unwrap(), bytes),
    }
}

/// A tensor of a session as a leaf.
pub fn leaf(value: Value<'_>) -> Leaf {
    match value {
        Value::Tensor(tensor) => Leaf::Tensor {
            dtype: tensor.dtype,
            shape: tensor.shape.to_vec(),
            bytes: tensor.to_contiguous().into_owned(),
        },
        Value::Int(i) => Leaf::Int(i),
        Value::Float(f) => Leaf::Float(f),
        Value::Bool(b) => Leaf::Bool(b),
        _ => Leaf::None,
    }
}

/// Runs every step of the first case that has most steps, comparing outputs and, at the end, buffers with PyTorch's.
pub fn check(session: &mut Session, fixture: &Fixture) {
    let case = fixture.cases.iter().max_by_key(|case| case.steps.len()).unwrap();
    for (i, step) in case.steps.iter().enumerate() {
        let values: Vec<Value<'_>> = step.inputs.iter().map(value).collect();
        session.run(&values).unwrap();
        for (k, want) in step.outputs.iter().enumerate() {
            let got = leaf(session.output(k).unwrap());
            if let Err(reason) = delegraph_runner::compare::compare(&got, want, fixture.tolerance) {
                panic!("{}, step {i}, output {k}: {reason}", fixture.folder.display());
            }
        }
    }
    for (name, want) in &case.buffers_after {
        let got = leaf(
            session
                .state(name)
                .unwrap()
                .unwrap_or_else(|| panic!("no buffer `{name}`")),
        );
        if let Err(reason) = delegraph_runner::compare::compare(&got, want, fixture.tolerance) {
            panic!("{}, buffer `{name}`: {reason}", fixture.folder.display());
        }
    }
}
