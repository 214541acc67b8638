//! What a library's file says of it, before anything of it runs: ELF, Mach-O and PE, by the `object` crate.
//!
//! The bytes are anybody's. Whatever cannot be read of them is left out or is an error; names are cleaned for a terminal.

use object::read::elf::{ElfFile, FileHeader, ProgramHeader};
use object::read::macho::{FatArch, MachHeader, MachOFile};
use object::read::{ExportTarget, File, NameOrOrdinal, Object};
use object::{Architecture, Endianness, FileKind, elf, macho};
use std::path::Path;

/// Largest library that is read.
const MAX_BYTES: u64 = 1 << 31;

/// Most names of a kind that are kept.
const MOST: usize = 100_000;

/// Facts of a library.
#[derive(Debug, Default, Clone, serde::Serialize)]
pub struct Library {
    /// `ELF`, `Mach-O` or `PE`.
    pub format: &'static str,
    /// The machine that it is for, in the words of Rust's targets.
    pub machine: String,
    /// Symbols that it exports, those of the C++ library left out.
    pub exports: Vec<String>,
    /// Weak symbols of the C++ library that it exports too: templates that it holds a copy of.
    pub cpp_exports: usize,
    /// Symbols that others must give.
    pub imports: Vec<String>,
    /// Libraries that it asks for.
    pub needed: Vec<String>,
    /// Its name for those that link to it.
    pub soname: Option<String>,
    /// Folders that it has searched for libraries.
    pub search: Vec<String>,
    /// Its stack has to be executable; `None`: this format does not say.
    pub executable_stack: Option<bool>,
    /// Its code has to be written to when it is loaded.
    pub text_relocations: bool,
    /// Sanitizers that it was built with.
    pub sanitizers: Vec<&'static str>,
}

/// Symbols that linkers put into every library.
const LINKER: [&str; 7] = [
    "_init",
    "_fini",
    "_edata",
    "_end",
    "__bss_start",
    "__dso_handle",
    "_mh_dylib_header",
];

/// Functions that end, fork or reconfigure the process, or load more code, when a delegate calls them.
pub const RISKY: [&str; 23] = [
    "exit",
    "_exit",
    "_Exit",
    "quick_exit",
    "abort",
    "signal",
    "sigaction",
    "sigprocmask",
    "fork",
    "vfork",
    "execve",
    "execvp",
    "posix_spawn",
    "system",
    "popen",
    "dlopen",
    "dlclose",
    "setenv",
    "chdir",
    "ExitProcess",
    "TerminateProcess",
    "LoadLibraryA",
    "LoadLibraryW",
];

impl Library {
    /// Reads a library's file.
    ///
    /// # Errors
    /// One sentence: it cannot be read, or is none.
    pub fn read(path: &Path) -> Result<Library, String> {
        let shown = path.display();
        let metadata = std::fs::metadata(path).map_err(|e| format!("`{shown}` cannot be read: {e}"))?;
        if !metadata.is_file() || metadata.len() > MAX_BYTES {
            return Err(format!("`{shown}` is not a file of at most 2 GiB"));
        }
        let bytes = std::fs::read(path).map_err(|e| format!("`{shown}` cannot be read: {e}"))?;
        Library::parse(&bytes).map_err(|problem| format!("`{shown}` is no shared library: {problem}"))
    }

    /// The same of bytes.
    ///
    /// # Errors
    /// What about them is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Library, String> {
        let file = File::parse(slice(bytes)?).map_err(text)?;
        let mut library = Library {
            format: match &file {
                File::Elf32(_) | File::Elf64(_) => "ELF",
                File::MachO32(_) | File::MachO64(_) => "Mach-O",
                File::Pe32(_) | File::Pe64(_) => "PE",
                _ => return Err("it is an object file of another kind".to_string()),
            },
            machine: machine(file.architecture()).to_string(),
            ..Library::default()
        };
        if file.kind() != object::ObjectKind::Dynamic {
            return Err(format!("it is an {} file, but not a dynamic library", library.format));
        }
        match &file {
            File::Elf32(file) => library.elf(file)?,
            File::Elf64(file) => library.elf(file)?,
            File::MachO32(file) => library.macho(file)?,
            File::MachO64(file) => library.macho(file)?,
            _ => {}
        }
        library.names(&file)?;
        library.find_sanitizers();
        Ok(library)
    }

    /// Symbols and libraries.
    fn names(&mut self, file: &File<'_>) -> Result<(), String> {
        let underscored = self.format == "Mach-O";
        let plain = |name: &[u8]| {
            let name = if underscored {
                name.strip_prefix(b"_").unwrap_or(name)
            } else {
                name
            };
            clean(name)
        };
        for export in file.exports().map_err(text)?.take(MOST) {
            let export = export.map_err(text)?;
            // The names of a version script are no functions.
            if matches!(export.target(), ExportTarget::Absolute { .. }) {
                continue;
            }
            if let NameOrOrdinal::Name(name) = export.name() {
                self.exports.push(plain(name));
            }
        }
        let cpp = |name: &String| CPP.iter().any(|prefix| name.starts_with(prefix));
        self.cpp_exports = self.exports.iter().filter(|name| cpp(name)).count();
        self.exports
            .retain(|name| !cpp(name) && !LINKER.contains(&name.as_str()));
        for import in file.imports().map_err(text)?.take(MOST) {
            if let NameOrOrdinal::Name(name) = import.map_err(text)?.name() {
                self.imports.push(plain(name));
            }
        }
        for library in file.import_libraries().map_err(text)?.take(MOST) {
            self.needed.push(clean(library.map_err(text)?.name()));
        }
        for list in [&mut self.exports, &mut self.imports] {
            list.sort();
            list.dedup();
        }
        Ok(())
    }

    fn elf<E: FileHeader<Endian = Endianness>>(&mut self, file: &ElfFile<'_, E>) -> Result<(), String> {
        let endian = file.endian();
        let table = file.elf_dynamic_table().map_err(text)?;
        for entry in table.iter().take(MOST) {
            let string = || table.string(entry).map(clean).map_err(text);
            match entry.tag {
                elf::DT_SONAME => self.soname = Some(string()?),
                elf::DT_RPATH => self.search.push(format!("RPATH {}", string()?)),
                elf::DT_RUNPATH => self.search.push(format!("RUNPATH {}", string()?)),
                elf::DT_TEXTREL => self.text_relocations = true,
                elf::DT_FLAGS if entry.val & DF_TEXTREL != 0 => self.text_relocations = true,
                _ => {}
            }
        }
        // Without the header, old rules make the stack executable on most machines.
        let stack = file
            .elf_program_headers()
            .iter()
            .find(|header| header.p_type(endian) == elf::PT_GNU_STACK);
        self.executable_stack = Some(stack.is_none_or(|header| header.p_flags(endian).contains(elf::PF_X)));
        Ok(())
    }

    fn macho<M: MachHeader<Endian = Endianness>>(&mut self, file: &MachOFile<'_, M>) -> Result<(), String> {
        let endian = file.endian();
        let mut commands = file.macho_load_commands().map_err(text)?;
        while let Some(command) = commands.next().map_err(text)? {
            if command.cmd() == macho::LC_RPATH {
                let path: &macho::RpathCommand<Endianness> = command.data().map_err(text)?;
                let path = command.string(endian, path.path).map_err(text)?;
                self.search.push(format!("RPATH {}", clean(path)));
            }
            if command.cmd() == macho::LC_ID_DYLIB {
                let id: &macho::DylibCommand<Endianness> = command.data().map_err(text)?;
                self.soname = Some(clean(command.string(endian, id.dylib.name).map_err(text)?));
            }
        }
        Ok(())
    }

    fn find_sanitizers(&mut self) {
        for (prefix, library, name) in SANITIZERS {
            let symbol = self
                .imports
                .iter()
                .chain(&self.exports)
                .any(|symbol| symbol.starts_with(prefix));
            let linked = self.needed.iter().any(|needed| needed.contains(library));
            if symbol || linked {
                self.sanitizers.push(name);
            }
        }
    }

    /// True if it is for this machine and system.
    pub fn is_for_here(&self) -> bool {
        let format = match std::env::consts::OS {
            "macos" | "ios" => "Mach-O",
            "windows" => "PE",
            _ => "ELF",
        };
        self.format == format && self.machine == std::env::consts::ARCH
    }

    /// Of [`RISKY`], what it asks for.
    pub fn risky(&self) -> Vec<&'static str> {
        let asks = |name: &&str| self.imports.iter().any(|import| import == name);
        RISKY.into_iter().filter(asks).collect()
    }

    /// What it exports beside entries of delegates.
    pub fn other_exports(&self) -> Vec<&str> {
        let names = self.exports.iter().map(String::as_str);
        names.filter(|name| !name.starts_with("dg_delegate_entry_v")).collect()
    }

    /// Major versions of the ABI that it exports an entry for.
    pub fn abi_majors(&self) -> Vec<u16> {
        let majors = self
            .exports
            .iter()
            .filter_map(|name| name.strip_prefix("dg_delegate_entry_v")?.parse().ok());
        majors.collect()
    }
}

/// `DF_TEXTREL` of `DT_FLAGS`.
const DF_TEXTREL: u64 = 4;

/// Prefixes of the C++ library's mangled names: functions of `std` and `__gnu_cxx`, their guards, tables and type names.
const CPP: [&str; 12] = [
    "_ZNSt",
    "_ZNKSt",
    "_ZSt",
    "_ZTISt",
    "_ZTSSt",
    "_ZTVSt",
    "_ZTTSt",
    "_ZZNSt",
    "_ZGVNSt",
    "_ZGVZNSt",
    "_ZN9__gnu_cxx",
    "_ZNK9__gnu_cxx",
];

/// Prefix of symbols, part of a library's name, and name of each sanitizer.
const SANITIZERS: [(&str, &str, &str); 5] = [
    ("__asan_", "libasan", "address"),
    ("__hwasan_", "libhwasan", "hwaddress"),
    ("__tsan_", "libtsan", "thread"),
    ("__msan_", "libmsan", "memory"),
    ("__ubsan_", "libubsan", "undefined behaviour"),
];

/// The slice of a universal Mach-O file that is for this machine; other files as they are.
fn slice(bytes: &[u8]) -> Result<&[u8], String> {
    fn pick<'a, A: FatArch>(arches: &[A], bytes: &'a [u8]) -> Result<&'a [u8], String> {
        let here = arches
            .iter()
            .find(|arch| machine(arch.architecture()) == std::env::consts::ARCH);
        let arch = here.or(arches.first()).ok_or("it holds no machine's code")?;
        arch.data(bytes).map_err(text)
    }
    match FileKind::parse(bytes).map_err(text)? {
        FileKind::MachOFat32 => {
            let file = object::read::macho::MachOFatFile32::parse(bytes).map_err(text)?;
            pick(file.arches(), bytes)
        }
        FileKind::MachOFat64 => {
            let file = object::read::macho::MachOFatFile64::parse(bytes).map_err(text)?;
            pick(file.arches(), bytes)
        }
        _ => Ok(bytes),
    }
}

fn machine(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "x86_64",
        Architecture::Aarch64 => "aarch64",
        Architecture::I386 => "x86",
        Architecture::Arm => "arm",
        Architecture::Riscv64 => "riscv64",
        Architecture::Riscv32 => "riscv32",
        _ => "another machine",
    }
}

/// A name out of a file, fit for a terminal and no longer than a line.
fn clean(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let plain = text.chars().take(500).map(|c| if c.is_control() { '?' } else { c });
    plain.collect()
}

fn text(error: object::read::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A small library; `None` where it cannot be built.
    fn built(source: &str, flags: &[&str]) -> Option<Vec<u8>> {
        let folder = tempfile::tempdir().ok()?;
        let (from, to) = (folder.path().join("a.c"), folder.path().join("a.so"));
        std::fs::write(&from, source).ok()?;
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-o"]).arg(&to).arg(&from).args(flags);
        if cfg!(not(target_os = "linux")) || !command.status().is_ok_and(|status| status.success()) {
            println!("skipped: facts of a library: no cc that makes one, or not Linux");
            return None;
        }
        std::fs::read(&to).ok()
    }

    #[test]
    fn facts_are_those_that_the_linker_was_told() {
        let source = "extern int asks(void);\nint gives(void) { return asks(); }\nint dg_delegate_entry_v3(void) { return 0; }\n";
        let flags = [
            "-Wl,-soname,liba.so.4",
            "-Wl,-rpath,/x/y",
            "-Wl,--no-as-needed",
            "-lm",
            "-Wl,-z,execstack",
        ];
        let Some(bytes) = built(source, &flags) else { return };
        let library = Library::parse(&bytes).unwrap();
        assert_eq!(
            (library.format, library.machine.as_str()),
            ("ELF", std::env::consts::ARCH)
        );
        assert!(library.exports.iter().any(|name| name == "gives"), "{library:?}");
        assert!(library.imports.iter().any(|name| name == "asks"), "{library:?}");
        assert!(
            library.needed.iter().any(|name| name.starts_with("libm.so")),
            "{library:?}"
        );
        assert_eq!(library.soname.as_deref(), Some("liba.so.4"));
        assert!(
            library.search.iter().any(|entry| entry.ends_with("PATH /x/y")),
            "{library:?}"
        );
        assert_eq!((library.executable_stack, library.abi_majors()), (Some(true), vec![3]));
        assert!(library.is_for_here() && library.sanitizers.is_empty());
    }

    #[test]
    fn damaged_libraries_are_errors_or_facts_and_no_panics() {
        let mut state = 1u64;
        let mut draw = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        // Headers of every format with noise behind them.
        let magics: [&[u8]; 7] = [
            b"\x7fELF\x02\x01\x01",
            b"\x7fELF\x01\x01\x01",
            b"MZ",
            b"\xcf\xfa\xed\xfe",
            b"\xfe\xed\xfa\xce",
            b"\xca\xfe\xba\xbe",
            b"\xca\xfe\xba\xbf",
        ];
        for i in 0..7_000 {
            let mut bytes: Vec<u8> = (0..draw() % 2000)
                .map(|_| draw() as u8 & [0xff, 0x03, 0x01][i % 3])
                .collect();
            let magic = magics[i % magics.len()];
            bytes.splice(0..magic.len().min(bytes.len()), magic.iter().copied());
            let _ = Library::parse(&bytes);
        }
        let Some(good) = built("int gives(void) { return 0; }\n", &[]) else {
            return;
        };
        let (mut sound, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=draw() % 4 {
                let reach = if draw() % 2 == 0 {
                    1024.min(bytes.len())
                } else {
                    bytes.len()
                };
                let at = draw() % (reach - 8);
                let word = [0, 1, u64::MAX, u64::MAX >> 1, 1 << 31, draw() as u64][draw() % 6];
                bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
            }
            if draw() % 4 == 0 {
                bytes.truncate(draw() % bytes.len());
            }
            match Library::parse(&bytes) {
                Ok(_) => sound += 1,
                Err(_) => refused += 1,
            }
        }
        assert!(sound > 1000 && refused > 1000, "{sound} read, {refused} refused");
    }

    #[test]
    fn names_are_fit_for_a_terminal() {
        assert_eq!(clean(b"a\x1b[31mb\n"), "a?[31mb?");
        assert_eq!(clean(&[b'x'; 1000]).len(), 500);
    }
}
