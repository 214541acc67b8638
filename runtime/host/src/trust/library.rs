//! A library with the libraries that it brings along, all of them hashed, in the order to load them.

use super::file::SEALS;
use super::needed::{Needs, needs, search_folder};
use super::{CheckedFile, Digest};
use std::path::{Component, Path, PathBuf};

/// Most libraries that one delegate may bring along.
const MOST: usize = 100;

/// A library whose bytes are known, with its dependents: the libraries beside it that it needs, directly or through each
/// other. Libraries of the system are not among them.
#[derive(Debug)]
pub struct CheckedLibrary {
    file: CheckedFile,
    dependents: Vec<CheckedFile>,
    problems: Vec<String>,
}

impl CheckedLibrary {
    /// Opens a library, finds its dependents, and hashes all.
    ///
    /// A dependent is a name in `DT_NEEDED` of an ELF file that lies in a folder that its `DT_RUNPATH` or `DT_RPATH` names by
    /// `$ORIGIN`, or beside it. Files of other formats have none: what they need is not looked at.
    ///
    /// # Errors
    /// One sentence: a file cannot be read, or is a broken ELF file, or there are too many.
    pub fn open(path: &Path) -> Result<CheckedLibrary, String> {
        // The loader's own `$ORIGIN` is the folder of the file, not of a link to it.
        let path = super::absolute(path)?;
        let (file, bytes) = CheckedFile::open_with_bytes(&path)?;
        let needs = needs(&bytes).map_err(|e| format!("library `{}`: {e}", path.display()))?;
        let mut search = Search::default();
        search.follow(&path, &needs, &[])?;
        Ok(CheckedLibrary {
            file,
            dependents: search.found,
            problems: search.problems,
        })
    }

    /// The worker's side: descriptors that the host checked and handed over, in the order of [`CheckedLibrary::dependents`].
    pub fn received(file: CheckedFile, dependents: Vec<CheckedFile>) -> CheckedLibrary {
        CheckedLibrary {
            file,
            dependents,
            problems: Vec::new(),
        }
    }

    /// See [`super::Library::again`].
    #[cfg(target_os = "linux")]
    pub(crate) fn again(&self) -> Result<CheckedLibrary, String> {
        Ok(CheckedLibrary {
            file: self.file.again()?,
            dependents: self
                .dependents
                .iter()
                .map(CheckedFile::again)
                .collect::<Result<_, _>>()?,
            problems: self.problems.clone(),
        })
    }

    /// The library itself.
    pub fn file(&self) -> &CheckedFile {
        &self.file
    }

    /// What it brings along; each before whatever needs it.
    pub fn dependents(&self) -> &[CheckedFile] {
        &self.dependents
    }

    /// Why the loader could take other files than those that were hashed; empty: it cannot.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Hashes of all files: two libraries with the same are the same.
    pub(crate) fn identity(&self) -> Vec<Digest> {
        [&self.file]
            .into_iter()
            .chain(&self.dependents)
            .map(CheckedFile::sha256)
            .collect()
    }
}

/// A walk along `DT_NEEDED`.
#[derive(Default)]
struct Search {
    seen: Vec<String>,
    found: Vec<CheckedFile>,
    problems: Vec<String>,
}

impl Search {
    /// Adds what a library needs; `inherited` are the folders of the `DT_RPATH`s above it.
    fn follow(&mut self, library: &Path, needs: &Needs, inherited: &[PathBuf]) -> Result<(), String> {
        let origin = library.parent().unwrap_or(Path::new("/"));
        let mut folders = |entries: &[String]| -> Vec<PathBuf> {
            let mut folders = Vec::new();
            for entry in entries {
                match search_folder(entry, origin) {
                    Ok(folder) => folders.extend(folder),
                    Err(()) => self.problems.push(format!(
                        "`{}` has libraries searched in `{entry}` of the working folder: link it with a search path of `$ORIGIN`",
                        library.display()
                    )),
                }
            }
            folders
        };
        let runpath = folders(&needs.runpath);
        let mut rpath = folders(&needs.rpath);
        rpath.extend_from_slice(inherited);
        let mut search = if needs.runpath.is_empty() {
            rpath.clone()
        } else {
            runpath
        };
        search.push(origin.to_path_buf());
        for name in &needs.needed {
            self.need(library, name, &search, &rpath)?;
        }
        Ok(())
    }

    fn need(&mut self, by: &Path, name: &str, search: &[PathBuf], inherited: &[PathBuf]) -> Result<(), String> {
        if self.seen.iter().any(|seen| seen == name) {
            return Ok(());
        }
        if name.contains('/') {
            if !name.starts_with('/') {
                let by = by.display();
                let problem = format!("`{by}` needs `{name}`, which is looked for in the working folder");
                self.problems.push(problem);
            }
            return Ok(());
        }
        let there = |folder: &PathBuf| Some(plain(&folder.join(name))).filter(|path| path.is_file());
        let Some(path) = search.iter().find_map(there).filter(|path| !of_the_system(path)) else {
            return Ok(());
        };
        self.seen.push(name.to_string());
        if self.seen.len() > MOST {
            return Err(format!("`{}` needs more than {MOST} libraries beside it", by.display()));
        }
        let (file, bytes) = CheckedFile::open_with_bytes(&path)?;
        let own = needs(&bytes).map_err(|e| format!("library `{}`: {e}", path.display()))?;
        if SEALS && own.soname.as_deref() != Some(name) {
            // The loader finds a copy that is in memory already by this name, and by nothing else.
            self.problems.push(format!(
                "its dependent `{}` has not the SONAME `{name}`, so that the loader could take another file: link it with `-Wl,-soname,{name}`",
                path.display()
            ));
        }
        self.follow(&path, &own, inherited)?;
        self.found.push(file);
        Ok(())
    }
}

/// Without `.` and `..`, as far as that can be told from the text.
pub(crate) fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            Component::ParentDir if out.has_root() => {}
            other => out.push(other),
        }
    }
    out
}

/// A folder where the system's own libraries lie: they come and go with its updates, and are not pinned.
fn of_the_system(path: &Path) -> bool {
    let folder = path.parent().unwrap_or(Path::new("/"));
    ["/lib", "/lib64", "/usr/lib", "/usr/lib64"].iter().any(|system| {
        folder.strip_prefix(system).is_ok_and(|rest| {
            let rest = rest.to_string_lossy();
            rest.is_empty() || rest.ends_with("-linux-gnu") && !rest.contains('/')
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_plain() {
        for (from, to) in [
            ("/a/b/../c/./d", "/a/c/d"),
            ("/../a", "/a"),
            ("../a/../b", "../b"),
            ("a/..", ""),
            ("../../a", "../../a"),
        ] {
            assert_eq!(plain(Path::new(from)), Path::new(to), "{from}");
        }
    }

    #[test]
    fn libraries_of_the_system_are_told_from_a_vendors() {
        assert!(of_the_system(Path::new("/usr/lib/x86_64-linux-gnu/libc.so.6")));
        assert!(of_the_system(Path::new("/lib64/libm.so.6")));
        assert!(!of_the_system(Path::new("/usr/lib/vendor/libx.so")));
        assert!(!of_the_system(Path::new("/opt/vendor/lib/libx.so")));
    }
}
