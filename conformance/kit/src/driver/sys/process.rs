//! What a library may not change of the process that it is in.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// The state of the process that everybody in it shares.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Shared {
    pub folder: Option<PathBuf>,
    pub environment: BTreeMap<OsString, OsString>,
    pub umask: u32,
    /// Results of arithmetic that depend on how the calling thread rounds and what it does with subnormal numbers, by what is computed.
    pub arithmetic: Vec<(&'static str, u64)>,
    /// Signal, address of its handler, flags.
    pub handlers: Vec<(i32, usize, i32)>,
}

impl Shared {
    /// As it is now, on this thread.
    pub fn now() -> Shared {
        Shared {
            folder: std::env::current_dir().ok(),
            environment: std::env::vars_os().collect(),
            umask: umask(),
            arithmetic: arithmetic(),
            handlers: handlers(),
        }
    }

    /// The first thing that is not as it was, in words.
    pub fn changed(&self, before: &Shared) -> Option<String> {
        if self.folder != before.folder {
            return Some(format!(
                "the working folder: it was {:?}, it is {:?}",
                before.folder, self.folder
            ));
        }
        let names = self.environment.keys().chain(before.environment.keys());
        for name in names {
            let (was, is) = (before.environment.get(name), self.environment.get(name));
            if was != is {
                return Some(format!(
                    "the environment variable {name:?}: it was {was:?}, it is {is:?}"
                ));
            }
        }
        if self.umask != before.umask {
            return Some(format!("the umask: it was {:o}, it is {:o}", before.umask, self.umask));
        }
        for ((what, is), (_, was)) in self.arithmetic.iter().zip(&before.arithmetic) {
            if is != was {
                return Some(format!(
                    "the mode of floating point: {what} was {was:#x}, it is {is:#x}"
                ));
            }
        }
        self.handler_changed(before)
    }

    /// The first signal that is handled in another way than it was, in words.
    pub fn handler_changed(&self, before: &Shared) -> Option<String> {
        for (is, was) in self.handlers.iter().zip(&before.handlers) {
            if is != was {
                return Some(format!(
                    "the handler of signal {}: it was {:#x} with flags {:#x}, it is {:#x} with flags {:#x}",
                    is.0, was.1, was.2, is.1, is.2
                ));
            }
        }
        None
    }
}

fn umask() -> u32 {
    use rustix::fs::Mode;
    // It can be read only by setting it; cases are alone in their process.
    let mask = rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::process::umask(mask);
    mask.as_raw_mode() as u32
}

fn arithmetic() -> Vec<(&'static str, u64)> {
    let third = |sign: f64| (black_box(sign) / black_box(3.0)).to_bits();
    let subnormal = f64::from_bits(1 << 40);
    vec![
        ("1/3 in f64", third(1.0)),
        ("-1/3 in f64", third(-1.0)),
        ("1/3 in f32", u64::from((black_box(1f32) / black_box(3f32)).to_bits())),
        ("-1/3 in f32", u64::from((black_box(-1f32) / black_box(3f32)).to_bits())),
        (
            "a subnormal number halved",
            (black_box(subnormal) * black_box(0.5)).to_bits(),
        ),
        (
            "the smallest normal number of f32 halved",
            u64::from((black_box(f32::MIN_POSITIVE) * black_box(0.5)).to_bits()),
        ),
    ]
}

fn handlers() -> Vec<(i32, usize, i32)> {
    let mut all = Vec::new();
    for signal in 1..=64 {
        // SAFETY: without a new action it only reads; the place of the old one is valid.
        let (status, old) = unsafe {
            let mut old: libc::sigaction = std::mem::zeroed();
            (libc::sigaction(signal, std::ptr::null(), &mut old), old)
        };
        if status == 0 {
            all.push((signal, old.sa_sigaction, old.sa_flags));
        }
    }
    all
}

/// Threads of this process; `None` where the system does not say.
pub fn threads() -> Option<usize> {
    std::fs::read_dir("/proc/self/task").ok().map(Iterator::count)
}

/// Runs something with the process's standard output going to a file: what it wrote, also what C's library had not written out yet.
///
/// # Errors
/// The system gives no file, or does not let itself be redirected.
pub fn stdout_of(body: impl FnOnce()) -> Result<Vec<u8>, String> {
    let text = |error: std::io::Error| format!("standard output cannot be redirected: {error}");
    let mut file: File = tempfile::tempfile().map_err(text)?;
    flush().map_err(text)?;
    // SAFETY: descriptor 1 is the process's own; a copy of it is kept.
    let kept = unsafe { libc::dup(1) };
    // SAFETY: both are open.
    if kept < 0 || unsafe { libc::dup2(file.as_raw_fd(), 1) } < 0 {
        return Err(text(std::io::Error::last_os_error()));
    }
    body();
    let flushed = flush();
    // SAFETY: both are open; the copy is not used again.
    let back = unsafe { (libc::dup2(kept, 1), libc::close(kept)).0 };
    if back < 0 {
        return Err(text(std::io::Error::last_os_error()));
    }
    flushed.map_err(text)?;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).map_err(text)?;
    file.read_to_end(&mut bytes).map_err(text)?;
    Ok(bytes)
}

fn flush() -> std::io::Result<()> {
    // SAFETY: it writes out every stream of C's library; none is closed meanwhile.
    unsafe { libc::fflush(std::ptr::null_mut()) };
    std::io::stdout().flush()
}
