//! The component `executorch`: PyTorch and stock ExecuTorch, the referees of what we read and write, in a Python environment.
//!
//! PyTorch's package for Linux is the one for CUDA. Its libraries are linked with CUDA's, so most of these have to be there; what is only opened when
//! a GPU is used is left out, which is 2.3 of 5.9 GB.

use super::run_program;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is asked for.
const PACKAGES: [&str; 3] = ["torch==2.15.0", "executorch==1.5.1", "safetensors"];

/// Of what these depend on: packages that nothing on a CPU loads.
const LEFT_OUT: [&str; 8] = [
    "cuda-bindings",
    "cuda-pathfinder",
    "cuda-toolkit",
    "nvidia-cuda-cccl",
    "nvidia-cusolver",
    "nvidia-nvjitlink",
    "nvidia-nvtx",
    "triton",
];
/// Of the packages of the folder `nvidia`: beginnings of the names of files that are only opened when a GPU is used.
const REMOVED: [&str; 3] = ["libcudnn_", "libnvperf_", "libnvshmem_device"];

/// A Python that has ExecuTorch: `DELEGRAPH_PYTHON`, or the provisioned one.
pub fn python(root: &Path) -> Option<PathBuf> {
    let given = std::env::var_os("DELEGRAPH_PYTHON").map(PathBuf::from);
    given
        .or_else(|| Some(environment(root).join("bin/python")))
        .filter(|python| {
            Command::new(python)
                .args(["-c", "import executorch.runtime, safetensors"])
                .output()
                .is_ok_and(|output| output.status.success())
        })
}

fn environment(root: &Path) -> PathBuf {
    root.join("target/provision/executorch")
}

/// Fetches the component.
///
/// # Errors
/// It cannot be installed, or not be used.
pub fn provision(root: &Path) -> Result<()> {
    if python(root).is_some() {
        println!("executorch is here already");
        return Ok(());
    }
    let folder = environment(root);
    run_program(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let pip = || {
        let mut command = Command::new(folder.join("bin/pip"));
        command.args(["install", "--quiet", "--no-cache-dir"]);
        command
    };
    // Resolved first, so that what is left out is not even downloaded.
    let report = folder.join("report.json");
    run_program(pip().args(["--dry-run", "--report"]).arg(&report).args(PACKAGES))?;
    let wanted = wanted(&std::fs::read_to_string(&report)?)?;
    run_program(pip().arg("--no-deps").args(wanted))?;
    for package in ["cudnn", "cu13", "nvshmem"] {
        for libraries in libraries(&folder, package) {
            remove_unused(&libraries)?;
        }
    }
    python(root).context("what was installed as `executorch` cannot be imported")?;
    println!("executorch is in {}", folder.display());
    Ok(())
}

/// `NAME==VERSION` of each package of pip's report that is not left out.
fn wanted(report: &str) -> Result<Vec<String>> {
    let report: serde_json::Value = serde_json::from_str(report).context("pip's report cannot be read")?;
    let packages = report["install"]
        .as_array()
        .context("pip's report has no list of packages")?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_string);
    let named = |package: &serde_json::Value| {
        let metadata = &package["metadata"];
        Some((text(&metadata["name"])?, text(&metadata["version"])?))
    };
    let named: Vec<(String, String)> = packages.iter().filter_map(named).collect();
    Ok(named
        .iter()
        .filter(|(name, _)| !LEFT_OUT.contains(&name.replace('_', "-").to_lowercase().as_str()))
        .map(|(name, version)| format!("{name}=={version}"))
        .collect())
}

/// The folders of libraries of a package of NVIDIA's; none on systems where torch needs none.
fn libraries(environment: &Path, package: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(environment.join("lib"))
        .into_iter()
        .flatten()
        .flatten();
    entries
        .map(|entry| entry.path().join("site-packages/nvidia").join(package).join("lib"))
        .filter(|folder| folder.is_dir())
        .collect()
}

fn remove_unused(libraries: &Path) -> Result<()> {
    for entry in std::fs::read_dir(libraries)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if REMOVED.iter().any(|start| name.starts_with(start)) || name.ends_with(".a") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_gpu_needs_is_left_out() {
        let report = r#"{"install": [{"metadata": {"name": "torch", "version": "2.15.0"}}, {"metadata": {"name": "triton", "version": "3.9.0"}},
            {"metadata": {"name": "nvidia_cusolver", "version": "12"}}, {"metadata": {"name": "nvidia-cublas", "version": "13.4"}}]}"#;
        assert_eq!(wanted(report).unwrap(), ["torch==2.15.0", "nvidia-cublas==13.4"]);
        assert!(wanted("{}").is_err());
        assert!(wanted("pip says").is_err());
    }
}
