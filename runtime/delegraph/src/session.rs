//! A loaded method, ready to run.

use crate::Error;
use crate::bind::{Binder, constant_ranges};
use crate::buckets::Buckets;
use crate::cache::{CacheReport, LoadCache};
use crate::chrome::chrome_trace;
use crate::compile::{AtLoad, Compiled, compile_over, import};
use crate::delegates::{PORTABLE, check_config, configured_threads, discover, wanted};
use crate::device_rules::DeviceRules;
use crate::memory::{BoundOutput, Memories, MemoryReport};
use crate::region_call::{Counts, SharedArenas, Watch};
use crate::report::{RegionState, RunReport};
use crate::self_check::{RegionCheck, words};
use crate::source::{Format, Source};
use crate::trace::{Names, Recorder};
use crate::value::{TensorView, Value};
use delegraph_config::{Config, Fallback, SelfCheck};
use delegraph_executor::{Executor, Input, Options, Output, ProgramData, RunError};
use delegraph_host::{Delegate, Host, HostError};
use delegraph_ir::Bytes;
use delegraph_kernels::Tensor;
use delegraph_pte::model::{Dynamism, EValue, Instruction};
use delegraph_pte::origins::DEBUG_KEY;
use delegraph_pte::overlay::{OVERLAY_KEY, Overlay};
use delegraph_pte::{BundledProgram, DataFile, Verified};
use delegraph_types::{DType, Dims, Parallel};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How a model is loaded.
#[derive(Debug)]
pub struct LoadOptions {
    /// The method to load.
    pub method: String,
    /// External constants (`.ptd`).
    pub data: Option<Source>,
    /// Threads that portable kernels may use, and that delegates borrow, the calling one included; never more than the machine has.
    /// `None`: what `backend.portable.threads` says, or all. Their number changes no result of a kernel.
    pub threads: Option<usize>,
    /// Folder where blobs are kept that are compiled at load, which only this user may write. `None`: what `DELEGRAPH_CACHE_DIR`
    /// says, or `cache.folder` of the configuration; where neither names one, nothing is kept.
    pub cache_folder: Option<PathBuf>,
    /// Limits of a run.
    pub executor: Options,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            method: "forward".to_string(),
            data: None,
            threads: None,
            cache_folder: None,
            executor: Options::default(),
        }
    }
}

/// What a method takes or gives at a position.
#[derive(Debug, Clone, PartialEq)]
pub struct InputInfo {
    /// Name in the file, or `input_N` or `output_N` where it has none.
    pub name: String,
    /// What is taken or given.
    pub kind: InputKind<'static>,
}

/// What is taken or given.
#[derive(Debug, Clone, PartialEq)]
pub enum InputKind<'a> {
    /// A tensor.
    Tensor {
        /// Element type.
        dtype: DType,
        /// Sizes, or their upper bounds.
        sizes: Dims,
        /// Whether sizes may be smaller.
        dynamic: bool,
    },
    /// An integer.
    Int,
    /// A float.
    Float,
    /// A boolean.
    Bool,
    /// Fixed when the model was exported: that value is given, or [`Value::None`], which stands for it.
    Literal(Value<'a>),
}

impl fmt::Display for InputKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InputKind::Tensor { dtype, sizes, dynamic } => {
                write!(f, "{dtype}[{sizes}]{}", if *dynamic { " at most" } else { "" })
            }
            InputKind::Int => f.write_str("an integer"),
            InputKind::Float => f.write_str("a float"),
            InputKind::Bool => f.write_str("a boolean"),
            InputKind::Literal(value) => write!(f, "fixed at {value:?}"),
        }
    }
}

/// The bytes behind a program, and its external constants.
struct FileData {
    file: Bytes,
    external: Option<(DataFile, Bytes)>,
    /// Sorted.
    left_out: Vec<String>,
}

impl ProgramData for FileData {
    fn bytes(&self) -> &[u8] {
        self.file.as_slice()
    }

    fn external(&self, name: &str) -> Option<&[u8]> {
        let (data, bytes) = self.external.as_ref()?;
        data.bytes(bytes.as_slice(), name)
    }

    fn is_left_out(&self, name: &str) -> bool {
        self.left_out
            .binary_search_by(|left_out| left_out.as_str().cmp(name))
            .is_ok()
    }
}

/// A method of a model with its memory, its state and its delegates. One run at a time; may move between threads.
pub struct Session {
    pub(crate) executor: Executor,
    /// For the names of nodes, which only a trace reads.
    program: Arc<Verified>,
    file: Bytes,
    regions: Vec<RegionState>,
    /// What delegated runs cost; one a region.
    counts: Vec<Option<Arc<Counts>>>,
    watch: Watch,
    /// Kernel calls outside every region.
    outside: u64,
    /// Why the program was not partitioned again for the configuration, and runs as it is.
    not_partitioned: Option<String>,
    denied: Vec<(String, String)>,
    at_load: LoadReport,
    recorder: Option<Recorder>,
    threads: usize,
    /// Empty between runs; kept for its allocation.
    given: Vec<Input<'static>>,
    /// Memories of the app's that regions are shown.
    pub(crate) memories: Memories,
    /// By output; shorter: none is bound.
    pub(crate) bound_outputs: Vec<Option<BoundOutput>>,
    pub(crate) memory_report: MemoryReport,
    /// Of bound regions, with their devices.
    pub(crate) delegates: Vec<(Arc<Delegate>, Option<u32>)>,
}

impl Session {
    /// Loads the `forward` method of a `.pt2` or `.pte` file.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn load(path: impl AsRef<Path>, config: &Config) -> Result<Session, Error> {
        let host = Arc::new(discover(config, false));
        Session::open(&Source::open(path)?, config, &host, LoadOptions::default())
    }

    /// Loads a method of a model over the delegates of `host`. A `.pt2` is compiled in memory first; so is a `.pte` that holds
    /// no blob for any backend of the configuration, where it can be read back (see [`RunReport::not_partitioned`]).
    ///
    /// # Errors
    /// The file is malformed, holds what is not supported, has no such method; or a region is bound to nothing and
    /// `fallback = "deny"`.
    pub fn open(source: &Source, config: &Config, host: &Arc<Host>, options: LoadOptions) -> Result<Session, Error> {
        check_config(config)?;
        let rules = DeviceRules::new(config, host);
        let denied = denied(config, &rules)?;
        let mut session = Session::open_over(source, config, host, &rules, options)?;
        session.denied = denied;
        Ok(session)
    }

    fn open_over(
        source: &Source,
        config: &Config,
        host: &Arc<Host>,
        rules: &DeviceRules<'_>,
        options: LoadOptions,
    ) -> Result<Session, Error> {
        match source.format()? {
            Format::Pt2 => {
                let (compiled, at_load) = compile_at_load(source, config, host, rules, &options)?;
                let compiled = Source::from_shared(Bytes::from(compiled.bytes), source.name());
                let mut session = Session::open_program(&compiled, config, host, rules, options)?;
                session.at_load = at_load;
                Ok(session)
            }
            Format::Pte => Session::open_program(source, config, host, rules, options),
            Format::Bundled => {
                let file = source.bytes().as_slice();
                let bundle = BundledProgram::parse(file).map_err(|error| Error::Program {
                    name: source.name().to_string(),
                    source: error,
                })?;
                // A bundle's program need not be aligned in the file, so it is taken out.
                let program = Source::from_shared(Bytes::from(bundle.program.to_vec()), source.name());
                Session::open_program(&program, config, host, rules, options)
            }
            Format::Ptd => Err(Error::UnknownFormat {
                name: source.name().to_string(),
                hint: "a data file is given beside its program (`--data`)".to_string(),
            }),
        }
    }

    fn open_program(
        source: &Source,
        config: &Config,
        host: &Arc<Host>,
        rules: &DeviceRules<'_>,
        options: LoadOptions,
    ) -> Result<Session, Error> {
        let (file, name) = (source.bytes().clone(), source.name());
        let malformed = |error| Error::Program {
            name: name.to_string(),
            source: error,
        };
        let program = source.program().map_err(malformed)?;
        // The portable plan is whole without the overlay, so that a damaged one costs the delegates and no more.
        let (overlay, mut not_partitioned) = match read_overlay(&program, &file, name) {
            Ok(overlay) => (overlay, None),
            Err(error) if config.select.fallback == Fallback::Deny => return Err(error),
            Err(error) => (Overlay::default(), Some(error.to_string())),
        };
        if should_recompile(&overlay, config, host, rules) {
            match compile_at_load(source, config, host, rules, &options) {
                Ok((compiled, at_load)) => {
                    let file = Bytes::from(compiled.bytes);
                    let program = Arc::new(Verified::parse(file.as_slice()).map_err(malformed)?);
                    let overlay = read_overlay(&program, &file, name)?;
                    let mut session = Session::ready(program, overlay, file, name, config, host, rules, options)?;
                    session.at_load = at_load;
                    return Ok(session);
                }
                Err(error) => not_partitioned = Some(error.to_string()),
            }
        }
        // Delegates have packed copies of most constants.
        let constants = program.constant_segment.map(|at| program.segments.get(at as usize));
        if let Some(constants) = constants.flatten() {
            source.set_apart(constants);
        }
        let mut session = Session::ready(program, overlay, file, name, config, host, rules, options)?;
        source.give_back();
        session.not_partitioned = not_partitioned;
        Ok(session)
    }

    fn ready(
        program: Arc<Verified>,
        overlay: Overlay,
        file: Bytes,
        name: &str,
        config: &Config,
        host: &Arc<Host>,
        rules: &DeviceRules<'_>,
        options: LoadOptions,
    ) -> Result<Session, Error> {
        let parallel = options.threads.map_or_else(
            || configured_threads(config),
            |threads| Parallel::new(delegraph_threads::pool(), threads),
        );
        let external = match options.data {
            None => None,
            Some(source) => {
                let data = DataFile::parse(source.bytes().as_slice()).map_err(|error| Error::Program {
                    name: source.name().to_string(),
                    source: error,
                })?;
                Some((data, source.bytes().clone()))
            }
        };
        let data = Arc::new(FileData {
            file: file.clone(),
            external,
            left_out: {
                // A file says whatever it likes.
                let mut names = overlay.left_out.clone();
                names.sort_unstable();
                names
            },
        });
        let mut executor_options = options.executor;
        executor_options.parallel = parallel;
        if config.select.fallback == Fallback::Deny {
            executor_options.fallback = delegraph_executor::Fallback::Deny;
        }
        let check = Arc::new(RegionCheck::default());
        if config.select.self_check == SelfCheck::FirstRun {
            executor_options.self_check = Some(check.clone());
        }
        let load = |error| Error::Load {
            name: name.to_string(),
            source: error,
        };
        let arenas = Arc::new(SharedArenas::default());
        let method = overlay.methods.iter().find(|m| m.method == options.method);
        if method.is_some_and(|method| !method.regions.is_empty()) {
            executor_options.arenas = Some(arenas.clone());
            executor_options.delegates_follow = true;
        }
        let buckets = method.map(Buckets::new).transpose();
        let buckets = buckets.map_err(|problem| Error::Segment {
            name: name.to_string(),
            key: OVERLAY_KEY.to_string(),
            problem,
        })?;
        let watch = Watch {
            cancel: executor_options.cancel.clone(),
            buckets: Arc::new(buckets.unwrap_or_default()),
            ..Watch::default()
        };
        let mut executor = Executor::new(program.clone(), &options.method, data, executor_options).map_err(load)?;
        let (mut regions, mut counts, mut delegates) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(method) = method {
            let binder = Binder {
                name,
                program: &program,
                file: &file,
                executor: &executor,
                config,
                host,
                constants: constant_ranges(&program),
                parallel,
                arenas: &arenas,
                watch: watch.clone(),
                rules,
                check: &check,
            };
            let bound = binder.bind(method)?;
            (regions, counts, delegates) = (bound.states, bound.counts, bound.delegates);
            if let Err(error) = executor.bind(bound.bound) {
                let problem = error.to_string();
                if config.select.fallback == Fallback::Deny {
                    return Err(Error::Segment {
                        name: name.to_string(),
                        key: OVERLAY_KEY.to_string(),
                        problem,
                    });
                }
                for region in &mut regions {
                    let lost = region.backend.take().map(|backend| (backend, problem.clone()));
                    region.refusals.extend(lost);
                }
            }
        }
        if let Some(error) = executor.cannot_run() {
            return Err(load(error));
        }
        let outside = executor
            .plan()
            .instructions
            .iter()
            .enumerate()
            .filter(|(i, instruction)| {
                let inside = regions
                    .get(regions.partition_point(|r| r.end as usize <= *i))
                    .is_some_and(|r| r.start as usize <= *i);
                matches!(instruction, Instruction::Kernel { .. }) && !inside
            })
            .count() as u64;
        Ok(Session {
            executor,
            program,
            file,
            regions,
            counts,
            memories: watch.memories.clone(),
            bound_outputs: Vec::new(),
            memory_report: MemoryReport::default(),
            delegates,
            watch,
            outside,
            not_partitioned: None,
            denied: Vec::new(),
            at_load: LoadReport::default(),
            recorder: None,
            threads: parallel.threads(),
            given: Vec::new(),
        })
    }

    /// What the method takes, in order.
    pub fn inputs(&self) -> Vec<InputInfo> {
        let plan = self.executor.plan();
        let used_as_literal = literal_inputs(plan);
        plan.inputs
            .iter()
            .enumerate()
            .map(|(i, &index)| {
                let (name, kind) = match &plan.values[index as usize] {
                    EValue::Tensor(tensor) => (
                        tensor.name.clone(),
                        InputKind::Tensor {
                            dtype: tensor.dtype,
                            sizes: tensor.sizes,
                            dynamic: tensor.dynamism != Dynamism::Static,
                        },
                    ),
                    EValue::Int(i) if used_as_literal.contains(&index) => (None, InputKind::Literal(Value::Int(*i))),
                    EValue::Bool(b) if used_as_literal.contains(&index) => (None, InputKind::Literal(Value::Bool(*b))),
                    EValue::Double(f) if used_as_literal.contains(&index) => {
                        (None, InputKind::Literal(Value::Float(*f)))
                    }
                    EValue::Int(_) => (None, InputKind::Int),
                    EValue::Bool(_) => (None, InputKind::Bool),
                    EValue::Double(_) => (None, InputKind::Float),
                    // The text is the file's; nothing reads it, so any is accepted.
                    _ => (None, InputKind::Literal(Value::None)),
                };
                InputInfo {
                    name: name.unwrap_or_else(|| format!("input_{i}")),
                    kind,
                }
            })
            .collect()
    }

    /// What the method gives, in order.
    pub fn outputs(&self) -> Vec<InputInfo> {
        let plan = self.executor.plan();
        plan.outputs
            .iter()
            .enumerate()
            .map(|(i, &index)| {
                let (name, kind) = match &plan.values[index as usize] {
                    EValue::Tensor(tensor) => (
                        tensor.name.clone(),
                        InputKind::Tensor {
                            dtype: tensor.dtype,
                            sizes: tensor.sizes,
                            dynamic: tensor.dynamism != Dynamism::Static,
                        },
                    ),
                    EValue::Int(_) => (None, InputKind::Int),
                    EValue::Bool(_) => (None, InputKind::Bool),
                    EValue::Double(_) => (None, InputKind::Float),
                    _ => (None, InputKind::Literal(Value::None)),
                };
                InputInfo {
                    name: name.unwrap_or_else(|| format!("output_{i}")),
                    kind,
                }
            })
            .collect()
    }

    /// Where the method reads an input, for a caller that makes its data there instead of having it copied: fill the bytes,
    /// which are exactly those of a row-major tensor of `shape`, then run with [`Value::InPlace`]. A run may use them for
    /// something else, so they are filled before each.
    ///
    /// # Errors
    /// There is no such input, it is no tensor, or it does not take this shape.
    pub fn input_buffer(&mut self, index: usize, shape: Dims) -> Result<&mut [u8], Error> {
        let plan = self.executor.plan();
        let declared = plan.inputs.get(index).map(|&value| &plan.values[value as usize]);
        if let Some(EValue::Tensor(tensor)) = declared
            && !tensor.dim_order.is_sorted()
        {
            return Err(Error::Usage(format!(
                "input {index} does not lie in memory row-major: give it as a tensor"
            )));
        }
        self.executor
            .input_mut(index, &shape)
            .map_err(|error| Error::Usage(error.to_string()))
    }

    /// Runs the method once. Tensors are copied in where they cannot be read where they are, but for [`Value::InPlace`]; outputs are views until the next run. A steady
    /// run of bounded shapes allocates nothing.
    ///
    /// # Errors
    /// An input that the method does not take, or a kernel that refuses its arguments. State is as before then.
    pub fn run(&mut self, inputs: &[Value<'_>]) -> Result<(), Error> {
        let mut given = emptied(std::mem::take(&mut self.given));
        // Memory of the app's, which has more to it than bytes.
        let mut lies_apart = !self.bound_outputs.is_empty();
        for (i, value) in inputs.iter().enumerate() {
            given.push(input(value).map_err(|problem| Error::Usage(format!("input {i}: {problem}")))?);
            if let Value::Memory(view) = value {
                self.memories.add(view.memory);
                lies_apart = true;
            }
        }
        if lies_apart && let Err(error) = self.access(inputs, true) {
            let _ = self.access(inputs, false);
            return Err(error);
        }
        // Runs come one after the other: nobody counts beside this.
        let runs = self.watch.runs.load(Ordering::Relaxed);
        self.watch.runs.store(runs.wrapping_add(1), Ordering::Relaxed);
        self.watch.buckets.choose(&given);
        if let Some(recorder) = &self.recorder {
            recorder.run_begins();
        }
        let done = self.executor.run(&given).map_err(|error| match error {
            RunError::InputCount { .. } | RunError::Input { .. } => Error::Usage(error.to_string()),
            other => Error::Run(other),
        });
        if let Some(recorder) = &self.recorder {
            recorder.run_ended();
        }
        self.given = emptied(given);
        if !lies_apart {
            return done;
        }
        let delivered = done.and_then(|()| {
            self.count_inputs(inputs);
            self.deliver_outputs()
        });
        let ended = self.access(inputs, false);
        delivered.and(ended)
    }

    /// Counts what became of inputs in memory of the app's.
    fn count_inputs(&mut self, inputs: &[Value<'_>]) {
        for (i, value) in inputs.iter().enumerate() {
            let Value::Memory(view) = value else { continue };
            if self.executor.was_lent(i) {
                self.memory_report.inputs_in_place += 1;
            } else {
                self.memory_report.inputs_copied += 1;
                self.memory_report.copied_bytes += view.bytes().map_or(0, <[u8]>::len) as u64;
            }
        }
    }

    /// How many outputs the method has.
    pub fn output_count(&self) -> usize {
        self.executor.output_count()
    }

    /// An output of the last run.
    ///
    /// # Errors
    /// There is no such output, or nothing ran yet.
    pub fn output(&self, index: usize) -> Result<Value<'_>, Error> {
        Ok(value(self.executor.output(index)?))
    }

    /// An input as the last run left it; `None` where it cannot be seen.
    pub fn input_after(&self, index: usize) -> Option<Value<'_>> {
        self.executor.input_after(index).ok().map(value)
    }

    /// A mutable buffer by name; `None` where the file names none so. One that a delegate keeps is fetched, and it goes on keeping it.
    ///
    /// # Errors
    /// A delegate keeps it, and does not give it or has lost it.
    pub fn state(&mut self, name: &str) -> Result<Option<Value<'_>>, Error> {
        let state = self.executor.state(name)?;
        Ok(state.map(|tensor| value(Output::Tensor(tensor))))
    }

    /// Names of the mutable buffers that have one.
    pub fn state_names(&self) -> impl Iterator<Item = &str> {
        self.executor.state_names()
    }

    /// Takes the present values of the mutable buffers that another session has under the same name, dtype and shape: two
    /// methods of one model are two sessions, and this is how what one did shows in the other. Gives the number taken.
    ///
    /// # Errors
    /// A delegate of the other session does not give a buffer that it keeps. What delegates of this one keep may be lost then, and each run says so
    /// until [`Session::reset`] or until buffers are taken again.
    pub fn adopt_state(&mut self, other: &mut Session) -> Result<usize, Error> {
        Ok(self.executor.adopt_state(&mut other.executor)?)
    }

    /// Gives every mutable buffer its initial value again, also one that a delegate keeps or has lost.
    pub fn reset(&mut self) {
        self.executor.reset();
    }

    /// What ran where so far, and why.
    pub fn report(&self) -> RunReport {
        let mut regions = self.regions.clone();
        for (region, counts) in regions.iter_mut().zip(&self.counts) {
            if let Some(counts) = counts {
                region.copied_tensors = counts.copied_tensors.load(Ordering::Relaxed);
                region.copied_bytes = counts.copied_bytes.load(Ordering::Relaxed);
                region.kept_state_bytes = counts.moved_bytes.load(Ordering::Relaxed);
                region.other_sizes = counts.other_sizes.load(Ordering::Relaxed);
                for (bucket, runs) in region.buckets.iter_mut().zip(&counts.bucket_runs) {
                    bucket.runs = runs.load(Ordering::Relaxed);
                }
                region.shared_memories = counts.memories.load(Ordering::Relaxed);
            }
        }
        for bound in self.executor.report() {
            if let Some(state) = regions.iter_mut().find(|r| r.start == bound.start) {
                state.delegated_runs = bound.delegated;
                state.portable_runs = bound.portable;
                state.self_check = words(&bound.checked);
                state.kept_state_bytes += bound.moved;
                if let Some(error) = &bound.last_error {
                    state.refusals.push((bound.backend.clone(), error.to_string()));
                }
            }
        }
        let fallen: u64 = regions
            .iter()
            .filter(|r| r.backend.is_none() || r.portable_runs > 0)
            .map(|r| r.nodes)
            .sum();
        RunReport {
            regions,
            portable_nodes: self.outside + fallen,
            not_partitioned: self.not_partitioned.clone(),
            denied: self.denied.clone(),
            problems: self.at_load.problems.clone(),
            cache: self.at_load.cache.clone(),
            memory: (self.memory_report != MemoryReport::default()).then_some(self.memory_report),
        }
    }

    /// Records every step from now on, and has delegates say what takes their time. What was recorded before is forgotten.
    pub fn start_trace(&mut self) {
        let segment = self.program.named(self.file.as_slice(), DEBUG_KEY);
        let recorder = Recorder::new(Names::new(segment, &self.executor.plan().name));
        self.executor.set_trace(Some(Box::new(recorder.clone())));
        self.watch.set_recorder(recorder.clone());
        self.recorder = Some(recorder);
    }

    /// The recorded runs in Chrome's trace event format, which Perfetto opens too: the executor's steps in thread 1, the events of
    /// delegates in a thread for each of their lanes, all on one clock. `args` name the node, its operator and its source line.
    pub fn chrome_trace(&self) -> String {
        let recorder = self.recorder.as_ref();
        recorder.map_or_else(|| "{\"traceEvents\":[]}".to_string(), chrome_trace)
    }

    /// What the recorded runs spent their time on; empty: nothing is recorded.
    pub fn profile(&self) -> Vec<crate::RunProfile> {
        self.recorder.as_ref().map(crate::profile::profile).unwrap_or_default()
    }

    /// Threads that kernels, and delegates that borrow them, work on at once.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The recorded runs as an ETDump, which `executorch.devtools.Inspector` opens.
    ///
    /// # Errors
    /// It would be larger than the format can be.
    pub fn etdump(&self) -> Result<Vec<u8>, Error> {
        match &self.recorder {
            Some(recorder) => crate::dump::etdump(recorder),
            None => Err(Error::Usage(
                "nothing is recorded: call `start_trace` before the run".to_string(),
            )),
        }
    }
}

/// The configuration's backends that its device rules deny here, and why.
///
/// # Errors
/// None is left, and fallback is denied.
fn denied(config: &Config, rules: &DeviceRules<'_>) -> Result<Vec<(String, String)>, Error> {
    let order = wanted(config);
    let denial = |backend: &String| Some((backend.clone(), rules.denial(backend)?));
    let denied: Vec<(String, String)> = order.iter().filter_map(denial).collect();
    if denied.len() == order.len()
        && config.select.fallback == Fallback::Deny
        && let Some((backend, reason)) = denied.first().cloned()
    {
        return Err(Error::Absent(HostError::Refused {
            backend,
            manifest: None,
            reason,
        }));
    }
    Ok(denied)
}

/// What happened when a model was partitioned at load.
#[derive(Debug, Default)]
struct LoadReport {
    cache: Option<CacheReport>,
    problems: Vec<(String, String)>,
}

/// Partitions and compiles a model for the configuration's backends, with the blobs that the cache has.
fn compile_at_load(
    source: &Source,
    config: &Config,
    host: &Host,
    rules: &DeviceRules<'_>,
    options: &LoadOptions,
) -> Result<(Compiled, LoadReport), Error> {
    let module = import(source)?;
    let at_load = AtLoad {
        cache: LoadCache::open(config, options.cache_folder.as_deref(), source),
        rules,
    };
    let compiled = compile_over(module, config, host, Some(&at_load), &mut |_| {});
    // What was compiled before an error is kept: it need not be done again.
    let cache = at_load.cache.map(|cache| cache.borrow_mut().finish());
    let compiled = compiled?;
    let refused = compiled.report.graphs.iter().flat_map(|graph| &graph.problems);
    let refused = refused.filter(|problem| problem.failed);
    let mut problems: Vec<(String, String)> = refused.map(|p| (p.backend.clone(), p.message.clone())).collect();
    // One that is absent is no news: it stands in the list in case it is here.
    let silent = compiled
        .report
        .backends
        .iter()
        .filter(|state| host.delegate(&state.backend).is_ok());
    problems.extend(silent.filter_map(|state| Some((state.backend.clone(), state.problem.clone()?))));
    problems.dedup();
    Ok((compiled, LoadReport { cache, problems }))
}

/// The methods of a model, in the order of the file. A `.pt2` is imported for it.
///
/// # Errors
/// The file is malformed, or holds what is not supported.
pub fn methods(source: &Source) -> Result<Vec<String>, Error> {
    let malformed = |error| Error::Program {
        name: source.name().to_string(),
        source: error,
    };
    let names = |program: &Verified| program.plans.iter().map(|plan| plan.name.clone()).collect();
    let file = source.bytes().as_slice();
    match source.format()? {
        Format::Pt2 => {
            let module = import(source)?;
            Ok(module.graphs.iter().map(|graph| graph.name.clone()).collect())
        }
        Format::Pte => Ok(names(&*source.program().map_err(malformed)?)),
        Format::Bundled => {
            let bundle = BundledProgram::parse(file).map_err(malformed)?;
            Ok(names(&Verified::parse(bundle.program).map_err(malformed)?))
        }
        Format::Ptd => Err(Error::UnknownFormat {
            name: source.name().to_string(),
            hint: "a data file has no methods".to_string(),
        }),
    }
}

fn read_overlay(program: &Verified, file: &Bytes, name: &str) -> Result<Overlay, Error> {
    let Some(json) = program.named(file.as_slice(), OVERLAY_KEY) else {
        return Ok(Overlay::default());
    };
    serde_json::from_slice(json).map_err(|error| Error::Segment {
        name: name.to_string(),
        key: OVERLAY_KEY.to_string(),
        problem: error.to_string(),
    })
}

/// Late binding: the configuration names a backend that is here, and the file has no blob for any that it names. A program of
/// others is lifted back then, which says why where it cannot be.
fn should_recompile(overlay: &Overlay, config: &Config, host: &Host, rules: &DeviceRules<'_>) -> bool {
    let mut order = wanted(config);
    order.retain(|backend| rules.denial(backend).is_none());
    if order.is_empty() || config.select.order.first().is_some_and(|name| name == PORTABLE) {
        return false;
    }
    let mut candidates = overlay
        .methods
        .iter()
        .flat_map(|m| &m.regions)
        .flat_map(|r| r.candidates.iter().chain(r.bucketed.iter().map(|b| &b.candidate)));
    let covered = candidates.any(|candidate| order.contains(&candidate.backend));
    !covered && order.iter().any(|backend| host.delegate(backend).is_ok())
}

/// Inputs that no instruction and no output reads: fixed when the model was exported.
fn literal_inputs(plan: &delegraph_pte::model::Plan) -> Vec<u32> {
    let mut read = vec![false; plan.values.len()];
    let mut mark = |values: &[u32]| values.iter().for_each(|&value| read[value as usize] = true);
    for instruction in &plan.instructions {
        match instruction {
            Instruction::Kernel { args, .. } | Instruction::Delegate { args, .. } => mark(args),
            Instruction::Move { from, .. } => mark(&[*from]),
            Instruction::JumpFalse { condition, .. } => mark(&[*condition]),
            Instruction::Free { .. } => {}
        }
    }
    for value in &plan.values {
        if let EValue::IntList(items) = value {
            mark(items);
        }
    }
    mark(&plan.outputs);
    let numbers = plan
        .inputs
        .iter()
        .filter(|&&i| !matches!(plan.values[i as usize], EValue::Tensor(_)));
    numbers.copied().filter(|&value| !read[value as usize]).collect()
}

/// The room of a list for the next run: collecting an emptied list in place keeps its allocation.
fn emptied<'a>(mut list: Vec<Input<'_>>) -> Vec<Input<'a>> {
    list.clear();
    list.into_iter().map(|_| Input::None).collect()
}

fn input<'a>(value: &'a Value<'a>) -> Result<Input<'a>, String> {
    Ok(match value {
        Value::None => Input::None,
        Value::Bool(b) => Input::Bool(*b),
        Value::Int(i) => Input::Int(*i),
        Value::Float(f) => Input::Float(*f),
        Value::Str(s) => Input::Str(s),
        Value::InPlace(shape) => Input::InPlace(shape),
        Value::Memory(view) => Input::Bytes {
            dtype: view.dtype,
            sizes: &view.shape,
            data: view.bytes().ok_or_else(|| format!("{view:?} is not within it"))?,
        },
        Value::Tensor(tensor) if tensor.is_row_major() => Input::Bytes {
            dtype: tensor.dtype,
            sizes: &tensor.shape,
            data: tensor.bytes,
        },
        Value::Tensor(tensor) => Input::Tensor(
            Tensor::new(tensor.dtype, &tensor.shape, &tensor.strides, tensor.bytes)
                .map_err(|error| error.to_string())?,
        ),
    })
}

pub(crate) fn value(output: Output<'_>) -> Value<'_> {
    match output {
        Output::None => Value::None,
        Output::Bool(b) => Value::Bool(b),
        Output::Int(i) => Value::Int(i),
        Output::Float(f) => Value::Float(f),
        Output::Str(s) => Value::Str(s),
        Output::Tensor(tensor) => Value::Tensor(TensorView {
            dtype: tensor.dtype(),
            shape: *tensor.sizes(),
            strides: *tensor.strides(),
            bytes: tensor.bytes(),
        }),
    }
}
