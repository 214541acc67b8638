//! No code reads a variable of ours past [`delegraph_config::Environment`], which an elevated process finds empty.

use std::path::{Path, PathBuf};

/// Rust files under a folder, without what cargo builds and what only tests are made of.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        // A build script runs where the library is built, and in no app.
        let skipped = ["target", "tests", "examples", "benches", "fuzz", "build.rs"];
        let is_skipped = skipped.iter().any(|s| name == *s);
        if is_skipped {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_variable_of_ours_goes_through_the_type_that_knows_elevated_processes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for folder in ["runtime", "partitioner", "delegates", "delegate-sdk"] {
        sources(&root.join(folder), &mut files);
    }
    let own = Path::new("config").join("src").join("place.rs");
    assert!(files.iter().any(|file| file.ends_with(&own)), "the tree is not found");
    // A delegate knows the SDK alone, which has the same check of its own.
    let delegate = Path::new("sdk").join("src").join("sys").join("environment.rs");
    let mut through = 0;
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        for (i, line) in text.lines().enumerate() {
            let place = format!("{}:{}", file.display(), i + 1);
            let ours = line.contains("\"DELEGRAPH_");
            let reads = line.contains("env::var") || line.contains("var_os(");
            assert!(!(ours && reads), "{place}: read it by `Environment`: {line}");
            through += usize::from(ours && (line.contains(".get(") || line.contains(".get_os(")));
            // A helper that takes the name could hide it: nobody but these reads variables at all.
            let allowed = file.ends_with(&own)
                || file.ends_with(&delegate)
                || line.contains("\"NO_COLOR\"")
                || line.contains("\"CARGO\"")
                // Whether a program that did not start is there at all, for the words of an error: nothing is started by it.
                || (line.contains("\"PATH\"") && file.ends_with("ethos-u/src/vela.rs"));
            assert!(
                !reads || allowed,
                "{place}: reads a variable; allow it here if it is not ours and an elevated process may heed it: {line}"
            );
        }
    }
    assert!(through >= 7, "only {through} variables are read where there are more");
}
