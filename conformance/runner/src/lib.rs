//! The runner of conformance cases: each in a child process, verdicts as JSON Lines, everything else a view of them.
//!
//! A *subject* ([`Subject`]) is what is tested; the runner knows nothing of Delegraph's own crates, so that a case is judged
//! the same whoever runs it. Reading order: [`record`] (what a verdict is), [`run_info`] (what a run was made of), [`category`], [`fixture`] (recorded models), [`compare`] (tolerances),
//! [`models`] (the cases of a folder of models), [`corpus`] (recorded calls of operators), [`child`] (a case in a process of its own),
//! [`batch`] (many small cases in one), [`known`] (failures with a reason), [`waiver`] (the same with an end), [`folder`] (what a run writes,
//! and how it goes on), [`shard`] (a run in parts), [`merge`] (the parts joined), [`time`].

pub mod batch;
pub mod category;
pub mod child;
pub mod compare;
pub mod corpus;
pub mod fixture;
pub mod folder;
pub mod known;
pub mod leaf;
pub mod merge;
pub mod models;
pub mod record;
pub mod run_info;
pub mod shard;
mod tail;
pub mod time;
pub mod waiver;

pub use category::Category;
pub use leaf::Leaf;
pub use models::{Instance, StepResult, Subject};
pub use record::{CaseRecord, Claim, Report, Summary, Verdict};
pub use run_info::RunInfo;
