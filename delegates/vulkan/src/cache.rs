//! The pipeline cache on disk: one file for each device and driver build.
//!
//! A file is our header, then what the driver gave. The header is the magic, the length and a hash of the rest, so that a file that was cut
//! off or belongs to something else is ignored; then the driver's own header is compared with the device. Files are written beside their
//! place and renamed, so that no reader ever sees half of one.

use crate::facts::Facts;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const MAGIC: &[u8; 8] = b"DGVKPC01";
/// Magic, length, hash.
const HEADER: usize = 24;
/// The longest file that is read.
const LONGEST: u64 = 256 << 20;

/// The folder that option `cache` names; `None`: there is no cache.
pub fn folder(option: &str, variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    match option {
        "off" => None,
        "" => absolute("XDG_CACHE_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".cache")))
            .or_else(|| absolute("LOCALAPPDATA"))
            .map(|base| base.join("delegraph").join("vulkan")),
        path => Some(PathBuf::from(path)),
    }
}

/// The file of a device: named for its driver build and for this version of the delegate.
pub fn file(folder: &Path, facts: &Facts) -> PathBuf {
    let uuid: String = facts.cache_uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    folder.join(format!("{uuid}-{}.pipelines", env!("CARGO_PKG_VERSION")))
}

/// The driver's data in a file; `None` if there is no file, or it is not whole, or of another device.
pub fn read(path: &Path, device: &Identity) -> Option<Vec<u8>> {
    let length = std::fs::metadata(path).ok()?.len();
    if length > LONGEST {
        return None;
    }
    let data = unwrap(&std::fs::read(path).ok()?)?.to_vec();
    device.made(&data).then_some(data)
}

/// Writes a file beside its place and renames it.
///
/// # Errors
/// What the system says.
pub fn write(path: &Path, data: &[u8]) -> io::Result<()> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    let mut name = path.file_name().unwrap_or(OsStr::new("cache")).to_os_string();
    name.push(format!(
        ".{}.{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    ));
    let beside = folder.join(name);
    let outcome = std::fs::write(&beside, wrap(data)).and_then(|()| std::fs::rename(&beside, path));
    if outcome.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    outcome
}

fn wrap(data: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend((data.len() as u64).to_le_bytes());
    bytes.extend(hash(data).to_le_bytes());
    bytes.extend(data);
    bytes
}

fn unwrap(bytes: &[u8]) -> Option<&[u8]> {
    let (header, data) = bytes.split_at_checked(HEADER)?;
    let (magic, numbers) = header.split_at_checked(MAGIC.len())?;
    let (length, sum) = numbers.split_at_checked(8)?;
    let whole = magic == MAGIC && length == (data.len() as u64).to_le_bytes() && sum == hash(data).to_le_bytes();
    whole.then_some(data)
}

/// FNV-1a: it is to find accidents.
fn hash(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What the header of a driver's cache says of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// PCI vendor or Khronos vendor.
    pub vendor: u32,
    /// The vendor's number.
    pub device: u32,
    /// `pipelineCacheUUID`.
    pub uuid: [u8; 16],
}

impl Identity {
    /// True if this device and driver made the data: length of the header, version one, vendor, device and UUID.
    pub fn made(&self, data: &[u8]) -> bool {
        let word = |at: usize| {
            let bytes: [u8; 4] = data.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(bytes))
        };
        word(0).is_some_and(|length| length >= 32 && length as usize <= data.len())
            && word(4) == Some(1)
            && word(8) == Some(self.vendor)
            && word(12) == Some(self.device)
            && data.get(16..32) == Some(&self.uuid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: Identity = Identity {
        vendor: 0x8086,
        device: 7,
        uuid: [9; 16],
    };

    fn data(device: &Identity) -> Vec<u8> {
        let mut data: Vec<u8> = [32, 1, device.vendor, device.device]
            .iter()
            .flat_map(|w: &u32| w.to_le_bytes())
            .collect();
        data.extend(device.uuid);
        data.extend([5; 100]);
        data
    }

    fn place(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("delegraph-vulkan-cache-{}-{name}", std::process::id()));
        file(&folder, &Facts::weakest())
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else_lies_there() {
        let path = place("whole");
        write(&path, &data(&DEVICE)).unwrap();
        write(&path, &data(&DEVICE)).unwrap();
        assert_eq!(read(&path, &DEVICE), Some(data(&DEVICE)));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_torn_a_changed_and_a_foreign_file_are_ignored() {
        let path = place("torn");
        write(&path, &data(&DEVICE)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for end in 0..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(read(&path, &DEVICE), None, "cut at {end}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            std::fs::write(&path, &changed).unwrap();
            assert_eq!(read(&path, &DEVICE), None, "changed at {at}");
        }
        for other in [
            Identity { vendor: 1, ..DEVICE },
            Identity { device: 1, ..DEVICE },
            Identity {
                uuid: [1; 16],
                ..DEVICE
            },
        ] {
            write(&path, &data(&other)).unwrap();
            assert_eq!(read(&path, &DEVICE), None);
        }
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        assert_eq!(read(&path, &DEVICE), None);
    }

    #[test]
    fn the_folder_is_the_options_or_the_users() {
        let with = |names: &'static [(&str, &str)]| {
            move |name: &str| {
                names
                    .iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, v)| std::ffi::OsString::from(v))
            }
        };
        let both = with(&[("XDG_CACHE_HOME", "/cache"), ("HOME", "/home/me")]);
        assert_eq!(folder("off", both), None);
        assert_eq!(folder("/there", both), Some(PathBuf::from("/there")));
        assert_eq!(folder("", both), Some(PathBuf::from("/cache/delegraph/vulkan")));
        let home = with(&[("XDG_CACHE_HOME", "relative"), ("HOME", "/home/me")]);
        assert_eq!(
            folder("", home),
            Some(PathBuf::from("/home/me/.cache/delegraph/vulkan"))
        );
        assert_eq!(folder("", with(&[])), None);
    }
}
