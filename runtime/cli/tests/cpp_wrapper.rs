//! What a delegate in C++ throws reaches the host as a status with its message, from every function, and the host lives on.

use delegraph_abi::image::{Arg, ImageBuilder, Type};
use delegraph_abi::{DType as Code, Status};
use delegraph_host::{BlobVerdict, Delegate, DelegateError, Host, HostOptions, Input, Output, Weights};
use delegraph_types::{DType, Dims};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// The library of `tests/c/throwing.cpp`; `None` and a line where there is no compiler.
fn library() -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let library = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("libthrowing_delegate{}", std::env::consts::DLL_SUFFIX));
        let output = Command::new("c++")
            .args([
                "-std=c++17",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-pedantic",
                "-O1",
                "-fPIC",
                "-fvisibility=hidden",
                "-shared",
                "-I",
            ])
            .arg(folder.join("../../delegate-sdk/include"))
            .arg("-o")
            .arg(&library)
            .arg(folder.join("tests/c/throwing.cpp"))
            .output()
            .ok()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(library)
    });
    if built.is_none() {
        println!("skipped: exceptions in C++: no c++");
    }
    built.clone()
}

fn start(library: &Path, options: serde_json::Value) -> Result<Arc<Delegate>, String> {
    let host = Host::discover(HostOptions {
        pinned: vec![("throwing".to_string(), library.to_path_buf())],
        options: [("throwing".to_string(), options)].into(),
        ..HostOptions::default()
    });
    host.delegate("throwing").map_err(|error| error.to_string())
}

/// `relu(x)` beside a weight of one number.
fn image() -> Vec<u8> {
    let mut image = ImageBuilder::new("forward");
    let (four, one) = (image.int(4), image.int(1));
    let ty = Type::tensor(Code::F32, &[four]);
    let weight = image.weight(12, Code::F32, &[1]);
    image.weight_value("w", &Type::tensor(Code::F32, &[one]), weight);
    let x = image.input("x", &ty);
    let y = image.node("y", "aten::relu", &[Arg::Value(x)], &[("y", &ty)], "")[0];
    image.output(y);
    image.finish().unwrap()
}

struct OneWeight;

impl Weights for OneWeight {
    fn bytes(&self, id: u32) -> Option<&[u8]> {
        // 0.5
        (id == 12).then_some(&[0, 0, 0, 0x3f])
    }
}

/// The function that is told to throw fails, the others before it do not.
fn fails_at(library: &Path, place: &str, how: &str) -> DelegateError {
    let delegate = start(library, serde_json::json!({ "where": place, "how": how })).unwrap();
    let partition = delegate.partition(&image(), "");
    if ["partition", "twice"].contains(&place) {
        return partition.unwrap_err();
    }
    assert!(partition.unwrap().verdicts[0].supported);
    let blob = match delegate.compile(&image(), &OneWeight, "chip9") {
        Err(error) => return error,
        Ok(blob) => blob,
    };
    if let Err(error) = delegate.check_blob(&blob) {
        return error;
    }
    let mut session = match delegate.load(&blob, Arc::new(OneWeight)) {
        Err(error) => return error,
        Ok(session) => session,
    };
    run(&mut session).unwrap_err()
}

fn run(session: &mut delegraph_host::Session) -> Result<[f32; 4], DelegateError> {
    // Whole numbers, so that their bytes lie aligned as floats.
    let given: Vec<f32> = vec![1.0, -2.0, 3.0, -4.0];
    let bytes: Vec<u8> = given.iter().flat_map(|x| x.to_le_bytes()).collect();
    let (given, mut room) = (aligned(&bytes), aligned(&[0; 16]));
    let output = Output {
        dtype: DType::F32,
        sizes: Dims::new(&[4]).unwrap(),
        bytes: &mut room.1[room.0..][..16],
    };
    let input = Input {
        dtype: DType::F32,
        sizes: &[4],
        bytes: &given.1[given.0..][..16],
    };
    session.execute(&[input], &mut [output])?;
    let at = room.0;
    Ok(std::array::from_fn(|i| {
        f32::from_le_bytes(room.1[at + 4 * i..][..4].try_into().unwrap())
    }))
}

/// Bytes in a vector, from a place that is a multiple of 4.
fn aligned(bytes: &[u8]) -> (usize, Vec<u8>) {
    let mut room = vec![0; bytes.len() + 4];
    let at = room.as_ptr().align_offset(4);
    room[at..at + bytes.len()].copy_from_slice(bytes);
    (at, room)
}

#[test]
fn without_an_exception_everything_runs() {
    let Some(library) = library() else { return };
    let delegate = start(&library, serde_json::json!({ "level": 3 })).unwrap();
    let info = delegate.info();
    assert_eq!(
        (info.vendor.as_str(), info.build.as_str(), info.format_version),
        ("tests", "b1", 2)
    );
    assert_eq!(delegate.devices().unwrap().len(), 2);
    let blob = delegate.compile(&image(), &OneWeight, "chip9").unwrap();
    let meta = delegraph_abi::envelope::parse(&blob).unwrap();
    assert_eq!(
        (meta.meta.precision.as_str(), meta.sections[0].bytes),
        ("f16", b"12 chip9".as_slice())
    );
    assert_eq!(delegate.check_blob(&blob), Ok(BlobVerdict::Optimal));
    let mut session = delegate.load(&blob, Arc::new(OneWeight)).unwrap();
    for _ in 0..3 {
        assert_eq!(run(&mut session).unwrap(), [1.5, -1.5, 3.5, -3.5]);
    }
}

#[test]
fn every_function_contains_every_exception() {
    let Some(library) = library() else { return };
    let ways = [
        ("error", Status::DEVICE_BUSY, "the chip is busy"),
        ("ok", Status::INTERNAL, "an error that says that all is well"),
        ("memory", Status::OUT_OF_MEMORY, "out of memory"),
        ("standard", Status::INTERNAL, "a mistake with “quotes”"),
        ("library", Status::INTERNAL, "vector"),
        ("other", Status::INTERNAL, "no std::exception"),
    ];
    for (how, status, text) in ways {
        for place in ["partition", "compile", "check", "load", "execute"] {
            let error = fails_at(&library, place, how);
            assert_eq!(error.code, status, "{place} {how}: {error}");
            assert!(error.message.contains(text), "{place} {how}: {error}");
            if how == "error" {
                assert_eq!(
                    (error.node, error.vendor_code, error.hint.as_str()),
                    (Some(3), -7, "wait"),
                    "{place}"
                );
            }
        }
        for place in ["new", "devices"] {
            let problem = start(&library, serde_json::json!({ "where": place, "how": how }))
                .err()
                .unwrap();
            assert!(problem.contains(text), "{place} {how}: {problem}");
        }
    }
}

#[test]
fn what_the_host_refuses_is_thrown_and_contained() {
    let Some(library) = library() else { return };
    assert!(
        fails_at(&library, "execute", "part").message.contains("“quotes”"),
        "a part of parallel_for"
    );
    assert_eq!(fails_at(&library, "weight", "").code, Status::NOT_FOUND);
    assert_eq!(fails_at(&library, "null", "").code, Status::INTERNAL);
    assert_eq!(fails_at(&library, "section", "").code, Status::BLOB_CORRUPT);
    // The host has its own word for a second answer: the contract is broken.
    assert_eq!(fails_at(&library, "twice", "").code, Status::INTERNAL);
    for (options, text) in [
        (serde_json::json!({ "hwo": "x" }), "`hwo`"),
        (serde_json::json!({ "level": 4 }), "`level` is not 3"),
        (serde_json::json!({ "level": "high" }), "of another type"),
    ] {
        let problem = start(&library, options).err().unwrap();
        assert!(problem.contains(text), "{problem}");
    }
}
