//! Runs Arm's compiler Vela on a TOSA file, and reads what it writes: a numpy archive of stored members.

use crate::target::Target;
use delegraph_ethos_u_sim::container::write_blocks;
use delegraph_sdk::{Context, Error, Status};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The tool.
#[derive(Debug, Clone)]
pub struct Vela {
    /// Its path, or its name to look for in `PATH`.
    pub program: PathBuf,
    /// Memory mode, in place of the target's preset; empty: that one.
    pub memory_mode: String,
    /// What it says its version is, once it was asked.
    version: OnceLock<String>,
}

fn missing(program: &Path, error: &std::io::Error) -> Error {
    // In a sandbox that has nothing to start the system says that starting is forbidden, and not what is missing.
    let problem = match found(program) {
        true => format!("cannot be started as `{}`: {error}", program.display()),
        false if program.components().count() > 1 => format!("is not here: there is no `{}`", program.display()),
        false => format!("is not here: there is no `{}` in `PATH`", program.display()),
    };
    Error::new(Status::DEPENDENCY_MISSING, format!("Arm's compiler Vela {problem}"))
        .hint("install `ethos-u-vela` with pip, or name it by the option `vela`")
}

fn found(program: &Path) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    // A path that is absolute stays as it is.
    program.is_file() || (program.components().count() == 1 && folders.any(|folder| folder.join(program).is_file()))
}

/// How often a call that waits for the tool says so.
const SAY: Duration = Duration::from_secs(1);

impl Vela {
    /// The tool that the option `vela` names; empty: `vela` in `PATH`.
    pub fn new(program: &str, memory_mode: &str) -> Vela {
        let program = match program {
            "" => PathBuf::from("vela"),
            // It is started in another folder than this process is in.
            path if path.contains('/') => std::path::absolute(path).unwrap_or_else(|_| path.into()),
            name => name.into(),
        };
        Vela {
            program,
            memory_mode: memory_mode.to_string(),
            version: OnceLock::new(),
        }
    }

    /// Compiles a TOSA file for a target; gives the blocks of a `vela_bin_stream`, and Vela's version.
    ///
    /// # Errors
    /// The tool is not there, refuses the graph (in its own words), or was cancelled.
    pub fn compile(&self, graph: &[u8], target: &Target, context: &Context<'_>) -> Result<(Vec<u8>, String), Error> {
        let folder = Folder::new()?;
        let source = folder.path.join("region.tosa");
        std::fs::write(&source, graph)
            .map_err(|e| Error::internal(format!("cannot write {}: {e}", source.display())))?;
        let version = match self.version.get() {
            Some(version) => version.clone(),
            None => {
                let said = self.run(&["--version"], &folder, context)?.trim().to_string();
                self.version.get_or_init(|| said).clone()
            }
        };
        let (system, preset) = target.preset();
        let memory = if self.memory_mode.is_empty() {
            preset
        } else {
            &self.memory_mode
        };
        let (source, out) = (source.display().to_string(), folder.path.display().to_string());
        let arguments = [
            &source,
            "--accelerator-config",
            target.name,
            "--config",
            "Arm/vela.ini",
            "--system-config",
            system,
            "--memory-mode",
            memory,
            "--output-format",
            "raw",
            "--output-dir",
            &out,
        ];
        self.run(&arguments, &folder, context)?;
        let archive = folder.path.join("region_vela.npz");
        let bytes = std::fs::read(&archive)
            .map_err(|e| Error::internal(format!("Vela wrote no {}: {e}", archive.display())))?;
        Ok((network(&bytes)?, version))
    }

    /// Runs the tool to its end; gives what it printed.
    fn run(&self, arguments: &[&str], folder: &Folder, context: &Context<'_>) -> Result<String, Error> {
        let log = folder.path.join("log");
        let file = std::fs::File::create(&log).map_err(|e| Error::internal(format!("{}: {e}", log.display())))?;
        let errors = file.try_clone().map_err(|e| Error::internal(e.to_string()))?;
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(&folder.path);
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let mut child = Running(command.spawn().map_err(|e| missing(&self.program, &e))?);
        let status = wait(&mut child.0, context)?;
        let text = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
        match status {
            true => Ok(text),
            false => Err(Error::unsupported(format!("Vela: {}", words(&text)))),
        }
    }
}

/// The line that says why.
fn words(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let telling = lines.iter().rev().find(|line| line.contains("rror"));
    telling
        .or(lines.last())
        .map_or("it failed and said nothing".to_string(), |line| line.to_string())
}

/// The tool while it runs. It does not outlive its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for the tool, and says how long it has been at it; an error when the call is over.
fn wait(child: &mut Child, context: &Context<'_>) -> Result<bool, Error> {
    let started = Instant::now();
    let mut next = Duration::ZERO;
    loop {
        let elapsed = started.elapsed();
        if elapsed >= next {
            next += SAY;
            context.progress(0, 0, &format!("Vela compiles the region, {} s", elapsed.as_secs()));
        }
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status.success()),
            Ok(None) => {}
            Err(error) => return Err(Error::internal(format!("Vela is lost: {error}"))),
        }
        let late = context.time_left().is_some_and(|left| left.is_zero());
        if context.is_cancelled() || late {
            let status = if late { Status::TIMEOUT } else { Status::CANCELLED };
            return Err(Error::new(status, "Vela was ended before it was done"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A folder that goes with its owner.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new() -> Result<Folder, Error> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("delegraph-ethos-u-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path)
            .map_err(|e| Error::internal(format!("no folder for temporary files, {}: {e}", path.display())))?;
        Ok(Folder { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// An array of numpy's.
struct Array<'a> {
    kind: String,
    data: &'a [u8],
}

impl Array<'_> {
    fn numbers(&self) -> Result<Vec<i64>, Error> {
        match self.kind.as_str() {
            "<i8" => Ok(self
                .data
                .as_chunks::<8>()
                .0
                .iter()
                .map(|b| i64::from_le_bytes(*b))
                .collect()),
            "<i4" => {
                let all = self.data.as_chunks::<4>().0.iter();
                Ok(all.map(|b| i64::from(i32::from_le_bytes(*b))).collect())
            }
            // An empty list has the type of floats.
            "<f8" if self.data.is_empty() => Ok(Vec::new()),
            other => Err(Error::corrupt(format!(
                "Vela wrote an array of `{other}` in place of integers"
            ))),
        }
    }
}

fn arrays(bytes: &[u8]) -> Result<HashMap<String, Array<'_>>, Error> {
    let bad = |e: rawzip::Error| Error::corrupt(format!("Vela wrote no readable archive: {e}"));
    let zip = rawzip::ZipArchive::from_slice(bytes).map_err(bad)?;
    let mut entries = zip.entries();
    let mut all = HashMap::new();
    while let Some(header) = entries.next_entry().map_err(bad)? {
        let path = header.file_path();
        let name = String::from_utf8_lossy(path.as_ref())
            .trim_end_matches(".npy")
            .to_string();
        if header.compression_method() != rawzip::CompressionMethod::STORE {
            return Err(Error::corrupt(format!("`{name}` of Vela's archive is compressed")));
        }
        let entry = zip.get_entry(header.wayfinder()).map_err(bad)?;
        let (start, end) = entry.compressed_data_range();
        let member = usize::try_from(start)
            .ok()
            .zip(usize::try_from(end).ok())
            .and_then(|(start, end)| bytes.get(start..end))
            .ok_or_else(|| Error::corrupt(format!("`{name}` lies outside Vela's archive")))?;
        all.insert(
            name.clone(),
            array(member).ok_or_else(|| Error::corrupt(format!("`{name}` is no array")))?,
        );
    }
    Ok(all)
}

/// Magic, version, length of the header, a Python dictionary, elements.
fn array(bytes: &[u8]) -> Option<Array<'_>> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (version, rest) = rest.split_first_chunk::<2>()?;
    let (length, rest) = match version[0] {
        1 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        _ => {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
    };
    let (header, data) = rest.split_at_checked(length)?;
    let text = std::str::from_utf8(header).ok()?;
    let kind = text.split("'descr': '").nth(1)?.split('\'').next()?.to_string();
    Some(Array { kind, data })
}

/// The archive as the blocks that ExecuTorch makes of it, and the size of the fast scratch memory.
fn network(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let arrays = arrays(bytes)?;
    let find = |name: &str| {
        arrays
            .get(name)
            .ok_or_else(|| Error::corrupt(format!("Vela's archive has no `{name}`")))
    };
    let one = |name: &str| -> Result<i64, Error> {
        let numbers = find(name)?.numbers()?;
        numbers
            .first()
            .copied()
            .ok_or_else(|| Error::corrupt(format!("`{name}` of Vela's archive is empty")))
    };
    let tensors = |kind: &str| -> Result<Vec<u8>, Error> {
        let list = |field: &str| find(&format!("{kind}_{field}"))?.numbers();
        let (shapes, sizes, regions, offsets) = (list("shape")?, list("elem_size")?, list("region")?, list("offset")?);
        if shapes.len() != 6 * sizes.len() || regions.len() != sizes.len() || offsets.len() != sizes.len() {
            return Err(Error::corrupt(format!(
                "the lists of `{kind}` in Vela's archive are of different lengths"
            )));
        }
        let mut out = (sizes.len() as u32).to_le_bytes().to_vec();
        for i in 0..sizes.len() {
            let numbers = shapes[6 * i..6 * i + 6]
                .iter()
                .chain([&sizes[i], &offsets[i], &regions[i]]);
            for number in numbers {
                let number = i32::try_from(*number).map_err(|_| Error::corrupt("a size beyond 32 bits"))?;
                out.extend(number.to_le_bytes());
            }
        }
        Ok(out)
    };
    if !find("variable_elem_size")?.numbers()?.is_empty() {
        return Err(Error::unsupported("Vela made variables, which are not kept here"));
    }
    let size = |name: &str| -> Result<[u8; 4], Error> {
        let size = u32::try_from(one(name)?).map_err(|_| Error::corrupt(format!("`{name}` is no size")))?;
        Ok(size.to_le_bytes())
    };
    Ok(write_blocks(&[
        ("cmd_data", find("cmd_data")?.data),
        ("weight_data", find("weight_data")?.data),
        ("scratch_size", &size("scratch_shape")?),
        ("inputs", &tensors("input")?),
        ("outputs", &tensors("output")?),
        ("fast_size", &size("scratch_fast_shape")?),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_from_what_does_not_start() {
        let error = std::io::Error::from_raw_os_error(1);
        for (program, words) in [
            ("/no/such/vela", "is not here: there is no `/no/such/vela`"),
            ("no-such-vela", "is not here: there is no `no-such-vela` in `PATH`"),
            ("sh", "cannot be started as `sh`: Operation not permitted"),
        ] {
            let missing = missing(Path::new(program), &error);
            assert_eq!(missing.code, Status::DEPENDENCY_MISSING);
            assert!(missing.message.contains(words), "{}", missing.message);
        }
    }

    #[test]
    fn the_telling_line_is_shown() {
        let text = "Warning: x\nTraceback\nRuntimeError: Compilation failed: y\n\n";
        assert_eq!(words(text), "RuntimeError: Compilation failed: y");
        assert_eq!(words(""), "it failed and said nothing");
    }

    #[test]
    fn arrays_of_numpy_are_read() {
        let mut bytes = b"\x93NUMPY\x01\x00\x2a\x00{'descr': '<i8', 'shape': (2,), }          ".to_vec();
        bytes.truncate(10 + 42);
        bytes.extend([1i64, -2].iter().flat_map(|v| v.to_le_bytes()));
        assert_eq!(array(&bytes).unwrap().numbers().unwrap(), [1, -2]);
        assert!(array(&bytes[..20]).is_none());
    }
}
