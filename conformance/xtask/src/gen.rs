//! `gen abi`: the C header, the Rust mirror and the golden layouts, from `delegate-sdk/abi/abi.toml`.

mod c;
mod golden;
mod layout;
mod model;
mod rust;

use anyhow::{Context, Result};
use model::Description;
use std::path::Path;

const DESCRIPTION: &str = "delegate-sdk/abi/abi.toml";

/// Writes every generated file under `root`.
pub fn run(root: &Path) -> Result<()> {
    for (path, text) in files(root)? {
        let path = root.join(path);
        if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

/// Every generated file: path from the root, and text.
fn files(root: &Path) -> Result<Vec<(String, String)>> {
    let path = root.join(DESCRIPTION);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let description = Description::parse(&text).with_context(|| format!("in {DESCRIPTION}"))?;
    Ok(vec![
        ("delegate-sdk/include/delegraph.h".to_string(), c::header(&description)?),
        (
            "delegate-sdk/abi/src/generated.rs".to_string(),
            rust::mirror(&description)?,
        ),
        (
            format!("delegate-sdk/abi/golden/v{}.json", description.major),
            golden::layouts(&description)?,
        ),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_files_are_what_the_description_gives() {
        let root = crate::root();
        for (path, text) in files(&root).unwrap() {
            let committed = std::fs::read_to_string(root.join(&path)).unwrap_or_default();
            assert!(committed == text, "`{path}` is stale: run `cargo xtask gen abi`");
        }
    }
}
