//! The executor: a method with its memory.

mod outputs;
mod states;

pub(crate) use outputs::ends;

use crate::engine::{CallError, Callee, Context, Engine, Number};
use crate::error::{BindError, LoadError, RunError};
use crate::input::{self, Input};
use crate::kept::Phase;
use crate::load::{DelegateResolver, Loaded, ProgramData};
use crate::memory::{MemoryId, recycle};
use crate::options::{Event, Options, Trace};
use crate::output::{self, Output};
use crate::region::{BoundRegion, Region, RegionCall, RegionReport};
use crate::self_check::{Checked, Judge, Keep, Kept, PutBack};
use crate::state::State;
use crate::step::{Condition, Step};
use crate::tensors::Shapes;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;
use delegraph_kernels::Growable;
use delegraph_opset::Op;
use delegraph_pte::Verified;
use delegraph_pte::model::{EValue, Instruction, Plan};
use delegraph_types::Dims;
use outputs::Moved;

/// One method of a program, ready to run again and again.
pub struct Executor {
    loaded: Loaded,
    data: Arc<dyn ProgramData>,
    engine: Engine,
    /// By value.
    numbers: Vec<Number>,
    state: State,
    regions: Vec<Region>,
    /// By instruction: the region that starts there.
    region_at: Vec<Option<u32>>,
    /// By instruction: it writes a state of this region, which the region's delegate may keep.
    write_of: Vec<Option<u32>>,
    /// Delegates wait to hear whether what they did to states counts.
    open: bool,
    /// By input: its memory holds nothing else at the end of a run.
    inputs_kept: Vec<bool>,
    delegates: Vec<Box<dyn RegionCall>>,
    options: Options,
    trace: Option<Box<dyn Trace>>,
    external: Vec<&'static [u8]>,
    /// By tensor, see [`input::lendable`].
    lendable: Vec<Option<u32>>,
    /// Empty between runs; kept for its allocation.
    lent: Vec<Option<&'static [u8]>>,
    /// By input: the last run read it where the caller had it.
    was_lent: Vec<bool>,
    /// Outputs that lie in memory of the caller's.
    moved: Vec<Moved>,
}

/// What a call of this executor reads. A macro, since it borrows some fields and leaves the others.
macro_rules! context {
    ($executor:ident, $file:expr, $external:expr, $lent:expr) => {
        Context {
            plan: $executor.loaded.plan(),
            slots: &$executor.loaded.tensors.slots,
            memory_lens: &$executor.loaded.tensors.memory_lens,
            file: $file,
            external: $external,
            numbers: &$executor.numbers,
            lendable: &$executor.lendable,
            lent: $lent,
        }
    };
}

/// Where a run goes on.
enum Next {
    Step,
    Jump(u32),
}

/// What became of a region.
enum Done {
    /// Its delegate did it.
    Delegated,
    /// Its instructions must run instead.
    Not,
    /// Its delegate did it, and its instructions must run too, to be compared.
    ToCheck,
}

/// The memory that ExecuTorch plans activations into.
const ACTIVATIONS: MemoryId = MemoryId(1);

impl Executor {
    /// Loads a method: every operator gets its kernel, arenas are allocated and zeroed, buffers get their initial states.
    ///
    /// # Errors
    /// An unknown method, operators without kernels (all of them are named), data that is missing or too short, too much
    /// memory, or a plan that calls delegates itself.
    pub fn new(
        program: Arc<Verified>,
        method: &str,
        data: Arc<dyn ProgramData>,
        options: Options,
    ) -> Result<Executor, LoadError> {
        Executor::with_delegates(program, method, data, options, None)
    }

    /// Loads a method whose plan may call delegates itself, as ExecuTorch's delegated files do.
    ///
    /// # Errors
    /// As [`Executor::new`]; a delegate that `resolver` does not know is refused by name.
    pub fn with_delegates(
        program: Arc<Verified>,
        method: &str,
        data: Arc<dyn ProgramData>,
        options: Options,
        resolver: Option<&mut DelegateResolver<'_>>,
    ) -> Result<Executor, LoadError> {
        let mut delegates = Vec::new();
        let loaded = Loaded::new(program, method, &*data, &mut delegates, resolver)?;
        if !options.delegates_follow && !loaded.missing.is_empty() {
            return Err(LoadError::MissingOperators(loaded.missing));
        }
        let limit = options
            .memory_limit
            .unwrap_or_else(|| (2u64 << 30).saturating_add(loaded.program.file_len().saturating_mul(16)));
        if loaded.tensors.arena_bytes() > limit {
            return Err(LoadError::Memory {
                needed: loaded.tensors.arena_bytes(),
                limit,
            });
        }
        let mut engine = Engine::new(options.seed, options.parallel);
        engine.shapes = Shapes::new(&loaded.tensors.slots);
        let no_memory = |_| LoadError::Memory {
            needed: loaded.tensors.arena_bytes(),
            limit: usize::MAX as u64,
        };
        let state = State::new(&loaded);
        for (index, len) in loaded.tensors.memory_lens.iter().enumerate() {
            let id = MemoryId(index as u32);
            // State is the app's own: a delegate's process could change it between runs.
            let lent = match &options.arenas {
                Some(arenas) if id == ACTIVATIONS && *len > 0 && !state.lies_in(id) => arenas.arena(*len),
                _ => None,
            };
            if let Some(lent) = lent.filter(|lent| lent.words().len() >= len.div_ceil(16)) {
                engine.memories.push(Growable::lent(lent));
                continue;
            }
            let mut memory = Growable::up_to(usize::try_from(limit).unwrap_or(usize::MAX));
            if !loaded.tensors.is_lazy(MemoryId(index as u32)) {
                memory.reserve(*len).map_err(no_memory)?;
            }
            engine.memories.push(memory);
        }
        for (memory, range) in &loaded.tensors.copied {
            let bytes = data.bytes().get(range.clone()).unwrap_or_default();
            let target = engine.memories[memory.0 as usize]
                .reserve(range.len())
                .map_err(no_memory)?;
            target.copy_from_slice(bytes);
        }
        let mut executor = Executor {
            numbers: loaded.numbers.clone(),
            region_at: alloc::vec![None; loaded.steps.len()],
            write_of: alloc::vec![None; loaded.steps.len()],
            open: false,
            inputs_kept: input::kept(&loaded),
            lendable: input::lendable(&loaded),
            lent: Vec::new(),
            was_lent: Vec::new(),
            moved: Vec::new(),
            state,
            loaded,
            data,
            engine,
            regions: Vec::new(),
            delegates,
            options,
            trace: None,
            external: Vec::new(),
        };
        executor.initial_states();
        Ok(executor)
    }

    /// Hands regions to delegates; regions bound before are given up.
    ///
    /// # Errors
    /// A region is no atomic step of the method: outside of it, overlapping another, jumped into or out of, or writing
    /// state. Its call keeps a state that others see, or kept one before that cannot be had. No region is bound then.
    pub fn bind(&mut self, regions: Vec<BoundRegion>) -> Result<(), BindError> {
        let mut given_up = core::mem::take(&mut self.regions);
        self.region_at.fill(None);
        self.write_of.fill(None);
        for region in &mut given_up {
            region.fetch(&mut self.engine, None).map_err(|error| BindError {
                start: region.bound.start,
                end: region.bound.end,
                problem: error.to_string(),
            })?;
        }
        let mut checked = Vec::with_capacity(regions.len());
        for region in regions {
            checked.push(Region::new(region, &self.loaded, &self.state)?);
        }
        checked.sort_by_key(|region| region.bound.start);
        if let Some(pair) = checked.windows(2).find(|pair| pair[0].bound.end > pair[1].bound.start) {
            return Err(BindError {
                start: pair[1].bound.start,
                end: pair[1].bound.end,
                problem: format!("it overlaps the region that ends at {}", pair[0].bound.end),
            });
        }
        let mut writes = BTreeSet::new();
        for (index, region) in checked.iter().enumerate() {
            self.region_at[region.bound.start as usize] = Some(index as u32);
            for held in &region.states {
                if !writes.insert(held.write) {
                    self.region_at.fill(None);
                    return Err(BindError {
                        start: region.bound.start,
                        end: region.bound.end,
                        problem: format!("another region keeps the state `{}`, too", held.state.name),
                    });
                }
            }
        }
        for (index, region) in checked.iter().enumerate() {
            for held in &region.states {
                self.write_of[held.write] = Some(index as u32);
                let (memory, range) = held.place();
                self.state.set_apart(memory, range);
            }
        }
        self.regions = checked;
        Ok(())
    }

    /// The method's plan.
    pub fn plan(&self) -> &Plan {
        self.loaded.plan()
    }

    /// The first instruction that no bound region does and that cannot run, with the reason: there is no kernel for it, or the file was written
    /// without what it reads ([`ProgramData::is_left_out`]). The method cannot run then.
    pub fn cannot_run(&self) -> Option<LoadError> {
        let mut at = 0;
        while at < self.loaded.steps.len() {
            if let Some(region) = self.region_at[at] {
                at = self.regions[region as usize].bound.end as usize;
                continue;
            }
            if let Some(reason) = self.loaded.cannot_run(at..at + 1) {
                return Some(LoadError::Call {
                    instruction: at as u32,
                    operator: self.loaded.name_of(at).to_string(),
                    problem: format!("{reason}, and no delegate does it"),
                });
            }
            at += 1;
        }
        None
    }

    /// Why these instructions cannot run, if they cannot.
    pub fn cannot_run_range(&self, start: u32, end: u32) -> Option<String> {
        self.loaded.cannot_run(start as usize..end as usize)
    }

    /// Runs the method. Outputs stay as they are until the next run.
    ///
    /// # Errors
    /// An input that does not fit, a failing kernel, a denied fallback, the end of the budget, cancellation. State is as
    /// before the run then; outputs are unspecified.
    pub fn run(&mut self, inputs: &[Input<'_>]) -> Result<(), RunError> {
        for &value in &self.loaded.volatile {
            self.numbers[value as usize] = self.loaded.numbers[value as usize];
        }
        let mut lent = recycle(core::mem::take(&mut self.lent));
        let accepted = input::accept(
            &self.loaded,
            &mut self.engine,
            &mut self.numbers,
            inputs,
            &self.lendable,
            &mut lent,
        );
        self.was_lent.clear();
        self.was_lent.extend(lent.iter().map(Option::is_some));
        if let Err(error) = accepted {
            self.lent = recycle(lent);
            return Err(error);
        }
        let data = Arc::clone(&self.data);
        let mut external = recycle(core::mem::take(&mut self.external));
        for &value in &self.loaded.tensors.externals {
            let EValue::Tensor(tensor) = &self.loaded.plan().values[value as usize] else {
                continue;
            };
            let name = tensor.name.as_deref().unwrap_or_default();
            external.push(data.external(name).unwrap_or_default());
        }
        let done = self.walk(data.bytes(), &external, &lent);
        self.external = recycle(external);
        self.lent = recycle(lent);
        self.end_regions(done.is_ok());
        self.state
            .finish(&mut self.engine, &self.loaded.tensors.slots, done.is_err());
        done
    }

    /// The memory of an input, for a caller that makes its data there and gives [`Input::InPlace`] to the next run. The bytes
    /// are exactly those of a tensor of `sizes` in the input's own dim order; a run may use them for something else, so they
    /// are filled before each.
    ///
    /// # Errors
    /// There is no such input, it is no tensor, or it does not take these sizes.
    pub fn input_mut(&mut self, index: usize, sizes: &Dims) -> Result<&mut [u8], RunError> {
        input::memory(&self.loaded, &mut self.engine, index, sizes)
    }

    /// Number of outputs.
    pub fn output_count(&self) -> usize {
        self.plan().outputs.len()
    }

    /// An output of the last run.
    ///
    /// # Errors
    /// There is none of this index, or its memory was freed.
    pub fn output(&self, index: usize) -> Result<Output<'_>, RunError> {
        let fail = |problem: String| RunError::Output { index, problem };
        let Some(&value) = self.plan().outputs.get(index) else {
            return Err(fail(format!("the method has {}", self.output_count())));
        };
        output::view(&self.loaded, &self.engine, &self.numbers, &*self.data, value).map_err(fail)
    }

    /// The present content of the input at `index`: what the method left there, if it changes its input.
    ///
    /// # Errors
    /// There is none of this index, or the plan uses its memory for something else once it is read.
    pub fn input_after(&self, index: usize) -> Result<Output<'_>, RunError> {
        let fail = |problem: String| RunError::Output { index, problem };
        let Some(&value) = self.plan().inputs.get(index) else {
            return Err(fail(format!("the method has {} inputs", self.plan().inputs.len())));
        };
        if self.was_lent.get(index) == Some(&true) {
            return Err(fail(
                "the method does not change it, and read it where it was given".into(),
            ));
        }
        if !self.inputs_kept[index] {
            return Err(fail("its memory serves other tensors later in the run".into()));
        }
        output::view(&self.loaded, &self.engine, &self.numbers, &*self.data, value).map_err(fail)
    }

    /// What became of each bound region, in the order of the instructions.
    pub fn report(&self) -> impl Iterator<Item = &RegionReport> {
        self.regions.iter().map(|region| &region.report)
    }

    /// Sees every step from now on; `None` ends it.
    pub fn set_trace(&mut self, trace: Option<Box<dyn Trace>>) {
        self.trace = trace;
    }

    /// Bytes of the arenas that are allocated now.
    pub fn arena_bytes(&self) -> usize {
        let arenas = self.loaded.plan().buffer_sizes.len();
        self.engine.memories.iter().take(arenas).map(|m| m.bytes().len()).sum()
    }

    fn walk(&mut self, file: &[u8], external: &[&[u8]], lent: &[Option<&[u8]>]) -> Result<(), RunError> {
        let (mut at, mut steps) = (0usize, 0u64);
        // The region whose instructions run in the delegate's stead: a loop inside may pass its start again.
        let mut portable = 0..0;
        // The region whose instructions run beside the delegate, to be compared.
        let mut checking: Option<usize> = None;
        loop {
            if let Some(region) = checking.take_if(|_| !portable.contains(&at)) {
                portable = 0..0;
                self.judge(region, file, external, lent)?;
            }
            if self.open && at >= self.state.delegates_end(&self.loaded) {
                self.open = false;
                self.end_delegates(at)?;
            }
            if at >= self.loaded.steps.len() {
                return Ok(());
            }
            if at < self.state.commit {
                if steps >= self.options.max_steps {
                    return Err(RunError::Budget(self.options.max_steps));
                }
                let cancelled = |flag: &Arc<core::sync::atomic::AtomicBool>| flag.load(Ordering::Relaxed);
                if self.options.cancel.as_ref().is_some_and(cancelled) {
                    return Err(RunError::Cancelled(at as u32));
                }
            }
            steps += 1;
            // The delegate has what would be copied.
            if let Some(region) = self.write_of[at].map(|region| &self.regions[region as usize])
                && region.done()
            {
                at += 1;
                continue;
            }
            let start = self.trace.as_mut().map(|trace| trace.now());
            if let Some(region) = self.region_at[at]
                && !portable.contains(&at)
            {
                let end = self.regions[region as usize].bound.end as usize;
                let done = self.region(region as usize, file, external, lent);
                if let (Some(trace), Some(start)) = (self.trace.as_mut(), start) {
                    let region = &self.regions[region as usize];
                    record(trace, at..end, true, &region.bound.backend, start);
                }
                match done? {
                    Done::Delegated => {
                        at = end;
                        continue;
                    }
                    Done::Not => {}
                    Done::ToCheck => checking = Some(region as usize),
                }
                portable = at..end;
            } else if !portable.contains(&at) {
                portable = 0..0;
            }
            let start = self.trace.as_mut().map(|trace| trace.now());
            let next = self.step(at, file, external, lent);
            if let (Some(trace), Some(start)) = (self.trace.as_mut(), start) {
                record(trace, at..at + 1, false, self.loaded.name_of(at), start);
            }
            match (next, checking) {
                (Ok(Next::Step), _) => at += 1,
                (Ok(Next::Jump(to)), _) => at = to as usize,
                (Err(error), None) => return Err(error),
                (Err(error), Some(region)) => {
                    self.cannot_check(region, &error.to_string(), file, external, lent)?;
                    (at, checking, portable) = (portable.end, None, 0..0);
                }
            }
        }
    }

    /// Asks the delegate of a region.
    fn region(
        &mut self,
        index: usize,
        file: &[u8],
        external: &[&[u8]],
        lent: &[Option<&[u8]>],
    ) -> Result<Done, RunError> {
        let context = context!(self, file, external, lent);
        let region = &mut self.regions[index];
        if region.report.quarantined {
            region.take_over(&mut self.engine, None)?;
            region.report.portable += 1;
            return Ok(Done::Not);
        }
        let called = match region.give(&self.engine) {
            Ok(()) => self
                .engine
                .call(&region.io, Callee::Region(&mut *region.bound.call), &context),
            Err(error) => Err(CallError::Region(error)),
        };
        let error = match called {
            Ok(_) => {
                region.late = 0;
                if !region.states.is_empty() {
                    region.phase = Phase::Ran;
                    self.open = true;
                }
                if self.options.self_check.is_some() && region.report.checked == Checked::Not {
                    if let Some(reason) = &region.alone {
                        region.report.checked = Checked::Impossible(reason.clone());
                        region.report.delegated += 1;
                        return Ok(Done::Delegated);
                    }
                    if let Some(held) = region.states.iter().find(|held| !held.here()) {
                        let problem = format!("the delegate alone has the state `{}`", held.state.name);
                        region.report.checked = Checked::Impossible(problem);
                        region.report.delegated += 1;
                        return Ok(Done::Delegated);
                    }
                    let mut keep = Keep {
                        kept: &mut region.kept,
                        states: &region.states,
                    };
                    match self.engine.call(&region.io, Callee::Region(&mut keep), &context) {
                        Ok(_) => return Ok(Done::ToCheck),
                        Err(error) => region.report.checked = Checked::Impossible(call_error(&error)),
                    }
                    region.kept = Kept::default();
                }
                region.report.delegated += 1;
                return Ok(Done::Delegated);
            }
            Err(CallError::Region(error)) => error,
            // The delegate returned sizes that the file does not allow, or its operands could not be lent.
            Err(other) => crate::RegionError::Failed(call_error(&other)),
        };
        region.drop_call(&error);
        if region.failed(&error, self.options.fallback) {
            region.take_over(&mut self.engine, Some(&error))?;
            region.report.portable += 1;
            return Ok(Done::Not);
        }
        Err(region.denied(error))
    }

    /// The instructions of a region ran beside its delegate: compares the outputs.
    fn judge(&mut self, index: usize, file: &[u8], external: &[&[u8]], lent: &[Option<&[u8]>]) -> Result<(), RunError> {
        let Some(check) = self.options.self_check.clone() else {
            return Ok(());
        };
        let context = context!(self, file, external, lent);
        let region = &mut self.regions[index];
        let kept = core::mem::take(&mut region.kept);
        let mut judge = Judge {
            check: &*check,
            start: region.bound.start,
            kept: &kept,
        };
        let judged = self.engine.call(&region.io, Callee::Region(&mut judge), &context);
        let error = match judged {
            Ok(_) => {
                // The inside of regions: nothing of it is read after its region, and the next run does not need it.
                for (id, memory) in self.engine.memories.iter_mut().enumerate() {
                    if self.loaded.tensors.is_lazy(MemoryId(id as u32)) {
                        memory.free();
                    }
                }
                self.engine.free_scratch();
                region.report.checked = Checked::Agrees;
                region.proof = !region.states.is_empty();
                region.report.delegated += 1;
                return Ok(());
            }
            Err(CallError::Region(error)) => error,
            Err(other) => crate::RegionError::Differs(format!("self-check: {}", call_error(&other))),
        };
        region.report.checked = Checked::Differs(error.to_string());
        region.drop_call(&error);
        if region.failed(&error, self.options.fallback) {
            // The states are still there: they were given to the delegate before this run, its first.
            region.take_over(&mut self.engine, Some(&error))?;
            region.report.portable += 1;
            return Ok(());
        }
        Err(region.denied(error))
    }

    /// The instructions of a region failed beside its delegate: the delegate's outputs stand.
    fn cannot_check(
        &mut self,
        index: usize,
        reason: &str,
        file: &[u8],
        external: &[&[u8]],
        lent: &[Option<&[u8]>],
    ) -> Result<(), RunError> {
        let context = context!(self, file, external, lent);
        let region = &mut self.regions[index];
        let kept = core::mem::take(&mut region.kept);
        let put_back = self
            .engine
            .call(&region.io, Callee::Region(&mut PutBack(&kept)), &context);
        if let Err(error) = put_back {
            return Err(region.denied(crate::RegionError::Failed(call_error(&error))));
        }
        region.report.checked = Checked::Impossible(reason.to_string());
        region.report.delegated += 1;
        Ok(())
    }

    fn step(&mut self, at: usize, file: &[u8], external: &[&[u8]], lent: &[Option<&[u8]>]) -> Result<Next, RunError> {
        if self.state.needs_snapshot && self.state.writers[at] {
            let kept = |memory, part: &Range<usize>| {
                let states = self.regions.iter().filter(|region| region.done());
                let mut states = states.flat_map(|region| &region.states);
                states.any(|held| held.place() == (memory, part))
            };
            let saved = self.state.save(&self.engine, kept);
            saved.map_err(|error| self.failed(at, &CallError::Kernel(error)))?;
        }
        let context = context!(self, file, external, lent);
        let done = match &self.loaded.steps[at] {
            Step::Kernel(step) => self
                .engine
                .call(&step.io, Callee::Kernel(step), &context)
                .and_then(|result| match (step.result, result) {
                    (None, _) => Ok(Next::Step),
                    (Some(value), Some(number)) => {
                        self.numbers[value as usize] = number.into();
                        Ok(Next::Step)
                    }
                    (Some(_), None) => Err(CallError::Bug("the kernel returned no number")),
                }),
            Step::Delegate { delegate, io } => match self.delegates.get_mut(*delegate as usize) {
                Some(call) => self
                    .engine
                    .call(io, Callee::Region(&mut **call), &context)
                    .map(|_| Next::Step),
                None => Err(CallError::Bug("no such delegate")),
            },
            Step::View { from, to, sizes } => view_sizes(self.engine.shapes.sizes(*from), sizes, &self.numbers)
                .map(|sizes| {
                    self.engine.shapes.set(&self.loaded.tensors.slots, *to, &sizes);
                    Next::Step
                })
                .ok_or(CallError::Bug("the sizes of the view do not fit")),
            Step::MoveTensor { io: Some(io), .. } => self.engine.call(io, Callee::Copy, &context).map(|_| Next::Step),
            Step::MoveTensor { from, to, io: None } => {
                let sizes = *self.engine.shapes.sizes(*from);
                self.engine.shapes.set(&self.loaded.tensors.slots, *to, &sizes);
                Ok(Next::Step)
            }
            Step::MoveNumber { from, to } => {
                self.numbers[*to as usize] = self.numbers[*from as usize];
                Ok(Next::Step)
            }
            Step::NoKernel => Err(CallError::Bug("there is no kernel for it")),
            Step::JumpFalse { condition, destination } => {
                let holds = match condition {
                    Condition::Number(value) => match self.numbers[*value as usize] {
                        Number::Bool(b) => Ok(b),
                        _ => Err(CallError::Bug("the condition is no bool")),
                    },
                    Condition::Tensor(io) => match io.reads.first() {
                        Some(read) => output::tensor(&self.loaded, &self.engine, &*self.data, read.slot)
                            .map(|tensor| tensor.bytes().iter().all(|byte| *byte != 0))
                            .map_err(|_| CallError::Bug("the condition has no memory")),
                        None => Err(CallError::Bug("the condition is no tensor")),
                    },
                };
                holds.map(|holds| if holds { Next::Step } else { Next::Jump(*destination) })
            }
            Step::Free(memory) => {
                if let Some(memory) = memory {
                    self.engine.memories[memory.0 as usize].free();
                }
                Ok(Next::Step)
            }
        };
        done.map_err(|error| self.failed(at, &error))
    }

    /// The error of an instruction, with all its arguments.
    fn failed(&self, at: usize, error: &CallError) -> RunError {
        let operator = self.loaded.name_of(at).to_string();
        match error {
            CallError::Kernel(source) => RunError::Kernel {
                instruction: at as u32,
                arguments: self.arguments(at),
                operator,
                source: source.clone(),
            },
            other => RunError::Instruction {
                instruction: at as u32,
                operator,
                problem: format!("{}, in ({})", call_error(other), self.arguments(at)),
            },
        }
    }

    /// `self: f32[2x3], alpha: 1`
    fn arguments(&self, at: usize) -> String {
        let (args, op) = match self.plan().instructions.get(at) {
            Some(Instruction::Kernel { op, args }) => (&args[..], Some(*op)),
            Some(Instruction::Delegate { args, .. }) => (&args[..], None),
            Some(Instruction::Move { from, to }) => return format!("{}, {}", self.describe(*from), self.describe(*to)),
            Some(Instruction::JumpFalse { condition, .. }) => return self.describe(*condition),
            _ => return String::new(),
        };
        let schema = op
            .and_then(|op| Op::find(self.loaded.operators.get(op as usize)?))
            .map(Op::schema);
        let mut text = String::new();
        for (index, &arg) in args.iter().enumerate() {
            let name = match &schema {
                Some(schema) => match schema.params.get(index) {
                    Some(param) => Some(param.name.as_str()),
                    None => break,
                },
                None => None,
            };
            if index > 0 {
                text.push_str(", ");
            }
            if let Some(name) = name {
                text.push_str(name);
                text.push_str(": ");
            }
            text.push_str(&self.describe(arg));
        }
        text
    }

    /// A value's dtype and present sizes, or the number itself.
    fn describe(&self, value: u32) -> String {
        if let Some(slot) = self.loaded.tensors.slot(value) {
            let dtype = self.loaded.tensors.slots[slot.0 as usize].dtype;
            return format!("{dtype}[{}]", self.engine.shapes.sizes(slot));
        }
        let number = |value: u32| match self.numbers[value as usize] {
            Number::None => "none".to_string(),
            Number::Int(i) => format!("{i}"),
            Number::Bool(b) => format!("{b}"),
            Number::Float(f) => format!("{f:?}"),
        };
        let list = |items: &mut dyn Iterator<Item = String>| format!("[{}]", items.collect::<Vec<_>>().join(", "));
        match &self.plan().values[value as usize] {
            EValue::String(text) => format!("{text:?}"),
            EValue::IntList(items) => list(&mut items.iter().map(|item| number(*item))),
            EValue::DoubleList(items) => format!("{items:?}"),
            EValue::BoolList(items) => format!("{items:?}"),
            EValue::TensorList(items) => list(&mut items.iter().map(|item| self.describe(*item))),
            EValue::OptionalTensorList(items) => list(
                &mut items
                    .iter()
                    .map(|item| item.map_or("none".to_string(), |item| self.describe(item))),
            ),
            _ => number(value),
        }
    }
}

fn record(trace: &mut Box<dyn Trace>, range: Range<usize>, region: bool, name: &str, start: u64) {
    let stop = trace.now();
    trace.record(Event {
        instruction: range.start as u32,
        end: range.end as u32,
        region,
        name,
        start,
        stop,
    });
}

fn call_error(error: &CallError) -> String {
    match error {
        CallError::Kernel(error) => format!("{error}"),
        CallError::Region(error) => format!("{error}"),
        CallError::Resized { index, got, want } => {
            format!("output {index} has sizes {got}, the file says {want}")
        }
        CallError::Bug(text) => (*text).to_string(),
    }
}

/// Sizes of a view; one of them may be -1.
fn view_sizes(from: &Dims, sizes: &[u32], numbers: &[Number]) -> Option<Dims> {
    let count = from.numel()?;
    let mut view = Dims::SCALAR;
    let mut open = None;
    for (d, &value) in sizes.iter().enumerate() {
        let Number::Int(size) = numbers.get(value as usize)? else {
            return None;
        };
        if *size == -1 && open.replace(d).is_some() {
            return None;
        }
        view.push(if *size == -1 { 1 } else { *size }).ok()?;
    }
    if let Some(d) = open {
        let known = view.numel()?;
        view[d] = i64::try_from(count.checked_div(known)?).ok()?;
    }
    (view.numel()? == count).then_some(view)
}
