//! A session, its runs, and the states that it keeps.

use crate::driver::call::{Refused, Script, Structs};
use crate::driver::fence::{FenceEnd, Submitted, new_fence};
use crate::driver::sys::hand::{Handed, list, pointers};
use crate::driver::sys::host::{BlobHandle, HostCall, WeightsHandle, keep_over};
use crate::driver::sys::instance::Imported;
use crate::driver::sys::library::{Library, broken, outcome};
use crate::driver::sys::memory::{Guarded, Place};
use crate::driver::tensor::Tensor;
use delegraph_abi::{Status, c};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A session.
pub struct Loaded {
    /// The library that it is of.
    pub library: Arc<Library>,
    /// The handle that `session_load` gave.
    pub session: *mut c::Session,
    /// States that it keeps.
    pub kept: Vec<u32>,
    pub(super) weights: Option<Box<WeightsHandle>>,
    pub(super) blob: Option<Arc<BlobHandle>>,
    /// Where the blob's sections were during the load.
    pub(super) _sections: Arc<Vec<Guarded>>,
    /// The last run that was submitted.
    pub(super) flying: Option<Submitted>,
    pub(super) ended: bool,
}

// SAFETY: the contract lets a session move between threads.
unsafe impl Send for Loaded {}

/// What is out of the ordinary about the tensors of a run. Positions count inputs first, then outputs.
#[derive(Clone, Copy, Default)]
pub struct Extra<'e> {
    /// Tensors without bytes, since the session keeps the states that they are.
    pub kept: &'e [usize],
    /// Inputs that lie where another one does.
    pub same: &'e [(usize, usize)],
    /// Tensors that lie in imported memory, so many bytes from its beginning.
    pub imported: &'e [(usize, &'e Imported, usize)],
}

/// The structs of a run. They point into the tensors and into each other.
struct Run {
    inputs: Vec<*const c::Tensor>,
    outputs: Vec<*mut c::Tensor>,
    tensors: Vec<c::Tensor>,
    sizes: Vec<Vec<i64>>,
    /// Where the tensors lie, if not in the list.
    placed: Vec<Handed<c::Tensor>>,
}

impl Run {
    fn new(inputs: &[Tensor], outputs: &mut [Tensor], extra: &Extra<'_>) -> Run {
        let mut sizes: Vec<Vec<i64>> = inputs.iter().map(|tensor| tensor.sizes.clone()).collect();
        sizes.extend(outputs.iter().map(|tensor| tensor.sizes.clone()));
        let places = inputs.iter().chain(outputs.iter());
        let mut tensors: Vec<c::Tensor> = places
            .zip(&mut sizes)
            .map(|(tensor, sizes)| {
                let size = tensor.memory.size();
                c::Tensor {
                    dtype: tensor.dtype,
                    rank: sizes.len() as u32,
                    sizes: sizes.as_mut_ptr(),
                    data: tensor.memory.as_ptr().cast(),
                    data_size: size as u64,
                    ..c::Tensor::new()
                }
            })
            .collect();
        for &(position, other) in extra.same {
            if let Some(place) = tensors.get(other).map(|tensor| (tensor.data, tensor.data_size))
                && let Some(tensor) = tensors.get_mut(position)
            {
                (tensor.data, tensor.data_size) = place;
            }
        }
        for &(position, imported, offset) in extra.imported {
            if let Some(tensor) = tensors.get_mut(position) {
                tensor.data = imported.pointer().wrapping_add(offset).cast();
                (tensor.buffer, tensor.buffer_offset) = (imported.buffer, offset as u64);
            }
        }
        for &position in extra.kept {
            if let Some(tensor) = tensors.get_mut(position) {
                (tensor.data, tensor.data_size) = (std::ptr::null_mut(), 0);
            }
        }
        let count = inputs.len();
        let first = tensors.as_mut_ptr();
        Run {
            // SAFETY: within the list, which does not move any more.
            inputs: (0..count).map(|i| unsafe { first.add(i) }.cast_const()).collect(),
            // SAFETY: as above.
            outputs: (count..tensors.len()).map(|i| unsafe { first.add(i) }).collect(),
            tensors,
            sizes,
            placed: Vec::new(),
        }
    }

    /// The same with structs of another form.
    fn shaped(mut self, structs: Structs) -> Result<Run, Refused> {
        if structs != Structs::Ours {
            let placed = self.tensors.iter().map(|tensor| Handed::new(*tensor, structs));
            self.placed = placed.collect::<Result<_, _>>()?;
            let (inputs, outputs) = self.placed.split_at(self.inputs.len());
            self.inputs = pointers(inputs);
            self.outputs = outputs.iter().map(|tensor| tensor.as_ptr().cast_mut()).collect();
        }
        Ok(self)
    }

    fn finish(&self, inputs: usize, outputs: &mut [Tensor]) {
        for (tensor, sizes) in outputs.iter_mut().zip(&self.sizes[inputs..]) {
            tensor.sizes.clone_from(sizes);
        }
    }
}

/// A run that was submitted, with what it works on.
pub struct Flight {
    /// Its end.
    pub submitted: Submitted,
    run: Run,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    call: Option<Box<HostCall>>,
}

// SAFETY: the pointers are into memory that it owns.
unsafe impl Send for Flight {}

/// How long a run that nobody waited for may take to end before all that it works on is given up.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Set once a run did not end: its session, its delegate and what it works on stay for ever.
pub(super) static STUCK: AtomicBool = AtomicBool::new(false);

impl Flight {
    /// Waits; `None`: it has not ended until then.
    pub fn wait(&self, time: Duration) -> Option<FenceEnd> {
        self.submitted.wait(time)
    }

    /// The run has ended: its inputs and outputs, these with their sizes.
    pub fn finish(mut self) -> (Vec<Tensor>, Vec<Tensor>) {
        if self.submitted.wait(LAST_WAIT).is_none() {
            // What is given back is not what the run works on.
            return (Vec::new(), Vec::new());
        }
        self.run.finish(self.inputs.len(), &mut self.outputs);
        if let Some(call) = self.call.take() {
            keep_over(call);
        }
        (std::mem::take(&mut self.inputs), std::mem::take(&mut self.outputs))
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let Some(call) = self.call.take() else { return };
        if self.submitted.wait(LAST_WAIT).is_some() {
            return keep_over(call);
        }
        // It may still write.
        STUCK.store(true, Ordering::SeqCst);
        std::mem::forget(call);
        std::mem::forget(std::mem::take(&mut self.inputs));
        std::mem::forget(std::mem::take(&mut self.outputs));
        std::mem::forget(std::mem::take(&mut self.run.tensors));
        std::mem::forget(std::mem::take(&mut self.run.sizes));
        std::mem::forget(std::mem::take(&mut self.run.placed));
        std::mem::forget(std::mem::take(&mut self.run.inputs));
        std::mem::forget(std::mem::take(&mut self.run.outputs));
    }
}

impl Loaded {
    /// Runs. The outputs' sizes are the actual ones afterwards.
    ///
    /// # Errors
    /// It refuses.
    pub fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor], script: &Script) -> Result<(), Refused> {
        self.run_without(inputs, outputs, &[], script)
    }

    /// Runs with tensors that have no bytes, since the session keeps the states that they are: by position, inputs first.
    ///
    /// # Errors
    /// It refuses.
    pub fn run_without(
        &mut self,
        inputs: &[Tensor],
        outputs: &mut [Tensor],
        kept: &[usize],
        script: &Script,
    ) -> Result<(), Refused> {
        let extra = Extra {
            kept,
            ..Extra::default()
        };
        self.run_with(inputs, outputs, &extra, script)
    }

    /// Runs with tensors that are out of the ordinary.
    ///
    /// # Errors
    /// It refuses.
    pub fn run_with(
        &mut self,
        inputs: &[Tensor],
        outputs: &mut [Tensor],
        extra: &Extra<'_>,
        script: &Script,
    ) -> Result<(), Refused> {
        let run = Run::new(inputs, outputs, extra).shaped(script.structs)?;
        // SAFETY: everything handed over lives until the call returns; outputs are borrowed exclusively.
        let called = self.library.call("session_execute", script, |api, call| unsafe {
            api.session_execute.map(|f| {
                f(
                    self.session,
                    call,
                    list(&run.inputs, script.structs),
                    run.inputs.len() as u64,
                    list(&run.outputs, script.structs),
                    run.outputs.len() as u64,
                )
            })
        });
        run.finish(inputs.len(), outputs);
        called
    }

    /// Begins a run, which has the tensors until it has ended.
    ///
    /// # Errors
    /// It refuses: nothing was submitted.
    pub fn submit(&mut self, inputs: Vec<Tensor>, outputs: Vec<Tensor>, script: &Script) -> Result<Flight, Refused> {
        self.submit_with(inputs, outputs, &Extra::default(), script)
    }

    /// Begins a run with tensors that are out of the ordinary. What is imported has to live until the run has ended.
    ///
    /// # Errors
    /// As [`Loaded::submit`].
    pub fn submit_with(
        &mut self,
        inputs: Vec<Tensor>,
        mut outputs: Vec<Tensor>,
        extra: &Extra<'_>,
        script: &Script,
    ) -> Result<Flight, Refused> {
        let run = Run::new(&inputs, &mut outputs, extra).shaped(script.structs)?;
        let call = HostCall::new(self.library.host, script);
        let places = run.tensors[inputs.len()..]
            .iter()
            .filter(|tensor| !tensor.data.is_null());
        let places = places.map(|tensor| (tensor.data.expose_provenance(), tensor.data_size as usize));
        let (number, fence) = new_fence(call.ended.clone(), places.collect());
        let serial = self.library.serial();
        let status = self.library.api.session_submit.map(|f| unsafe {
            // SAFETY: tensors and call live in what is returned, until the run has ended.
            f(
                self.session,
                call.as_ptr(),
                run.inputs.as_ptr(),
                run.inputs.len() as u64,
                run.outputs.as_ptr(),
                run.outputs.len() as u64,
                std::ptr::without_provenance_mut(number),
            )
        });
        drop(serial);
        let submitted = Submitted { fence };
        if status != Some(Status::OK) {
            call.ended.store(true, Ordering::SeqCst);
            let refused = outcome("session_submit", status, &call);
            keep_over(call);
            if submitted.signals() > 0 {
                crate::driver::violation("`session_submit` refused a run, and its fence was signalled");
            }
            return match refused {
                Err(refused) => Err(refused),
                Ok(()) => Err(broken("session_submit", "no status")),
            };
        }
        self.flying = Some(submitted.clone());
        Ok(Flight {
            submitted,
            run,
            inputs,
            outputs,
            call: Some(call),
        })
    }

    /// `session_state_commit`
    ///
    /// # Errors
    /// It refuses.
    pub fn commit(&mut self, accept: bool, script: &Script) -> Result<(), Refused> {
        // SAFETY: the session is loaded.
        self.library.call("session_state_commit", script, |api, call| unsafe {
            api.session_state_commit
                .map(|f| f(self.session, call, u32::from(accept)))
        })
    }

    /// `session_state_reset`
    ///
    /// # Errors
    /// It refuses.
    pub fn reset(&mut self, state: u32, script: &Script) -> Result<(), Refused> {
        // SAFETY: the session is loaded.
        self.library.call("session_state_reset", script, |api, call| unsafe {
            api.session_state_reset.map(|f| f(self.session, call, state))
        })
    }

    /// `session_state_truncate`
    ///
    /// # Errors
    /// It refuses.
    pub fn truncate(&mut self, state: u32, length: u64, script: &Script) -> Result<(), Refused> {
        // SAFETY: the session is loaded.
        self.library.call("session_state_truncate", script, |api, call| unsafe {
            api.session_state_truncate.map(|f| f(self.session, call, state, length))
        })
    }

    /// `session_state_snapshot`: exactly `size` bytes.
    ///
    /// # Errors
    /// It refuses.
    pub fn snapshot(&mut self, state: u32, size: usize, script: &Script) -> Result<Vec<u8>, Refused> {
        let memory = Guarded::new(size, Place::End, 16).map_err(|problem| broken("the kit", &problem))?;
        let library = &self.library;
        // SAFETY: the room lives until the call returns.
        library.call("session_state_snapshot", script, |api, call| unsafe {
            api.session_state_snapshot
                .map(|f| f(self.session, call, state, memory.as_ptr().cast(), size as u64))
        })?;
        Ok(memory.bytes().to_vec())
    }

    /// `session_state_restore`
    ///
    /// # Errors
    /// It refuses.
    pub fn restore(&mut self, state: u32, bytes: &[u8], script: &Script) -> Result<(), Refused> {
        let mut memory = Guarded::new(bytes.len(), Place::End, 16).map_err(|problem| broken("the kit", &problem))?;
        memory.fill(bytes);
        memory.protect().map_err(|problem| broken("the kit", &problem))?;
        // SAFETY: the bytes live until the call returns.
        self.library.call("session_state_restore", script, |api, call| unsafe {
            api.session_state_restore.map(|f| {
                f(
                    self.session,
                    call,
                    state,
                    memory.as_ptr().cast_const().cast(),
                    bytes.len() as u64,
                )
            })
        })
    }

    /// Whether its blob is retained: its sections are read in place.
    pub fn keeps_blob(&self) -> bool {
        self.blob.as_ref().is_some_and(|blob| blob.is_retained())
    }

    /// Ends the session.
    pub fn unload(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        // A session that still runs must not be ended.
        if self.flying.take().is_some_and(|run| run.wait(LAST_WAIT).is_none()) {
            STUCK.store(true, Ordering::SeqCst);
            std::mem::forget((self.weights.take(), self.blob.take()));
            return;
        }
        // SAFETY: the handle is of this library, and not used again.
        let _ = self
            .library
            .call("session_unload", &Script::default(), |api, call| unsafe {
                api.session_unload.map(|f| {
                    f(self.session, call);
                    Status::OK
                })
            });
        if let Some(handle) = self.weights.take() {
            if handle.retained.load(Ordering::SeqCst) > 0 {
                crate::driver::violation("a session that was unloaded did not release its weights");
            }
            handle.let_go();
            keep_over(handle);
        }
        // Who still retains it has time until `shutdown`: the instance looks then.
        if let Some(blob) = self.blob.take() {
            if !blob.is_retained() {
                blob.let_go();
            }
            keep_over(Box::new(blob));
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.end();
    }
}
