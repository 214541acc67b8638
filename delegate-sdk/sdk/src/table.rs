//! The table of functions of a delegate: C functions that call the trait, and let no panic through.

use crate::sys::{HostTable, RawCall, RawWeights, bytes, bytes_mut, host_function, pointers, sized, text};
use crate::{
    Blob, BlobMeta, BlobVerdict, Compiled, Context, Delegate, Device, DeviceKind, Error, OptionValue, Options,
    Partition, Session, Status, TensorOut, TensorView, Verdict, Weights,
};
use delegraph_abi::c;
use delegraph_abi::image::{ImageView, verify};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A delegate that runs.
struct Instance<D> {
    delegate: D,
    devices: Vec<(c::DeviceInfo, Device)>,
}

/// A session that is loaded, with room for its tensors so that a run allocates nothing.
struct Loaded {
    session: Box<dyn Session>,
    inputs: Vec<TensorView<'static>>,
    outputs: Vec<TensorOut<'static>>,
}

struct Table<D>(std::marker::PhantomData<D>);

impl<D: Delegate> Table<D> {
    const INFO: &'static c::DelegateInfo = &c::DelegateInfo {
        name: D::INFO.name.as_ptr(),
        name_size: D::INFO.name.len() as u64,
        vendor: D::INFO.vendor.as_ptr(),
        vendor_size: D::INFO.vendor.len() as u64,
        version: D::INFO.version.as_ptr(),
        version_size: D::INFO.version.len() as u64,
        build: D::INFO.build.as_ptr(),
        build_size: D::INFO.build.len() as u64,
        opset: c::OPSET.as_ptr(),
        opset_size: c::OPSET.len() as u64,
        blob_format: D::INFO.format.as_ptr(),
        blob_format_size: D::INFO.format.len() as u64,
        blob_format_version: D::INFO.format_version,
        image_version: c::IMAGE_MAJOR,
        abi_minor: c::ABI_MINOR as u32,
        abi_min_minor: 0,
        layout_hash: c::LAYOUT_HASH,
        ..c::DelegateInfo::new()
    };

    const API: &'static c::DelegateApi = &c::DelegateApi {
        features: [c::Feature::COMPILE.0 | c::Feature::RUN.0, 0],
        get_info: Some(get_info::<D>),
        initialize: Some(initialize::<D>),
        shutdown: Some(shutdown::<D>),
        device_enumerate: Some(device_enumerate::<D>),
        partition: Some(partition::<D>),
        compile: Some(compile::<D>),
        blob_check: Some(blob_check::<D>),
        session_load: Some(session_load::<D>),
        session_unload: Some(session_unload),
        session_execute: Some(session_execute),
        ..c::DelegateApi::new()
    };
}

/// The entry of a delegate, for [`crate::export_delegate`] and static registration.
///
/// # Safety
/// As `dg_delegate_entry_v0` in `delegraph.h`: `host` lives as long as the process, `out_table` is valid for a write.
pub unsafe extern "C" fn entry<D: Delegate>(host: *const c::HostApi, out_table: *mut *const c::DelegateApi) -> Status {
    // SAFETY: the caller promises it.
    if let Err(status) = unsafe { HostTable::new(host) } {
        return status;
    }
    if out_table.is_null() {
        return Status::INVALID_ARGUMENT;
    }
    // SAFETY: the caller promises it.
    unsafe { out_table.write(Table::<D>::API) };
    Status::OK
}

/// The entry of a delegate that is linked into the program: `host.register_static(name, static_entry::<MyDelegate>())`.
pub fn static_entry<D: Delegate>() -> delegraph_abi::StaticEntry {
    // SAFETY: `entry` keeps the contract for every delegate in safe Rust.
    unsafe { delegraph_abi::StaticEntry::new(entry::<D>) }
}

/// Runs the body of a function: a panic becomes `INTERNAL`, an error goes to the host.
///
/// # Safety
/// `call` is what the host passed to the function that runs.
unsafe fn guard(call: *const c::Call, body: impl FnOnce(&RawCall) -> Result<(), Error>) -> Status {
    // SAFETY: the caller promises it.
    let call = match unsafe { RawCall::new(call) } {
        Ok(call) => call,
        Err(status) => return status,
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&call))).unwrap_or_else(|panic| {
        Err(Error::internal(format!(
            "the delegate panicked: {}",
            panic_text(&*panic)
        )))
    });
    match outcome {
        Ok(()) => Status::OK,
        Err(mut error) => {
            if error.code == Status::OK {
                error.code = Status::INTERNAL;
            }
            call.set_error(&error);
            error.code
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn bad_struct(what: &str) -> Error {
    Error::new(Status::BAD_STRUCT, format!("`{what}` is NULL or too small"))
}

fn sink_status(status: Status, what: &str) -> Result<(), Error> {
    match status {
        Status::OK => Ok(()),
        status => Err(Error::new(status, format!("the host did not take {what}"))),
    }
}

unsafe extern "C" fn get_info<D: Delegate>(call: *const c::Call, out_info: *mut *const c::DelegateInfo) -> Status {
    // SAFETY: pointers come from the host under the contract, here and in the functions below.
    unsafe {
        guard(call, |_| {
            let out = out_info.as_mut().ok_or_else(|| bad_struct("out_info"))?;
            *out = Table::<D>::INFO;
            Ok(())
        })
    }
}

unsafe extern "C" fn initialize<D: Delegate>(
    call: *const c::Call,
    init: *const c::Init,
    out_delegate: *mut *mut c::Delegate,
) -> Status {
    // SAFETY: see `get_info`.
    unsafe {
        guard(call, |call| {
            let init = sized(init, c::Init::FIRST_SIZE).map_err(|_| bad_struct("dg_init"))?;
            let out = out_delegate.as_mut().ok_or_else(|| bad_struct("out_delegate"))?;
            let mut options = Options::default();
            for kv in pointers(init.options, init.option_count) {
                let kv = sized(*kv, c::Kv::FIRST_SIZE).map_err(|_| bad_struct("dg_kv"))?;
                let key = text(kv.key, kv.key_size)?;
                let value = match kv.r#type {
                    c::KvType::BOOL => OptionValue::Bool(kv.int_value != 0),
                    c::KvType::INT => OptionValue::Int(kv.int_value),
                    c::KvType::FLOAT => OptionValue::Float(kv.float_value),
                    c::KvType::STR => OptionValue::Str(text(kv.str_value, kv.str_value_size)?),
                    other => return Err(Error::invalid(format!("option `{key}` is of unknown type {}", other.0))),
                };
                options.entries.push((key, value));
            }
            let delegate = D::new(&options, &Context::new(*call))?;
            let devices = delegate.devices().into_iter().enumerate().map(device_record).collect();
            *out = Box::into_raw(Box::new(Instance { delegate, devices })).cast();
            Ok(())
        })
    }
}

/// The record borrows the device's texts, which do not move when the pair does.
fn device_record((id, device): (usize, Device)) -> (c::DeviceInfo, Device) {
    let kind = match device.kind {
        DeviceKind::Cpu => c::DeviceKind::CPU,
        DeviceKind::Gpu => c::DeviceKind::GPU,
        DeviceKind::Npu => c::DeviceKind::NPU,
        DeviceKind::Dsp => c::DeviceKind::DSP,
        DeviceKind::Mcu => c::DeviceKind::MCU,
    };
    let record = c::DeviceInfo {
        id: id as u32,
        kind,
        name: device.name.as_ptr(),
        name_size: device.name.len() as u64,
        vendor: device.vendor.as_ptr(),
        vendor_size: device.vendor.len() as u64,
        arch: device.arch.as_ptr(),
        arch_size: device.arch.len() as u64,
        driver: device.driver.as_ptr(),
        driver_size: device.driver.len() as u64,
        memory: device.memory,
        ..c::DeviceInfo::new()
    };
    (record, device)
}

unsafe extern "C" fn shutdown<D: Delegate>(delegate: *mut c::Delegate, call: *const c::Call) {
    // SAFETY: `delegate` was made by `initialize` and is not used again.
    unsafe {
        guard(call, |_| {
            if !delegate.is_null() {
                drop(Box::from_raw(delegate.cast::<Instance<D>>()));
            }
            Ok(())
        });
    }
}

/// # Safety
/// `delegate` was made by `initialize::<D>` and is not shut down.
unsafe fn instance<'a, D>(delegate: *mut c::Delegate) -> Result<&'a Instance<D>, Error> {
    // SAFETY: the caller promises it; instances are only read once they are made.
    unsafe { delegate.cast::<Instance<D>>().as_ref() }.ok_or_else(|| Error::invalid("the delegate is NULL"))
}

unsafe extern "C" fn device_enumerate<D: Delegate>(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    capacity: u64,
    out_devices: *mut *const c::DeviceInfo,
    out_count: *mut u64,
) -> Status {
    // SAFETY: see `get_info`; at most `capacity` pointers are written.
    unsafe {
        guard(call, |_| {
            let devices = &instance::<D>(delegate)?.devices;
            if !out_devices.is_null() {
                for (i, (record, _)) in devices.iter().take(capacity as usize).enumerate() {
                    out_devices.add(i).write(record);
                }
            }
            *out_count.as_mut().ok_or_else(|| bad_struct("out_count"))? = devices.len() as u64;
            Ok(())
        })
    }
}

/// # Safety
/// `graph` comes from the host.
unsafe fn graph_of<'a>(graph: *const c::Graph, call: &RawCall) -> Result<(ImageView<'a>, Weights<'a>), Error> {
    // SAFETY: the image is valid for the length of the call.
    unsafe {
        let graph = sized(graph, c::Graph::FIRST_SIZE).map_err(|_| bad_struct("dg_graph"))?;
        let image = verify(bytes(graph.image, graph.image_size)).map_err(|e| Error::invalid(e.to_string()))?;
        Ok((image, Weights::new(RawWeights::new(graph.weights, call))))
    }
}

unsafe extern "C" fn partition<D: Delegate>(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    graph: *const c::Graph,
    sink: *mut c::PartSink,
) -> Status {
    // SAFETY: see `get_info`.
    unsafe {
        guard(call, |call| {
            let (image, _) = graph_of(graph, call)?;
            let answer = instance::<D>(delegate)?
                .delegate
                .partition(&image, &Context::new(*call))?;
            send_partition(call, sink, &answer)
        })
    }
}

fn send_partition(call: &RawCall, sink: *mut c::PartSink, answer: &Partition) -> Result<(), Error> {
    let missing = || bad_struct("dg_host_api");
    let verdict = host_function!(call.host(), part_node_verdict).ok_or_else(missing)?;
    let atomic_set = host_function!(call.host(), part_atomic_set).ok_or_else(missing)?;
    for (node, answer) in answer.verdicts.iter().enumerate() {
        let (supported, reason, text) = match answer {
            Verdict::Take => (1, c::Reason::NONE, ""),
            Verdict::Refuse(reason, text) => (0, *reason, &**text),
        };
        // SAFETY: the sink is valid until `partition` returns; the host copies the text.
        let status = unsafe { verdict(sink, node as u32, supported, reason, text.as_ptr(), text.len() as u64) };
        sink_status(status, &format!("the verdict on node {node}"))?;
    }
    for set in &answer.atomic_sets {
        let nodes: Vec<u32> = set.iter().map(|n| n.0).collect();
        // SAFETY: as above.
        let status = unsafe { atomic_set(sink, nodes.as_ptr(), nodes.len() as u64) };
        sink_status(status, "an atomic set")?;
    }
    Ok(())
}

unsafe extern "C" fn compile<D: Delegate>(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    graph: *const c::Graph,
    target: *const c::Target,
    sink: *mut c::BlobSink,
) -> Status {
    // SAFETY: see `get_info`.
    unsafe {
        guard(call, |call| {
            let (image, weights) = graph_of(graph, call)?;
            let target = sized(target, c::Target::FIRST_SIZE).map_err(|_| bad_struct("dg_target"))?;
            let target = text(target.name, target.name_size)?;
            let delegate = &instance::<D>(delegate)?.delegate;
            let compiled = delegate.compile(&image, &weights, target, &Context::new(*call))?;
            send_blob(call, sink, &compiled)
        })
    }
}

fn send_blob(call: &RawCall, sink: *mut c::BlobSink, compiled: &Compiled) -> Result<(), Error> {
    let missing = || bad_struct("dg_host_api");
    let precision = host_function!(call.host(), blob_set_precision).ok_or_else(missing)?;
    let begin = host_function!(call.host(), blob_begin_section).ok_or_else(missing)?;
    let write = host_function!(call.host(), blob_write).ok_or_else(missing)?;
    // SAFETY: the sink is valid until `compile` returns; the host copies texts and bytes.
    unsafe {
        let text = &compiled.precision;
        sink_status(precision(sink, text.as_ptr(), text.len() as u64), "the precision")?;
        for section in &compiled.sections {
            let name = &section.name;
            let status = begin(sink, name.as_ptr(), name.len() as u64, section.align);
            sink_status(status, &format!("section `{name}`"))?;
            let status = write(sink, section.bytes.as_ptr(), section.bytes.len() as u64);
            sink_status(status, &format!("the bytes of section `{name}`"))?;
        }
    }
    Ok(())
}

/// # Safety
/// `meta` comes from the host.
unsafe fn meta_of<'a>(meta: *const c::BlobMeta) -> Result<BlobMeta<'a>, Error> {
    // SAFETY: texts and hash are valid for the length of the call.
    unsafe {
        let meta = sized(meta, c::BlobMeta::FIRST_SIZE).map_err(|_| bad_struct("dg_blob_meta"))?;
        let hash = meta.graph_hash.cast::<[u8; 32]>().as_ref();
        Ok(BlobMeta {
            delegate: text(meta.delegate, meta.delegate_size)?,
            delegate_version: text(meta.delegate_version, meta.delegate_version_size)?,
            format: text(meta.format, meta.format_size)?,
            format_version: meta.format_version,
            target: text(meta.target, meta.target_size)?,
            precision: text(meta.precision, meta.precision_size)?,
            graph_hash: hash.ok_or_else(|| bad_struct("graph_hash"))?,
        })
    }
}

unsafe extern "C" fn blob_check<D: Delegate>(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    meta: *const c::BlobMeta,
    sink: *mut c::CheckSink,
) -> Status {
    // SAFETY: see `get_info`.
    unsafe {
        guard(call, |call| {
            let meta = meta_of(meta)?;
            let (verdict, reason) = match instance::<D>(delegate)?.delegate.check_blob(&meta) {
                BlobVerdict::Optimal => (c::BlobVerdict::OPTIMAL, String::new()),
                BlobVerdict::RecompileBetter(reason) => (c::BlobVerdict::RECOMPILE_BETTER, reason),
                BlobVerdict::UnsupportedHere(reason) => (c::BlobVerdict::UNSUPPORTED_HERE, reason),
                BlobVerdict::NotMine(reason) => (c::BlobVerdict::NOT_MINE, reason),
                BlobVerdict::Corrupt(reason) => (c::BlobVerdict::CORRUPT, reason),
            };
            let set = host_function!(call.host(), blob_set_verdict).ok_or_else(|| bad_struct("dg_host_api"))?;
            sink_status(set(sink, verdict, reason.as_ptr(), reason.len() as u64), "the verdict")
        })
    }
}

unsafe extern "C" fn session_load<D: Delegate>(
    delegate: *mut c::Delegate,
    call: *const c::Call,
    blob: *const c::Blob,
    out_session: *mut *mut c::Session,
) -> Status {
    // SAFETY: see `get_info`.
    unsafe {
        guard(call, |call| {
            let blob = sized(blob, c::Blob::FIRST_SIZE).map_err(|_| bad_struct("dg_blob"))?;
            let out = out_session.as_mut().ok_or_else(|| bad_struct("out_session"))?;
            let mut sections = Vec::new();
            for section in pointers(blob.sections, blob.section_count) {
                let section = sized(*section, c::Section::FIRST_SIZE).map_err(|_| bad_struct("dg_section"))?;
                sections.push((
                    text(section.name, section.name_size)?,
                    bytes(section.data, section.size),
                ));
            }
            let weights = Weights::new(RawWeights::new(blob.weights, call));
            let blob = Blob {
                meta: meta_of(blob.meta)?,
                sections,
            };
            let session = instance::<D>(delegate)?
                .delegate
                .load(&blob, &weights, &Context::new(*call))?;
            *out = Box::into_raw(Box::new(Loaded {
                session,
                inputs: Vec::new(),
                outputs: Vec::new(),
            }))
            .cast();
            Ok(())
        })
    }
}

unsafe extern "C" fn session_unload(session: *mut c::Session, call: *const c::Call) {
    // SAFETY: `session` was made by `session_load` and is not used again.
    unsafe {
        guard(call, |_| {
            if !session.is_null() {
                drop(Box::from_raw(session.cast::<Loaded>()));
            }
            Ok(())
        });
    }
}

unsafe extern "C" fn session_execute(
    session: *mut c::Session,
    call: *const c::Call,
    inputs: *const *const c::Tensor,
    input_count: u64,
    outputs: *const *mut c::Tensor,
    output_count: u64,
) -> Status {
    // SAFETY: the host runs one function of a session at a time; tensors are valid until the function returns, and outputs
    // overlap nothing.
    unsafe {
        guard(call, |call| {
            let loaded = session.cast::<Loaded>().as_mut();
            let loaded = loaded.ok_or_else(|| Error::invalid("the session is NULL"))?;
            let mut views: Vec<TensorView<'_>> = std::mem::take(&mut loaded.inputs);
            let mut rooms: Vec<TensorOut<'_>> = std::mem::take(&mut loaded.outputs);
            let missing = || bad_struct("dg_tensor");
            for tensor in pointers(inputs, input_count) {
                let tensor = sized(*tensor, c::Tensor::FIRST_SIZE).map_err(|_| missing())?;
                views.push(TensorView {
                    dtype: tensor.dtype,
                    sizes: pointers(tensor.sizes, u64::from(tensor.rank)),
                    bytes: bytes(tensor.data.cast(), tensor.data_size),
                });
            }
            for tensor in pointers(outputs, output_count) {
                let tensor = sized(tensor.cast_const(), c::Tensor::FIRST_SIZE).map_err(|_| missing())?;
                let sizes: &mut [i64] = if tensor.rank == 0 || tensor.sizes.is_null() {
                    &mut []
                } else {
                    std::slice::from_raw_parts_mut(tensor.sizes, tensor.rank as usize)
                };
                rooms.push(TensorOut {
                    dtype: tensor.dtype,
                    sizes,
                    bytes: bytes_mut(tensor.data.cast(), tensor.data_size),
                });
            }
            let outcome = loaded.session.execute(&views, &mut rooms, &Context::new(*call));
            (loaded.inputs, loaded.outputs) = (emptied(views), emptied_outputs(rooms));
            outcome
        })
    }
}

/// The room of the list, for the next run: collecting an emptied list in place keeps its allocation.
fn emptied(mut list: Vec<TensorView<'_>>) -> Vec<TensorView<'static>> {
    list.clear();
    list.into_iter()
        .map(|t| TensorView {
            dtype: t.dtype,
            sizes: &[],
            bytes: &[],
        })
        .collect()
}

/// As [`emptied`].
fn emptied_outputs(mut list: Vec<TensorOut<'_>>) -> Vec<TensorOut<'static>> {
    list.clear();
    list.into_iter()
        .map(|t| TensorOut {
            dtype: t.dtype,
            sizes: &mut [],
            bytes: &mut [],
        })
        .collect()
}

/// Exports a delegate: the one symbol of a plugin library. Use it once, in a crate of type `cdylib` that has nothing else.
///
/// ```ignore
/// delegraph_sdk::export_delegate!(my_delegate::MyDelegate);
/// ```
#[macro_export]
macro_rules! export_delegate {
    ($delegate:ty) => {
        /// The entry of the delegate.
        ///
        /// # Safety
        /// As `delegraph.h` says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn dg_delegate_entry_v0(
            host: *const $crate::c::HostApi,
            out_table: *mut *const $crate::c::DelegateApi,
        ) -> $crate::c::Status {
            // SAFETY: the caller keeps the contract of the entry.
            unsafe { $crate::entry::<$delegate>(host, out_table) }
        }
    };
}
