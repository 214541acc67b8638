//! Where the standard layers are.

use crate::error::ConfigError;
use crate::layer::{Layers, Origin};
use std::path::{Path, PathBuf};

/// Name of the file in every place.
const FILE: &str = "backends.toml";

/// The layers of this machine, user and project: system, user, the working folder's `backends.toml`, then `given` (the
/// `--config` flag) or `DELEGRAPH_CONFIG`. Files that are not there are skipped, except one that was named.
///
/// # Errors
/// As [`Layers::add_file`].
pub fn standard_layers(given: Option<&Path>) -> Result<Layers, ConfigError> {
    let mut layers = Layers::default();
    let system = PathBuf::from("/etc/delegraph").join(FILE);
    if system.is_file() {
        layers.add_file(Origin::System(system.clone()), &system)?;
    }
    let user = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config")))
        .map(|folder| folder.join("delegraph").join(FILE));
    if let Some(user) = user.filter(|path| path.is_file()) {
        layers.add_file(Origin::User(user.clone()), &user)?;
    }
    let project = Path::new(FILE);
    // With more rights than its user has, a process takes nothing from the folder that it was started in.
    if given.is_none() && !is_elevated() && project.is_file() {
        layers.add_file(Origin::Project(project.to_path_buf()), project)?;
    }
    if let Some(path) = variable("DELEGRAPH_CONFIG") {
        let origin = Origin::Environment(format!("DELEGRAPH_CONFIG={path}"));
        layers.add_file(origin, Path::new(&path))?;
    }
    if let Some(path) = given {
        layers.add_file(Origin::Project(path.to_path_buf()), path)?;
    }
    if variable("DELEGRAPH_STRICT").is_some_and(|value| value == "1") {
        let origin = Origin::Environment("DELEGRAPH_STRICT".to_string());
        layers.add_text(origin, "[select]\nfallback = \"deny\"\n", None)?;
    }
    Ok(layers)
}

/// An environment variable, unless the process runs with more rights than its user has.
fn variable(name: &str) -> Option<String> {
    if is_elevated() {
        return None;
    }
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// True for a set-uid or set-gid process: the environment is not to be trusted then (the Vulkan loader's rule).
pub fn is_elevated() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return false;
    };
    status
        .lines()
        .filter(|line| line.starts_with("Uid:") || line.starts_with("Gid:"))
        .any(|line| {
            let ids: Vec<&str> = line.split_whitespace().skip(1).collect();
            ids.len() >= 2 && ids[0] != ids[1]
        })
}
