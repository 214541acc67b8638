//! Models and samples for tests.

use delegraph_ir::{Constant, Module};
use delegraph_quant::{Sample, samples_of};
use delegraph_runner::Leaf;
use delegraph_runner::fixture::Tensors;
use delegraph_types::Dims;
use std::path::{Path, PathBuf};

/// A folder of the repository.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../conformance")
        .join(name)
}

/// A model, as it comes from import.
pub fn model(path: &Path) -> Module {
    let bytes = std::fs::read(path).unwrap();
    let options = delegraph_import::ImportOptions::default();
    let mut module = delegraph_import::import_bytes(bytes.into(), &options).unwrap();
    delegraph_passes::simplify(&mut module).unwrap();
    module
}

/// The samples of a file.
pub fn samples(module: &Module, path: &Path) -> Vec<Sample> {
    let tensors = Tensors::read(path).unwrap();
    let tensors = tensors.iter().filter_map(|(name, leaf)| match leaf {
        Leaf::Tensor { dtype, shape, bytes } => {
            let sizes = Dims::new(shape).unwrap();
            let constant = Constant::contiguous(name, *dtype, sizes, bytes.clone().into());
            Some((name.to_string(), constant))
        }
        _ => None,
    });
    samples_of(&module.graphs[0], "file", tensors.collect()).unwrap()
}
