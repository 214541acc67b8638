//! Views of a conformance run. The truth is `cases.jsonl`, one [`CaseRecord`](delegraph_runner::CaseRecord) a line, and `run.json`, what
//! the run was made of; every other file is made from these two and can be made again.
//!
//! Reading order: [`truth`] (what is read), [`standing`] (the answer to "may I ship on this?"), [`grid`], then the views: [`junit`],
//! [`markdown`], [`badge`], [`html`], [`certificate`]. [`diff`] compares two runs, [`index`] gathers many, [`check`] verifies a folder that somebody handed in.

pub mod badge;
pub mod certificate;
pub mod check;
pub mod diff;
pub mod grid;
pub mod html;
pub mod identity;
pub mod index;
pub mod junit;
pub mod markdown;
pub mod standing;
pub mod statement;
mod text;
pub mod truth;
pub mod views;

pub use truth::{ReportError, Truth};
pub use views::{VIEWS, write_views, write_views_with};
