//! Finds candidates: reads manifests, looks for libraries, runs nothing.

use crate::loader::known_versions;
use crate::trust::Digest;
use crate::{HostOptions, Manifest};
use delegraph_abi::newest_minor;
use delegraph_config::glob_match;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Ending of a manifest's name.
pub(crate) const MANIFEST: &str = ".delegate.toml";
/// Most manifests that one folder may hold.
const MOST: usize = 1000;

/// A delegate that could be used, or why not.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Backend id; taken from the file's name where there is no manifest that can be read.
    pub backend: String,
    /// The manifest; `None`: a library named outright, or a static table.
    pub manifest_path: Option<PathBuf>,
    /// The library as found on disk.
    pub library: Option<PathBuf>,
    /// What the manifest says.
    pub manifest: Option<Manifest>,
    /// Hash of the manifest's bytes that were parsed.
    pub manifest_sha256: Option<Digest>,
    /// Why it is not used; filled when it is discovered, or when its load failed.
    pub refusal: Option<String>,
}

/// Candidates in order of preference, and folders that could not be searched.
pub(crate) fn candidates(options: &HostOptions) -> (Vec<Candidate>, Vec<String>) {
    let mut found = Vec::new();
    let mut problems = Vec::new();
    for (backend, path) in &options.pinned {
        let mut candidate = named_outright(path);
        if candidate.backend != *backend && candidate.manifest.is_some() {
            candidate.refusal.get_or_insert_with(|| {
                format!(
                    "the manifest is of `{}`, but the configuration pins it as `{backend}`",
                    candidate.backend
                )
            });
        }
        candidate.backend.clone_from(backend);
        found.push(candidate);
    }
    found.extend(options.manifests.iter().map(|path| named_outright(path)));
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    for folder in &options.search {
        match manifests_in(folder) {
            Err(problem) => problems.push(problem),
            Ok(paths) => {
                // A folder that is named twice, or linked to, offers nothing new.
                let new = paths
                    .into_iter()
                    .filter(|p| seen.insert(p.canonicalize().unwrap_or_else(|_| p.clone())));
                found.extend(new.map(|path| of_manifest(&path)));
            }
        }
    }
    for candidate in found.iter_mut().skip(options.pinned.len()) {
        if options.pinned.iter().any(|(backend, _)| *backend == candidate.backend) {
            candidate.refusal = Some("the configuration pins another library of this backend".to_string());
        }
    }
    for candidate in &mut found {
        if let Some(reason) = not_wanted(&candidate.backend, options) {
            candidate.refusal = Some(reason);
        }
    }
    (found, problems)
}

/// A pin, a selection or a disabling that keeps a backend's candidate out.
pub(crate) fn not_wanted(backend: &str, options: &HostOptions) -> Option<String> {
    let any = |globs: &[String]| globs.iter().any(|glob| glob_match(glob, backend));
    if !options.select.is_empty() && !any(&options.select) {
        return Some(format!("not selected: only `{}` are", options.select.join("`, `")));
    }
    any(&options.disable).then(|| format!("disabled by `{}`", options.disable.join("`, `")))
}

/// Manifests of a folder in the order of their names.
fn manifests_in(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error: std::io::Error| format!("the folder `{}` cannot be searched: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(MANIFEST) {
            paths.push(path);
        }
        if paths.len() > MOST {
            return Err(format!(
                "the folder `{}` has more than {MOST} manifests",
                folder.display()
            ));
        }
    }
    paths.sort();
    Ok(paths)
}

/// A manifest or a library.
fn named_outright(path: &Path) -> Candidate {
    if path.extension().is_some_and(|extension| extension == "toml") {
        return of_manifest(path);
    }
    let there = path.is_file();
    Candidate {
        backend: backend_of_library(path),
        manifest_path: None,
        library: there.then(|| path.to_path_buf()),
        manifest: None,
        manifest_sha256: None,
        refusal: (!there).then(|| format!("there is no library `{}`", path.display())),
    }
}

fn of_manifest(path: &Path) -> Candidate {
    let mut candidate = Candidate {
        backend: backend_of_manifest(path),
        manifest_path: Some(path.to_path_buf()),
        library: None,
        manifest: None,
        manifest_sha256: None,
        refusal: None,
    };
    match Manifest::read_hashed(path) {
        Err(problem) => candidate.refusal = Some(problem),
        Ok((manifest, sha256)) => {
            candidate.manifest_sha256 = Some(sha256);
            candidate.backend.clone_from(&manifest.name);
            match library_of(&manifest, path) {
                Ok(library) => candidate.library = Some(library),
                Err(problem) => candidate.refusal = Some(problem),
            }
            let (major, least, ours) = (manifest.abi_major, manifest.abi_min_minor, known_versions());
            match newest_minor(major) {
                None => {
                    candidate.refusal = Some(format!(
                        "it is made for major version {major} of the ABI; this host has {ours}"
                    ));
                }
                Some(newest) if least > newest => {
                    candidate.refusal = Some(format!(
                        "it needs version {major}.{least} of the ABI; this host has {ours}"
                    ));
                }
                Some(_) => {}
            }
            candidate.manifest = Some(manifest);
        }
    }
    candidate
}

/// Relative to the manifest; a name without a folder also beside the executable.
fn library_of(manifest: &Manifest, path: &Path) -> Result<PathBuf, String> {
    let Some(library) = &manifest.library else {
        let triples: Vec<&str> = manifest.libraries.keys().map(String::as_str).collect();
        return Err(format!(
            "it has no library for this machine (`{}`), only for `{}`",
            crate::manifest::host_triple(),
            triples.join("`, `")
        ));
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    let beside = folder.join(library);
    if beside.is_file() {
        return Ok(beside);
    }
    let bare = library.parent().is_none_or(|parent| parent.as_os_str().is_empty());
    let executable = std::env::current_exe().ok().filter(|_| bare);
    let by_executable = executable
        .as_deref()
        .and_then(Path::parent)
        .map(|folder| folder.join(library));
    match by_executable {
        Some(found) if found.is_file() => Ok(found),
        Some(_) => Err(format!(
            "its library `{}` is neither beside its manifest nor beside the executable",
            library.display()
        )),
        None => Err(format!(
            "its library `{}` does not exist beside its manifest",
            library.display()
        )),
    }
}

/// `vulkan.delegate.toml` -> `vulkan`
fn backend_of_manifest(path: &Path) -> String {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    name.strip_suffix(MANIFEST)
        .or_else(|| name.strip_suffix(".toml"))
        .unwrap_or(&name)
        .to_string()
}

/// `libethos_u_delegate.so` -> `ethos-u`
fn backend_of_library(path: &Path) -> String {
    let stem = path
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let stem = stem.strip_prefix("lib").unwrap_or(&stem);
    stem.strip_suffix("_delegate").unwrap_or(stem).replace('_', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_from_file_names_where_nothing_better_is_known() {
        assert_eq!(backend_of_library(Path::new("/x/libethos_u_delegate.so")), "ethos-u");
        assert_eq!(backend_of_library(Path::new("other.dll")), "other");
        assert_eq!(backend_of_manifest(Path::new("a/vulkan.delegate.toml")), "vulkan");
    }
}
