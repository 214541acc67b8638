//! Executes a graph of a context.

use super::context::LoadedContext;
use super::error::failed;
use super::info::{GraphInfo, TensorInfo};
use super::layout::{self as c, Handle, NONE};
use super::profile::Profile;
use super::tensor::OwnedTensor;
use delegraph_sdk::Error;
use std::sync::Arc;

/// A graph that is ready to be executed. It keeps its context alive.
pub struct LoadedGraph {
    context: Arc<LoadedContext>,
    graph: Handle,
    info: GraphInfo,
    /// Their buffers are set at each execution.
    inputs: Border,
    outputs: Border,
}

struct Border {
    /// What `raw` points to.
    _owned: Vec<OwnedTensor<'static>>,
    /// One behind the other, as the library reads them.
    raw: Vec<c::Tensor>,
    sizes: Vec<usize>,
}

// SAFETY: the handle is the context's, which is used by one thread at a time; the pointers in `raw` are to what `_owned` keeps, and to buffers that are
// only there during an execution, which borrows this mutably.
unsafe impl Send for LoadedGraph {}
// SAFETY: as above; through a shared reference nothing of it is reached but `info`.
unsafe impl Sync for LoadedGraph {}

impl Border {
    fn new(tensors: &[TensorInfo], kind: u32) -> Result<Border, Error> {
        let owned: Result<Vec<_>, Error> = tensors.iter().map(|info| OwnedTensor::at_border(info, kind)).collect();
        let owned = owned?;
        let size = |info: &TensorInfo| match info.bytes() {
            Some(size) if u32::try_from(size).is_ok() => Ok(size),
            _ => Err(Error::unsupported(format!("tensor `{}` has 4 GiB or more", info.name))),
        };
        Ok(Border {
            raw: owned.iter().map(|tensor| tensor.raw).collect(),
            sizes: tensors.iter().map(size).collect::<Result<_, Error>>()?,
            _owned: owned,
        })
    }

    /// Sets the buffers.
    ///
    /// # Errors
    /// There are not as many as tensors, or one has another size.
    fn set(&mut self, what: &str, infos: &[TensorInfo], buffers: &[(*mut u8, usize)]) -> Result<(), Error> {
        if buffers.len() != infos.len() {
            return Err(Error::invalid(format!(
                "{} {what}s for a graph of {}",
                buffers.len(),
                infos.len()
            )));
        }
        for (at, (data, size)) in buffers.iter().enumerate() {
            if *size != self.sizes[at] {
                let (name, wants) = (&infos[at].name, self.sizes[at]);
                return Err(Error::invalid(format!("{what} `{name}` has {size} bytes, not {wants}")));
            }
            self.raw[at].body.buffer = c::ClientBuffer {
                data: data.cast(),
                size: *size as u32,
            };
        }
        Ok(())
    }

    /// Forgets the buffers.
    fn clear(&mut self) {
        for tensor in &mut self.raw {
            tensor.body.buffer = c::ClientBuffer {
                data: std::ptr::null_mut(),
                size: 0,
            };
        }
    }
}

impl LoadedGraph {
    pub(super) fn new(context: Arc<LoadedContext>, graph: Handle, info: &GraphInfo) -> Result<LoadedGraph, Error> {
        Ok(LoadedGraph {
            context,
            graph,
            inputs: Border::new(&info.inputs, c::APP_WRITE)?,
            outputs: Border::new(&info.outputs, c::APP_READ)?,
            info: info.clone(),
        })
    }

    /// Its name and border.
    pub fn info(&self) -> &GraphInfo {
        &self.info
    }

    /// Executes it: reads the inputs, writes the outputs, each contiguous and in the order of [`LoadedGraph::info`]. Waits for its turn, for the
    /// library executes one graph at a time. On an error, outputs hold anything.
    ///
    /// # Errors
    /// A buffer is of another size than its tensor, or the library fails.
    pub fn execute(
        &mut self,
        inputs: &[&[u8]],
        outputs: &mut [&mut [u8]],
        profile: Option<&Profile>,
    ) -> Result<(), Error> {
        let read: Vec<_> = inputs
            .iter()
            .map(|bytes| (bytes.as_ptr().cast_mut(), bytes.len()))
            .collect();
        let written: Vec<_> = outputs
            .iter_mut()
            .map(|bytes| (bytes.as_mut_ptr(), bytes.len()))
            .collect();
        self.inputs.set("input", &self.info.inputs, &read)?;
        self.outputs.set("output", &self.info.outputs, &written)?;
        let core = &self.context.handle.core;
        let call = core.call();
        let execute = core.library.table.graph_execute()?;
        let (input, output) = (&self.inputs.raw, &mut self.outputs.raw);
        let profile = profile.map_or(NONE, Profile::handle);
        // SAFETY: the graph is alive through its context; the tensors' buffers are those of the arguments, of which inputs are only read.
        let code = unsafe {
            execute(
                self.graph,
                input.as_ptr(),
                input.len() as u32,
                output.as_mut_ptr(),
                output.len() as u32,
                profile,
                NONE,
            )
        };
        let words = call.words();
        let about_memory = words.0.iter().any(|(_, line)| line.contains("VTCM"));
        let result = match code {
            0 => Ok(()),
            code => {
                let error = failed(
                    &core.library.table,
                    &format!("execute the graph `{}`", self.info.name),
                    code,
                    &words,
                );
                Err(match about_memory {
                    true => error.hint("a context of another size of tightly coupled memory was made in this process"),
                    false => error,
                })
            }
        };
        drop(call);
        self.inputs.clear();
        self.outputs.clear();
        result
    }
}
