//! Manifests, configurations, and tensors from safetensors files.

use super::Outcome;
use delegraph_config::{Layers, Origin};
use delegraph_host::Manifest;
use delegraph_runner::Leaf;
use delegraph_runner::fixture::Tensors;
use std::hint::black_box;
use std::path::Path;

/// A delegate's manifest.
pub fn manifest(bytes: &[u8], _: &dyn Fn()) -> Outcome {
    // A file is read as UTF-8 before it is parsed.
    match std::str::from_utf8(bytes) {
        Err(error) => Outcome::Refused(error.to_string()),
        Ok(text) => match Manifest::parse(text) {
            Err(problem) => Outcome::Refused(problem),
            Ok(manifest) => {
                assert!(!manifest.name.is_empty());
                Outcome::Read
            }
        },
    }
}

/// A configuration, under another layer and with each of its profiles.
pub fn config(bytes: &[u8], _: &dyn Fn()) -> Outcome {
    let text = match std::str::from_utf8(bytes) {
        Err(error) => return Outcome::Refused(error.to_string()),
        Ok(text) => text,
    };
    let mut layers = Layers::default();
    let project = Origin::Project("hostile.toml".into());
    if let Err(error) = layers.add_text(project, text, Some(Path::new("folder"))) {
        return Outcome::Refused(error.to_string());
    }
    layers
        .add_text(Origin::Flag, "[select]\norder = [\"cpu\"]\n", None)
        .expect("a right layer over a right layer is right");
    let config = layers.resolve(None).expect("a layer that was accepted resolves");
    assert_eq!(config.select.order, ["cpu"]);
    for name in config.profile.keys() {
        black_box(layers.resolve(Some(name)).is_ok());
    }
    black_box((
        layers.leaves(None).map_or(0, |leaves| leaves.len()),
        layers.warnings().len(),
    ));
    Outcome::Read
}

/// The tensors of a safetensors file, as `--inputs` and fixtures give them.
pub fn safetensors(bytes: &[u8], _: &dyn Fn()) -> Outcome {
    match Tensors::parse(bytes, Path::new("hostile.safetensors")) {
        Err(error) => Outcome::Refused(error.to_string()),
        Ok(tensors) => {
            for (_, leaf) in tensors.iter() {
                black_box(leaf.describe());
                if let Leaf::Tensor { dtype, shape, bytes } = leaf {
                    let count: i64 = shape.iter().product();
                    assert_eq!(count as usize * dtype.size(), bytes.len());
                }
            }
            Outcome::Read
        }
    }
}
