//! The double: a healthy delegate with every feature of the contract. What the conformance kit says of it has to be that nothing is wrong.
//!
//! It computes what the reference delegate computes, and adds what that one lacks:
//!
//! - submitted runs, done by a thread that stands for a device, one after another
//! - imported memory, whose buffers it checks in each run; of memory files and dma-bufs it reads and writes a map of its own, and it exports the former
//! - states that sessions keep, in the way of the fault delegate
//! - two targets, `double-1` and `double-2`, and no others
//! - graphs that are compiled together, with all their weights in one section that each blob has
//! - a blob that is kept as long as its session, with a section that each run reads where it lies
//! - the host's functions in each run: it looks at cancellation and deadline, logs, and borrows the host's threads
//!
//! Option `alignment`: its blobs require that tensors lie at such a multiple, with room for a multiple of so many bytes, and a run whose
//! tensors do not fails.

use delegraph_reference::Reference;
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, BlobMeta, BlobVerdict, Compile, Compiled, Context, DType, Delegate, Device, Error, HostMemory, Import, Info,
    KeptBlob, LogLevel, OptionValue, Options, Partition, Requirement, Run, Section, Session, SetError, Status,
    SubmittedRun, TensorOut, TensorPlace, TensorView, Weights,
};
#[cfg(unix)]
use delegraph_sdk::{Exported, External, ExternalMemory, HandleType, Handles, Mapped, Origin};
#[cfg(unix)]
use mapping::Mapping;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

// The states of the fault delegate: one way to keep them is enough.
#[cfg(unix)]
mod external;
#[path = "../../fault/src/keep.rs"]
mod keep;
#[cfg(unix)]
#[path = "sys.rs"]
mod mapping;

#[cfg(unix)]
delegraph_sdk::export_delegate!(Double: compile_set, run, submit, external, state);
#[cfg(not(unix))]
delegraph_sdk::export_delegate!(Double: compile_set, run, submit, import, state);

/// What the device is given to do.
enum Job {
    Run(Arc<Mutex<Core>>, SubmittedRun),
    Stop,
}

/// The delegate.
pub struct Double {
    inner: Reference,
    alignment: u32,
    jobs: Mutex<Sender<Job>>,
    device: Option<JoinHandle<()>>,
}

impl Delegate for Double {
    const INFO: Info = Info {
        name: "double",
        vendor: "Delegraph",
        version: env!("CARGO_PKG_VERSION"),
        build: "conformance double",
        format: "delegraph.double",
        format_version: 1,
    };

    const OPTIONS_SCHEMA: &'static str = r#"{
        "type": "object",
        "properties": { "alignment": {"type": "integer", "minimum": 0, "maximum": 4096} }
    }"#;

    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Double, Error> {
        options.check(&["alignment"])?;
        let alignment = match options.find("alignment") {
            Some(OptionValue::Int(alignment)) => u32::try_from(alignment).unwrap_or(0).min(4096),
            _ => 0,
        };
        let (sender, receiver) = channel();
        let device = std::thread::Builder::new()
            .name("double-device".to_string())
            .spawn(move || {
                while let Ok(Job::Run(core, run)) = receiver.recv() {
                    run.complete(|inputs, outputs, context| locked(&core).execute(inputs, outputs, context));
                }
            })
            .map_err(|error| Error::internal(format!("no thread for the device: {error}")))?;
        Ok(Double {
            inner: Reference::new(&Options::default(), context)?,
            alignment,
            jobs: Mutex::new(sender),
            device: Some(device),
        })
    }

    fn devices(&self) -> Vec<Device> {
        self.inner.devices()
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        let _ = locked(&self.jobs).send(Job::Stop);
        if let Some(device) = self.device.take() {
            let _ = device.join();
        }
    }
}

impl Compile for Double {
    fn partition(&self, graph: &ImageView<'_>, context: &Context<'_>) -> Result<Partition, Error> {
        known_target(context.target())?;
        self.inner.partition(graph, context)
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        target: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error> {
        in_time(context)?;
        known_target(target)?;
        // The weights have to be there: what is missing is said now, and not at the first run.
        for weight in graph.weights() {
            weights.bytes(weight.id())?;
        }
        let mut compiled = self.inner.compile(graph, weights, target, context)?;
        if let Some((kept, section)) = keep::section(graph) {
            compiled.kept_states = kept;
            compiled.sections.push(section);
        }
        let inputs = (0..graph.inputs().len() as u32).map(TensorPlace::Input);
        let outputs = (0..graph.outputs().len() as u32).map(TensorPlace::Output);
        let (alignment, size_multiple) = (self.alignment, self.alignment);
        let requirement = |tensor| Requirement {
            tensor,
            alignment,
            size_multiple,
        };
        if alignment > 0 {
            compiled.requirements = inputs.chain(outputs).map(requirement).collect();
        }
        compiled.sections.push(Section {
            name: PACKED.to_string(),
            align: PACKED_ALIGN,
            bytes: packed(graph),
        });
        Ok(compiled)
    }

    fn compile_set(
        &self,
        graphs: &[(ImageView<'_>, Weights<'_>)],
        target: &str,
        context: &Context<'_>,
    ) -> Result<Vec<Compiled>, SetError> {
        // Each weight once, whichever graphs have it.
        let (mut keys, mut pool) = (Vec::new(), Vec::new());
        for (number, (graph, weights)) in graphs.iter().enumerate() {
            for weight in graph.weights() {
                let key = weights.share_key(weight.id());
                if key.is_none() || !keys.contains(&key) {
                    keys.push(key);
                    let bytes = weights.bytes(weight.id()).map_err(|error| error.of_graph(number))?;
                    pool.extend_from_slice(bytes);
                }
            }
        }
        let mut blobs = Vec::with_capacity(graphs.len());
        for (number, (graph, weights)) in graphs.iter().enumerate() {
            let compiled = self.compile(graph, weights, target, context);
            let mut compiled = compiled.map_err(|error| error.of_graph(number))?;
            if !pool.is_empty() {
                compiled.sections.push(Section {
                    name: POOL.to_string(),
                    align: 64,
                    bytes: pool.clone(),
                });
                // So that a pool which is not the one that was written is noticed.
                compiled.sections.push(Section {
                    name: POOL_SUM.to_string(),
                    align: 8,
                    bytes: sum(&pool).to_le_bytes().to_vec(),
                });
            }
            blobs.push(compiled);
        }
        Ok(blobs)
    }
}

/// The section that stands for packed weights: its last eight bytes are the sum of those before. Vectors are loaded from there, so it asks for
/// their alignment.
const PACKED: &str = "packed";
const PACKED_ALIGN: u32 = 64;

fn packed(graph: &ImageView<'_>) -> Vec<u8> {
    let mut bytes = graph.bytes().to_vec();
    bytes.extend(sum(graph.bytes()).to_le_bytes());
    bytes
}

/// The packed section as a session has it.
enum Packed {
    /// Where it lies in the blob.
    Kept(KeptBlob),
    /// Of a host that does not keep blobs.
    Copied(Vec<u8>),
}

impl Packed {
    fn of(blob: &Blob<'_>) -> Result<Packed, Error> {
        let bytes = blob.section(PACKED)?;
        if !bytes.as_ptr().addr().is_multiple_of(PACKED_ALIGN as usize) {
            return Err(Error::invalid("the section `packed` does not lie as it asks for"));
        }
        let packed = match blob.keep() {
            Ok(kept) => Packed::Kept(kept),
            Err(_) => Packed::Copied(bytes.to_vec()),
        };
        packed.check()?;
        Ok(packed)
    }

    /// Whether it is what was written.
    fn check(&self) -> Result<(), Error> {
        let bytes = match self {
            Packed::Kept(kept) => kept.section(PACKED)?,
            Packed::Copied(bytes) => bytes,
        };
        match bytes.split_last_chunk::<8>() {
            Some((bytes, wanted)) if sum(bytes).to_le_bytes() == *wanted => Ok(()),
            _ => Err(Error::corrupt("the section `packed` is not what was written")),
        }
    }
}

/// The section with the weights of a set, and the one with the sum of its bytes.
const POOL: &str = "pool";
const POOL_SUM: &str = "pool-sum";

fn sum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

/// Whether there is such a chip.
fn known_target(target: &str) -> Result<(), Error> {
    match ["", "double-1", "double-2"].contains(&target) {
        true => Ok(()),
        false => {
            Err(Error::invalid(format!("there is no target `{target}`")).hint("there are `double-1` and `double-2`"))
        }
    }
}

impl Run for Double {
    fn check_blob(&self, meta: &BlobMeta<'_>) -> BlobVerdict {
        match known_target(meta.target) {
            Ok(()) => BlobVerdict::by_format(&Self::INFO, meta),
            Err(error) => BlobVerdict::UnsupportedHere(error.message),
        }
    }

    fn load(&self, blob: &Blob<'_>, weights: &Weights<'_>, context: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        if let Some(device) = blob.device.filter(|device| *device > 0) {
            return Err(Error::new(Status::NOT_FOUND, format!("there is no device {device}")));
        }
        if let (Ok(pool), Ok(wanted)) = (blob.section(POOL), blob.section(POOL_SUM))
            && sum(pool).to_le_bytes() != *wanted
        {
            return Err(Error::corrupt("the weights of the set are not those that were written"));
        }
        let packed = Packed::of(blob)?;
        let inner = self.inner.load(blob, weights, context)?;
        let inner = match blob.section(keep::SECTION) {
            Ok(section) => Box::new(keep::Keeping::new(inner, section)?),
            Err(_) => inner,
        };
        Ok(Box::new(DoubleSession {
            core: Arc::new(Mutex::new(Core {
                inner,
                packed,
                alignment: self.alignment.max(1) as usize,
            })),
            jobs: locked(&self.jobs).clone(),
        }))
    }
}

/// What it remembers of imported memory.
pub enum Registered {
    /// Where the host sees it.
    Host {
        /// Address.
        base: usize,
        /// Bytes.
        size: usize,
    },
    /// Where it sees it itself.
    #[cfg(unix)]
    Mapped(Mapping),
}

impl Import for Double {
    type Buffer = Registered;

    fn import(&self, memory: HostMemory, _: &Context<'_>) -> Result<Registered, Error> {
        Ok(Registered::Host {
            base: memory.as_ptr().addr(),
            size: memory.size(),
        })
    }
}

#[cfg(unix)]
impl External for Double {
    fn handles(&self, _: Option<u32>) -> Handles {
        Handles {
            import: [HandleType::Memfd, HandleType::DmaBuf].into_iter().collect(),
            export: [HandleType::Memfd].into_iter().collect(),
        }
    }

    fn import_external(&self, memory: ExternalMemory<'_>, _: &Context<'_>) -> Result<Registered, Error> {
        match memory.handle {
            HandleType::Memfd | HandleType::DmaBuf => {}
            other => return Err(Error::unsupported(format!("it takes no memory by {other:?}"))),
        }
        let mapping = Mapping::new(memory.fd, memory.size);
        let mapping = mapping.map_err(|error| Error::invalid(format!("the memory cannot be mapped: {error}")))?;
        Ok(Registered::Mapped(mapping))
    }

    fn export(
        &self,
        _: Option<u32>,
        handle: HandleType,
        size: u64,
        _: &Context<'_>,
    ) -> Result<Exported<Registered>, Error> {
        if handle != HandleType::Memfd {
            return Err(Error::unsupported(format!("it gives no memory by {handle:?}")));
        }
        let failed = |error| {
            Error::new(
                Status::OUT_OF_MEMORY,
                format!("no memory file of {size} bytes: {error}"),
            )
        };
        let (mapping, fd, size) = Mapping::create(size).map_err(failed)?;
        Ok(Exported {
            buffer: Registered::Mapped(mapping),
            fd,
            size,
            origin: Origin::default(),
        })
    }

    fn mapped(&self, buffer: &Registered) -> Option<Mapped> {
        match buffer {
            Registered::Mapped(mapping) => Some(mapping.mapped()),
            Registered::Host { .. } => None,
        }
    }
}

/// What runs of a session work on.
struct Core {
    inner: Box<dyn Session>,
    packed: Packed,
    alignment: usize,
}

struct DoubleSession {
    core: Arc<Mutex<Core>>,
    jobs: Sender<Job>,
}

impl Session for DoubleSession {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        locked(&self.core).execute(inputs, outputs, context)
    }

    fn submit(&mut self, run: SubmittedRun) {
        // A device that is gone drops the run, which ends it.
        let _ = self.jobs.send(Job::Run(self.core.clone(), run));
    }

    fn state_commit(&mut self, accept: bool, context: &Context<'_>) -> Result<(), Error> {
        locked(&self.core).inner.state_commit(accept, context)
    }

    fn state_reset(&mut self, state: u32, context: &Context<'_>) -> Result<(), Error> {
        locked(&self.core).inner.state_reset(state, context)
    }

    fn state_truncate(&mut self, state: u32, length: u64, context: &Context<'_>) -> Result<(), Error> {
        locked(&self.core).inner.state_truncate(state, length, context)
    }

    fn state_snapshot(&mut self, state: u32, out: &mut [u8], context: &Context<'_>) -> Result<(), Error> {
        locked(&self.core).inner.state_snapshot(state, out, context)
    }

    fn state_restore(&mut self, state: u32, bytes: &[u8], context: &Context<'_>) -> Result<(), Error> {
        locked(&self.core).inner.state_restore(state, bytes, context)
    }
}

impl Core {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        in_time(context)?;
        if context.log_enabled(LogLevel::Trace) {
            context.log(LogLevel::Trace, "the double runs");
        }
        self.places(inputs, outputs)?;
        self.packed.check()?;
        let inner = &mut *self.inner;
        let run = |inputs: &[TensorView<'_>], outputs: &mut [TensorOut<'_>]| {
            let (inputs, mut rooms) = elements_of(inputs, outputs);
            inner.execute(&inputs, &mut rooms, context)?;
            // It has nothing to share out; the host's threads are asked for all the same.
            let sums: Vec<Mutex<u64>> = rooms.iter().map(|_| Mutex::new(0)).collect();
            let bytes: Vec<&[u8]> = rooms.iter().map(|room| &*room.bytes).collect();
            context.parallel_for(bytes.len(), |i| {
                *locked(&sums[i]) = bytes[i].iter().map(|byte| u64::from(*byte)).sum();
            });
            Ok(())
        };
        #[cfg(unix)]
        external::in_place(inputs, outputs, mapping_of, run)?;
        #[cfg(not(unix))]
        run(inputs, outputs)?;
        in_time(context)
    }

    /// Whether tensors lie as required, and where their buffers say.
    fn places(&self, inputs: &[TensorView<'_>], outputs: &[TensorOut<'_>]) -> Result<(), Error> {
        let read = inputs.iter().map(|t| (t.bytes, &t.buffer));
        let written = outputs.iter().map(|t| (&*t.bytes, &t.buffer));
        // Tensors of states that are kept have no bytes.
        for (bytes, buffer) in read.chain(written).filter(|(bytes, _)| !bytes.is_empty()) {
            let address = bytes.as_ptr().addr();
            if !address.is_multiple_of(self.alignment) || !bytes.len().is_multiple_of(self.alignment) {
                return Err(Error::invalid("a tensor does not lie as it requires"));
            }
            let Some(buffer) = buffer else { continue };
            let known = buffer
                .buffer::<Registered>()
                .ok_or_else(|| Error::invalid("the buffer is not one of this delegate's"))?;
            let offset = buffer.offset() as usize;
            let lies = match known {
                Registered::Host { base, size } => base + offset == address && offset + bytes.len() <= *size,
                // Where the host sees it is the host's affair.
                #[cfg(unix)]
                Registered::Mapped(_) => true,
            };
            if !lies {
                return Err(Error::invalid("a tensor does not lie where its buffer says"));
            }
        }
        Ok(())
    }
}

/// The map that a tensor lies in, and where.
#[cfg(unix)]
fn mapping_of<'m>(buffer: &delegraph_sdk::Imported<'m>) -> Result<Option<(&'m Mapping, u64)>, Error> {
    Ok(match buffer.buffer::<Registered>() {
        Some(Registered::Mapped(mapping)) => Some((mapping, buffer.offset())),
        _ => None,
    })
}

/// Whether somebody still waits.
fn in_time(context: &Context<'_>) -> Result<(), Error> {
    if context.is_cancelled() {
        return Err(Error::new(Status::CANCELLED, "nobody waits for it any more"));
    }
    match context.time_left() {
        Some(Duration::ZERO) => Err(Error::new(Status::TIMEOUT, "the deadline has passed")),
        _ => Ok(()),
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

/// A lock whose holder leaves nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
