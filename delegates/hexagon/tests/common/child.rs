//! Tests in processes of their own: this program, with one test.

use super::folder;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a child finds what its test is about.
const CHILD: &str = "DELEGRAPH_HEXAGON_TEST_CHILD";

/// A folder that is removed at the end.
pub struct Work(pub PathBuf);

impl Work {
    pub fn new(name: &str) -> Work {
        let folder = std::env::temp_dir().join(format!("delegraph-hexagon-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Work(folder)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs one test in a process of its own.
pub fn child(test: &str, work: &Path) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, work)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{test}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// In a child: where the library is, and where it works.
pub fn given() -> Option<(PathBuf, PathBuf)> {
    let work = std::env::var_os(CHILD)?;
    Some((folder()?, work.into()))
}
