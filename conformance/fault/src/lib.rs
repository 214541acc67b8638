//! The fault delegate: a conformance double. It does what the reference delegate does, until its options tell it to fail, and then
//! it fails as badly as a library can.
//!
//! Options: `at` (`new`, `devices`, `partition`, `compile`, `check`, `load`, `execute`) and `how`:
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
//! `only`: it fails in runs whose first input begins with this number, and in no others.

use delegraph_reference::Reference;
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, BlobMeta, BlobVerdict, Compile, Compiled, Context, DType, Delegate, Device, Error, Info, OptionValue,
    Options, Partition, Run, Session, TensorOut, TensorView, Weights,
};
use std::time::Duration;

delegraph_sdk::export_delegate!(Fault);

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
            "at": {"type": "string", "enum": ["new", "devices", "partition", "compile", "check", "load", "execute"]},
            "how": {"type": "string", "enum": ["kill", "segfault", "abort", "exit", "loop", "wait", "memory", "panic", "error",
                "wrong", "nothing", "files", "programs", "network", "signals"]},
            "only": {"type": "number"}
        }
    }"#;

    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Fault, Error> {
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
        self.inner.compile(graph, weights, target, context)
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
        Ok(Box::new(FaultSession {
            inner: self.inner.load(blob, weights, context)?,
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
        self.inner.execute(inputs, outputs, context)?;
        if meant && self.plan.at == "execute" && self.plan.how == "wrong" {
            for output in outputs.iter_mut().filter(|output| output.dtype == DType::F32) {
                output.elements::<f32>().into_iter().flatten().for_each(|x| *x += 1.0);
            }
        }
        Ok(())
    }
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
