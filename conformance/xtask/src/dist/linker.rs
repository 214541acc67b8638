//! Who links for a target: the one that the environment names, this machine's own, or the provisioned `zig cc`, which is clang with the
//! headers and start files of every Linux.

use crate::provision::zig;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Targets that `zig cc` links for, by rustc's name and zig's. The version of glibc is the oldest that a kit shall run on.
const BY_ZIG: [(&str, &str); 5] = [
    ("x86_64-unknown-linux-gnu", "x86_64-linux-gnu.2.28"),
    ("aarch64-unknown-linux-gnu", "aarch64-linux-gnu.2.28"),
    ("armv7-unknown-linux-gnueabihf", "arm-linux-gnueabihf.2.28"),
    ("x86_64-unknown-linux-musl", "x86_64-linux-musl"),
    ("aarch64-unknown-linux-musl", "aarch64-linux-musl"),
];

/// How a target is linked.
#[derive(Debug, Default)]
pub struct Linker {
    /// The program; `None`: cargo knows.
    pub program: Option<PathBuf>,
    /// What packs objects for crates that bring assembly; `None`: they look for it themselves.
    pub archiver: Option<PathBuf>,
    /// Flags for rustc.
    pub flags: Vec<String>,
    /// What to say if it fails.
    pub hint: String,
}

/// The linker of a target.
///
/// # Errors
/// There is none, with what would help.
pub fn of(root: &Path, target: &str, host: &str) -> Result<Linker> {
    let musl = target.contains("musl");
    let mut linker = Linker::default();
    if musl {
        // A static program has no loader, and could open no delegate.
        linker.flags.push("-Ctarget-feature=-crt-static".to_string());
        linker.hint = "\n  (with musl the kit is linked dynamically, because a static program cannot load a delegate)"
            .to_string();
    }
    let variable = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
    if std::env::var_os(&variable).is_some() {
        return Ok(linker);
    }
    let by_zig = BY_ZIG.iter().find(|(triple, _)| *triple == target).zip(zig(root));
    match by_zig {
        Some(((_, name), zig)) => {
            if musl {
                linker.flags.push("-Clink-self-contained=no".to_string());
            }
            let dynamic = if musl { " -dynamic" } else { "" };
            linker.program = Some(wrapper(
                root,
                &format!("link-{target}.sh"),
                &zig,
                &format!("cc -target {name}{dynamic}"),
            )?);
            linker.archiver = Some(wrapper(root, &format!("ar-{target}.sh"), &zig, "ar")?);
            Ok(linker)
        }
        None if target == host => Ok(linker),
        None if target.contains("android") => bail!(
            "there is no linker for {target}: name the NDK's clang in {variable}; the NDK's terms do not let us fetch it"
        ),
        None => bail!("there is no linker for {target}: run `cargo xtask provision clang`, or name one in {variable}"),
    }
}

/// A program that calls zig with these words before all others: cargo and the crates that bring assembly take one path.
fn wrapper(root: &Path, file: &str, zig: &Path, words: &str) -> Result<PathBuf> {
    let dist = root.join("target/dist");
    std::fs::create_dir_all(&dist)?;
    let path = dist.join(file);
    // The crate `cc` adds the target by clang's name, which zig does not know.
    let drop = "for word do shift; case $word in --target=*) ;; *) set -- \"$@\" \"$word\" ;; esac; done";
    let text = format!("#!/bin/sh\n{drop}\nexec '{}' {words} \"$@\"\n", zig.display());
    std::fs::write(&path, text).with_context(|| format!("writing `{}`", path.display()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(path)
}
