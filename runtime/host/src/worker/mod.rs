//! Delegates in processes of their own: one that crashes, hangs or eats memory costs its process and no more.
//!
//! [`Remote`] is the host's side: it starts the worker binary, speaks with it, ends it when a deadline passes, and starts another,
//! later each time, when it died. [`serve`] is the worker's side. Images, blobs and weights cross as sealed memory files; tensors lie
//! in memory that both map, so that a large one is not copied; a run is asked for and answered by words in a shared page, with an
//! event to wake who sleeps.
//!
//! What the worker writes is read as the bytes of a stranger: copied once, then checked. What it may write to is the memory of
//! activations that was shared with it, and nothing else of the app's.

mod client;
mod process;
pub(crate) mod program;
mod protocol;
mod sandbox;
mod serve_session;
mod server;
mod session;
pub(crate) mod sys;

pub(crate) use client::{Remote, Spec};
pub use sandbox::Sandbox;
pub use server::serve;
pub(crate) use session::RemoteSession;

use std::path::{Path, PathBuf};

/// Name of the worker binary.
const BINARY: &str = "delegraph-worker";

/// The worker binary: as configured, or beside the program, or in the folder above it (where cargo builds programs into `deps` and
/// `examples`).
fn binary(configured: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(binary) = configured {
        return match binary.is_file() {
            true => Ok(binary.to_path_buf()),
            false => Err(format!(
                "isolation: unavailable, there is no worker `{}`",
                binary.display()
            )),
        };
    }
    let program = std::env::current_exe().ok();
    let folders = program.iter().flat_map(|program| program.ancestors().skip(1).take(2));
    let mut beside = folders.map(|folder| folder.join(BINARY));
    beside.find(|binary| binary.is_file()).ok_or_else(|| {
        format!("isolation: unavailable, no `{BINARY}` lies beside the program; name it by `delegates.worker` or DELEGRAPH_WORKER")
    })
}
