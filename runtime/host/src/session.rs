//! A loaded blob.

use crate::api::HostCall;
use crate::{Delegate, DelegateError};
use delegraph_abi::envelope::TensorSpec;
use delegraph_abi::{Status, c};
use delegraph_types::{DType, Dims, Parallel};
use std::sync::Arc;

/// A tensor that a session reads: contiguous, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Element type.
    pub dtype: DType,
    /// Sizes.
    pub sizes: &'a [i64],
    /// Exactly the elements, aligned to an element's size.
    pub bytes: &'a [u8],
}

/// A tensor that a session writes: contiguous, row-major.
#[derive(Debug)]
pub struct Output<'a> {
    /// Element type.
    pub dtype: DType,
    /// In: the largest sizes that fit `bytes`. Out: the actual sizes, never larger.
    pub sizes: Dims,
    /// Room for the largest sizes, aligned to an element's size; the actual elements lie at its start, contiguous.
    pub bytes: &'a mut [u8],
}

/// A loaded blob, ready to run. One run at a time; may move between threads.
pub struct Session {
    delegate: Arc<Delegate>,
    /// Threads that a run may borrow.
    parallel: Parallel,
    session: *mut c::Session,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    /// Kept between runs, so that a steady run allocates nothing.
    room: Room,
}

/// What is handed over in a run.
#[derive(Default)]
struct Room {
    sizes: Vec<[i64; c::MAX_RANK as usize]>,
    tensors: Vec<c::Tensor>,
    inputs: Vec<*const c::Tensor>,
    outputs: Vec<*mut c::Tensor>,
}

// SAFETY: the contract lets the functions of a session be called on any thread, one at a time, which `&mut self` makes sure
// of. The pointers in `room` are dead between runs.
unsafe impl Send for Session {}

impl Session {
    pub(crate) fn new(
        delegate: Arc<Delegate>,
        session: *mut c::Session,
        inputs: &[TensorSpec],
        outputs: &[TensorSpec],
    ) -> Session {
        Session {
            parallel: delegate.parallel,
            delegate,
            session,
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            room: Room::default(),
        }
    }

    /// The same, which may borrow these threads in its runs.
    pub fn on(self, parallel: Parallel) -> Session {
        let mut session = self;
        session.parallel = parallel;
        session
    }

    /// Runs the region once.
    ///
    /// # Errors
    /// The delegate failed, or answered out of contract. The outputs' bytes are then unspecified; inputs are untouched.
    pub fn execute(&mut self, inputs: &[Input<'_>], outputs: &mut [Output<'_>]) -> Result<(), DelegateError> {
        self.check(inputs, outputs)
            .map_err(|problem| self.delegate.error(Status::INVALID_ARGUMENT, problem))?;
        let Room {
            sizes,
            tensors,
            inputs: input_pointers,
            outputs: output_pointers,
        } = &mut self.room;
        let all = inputs.len() + outputs.len();
        sizes.clear();
        sizes.extend(inputs.iter().map(|t| padded(t.sizes)));
        sizes.extend(outputs.iter().map(|t| padded(&t.sizes)));
        tensors.clear();
        tensors.extend(inputs.iter().zip(sizes.iter_mut()).map(|(tensor, sizes)| c::Tensor {
            dtype: dtype_code(tensor.dtype),
            rank: tensor.sizes.len() as u32,
            sizes: sizes.as_mut_ptr(),
            // The contract forbids writing an input.
            data: tensor.bytes.as_ptr().cast_mut().cast(),
            data_size: tensor.bytes.len() as u64,
            ..c::Tensor::new()
        }));
        tensors.extend(
            outputs
                .iter_mut()
                .zip(&mut sizes[inputs.len()..all])
                .map(|(tensor, sizes)| c::Tensor {
                    dtype: dtype_code(tensor.dtype),
                    rank: tensor.sizes.rank() as u32,
                    sizes: sizes.as_mut_ptr(),
                    data: tensor.bytes.as_mut_ptr().cast(),
                    data_size: tensor.bytes.len() as u64,
                    ..c::Tensor::new()
                }),
        );
        let (given, taken) = tensors.split_at_mut(inputs.len());
        input_pointers.clear();
        input_pointers.extend(given.iter().map(std::ptr::from_ref));
        output_pointers.clear();
        output_pointers.extend(taken.iter_mut().map(std::ptr::from_mut));
        let session = self.session;
        // SAFETY: the tensors, their sizes and their bytes live until the call returns; outputs are borrowed exclusively.
        self.delegate.call_on(self.parallel, |api, call| unsafe {
            api.session_execute.map(|f| {
                f(
                    session,
                    call,
                    input_pointers.as_ptr(),
                    input_pointers.len() as u64,
                    output_pointers.as_ptr(),
                    output_pointers.len() as u64,
                )
            })
        })?;
        for (i, (output, actual)) in outputs.iter_mut().zip(&sizes[inputs.len()..]).enumerate() {
            let actual = &actual[..output.sizes.rank()];
            let fits = actual
                .iter()
                .zip(output.sizes.iter())
                .all(|(size, largest)| (0..=*largest).contains(size));
            let dims = Dims::new(actual).ok().filter(|_| fits);
            output.sizes = dims.ok_or_else(|| {
                let problem = format!("it gave output {i} the sizes {actual:?}, beyond {:?}", output.sizes);
                self.delegate.error(Status::INTERNAL, problem)
            })?;
        }
        Ok(())
    }

    /// The delegate may rely on all of this.
    fn check(&self, inputs: &[Input<'_>], outputs: &[Output<'_>]) -> Result<(), String> {
        let counts = [
            ("inputs", inputs.len(), self.inputs.len()),
            ("outputs", outputs.len(), self.outputs.len()),
        ];
        if let Some((what, given, taken)) = counts.iter().find(|(_, given, taken)| given != taken) {
            return Err(format!("{given} {what} are given, the blob has {taken}"));
        }
        for (i, (tensor, spec)) in inputs.iter().zip(&self.inputs).enumerate() {
            check_tensor(tensor.dtype, tensor.sizes, tensor.bytes, spec).map_err(|why| format!("input {i}: {why}"))?;
        }
        for (i, (tensor, spec)) in outputs.iter().zip(&self.outputs).enumerate() {
            check_tensor(tensor.dtype, &tensor.sizes, tensor.bytes, spec)
                .map_err(|why| format!("output {i}: {why}"))?;
        }
        Ok(())
    }
}

fn check_tensor(dtype: DType, sizes: &[i64], bytes: &[u8], spec: &TensorSpec) -> Result<(), String> {
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
    let elements = sizes
        .iter()
        .try_fold(1usize, |n, size| n.checked_mul(usize::try_from(*size).ok()?));
    let need = elements.and_then(|n| n.checked_mul(dtype.size()));
    if need.is_none_or(|need| need > bytes.len()) {
        return Err(format!("{} bytes do not hold {dtype}{sizes:?}", bytes.len()));
    }
    if need != Some(0) && bytes.as_ptr().align_offset(dtype.size()) != 0 {
        return Err(format!("its bytes are not aligned to an element of {dtype}"));
    }
    Ok(())
}

/// Sizes of up to 16 dimensions; `check` has refused more.
fn padded(sizes: &[i64]) -> [i64; c::MAX_RANK as usize] {
    let mut room = [0; c::MAX_RANK as usize];
    room.iter_mut().zip(sizes).for_each(|(slot, size)| *slot = *size);
    room
}

/// Both number element types as `.pte` files do.
fn dtype_code(dtype: DType) -> delegraph_abi::DType {
    delegraph_abi::DType(dtype.pte_code() as u32)
}

impl Drop for Session {
    fn drop(&mut self) {
        let call = HostCall::new(self.delegate.backend(), None, Parallel::SERIAL);
        if let Some(unload) = self.delegate.api.session_unload {
            let _serial = self.delegate.serial();
            // SAFETY: `session_load` made it, no run is under way, and it is not used again.
            unsafe { unload(self.session, call.as_ptr()) }
        }
    }
}
