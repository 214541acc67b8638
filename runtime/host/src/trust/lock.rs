//! `delegraph.lock`: the files that a configuration was made with.

use super::file::{Unread, read_text};
use super::{CheckedLibrary, Digest};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use toml::value::{Date, Datetime};

/// Most pins that a file may hold, and dependents of one.
const MOST: usize = 1000;

/// What `delegraph delegate lock` writes.
///
/// ```toml
/// version = 1
/// expires = 2027-06-30             # optional: from the day after, no pin holds
///
/// [[delegate]]
/// name = "acme"
/// manifest = "delegates.d/acme.delegate.toml"
/// manifest_sha256 = "…"            # absent with `manifest` for a library that has none
/// library = "delegates.d/libacme_delegate.so"
/// library_sha256 = "…"
///
/// [[delegate.dependent]]
/// path = "delegates.d/libacme_runtime.so"
/// sha256 = "…"
/// ```
///
/// Paths are relative to the file; they say where the files were, for people and for whoever writes the file again. What is
/// compared is the name of the backend, the hashes, and the file names of dependents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Version of the form: 1.
    pub version: u32,
    /// The last day, in UTC, on which the pins hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Datetime>,
    /// The pins; several of one name are alternatives.
    #[serde(default)]
    pub delegate: Vec<Pin>,
}

/// The files of one delegate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// Backend id.
    pub name: String,
    /// Its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<PathBuf>,
    /// Hash of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<Digest>,
    /// Its library.
    pub library: PathBuf,
    /// Hash of its library.
    pub library_sha256: Digest,
    /// The libraries that it brings along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependent: Vec<PinnedFile>,
}

/// A file and its hash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedFile {
    /// Where it was.
    pub path: PathBuf,
    /// Its hash.
    pub sha256: Digest,
}

impl Lock {
    /// Reads a file; `None`: there is none.
    ///
    /// # Errors
    /// One sentence that says what is wrong with it.
    pub fn read(path: &Path) -> Result<Option<Lock>, String> {
        let named = |problem: String| format!("`{}`: {problem}", path.display());
        match read_text(path, "the lock file") {
            Err(Unread::Absent) => Ok(None),
            Err(Unread::Wrong(problem)) => Err(named(problem)),
            Ok(text) => Lock::parse(&text).map(Some).map_err(named),
        }
    }

    /// Parses the text of a file.
    ///
    /// # Errors
    /// One sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Lock, String> {
        // The version first: a newer form has keys that this one does not know.
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| format!("it is not TOML: {}", e.message()))?;
        match table.get("version").and_then(toml::Value::as_integer) {
            Some(1) => {}
            Some(other) => return Err(format!("version `{other}` of a lock file is not supported, only 1 is")),
            None => return Err("it has no `version`".to_string()),
        }
        let lock: Lock = toml::from_str(text).map_err(|e| format!("it is no lock file: {}", e.message()))?;
        let many = |what: &str| Err(format!("it has more than {MOST} {what}"));
        if lock.delegate.len() > MOST {
            return many("delegates");
        }
        if let Some(expires) = &lock.expires
            && !matches!(
                expires,
                Datetime {
                    date: Some(_),
                    time: None,
                    offset: None
                }
            )
        {
            return Err(format!("`expires` is `{expires}`; it is a day: `2027-06-30`"));
        }
        for pin in &lock.delegate {
            if pin.dependent.len() > MOST {
                return many("dependents of one delegate");
            }
            if pin.manifest.is_some() != pin.manifest_sha256.is_some() {
                return Err(format!(
                    "of `{}` it has one of `manifest` and `manifest_sha256`, not both",
                    pin.name
                ));
            }
        }
        Ok(lock)
    }

    /// The text of the file.
    pub fn to_text(&self) -> String {
        let body = toml::to_string(self).unwrap_or_default();
        format!("# Written by `delegraph delegate lock`: the hashes of the delegates that may be loaded here.\n{body}")
    }

    /// Whether the last day of the pins is over, as far as this machine's clock tells.
    pub fn is_expired(&self) -> bool {
        self.is_expired_on(today())
    }

    /// With the day as a number from 1970-01-01.
    fn is_expired_on(&self, day: i64) -> bool {
        let last = self.expires.as_ref().and_then(|expires| expires.date);
        last.is_some_and(|last| day > day_number(last))
    }

    /// The pins of a backend.
    pub fn pins<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Pin> {
        self.delegate.iter().filter(move |pin| pin.name == name)
    }
}

impl Pin {
    /// The pin of these files; paths become relative to the folder of the lock file where that can be.
    pub fn of(name: &str, manifest: Option<(&Path, Digest)>, library: &CheckedLibrary, folder: &Path) -> Pin {
        let relative = |path: &Path| super::relative_to(path, folder);
        Pin {
            name: name.to_string(),
            manifest: manifest.map(|(path, _)| relative(path)),
            manifest_sha256: manifest.map(|(_, sha256)| sha256),
            library: relative(library.file().path()),
            library_sha256: library.file().sha256(),
            dependent: library
                .dependents()
                .iter()
                .map(|file| PinnedFile {
                    path: relative(file.path()),
                    sha256: file.sha256(),
                })
                .collect(),
        }
    }

    /// Compares files with the pin.
    ///
    /// # Errors
    /// What differs, as the end of a sentence that begins with the delegate.
    pub fn check(&self, manifest: Option<Digest>, library: &CheckedLibrary) -> Result<(), String> {
        match (manifest, self.manifest_sha256) {
            (have, want) if have == want => {}
            (None, _) => return Err("is pinned with a manifest, and is used without one".to_string()),
            (Some(_), None) => return Err("is pinned without a manifest, and is used with one".to_string()),
            (Some(have), Some(want)) => return Err(differs("manifest", have, want)),
        }
        let have = library.file().sha256();
        if have != self.library_sha256 {
            return Err(differs("library", have, self.library_sha256));
        }
        for file in library.dependents() {
            let name = file.path().file_name();
            let name_text = name.unwrap_or_default().to_string_lossy();
            match self.dependent.iter().find(|pinned| pinned.path.file_name() == name) {
                None => return Err(format!("needs `{name_text}`, which lies beside it and is not pinned")),
                Some(pinned) if pinned.sha256 != file.sha256() => {
                    return Err(differs(
                        &format!("dependent `{name_text}`"),
                        file.sha256(),
                        pinned.sha256,
                    ));
                }
                Some(_) => {}
            }
        }
        for pinned in &self.dependent {
            let name = pinned.path.file_name();
            if !library.dependents().iter().any(|file| file.path().file_name() == name) {
                let name = name.unwrap_or_default().to_string_lossy();
                return Err(format!("is pinned with `{name}`, which it does not find beside it"));
            }
        }
        Ok(())
    }
}

fn differs(what: &str, have: Digest, want: Digest) -> String {
    format!(
        "has another {what} than the pinned one: sha256 {}…, not {}…",
        have.short(),
        want.short()
    )
}

/// The day in UTC by this machine's clock, as a number from 1970-01-01.
pub(super) fn today() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs() / 86_400).unwrap_or(i64::MAX)
}

/// Days from 1970-01-01 in the Gregorian calendar, after Hinnant's `days_from_civil`.
pub(super) fn day_number(date: Date) -> i64 {
    let (month, day) = (i64::from(date.month), i64::from(date.day));
    let year = i64::from(date.year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn text() -> String {
        format!(
            "version = 1\nexpires = 2027-06-30\n[[delegate]]\nname = 'acme'\nmanifest = 'd/acme.delegate.toml'\n\
             manifest_sha256 = '{HEX}'\nlibrary = 'd/libacme_delegate.so'\nlibrary_sha256 = '{HEX}'\n\
             [[delegate.dependent]]\npath = 'd/librt.so'\nsha256 = '{HEX}'\n"
        )
    }

    #[test]
    fn a_lock_is_read_and_written_alike() {
        let lock = Lock::parse(&text()).unwrap();
        assert_eq!(lock.pins("acme").count(), 1);
        assert_eq!(lock.pins("other").count(), 0);
        assert_eq!(Lock::parse(&lock.to_text()).unwrap(), lock);
        assert_eq!(Lock::parse("version = 1").unwrap().delegate, []);
    }

    #[test]
    fn every_mistake_is_named() {
        let cases = [
            ("version = 1", "version = 2", "version `2` of a lock file"),
            ("version = 1\n", "", "has no `version`"),
            ("name = 'acme'", "nme = 'acme'", "unknown field `nme`"),
            ("library = 'd/libacme_delegate.so'\n", "", "missing field `library`"),
            (HEX, "12", "64 hexadecimal digits"),
            (
                "manifest = 'd/acme.delegate.toml'\n",
                "",
                "one of `manifest` and `manifest_sha256`",
            ),
            ("expires = 2027-06-30", "expires = 2027-06-30T00:00:00Z", "it is a day"),
            ("expires = 2027-06-30", "expires = 12:00:00", "it is a day"),
            ("expires = 2027-06-30", "expires = 2027-13-30", "is not TOML"),
            ("[[delegate]]", "[delegate", "is not TOML"),
        ];
        for (from, to, words) in cases {
            let error = Lock::parse(&text().replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(words), "{to}: {error}");
        }
    }

    #[test]
    fn pins_hold_to_the_end_of_their_last_day() {
        let lock = Lock::parse(&text()).unwrap();
        // `date -u -d 2027-06-30 +%s` is 1814313600.
        let last = 1_814_313_600 / 86_400;
        assert!(!lock.is_expired_on(last));
        assert!(lock.is_expired_on(last + 1));
        assert!(!Lock::parse("version = 1").unwrap().is_expired_on(i64::MAX));
        // The leap day of a century that has one: `date -u -d 2000-02-29 +%s` is 951782400.
        let leap = Lock::parse("version = 1\nexpires = 2000-02-29").unwrap();
        assert!(!leap.is_expired_on(951_782_400 / 86_400) && leap.is_expired_on(951_782_400 / 86_400 + 1));
        assert!(leap.is_expired());
    }
}
