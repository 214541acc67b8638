//! Sessions: a blob on a device.
//!
//! ```text
//! load       constants.rs   weights and packed constants go to the device, once for all sessions
//!            states.rs      states that stay there between runs
//!            lowered.rs     one set of input sizes: the schedule, its parameters, its commands where tensors lie so
//! run        run.rs         inputs in, submit, wait, outputs out
//!            waiter.rs      the same for runs that end later
//!            profile.rs     what took the time
//! ```

mod constants;
mod import;
mod lowered;
mod profile;
mod run;
mod states;
mod upload;
mod waiter;

pub use constants::Shared;
pub use import::HostBuffer;
pub use waiter::Waiter;

use crate::compile::{IMAGE, PACKED, PLAN};
use crate::encoder::Encoder;
use crate::fuse;
use crate::program::Plan;
use crate::schedule::Schedule;
use crate::sys::{Buffer, Gpu, Timeline, lock};
use constants::{Constants, Host, Packed};
use delegraph_sdk::image::{ImageView, Sizes, SymbolIndex, verify};
use delegraph_sdk::{Blob, Context, Error, LogLevel, Session, Status, SubmittedRun, TensorOut, TensorView, Weights};
use import::Landing;
use lowered::Lowered;
use run::{Started, wait};
use states::States;
use std::sync::{Arc, Mutex, MutexGuard};
use waiter::Job;

/// How many sets of sizes stay lowered.
const MOST_LOWERED: usize = 4;

/// An opened device, and what its sessions share.
pub struct Opened {
    /// The device.
    pub gpu: Arc<Gpu>,
    /// Constants of all sessions.
    pub shared: Shared,
    /// Waits for submitted runs.
    pub waiter: Waiter,
}

/// Options of sessions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    /// How often the first run is repeated and compared.
    pub replay: u32,
    /// The largest states that are mirrored.
    pub mirrored: usize,
}

/// Makes a session of a blob.
///
/// # Errors
/// The blob is damaged, or the device cannot run it.
pub fn load(
    blob: &Blob<'_>,
    weights: &Weights<'_>,
    device: Arc<Opened>,
    settings: Settings,
    context: &Context<'_>,
) -> Result<Box<dyn Session>, Error> {
    let image = blob.section(IMAGE)?.to_vec();
    let view = verified(&image)?;
    let section = blob.section(PACKED).unwrap_or_default();
    let plan = Plan::read(blob.section(PLAN)?, view.node_count(), section.len() as u64)?;
    fuse::verify(&view, &plan.groups)?;
    plan.check_states(&view)?;
    let mut core = Core {
        timeline: Arc::new(Timeline::new(&device.gpu)?),
        constants: Constants::new(&device),
        sizes: Sizes::new(&view),
        device,
        settings,
        rooms: Rooms::default(),
        states: States::default(),
        lowered: Vec::new(),
        image: Vec::new(),
        plan,
    };
    core.states = States::new(&core.device.gpu, &view, &core.plan, core.settings.mirrored)?;
    let host = Host::Call(weights);
    let packed = Packed {
        plan: &core.plan,
        section,
    };
    let known = view
        .values()
        .all(|value| core.sizes.dims(&view, value.index()).is_some());
    if known {
        // All sizes are known: what the device cannot is refused now, and nothing of the host's is needed later.
        let sizes: Option<Vec<Vec<i64>>> = view.inputs().iter().map(|v| core.sizes.dims(&view, v)).collect();
        let sizes = sizes.ok_or_else(|| Error::internal("a size of an input is not known"))?;
        let schedule = Encoder::encode(view, &core.plan, &core.sizes, core.device.gpu.facts()).map_err(damaged)?;
        core.constants.bring(&schedule, &host, &packed, context)?;
        core.prepare(&schedule)?;
        let lowered = Lowered::new(&core.device.gpu, &core.constants, &view, schedule, sizes)?;
        core.lowered.push(lowered);
    } else {
        // What is common to all sizes is made ready; smaller ones may run where the largest do not.
        match core.lower_largest(view) {
            Ok(schedule) => {
                core.constants.bring(&schedule, &host, &packed, context)?;
                core.prepare(&schedule)?;
            }
            Err(error) if is_surprise(&error) => return Err(damaged(error)),
            Err(error) => context.log(LogLevel::Debug, &format!("vulkan: at the largest sizes: {error}")),
        }
        core.constants.bring_packed(&host, &packed, context)?;
        if view.weight_count() > 0 {
            core.constants.keep(weights.keep()?);
        }
    }
    core.device.gpu.instance().messages().check()?;
    core.image = image;
    Ok(Box::new(Loaded {
        device: Arc::clone(&core.device),
        core: Arc::new(Mutex::new(core)),
    }))
}

fn verified(image: &[u8]) -> Result<ImageView<'_>, Error> {
    verify(image).map_err(|e| Error::corrupt(format!("the graph image is damaged: {e}")))
}

/// True for errors that the graph of a blob cannot cause: `compile` lowered the same graph.
fn is_surprise(error: &Error) -> bool {
    matches!(error.code, Status::INTERNAL | Status::INVALID_ARGUMENT)
}

/// A graph that `compile` lowered and that now surprises is not the one that was compiled.
fn damaged(error: Error) -> Error {
    match is_surprise(&error) {
        true => Error {
            code: Status::BLOB_CORRUPT,
            message: format!("the graph of the blob does not lower any more: {}", error.message),
            ..error
        },
        false => error,
    }
}

fn landings<'t>(outputs: impl Iterator<Item = &'t TensorOut<'t>>, gpu: &Arc<Gpu>) -> Vec<Option<Landing>> {
    outputs
        .map(|out| Landing::of(out.buffer, out.bytes.len(), gpu))
        .collect()
}

/// What runs of a session work on.
struct Core {
    device: Arc<Opened>,
    settings: Settings,
    timeline: Arc<Timeline>,
    image: Vec<u8>,
    plan: Plan,
    sizes: Sizes,
    constants: Constants,
    states: States,
    rooms: Rooms,
    /// The last used is last.
    lowered: Vec<Lowered>,
}

/// Memory that all commands of a session share; it grows.
#[derive(Default)]
struct Rooms {
    /// Storages of a schedule.
    arena: Option<Arc<Buffer>>,
    /// Inputs, where the processor does not see the arena.
    upload: Option<Arc<Buffer>>,
    /// Outputs, where the processor does not read the arena.
    readback: Option<Arc<Buffer>>,
}

struct Loaded {
    core: Arc<Mutex<Core>>,
    device: Arc<Opened>,
}

impl Session for Loaded {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let mut core = lock(&self.core);
        let landings = landings(outputs.iter(), &core.device.gpu);
        let started = core.start(inputs, &landings, context)?;
        wait(&core.timeline, context, started.in_place())?;
        let first = started.is_first();
        started.end(outputs, context)?;
        match first {
            true => core.replay(inputs, outputs, context),
            false => Ok(()),
        }
    }

    fn submit(&mut self, mut run: SubmittedRun) {
        let mut core = lock(&self.core);
        if core.settings.replay > 0 {
            drop(core);
            return run.complete(|inputs, outputs, context| self.execute(inputs, outputs, context));
        }
        let landings = landings(run.outputs_mut().iter(), &core.device.gpu);
        let started = core.start(&run.inputs(), &landings, &run.context());
        drop(core);
        match started {
            Ok(started) => self.device.waiter.hand(Job::new(run, started)),
            Err(error) => run.finish(Err(error)),
        }
    }

    fn state_commit(&mut self, accept: bool, _: &Context<'_>) -> Result<(), Error> {
        lock(&self.core).states.commit(accept);
        Ok(())
    }

    fn state_reset(&mut self, state: u32, context: &Context<'_>) -> Result<(), Error> {
        let core = self.at_rest(context)?;
        core.states.reset(&core.device.gpu, state)
    }

    fn state_truncate(&mut self, state: u32, length: u64, context: &Context<'_>) -> Result<(), Error> {
        let core = self.at_rest(context)?;
        core.states.truncate(&core.device.gpu, state, length)
    }

    fn state_snapshot(&mut self, state: u32, out: &mut [u8], context: &Context<'_>) -> Result<(), Error> {
        let core = self.at_rest(context)?;
        core.states.snapshot(&core.device.gpu, state, out)
    }

    fn state_restore(&mut self, state: u32, bytes: &[u8], context: &Context<'_>) -> Result<(), Error> {
        let core = self.at_rest(context)?;
        core.states.restore(&core.device.gpu, state, bytes)
    }
}

impl Loaded {
    /// The session when nothing of it runs.
    fn at_rest(&self, context: &Context<'_>) -> Result<MutexGuard<'_, Core>, Error> {
        let core = lock(&self.core);
        // A lost device is waited for no more; what can still be told is told.
        if !core.device.gpu.is_lost() {
            wait(&core.timeline, context, false)?;
        }
        Ok(core)
    }
}

impl Core {
    /// Makes ready what a schedule needs that takes long.
    fn prepare(&self, schedule: &Schedule) -> Result<(), Error> {
        self.device.gpu.prepare(schedule.dispatches.iter().map(|d| d.kernel))
    }

    /// The schedule at the largest sizes, or the smallest where there is no largest.
    fn lower_largest(&self, view: ImageView<'_>) -> Result<Schedule, Error> {
        let mut sizes = self.sizes.clone();
        for index in 0..view.symbol_count() {
            let symbol = view.symbol(SymbolIndex(index));
            sizes.set(&view, SymbolIndex(index), symbol.max.unwrap_or(symbol.min));
        }
        Encoder::encode(view, &self.plan, &sizes, self.device.gpu.facts())
    }

    /// Makes the lowered region for these sizes the last of the list.
    fn lower(&mut self, inputs: &[TensorView<'_>], context: &Context<'_>) -> Result<(), Error> {
        let found = self.lowered.iter().position(|l| l.is_for(inputs));
        if let Some(at) = found {
            if at + 1 < self.lowered.len() {
                let lowered = self.lowered.remove(at);
                self.lowered.push(lowered);
            }
            return Ok(());
        }
        let view = verified(&self.image)?;
        self.sizes
            .bind(&view, inputs.iter().map(|i| i.sizes))
            .map_err(|e| Error::invalid(e.to_string()))?;
        let schedule = Encoder::encode(view, &self.plan, &self.sizes, self.device.gpu.facts())?;
        self.constants.bring_kept(&schedule, context)?;
        self.prepare(&schedule)?;
        let sizes = inputs.iter().map(|i| i.sizes.to_vec()).collect();
        let lowered = Lowered::new(&self.device.gpu, &self.constants, &view, schedule, sizes)?;
        if self.lowered.len() >= MOST_LOWERED {
            self.lowered.remove(0);
        }
        self.lowered.push(lowered);
        Ok(())
    }

    /// Begins a run: whatever was submitted before is done, the commands are found or recorded, inputs are where they read them.
    fn start(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &[Option<Landing>],
        context: &Context<'_>,
    ) -> Result<Started, Error> {
        run::in_time(context)?;
        self.device.gpu.alive()?;
        wait(&self.timeline, context, false)?;
        self.lower(inputs, context)?;
        let Some(mut lowered) = self.lowered.pop() else {
            return Err(Error::internal("nothing was lowered"));
        };
        // While it is away, growing rooms forget the commands of all others.
        let recorded = lowered.recorded(self, inputs, outputs, context);
        self.lowered.push(lowered);
        let (recorded, first) = recorded?;
        Started::new(recorded, first, inputs, &self.timeline, context)
    }

    /// Makes rooms at least so large. The commands of others that used the old ones are forgotten; `true`: there were old ones.
    fn grow(&mut self, arena: u64, upload: u64, readback: u64) -> Result<bool, Error> {
        use crate::memory::Use;
        let gpu = &self.device.gpu;
        let lowered = &mut self.lowered;
        let mut changed = false;
        for (room, bytes, r#use) in [
            (&mut self.rooms.arena, arena, Use::Device),
            (&mut self.rooms.upload, upload, Use::Upload),
            (&mut self.rooms.readback, readback, Use::Readback),
        ] {
            if bytes > room.as_ref().map_or(0, |room| room.size()) {
                changed |= room.is_some();
                lowered.iter_mut().for_each(Lowered::forget);
                // The old one goes before the new one comes.
                *room = None;
                *room = Some(Arc::new(Buffer::new(gpu, bytes, r#use)?));
            }
        }
        Ok(changed)
    }

    /// Repeats a run and compares.
    fn replay(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let elements = |out: &TensorOut<'_>| {
            let bytes = lowered::tensor_bytes(out.sizes, out.dtype.size()) as usize;
            out.bytes.get(..bytes).unwrap_or_default().to_vec()
        };
        let first: Vec<Vec<u8>> = match self.settings.replay {
            0 => return Ok(()),
            _ => outputs.iter().map(elements).collect(),
        };
        for again in 1..=self.settings.replay {
            let landings = landings(outputs.iter(), &self.device.gpu);
            let started = self.start(inputs, &landings, context)?;
            wait(&self.timeline, context, started.in_place())?;
            started.end(outputs, context)?;
            for (at, (out, first)) in outputs.iter().zip(&first).enumerate() {
                if elements(out) != *first {
                    return Err(Error::internal(format!(
                        "results differ from run to run: output {at} of repetition {again}"
                    ))
                    .hint("the driver or the device computes unreliably"));
                }
            }
        }
        Ok(())
    }
}
