//! Log, backend and device for one chip, and questions about nodes.

use super::error::failed;
use super::layout::{self as c, Handle, NONE};
use super::library::Library;
use super::lock;
use super::log::{Call, Sink, on_log, text};
use super::tensor::{OwnedNode, OwnedTensor};
use crate::graph::{Graph, Node};
use crate::soc;
use delegraph_sdk::{Error, LogLevel};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Up to which level the library tells us: warnings. Its reasons for a refusal are errors.
const LOUDEST: u32 = 2;

/// For each library of the process, what was chosen.
static CHOSEN: Mutex<BTreeMap<usize, Chosen>> = Mutex::new(BTreeMap::new());

/// What holds for all of the process.
#[derive(Clone, Copy)]
struct Chosen {
    /// The library keeps the chip.
    soc: u32,
    /// MiB of tightly coupled memory of the first context, if there was one. In the emulation, a context with another size makes those fail that were
    /// made before.
    vtcm_mb: Option<u32>,
}

/// The library with a chip. What is made by it keeps its handles alive.
pub struct Qnn {
    pub(super) core: Arc<Core>,
}

/// The handles, freed in reverse.
pub(super) struct Core {
    pub library: Arc<Library>,
    pub log: Handle,
    pub backend: Handle,
    pub device: Handle,
    pub soc: u32,
    pub sink: Arc<Sink>,
}

// SAFETY: the handles are only used during a `Call`, of which the process has one at a time; the library does not ask which thread it is in.
unsafe impl Send for Core {}
// SAFETY: as above.
unsafe impl Sync for Core {}

impl Core {
    /// Its turn to call the library.
    pub fn call(&self) -> Call {
        Call::begin(&self.sink)
    }

    /// Takes the process for graphs of this size of tightly coupled memory; `None`: the chip's own.
    ///
    /// # Errors
    /// It has graphs of another.
    pub fn choose_vtcm(&self, wanted: Option<u32>) -> Result<(), Error> {
        let own = soc::SOCS.iter().find(|soc| soc.id == self.soc).map(|soc| soc.vtcm_mb);
        let wanted = wanted.or(own).unwrap_or(0);
        let mut all = lock(&CHOSEN);
        let first = all.get_mut(&self.library.identity);
        let first = first.map_or(wanted, |chosen| *chosen.vtcm_mb.get_or_insert(wanted));
        if first == wanted {
            return Ok(());
        }
        let text = format!(
            "this process has graphs with {first} MiB of tightly coupled memory; with others of {wanted} MiB they could not be executed any more"
        );
        Err(Error::unsupported(text).hint("use another process for another `vtcm_mb`"))
    }

    /// What a result is: nothing, or an error with the library's words.
    pub fn check(&self, call: &Call, doing: &str, code: u64) -> Result<(), Error> {
        let words = call.words();
        match code {
            0 => Ok(()),
            code => Err(failed(&self.library.table, doing, code, &words)),
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let _call = self.call();
        let table = &self.library.table;
        let free = [
            (self.device, table.device_free()),
            (self.backend, table.backend_free()),
            (self.log, table.log_free()),
        ];
        for (handle, function) in free {
            if let (false, Ok(function)) = (handle.is_null(), function) {
                // SAFETY: the handle is of this kind, and what was made by it is gone: that keeps this alive.
                let _ = unsafe { function(handle) };
            }
        }
    }
}

impl Qnn {
    /// Makes the handles for a chip of this number. The log gets what the library says; answers to questions only as details.
    ///
    /// # Errors
    /// The process has another chip already, the library does not know this one, or it fails.
    pub fn open(library: Arc<Library>, soc: u32, log: Arc<Sink>) -> Result<Qnn, Error> {
        let mut core = Core {
            library,
            log: NONE,
            backend: NONE,
            device: NONE,
            soc,
            sink: log,
        };
        // From here on, `core` frees what was made.
        let call = core.call();
        may_have(&core.library, soc)?;
        let table = core.library.table;
        // SAFETY: outputs are valid for a write, the callback is for ever, and the configuration is alive during the call; so below.
        let code = unsafe { table.log_create()?(on_log, LOUDEST, &mut core.log) };
        core.check(&call, "make a log", code)?;
        let none = std::ptr::null();
        // SAFETY: as above.
        let code = unsafe { table.backend_create()?(core.log, none, &mut core.backend) };
        core.check(&call, "make a backend", code)?;
        let custom = c::Custom {
            option: c::CUSTOM_DEVICE_SOC,
            gap: 0,
            value: soc,
            second: 0,
        };
        let config = c::Config {
            option: 0,
            value: (&raw const custom).cast(),
        };
        let configs = [&raw const config, std::ptr::null()];
        // SAFETY: as above.
        let code = unsafe { table.device_create()?(core.log, configs.as_ptr(), &mut core.device) };
        core.check(&call, &format!("make a device of chip {soc}"), code)
            .map_err(|error| error.hint(format!("chips that are known here: {}", soc::names())))?;
        lock(&CHOSEN)
            .entry(core.library.identity)
            .or_insert(Chosen { soc, vtcm_mb: None });
        drop(call);
        Ok(Qnn { core: Arc::new(core) })
    }

    /// The library.
    pub fn library(&self) -> &Arc<Library> {
        &self.core.library
    }

    /// Qualcomm's number of the chip.
    pub fn soc(&self) -> u32 {
        self.core.soc
    }

    /// Takes the process for contexts of this many MiB of tightly coupled memory. Compiling does it too; who loads a context does it first.
    ///
    /// # Errors
    /// The process has another size already: contexts of two sizes break each other.
    pub fn reserve_vtcm(&self, mb: u32) -> Result<(), Error> {
        self.core.choose_vtcm(Some(mb))
    }

    /// Names of all operators that the library has.
    ///
    /// # Errors
    /// It fails.
    pub fn supported_operations(&self) -> Result<Vec<String>, Error> {
        let core = &self.core;
        let call = core.call();
        let (mut count, mut list) = (0, std::ptr::null());
        // SAFETY: both outputs are valid for a write.
        let code = unsafe { core.library.table.backend_supported_operations()?(core.backend, &mut count, &mut list) };
        core.check(&call, "list its operators", code)?;
        if list.is_null() {
            return Ok(Vec::new());
        }
        // SAFETY: the list has so many entries, and belongs to the backend.
        let list = unsafe { std::slice::from_raw_parts(list, count as usize) };
        // SAFETY: the names end in 0.
        Ok(list.iter().map(|operation| unsafe { text(operation.name) }).collect())
    }

    /// Asks whether the library takes a node of a graph for the chip.
    ///
    /// # Errors
    /// Why not, in the library's words.
    pub fn validate(&self, graph: &Graph, node: &Node) -> Result<(), String> {
        let tensors = |ids: &[crate::graph::TensorId]| -> Result<Vec<OwnedTensor<'_>>, Error> {
            ids.iter().map(|id| OwnedTensor::of(graph.tensor(*id))).collect()
        };
        let ask = || -> Result<(), Error> {
            let (inputs, outputs) = (tensors(&node.inputs)?, tensors(&node.outputs)?);
            let raw = |list: &[OwnedTensor<'_>]| list.iter().map(|tensor| tensor.raw).collect();
            let mut owned = OwnedNode::new(node, raw(&inputs), raw(&outputs))?;
            let core = &self.core;
            let call = Call::ask(&core.sink);
            // SAFETY: all that the struct points to is alive: `owned`, `inputs`, `outputs` and the graph.
            let code = unsafe { core.library.table.backend_validate()?(core.backend, owned.config()) };
            let words = call.words();
            match (code, words.reason()) {
                (0, _) => Ok(()),
                (_, Some(reason)) => Err(Error::unsupported(reason)),
                (code, None) => Err(failed(
                    &core.library.table,
                    &format!("take `{}`", node.op),
                    code,
                    &words,
                )),
            }
        };
        ask().map_err(|error| error.message)
    }
}

/// Whether the process may have this chip.
///
/// # Errors
/// It has another.
fn may_have(library: &Library, wanted: u32) -> Result<(), Error> {
    let chosen = lock(&CHOSEN).get(&library.identity).map(|chosen| chosen.soc);
    let Some(chosen) = chosen.filter(|chosen| *chosen != wanted) else {
        return Ok(());
    };
    let name = |id: u32| match soc::SOCS.iter().find(|soc| soc.id == id) {
        Some(soc) => format!("{} ({id})", soc.name),
        None => format!("chip {id}"),
    };
    let text = format!(
        "this process compiles for {}; the QNN library keeps one chip a process, so that it cannot compile for {} too",
        name(chosen),
        name(wanted)
    );
    Err(Error::unsupported(text).hint("use another process for the other chip"))
}

/// A sink that drops everything.
pub fn silent() -> Arc<Sink> {
    Arc::new(|_: LogLevel, _: &str| {})
}
