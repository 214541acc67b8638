//! The table of functions of `delegraph.h`, for a delegate that only runs. All unsafe code is here: pointers of the host, and the one place of a
//! board.

use crate::driver::{Driver, Memory};
use crate::error::Error;
use crate::session::Session;
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::fmt::Write;
use core::marker::PhantomData;
use core::mem::offset_of;
use core::ops::Range;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use delegraph_abi::StaticEntry;
use delegraph_abi::c::{
    self, Blob, BlobMeta, BlobVerdict, Call, CheckSink, DelegateApi, DelegateInfo, DeviceInfo, DeviceKind, Feature,
    HostApi, Init, Section, Status, Tensor,
};

/// Most sessions of a board at a time.
pub const SESSIONS: usize = 8;

const FORMAT: &str = "delegraph.ethos-u";
const NETWORK: &str = "network";
/// Where networks are copied to: a multiple of what the processor needs.
const ALIGN: usize = 16;

/// A board: it says where its driver and memory are. The type itself is only a name.
pub trait Board: Sized + 'static {
    /// Its driver.
    type Driver: Driver + Send;

    /// The place of the board, a `static`.
    fn place() -> &'static Place<Self::Driver>;
}

/// Where a board keeps its driver, its memory, and the networks that are loaded.
#[derive(Debug)]
pub struct Place<D> {
    taken: AtomicBool,
    inner: UnsafeCell<Option<Inner<D>>>,
}

// SAFETY: `with` lets one at a time to what is inside.
unsafe impl<D: Send> Sync for Place<D> {}

#[derive(Debug)]
struct Inner<D> {
    driver: D,
    memory: Memory<'static>,
    store: &'static mut [u8],
    /// Which part of `store` each session's network lies in.
    sessions: [Option<Range<usize>>; SESSIONS],
}

impl<D: Driver> Place<D> {
    /// An empty one.
    pub const fn new() -> Place<D> {
        Place {
            taken: AtomicBool::new(false),
            inner: UnsafeCell::new(None),
        }
    }

    /// Installs a driver; once, before a host loads the delegate. `store` is where networks are copied to when they are loaded: the contract lets a
    /// blob go when its session is made. A [`Session`] of the safe interface needs none, where blobs stay where they are.
    ///
    /// # Errors
    /// There is one already.
    pub fn install(&self, driver: D, memory: Memory<'static>, store: &'static mut [u8]) -> Result<(), Error> {
        self.locked(|inner| match inner {
            Some(_) => Err(Error::Call("a driver is installed already")),
            None => {
                *inner = Some(Inner {
                    driver,
                    memory,
                    store,
                    sessions: [const { None }; SESSIONS],
                });
                Ok(())
            }
        })
    }

    fn locked<T>(&self, body: impl FnOnce(&mut Option<Inner<D>>) -> Result<T, Error>) -> Result<T, Error> {
        if self.taken.swap(true, Ordering::Acquire) {
            return Err(Error::Busy);
        }
        // SAFETY: whoever set `taken` is alone here until it is cleared.
        let result = body(unsafe { &mut *self.inner.get() });
        self.taken.store(false, Ordering::Release);
        result
    }

    fn with<T>(&self, body: impl FnOnce(&mut Inner<D>) -> Result<T, Error>) -> Result<T, Error> {
        self.locked(|inner| body(inner.as_mut().ok_or(Error::NotInstalled)?))
    }
}

impl<D: Driver> Default for Place<D> {
    fn default() -> Place<D> {
        Place::new()
    }
}

impl<D: Driver> Inner<D> {
    /// Copies a network behind those that are loaded. The number of its session.
    fn load(&mut self, section: &[u8]) -> Result<usize, Error> {
        Session::new(section)?;
        let slot = self.sessions.iter().position(Option::is_none).ok_or(Error::NoSession)?;
        let used = self.sessions.iter().flatten().map(|range| range.end).max().unwrap_or(0);
        // The first byte of the store may lie anywhere.
        let base = self.store.as_ptr().addr();
        let start = (base + used).next_multiple_of(ALIGN) - base;
        let end = start.saturating_add(section.len());
        let given = self.store.len();
        let place = self.store.get_mut(start..end).ok_or(Error::TooSmall {
            what: "store",
            needed: end,
            given,
        })?;
        place.copy_from_slice(section);
        self.sessions[slot] = Some(start..end);
        Ok(slot)
    }

    /// # Safety
    /// Each pointer is to a tensor of a host, as the contract says.
    unsafe fn execute(&mut self, slot: usize, inputs: &[*const Tensor], outputs: &[*mut Tensor]) -> Result<(), Error> {
        let range = self.sessions.get(slot).and_then(Option::clone);
        let range = range.ok_or(Error::Call("a session that is not loaded"))?;
        let Inner {
            driver, memory, store, ..
        } = self;
        let session = Session::new(store.get(range).unwrap_or_default())?;
        let network = session.network();
        for (what, given, has) in [
            ("input", inputs.len(), network.input_count()),
            ("output", outputs.len(), network.output_count()),
        ] {
            if given != has {
                return Err(Error::NoTensor {
                    what,
                    number: given.min(has),
                });
            }
        }
        for (number, tensor) in inputs.iter().enumerate() {
            let (size, elements) = network.input(number).map_or((0, 0), |t| (t.bytes(), t.elements));
            // SAFETY: the caller promises it; an input is only read.
            let (data, given) = unsafe { data_of(*tensor, elements) }?;
            check("input", number, size, given)?;
            // SAFETY: as above, and so many bytes are there.
            session.write_input(number, unsafe { bytes(data.cast(), size) }, memory)?;
        }
        session.run(driver, memory)?;
        for (number, tensor) in outputs.iter().enumerate() {
            let (size, elements) = network.output(number).map_or((0, 0), |t| (t.bytes(), t.elements));
            // SAFETY: the caller promises it.
            let (data, given) = unsafe { data_of(*tensor, elements) }?;
            check("output", number, size, given)?;
            if size > 0 {
                // SAFETY: as above, so many bytes are there, and nobody else has them while the call runs.
                let out = unsafe { core::slice::from_raw_parts_mut(data.cast::<u8>(), size) };
                session.read_output(number, memory, out)?;
            }
        }
        Ok(())
    }
}

fn check(what: &'static str, number: usize, needed: usize, given: usize) -> Result<(), Error> {
    match needed <= given {
        true => Ok(()),
        false => Err(Error::TensorSize {
            what,
            number,
            needed,
            given,
        }),
    }
}

/// # Safety
/// NULL, or a tensor of the host.
unsafe fn data_of(tensor: *const Tensor, elements: usize) -> Result<(*mut c_void, usize), Error> {
    // SAFETY: the caller promises it; there are as many sizes as the rank says.
    let (tensor, sizes) = unsafe {
        let tensor = known(tensor, Tensor::FIRST_SIZE)?;
        (tensor, pointers(tensor.sizes.cast_const(), u64::from(tensor.rank))?)
    };
    let mut product = Some(1usize);
    for size in sizes {
        product = product.and_then(|p| p.checked_mul(usize::try_from(*size).ok()?));
    }
    if product != Some(elements) {
        return Err(Error::Call("a tensor of other sizes than the network was compiled for"));
    }
    let size = usize::try_from(tensor.data_size).map_err(|_| Error::Call("a tensor beyond the address space"))?;
    match tensor.data.is_null() && size > 0 {
        true => Err(Error::Call("a tensor without data")),
        false => Ok((tensor.data, size)),
    }
}

/// What every struct of the contract begins with: its size.
///
/// # Safety
/// NULL, or a struct of the contract that lives as long as the result is used.
unsafe fn known<'a, T>(pointer: *const T, first_size: usize) -> Result<&'a T, Error> {
    if pointer.is_null() {
        return Err(Error::Call("a pointer is NULL"));
    }
    // SAFETY: the caller promises it; the size is the first field of each.
    let size = unsafe { pointer.cast::<u32>().read() } as usize;
    match size >= first_size {
        // SAFETY: as above. Fields that an older host's struct ends before are not read here.
        true => Ok(unsafe { &*pointer }),
        false => Err(Error::Call("a struct that is too small")),
    }
}

/// Bytes of a table of functions that has the one at this offset.
const fn reach(offset: usize) -> usize {
    offset + size_of::<usize>()
}

/// # Safety
/// So many bytes lie there for as long as the result is used; at none, the pointer may be anything.
unsafe fn bytes<'a>(data: *const u8, size: usize) -> &'a [u8] {
    match size {
        0 => &[],
        // SAFETY: the caller promises it.
        _ => unsafe { core::slice::from_raw_parts(data, size) },
    }
}

/// # Safety
/// As [`bytes`].
unsafe fn pointers<'a, T>(list: *const T, count: u64) -> Result<&'a [T], Error> {
    let count = usize::try_from(count).map_err(|_| Error::Call("a list beyond the address space"))?;
    match (count, list.is_null()) {
        (0, _) => Ok(&[]),
        (_, true) => Err(Error::Call("a list is NULL")),
        // SAFETY: the caller promises it.
        _ => Ok(unsafe { core::slice::from_raw_parts(list, count) }),
    }
}

/// The entry of a board's delegate, for a host in Rust: `host.register_static("ethos-u", static_entry::<MyBoard>())`.
pub const fn static_entry<B: Board>() -> StaticEntry {
    // SAFETY: `entry` keeps the contract for every board in safe Rust.
    unsafe { StaticEntry::new(entry::<B>) }
}

/// The table of a board's delegate, in the role that only runs.
pub const fn table<B: Board>() -> DelegateApi {
    DelegateApi {
        features: [Feature::RUN.0, 0],
        get_info: Some(get_info),
        initialize: Some(initialize::<B>),
        shutdown: Some(shutdown),
        device_enumerate: Some(device_enumerate),
        blob_check: Some(blob_check),
        session_load: Some(session_load::<B>),
        session_unload: Some(session_unload::<B>),
        session_execute: Some(session_execute::<B>),
        ..DelegateApi::new()
    }
}

/// The entry of a board's delegate, for a host in C, which calls it under the name of a function of the board's own.
///
/// # Safety
/// As the entry in `delegraph.h`: `out_table` is valid for a write.
pub unsafe extern "C" fn entry<B: Board>(_host: *const HostApi, out_table: *mut *const DelegateApi) -> Status {
    struct Of<B>(PhantomData<B>);
    impl<B: Board> Of<B> {
        const TABLE: &'static DelegateApi = &table::<B>();
    }
    if out_table.is_null() {
        return Status::INVALID_ARGUMENT;
    }
    // SAFETY: the caller promises it.
    unsafe { out_table.write(Of::<B>::TABLE) };
    Status::OK
}

const INFO: &DelegateInfo = &DelegateInfo {
    name: "ethos-u".as_ptr(),
    name_size: "ethos-u".len() as u64,
    vendor: "Delegraph".as_ptr(),
    vendor_size: "Delegraph".len() as u64,
    version: VERSION.as_ptr(),
    version_size: VERSION.len() as u64,
    opset: c::OPSET.as_ptr(),
    opset_size: c::OPSET.len() as u64,
    blob_format: FORMAT.as_ptr(),
    blob_format_size: FORMAT.len() as u64,
    blob_format_version: 1,
    image_version: c::IMAGE_MAJOR,
    abi_minor: c::ABI_MINOR as u32,
    layout_hash: c::LAYOUT_HASH,
    ..DelegateInfo::new()
};
const VERSION: &str = env!("CARGO_PKG_VERSION");

const DEVICE: &DeviceInfo = &DeviceInfo {
    kind: DeviceKind::MCU,
    name: DEVICE_NAME.as_ptr(),
    name_size: DEVICE_NAME.len() as u64,
    vendor: "Delegraph".as_ptr(),
    vendor_size: "Delegraph".len() as u64,
    ..DeviceInfo::new()
};
const DEVICE_NAME: &str = "Ethos-U by the driver of this board; this path was never run on a chip";

/// Ends a call: an error goes to the host, with its text.
///
/// # Safety
/// `call` is NULL or the host's.
unsafe fn end(call: *const Call, result: Result<(), Error>) -> Status {
    let Err(error) = result else { return Status::OK };
    let code = match error {
        Error::Damaged { .. } => Status::BLOB_CORRUPT,
        Error::OtherProcessor { .. } => Status::BLOB_INCOMPATIBLE,
        Error::TooSmall { .. } | Error::NoSession => Status::OUT_OF_MEMORY,
        Error::Busy => Status::DEVICE_BUSY,
        Error::NotInstalled => Status::NOT_READY,
        Error::Driver(_) => Status::VENDOR,
        _ => Status::INVALID_ARGUMENT,
    };
    let vendor_code = match error {
        Error::Driver(fault) => i64::from(fault.0),
        _ => 0,
    };
    let mut text = Text::default();
    // What does not fit is cut.
    let _ = write!(text, "{error}");
    // SAFETY: the caller promises it; the host's functions live as long as the program.
    let host = unsafe {
        known(call, Call::FIRST_SIZE).and_then(|call| known(call.host, reach(offset_of!(HostApi, call_set_error))))
    };
    if let Some(set_error) = host.ok().and_then(|host| host.call_set_error) {
        let (message, size) = (text.bytes.as_ptr(), text.size as u64);
        // SAFETY: the call runs; the host copies the text before it returns.
        unsafe { set_error(call, code, vendor_code, c::NO_NODE, message, size, ptr::null(), 0) };
    }
    code
}

/// A message, in memory of its own.
struct Text {
    bytes: [u8; 128],
    size: usize,
}

impl Default for Text {
    fn default() -> Text {
        Text {
            bytes: [0; 128],
            size: 0,
        }
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        // All that is written here is ASCII: it can be cut anywhere.
        for byte in text.bytes() {
            let place = self.bytes.get_mut(self.size).ok_or(core::fmt::Error)?;
            *place = byte;
            self.size += 1;
        }
        Ok(())
    }
}

unsafe extern "C" fn get_info(_: *const Call, out: *mut *const DelegateInfo) -> Status {
    if out.is_null() {
        return Status::INVALID_ARGUMENT;
    }
    // SAFETY: the host gives a place to write to.
    unsafe { out.write(INFO) };
    Status::OK
}

unsafe extern "C" fn initialize<B: Board>(call: *const Call, init: *const Init, out: *mut *mut c::Delegate) -> Status {
    let begin = || {
        // SAFETY: the host's struct lives while the call runs.
        let init = unsafe { known(init, Init::FIRST_SIZE) }?;
        if init.option_count > 0 {
            return Err(Error::Call("the delegate has no options on a board"));
        }
        if out.is_null() {
            return Err(Error::Call("a pointer is NULL"));
        }
        B::place().with(|_| Ok(()))?;
        // SAFETY: the host gives a place to write to. There is one delegate: what it is told apart by says nothing.
        unsafe { out.write(ptr::without_provenance_mut(1)) };
        Ok(())
    };
    let result = begin();
    // SAFETY: it is the host's call.
    unsafe { end(call, result) }
}

unsafe extern "C" fn shutdown(_: *mut c::Delegate, _: *const Call) {}

unsafe extern "C" fn device_enumerate(
    _: *mut c::Delegate,
    _: *const Call,
    capacity: u64,
    out_devices: *mut *const DeviceInfo,
    out_count: *mut u64,
) -> Status {
    if out_count.is_null() || (capacity > 0 && out_devices.is_null()) {
        return Status::INVALID_ARGUMENT;
    }
    // SAFETY: the host gives a place to write to, and room for so many.
    unsafe {
        out_count.write(1);
        if capacity > 0 {
            out_devices.write(DEVICE);
        }
    }
    Status::OK
}

unsafe extern "C" fn blob_check(
    _: *mut c::Delegate,
    call: *const Call,
    meta: *const BlobMeta,
    sink: *mut CheckSink,
) -> Status {
    let judge = || {
        // SAFETY: the host's structs live while the call runs, its functions as long as the program.
        let (meta, host) = unsafe {
            let meta = known(meta, BlobMeta::FIRST_SIZE)?;
            (
                meta,
                known(
                    known(call, Call::FIRST_SIZE)?.host,
                    reach(offset_of!(HostApi, blob_set_verdict)),
                )?,
            )
        };
        let size = usize::try_from(meta.format_size).map_err(|_| Error::Call("a text beyond the address space"))?;
        // SAFETY: as above.
        let format = unsafe { bytes(meta.format, size) };
        let (verdict, reason) = match (format == FORMAT.as_bytes(), meta.format_version) {
            (true, 1) => (BlobVerdict::OPTIMAL, ""),
            (true, _) => (BlobVerdict::UNSUPPORTED_HERE, "a blob of another version"),
            (false, _) => (BlobVerdict::NOT_MINE, "a blob of another delegate"),
        };
        let set = host.blob_set_verdict.ok_or(Error::Call("the host takes no verdicts"))?;
        // SAFETY: the sink is the host's; it copies the text.
        match unsafe { set(sink, verdict, reason.as_ptr(), reason.len() as u64) } {
            Status::OK => Ok(()),
            _ => Err(Error::Call("the host did not take the verdict")),
        }
    };
    let result = judge();
    // SAFETY: it is the host's call.
    unsafe { end(call, result) }
}

unsafe extern "C" fn session_load<B: Board>(
    _: *mut c::Delegate,
    call: *const Call,
    blob: *const Blob,
    out: *mut *mut c::Session,
) -> Status {
    let load = || {
        if out.is_null() {
            return Err(Error::Call("a pointer is NULL"));
        }
        // SAFETY: the host's structs, and what they point to, live while the call runs.
        let sections = unsafe {
            let blob = known(blob, Blob::FIRST_SIZE)?;
            pointers(blob.sections, blob.section_count)?
        };
        for section in sections {
            // SAFETY: as above.
            let (name, data) = unsafe {
                let section = known(*section, Section::FIRST_SIZE)?;
                let size =
                    |size: u64| usize::try_from(size).map_err(|_| Error::Call("a section beyond the address space"));
                let name = bytes(section.name, size(section.name_size)?);
                (name, bytes(section.data, size(section.size)?))
            };
            if name == NETWORK.as_bytes() {
                let slot = B::place().with(|inner| inner.load(data))?;
                // SAFETY: the host gives a place to write to. A session is its number, from 1 on; nobody follows it.
                unsafe { out.write(ptr::without_provenance_mut(slot + 1)) };
                return Ok(());
            }
        }
        Err(Error::Damaged {
            offset: 0,
            text: "the blob has no section `network`",
        })
    };
    let result = load();
    // SAFETY: it is the host's call.
    unsafe { end(call, result) }
}

unsafe extern "C" fn session_unload<B: Board>(session: *mut c::Session, _: *const Call) {
    let slot = session.addr().wrapping_sub(1);
    // A board that is busy is with another session: try until it is not.
    while B::place().with(|inner| Ok(inner.sessions.get_mut(slot).map(|s| *s = None))) == Err(Error::Busy) {
        core::hint::spin_loop();
    }
}

unsafe extern "C" fn session_execute<B: Board>(
    session: *mut c::Session,
    call: *const Call,
    inputs: *const *const Tensor,
    input_count: u64,
    outputs: *const *mut Tensor,
    output_count: u64,
) -> Status {
    let run = || {
        // SAFETY: the host's lists and tensors live while the call runs.
        let (inputs, outputs) = unsafe { (pointers(inputs, input_count)?, pointers(outputs, output_count)?) };
        let slot = session.addr().wrapping_sub(1);
        // SAFETY: as above.
        B::place().with(|inner| unsafe { inner.execute(slot, inputs, outputs) })
    };
    let result = run();
    // SAFETY: it is the host's call.
    unsafe { end(call, result) }
}
