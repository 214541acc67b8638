//! Every release's folder, given to the code of today.

mod common;

use anyhow::Result;
use delegraph_golden::{folder, make, releases, replay};
use delegraph_pte::overlay::Overlay;
use std::path::Path;

/// Gives each release or model to a check, and fails with all that is wrong.
fn replayed(what: &str, check: impl Fn(&Path, &mut Vec<String>) -> Result<()>) {
    let releases = releases().unwrap();
    assert!(!releases.is_empty(), "no release has golden files");
    let mut problems = Vec::new();
    for release in releases {
        let before = problems.len();
        let mut found = Vec::new();
        if let Err(error) = check(&release, &mut found) {
            found.push(format!("{error:#}"));
        }
        let name = release.file_name().unwrap_or_default().to_string_lossy().into_owned();
        problems.extend(found.into_iter().map(|problem| format!("{name}: {problem}")));
        println!("{name}: {what}: {} problems", problems.len() - before);
    }
    assert!(problems.is_empty(), "{what}:\n{}", problems.join("\n"));
}

fn of_models(release: &Path, found: &mut Vec<String>, check: impl Fn(&Path) -> Result<Vec<String>>) -> Result<()> {
    let models = replay::models(release)?;
    anyhow::ensure!(!models.is_empty(), "no models");
    for model in models {
        let name = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.extend(check(&model)?.into_iter().map(|problem| format!("{name}: {problem}")));
    }
    Ok(())
}

#[test]
fn programs_run_on_their_delegate_and_without_it() {
    let host = common::host();
    replayed("programs", |release, found| {
        of_models(release, found, |model| replay::program(model, &host))
    });
}

#[test]
fn images_list_and_are_judged_as_they_were() {
    let host = common::host();
    replayed("images", |release, found| {
        of_models(release, found, |model| replay::images(model, &host))
    });
}

#[test]
fn blobs_are_whole() {
    replayed("blobs", |release, found| of_models(release, found, replay::blobs));
}

#[test]
fn configurations_resolve_as_they_did() {
    replayed("configurations", |release, found| {
        found.extend(replay::config(release)?);
        Ok(())
    });
}

#[test]
fn the_sample_has_every_key_of_the_schema() {
    fn keys<'s>(schema: &'s serde_json::Value, found: &mut Vec<&'s str>) {
        if let Some(properties) = schema.get("properties").and_then(serde_json::Value::as_object) {
            found.extend(properties.keys().map(String::as_str));
        }
        match schema {
            serde_json::Value::Object(map) => map.values().for_each(|value| keys(value, found)),
            serde_json::Value::Array(list) => list.iter().for_each(|value| keys(value, found)),
            _ => {}
        }
    }
    let schema = delegraph_config::json_schema();
    let mut found = Vec::new();
    keys(&schema, &mut found);
    assert!(found.contains(&"isolation") && found.len() > 20, "{found:?}");
    let words = |text: &'static str| {
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .collect::<Vec<_>>()
    };
    let sample = words(make::CONFIG);
    let absent: Vec<&&str> = found.iter().filter(|key| !sample.contains(*key)).collect();
    assert!(
        absent.is_empty(),
        "`src/sample.toml` lacks {absent:?}: the next release's golden files would too"
    );
}

/// The other way round: a reader of today passes over what a newer writer adds to the overlay.
#[test]
fn newer_fields_of_an_overlay_are_passed_over() {
    let newer = r#"{ "methods": [{ "method": "forward", "later": 1, "regions": [{ "start": 0, "end": 2, "inputs": [0], "outputs": [3],
        "operators": [["aten::relu", 1]], "cost": 0.5, "candidates": [{ "backend": "b", "target": "", "precision": "",
        "blob": "delegraph.blob.0", "weights": [], "streams": [1] }] }] }], "made_by": "2.0" }"#;
    let overlay: Overlay = serde_json::from_str(newer).unwrap();
    assert_eq!(overlay.methods[0].regions[0].candidates[0].blob, "delegraph.blob.0");
    // What a reader needs is needed.
    assert!(serde_json::from_str::<Overlay>(&newer.replace("\"end\": 2,", "")).is_err());
}

#[test]
fn a_release_is_not_written_twice() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let error = make::release(&root, &folder().join("v0.1"), &common::host()).unwrap_err();
    assert!(error.to_string().contains("is there already"), "{error:#}");
}

/// What is wrong is seen: a copy of a release with one thing changed in each kind of file.
#[test]
fn a_changed_file_is_told() {
    let host = common::host();
    let release = folder().join("v0.1");
    let model = release.join("models/arch-mlp-dynamic-batch");
    let copy = std::env::temp_dir().join(format!("delegraph-golden-{}", std::process::id()));
    let fresh = || {
        let _ = std::fs::remove_dir_all(&copy);
        copy_tree(&model, &copy);
    };
    let change = |file: &str, edit: &dyn Fn(&mut Vec<u8>)| {
        fresh();
        let path = copy.join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        edit(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
    };
    let replace = |from: &'static str, to: &'static str| {
        move |bytes: &mut Vec<u8>| {
            let text = String::from_utf8(std::mem::take(bytes)).unwrap();
            assert!(text.contains(from), "{text}");
            *bytes = text.replacen(from, to, 1).into_bytes();
        }
    };
    fresh();
    assert!(replay::images(&copy, &host).unwrap().is_empty() && replay::program(&copy, &host).unwrap().is_empty());
    change("expected.safetensors", &|bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 0x40;
    });
    // Every leg sees it: on the delegate, portably, compiled again.
    assert!(replay::program(&copy, &host).unwrap().len() >= 3);
    change("images/forward.offer.txt", &replace("aten::gelu", "aten::relu"));
    assert!(replay::images(&copy, &host).unwrap()[0].contains("aten::relu"));
    change("images/forward.offer.dgg", &|bytes| bytes.truncate(100));
    assert!(replay::images(&copy, &host).unwrap()[0].contains("does not verify"));
    change("record.json", &replace("\"null\": \"-", "\"null\": \"+"));
    assert!(replay::images(&copy, &host).unwrap()[0].contains("null took"));
    change(
        "record.json",
        &replace("\"delegated_nodes\": ", "\"delegated_nodes\": 9"),
    );
    assert!(replay::program(&copy, &host).unwrap()[0].contains("it took 9"));
    change("blobs/blob.0.dgb", &|bytes| {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    });
    assert_eq!(replay::blobs(&copy).unwrap().len(), 2);
    let _ = std::fs::remove_dir_all(&copy);
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
