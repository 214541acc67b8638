//! One file for several families of processors: the same numbers from the program of each, what they share once, and nothing read of the others.
#![cfg(feature = "cpu")]

mod common;

use common::{check, config, fixture, open, source};
use delegraph::{Session, Source};
use delegraph_abi::envelope::{self, Envelope};
use delegraph_config::Config;
use delegraph_cpu::families::Families;
use delegraph_host::{Host, HostOptions, Payloads};
use delegraph_pte::Verified;
use delegraph_pte::overlay::{OVERLAY_KEY, Overlay, section_key};
use delegraph_sdk::{roles, static_entry_as};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Floats, bytes, 4 bits, a table, caches.
const MODELS: [&str; 8] = [
    "mtcnn-pnet",
    "arch-lstm",
    "arch-int8-convnet",
    "arch-tiny-llama",
    "arch-kv-cache",
    "quant-torchao-8da4w",
    "quant-torchao-emb4-8da4w",
    "quant-pt2e-residual",
];

/// The delegate with options, for configurations of `isa` and of fallback weights.
fn choosing(isa: &str, weights: &str) -> (Config, Arc<Host>) {
    let config = config(&format!(
        "[select]\norder = [\"cpu\"]\n[backend.cpu]\nfallback_weights = \"{weights}\"\n[backend.cpu.options]\nisa = \"{isa}\"\n"
    ));
    let options = serde_json::json!({ "isa": isa });
    let host = Host::discover(HostOptions {
        payloads: Payloads::Trusted,
        options: [("cpu".to_string(), options)].into(),
        ..HostOptions::default()
    });
    let cpu = static_entry_as::<delegraph_cpu::Cpu, (roles::Compile, roles::Run, roles::State)>();
    host.register_static("cpu", cpu).unwrap();
    (config, Arc::new(host))
}

fn compiled(name: &str, isa: &str, weights: &str) -> delegraph::Compiled {
    let (config, host) = choosing(isa, weights);
    let module = delegraph::import(&source(name)).unwrap();
    delegraph::compile(module, &config, &host, &mut |_| {}).unwrap()
}

fn file(bytes: Vec<u8>) -> Source {
    Source::from_bytes(bytes, "model.pte")
}

/// A session of the program for a family, all of whose regions are the delegate's.
fn session_of(bytes: Vec<u8>, isa: &str) -> Session {
    let (config, host) = choosing(isa, "keep");
    let session = open(&file(bytes), &config, &host).unwrap();
    let report = session.report();
    assert!(report.delegated_nodes() > 0, "{isa}: {}", report.why_portable());
    session
}

#[test]
fn the_program_of_each_family_gives_pytorchs_numbers() {
    for name in MODELS {
        for weights in ["keep", "drop"] {
            let bytes = compiled(name, "neon,avx512vnni,avx2", weights).bytes;
            for isa in ["neon", "avx2", "avx512vnni", "host", "scalar"] {
                check(&mut session_of(bytes.clone(), isa), &fixture(name));
            }
        }
    }
}

#[test]
fn what_families_share_is_stored_once() {
    for name in MODELS {
        let size = |isa: &str| compiled(name, isa, "drop").bytes.len();
        let (narrow, wide, both) = (size("avx2"), size("avx512vnni"), size("avx2,avx512vnni"));
        assert!(both < narrow + wide, "{name}: {both}, and {narrow} and {wide} alone");
        assert!(both >= narrow.max(wide), "{name}");
        // They are packed alike: what is more is a name.
        assert!(size("neon,avx2,scalar") <= narrow + 128, "{name}");
        assert_eq!(
            size("host"),
            size(delegraph_cpu::family::Family::best().name()),
            "{name}"
        );
    }
    // A table of 4 bits is packed alike for all.
    let both = sections(&compiled("quant-torchao-emb4-8da4w", "avx2,avx512", "drop").bytes);
    assert!(both["small_weights"] > 1024, "{both:?}");
    // Layers on bytes are packed alike for all: there is one program.
    let both = sections(&compiled("arch-int8-convnet", "avx512,neon", "drop").bytes);
    let names: Vec<&str> = both.keys().map(String::as_str).collect();
    assert_eq!(names, ["families", "program", "small_weights"]);
}

/// Where the sections of a file's blobs lie, and which programs read each: by the section, ranges of the file.
fn places(bytes: &[u8], isa: &str) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
    let verified = Verified::parse(bytes).unwrap();
    let overlay: Overlay = serde_json::from_slice(verified.named(bytes, OVERLAY_KEY).unwrap()).unwrap();
    let (mut own, mut others) = (Vec::new(), Vec::new());
    for region in overlay.methods.iter().flat_map(|method| &method.regions) {
        let blob = verified.named(bytes, &region.candidates[0].blob).unwrap();
        let mut envelope: Envelope<'_> = envelope::parse(blob).unwrap();
        envelope
            .resolve(&|hash| verified.named(bytes, &section_key(hash)))
            .unwrap();
        let sections: Vec<(&str, &[u8])> = envelope.sections.iter().map(|s| (s.name, s.bytes)).collect();
        let families = Families::of(&sections).unwrap();
        let (mut mine, mut all) = (BTreeSet::new(), BTreeSet::new());
        for entry in &families.programs {
            let named: Vec<&str> = entry
                .weights
                .iter()
                .chain([&entry.program])
                .map(String::as_str)
                .collect();
            all.extend(named.iter().map(|name| name.to_string()));
            if entry.families.iter().any(|family| family == isa) {
                mine.extend(named.iter().map(|name| name.to_string()));
            }
        }
        assert!(!mine.is_empty());
        for (name, section) in sections.iter().filter(|(name, _)| all.contains(*name)) {
            let start = section.as_ptr().addr() - bytes.as_ptr().addr();
            let range = start..start + section.len();
            match mine.contains(*name) {
                true => own.push(range),
                false => others.push(range),
            }
        }
    }
    (own, others)
}

#[test]
fn a_load_reads_nothing_of_the_other_families() {
    let mut apart = 0;
    for name in MODELS {
        let bytes = compiled(name, "avx2,avx512vnni", "drop").bytes;
        for isa in ["avx2", "avx512vnni"] {
            let (own, others) = places(&bytes, isa);
            apart += usize::from(!others.is_empty());
            let mut changed = bytes.clone();
            others.iter().for_each(|range| changed[range.clone()].fill(0xff));
            check(&mut session_of(changed, isa), &fixture(name));
            for range in &own {
                assert!(
                    others
                        .iter()
                        .all(|other| other.end <= range.start || range.end <= other.start)
                );
            }
        }
        // And of its own, all is: without it there is none.
        let (own, _) = places(&bytes, "avx2");
        let mut changed = bytes.clone();
        own.iter().for_each(|range| changed[range.clone()].fill(0xff));
        let (config, host) = choosing("avx2", "keep");
        assert!(open(&file(changed), &config, &host).is_err(), "{name}");
    }
    assert_eq!(apart, 2 * 6, "all but two models on bytes have a program for each");
}

/// Names of the sections of a file's blobs, with the sizes.
fn sections(bytes: &[u8]) -> BTreeMap<String, usize> {
    let verified = Verified::parse(bytes).unwrap();
    let blob = verified.named(bytes, "delegraph.blob.0").unwrap();
    let envelope = envelope::parse(blob).unwrap();
    envelope
        .sections
        .iter()
        .map(|s| (s.name.to_string(), s.bytes.len()))
        .collect()
}

#[test]
fn sections_are_named_for_those_who_read_them() {
    let names = |isa: &str| -> Vec<String> {
        sections(&compiled("mtcnn-pnet", isa, "drop").bytes)
            .into_keys()
            .collect()
    };
    let alone = ["families", "program", "small_weights", "weights"];
    assert_eq!(names("avx512"), alone);
    assert_eq!(names("neon-i8mm,avx2"), alone);
    let both = names("neon,avx512,avx2");
    for name in [
        "families",
        "program.neon",
        "program.avx512",
        "weights.neon",
        "weights.avx512",
    ] {
        assert!(both.iter().any(|section| section == name), "{both:?}");
    }
    for section in sections(&compiled("mtcnn-pnet", "neon,avx512,avx2", "drop").bytes) {
        assert!(section.1 > 0, "{section:?}");
    }
}

#[test]
fn a_file_is_the_same_whatever_the_machine_of_the_compiler_and_each_time() {
    // Each packing is the family's own, on a machine of any: the numbers of columns are in the program.
    let bytes = compiled("quant-torchao-8da4w", "avx512", "drop").bytes;
    assert_eq!(bytes, compiled("quant-torchao-8da4w", "avx512", "drop").bytes);
    let both = compiled("quant-torchao-8da4w", "avx512,avx2", "drop").bytes;
    assert_eq!(both, compiled("quant-torchao-8da4w", "avx512,avx2", "drop").bytes);
    assert!(sections(&both).contains_key("program.avx512"), "they are packed apart");
}

/// Files that version 2 of the form was written in: `delegraph compile --backend cpu --isa avx512 --fallback-weights drop` of the fixtures, by the
/// last state of this repository that wrote it.
#[test]
fn version_2_is_read() {
    for name in ["arch-kv-cache", "quant-torchao-8da4w"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/cpu_blob_2.{name}.pte"));
        let bytes = std::fs::read(path).unwrap();
        let verified = Verified::parse(&bytes).unwrap();
        let blob = envelope::parse(verified.named(&bytes, "delegraph.blob.0").unwrap()).unwrap();
        assert_eq!(
            (blob.meta.format.as_str(), blob.meta.format_version),
            ("delegraph.cpu", 2)
        );
        for isa in ["host", "avx512", "neon"] {
            check(&mut session_of(bytes.clone(), isa), &fixture(name));
        }
    }
}

#[test]
fn wrong_names_are_refused_with_those_that_there_are() {
    let (config, host) = choosing("avx2,sse4", "keep");
    let error = match delegraph::compile(
        delegraph::import(&source("mtcnn-pnet")).unwrap(),
        &config,
        &host,
        &mut |_| {},
    ) {
        Ok(compiled) => compiled.report.backends[0].problem.clone().unwrap(),
        Err(error) => error.to_string(),
    };
    for name in ["sse4", "`neon-dotprod`", "`avx512vnni`"] {
        assert!(error.contains(name), "{error}");
    }
}

/// Numbers that look random and are the same everywhere.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((self.0 >> 33) % limit.max(1) as u64) as usize
    }
}

#[test]
fn a_damaged_blob_is_no_panic() {
    let name = "quant-torchao-8da4w";
    let bytes = compiled(name, "avx2,avx512vnni", "keep").bytes;
    let verified = Verified::parse(&bytes).unwrap();
    let blob = envelope::parse(verified.named(&bytes, "delegraph.blob.0").unwrap()).unwrap();
    let place = |section: &[u8]| section.as_ptr().addr() - bytes.as_ptr().addr();
    let places: Vec<(usize, usize)> = blob.sections.iter().map(|s| (place(s.bytes), s.bytes.len())).collect();
    let (config, host) = choosing("host", "keep");
    let inputs = fixture(name);
    let mut noise = Noise(1);
    let (mut refused, mut run) = (0, 0);
    for _ in 0..600 {
        let mut changed = bytes.clone();
        // The table of programs, a program, or the table at the beginning of a section of weights.
        let (start, length) = places[noise.below(places.len())];
        for _ in 0..1 + noise.below(3) {
            let reach = 1 << (4 + noise.below(10));
            let at = start + noise.below(length.min(reach));
            match noise.below(3) {
                0 => changed[at] ^= 1 << noise.below(8),
                1 => changed[at] = noise.below(256) as u8,
                _ => changed[at] = [0, 1, 0x7f, 0x80, 0xff, b' ', b'\n', b':'][noise.below(8)],
            }
        }
        let Ok(mut session) = open(&file(changed), &config, &host) else {
            continue;
        };
        match session.report().regions.iter().any(|region| region.backend.is_none()) {
            true => refused += 1,
            false => run += 1,
        }
        let values: Vec<_> = inputs.cases[0].steps[0].inputs.iter().map(common::value).collect();
        // Other numbers, or an error, or the portable kernels.
        _ = session.run(&values);
        let report = session.report();
        let why = report.why_portable();
        assert!(!why.contains("panic"), "{why}");
    }
    assert!(refused > 50 && run > 50, "{refused} refused, {run} run");
}
