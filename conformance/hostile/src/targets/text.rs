//! Manifests, configurations, lock files, signatures, and tensors from safetensors files.

use super::Outcome;
use delegraph_config::{Layers, Origin};
use delegraph_host::Manifest;
use delegraph_host::trust::{HashList, Keys, Lock, needed_libraries};
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

/// A lock file; what is read is written and read again.
pub fn lock(bytes: &[u8], _: &dyn Fn()) -> Outcome {
    let text = match std::str::from_utf8(bytes) {
        Err(error) => return Outcome::Refused(error.to_string()),
        Ok(text) => text,
    };
    match Lock::parse(text) {
        Err(problem) => Outcome::Refused(problem),
        Ok(lock) => {
            black_box(lock.is_expired());
            assert_eq!(Lock::parse(&lock.to_text()), Ok(lock));
            Outcome::Read
        }
    }
}

/// A list of hashes; what is read is written and read again.
pub fn hash_list(bytes: &[u8], _: &dyn Fn()) -> Outcome {
    let text = match std::str::from_utf8(bytes) {
        Err(error) => return Outcome::Refused(error.to_string()),
        Ok(text) => text,
    };
    match HashList::parse(text) {
        Err(problem) => Outcome::Refused(problem),
        Ok(list) => {
            assert_eq!(HashList::parse(&list.to_text()), Ok(list));
            Outcome::Read
        }
    }
}

/// A signature, and a public key: each text is tried as both.
pub fn signature(bytes: &[u8], _: &dyn Fn()) -> Outcome {
    let text = match std::str::from_utf8(bytes) {
        Err(error) => return Outcome::Refused(error.to_string()),
        Ok(text) => text,
    };
    // The key, the message and the seed are of minisign's own documentation.
    let path = Path::new("hostile.pub");
    let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let keys = Keys::parse(path, key).expect("a right key");
    assert!(keys.verify(b"another message", text).is_err());
    if let Ok(other) = Keys::parse(path, text) {
        black_box(other.verify(b"test", text).is_ok());
    }
    match keys.verify(b"test", text) {
        Err(problem) => Outcome::Refused(problem),
        Ok(_) => Outcome::Read,
    }
}

/// The names that an ELF library needs.
pub fn elf(bytes: &[u8], _: &dyn Fn()) -> Outcome {
    match needed_libraries(bytes) {
        Err(problem) => Outcome::Refused(problem),
        Ok(names) => {
            assert!(names.iter().all(|name| name.len() <= bytes.len()));
            Outcome::Read
        }
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
