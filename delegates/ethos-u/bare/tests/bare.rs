//! Both ways in, with a driver that interprets the stream in place of a device: cases of `delegraph-ethos-u-sim`, which are Vela's output with what
//! Arm's TOSA reference model expects.

use bytemuck::{cast_slice, cast_slice_mut};
use delegraph_abi::envelope::{self, Meta, Requirement, TensorSpec};
use delegraph_ethos_u_bare::{Board, Driver, Error, Fault, Job, Memory, Place, SESSIONS, Session, blob, static_entry};
use delegraph_ethos_u_sim::{Config, Interpreter, Limits, Stream, container};
use delegraph_host::{BlobVerdict, Host, HostOptions, Input, Output, Weights};
use delegraph_types::{DType, Dims};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;

/// A processor that is interpreted, with this config word.
struct Interpreted(u32);

impl Driver for Interpreted {
    fn config(&self) -> u32 {
        self.0
    }

    fn submit(&mut self, job: Job<'_>) -> Result<(), Fault> {
        let mut run = || {
            let stream = Stream::bare(job.commands, Config::of(job.config, 0)?)?;
            let mut memory = delegraph_ethos_u_sim::Memory::new();
            memory.map(0, job.weights);
            memory.map_mut(1, job.scratch);
            memory.map_mut(2, job.fast);
            Interpreter::new(stream.config, Limits::default()).run(&stream, &mut memory)
        };
        run().map(|_| ()).map_err(|_| Fault(-5))
    }
}

/// Bytes at a multiple of 16.
fn aligned(bytes: &[u8]) -> Vec<u128> {
    let mut words = vec![0; bytes.len().div_ceil(16)];
    cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    words
}

fn case(target: &str, name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sim/tests/cases");
    std::fs::read(folder.join(target).join(format!("{name}.vela"))).unwrap()
}

/// The sets of inputs of a case, and what is expected of each.
fn sets(case: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let blocks = container::blocks(case).unwrap();
    let all = |name: &'static str| blocks.iter().filter(move |b| b.name == name).map(|b| b.data.to_vec());
    all("given").zip(all("expected")).collect()
}

#[test]
fn sessions_give_what_the_oracle_expects() {
    let mut done = 0;
    for (target, config) in [
        ("ethos-u55-128", 0x1807),
        ("ethos-u65-256", 0x1000_3008),
        ("ethos-u85-256", 0x2000_0118),
    ] {
        for name in [
            "add",
            "conv-3x3",
            "conv-int16",
            "matmul",
            "concat",
            "net-residual",
            "cop2",
        ] {
            let case = case(target, name);
            let bytes = aligned(&case);
            let session = Session::new(cast_slice(&bytes)).unwrap();
            let network = *session.network();
            let (mut scratch, mut fast) = (aligned(&vec![0; network.scratch]), aligned(&vec![0; network.fast]));
            let mut memory = Memory {
                scratch: cast_slice_mut(&mut scratch),
                fast: cast_slice_mut(&mut fast),
            };
            for (mut given, mut expected) in sets(&case) {
                for i in 0..network.input_count() {
                    let rest = given.split_off(network.input(i).unwrap().bytes());
                    session.write_input(i, &given, &mut memory).unwrap();
                    given = rest;
                }
                session.run(&mut Interpreted(config), &mut memory).unwrap();
                for i in 0..network.output_count() {
                    let rest = expected.split_off(network.output(i).unwrap().bytes());
                    let mut out = vec![0; expected.len()];
                    session.read_output(i, &memory, &mut out).unwrap();
                    assert_eq!(out, expected, "{target} {name} output {i}");
                    expected = rest;
                }
                done += 1;
            }
        }
    }
    assert_eq!(done, 3 * 7 * 2);
}

#[test]
fn what_does_not_fit_is_refused_before_the_driver_sees_it() {
    let bytes = aligned(&case("ethos-u55-128", "add"));
    let session = Session::new(cast_slice(&bytes)).unwrap();
    let network = *session.network();
    let mut scratch = aligned(&vec![0; network.scratch]);
    let whole: &mut [u8] = cast_slice_mut(&mut scratch);
    let run = |config, scratch: &mut [u8]| {
        let mut memory = Memory { scratch, fast: &mut [] };
        session.run(&mut Interpreted(config), &mut memory)
    };
    run(0x1807, whole).unwrap();
    let (stream, device) = (0x1807, 0x1808);
    assert_eq!(run(0x1808, whole), Err(Error::OtherProcessor { stream, device }));
    let short = network.scratch - 16;
    assert_eq!(
        run(0x1807, &mut whole[..short]),
        Err(Error::TooSmall {
            what: "scratch memory",
            needed: network.scratch,
            given: short
        })
    );
    let mut odd = aligned(&vec![0; network.scratch + 16]);
    let odd = &mut cast_slice_mut(&mut odd)[1..];
    let (what, align) = ("the scratch memory", 16);
    assert_eq!(run(0x1807, odd), Err(Error::Misaligned { what, align }));
    let mut memory = Memory {
        scratch: whole,
        fast: &mut [],
    };
    let size = network.input(0).unwrap().bytes();
    let (what, number) = ("input", 0);
    assert_eq!(
        session.write_input(0, &[0; 3], &mut memory),
        Err(Error::TensorSize {
            what,
            number,
            needed: size,
            given: 3
        })
    );
    let (what, number) = ("output", 1);
    assert_eq!(
        session.read_output(1, &memory, &mut []),
        Err(Error::NoTensor { what, number })
    );

    // A device that fails says so by its number.
    struct Hangs;
    impl Driver for Hangs {
        fn config(&self) -> u32 {
            0x1807
        }
        fn submit(&mut self, _: Job<'_>) -> Result<(), Fault> {
            Err(Fault(-110))
        }
    }
    let error = session.run(&mut Hangs, &mut memory).unwrap_err();
    assert_eq!(error.to_string(), "the driver failed with -110");
}

#[test]
fn damaged_networks_and_blobs_are_errors() {
    let whole = case("ethos-u85-256", "add");
    let end = Session::new(&whole).map(|_| whole.len()).unwrap();
    // Behind the block that a network ends with there is nothing that is read; before it, every cut shows.
    let outputs = whole.windows(7).position(|w| w == b"outputs").unwrap();
    for cut in (0..outputs + 32).step_by(7) {
        assert!(Session::new(&whole[..cut]).is_err(), "cut at {cut} of {end}");
    }
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as usize
    };
    let sections = [envelope::Section {
        name: "network",
        align: 16,
        bytes: &whole,
    }];
    let blob = envelope::write(&Meta::default(), &sections, |_| [0; 32]).unwrap();
    assert_eq!(blob::section(&blob, "network").unwrap(), whole);
    assert!(blob::section(&blob, "weights").is_err());
    for _ in 0..20_000 {
        let mut changed = blob.clone();
        for _ in 0..=next() % 4 {
            // Mostly where the heads are.
            let at = match next() % 3 {
                0 => next() % changed.len(),
                _ => next() % 512,
            };
            changed[at] = [0, 1, 0x7f, 0x80, 0xff, next() as u8][next() % 6];
        }
        if let Ok(section) = blob::section(&changed, "network")
            && let Ok(session) = Session::new(section)
        {
            let network = session.network();
            for i in 0..network.output_count() {
                assert!(
                    network
                        .output(i)
                        .is_none_or(|t| t.offset + t.bytes() <= network.scratch)
                );
            }
        }
    }
}

// The table -----------------------------------------------------------------------------------------------------------------------

static PLACE: Place<Interpreted> = Place::new();

struct Evaluation;

impl Board for Evaluation {
    type Driver = Interpreted;

    fn place() -> &'static Place<Interpreted> {
        &PLACE
    }
}

struct NoWeights;

impl Weights for NoWeights {
    fn bytes(&self, _: u32) -> Option<&[u8]> {
        None
    }
}

fn leaked(bytes: usize) -> &'static mut [u8] {
    cast_slice_mut(Box::leak(vec![0u128; bytes.div_ceil(16)].into_boxed_slice()))
}

fn blob_of(network: &[u8], format: &str, version: u32) -> Vec<u8> {
    let spec = TensorSpec {
        dtype: delegraph_abi::DType::I8,
        rank: 4,
        requirement: Requirement::default(),
    };
    let meta = Meta {
        delegate: "ethos-u".to_string(),
        format: format.to_string(),
        format_version: version,
        inputs: vec![spec],
        outputs: vec![spec],
        ..Meta::default()
    };
    let sections = [envelope::Section {
        name: "network",
        align: 16,
        bytes: network,
    }];
    envelope::write(&meta, &sections, |bytes| Sha256::digest(bytes).into()).unwrap()
}

/// One test: there is one board.
#[test]
fn a_host_loads_and_runs_by_the_table() {
    let host = || {
        let host = Host::discover(HostOptions::default());
        host.register_static("ethos-u", static_entry::<Evaluation>()).unwrap();
        host.delegate("ethos-u")
    };
    let refused = host().err().expect("no driver is installed").to_string();
    assert!(refused.contains("no driver was installed on the board"), "{refused}");
    let memory = Memory {
        scratch: leaked(1 << 16),
        fast: leaked(0),
    };
    // A store that begins at an odd address.
    PLACE
        .install(Interpreted(0x1807), memory, &mut leaked((1 << 16) + 16)[1..])
        .unwrap();
    let delegate = host().unwrap();
    assert_eq!(delegate.info().version, env!("CARGO_PKG_VERSION"));
    let devices = delegate.devices().unwrap();
    assert!(devices[0].name.contains("never run on a chip"), "{}", devices[0].name);

    let case = case("ethos-u55-128", "conv-3x3");
    let blob = blob_of(&case, "delegraph.ethos-u", 1);
    assert_eq!(delegate.check_blob(&blob).unwrap(), BlobVerdict::Optimal);
    for (other, version) in [("delegraph.vulkan", 1), ("delegraph.ethos-u", 7)] {
        let verdict = delegate.check_blob(&blob_of(&case, other, version)).unwrap();
        assert_ne!(verdict, BlobVerdict::Optimal, "{other}");
    }
    let mut foreign = case.clone();
    foreign[0] ^= 0x20;
    for (damaged, words) in [
        (&case[..64], "cut off"),
        (&case[16..], "cut off"),
        (&foreign[..], "vela_bin_stream"),
    ] {
        let blob = blob_of(damaged, "delegraph.ethos-u", 1);
        let error = delegate.load(&blob, Arc::new(NoWeights)).err().expect("it is damaged");
        assert!(error.to_string().contains(words), "{error}");
    }
    let run = |session: &mut delegraph_host::Session, sizes: &[i64]| -> Result<(), String> {
        for (given, expected) in sets(&case) {
            let (given, mut out) = (aligned(&given), vec![0u128; expected.len().div_ceil(16)]);
            let inputs = [Input {
                dtype: DType::I8,
                sizes,
                bytes: &cast_slice(&given)[..192],
            }];
            let mut outputs = [Output {
                dtype: DType::I8,
                sizes: Dims::new(&[1, 8, 8, 4]).unwrap(),
                bytes: &mut cast_slice_mut(&mut out)[..256],
            }];
            session.execute(&inputs, &mut outputs).map_err(|e| e.to_string())?;
            assert_eq!(outputs[0].bytes, expected);
        }
        Ok(())
    };
    // More sessions than there is room for, and room again when they have gone.
    for _ in 0..3 {
        let mut sessions = Vec::new();
        let last = loop {
            match delegate.load(&blob, Arc::new(NoWeights)) {
                Ok(session) => sessions.push(session),
                Err(error) => break error.to_string(),
            }
        };
        assert_eq!(sessions.len(), SESSIONS, "{last}");
        assert!(last.contains("as many sessions"), "{last}");
        for session in &mut sessions {
            run(session, &[1, 8, 8, 3]).unwrap();
        }
    }
    let mut session = delegate.load(&blob, Arc::new(NoWeights)).unwrap();
    let error = run(&mut session, &[1, 8, 3, 8]);
    assert!(error.is_ok(), "the same elements: {error:?}");
    let error = run(&mut session, &[1, 4, 8, 3]).unwrap_err();
    assert!(error.contains("other sizes"), "{error}");
}
