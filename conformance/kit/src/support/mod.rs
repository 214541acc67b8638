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
pub use question::{Question, TypeOf, questions, questions_of};
pub use table::{Cell, Row, Table, table};

use delegraph_abi::image::{NodeIndex, NodeView, verify};
use delegraph_host::{Claims, Unclaimed};
use delegraph_lower::Operators;

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

/// Does something with the only node of an image.
fn node_of<T>(image: &[u8], with: impl FnOnce(NodeView<'_>) -> T) -> Result<T, String> {
    let view = verify(image).map_err(|problem| format!("an image of the kit is malformed: {problem:?}"))?;
    match view.node_count() {
        0 => Err("an image of the kit has no node".to_string()),
        _ => Ok(with(view.node(NodeIndex(0)))),
    }
}
