//! The library with one chip, and the contexts that were loaded there. The process has one of each pair of library and chip, however many
//! delegates it starts; what is loaded by two sessions with the same bytes is one context.

use crate::blob::Header;
use crate::place::folder;
use crate::soc::Soc;
use crate::sys::{GraphInfo, Library, LoadedContext, LoadedGraph, Qnn, Sink, System};
use delegraph_sdk::{Context, Error, LogLevel, Status};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Lines of the library that are kept until a call passes them on.
const MOST_LINES: usize = 200;

/// Engines of the process that somebody still uses.
static ENGINES: Mutex<Vec<Weak<Engine>>> = Mutex::new(Vec::new());

/// The library with one chip.
pub struct Engine {
    qnn: Qnn,
    soc: &'static Soc,
    library: PathBuf,
    /// What reads the descriptions in context binaries; or why there is nothing.
    system: Result<System, Error>,
    contexts: Mutex<HashMap<[u8; 32], Weak<LoadedContext>>>,
    lines: Arc<Lines>,
}

/// What the library said since the last call that passed it on. Its words about an error are in the error; this is for who looks closer.
#[derive(Default)]
struct Lines(Mutex<VecDeque<String>>);

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the backend's library.
///
/// # Errors
/// `DEPENDENCY_MISSING`: it is not here, or not of a version that is spoken.
pub fn library(option: Option<&Path>) -> Result<Arc<Library>, Error> {
    let folder = folder(option)?;
    Library::open(&folder, crate::place::BACKEND)
}

impl Engine {
    /// The process's engine for a library and a chip.
    ///
    /// # Errors
    /// The process has another chip already, or the library fails.
    pub fn of(library: &Arc<Library>, soc: &'static Soc) -> Result<Arc<Engine>, Error> {
        let mut engines = lock(&ENGINES);
        engines.retain(|engine| engine.strong_count() > 0);
        let same = |engine: &Arc<Engine>| engine.library == library.path() && engine.soc == soc;
        if let Some(known) = engines.iter().filter_map(Weak::upgrade).find(same) {
            return Ok(known);
        }
        let lines = Arc::<Lines>::default();
        let kept = Arc::clone(&lines);
        let sink: Arc<Sink> = Arc::new(move |_: LogLevel, line: &str| {
            let mut kept = lock(&kept.0);
            if kept.len() == MOST_LINES {
                kept.pop_front();
            }
            kept.push_back(line.to_string());
        });
        let folder = library.path().parent().unwrap_or(Path::new("."));
        let engine = Arc::new(Engine {
            qnn: Qnn::open(Arc::clone(library), soc.id, sink)?,
            soc,
            library: library.path().to_path_buf(),
            system: System::open(folder),
            contexts: Mutex::default(),
            lines,
        });
        engines.push(Arc::downgrade(&engine));
        Ok(engine)
    }

    /// The library's handles.
    pub fn qnn(&self) -> &Qnn {
        &self.qnn
    }

    /// Why descriptions in context binaries cannot be read; `None`: they can.
    pub fn unchecked(&self) -> Option<&Error> {
        self.system.as_ref().err()
    }

    /// Passes on what the library said.
    pub fn tell(&self, context: &Context<'_>) {
        let lines = std::mem::take(&mut *lock(&self.lines.0));
        for line in lines {
            context.log(LogLevel::Debug, &format!("the QNN library: {line}"));
        }
    }

    /// The graph of a blob, ready to be executed. The bytes have the header's digest.
    ///
    /// # Errors
    /// The binary was made by a newer library, says another thing of itself than the header, or cannot be loaded.
    pub fn load(&self, header: &Header, binary: &[u8]) -> Result<LoadedGraph, Error> {
        let library = self.qnn.library();
        let (core, backend) = (library.api_version(), library.backend_version());
        let ours = (
            [core.major, core.minor, core.patch],
            [backend.major, backend.minor, backend.patch],
        );
        if (header.core, header.backend) > ours || header.core[0] != ours.0[0] {
            return Err(Error::new(
                Status::BLOB_INCOMPATIBLE,
                format!(
                    "the blob was made by {} ({}); here is {} ({})",
                    crate::compile::driver(header.core, header.backend),
                    header.build,
                    crate::compile::driver(ours.0, ours.1),
                    library.build_id()
                ),
            )
            .hint("use Qualcomm's libraries of at least that version, or compile the model here"));
        }
        let known = lock(&self.contexts).get(&header.digest).and_then(Weak::upgrade);
        let border = header.border();
        if let Some(context) = known {
            // Its description was compared when it was loaded, for all graphs; this one's is the header's.
            self.check(&border, context.graphs())?;
            return context.graph_as(&border);
        }
        let described = match &self.system {
            Ok(system) => {
                let described = system.describe(binary)?;
                if described.soc.is_some_and(|soc| soc != header.soc) {
                    return Err(mismatch(format!(
                        "the context is for chip {:?}, the header for {}",
                        described.soc, header.soc
                    )));
                }
                self.check(&border, &described.graphs)?;
                described.graphs
            }
            Err(_) => Vec::new(),
        };
        self.qnn.reserve_vtcm(header.vtcm_mb)?;
        let context = self.qnn.load_described(binary, described)?;
        let mut contexts = lock(&self.contexts);
        contexts.retain(|_, context| context.strong_count() > 0);
        contexts.insert(header.digest, Arc::downgrade(&context));
        drop(contexts);
        context.graph_as(&border)
    }

    /// Compares the header's graph with those that the binary says it has; where that cannot be read, there are none to compare with.
    fn check(&self, border: &GraphInfo, described: &[GraphInfo]) -> Result<(), Error> {
        if self.system.is_err() {
            return Ok(());
        }
        let found = described.iter().find(|graph| graph.name == border.name);
        let found = found.ok_or_else(|| mismatch(format!("the context has no graph `{}`", border.name)))?;
        for (what, ours, theirs) in [
            ("inputs", &border.inputs, &found.inputs),
            ("outputs", &border.outputs, &found.outputs),
        ] {
            if ours.len() != theirs.len() {
                let text = format!(
                    "graph `{}` has {} {what}, not {}",
                    border.name,
                    theirs.len(),
                    ours.len()
                );
                return Err(mismatch(text));
            }
            if let Some(other) = ours.iter().find(|tensor| !theirs.contains(tensor)) {
                let text = format!("tensor `{}` of graph `{}` is another one", other.name, border.name);
                return Err(mismatch(text));
            }
        }
        Ok(())
    }
}

fn mismatch(what: String) -> Error {
    Error::corrupt(format!("the blob's header and its context binary disagree: {what}")).hint("compile the model again")
}
