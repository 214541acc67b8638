//! What is tested: a library, and its manifest where it has one.

use delegraph_host::Manifest;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A library under test.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The library's file.
    pub library: PathBuf,
    /// The manifest's file, and what it says.
    pub manifest: Option<(PathBuf, Manifest)>,
    /// The device that was chosen, by its number within the delegate.
    pub device: Option<u32>,
    /// Options of the delegate, as the configuration would give them.
    pub options: serde_json::Map<String, serde_json::Value>,
    /// Runs [`crate::digests_of`] over the same subject in another process; `None`: the user of this crate has no such program.
    pub elsewhere: Option<Elsewhere>,
    /// Cases of numbers run it where its manifest says, in its sandbox if that is a worker; else in the process of the case, as all others do.
    pub isolated: bool,
}

/// See [`Subject::elsewhere`].
pub type Elsewhere = fn(&Subject) -> Result<String, String>;

/// A subject as a child process is told of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubjectRequest {
    /// Library or manifest, absolute.
    pub file: PathBuf,
    /// See [`Subject::device`].
    pub device: Option<u32>,
    /// See [`Subject::options`].
    #[serde(default)]
    pub options: serde_json::Map<String, serde_json::Value>,
    /// See [`Subject::isolated`].
    #[serde(default)]
    pub isolated: bool,
}

impl Subject {
    /// A library by itself or with the manifest that lies beside it, or the library that a manifest names for this machine.
    ///
    /// # Errors
    /// One sentence: the manifest is malformed, or the library is not there.
    pub fn open(request: &SubjectRequest) -> Result<Subject, String> {
        let file = &request.file;
        let (library, manifest) = match file.to_string_lossy().ends_with(".toml") {
            true => {
                let manifest = Manifest::read(file).map_err(|problem| format!("`{}`: {problem}", file.display()))?;
                (library_of(file, &manifest)?, Some((file.clone(), manifest)))
            }
            false => (file.clone(), manifest_beside(file)?),
        };
        if !library.is_file() {
            return Err(format!("there is no library `{}`", library.display()));
        }
        Ok(Subject {
            library,
            manifest,
            device: request.device,
            options: request.options.clone(),
            elsewhere: None,
            isolated: request.isolated,
        })
    }

    /// What [`Subject::open`] makes the same subject of.
    pub fn request(&self) -> SubjectRequest {
        SubjectRequest {
            file: self.manifest.as_ref().map_or(&self.library, |(path, _)| path).clone(),
            device: self.device,
            options: self.options.clone(),
            isolated: self.isolated,
        }
    }

    /// Backend id, as the manifest has it; without a manifest, the file's name.
    pub fn name(&self) -> &str {
        match &self.manifest {
            Some((_, manifest)) => &manifest.name,
            None => self.library.file_stem().and_then(|stem| stem.to_str()).unwrap_or("?"),
        }
    }

    /// Version, as the manifest has it; without a manifest, empty.
    pub fn version(&self) -> &str {
        self.manifest.as_ref().map_or("", |(_, manifest)| &manifest.version)
    }
}

/// The library that a manifest names for this machine: beside the manifest, or beside this executable.
fn library_of(path: &Path, manifest: &Manifest) -> Result<PathBuf, String> {
    let shown = path.display();
    let name = manifest
        .library
        .as_ref()
        .ok_or_else(|| format!("`{shown}` names no library for {}", delegraph_host::host_triple()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let beside = folder.join(name);
    let program = std::env::current_exe().ok();
    let with_program = program
        .as_deref()
        .and_then(Path::parent)
        .map(|folder| folder.join(name));
    let alone = name.components().count() == 1;
    match with_program.filter(|path| alone && !beside.is_file() && path.is_file()) {
        Some(path) => Ok(path),
        None => Ok(beside),
    }
}

/// The one manifest in the library's folder that names it.
fn manifest_beside(library: &Path) -> Result<Option<(PathBuf, Manifest)>, String> {
    let folder = library.parent().unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).map_err(|error| format!("cannot list `{}`: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if !path.to_string_lossy().ends_with(".delegate.toml") {
            continue;
        }
        // A manifest of another library may be as it likes.
        if let Ok(manifest) = Manifest::read(&path)
            && manifest.library.as_ref().map(|name| folder.join(name)).as_deref() == Some(library)
        {
            return Ok(Some((path, manifest)));
        }
    }
    Ok(None)
}
