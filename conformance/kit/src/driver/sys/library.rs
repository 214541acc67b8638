//! A loaded library.

use crate::driver::call::{Refused, Script};
use crate::driver::lock;
use crate::driver::sys::hand::{Handed, list, pointers};
use crate::driver::sys::host::{HOST_API, HostCall, keep_over};
use crate::driver::sys::instance::Instance;
use crate::driver::sys::memory::{Guarded, Place};
use crate::driver::sys::raw::{first_size, load, read, text};
use crate::subject::Subject;
use delegraph_abi::{Status, c, newest_minor};
use std::ffi::c_void;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

/// Which host the library meets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HostShape {
    /// Of this version.
    #[default]
    Ours,
    /// Of the first minor of the library's major: its table ends where that one's did, and the memory behind it must not be touched.
    Oldest,
    /// Of a later minor: a larger table, with functions and features that the library cannot know.
    Newer,
}

/// What a delegate says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct InfoText {
    pub name: String,
    pub vendor: String,
    pub version: String,
    pub build: String,
    pub opset: String,
    pub blob_format: String,
    pub blob_format_version: u32,
    pub image_version: u32,
    pub abi_minor: u32,
    pub abi_min_minor: u32,
    pub layout_hash: u64,
}

/// A library whose entry was called. It is never unloaded.
pub struct Library {
    /// The major of the ABI that the entry is of.
    pub major: u16,
    /// The table, as much of it as this version knows.
    pub api: c::DelegateApi,
    /// Where the library has it.
    pub table: *const c::DelegateApi,
    pub(crate) host: *const c::HostApi,
}

// SAFETY: the table and the host's are constant.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

/// The host table of a major, as it is or as that of another minor. It lives as long as the process.
fn host_table(major: u16, shape: HostShape) -> Result<*const c::HostApi, String> {
    const TAIL: usize = 128;
    const fn of(major: u16) -> c::HostApi {
        let minor = match newest_minor(major) {
            Some(minor) => minor,
            None => 0,
        };
        // The functions of major 0 are those of 1.0.
        let size = match major {
            0 => c::HostApi::MAJOR_SIZE,
            _ => size_of::<c::HostApi>(),
        };
        c::HostApi {
            struct_size: size as u32,
            major,
            minor,
            ..HOST_API
        }
    }
    static NEWEST: c::HostApi = of(c::ABI_MAJOR);
    static MAJOR_0: c::HostApi = of(0);
    let ours = match major {
        c::ABI_MAJOR => &NEWEST,
        0 => &MAJOR_0,
        _ => return Err(format!("the kit does not know major version {major} of the ABI")),
    };
    let (size, minor) = match shape {
        HostShape::Ours => return Ok(ours),
        HostShape::Oldest => (first_size::<c::HostApi>(major), 0),
        HostShape::Newer => (size_of::<c::HostApi>() + TAIL, ours.minor + 7),
    };
    let mut table = *ours;
    table.struct_size = size as u32;
    table.minor = minor;
    if shape == HostShape::Newer {
        table.features = [1 << 62, 1 << 61];
    }
    // SAFETY: the table is as large as its type, and plain bytes to whoever copies it.
    let known = unsafe { std::slice::from_raw_parts((&raw const table).cast::<u8>(), size_of::<c::HostApi>()) };
    // Behind what this version knows: pointers that must not be called.
    let mut bytes = known.to_vec();
    bytes.resize(size_of::<c::HostApi>() + TAIL, 0xa5);
    let mut memory = Guarded::new(size, Place::End, 8)?;
    memory.fill(&bytes[..size]);
    memory.protect()?;
    let pointer = memory.as_ptr().cast_const().cast();
    std::mem::forget(memory);
    Ok(pointer)
}

impl Library {
    /// Loads a library and calls its entry: that of the major that its manifest names, or without one the newest.
    ///
    /// # Errors
    /// It cannot be loaded, has no such entry, refuses the host, or gives no table.
    pub fn open(subject: &Subject) -> Result<Library, String> {
        Library::open_as(subject, HostShape::Ours)
    }

    /// The same as another host.
    ///
    /// # Errors
    /// As [`Library::open`].
    pub fn open_as(subject: &Subject, shape: HostShape) -> Result<Library, String> {
        let wanted = subject.manifest.as_ref().map(|(_, manifest)| manifest.abi_major);
        let (major, entry) = load(&subject.library, wanted)?;
        let host = host_table(major, shape)?;
        let mut table = std::ptr::null();
        // SAFETY: the host's table lives as long as the process, the output is valid for a write.
        let status = unsafe { entry(host, &mut table) };
        if status != Status::OK {
            return Err(format!("its entry refused this host: {status}"));
        }
        // SAFETY: the contract makes it NULL or a constant table.
        let api = unsafe { read::<c::DelegateApi>(table) }?;
        Ok(Library {
            major,
            api,
            table,
            host,
        })
    }

    /// Bytes that its table must have at least: those of the first minor of its major.
    pub fn least_table(&self) -> usize {
        first_size::<c::DelegateApi>(self.major)
    }

    /// Whether a feature bit is set.
    pub fn has(&self, feature: c::Feature) -> bool {
        self.api.features[0] & feature.0 != 0
    }

    /// Held during every call into a delegate that asked for it.
    pub(crate) fn serial(&self) -> Option<MutexGuard<'static, ()>> {
        static SERIAL: Mutex<()> = Mutex::new(());
        self.has(c::Feature::SERIALIZED).then(|| lock(&SERIAL))
    }

    /// Calls a function of the table.
    pub(crate) fn call(
        &self,
        function: &'static str,
        script: &Script,
        body: impl FnOnce(&c::DelegateApi, *const c::Call) -> Option<Status>,
    ) -> Result<(), Refused> {
        let call = HostCall::new(self.host, script);
        let serial = self.serial();
        let status = body(&self.api, call.as_ptr());
        drop(serial);
        call.ended.store(true, Ordering::SeqCst);
        let outcome = outcome(function, status, &call);
        keep_over(call);
        outcome
    }

    /// What the delegate says of itself.
    ///
    /// # Errors
    /// `get_info` is missing, fails, or gives what is no struct of the contract.
    pub fn info(&self) -> Result<InfoText, String> {
        let mut pointer = std::ptr::null();
        // SAFETY: the output is valid for the call.
        let called = self.call("get_info", &Script::default(), |api, call| unsafe {
            api.get_info.map(|f| f(call, &mut pointer))
        });
        called.map_err(|refused| refused.to_string())?;
        // SAFETY: on OK the contract makes it a constant struct, and its texts constant.
        unsafe {
            let raw = read::<c::DelegateInfo>(pointer)?;
            Ok(InfoText {
                name: text("name", raw.name, raw.name_size)?,
                vendor: text("vendor", raw.vendor, raw.vendor_size)?,
                version: text("version", raw.version, raw.version_size)?,
                build: text("build", raw.build, raw.build_size)?,
                opset: text("opset", raw.opset, raw.opset_size)?,
                blob_format: text("blob_format", raw.blob_format, raw.blob_format_size)?,
                blob_format_version: raw.blob_format_version,
                image_version: raw.image_version,
                abi_minor: raw.abi_minor,
                abi_min_minor: raw.abi_min_minor,
                layout_hash: raw.layout_hash,
            })
        }
    }

    /// The schema of its options; `None`: it states none.
    ///
    /// # Errors
    /// `options_schema` fails, or gives no text.
    pub fn options_schema(&self) -> Result<Option<String>, String> {
        let Some(options_schema) = self.api.options_schema else {
            return Ok(None);
        };
        let (mut data, mut size) = (std::ptr::null(), 0);
        // SAFETY: the outputs are valid for the call.
        let called = self.call("options_schema", &Script::default(), |_, call| unsafe {
            Some(options_schema(call, &mut data, &mut size))
        });
        called.map_err(|refused| refused.to_string())?;
        // SAFETY: on OK the contract makes it constant text.
        unsafe { text("options schema", data, size) }.map(Some)
    }

    /// Asks for an extension by name.
    pub fn extension(&self, name: &str, revision: u32) -> Option<*const c_void> {
        let get_extension = self.api.get_extension?;
        // SAFETY: the text is valid for the call.
        let found = unsafe { get_extension(name.as_ptr(), name.len() as u64, revision) };
        (!found.is_null()).then_some(found)
    }

    /// Starts a delegate with options, as the configuration would give them (text, number, boolean).
    ///
    /// # Errors
    /// `initialize` refuses.
    pub fn start(
        self: &Arc<Library>,
        options: &serde_json::Map<String, serde_json::Value>,
        script: &Script,
    ) -> Result<Instance, Refused> {
        let entries = options
            .iter()
            .map(|(key, value)| Handed::new(kv(key, value), script.structs));
        let entries: Vec<Handed<c::Kv>> = entries.collect::<Result<_, _>>()?;
        let pointers = pointers(&entries);
        let (name, version) = ("delegraph-kit", env!("CARGO_PKG_VERSION"));
        let init = c::Init {
            host_name: name.as_ptr(),
            host_name_size: name.len() as u64,
            host_version: version.as_ptr(),
            host_version_size: version.len() as u64,
            options: list(&pointers, script.structs),
            option_count: pointers.len() as u64,
            ..c::Init::new()
        };
        let init = Handed::new(init, script.structs)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: everything handed over lives until the call returns.
        self.call("initialize", script, |api, call| unsafe {
            api.initialize.map(|f| f(call, init.as_ptr(), &mut handle))
        })?;
        if handle.is_null() {
            return Err(broken("initialize", "it succeeded and gave no delegate"));
        }
        Ok(Instance::new(self.clone(), handle))
    }
}

/// The type of an option that is `null`: none of the contract's.
const UNKNOWN_KV_TYPE: c::KvType = c::KvType(0x7fff);

/// An option. A list or table becomes an empty text, `null` an option of a type that nobody knows.
fn kv(key: &str, value: &serde_json::Value) -> c::Kv {
    let mut kv = c::Kv {
        key: key.as_ptr(),
        key_size: key.len() as u64,
        ..c::Kv::new()
    };
    match value {
        serde_json::Value::Bool(value) => {
            kv.r#type = c::KvType::BOOL;
            kv.int_value = i64::from(*value);
        }
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(value) => {
                kv.r#type = c::KvType::INT;
                kv.int_value = value;
            }
            None => {
                kv.r#type = c::KvType::FLOAT;
                kv.float_value = number.as_f64().unwrap_or(0.0);
            }
        },
        serde_json::Value::String(text) => {
            kv.r#type = c::KvType::STR;
            kv.str_value = text.as_ptr();
            kv.str_value_size = text.len() as u64;
        }
        serde_json::Value::Null => kv.r#type = UNKNOWN_KV_TYPE,
        _ => kv.r#type = c::KvType::STR,
    }
    kv
}

/// A call that ended out of contract.
pub(crate) fn broken(function: &'static str, message: &str) -> Refused {
    Refused {
        function,
        status: Status::INTERNAL,
        vendor_code: 0,
        node: None,
        message: message.to_string(),
        hint: String::new(),
    }
}

/// What became of a call.
pub(crate) fn outcome(function: &'static str, status: Option<Status>, call: &HostCall) -> Result<(), Refused> {
    let said = lock(&call.error).take();
    match status {
        Some(Status::OK) => Ok(()),
        None => Err(broken(function, "the table does not have it")),
        Some(status) => {
            if let Some(said) = said.as_ref().filter(|said| said.code != status) {
                crate::driver::violation(format!(
                    "`{function}` gave {status}, and said {} to `call_set_error`",
                    said.code
                ));
            }
            Err(Refused {
                function,
                status,
                vendor_code: said.as_ref().map_or(0, |said| said.vendor_code),
                node: said.as_ref().and_then(|said| said.node),
                message: said.as_ref().map_or(String::new(), |said| said.message.clone()),
                hint: said.map_or(String::new(), |said| said.hint),
            })
        }
    }
}
