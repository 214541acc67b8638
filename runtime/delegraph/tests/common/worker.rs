//! The fault delegate in a worker process.

use delegraph_config::Config;
use delegraph_host::Host;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where cargo puts programs and libraries: above the folder of the tests.
pub fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().to_path_buf()
}

/// True, and says so, if what these tests need is not there.
pub fn skipped() -> bool {
    lacks(&["delegraph-worker", "libfault_delegate.so"])
}

/// True, and says so, if one of these is not built.
pub fn lacks(needed: &[&str]) -> bool {
    let missing = needed.iter().find(|name| !built().join(name).is_file());
    if let Some(missing) = missing {
        println!("skipped: `{missing}` is not built; `cargo xtask test` builds it");
    }
    missing.is_some()
}

/// A configuration that gives everything to the fault delegate.
pub fn config(settings: &str, options: &str) -> Config {
    super::config(&text(settings, options))
}

/// The text of [`config`].
pub fn text(settings: &str, options: &str) -> String {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/fault/fault.delegate.toml");
    format!(
        "schema = 1\n[select]\norder = ['fault']\n[delegates]\nworker = '{}'\n[backend.fault]\nlibrary = '{}'\n{settings}\n\
         options = {{ {options} }}\n",
        built().join("delegraph-worker").display(),
        manifest.display(),
    )
}

pub fn host(config: &Config) -> Arc<Host> {
    Arc::new(delegraph::discover(config, false))
}
