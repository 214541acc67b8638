//! What the host does with delegates that keep the contract, and with those that break it.

use delegraph_abi::image::{Arg, ImageBuilder, Type};
use delegraph_abi::{DType as Code, StaticEntry, Status, c};
use delegraph_host::{BlobVerdict, Host, HostError, HostOptions, Input, Output, Weights};
use delegraph_sdk::image::ImageView;
use delegraph_sdk::{
    Blob, BlobMeta, Compile, Compiled, Context, Delegate, Device, DeviceKind, Error, Info, OptionValue, Options,
    Partition, Reason, Run, Session, TensorOut, TensorView, Verdict, static_entry,
};
use delegraph_types::{DType, Dims, Parallel, ParallelFor};
use std::sync::{Arc, Mutex};

/// Doubles f32 tensors; options make it misbehave.
struct Doubler {
    mode: String,
}

impl Delegate for Doubler {
    const INFO: Info = Info {
        name: "doubler",
        vendor: "tests",
        version: "1.2.3",
        build: "b7",
        format: "doubler.code",
        format_version: 4,
    };

    fn new(options: &Options<'_>, _: &Context<'_>) -> Result<Doubler, Error> {
        options.check(&["mode", "level", "ratio", "fast"])?;
        let typed = [
            ("level", OptionValue::Int(3)),
            ("ratio", OptionValue::Float(0.5)),
            ("fast", OptionValue::Bool(true)),
        ];
        for (key, want) in typed {
            if let Some(have) = options.find(key).filter(|have| *have != want) {
                return Err(Error::invalid(format!("option `{key}` came as {have:?}")));
            }
        }
        let mode = match options.find("mode") {
            Some(OptionValue::Str(mode)) => mode.to_string(),
            _ => String::new(),
        };
        Ok(Doubler { mode })
    }

    fn devices(&self) -> Vec<Device> {
        vec![Device {
            kind: DeviceKind::Npu,
            name: "a chip".into(),
            vendor: "tests".into(),
            arch: "d1".into(),
            driver: String::new(),
            memory: 1 << 20,
        }]
    }
}

impl Compile for Doubler {
    fn partition(&self, graph: &ImageView<'_>, _: &Context<'_>) -> Result<Partition, Error> {
        match self.mode.as_str() {
            "panics" => panic!("a mistake"),
            "silent" => return Ok(Partition::default()),
            "foreign-set" => {
                let mut answer = Partition::each(graph, |_| Verdict::Take);
                answer.atomic_sets.push(vec![delegraph_abi::image::NodeIndex(99)]);
                return Ok(answer);
            }
            _ => {}
        }
        Ok(Partition::each(graph, |node| match node.op() {
            "aten::relu" => Verdict::Take,
            _ => Verdict::Refuse(Reason::UNKNOWN_OP, "only relu is doubled here".into()),
        }))
    }

    fn compile(
        &self,
        graph: &ImageView<'_>,
        weights: &delegraph_sdk::Weights<'_>,
        target: &str,
        _: &Context<'_>,
    ) -> Result<Compiled, Error> {
        if self.mode == "refuses" {
            let node = graph.nodes().next().expect("a node").index();
            return Err(Error::unsupported("too wide").at(node).hint("split it").vendor_code(77));
        }
        if self.mode == "empty" {
            return Ok(Compiled::default());
        }
        let mut code = target.as_bytes().to_vec();
        code.extend_from_slice(weights.bytes(5).unwrap_or(&[]));
        Ok(code.into())
    }
}

impl Run for Doubler {
    fn check_blob(&self, meta: &BlobMeta<'_>) -> delegraph_sdk::BlobVerdict {
        delegraph_sdk::BlobVerdict::by_format(&Self::INFO, meta)
    }

    fn load(
        &self,
        blob: &Blob<'_>,
        weights: &delegraph_sdk::Weights<'_>,
        _: &Context<'_>,
    ) -> Result<Box<dyn Session>, Error> {
        let code = blob.section("code")?;
        assert_eq!(
            code.as_ptr() as usize % 16,
            0,
            "the section is aligned as it was written"
        );
        Ok(Box::new(Double {
            oversized: self.mode == "oversized",
            threads: self.mode == "threads",
            _kept: weights.keep()?,
        }))
    }
}

struct Double {
    oversized: bool,
    threads: bool,
    _kept: delegraph_sdk::KeptWeights,
}

impl Session for Double {
    fn execute(
        &mut self,
        inputs: &[TensorView<'_>],
        outputs: &mut [TensorOut<'_>],
        context: &Context<'_>,
    ) -> Result<(), Error> {
        let (Some(from), Some(to)) = (inputs[0].elements::<f32>(), outputs[0].elements::<f32>()) else {
            return Err(Error::invalid("f32 only"));
        };
        if from.first() == Some(&666.0) {
            panic!("an unlucky number");
        }
        if self.threads {
            assert_eq!(context.threads(), 3);
            let doubled: Vec<Mutex<f32>> = from.iter().map(|_| Mutex::default()).collect();
            context.parallel_for(from.len(), |i| {
                assert!(from[i] >= 0.0, "no part takes {}", from[i]);
                // Work within work: on the thread that it comes from.
                context.parallel_for(2, |_| *doubled[i].lock().unwrap() += from[i]);
            });
            to.iter_mut()
                .zip(doubled)
                .for_each(|(to, doubled)| *to = doubled.into_inner().unwrap());
        } else {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = 2.0 * from);
        }
        match self.oversized {
            true => outputs[0].sizes[0] = 1000,
            false => outputs[0].set_sizes(inputs[0].sizes)?,
        }
        Ok(())
    }
}

struct OneWeight;

impl Weights for OneWeight {
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        (id == 5).then_some(&[1, 2, 3, 4])
    }
}

fn image() -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let n = image.symbol("s0", 1, Some(8));
    let ty = Type::tensor(Code::F32, &[n]);
    let x = image.input("x", &ty);
    let y = image.node("relu", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
    let z = image.node("abs", "aten::abs", &[Arg::Value(y)], &[("z", &ty)], "")[0];
    image.output(z);
    image.finish().unwrap()
}

/// A host with the doubler, started with these options.
fn host(options: serde_json::Value) -> Host {
    let host = Host::discover(HostOptions {
        options: [("doubler".to_string(), options)].into(),
        ..HostOptions::default()
    });
    host.register_static("doubler", static_entry::<Doubler>()).unwrap();
    host
}

fn doubler(mode: &str) -> Arc<delegraph_host::Delegate> {
    host(serde_json::json!({ "mode": mode })).delegate("doubler").unwrap()
}

/// Why a table is refused.
fn refusal(entry: c::EntryFn) -> String {
    let host = Host::discover(HostOptions::default());
    // SAFETY: the entries below hand out constant tables, broken in ways that the host has to notice.
    host.register_static("doubler", unsafe { StaticEntry::new(entry) })
        .unwrap();
    host.delegate("doubler").err().expect("it is refused").to_string()
}

#[test]
fn a_sound_delegate_is_asked_compiled_judged_loaded_and_run() {
    let delegate = doubler("");
    assert_eq!(
        (delegate.info().version.as_str(), delegate.info().build.as_str()),
        ("1.2.3", "b7")
    );
    assert_eq!(delegate.devices().unwrap()[0].arch, "d1");
    let answer = delegate.partition(&image(), "").unwrap();
    let supported: Vec<bool> = answer.verdicts.iter().map(|v| v.supported).collect();
    assert_eq!(supported, [true, false]);
    assert_eq!(answer.verdicts[1].reason, "only relu is doubled here");

    let blob = delegate.compile(&image(), &OneWeight, "d1").unwrap();
    assert_eq!(delegate.check_blob(&blob).unwrap(), BlobVerdict::Optimal);
    // At an odd address the sections have to be moved.
    let mut shifted = vec![0; 1];
    shifted.extend_from_slice(&blob);
    let mut session = delegate.load(&shifted[1..], Arc::new(OneWeight)).unwrap();
    let numbers: Vec<f32> = vec![1.0, -2.0, 3.5];
    let bytes: Vec<u32> = numbers.iter().map(|x| x.to_bits()).collect();
    let bytes: Vec<u8> = bytes.iter().flat_map(|x| x.to_ne_bytes()).collect();
    let mut aligned = vec![0f64; 4];
    let room = bytes_of(&mut aligned);
    room[..12].copy_from_slice(&bytes);
    let mut result = vec![0f64; 4];
    for _ in 0..2 {
        let mut outputs = [Output {
            dtype: DType::F32,
            sizes: Dims::new(&[8]).unwrap(),
            bytes: bytes_of(&mut result),
        }];
        let input = Input {
            dtype: DType::F32,
            sizes: &[3],
            bytes: &bytes_of(&mut aligned)[..12],
        };
        session.execute(&[input], &mut outputs).unwrap();
        assert_eq!(outputs[0].sizes.as_slice(), [3]);
    }
    let first = f32::from_ne_bytes(bytes_of(&mut result)[4..8].try_into().unwrap());
    assert_eq!(first, -4.0);
}

trait Float {}
impl Float for f32 {}
impl Float for f64 {}

/// The bytes of numbers, which are aligned for every element type that is no larger.
fn bytes_of<T: Float>(numbers: &mut [T]) -> &mut [u8] {
    // SAFETY: any bytes are numbers, and the other way round.
    unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), size_of_val(numbers)) }
}

#[test]
fn what_a_session_is_given_is_checked_and_what_it_gives_too() {
    let run = |mode: &str, dtype: DType, sizes: &[i64], value: f32, room: i64| {
        let delegate = doubler(mode);
        let blob = delegate.compile(&image(), &OneWeight, "").unwrap();
        let mut session = delegate.load(&blob, Arc::new(OneWeight)).unwrap();
        let mut from = vec![0f64; 8];
        bytes_of(&mut from)[..4].copy_from_slice(&value.to_ne_bytes());
        let mut to = vec![0f64; 8];
        let mut outputs = [Output {
            dtype: DType::F32,
            sizes: Dims::new(&[room]).unwrap(),
            bytes: bytes_of(&mut to),
        }];
        let input = Input {
            dtype,
            sizes,
            bytes: bytes_of(&mut from),
        };
        session
            .execute(&[input], &mut outputs)
            .map_err(|error| (error.code, error.to_string()))
    };
    assert_eq!(run("", DType::F32, &[2], 1.0, 8), Ok(()));
    let cases = [
        (
            run("", DType::F64, &[2], 1.0, 8),
            Status::INVALID_ARGUMENT,
            "input 0: its dtype is f64, the blob's is f32",
        ),
        (
            run("", DType::F32, &[1, 2], 1.0, 8),
            Status::INVALID_ARGUMENT,
            "it has 2 dimensions, the blob's has 1",
        ),
        (
            run("", DType::F32, &[17], 1.0, 8),
            Status::INVALID_ARGUMENT,
            "64 bytes do not hold f32[17]",
        ),
        (
            run("", DType::F32, &[-1], 1.0, 8),
            Status::INVALID_ARGUMENT,
            "do not hold",
        ),
        (
            run("", DType::F32, &[2], 1.0, 99),
            Status::INVALID_ARGUMENT,
            "output 0: 64 bytes do not hold f32[99]",
        ),
        (
            run("", DType::F32, &[2], 1.0, 1),
            Status::SHAPE_OUT_OF_RANGE,
            "does not fit its bounds",
        ),
        (
            run("", DType::F32, &[2], 666.0, 8),
            Status::INTERNAL,
            "an unlucky number",
        ),
        (
            run("oversized", DType::F32, &[2], 1.0, 8),
            Status::INTERNAL,
            "gave output 0 the sizes [1000], beyond",
        ),
    ];
    for (outcome, code, words) in cases {
        let (have, text) = outcome.unwrap_err();
        assert_eq!(have, code, "{text}");
        assert!(text.contains(words), "{text}");
    }
}

/// Three threads for each piece of work.
struct Three;

impl ParallelFor for Three {
    fn threads(&self) -> usize {
        3
    }

    fn run(&self, threads: usize, parts: usize, body: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for first in 0..threads {
                scope.spawn(move || (first..parts).step_by(threads).for_each(body));
            }
        });
    }
}

#[test]
fn delegates_borrow_the_hosts_threads() {
    let delegate = doubler("threads");
    let blob = delegate.compile(&image(), &OneWeight, "").unwrap();
    let session = delegate.load(&blob, Arc::new(OneWeight)).unwrap();
    let mut session = session.on(Parallel::new(&Three, 8));
    let mut run = |mut from: [f32; 5]| {
        let mut doubled = [0f32; 5];
        let input = Input {
            dtype: DType::F32,
            sizes: &[5],
            bytes: bytes_of(&mut from),
        };
        let output = Output {
            dtype: DType::F32,
            sizes: Dims::filled(1, 5),
            bytes: bytes_of(&mut doubled),
        };
        session.execute(&[input], &mut [output]).map(|()| doubled)
    };
    assert_eq!(run([1.0, 2.0, 3.0, 4.0, 5.0]).unwrap(), [2.0, 4.0, 6.0, 8.0, 10.0]);
    let error = run([1.0, -2.0, 3.0, 4.0, 5.0]).unwrap_err();
    assert_eq!(error.code, Status::INTERNAL);
    assert!(error.to_string().contains("no part takes -2"), "{error}");
    assert_eq!(run([0.0; 5]).unwrap(), [0.0; 5]);
}

#[test]
fn errors_carry_code_node_hint_and_the_vendors_number() {
    let error = doubler("refuses").compile(&image(), &OneWeight, "").unwrap_err();
    assert_eq!(
        (error.code, error.vendor_code, error.node),
        (Status::UNSUPPORTED, 77, Some(0))
    );
    assert_eq!((error.message.as_str(), error.hint.as_str()), ("too wide", "split it"));
}

#[test]
fn answers_out_of_contract_are_refused() {
    let cases = [
        ("panics", "a mistake"),
        ("silent", "no verdict on node 0 (`aten::relu`)"),
        ("foreign-set", "an atomic set names node 99 of 2"),
    ];
    for (mode, words) in cases {
        let error = doubler(mode).partition(&image(), "").unwrap_err();
        assert_eq!(error.code, Status::INTERNAL, "{error}");
        assert!(error.to_string().contains(words), "{mode}: {error}");
    }
    let error = doubler("empty").compile(&image(), &OneWeight, "").unwrap_err();
    assert!(error.to_string().contains("it has no section"), "{error}");
    assert!(
        doubler("")
            .partition(&image()[..40], "")
            .unwrap_err()
            .to_string()
            .contains("the graph image")
    );
}

#[test]
fn a_damaged_blob_is_noticed_wherever_a_bit_flips() {
    let delegate = doubler("");
    let blob = delegate.compile(&image(), &OneWeight, "target").unwrap();
    for at in 0..blob.len() {
        let mut bad = blob.clone();
        bad[at] ^= 0x10;
        let judged = delegate.check_blob(&bad).unwrap();
        let loaded = delegate.load(&bad, Arc::new(OneWeight));
        // The envelope's texts and numbers are the delegate's to judge, its payload the host's to hash.
        if judged == BlobVerdict::Optimal && at >= blob.len() - 10 {
            assert_eq!(
                loaded.err().map(|error| error.code),
                Some(Status::BLOB_CORRUPT),
                "byte {at}"
            );
        }
    }
    assert!(matches!(
        delegate.check_blob(&blob[..20]).unwrap(),
        BlobVerdict::Corrupt(_)
    ));
    assert!(matches!(
        delegate.check_blob(b"not a blob").unwrap(),
        BlobVerdict::Corrupt(_)
    ));
}

#[test]
fn options_arrive_typed_and_unknown_ones_are_refused() {
    let good = serde_json::json!({ "level": 3, "ratio": 0.5, "fast": true, "mode": "" });
    assert!(host(good).delegate("doubler").is_ok());
    let cases = [
        (serde_json::json!({ "levl": 3 }), "unknown option `levl`"),
        (serde_json::json!({ "level": "3" }), "option `level` came as Str"),
        (
            serde_json::json!({ "level": [3] }),
            "option `level` is neither a number",
        ),
    ];
    for (options, words) in cases {
        let error = host(options).delegate("doubler").err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
}

const GOOD: c::DelegateApi = c::DelegateApi {
    features: [c::Feature::RUN.0, 0],
    ..c::DelegateApi::new()
};
static INCOMPLETE: c::DelegateApi = GOOD;
static SMALL: c::DelegateApi = c::DelegateApi {
    struct_size: 16,
    ..GOOD
};
static EMPTY: c::DelegateApi = c::DelegateApi { struct_size: 0, ..GOOD };
static OTHER_MAJOR: c::DelegateApi = c::DelegateApi { major: 7, ..GOOD };
static NO_ROLE: c::DelegateApi = c::DelegateApi {
    features: [0, 0],
    ..GOOD
};

macro_rules! entry {
    ($name:ident, $table:expr) => {
        unsafe extern "C" fn $name(_: *const c::HostApi, out: *mut *const c::DelegateApi) -> Status {
            // SAFETY: the host gives a valid place for the table.
            unsafe { out.write($table) };
            Status::OK
        }
    };
}

entry!(incomplete, &raw const INCOMPLETE);
entry!(small, &raw const SMALL);
entry!(empty, &raw const EMPTY);
entry!(other_major, &raw const OTHER_MAJOR);
entry!(no_role, &raw const NO_ROLE);
entry!(no_table, std::ptr::null());

unsafe extern "C" fn refuses(_: *const c::HostApi, _: *mut *const c::DelegateApi) -> Status {
    Status::DEPENDENCY_MISSING
}

#[test]
fn broken_tables_are_refused_with_every_missing_function_named() {
    let mandatory = "`get_info`, `initialize`, `shutdown`, `device_enumerate`, `blob_check`, `session_load`, `session_unload`, \
                     `session_execute`";
    let cases: [(c::EntryFn, &str); 7] = [
        (incomplete, mandatory),
        (small, "`struct_size` of `dg_delegate_api` is 16"),
        (empty, "`struct_size` of `dg_delegate_api` is 0"),
        (other_major, "major version 7"),
        (no_role, "neither to compile nor to run"),
        (no_table, "`dg_delegate_api` is NULL"),
        (refuses, "DEPENDENCY_MISSING"),
    ];
    for (entry, words) in cases {
        let text = refusal(entry);
        assert!(text.contains(words), "{text}");
    }
}

/// A table that a newer minor made larger.
#[repr(C)]
struct Larger {
    api: c::DelegateApi,
    unknown: [usize; 9],
}

#[test]
fn a_larger_table_of_a_newer_minor_is_taken_for_what_is_known() {
    unsafe extern "C" fn larger(host: *const c::HostApi, out: *mut *const c::DelegateApi) -> Status {
        let entry = static_entry::<Doubler>().entry();
        let mut table = std::ptr::null();
        // SAFETY: the host's own arguments are passed on; the table that comes back is constant, and so is its copy.
        unsafe {
            let status = entry(host, &mut table);
            let api = c::DelegateApi {
                struct_size: size_of::<Larger>() as u32,
                minor: 9,
                ..*table
            };
            let unknown = [usize::MAX; 9];
            out.write(Box::leak(Box::new(Larger { api, unknown })) as *const Larger as *const c::DelegateApi);
            status
        }
    }
    let host = Host::discover(HostOptions::default());
    // SAFETY: the table is constant and keeps the contract.
    host.register_static("doubler", unsafe { StaticEntry::new(larger) })
        .unwrap();
    assert!(host.delegate("doubler").is_ok());
}

#[test]
fn a_name_is_registered_once_and_must_be_the_delegates_own() {
    let host = Host::discover(HostOptions::default());
    host.register_static("other", static_entry::<Doubler>()).unwrap();
    let twice = host.register_static("other", static_entry::<Doubler>());
    assert!(matches!(twice, Err(HostError::Duplicate { .. })));
    let error = host.delegate("other").err().unwrap().to_string();
    assert!(error.contains("it is the delegate `doubler`, not `other`"), "{error}");
}
