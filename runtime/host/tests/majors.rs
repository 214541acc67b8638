//! Two majors of the ABI: each entry is met by a host of its own major, and judged by that major's numbers.

use delegraph_abi::{StaticEntry, Status, c, newest_minor};
use delegraph_host::{Host, HostOptions};

/// An entry that is linked in, its table, and what the host makes of it.
struct Case {
    what: &'static str,
    /// The major of the entry's symbol.
    symbol: u16,
    /// The major that the table states.
    table: u16,
    size: usize,
    /// `abi_minor`, `abi_min_minor`, `layout_hash`.
    built: (u32, u32, u64),
    /// Empty: it is taken.
    refusal: &'static str,
}

const FIRST: usize = c::DelegateApi::FIRST_SIZE;
const WHOLE: usize = size_of::<c::DelegateApi>();
/// As `vendor-docs/abi.md` has them.
const HASH_OF_0_0: u64 = 0xfdfc_fa4b_7a7c_602e;
const HASH_OF_1_0: u64 = 0x2b21_8b2e_f1ef_242e;

const fn case(
    what: &'static str,
    (symbol, table, size): (u16, u16, usize),
    built: (u32, u32, u64),
    refusal: &'static str,
) -> Case {
    Case {
        what,
        symbol,
        table,
        size,
        built,
        refusal,
    }
}

#[rustfmt::skip]
const CASES: [Case; 14] = [
    case("0.0", (0, 0, FIRST), (0, 0, HASH_OF_0_0), ""),
    case("0.2", (0, 0, WHOLE), (2, 2, HASH_OF_1_0), ""),
    case("1.0", (1, 1, WHOLE), (0, 0, HASH_OF_1_0), ""),
    case("1.0, which states no hash", (1, 1, WHOLE), (0, 0, 0), ""),
    case("0.1 of a header that was changed while it was open", (0, 0, WHOLE), (1, 0, 5), ""),
    case("a later minor of 1, whose hash nobody here knows", (1, 1, WHOLE), (4, 0, 99), ""),
    case("entry of 1, table of 0", (1, 0, WHOLE), (0, 0, 0),
        "its table is of major version 0 of the ABI, and its entry of 1 (`dg_delegate_entry_v1`)"),
    case("entry of 0, table of 1", (0, 1, WHOLE), (0, 0, 0),
        "its table is of major version 1 of the ABI, and its entry of 0 (`dg_delegate_entry_v0`)"),
    case("a major that nobody has", (7, 7, WHOLE), (0, 0, 0), "its entry is of major version 7 of the ABI; this host has 1.2 and 0.2"),
    case("a table of 1 with the size of 0.0", (1, 1, FIRST), (0, 0, 0), "that of 1.0 is"),
    case("0.2 that needs 0.3", (0, 0, WHOLE), (3, 3, 0), "it needs version 0.3 of the ABI; this host has 1.2 and 0.2"),
    case("1.3 that needs 1.3", (1, 1, WHOLE), (3, 3, 0), "it needs version 1.3 of the ABI; this host has 1.2 and 0.2"),
    case("0.2 of a changed header", (0, 0, WHOLE), (2, 0, 5), "another `delegraph.h` of version 0.2: layout 0000000000000005"),
    case("1.2 of a changed header", (1, 1, WHOLE), (2, 0, HASH_OF_0_0), "another `delegraph.h` of version 1.2: layout fdfcfa4b7a7c602e"),
];

/// Whether a host is of an entry's major, in its newest minor. SDKs of major 0 refuse another.
unsafe fn is_of(host: *const c::HostApi, major: u16) -> bool {
    // SAFETY: the host passes its table, which lives as long as the process.
    let host = unsafe { host.as_ref() };
    host.is_some_and(|host| (host.major, Some(host.minor)) == (major, newest_minor(major)))
}

unsafe extern "C" fn entry<const CASE: usize>(host: *const c::HostApi, out: *mut *const c::DelegateApi) -> Status {
    let case = &CASES[CASE];
    let api = c::DelegateApi {
        struct_size: case.size as u32,
        major: case.table,
        features: [c::Feature::RUN.0, 0],
        get_info: Some(get_info::<CASE>),
        initialize: Some(initialize::<CASE>),
        shutdown: Some(shutdown),
        device_enumerate: Some(device_enumerate),
        blob_check: Some(blob_check),
        session_load: Some(session_load),
        session_unload: Some(session_unload),
        session_execute: Some(session_execute),
        ..c::DelegateApi::new()
    };
    // SAFETY: the host gives its table and a place for this one, which is never freed.
    unsafe {
        if !is_of(host, case.symbol) {
            return Status::BAD_STRUCT;
        }
        out.write(Box::leak(Box::new(api)));
    }
    Status::OK
}

unsafe extern "C" fn get_info<const CASE: usize>(call: *const c::Call, out: *mut *const c::DelegateInfo) -> Status {
    let case = &CASES[CASE];
    let text = "linked";
    let info = c::DelegateInfo {
        name: text.as_ptr(),
        name_size: text.len() as u64,
        version: text.as_ptr(),
        version_size: text.len() as u64,
        abi_minor: case.built.0,
        abi_min_minor: case.built.1,
        layout_hash: case.built.2,
        ..c::DelegateInfo::new()
    };
    // SAFETY: the host gives a call and a place for the record, which is never freed.
    unsafe {
        if !is_of((*call).host, case.symbol) {
            return Status::BAD_STRUCT;
        }
        out.write(Box::leak(Box::new(info)));
    }
    Status::OK
}

unsafe extern "C" fn initialize<const CASE: usize>(
    call: *const c::Call,
    _: *const c::Init,
    out: *mut *mut c::Delegate,
) -> Status {
    // SAFETY: the host gives a call and a place for the handle, behind which nobody looks.
    unsafe {
        if !is_of((*call).host, CASES[CASE].symbol) {
            return Status::BAD_STRUCT;
        }
        out.write(std::ptr::without_provenance_mut(8));
    }
    Status::OK
}

unsafe extern "C" fn shutdown(_: *mut c::Delegate, _: *const c::Call) {}

unsafe extern "C" fn device_enumerate(
    _: *mut c::Delegate,
    _: *const c::Call,
    _: u64,
    _: *mut *const c::DeviceInfo,
    out_count: *mut u64,
) -> Status {
    // SAFETY: the host gives a place for the number.
    unsafe { out_count.write(0) };
    Status::OK
}

unsafe extern "C" fn blob_check(
    _: *mut c::Delegate,
    _: *const c::Call,
    _: *const c::BlobMeta,
    _: *mut c::CheckSink,
) -> Status {
    Status::UNSUPPORTED
}

unsafe extern "C" fn session_load(
    _: *mut c::Delegate,
    _: *const c::Call,
    _: *const c::Blob,
    _: *mut *mut c::Session,
) -> Status {
    Status::UNSUPPORTED
}

unsafe extern "C" fn session_unload(_: *mut c::Session, _: *const c::Call) {}

unsafe extern "C" fn session_execute(
    _: *mut c::Session,
    _: *const c::Call,
    _: *const *const c::Tensor,
    _: u64,
    _: *const *mut c::Tensor,
    _: u64,
) -> Status {
    Status::UNSUPPORTED
}

#[test]
fn entries_that_are_linked_in_are_judged_by_their_major() {
    macro_rules! entries {
        ($($case:literal)*) => { [$(entry::<$case> as c::EntryFn),*] };
    }
    let entries: [c::EntryFn; CASES.len()] = entries![0 1 2 3 4 5 6 7 8 9 10 11 12 13];
    for (case, entry) in CASES.iter().zip(entries) {
        let host = Host::discover(HostOptions::default());
        // SAFETY: what the tables state wrongly is what the host has to notice; their functions keep the contract.
        let entry = unsafe { StaticEntry::of_major(case.symbol, entry) };
        host.register_static("linked", entry).unwrap();
        match host.delegate("linked") {
            Ok(delegate) => {
                assert_eq!(case.refusal, "", "{}", case.what);
                let info = delegate.info();
                assert_eq!((info.abi_major, u32::from(info.abi_minor)), (case.symbol, case.built.0));
            }
            Err(error) => {
                let error = error.to_string();
                let expected = !case.refusal.is_empty() && error.contains(case.refusal);
                assert!(expected, "{}: {error}", case.what);
            }
        }
    }
    // Without a word of its major, an entry is of the newest.
    // SAFETY: as above.
    assert_eq!(unsafe { StaticEntry::new(entries[2]) }.major(), 1);
}

#[cfg(target_os = "linux")]
mod libraries {
    use delegraph_host::{Host, HostOptions, Isolation};
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// A library that exports the entries of the majors that it is compiled with: `-DMAJOR_0`, `-DMAJOR_1`, `-DMAJOR_2`.
    const SOURCE: &str = r#"
#include "delegraph.h"
static dg_status check(dg_delegate *d, const dg_call *c, const dg_blob_meta *m, dg_check_sink *s) { (void)d; (void)c; (void)m; (void)s; return DG_E_UNSUPPORTED; }
static dg_status load(dg_delegate *d, const dg_call *c, const dg_blob *b, dg_session **s) { (void)d; (void)c; (void)b; (void)s; return DG_E_UNSUPPORTED; }
static void unload(dg_session *s, const dg_call *c) { (void)s; (void)c; }
static dg_status execute(dg_session *s, const dg_call *c, const dg_tensor *const *i, uint64_t n, dg_tensor *const *o, uint64_t m) {
    (void)s; (void)c; (void)i; (void)n; (void)o; (void)m; return DG_E_UNSUPPORTED;
}
static dg_status devices(dg_delegate *d, const dg_call *c, uint64_t n, const dg_device_info **o, uint64_t *count) {
    (void)d; (void)c; (void)n; (void)o; *count = 0; return DG_OK;
}
static void stop(dg_delegate *d, const dg_call *c) { (void)d; (void)c; }
#define ENTRY(MAJOR, MINOR)                                                                                                  \
    static dg_status info_##MAJOR(const dg_call *call, const dg_delegate_info **out) {                                       \
        static const dg_delegate_info info = {.struct_size = sizeof info, .struct_id = DG_STRUCT_DELEGATE_INFO,              \
            .name = "two", .name_size = 3, .vendor = "v", .vendor_size = 1, .version = "1.0.0", .version_size = 5,           \
            .abi_minor = MINOR, .layout_hash = MAJOR ? DG_LAYOUT_HASH : 0};                                                           \
        *out = &info;                                                                                                        \
        return call->host->major == MAJOR ? DG_OK : DG_E_BAD_STRUCT;                                                         \
    }                                                                                                                        \
    static dg_status start_##MAJOR(const dg_call *call, const dg_init *init, dg_delegate **out) {                            \
        (void)init;                                                                                                          \
        *out = (dg_delegate *)call->host;                                                                                    \
        return call->host->major == MAJOR ? DG_OK : DG_E_BAD_STRUCT;                                                         \
    }                                                                                                                        \
    DG_EXPORT dg_status dg_delegate_entry_v##MAJOR(const dg_host_api *host, const dg_delegate_api **out) {                   \
        static const dg_delegate_api api = {.struct_size = sizeof api, .major = MAJOR, .minor = MINOR,                       \
            .features = {DG_FEATURE_RUN, 0}, .get_info = info_##MAJOR, .initialize = start_##MAJOR, .shutdown = stop,        \
            .device_enumerate = devices, .blob_check = check, .session_load = load, .session_unload = unload,                \
            .session_execute = execute};                                                                                     \
        *out = &api;                                                                                                         \
        return host->major == MAJOR ? DG_OK : DG_E_BAD_STRUCT;                                                               \
    }
#ifdef MAJOR_0
ENTRY(0, 2)
#endif
#ifdef MAJOR_1
ENTRY(1, 0)
#endif
#ifdef MAJOR_2
ENTRY(2, 0)
#endif
"#;

    const MANIFEST: &str = "manifest_version = 1\nname = 'two'\nvendor = 'v'\nversion = '1.0.0'\nlicence = 'MIT'\n\
                            library = 'libtwo_delegate.so'\nroles = ['run']\n[abi]\nmajor = MAJOR\nmin_minor = 0\n";

    /// A library with entries of these majors; `None`: there is no C compiler, which is printed.
    fn library(folder: &Path, majors: &[u16]) -> Option<PathBuf> {
        let library = folder.join("libtwo_delegate.so");
        let source = folder.join("two.c");
        std::fs::write(&source, SOURCE).unwrap();
        let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../delegate-sdk/include");
        let mut command = Command::new("cc");
        command.args([
            "-std=gnu99",
            "-shared",
            "-fPIC",
            "-Wall",
            "-Werror",
            "-Wno-unused-function",
            "-o",
        ]);
        command.arg(&library).arg(&source).arg("-I").arg(include);
        command.args(majors.iter().map(|major| format!("-DMAJOR_{major}")));
        let Ok(status) = command.status() else {
            println!("skipped: there is no C compiler");
            return None;
        };
        assert!(status.success(), "{command:?}");
        Some(library)
    }

    /// The major and minor that a library is used as, or why it is refused.
    fn used(pinned: PathBuf, worker: Option<PathBuf>) -> Result<(u16, u16), String> {
        let isolation = match worker {
            Some(_) => Isolation::Worker,
            None => Isolation::InProcess,
        };
        let host = Host::discover(HostOptions {
            pinned: vec![("two".to_string(), pinned)],
            isolation: [("two".to_string(), isolation)].into(),
            worker_binary: worker,
            ..HostOptions::default()
        });
        let delegate = host.delegate("two").map_err(|error| error.to_string())?;
        assert!(delegate.devices().unwrap().is_empty());
        Ok((delegate.info().abi_major, delegate.info().abi_minor))
    }

    /// A manifest beside the library, of this major.
    fn manifest(library: &Path, major: u16) -> PathBuf {
        let path = library.with_file_name(format!("two-{major}.delegate.toml"));
        std::fs::write(&path, MANIFEST.replace("MAJOR", &major.to_string())).unwrap();
        path
    }

    /// The worker of this build, if it was built.
    fn worker() -> Option<PathBuf> {
        let test = std::env::current_exe().unwrap();
        let path = test.ancestors().nth(2).unwrap().join("delegraph-worker");
        if !path.is_file() {
            println!("skipped: in a worker, which is not built");
        }
        path.is_file().then_some(path)
    }

    #[test]
    fn a_library_of_two_majors_is_used_as_the_newest_or_as_its_manifest_says() {
        let folder = tempfile::tempdir().unwrap();
        let Some(library) = library(folder.path(), &[0, 1]) else {
            return;
        };
        let places = [None].into_iter().chain(worker().map(Some));
        for place in places {
            assert_eq!(used(library.clone(), place.clone()), Ok((1, 0)), "by itself, {place:?}");
            assert_eq!(used(manifest(&library, 1), place.clone()), Ok((1, 0)), "{place:?}");
            assert_eq!(used(manifest(&library, 0), place.clone()), Ok((0, 2)), "{place:?}");
        }
    }

    #[test]
    fn a_manifest_of_another_major_than_the_librarys_is_refused_with_both() {
        for (has, says, words) in [
            (
                1,
                0,
                "its manifest says that it is made for major version 0 of the ABI, and the library has an entry of 1 (`dg_delegate_entry_v1`)",
            ),
            (
                0,
                1,
                "its manifest says that it is made for major version 1 of the ABI, and the library has an entry of 0 (`dg_delegate_entry_v0`)",
            ),
            (
                1,
                2,
                "it is made for major version 2 of the ABI; this host has 1.2 and 0.2",
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let Some(library) = library(folder.path(), &[has]) else {
                return;
            };
            assert_eq!(used(library.clone(), None).map(|(major, _)| major), Ok(has));
            for place in [None].into_iter().chain(worker().map(Some)) {
                let error = used(manifest(&library, says), place).unwrap_err();
                assert!(error.contains(words), "{error}");
            }
        }
    }

    #[test]
    fn a_library_of_a_major_to_come_is_refused_by_its_symbol() {
        let folder = tempfile::tempdir().unwrap();
        let Some(newer) = library(folder.path(), &[2]) else {
            return;
        };
        let error = used(newer, None).unwrap_err();
        assert!(
            error.contains(
                "is made for major version 2 of the ABI: it exports `dg_delegate_entry_v2`, and this host, which has 1.2 and 0.2, looks for \
                 `dg_delegate_entry_v1` or `dg_delegate_entry_v0`"
            ),
            "{error}"
        );
        let folder = tempfile::tempdir().unwrap();
        let none = library(folder.path(), &[]).unwrap();
        let error = used(none, None).unwrap_err();
        let words = "is no delegate: it does not export `dg_delegate_entry_v1` or `dg_delegate_entry_v0`";
        assert!(error.contains(words), "{error}");
    }
}
