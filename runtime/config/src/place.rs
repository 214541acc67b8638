//! Where the standard layers are, and what the environment may say.

use crate::error::ConfigError;
use crate::layer::{Layers, Origin};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Name of the file in every place.
const FILE: &str = "backends.toml";

/// The environment as far as it counts: that of a process which runs with more rights than its user has is empty, for the user
/// could let it load or read what the user alone could not (the Vulkan loader's rule).
///
/// Every variable that begins with `DELEGRAPH_` is read through this type and nowhere else.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    elevated: bool,
    lookup: &'a dyn Fn(&str) -> Option<OsString>,
}

impl Environment<'static> {
    /// Of this process.
    pub fn of_process() -> Environment<'static> {
        Environment {
            elevated: is_elevated(),
            lookup: &|name| std::env::var_os(name),
        }
    }
}

impl<'a> Environment<'a> {
    /// One made up, for tests.
    pub fn made_up(elevated: bool, lookup: &'a dyn Fn(&str) -> Option<OsString>) -> Environment<'a> {
        Environment { elevated, lookup }
    }

    /// Whether the process runs with more rights than its user has.
    pub fn is_elevated(&self) -> bool {
        self.elevated
    }

    /// A variable that is set and not empty; never any in an elevated process.
    pub fn get_os(&self, name: &str) -> Option<OsString> {
        if self.elevated {
            return None;
        }
        (self.lookup)(name).filter(|value| !value.is_empty())
    }

    /// [`Environment::get_os`] of one that is UTF-8.
    pub fn get(&self, name: &str) -> Option<String> {
        self.get_os(name)?.into_string().ok()
    }
}

/// The layers of this machine, user and project: system, user, the working folder's `backends.toml`, then `given` (the
/// `--config` flag) or `DELEGRAPH_CONFIG`. Files that are not there are skipped, except one that was named.
///
/// # Errors
/// As [`Layers::add_file`].
pub fn standard_layers(given: Option<&Path>) -> Result<Layers, ConfigError> {
    standard_layers_in(given, &Environment::of_process())
}

/// [`standard_layers`] with another environment.
///
/// # Errors
/// As there.
pub fn standard_layers_in(given: Option<&Path>, environment: &Environment<'_>) -> Result<Layers, ConfigError> {
    let mut layers = Layers::default();
    let system = PathBuf::from("/etc/delegraph").join(FILE);
    if system.is_file() {
        layers.add_file(Origin::System(system.clone()), &system)?;
    }
    let user = environment
        .get("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| environment.get("HOME").map(|home| Path::new(&home).join(".config")))
        .map(|folder| folder.join("delegraph").join(FILE));
    if let Some(user) = user.filter(|path| path.is_file()) {
        layers.add_file(Origin::User(user.clone()), &user)?;
    }
    let project = Path::new(FILE);
    // With more rights than its user has, a process takes nothing from the folder that it was started in.
    if given.is_none() && !environment.is_elevated() && project.is_file() {
        layers.add_file(Origin::Project(project.to_path_buf()), project)?;
    }
    if let Some(path) = environment.get("DELEGRAPH_CONFIG") {
        let origin = Origin::Environment(format!("DELEGRAPH_CONFIG={path}"));
        layers.add_file(origin, Path::new(&path))?;
    }
    if let Some(path) = given {
        layers.add_file(Origin::Project(path.to_path_buf()), path)?;
    }
    if environment.get("DELEGRAPH_STRICT").is_some_and(|value| value == "1") {
        let origin = Origin::Environment("DELEGRAPH_STRICT".to_string());
        layers.add_text(origin, "[select]\nfallback = \"deny\"\n", None)?;
    }
    Ok(layers)
}

/// True for a set-uid or set-gid process, and one that the system gave more rights in another way (on Linux, file capabilities).
/// Known on Unix; false elsewhere.
pub fn is_elevated() -> bool {
    #[cfg(unix)]
    {
        use rustix::process::{getegid, geteuid, getgid, getuid};
        getuid() != geteuid() || getgid() != getegid() || secure_execution()
    }
    #[cfg(not(unix))]
    false
}

/// The kernel's own word: `AT_SECURE` (23) of the auxiliary vector, pairs of words of the machine.
#[cfg(unix)]
fn secure_execution() -> bool {
    const WORD: usize = size_of::<usize>();
    let word = |bytes: &[u8]| <[u8; WORD]>::try_from(bytes).map_or(0, usize::from_ne_bytes);
    let auxiliary = std::fs::read("/proc/self/auxv").unwrap_or_default();
    auxiliary
        .chunks_exact(2 * WORD)
        .any(|pair| word(&pair[..WORD]) == 23 && word(&pair[WORD..]) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_elevated_process_has_no_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.toml");
        std::fs::write(&file, "[select]\nmin_nodes = 7\n").unwrap();
        std::fs::create_dir(folder.path().join("delegraph")).unwrap();
        std::fs::write(
            folder.path().join("delegraph").join(FILE),
            "[select]\nrequire_coverage = 0.5\n",
        )
        .unwrap();
        let lookup = |name: &str| match name {
            "DELEGRAPH_CONFIG" => Some(file.clone().into_os_string()),
            "DELEGRAPH_STRICT" => Some("1".into()),
            "XDG_CONFIG_HOME" => Some(folder.path().as_os_str().to_os_string()),
            _ => None,
        };
        for elevated in [false, true] {
            let environment = Environment::made_up(elevated, &lookup);
            let select = standard_layers_in(None, &environment)
                .unwrap()
                .resolve(None)
                .unwrap()
                .select;
            assert_eq!(select.min_nodes == 7, !elevated, "DELEGRAPH_CONFIG");
            assert_eq!(select.fallback == crate::Fallback::Deny, !elevated, "DELEGRAPH_STRICT");
            assert_eq!(select.require_coverage > 0.4, !elevated, "XDG_CONFIG_HOME");
            // What the command line names counts: whoever wrote the command is asked, not the environment.
            let given = standard_layers_in(Some(&file), &environment)
                .unwrap()
                .resolve(None)
                .unwrap();
            assert_eq!(given.select.min_nodes, 7);
        }
        let empty = |_: &str| Some(OsString::new());
        assert_eq!(Environment::made_up(false, &empty).get("DELEGRAPH_CONFIG"), None);
    }

    #[test]
    fn this_process_is_not_elevated() {
        assert!(!is_elevated());
    }
}
