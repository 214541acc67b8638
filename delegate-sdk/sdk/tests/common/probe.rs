//! A delegate that tells what it hears from the host, through the log.

use delegraph_sdk::image::{ImageView, NodeIndex};
use delegraph_sdk::{
    Blob, BlobMeta, BlobVerdict, Compile, Compiled, Context, Delegate, Device, Error, Extension, HostMemory, Import,
    Info, KeptWeights, LogLevel, OptionValue, Options, Partition, ProfileEvent, Requirement, Run, Session, Status,
    SubmittedRun, TensorOut, TensorPlace, TensorView, Verdict, Weights,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// The option `mode` says what it does.
pub struct Probe {
    mode: String,
}

/// What it has beside the contract.
#[repr(C)]
pub struct Answer {
    pub answer: extern "C" fn() -> u32,
}

extern "C" fn forty_two() -> u32 {
    42
}

static ANSWER: Answer = Answer { answer: forty_two };

pub const SCHEMA: &str = r#"{ "properties": { "mode": { "type": "string" } } }"#;

impl Delegate for Probe {
    const INFO: Info = Info {
        name: "probe",
        vendor: "tests",
        version: "0.0.1",
        build: "",
        format: "probe",
        format_version: 1,
    };
    const OPTIONS_SCHEMA: &'static str = SCHEMA;

    fn new(options: &Options<'_>, _: &Context<'_>) -> Result<Probe, Error> {
        options.check(&["mode"])?;
        match options.find("mode") {
            Some(OptionValue::Str("new-panics")) => panic!("a mistake at the start"),
            Some(OptionValue::Str(mode)) => Ok(Probe { mode: mode.to_string() }),
            _ => Err(Error::invalid("`mode` is missing")),
        }
    }

    fn devices(&self) -> Vec<Device> {
        Vec::new()
    }

    fn extension(name: &str, min_revision: u32) -> Option<Extension> {
        match name {
            "x.tests.panics" => panic!("a mistake in an extension"),
            // SAFETY: the tests cast it to `Answer`.
            "x.tests.answer" if min_revision <= 1 => Some(unsafe { Extension::new(&ANSWER) }),
            _ => None,
        }
    }
}

impl Compile for Probe {
    fn partition(&self, graph: &ImageView<'_>, _: &Context<'_>) -> Result<Partition, Error> {
        assert_ne!(self.mode, "partition-panics", "a mistake in partition");
        Ok(Partition::each(graph, |_| Verdict::Take))
    }

    fn compile(
        &self,
        _: &ImageView<'_>,
        weights: &Weights<'_>,
        target: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error> {
        context.progress(1, 2, "halfway");
        let keys: Vec<_> = (0..3).map(|id| weights.share_key(id)).collect();
        weights.unmap(1);
        context.log(LogLevel::Info, &format!("{keys:?} {:?}", weights.bytes(1)?));
        let mut compiled = Compiled::from(target.as_bytes().to_vec());
        if self.mode == "drivers" {
            (compiled.driver_min, compiled.driver_max) = ("1.2".to_string(), String::new());
        }
        if self.mode.starts_with("needs") {
            let requirement = |tensor, alignment, size_multiple| Requirement {
                tensor,
                alignment,
                size_multiple,
            };
            let alignment = if self.mode == "needs-much" { 1 << 20 } else { 64 };
            compiled.requirements = vec![
                requirement(TensorPlace::Input(0), alignment, 0),
                requirement(TensorPlace::Output(1), 0, 128),
            ];
        }
        Ok(compiled)
    }
}

impl Run for Probe {
    fn check_blob(&self, meta: &BlobMeta<'_>) -> BlobVerdict {
        BlobVerdict::RecompileBetter(format!(
            "{} .. {}, options {:?}, weights {:?}",
            meta.driver_min,
            meta.driver_max,
            meta.options_hash.map(|h| h[0]),
            meta.weights_hash.map(|h| h[0])
        ))
    }

    fn load(&self, blob: &Blob<'_>, weights: &Weights<'_>, context: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        context.log(LogLevel::Info, &format!("device {:?}", blob.device));
        let kept = weights.keep()?;
        kept.unmap(0);
        let queue = match self.mode.as_str() {
            "waits" | "late-drop" | "late-panic" => Some(device(&self.mode)),
            _ => None,
        };
        Ok(Box::new(ProbeSession {
            mode: self.mode.clone(),
            kept,
            queue,
        }))
    }
}

/// A device: a thread that ends each run once the call is cancelled.
fn device(mode: &str) -> Sender<SubmittedRun> {
    let (queue, runs) = channel::<SubmittedRun>();
    let mode = mode.to_string();
    std::thread::spawn(move || {
        for mut run in runs {
            while !run.context().is_cancelled() {
                std::thread::sleep(Duration::from_millis(1));
            }
            match mode.as_str() {
                "late-drop" => drop(run),
                "late-panic" => panic!("the device's thread fails, and has {} inputs", run.inputs().len()),
                _ => {
                    let outcome = {
                        let (inputs, mut outputs) = run.parts();
                        double(&inputs, &mut outputs)
                    };
                    run.context().progress(1, 1, "from the device's thread");
                    run.finish(outcome);
                }
            }
        }
    });
    queue
}

fn double(inputs: &[TensorView<'_>], outputs: &mut [TensorOut<'_>]) -> Result<(), Error> {
    let ([x], [y]) = (inputs, outputs) else {
        return Err(Error::invalid("one input and one output"));
    };
    y.set_sizes(x.sizes)?;
    let (Some(x), Some(y)) = (x.elements::<f32>(), y.elements::<f32>()) else {
        return Err(Error::invalid("f32 only"));
    };
    y.iter_mut().zip(x).for_each(|(y, x)| *y = 2.0 * x);
    Ok(())
}

struct ProbeSession {
    mode: String,
    kept: KeptWeights,
    queue: Option<Sender<SubmittedRun>>,
}

impl Session for ProbeSession {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        match self.mode.as_str() {
            "panics" => panic!("a mistake in a run"),
            "refuses" => return Err(Error::new(Status::DEVICE_BUSY, "busy").at(NodeIndex(3)).hint("wait")),
            _ => {}
        }
        context.progress(3, 4, "nearly");
        context.profile(&[
            ProfileEvent {
                name: "copy",
                node: None,
                lane: 1,
                start_ns: 5,
                end_ns: 6,
                bytes: 8,
                operations: 9,
            },
            ProfileEvent {
                name: "double",
                node: Some(NodeIndex(0)),
                ..ProfileEvent::default()
            },
        ]);
        let extension = |revision| context.extension("x.tests.host", revision).is_some();
        context.log(
            LogLevel::Info,
            &format!(
                "left {:?}, run {}, now {}, profiling {}, info {}, debug {}, extension {} {}, key {:?}",
                context.time_left(),
                context.correlation_id(),
                context.now_ns(),
                context.profiling(),
                context.log_enabled(LogLevel::Info),
                context.log_enabled(LogLevel::Debug),
                extension(2),
                extension(3),
                self.kept.share_key(0)
            ),
        );
        let place = |buffer: Option<delegraph_sdk::Imported<'_>>| {
            buffer.map(|b| {
                (
                    b.buffer::<Registered>().map(|r| r.size),
                    b.buffer::<u8>().is_some(),
                    b.offset(),
                )
            })
        };
        let places = (place(inputs[0].buffer), place(outputs[0].buffer));
        context.log(LogLevel::Info, &format!("buffers {places:?}"));
        double(inputs, outputs)
    }

    fn submit(&mut self, run: SubmittedRun) {
        match (self.mode.as_str(), &self.queue) {
            ("submit-panics", _) => panic!("a mistake before the run was handed on"),
            ("submit-drops", _) => drop(run),
            ("body-panics", _) => run.complete(|_, _, _| panic!("a mistake in the body")),
            // A receiver that is gone drops the run.
            (_, Some(queue)) => {
                let _ = queue.send(run);
                assert_ne!(self.mode, "late-panic", "a mistake after the run was handed on");
            }
            _ => run.complete(|inputs, outputs, context| self.execute(inputs, outputs, context)),
        }
    }
}

/// Buffers that were released.
pub static RELEASED: AtomicUsize = AtomicUsize::new(0);

pub struct Registered {
    pub size: usize,
}

impl Drop for Registered {
    fn drop(&mut self) {
        RELEASED.fetch_add(1, Ordering::SeqCst);
    }
}

impl Import for Probe {
    type Buffer = Registered;

    fn import(&self, memory: HostMemory, _: &Context<'_>) -> Result<Registered, Error> {
        match self.mode.as_str() {
            "import-panics" => panic!("a mistake in import"),
            _ => Ok(Registered { size: memory.size() }),
        }
    }
}
