//! Tells the program which commit it is built from, for the reports of `conform`: `DELEGRAPH_COMMIT`, or what git's files say. Git itself is
//! not needed, and where there is none the commit is `unknown`.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=DELEGRAPH_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let told = std::env::var("DELEGRAPH_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty());
    let root = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let root = root.and_then(|folder| folder.ancestors().nth(2).map(Path::to_path_buf));
    if let Some(commit) = told.or_else(|| head(&root?)) {
        println!("cargo::rustc-env=DELEGRAPH_COMMIT={commit}");
    }
}

/// The commit that is checked out.
fn head(root: &Path) -> Option<String> {
    let git = root.join(".git");
    // In a work tree `.git` is a file that names the folder, and branches are in the common folder.
    let folder = match std::fs::read_to_string(&git) {
        Ok(text) => root.join(text.trim().strip_prefix("gitdir: ")?),
        Err(_) => git,
    };
    let common = match std::fs::read_to_string(folder.join("commondir")) {
        Ok(text) => folder.join(text.trim()),
        Err(_) => folder.clone(),
    };
    let head = read(&folder.join("HEAD"))?;
    let Some(name) = head.strip_prefix("ref: ") else {
        return commit(&head);
    };
    if let Some(text) = read(&common.join(name)) {
        return commit(&text);
    }
    let packed = read(&common.join("packed-refs"))?;
    let line = packed.lines().find(|line| line.ends_with(&format!(" {name}")))?;
    commit(line.split(' ').next()?)
}

/// A file of git's, read again when it changes.
fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    println!("cargo::rerun-if-changed={}", path.display());
    Some(text.trim().to_string())
}

fn commit(text: &str) -> Option<String> {
    let hexadecimal = text.chars().all(|c| c.is_ascii_hexdigit());
    (hexadecimal && (40..=64).contains(&text.len())).then(|| text.to_string())
}
