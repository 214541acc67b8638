//! The system library: what a context binary says of itself, without a backend.

use super::info::{GraphInfo, TensorInfo, list, read};
use super::layout::{self as c, Handle, NONE, SystemProvider};
use super::library::{self, Version, find};
use super::log::{Call, Sink, text};
use super::table::SystemTable;
use delegraph_sdk::{Error, Status};
use std::path::Path;
use std::sync::Arc;

/// File of the library.
pub const FILE: &str = if cfg!(target_os = "windows") {
    "QnnSystem.dll"
} else {
    "libQnnSystem.so"
};

/// The system API that the table is written for.
const MAJOR: u32 = 1;

/// The library, open.
#[derive(Clone, Copy)]
pub struct System {
    table: SystemTable,
    version: Version,
}

/// What a context binary says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    /// Version of this description: 1 to 3.
    pub version: u32,
    /// Number of the backend that made it: 6 is HTP.
    pub backend: u32,
    /// Build of the library that made it.
    pub build_id: String,
    /// Core API of the library that made it.
    pub core_version: Version,
    /// Backend API of the library that made it.
    pub backend_version: Version,
    /// The chip in the library's words; may be empty.
    pub soc_version: String,
    /// The chip, by Qualcomm's number; `None` before version 3.
    pub soc: Option<u32>,
    /// Version of the binary's form.
    pub blob_version: Version,
    /// Bytes of what the backend keeps.
    pub blob_size: u64,
    /// Tensors that belong to no graph.
    pub tensors: Vec<TensorInfo>,
    /// The graphs.
    pub graphs: Vec<GraphInfo>,
}

/// The library's handle, which frees it and all that it gave out.
struct Reader<'a> {
    system: &'a System,
    raw: Handle,
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let (false, Ok(function)) = (self.raw.is_null(), self.system.table.context_free()) {
            // SAFETY: the handle is alive; what it gave out was copied.
            let _ = unsafe { function(self.raw) };
        }
    }
}

impl System {
    /// Opens the library of a folder, or of the root of an SDK.
    ///
    /// # Errors
    /// `DEPENDENCY_MISSING`: it is not there, cannot be loaded, or is of another version. It needs the system's `libatomic.so.1`.
    pub fn open(folder: &Path) -> Result<System, Error> {
        let path = find(folder, FILE)?;
        let library = library::open(&path).map_err(|error| match error.message.contains("libatomic") {
            true => error.hint(
                "install `libatomic1`, or put its `libatomic.so.1` beside libQnnSystem.so; without it, context binaries are not cross-checked",
            ),
            false => error,
        })?;
        let provider = library::provider(&library, &path, "QnnSystemInterface_getProviders")?;
        // SAFETY: the entry gives constant providers of this layout, as long as the library is loaded, which is for ever.
        unsafe { System::new(provider.cast(), &path) }
    }

    /// Reads a provider.
    ///
    /// # Safety
    /// It is a constant one of this layout, whose functions stay.
    pub(super) unsafe fn new(provider: *const SystemProvider, path: &Path) -> Result<System, Error> {
        // SAFETY: as the caller says.
        let version = Version::from(unsafe { (*provider).version });
        if version.major != MAJOR {
            let text = format!(
                "`{}` speaks the system API {version} of QNN; this delegate speaks {MAJOR}",
                path.display()
            );
            return Err(Error::new(Status::DEPENDENCY_MISSING, text));
        }
        Ok(System {
            // SAFETY: the table lies behind the version, and this major has the slots.
            table: unsafe { SystemTable::read((&raw const (*provider).table).cast()) },
            version,
        })
    }

    /// The version of the system API.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Reads what a context binary says of itself.
    ///
    /// Only give what you trust, as to [`super::Qnn::load`]. What the library answers is copied, and counts that cannot be are refused.
    ///
    /// # Errors
    /// The binary is damaged (`BLOB_CORRUPT`), or says what is not known here (`BLOB_INCOMPATIBLE`).
    pub fn describe(&self, binary: &[u8]) -> Result<Metadata, Error> {
        let silent: Arc<Sink> = super::device::silent();
        let _call = Call::begin(&silent);
        let mut reader = Reader {
            system: self,
            raw: NONE,
        };
        // SAFETY: the output is valid for a write.
        let code = unsafe { self.table.context_create()?(&mut reader.raw) };
        check("make a reader", code)?;
        let mut info = std::ptr::null();
        let size = binary.len() as u64;
        // SAFETY: the bytes are as many as are said, and outlive what is read of them; the output is valid for a write.
        let code = unsafe { self.table.context_metadata()?(reader.raw, binary.as_ptr().cast(), size, &mut info) };
        check("read a context binary", code)?;
        if info.is_null() {
            return Err(Error::corrupt(
                "the QNN system library says nothing of the context binary",
            ));
        }
        // SAFETY: the library's answer, which the reader keeps. Each graph and tensor has a byte of the binary at least.
        unsafe { read_info(info, binary.len()) }
    }
}

fn check(doing: &str, code: u64) -> Result<(), Error> {
    if code == 0 {
        return Ok(());
    }
    let name = super::error::name(code).map_or(String::new(), |name| format!("{name}, "));
    let status = match code {
        30000..=30999 => Status::BLOB_CORRUPT,
        _ => Status::VENDOR,
    };
    let text = format!("the QNN system library failed to {doing}: {name}error {code}");
    Err(Error::new(status, text).vendor_code(code as i64))
}

/// Copies a description.
///
/// # Safety
/// `info` is an answer of the library's; at most `most` of anything are there.
pub(super) unsafe fn read_info(info: *const c::BinaryInfo, most: usize) -> Result<Metadata, Error> {
    // SAFETY: the version is first in all of them; so below.
    let version = unsafe { (*info).version };
    // SAFETY: the version says which struct it is; versions 1 and 2 begin alike.
    unsafe {
        let body = &raw const (*info).body;
        match version {
            1 | 2 => {
                let body = &*body.cast::<c::BinaryInfoV1>();
                Ok(Metadata {
                    version,
                    backend: body.backend,
                    build_id: text(body.build),
                    core_version: body.core.into(),
                    backend_version: body.backend_version.into(),
                    soc_version: text(body.soc_version),
                    soc: None,
                    blob_version: body.blob_version.into(),
                    blob_size: body.blob_size,
                    tensors: read_tensors(body.tensors, body.tensor_count, most, "the context")?,
                    graphs: read_graphs(body.graphs, body.graph_count, most)?,
                })
            }
            3 => {
                let body = &*body.cast::<c::BinaryInfoV3>();
                Ok(Metadata {
                    version,
                    backend: body.backend,
                    build_id: text(body.build),
                    core_version: body.core.into(),
                    backend_version: body.backend_version.into(),
                    soc_version: text(body.soc_version),
                    soc: Some(body.soc),
                    blob_version: body.blob_version.into(),
                    blob_size: body.blob_size,
                    tensors: read_tensors(body.tensors, body.tensor_count, most, "the context")?,
                    graphs: read_graphs(body.graphs, body.graph_count, most)?,
                })
            }
            _ => Err(Error::new(
                Status::BLOB_INCOMPATIBLE,
                format!("the context binary's description is of the unknown version {version}"),
            )),
        }
    }
}

/// # Safety
/// As [`list`].
unsafe fn read_graphs(graphs: *const c::GraphInfo, count: u32, most: usize) -> Result<Vec<GraphInfo>, Error> {
    if count as usize > most || (graphs.is_null() && count > 0) {
        return Err(Error::corrupt(format!(
            "the context binary says that it has {count} graphs"
        )));
    }
    let mut all = Vec::with_capacity(count as usize);
    for at in 0..count as usize {
        // SAFETY: there are `count` of them, each with room for the largest version; what is read is in all versions.
        let (version, name, inputs, outputs) = unsafe {
            let graph = graphs.add(at);
            (
                (*graph).version,
                text((*graph).name),
                ((*graph).inputs, (*graph).input_count),
                ((*graph).outputs, (*graph).output_count),
            )
        };
        if !(1..=3).contains(&version) {
            return Err(Error::new(
                Status::BLOB_INCOMPATIBLE,
                format!("graph `{name}` is described in the unknown version {version}"),
            ));
        }
        all.push(GraphInfo {
            // SAFETY: as the caller says.
            inputs: unsafe { read_tensors(inputs.0, inputs.1, most, &name) }?,
            // SAFETY: as above.
            outputs: unsafe { read_tensors(outputs.0, outputs.1, most, &name) }?,
            name,
        });
    }
    Ok(all)
}

/// # Safety
/// As [`list`].
unsafe fn read_tensors(tensors: *const c::Tensor, count: u32, most: usize, of: &str) -> Result<Vec<TensorInfo>, Error> {
    // SAFETY: as the caller says.
    let tensors = unsafe { list(tensors, count, most, of, "tensors") }?;
    // SAFETY: each is the library's.
    tensors.iter().map(|tensor| unsafe { read(tensor, most) }).collect()
}
