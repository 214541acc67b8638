//! Contexts: graphs are composed, finalized and written as one binary; a binary becomes a context again.

use super::device::{Core, Qnn};
use super::execute::LoadedGraph;
use super::info::{GraphInfo, TensorInfo};
use super::layout::{self as c, Handle, NONE};
use super::log::Call;
use super::system::System;
use super::tensor::{OwnedNode, c_text, tensors};
use crate::graph::{Graph, Port, TensorKind};
use delegraph_sdk::{Error, Status};
use std::ffi::c_void;
use std::path::Path;
use std::sync::Arc;

/// How graphs are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompileOptions {
    /// MiB of tightly coupled memory that a graph may take; `None`: the chip's own. A process has graphs of one size.
    pub vtcm_mb: Option<u32>,
}

/// Graphs that were compiled.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The context binary, in the library's own form.
    pub binary: Vec<u8>,
    /// What the border of each graph is, in the order that they were given in.
    pub graphs: Vec<GraphInfo>,
}

/// Why graphs could not be compiled. That is an ordinary answer: a node that was validated alone may still be refused here.
#[derive(Debug, Clone)]
pub struct CompileError {
    /// The library's error and its words.
    pub error: Error,
    /// Name of the graph, if it is about one.
    pub graph: Option<String>,
    /// Index of the node in [`Graph::nodes`], if the library refused one or named one.
    pub node: Option<usize>,
}

impl From<Error> for CompileError {
    fn from(error: Error) -> CompileError {
        CompileError {
            error,
            graph: None,
            node: None,
        }
    }
}

/// A context's handle, which frees it.
pub(super) struct ContextHandle {
    pub core: Arc<Core>,
    pub raw: Handle,
}

// SAFETY: as of `Core`.
unsafe impl Send for ContextHandle {}
// SAFETY: as of `Core`.
unsafe impl Sync for ContextHandle {}

impl Drop for ContextHandle {
    fn drop(&mut self) {
        let _call = self.core.call();
        if let (false, Ok(function)) = (self.raw.is_null(), self.core.library.table.context_free()) {
            // SAFETY: the handle is a context's, and nothing of it is used any more.
            let _ = unsafe { function(self.raw, NONE) };
        }
    }
}

impl Qnn {
    /// Compiles graphs into one context binary. Several may share one; their names differ.
    ///
    /// # Errors
    /// The library refuses a tensor, a node or a graph, or fails.
    pub fn compile(&self, graphs: &[&Graph], options: &CompileOptions) -> Result<Compiled, CompileError> {
        let core = &self.core;
        let call = core.call();
        core.choose_vtcm(options.vtcm_mb)?;
        let table = core.library.table;
        let mut context = ContextHandle {
            core: Arc::clone(core),
            raw: NONE,
        };
        // SAFETY: the handles are alive, the output is valid for a write.
        let code = unsafe { table.context_create()?(core.backend, core.device, std::ptr::null(), &mut context.raw) };
        core.check(&call, "make a context", code)?;
        let mut infos = Vec::with_capacity(graphs.len());
        for graph in graphs {
            let composed = compose(core, &call, context.raw, graph, options);
            infos.push(composed.map_err(|mut error| {
                error.graph = Some(graph.name.clone());
                error
            })?);
        }
        let mut size = 0;
        // SAFETY: as above.
        let code = unsafe { table.context_binary_size()?(context.raw, &mut size) };
        core.check(&call, "tell the size of the context binary", code)?;
        let mut binary: Vec<u8> = Vec::new();
        let capacity = usize::try_from(size).unwrap_or(usize::MAX);
        binary.try_reserve_exact(capacity).map_err(|_| {
            Error::new(
                Status::OUT_OF_MEMORY,
                format!("no memory for a context binary of {size} bytes"),
            )
        })?;
        binary.resize(capacity, 0);
        let mut written = 0;
        // SAFETY: the buffer has this many bytes.
        let code =
            unsafe { table.context_binary()?(context.raw, binary.as_mut_ptr().cast::<c_void>(), size, &mut written) };
        core.check(&call, "write the context binary", code)?;
        if written > size {
            return Err(Error::new(
                Status::VENDOR,
                format!("the QNN library wrote {written} bytes of a context binary into {size}"),
            )
            .into());
        }
        binary.truncate(written as usize);
        Ok(Compiled { binary, graphs: infos })
    }

    /// Makes a context of a binary, and asks the system library what its graphs are. The bytes are not needed afterwards.
    ///
    /// Only give what you trust: the library's reader of binaries is not known to stand against crafted ones.
    ///
    /// # Errors
    /// The binary is damaged, or not for this library and chip; there is no system library.
    pub fn load(&self, binary: &[u8]) -> Result<Arc<LoadedContext>, Error> {
        let folder = self.core.library.path().parent().unwrap_or(Path::new(""));
        let described = System::open(folder)?.describe(binary)?;
        self.load_described(binary, described.graphs)
    }

    /// As [`Qnn::load`], without the system library: what the graphs are was kept when they were compiled ([`Compiled::graphs`]).
    ///
    /// # Errors
    /// The binary is damaged, or not for this library and chip.
    pub fn load_described(&self, binary: &[u8], graphs: Vec<GraphInfo>) -> Result<Arc<LoadedContext>, Error> {
        if binary.is_empty() {
            return Err(Error::corrupt("the context binary is empty"));
        }
        let core = &self.core;
        let call = core.call();
        let mut handle = ContextHandle {
            core: Arc::clone(core),
            raw: NONE,
        };
        let (bytes, size) = (binary.as_ptr().cast(), binary.len() as u64);
        let make = core.library.table.context_from_binary()?;
        // SAFETY: the handles are alive, the bytes are as many as are said, the output is valid for a write.
        let code = unsafe {
            make(
                core.backend,
                core.device,
                std::ptr::null(),
                bytes,
                size,
                &mut handle.raw,
                NONE,
            )
        };
        core.check(&call, "make a context of a binary", code)?;
        Ok(Arc::new(LoadedContext { handle, graphs }))
    }
}

/// A context that was made of a binary.
pub struct LoadedContext {
    pub(super) handle: ContextHandle,
    graphs: Vec<GraphInfo>,
}

impl LoadedContext {
    /// Its graphs.
    pub fn graphs(&self) -> &[GraphInfo] {
        &self.graphs
    }

    /// A graph of this name. Several may be retrieved, and each several times; they keep the context alive.
    ///
    /// # Errors
    /// There is none.
    pub fn graph(self: &Arc<Self>, name: &str) -> Result<LoadedGraph, Error> {
        let info = self.graphs.iter().find(|graph| graph.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.graphs.iter().map(|graph| graph.name.as_str()).collect();
            Error::new(
                Status::NOT_FOUND,
                format!("the context has no graph `{name}`; it has {}", names.join(", ")),
            )
        })?;
        self.graph_as(info)
    }

    /// As [`LoadedContext::graph`], of a graph whose border the caller knows. The library matches tensors by their ids.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn graph_as(self: &Arc<Self>, info: &GraphInfo) -> Result<LoadedGraph, Error> {
        let name = info.name.as_str();
        let text = c_text("a graph", name)?;
        let core = &self.handle.core;
        let call = core.call();
        let mut graph = NONE;
        // SAFETY: the context and the text are alive, the output is valid for a write.
        let code = unsafe { core.library.table.graph_retrieve()?(self.handle.raw, text.as_ptr(), &mut graph) };
        core.check(&call, &format!("retrieve the graph `{name}`"), code)?;
        LoadedGraph::new(Arc::clone(self), graph, info)
    }
}

/// Makes a graph in a context and finalizes it.
fn compose(
    core: &Core,
    call: &Call,
    context: Handle,
    graph: &Graph,
    options: &CompileOptions,
) -> Result<GraphInfo, CompileError> {
    let table = core.library.table;
    let name = c_text("a graph", &graph.name)?;
    let custom = c::Custom {
        option: c::CUSTOM_GRAPH_VTCM,
        gap: 0,
        value: options.vtcm_mb.unwrap_or(0),
        second: 0,
    };
    let config = c::Config {
        option: 0,
        value: (&raw const custom).cast(),
    };
    let configs = [&raw const config, std::ptr::null()];
    let configs = match options.vtcm_mb {
        Some(_) => configs.as_ptr(),
        None => std::ptr::null(),
    };
    let mut handle = NONE;
    // SAFETY: the context, the name and the options are alive during the call, the output is valid for a write.
    let code = unsafe { table.graph_create()?(context, name.as_ptr(), configs, &mut handle) };
    core.check(call, &format!("make the graph `{}`", graph.name), code)?;
    let mut owned = tensors(graph)?;
    for (tensor, own) in graph.tensors.iter().zip(&mut owned) {
        // SAFETY: the struct and what it points to are alive; the library writes the id into it.
        let code = unsafe { table.graph_tensor()?(handle, &mut own.raw) };
        core.check(call, &format!("take the tensor `{}`", tensor.name), code)?;
    }
    for (index, node) in graph.nodes.iter().enumerate() {
        let added = || -> Result<(), Error> {
            let raw = |ids: &[crate::graph::TensorId]| ids.iter().map(|id| owned[id.0 as usize].raw).collect();
            let mut own = OwnedNode::new(node, raw(&node.inputs), raw(&node.outputs))?;
            for tensor in own.tensors() {
                // SAFETY: as above.
                let code = unsafe { table.graph_tensor()?(handle, tensor) };
                core.check(call, &format!("take a parameter of `{}`", node.name), code)?;
            }
            // SAFETY: all that the struct points to is alive during the call.
            let code = unsafe { table.graph_add_node()?(handle, own.config()) };
            core.check(call, &format!("take the node `{}` ({})", node.name, node.op), code)
        };
        added().map_err(|error| CompileError {
            error,
            graph: None,
            node: Some(index),
        })?;
    }
    // SAFETY: the graph is alive, and so are its constants.
    let code = unsafe { table.graph_finalize()?(handle, NONE, NONE) };
    let words = call.words();
    if code != 0 {
        // The numbers tell nothing here: what cannot be compiled is "out of memory" too.
        let reason = words.reason().unwrap_or_else(|| "it says no reason".to_string());
        let text = format!(
            "the QNN library cannot compile the graph `{}` (error {code}): {reason}",
            graph.name
        );
        return Err(CompileError {
            error: Error::unsupported(text).vendor_code(code as i64),
            graph: None,
            node: named(graph, words.0.iter().map(|(_, line)| line.as_str())),
        });
    }
    let info = |wanted: &TensorKind, ports: &[Port]| {
        let of_ports = ports.iter().filter_map(|port| port.tensor).map(|id| id.0 as usize);
        let mut seen: Vec<usize> = Vec::new();
        for at in of_ports {
            if graph.tensors[at].kind == *wanted && !seen.contains(&at) {
                seen.push(at);
            }
        }
        let infos = seen
            .into_iter()
            .map(|at| TensorInfo::of(&graph.tensors[at], owned[at].raw.body.id));
        infos.collect()
    };
    Ok(GraphInfo {
        name: graph.name.clone(),
        inputs: info(&TensorKind::Input, &graph.inputs),
        outputs: info(&TensorKind::Output, &graph.outputs),
    })
}

/// The first node of a graph that a line names as a whole word.
fn named<'a>(graph: &Graph, lines: impl Iterator<Item = &'a str>) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '/' | ':');
    let words: std::collections::HashSet<&str> = lines.flat_map(|line| line.split(|c| !is_part(c))).collect();
    let trimmed = |word: &str| words.contains(word);
    graph.nodes.iter().position(|node| trimmed(node.name.as_str()))
}
