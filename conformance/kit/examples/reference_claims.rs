//! Writes the claims of the reference delegate into its manifest: `cargo run -p delegraph-kit --example reference_claims`.
//!
//! They are what the delegate's own predicate takes of the recorded calls of `conformance/corpus` and of the kit, in every dtype that an
//! operator has.

use delegraph_host::Claims;
use delegraph_kit::support::{Asked, Proposal, Setting, ask_all, of_kit, propose, questions_of};
use delegraph_lower::image::Form;
use delegraph_opset::Versions;
use delegraph_sdk::image::{NodeIndex, verify};
use std::path::{Path, PathBuf};

/// Where the written part begins.
const MARK: &str =
    "# What it takes. Written by `cargo run -p delegraph-kit --example reference_claims`: do not edit from here on.\n";

/// A path of the repository.
pub fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The reference delegate's answer for an image of one node.
///
/// # Errors
/// The image is malformed.
pub fn ask(image: &[u8]) -> Result<Result<(), String>, String> {
    let view = verify(image).map_err(|problem| format!("{problem:?}"))?;
    let node = view.node(NodeIndex(0));
    Ok(delegraph_reference::caps::accept(&node)
        .map(|_| ())
        .map_err(|refusal| refusal.text))
}

/// Every recorded call, judged by these claims.
///
/// # Errors
/// The recorded calls cannot be read.
pub fn asked(claims: &Claims) -> Result<Vec<Asked>, String> {
    let mut questions = questions_of(&in_repository("conformance/corpus"))?;
    let versions = Versions::builtin();
    let setting = Setting {
        form: Form::newest(&versions),
        quantized: true,
    };
    questions.extend(of_kit(None, setting)?);
    ask_all(questions, claims, &mut ask)
}

/// The manifest as it should be, and what could not be claimed.
///
/// # Errors
/// A file cannot be read.
pub fn manifest() -> Result<(String, Proposal), String> {
    let path = in_repository("delegates/reference/reference.delegate.toml");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("`{}`: {error}", path.display()))?;
    let head = text.split(MARK).next().unwrap_or_default().trim_end();
    let proposal = propose(&asked(&Claims::default())?);
    Ok((format!("{head}\n\n{MARK}{}", proposal.claims), proposal))
}

#[allow(dead_code, reason = "the test beside it has only the functions")]
fn main() -> Result<(), String> {
    let (text, proposal) = manifest()?;
    for line in &proposal.left {
        eprintln!("not claimed: {line}");
    }
    let path = in_repository("delegates/reference/reference.delegate.toml");
    std::fs::write(&path, text).map_err(|error| format!("`{}`: {error}", path.display()))?;
    eprintln!("{} tables", proposal.claims.entries.len());
    Ok(())
}
