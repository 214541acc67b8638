//! A delegate's library exports its entry and nothing else: what else it showed could be taken for the host's, or for another delegate's.

use object::Object;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::{Path, PathBuf};

const ENTRY: &str = "dg_delegate_entry_v1";

/// The names that a library exports.
fn exports(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| {
        let name = path.display();
        panic!("`{name}`: {e}: run `cargo xtask test`, or `cargo build` first")
    });
    let file = object::File::parse(&*bytes).unwrap();
    let underscore = file.format() == object::BinaryFormat::MachO;
    let mut names: Vec<String> = file
        .exports()
        .unwrap()
        .map(|export| {
            let name = export.unwrap().name().name().expect("an export has a name").to_vec();
            String::from_utf8(name).unwrap()
        })
        .map(|name| match name.strip_prefix('_') {
            Some(rest) if underscore => rest.to_string(),
            _ => name,
        })
        .collect();
    names.sort();
    names
}

/// Folder where cargo puts the libraries of this build.
fn built() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().to_path_buf()
}

#[test]
fn plugins_export_their_entry_alone() {
    let delegates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../delegates");
    let mut seen = Vec::new();
    for delegate in std::fs::read_dir(delegates).unwrap() {
        let manifest = delegate.unwrap().path().join("plugin/Cargo.toml");
        let Ok(text) = std::fs::read_to_string(&manifest) else {
            continue;
        };
        let manifest: toml::Table = text.parse().unwrap();
        let name = manifest["lib"]["name"].as_str().unwrap();
        let library = built().join(format!("{DLL_PREFIX}{name}{DLL_SUFFIX}"));
        assert_eq!(exports(&library), [ENTRY], "exports of `{name}`");
        seen.push(name.to_string());
    }
    for name in [
        "null_delegate",
        "reference_delegate",
        "vulkan_delegate",
        "ethos_u_delegate",
        "hexagon_delegate",
    ] {
        assert!(seen.iter().any(|n| n == name), "`{name}` is not among {seen:?}");
    }
}

/// The list is not just what the test wants to find: the SDK's names are in the library, and are not exported.
#[test]
fn symbols_that_are_not_exported_are_there() {
    let library = built().join(format!("{DLL_PREFIX}null_delegate{DLL_SUFFIX}"));
    let bytes = std::fs::read(&library).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    if !file.has_debug_symbols() && file.symbols().next().is_none() {
        println!("skipped: the library has no symbols but the exported ones");
        return;
    }
    use object::ObjectSymbol;
    let count = file
        .symbols()
        .filter(|s| s.is_definition() && s.name() != Ok(ENTRY))
        .count();
    assert!(count > 1, "{count}");
}
