//! The shared library: where it is found, how it is opened, and which versions are spoken to.

use super::layout::{self, Provider};
use super::log::text;
use super::table::Table;
use delegraph_sdk::{Error, Status};
use std::ffi::c_void;
use std::fmt;
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The core API that the table is written for: another major has another table, as have minors before this.
const MAJOR: u32 = 2;
const MIN_MINOR: u32 = 25;

/// Where the libraries of an SDK are for this machine, below its root.
const SDK_FOLDER: &str = if cfg!(target_os = "android") {
    "lib/aarch64-android"
} else if cfg!(target_os = "windows") {
    "lib/x86_64-windows-msvc"
} else {
    "lib/x86_64-linux-clang"
};

/// A version in three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl From<layout::Version> for Version {
    fn from(version: layout::Version) -> Version {
        Version {
            major: version.major,
            minor: version.minor,
            patch: version.patch,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A library's file: in the folder itself, or where an SDK with this root has it.
///
/// # Errors
/// `DEPENDENCY_MISSING`: it is in neither.
pub fn find(folder: &Path, file: &str) -> Result<PathBuf, Error> {
    let places = [folder.join(file), folder.join(SDK_FOLDER).join(file)];
    places.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        Error::new(
            Status::DEPENDENCY_MISSING,
            format!("there is no `{file}` in `{}`", folder.display()),
        )
        .hint("name a folder that has Qualcomm's libraries, or the root of an SDK; see vendor-docs/hexagon.md")
    })
}

/// Opens a shared library, never to unload it: it has threads and destructors of its own.
pub(super) fn open(path: &Path) -> Result<ManuallyDrop<libloading::Library>, Error> {
    let shown = path.display();
    let missing = |text: String| {
        let error = Error::new(
            Status::DEPENDENCY_MISSING,
            format!("`{shown}` cannot be loaded: {text}"),
        );
        match text.contains("libc++") || text.contains("libunwind") {
            true => error.hint("the folder `onnxruntime_qnn.libs` of the same package has it, and has to lie beside this library's folder"),
            false => error,
        }
    };
    let path = std::path::absolute(path).map_err(|error| missing(error.to_string()))?;
    // SAFETY: the library is Qualcomm's, in a folder that the user names; loading it runs its initializers.
    let library = super::quiet::loading(|| unsafe { load(&path) });
    let library = library.map_err(|error| match std::error::Error::source(&error) {
        Some(source) => missing(source.to_string()),
        None => missing(error.to_string()),
    });
    library.map(ManuallyDrop::new)
}

/// # Safety
/// As `dlopen`: the library's initializers run.
#[cfg(unix)]
unsafe fn load(path: &Path) -> Result<libloading::Library, libloading::Error> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
    // SAFETY: as the caller says.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map(Into::into)
}

/// # Safety
/// As `LoadLibrary`: the library's initializers run.
#[cfg(not(unix))]
unsafe fn load(path: &Path) -> Result<libloading::Library, libloading::Error> {
    // SAFETY: as the caller says.
    unsafe { libloading::Library::new(path) }
}

/// The first provider of a library's list.
pub(super) fn provider(library: &libloading::Library, path: &Path, entry: &str) -> Result<*const c_void, Error> {
    type Entry = unsafe extern "C" fn(*mut *const *const c_void, *mut u32) -> u64;
    let shown = path.display();
    // SAFETY: functions of this name have this type.
    let function = unsafe { library.get::<Entry>(entry) };
    let function = function.map_err(|_| {
        Error::new(
            Status::DEPENDENCY_MISSING,
            format!("`{shown}` is no library of QNN: it does not export `{entry}`"),
        )
    })?;
    let mut list = std::ptr::null();
    let mut count = 0;
    // SAFETY: both outputs are valid for a write.
    let code = unsafe { function(&mut list, &mut count) };
    if code != 0 || list.is_null() || count == 0 {
        let text = format!("`{entry}` of `{shown}` gives no provider (result {code}, {count} of them)");
        return Err(Error::new(Status::VENDOR, text).vendor_code(code as i64));
    }
    // SAFETY: the list has at least one entry.
    let first = unsafe { list.read() };
    match first.is_null() {
        true => Err(Error::new(Status::VENDOR, format!("the provider of `{shown}` is null"))),
        false => Ok(first),
    }
}

/// A backend's library and its table.
pub struct Library {
    path: PathBuf,
    name: String,
    backend: u32,
    core: Version,
    version: Version,
    build: String,
    pub(super) table: Table,
    /// Where the library keeps its table: tells libraries apart.
    pub(super) identity: usize,
    _library: Option<ManuallyDrop<libloading::Library>>,
}

impl Library {
    /// Opens a library of a folder, or of the root of an SDK; `file` is for example `libQnnHtp.so`.
    ///
    /// # Errors
    /// `DEPENDENCY_MISSING`: it is not there, cannot be loaded, or is of another version than this is written for; `VENDOR`: it has no provider.
    pub fn open(folder: &Path, file: &str) -> Result<Arc<Library>, Error> {
        let path = find(folder, file)?;
        let library = open(&path)?;
        let provider = provider(&library, &path, "QnnInterface_getProviders")?;
        // SAFETY: the entry gives constant providers of this layout, as long as the library is loaded, which is for ever.
        unsafe { Library::new(provider.cast(), path, Some(library)) }.map(Arc::new)
    }

    /// Reads a provider.
    ///
    /// # Safety
    /// It is a constant one of this layout, whose functions stay.
    pub(super) unsafe fn new(
        provider: *const Provider,
        path: PathBuf,
        library: Option<ManuallyDrop<libloading::Library>>,
    ) -> Result<Library, Error> {
        // SAFETY: as the caller says.
        let (backend, name, core, version) = unsafe {
            (
                (*provider).backend,
                text((*provider).name),
                (*provider).core,
                (*provider).backend_version,
            )
        };
        let core = Version::from(core);
        if core.major != MAJOR || core.minor < MIN_MINOR {
            return Err(Error::new(
                Status::DEPENDENCY_MISSING,
                format!(
                    "`{}` speaks the core API {core} of QNN; this delegate speaks {MAJOR}.{MIN_MINOR} and later ones of {MAJOR}",
                    path.display()
                ),
            ));
        }
        // SAFETY: the table lies behind the versions; this major has all slots that are read, from the minor that was asked for.
        let table = unsafe { Table::read((&raw const (*provider).table).cast()) };
        let mut build = std::ptr::null();
        let build = match table.backend_build_id() {
            // SAFETY: the output is valid for a write; what is written points to a constant text of the library's.
            Ok(function) if unsafe { function(&mut build) } == 0 => unsafe { text(build) },
            _ => String::new(),
        };
        Ok(Library {
            path,
            name,
            backend,
            core,
            version: version.into(),
            build,
            table,
            identity: provider as usize,
            _library: library,
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The provider's name, for example `HTP_QTI_AISW`.
    pub fn provider(&self) -> &str {
        &self.name
    }

    /// The backend's number: 6 is HTP.
    pub fn backend(&self) -> u32 {
        self.backend
    }

    /// The version of the core API.
    pub fn api_version(&self) -> Version {
        self.core
    }

    /// The version of the backend's own API.
    pub fn backend_version(&self) -> Version {
        self.version
    }

    /// The build's name; empty if it has none.
    pub fn build_id(&self) -> &str {
        &self.build
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_the_library_is_named() {
        let error = Library::open(Path::new("/nowhere"), "libQnnHtp.so").err().unwrap();
        assert_eq!(error.code, Status::DEPENDENCY_MISSING);
        assert!(error.message.contains("`libQnnHtp.so` in `/nowhere`"), "{error}");
        assert!(!error.hint.is_empty());
    }

    #[test]
    fn what_is_no_library_is_refused() {
        let folder = std::env::temp_dir().join(format!("delegraph-hexagon-library-{}", std::process::id()));
        let inner = folder.join(SDK_FOLDER);
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("libQnnHtp.so"), b"no ELF").unwrap();
        assert_eq!(find(&folder, "libQnnHtp.so").unwrap(), inner.join("libQnnHtp.so"));
        let error = Library::open(&folder, "libQnnHtp.so").err().unwrap();
        assert_eq!(error.code, Status::DEPENDENCY_MISSING);
        assert!(error.message.contains("cannot be loaded"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
