//! Signatures: a list of hashes beside the manifest, in the form of `sha256sum`, and minisign's signature of that list.

use super::file::{Unread, read_text};
use super::{CheckedLibrary, Digest, relative_to};
use crate::discover::MANIFEST;
use minisign_verify::{PublicKey, Signature};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Most files that one list may name.
const MOST: usize = 10_000;

/// Hashes of files by name, as `sha256sum` prints them: `HASH  NAME`, one a line. Names are relative to the list's folder.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HashList {
    files: BTreeMap<String, Digest>,
}

impl HashList {
    /// Where the list of a manifest lies (`acme.delegate.toml`: `acme.delegate.sha256`), or of a library that has none
    /// (`libacme.so`: `libacme.so.sha256`).
    pub fn path_for(manifest_or_library: &Path) -> PathBuf {
        let name = manifest_or_library.file_name().unwrap_or_default().to_string_lossy();
        let name = match name.strip_suffix(MANIFEST) {
            Some(stem) => format!("{stem}.delegate.sha256"),
            None => format!("{name}.sha256"),
        };
        manifest_or_library.with_file_name(name)
    }

    /// Where the signature of a list lies: `.minisig` after its name, as minisign has it.
    pub fn signature_path(list: &Path) -> PathBuf {
        let mut name = list.file_name().unwrap_or_default().to_os_string();
        name.push(".minisig");
        list.with_file_name(name)
    }

    /// Parses a list.
    ///
    /// # Errors
    /// One sentence that names the line.
    pub fn parse(text: &str) -> Result<HashList, String> {
        let mut files = BTreeMap::new();
        for (i, line) in text.lines().enumerate() {
            let wrong = |what: &str| format!("line {}: {what}", i + 1);
            if line.is_empty() {
                continue;
            }
            // Two blanks, or a blank and a star for what was read as binary: the same on every system of today.
            let (hash, name) = line
                .split_once("  ")
                .or_else(|| line.split_once(" *"))
                .ok_or_else(|| wrong("it is not `HASH  NAME`"))?;
            let digest = Digest::parse(hash).ok_or_else(|| wrong("a sha256 is 64 hexadecimal digits"))?;
            let name = name.strip_prefix("./").unwrap_or(name);
            if name.is_empty() || name.contains('\\') {
                return Err(wrong("it names no file"));
            }
            if files.insert(name.to_string(), digest).is_some() {
                return Err(wrong(&format!("`{name}` is named twice")));
            }
            if files.len() > MOST {
                return Err(format!("it names more than {MOST} files"));
            }
        }
        match files.is_empty() {
            true => Err("it names no file".to_string()),
            false => Ok(HashList { files }),
        }
    }

    /// Adds a file; the later of one name counts.
    pub fn insert(&mut self, name: String, sha256: Digest) {
        self.files.insert(name, sha256);
    }

    /// The text: what `sha256sum -c` takes.
    pub fn to_text(&self) -> String {
        let line = |(name, sha256): (&String, &Digest)| format!("{sha256}  {name}\n");
        self.files.iter().map(line).collect()
    }

    /// Whether the list has these files with these hashes. `folder` is the list's.
    ///
    /// # Errors
    /// Which differs or is not listed, as the end of a sentence that begins with the delegate.
    pub fn check(
        &self,
        manifest: Option<(&Path, Digest)>,
        library: &CheckedLibrary,
        folder: &Path,
    ) -> Result<(), String> {
        let mut files: Vec<(&Path, Digest)> = manifest.into_iter().collect();
        let libraries = [library.file()].into_iter().chain(library.dependents());
        files.extend(libraries.map(|file| (file.path(), file.sha256())));
        for (path, have) in files {
            let name = name_in(path, folder);
            match self.files.get(&name) {
                None => return Err(format!("has `{name}`, which its signed list does not name")),
                Some(want) if *want != have => {
                    let (have, want) = (have.short(), want.short());
                    return Err(format!(
                        "has another `{name}` than the signed one: sha256 {have}…, not {want}…"
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// The name of a file in the list of a folder. A file outside the folder, such as a library beside the executable, goes by its
/// file name.
pub fn name_in(path: &Path, folder: &Path) -> String {
    let relative = relative_to(path, folder);
    match relative.is_absolute() || relative.starts_with("..") {
        true => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        false => relative.to_string_lossy().replace('\\', "/"),
    }
}

/// Public keys of minisign, each with the file that it came from.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    keys: Vec<(PathBuf, PublicKey)>,
}

impl Keys {
    /// Reads key files: as minisign writes them, or with the line of the key alone.
    ///
    /// # Errors
    /// One sentence that names the first that cannot be read.
    pub fn read(paths: &[PathBuf]) -> Result<Keys, String> {
        let key = |path: &PathBuf| {
            let name = path.display();
            match read_text(path, "the key") {
                Err(Unread::Absent) => Err(format!("there is no key file `{name}`")),
                Err(Unread::Wrong(problem)) => Err(format!("`{name}`: {problem}")),
                Ok(text) => Ok((
                    path.clone(),
                    parse_key(&text).map_err(|problem| format!("`{name}`: {problem}"))?,
                )),
            }
        };
        let keys = paths.iter().map(key).collect::<Result<_, _>>()?;
        Ok(Keys { keys })
    }

    /// One key from the text of its file; `path` is what it is called.
    ///
    /// # Errors
    /// One sentence: it is none.
    pub fn parse(path: &Path, text: &str) -> Result<Keys, String> {
        let key = parse_key(text)?;
        Ok(Keys {
            keys: vec![(path.to_path_buf(), key)],
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that a signature of these bytes was made with.
    ///
    /// # Errors
    /// One sentence: it is no signature, or of none of the keys, or of other bytes.
    pub fn verify(&self, bytes: &[u8], signature: &str) -> Result<&Path, String> {
        let signature = Signature::decode(signature).map_err(|_| "it is no signature of minisign".to_string())?;
        let mut reason = "it was made with none of the trusted keys";
        for (path, key) in &self.keys {
            match key.verify(bytes, &signature, false) {
                Ok(()) => return Ok(path),
                Err(minisign_verify::Error::UnexpectedKeyId) => {}
                Err(minisign_verify::Error::UnexpectedAlgorithm) => {
                    reason = "it is of minisign's old form: sign again with a present one";
                }
                Err(_) => reason = "it does not fit: what was signed has been changed",
            }
        }
        Err(reason.to_string())
    }
}

fn parse_key(text: &str) -> Result<PublicKey, String> {
    let line = text
        .lines()
        .find(|line| !line.is_empty() && !line.starts_with("untrusted comment:"));
    let key = line.and_then(|line| PublicKey::from_base64(line.trim()).ok());
    key.ok_or_else(|| "it is no public key of minisign".to_string())
}

/// Reads the list of a manifest or library with its signature, and checks the signature. `None`: there is no signature.
///
/// # Errors
/// One sentence that names the file.
pub fn signed_list(manifest_or_library: &Path, keys: &Keys) -> Result<Option<(HashList, PathBuf)>, String> {
    let list = HashList::path_for(manifest_or_library);
    let signature = HashList::signature_path(&list);
    let read = |path: &Path, what| match read_text(path, what) {
        Ok(text) => Ok(Some(text)),
        Err(Unread::Absent) => Ok(None),
        Err(Unread::Wrong(problem)) => Err(format!("`{}`: {problem}", path.display())),
    };
    let Some(signature_text) = read(&signature, "the signature")? else {
        return Ok(None);
    };
    let named = |path: &Path| {
        let path = path.display().to_string();
        move |problem: String| format!("`{path}`: {problem}")
    };
    let text = read(&list, "the list")?.ok_or_else(|| named(&list)("it is signed, and is not there".to_string()))?;
    let key = keys
        .verify(text.as_bytes(), &signature_text)
        .map_err(named(&signature))?;
    let parsed = HashList::parse(&text).map_err(named(&list))?;
    Ok(Some((parsed, key.to_path_buf())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    // Key, message and signature of minisign's own documentation.
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    const SIGNED: &str = "untrusted comment: signature from minisign secret key\n\
        RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
        trusted comment: timestamp:1633700835\tfile:test\tprehashed\n\
        wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==\n";

    fn keys(text: &str) -> Result<Keys, String> {
        Keys::parse(Path::new("a.pub"), text)
    }

    #[test]
    fn a_signature_of_minisign_is_verified() {
        let keys = keys(&format!("untrusted comment: minisign public key\n{KEY}\n")).unwrap();
        assert_eq!(keys.verify(b"test", SIGNED).unwrap(), Path::new("a.pub"));
        assert!(keys.verify(b"tesT", SIGNED).unwrap_err().contains("has been changed"));
        assert!(
            Keys::default()
                .verify(b"test", SIGNED)
                .unwrap_err()
                .contains("none of the trusted keys")
        );
    }

    #[test]
    fn a_changed_signature_or_key_never_verifies_and_never_panics() {
        let right = keys(KEY).unwrap();
        for at in 0..SIGNED.len() {
            for other in ["", "A", "=", "\n", "\u{e9}"] {
                if !SIGNED.is_char_boundary(at) || SIGNED[at..].starts_with(other) && !other.is_empty() {
                    continue;
                }
                let changed = format!("{}{other}{}", &SIGNED[..at], &SIGNED[at + 1..]);
                // Only the first line is not signed, and it is not read.
                let in_comment = at < SIGNED.find('\n').unwrap();
                let verified = right.verify(b"test", &changed).is_ok();
                assert!(
                    !verified || in_comment || changed.lines().eq(SIGNED.lines()),
                    "{at} {other:?}"
                );
            }
        }
        for at in 0..KEY.len() {
            let other = if &KEY[at..=at] == "A" { "B" } else { "A" };
            let changed = format!("{}{other}{}", &KEY[..at], &KEY[at + 1..]);
            if let Ok(keys) = keys(&changed) {
                // The algorithm of a key is not part of what is verified.
                assert!(keys.verify(b"test", SIGNED).is_err() || at < 3, "{at}");
            }
            assert!(parse_key(&KEY[..at]).is_err());
        }
    }

    #[test]
    fn lists_are_those_of_sha256sum() {
        let text = format!("{HEX}  a.delegate.toml\n{HEX} *./bin/liba.so\n");
        let list = HashList::parse(&text).unwrap();
        assert_eq!(list.to_text(), format!("{HEX}  a.delegate.toml\n{HEX}  bin/liba.so\n"));
        let cases = [
            ("", "names no file"),
            (HEX, "line 1: it is not"),
            (&format!("{}  a", &HEX[1..]), "line 1: a sha256"),
            (&format!("{HEX}  a\n{HEX}  ./a"), "line 2: `a` is named twice"),
            (&format!("\\{HEX}  a\\nb"), "line 1"),
            (&format!("{HEX}  a\\nb"), "line 1: it names no file"),
        ];
        for (text, words) in cases {
            let error = HashList::parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn lists_lie_beside_what_they_are_of() {
        let list = HashList::path_for(Path::new("d/acme.delegate.toml"));
        assert_eq!(list, Path::new("d/acme.delegate.sha256"));
        assert_eq!(
            HashList::signature_path(&list),
            Path::new("d/acme.delegate.sha256.minisig")
        );
        assert_eq!(
            HashList::path_for(Path::new("d/libacme.so")),
            Path::new("d/libacme.so.sha256")
        );
        assert_eq!(name_in(Path::new("/d/bin/a.so"), Path::new("/d")), "bin/a.so");
        assert_eq!(name_in(Path::new("/e/a.so"), Path::new("/d/f")), "a.so");
    }
}
