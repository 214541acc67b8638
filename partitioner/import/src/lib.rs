//! Reads `.pt2` archives, as `torch.export.save` of torch 2.9 and later writes them, into the IR. No Python is needed.
//!
//! Both programs as `torch.export.export` gives them (in-place operators, views that alias, higher-order operators) and
//! programs after `run_decompositions()` are read; the result is functional either way. Weights stay in the mapped file.
//! What is not supported is refused with the node, its operator and shapes, and the source line where the file has it.
//!
//! [`lift_program`] reads the other kind of model: a straight-line `.pte` program that Delegraph did not write.
//!
//! This crate knows no delegate and no kernel.
//!
//! ```no_run
//! let module = delegraph_import::import("model.pt2".as_ref(), &Default::default())?;
//! println!("{} nodes", module.graphs[0].nodes.len());
//! # Ok::<(), delegraph_import::ImportError>(())
//! ```

mod archive;
mod args;
mod error;
mod functional;
mod graph;
mod hop;
mod lift;
mod pickle;
mod program;
mod schema;
mod scope;
mod sympy;
mod sys;
mod tensor;
mod view;
mod weights;

pub use error::{ImportError, Report};
pub use lift::{lift_program, straight_line};

use archive::Archive;
use delegraph_ir::{Bytes, Module};
use std::path::Path;

/// What to read, and how.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ImportOptions {
    /// Read only the program of this name; `None`: all of the archive.
    pub method: Option<String>,
}

/// Reads the archive at `path`. The file is mapped, and must not be changed while the module is in use.
///
/// # Errors
/// See [`ImportError`]; the message names the file.
pub fn import(path: &Path, options: &ImportOptions) -> Result<Module, ImportError> {
    import_bytes(sys::map(path)?, options).map_err(|error| error.in_file(path))
}

/// Reads an archive that is in memory. The constants of the module are windows on these bytes.
///
/// # Errors
/// See [`ImportError`].
pub fn import_bytes(bytes: Bytes, options: &ImportOptions) -> Result<Module, ImportError> {
    let archive = Archive::open(&bytes)?;
    archive.check_kind()?;
    let mut stems: Vec<String> = archive.list("models/", ".json").map(str::to_string).collect();
    if let Some(wanted) = &options.method {
        let names = stems.join("`, `");
        stems.retain(|stem| stem == wanted);
        if stems.is_empty() {
            return Err(
                ImportError::unsupported(format!("the archive has no program `{wanted}`"))
                    .hint(format!("it has `{names}`")),
            );
        }
    }
    // A single program is `forward`, whatever its file is called; so is `model` beside others.
    let single = stems.len() == 1;
    let has_forward = stems.iter().any(|s| s == "forward");
    let method = |stem: &str| match single || (stem == "model" && !has_forward) {
        true => "forward".to_string(),
        false => stem.to_string(),
    };
    stems.sort_by_key(|stem| method(stem) != "forward");

    let mut session = graph::Session::new(archive);
    for stem in &stems {
        let member = format!("models/{stem}.json");
        let at = || format!("member `{member}`");
        let bytes = session.archive.find(&member).cloned();
        let bytes = bytes.ok_or_else(|| ImportError::malformed("the member is missing").at(at))?;
        let program = program::parse(bytes.as_slice()).map_err(|e| e.at(at))?;
        program::read(&mut session, &program, stem, &method(stem)).map_err(|e| e.at(at))?;
    }
    let module = program::finish(session)?;
    delegraph_ir::verify(&module)
        .map_err(|error| ImportError::malformed(format!("the program is not well formed: {error}")))?;
    Ok(module)
}
