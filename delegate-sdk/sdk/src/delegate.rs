//! The traits that make a delegate: who it is, and one for each role.

use crate::{
    Blob, BlobMeta, BlobVerdict, Compiled, Context, Error, Extension, HostMemory, Options, Partition, SetError,
    SubmittedRun, TensorOut, TensorView, Weights,
};
use delegraph_abi::image::ImageView;
use std::any::Any;

/// What a delegate says of itself. Everything is constant: the host reads it before it initializes anything.
#[derive(Debug, Clone, Copy)]
pub struct Info {
    /// Backend id, for example `vulkan`; the manifest says the same.
    pub name: &'static str,
    /// Who makes it.
    pub vendor: &'static str,
    /// Semantic version; the manifest says the same.
    pub version: &'static str,
    /// Names one build; may be empty.
    pub build: &'static str,
    /// Name of the form of its blobs; two forms never share a name.
    pub format: &'static str,
    /// Version of that form. A blob of another version is `UNSUPPORTED_HERE`, unless `check_blob` says better.
    pub format_version: u32,
}

/// A delegate: who it is, and how it starts. What it does is said by its roles: [`Compile`], [`Run`] or both.
///
/// All methods of it and its roles may be called from several threads at once.
pub trait Delegate: Sized + Send + Sync + 'static {
    /// Its name and version.
    const INFO: Info;

    /// The schema of its options as JSON Schema: an object with `properties`, each of `type` `boolean`, `integer`, `number` or
    /// `string`, with `enum`, `minimum`, `maximum`, `default` and `description` as needed, and `required`. The host refuses options
    /// that do not fit before it starts the delegate, with the nearest key. Empty: there is none, and [`Options::check`] has to do.
    const OPTIONS_SCHEMA: &'static str = "";

    /// Starts it.
    ///
    /// # Errors
    /// An option that it does not know ([`Options::check`]), or a driver that is not there.
    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Self, Error>;

    /// The devices found when it started. Ids are 0, 1, … in order. A delegate that only compiles has none.
    fn devices(&self) -> Vec<Device>;

    /// A table of functions beside the contract, of this name and of this revision or a later one. The host may ask before anything
    /// is started.
    fn extension(_name: &str, _min_revision: u32) -> Option<Extension> {
        None
    }
}

/// The role of a compiler: says what it takes, and compiles it. It needs no device.
pub trait Compile: Delegate {
    /// Says for every node of the graph whether it takes it, or why not, for the target that [`Context::target`] names.
    ///
    /// # Errors
    /// Only what has nothing to do with single nodes, as a target that it does not have: `INVALID_ARGUMENT`, with the names of those that
    /// it has.
    fn partition(&self, graph: &ImageView<'_>, context: &Context<'_>) -> Result<Partition, Error>;

    /// Compiles a graph, of which it took every node. Inputs and outputs of the session are the graph's, in order. What takes long
    /// calls [`Context::progress`], and ends early when [`Context::is_cancelled`].
    ///
    /// # Errors
    /// Something that could not be seen before; name the node, and the host tags again without it.
    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        target: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error>;

    /// Compiles graphs that one program uses together: its methods, and the sizes that it is compiled for. It took every node of each, and
    /// each blob is loaded by itself. Sections of equal bytes are stored once for all of them: put what the graphs share into a section of
    /// its own ([`crate::Blob::share_hash`]). [`Weights::share_key`] tells which weights they share. Called only if the delegate is exported
    /// with `compile_set`.
    ///
    /// Where it is not overridden, each graph is compiled as if it were alone.
    ///
    /// # Errors
    /// As [`Compile::compile`], with the graph. One that names none makes the host compile each alone.
    fn compile_set(
        &self,
        graphs: &[(ImageView<'_>, Weights<'_>)],
        target: &str,
        context: &Context<'_>,
    ) -> Result<Vec<Compiled>, SetError> {
        let compile = |(number, (graph, weights)): (usize, &(ImageView<'_>, Weights<'_>))| {
            let compiled = self.compile(graph, weights, target, context);
            compiled.map_err(|error| error.of_graph(number))
        };
        graphs.iter().enumerate().map(compile).collect()
    }
}

/// The role of an executor: loads what was compiled, here or elsewhere.
pub trait Run: Delegate {
    /// Judges a blob by its metadata, without loading it.
    fn check_blob(&self, meta: &BlobMeta<'_>) -> BlobVerdict {
        BlobVerdict::by_format(&Self::INFO, meta)
    }

    /// Makes a session of a blob. Its bytes are borrowed for the call: copy what is needed later, or keep them where they lie with
    /// [`Blob::keep`]. [`Weights::keep`] keeps the weights for as long as the session wants them.
    ///
    /// # Errors
    /// The blob is damaged or not fit, or the device failed.
    fn load(&self, blob: &Blob<'_>, weights: &Weights<'_>, context: &Context<'_>) -> Result<Box<dyn Session>, Error>;
}

/// The role of an executor that uses the host's memory in place. Export it with `import`.
pub trait Import: Run {
    /// What it makes of memory: a registration with its driver, which ends when it is dropped.
    type Buffer: Any + Send + Sync;

    /// Takes notice of memory that runs will read and write. Tensors that lie in it come with the buffer and their offset in it
    /// ([`TensorView::buffer`]).
    ///
    /// # Errors
    /// The device cannot; the host goes on without.
    fn import(&self, memory: HostMemory, context: &Context<'_>) -> Result<Self::Buffer, Error>;
}

/// A loaded blob. One run at a time; may move between threads.
pub trait Session: Send {
    /// Runs once. The host has checked number, dtype and rank of every tensor, and that sizes fit bytes and alignment
    /// fits the dtype. An output comes with its largest sizes; [`TensorOut::set_sizes`] states the actual ones.
    ///
    /// # Errors
    /// Sizes that do not fit the graph, or a failure of the device. The host then runs the region by itself: inputs must be
    /// untouched, outputs may hold anything.
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error>;

    /// Begins a run that may end later: hand `run` to whatever learns that the device is done, and return. It is called only if the
    /// delegate is exported with `submit`. Runs of one session are submitted one at a time.
    ///
    /// Where it is not overridden, the run is executed before this returns.
    fn submit(&mut self, run: SubmittedRun) {
        run.complete(|inputs, outputs, context| self.execute(inputs, outputs, context));
    }

    /// Ends what a run did to the states that the session keeps ([`crate::Compiled::kept_states`]): with `accept` their new values count,
    /// without it those before the run. Called once after every run that succeeded, before anything else. A run that failed must have
    /// changed no state. In a new session every element is 0.
    ///
    /// This and the methods below are called only if the delegate is exported with `state`. `state` is an index in the graph's
    /// states. What fails has changed nothing.
    ///
    /// # Errors
    /// The device failed. The host then takes the states for lost.
    fn state_commit(&mut self, _accept: bool, _context: &Context<'_>) -> Result<(), Error> {
        Err(no_states())
    }

    /// Makes every element of a state 0.
    ///
    /// # Errors
    /// It keeps no such state, or the device failed.
    fn state_reset(&mut self, _state: u32, _context: &Context<'_>) -> Result<(), Error> {
        Err(no_states())
    }

    /// Keeps the first `length` entries of a state along its growth axis, and makes the rest 0.
    ///
    /// # Errors
    /// The state does not grow, or as [`Session::state_reset`].
    fn state_truncate(&mut self, _state: u32, _length: u64, _context: &Context<'_>) -> Result<(), Error> {
        Err(no_states())
    }

    /// Writes the elements of a state, contiguous and row-major, to `out`, which has exactly their size.
    ///
    /// # Errors
    /// As [`Session::state_reset`].
    fn state_snapshot(&mut self, _state: u32, _out: &mut [u8], _context: &Context<'_>) -> Result<(), Error> {
        Err(no_states())
    }

    /// Makes a state what `bytes` hold, in the form of [`Session::state_snapshot`].
    ///
    /// # Errors
    /// As [`Session::state_reset`], or another number of bytes.
    fn state_restore(&mut self, _state: u32, _bytes: &[u8], _context: &Context<'_>) -> Result<(), Error> {
        Err(no_states())
    }
}

fn no_states() -> Error {
    Error::unsupported("sessions of this delegate keep no states")
}

/// Kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DeviceKind {
    Cpu,
    Gpu,
    Npu,
    Dsp,
    Mcu,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Kind.
    pub kind: DeviceKind,
    /// Name for people.
    pub name: String,
    /// Who makes it.
    pub vendor: String,
    /// Architecture or chip; a target of `compile` where the delegate has targets.
    pub arch: String,
    /// Driver version; may be empty.
    pub driver: String,
    /// Bytes of its memory; 0: not known.
    pub memory: u64,
}
