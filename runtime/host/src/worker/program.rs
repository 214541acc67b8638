//! What a program needs to be started in a sandbox: the files that the kernel executes for it, and the folders that it reads before it is itself.
//!
//! A script is started by its interpreter, and that by the system's dynamic linker: each is a file of its own that has to be allowed. What is
//! installed under a prefix (`PREFIX/bin/NAME`) has its libraries in `PREFIX/lib` and `PREFIX/lib64`; a Python environment says in
//! `PREFIX/pyvenv.cfg` whose it is.

use object::Endianness;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader as _};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Interpreters of interpreters; Linux follows as many.
const MOST_INTERPRETERS: usize = 5;
/// What is read of a program's beginning: its first line, or its segments.
const HEAD: u64 = 1 << 16;
/// What is read of `pyvenv.cfg`.
const SETTINGS: u64 = 1 << 14;
/// Where programs lie for a process that heeds no `PATH`.
const WITHOUT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What is allowed so that a program starts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Files that are executed.
    pub run: Vec<PathBuf>,
    /// Files and folders that are read; some may not be there.
    pub read: Vec<PathBuf>,
}

/// The needs of a program, by its path, or by its name as `path` (in the form of `PATH`) has it. Nothing for one that is not there: whoever
/// starts it hears so from the system.
pub(crate) fn needs(program: &OsStr, path: Option<&OsStr>) -> Needs {
    let path = path.unwrap_or(OsStr::new(WITHOUT_PATH));
    let mut needs = Needs::default();
    if let Some(file) = find(program, path) {
        needs.add(&file, path, MOST_INTERPRETERS);
    }
    needs
}

/// A program's file. A name without a folder is looked for as the system does; folders of `PATH` that are relative are passed over, since the
/// program is not started where this process is.
fn find(program: &OsStr, path: &OsStr) -> Option<PathBuf> {
    let executable = |file: &Path| {
        let metadata = file.metadata().ok();
        metadata.is_some_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    if program.is_empty() {
        return None;
    }
    if program.as_encoded_bytes().contains(&b'/') {
        return std::path::absolute(program).ok().filter(|file| executable(file));
    }
    let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(program)).find(|file| executable(file))
}

impl Needs {
    fn add(&mut self, file: &Path, path: &OsStr, interpreters: usize) {
        let real = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
        // By both names: a Python environment is where the link is, its library where the file is.
        self.installed_with(file);
        self.installed_with(&real);
        if self.run.contains(&real) {
            return;
        }
        self.run.push(real.clone());
        let mut head = Vec::new();
        let read = std::fs::File::open(&real).and_then(|file| file.take(HEAD).read_to_end(&mut head));
        if read.is_err() {
            return;
        }
        if let Some((interpreter, argument)) = first_line(&head) {
            if interpreters == 0 {
                return;
            }
            // `#!/usr/bin/env python3`: the program is what `env` finds.
            if interpreter.file_name() == Some(OsStr::new("env"))
                && let Some(found) = by_env(&argument).and_then(|name| find(&name, path))
            {
                self.add(&found, path, interpreters - 1);
            }
            if interpreter.is_absolute() {
                self.add(&interpreter, path, interpreters - 1);
            }
        } else if let Some(linker) = linker(&head) {
            let real = linker.canonicalize().unwrap_or(linker);
            if !self.run.contains(&real) {
                self.run.push(real);
            }
        }
    }

    /// Libraries of what is installed in `PREFIX/bin`.
    fn installed_with(&mut self, file: &Path) {
        let Some(place) = prefix(file) else { return };
        self.libraries(place);
        let settings = place.join("pyvenv.cfg");
        let mut text = String::new();
        let opened = std::fs::File::open(&settings);
        if opened
            .and_then(|file| file.take(SETTINGS).read_to_string(&mut text))
            .is_err()
        {
            return;
        }
        self.reads(settings);
        // The Python that the environment was made of, where it was copied and not linked.
        let home = text.lines().filter_map(|line| line.split_once('='));
        let home = home
            .filter(|(key, _)| key.trim() == "home")
            .map(|(_, value)| value.trim());
        for home in home {
            let python = Path::new(home).join("python");
            if let Some(base) = prefix(&python) {
                self.libraries(base);
            }
        }
    }

    fn libraries(&mut self, prefix: &Path) {
        ["lib", "lib64"].iter().for_each(|name| self.reads(prefix.join(name)));
    }

    fn reads(&mut self, path: PathBuf) {
        if !self.read.contains(&path) {
            self.read.push(path);
        }
    }
}

/// `PREFIX` of an absolute `PREFIX/bin/NAME`. The root of the file system is none.
fn prefix(file: &Path) -> Option<&Path> {
    let folder = file.parent()?;
    let prefix = folder.parent()?;
    let is_bin = folder.file_name() == Some(OsStr::new("bin"));
    (is_bin && prefix.is_absolute() && prefix.parent().is_some()).then_some(prefix)
}

/// A script's interpreter and the one argument that it is given.
fn first_line(head: &[u8]) -> Option<(PathBuf, OsString)> {
    use std::os::unix::ffi::OsStrExt;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = line.trim_ascii();
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let (interpreter, argument) = line.split_at(end);
    let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_os_string();
    (!interpreter.is_empty()).then(|| (PathBuf::from(text(interpreter)), text(argument.trim_ascii())))
}

/// The program that `env` starts: its first word that is neither an option nor a variable.
fn by_env(argument: &OsStr) -> Option<OsString> {
    let words = argument.to_str()?.split_ascii_whitespace();
    let mut words = words.filter(|word| !word.starts_with('-') && !word.contains('='));
    words.next().map(OsString::from)
}

/// The dynamic linker of an ELF program.
fn linker(head: &[u8]) -> Option<PathBuf> {
    match head.get(..5)? {
        b"\x7fELF\x02" => linker_of::<elf::FileHeader64<Endianness>>(head),
        b"\x7fELF\x01" => linker_of::<elf::FileHeader32<Endianness>>(head),
        _ => None,
    }
}

fn linker_of<Header: FileHeader<Endian = Endianness>>(head: &[u8]) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    let header = Header::parse(head).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, head).ok()?;
    let segment = segments
        .iter()
        .find_map(|segment| segment.interpreter(endian, head).ok().flatten())?;
    Some(PathBuf::from(OsStr::from_bytes(segment)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Place {
            let folder = std::env::temp_dir().join(format!("delegraph-program-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            Place(folder.canonicalize().unwrap())
        }

        fn program(&self, at: &str, text: &str) -> PathBuf {
            let file = self.0.join(at);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            file
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_script_of_an_environment_needs_its_interpreter_and_the_libraries_of_both() {
        let place = Place::new("venv");
        let at = |path: &str| place.0.join(path);
        let python = place.program("base/bin/python3.11", "not ELF");
        fs::create_dir_all(at("venv/bin")).unwrap();
        symlink(&python, at("venv/bin/python")).unwrap();
        fs::write(
            at("venv/pyvenv.cfg"),
            format!("home = {}\nversion = 3\n", at("other/bin").display()),
        )
        .unwrap();
        let tool = place.program(
            "venv/bin/tool",
            &format!("#!{} -I\nx\n", at("venv/bin/python").display()),
        );
        let expected = Needs {
            run: vec![tool.clone(), python],
            read: [
                "venv/lib",
                "venv/lib64",
                "venv/pyvenv.cfg",
                "other/lib",
                "other/lib64",
                "base/lib",
                "base/lib64",
            ]
            .map(at)
            .to_vec(),
        };
        assert_eq!(needs(tool.as_os_str(), None), expected);
        // By its name in `PATH`, and through a link that lies elsewhere.
        let elsewhere = at("somewhere");
        fs::create_dir(&elsewhere).unwrap();
        symlink(&tool, elsewhere.join("linked")).unwrap();
        let path = std::env::join_paths([Path::new("relative"), Path::new("/nowhere"), &elsewhere]).unwrap();
        assert_eq!(needs(OsStr::new("linked"), Some(&path)), expected);
    }

    #[test]
    fn what_env_starts_is_found_and_interpreters_of_interpreters_end() {
        let place = Place::new("env");
        let found = place.program("bin/found", "#!/no/such/interpreter\n");
        let script = place.program("script", "#!/usr/bin/env -S A=b found -x\n");
        let path = place.0.join("bin").into_os_string();
        let have = needs(script.as_os_str(), Some(&path));
        assert_eq!(have.run[..2], [script, found]);
        assert!(have.run.contains(&Path::new("/usr/bin/env").canonicalize().unwrap()));
        let selves = place.0.join("self");
        place.program("self", &format!("#!{}\n", selves.display()));
        assert_eq!(needs(selves.as_os_str(), None).run, [selves]);
    }

    #[test]
    fn a_program_of_the_system_needs_its_linker() {
        let have = needs(OsStr::new("sh"), None);
        assert_eq!(have.run.len(), 2, "{have:?}");
        assert!(have.run[1].to_string_lossy().contains("ld-"), "{have:?}");
    }

    #[test]
    fn nothing_is_allowed_for_what_is_no_program_and_no_folder_is_opened_by_chance() {
        let place = Place::new("none");
        let plain = place.program("plain", "x");
        fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
        for wrong in [
            plain.as_os_str(),
            place.0.as_os_str(),
            OsStr::new(""),
            OsStr::new("no-such-program"),
            OsStr::new(".."),
        ] {
            assert_eq!(needs(wrong, Some(place.0.as_os_str())), Needs::default(), "{wrong:?}");
        }
        // Not under a prefix: its folder may be a home.
        let lone = place.program("lone", "x");
        assert_eq!(
            needs(lone.as_os_str(), None),
            Needs {
                run: vec![lone],
                read: Vec::new()
            }
        );
        for file in ["/bin/x", "bin/x", "/x", "x"] {
            assert_eq!(prefix(Path::new(file)), None, "{file}");
        }
        for broken in [&b"\x7fELF\x02"[..], b"\x7fELF", b"#!", b"#!\n", b""] {
            assert_eq!((linker(broken), first_line(broken)), (None, None));
        }
    }
}
