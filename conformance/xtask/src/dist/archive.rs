//! The bytes of an archive: sorted, without times, users or anything else of the machine that made it.

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

/// A file of the archive.
#[derive(Debug)]
pub struct Entry {
    /// Path within the archive's folder, with `/`.
    pub name: String,
    /// Content.
    pub bytes: Vec<u8>,
    /// Permissions.
    mode: u32,
}

impl Entry {
    /// Something that is read.
    pub fn text(name: impl Into<String>, text: String) -> Entry {
        Entry {
            name: name.into(),
            bytes: text.into_bytes(),
            mode: 0o644,
        }
    }

    /// Something that is started.
    pub fn program(name: impl Into<String>, bytes: Vec<u8>) -> Entry {
        Entry {
            name: name.into(),
            bytes,
            mode: 0o755,
        }
    }
}

/// A compressed tar archive in which all files lie in one folder.
///
/// # Errors
/// A name is too long for an archive.
pub fn tar_gz(folder: &str, entries: &[Entry]) -> Result<Vec<u8>> {
    // No time and no name in the header of gzip, and the system is 255, unknown.
    let gzip = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(Vec::new(), Compression::new(6));
    let mut tar = tar::Builder::new(gzip);
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(entry.bytes.len() as u64);
        header.set_mode(entry.mode);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, format!("{folder}/{}", entry.name), &entry.bytes[..])?;
    }
    Ok(tar.into_inner()?.finish()?)
}

/// SHA-256 in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The hashes of files, as `sha256sum` has them.
pub fn sums(entries: &[Entry]) -> String {
    entries
        .iter()
        .map(|entry| format!("{}  {}\n", sha256(&entry.bytes), entry.name))
        .collect()
}

/// For people.
pub fn megabytes(bytes: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
    let bytes = bytes as f64;
    bytes / 1e6
}

/// The newest version of glibc that a program asks its loader for; `None`: it names none.
///
/// Versions of symbols are texts in the file (`GLIBC_2.34`); a text that looks like one and is none asks for too much, never too little.
pub fn glibc_of(bytes: &[u8]) -> Option<(u32, u32)> {
    const MARK: &[u8] = b"GLIBC_";
    let mut newest = None;
    for at in memchr_all(bytes, MARK) {
        let rest = &bytes[at + MARK.len()..];
        let end = rest
            .iter()
            .position(|c| !c.is_ascii_digit() && *c != b'.')
            .unwrap_or(rest.len())
            .min(12);
        let Ok(text) = std::str::from_utf8(&rest[..end]) else {
            continue;
        };
        let mut parts = text.split('.').map(str::parse::<u32>);
        if let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) {
            newest = newest.max(Some((major, minor)));
        }
    }
    newest
}

/// Where a text stands.
fn memchr_all<'b>(bytes: &'b [u8], mark: &'b [u8]) -> impl Iterator<Item = usize> + 'b {
    let windows = bytes.windows(mark.len()).enumerate();
    windows.filter(move |(_, window)| *window == mark).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::glibc_of;

    #[test]
    fn the_newest_version_counts_by_its_numbers() {
        assert_eq!(
            glibc_of(b"GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.17\0GLIBC_PRIVATE\0"),
            Some((2, 34))
        );
        assert_eq!(glibc_of(b"GLIBC_"), None);
        assert_eq!(glibc_of(b"nothing"), None);
    }
}
