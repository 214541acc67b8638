//! `shaders`: `spirv-val` on every shader that the Vulkan delegate holds. The delegate's example `dump_shaders` writes them, each into a folder that is
//! called as `spirv-val` calls the Vulkan that the shader is for, as `vulkan1.1`.

use super::{provision, test};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Validates them.
///
/// # Errors
/// `spirv-val` is not here, or refuses one.
pub fn run(root: &Path) -> Result<()> {
    let environment = provision::vulkan_environment(root);
    if environment.is_none() && !test::program("spirv-val") {
        bail!("`spirv-val` is not here\n  hint: run `cargo xtask provision vulkan`");
    }
    let environment = environment.unwrap_or_default();
    let folder = root.join("target/shaders");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let target = folder.display().to_string();
    test::cargo(
        root,
        &[
            "run",
            "--quiet",
            "--package",
            "delegraph-vulkan",
            "--example",
            "dump_shaders",
            "--",
            &target,
        ],
    )?;
    let mut shaders = Vec::new();
    for vulkan in files(&folder)? {
        shaders.extend(files(&vulkan)?);
    }
    if shaders.is_empty() {
        bail!("the example `dump_shaders` wrote nothing into {target}");
    }
    let mut refused = 0;
    for shader in &shaders {
        let vulkan = shader.parent().and_then(Path::file_name).unwrap_or_default();
        let output = Command::new("spirv-val")
            .arg("--target-env")
            .arg(vulkan)
            .arg(shader)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .output()
            .context("cannot start spirv-val")?;
        if !output.status.success() {
            refused += 1;
            print!("{}: {}", shader.display(), String::from_utf8_lossy(&output.stderr));
        }
    }
    if refused > 0 {
        bail!("spirv-val refuses {refused} of {} shaders", shaders.len());
    }
    println!("spirv-val accepts {} shaders", shaders.len());
    Ok(())
}

/// What is in a folder, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}
