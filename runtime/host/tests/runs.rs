//! What minor 1 of the contract brought, host and SDK together: submitted runs, imported memory, requirements, deadlines,
//! cancellation, progress, profiles, share keys, option schemas, chosen devices.

use delegraph_abi::envelope;
use delegraph_abi::image::{Arg, ImageBuilder, Type};
use delegraph_abi::{DType as Code, Status};
use delegraph_host::{Arena, CallOptions, Host, HostOptions, Input, Output, ProfileEvent, Progress, Weights, now_ns};
use delegraph_sdk::image::ImageView;
use delegraph_sdk::roles::{Compile as CompileRole, Import as ImportRole, Submit as SubmitRole};
use delegraph_sdk::{
    Blob, BlobMeta, BlobVerdict, Compile, Compiled, Context, Delegate, Device, DeviceKind, Error, HostMemory, Import,
    Info, OptionValue, Options, Partition, Requirement, Run, Session, SubmittedRun, TensorOut, TensorPlace, TensorView,
    Verdict, static_entry_as,
};
use delegraph_types::{DType, Dims};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Doubles f32 tensors on a thread of its own, as a queue of a device would.
struct Queue {
    mode: String,
}

/// Imports that are alive.
static IMPORTS: AtomicUsize = AtomicUsize::new(0);
/// Runs that found their tensors in an imported buffer.
static IN_PLACE: AtomicUsize = AtomicUsize::new(0);

struct Imported {
    base: usize,
}

impl Drop for Imported {
    fn drop(&mut self) {
        IMPORTS.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Delegate for Queue {
    const INFO: Info = Info {
        name: "queue",
        vendor: "tests",
        version: "1.0.0",
        build: "",
        format: "queue.code",
        format_version: 1,
    };

    const OPTIONS_SCHEMA: &'static str =
        r#"{"properties": {"mode": {"type": "string"}, "depth": {"type": "integer", "minimum": 1}}}"#;

    fn new(options: &Options<'_>, _: &Context<'_>) -> Result<Queue, Error> {
        let mode = match options.find("mode") {
            Some(OptionValue::Str(mode)) => mode.to_string(),
            _ => String::new(),
        };
        Ok(Queue { mode })
    }

    fn devices(&self) -> Vec<Device> {
        let device = |name: &str| Device {
            kind: DeviceKind::Npu,
            name: name.into(),
            vendor: "tests".into(),
            arch: "q1".into(),
            driver: "4.2".into(),
            memory: 0,
        };
        vec![device("first"), device("second")]
    }
}

impl Compile for Queue {
    fn partition(&self, graph: &ImageView<'_>, _: &Context<'_>) -> Result<Partition, Error> {
        Ok(Partition::each(graph, |_| Verdict::Take))
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &delegraph_sdk::Weights<'_>,
        _: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error> {
        for step in 0..3 {
            context.progress(step, 3, "packing");
        }
        if self.mode == "endless" {
            while !context.is_cancelled() && context.time_left() != Some(Duration::ZERO) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let code = if context.is_cancelled() {
                Status::CANCELLED
            } else {
                Status::TIMEOUT
            };
            return Err(Error::new(code, "stopped"));
        }
        let mut bytes = vec![graph.node_count() as u8];
        if let Some(key) = weights.share_key(0) {
            bytes.extend(key.iter().flat_map(|word| word.to_le_bytes()));
        }
        Ok(Compiled {
            driver_min: "4.0".into(),
            driver_max: "4.9".into(),
            requirements: vec![
                Requirement {
                    tensor: TensorPlace::Input(0),
                    alignment: 256,
                    size_multiple: 0,
                },
                Requirement {
                    tensor: TensorPlace::Output(0),
                    alignment: 64,
                    size_multiple: 64,
                },
            ],
            ..Compiled::from(bytes)
        })
    }
}

impl Run for Queue {
    fn check_blob(&self, meta: &BlobMeta<'_>) -> BlobVerdict {
        assert_eq!((meta.driver_min, meta.driver_max), ("4.0", "4.9"));
        assert!(meta.options_hash.is_some() && meta.weights_hash.is_some());
        BlobVerdict::by_format(&Self::INFO, meta)
    }

    fn load(
        &self,
        blob: &Blob<'_>,
        _: &delegraph_sdk::Weights<'_>,
        _: &Context<'_>,
    ) -> Result<Box<dyn Session>, Error> {
        if let Some(device) = blob.device.filter(|device| *device > 1) {
            return Err(Error::new(Status::NOT_FOUND, format!("there is no device {device}")));
        }
        Ok(Box::new(QueueSession {
            mode: self.mode.clone(),
        }))
    }
}

impl Import for Queue {
    type Buffer = Imported;

    fn import(&self, memory: HostMemory, _: &Context<'_>) -> Result<Imported, Error> {
        if self.mode == "no-import" {
            return Err(Error::unsupported("not this memory"));
        }
        IMPORTS.fetch_add(1, Ordering::SeqCst);
        Ok(Imported {
            base: memory.as_ptr() as usize,
        })
    }
}

struct QueueSession {
    mode: String,
}

impl QueueSession {
    fn double(
        mode: &str,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let start = context.now_ns();
        assert_eq!(inputs[0].bytes.as_ptr() as usize % 256, 0, "as required");
        assert_eq!(outputs[0].bytes.as_ptr() as usize % 64, 0, "as required");
        assert_eq!(outputs[0].bytes.len() % 64, 0, "as required");
        if let Some(buffer) = &inputs[0].buffer {
            let imported = buffer.buffer::<Imported>().expect("the buffer that was made");
            assert_eq!(
                imported.base + buffer.offset() as usize,
                inputs[0].bytes.as_ptr() as usize
            );
            IN_PLACE.fetch_add(1, Ordering::SeqCst);
        }
        match mode {
            "fails" => return Err(Error::internal("no power").hint("plug it in")),
            "slow" => std::thread::sleep(Duration::from_millis(30)),
            _ => {}
        }
        let count = inputs[0].sizes.iter().product::<i64>() as usize;
        let (from, to) = (
            inputs[0].elements::<f32>().unwrap(),
            outputs[0].elements::<f32>().unwrap(),
        );
        to[..count]
            .iter_mut()
            .zip(&from[..count])
            .for_each(|(to, from)| *to = 2.0 * from);
        outputs[0].set_sizes(inputs[0].sizes)?;
        if context.profiling() {
            let event = delegraph_sdk::ProfileEvent {
                name: "double",
                node: Some(delegraph_abi::image::NodeIndex(0)),
                lane: 3,
                start_ns: start,
                end_ns: context.now_ns(),
                bytes: 4 * count as u64,
                operations: count as u64,
            };
            context.profile(&[event]);
        }
        Ok(())
    }
}

impl Session for QueueSession {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        QueueSession::double(&self.mode, inputs, outputs, context)
    }

    fn submit(&mut self, run: SubmittedRun) {
        let mode = self.mode.clone();
        std::thread::spawn(move || {
            run.complete(|inputs, outputs, context| QueueSession::double(&mode, inputs, outputs, context));
        });
    }
}

struct Keyed;

impl Weights for Keyed {
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        (id == 0).then_some(&[1, 2, 3, 4])
    }

    fn share_key(&self, id: u32) -> Option<[u64; 2]> {
        (id == 0).then_some([7, 9])
    }
}

fn image() -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let n = image.symbol("s0", 1, Some(64));
    let ty = Type::tensor(Code::F32, &[n]);
    let x = image.input("x", &ty);
    let y = image.node("relu", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
    image.output(y);
    image.finish().unwrap()
}

fn queue(options: serde_json::Value) -> Result<Arc<delegraph_host::Delegate>, String> {
    let host = Host::discover(HostOptions {
        options: [("queue".to_string(), options)].into(),
        ..HostOptions::default()
    });
    let entry = static_entry_as::<Queue, (CompileRole, SubmitRole, ImportRole)>();
    host.register_static("queue", entry).unwrap();
    host.delegate("queue").map_err(|error| error.to_string())
}

fn mode(mode: &str) -> Arc<delegraph_host::Delegate> {
    queue(serde_json::json!({ "mode": mode })).unwrap()
}

/// Runs one session over these numbers, which lie at an offset of an arena; gives the doubled ones.
fn run(
    session: &mut delegraph_host::Session,
    arena: &mut Arena,
    at: usize,
    options: &CallOptions<'_>,
    submitted: bool,
) -> Result<Vec<f32>, delegraph_host::DelegateError> {
    let numbers = [1.5f32, -2.0, 8.0];
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_ne_bytes()).collect();
    let words = arena.words_mut();
    let (input, output) = words.split_at_mut(256);
    // SAFETY: words are bytes, all of them set.
    let (input, output) = unsafe { (input.align_to_mut::<u8>().1, output.align_to_mut::<u8>().1) };
    input[at..at + 12].copy_from_slice(&bytes);
    let input = Input {
        dtype: DType::F32,
        sizes: &[3],
        bytes: &input[at..at + 12],
    };
    let mut outputs = [Output {
        dtype: DType::F32,
        sizes: Dims::new(&[16]).unwrap(),
        bytes: &mut output[at..at + 64],
    }];
    if submitted {
        let (waited, outcome) = session.submit(&[input], &mut outputs, options, |pending| {
            pending.wait(Duration::from_secs(20))
        });
        assert!(waited, "the run ended");
        outcome?;
    } else {
        session.execute_with(&[input], &mut outputs, options)?;
    }
    assert_eq!(outputs[0].sizes.as_slice(), [3]);
    let bytes = outputs[0].bytes[..12].chunks(4);
    Ok(bytes.map(|b| f32::from_ne_bytes(b.try_into().unwrap())).collect())
}

#[test]
fn runs_are_in_place_where_tensors_lie_as_required_and_copied_and_counted_where_not() {
    for submitted in [false, true] {
        let delegate = mode("");
        let blob = delegate.compile(&image(), &Keyed, "").unwrap();
        let meta = envelope::parse(&blob).unwrap().meta;
        assert_eq!(
            (
                meta.inputs[0].requirement.alignment,
                meta.outputs[0].requirement.size_multiple
            ),
            (256, 64)
        );
        assert_eq!((meta.driver_min.as_str(), meta.driver_max.as_str()), ("4.0", "4.9"));
        assert_eq!(
            delegate.check_blob(&blob).unwrap(),
            delegraph_host::BlobVerdict::Optimal
        );
        let mut session = delegate.load(&blob, Arc::new(Keyed)).unwrap();
        let mut arena = Arena::new(8192).unwrap();
        assert!(session.share(&arena.memory()));
        let before = IN_PLACE.load(Ordering::SeqCst);
        let options = CallOptions::default();
        assert_eq!(
            run(&mut session, &mut arena, 0, &options, submitted).unwrap(),
            [3.0, -4.0, 16.0]
        );
        assert_eq!(session.copies(), delegraph_host::Copies::default());
        assert!(IN_PLACE.load(Ordering::SeqCst) > before);
        // Sixteen bytes further, both sides are copied: twelve bytes each way.
        assert_eq!(
            run(&mut session, &mut arena, 16, &options, submitted).unwrap(),
            [3.0, -4.0, 16.0]
        );
        assert_eq!((session.copies().tensors, session.copies().bytes), (2, 12 + 12));
        drop(session);
    }
}

#[test]
fn a_failure_travels_through_the_fence_and_a_refused_import_does_no_harm() {
    let delegate = mode("fails");
    let blob = delegate.compile(&image(), &Keyed, "").unwrap();
    let mut session = delegate.load(&blob, Arc::new(Keyed)).unwrap();
    let mut arena = Arena::new(8192).unwrap();
    for submitted in [false, true] {
        let error = run(&mut session, &mut arena, 0, &CallOptions::default(), submitted).unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str(), error.hint.as_str()),
            (Status::INTERNAL, "no power", "plug it in")
        );
    }
    let delegate = mode("no-import");
    let mut session = delegate.load(&blob, Arc::new(Keyed)).unwrap();
    assert!(!session.share(&arena.memory()));
    assert_eq!(
        run(&mut session, &mut arena, 0, &CallOptions::default(), true).unwrap(),
        [3.0, -4.0, 16.0]
    );
}

#[test]
fn the_caller_does_something_else_while_a_submitted_run_goes_on() {
    let delegate = mode("slow");
    let blob = delegate.compile(&image(), &Keyed, "").unwrap();
    let mut session = delegate.load(&blob, Arc::new(Keyed)).unwrap();
    let mut arena = Arena::new(8192).unwrap();
    let words = arena.words_mut();
    // SAFETY: words are bytes, all of them set.
    let bytes = unsafe { words.align_to_mut::<u8>().1 };
    let (input, output) = bytes.split_at_mut(4096);
    let input = Input {
        dtype: DType::F32,
        sizes: &[3],
        bytes: &input[..12],
    };
    let mut outputs = [Output {
        dtype: DType::F32,
        sizes: Dims::new(&[16]).unwrap(),
        bytes: &mut output[..64],
    }];
    let (early, outcome) = session.submit(&[input], &mut outputs, &CallOptions::default(), |pending| {
        pending.wait(Duration::from_millis(1))
    });
    outcome.unwrap();
    assert!(!early, "it went on while the caller looked");
    // What panics meanwhile does not end the loan of the tensors.
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        session.submit(&[input], &mut outputs, &CallOptions::default(), |_| panic!("meanwhile"))
    }));
    assert!(panicked.is_err());
}

#[test]
fn progress_profiles_deadlines_and_cancellation_reach_the_other_side() {
    let delegate = mode("");
    let heard = Mutex::new(Vec::new());
    let hear = |progress: Progress<'_>| {
        heard
            .lock()
            .unwrap()
            .push((progress.done, progress.total, progress.text.to_string()))
    };
    let options = CallOptions {
        progress: Some(&hear),
        ..CallOptions::default()
    };
    let blob = delegate.compile_with(&image(), &Keyed, "", &options).unwrap();
    assert_eq!(heard.lock().unwrap().len(), 3);
    assert_eq!(heard.lock().unwrap()[2], (2, 3, "packing".to_string()));

    let mut session = delegate.load(&blob, Arc::new(Keyed)).unwrap();
    let mut arena = Arena::new(8192).unwrap();
    let events: Mutex<Vec<ProfileEvent>> = Mutex::default();
    let options = CallOptions {
        profile: Some(&events),
        ..CallOptions::default()
    };
    let before = now_ns();
    run(&mut session, &mut arena, 0, &options, true).unwrap();
    let event = events.lock().unwrap().remove(0);
    assert_eq!(
        (
            event.name.as_str(),
            event.node,
            event.lane,
            event.bytes,
            event.operations
        ),
        ("double", Some(0), 3, 12, 3)
    );
    assert!(before <= event.start_ns && event.start_ns <= event.end_ns && event.end_ns <= now_ns());
    run(&mut session, &mut arena, 0, &CallOptions::default(), true).unwrap();
    assert!(events.lock().unwrap().is_empty(), "nobody asked");

    let endless = mode("endless");
    let options = CallOptions {
        deadline: Some(Instant::now() + Duration::from_millis(20)),
        ..CallOptions::default()
    };
    let error = endless.compile_with(&image(), &Keyed, "", &options).unwrap_err();
    assert_eq!(error.code, Status::TIMEOUT);
    let stop = AtomicBool::new(false);
    let cancelled = || stop.load(Ordering::Relaxed);
    let options = CallOptions {
        cancel: Some(&cancelled),
        ..CallOptions::default()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            stop.store(true, Ordering::Relaxed);
        });
        let error = endless.compile_with(&image(), &Keyed, "", &options).unwrap_err();
        assert_eq!(error.code, Status::CANCELLED);
    });
}

#[test]
fn options_are_checked_before_a_delegate_starts_and_a_device_can_be_chosen() {
    let error = queue(serde_json::json!({ "mod": "x" })).err().unwrap();
    assert!(error.contains("unknown option `mod`; did you mean `mode`?"), "{error}");
    let error = queue(serde_json::json!({ "depth": 0 })).err().unwrap();
    assert!(
        error.contains("option `depth` is 0; it has to be at least 1"),
        "{error}"
    );
    let delegate = mode("");
    let blob = delegate.compile(&image(), &Keyed, "").unwrap();
    let load = |device| delegate.load_with(&blob, Arc::new(Keyed), device, &CallOptions::default());
    assert!(load(Some(1)).is_ok());
    assert_eq!(load(Some(7)).err().unwrap().code, Status::NOT_FOUND);
}

#[test]
fn an_import_ends_with_the_last_session_that_uses_it() {
    let delegate = mode("");
    let blob = delegate.compile(&image(), &Keyed, "").unwrap();
    let arena = Arena::new(4096).unwrap();
    let mut sessions: Vec<_> = (0..3).map(|_| delegate.load(&blob, Arc::new(Keyed)).unwrap()).collect();
    for session in &mut sessions {
        assert!(session.share(&arena.memory()));
    }
    // Weak: other tests import meanwhile; what counts is that the memory is freed with the sessions.
    let memory = Arc::downgrade(&arena.memory());
    drop(arena);
    assert!(memory.upgrade().is_some());
    sessions.clear();
    assert!(memory.upgrade().is_none());
}
