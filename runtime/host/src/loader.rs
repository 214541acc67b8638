//! Loads libraries and shakes hands.

use crate::api::host_api;
use crate::call::{CallOptions, HostCall};
use crate::delegate_options;
use crate::raw::{read, text};
use crate::trust::{self, CheckedLibrary, Library};
use crate::{Info, Manifest};
use delegraph_abi::{StaticEntry, Status, c, entry_name, layout_hash, newest_minor};
use delegraph_types::Parallel;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// A table that passed the handshake.
pub(crate) struct Handshake {
    /// The table that the entry was given.
    pub host: &'static c::HostApi,
    pub api: c::DelegateApi,
    pub info: Info,
}

/// An entry, and the major of the ABI that it is of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    major: u16,
    function: c::EntryFn,
}

impl Entry {
    /// Of a delegate that is linked into the program.
    pub fn linked(entry: StaticEntry) -> Entry {
        Entry {
            major: entry.major(),
            function: entry.entry(),
        }
    }
}

/// The entries of a library that this host knows, the newest first; at least one.
#[derive(Debug, Clone)]
pub(crate) struct Entries(Vec<Entry>);

impl Entries {
    /// The entry of a major, or the newest.
    ///
    /// # Errors
    /// One sentence: the library has no entry of that major.
    pub fn of(&self, major: Option<u16>) -> Result<Entry, String> {
        let found = self
            .0
            .iter()
            .find(|entry| major.is_none_or(|major| entry.major == major));
        found.copied().ok_or_else(|| {
            let named = |entry: &Entry| format!("{} (`{}`)", entry.major, entry_name(entry.major).unwrap_or_default());
            let has: Vec<String> = self.0.iter().map(named).collect();
            format!(
                "its manifest says that it is made for major version {} of the ABI, and the library has an entry of {}",
                major.unwrap_or_default(),
                has.join(" and ")
            )
        })
    }
}

/// The major of the ABI that a manifest names: the one whose entry is used, also of a library that has several. The kit judges the same.
pub(crate) fn wanted(manifest: Option<&Manifest>) -> Option<u16> {
    manifest.map(|manifest| manifest.abi_major)
}

/// The majors of the ABI that this host knows, as messages say them: `1.0 and 0.2`.
pub(crate) fn known_versions() -> String {
    let named = |(major, _): (u16, &str)| format!("{major}.{}", newest_minor(major).unwrap_or_default());
    c::ENTRIES.map(named).join(" and ")
}

/// Loads a library and finds its entries. It stays in memory: threads and destructors of a delegate would not survive less.
///
/// # Errors
/// One sentence that says what is wrong with it.
pub(crate) fn load(library: Library) -> Result<Entries, String> {
    match library {
        Library::AsFound(path) => {
            // A relative path would be looked for in the system's folders.
            let path = trust::absolute(&path)?;
            load_path(&path, &path)
        }
        Library::Checked(library) => load_checked(library),
    }
}

/// Libraries that were loaded from what was checked, by the hashes of their files. Each value keeps its descriptors for ever:
/// the system's loader knows the library by a descriptor's number, which must not come to mean another file.
static CHECKED: Mutex<Vec<(CheckedLibrary, Result<Entries, String>)>> = Mutex::new(Vec::new());

fn load_checked(library: CheckedLibrary) -> Result<Entries, String> {
    let mut known = CHECKED.lock().unwrap_or_else(PoisonError::into_inner);
    let identity = library.identity();
    // As the loader does it with a path: the same library is loaded once.
    if let Some((_, outcome)) = known.iter().find(|(other, _)| other.identity() == identity) {
        return outcome.clone();
    }
    let outcome = load_in_order(&library);
    known.push((library, outcome.clone()));
    outcome
}

/// Dependents first: the loader, which finds none of them by a path, then finds them by their SONAME.
fn load_in_order(library: &CheckedLibrary) -> Result<Entries, String> {
    if trust::SEALS {
        for dependent in library.dependents() {
            let name = dependent.path().file_name().unwrap_or_default();
            if is_loaded(name) {
                // By whatever else this process uses: the loader would take it in any case.
                continue;
            }
            let shown = dependent.path().display();
            // SAFETY: running a library's initializers is what loading is for; the user's lock or key vouches for it.
            let opened = unsafe { open(&dependent.load_path()) };
            let opened = opened.map_err(|e| format!("library `{shown}` cannot be loaded: {}", reason(&e)))?;
            std::mem::forget(opened);
        }
    }
    load_path(&library.file().load_path(), library.file().path())
}

/// Loads what lies at `path`; `shown` is what messages call it.
fn load_path(path: &Path, shown: &Path) -> Result<Entries, String> {
    let shown = shown.display();
    // SAFETY: running a library's initializers is what loading is for; the user named the library or its folder.
    let library = unsafe { open(path) }.map_err(|e| format!("library `{shown}` cannot be loaded: {}", reason(&e)))?;
    // Never unloaded; see above.
    let library = std::mem::ManuallyDrop::new(library);
    // SAFETY: the symbol's type is what the contract gives to these names.
    let find = |name: &str| unsafe { library.get::<c::EntryFn>(name) }.map(|symbol| *symbol).ok();
    let entries: Vec<Entry> = c::ENTRIES
        .into_iter()
        .filter_map(|(major, name)| find(name).map(|function| Entry { major, function }))
        .collect();
    if !entries.is_empty() {
        return Ok(Entries(entries));
    }
    let known = c::ENTRIES.map(|(_, name)| name).join("` or `");
    let other = (c::ABI_MAJOR + 1..=99).find(|major| find(&format!("dg_delegate_entry_v{major}")).is_some());
    Err(match other {
        Some(major) => format!(
            "library `{shown}` is made for major version {major} of the ABI: it exports `dg_delegate_entry_v{major}`, and this host, which has {}, looks for \
             `{known}`",
            known_versions()
        ),
        None => format!("library `{shown}` is no delegate: it does not export `{known}`"),
    })
}

/// Whether a library of this name is in the process already.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn is_loaded(name: &OsStr) -> bool {
    use libloading::os::unix::{Library, RTLD_LAZY};
    /// `RTLD_NOLOAD` of glibc's `dlfcn.h`: finds what is loaded and loads nothing.
    const RTLD_NOLOAD: i32 = 4;
    // SAFETY: nothing is loaded, so that no initializer runs.
    unsafe { Library::open(Some(name), RTLD_LAZY | RTLD_NOLOAD) }.is_ok()
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn is_loaded(_: &OsStr) -> bool {
    false
}

#[cfg(unix)]
unsafe fn open(path: &Path) -> Result<libloading::Library, libloading::Error> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
    // SAFETY: as the caller says.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map(Into::into)
}

#[cfg(windows)]
unsafe fn open(path: &Path) -> Result<libloading::Library, libloading::Error> {
    use libloading::os::windows::{LOAD_LIBRARY_SEARCH_DEFAULT_DIRS, LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR, Library};
    // SAFETY: as the caller says.
    unsafe {
        Library::load_with_flags(
            path,
            LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR | LOAD_LIBRARY_SEARCH_DEFAULT_DIRS,
        )
    }
    .map(Into::into)
}

/// The system's words: they name a missing dependency or symbol.
fn reason(error: &libloading::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

/// Calls the entry and checks the table and what the delegate says of itself.
///
/// # Errors
/// One sentence that says what is wrong with it.
///
/// # Safety
/// The entry keeps the contract of its major as far as it cannot be checked.
pub(crate) unsafe fn shake_hands(entry: Entry, manifest: Option<&Manifest>) -> Result<Handshake, String> {
    let Entry { major, function } = entry;
    let host = host_api(major).ok_or_else(|| {
        format!(
            "its entry is of major version {major} of the ABI; this host has {}",
            known_versions()
        )
    })?;
    let mut table = std::ptr::null();
    // SAFETY: the host's table is valid for the life of the process, the output for a write.
    let status = unsafe { function(host, &mut table) };
    if status != Status::OK {
        return Err(format!("its entry refused this host: {status}"));
    }
    // SAFETY: the contract makes it NULL or a constant table.
    let api = unsafe { read::<c::DelegateApi>(table) }?;
    if api.major != major {
        return Err(format!(
            "its table is of major version {} of the ABI, and its entry of {major} (`{}`)",
            api.major,
            entry_name(major).unwrap_or_default()
        ));
    }
    // What `read` let through is at least the first of all; a library of this major has more.
    if major == c::ABI_MAJOR && (api.struct_size as usize) < c::DelegateApi::MAJOR_SIZE {
        return Err(format!(
            "`struct_size` of `dg_delegate_api` is {}, that of {major}.0 is {}",
            api.struct_size,
            c::DelegateApi::MAJOR_SIZE
        ));
    }
    let roles = c::Feature::COMPILE.0 | c::Feature::RUN.0;
    if api.features[0] & roles == 0 {
        return Err("its table offers neither to compile nor to run".to_string());
    }
    let missing: Vec<&str> = api.missing(api.features[0]).collect();
    if !missing.is_empty() {
        return Err(format!("its table lacks `{}`", missing.join("`, `")));
    }
    // SAFETY: the table passed its checks.
    let info = unsafe { info(host, &api) }?;
    if let Some(manifest) = manifest {
        agree(&info, manifest)?;
    }
    Ok(Handshake { host, api, info })
}

unsafe fn info(host: &'static c::HostApi, api: &c::DelegateApi) -> Result<Info, String> {
    let call = HostCall::new(host, "", &CallOptions::default(), Parallel::SERIAL);
    let mut pointer = std::ptr::null();
    let status = match api.get_info {
        // SAFETY: both pointers are valid for the call.
        Some(get_info) => unsafe { get_info(call.as_ptr(), &mut pointer) },
        None => Status::BAD_STRUCT,
    };
    if status != Status::OK {
        let details = call.take_details().unwrap_or_default();
        return Err(format!("`get_info` failed with {status}: {}", details.message));
    }
    // SAFETY: on OK the contract makes it a constant struct, and its texts constant.
    let (raw, [name, vendor, version, build, format, opset]) = unsafe {
        let raw = read::<c::DelegateInfo>(pointer)?;
        let texts = [
            text("`name`", raw.name, raw.name_size)?,
            text("`vendor`", raw.vendor, raw.vendor_size)?,
            text("`version`", raw.version, raw.version_size)?,
            text("`build`", raw.build, raw.build_size)?,
            text("`blob_format`", raw.blob_format, raw.blob_format_size)?,
            text("`opset`", raw.opset, raw.opset_size)?,
        ];
        (raw, texts)
    };
    if name.is_empty() || version.is_empty() {
        return Err("it states no name or no version".to_string());
    }
    let (major, newest) = (host.major, host.minor);
    if raw.abi_min_minor > u32::from(newest) {
        return Err(format!(
            "it needs version {major}.{} of the ABI; this host has {}",
            raw.abi_min_minor,
            known_versions()
        ));
    }
    let ours = layout_hash(major, raw.abi_minor).filter(|_| raw.abi_minor == u32::from(newest));
    if let Some(ours) = ours.filter(|ours| ![0, *ours].contains(&raw.layout_hash)) {
        return Err(format!(
            "it was built with another `delegraph.h` of version {major}.{newest}: layout {:016x}, not {ours:016x}",
            raw.layout_hash
        ));
    }
    Ok(Info {
        name,
        vendor,
        version,
        build,
        abi_major: major,
        abi_minor: u16::try_from(raw.abi_minor).map_err(|_| "its minor version is no small number".to_string())?,
        format,
        format_version: raw.blob_format_version,
        compiles: api.features[0] & c::Feature::COMPILE.0 != 0,
        compiles_sets: api.features[0] & c::Feature::COMPILE_SET.0 != 0,
        runs: api.features[0] & c::Feature::RUN.0 != 0,
        opset,
        options_schema: schema(host, api)?,
    })
}

/// The schema of the delegate's options, if it states one.
fn schema(host: &'static c::HostApi, api: &c::DelegateApi) -> Result<Option<serde_json::Value>, String> {
    let Some(options_schema) = api.options_schema else {
        return Ok(None);
    };
    let call = HostCall::new(host, "", &CallOptions::default(), Parallel::SERIAL);
    let (mut data, mut size) = (std::ptr::null(), 0);
    // SAFETY: the outputs are valid for the call.
    let status = unsafe { options_schema(call.as_ptr(), &mut data, &mut size) };
    if status != Status::OK {
        let details = call.take_details().unwrap_or_default();
        return Err(format!("`options_schema` failed with {status}: {}", details.message));
    }
    // SAFETY: on OK the contract makes it constant text.
    let text = unsafe { text("the options' schema", data, size) }?;
    delegate_options::parse(&text).map(Some)
}

/// What a manifest says, the library must not contradict.
pub(crate) fn agree(info: &Info, manifest: &Manifest) -> Result<(), String> {
    if info.abi_major != manifest.abi_major {
        return Err(format!(
            "its entry is of major version {} of the ABI, but its manifest says {}",
            info.abi_major, manifest.abi_major
        ));
    }
    let pairs = [
        ("name", &info.name, &manifest.name),
        ("version", &info.version, &manifest.version),
        ("vendor", &info.vendor, &manifest.vendor),
    ];
    for (what, library, manifest) in pairs {
        if library != manifest {
            return Err(format!("its {what} is `{library}`, but its manifest says `{manifest}`"));
        }
    }
    let roles = [("compile", info.compiles), ("run", info.runs)];
    match roles
        .iter()
        .find(|(role, has)| manifest.roles.iter().any(|r| r == role) && !has)
    {
        Some((role, _)) => Err(format!("its manifest says that it can {role}, but its table does not")),
        None => Ok(()),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::Command;

    /// `None`: there is no C compiler, which is printed.
    fn compile(code: &str, to: &Path, more: &[&str]) -> Option<()> {
        let source = to.with_extension("c");
        std::fs::write(&source, code).unwrap();
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-o"]).arg(to).arg(&source).args(more);
        let Ok(status) = command.status() else {
            println!("skipped: there is no C compiler");
            return None;
        };
        assert!(status.success(), "{command:?}");
        Some(())
    }

    #[test]
    fn files_that_are_swapped_between_the_check_and_the_load_do_not_matter() {
        if !trust::SEALS {
            println!("skipped: files are not sealed copies on this system");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let beside = format!("-L{}", folder.path().display());
        let build = |tag: i32| {
            let part = format!("int swapped_part(void) {{ return {tag}; }}");
            compile(&part, &at("libswapped_part.so"), &["-Wl,-soname,libswapped_part.so"])?;
            let entry = format!(
                "int swapped_part(void); int dg_delegate_entry_v0(const void *h, const void **t) {{ return {tag} * 10 + swapped_part(); }}"
            );
            compile(
                &entry,
                &at("libswapped.so"),
                &[&beside, "-lswapped_part", "-Wl,-rpath,$ORIGIN"],
            )
        };
        if build(2).is_none() {
            return;
        }
        let bad = ["libswapped.so", "libswapped_part.so"].map(|name| std::fs::read(at(name)).unwrap());
        build(1).unwrap();
        let checked = CheckedLibrary::open(&at("libswapped.so")).unwrap();
        assert_eq!(checked.dependents().len(), 1);
        // The library in place, in the very file that was opened; the dependent by a rename over it.
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(at("libswapped.so"))
            .unwrap();
        file.write_all(&bad[0]).unwrap();
        std::fs::write(at("other"), &bad[1]).unwrap();
        std::fs::rename(at("other"), at("libswapped_part.so")).unwrap();
        let answer = |library| {
            let entry = load(library).unwrap().of(None).unwrap();
            let mut table = std::ptr::null();
            // SAFETY: the entry above reads and writes nothing.
            unsafe { (entry.function)(host_api(entry.major).unwrap(), &mut table) }.0
        };
        assert_eq!(answer(Library::Checked(checked)), 11);
        // What lies there now is what a path gives: the test can fail. Its dependent has the name of the one that is loaded.
        assert_eq!(answer(Library::AsFound(at("libswapped.so"))), 21);
    }
}
