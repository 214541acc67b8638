//! `cargo xtask dist`: the conformance kit of a target as one archive that needs nothing on the device: no Rust, no Python, no nextest.
//!
//! The references and lists are in the command itself, so that the archive is two programs, what they are licensed under, the lists for
//! people to read, the scripts that carry the kit to a device, and hashes of all of it. The same inputs give the same bytes.

pub mod archive;
mod licences;
mod linker;

use anyhow::{Context, Result, bail};
use archive::Entry;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs of a kit, with the packages that they are built from.
const PROGRAMS: [(&str, &str); 2] = [("delegraph", "delegraph-cli"), ("delegraph-worker", "delegraph-worker")];

/// What the archive's README is made of.
const README: &str = include_str!("../../runners/KIT.md");

/// What `cargo xtask dist` was asked for.
#[derive(Debug, Default)]
struct Wish {
    target: Option<String>,
    binaries: Option<PathBuf>,
    /// Cargo's profile, for a try; `release` if absent.
    profile: Option<String>,
}

/// Makes the archive of a target in `target/dist`.
///
/// # Errors
/// Wrong use, no linker for the target, or a build that fails.
pub fn run(root: &Path, arguments: &[&str]) -> Result<()> {
    let wish = parse(arguments)?;
    let host = host()?;
    let target = wish.target.unwrap_or_else(|| host.clone());
    let commit = commit(root);
    let folder = match wish.binaries {
        Some(folder) => folder,
        None => build(
            root,
            &target,
            &host,
            &commit,
            wish.profile.as_deref().unwrap_or("release"),
        )?,
    };
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("delegraph-conformance-{version}-{target}");
    let entries = entries(root, &folder, &target, version, &commit)?;
    let bytes = archive::tar_gz(&name, &entries)?;
    let dist = root.join("target/dist");
    std::fs::create_dir_all(&dist)?;
    let path = dist.join(format!("{name}.tar.gz"));
    let fresh = dist.join(format!("{name}.tar.gz.tmp"));
    std::fs::write(&fresh, &bytes).with_context(|| format!("writing `{}`", fresh.display()))?;
    std::fs::rename(&fresh, &path)?;
    println!("{}  {}", archive::sha256(&bytes), path.display());
    println!("{} files, {:.1} MB", entries.len(), archive::megabytes(bytes.len()));
    if target == host {
        try_it(&path, &name)
    } else {
        println!("built, never run: this machine is {host}");
        Ok(())
    }
}

fn parse(arguments: &[&str]) -> Result<Wish> {
    let mut wish = Wish::default();
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let value = rest.next().with_context(|| format!("`{word}` needs a value"))?;
        match *word {
            "--target" => wish.target = Some(value.to_string()),
            "--profile" => wish.profile = Some(value.to_string()),
            "--binaries" => wish.binaries = Some(PathBuf::from(value)),
            _ => bail!("dist has no flag `{word}`; it has --target TRIPLE, --profile NAME and --binaries FOLDER"),
        }
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match &wish.target {
        Some(target) if target.is_empty() || !target.chars().all(plain) => bail!("`{target}` is no target triple"),
        _ => Ok(wish),
    }
}

/// The triple of this machine, as rustc has it.
fn host() -> Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` names no host")?.to_string())
}

/// The commit, with `-dirty` where files differ from it; `unknown` outside of a repository.
fn commit(root: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(root).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    match (git(&["rev-parse", "HEAD"]), git(&["status", "--porcelain"])) {
        (Some(commit), Some(changes)) if changes.is_empty() => commit,
        (Some(commit), _) => commit + "-dirty",
        (None, _) => "unknown".to_string(),
    }
}

/// Builds the programs, and gives the folder that they are in.
fn build(root: &Path, target: &str, host: &str, commit: &str, profile: &str) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command
        .current_dir(root)
        .args(["build", "--locked", "--profile", profile]);
    for (_, package) in PROGRAMS {
        command.args(["-p", package]);
    }
    command.args(["--target", target]).env("DELEGRAPH_COMMIT", commit);
    let linker = linker::of(root, target, host)?;
    let mut flags = linker.flags;
    // Messages of panics name source files: by their place in the repository, not on this machine.
    flags.push(format!("--remap-path-prefix={}=.", root.display()));
    let variable = |what: &str| format!("CARGO_TARGET_{}_{what}", target.to_uppercase().replace(['-', '.'], "_"));
    if let Some(program) = linker.program {
        // What the crate `cc` looks for, which assembles for some.
        command.env(format!("CC_{}", target.replace('-', "_")), &program);
        command.env(variable("LINKER"), program);
    }
    if let Some(program) = linker.archiver {
        command.env(format!("AR_{}", target.replace('-', "_")), program);
    }
    command.env(variable("RUSTFLAGS"), flags.join(" "));
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the programs do not build for {target}: see above{}", linker.hint);
    }
    let built = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    // The folder of the profile `dev` is `debug`, for reasons of cargo's history.
    Ok(built
        .join(target)
        .join(if profile == "dev" { "debug" } else { profile }))
}

/// The files of the archive, by name.
fn entries(root: &Path, binaries: &Path, target: &str, version: &str, commit: &str) -> Result<Vec<Entry>> {
    let suffix = if target.contains("windows") { ".exe" } else { "" };
    let mut entries = Vec::new();
    let mut needs = Vec::new();
    for (program, _) in PROGRAMS {
        let path = binaries.join(format!("{program}{suffix}"));
        let bytes = std::fs::read(&path).with_context(|| format!("reading `{}`", path.display()))?;
        needs.extend(archive::glibc_of(&bytes));
        entries.push(Entry::program(format!("bin/{program}{suffix}"), bytes));
    }
    let glibc = needs.into_iter().max();
    let needed = match glibc {
        Some((major, minor)) => format!("glibc {major}.{minor} or later"),
        None => "no C library that was seen".to_string(),
    };
    let filled = README
        .replace("{version}", version)
        .replace("{target}", target)
        .replace("{commit}", commit)
        .replace("{needs}", &needed);
    entries.push(Entry::text("README.md", filled));
    entries.push(Entry::text(
        "KIT.toml",
        format!("version = \"{version}\"\ncommit = \"{commit}\"\ntarget = \"{target}\"\nneeds = \"{needed}\"\n"),
    ));
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        entries.push(Entry::text(name, std::fs::read_to_string(root.join(name))?));
    }
    entries.push(Entry::text(
        "THIRD-PARTY.txt",
        licences::third_party(root, target, &PROGRAMS.map(|(_, p)| p))?,
    ));
    for (folder, into) in [("conformance/lists", "lists"), ("conformance/runners", "runners")] {
        for (name, text) in texts(&root.join(folder))? {
            let entry = format!("{into}/{name}");
            match name.ends_with(".sh") {
                true => entries.push(Entry::program(entry, text.into_bytes())),
                false => entries.push(Entry::text(entry, text)),
            }
        }
    }
    entries.retain(|entry| entry.name != "runners/KIT.md");
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries.push(Entry::text("SHA256SUMS", archive::sums(&entries)));
    Ok(entries)
}

/// The files of a folder, without its subfolders, in the order of their names.
fn texts(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| format!("reading `{}`", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push((
                name,
                std::fs::read_to_string(&path).with_context(|| format!("reading `{}`", path.display()))?,
            ));
        }
    }
    found.sort();
    Ok(found)
}

/// Unpacks the archive elsewhere, checks its hashes, and starts its program with an empty environment.
fn try_it(archive: &Path, name: &str) -> Result<()> {
    let folder = archive.with_file_name("tried");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let unpacked = Command::new("tar")
        .arg("-xzf")
        .arg(archive)
        .arg("-C")
        .arg(&folder)
        .status();
    match unpacked {
        Ok(status) if status.success() => {}
        Ok(_) => bail!("`tar` does not unpack what was made"),
        Err(_) => {
            println!("skipped: the archive was not tried: there is no `tar`");
            return Ok(());
        }
    }
    let kit = folder.join(name);
    match Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet", "SHA256SUMS"])
        .current_dir(&kit)
        .status()
    {
        Ok(status) if status.success() => println!("tried: SHA256SUMS fits"),
        Ok(_) => bail!("SHA256SUMS does not fit what was made"),
        Err(_) => println!("skipped: there is no `sha256sum`"),
    }
    let mut program = Command::new(kit.join("bin/delegraph"));
    let output = program.arg("--version").env_clear().current_dir(&folder).output();
    let output = output.context("the program of the archive does not start")?;
    if !output.status.success() {
        bail!(
            "the program of the archive fails: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    println!("tried: {}", String::from_utf8_lossy(&output.stdout).trim());
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_wrong_ones_told() {
        let wish = parse(&["--target", "aarch64-unknown-linux-gnu", "--binaries", "x"]).unwrap();
        assert_eq!(wish.target.as_deref(), Some("aarch64-unknown-linux-gnu"));
        assert_eq!(wish.binaries, Some(PathBuf::from("x")));
        for wrong in [
            &["--target"][..],
            &["--targt", "x"],
            &["--target", "../x"],
            &["--target", ""],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_archive_holds_what_a_device_needs_and_is_the_same_twice() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let folder = std::env::temp_dir().join(format!("delegraph-dist-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (program, _) in PROGRAMS {
            std::fs::write(
                folder.join(program),
                format!("#!/bin/sh\necho {program}\n# GLIBC_2.4\0GLIBC_2.34\0\n"),
            )
            .unwrap();
        }
        let target = "x86_64-unknown-linux-gnu";
        let made = || {
            let entries = entries(&root, &folder, target, "0.0.0", "c0ffee").unwrap();
            (archive::tar_gz("kit", &entries).unwrap(), entries)
        };
        let (bytes, entries) = made();
        assert!(bytes == made().0, "the same inputs give the same bytes");
        std::fs::remove_dir_all(&folder).unwrap();
        let text = |name: &str| {
            let entry = entries
                .iter()
                .find(|entry| entry.name == name)
                .unwrap_or_else(|| panic!("no {name}"));
            String::from_utf8(entry.bytes.clone()).unwrap()
        };
        assert!(
            text("KIT.toml").contains("needs = \"glibc 2.34 or later\""),
            "{}",
            text("KIT.toml")
        );
        assert!(text("README.md").contains(target) && !text("README.md").contains('{'));
        assert!(text("THIRD-PARTY.txt").contains("serde_json "));
        assert!(text("THIRD-PARTY.txt").contains("Permission is hereby granted"));
        for name in [
            "bin/delegraph-worker",
            "LICENSE-MIT",
            "lists/core-1.0.txt",
            "runners/run-over-ssh.sh",
        ] {
            text(name);
        }
        assert_eq!(text("SHA256SUMS").lines().count(), entries.len() - 1);
        // What a reader of such archives makes of it.
        let mut unpacked = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
        let mut names = Vec::new();
        for file in unpacked.entries().unwrap() {
            let mut file = file.unwrap();
            let name = file.path().unwrap().to_string_lossy().into_owned();
            let header = file.header();
            assert_eq!(
                (header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()),
                (0, 0, 0)
            );
            let runs = name.starts_with("kit/bin/") || name.ends_with(".sh");
            assert_eq!(header.mode().unwrap(), if runs { 0o755 } else { 0o644 }, "{name}");
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut content).unwrap();
            let sums = text("SHA256SUMS");
            let inside = name.strip_prefix("kit/").unwrap();
            assert!(inside == "SHA256SUMS" || sums.contains(&format!("{}  {inside}\n", archive::sha256(&content))));
            names.push(name);
        }
        assert_eq!(names.len(), entries.len());
    }
}
