//! Compiling C against the library, and fixtures as raw files.
#![allow(dead_code)]

use delegraph_runner::Leaf;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn fixture(name: &str) -> PathBuf {
    root().join("conformance/fixtures").join(name)
}

/// A library that cargo built beside this test, or one folder up.
pub fn built(stem: &str) -> Option<PathBuf> {
    let file = format!("{}{stem}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let executable = std::env::current_exe().ok()?;
    let folders = executable.ancestors().skip(1).take(2);
    // The newest: cargo leaves old ones behind.
    let found = folders.map(|folder| folder.join(&file)).filter(|path| path.is_file());
    found.max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok())
}

/// Compiles a C file against the dynamic library; `None` where there is no compiler, which is printed.
pub fn compile(source: &Path, include: &Path, out: &Path) -> Option<PathBuf> {
    let library = built("delegraph_capi").expect("cargo builds the library of the crate that it tests");
    let folder = library.parent().expect("a folder");
    let rpath = format!("-Wl,-rpath,{}", folder.display());
    link(source, include, out, &library, &[&rpath, "-lm"])
}

/// As [`compile`], against a library and with what it needs.
pub fn link(source: &Path, include: &Path, out: &Path, library: &Path, more: &[&str]) -> Option<PathBuf> {
    let run = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(include)
        .arg(source)
        .arg(library)
        .args(more)
        .arg("-o")
        .arg(out)
        .output();
    let Ok(run) = run else {
        println!("skipped: {}: no `cc`", source.display());
        return None;
    };
    assert!(run.status.success(), "{}: {}", source.display(), text(&run));
    Some(out.to_path_buf())
}

pub fn text(output: &Output) -> String {
    format!(
        "{:?}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Bytes of a leaf as `run.c` reads them.
pub fn raw(leaf: &Leaf) -> Vec<u8> {
    match leaf {
        Leaf::Tensor { bytes, .. } => bytes.clone(),
        Leaf::Int(value) => value.to_le_bytes().to_vec(),
        Leaf::Bool(value) => i64::from(*value).to_le_bytes().to_vec(),
        Leaf::Float(value) => value.to_le_bytes().to_vec(),
        Leaf::Str(text) => text.as_bytes().to_vec(),
        Leaf::None => Vec::new(),
    }
}

/// Writes leaves as raw files into a folder.
pub fn write(folder: &Path, stem: &str, leaves: &[Leaf]) -> Vec<PathBuf> {
    let write = |(i, leaf)| {
        let path = folder.join(format!("{stem}.{i}.raw"));
        std::fs::write(&path, raw(leaf)).expect("a temporary file");
        path
    };
    leaves.iter().enumerate().map(write).collect()
}

/// Puts the reference delegate into a folder with a configuration that names it; `None` where it is not built.
pub fn with_reference(folder: &Path) -> Option<PathBuf> {
    let library = built("reference_delegate")?;
    let name = library.file_name()?.to_owned();
    std::fs::copy(&library, folder.join(name)).expect("a temporary file");
    let manifest = "reference.delegate.toml";
    std::fs::copy(root().join("delegates/reference").join(manifest), folder.join(manifest)).expect("the manifest");
    let config = folder.join("backends.toml");
    let text = "[select]\norder = [\"reference\"]\nfallback = \"deny\"\n[delegates]\nsearch = [\".\"]\n";
    std::fs::write(&config, text).expect("a temporary file");
    Some(config)
}
