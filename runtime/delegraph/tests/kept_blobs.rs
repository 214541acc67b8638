//! From the compiler to the session: sections lie aligned in the file, and a delegate that keeps its blob reads them in the map.

mod common;

use common::{check, compiled, fixture, open, order};
use delegraph::Source;
use delegraph_host::{Host, HostOptions, LogLevel, set_logger};
use delegraph_reference::Reference;
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, Compile, Compiled, Context, Delegate, Device, Error, Info, KeptBlob, Options, Partition, Run, Section,
    TensorOut, TensorView, Weights, static_entry,
};
use std::sync::{Arc, Mutex};

const MODEL: &str = "arch-mlp-dynamic-batch";
/// Two sections beside the reference delegate's own, with their alignments.
const PACKED: [(&str, u32); 2] = [("lines", 64), ("pages", 4096)];

/// The reference delegate, whose blobs have sections that each run looks at where they lie.
struct Packer {
    inner: Reference,
}

fn content(align: u32) -> Vec<u8> {
    (0..align * 2 + 1).map(|i| (i % 251) as u8).collect()
}

impl Delegate for Packer {
    const INFO: Info = Info {
        name: "packer",
        vendor: "tests",
        version: "0.0.1",
        build: "",
        format: "packer.reference",
        format_version: 1,
    };

    fn new(_: &Options<'_>, context: &Context<'_>) -> Result<Packer, Error> {
        Ok(Packer {
            inner: Reference::new(&Options::default(), context)?,
        })
    }

    fn devices(&self) -> Vec<Device> {
        Vec::new()
    }
}

impl Compile for Packer {
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
        let mut compiled = self.inner.compile(graph, weights, target, context)?;
        compiled.sections.extend(PACKED.map(|(name, align)| Section {
            name: name.to_string(),
            align,
            bytes: content(align),
        }));
        Ok(compiled)
    }
}

impl Run for Packer {
    fn load(
        &self,
        blob: &Blob<'_>,
        weights: &Weights<'_>,
        context: &Context<'_>,
    ) -> Result<Box<dyn delegraph_sdk::Session>, Error> {
        Ok(Box::new(PackerSession {
            inner: self.inner.load(blob, weights, context)?,
            kept: Some(blob.keep()?),
        }))
    }
}

struct PackerSession {
    inner: Box<dyn delegraph_sdk::Session>,
    kept: Option<KeptBlob>,
}

/// What sessions had when they were gone.
static LEFT: Mutex<Vec<KeptBlob>> = Mutex::new(Vec::new());

fn look(kept: &KeptBlob) -> Result<(), Error> {
    for (name, align) in PACKED {
        let bytes = kept.section(name)?;
        if !bytes.as_ptr().addr().is_multiple_of(align as usize) || bytes != content(align) {
            return Err(Error::corrupt(format!(
                "the section `{name}` is not what it was, or where"
            )));
        }
    }
    Ok(())
}

impl delegraph_sdk::Session for PackerSession {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        self.kept.iter().try_for_each(look)?;
        self.inner.execute(inputs, outputs, context)
    }
}

impl Drop for PackerSession {
    fn drop(&mut self) {
        LEFT.lock().unwrap().extend(self.kept.take());
    }
}

fn host() -> Arc<Host> {
    let host = Host::discover(HostOptions::default());
    host.register_static("packer", static_entry::<Packer>()).unwrap();
    Arc::new(host)
}

/// Lines of the log that tell of sections that were copied.
static COPIED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Opens a session, drops what it is of, and runs it; gives how many sections were copied.
fn runs(source: Source) -> usize {
    COPIED.lock().unwrap().clear();
    let mut session = open(&source, &order(&["packer"]), &host()).unwrap();
    drop(source);
    for _ in 0..2 {
        check(&mut session, &fixture(MODEL));
    }
    let report = session.report();
    assert!(report.delegated_nodes() > 0, "{}", report.why_portable());
    assert_eq!(report.fallbacks(), 0, "{}", report.why_portable());
    drop(session);
    // The program is gone, and what was kept of it is not.
    let left = std::mem::take(&mut *LEFT.lock().unwrap());
    assert_eq!(left.len(), report.regions.len());
    left.iter().try_for_each(look).unwrap();
    COPIED.lock().unwrap().len()
}

#[test]
fn a_kept_blob_is_read_in_the_map_of_its_file_and_copied_only_where_that_is_not_aligned() {
    set_logger(LogLevel::DEBUG, |_, _, line| {
        if line.contains("was copied") {
            COPIED.lock().unwrap().push(line.to_string());
        }
    });
    let compiled = compiled(MODEL, &order(&["packer"]), &host());
    let bytes = compiled.bytes().as_slice().to_vec();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pte");
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(runs(Source::open(&path).unwrap()), 0, "a file of its own");
    // In the archive of an app, at an offset that nobody chose.
    for (offset, moved) in [(4096, false), (64, true), (1, true)] {
        let archive = [vec![0; offset], bytes.clone()].concat();
        std::fs::write(&path, &archive).unwrap();
        let whole = Source::open(&path).unwrap();
        let window = whole.window(offset as u64, bytes.len() as u64).unwrap();
        drop(whole);
        assert_eq!(runs(window) > 0, moved, "{offset} bytes behind the beginning");
    }
    runs(Source::from_bytes(bytes, "in memory"));
}
