//! `delegraph delegate sign`

use super::certificate::{is_certificate, read_to_sign};
use crate::args::DelegateSignArgs;
use crate::output::{Output, write_atomically};
use anyhow::Context;
use delegraph_host::trust::{CheckedFile, CheckedLibrary, HashList, name_in};
use delegraph_host::{Candidate, Host, HostOptions, Manifest};
use minisign::{KeyPair, PublicKey, SecretKey, SecretKeyBox};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Writes the list of a delegate's hashes and its signature, or the signature of a certificate.
///
/// # Errors
/// Wrong use, no key, or a file that cannot be read or written.
pub fn run(args: &DelegateSignArgs, output: &Output) -> anyhow::Result<u8> {
    let password = args.password_file.as_deref().map(password).transpose()?;
    let mut made = None;
    if args.generate {
        let public = generate(&args.key, password.clone())?;
        output.talk(format!("wrote {} and {}", args.key.display(), public.display()));
        made = Some(public);
    }
    let mut object = serde_json::json!({
        "schema": "delegraph.sign/1", "tool": crate::tool(), "public_key": made, "exit_code": 0,
    });
    if let Some(file) = args.file.as_deref().filter(|file| is_certificate(file)) {
        let text = read_to_sign(file)?;
        let signature_path = write_signature(&secret_key(&args.key, password)?, file, &text)?;
        output.talk(format!("wrote {}", signature_path.display()));
        object["certificate"] = serde_json::json!(file);
        object["signature"] = serde_json::json!(signature_path);
    } else if let Some(file) = &args.file {
        let key = secret_key(&args.key, password)?;
        let (manifest, libraries) = files_of(file, output)?;
        let named = manifest.as_deref().unwrap_or(file);
        let folder = named.parent().unwrap_or(Path::new(""));
        let mut list = HashList::default();
        if let Some(manifest) = &manifest {
            let checked = CheckedFile::open(manifest).map_err(crate::bad_input)?;
            list.insert(name_in(manifest, folder), checked.sha256());
        }
        for path in &libraries {
            let library = CheckedLibrary::open(path).map_err(crate::bad_input)?;
            for problem in library.problems() {
                output.talk(format!("warning: it will not be trusted: {problem}"));
            }
            for file in [library.file()].into_iter().chain(library.dependents()) {
                list.insert(name_in(file.path(), folder), file.sha256());
            }
        }
        let text = list.to_text();
        let list_path = HashList::path_for(named);
        write_atomically(&list_path, text.as_bytes())?;
        let signature_path = write_signature(&key, &list_path, &text)?;
        output.data(text.trim_end());
        output.talk(format!(
            "wrote {} and {}",
            list_path.display(),
            signature_path.display()
        ));
        object["list"] = serde_json::json!(list_path);
        object["signature"] = serde_json::json!(signature_path);
    }
    output.json(&object)?;
    Ok(0)
}

/// Signs the text of a file, and writes the signature beside it.
fn write_signature(key: &SecretKey, path: &Path, text: &str) -> anyhow::Result<PathBuf> {
    let signature_path = HashList::signature_path(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let public = PublicKey::from_secret_key(key)?;
    let comment = format!("timestamp:{}\tfile:{name}\thashed", minisign_time());
    let signature = minisign::sign(Some(&public), key, text.as_bytes(), Some(&comment), None)?;
    write_atomically(&signature_path, signature.into_string().as_bytes())?;
    Ok(signature_path)
}

/// Seconds since 1970, as minisign's own comment has them.
fn minisign_time() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// The candidate of a manifest or a library. A library that a manifest beside it names is found by that manifest.
///
/// # Errors
/// There is no such file.
pub fn candidate_of(file: &Path) -> anyhow::Result<Candidate> {
    if !file.is_file() {
        return Err(crate::bad_input(format!("there is no file `{}`", file.display())));
    }
    let of = |path: PathBuf| {
        let options = HostOptions {
            manifests: vec![path],
            no_load: true,
            ..HostOptions::default()
        };
        Host::discover(options).candidates().into_iter().next()
    };
    let same = |candidate: &Candidate| {
        let library = candidate.library.as_deref().and_then(|path| path.canonicalize().ok());
        library.is_some() && library == file.canonicalize().ok()
    };
    let is_manifest = file.extension().is_some_and(|extension| extension == "toml");
    let folder = file
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut beside: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with(".delegate.toml"))
        .collect();
    beside.sort();
    let mut by_manifest = beside.into_iter().filter(|_| !is_manifest).filter_map(&of);
    by_manifest
        .find(same)
        .or_else(|| of(file.to_path_buf()))
        .context("no candidate is made of the file")
}

/// The manifest, if there is one, and the libraries that are signed with it: of every machine whose file is there.
fn files_of(file: &Path, output: &Output) -> anyhow::Result<(Option<PathBuf>, Vec<PathBuf>)> {
    let candidate = candidate_of(file)?;
    let Some(path) = candidate.manifest_path else {
        return Ok((None, vec![file.to_path_buf()]));
    };
    let manifest: Manifest = candidate.manifest.ok_or_else(|| {
        let reason = candidate.refusal.clone().unwrap_or_default();
        crate::bad_input(format!("`{}`: {reason}", path.display()))
    })?;
    let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let mut names: Vec<&PathBuf> = manifest.library.iter().chain(manifest.libraries.values()).collect();
    names.sort();
    names.dedup();
    let (there, absent): (Vec<PathBuf>, Vec<PathBuf>) =
        names.into_iter().map(|n| folder.join(n)).partition(|p| p.is_file());
    let mut libraries = there;
    for path in absent {
        output.talk(format!("`{}` is not there and is not signed", path.display()));
    }
    // One that lies beside the executable.
    if libraries.is_empty() {
        libraries.extend(candidate.library);
    }
    if libraries.is_empty() {
        return Err(crate::bad_input(format!("no library of `{}` is there", path.display())));
    }
    Ok((Some(path), libraries))
}

/// Makes a pair of keys, and writes over none.
fn generate(secret: &Path, password: Option<String>) -> anyhow::Result<PathBuf> {
    let mut public = secret.as_os_str().to_os_string();
    public.push(".pub");
    let public = PathBuf::from(public);
    if let Some(there) = [secret, &public].into_iter().find(|path| path.exists()) {
        return Err(crate::usage(format!("`{}` is there already", there.display())));
    }
    let pair = match password {
        Some(password) => KeyPair::generate_encrypted_keypair(Some(password))?,
        None => KeyPair::generate_unencrypted_keypair()?,
    };
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let written = options.open(secret).and_then(|mut file| {
        file.write_all(
            pair.sk
                .to_box(None)
                .map_err(std::io::Error::other)?
                .to_string()
                .as_bytes(),
        )
    });
    written.map_err(|error| crate::usage(format!("cannot write `{}`: {error}", secret.display())))?;
    write_atomically(&public, pair.pk.to_box()?.into_string().as_bytes())?;
    Ok(public)
}

fn secret_key(path: &Path, password: Option<String>) -> anyhow::Result<SecretKey> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading the key `{}`", path.display()))?;
    let wrong = |problem: String| crate::bad_input(format!("the key `{}`: {problem}", path.display()));
    let boxed = || SecretKeyBox::from_string(&text).map_err(|e| wrong(e.to_string()));
    let bare = boxed()?.into_unencrypted_secret_key();
    match (bare, password) {
        (Ok(key), _) => Ok(key),
        // Without a password the crate would ask for it on the terminal.
        (Err(_), Some(password)) => boxed()?
            .into_secret_key(Some(password))
            .map_err(|e| wrong(e.to_string())),
        (Err(problem), None) => Err(wrong(format!(
            "{problem}\n  hint: if it has a password, name a file with it by `--password-file`"
        ))),
    }
}

/// The first line of a file.
fn password(path: &Path) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading the password in `{}`", path.display()))?;
    Ok(text.lines().next().unwrap_or_default().to_string())
}
