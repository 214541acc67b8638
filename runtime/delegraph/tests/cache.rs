//! The cache of compiled blobs: what is found in it is not compiled again, and whatever is wrong with it costs no more than a
//! compilation.

mod common;

use common::{check, config, fixture, folder};
use delegraph::{CacheReport, LoadOptions, Session, Source};
use delegraph_config::Config;
use delegraph_host::{Host, HostOptions};
use delegraph_reference::Reference;
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, BlobMeta, BlobVerdict, Compile, Compiled, Context, Delegate, Device, Error, Info, OptionValue, Options,
    Partition, Run, Weights, static_entry,
};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

thread_local! {
    /// Compilations of this thread, which is that of one test.
    static COMPILED: Cell<u64> = const { Cell::new(0) };
}

/// The reference delegate, counted.
struct Counting {
    inner: Reference,
    /// Judges blobs as those of another driver.
    outdated: bool,
}

impl Delegate for Counting {
    const INFO: Info = Info {
        name: "counting",
        vendor: "tests",
        version: "0.0.1",
        build: "",
        format: "counting.reference",
        format_version: 1,
    };

    fn new(options: &Options<'_>, context: &Context<'_>) -> Result<Counting, Error> {
        Ok(Counting {
            inner: Reference::new(&Options::default(), context)?,
            outdated: matches!(options.find("outdated"), Some(OptionValue::Bool(true))),
        })
    }

    fn devices(&self) -> Vec<Device> {
        self.inner.devices()
    }
}

impl Compile for Counting {
    fn partition(&self, graph: &ImageView<'_>, context: &Context<'_>) -> Result<Partition, Error> {
        self.inner.partition(graph, context)
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &Weights<'_>,
        target: &str,
        context: &Context<'_>,
    ) -> Result<Compiled, Error> {
        COMPILED.set(COMPILED.get() + 1);
        self.inner.compile(graph, weights, target, context)
    }
}

impl Run for Counting {
    fn check_blob(&self, meta: &BlobMeta<'_>) -> BlobVerdict {
        match self.outdated {
            true => BlobVerdict::UnsupportedHere("another driver".to_string()),
            false => BlobVerdict::by_format(&Self::INFO, meta),
        }
    }

    fn load(
        &self,
        blob: &Blob<'_>,
        weights: &Weights<'_>,
        context: &Context<'_>,
    ) -> Result<Box<dyn delegraph_sdk::Session>, Error> {
        self.inner.load(blob, weights, context)
    }
}

fn host_with(options: serde_json::Value) -> Arc<Host> {
    let host = Host::discover(HostOptions {
        options: [("counting".to_string(), options)].into(),
        ..HostOptions::default()
    });
    host.register_static("counting", static_entry::<Counting>()).unwrap();
    Arc::new(host)
}

fn host() -> Arc<Host> {
    host_with(serde_json::json!({}))
}

fn counting() -> Config {
    config("[select]\norder = [\"counting\"]\n")
}

const MODEL: &str = "arch-kv-cache";

fn model() -> PathBuf {
    folder(MODEL).join("model.pt2")
}

/// Loads the model with a cache, runs it against what PyTorch gave, and tells what the cache did and how often was compiled.
fn load(cache: &Path, config: &Config, host: &Arc<Host>, source: &Source) -> (CacheReport, u64) {
    let before = COMPILED.get();
    let options = LoadOptions {
        cache_folder: Some(cache.to_path_buf()),
        ..LoadOptions::default()
    };
    let mut session = Session::open(source, config, host, options).unwrap();
    check(&mut session, &fixture(MODEL));
    let report = session.report();
    assert!(report.delegated_nodes() > 0, "{}", report.why_portable());
    (report.cache.expect("there is a cache"), COMPILED.get() - before)
}

fn entries(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let items = std::fs::read_dir(folder).unwrap().map(|item| item.unwrap().path());
    let mut paths: Vec<PathBuf> = items
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    paths.sort();
    paths
}

#[test]
fn a_second_load_compiles_nothing_and_hashes_no_weight() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::open(model()).unwrap();
    let (first, compiled) = load(folder.path(), &counting(), &host(), &source);
    assert!(compiled > 0);
    assert_eq!((first.hits, first.misses, first.stored), (0, compiled, compiled));
    assert!(first.hashed_bytes > 0 && first.warnings.is_empty(), "{first:?}");
    assert_eq!(entries(folder.path(), "blob").len() as u64, compiled);
    let (second, again) = load(folder.path(), &counting(), &host(), &Source::open(model()).unwrap());
    assert_eq!(again, 0);
    assert_eq!((second.hits, second.misses, second.stored), (compiled, 0, 0));
    assert_eq!(second.hashed_bytes, 0, "{second:?}");
    // Bytes that are no file's are hashed, and found all the same.
    let bytes = Source::from_bytes(std::fs::read(model()).unwrap(), "bytes");
    let (third, again) = load(folder.path(), &counting(), &host(), &bytes);
    assert_eq!((again, third.hits), (0, compiled));
    assert!(third.hashed_bytes > 0);
}

#[test]
fn a_program_that_is_partitioned_at_load_has_its_blobs_there_too() {
    let folder = tempfile::tempdir().unwrap();
    let module = delegraph::import(&Source::open(model()).unwrap()).unwrap();
    let portable = delegraph::compile(module, &config(""), &host(), &mut |_| {}).unwrap();
    let path = folder.path().join("model.pte");
    std::fs::write(&path, portable.bytes).unwrap();
    let cache = folder.path().join("cache");
    let (_, first) = load(&cache, &counting(), &host(), &Source::open(&path).unwrap());
    let (report, second) = load(&cache, &counting(), &host(), &Source::open(&path).unwrap());
    assert!(first > 0);
    assert_eq!((second, report.hits), (0, first));
}

#[test]
fn other_options_and_other_targets_are_other_blobs() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::open(model()).unwrap();
    let (_, compiled) = load(folder.path(), &counting(), &host(), &source);
    let (_, again) = load(
        folder.path(),
        &counting(),
        &host_with(serde_json::json!({ "level": 2 })),
        &source,
    );
    assert_eq!(again, compiled);
    let target = config("[select]\norder = [\"counting\"]\n[backend.counting]\ntarget = \"host\"\n");
    let (_, again) = load(folder.path(), &target, &host(), &source);
    assert_eq!(again, compiled);
    let (_, again) = load(folder.path(), &target, &host(), &source);
    assert_eq!(again, 0);
}

#[test]
fn damaged_entries_are_dropped_and_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::open(model()).unwrap();
    let (_, compiled) = load(folder.path(), &counting(), &host(), &source);
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        },
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| bytes.clear(),
        |bytes| bytes[100] ^= 0x80,
    ];
    for damage in damages {
        for path in entries(folder.path(), "blob") {
            let mut bytes = std::fs::read(&path).unwrap();
            damage(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
        }
        let (report, again) = load(folder.path(), &counting(), &host(), &source);
        assert_eq!((report.dropped, report.hits, again), (compiled, 0, compiled));
        let (report, again) = load(folder.path(), &counting(), &host(), &source);
        assert_eq!((report.hits, again), (compiled, 0));
    }
    // Hashes that are damaged are taken again.
    for path in entries(folder.path(), "hashes") {
        std::fs::write(&path, b"DGC1hash").unwrap();
    }
    let (report, again) = load(folder.path(), &counting(), &host(), &Source::open(model()).unwrap());
    assert_eq!((report.hits, again), (compiled, 0));
    assert!(report.hashed_bytes > 0);
}

#[test]
fn a_blob_that_the_delegate_does_not_take_any_more_is_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::open(model()).unwrap();
    let outdated = host_with(serde_json::json!({ "outdated": true }));
    let options = || LoadOptions {
        cache_folder: Some(folder.path().to_path_buf()),
        ..LoadOptions::default()
    };
    for _ in 0..2 {
        let before = COMPILED.get();
        let session = Session::open(&source, &counting(), &outdated, options()).unwrap();
        let cache = session.report().cache.unwrap();
        assert_eq!((cache.hits, cache.misses), (0, COMPILED.get() - before));
        assert!(cache.misses > 0);
    }
}

#[test]
fn nothing_is_kept_unless_somebody_names_a_folder() {
    let source = Source::open(model()).unwrap();
    let options = LoadOptions::default;
    let session = Session::open(&source, &counting(), &host(), options()).unwrap();
    assert_eq!(session.report().cache, None);
    let folder = tempfile::tempdir().unwrap();
    let named = |more: &str| {
        config(&format!(
            "[select]\norder = [\"counting\"]\n[cache]\nfolder = {:?}\n{more}",
            folder.path()
        ))
    };
    let session = Session::open(&source, &named("quota_mb = 0"), &host(), options()).unwrap();
    assert_eq!(session.report().cache, None);
    let session = Session::open(&source, &named(""), &host(), options()).unwrap();
    assert!(session.report().cache.unwrap().stored > 0);
    // An app's own folder comes before the configuration's.
    let own = tempfile::tempdir().unwrap();
    let (report, _) = load(own.path(), &named(""), &host(), &source);
    assert_eq!((report.folder.as_path(), report.hits), (own.path(), 0));
    // What cannot be used is told, and costs nothing else.
    let file = own.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (report, compiled) = load(&file, &counting(), &host(), &source);
    assert!(compiled > 0 && report.warnings.len() == 1, "{report:?}");
}

/// Loads in a child process: the folder is in an environment variable.
#[test]
fn child() {
    let Some(cache) = std::env::var_os("DELEGRAPH_TEST_CACHE") else {
        // It is the other tests' child, and nothing by itself.
        return;
    };
    let times: u64 = std::env::var("DELEGRAPH_TEST_TIMES").unwrap().parse().unwrap();
    let source = Source::open(model()).unwrap();
    for _ in 0..times {
        let (report, compiled) = load(Path::new(&cache), &counting(), &host(), &source);
        println!(
            "child: hits {} compiled {compiled} stored {} warnings {:?}",
            report.hits, report.stored, report.warnings
        );
    }
}

fn spawn(mut command: Command, cache: &Path, times: u64) -> std::process::Child {
    command
        .args(["--exact", "child", "--nocapture"])
        .env("DELEGRAPH_TEST_CACHE", cache)
        .env("DELEGRAPH_TEST_TIMES", times.to_string())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn processes_that_fill_one_cache_do_not_disturb_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let executable = std::env::current_exe().unwrap();
    let children: Vec<_> = (0..2)
        .map(|_| spawn(Command::new(&executable), folder.path(), 3))
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        let loads: Vec<&str> = text.lines().filter(|line| line.contains("child: ")).collect();
        assert_eq!(loads.len(), 3);
        assert!(loads.iter().all(|load| load.contains("warnings []")), "{text}");
        assert!(loads[1..].iter().all(|load| load.contains("compiled 0")), "{text}");
    }
    let (report, compiled) = load(folder.path(), &counting(), &host(), &Source::open(model()).unwrap());
    assert_eq!(compiled, 0);
    assert_eq!(entries(folder.path(), "blob").len() as u64, report.hits);
    let others = std::fs::read_dir(folder.path()).unwrap().count() as u64;
    assert_eq!(
        others,
        report.hits + entries(folder.path(), "hashes").len() as u64,
        "no temporary file is left"
    );
}

/// A limit on the size of files makes a write fail in its middle, as a full disk does.
#[test]
#[cfg(unix)]
fn a_full_disk_costs_the_cache_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""]);
    shell.arg(std::env::current_exe().unwrap());
    let output = spawn(shell, folder.path(), 2).wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let loads: Vec<&str> = text.lines().filter(|line| line.contains("child: ")).collect();
    assert_eq!(loads.len(), 2, "{text}");
    for load in loads {
        assert!(
            load.contains("hits 0") && load.contains("stored 0") && load.contains("takes nothing"),
            "{text}"
        );
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is left behind"
    );
}
