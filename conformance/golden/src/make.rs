//! Writes the folder of a release.

use crate::{ASKED, COMPILED_FOR, Record, listing, verdicts};
use anyhow::{Context, Result, ensure};
use delegraph::Source;
use delegraph_host::Host;
use delegraph_lower::image::{Form, offer};
use delegraph_pte::Verified;
use delegraph_pte::overlay::{OVERLAY_KEY, Overlay};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The recorded models that a release compiles: sizes of every kind, state, branches, quantized types.
const MODELS: [&str; 4] = [
    "arch-mlp-dynamic-batch",
    "arch-kv-cache",
    "arch-cond",
    "arch-int8-convnet",
];

/// A configuration with every key that the schema has.
pub const CONFIG: &str = include_str!("sample.toml");

/// The profiles with which it is resolved, and the files of what comes out.
pub const RESOLVED: [(Option<&str>, &str); 2] = [(None, "backends.json"), (Some("release"), "backends.release.json")];

/// What the C API of a release is: a program, and the header that it was written for.
const CAPI: [(&str, &str); 2] = [
    ("runtime/capi/examples/run.c", "run.c"),
    ("runtime/capi/include/delegraph_app.h", "delegraph_app.h"),
];

/// Writes a release into `folder`, which must not be there: what a release was does not change.
///
/// # Errors
/// The folder is there; a model does not compile; a file cannot be read or written.
pub fn release(root: &Path, folder: &Path, host: &Arc<Host>) -> Result<()> {
    ensure!(
        !folder.exists(),
        "`{}` is there already: what a release wrote is not written again",
        folder.display()
    );
    for name in MODELS {
        let fixture = root.join("conformance/fixtures").join(name);
        model(&fixture, &folder.join("models").join(name), host).with_context(|| name.to_string())?;
    }
    write(&folder.join("config/backends.toml"), CONFIG.as_bytes())?;
    for (profile, file) in RESOLVED {
        write(&folder.join("config").join(file), resolved(CONFIG, profile)?.as_bytes())?;
    }
    for (from, to) in CAPI {
        copy(&root.join(from), &folder.join("capi").join(to))?;
    }
    Ok(())
}

/// A configuration's text, resolved, as JSON.
///
/// # Errors
/// It is no configuration, or has no such profile.
pub fn resolved(text: &str, profile: Option<&str>) -> Result<String> {
    let mut layers = delegraph_config::Layers::default();
    // Without a folder: relative paths stay as they are written, and the file is the same on every machine.
    layers.add_text(delegraph_config::Origin::Flag, text, None)?;
    let mut json = serde_json::to_string_pretty(&layers.resolve(profile)?)?;
    json.push('\n');
    Ok(json)
}

fn model(fixture: &Path, folder: &Path, host: &Arc<Host>) -> Result<()> {
    let config = delegraph::config_from_text(&format!("[select]\norder = [\"{COMPILED_FOR}\"]\n"))?;
    let source = Source::open(fixture.join("model.pt2"))?;
    let module = delegraph::import(&source)?;
    let mut images: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let versions = delegraph_opset::Versions::default();
    for graph in &module.graphs {
        let offer = offer(&module, graph, Form::newest(&versions))?;
        images.insert(format!("{}.offer", graph.name), offer.image.bytes);
    }
    let compiled = delegraph::compile(module, &config, host, &mut |_| {})?;
    for lowered in &compiled.report.graphs {
        for region in &lowered.regions {
            images.insert(format!("{}.{}", lowered.name, region.id), region.image.clone());
        }
    }
    let mut recorded = BTreeMap::new();
    for (name, image) in &images {
        write(&folder.join(format!("images/{name}.dgg")), image)?;
        write(
            &folder.join(format!("images/{name}.txt")),
            listing::image(image)?.as_bytes(),
        )?;
        let mut by_delegate = BTreeMap::new();
        for backend in ASKED {
            by_delegate.insert(backend.to_string(), verdicts(host, backend, image)?);
        }
        recorded.insert(name.clone(), by_delegate);
    }
    for (name, blob) in blobs(&compiled.bytes)? {
        write(&folder.join(format!("blobs/{name}.dgb")), &blob)?;
        write(
            &folder.join(format!("blobs/{name}.txt")),
            listing::blob(&blob)?.as_bytes(),
        )?;
    }
    let coverage = compiled.report.coverage();
    let record = Record {
        methods: delegraph::methods(&Source::from_bytes(compiled.bytes.clone(), "compiled"))?,
        delegated_nodes: coverage.delegated_nodes,
        nodes: coverage.nodes,
        verdicts: recorded,
    };
    ensure!(record.delegated_nodes > 0, "the delegate takes nothing of it");
    write(&folder.join("model.pte"), &compiled.bytes)?;
    let mut json = serde_json::to_string_pretty(&record)?;
    json.push('\n');
    write(&folder.join("record.json"), json.as_bytes())?;
    for file in ["fixture.json", "inputs.safetensors", "expected.safetensors"] {
        copy(&fixture.join(file), &folder.join(file))?;
    }
    Ok(())
}

/// The blobs of a program, by the last part of their key.
///
/// # Errors
/// It is no program, or its overlay names what it does not have.
pub fn blobs(file: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
    let program = Verified::parse(file)?;
    let overlay = program.named(file, OVERLAY_KEY).context("the program has no overlay")?;
    let overlay: Overlay = serde_json::from_slice(overlay)?;
    let regions = overlay.methods.iter().flat_map(|method| &method.regions);
    let mut found = Vec::new();
    for candidate in regions.flat_map(|region| &region.candidates) {
        let blob = program.named(file, &candidate.blob);
        let blob = blob.with_context(|| format!("the program has no `{}`", candidate.blob))?;
        found.push((
            candidate.blob.trim_start_matches("delegraph.").to_string(),
            blob.to_vec(),
        ));
    }
    Ok(found)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    write(
        to,
        &std::fs::read(from).with_context(|| format!("reading {}", from.display()))?,
    )
}
