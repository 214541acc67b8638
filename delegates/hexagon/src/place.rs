//! Where Qualcomm's libraries are: the option `library`, DELEGRAPH_QNN_DIR, beside the plugin, or the system's own folders, in this order.
//! Who names a folder means it: where that one has no library, nobody looks further.

use crate::sys;
use delegraph_sdk::{Error, Status, environment};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The backend for Hexagon.
pub const BACKEND: &str = "libQnnHtp.so";
/// The variable that names a folder.
pub const VARIABLE: &str = "DELEGRAPH_QNN_DIR";

/// The package of the wheel, in the folder that it was unpacked to.
const PACKAGE: &str = "onnxruntime_qnn";

/// Folders of the system that a vendor or a person may have put it into.
const SYSTEM: &[&str] = match cfg!(target_os = "android") {
    true => &["/vendor/lib64", "/odm/lib64", "/system/lib64"],
    false => &[
        "/usr/local/lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib",
    ],
};

/// The folder of the libraries.
///
/// # Errors
/// `DEPENDENCY_MISSING`: the folder that was named has none, or none was found.
pub fn folder(option: Option<&Path>) -> Result<PathBuf, Error> {
    look(
        option,
        environment::variable(VARIABLE),
        plugin_folder().as_deref(),
        SYSTEM,
    )
}

fn look(
    option: Option<&Path>,
    variable: Option<OsString>,
    plugin: Option<&Path>,
    system: &[&str],
) -> Result<PathBuf, Error> {
    let variable = variable.filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = match (option, &variable) {
        (Some(folder), _) => Some((folder, "the option `library`")),
        (None, Some(folder)) => Some((folder.as_path(), VARIABLE)),
        (None, None) => None,
    };
    if let Some((folder, by)) = named {
        return inside(folder).map_err(|mut error| {
            error.message = format!("{}, which {by} names", error.message);
            error
        });
    }
    let places = plugin.into_iter().chain(system.iter().map(Path::new));
    places
        .into_iter()
        .find_map(|folder| inside(folder).ok())
        .ok_or_else(|| {
            Error::new(
                Status::DEPENDENCY_MISSING,
                format!("Qualcomm's `{BACKEND}` is not here"),
            )
            .hint(format!(
                "name its folder by {VARIABLE} or the option `library`; vendor-docs/hexagon.md says how to get it"
            ))
        })
}

/// The folder itself, or the wheel's package in it.
fn inside(folder: &Path) -> Result<PathBuf, Error> {
    let own = sys::find(folder, BACKEND).map(|_| folder.to_path_buf());
    let package = folder.join(PACKAGE);
    match (own, sys::find(&package, BACKEND)) {
        (Ok(folder), _) => Ok(folder),
        (_, Ok(_)) => Ok(package),
        (error, _) => error,
    }
}

/// The folder of the file that this code was loaded from; `None` where the system does not say, or it was loaded from memory.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn plugin_folder() -> Option<PathBuf> {
    let here = plugin_folder as fn() -> Option<PathBuf> as usize as u64;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let file = maps.lines().find_map(|line| {
        // `start-end permissions offset device inode path`, the path behind any number of blanks.
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let inside = u64::from_str_radix(start, 16).ok()? <= here && here < u64::from_str_radix(end, 16).ok()?;
        let path = words.nth(4)?.trim_start();
        (inside && path.starts_with('/')).then(|| PathBuf::from(path))
    })?;
    Some(file.parent()?.to_path_buf())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn plugin_folder() -> Option<PathBuf> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, inner: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("delegraph-hexagon-place-{name}-{}", std::process::id()));
        std::fs::create_dir_all(folder.join(inner)).unwrap();
        std::fs::write(folder.join(inner).join(BACKEND), b"").unwrap();
        folder
    }

    #[test]
    fn the_option_goes_before_the_variable_and_that_before_the_plugin() {
        let (a, b, c) = (made("a", ""), made("b", PACKAGE), made("c", ""));
        let variable = || Some(OsString::from(&b));
        assert_eq!(look(Some(&a), variable(), Some(&c), &[]).unwrap(), a);
        assert_eq!(look(None, variable(), Some(&c), &[]).unwrap(), b.join(PACKAGE));
        assert_eq!(look(None, Some(OsString::new()), Some(&c), &[]).unwrap(), c);
        let system = c.to_str().unwrap();
        assert_eq!(look(None, None, None, &["/nowhere", system]).unwrap(), c);
        for folder in [a, b, c] {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }

    #[test]
    fn a_folder_that_was_named_is_the_only_one() {
        let c = made("only", "");
        let error = look(Some(Path::new("/nowhere")), None, Some(&c), &[]).unwrap_err();
        assert_eq!(error.code, Status::DEPENDENCY_MISSING);
        assert!(
            error.message.contains("/nowhere") && error.message.contains("`library`"),
            "{error}"
        );
        let error = look(None, Some("/nowhere".into()), Some(&c), &[]).unwrap_err();
        assert!(error.message.contains(VARIABLE), "{error}");
        let error = look(None, None, None, &[]).unwrap_err();
        assert!(error.hint.contains(VARIABLE), "{error}");
        std::fs::remove_dir_all(c).unwrap();
    }

    #[test]
    fn this_program_is_in_a_folder() {
        let own = std::env::current_exe().unwrap();
        if cfg!(target_os = "linux") {
            assert_eq!(plugin_folder().as_deref(), own.parent());
        }
    }
}
