//! One worker process and the conversation with it.

use super::protocol::{Reply, Request, control};
use super::sys::{self, Page};
use crate::call::{CallOptions, Progress, lock};
use delegraph_abi::c::LogLevel;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a delegate may take to notice that its deadline has passed or that it was cancelled, before its process is ended.
pub(crate) const GRACE: Duration = Duration::from_millis(200);
/// How often a waiting call looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(5);

/// A running worker.
pub(crate) struct Process {
    child: Mutex<Group>,
    /// Readable when it has ended.
    pub ended: OwnedFd,
    socket: UnixStream,
    replies: Mutex<Receiver<(Reply, Vec<OwnedFd>)>>,
    control: Page,
    dead: AtomicBool,
    temp: Option<TempFolder>,
    /// Number among the workers of its delegate.
    pub generation: u64,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Silence {
    /// The process has ended: how.
    Died(String),
    /// It was ended, since the deadline passed.
    Late,
    /// It was ended, since nobody wants the result and it did not stop.
    Unwanted,
}

impl Process {
    /// Starts the worker binary.
    pub fn start(binary: &Path, backend: &Arc<str>, generation: u64, temp: bool) -> std::io::Result<Process> {
        let temp = if temp { Some(TempFolder::new()?) } else { None };
        let control = Page::new(control::WORDS)?;
        let (ours, theirs) = UnixStream::pair()?;
        let socket = ours.try_clone()?;
        let mut command = Command::new(binary);
        command
            .arg(format!("--delegraph-worker={backend}"))
            // What it starts is ended with it.
            .process_group(0)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            // A delegate writes nothing to standard output; one that does must not write into the app's.
            .stdout(Stdio::null());
        let (sender, replies) = channel();
        let (started, child) = channel();
        let name = backend.clone();
        // It ends when the worker's end of the socket is closed, which its death does. It starts the worker too: Linux counts as
        // a process's parent the thread that started it, and a worker ends with its parent.
        std::thread::Builder::new()
            .name(format!("delegraph-worker-{backend}"))
            .spawn(move || {
                let child = command.spawn();
                // With it goes this process's copy of the worker's end.
                drop(command);
                let failed = child.is_err();
                if started.send(child).is_err() || failed {
                    return;
                }
                while let Ok(Some((bytes, files))) = sys::receive(&ours) {
                    match serde_json::from_slice(&bytes) {
                        Ok(Reply::Log { level, text }) => crate::api::log(&name, LogLevel(level), &text),
                        Ok(reply) => {
                            if sender.send((reply, files)).is_err() {
                                break;
                            }
                        }
                        Err(_) => break,
                    }
                }
            })?;
        let mut child = child.recv().map_err(std::io::Error::other)??;
        let pid = Pid::from_raw(child.id() as i32).ok_or_else(|| std::io::Error::other("it has no number"))?;
        let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty()).inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        })?;
        Ok(Process {
            child: Mutex::new(Group { child, how: None }),
            ended,
            socket,
            replies: Mutex::new(replies),
            control,
            dead: AtomicBool::new(false),
            temp,
            generation,
        })
    }

    /// The page that a call is cancelled by.
    pub fn control(&self) -> BorrowedFd<'_> {
        self.control.file.as_fd()
    }

    /// Its folder for temporary files.
    pub fn temp(&self) -> Option<&Path> {
        self.temp.as_ref().map(|folder| folder.0.as_path())
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Asks, and waits for the answer. One call at a time.
    pub fn ask(
        &self,
        request: &Request,
        files: &[BorrowedFd<'_>],
        options: &CallOptions<'_>,
    ) -> Result<(Reply, Vec<OwnedFd>), Silence> {
        let replies = lock(&self.replies);
        if self.is_dead() {
            return Err(Silence::Died("it has ended".to_string()));
        }
        self.control.set(control::CANCEL, 0);
        let bytes = serde_json::to_vec(request).unwrap_or_default();
        if sys::send(&self.socket, &bytes, files).is_err() {
            return Err(Silence::Died(self.end()));
        }
        let mut stop_at: Option<Instant> = None;
        loop {
            match replies.recv_timeout(LOOK) {
                Ok((Reply::Progress { done, total, text }, _)) => {
                    if let Some(progress) = options.progress {
                        let text = text.as_str();
                        progress(Progress { done, total, text });
                    }
                }
                Ok(reply) => return Ok(reply),
                Err(RecvTimeoutError::Disconnected) => return Err(Silence::Died(self.end())),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let late = options.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if late || options.is_cancelled() {
                // A deadline is the worker's to see; it was told.
                self.control.set(control::CANCEL, u64::from(options.is_cancelled()));
                let stop_at = *stop_at.get_or_insert_with(|| Instant::now() + GRACE);
                if Instant::now() >= stop_at {
                    self.end();
                    return Err(if late { Silence::Late } else { Silence::Unwanted });
                }
            }
        }
    }

    /// Ends the process, if it has not ended, and says how it ended.
    pub fn end(&self) -> String {
        self.dead.store(true, Ordering::Release);
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        // A moment for one that is ending by itself, so that it says how.
        lock(&self.child).end(20)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_dead() {
            // The worker ends when its socket does, and shuts its delegate down first.
            let _ = self.socket.shutdown(std::net::Shutdown::Write);
            lock(&self.child).end(1000);
        }
    }
}

/// A worker with the programs that it started: its process group.
struct Group {
    child: Child,
    /// How it ended; its number may be another's by then.
    how: Option<String>,
}

impl Group {
    /// Ends all of it, and says how the worker ended: by itself, if it does within so many milliseconds.
    fn end(&mut self, milliseconds: u32) -> String {
        if let Some(how) = &self.how {
            return how.clone();
        }
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            // Looked at and not taken away: until it is, the number is that of this worker and its group, and of nobody else.
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            for _ in 0..milliseconds {
                if !matches!(rustix::process::waitid(WaitId::Pid(pid), look), Ok(None)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.kill();
        let how = self.child.wait().map_or("it has ended".to_string(), how);
        self.how = Some(how.clone());
        how
    }
}

/// A folder that is removed with what is in it.
struct TempFolder(PathBuf);

impl TempFolder {
    fn new() -> std::io::Result<TempFolder> {
        use std::os::unix::fs::DirBuilderExt;
        let name = format!("delegraph-worker-{}-{:x}", std::process::id(), crate::now_ns());
        let folder = std::env::temp_dir().join(name);
        // Fails where there is one: it could be somebody else's.
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(TempFolder(folder))
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `it was ended by signal 11 (SIGSEGV)`
fn how(status: std::process::ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => match Signal::from_named_raw(signal) {
            Some(named) => format!("it was ended by signal {signal} ({named:?})"),
            None => format!("it was ended by signal {signal}"),
        },
        (None, Some(code)) => format!("it left by itself with status {code}"),
        (None, None) => "it has ended".to_string(),
    }
}
