//! Memory of the app's that inputs and outputs lie in, so that delegates use it in place.
//!
//! A [`Memory`] is made of a dma-buf or a memory file ([`Memory::of_handle`]), of a descriptor that a delegate's driver knows
//! ([`Session::import_memory`]), or allocated ([`Memory::new`], [`Session::export_memory`]). An input comes as a [`MemoryView`], an output goes
//! where [`Session::bind_output`] says. Each region's delegate is shown the memory before its next run: by the handle where its device takes
//! that, else where the process sees it. Whoever cannot use it in place gets the mapped bytes, or copies of them, which are counted
//! ([`crate::RunReport`]). Portable kernels always read and write the mapped bytes.

use crate::region_call::Counts;
use crate::{Error, Session};
use delegraph_host::{Memory, Window};
use delegraph_kernels::Lent;
use delegraph_types::{DType, Dims};
use serde::Serialize;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A row-major tensor in a memory, at any multiple of its element's size. Nobody writes there while a run reads it.
#[derive(Clone, Copy)]
pub struct MemoryView<'a> {
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub shape: Dims,
    /// The memory.
    pub memory: &'a Arc<Memory>,
    /// Bytes from its beginning to the first element.
    pub offset: usize,
}

impl<'a> MemoryView<'a> {
    /// The elements. `None`: they do not lie within the memory.
    pub(crate) fn bytes(&self) -> Option<&'a [u8]> {
        let length = self.shape.numel()?.checked_mul(self.dtype.size())?;
        self.memory.bytes(self.offset, length)
    }
}

impl PartialEq for MemoryView<'_> {
    fn eq(&self, other: &MemoryView<'_>) -> bool {
        let (a, b) = (self, other);
        Arc::ptr_eq(a.memory, b.memory) && (a.dtype, a.shape, a.offset) == (b.dtype, b.shape, b.offset)
    }
}

impl fmt::Debug for MemoryView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dtype, shape, size) = (self.dtype, self.shape, self.memory.size());
        write!(f, "{dtype}[{shape}] at byte {} of a memory of {size}", self.offset)
    }
}

/// What runs did with memory of the app's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MemoryReport {
    /// Inputs that were read where they lie, in all runs.
    pub inputs_in_place: u64,
    /// Inputs that had to be copied into the method's memory, since other tensors share their place there.
    pub inputs_copied: u64,
    /// Outputs that were written where they belong.
    pub outputs_in_place: u64,
    /// Outputs that were made in the method's memory and copied.
    pub outputs_copied: u64,
    /// Bytes of those that were copied.
    pub copied_bytes: u64,
}

/// Memories that tensors of runs may lie in, which every region's call looks at.
#[derive(Clone, Default)]
pub(crate) struct Memories(Arc<(Mutex<Vec<Arc<Memory>>>, AtomicU64)>);

impl Memories {
    fn all(&self) -> MutexGuard<'_, Vec<Arc<Memory>>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one that is not there.
    pub(crate) fn add(&self, memory: &Arc<Memory>) {
        let mut all = self.all();
        if !all.iter().any(|known| Arc::ptr_eq(known, memory)) {
            all.push(memory.clone());
            self.0.1.fetch_add(1, Ordering::Release);
        }
    }

    fn remove(&self, memory: &Arc<Memory>) {
        self.all().retain(|known| !Arc::ptr_eq(known, memory));
        self.0.1.fetch_add(1, Ordering::Release);
    }
}

/// The memories that a region's session was shown.
#[derive(Default)]
pub(crate) struct Shown {
    generation: u64,
    /// With whether its delegate uses them.
    memories: Vec<(Arc<Memory>, bool)>,
}

impl Shown {
    /// Shows the session what has come since, and has it forget what has gone.
    pub(crate) fn follow(&mut self, memories: &Memories, session: &mut delegraph_host::Session, counts: &Counts) {
        let now = memories.0.1.load(Ordering::Acquire);
        if now == self.generation {
            return;
        }
        self.generation = now;
        let all = memories.all();
        self.memories.retain(|(known, _)| {
            let stays = all.iter().any(|memory| Arc::ptr_eq(memory, known));
            if !stays {
                session.unshare(known);
            }
            stays
        });
        for memory in all.iter() {
            if !self.memories.iter().any(|(known, _)| Arc::ptr_eq(known, memory)) {
                let used = session.share(memory);
                self.memories.push((memory.clone(), used));
            }
        }
        let used = self.memories.iter().filter(|(_, used)| *used).count();
        counts.memories.store(used as u64, Ordering::Relaxed);
    }
}

/// Where an output goes.
pub(crate) struct BoundOutput {
    pub(crate) memory: Arc<Memory>,
    offset: usize,
    /// Why it is made elsewhere and copied; `None`: it is made there.
    copied: Option<String>,
}

struct LentWindow(Window);

impl Lent for LentWindow {
    fn words(&self) -> &[u128] {
        self.0.words()
    }

    fn words_mut(&mut self) -> &mut [u128] {
        self.0.words_mut()
    }
}

impl Session {
    /// Has an output written to a memory from now on, from byte `offset` on: a multiple of 64 suits every device that is known. `size` bytes
    /// from there are the output's, at least those of its largest value; 0: exactly those. A run may leave anything in those that its value
    /// does not take, and delegates that ask for room behind a tensor need no copy where there is some.
    ///
    /// The output is made there where the program allows it, else made in the method's memory and copied at the end of each run, which
    /// the report counts. [`Session::output`] shows it either way; of a dma-buf read it by [`Memory::read_at`]. Nobody may touch the bytes
    /// while a run goes on. Gives the reason for a copy, if there is one.
    ///
    /// # Errors
    /// There is no such output, it is no tensor of bounded size, or it does not fit there.
    pub fn bind_output(
        &mut self,
        index: usize,
        memory: &Arc<Memory>,
        offset: usize,
        size: usize,
    ) -> Result<Option<&str>, Error> {
        let fail = |problem: String| Error::Usage(format!("output {index}: {problem}"));
        let largest = self.largest_output(index).map_err(fail)?;
        let size = if size == 0 { largest } else { size };
        if size < largest {
            return Err(fail(format!("it needs {largest} bytes, {size} are given")));
        }
        if !memory.is_writable() {
            return Err(fail("the memory can only be read".to_string()));
        }
        if offset.checked_add(size).is_none_or(|end| end > memory.size()) {
            let have = memory.size();
            return Err(fail(format!(
                "{size} bytes from byte {offset} on do not fit in a memory of {have}"
            )));
        }
        let other = |(at, bound): (usize, &Option<BoundOutput>)| {
            let bound = bound
                .as_ref()
                .filter(|bound| at != index && Arc::ptr_eq(&bound.memory, memory))?;
            let end = bound.offset + self.largest_output(at).unwrap_or(0);
            (bound.offset < offset + size && offset < end).then_some(at)
        };
        if let Some(at) = self.bound_outputs.iter().enumerate().find_map(other) {
            return Err(fail(format!("output {at} is bound to the same bytes")));
        }
        let copied = match (self.executor.can_move_output(index), Window::new(memory, offset, size)) {
            (Ok(_), Some(window)) => {
                self.executor
                    .move_output(index, Some(Box::new(LentWindow(window))), size)?;
                self.memories.add(memory);
                None
            }
            (moved, _) => {
                self.executor.move_output(index, None, 0)?;
                let here =
                    "it does not begin at a multiple of 16, or ends within 16 bytes of the memory's end".to_string();
                Some(moved.err().unwrap_or(here))
            }
        };
        self.bound_outputs.resize_with(self.executor.output_count(), || None);
        let bound = self.bound_outputs[index].insert(BoundOutput {
            memory: memory.clone(),
            offset,
            copied,
        });
        Ok(bound.copied.as_deref())
    }

    /// Has an output written to the method's own memory again.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn unbind_output(&mut self, index: usize) -> Result<(), Error> {
        if let Some(bound) = self.bound_outputs.get_mut(index) {
            *bound = None;
            self.executor.move_output(index, None, 0)?;
        }
        Ok(())
    }

    /// Lets go of a memory: outputs that are bound to it are unbound, and before the next run delegates end what they have of it. A session keeps
    /// every memory that a run of it has used until then, or until the session itself goes.
    ///
    /// # Errors
    /// As [`Session::unbind_output`].
    pub fn forget_memory(&mut self, memory: &Arc<Memory>) -> Result<(), Error> {
        for index in 0..self.bound_outputs.len() {
            let bound = self.bound_outputs[index].as_ref();
            if bound.is_some_and(|bound| Arc::ptr_eq(&bound.memory, memory)) {
                self.unbind_output(index)?;
            }
        }
        self.memories.remove(memory);
        Ok(())
    }

    /// Bytes of an output's largest value.
    fn largest_output(&self, index: usize) -> Result<usize, String> {
        use delegraph_pte::model::{Dynamism, EValue};
        let plan = self.executor.plan();
        let Some(&value) = plan.outputs.get(index) else {
            return Err(format!("the method has {} outputs", plan.outputs.len()));
        };
        match &plan.values[value as usize] {
            EValue::Tensor(tensor) if tensor.dynamism == Dynamism::Unbounded => {
                Err("its size has no bound".to_string())
            }
            EValue::Tensor(tensor) => {
                let bytes = tensor
                    .sizes
                    .numel()
                    .and_then(|count| count.checked_mul(tensor.dtype.size()));
                bytes.ok_or_else(|| "it is too large".to_string())
            }
            _ => Err("it is no tensor".to_string()),
        }
    }

    /// Copies to their places the outputs that a run could not make there, and counts both kinds.
    pub(crate) fn deliver_outputs(&mut self) -> Result<(), Error> {
        for (index, bound) in self.bound_outputs.iter().enumerate() {
            let Some(bound) = bound else { continue };
            if bound.copied.is_none() {
                self.memory_report.outputs_in_place += 1;
                continue;
            }
            let crate::Value::Tensor(tensor) = crate::session::value(self.executor.output(index)?) else {
                continue;
            };
            let bytes = tensor.to_contiguous();
            let written = bound.memory.write_at(bound.offset, &bytes);
            written.map_err(|error| Error::Usage(format!("output {index}: {error}")))?;
            self.memory_report.outputs_copied += 1;
            self.memory_report.copied_bytes += bytes.len() as u64;
        }
        Ok(())
    }

    /// Begins or ends the processor's access to the memories of a run.
    pub(crate) fn access(&self, inputs: &[crate::Value<'_>], begin: bool) -> Result<(), Error> {
        let outputs = self.bound_outputs.iter().enumerate();
        let outputs = outputs.filter_map(|(i, bound)| Some(("output", i, &bound.as_ref()?.memory, true)));
        let inputs = inputs.iter().enumerate().filter_map(|(i, value)| match value {
            crate::Value::Memory(view) => Some(("input", i, view.memory, false)),
            _ => None,
        });
        let mut outcome = Ok(());
        for (what, i, memory, write) in outputs.chain(inputs) {
            let done = match begin {
                true => memory.begin_access(write).map(drop),
                false => memory.end_access(),
            };
            let done =
                done.map_err(|error| Error::Usage(format!("{what} {i}: the system's access to its memory: {error}")));
            // The first problem is told; what comes after is begun or ended all the same.
            outcome = outcome.and(done);
        }
        outcome
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Session {
    /// Memory of a handle: mapped by this process, or, where only a driver can do that, by the first delegate of this session whose device takes
    /// it. Any session can use it then.
    ///
    /// # Errors
    /// It cannot be mapped, and no delegate takes it: each one's reason.
    pub fn import_memory(&self, handle: delegraph_host::Handle) -> Result<Arc<Memory>, Error> {
        let kind = handle.kind();
        let failed = |problem: String| Error::Usage(format!("memory by {kind} cannot be used: {problem}"));
        if kind != delegraph_host::HandleType::OpaqueFd {
            let memory = Memory::of_handle(handle).map_err(|error| failed(error.to_string()))?;
            return Ok(Arc::new(memory));
        }
        let mut reasons = Vec::new();
        for (delegate, device) in &self.delegates {
            let copy = handle.try_clone().map_err(|error| failed(error.to_string()))?;
            match delegate.import_memory(copy, *device) {
                Ok(memory) => return Ok(Arc::new(memory)),
                Err(error) => reasons.push(crate::bind::in_one_line(&error.to_string())),
            }
        }
        Err(failed(self.no_delegate(reasons)))
    }

    /// New memory of at least `size` bytes on the device of the first of this session's delegates that gives it by such a handle, for others to
    /// see ([`Memory::handle`]). Its content is unspecified.
    ///
    /// # Errors
    /// No delegate gives it: each one's reason.
    pub fn export_memory(&self, kind: delegraph_host::HandleType, size: u64) -> Result<Arc<Memory>, Error> {
        let mut reasons = Vec::new();
        for (delegate, device) in &self.delegates {
            match delegate.export_memory(kind, size, *device) {
                Ok(memory) => return Ok(Arc::new(memory)),
                Err(error) => reasons.push(crate::bind::in_one_line(&error.to_string())),
            }
        }
        let problem = self.no_delegate(reasons);
        Err(Error::Usage(format!("nobody gives {size} bytes by {kind}: {problem}")))
    }

    fn no_delegate(&self, reasons: Vec<String>) -> String {
        match reasons.is_empty() {
            true => "no region of the method runs on a delegate".to_string(),
            false => reasons.join("; "),
        }
    }
}
