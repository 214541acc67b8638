//! The libraries that an ELF library needs, read as the system's loader would: from its segments, not its sections.

use object::Endianness;
use object::elf;
use object::read::elf::{Dyn as _, FileHeader, ProgramHeader as _};
use std::path::{Path, PathBuf};

/// Most entries of a dynamic table that are read.
const MOST: usize = 1 << 16;

/// What a library says of its loading.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Needs {
    /// `DT_NEEDED`, in order.
    pub needed: Vec<String>,
    /// `DT_SONAME`.
    pub soname: Option<String>,
    /// `DT_RPATH`: searched for the needs of what this library needs, too.
    pub rpath: Vec<String>,
    /// `DT_RUNPATH`; where there is one, `DT_RPATH` does not count.
    pub runpath: Vec<String>,
}

/// Reads a library's needs; empty for what is not ELF.
///
/// # Errors
/// One sentence: it begins as ELF and is broken.
pub(crate) fn needs(bytes: &[u8]) -> Result<Needs, String> {
    if !bytes.starts_with(b"\x7fELF") {
        return Ok(Needs::default());
    }
    let needs = match bytes.get(4) {
        Some(2) => read::<elf::FileHeader64<Endianness>>(bytes),
        _ => read::<elf::FileHeader32<Endianness>>(bytes),
    };
    needs.map_err(|problem| format!("it is a broken ELF file: {problem}"))
}

fn read<Header: FileHeader<Endian = Endianness>>(data: &[u8]) -> Result<Needs, String> {
    let broken = |e: object::read::Error| e.to_string();
    let header = Header::parse(data).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    let segments = header.program_headers(endian, data).map_err(broken)?;
    let mut dynamic: &[Header::Dyn] = &[];
    for segment in segments {
        if let Some(entries) = segment.dynamic(endian, data).map_err(broken)? {
            dynamic = entries;
        }
    }
    let mut strings: Option<(u64, u64)> = None;
    let mut found: Vec<(elf::DynamicTag, u64)> = Vec::new();
    let (mut address, mut size) = (None, None);
    for entry in dynamic.iter().take(MOST) {
        let value: u64 = entry.d_val(endian).into();
        match entry.d_tag(endian) {
            elf::DT_NULL => break,
            elf::DT_STRTAB => address = Some(value),
            elf::DT_STRSZ => size = Some(value),
            tag @ (elf::DT_NEEDED | elf::DT_SONAME | elf::DT_RPATH | elf::DT_RUNPATH) => found.push((tag, value)),
            _ => {}
        }
    }
    if let (Some(address), Some(size)) = (address, size) {
        strings = Some((address, size));
    }
    if found.is_empty() {
        return Ok(Needs::default());
    }
    let (address, size) = strings.ok_or("it has names and no table of names")?;
    let table = segments
        .iter()
        .filter(|segment| segment.p_type(endian) == elf::PT_LOAD)
        .find_map(|segment| segment.data_range(endian, data, address, size).ok().flatten())
        .ok_or("its table of names is outside its segments")?;
    let name = |offset: u64| -> Result<String, String> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|o| table.get(o..))
            .unwrap_or_default();
        let end = rest.iter().position(|b| *b == 0).ok_or("a name is outside its table")?;
        let text = std::str::from_utf8(&rest[..end]).map_err(|_| "a name is not UTF-8")?;
        Ok(text.to_string())
    };
    let list = |text: String| text.split(':').map(str::to_string).collect();
    let mut needs = Needs::default();
    for (tag, offset) in found {
        match tag {
            elf::DT_NEEDED => needs.needed.push(name(offset)?),
            elf::DT_SONAME => needs.soname = Some(name(offset)?),
            elf::DT_RPATH => needs.rpath = list(name(offset)?),
            _ => needs.runpath = list(name(offset)?),
        }
    }
    Ok(needs)
}

/// The folder that an entry of a search path names beside a library: `None` for a system folder.
///
/// # Errors
/// The entry is relative to the working folder, whatever that is when the library is loaded.
pub(crate) fn search_folder(entry: &str, origin: &Path) -> Result<Option<PathBuf>, ()> {
    for token in ["$ORIGIN", "${ORIGIN}"] {
        match entry.strip_prefix(token) {
            Some("") => return Ok(Some(origin.to_path_buf())),
            Some(rest) if rest.starts_with('/') => return Ok(Some(origin.join(rest.trim_start_matches('/')))),
            _ => {}
        }
    }
    match entry.starts_with(['/', '$']) {
        true => Ok(None),
        false => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_of_this_program_are_read() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = needs(&program).unwrap();
        if cfg!(all(target_os = "linux", target_env = "gnu")) {
            assert!(needs.needed.iter().any(|name| name == "libc.so.6"), "{needs:?}");
        }
        assert_eq!(super::needs(b"MZ and more").unwrap(), Needs::default());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn broken_files_are_refused_and_nothing_panics() {
        assert!(needs(b"\x7fELF").is_err());
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        // Whatever stands in the headers: every byte of them, changed four ways.
        let mut seen = [0, 0];
        for at in 4..program.len().min(1024) {
            for change in [0x01, 0x10, 0x80, 0xff] {
                let mut copy = program[..program.len().min(1 << 20)].to_vec();
                copy[at] ^= change;
                seen[usize::from(needs(&copy).is_ok())] += 1;
            }
        }
        assert!(seen[0] > 0, "{seen:?}");
    }

    #[test]
    fn search_paths_beside_the_library_are_told_from_others() {
        let origin = Path::new("/opt/x");
        let cases = [
            ("$ORIGIN", Ok(Some("/opt/x"))),
            ("${ORIGIN}/../lib", Ok(Some("/opt/x/../lib"))),
            ("/usr/lib", Ok(None)),
            ("$LIB", Ok(None)),
            ("", Err(())),
            ("lib", Err(())),
            ("./lib", Err(())),
        ];
        for (entry, want) in cases {
            assert_eq!(
                search_folder(entry, origin),
                want.map(|w| w.map(PathBuf::from)),
                "{entry}"
            );
        }
    }
}
