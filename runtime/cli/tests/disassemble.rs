//! `inspect --blob N --disasm`: the commands of a blob of the Ethos-U delegate, and what is said of blobs of others.

use delegraph_abi::envelope::{self, Meta, Section};
use delegraph_pte::{Contents, Verified, write};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

const MODEL: &str = "conformance/fixtures/mtcnn-pnet/model.pt2";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Exit code, standard output, standard error.
fn delegraph(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_delegraph"))
        .args(arguments)
        .current_dir(root())
        .env_clear()
        .output()
        .unwrap();
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// A blob of the delegate's form around a network that Vela compiled.
fn ethos_u_blob(network: &[u8]) -> Vec<u8> {
    let meta = Meta {
        delegate: "ethos-u".to_string(),
        format: "delegraph.ethos-u".to_string(),
        target: "ethos-u85-256".to_string(),
        ..Meta::default()
    };
    let sections = [Section {
        name: "network",
        align: 16,
        bytes: network,
    }];
    // Nobody who only looks compares the hash.
    envelope::write(&meta, &sections, |_| [0; 32]).unwrap()
}

/// A program with another first blob.
fn with_blob(file: &[u8], blob: &[u8]) -> Vec<u8> {
    let program = Verified::parse(file).unwrap();
    let mut contents = Contents::of(&program, file).unwrap();
    let first = contents.named.iter_mut().find(|named| named.0 == "delegraph.blob.0");
    let first = first.expect("the program has a blob");
    (first.1, first.2) = (64, blob);
    let mut out = Vec::new();
    write(&contents.with_plans(&program.plans), &mut out).unwrap();
    out
}

#[test]
fn a_blob_of_ethos_u_is_disassembled_and_others_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let other = path("other.pte");
    let (code, _, error) = delegraph(&["compile", MODEL, "-o", &other, "--backend", "reference"]);
    assert_eq!(code, 0, "{error}");
    let file = std::fs::read(&other).unwrap();

    let network = root().join("delegates/ethos-u/sim/tests/cases/ethos-u85-256/gather-int8.vela");
    let network = std::fs::read(network).unwrap();
    let program = path("ethos-u.pte");
    std::fs::write(&program, with_blob(&file, &ethos_u_blob(&network))).unwrap();
    let disasm = ["inspect", program.as_str(), "--blob", "0", "--disasm"];
    let (code, text, error) = delegraph(&disasm);
    assert_eq!(code, 0, "{text}{error}");
    for line in [
        "format     delegraph.ethos-u version 0",
        "; Ethos-U85-256, config 0x20000118, id 0x20007000, 27 words",
        "000000  SET    DMA0_SRC_REGION 3073  ; region 1, rows of pieces, indexed",
        "000064  DMA_START",
        "000068  STOP 0xffff",
    ] {
        assert!(text.lines().any(|l| l == line), "no `{line}` in {text}");
    }
    let (code, text, error) = delegraph(&[&disasm[..], &["--json"]].concat());
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}{error}"));
    assert_eq!((code, &json["exit_code"]), (0, &Value::from(0)));
    let blob = &json["blob"];
    assert_eq!(blob["format"], "delegraph.ethos-u");
    assert_eq!(blob["sections"][0]["bytes"], network.len());
    assert_eq!(blob["disassembly"].as_str().unwrap().lines().count(), 18, "{blob}");
    // Without the flag: what it is, and not its commands.
    let (_, text, _) = delegraph(&["inspect", &program, "--blob", "0", "--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["blob"]["target"], "ethos-u85-256");
    assert!(json["blob"].get("disassembly").is_none(), "{json}");

    // What cannot be disassembled: another delegate's, a damaged one, none.
    let (code, _, error) = delegraph(&["inspect", &other, "--blob", "0", "--disasm"]);
    assert_eq!(code, 2, "{error}");
    let words = [
        "`delegraph.reference`, which there is no disassembler of",
        "hint: `--disasm` reads `delegraph.ethos-u`",
    ];
    assert!(words.iter().all(|w| error.contains(w)), "{error}");
    for (name, network, words) in [
        ("cut", &network[..100], "which are not there"),
        ("empty", &[][..], "the header of a block is cut off"),
    ] {
        let program = path(name);
        std::fs::write(&program, with_blob(&file, &ethos_u_blob(network))).unwrap();
        let (code, _, error) = delegraph(&["inspect", &program, "--blob", "0", "--disasm"]);
        assert_eq!(code, 3, "{name}: {error}");
        assert!(error.contains("blob 0") && error.contains(words), "{name}: {error}");
    }
    let (code, _, error) = delegraph(&["inspect", &program, "--blob", "7", "--disasm"]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("the program has no blob 7"), "{error}");
    let (code, _, error) = delegraph(&["inspect", MODEL, "--blob", "0", "--disasm"]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("has no blobs") && error.contains("hint:"), "{error}");
    let (code, _, error) = delegraph(&["inspect", &program, "--disasm"]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("--blob"), "{error}");
}
