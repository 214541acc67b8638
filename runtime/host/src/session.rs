//! A loaded blob.

use crate::call::CallOptions;
use crate::local::LocalSession;
use crate::memory::Memory;
use crate::states::States;
use crate::{DelegateError, staging::Staging};
use delegraph_abi::envelope::{Meta, Requirement, TensorSpec};
use delegraph_abi::{Status, c};
use delegraph_types::{DType, Dims, Parallel};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A tensor that a session reads: contiguous, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub sizes: &'a [i64],
    /// The elements, aligned to an element's size, and what may be read behind them. Empty where the session keeps the state that the
    /// tensor is ([`Session::states`]).
    pub bytes: &'a [u8],
}

/// A tensor that a session writes: contiguous, row-major.
#[derive(Debug)]
pub struct Output<'a> {
    /// Element type.
    pub dtype: DType,
    /// In: the largest sizes that fit `bytes`. Out: the actual sizes, never larger.
    pub sizes: Dims,
    /// Room for the largest sizes, aligned to an element's size, and what may be written behind them; the actual elements lie at its
    /// start, contiguous, and all behind them is unspecified after a run. Empty where the session keeps the state.
    pub bytes: &'a mut [u8],
}

/// A loaded blob, ready to run. One run at a time; may move between threads.
pub struct Session {
    pub(crate) backend: Arc<str>,
    pub(crate) backing: Backing,
    /// Threads that a run may borrow; `None`: those of the host's options.
    parallel: Option<Parallel>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    /// Kept between runs, so that a steady run allocates nothing.
    room: Room,
    copies: Copies,
    /// What it keeps on its side.
    pub(crate) states: States,
}

/// Where the session is.
pub(crate) enum Backing {
    Local(LocalSession),
    #[cfg(target_os = "linux")]
    Remote(crate::worker::RemoteSession),
}

/// Copies that runs cost, because tensors did not lie where the delegate needs them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copies {
    /// Tensors copied, before or after a run.
    pub tensors: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What is handed over in a run.
#[derive(Default)]
struct Room {
    sizes: Vec<[i64; c::MAX_RANK as usize]>,
    /// Bytes of each tensor's elements, inputs first.
    lengths: Vec<usize>,
    tensors: Vec<c::Tensor>,
    inputs: Vec<*const c::Tensor>,
    outputs: Vec<*mut c::Tensor>,
    /// One a tensor, inputs first: where those lie that do not meet what the blob requires.
    staging: Vec<Staging>,
}

// SAFETY: the pointers are dead between runs.
unsafe impl Send for Room {}

impl Session {
    pub(crate) fn new(backend: Arc<str>, backing: Backing, meta: Meta) -> Session {
        Session {
            states: States::new(&meta),
            backend,
            backing,
            parallel: None,
            inputs: meta.inputs,
            outputs: meta.outputs,
            room: Room::default(),
            copies: Copies::default(),
        }
    }

    /// The same, which may borrow these threads in its runs.
    pub fn on(self, parallel: Parallel) -> Session {
        let mut session = self;
        session.parallel = Some(parallel);
        session
    }

    /// Tells the delegate of a memory that tensors of runs will lie in, so that a device or a worker process uses it in place. True
    /// if it will; otherwise runs work all the same.
    pub fn share(&mut self, memory: &Arc<Memory>) -> bool {
        match &mut self.backing {
            Backing::Local(local) => local.share(memory),
            #[cfg(target_os = "linux")]
            Backing::Remote(remote) => remote.share(memory),
        }
    }

    /// Forgets a memory that it was told of: no later run has tensors in it, and what its device or worker had of it ends.
    pub fn unshare(&mut self, memory: &Arc<Memory>) {
        match &mut self.backing {
            Backing::Local(local) => local.unshare(memory),
            #[cfg(target_os = "linux")]
            Backing::Remote(remote) => remote.unshare(memory),
        }
    }

    /// Bytes of the blob's sections that were copied when it was loaded, because they did not lie at their alignment. 0 in a worker, where
    /// they lie in pages of their own.
    pub fn moved_bytes(&self) -> u64 {
        match &self.backing {
            Backing::Local(local) => local.moved_bytes,
            #[cfg(target_os = "linux")]
            Backing::Remote(_) => 0,
        }
    }

    /// What copies runs have cost so far.
    pub fn copies(&self) -> Copies {
        self.copies
    }

    /// Runs the region once.
    ///
    /// # Errors
    /// The delegate failed, or answered out of contract. The outputs' bytes are then unspecified; inputs are untouched.
    pub fn execute(&mut self, inputs: &[Input<'_>], outputs: &mut [Output<'_>]) -> Result<(), DelegateError> {
        self.execute_with(inputs, outputs, &CallOptions::default())
    }

    /// [`Session::execute`] with a deadline, cancellation, a profile.
    ///
    /// # Errors
    /// As there.
    pub fn execute_with(
        &mut self,
        inputs: &[Input<'_>],
        outputs: &mut [Output<'_>],
        options: &CallOptions<'_>,
    ) -> Result<(), DelegateError> {
        self.ready_to_run(options)?;
        let options = self.prepare(inputs, outputs, options)?;
        let room = &self.room;
        match &mut self.backing {
            Backing::Local(local) => {
                local.pause_access(true)?;
                // SAFETY: the tensors, their sizes and their bytes live until the call returns; outputs are borrowed exclusively.
                let called = unsafe { local.execute(&room.inputs, &room.outputs, &options) };
                local.pause_access(false)?;
                called?;
            }
            #[cfg(target_os = "linux")]
            Backing::Remote(remote) => {
                remote.pause_access(true)?;
                // SAFETY: as above.
                let called = unsafe { remote.execute(&room.inputs, &room.outputs, &options) };
                remote.pause_access(false)?;
                let copies = called?;
                self.copies.tensors += copies.tensors;
                self.copies.bytes += copies.bytes;
            }
        }
        let outcome = self.finish(outputs);
        self.ran(outcome, &options)
    }

    /// Begins a run, calls `meanwhile` while it goes on, and waits for its end. Where the delegate has no runs that go on by
    /// themselves, the run has ended before `meanwhile` is called.
    ///
    /// # Errors
    /// As [`Session::execute`]; `meanwhile` is called in any case.
    pub fn submit<R>(
        &mut self,
        inputs: &[Input<'_>],
        outputs: &mut [Output<'_>],
        options: &CallOptions<'_>,
        meanwhile: impl FnOnce(&Pending<'_>) -> R,
    ) -> (R, Result<(), DelegateError>) {
        if !matches!(&self.backing, Backing::Local(local) if local.submits()) {
            let outcome = self.execute_with(inputs, outputs, options);
            return (meanwhile(&Pending(None)), outcome);
        }
        let ready = self.ready_to_run(options);
        let options = match ready.and_then(|()| self.prepare(inputs, outputs, options)) {
            Ok(options) => options,
            Err(error) => return (meanwhile(&Pending(None)), Err(error)),
        };
        let Backing::Local(local) = &mut self.backing else {
            unreachable!("only a session in this process submits")
        };
        if let Err(error) = local.pause_access(true) {
            return (meanwhile(&Pending(None)), Err(error));
        }
        // SAFETY: the tensors, their sizes and their bytes live until the run has ended; outputs are borrowed exclusively.
        let (result, outcome) = unsafe {
            local.submit(&self.room.inputs, &self.room.outputs, &options, |fence| {
                meanwhile(&Pending(Some(fence)))
            })
        };
        if let Err(error) = local.pause_access(false).and(outcome) {
            return (result, Err(error));
        }
        let outcome = self.finish(outputs);
        (result, self.ran(outcome, &options))
    }

    /// Checks what is given and lays out what is handed over.
    fn prepare<'o>(
        &mut self,
        inputs: &[Input<'_>],
        outputs: &mut [Output<'_>],
        options: &CallOptions<'o>,
    ) -> Result<CallOptions<'o>, DelegateError> {
        self.check(inputs, outputs)
            .map_err(|problem| DelegateError::new(&self.backend, Status::INVALID_ARGUMENT, problem))?;
        let Room {
            sizes,
            lengths,
            tensors,
            inputs: input_pointers,
            outputs: output_pointers,
            staging,
        } = &mut self.room;
        let all = inputs.len() + outputs.len();
        sizes.resize(all, [0; c::MAX_RANK as usize]);
        staging.resize_with(all, Staging::default);
        tensors.clear();
        let specs = self.inputs.iter().chain(&self.outputs).map(|spec| spec.requirement);
        let given = inputs
            .iter()
            .map(|t| (t.dtype, t.sizes, t.bytes.as_ptr().cast_mut(), t.bytes.len()));
        // The contract forbids writing an input.
        let taken = outputs
            .iter_mut()
            .map(|t| (t.dtype, &t.sizes[..], t.bytes.as_mut_ptr(), t.bytes.len()));
        let places = given.chain(taken).zip(specs).zip(sizes.iter_mut()).zip(staging);
        for (i, ((((dtype, present, data, room), requirement), sizes), staging)) in places.enumerate() {
            let (rank, size) = (present.len(), lengths.get(i).copied().unwrap_or(room));
            // `check` has refused more than there is room for.
            sizes.iter_mut().zip(present).for_each(|(slot, size)| *slot = *size);
            let (data, handed) = match self.states.keeps(i) {
                true => (std::ptr::null_mut(), Some(0)),
                false => (data, room_handed(requirement, data, size, room)),
            };
            staging.used = handed.is_none();
            let (data, data_size) = if let Some(handed) = handed {
                (data, handed)
            } else {
                let room = staging.room(requirement, size).map_err(|_| {
                    DelegateError::new(
                        &self.backend,
                        Status::OUT_OF_MEMORY,
                        format!("{size} bytes more do not fit in memory"),
                    )
                })?;
                if let Some(input) = inputs.get(i) {
                    room[..size].copy_from_slice(&input.bytes[..size]);
                    self.copies.tensors += 1;
                    self.copies.bytes += size as u64;
                }
                (room.as_mut_ptr(), room.len())
            };
            let (buffer, buffer_offset) = match &self.backing {
                Backing::Local(local) => local.buffer_of(data, data_size),
                #[cfg(target_os = "linux")]
                Backing::Remote(_) => (std::ptr::null_mut(), 0),
            };
            tensors.push(c::Tensor {
                dtype: dtype_code(dtype),
                rank: rank as u32,
                sizes: sizes.as_mut_ptr(),
                data: data.cast(),
                data_size: data_size as u64,
                buffer,
                buffer_offset,
                ..c::Tensor::new()
            });
        }
        let (given, taken) = tensors.split_at_mut(inputs.len());
        input_pointers.clear();
        input_pointers.extend(given.iter().map(std::ptr::from_ref));
        output_pointers.clear();
        output_pointers.extend(taken.iter_mut().map(std::ptr::from_mut));
        Ok(CallOptions {
            parallel: options.parallel.or(self.parallel),
            ..*options
        })
    }

    /// Checks the sizes that the delegate gave, and brings home what lay elsewhere.
    fn finish(&mut self, outputs: &mut [Output<'_>]) -> Result<(), DelegateError> {
        let first = self.inputs.len();
        for (i, output) in outputs.iter_mut().enumerate() {
            let actual = &self.room.sizes[first + i][..output.sizes.rank()];
            for (size, largest) in actual.iter().zip(output.sizes.iter()) {
                if !(0..=*largest).contains(size) {
                    return Err(self.beyond(i, &output.sizes));
                }
            }
            output.sizes.copy_from_slice(actual);
            let staging = &self.room.staging[first + i];
            if staging.used {
                // The sizes are no larger than those that the staging has room for.
                let length = elements(output.dtype, &output.sizes).unwrap_or(0);
                output.bytes[..length].copy_from_slice(&staging.bytes()[..length]);
                self.copies.tensors += 1;
                self.copies.bytes += length as u64;
            }
        }
        Ok(())
    }

    #[cold]
    fn beyond(&self, output: usize, largest: &Dims) -> DelegateError {
        let actual = &self.room.sizes[self.inputs.len() + output][..largest.rank()];
        let problem = format!("it gave output {output} the sizes {actual:?}, beyond {largest:?}");
        DelegateError::new(&self.backend, Status::INTERNAL, problem)
    }

    /// The delegate may rely on all of this. Notes how many bytes each tensor's elements take.
    fn check(&mut self, inputs: &[Input<'_>], outputs: &[Output<'_>]) -> Result<(), String> {
        let counts = [
            ("inputs", inputs.len(), self.inputs.len()),
            ("outputs", outputs.len(), self.outputs.len()),
        ];
        if let Some((what, given, taken)) = counts.iter().find(|(_, given, taken)| given != taken) {
            return Err(format!("{given} {what} are given, the blob has {taken}"));
        }
        let lengths = &mut self.room.lengths;
        lengths.clear();
        for (i, (tensor, spec)) in inputs.iter().zip(&self.inputs).enumerate() {
            let kept = self.states.keeps(i);
            let length = check_tensor(tensor.dtype, tensor.sizes, tensor.bytes, spec, kept);
            lengths.push(length.map_err(|why| format!("input {i}: {why}"))?);
        }
        for (i, (tensor, spec)) in outputs.iter().zip(&self.outputs).enumerate() {
            let kept = self.states.keeps(inputs.len() + i);
            let length = check_tensor(tensor.dtype, &tensor.sizes, tensor.bytes, spec, kept);
            lengths.push(length.map_err(|why| format!("output {i}: {why}"))?);
        }
        Ok(())
    }
}

/// A run that goes on.
pub struct Pending<'a>(Option<&'a crate::submit::Fence>);

impl Pending<'_> {
    /// Waits at most so long; true if the run has ended.
    pub fn wait(&self, at_most: Duration) -> bool {
        self.0
            .is_none_or(|fence| fence.wait(Some(Instant::now() + at_most)).is_some())
    }
}

/// The bytes to hand over of a tensor of `size` bytes that lies at `data` with `room` bytes, as a blob requires: the elements, and up to
/// the next multiple where one is asked for. `None`: it does not lie so.
fn room_handed(requirement: Requirement, data: *const u8, size: usize, room: usize) -> Option<usize> {
    let aligned = (data as usize).is_multiple_of(requirement.alignment.max(1) as usize);
    let handed = size.next_multiple_of(requirement.size_multiple.max(1) as usize);
    (aligned && handed <= room).then_some(handed)
}

/// Bytes of the elements of these sizes; `None`: more than there can be.
fn elements(dtype: DType, sizes: &[i64]) -> Option<usize> {
    sizes
        .iter()
        .try_fold(dtype.size(), |n, size| n.checked_mul(usize::try_from(*size).ok()?))
}

/// Gives the bytes of its elements. `kept`: the session has them.
fn check_tensor(dtype: DType, sizes: &[i64], bytes: &[u8], spec: &TensorSpec, kept: bool) -> Result<usize, String> {
    if dtype_code(dtype) != spec.dtype {
        return Err(format!("its dtype is {dtype}, the blob's is {}", spec.dtype));
    }
    if sizes.len() != spec.rank as usize {
        return Err(format!(
            "it has {} dimensions, the blob's has {}",
            sizes.len(),
            spec.rank
        ));
    }
    if kept {
        return match bytes.is_empty() {
            true => Ok(0),
            false => Err("the session keeps this state, and takes no bytes of it; see `Session::states`".to_string()),
        };
    }
    let Some(need) = elements(dtype, sizes).filter(|need| *need <= bytes.len()) else {
        return Err(format!("{} bytes do not hold {dtype}{sizes:?}", bytes.len()));
    };
    if need > 0 && !bytes.as_ptr().addr().is_multiple_of(dtype.size()) {
        return Err(format!("its bytes are not aligned to an element of {dtype}"));
    }
    Ok(need)
}

/// Both number element types as `.pte` files do.
fn dtype_code(dtype: DType) -> delegraph_abi::DType {
    delegraph_abi::DType(dtype.pte_code() as u32)
}
