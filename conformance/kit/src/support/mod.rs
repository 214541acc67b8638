//! What a delegate takes, found by asking it: an operator × dtype table, and claims that a vendor can paste.
//!
//! A [`Question`] is a graph of one node, made of a recorded call of an operator: as it was recorded, in other dtypes, with dynamic sizes, and
//! with constants in place of inputs. Asking costs no run: `partition` sees types and arguments, never elements.
//!
//! [`ask_all`] puts the questions, [`table()`] shows the answers, [`propose()`] makes `[[op]]` tables of them. [`cases`]
//! are the questions as cases of `conform run --mode support`.

pub mod cases;
mod propose;
mod question;
mod table;

pub use propose::{Proposal, propose};
pub use question::{Question, Setting, TypeOf, of_kit, questions, questions_of};
pub use table::{Cell, Row, Table, table};

use crate::case::Failure;
use crate::driver::{Instance, Library, Script};
use crate::subject::Subject;
use delegraph_abi::c;
use delegraph_abi::image::{NodeIndex, NodeView, verify};
use delegraph_host::{Claims, Pass, Unclaimed};
use delegraph_lower::Operators;
use delegraph_lower::image::Form;
use delegraph_opset::Versions;
use std::sync::Arc;

/// A question and its answers.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What was asked.
    pub question: Question,
    /// The delegate takes the node, or why not.
    pub taken: Result<(), String>,
    /// Position of the claim that covers the node, or why none does.
    pub claimed: Result<usize, Unclaimed>,
}

impl Question {
    /// Whether one of these claims covers the node.
    pub fn is_claimed(&self, claims: &Claims) -> bool {
        node_of(&self.image, |node| claims.judge(&node, &Operators).is_ok()).unwrap_or(false)
    }
}

impl Asked {
    /// The manifest promises what the delegate refuses.
    pub fn is_broken_promise(&self) -> bool {
        self.claimed.is_ok() && self.taken.is_err()
    }
}

/// Asks about every question. `ask` is given an image of one node: `Ok(Ok(()))` it is taken, `Ok(Err(reason))` it is not.
///
/// # Errors
/// What `ask` fails with, and the question that it failed at.
pub fn ask_all(
    questions: Vec<Question>,
    claims: &Claims,
    ask: &mut dyn FnMut(&[u8]) -> Result<Result<(), String>, String>,
) -> Result<Vec<Asked>, String> {
    let mut asked = Vec::with_capacity(questions.len());
    for question in questions {
        let taken = ask(&question.image).map_err(|problem| format!("asked about {}: {problem}", question.name()))?;
        let claimed = node_of(&question.image, |node| claims.judge(&node, &Operators))?;
        asked.push(Asked {
            question,
            taken,
            claimed,
        });
    }
    Ok(asked)
}

/// The kit's questions in the form that a library wants, and what its manifest claims.
pub(crate) fn questions_for(subject: &Subject) -> Result<(Vec<Question>, Claims), Failure> {
    let versions = Versions::builtin();
    let opset = Library::open(subject)?.info()?.opset;
    let manifest = subject.manifest.as_ref();
    let claims = manifest
        .map(|(_, manifest)| manifest.claims.clone())
        .unwrap_or_default();
    Ok((of_kit(None, setting_of(subject, &versions, &opset))?, claims))
}

/// The form of images that a library was built for and its manifest asks for.
fn setting_of<'v>(subject: &Subject, versions: &'v Versions, opset: &str) -> Setting<'v> {
    let asks = |pass| matches!(&subject.manifest, Some((_, manifest)) if manifest.passes.contains(&pass));
    Setting {
        form: Form {
            versions,
            version: versions.of_delegate(opset),
            channels_last: asks(Pass::Nhwc),
        },
        quantized: asks(Pass::FoldQdq),
    }
}

/// A started delegate that is asked about nodes.
pub(crate) struct Asker {
    instance: Instance,
}

impl Asker {
    /// Starts it.
    pub(crate) fn new(subject: &Subject) -> Result<Asker, Failure> {
        let library = Arc::new(Library::open(subject)?);
        if !library.has(c::Feature::COMPILE) {
            return Err(Failure::skip("the library does not compile"));
        }
        let instance = library.start(&subject.options, &Script::default())?;
        Ok(Asker { instance })
    }

    /// Asks about an image of one node.
    pub(crate) fn ask(&mut self, image: &[u8]) -> Result<Result<(), String>, String> {
        let answers = self.instance.partition(image, 1, &Script::default());
        let answers = answers.map_err(|refused| Failure::from(refused).reason)?;
        answers.complete(1)?;
        Ok(match answers.takes(0) {
            true => Ok(()),
            false => Err(answers.reason()),
        })
    }
}

/// Does something with the only node of an image.
fn node_of<T>(image: &[u8], with: impl FnOnce(NodeView<'_>) -> T) -> Result<T, String> {
    let view = verify(image).map_err(|problem| format!("an image of the kit is malformed: {problem:?}"))?;
    match view.node_count() {
        0 => Err("an image of the kit has no node".to_string()),
        _ => Ok(with(view.node(NodeIndex(0)))),
    }
}
