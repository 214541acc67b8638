//! Mutant delegates: each has one defect, and the conformance kit has to find it by the case that is meant for it.
//!
//! One library is all of them: the environment variable `DELEGRAPH_MUTANT` says which defect it has, and is read once a process. `none`, or
//! no variable, is the healthy double. It computes what the reference delegate computes, keeps states, and takes runs that end later; that it
//! passes every case is what makes a mutant that fails one mean something.
//!
//! [`defects`] is the table, which `cargo xtask mutants` reads too. What the C side shows is in `sys`, verdicts and blobs are here, runs in
//! `session`, numbers in `numbers` and `spatial`. Defects of the file itself (an executable stack) and of the manifest are made by
//! `cargo xtask mutants` in copies.

use delegraph_reference::Reference;
use delegraph_sdk::image::{ImageView, Kind, NodeIndex};
use delegraph_sdk::{
    Blob, BlobMeta, BlobVerdict, Compile, Compiled, Context, Delegate, Device, Error, Info, Options, Partition, Reason,
    Run, Section, Session, SetError, Status, Verdict, Weights,
};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub mod defects;
mod evaluate;
mod external;
mod image;
// The states of the fault delegate: one way to keep them is enough.
#[path = "../../fault/src/keep.rs"]
mod keep;
mod numbers;
mod session;
mod spatial;
mod sys;

/// Section of a blob with the checksum of its image.
const CHECK: &str = "check";
/// Section of a blob with its graph image, as the reference delegate calls it.
const IMAGE: &str = "image";

/// The name of the defect that this process's delegate has.
fn active() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| std::env::var("DELEGRAPH_MUTANT").unwrap_or_else(|_| "none".to_string()))
}

/// Whether this process's delegate has the defect.
fn is(name: &str) -> bool {
    active() == name
}

/// Counts what a process did; the number before.
fn count(counter: &AtomicU64) -> u64 {
    counter.fetch_add(1, Ordering::Relaxed)
}

/// The delegate.
pub struct Mutant {
    inner: Reference,
}

/// Delegates that are started and not shut down.
static ALIVE: AtomicUsize = AtomicUsize::new(0);
/// Delegates that were ever started.
static STARTED: AtomicU64 = AtomicU64::new(0);

impl Delegate for Mutant {
    const INFO: Info = Info {
        name: "mutant",
        vendor: "Delegraph",
        version: env!("CARGO_PKG_VERSION"),
        build: "conformance double",
        format: "delegraph.mutant",
        format_version: 1,
    };

    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Mutant, Error> {
        if !is("accepts-unknown-option") {
            options.check(&[])?;
        }
        if is("one-at-a-time") && ALIVE.load(Ordering::Relaxed) > 0 {
            return Err(Error::new(Status::DEVICE_BUSY, "one delegate at a time"));
        }
        if is("starts-once") && STARTED.load(Ordering::Relaxed) > 0 {
            return Err(Error::internal("the driver was closed"));
        }
        count(&STARTED);
        ALIVE.fetch_add(1, Ordering::Relaxed);
        match active() {
            "writes-standard-output" => println!("mutant delegate, ready"),
            "leaves-folder" => drop(std::env::set_current_dir("/")),
            "installs-signal-handler" => sys::memory::install_handler(),
            "leaves-thread" => {
                std::thread::spawn(|| {
                    loop {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                });
            }
            "leaks-start" => std::mem::forget(std::hint::black_box(vec![1u8; 64 << 10])),
            _ => {}
        }
        Ok(Mutant {
            inner: Reference::new(&Options::default(), context)?,
        })
    }

    /// Two, so that there can be too little room for them.
    fn devices(&self) -> Vec<Device> {
        let first = self.inner.devices();
        let second = first.iter().map(|device| Device {
            name: format!("{}, again", device.name),
            ..device.clone()
        });
        first.iter().cloned().chain(second).collect()
    }
}

impl Drop for Mutant {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Compile for Mutant {
    fn partition(&self, graph: &ImageView<'_>, context: &Context<'_>) -> Result<Partition, Error> {
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let asked = count(&ASKED);
        if is("mute-about-target") && !context.target().is_empty() {
            return Err(Error::internal(""));
        }
        let mut answer = self.inner.partition(graph, context)?;
        let verdicts = &mut answer.verdicts;
        match active() {
            "no-verdict" => drop(verdicts.pop()),
            "verdicts-vary" if asked % 2 == 1 => {
                if let Some(first) = verdicts.first_mut() {
                    *first = Verdict::Refuse(Reason::OTHER, "not this time".into());
                }
            }
            "refuses-claimed" => {
                for (verdict, _) in verdicts
                    .iter_mut()
                    .zip(graph.nodes())
                    .filter(|(_, n)| is_addition(n.op()))
                {
                    *verdict = Verdict::Refuse(Reason::UNKNOWN_OP, "additions are not done".into());
                }
            }
            "takes-everything" => verdicts.fill(Verdict::Take),
            "slow-partition" => {
                // 100 ns a pair of nodes.
                let pairs = u64::from(graph.node_count()).pow(2);
                let until = Instant::now() + Duration::from_nanos(pairs.saturating_mul(100));
                while Instant::now() < until {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            "refuses-without-reason" => {
                for verdict in verdicts.iter_mut().filter(|verdict| **verdict != Verdict::Take) {
                    *verdict = Verdict::Refuse(Reason::NONE, "".into());
                }
            }
            "foreign-atomic-set" => answer.atomic_sets = vec![vec![NodeIndex(graph.node_count())]],
            "counts-elements" => count_elements(graph),
            "crashes-on-empty" if has_empty_tensor(graph) => sys::memory::fault(),
            _ => {}
        }
        Ok(answer)
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        target: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error> {
        let compiled = self.inner.compile(graph, weights, target, context);
        let mut compiled = match compiled {
            // Which node it is was not thought of.
            Err(error) if is("takes-everything") => return Err(Error::internal(error.message)),
            other => other?,
        };
        compiled
            .sections
            .push(section(CHECK, checksum(graph.bytes()).to_le_bytes().to_vec()));
        if let Some((kept, section)) = keep::section(graph) {
            compiled.kept_states = kept;
            compiled.sections.push(section);
        }
        if is("compile-counts") {
            static COMPILED: AtomicU64 = AtomicU64::new(0);
            let number = count(&COMPILED).to_le_bytes().to_vec();
            compiled.sections.push(section("number", number));
        }
        if is("compile-varies") {
            let now = std::time::SystemTime::UNIX_EPOCH
                .elapsed()
                .unwrap_or_default()
                .as_nanos();
            compiled.sections.push(section("made", now.to_le_bytes().to_vec()));
        }
        Ok(compiled)
    }

    fn compile_set(
        &self,
        graphs: &[(ImageView<'_>, Weights<'_>)],
        target: &str,
        context: &Context<'_>,
    ) -> Result<Vec<Compiled>, SetError> {
        let compiled = graphs.iter().enumerate().map(|(number, (graph, weights))| {
            let compiled = self.compile(graph, weights, target, context);
            compiled.map_err(|error| error.of_graph(number))
        });
        let mut compiled: Vec<Compiled> = compiled.collect::<Result<_, _>>()?;
        if is("set-in-reverse") {
            compiled.reverse();
        }
        Ok(compiled)
    }
}

impl Run for Mutant {
    fn check_blob(&self, meta: &BlobMeta<'_>) -> BlobVerdict {
        match (BlobVerdict::by_format(&Self::INFO, meta), active()) {
            (BlobVerdict::NotMine(_), "accepts-foreign-blob") => BlobVerdict::Optimal,
            (BlobVerdict::UnsupportedHere(_), "accepts-newer-blob") => BlobVerdict::Optimal,
            (verdict, _) => verdict,
        }
    }

    fn load(&self, blob: &Blob<'_>, weights: &Weights<'_>, context: &Context<'_>) -> Result<Box<dyn Session>, Error> {
        let loaded = session::load(self, blob, weights, context);
        if is("leaks-descriptor") {
            std::mem::forget(std::fs::File::open("/dev/null"));
        }
        match loaded {
            Err(error) if error.code == Status::BLOB_CORRUPT => match active() {
                "accepts-damaged-blob" => session::nothing(),
                "trusts-blob" => {
                    // What the damaged bytes say is followed wherever it leads.
                    sys::memory::fault();
                    Err(error)
                }
                _ => Err(error),
            },
            other => other,
        }
    }
}

/// A section of a blob.
fn section(name: &str, bytes: Vec<u8>) -> Section {
    let (name, align) = (name.to_string(), 8);
    Section { name, align, bytes }
}

/// FNV-1a: enough to see that a bit is another.
fn checksum(bytes: &[u8]) -> u64 {
    let each = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, each)
}

fn is_addition(op: &str) -> bool {
    op == "aten::add.Tensor" || op == "aten::add.Scalar"
}

fn has_empty_tensor(graph: &ImageView<'_>) -> bool {
    graph
        .values()
        .filter_map(|value| value.const_dims())
        .any(|dims| dims.contains(&0))
}

/// Counts to the number of elements of each tensor, one by one, as if it were small.
fn count_elements(graph: &ImageView<'_>) {
    for value in graph.values() {
        if let (Kind::Tensor(_), Some(dims)) = (value.kind(), value.const_dims()) {
            let elements: i128 = dims.iter().map(|size| i128::from(*size)).product();
            let mut counted = 0i128;
            while counted < elements {
                counted = std::hint::black_box(counted + 1);
            }
        }
    }
}
