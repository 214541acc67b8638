//! Blobs that a delegate keeps beyond the load: where they lie, how long they live, and what becomes of those that cannot be kept.

use delegraph_abi::envelope;
use delegraph_abi::image::{Arg, ImageBuilder, Type};
use delegraph_abi::{DType as Code, Status};
use delegraph_host::{BlobSource, CallOptions, Host, HostOptions, Input, LogLevel, Output, Weights, set_logger};
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, Compile, Compiled, Context, Delegate, Device, Error, Info, KeptBlob, Options, Partition, Run, Section,
    Session, TensorOut, TensorView, Verdict, static_entry,
};
use delegraph_types::{DType, Dims};
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Adds a number that it packed when it compiled, and reads it where it lies.
struct Keeper;

const PACKED: &str = "packed";
const ALIGN: usize = 64;

/// What sessions kept, when they were gone: somebody else gives it back.
static LEFT: Mutex<Vec<KeptBlob>> = Mutex::new(Vec::new());

fn packed() -> Vec<u8> {
    (0..1000).flat_map(|_| 0.5f32.to_ne_bytes()).collect()
}

impl Delegate for Keeper {
    const INFO: Info = Info {
        name: "keeper",
        vendor: "tests",
        version: "1.0.0",
        build: "",
        format: "keeper",
        format_version: 1,
    };

    fn new(_: &Options<'_>, _: &Context<'_>) -> Result<Keeper, Error> {
        Ok(Keeper)
    }

    fn devices(&self) -> Vec<Device> {
        Vec::new()
    }
}

impl Compile for Keeper {
    fn partition(&self, graph: &ImageView<'_>, _: &Context<'_>) -> Result<Partition, Error> {
        Ok(Partition::each(graph, |_| Verdict::Take))
    }

    fn compile(
        &self,
        _: &ImageView<'_>,
        _: &delegraph_sdk::Weights<'_>,
        _: &str,
        _: &Context<'_>,
    ) -> Result<Compiled, Error> {
        let section = |name: &str, align, bytes| Section {
            name: name.to_string(),
            align,
            bytes,
        };
        let mut compiled = Compiled::from(vec![1, 2, 3]);
        compiled.sections.push(section(PACKED, ALIGN as u32, packed()));
        compiled.sections.push(section("empty", 1, Vec::new()));
        Ok(compiled)
    }
}

impl Run for Keeper {
    fn load(
        &self,
        blob: &Blob<'_>,
        _: &delegraph_sdk::Weights<'_>,
        _: &Context<'_>,
    ) -> Result<Box<dyn Session>, Error> {
        let section = blob.section(PACKED)?;
        assert!(section.as_ptr().addr().is_multiple_of(ALIGN), "as it asked for");
        let packed = match blob.keep() {
            Ok(kept) => {
                // Another one, which is given back before the load has returned.
                drop(blob.keep()?);
                assert_eq!(kept.section(PACKED)?.as_ptr(), section.as_ptr(), "nothing moved");
                assert_eq!(kept.section("empty")?, [0u8; 0]);
                assert_eq!(kept.section("others").unwrap_err().code, Status::BLOB_CORRUPT);
                if section[0] == 0xff {
                    return Err(Error::corrupt("it does not like it, and gives back what it kept"));
                }
                Packed::Kept(Some(kept))
            }
            Err(error) => {
                assert_eq!(error.code, Status::UNSUPPORTED);
                Packed::Copied(section.to_vec())
            }
        };
        Ok(Box::new(KeeperSession { packed }))
    }
}

enum Packed {
    Kept(Option<KeptBlob>),
    Copied(Vec<u8>),
}

struct KeeperSession {
    packed: Packed,
}

impl Session for KeeperSession {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        _: &Context<'_>,
    ) -> Result<(), Error> {
        let bytes = match &self.packed {
            Packed::Kept(Some(kept)) => kept.section(PACKED)?,
            Packed::Kept(None) => &[],
            Packed::Copied(bytes) => bytes,
        };
        let sum: f32 = bytes.chunks(4).map(|b| f32::from_ne_bytes(b.try_into().unwrap())).sum();
        let (x, y) = (inputs[0].elements::<f32>().unwrap(), &mut outputs[0]);
        y.elements::<f32>().unwrap()[0] = x[0] + sum;
        Ok(())
    }
}

impl Drop for KeeperSession {
    fn drop(&mut self) {
        if let Packed::Kept(kept) = &mut self.packed {
            LEFT.lock().unwrap().extend(kept.take());
        }
    }
}

struct NoWeights;

impl Weights for NoWeights {
    fn bytes(&self, _: u32) -> Option<&[u8]> {
        None
    }
}

/// A blob that begins so many bytes behind a multiple of 4096, and says when it is gone.
struct Source {
    room: Vec<u8>,
    start: usize,
    size: usize,
    gone: Arc<AtomicBool>,
}

impl Source {
    fn new(blob: &[u8], behind: usize) -> (Arc<Source>, Arc<AtomicBool>) {
        let room = vec![0; blob.len() + 2 * 4096];
        let gone = Arc::<AtomicBool>::default();
        let mut source = Source {
            start: room.as_ptr().addr().next_multiple_of(4096) - room.as_ptr().addr() + behind,
            size: blob.len(),
            room,
            gone: gone.clone(),
        };
        source.room[source.start..][..blob.len()].copy_from_slice(blob);
        (Arc::new(source), gone)
    }
}

impl BlobSource for Source {
    fn blob(&self) -> &[u8] {
        &self.room[self.start..][..self.size]
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // Who reads on reads this.
        self.room.fill(0xee);
        self.gone.store(true, Ordering::SeqCst);
    }
}

fn image() -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let one = image.int(1);
    let ty = Type::tensor(Code::F32, &[one]);
    let x = image.input("x", &ty);
    let y = image.node("relu", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
    image.output(y);
    image.finish().unwrap()
}

fn keeper() -> Arc<delegraph_host::Delegate> {
    let host = Host::discover(HostOptions::default());
    host.register_static("keeper", static_entry::<Keeper>()).unwrap();
    host.delegate("keeper").unwrap()
}

#[repr(align(4))]
struct Aligned([u8; 4]);

/// What a run makes of 1: 501, with what was packed.
fn run(session: &mut delegraph_host::Session) -> f32 {
    let (input, mut output) = (Aligned(1f32.to_ne_bytes()), Aligned([0; 4]));
    let input = Input {
        dtype: DType::F32,
        sizes: &[1],
        bytes: &input.0,
    };
    let mut outputs = [Output {
        dtype: DType::F32,
        sizes: Dims::new(&[1]).unwrap(),
        bytes: &mut output.0,
    }];
    session.execute(&[input], &mut outputs).unwrap();
    f32::from_ne_bytes(output.0)
}

/// These tests share what sessions left, and the log.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn load(
    delegate: &delegraph_host::Delegate,
    source: Arc<Source>,
) -> Result<delegraph_host::Session, delegraph_host::DelegateError> {
    delegate.load_from(source, Arc::new(NoWeights), None, &CallOptions::default())
}

#[test]
fn what_is_kept_lives_beyond_load_and_session_and_is_given_back_on_any_thread() {
    let _alone = ONE_AT_A_TIME.lock();
    let delegate = keeper();
    let blob = delegate.compile(&image(), &NoWeights, "").unwrap();
    let (source, gone) = Source::new(&blob, 0);
    // The session's alone from here on: whoever had the program has dropped it.
    let mut session = load(&delegate, source).unwrap();
    assert_eq!(session.moved_bytes(), 0, "it is read in place");
    assert!(!gone.load(Ordering::SeqCst));
    assert_eq!((run(&mut session), run(&mut session)), (501.0, 501.0));
    drop(session);
    assert!(!gone.load(Ordering::SeqCst), "somebody still has it");
    let left = std::mem::take(&mut *LEFT.lock().unwrap());
    assert_eq!(left.len(), 1);
    std::thread::spawn(move || {
        assert_eq!(left[0].section(PACKED).unwrap(), packed());
        drop(left);
    })
    .join()
    .unwrap();
    assert!(gone.load(Ordering::SeqCst), "nothing keeps it any more");
}

#[test]
fn sections_that_do_not_lie_aligned_are_moved_once_and_counted() {
    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let _alone = ONE_AT_A_TIME.lock();
    set_logger(LogLevel::DEBUG, |_, _, line| {
        LINES.lock().unwrap().push(line.to_string())
    });
    let delegate = keeper();
    let blob = delegate.compile(&image(), &NoWeights, "").unwrap();
    for (behind, moved) in [(0, 0), (64, 0), (16, 4000), (1, 4003)] {
        let (source, gone) = Source::new(&blob, behind);
        let mut session = load(&delegate, source).unwrap();
        assert_eq!(session.moved_bytes(), moved, "{behind} bytes behind a page");
        let lines = std::mem::take(&mut *LINES.lock().unwrap());
        assert_eq!(
            lines.iter().any(|line| line.contains("`packed` of 4000 bytes")),
            moved > 0,
            "{lines:?}"
        );
        assert_eq!(run(&mut session), 501.0);
        drop(session);
        LEFT.lock().unwrap().clear();
        assert!(gone.load(Ordering::SeqCst));
    }
    set_logger(LogLevel(0), |_, _, _| {});
}

#[test]
fn bytes_of_the_call_alone_are_copied_by_the_delegate() {
    let _alone = ONE_AT_A_TIME.lock();
    let delegate = keeper();
    let blob = delegate.compile(&image(), &NoWeights, "").unwrap();
    let mut session = delegate.load(&blob, Arc::new(NoWeights)).unwrap();
    drop(blob);
    assert_eq!(run(&mut session), 501.0);
    drop(session);
    assert!(LEFT.lock().unwrap().is_empty());
}

#[test]
fn a_load_that_fails_keeps_nothing() {
    let _alone = ONE_AT_A_TIME.lock();
    let delegate = keeper();
    let blob = delegate.compile(&image(), &NoWeights, "").unwrap();
    let envelope = envelope::parse(&blob).unwrap();
    let mut changed = packed();
    changed[0] = 0xff;
    let mut sections = envelope.sections.clone();
    sections[1].bytes = &changed;
    let refused = envelope::write(&envelope.meta, &sections, |bytes| Sha256::digest(bytes).into()).unwrap();
    let (source, gone) = Source::new(&refused, 0);
    let error = load(&delegate, source).map(drop).unwrap_err();
    assert_eq!(error.code, Status::BLOB_CORRUPT);
    assert!(gone.load(Ordering::SeqCst));
    // One whose hash is wrong is not even shown to the delegate.
    let mut damaged = blob.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let (source, gone) = Source::new(&damaged, 0);
    assert!(load(&delegate, source).is_err() && gone.load(Ordering::SeqCst));
}

#[test]
fn sections_that_lie_elsewhere_are_kept_too() {
    /// A blob and its section, each in a vector of its own.
    struct Apart {
        blob: Vec<u8>,
        section: Source,
        hash: [u8; 32],
    }
    impl BlobSource for Apart {
        fn blob(&self) -> &[u8] {
            &self.blob
        }

        fn section(&self, hash: &[u8; 32]) -> Option<&[u8]> {
            (*hash == self.hash).then(|| self.section.blob())
        }
    }
    let _alone = ONE_AT_A_TIME.lock();
    let delegate = keeper();
    let whole = delegate.compile(&image(), &NoWeights, "").unwrap();
    let envelope = envelope::parse(&whole).unwrap();
    let sha256 = |bytes: &[u8]| Sha256::digest(bytes).into();
    let hash: [u8; 32] = sha256(&packed());
    let blob = envelope::write_apart(&envelope.meta, &envelope.sections, &[(1, hash)], sha256).unwrap();
    let (section, gone) = Source::new(&packed(), 128);
    let section = Arc::into_inner(section).unwrap();
    let source = Arc::new(Apart { blob, section, hash });
    let options = CallOptions::default();
    let mut session = delegate.load_from(source, Arc::new(NoWeights), None, &options).unwrap();
    assert_eq!(session.moved_bytes(), 0);
    assert_eq!(run(&mut session), 501.0);
    drop(session);
    assert!(!gone.load(Ordering::SeqCst));
    LEFT.lock().unwrap().clear();
    assert!(gone.load(Ordering::SeqCst));
}
