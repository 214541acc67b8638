//! What was released stays: the layouts and headers of earlier versions are kept as they were, and each version begins as the one before.

use super::layout::MODELS;
use super::{describe, golden_path};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The files of each earlier version, in order, and their SHA-256. A row is added when its version is closed and the next begins; a row never
/// changes. `golden/vM.N.json` is what the generator wrote last, `frozen/vM.N/delegraph.h` a copy of the header.
const KEPT: [[(&str, &str); 2]; 5] = [
    [
        (
            "delegate-sdk/abi/golden/v0.0.json",
            "f2650f1f6dcd60bd7ca1154eae7fc96128ed5983be4dabe1a117c30862222f21",
        ),
        (
            "delegate-sdk/abi/frozen/v0.0/delegraph.h",
            "7f12a966c41dca63d875773b942cf4d712c24d5ae060ae38bfb39124a13fd527",
        ),
    ],
    [
        (
            "delegate-sdk/abi/golden/v0.1.json",
            "7789751604b04d6fdac650018ab76d6df1562b9b85cf7fe769c34562e5e514b7",
        ),
        (
            "delegate-sdk/abi/frozen/v0.1/delegraph.h",
            "6610023fa56f806c75c57c6ed5951f5b32e68cc45c692d9d1f9659be50cf0645",
        ),
    ],
    [
        (
            "delegate-sdk/abi/golden/v0.2.json",
            "02de7e1ae9ee885eec39a313812f990588be5bd32e6c5c4775809a20f0995f33",
        ),
        (
            "delegate-sdk/abi/frozen/v0.2/delegraph.h",
            "eb4f2656952533f48668ea81b9b45b8d8328c473bc2cd2ef5f5e810025573698",
        ),
    ],
    [
        (
            "delegate-sdk/abi/golden/v1.0.json",
            "1730535601ae341866ce429760fa1dca52c937bb4caadaf4aa6b9ab6b792a86d",
        ),
        (
            "delegate-sdk/abi/frozen/v1.0/delegraph.h",
            "67bbc432cfa32a46d3476fc39f8c7c83437fadeedfbfbf60225e7459116e49df",
        ),
    ],
    [
        (
            "delegate-sdk/abi/golden/v1.1.json",
            "2662155dc7a0a01403b8904027f1b36d9f633c0582e3ce27eb1f2cba727177d8",
        ),
        (
            "delegate-sdk/abi/frozen/v1.1/delegraph.h",
            "06ba9835db899b160423038acad15b9347dfdd23c964e2eef13cc975a72d2635",
        ),
    ],
];

fn golden(path: &str) -> Value {
    let text = std::fs::read_to_string(crate::root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn files_of_earlier_versions_are_the_same_bytes() {
    let root = crate::root();
    let description = describe(&root).unwrap();
    assert_eq!(
        KEPT.len(),
        description.earlier.len(),
        "each version before the newest has its kept files: add a row"
    );
    for (number, files) in (0..).zip(KEPT) {
        assert_eq!(files[0].0, golden_path(&description.at(number)));
        assert_eq!(
            files[1].0,
            format!("delegate-sdk/abi/frozen/v{}/delegraph.h", description.name(number))
        );
        for (path, want) in files {
            let bytes = std::fs::read(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
            let got: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(got, want, "`{path}` was released as it was: take it back");
        }
    }
}

#[test]
fn a_kept_header_states_its_version_and_the_hash_of_its_layouts() {
    let description = describe(&crate::root()).unwrap();
    for (version, [(layouts, _), (header, _)]) in description.earlier.iter().zip(KEPT) {
        let text = std::fs::read_to_string(crate::root().join(header)).unwrap();
        let hash = golden(layouts)["layout_hash"].as_str().unwrap().to_string();
        for line in [
            format!("#define DG_ABI_MAJOR {}\n", version.major),
            format!("#define DG_ABI_MINOR {}\n", version.minor),
            format!("#define DG_LAYOUT_HASH UINT64_C(0x{hash})\n"),
        ] {
            assert!(text.contains(&line), "`{header}` lacks `{}`", line.trim());
        }
    }
}

#[test]
fn each_version_begins_as_the_one_before() {
    let newest = describe(&crate::root()).unwrap();
    let goldens: Vec<Value> = (0..=newest.newest())
        .map(|number| golden(&golden_path(&newest.at(number))))
        .collect();
    for pair in goldens.windows(2) {
        let problems = differences(&pair[0], &pair[1]);
        assert!(problems.is_empty(), "{problems:#?}");
    }
}

/// The smallest size that the mirror lets a maker state is that of the first version, and of the first of its major, in every data model.
#[test]
fn first_sizes_are_those_of_the_first_versions() {
    let newest = describe(&crate::root()).unwrap();
    let first = golden(&golden_path(&newest.at(0)));
    for model in MODELS {
        for (name, of_first) in object(&first["models"][model.name]) {
            let sizes = newest.sizes(name, model).unwrap();
            assert_eq!(
                Some(&of_first["size"].as_u64().unwrap()),
                sizes.get(&0),
                "{}: {name}",
                model.name
            );
            assert!(sizes.values().is_sorted(), "{}: {name} shrinks: {sizes:?}", model.name);
        }
    }
    // As the mirror has it, where this test runs.
    if cfg!(target_pointer_width = "64") {
        use delegraph_abi::c;
        let table = [
            ("dg_call", c::Call::FIRST_SIZE),
            ("dg_blob", c::Blob::FIRST_SIZE),
            ("dg_blob_meta", c::BlobMeta::FIRST_SIZE),
            ("dg_tensor", c::Tensor::FIRST_SIZE),
            ("dg_host_api", c::HostApi::FIRST_SIZE),
            ("dg_delegate_api", c::DelegateApi::FIRST_SIZE),
        ];
        for (name, size) in table {
            assert_eq!(
                first["models"]["LP64"][name]["size"].as_u64(),
                Some(size as u64),
                "{name}"
            );
        }
        // What a library of major 1 states at least is what 1.0 has.
        let frozen = golden("delegate-sdk/abi/golden/v1.0.json");
        let table = [
            ("dg_graph", c::Graph::MAJOR_SIZE),
            ("dg_tensor", c::Tensor::MAJOR_SIZE),
            ("dg_host_api", c::HostApi::MAJOR_SIZE),
            ("dg_delegate_api", c::DelegateApi::MAJOR_SIZE),
        ];
        for (name, size) in table {
            assert_eq!(
                frozen["models"]["LP64"][name]["size"].as_u64(),
                Some(size as u64),
                "{name}"
            );
        }
    }
}

/// What was frozen as 1.0 is what 0.2 had, member by member: a library of either is read by the same code.
#[test]
fn the_first_version_of_major_1_is_the_last_of_major_0() {
    let (last, first) = (
        golden("delegate-sdk/abi/golden/v0.2.json"),
        golden("delegate-sdk/abi/golden/v1.0.json"),
    );
    assert_eq!(last["models"], first["models"]);
    assert_eq!(last["enums"], first["enums"]);
    assert_eq!(last["layout_hash"], first["layout_hash"]);
    assert_eq!((&first["major"], &first["minor"]), (&1.into(), &0.into()));
}

#[test]
fn a_version_that_moves_changes_or_drops_something_is_told_by_name() {
    let newest = describe(&crate::root()).unwrap();
    let first = golden(&golden_path(&newest.at(0)));
    assert!(differences(&first, &first).is_empty());
    type Change = fn(&mut Value);
    let cases: [(&str, Change, &str); 6] = [
        (
            "a field that moved",
            |v| v["models"]["LP64"]["dg_call"]["fields"][3]["offset"] = 24.into(),
            "LP64: `dg_call.host` changed",
        ),
        (
            "a field that went",
            |v| drop(v["models"]["ILP32"]["dg_call"]["fields"].as_array_mut().unwrap().pop()),
            "ILP32: `dg_call.host` is gone",
        ),
        (
            "a struct that went",
            |v| drop(object_mut(&mut v["models"]["LLP64"]).remove("dg_tensor")),
            "LLP64: `dg_tensor` is gone",
        ),
        (
            "a value that changed",
            |v| v["enums"]["dg_status"]["TIMEOUT"] = 99.into(),
            "`dg_status.TIMEOUT` was 9, is 99",
        ),
        (
            "two items of one value",
            |v| v["enums"]["dg_status"]["OTHER"] = 9.into(),
            "`dg_status` has two items of value 9",
        ),
        (
            "a stricter alignment",
            |v| v["models"]["ILP32"]["dg_call"]["align"] = 8.into(),
            "ILP32: alignment of `dg_call` was 4, is 8",
        ),
    ];
    for (name, change, want) in cases {
        let mut next = first.clone();
        change(&mut next);
        let problems = differences(&first, &next);
        assert!(problems.iter().any(|p| p.contains(want)), "{name}: {problems:?}");
    }
}

/// What a version has otherwise than the one before; new fields, structs, items and enums are no difference.
fn differences(before: &Value, after: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, items) in object(&before["enums"]) {
        for (item, value) in object(items) {
            let now = &after["enums"][name][item];
            if now != value {
                problems.push(format!("`{name}.{item}` was {value}, is {now}"));
            }
        }
    }
    for (name, items) in object(&after["enums"]) {
        let mut values: Vec<u64> = object(items).values().filter_map(Value::as_u64).collect();
        values.sort_unstable();
        if let Some(twice) = values.windows(2).find(|pair| pair[0] == pair[1]) {
            problems.push(format!("`{name}` has two items of value {}", twice[0]));
        }
    }
    for (model, structs) in object(&before["models"]) {
        for (name, was) in object(structs) {
            let now = &after["models"][model][name];
            if now.is_null() {
                problems.push(format!("{model}: `{name}` is gone"));
                continue;
            }
            if was["align"] != now["align"] {
                let (was, now) = (&was["align"], &now["align"]);
                problems.push(format!("{model}: alignment of `{name}` was {was}, is {now}"));
            }
            let empty = Vec::new();
            let fields = now["fields"].as_array().unwrap_or(&empty);
            for (i, field) in was["fields"].as_array().into_iter().flatten().enumerate() {
                let field_name = field["name"].as_str().unwrap_or_default();
                match fields.get(i) {
                    None => problems.push(format!("{model}: `{name}.{field_name}` is gone")),
                    Some(now) if now != field => {
                        problems.push(format!("{model}: `{name}.{field_name}` changed: {field}, now {now}"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    problems
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().expect("an object")
}

fn object_mut(value: &mut Value) -> &mut Map<String, Value> {
    value.as_object_mut().expect("an object")
}
