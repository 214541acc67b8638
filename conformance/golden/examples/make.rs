//! `cargo run -p delegraph-golden --example make -- v0.2`: writes the folder of a release. `cargo xtask gen golden` calls it.

#[path = "../tests/common/mod.rs"]
mod common;

use anyhow::{Result, bail, ensure};
use std::path::Path;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [version] = arguments.as_slice() else {
        bail!("usage: make VERSION, for example v0.2");
    };
    let digits = version.strip_prefix('v').and_then(|rest| rest.split_once('.'));
    ensure!(
        digits.is_some_and(|(major, minor)| major.parse::<u16>().is_ok() && minor.parse::<u16>().is_ok()),
        "`{version}` is no release\n  hint: write it as v0.2"
    );
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = delegraph_golden::folder().join(version);
    delegraph_golden::make::release(&root, &folder, &common::host())?;
    println!("wrote {}", folder.display());
    Ok(())
}
