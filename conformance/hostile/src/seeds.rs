//! Seeds: small real files of this repository, and inputs that once failed.

use delegraph::Source;
use delegraph_abi::c::DType;
use delegraph_abi::envelope::{Meta, Section, TensorSpec};
use delegraph_config::Config;
use delegraph_host::{Host, HostOptions};
use delegraph_pte::Verified;
use delegraph_pte::origins::DEBUG_KEY;
use delegraph_pte::overlay::{
    Bucket, BucketSize, BucketedCandidate, Candidate, IR_KEY, MethodOverlay, Overlay, Region, SymbolPlace,
};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// A program whose constants lie in a data file.
pub(crate) const WITH_EXTERNAL_CONSTANTS: &str = "runtime/pte/tests/data/external-constants.pte";
/// The program that overlays are bound to.
pub(crate) const OVERLAID: &str = "runtime/pte/tests/data/arch-mlp-dynamic-batch.pte";

/// Archives that are small, and between them use most of what the importer reads.
const ARCHIVES: [&str; 14] = [
    "arch-cond/model.pt2",
    "arch-map/model.pt2",
    "arch-scan/model.core.pt2",
    "arch-while/model.pt2",
    "arch-dynamic-shapes/model.pt2",
    "import-bool-item/model.pt2",
    "import-inputs/model.pt2",
    "import-in-place-shape/model.pt2",
    "import-items/model.pt2",
    "import-nested/model.pt2",
    "import-slices/model.pt2",
    "import-tied/model.pt2",
    "import-trained-norm/model.pt2",
    // Pickled tensor subclasses.
    "quant-torchao-8da4w/model.pt2",
];

/// Archives whose compiled form gives IR and graph images.
const COMPILED: [&str; 6] = [
    "arch-cond/model.pt2",
    "arch-map/model.pt2",
    "arch-dynamic-shapes/model.pt2",
    "import-items/model.pt2",
    "import-in-place-shape/model.pt2",
    "import-tied/model.pt2",
];

/// The seeds of a target.
pub(crate) fn of(target: &str) -> Vec<(String, Vec<u8>)> {
    match target {
        "pt2" => ARCHIVES.map(fixture).into(),
        "pte" => programs(),
        "ptd" => vec![named("runtime/pte/tests/data/external-constants.ptd")],
        "bundled" => vec![named("runtime/pte/tests/data/bundled.bpte")],
        "ir_segment" => COMPILED
            .iter()
            .map(|name| (name.to_string(), named_data(name, IR_KEY)))
            .collect(),
        "overlay" => vec![("overlay".to_string(), overlay())],
        "origins" => COMPILED
            .iter()
            .map(|name| (name.to_string(), named_data(name, DEBUG_KEY)))
            .collect(),
        "graph_image" => COMPILED.iter().flat_map(|name| images(name)).collect(),
        "envelope" => {
            let [whole, apart] = envelopes();
            vec![
                ("envelope".to_string(), whole),
                ("sections elsewhere".to_string(), apart),
            ]
        }
        "ethos_u_network" => ["ethos-u55-128/conv-3x3", "ethos-u85-256/net-residual"]
            .map(|name| named(&format!("delegates/ethos-u/sim/tests/cases/{name}.vela")))
            .to_vec(),
        "cpu_families" => vec![("three programs".to_string(), FAMILIES.into())],
        "hexagon_blob" => vec![("header".to_string(), delegraph_hexagon::blob::sample().write())],
        "vulkan_plan" => vec![("plan".to_string(), vulkan_plan())],
        "manifest" => vec![
            named("delegates/null/null.delegate.toml"),
            ("every-key".to_string(), MANIFEST.into()),
        ],
        "lock" => vec![("every-key".to_string(), LOCK.into())],
        "hash_list" => vec![("two".to_string(), HASHES.into())],
        "signature" => vec![("minisign".to_string(), SIGNATURE.into())],
        "elf" => vec![("needs-two".to_string(), elf())],
        "config" => vec![named("runtime/config/tests/backends.toml")],
        "safetensors" => [
            "arch-cond/inputs.safetensors",
            "import-dtypes/expected.safetensors",
            "import-inputs/inputs.safetensors",
            "arch-kv-cache/inputs.safetensors",
        ]
        .map(fixture)
        .into(),
        other => panic!("there is no target `{other}`"),
    }
}

/// The files below `corpus/<target>`, by name.
pub(crate) fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(&folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(),
    };
    paths.sort();
    let read = |path: PathBuf| (path.display().to_string(), bytes(&path));
    paths.into_iter().map(read).collect()
}

/// A file of the repository.
pub(crate) fn file(path: &str) -> Vec<u8> {
    bytes(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path))
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn named(path: &str) -> (String, Vec<u8>) {
    (path.to_string(), file(path))
}

fn fixture(name: &str) -> (String, Vec<u8>) {
    (name.to_string(), file(&format!("conformance/fixtures/{name}")))
}

fn programs() -> Vec<(String, Vec<u8>)> {
    let names = [
        "arch-cond",
        "arch-map",
        "arch-mlp-dynamic-batch",
        "arch-multi-output",
        "arch-scan",
        "arch-variety",
        "dim-order",
        "mutable-buffer-initialised",
        "mutable-buffer",
        "two-methods",
    ];
    let mut all = names
        .map(|name| named(&format!("runtime/pte/tests/data/{name}.pte")))
        .to_vec();
    all.push(("compiled arch-map".to_string(), compile("arch-map/model.pt2")));
    all
}

fn compile(name: &str) -> Vec<u8> {
    let host = Host::discover(HostOptions {
        no_load: true,
        ..HostOptions::default()
    });
    let source = Source::from_bytes(fixture(name).1, name);
    let module = delegraph::import(&source).expect("a fixture can be imported");
    let compiled = delegraph::compile(module, &Config::default(), &host, &mut |_| {});
    compiled.expect("a fixture can be compiled").bytes
}

/// What rides along in the compiled fixture under a key.
fn named_data(name: &str, key: &str) -> Vec<u8> {
    let file = compile(name);
    let program = Verified::parse(&file).expect("a program that we wrote is valid");
    program.named(&file, key).expect("it rides along").to_vec()
}

fn images(name: &str) -> Vec<(String, Vec<u8>)> {
    let source = Source::from_bytes(fixture(name).1, name);
    let module = delegraph::import(&source).expect("a fixture can be imported");
    let versions = delegraph_lower::LowerOptions::default().versions;
    let image = |graph| {
        let form = delegraph_lower::image::Form::newest(&versions);
        let offer = delegraph_lower::image::offer(&module, graph, form).expect("a fixture's graph makes an image");
        (format!("{name} {}", graph.name), offer.image.bytes)
    };
    module.graphs.iter().map(image).collect()
}

fn overlay() -> Vec<u8> {
    let file = file(OVERLAID);
    let program = Verified::parse(&file).expect("the program of the overlay is valid");
    let plan = &program.plans[0];
    let candidate = Candidate {
        backend: "vulkan".to_string(),
        target: String::new(),
        precision: "f16".to_string(),
        blob: "delegraph.blob.0".to_string(),
        weights: vec![(0, 1), (1, 2)],
    };
    let whole = Region {
        start: 0,
        end: plan.instructions.len() as u32,
        inputs: plan.inputs.clone(),
        outputs: plan.outputs.clone(),
        rooms: vec![4096, 0],
        operators: vec![("aten::linear".to_string(), 2), ("aten::relu".to_string(), 1)],
        candidates: vec![candidate.clone()],
        bucketed: vec![BucketedCandidate {
            bucket: 0,
            outputs: vec![vec![1, 8]],
            candidate,
        }],
    };
    let overlay = Overlay {
        methods: vec![MethodOverlay {
            method: plan.name.clone(),
            regions: vec![whole],
            buckets: vec![Bucket {
                sizes: vec![BucketSize {
                    symbol: 0,
                    min: 1,
                    max: 8,
                }],
            }],
            symbols: vec![SymbolPlace {
                name: "s0".to_string(),
                input: 0,
                dimension: 0,
                factor: 2,
                offset: 1,
            }],
        }],
        left_out: vec!["encoder.weight".to_string()],
    };
    serde_json::to_vec(&overlay).expect("plain data can be written")
}

/// Of a blob that has all its sections, and of one of which one lies elsewhere.
fn envelopes() -> [Vec<u8>; 2] {
    let spec = |rank| TensorSpec {
        dtype: DType::F32,
        rank,
        requirement: delegraph_abi::envelope::Requirement {
            alignment: 64,
            size_multiple: 16,
        },
    };
    let meta = Meta {
        delegate: "vulkan".to_string(),
        delegate_version: "1.2.3".to_string(),
        format: "vulkan.spirv".to_string(),
        format_version: 4,
        target: "any".to_string(),
        precision: "f16".to_string(),
        abi_major: 1,
        abi_minor: 0,
        graph_hash: [7; 32],
        options_hash: [1; 32],
        weights_hash: [2; 32],
        driver_min: "1.0".into(),
        driver_max: "2.9".into(),
        inputs: vec![spec(4), spec(2)],
        outputs: vec![spec(2)],
        states: vec![delegraph_abi::envelope::KeptState {
            state: 0,
            name: "cache".to_string(),
            input: 1,
            output: 0,
            growth: Some((0, 16)),
            bytes: 512,
        }],
    };
    let section = |name, bytes| Section { name, bytes, align: 64 };
    let sections = [section("code", &[1; 100][..]), section("data", &[2; 30][..])];
    [&[][..], &[(1, [9; 32])]].map(|apart| {
        let sha256 = |bytes: &[u8]| Sha256::digest(bytes).into();
        delegraph_abi::envelope::write_apart(&meta, &sections, apart, sha256).expect("a right envelope")
    })
}

const MANIFEST: &str = r#"manifest_version = 1
name = "vulkan"
vendor = "Example"
version = "1.2.0"
licence = "Apache-2.0"
library = "libvulkan_delegate.so"
roles = ["compile", "run"]
targets = ["sm8650", "sm8750"]
options_schema = "vulkan.json"
contact = "https://example.org"

[abi]
major = 1
min_minor = 0
"#;

const LOCK: &str = r#"version = 1
expires = 2999-12-31

[[delegate]]
name = "vulkan"
manifest = "delegates.d/vulkan.delegate.toml"
manifest_sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
library = "delegates.d/libvulkan_delegate.so"
library_sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

[[delegate.dependent]]
path = "delegates.d/libvulkan_runtime.so"
sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"#;

const FAMILIES: &str = "avx2 neon : program.avx2 weights weights.avx2 small_weights\n\
    avx512 : program.avx512 weights weights.avx512 small_weights small_weights.avx512.sve2\n\
    sve2 : program.sve2 small_weights.avx512.sve2\n";

const HASHES: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  vulkan.delegate.toml\n\
                      e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  lib/libvulkan_delegate.so\n";

const SIGNATURE: &str = "untrusted comment: signature from minisign secret key\n\
    RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
    trusted comment: timestamp:1633700835\tfile:test\tprehashed\n\
    wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==\n";

/// A library of 64 bits with nothing but what its loader reads: a segment for all, and the table of what it needs.
fn elf() -> Vec<u8> {
    let names = b"\0libone.so\0libtwo.so\0$ORIGIN/lib\0";
    let (headers, table) = (64 + 2 * 56, 16 * 6);
    let (dynamic, strings) = (headers as u64, (headers + table) as u64);
    let size = strings + names.len() as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    // ET_DYN of x86-64, version, entry, where the program headers are; no sections.
    bytes.extend([3, 0, 62, 0, 1, 0, 0, 0]);
    [0, 64, 0]
        .iter()
        .for_each(|word: &u64| bytes.extend(word.to_le_bytes()));
    bytes.extend([0; 4]);
    for half in [64_u16, 56, 2, 64, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    for (kind, at, length) in [(1_u32, 0, size), (2, dynamic, table as u64)] {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(4_u32.to_le_bytes());
        for word in [at, at, at, length, length, 8] {
            bytes.extend(u64::to_le_bytes(word));
        }
    }
    // NEEDED twice, RUNPATH, STRTAB, STRSZ, NULL.
    for (tag, value) in [
        (1, 1),
        (1, 11),
        (29, 21),
        (5, strings),
        (10, names.len() as u64),
        (0, 0),
    ] {
        bytes.extend(u64::to_le_bytes(tag));
        bytes.extend(u64::to_le_bytes(value));
    }
    bytes.extend(names);
    bytes
}

fn vulkan_plan() -> Vec<u8> {
    let constants = delegraph_vulkan::packing::ALL
        .iter()
        .take(2)
        .enumerate()
        .map(|(at, packing)| {
            let key = delegraph_vulkan::packing::Key {
                weight: at as u32,
                packing: packing.name.to_string(),
                arguments: vec![1, 2],
            };
            let place = delegraph_vulkan::program::Place {
                offset: 1024 * at as u64,
                bytes: 1000,
            };
            (key, place)
        });
    let plan = delegraph_vulkan::program::Plan {
        groups: vec![vec![0, 1, 3], vec![2, 4]],
        states: Vec::new(),
        constants: constants.collect(),
    };
    plan.write()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_library_needs_what_it_names() {
        let names = delegraph_host::trust::needed_libraries(&super::elf()).unwrap();
        assert_eq!(names, ["libone.so", "libtwo.so"]);
    }
}
