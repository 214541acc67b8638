//! A delegate that counts what becomes of it. What it counts by does not order threads (`Relaxed`), so that a detector of races
//! sees what the host orders and no more.

use delegraph_abi::{StaticEntry, Status, c};
use delegraph_sdk::image::ImageView;
use delegraph_sdk::roles::{Compile as CompileRole, Import as ImportRole, Submit as SubmitRole};
use delegraph_sdk::{
    Blob, BlobMeta, BlobVerdict, Compile, Compiled, Context, Delegate, Device, DeviceKind, Error, HostMemory, Import,
    Info, KeptWeights, LogLevel, OptionValue, Options, Partition, ProfileEvent, Run, Session, SubmittedRun, TensorOut,
    TensorView, Verdict, Weights, static_entry_as,
};
use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

/// What one test's delegates have counted.
#[derive(Default)]
pub struct Counts {
    pub started: Count,
    pub ended: Count,
    /// Alive now.
    pub sessions: Count,
    pub imports: Count,
    pub ever_imported: Count,
    pub in_place: Count,
    /// Calls that found another one in the same delegate.
    pub overlaps: Count,
    /// `shutdown` came while a session or an import was alive.
    pub ended_early: AtomicBool,
    /// Threads that outlive the runs that they signalled.
    pub threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Counts {
    /// Waits for the threads that outlive their runs.
    pub fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// A number that orders nothing.
#[derive(Default)]
pub struct Count(AtomicUsize);

impl Count {
    pub const fn new() -> Count {
        Count(AtomicUsize::new(0))
    }

    pub fn add(&self, many: usize) {
        self.0.fetch_add(many, Ordering::Relaxed);
    }

    pub fn up(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

static ALL: Mutex<BTreeMap<i64, Arc<Counts>>> = Mutex::new(BTreeMap::new());

/// The counts of the delegates whose option `test` is this number.
pub fn counts(test: i64) -> Arc<Counts> {
    ALL.lock().unwrap().entry(test).or_default().clone()
}

/// How many calls there were, counted as a delegate may that wants one call at a time: with nothing against other threads.
#[derive(Default)]
struct Calls(UnsafeCell<u64>);

// SAFETY: the contract gives a delegate with `DG_FEATURE_SERIALIZED` one call at a time. The test that breaks it on purpose is
// ignored, and run to see that a detector of races notices.
unsafe impl Sync for Calls {}

/// What a delegate, its sessions and its buffers have in common.
struct Shared {
    counts: Arc<Counts>,
    /// Counts calls in `calls` if set.
    one_at_a_time: bool,
    inside: Count,
    calls: Calls,
}

impl Shared {
    /// Does `body` as one call.
    fn call<R>(&self, body: impl FnOnce() -> R) -> R {
        if !self.one_at_a_time {
            return body();
        }
        if self.inside.up() > 0 {
            self.counts.overlaps.up();
        }
        // SAFETY: see `Calls`.
        unsafe { *self.calls.0.get() += 1 };
        let result = body();
        self.inside.down();
        result
    }
}

/// Doubles f32 tensors.
pub struct Meter(Arc<Shared>);

impl Delegate for Meter {
    const INFO: Info = Info {
        name: "meter",
        vendor: "tests",
        version: "1.0.0",
        build: "",
        format: "meter.code",
        format_version: 1,
    };

    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Meter, Error> {
        let number = |key| match options.find(key) {
            Some(OptionValue::Int(number)) => number,
            _ => 0,
        };
        let counts = counts(number("test"));
        counts.started.up();
        context.log(LogLevel::Info, "started");
        Ok(Meter(Arc::new(Shared {
            counts,
            one_at_a_time: number("one_at_a_time") != 0,
            inside: Count::default(),
            calls: Calls::default(),
        })))
    }

    fn devices(&self) -> Vec<Device> {
        let device = || Device {
            kind: DeviceKind::Npu,
            name: "meter".into(),
            vendor: "tests".into(),
            arch: "m1".into(),
            driver: String::new(),
            memory: 0,
        };
        self.0.call(|| vec![device()])
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let counts = &self.0.counts;
        self.0.call(|| {
            if counts.sessions.get() > 0 || counts.imports.get() > 0 {
                counts.ended_early.store(true, Ordering::Relaxed);
            }
            counts.ended.up();
        });
    }
}

impl Compile for Meter {
    fn partition(&self, graph: &ImageView<'_>, _: &Context<'_>) -> Result<Partition, Error> {
        self.0.call(|| Ok(Partition::each(graph, |_| Verdict::Take)))
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        _: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error> {
        self.0.call(|| {
            context.progress(1, 1, "packing");
            let mut code = vec![graph.node_count() as u8];
            code.extend_from_slice(weights.bytes(0)?);
            Ok(code.into())
        })
    }
}

impl Run for Meter {
    fn check_blob(&self, meta: &BlobMeta<'_>) -> BlobVerdict {
        self.0.call(|| BlobVerdict::by_format(&Self::INFO, meta))
    }

    fn load(&self, _: &Blob<'_>, weights: &Weights<'_>, _: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        self.0.call(|| {
            let kept = (0..4).map(|_| weights.keep()).collect::<Result<Vec<_>, _>>()?;
            self.0.counts.sessions.up();
            Ok(Box::new(MeterSession {
                shared: self.0.clone(),
                kept,
            }) as Box<dyn Session>)
        })
    }
}

pub struct Buffer {
    shared: Arc<Shared>,
    base: usize,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.shared.call(|| self.shared.counts.imports.down());
    }
}

impl Import for Meter {
    type Buffer = Buffer;

    fn import(&self, memory: HostMemory, _: &Context<'_>) -> Result<Buffer, Error> {
        self.0.call(|| {
            self.0.counts.imports.up();
            self.0.counts.ever_imported.up();
            Ok(Buffer {
                shared: self.0.clone(),
                base: memory.as_ptr() as usize,
            })
        })
    }
}

struct MeterSession {
    shared: Arc<Shared>,
    /// Given back one by one: here, and on the threads of submitted runs.
    kept: Vec<KeptWeights>,
}

impl Drop for MeterSession {
    fn drop(&mut self) {
        self.shared.call(|| self.shared.counts.sessions.down());
    }
}

/// The largest first number that is no failure; beyond it, the failure names the number.
pub const LARGEST: f32 = 1e6;

fn double(
    shared: &Shared,
    inputs: &[TensorView<'_>],
    outputs: &mut [TensorOut<'_>],
    context: &Context<'_>,
) -> Result<(), Error> {
    let start = context.now_ns();
    let (Some(from), Some(to)) = (inputs[0].elements::<f32>(), outputs[0].elements::<f32>()) else {
        return Err(Error::invalid("f32 only"));
    };
    if from[0] > LARGEST {
        return Err(Error::invalid(format!("{} is too much", from[0])));
    }
    if let Some(imported) = &inputs[0].buffer {
        let buffer = imported.buffer::<Buffer>().expect("the buffer that was made");
        assert_eq!(
            buffer.base + imported.offset() as usize,
            inputs[0].bytes.as_ptr() as usize
        );
        shared.counts.in_place.up();
    }
    context.parallel_for(4, |_| context.log(LogLevel::Debug, "a part"));
    to.iter_mut().zip(from).for_each(|(to, from)| *to = 2.0 * from);
    outputs[0].set_sizes(inputs[0].sizes)?;
    if context.profiling() {
        context.profile(&[ProfileEvent {
            name: "double",
            node: None,
            lane: 0,
            start_ns: start,
            end_ns: context.now_ns(),
            bytes: 0,
            operations: 0,
        }]);
    }
    Ok(())
}

impl Session for MeterSession {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let shared = &self.shared;
        shared.call(|| double(shared, inputs, outputs, context))
    }

    /// The first run of a session takes weights along; they are given back before its end and after it.
    fn submit(&mut self, run: SubmittedRun) {
        let (early, late) = (self.kept.pop(), self.kept.pop());
        let shared = self.shared.clone();
        let begin = || {
            let counts = shared.counts.clone();
            let thread = std::thread::spawn({
                let shared = shared.clone();
                move || {
                    drop(early);
                    run.complete(|inputs, outputs, context| double(&shared, inputs, outputs, context));
                    // The run is over for the caller, who may end the session before this.
                    drop(late);
                }
            });
            counts.threads.lock().unwrap().push(thread);
        };
        shared.call(begin);
    }
}

/// The meter as the SDK exports it.
pub fn plain() -> StaticEntry {
    static_entry_as::<Meter, (CompileRole, SubmitRole, ImportRole)>()
}

/// The meter, which asks for one call at a time.
pub fn serialized() -> StaticEntry {
    // SAFETY: the SDK's table with a feature more, which binds the host only.
    unsafe { StaticEntry::new(serialized_entry) }
}

unsafe extern "C" fn serialized_entry(host: *const c::HostApi, out: *mut *const c::DelegateApi) -> Status {
    static TABLE: OnceLock<c::DelegateApi> = OnceLock::new();
    // SAFETY: the host passes what an entry takes.
    unsafe { changed(&TABLE, host, out, |table| table.features[0] |= c::Feature::SERIALIZED.0) }
}

/// The meter, whose submitted runs are ended by many threads at once, of which the host takes the first.
pub fn ended_by_many() -> StaticEntry {
    // SAFETY: the SDK's table but for `session_submit`, which signals more often than it may: that is what is tested.
    unsafe { StaticEntry::new(many_entry) }
}

static HOST: AtomicPtr<c::HostApi> = AtomicPtr::new(std::ptr::null_mut());
static EXECUTE: OnceLock<c::DelegateApi> = OnceLock::new();
/// What signalling gave, for each fence.
pub static SIGNALS: Mutex<Vec<JoinHandle<Vec<Status>>>> = Mutex::new(Vec::new());
/// Threads that signal each fence.
pub const SIGNALLERS: usize = 4;

unsafe extern "C" fn many_entry(host: *const c::HostApi, out: *mut *const c::DelegateApi) -> Status {
    static TABLE: OnceLock<c::DelegateApi> = OnceLock::new();
    HOST.store(host.cast_mut(), Ordering::Release);
    // SAFETY: the host passes what an entry takes.
    unsafe {
        let mut ignored = std::ptr::null();
        changed(&EXECUTE, host, &mut ignored, |_| {});
        changed(&TABLE, host, out, |table| {
            table.session_submit = Some(submit_and_signal)
        })
    }
}

unsafe extern "C" fn submit_and_signal(
    session: *mut c::Session,
    call: *const c::Call,
    inputs: *const *const c::Tensor,
    input_count: u64,
    outputs: *const *mut c::Tensor,
    output_count: u64,
    fence: *mut c::Fence,
) -> Status {
    let host = HOST.load(Ordering::Acquire) as usize;
    let fence = fence as usize;
    let execute = EXECUTE.get().and_then(|table| table.session_execute);
    // SAFETY: what came is passed on.
    let status = execute.map(|f| unsafe { f(session, call, inputs, input_count, outputs, output_count) });
    if status != Some(Status::OK) {
        return Status::INTERNAL;
    }
    let signal = move || {
        // SAFETY: the host's table is there as long as the process; the fence is a number to the host.
        unsafe {
            let host = &*(host as *const c::HostApi);
            let text = "ended";
            let signal = host.fence_signal.expect("a host of minor 1");
            signal(fence as *mut c::Fence, Status::OK, text.as_ptr(), text.len() as u64)
        }
    };
    let all = std::thread::spawn(move || {
        let threads: Vec<_> = (0..SIGNALLERS).map(|_| std::thread::spawn(signal)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    SIGNALS.lock().unwrap().push(all);
    Status::OK
}

/// The SDK's table with a change.
///
/// # Safety
/// As an entry.
unsafe fn changed(
    place: &'static OnceLock<c::DelegateApi>,
    host: *const c::HostApi,
    out: *mut *const c::DelegateApi,
    change: impl FnOnce(&mut c::DelegateApi),
) -> Status {
    let mut table = std::ptr::null();
    // SAFETY: as the caller says; a table that is given is constant.
    unsafe {
        let status = plain().entry()(host, &mut table);
        if status == Status::OK {
            out.write(place.get_or_init(|| {
                let mut copy = *table;
                change(&mut copy);
                copy
            }));
        }
        status
    }
}
