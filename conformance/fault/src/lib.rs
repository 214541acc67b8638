//! The fault delegate: a conformance double. It does what the reference delegate does, until its options tell it to fail, and then
//! it fails as badly as a library can.
//!
//! Options: `at` (`new`, `devices`, `partition`, `compile`, `check`, `load`, `execute`, `commit`, `snapshot`) and `how`:
//!
//! - `kill`, `segfault`, `abort`, `exit`: the process ends, each in its way
//! - `loop`: it never returns, whatever it is told
//! - `wait`: it returns when it is cancelled or late, as the contract asks
//! - `memory`: it takes 2 GiB and uses them, then goes on as if nothing was
//! - `panic`, `error`: as a delegate in order may
//! - `wrong`: the outputs of a run are off by one
//! - `nothing`: a run does nothing at all, and says that it did
//! - `files`, `programs`, `network`, `signals`: it does what its sandbox forbids, and kills itself should it succeed
//!
//! `alignment`: its blobs require that tensors lie at such a multiple, with room for a multiple of so many bytes, and a run whose tensors
//! do not fails.
//!
//! States of a graph it keeps on its side, in front of the reference delegate, which knows none.
//!
//! `only`: it fails in runs whose first input begins with this number, and in no others.

use delegraph_reference::Reference;
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, BlobMeta, BlobVerdict, Compile, Compiled, Context, DType, Delegate, Device, Error, Info, OptionValue,
    Options, Partition, Requirement, Run, Session, TensorOut, TensorPlace, TensorView, Weights,
};
use std::time::Duration;

mod keep;

delegraph_sdk::export_delegate!(Fault: compile, run, state);

/// The fault delegate.
pub struct Fault {
    inner: Reference,
    plan: Plan,
}

/// Where and how it fails.
#[derive(Clone, Default)]
struct Plan {
    at: String,
    how: String,
    only: Option<f32>,
    /// 0: it requires nothing.
    alignment: u32,
}

impl Delegate for Fault {
    const INFO: Info = Info {
        name: "fault",
        vendor: "Delegraph",
        version: env!("CARGO_PKG_VERSION"),
        build: "conformance double",
        format: "delegraph.fault",
        format_version: 1,
    };

    const OPTIONS_SCHEMA: &'static str = r#"{
        "type": "object",
        "properties": {
            "at": {"type": "string", "enum": ["new", "devices", "partition", "compile", "check", "load", "execute", "commit",
                "snapshot"]},
            "how": {"type": "string", "enum": ["kill", "segfault", "abort", "exit", "loop", "wait", "memory", "panic", "error",
                "wrong", "nothing", "files", "programs", "network", "signals"]},
            "only": {"type": "number"},
            "alignment": {"type": "integer", "minimum": 0, "maximum": 4096}
        }
    }"#;

    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Fault, Error> {
        options.check(&["at", "how", "only", "alignment"])?;
        let text = |key: &str| match options.find(key) {
            Some(OptionValue::Str(text)) => text.to_string(),
            _ => String::new(),
        };
        let plan = Plan {
            at: text("at"),
            how: text("how"),
            only: match options.find("only") {
                Some(OptionValue::Float(number)) => Some(number as f32),
                Some(OptionValue::Int(number)) => Some(number as f32),
                _ => None,
            },
            alignment: match options.find("alignment") {
                Some(OptionValue::Int(alignment)) => alignment as u32,
                _ => 0,
            },
        };
        plan.reached("new", context)?;
        Ok(Fault {
            inner: Reference::new(&Options::default(), context)?,
            plan,
        })
    }

    fn devices(&self) -> Vec<Device> {
        self.inner.devices()
    }
}

impl Compile for Fault {
    fn partition(&self, graph: &ImageView<'_>, context: &Context<'_>) -> Result<Partition, Error> {
        self.plan.reached("partition", context)?;
        self.inner.partition(graph, context)
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        target: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error> {
        self.plan.reached("compile", context)?;
        let mut compiled = self.inner.compile(graph, weights, target, context)?;
        if let Some((kept, section)) = keep::section(graph) {
            compiled.kept_states = kept;
            compiled.sections.push(section);
        }
        let inputs = (0..graph.inputs().len() as u32).map(TensorPlace::Input);
        let outputs = (0..graph.outputs().len() as u32).map(TensorPlace::Output);
        let requirement = |tensor| Requirement {
            tensor,
            alignment: self.plan.alignment,
            size_multiple: self.plan.alignment,
        };
        let all = inputs.chain(outputs).map(requirement);
        Ok(Compiled {
            requirements: all.filter(|requirement| requirement.alignment > 0).collect(),
            ..compiled
        })
    }
}

impl Run for Fault {
    fn check_blob(&self, meta: &BlobMeta<'_>) -> BlobVerdict {
        if self.plan.at == "check" {
            self.plan.fall();
        }
        BlobVerdict::by_format(&Self::INFO, meta)
    }

    fn load(&self, blob: &Blob<'_>, weights: &Weights<'_>, context: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        self.plan.reached("load", context)?;
        let inner = self.inner.load(blob, weights, context)?;
        Ok(Box::new(FaultSession {
            inner: match blob.section(keep::SECTION) {
                Ok(section) => Box::new(keep::Keeping::new(inner, section)?),
                Err(_) => inner,
            },
            plan: self.plan.clone(),
        }))
    }
}

struct FaultSession {
    inner: Box<dyn Session>,
    plan: Plan,
}

impl Session for FaultSession {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        // Tensors of states that are kept have no bytes.
        let mut lies = inputs
            .iter()
            .map(|input| input.bytes)
            .chain(outputs.iter().map(|output| &*output.bytes))
            .filter(|bytes| !bytes.is_empty());
        let multiple = self.plan.alignment.max(1) as usize;
        if !lies.all(|bytes| bytes.as_ptr().addr().is_multiple_of(multiple) && bytes.len().is_multiple_of(multiple)) {
            return Err(Error::internal("a tensor does not lie as it requires"));
        }
        let first = inputs
            .first()
            .and_then(|input| input.elements::<f32>()?.first().copied());
        let meant = self.plan.only.is_none_or(|only| first == Some(only));
        if meant && self.plan.at == "execute" && self.plan.how == "nothing" {
            return Ok(());
        }
        if meant {
            self.plan.reached("execute", context)?;
        }
        let (inputs, mut outputs) = elements_of(inputs, outputs);
        self.inner.execute(&inputs, &mut outputs, context)?;
        if meant && self.plan.at == "execute" && self.plan.how == "wrong" {
            for output in outputs.iter_mut().filter(|output| output.dtype == DType::F32) {
                output.elements::<f32>().into_iter().flatten().for_each(|x| *x += 1.0);
            }
        }
        Ok(())
    }

    fn state_commit(&mut self, accept: bool, context: &Context<'_>) -> Result<(), Error> {
        self.plan.reached("commit", context)?;
        self.inner.state_commit(accept, context)
    }

    fn state_reset(&mut self, state: u32, context: &Context<'_>) -> Result<(), Error> {
        self.inner.state_reset(state, context)
    }

    fn state_truncate(&mut self, state: u32, length: u64, context: &Context<'_>) -> Result<(), Error> {
        self.inner.state_truncate(state, length, context)
    }

    fn state_snapshot(&mut self, state: u32, out: &mut [u8], context: &Context<'_>) -> Result<(), Error> {
        self.plan.reached("snapshot", context)?;
        self.inner.state_snapshot(state, out, context)
    }

    fn state_restore(&mut self, state: u32, bytes: &[u8], context: &Context<'_>) -> Result<(), Error> {
        self.inner.state_restore(state, bytes, context)
    }
}

/// The elements alone, for a delegate that asked for no room behind them.
fn elements_of<'a>(
    inputs: &'a [TensorView<'_>],
    outputs: &'a mut [TensorOut<'_>],
) -> (Vec<TensorView<'a>>, Vec<TensorOut<'a>>) {
    let size = |dtype: DType, sizes: &[i64]| {
        let elements: i64 = sizes.iter().product();
        elements as usize * dtype.size().unwrap_or(0)
    };
    let inputs = inputs
        .iter()
        .map(|t| TensorView::new(t.dtype, t.sizes, &t.bytes[..size(t.dtype, t.sizes).min(t.bytes.len())]));
    let outputs = outputs.iter_mut().map(|t| {
        let bytes = size(t.dtype, t.sizes).min(t.bytes.len());
        TensorOut::new(t.dtype, &mut *t.sizes, &mut t.bytes[..bytes])
    });
    (inputs.collect(), outputs.collect())
}

unsafe extern "C" {
    /// Sends a signal to the calling thread.
    safe fn raise(signal: i32) -> i32;
    /// Sends a signal to a process.
    safe fn kill(process: i32, signal: i32) -> i32;
}

const SIGKILL: i32 = 9;

impl Plan {
    /// Fails, if this is the place.
    fn reached(&self, place: &str, context: &Context<'_>) -> Result<(), Error> {
        if self.at != place {
            return Ok(());
        }
        match self.how.as_str() {
            "error" => return Err(Error::internal("it was told to fail").hint("tell it otherwise")),
            "wait" => {
                while !context.is_cancelled() && context.time_left() != Some(Duration::ZERO) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                return Err(Error::new(delegraph_sdk::Status::TIMEOUT, "it waited for its end"));
            }
            _ => self.fall(),
        }
        Ok(())
    }

    /// Fails in a way that leaves nobody to say so.
    fn fall(&self) {
        match self.how.as_str() {
            "kill" => {
                raise(SIGKILL);
            }
            // SAFETY: there is none. The write faults, which is what this delegate is for.
            "segfault" => unsafe { std::ptr::without_provenance_mut::<u8>(8).write_volatile(1) },
            "abort" => std::process::abort(),
            "exit" => std::process::exit(0),
            "loop" => loop {
                std::hint::spin_loop();
            },
            "memory" => {
                let mut room = vec![0u8; 2 << 30];
                room.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
                std::hint::black_box(&room);
            }
            "panic" => panic!("it was told to panic"),
            "files" => {
                self.escaped(std::fs::write("/tmp/delegraph-fault", "x").is_ok() || std::fs::read_dir("/root").is_ok())
            }
            "programs" => self.escaped(std::process::Command::new("/bin/true").status().is_ok()),
            "network" => self.escaped(std::net::UdpSocket::bind("127.0.0.1:0").is_ok()),
            // The parent is the app. Signal 0 only asks whether a signal could be sent.
            "signals" => self.escaped(kill(std::os::unix::process::parent_id() as i32, 0) == 0),
            _ => {}
        }
    }

    /// Dies if something succeeded that its sandbox forbids.
    fn escaped(&self, succeeded: bool) {
        if succeeded {
            std::process::abort();
        }
    }
}
