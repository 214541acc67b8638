//! The table of functions of a delegate: C functions that call the traits, and let no panic through. A file a role.

mod compile;
#[cfg(unix)]
mod external;
mod import;
pub mod roles;
mod run;
mod state;
mod submit;

use crate::sys::{HostTable, RawCall, pointers, sized, text};
use crate::{Context, Delegate, Device, DeviceKind, Error, Extension, OptionValue, Options, Status};
use delegraph_abi::c;
pub(crate) use import::Buffer;
use roles::Role;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A delegate that runs.
struct Instance<D> {
    delegate: D,
    devices: Vec<(c::DeviceInfo, Device)>,
}

/// The constants of a delegate in these roles.
struct Table<D, R>(PhantomData<(D, R)>);

impl<D: Delegate> Table<D, ()> {
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
}

impl<D: Delegate, R: Role<D>> Table<D, R> {
    const API: &'static c::DelegateApi = &roles::merged(
        c::DelegateApi {
            get_info: Some(get_info::<D>),
            initialize: Some(initialize::<D>),
            shutdown: Some(shutdown::<D>),
            device_enumerate: Some(device_enumerate::<D>),
            get_extension: Some(get_extension::<D>),
            options_schema: if D::OPTIONS_SCHEMA.is_empty() {
                None
            } else {
                Some(options_schema::<D>)
            },
            ..c::DelegateApi::new()
        },
        &R::API,
    );
}

/// The entry of a delegate, for [`crate::export_delegate`] and static registration.
///
/// # Safety
/// As `dg_delegate_entry_v1` in `delegraph.h`: `host` lives as long as the process, `out_table` is valid for a write.
pub unsafe extern "C" fn entry<D: Delegate, R: Role<D>>(
    host: *const c::HostApi,
    out_table: *mut *const c::DelegateApi,
) -> Status {
    // SAFETY: the caller promises it.
    if let Err(status) = unsafe { HostTable::new(host) } {
        return status;
    }
    if out_table.is_null() {
        return Status::INVALID_ARGUMENT;
    }
    // SAFETY: the caller promises it.
    unsafe { out_table.write(Table::<D, R>::API) };
    Status::OK
}

/// The entry of a delegate that is linked into the program and compiles and runs:
/// `host.register_static(name, static_entry::<MyDelegate>())`.
pub fn static_entry<D: crate::Compile + crate::Run>() -> delegraph_abi::StaticEntry {
    static_entry_as::<D, (roles::Compile, roles::Run)>()
}

/// As [`static_entry`], for other roles: `static_entry_as::<MyDelegate, roles::Run>()`.
pub fn static_entry_as<D: Delegate, R: Role<D>>() -> delegraph_abi::StaticEntry {
    // SAFETY: `entry` keeps the contract for every delegate in safe Rust.
    unsafe { delegraph_abi::StaticEntry::new(entry::<D, R>) }
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
    let outcome = catch_unwind(AssertUnwindSafe(|| body(&call)));
    match outcome.unwrap_or_else(|panic| Err(Error::panicked(&*panic))) {
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
            *out = Table::<D, ()>::INFO;
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

unsafe extern "C" fn get_extension<D: Delegate>(name: *const u8, name_size: u64, min_revision: u32) -> *const c_void {
    // SAFETY: see `get_info`.
    let name = unsafe { text(name, name_size) };
    // There is no call, and so nobody to tell of a panic.
    let found = catch_unwind(|| name.ok().and_then(|name| D::extension(name, min_revision)));
    found.ok().flatten().map_or(std::ptr::null(), Extension::as_ptr)
}

unsafe extern "C" fn options_schema<D: Delegate>(
    call: *const c::Call,
    out_text: *mut *const u8,
    out_size: *mut u64,
) -> Status {
    // SAFETY: see `get_info`.
    unsafe {
        guard(call, |_| {
            let (text, size) = (out_text.as_mut(), out_size.as_mut());
            let (Some(text), Some(size)) = (text, size) else {
                return Err(bad_struct("out_text"));
            };
            (*text, *size) = (D::OPTIONS_SCHEMA.as_ptr(), D::OPTIONS_SCHEMA.len() as u64);
            Ok(())
        })
    }
}

/// Exports a delegate: the one symbol of a plugin library. Use it once, in a crate of type `cdylib` that has nothing else.
///
/// ```ignore
/// delegraph_sdk::export_delegate!(my_delegate::MyDelegate);                 // compiles and runs
/// delegraph_sdk::export_delegate!(my_delegate::MyDelegate: compile);        // only compiles
/// delegraph_sdk::export_delegate!(my_delegate::MyDelegate: run);            // only runs
/// delegraph_sdk::export_delegate!(my_delegate::MyDelegate: compile, submit, import);
/// ```
///
/// The roles are `compile` ([`Compile`](crate::Compile)), `compile_set` (`compile`, and
/// [`Compile::compile_set`](crate::Compile::compile_set)), `run` ([`Run`](crate::Run)), `submit` (`run`, and sessions with
/// [`Session::submit`](crate::Session::submit)), `import` (`run`, and [`Import`](crate::Import)), `external` (`import`, and `External`, where
/// there are file descriptors) and `state` (`run`, and sessions with the
/// methods `state_` of [`Session`](crate::Session)).
#[macro_export]
macro_rules! export_delegate {
    ($delegate:ty) => {
        $crate::export_delegate!($delegate: compile, run);
    };
    ($delegate:ty: $($role:ident),+ $(,)?) => {
        /// The entry of the delegate.
        ///
        /// # Safety
        /// As `delegraph.h` says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn dg_delegate_entry_v1(
            host: *const $crate::c::HostApi,
            out_table: *mut *const $crate::c::DelegateApi,
        ) -> $crate::c::Status {
            // SAFETY: the caller keeps the contract of the entry.
            unsafe { $crate::entry::<$delegate, ($($crate::export_delegate!(@ $role),)+)>(host, out_table) }
        }
    };
    (@ compile) => { $crate::roles::Compile };
    (@ compile_set) => { $crate::roles::CompileSet };
    (@ run) => { $crate::roles::Run };
    (@ submit) => { $crate::roles::Submit };
    (@ import) => { $crate::roles::Import };
    (@ external) => { $crate::roles::External };
    (@ state) => { $crate::roles::State };
    (@ $other:ident) => {
        compile_error!(concat!("`", stringify!($other), "` is no role: they are compile, compile_set, run, submit, import, external, state"))
    };
}
