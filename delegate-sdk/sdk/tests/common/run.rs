//! Loading and running as the small host does it.

use super::{Call, Fence, Minor, Weights};
use delegraph_abi::{DType, Status, c};

/// A minor 0 struct: as large as it was, with rubbish where later fields lie.
fn shortened<T: Copy>(mut whole: T, first_size: usize) -> T {
    assert!(first_size < size_of::<T>());
    // SAFETY: the rubbish is within the struct, behind the fields of the first minor; a struct of the ABI begins with its size.
    unsafe {
        let bytes = (&raw mut whole).cast::<u8>();
        bytes.add(first_size).write_bytes(0x2a, size_of::<T>() - first_size);
        bytes.cast::<u32>().write(first_size as u32);
    }
    whole
}

static HASHES: [[u8; 32]; 3] = [[1; 32], [2; 32], [3; 32]];

/// What the envelope of a blob says.
pub fn meta(minor: Minor) -> c::BlobMeta {
    let (delegate, format, driver) = ("probe", "probe", "2.5");
    let meta = c::BlobMeta {
        delegate: delegate.as_ptr(),
        delegate_size: delegate.len() as u64,
        format: format.as_ptr(),
        format_size: format.len() as u64,
        format_version: 1,
        graph_hash: HASHES[0].as_ptr(),
        driver_min: driver.as_ptr(),
        driver_min_size: driver.len() as u64,
        options_hash: HASHES[1].as_ptr(),
        ..c::BlobMeta::new()
    };
    match minor {
        Minor::Zero => shortened(meta, c::BlobMeta::FIRST_SIZE),
        _ => meta,
    }
}

/// Loads an empty blob, for device 3.
pub fn load(
    api: &c::DelegateApi,
    delegate: *mut c::Delegate,
    call: &Call,
    weights: &Weights,
    minor: Minor,
) -> Result<*mut c::Session, Status> {
    let blob = c::Blob {
        weights: weights.as_ptr(),
        device_chosen: 1,
        device: 3,
        ..c::Blob::new()
    };
    load_blob(api, delegate, call, blob, minor)
}

/// Loads a blob, with the metadata of the tests.
pub fn load_blob(
    api: &c::DelegateApi,
    delegate: *mut c::Delegate,
    call: &Call,
    mut blob: c::Blob,
    minor: Minor,
) -> Result<*mut c::Session, Status> {
    let meta = meta(minor);
    blob.meta = &raw const meta;
    let blob = match minor {
        Minor::Zero => shortened(blob, c::Blob::FIRST_SIZE),
        Minor::First => shortened(blob, c::Blob::MAJOR_SIZE),
        _ => blob,
    };
    let mut session = std::ptr::null_mut();
    // SAFETY: all of it outlives the call.
    match unsafe { api.session_load.unwrap()(delegate, call.as_ptr(), &blob, &mut session) } {
        Status::OK => Ok(session),
        status => Err(status),
    }
}

/// The tensors of a run of `relu(x)`, x of 2 f32, in memory of the test's, with room for 3 elements of the output.
pub struct Tensors {
    sizes: Vec<i64>,
    data: Vec<f32>,
    tensors: Vec<c::Tensor>,
}

impl Tensors {
    pub fn new(minor: Minor) -> Tensors {
        let mut sizes = vec![2, 3];
        let mut data = vec![1.5, -2.0, 0.0, 0.0, 0.0];
        let tensors = [(0, 0, 2), (1, 2, 3)].map(|(i, at, elements)| {
            let tensor = c::Tensor {
                dtype: DType::F32,
                rank: 1,
                sizes: sizes.as_mut_ptr().wrapping_add(i),
                data: data.as_mut_ptr().wrapping_add(at).cast(),
                data_size: 4 * elements,
                ..c::Tensor::new()
            };
            match minor {
                Minor::Zero => shortened(tensor, c::Tensor::FIRST_SIZE),
                _ => tensor,
            }
        });
        Tensors {
            sizes,
            data,
            tensors: tensors.to_vec(),
        }
    }

    /// Says that input and output lie in this buffer, at 16 and 32.
    pub fn in_buffer(&mut self, buffer: *mut c::Buffer) {
        for (tensor, offset) in self.tensors.iter_mut().zip([16, 32]) {
            (tensor.buffer, tensor.buffer_offset) = (buffer, offset);
        }
    }

    fn pointers(&mut self) -> (*const c::Tensor, *mut c::Tensor) {
        let first = self.tensors.as_mut_ptr();
        (first, first.wrapping_add(1))
    }

    pub fn execute(&mut self, api: &c::DelegateApi, session: *mut c::Session, call: &Call) -> Status {
        let execute = api.session_execute.unwrap();
        let (input, output) = self.pointers();
        // SAFETY: the tensors outlive the call.
        unsafe { execute(session, call.as_ptr(), &input, 1, &output, 1) }
    }

    /// The tensors must outlive the run.
    pub fn submit(
        &mut self,
        api: &c::DelegateApi,
        session: *mut c::Session,
        call: &Call,
        fence: *mut c::Fence,
    ) -> Status {
        let submit = api.session_submit.unwrap();
        let (input, output) = self.pointers();
        // SAFETY: the tests wait for the fence before they drop the tensors; the lists are for the call alone.
        unsafe { submit(session, call.as_ptr(), &input, 1, &output, 1, fence) }
    }

    /// The output's size and elements.
    pub fn result(&self) -> (i64, &[f32]) {
        let size = self.sizes[1];
        (size, &self.data[2..][..usize::try_from(size).unwrap().min(3)])
    }
}

/// A delegate in a mode, with a session.
pub struct Opened {
    pub api: &'static c::DelegateApi,
    pub minor: Minor,
    pub delegate: *mut c::Delegate,
    pub session: *mut c::Session,
    pub weights: Box<Weights>,
    pub loading: super::Heard,
}

impl Opened {
    pub fn new(entry: delegraph_abi::StaticEntry, minor: Minor, mode: &str) -> Opened {
        let api = super::table(entry, minor);
        let call = Call::new(minor);
        let delegate = super::start(api, &call, mode).unwrap();
        let weights = Box::new(Weights::new(&[&[7, 8, 9], &[1]]));
        let session = load(api, delegate, &call, &weights, minor).unwrap();
        Opened {
            api,
            minor,
            delegate,
            session,
            weights,
            loading: call.heard(),
        }
    }

    /// Submits a run, cancels it, and gives its tensors and how it ended.
    pub fn submit(&self) -> (Tensors, (Status, String), super::Heard) {
        let (call, fence) = (Call::new(self.minor), Fence::default());
        let mut tensors = Tensors::new(self.minor);
        assert_eq!(
            tensors.submit(self.api, self.session, &call, fence.as_ptr()),
            Status::OK
        );
        call.cancelled.store(true, std::sync::atomic::Ordering::SeqCst);
        let signal = fence.signal();
        (tensors, signal, call.heard())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let call = Call::new(self.minor);
        // SAFETY: both are live, and not used again.
        unsafe {
            self.api.session_unload.unwrap()(self.session, call.as_ptr());
            self.api.shutdown.unwrap()(self.delegate, call.as_ptr());
        }
    }
}
