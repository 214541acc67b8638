//! Tensors of a run, runs that end later, and memory that the host lets a delegate see.

use super::{RawCall, bytes, bytes_mut, host_function, pointers, sized};
use crate::table::Buffer;
use crate::{Error, Imported, Status, TensorOut, TensorView};
use delegraph_abi::c;

/// A tensor to read.
///
/// # Safety
/// `tensor` is a copy of the host's; its sizes, bytes and buffer are valid and not written during `'a`.
pub(crate) unsafe fn view_of<'a>(tensor: &c::Tensor) -> TensorView<'a> {
    // SAFETY: the caller promises it.
    unsafe {
        TensorView {
            dtype: tensor.dtype,
            sizes: pointers(tensor.sizes, u64::from(tensor.rank)),
            bytes: bytes(tensor.data.cast(), tensor.data_size),
            buffer: imported(tensor),
        }
    }
}

/// A tensor to write.
///
/// # Safety
/// As [`view_of`], and nobody else has the sizes and bytes during `'a`.
pub(crate) unsafe fn room_of<'a>(tensor: &c::Tensor) -> TensorOut<'a> {
    // SAFETY: the caller promises it.
    unsafe {
        let sizes: &mut [i64] = if tensor.rank == 0 || tensor.sizes.is_null() {
            &mut []
        } else {
            std::slice::from_raw_parts_mut(tensor.sizes, tensor.rank as usize)
        };
        TensorOut {
            dtype: tensor.dtype,
            sizes,
            bytes: bytes_mut(tensor.data.cast(), tensor.data_size),
            buffer: imported(tensor),
        }
    }
}

/// # Safety
/// `buffer` is NULL or what `buffer_import` of this SDK made, and not released during `'a`.
unsafe fn imported<'a>(tensor: &c::Tensor) -> Option<Imported<'a>> {
    // SAFETY: the caller promises it.
    let buffer = unsafe { Buffer::borrow(tensor.buffer.cast_const()) };
    buffer.map(|buffer| Imported::new(&*buffer.any, tensor.buffer_offset))
}

/// What the contract calls `fence_signal`.
type Signal = unsafe extern "C" fn(*mut c::Fence, Status, *const u8, u64) -> Status;

/// A submitted run. What it points to is valid until its fence is signalled, which only [`RawRun::end`] does.
pub(crate) struct RawRun {
    call: RawCall,
    fence: *mut c::Fence,
    signal: Signal,
    inputs: Vec<c::Tensor>,
    outputs: Vec<c::Tensor>,
}

// SAFETY: the contract lets the fence be signalled from any thread, and hands the tensors over to the run until then.
unsafe impl Send for RawRun {}

impl RawRun {
    /// Takes a run over. On an error nothing is submitted.
    ///
    /// # Safety
    /// The arguments are those of `session_submit`.
    pub unsafe fn new(
        call: RawCall,
        inputs: &[*const c::Tensor],
        outputs: &[*mut c::Tensor],
        fence: *mut c::Fence,
    ) -> Result<RawRun, Error> {
        let bad_struct = |what: &str| Error::new(Status::BAD_STRUCT, format!("`{what}` is NULL or too small"));
        if fence.is_null() {
            return Err(bad_struct("dg_fence"));
        }
        let copy = |tensor: *const c::Tensor| {
            // SAFETY: the caller promises it.
            unsafe { sized(tensor, c::Tensor::FIRST_SIZE) }.map_err(|_| bad_struct("dg_tensor"))
        };
        Ok(RawRun {
            signal: host_function!(call.host(), fence_signal).ok_or_else(|| bad_struct("dg_host_api"))?,
            inputs: inputs.iter().map(|t| copy(*t)).collect::<Result<_, _>>()?,
            outputs: outputs.iter().map(|t| copy(t.cast_const())).collect::<Result<_, _>>()?,
            call,
            fence,
        })
    }

    pub fn call(&self) -> RawCall {
        self.call
    }

    // The lists are made anew each time: were they kept, a caller could leave a tensor of a shorter life in them.

    pub fn inputs(&self) -> Vec<TensorView<'_>> {
        // SAFETY: the fence is not signalled as long as `self` lives; inputs are not written.
        self.inputs.iter().map(|t| unsafe { view_of(t) }).collect()
    }

    pub fn parts(&mut self) -> (Vec<TensorView<'_>>, Vec<TensorOut<'_>>) {
        // SAFETY: as above; outputs overlap nothing, and the borrow of `self` is the only way to them.
        let outputs = self.outputs.iter().map(|t| unsafe { room_of(t) }).collect();
        // SAFETY: as in `inputs`.
        let inputs = self.inputs.iter().map(|t| unsafe { view_of(t) }).collect();
        (inputs, outputs)
    }

    /// Signals the fence.
    pub fn end(self, outcome: Result<(), Error>) {
        let (status, message) = match outcome {
            Ok(()) => (Status::OK, String::new()),
            Err(mut error) => {
                if error.code == Status::OK {
                    error.code = Status::INTERNAL;
                }
                // The fence takes a message alone; node and hint go the usual way, while there still is a call.
                self.call.set_error(&error);
                (error.code, error.message)
            }
        };
        // SAFETY: `self` is consumed, so that this is the one signal; the text lives until the function returns.
        unsafe { (self.signal)(self.fence, status, message.as_ptr(), message.len() as u64) };
    }
}

/// Memory of the host's that runs will read and write, see [`crate::Import`]. It stays where it is until the buffer that was made
/// of it is dropped. Others write to it meanwhile: hand its address to a device, and read and write it only as tensors of a run.
#[derive(Debug, Clone, Copy)]
pub struct HostMemory {
    pointer: *mut u8,
    size: usize,
}

// SAFETY: it is an address and a size; nothing is read or written through it here.
unsafe impl Send for HostMemory {}
// SAFETY: as above.
unsafe impl Sync for HostMemory {}

impl HostMemory {
    /// Both must be multiples of 4096.
    pub(crate) fn new(pointer: *mut u8, size: u64) -> Option<HostMemory> {
        let size = usize::try_from(size).ok()?;
        let whole = pointer.addr() % 4096 == 0 && size % 4096 == 0;
        (whole && !pointer.is_null() && size > 0).then_some(HostMemory { pointer, size })
    }

    /// Where it begins: a multiple of 4096.
    pub fn as_ptr(self) -> *mut u8 {
        self.pointer
    }

    /// In bytes: a multiple of 4096, not 0.
    pub fn size(self) -> usize {
        self.size
    }
}

/// Where the processor sees a buffer of a delegate's.
#[derive(Debug, Clone, Copy)]
pub struct Mapped {
    pub(crate) pointer: *mut u8,
    pub(crate) size: usize,
}

// SAFETY: it is an address and a size; the host reads and writes there between runs, by the contract.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// So many bytes from this address on.
    ///
    /// # Safety
    /// They can be read and written there, by any thread, for as long as the buffer that is mapped lives, and what is written there is what
    /// the device sees, without flushing.
    pub unsafe fn new(pointer: *mut u8, size: usize) -> Mapped {
        Mapped { pointer, size }
    }
}
