//! Sessions: what goes wrong from run to run, between sessions, and with states.

use crate::evaluate::Evaluator;
use crate::sys::memory::{self, Remembered};
use crate::{CHECK, IMAGE, Mutant, active, checksum, count, external, is, keep};
use delegraph_sdk::image::{ImageView, verify};
use delegraph_sdk::{
    Blob, Context, DType, Error, KeptBlob, Session, Status, SubmittedRun, TensorOut, TensorView, Weights,
};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longer than any test lets a case run.
const FOR_EVER: Duration = Duration::from_secs(3600);
/// Longer than any test waits for a run to end.
const TOO_LONG: Duration = Duration::from_secs(15);

/// Makes a session of a blob.
///
/// # Errors
/// The blob is damaged, or the weights are not there.
pub fn load(
    _: &Mutant,
    blob: &Blob<'_>,
    weights: &Weights<'_>,
    context: &Context<'_>,
) -> Result<Box<dyn Session>, Error> {
    static LOADED: AtomicU64 = AtomicU64::new(0);
    // A device that there is not.
    if let Some(device) = blob.device.filter(|device| *device > 1) {
        return Err(Error::new(Status::NOT_FOUND, format!("there is no device {device}")));
    }
    let image = blob.section(IMAGE)?;
    if blob.section(CHECK)? != checksum(image).to_le_bytes() {
        return Err(Error::corrupt(
            "the section `image` is damaged: its checksum is another",
        ));
    }
    let view = verify(image).map_err(|e| Error::corrupt(format!("the graph image is damaged: {e}")))?;
    let mut inner: Box<dyn Session> = Box::new(Evaluator::new(image, weights)?);
    let states = states(&view);
    if let Ok(section) = blob.section(keep::SECTION) {
        inner = Box::new(keep::Keeping::new(inner, section)?);
        for (state, size) in states.iter().filter(|_| is("state-not-zero")) {
            inner.state_restore(*state, &vec![0x3f; *size], context)?;
        }
    }
    let core = Core {
        inner,
        number: count(&LOADED),
        nodes: view.node_count(),
        reuses: reuses(&view),
        states,
        first: Vec::new(),
        previous: None,
        previous_input: None,
        remembered: None,
        section: is("keeps-section").then(|| Remembered::new(image)),
        kept: match is("keeps-section") {
            true => None,
            false if is("needs-kept-blob") => Some(blob.keep()?),
            // A host that cannot keep it gives none.
            false => blob.keep().ok(),
        },
        released: None,
        last: Vec::new(),
    };
    Ok(Box::new(MutantSession {
        core: Arc::new(Mutex::new(core)),
        pending: Vec::new(),
    }))
}

/// A session that does nothing at all.
///
/// # Errors
/// None.
pub fn nothing() -> Result<Box<dyn Session>, Error> {
    struct Nothing;
    impl Session for Nothing {
        fn execute(&mut self, _: &[TensorView<'_>], _: &mut [TensorOut<'_>], _: &Context<'_>) -> Result<(), Error> {
            Ok(())
        }
    }
    Ok(Box::new(Nothing))
}

/// Number and bytes of each state of fixed size.
fn states(view: &ImageView<'_>) -> Vec<(u32, usize)> {
    let size = |(number, state): (usize, delegraph_sdk::image::State<'_>)| {
        let value = view.value(view.inputs().get(state.input as usize)?);
        let elements: i64 = value.const_dims()?.iter().product();
        Some((number as u32, elements as usize * value.dtype()?.size()?))
    };
    view.states().enumerate().filter_map(size).collect()
}

/// Whether a value is read by two nodes, so that a plan of memory has to keep it.
fn reuses(view: &ImageView<'_>) -> bool {
    let mut readers = BTreeMap::new();
    for node in view.nodes() {
        for output in node.outputs().iter() {
            readers.insert(output.0, 0);
        }
        for input in node.inputs() {
            readers.entry(input.0).and_modify(|count| *count += 1);
        }
    }
    readers.values().any(|count| *count > 1)
}

/// What a session is, wherever its runs are done.
struct Core {
    inner: Box<dyn Session>,
    /// Sessions that were loaded before.
    number: u64,
    nodes: u32,
    reuses: bool,
    states: Vec<(u32, usize)>,
    /// Sizes of each output in the first run.
    first: Vec<Vec<i64>>,
    previous: Option<Vec<Vec<u8>>>,
    previous_input: Option<f32>,
    remembered: Option<Remembered>,
    /// Where the image of the blob lay when it was loaded.
    section: Option<Remembered>,
    /// The blob, whose image each run reads where it lies.
    kept: Option<KeptBlob>,
    /// Where the image of a blob lay that was given back.
    released: Option<Remembered>,
    /// The last element of each output before the run.
    last: Vec<Vec<u8>>,
}

/// The session: runs that are submitted are done by a thread each, and are waited for when it goes.
struct MutantSession {
    core: Arc<Mutex<Core>>,
    pending: Vec<JoinHandle<()>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for MutantSession {
    fn drop(&mut self) {
        for run in self.pending.drain(..) {
            let _ = run.join();
        }
        if is("never-releases-blob") {
            std::mem::forget(locked(&self.core).kept.take());
        }
    }
}

impl Session for MutantSession {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        external::run(inputs, outputs, |inputs, outputs| {
            locked(&self.core).execute(inputs, outputs, context)
        })
    }

    fn submit(&mut self, run: SubmittedRun) {
        let core = self.core.clone();
        let work = move |run: SubmittedRun| {
            run.complete(|inputs, outputs, context| {
                external::run(inputs, outputs, |inputs, outputs| {
                    locked(&core).execute(inputs, outputs, context)
                })
            });
        };
        match active() {
            "fence-never" => std::mem::forget(run),
            // The table's function in front signals once more.
            "fence-twice" | "fence-and-error" => work(run),
            "writes-after-fence" => {
                self.pending
                    .push(std::thread::spawn(move || memory::write_after_end(run, work)));
            }
            _ => {
                self.pending.retain(|run| !run.is_finished());
                self.pending.push(std::thread::spawn(move || work(run)));
            }
        }
    }

    fn state_commit(&mut self, accept: bool, context: &Context<'_>) -> Result<(), Error> {
        let mut core = locked(&self.core);
        core.inner.state_commit(accept || is("keeps-refused-state"), context)?;
        if is("shares-state") && accept {
            core.share(context)?;
        }
        Ok(())
    }

    fn state_reset(&mut self, state: u32, context: &Context<'_>) -> Result<(), Error> {
        match is("reset-does-nothing") {
            true => Ok(()),
            false => locked(&self.core).inner.state_reset(state, context),
        }
    }

    fn state_truncate(&mut self, state: u32, length: u64, context: &Context<'_>) -> Result<(), Error> {
        let length = length.saturating_add(u64::from(is("truncates-one-too-few")));
        locked(&self.core).inner.state_truncate(state, length, context)
    }

    fn state_snapshot(&mut self, state: u32, out: &mut [u8], context: &Context<'_>) -> Result<(), Error> {
        locked(&self.core).inner.state_snapshot(state, out, context)
    }

    fn state_restore(&mut self, state: u32, bytes: &[u8], context: &Context<'_>) -> Result<(), Error> {
        let mut bytes = bytes.to_vec();
        if is("restores-inexactly") {
            bytes.chunks_mut(4).for_each(|element| element[0] ^= 1);
        }
        locked(&self.core).inner.state_restore(state, &bytes, context)
    }
}

/// States that all sessions of a mutant share.
static SHARED: Mutex<BTreeMap<(u32, usize), Vec<u8>>> = Mutex::new(BTreeMap::new());

impl Core {
    fn share(&mut self, context: &Context<'_>) -> Result<(), Error> {
        for (state, size) in &self.states {
            let mut bytes = vec![0; *size];
            self.inner.state_snapshot(*state, &mut bytes, context)?;
            locked(&SHARED).insert((*state, *size), bytes);
        }
        Ok(())
    }

    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        // One lock for all sessions, also while the host is called.
        static DRIVER: Mutex<()> = Mutex::new(());
        let _held = is("holds-lock").then(|| locked(&DRIVER));
        self.end_early(context)?;
        if let Some(kept) = &self.kept
            && kept.section(CHECK)? != checksum(kept.section(IMAGE)?).to_le_bytes()
        {
            return Err(Error::corrupt("the blob that it kept has changed"));
        }
        let bounds: Vec<Vec<i64>> = outputs.iter().map(|out| out.sizes.to_vec()).collect();
        self.before(inputs, outputs, context)?;
        match self.inner.execute(inputs, outputs, context) {
            Err(_) if is("answers-beyond-bounds") => return Ok(()),
            other => other?,
        }
        self.after(inputs, outputs, &bounds);
        if context.time_left() == Some(Duration::ZERO) && !is("ignores-deadline") {
            return Err(Error::new(Status::TIMEOUT, "the deadline has passed"));
        }
        Ok(())
    }

    /// Nobody waits for the run any more.
    fn end_early(&self, context: &Context<'_>) -> Result<(), Error> {
        if context.is_cancelled() {
            if is("cancel-hangs") {
                std::thread::sleep(TOO_LONG);
            }
            return Err(Error::new(Status::CANCELLED, "the run was cancelled"));
        }
        match context.time_left() {
            Some(left) if is("ignores-deadline") => std::thread::sleep(left + Duration::from_millis(200)),
            Some(Duration::ZERO) => return Err(Error::new(Status::TIMEOUT, "the deadline has passed")),
            _ => {}
        }
        Ok(())
    }

    fn before(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let runs = count(&RUNS);
        let given = inputs.iter().map(|input| input.bytes).find(|bytes| !bytes.is_empty());
        match active() {
            "crashes-at-100th-run" if runs == 99 => memory::fault(),
            "hangs" => std::thread::sleep(FOR_EVER),
            "gives-up-at-run-time" if self.nodes > 1 => return Err(Error::unsupported("the graph is too large")),
            // A device that nobody asks to stop.
            "ignores-cancel" => std::thread::sleep(Duration::from_millis(600)),
            "leaks-run" => std::mem::forget(std::hint::black_box(vec![1u8; 16 << 10])),
            "needs-alignment" => {
                let mut places = inputs.iter().map(|input| input.bytes.as_ptr().addr());
                let outs = outputs.iter().map(|out| out.bytes.as_ptr().addr());
                if !places.by_ref().chain(outs).all(|address| address.is_multiple_of(64)) {
                    return Err(Error::internal("a tensor does not lie at a multiple of 64"));
                }
            }
            "reads-behind-input" => inputs.iter().for_each(|input| memory::read_behind(input.bytes)),
            "writes-input" => inputs.iter().for_each(|input| memory::write_lent(input.bytes)),
            "shares-state" => {
                for (state, size) in &self.states {
                    if let Some(bytes) = locked(&SHARED).get(&(*state, *size)) {
                        self.inner.state_restore(*state, bytes, context)?;
                    }
                }
            }
            "keeps-pointer" => {
                if let Some(remembered) = &self.remembered {
                    std::hint::black_box(remembered.read());
                }
                self.remembered = given.map(Remembered::new);
            }
            "reads-released-blob" => {
                if let Some(released) = &self.released {
                    std::hint::black_box(released.read());
                }
                if let Some(kept) = self.kept.take() {
                    self.released = Some(Remembered::new(kept.section(IMAGE)?));
                }
            }
            "keeps-section" => {
                if let Some(section) = &self.section {
                    std::hint::black_box(section.read());
                }
            }
            "skips-last-element" => self.last = outputs.iter().map(|out| last_element(out).to_vec()).collect(),
            "deadlocks" => deadlock(self.number),
            _ => {}
        }
        Ok(())
    }

    fn after(&mut self, inputs: &[TensorView<'_>], outputs: &mut [TensorOut<'_>], bounds: &[Vec<i64>]) {
        match active() {
            "writes-behind-output" => outputs.iter_mut().for_each(|out| memory::write_behind(out.bytes)),
            "sizes-not-written" => {
                for (out, bounds) in outputs.iter_mut().zip(bounds) {
                    out.sizes.copy_from_slice(bounds);
                }
            }
            "keeps-first-sizes" => {
                if self.first.is_empty() {
                    self.first = outputs.iter().map(|out| out.sizes.to_vec()).collect();
                }
                for ((out, first), bounds) in outputs.iter_mut().zip(&self.first).zip(bounds) {
                    let fits = first.iter().zip(bounds).all(|(size, bound)| size <= bound);
                    if fits && first.len() == out.sizes.len() {
                        out.sizes.copy_from_slice(first);
                    }
                }
            }
            "stale-output" => {
                let now: Vec<Vec<u8>> = outputs.iter().map(|out| out.bytes.to_vec()).collect();
                if let Some(previous) = self.previous.replace(now) {
                    for (out, bytes) in outputs.iter_mut().zip(previous) {
                        let size = bytes.len().min(out.bytes.len());
                        out.bytes[..size].copy_from_slice(&bytes[..size]);
                    }
                }
            }
            "remembers-input" => {
                let first = inputs
                    .iter()
                    .find_map(|input| input.elements::<f32>()?.first().copied());
                if let (Some(previous), Some(out)) = (self.previous_input, float_output(outputs)) {
                    out[0] += previous;
                }
                self.previous_input = first;
            }
            "last-bit-varies" => {
                static RUNS: AtomicU64 = AtomicU64::new(0);
                if count(&RUNS) % 2 == 1 {
                    outputs
                        .iter_mut()
                        .filter(|out| out.dtype == DType::F32)
                        .for_each(|out| {
                            out.bytes.iter_mut().step_by(4).for_each(|byte| *byte ^= 1);
                        });
                }
            }
            "loses-reused-value" if self.reuses => {
                if let Some(out) = float_output(outputs) {
                    out.iter_mut().for_each(|value| *value += 1.0);
                }
            }
            "skips-last-element" => {
                for (out, last) in outputs.iter_mut().zip(&self.last) {
                    let start = out.bytes.len() - last.len();
                    out.bytes[start..].copy_from_slice(last);
                }
            }
            "races-on-buffer" => race(outputs),
            _ => {}
        }
    }
}

/// The last element that there is room for.
fn last_element<'o>(out: &'o TensorOut<'_>) -> &'o [u8] {
    let width = out.dtype.size().unwrap_or(1);
    &out.bytes[out.bytes.len().saturating_sub(width)..]
}

/// The first output in f32 that has elements.
fn float_output<'o>(outputs: &'o mut [TensorOut<'_>]) -> Option<&'o mut [f32]> {
    let out = outputs
        .iter_mut()
        .find(|out| out.dtype == DType::F32 && !out.bytes.is_empty())?;
    out.elements::<f32>()
}

/// Puts outputs into one buffer of all sessions, and takes them from there: whatever lies there by then.
fn race(outputs: &mut [TensorOut<'_>]) {
    static BUFFER: Mutex<Vec<u8>> = Mutex::new(Vec::new());
    for out in outputs.iter_mut() {
        *locked(&BUFFER) = out.bytes.to_vec();
        std::thread::sleep(Duration::from_millis(1));
        let buffer = locked(&BUFFER);
        let size = buffer.len().min(out.bytes.len());
        out.bytes[..size].copy_from_slice(&buffer[..size]);
    }
}

/// Takes two locks, every other session the other way round.
fn deadlock(number: u64) {
    static LOCKS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
    let first = (number % 2) as usize;
    let _first = locked(&LOCKS[first]);
    std::thread::sleep(Duration::from_millis(20));
    let _second = locked(&LOCKS[1 - first]);
}
